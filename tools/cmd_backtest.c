/* barcast backtest: what a model's forecasts would have been worth on bars that have already come. */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "ingest/timestamp.h"
#include "tools/backtest/report.h"
#include "tools/backtest/score_baselines.h"
#include "tools/backtest/score_models.h"
#include "tools/command.h"
#include "tools/device.h"
#include "tools/options.h"
#include "tools/samples.h"
#include "tools/version.h"

typedef struct {
    const char *model, *field, *start, *samples, *device, *precision, *compare, *json, *html;
    uint32_t context, horizon, stride, origins, batch, threads;
    uint64_t seed;
    double costs;
} arguments_t;

typedef struct {
    const arguments_t *arguments;
    samples_t samples;
    backend_t *backend;
    uint32_t precision_count;
    backend_dtype_t precisions[BACKTEST_MODELS_MOST];
    char names[BACKTEST_MODELS_MOST][64];
    char revision[17];
    series_set_t set;
    backtest_t backtest;
    report_facts_t facts;
} run_t;

/* ---- arguments ---------------------------------------------------------------------------------------------------------------- */

static const char *precision_name(backend_dtype_t precision)
{
    return precision == BACKEND_BF16 ? "bf16" : "fp32";
}

/* --compare names both precisions, the first one is the reference. */
static int parse_compare(run_t *run)
{
    const char *text = run->arguments->compare;

    if (strcmp(text, "fp32,bf16") != 0 && strcmp(text, "bf16,fp32") != 0)
        return error_set(-1, "--compare: \"%s\" is not fp32,bf16", text);
    if (!backend_has_bf16(run->backend))
        return error_set(-1, "--compare %s: there is no bf16 on %s; it takes a GPU", text, backend_name(run->backend));
    run->precision_count = 2;
    run->precisions[0] = text[0] == 'f' ? BACKEND_F32 : BACKEND_BF16;
    run->precisions[1] = text[0] == 'f' ? BACKEND_BF16 : BACKEND_F32;
    return 0;
}

static int open_device(run_t *run)
{
    const arguments_t *arguments = run->arguments;

    run->precision_count = 1;
    if (device_open(arguments->device, arguments->precision, arguments->threads, &run->backend, &run->precisions[0]) < 0)
        return -1;
    return arguments->compare != NULL ? parse_compare(run) : 0;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static void set_names(run_t *run)
{
    for (uint32_t m = 0; m < run->precision_count; m++)
        if (run->precision_count > 1)
            snprintf(run->names[m], sizeof run->names[m], "model %s", precision_name(run->precisions[m]));
        else
            snprintf(run->names[m], sizeof run->names[m], "%s",
                     strcmp(run->arguments->model, "naive") == 0 ? "naive (model)" : last_part(run->arguments->model));
}

static int set_plan(const arguments_t *arguments, backtest_plan_t *plan)
{
    *plan = (backtest_plan_t){.context = arguments->context,
                              .horizon = arguments->horizon,
                              .stride = arguments->stride,
                              .start_ns = INT64_MIN,
                              .origins = arguments->origins,
                              .cost_bp = arguments->costs};
    if (plan->horizon < 1)
        return error_set(-1, "--horizon: at least 1");
    if (plan->context < BASELINES_CONTEXT_LEAST)
        return error_set(-1, "--context: the baselines need %d bars at least", BASELINES_CONTEXT_LEAST);
    if (arguments->costs < 0)
        return error_set(-1, "--costs: not below 0");
    if (arguments->start != NULL && !timestamp_parse(arguments->start, strlen(arguments->start), &plan->start_ns))
        return error_set(-1, "--start: \"%s\" is not a date or time", arguments->start);
    return 0;
}

/* ---- running ------------------------------------------------------------------------------------------------------------------ */

static int score_model(run_t *run, uint32_t m)
{
    const arguments_t *arguments = run->arguments;
    score_models_t options = {.batch = arguments->batch, .seed = arguments->seed, .precision = run->precisions[m]};
    score_models_cost_t cost;
    model_t *model;
    int rc;

    if (model_load(run->backend, arguments->model, run->precisions[m], &model, run->revision) < 0)
        return -1;
    options.samples = samples_for(run->samples, model, arguments->horizon);
    rc = score_models_run(&run->backtest, m, model, &options, &cost);
    model_unload(model);
    if (rc < 0)
        return rc;
    run->facts.precisions[m] = precision_name(run->precisions[m]);
    run->facts.model_seconds[m] = (double)cost.run_ns / 1e9;
    run->facts.batch = cost.batch;
    run->facts.samples = cost.samples;
    return 0;
}

static int score_all(run_t *run)
{
    const arguments_t *arguments = run->arguments;
    uint32_t threads = arguments->threads > 0 ? arguments->threads : (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    int64_t start_ns = clock_monotonic_ns();

    if (score_baselines(&run->backtest, threads) < 0)
        return -1;
    run->facts.model = last_part(arguments->model);
    run->facts.revision = run->revision;
    run->facts.device = backend_name(run->backend);
    run->facts.commit = version_commit();
    run->facts.seed = arguments->seed;
    run->facts.baselines_seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    for (uint32_t m = 0; m < run->precision_count; m++)
        if (score_model(run, m) < 0)
            return -1;
    return 0;
}

static int write_file(const run_t *run, const char *path, int (*report)(const backtest_t *, const report_facts_t *, FILE *))
{
    bool standard = strcmp(path, "-") == 0;
    FILE *to = standard ? stdout : fopen(path, "w");
    int rc;

    if (to == NULL)
        return error_set(-1, "%s: %s", path, strerror(errno));
    rc = report(&run->backtest, &run->facts, to);
    if (rc == 0 && (fflush(to) != 0 || ferror(to)))
        rc = error_set(-1, "%s: %s", path, strerror(errno));
    if (!standard)
        fclose(to);
    return rc;
}

static int write_reports(const run_t *run)
{
    const arguments_t *arguments = run->arguments;
    bool to_stdout = arguments->json != NULL && strcmp(arguments->json, "-") == 0;

    setlocale(LC_CTYPE, "");
    if (!to_stdout && report_table(&run->backtest, &run->facts, strcmp(nl_langinfo(CODESET), "UTF-8") == 0, stdout) < 0)
        return -1;
    if (arguments->json != NULL && write_file(run, arguments->json, report_json) < 0)
        return -1;
    return arguments->html != NULL ? write_file(run, arguments->html, report_html) : 0;
}

static int run_all(run_t *run, const backtest_plan_t *plan, const char *const *paths, size_t path_count)
{
    const char *names[BACKTEST_MODELS_MOST];

    if (open_device(run) < 0 || series_open(paths, path_count, run->arguments->field, &run->set) < 0)
        return -1;
    if (run->set.rejected > 0)
        fprintf(stderr, "backtest: %zu bars were rejected\n", run->set.rejected);
    set_names(run);
    for (uint32_t m = 0; m < run->precision_count; m++)
        names[m] = run->names[m];
    if (backtest_open(plan, &run->set, names, run->precision_count, &run->backtest) < 0 || score_all(run) < 0)
        return -1;
    return write_reports(run);
}

int cmd_backtest(int argc, char **argv)
{
    arguments_t arguments = {.model = "default",
                             .field = "close",
                             .device = "auto",
                             .precision = "auto",
                             .context = 512,
                             .horizon = 24,
                             .samples = "auto",
                             .costs = 2};
    const option_t table[] = {
        {"model", OPTION_TEXT, &arguments.model, "DIR", "checkpoint directory, naive, or default: the one that comes with Barcast"},
        {"context", OPTION_U32, &arguments.context, "BARS", "how many bars every forecaster sees"},
        {"horizon", OPTION_U32, &arguments.horizon, "BARS", "how far to forecast; steps 1, 5, 24 and this one are reported"},
        {"samples", OPTION_TEXT, &arguments.samples, "N", SAMPLES_HELP},
        {"field", OPTION_TEXT, &arguments.field, "NAME", "what to forecast: open, high, low, close, volume or amount"},
        {"stride", OPTION_U32, &arguments.stride, "BARS",
         "from one origin to the next; 0: the horizon, or the next number that meets every weekday and hour"},
        {"start", OPTION_TEXT, &arguments.start, "DATE", "no origin before it"},
        {"origins", OPTION_U32, &arguments.origins, "N", "the newest N of each symbol; 0: all"},
        {"costs", OPTION_F64, &arguments.costs, "BP", "of the simulated trade, a side"},
        {"seed", OPTION_U64, &arguments.seed, "N", "of the random numbers: the same seed gives the same forecasts"},
        {"batch", OPTION_U32, &arguments.batch, "N", "series a run; 0: as many as pay on the device"},
        {"device", OPTION_TEXT, &arguments.device, "NAME", DEVICE_HELP},
        {"precision", OPTION_TEXT, &arguments.precision, "NAME", PRECISION_HELP},
        {"compare", OPTION_TEXT, &arguments.compare, "fp32,bf16", "run both and tell what the second one costs"},
        {"threads", OPTION_U32, &arguments.threads, "N", "CPU threads; 0: all"},
        {"json", OPTION_TEXT, &arguments.json, "FILE", "write all figures there; -: to the standard output, without the table"},
        {"html", OPTION_TEXT, &arguments.html, "FILE", "write a page with plots there"},
    };
    const options_t spec = {
        "barcast backtest FILE... [options]",
        "Walks through bars that have already come: from origins a fixed stride apart, the model forecasts from the bars before\n"
        "the origin alone and is scored against those after it, beside eight baselines at the same origins (naive, drift,\n"
        "seasonal naive, EWMA, GARCH, GARCH-t, Theta, ETS). FILE: CSV, .ndjson, or a directory of CSV files.\n"
        "\n"
        "  barcast backtest *_daily.csv --model Toto-Open-Base-1.0 --html report.html\n"
        "  barcast backtest bars/ --model toto-small --stride 5 --start 2024-01-01 --json -",
        table, sizeof table / sizeof *table};
    run_t run = {.arguments = &arguments};
    backtest_plan_t plan;
    int first, parsed = options_parse(&spec, argc, argv, &first), status = 1;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (first == argc) {
        fprintf(stderr, "backtest: no FILE of bars; see --help\n");
        return 2;
    }
    if (set_plan(&arguments, &plan) < 0 || samples_parse(arguments.samples, &run.samples) < 0) {
        fprintf(stderr, "backtest: %s\n", error_text());
        return 2;
    }
    if (run_all(&run, &plan, (const char *const *)argv + first, (size_t)(argc - first)) < 0)
        fprintf(stderr, "backtest: %s\n", error_text());
    else
        status = 0;
    backtest_close(&run.backtest);
    series_close(&run.set);
    backend_close(run.backend);
    return status;
}
