/* The backtest as one JSON object: everything that the other reports show, and every symbol by itself. Figures that do not exist are null. */
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "tools/backtest/report.h"
#include "tools/backtest/summary.h"

typedef struct {
    const backtest_t *backtest;
    const backtest_group_t *group;
    double *scratch;
} writer_t;

static void add(json_object *to, const char *key, double value)
{
    json_object_object_add(to, key, isfinite(value) ? json_object_new_double(value) : NULL);
}

static void add_count(json_object *to, const char *key, uint64_t value)
{
    json_object_object_add(to, key, json_object_new_uint64(value));
}

static void add_text(json_object *to, const char *key, const char *value)
{
    json_object_object_add(to, key, json_object_new_string(value));
}

static json_object *summary_object(const summary_t *summary)
{
    const struct {
        const char *key;
        double value;
    } members[] = {{"wql", summary->wql},
                   {"loss_over_naive", summary->ratio},
                   {"mae", summary->mae},
                   {"rmse", summary->rmse},
                   {"mae_percent", summary->mae_percent},
                   {"rmse_percent", summary->rmse_percent},
                   {"mase", summary->mase},
                   {"coverage_80", summary->inside80},
                   {"coverage_50", summary->inside50},
                   {"width_80_percent", summary->width80},
                   {"width_50_percent", summary->width50},
                   {"direction", summary->direction},
                   {"undecided", summary->undecided}};
    json_object *object = json_object_new_object();

    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        add(object, members[i].key, members[i].value);
    return object;
}

static json_object *test_object(const dm_t *test)
{
    json_object *object = json_object_new_object();

    add(object, "mean", test->mean);
    add(object, "statistic", test->statistic);
    add(object, "p", test->p);
    add_count(object, "count", test->count);
    return object;
}

static json_object *trade_object(const summary_trade_t *trade)
{
    json_object *object = json_object_new_object();

    add_count(object, "trades", trade->trades);
    add(object, "right", trade->right);
    add(object, "gross_bp", trade->gross_bp);
    add(object, "standard_error_bp", trade->error_bp);
    add(object, "net_bp", trade->net_bp);
    return object;
}

/* {"1": ..., "1-24": ...} of `make` for every cell. */
static json_object *by_cell(const writer_t *writer, json_object *(*make)(const writer_t *writer, uint32_t cell, uint32_t argument),
                            uint32_t argument)
{
    json_object *object = json_object_new_object();

    for (uint32_t c = 0; c < writer->backtest->cell_count; c++) {
        char text[BACKTEST_CELL_BYTES];

        backtest_cell_text(writer->backtest->cells[c], text);
        json_object_object_add(object, text, make(writer, c, argument));
    }
    return object;
}

static json_object *group_figures(const writer_t *writer, uint32_t cell, uint32_t forecaster)
{
    summary_t summary = summary_group(writer->backtest, writer->group, forecaster, cell);
    return summary_object(&summary);
}

static json_object *group_test(const writer_t *writer, uint32_t cell, uint32_t against)
{
    dm_t test = summary_dm_group(writer->backtest, writer->group, 0, against, cell, writer->scratch);
    return test_object(&test);
}

static json_object *group_trade(const writer_t *writer, uint32_t cell, uint32_t forecaster)
{
    score_cell_t steps = writer->backtest->cells[cell];
    summary_trade_t trade;

    if (steps.first != steps.last)
        return NULL;
    trade = summary_trade(writer->backtest, writer->group, forecaster, cell, writer->scratch);
    return trade_object(&trade);
}

static json_object *always_long(const writer_t *writer, uint32_t cell, uint32_t unused)
{
    score_cell_t steps = writer->backtest->cells[cell];
    summary_trade_t trade;

    (void)unused;
    if (steps.first != steps.last)
        return NULL;
    trade = summary_always_long(writer->backtest, writer->group, cell, writer->scratch);
    return trade_object(&trade);
}

static json_object *coverage_by_step(const writer_t *writer, uint32_t forecaster, bool outer)
{
    json_object *array = json_object_new_array();

    for (uint32_t step = 1; step <= writer->backtest->plan.horizon; step++) {
        summary_coverage_t coverage = summary_coverage(writer->backtest, writer->group, forecaster, step);
        json_object_array_add(array, json_object_new_double(outer ? coverage.inside80 : coverage.inside50));
    }
    return array;
}

static json_object *forecaster_object(const writer_t *writer, uint32_t forecaster)
{
    const backtest_t *backtest = writer->backtest;
    json_object *object = json_object_new_object();

    add_text(object, "name", backtest->names[forecaster]);
    add_text(object, "kind", forecaster < backtest->model_count ? "model" : "baseline");
    json_object_object_add(object, "steps", by_cell(writer, group_figures, forecaster));
    json_object_object_add(object, "coverage_80_by_step", coverage_by_step(writer, forecaster, true));
    json_object_object_add(object, "coverage_50_by_step", coverage_by_step(writer, forecaster, false));
    if (forecaster > 0)
        json_object_object_add(object, "diebold_mariano", by_cell(writer, group_test, forecaster));
    if (backtest->set.price)
        json_object_object_add(object, "simulated_trade", by_cell(writer, group_trade, forecaster));
    return object;
}

/* One symbol: the same figures for every forecaster, and the model's tests. */
static json_object *symbol_object(const writer_t *writer, size_t series)
{
    const backtest_t *backtest = writer->backtest;
    json_object *object = json_object_new_object(), *forecasters = json_object_new_object();

    add_text(object, "symbol", backtest->set.series[series].symbol);
    add_count(object, "bars", backtest->set.series[series].count);
    add_count(object, "origins", backtest->first_origin[series + 1] - backtest->first_origin[series]);
    add_count(object, "season", backtest->set.series[series].season);
    for (uint32_t f = 0; f < backtest->forecaster_count; f++) {
        json_object *one = json_object_new_object();

        for (uint32_t c = 0; c < backtest->cell_count; c++) {
            summary_t summary = summary_series(backtest, series, f, c);
            json_object *figures = summary_object(&summary);
            char text[BACKTEST_CELL_BYTES];

            if (f > 0) {
                dm_t test = summary_dm_series(backtest, series, 0, f, c, writer->scratch);
                json_object_object_add(figures, "diebold_mariano", test_object(&test));
            }
            backtest_cell_text(backtest->cells[c], text);
            json_object_object_add(one, text, figures);
        }
        json_object_object_add(forecasters, backtest->names[f], one);
    }
    json_object_object_add(object, "forecasters", forecasters);
    return object;
}

static json_object *group_object(const writer_t *writer)
{
    const backtest_t *backtest = writer->backtest;
    const backtest_group_t *group = writer->group;
    int64_t interval_ns = backtest->set.series[group->first_series].interval_ns, first_ns, last_ns;
    char interval[SERIES_INTERVAL_BYTES], time[REPORT_TIME_BYTES];
    json_object *object = json_object_new_object(), *forecasters = json_object_new_array(), *symbols = json_object_new_array();

    series_interval_text(interval_ns, interval);
    summary_time_range(backtest, group, &first_ns, &last_ns);
    add_text(object, "interval", interval);
    report_time(first_ns, interval_ns, time);
    add_text(object, "first_origin", time);
    report_time(last_ns, interval_ns, time);
    add_text(object, "last_origin", time);
    add_count(object, "origins", group->origin_count);
    for (uint32_t f = 0; f < backtest->forecaster_count; f++)
        json_object_array_add(forecasters, forecaster_object(writer, f));
    json_object_object_add(object, "forecasters", forecasters);
    if (backtest->set.price)
        json_object_object_add(object, "simulated_always_long", by_cell(writer, always_long, 0));
    for (size_t s = group->first_series; s < group->first_series + group->series_count; s++)
        json_object_array_add(symbols, symbol_object(writer, s));
    json_object_object_add(object, "symbols", symbols);
    return object;
}

static json_object *settings_object(const backtest_t *backtest, const report_facts_t *facts)
{
    const backtest_plan_t *plan = &backtest->plan;
    json_object *object = json_object_new_object();

    add_text(object, "model", facts->model);
    add_text(object, "revision", facts->revision);
    add_text(object, "device", facts->device);
    add_text(object, "precision", facts->precisions[0]);
    add_text(object, "field", backtest->set.field_name);
    add_count(object, "context", plan->context);
    add_count(object, "horizon", plan->horizon);
    add_count(object, "stride", plan->stride);
    add_count(object, "samples", facts->samples);
    add_count(object, "batch", facts->batch);
    add_count(object, "seed", facts->seed);
    add(object, "cost_bp", plan->cost_bp);
    add(object, "model_seconds", facts->model_seconds[0]);
    add(object, "baselines_seconds", facts->baselines_seconds);
    add_text(object, "commit", facts->commit);
    return object;
}

int report_json(const backtest_t *backtest, const report_facts_t *facts, FILE *to)
{
    writer_t writer = {.backtest = backtest, .scratch = malloc(2 * backtest->origin_count * sizeof *writer.scratch)};
    json_object *object, *groups;

    if (writer.scratch == NULL)
        return error_set(-1, "no memory for the report");
    object = json_object_new_object();
    groups = json_object_new_array();
    json_object_object_add(object, "settings", settings_object(backtest, facts));
    for (size_t g = 0; g < backtest->group_count; g++) {
        writer.group = &backtest->groups[g];
        json_object_array_add(groups, group_object(&writer));
    }
    json_object_object_add(object, "groups", groups);
    fprintf(to, "%s\n", json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED));
    json_object_put(object);
    free(writer.scratch);
    return 0;
}
