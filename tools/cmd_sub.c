/* barcast sub: what subscribers get, as lines for people or for programs. */
#include "tools/command.h"

#include "base/clock.h"
#include "base/error.h"
#include "tools/options.h"
#include "tools/subscriber.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ENDPOINTS_TEXT_BYTES = 4096 };

typedef struct {
    const char *endpoints, *topics, *symbols;
    uint32_t count;
    double timeout_s;
    bool json;
} sub_t;

/* ---- output --------------------------------------------------------------------------------------------------------------------- */

static void format_time(int64_t time_ns, char *out, size_t bytes)
{
    time_t seconds = (time_t)(time_ns / CLOCK_NS_PER_S);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(out, bytes, "%Y-%m-%d %H:%M", &utc);
}

static double latency_ms(const wire_forecast_t *forecast)
{
    return (double)(clock_monotonic_ns() - forecast->stored_ns) / 1e6;
}

static void print_header(void)
{
    printf("%-12s %-10s %-16s %12s %12s %12s   %-25s %9s\n", "symbol", "model", "last bar (UTC)", "last", "median +1", "median +H",
           "80 % band at +H", "ms");
}

static void print_line(const wire_forecast_t *forecast)
{
    char cutoff[32], band[64];
    uint32_t end = forecast->horizon - 1;
    format_time(forecast->cutoff_ns, cutoff, sizeof cutoff);
    snprintf(band, sizeof band, "%.6g .. %.6g", subscriber_quantile(forecast, 0.1, end), subscriber_quantile(forecast, 0.9, end));
    printf("%-12s %-10s %-16s %12.6g %12.6g %12.6g   %-25s %9.2f\n", forecast->symbol, forecast->model, cutoff, forecast->last,
           subscriber_quantile(forecast, 0.5, 0), subscriber_quantile(forecast, 0.5, end), band, latency_ms(forecast));
}

static json_object *json_number(double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.9g", value);
    return json_object_new_double_s(value, text);
}

static json_object *json_floats(const float *values, uint32_t count)
{
    json_object *array = json_object_new_array_ext((int)count);
    for (uint32_t i = 0; i < count; i++)
        json_object_array_add(array, json_number((double)values[i]));
    return array;
}

static void add_field(json_object *to, const wire_forecast_t *forecast, const wire_field_t *field)
{
    json_object *quantiles = json_object_new_object();
    for (uint32_t i = 0; field->quantiles && i < forecast->quantile_count; i++) {
        char level[24];
        snprintf(level, sizeof level, "%g", forecast->quantile_levels[i]);
        json_object_object_add(quantiles, level, json_floats(field->quantiles + (size_t)i * forecast->horizon, forecast->horizon));
    }
    json_object_object_add(to, "quantiles", quantiles);
    if (field->mean)
        json_object_object_add(to, "mean", json_floats(field->mean, forecast->horizon));
    if (!field->samples)
        return;
    json_object *samples = json_object_new_array_ext((int)forecast->sample_count);
    for (uint32_t i = 0; i < forecast->sample_count; i++)
        json_object_array_add(samples, json_floats(field->samples + (size_t)i * forecast->horizon, forecast->horizon));
    json_object_object_add(to, "samples", samples);
}

static void print_json(const wire_forecast_t *forecast)
{
    json_object *line = json_object_new_object();
    json_object_object_add(line, "symbol", json_object_new_string(forecast->symbol));
    json_object_object_add(line, "model", json_object_new_string(forecast->model));
    json_object_object_add(line, "model_revision", json_object_new_string(forecast->model_revision));
    json_object_object_add(line, "target", json_object_new_string(forecast->fields[0].field));
    json_object_object_add(line, "interval_ns", json_object_new_int64(forecast->interval_ns));
    json_object_object_add(line, "cutoff_ns", json_object_new_int64(forecast->cutoff_ns));
    json_object_object_add(line, "start_ns", json_object_new_int64(forecast->start_ns));
    json_object_object_add(line, "created_ns", json_object_new_int64(forecast->created_ns));
    json_object_object_add(line, "bar_index", json_object_new_uint64(forecast->bar_index));
    json_object_object_add(line, "seq", json_object_new_uint64(forecast->seq));
    json_object_object_add(line, "seed", json_object_new_uint64(forecast->seed));
    json_object_object_add(line, "worker", json_object_new_string(forecast->worker));
    json_object_object_add(line, "horizon", json_object_new_int64(forecast->horizon));
    json_object_object_add(line, "context", json_object_new_int64(forecast->context));
    json_object_object_add(line, "last", json_number(forecast->last));
    json_object_object_add(line, "latency_ms", json_number(latency_ms(forecast)));
    add_field(line, forecast, &forecast->fields[0]);
    json_object *others = json_object_new_object();
    for (uint32_t i = 1; i < forecast->field_count; i++) {
        json_object *field = json_object_new_object();
        add_field(field, forecast, &forecast->fields[i]);
        json_object_object_add(others, forecast->fields[i].field, field);
    }
    json_object_object_add(line, "other_fields", others);
    puts(json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN));
    json_object_put(line);
}

/* ---- subscribing ---------------------------------------------------------------------------------------------------------------- */

/* Calls `each` for every word of a comma-separated list. */
static int for_each_word(const char *list, int (*each)(void *context, const char *word), void *context)
{
    char copy[ENDPOINTS_TEXT_BYTES];
    snprintf(copy, sizeof copy, "%s", list);
    char *rest = copy;
    for (char *word; (word = strsep(&rest, ","));) {
        int rc = each(context, word);
        if (rc < 0)
            return rc;
    }
    return SUBSCRIBER_OK;
}

static int connect_word(void *context, const char *word)
{
    return subscriber_connect(context, word);
}

static int topic_word(void *context, const char *word)
{
    return subscriber_subscribe(context, word, strlen(word));
}

typedef struct {
    subscriber_t *subscriber;
    const config_t *config;
} symbol_context_t;

/* The exact topics of one symbol, one a model. */
static int symbol_word(void *context, const char *word)
{
    const symbol_context_t *with = context;
    for (uint32_t i = 0; i < with->config->model_count; i++) {
        char topic[WIRE_TEXT_BYTES];
        int bytes = wire_topic(with->config->models[i].name, word, topic);
        if (bytes < 0)
            return bytes;
        int rc = subscriber_subscribe(with->subscriber, topic, (size_t)bytes);
        if (rc < 0)
            return rc;
    }
    return SUBSCRIBER_OK;
}

static int subscribe(const sub_t *sub, const config_t *config, subscriber_t *subscriber)
{
    int rc = SUBSCRIBER_OK;
    if (config && !sub->endpoints)
        rc = subscriber_connect_all(subscriber, config);
    if (rc == SUBSCRIBER_OK && sub->endpoints)
        rc = for_each_word(sub->endpoints, connect_word, subscriber);
    if (rc == SUBSCRIBER_OK && sub->topics)
        rc = for_each_word(sub->topics, topic_word, subscriber);
    if (rc == SUBSCRIBER_OK && sub->symbols)
        rc = for_each_word(sub->symbols, symbol_word, &(symbol_context_t){subscriber, config});
    if (rc == SUBSCRIBER_OK && !sub->topics && !sub->symbols)
        rc = subscriber_subscribe(subscriber, "", 0);
    return rc;
}

static int print_forecasts(const sub_t *sub, subscriber_t *subscriber)
{
    int64_t until = sub->timeout_s > 0 ? clock_monotonic_ns() + (int64_t)(sub->timeout_s * 1e9) : INT64_MAX;
    uint32_t printed = 0;
    if (!sub->json)
        print_header();
    while (!sub->count || printed < sub->count) {
        int64_t left_ms = (until - clock_monotonic_ns()) / CLOCK_NS_PER_MS;
        if (left_ms <= 0) {
            fprintf(stderr, "barcast sub: %u forecasts in %g s\n", printed, sub->timeout_s);
            return sub->count ? 1 : 0;
        }
        wire_forecast_t forecast;
        fflush(stdout);
        int rc = subscriber_next(subscriber, left_ms < 1000 ? (int)left_ms : 1000, &forecast);
        if (rc < 0) {
            fprintf(stderr, "barcast sub: %s\n", error_text());
            return 1;
        }
        if (rc == SUBSCRIBER_NONE)
            continue;
        if (sub->json)
            print_json(&forecast);
        else
            print_line(&forecast);
        printed++;
    }
    return 0;
}

int cmd_sub(int argc, char **argv)
{
    sub_t sub = {0};
    const option_t options[] = {
        {"endpoint", OPTION_TEXT, &sub.endpoints, "E[,E]", "connect there instead of to the config's workers"},
        {"topic", OPTION_TEXT, &sub.topics, "T[,T]", "topics that begin with T, e.g. forecast.naive.; without it: all"},
        {"symbol", OPTION_TEXT, &sub.symbols, "S[,S]", "these symbols, of every model in CONFIG"},
        {"count", OPTION_U32, &sub.count, "N", "end after N forecasts; 0: never"},
        {"timeout", OPTION_F64, &sub.timeout_s, "S", "end after S seconds (a failure when --count was not reached); 0: never"},
        {"json", OPTION_FLAG, &sub.json, NULL, "one JSON object a line, with all values"},
    };
    const options_t spec = {
        .usage = "barcast sub [CONFIG] [options]",
        .about = "Prints forecasts as they are published, beginning with the last one of each topic. The time is from the bar\n"
                 "being stored to the line being printed, and means something on the instance's own machine only.\n"
                 "\n"
                 "  barcast sub config/demo.ini --symbol DEMO01 --count 10\n"
                 "  barcast sub --endpoint tcp://host:5600 --topic forecast.naive. --json",
        .options = options,
        .count = sizeof options / sizeof *options,
    };
    int first, rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (argc - first > 1 || (argc == first && (!sub.endpoints || sub.symbols))) {
        fprintf(stderr, "usage: %s\n--symbol needs CONFIG, and so does a call without --endpoint\n", spec.usage);
        return 2;
    }

    config_t *config = NULL;
    if (argc > first && config_load(argv[first], &config) < 0) {
        fprintf(stderr, "barcast sub: %s\n", error_text());
        return 2;
    }
    subscriber_t *subscriber = NULL;
    int status = 1;
    if (subscriber_open(&subscriber) == SUBSCRIBER_OK && subscribe(&sub, config, subscriber) == SUBSCRIBER_OK)
        status = print_forecasts(&sub, subscriber);
    else
        fprintf(stderr, "barcast sub: %s\n", error_text());
    subscriber_close(subscriber);
    config_free(config);
    return status;
}
