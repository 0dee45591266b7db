/* The reports of backtests that no file gives easily: two precisions, one origin, one step, values that are all zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/backtest/report.h"
#include "tools/backtest/score_baselines.h"

#define HOUR INT64_C(3600000000000)

static const char *const names[] = {"model fp32", "model bf16"};
static const report_facts_t facts = {.model = "m",
                                     .revision = "r",
                                     .device = "cpu",
                                     .commit = "c",
                                     .precisions = {"fp32", "bf16"},
                                     .samples = 9,
                                     .batch = 2,
                                     .model_seconds = {1, 2}};

typedef struct {
    size_t bars;
    bool price, zeros;
    uint32_t horizon, models;
} made_t;

static void make(const made_t *made, backtest_t *out)
{
    const backtest_plan_t plan = {.context = 20, .horizon = made->horizon, .stride = 1, .start_ns = INT64_MIN, .cost_bp = 1};
    series_set_t set = {.field = made->price ? 3 : 4,
                        .field_name = made->price ? "close" : "volume",
                        .price = made->price,
                        .count = 1,
                        .series = calloc(1, sizeof *set.series)};
    series_t *series = set.series;

    assert_non_null(series);
    *series = (series_t){.symbol = "X",
                         .interval_ns = HOUR,
                         .count = made->bars,
                         .season = 7,
                         .time_ns = calloc(made->bars, sizeof *series->time_ns),
                         .fields = calloc(SHM_BAR_FIELDS * made->bars, sizeof *series->fields)};
    assert_true(series->time_ns != NULL && series->fields != NULL);
    series->values = series->fields + set.field * made->bars;
    for (size_t i = 0; i < made->bars; i++) {
        series->time_ns[i] = (int64_t)i * HOUR;
        series->values[i] = made->zeros ? 0 : 100 + 3 * sin((double)i);
    }
    assert_int_equal(backtest_open(&plan, &set, names, made->models, out), 0);
}

/* Model m says the last value, and m + 1 percent about it. */
static void score(backtest_t *backtest)
{
    uint32_t horizon = backtest->plan.horizon;
    float *quantiles = calloc((size_t)LEVELS * horizon, sizeof *quantiles);

    assert_non_null(quantiles);
    for (uint32_t m = 0; m < backtest->model_count; m++)
        for (size_t i = 0; i < backtest->origin_count; i++) {
            for (uint32_t q = 0; q < LEVELS * horizon; q++)
                quantiles[q] = (float)backtest->origins[i].size.last * (1 + 0.01f * (float)(m + 1) * (levels[q / horizon] - 0.5f));
            backtest_score(backtest, m, i, quantiles);
        }
    assert_int_equal(score_baselines(backtest, 1), 0);
    free(quantiles);
}

typedef int (*report_t)(const backtest_t *backtest, const report_facts_t *facts, FILE *to);

static int ascii_table(const backtest_t *backtest, const report_facts_t *of, FILE *to)
{
    return report_table(backtest, of, false, to);
}

static char *text_of(report_t report, const made_t *made)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    backtest_t backtest;

    assert_non_null(to);
    make(made, &backtest);
    score(&backtest);
    assert_int_equal(report(&backtest, &facts, to), 0);
    backtest_close(&backtest);
    fclose(to);
    return text;
}

static void two_precisions_are_compared_in_every_report(void **state)
{
    const made_t made = {.bars = 60, .price = true, .horizon = 6, .models = 2};
    char *table = text_of(ascii_table, &made), *page = text_of(report_html, &made), *text = text_of(report_json, &made);
    json_object *json = json_tokener_parse(text), *groups, *forecasters, *name;

    (void)state;
    assert_non_null(strstr(table, "What bf16 costs: change of the quantile loss from fp32"));
    assert_non_null(strstr(table, "fp32 1.0 s, bf16 2.0 s"));
    assert_null(strstr(table, "\xe2")); /* plain ASCII was asked for */
    assert_non_null(strstr(page, "What bf16 costs"));
    assert_non_null(strstr(page, "f-second"));
    assert_true(json_object_object_get_ex(json, "groups", &groups));
    assert_true(json_object_object_get_ex(json_object_array_get_idx(groups, 0), "forecasters", &forecasters));
    assert_int_equal(json_object_array_length(forecasters), 2 + BASELINES);
    assert_true(json_object_object_get_ex(json_object_array_get_idx(forecasters, 1), "name", &name));
    assert_string_equal(json_object_get_string(name), "model bf16");
    json_object_put(json);
    free(table);
    free(page);
    free(text);
}

/* Every report of it, without a number that is none. */
static void reports_stay_clean(const made_t *made)
{
    static const report_t reports[] = {ascii_table, report_html, report_json};

    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++) {
        char *text = text_of(reports[i], made);

        assert_null(strstr(text, "nan"));
        assert_null(strstr(text, "NaN"));
        assert_null(strstr(text, "inf"));
        free(text);
    }
}

static void one_origin_and_one_step_make_reports_without_tests(void **state)
{
    (void)state;
    reports_stay_clean(&(made_t){.bars = 21, .price = true, .horizon = 1, .models = 1});
    reports_stay_clean(&(made_t){.bars = 26, .price = true, .horizon = 6, .models = 1});
}

static void a_volume_that_is_always_zero_gives_dashes(void **state)
{
    (void)state;
    reports_stay_clean(&(made_t){.bars = 60, .zeros = true, .horizon = 6, .models = 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_precisions_are_compared_in_every_report),
        cmocka_unit_test(one_origin_and_one_step_make_reports_without_tests),
        cmocka_unit_test(a_volume_that_is_always_zero_gives_dashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
