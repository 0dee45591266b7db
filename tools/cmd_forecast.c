/* barcast forecast: one forecast from a file, without the pipeline. */
#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/calendar.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "gpuworker/engine/session.h"
#include "ingest/source.h"
#include "tools/command.h"
#include "tools/device.h"
#include "tools/forecast_view.h"
#include "tools/options.h"
#include "tools/samples.h"

enum { TEXT_BYTES = 256, COLUMNS_DEFAULT = 100 };

typedef struct {
    const char *input, *symbol, *model, *device, *precision, *quantiles, *fields, *format, *timezone, *days, *hours, *samples;
    uint32_t horizon, context, threads;
    uint64_t seed;
} arguments_t;

typedef struct {
    source_bar_t *bars;
    size_t count;
    size_t field[FORECAST_VIEW_FIELDS_MOST]; /* in shm_bar_fields */
    uint32_t target;                         /* of the variates */
    calendar_t *calendar;
    int64_t *times_ns; /* [context + horizon] */
    samples_t samples;
    model_shape_t shape;
    backend_t *backend;
    model_t *model;
    char revision[17];
    session_t *session;
} forecast_t;

/* ---- arguments ---------------------------------------------------------------------------------------------------------------- */

static int parse_fields(const char *list, forecast_t *forecast)
{
    char copy[TEXT_BYTES], *rest = copy, *word;

    snprintf(copy, sizeof copy, "%s", list);
    while ((word = strsep(&rest, ",")) != NULL) {
        size_t found = 0;

        while (found < SHM_BAR_FIELDS && strcmp(shm_bar_fields[found].name, word) != 0)
            found++;
        if (found == SHM_BAR_FIELDS)
            return error_set(-1, "--fields: \"%s\" is not open, high, low, close, volume or amount", word);
        for (uint32_t i = 0; i < forecast->shape.variates; i++)
            if (forecast->field[i] == found)
                return error_set(-1, "--fields: %s twice", word);
        forecast->field[forecast->shape.variates++] = found;
    }
    return 0;
}

static int parse_quantiles(const char *list, model_shape_t *shape)
{
    char copy[1024], *rest = copy, *word;
    double level;

    snprintf(copy, sizeof copy, "%s", list);
    while (*list != '\0' && (word = strsep(&rest, ",")) != NULL) {
        if (!text_to_f64(word, &level) || shape->quantile_count == MODEL_QUANTILES_MOST)
            return error_set(-1, "--quantiles: \"%s\" is not one of at most %d levels", word, MODEL_QUANTILES_MOST);
        shape->quantiles[shape->quantile_count++] = (float)level;
    }
    return 0;
}

static int parse(const arguments_t *arguments, forecast_t *forecast)
{
    static const char *const formats[] = {"table", "json", "csv"};
    bool known = false;

    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        known |= strcmp(arguments->format, formats[i]) == 0;
    if (!known)
        return error_set(-1, "--format: \"%s\" is not table, json or csv", arguments->format);
    forecast->shape =
        (model_shape_t){.batch = 1, .context = arguments->context, .horizon = arguments->horizon, .discard_samples = true};
    if (calendar_open(arguments->timezone, arguments->days, arguments->hours, &forecast->calendar) < 0)
        return -1;
    if (samples_parse(arguments->samples, &forecast->samples) < 0)
        return -1;
    if (*arguments->fields != '\0' && parse_fields(arguments->fields, forecast) < 0)
        return -1;
    return parse_quantiles(arguments->quantiles, &forecast->shape);
}

/* What the model wants where --fields does not say. */
static int choose_fields(const arguments_t *arguments, forecast_t *forecast)
{
    static const char whole_bar[] = "open,high,low,close,volume,amount", close[] = "close";
    model_info_t info;

    model_info(forecast->model, &info);
    if (info.whole_bars && *arguments->fields != '\0' && strcmp(arguments->fields, whole_bar) != 0)
        return error_set(-1, "--fields: this model takes whole bars: leave it out, or give %s", whole_bar);
    if (*arguments->fields == '\0' && parse_fields(info.whole_bars ? whole_bar : close, forecast) < 0)
        return -1;
    while (info.whole_bars && strcmp(shm_bar_fields[forecast->field[forecast->target]].name, close) != 0)
        forecast->target++;
    return 0;
}

/* ---- the forecast ------------------------------------------------------------------------------------------------------------- */

static int read_bars(const arguments_t *arguments, forecast_t *forecast)
{
    const char *ending = strrchr(arguments->input, '.');
    config_feed_t feed = {.type = CONFIG_FEED_CSV};
    size_t rejected = 0;

    if (ending != NULL && (strcmp(ending, ".ndjson") == 0 || strcmp(ending, ".jsonl") == 0))
        feed.type = CONFIG_FEED_NDJSON;
    if ((size_t)snprintf(feed.path, sizeof feed.path, "%s", arguments->input) >= sizeof feed.path)
        return error_set(-1, "--input: the path is longer than %d bytes", CONFIG_TEXT_BYTES - 1);
    if (source_read_all(&feed, arguments->symbol, &forecast->bars, &forecast->count, &rejected) < 0)
        return -1;
    if (rejected > 0)
        fprintf(stderr, "forecast: %zu bars of %s were rejected\n", rejected, arguments->input);
    if (forecast->count == 0)
        return error_set(-1, "%s: no bars", arguments->input);
    return 0;
}

static double value_of(const forecast_t *forecast, size_t bar, uint32_t variate)
{
    return shm_bar_value(&forecast->bars[bar].bar, &shm_bar_fields[forecast->field[variate]]);
}

static uint32_t length_of(const forecast_t *forecast)
{
    const model_shape_t *shape = session_shape(forecast->session);

    return forecast->count < shape->context ? (uint32_t)forecast->count : shape->context;
}

/* Open times of the context, ending with the newest bar, and of the future; before the first bar the time of nothing. */
static int list_times(forecast_t *forecast)
{
    const model_shape_t *shape = session_shape(forecast->session);
    const source_bar_t *newest = &forecast->bars[forecast->count - 1];

    forecast->times_ns = calloc((size_t)shape->context + shape->horizon, sizeof *forecast->times_ns);
    if (forecast->times_ns == NULL)
        return error_set(-1, "no memory for %u times", shape->context + shape->horizon);
    for (uint32_t t = shape->context - length_of(forecast); t < shape->context; t++)
        forecast->times_ns[t] = newest[(int64_t)t - shape->context + 1].bar.open_time_ns;
    calendar_following(forecast->calendar, newest->bar.open_time_ns, newest->interval_ns, shape->horizon,
                       forecast->times_ns + shape->context);
    return 0;
}

/* The newest bars into series 0, as the pipeline does it: at the end, masked where a field is not known. */
static void fill(const arguments_t *arguments, forecast_t *forecast)
{
    const model_shape_t *shape = session_shape(forecast->session);
    model_input_t *input = session_input(forecast->session);
    uint32_t length = length_of(forecast), padding = shape->context - length;
    const source_bar_t *newest = &forecast->bars[forecast->count - 1];

    memset(input->values, 0, (size_t)shape->variates * shape->context * sizeof *input->values);
    memset(input->mask, 0, (size_t)shape->variates * shape->context);
    for (uint32_t v = 0; v < shape->variates; v++) {
        for (uint32_t t = 0; t < length; t++) {
            double value = value_of(forecast, forecast->count - length + t, v);
            size_t at = (size_t)v * shape->context + padding + t;

            input->mask[at] = isfinite(value);
            input->values[at] = isfinite(value) ? (float)value : 0.0f;
        }
        input->group[v] = 0;
        input->log_price[v] = shm_bar_fields[forecast->field[v]].price;
    }
    input->length[0] = length;
    input->key[0] = model_random_key(arguments->seed, newest->symbol, newest->bar.open_time_ns);
    for (uint32_t t = 0; input->time_ns != NULL && t < shape->context + shape->horizon; t++)
        input->time_ns[t] = calendar_local_ns(forecast->calendar, forecast->times_ns[t]);
}

static int run(const arguments_t *arguments, forecast_t *forecast)
{
    const model_shape_t *shape = &forecast->shape;

    if (device_open(arguments->device, arguments->precision, arguments->threads, &forecast->backend, &forecast->shape.precision) <
            0 ||
        model_load(forecast->backend, arguments->model, shape->precision, &forecast->model, forecast->revision) < 0 ||
        choose_fields(arguments, forecast) < 0)
        return -1;
    if (forecast->count < shape->context)
        forecast->shape.context = (uint32_t)forecast->count;
    forecast->shape.samples = samples_for(forecast->samples, forecast->model, shape->horizon);
    if (session_open(forecast->model, shape, false, &forecast->session) < 0 || list_times(forecast) < 0)
        return -1;
    fill(arguments, forecast);
    return session_run(forecast->session, 1);
}

/* ---- printing ----------------------------------------------------------------------------------------------------------------- */

static double last_observed(const forecast_t *forecast, uint32_t variate)
{
    for (size_t bar = forecast->count; bar-- > 0;)
        if (isfinite(value_of(forecast, bar, variate)))
            return value_of(forecast, bar, variate);
    return 0;
}

static forecast_view_t view_of(const arguments_t *arguments, const forecast_t *forecast)
{
    const model_shape_t *shape = session_shape(forecast->session);
    const model_input_t *input = session_input(forecast->session);
    const model_output_t *output = session_output(forecast->session);
    const source_bar_t *newest = &forecast->bars[forecast->count - 1];
    const char *slash = strrchr(arguments->model, '/');
    size_t oldest = ((size_t)forecast->target + 1) * shape->context - input->length[0];
    forecast_view_t view = {.symbol = newest->symbol,
                            .model = slash != NULL && slash[1] != '\0' ? slash + 1 : arguments->model,
                            .revision = forecast->revision,
                            .interval_ns = newest->interval_ns,
                            .cutoff_ns = newest->bar.open_time_ns,
                            .future_ns = forecast->times_ns + shape->context,
                            .context = shape->context,
                            .horizon = shape->horizon,
                            .quantile_count = shape->quantile_count,
                            .field_count = shape->variates,
                            .seed = arguments->seed,
                            .levels = shape->quantiles,
                            .history = input->values + oldest,
                            .observed = input->mask + oldest,
                            .times_ns = forecast->times_ns + shape->context - input->length[0],
                            .history_count = input->length[0]};

    for (uint32_t i = 0; i < shape->variates; i++) {
        uint32_t v = i == 0 ? forecast->target : i <= forecast->target ? i - 1 : i; /* the target first */

        view.fields[i] = (forecast_view_field_t){
            .name = shm_bar_fields[forecast->field[v]].name,
            .last = last_observed(forecast, v),
            .mean = output->mean + (size_t)v * shape->horizon,
            .quantiles = output->quantiles != NULL ? output->quantiles + (size_t)v * shape->quantile_count * shape->horizon : NULL};
    }
    return view;
}

static int terminal_columns(void)
{
    struct winsize size;
    int64_t columns;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    if (getenv("COLUMNS") != NULL && text_to_i64(getenv("COLUMNS"), &columns) && columns > 0 && columns < 10000)
        return (int)columns;
    return COLUMNS_DEFAULT;
}

static void print(const arguments_t *arguments, const forecast_t *forecast)
{
    forecast_view_t view = view_of(arguments, forecast);

    setlocale(LC_CTYPE, "");
    if (strcmp(arguments->format, "json") == 0)
        forecast_view_json(&view, stdout);
    else if (strcmp(arguments->format, "csv") == 0)
        forecast_view_csv(&view, stdout);
    else
        forecast_view_table(&view, terminal_columns(), strcmp(nl_langinfo(CODESET), "UTF-8") == 0, stdout);
}

int cmd_forecast(int argc, char **argv)
{
    arguments_t arguments = {.model = "default",
                             .device = "auto",
                             .precision = "auto",
                             .quantiles = "0.1,0.5,0.9",
                             .fields = "",
                             .timezone = "",
                             .days = "",
                             .hours = "",
                             .format = "table",
                             .horizon = 24,
                             .context = 512,
                             .samples = "auto"};
    const option_t table[] = {
        {"input", OPTION_TEXT, &arguments.input, "FILE", "bars: CSV with a header line, or .ndjson"},
        {"symbol", OPTION_TEXT, &arguments.symbol, "S", "which one, when the file has several"},
        {"model", OPTION_TEXT, &arguments.model, "DIR", "checkpoint directory, naive, or default: the one that comes with Barcast"},
        {"horizon", OPTION_U32, &arguments.horizon, "BARS", "how far to forecast"},
        {"context", OPTION_U32, &arguments.context, "BARS", "how many of the newest bars to look at"},
        {"samples", OPTION_TEXT, &arguments.samples, "N", SAMPLES_HELP},
        {"seed", OPTION_U64, &arguments.seed, "N", "of the random numbers: the same seed gives the same forecast"},
        {"quantiles", OPTION_TEXT, &arguments.quantiles, "Q,Q,..", "levels, ascending between 0 and 1"},
        {"fields", OPTION_TEXT, &arguments.fields, "F,F,..",
         "what to feed in and forecast, the target first; close, or all six where the model takes whole bars"},
        {"days", OPTION_TEXT, &arguments.days, "D,D,..", "days on which the market opens, such as mon,tue,wed,thu,fri; all"},
        {"hours", OPTION_TEXT, &arguments.hours, "H-H,..", "its sessions, such as 09:30-16:00; all day"},
        {"timezone", OPTION_TEXT, &arguments.timezone, "NAME", "of these, such as America/New_York; UTC"},
        {"format", OPTION_TEXT, &arguments.format, "NAME", "table, json or csv"},
        {"device", OPTION_TEXT, &arguments.device, "NAME", DEVICE_HELP},
        {"precision", OPTION_TEXT, &arguments.precision, "NAME", PRECISION_HELP},
        {"threads", OPTION_U32, &arguments.threads, "N", "CPU threads; 0: all"},
    };
    const options_t spec = {
        "barcast forecast --input FILE.csv [options]",
        "Forecasts the bars that follow those in a file, and prints mean and quantiles. Columns are found by their names.\n"
        "\n"
        "  barcast forecast --input XPO_daily.csv --horizon 20\n"
        "  barcast forecast --input XPO_daily.csv --model Toto-Open-Base-1.0 --fields close,volume --format json",
        table, sizeof table / sizeof *table};
    forecast_t forecast = {0};
    int parsed = options_parse(&spec, argc, argv, NULL), status = 1;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (arguments.input == NULL) {
        fprintf(stderr, "forecast: --input is missing; see --help\n");
        return 2;
    }
    if (parse(&arguments, &forecast) < 0) {
        fprintf(stderr, "forecast: %s\n", error_text());
        status = 2;
    } else if (read_bars(&arguments, &forecast) < 0 || run(&arguments, &forecast) < 0) {
        fprintf(stderr, "forecast: %s\n", error_text());
    } else {
        print(&arguments, &forecast);
        status = 0;
    }
    session_close(forecast.session);
    model_unload(forecast.model);
    backend_close(forecast.backend);
    calendar_close(forecast.calendar);
    free(forecast.times_ns);
    free(forecast.bars);
    return status;
}
