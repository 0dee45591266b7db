/* Walk-forward: where origins lie, what a forecaster sees, and what the scores come to. Reference figures are worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/backtest/score_baselines.h"
#include "tools/backtest/score_models.h"
#include "tools/backtest/summary.h"

#define DAY INT64_C(86400000000000)

static const char *const model_names[] = {"model"};

static void is_near(double actual, double expected, double bound)
{
    if (!(fabs(actual - expected) <= bound))
        fail_msg("%.15g is not within %g of %.15g", actual, bound, expected);
}

/* Series s has counts[s] bars that end together on day 1000; value i of it is made by `value`. Field 3, close. */
static series_set_t make_set(const size_t *counts, size_t series_count, double (*value)(size_t series, size_t bar))
{
    series_set_t set = {.field = 3,
                        .field_name = "close",
                        .price = true,
                        .count = series_count,
                        .series = calloc(series_count, sizeof *set.series)};

    assert_non_null(set.series);
    for (size_t s = 0; s < series_count; s++) {
        series_t *series = &set.series[s];

        *series = (series_t){.interval_ns = DAY,
                             .count = counts[s],
                             .season = 5,
                             .time_ns = calloc(counts[s], sizeof *series->time_ns),
                             .fields = calloc(SHM_BAR_FIELDS * counts[s], sizeof *series->fields)};
        assert_true(series->time_ns != NULL && series->fields != NULL);
        snprintf(series->symbol, sizeof series->symbol, "S%zu", s);
        series->values = series->fields + 3 * counts[s];
        for (size_t i = 0; i < counts[s]; i++) {
            series->time_ns[i] = (int64_t)(1000 - counts[s] + i) * DAY;
            series->values[i] = value(s, i);
            for (size_t f = 0; f < SHM_BAR_FIELDS; f++)
                series->fields[f * counts[s] + i] = value(s, i);
        }
    }
    return set;
}

static double wobble(size_t series, size_t bar)
{
    return (series == 0 ? 50 : 3000) * exp(0.01 * sin((double)bar * 1.3) + 0.02 * sin((double)bar * 0.37 + (double)series));
}

static void open_backtest(backtest_plan_t plan, const size_t *counts, size_t series_count, backtest_t *out)
{
    series_set_t set = make_set(counts, series_count, wobble);

    if (backtest_open(&plan, &set, model_names, 1, out) < 0)
        fail_msg("%s", error_text());
}

/* ---- origins ------------------------------------------------------------------------------------------------------------------ */

static void origins_are_counted_back_from_the_newest_bar_with_a_whole_future(void **state)
{
    const size_t counts[] = {100, 61};
    backtest_t backtest;

    (void)state;
    open_backtest((backtest_plan_t){.context = 40, .horizon = 6, .stride = 10, .start_ns = INT64_MIN}, counts, 2, &backtest);
    /* bars 0 .. 99: origins at 93, 83, ... 43 (43 has 44 bars up to it); bars 0 .. 60: at 54, 44 */
    assert_int_equal(backtest.first_origin[1], 6);
    assert_int_equal(backtest.first_origin[2], 8);
    assert_int_equal(backtest.origins[0].at, 43);
    assert_int_equal(backtest.origins[5].at, 93);
    assert_int_equal(backtest.origins[6].at, 44);
    assert_int_equal(backtest.origins[7].at, 54);
    /* the same calendar, so the same times */
    assert_true(backtest.origins[5].time_ns == backtest.origins[7].time_ns &&
                backtest.origins[4].time_ns == backtest.origins[6].time_ns);
    assert_int_equal(backtest.group_count, 1);
    /* in time order the shared times are neighbours */
    assert_int_equal(backtest.by_time[4], 4);
    assert_int_equal(backtest.by_time[5], 6);
    assert_int_equal(backtest.by_time[6], 5);
    backtest_close(&backtest);
}

static void start_and_a_number_of_origins_bound_them(void **state)
{
    const size_t counts[] = {100};
    backtest_t backtest;

    (void)state;
    open_backtest((backtest_plan_t){.context = 40, .horizon = 6, .stride = 10, .start_ns = 963 * DAY}, counts, 1, &backtest);
    assert_int_equal(backtest.origin_count, 4); /* at 63, 73, 83, 93: days 963 .. 993 */
    assert_int_equal(backtest.origins[0].at, 63);
    backtest_close(&backtest);
    open_backtest((backtest_plan_t){.context = 40, .horizon = 6, .stride = 10, .origins = 2, .start_ns = INT64_MIN}, counts, 1,
                  &backtest);
    assert_int_equal(backtest.origin_count, 2);
    assert_int_equal(backtest.origins[0].at, 83);
    backtest_close(&backtest);
}

static void a_stride_left_open_meets_every_weekday(void **state)
{
    const size_t counts[] = {200};
    backtest_t backtest;

    (void)state;
    open_backtest((backtest_plan_t){.context = 40, .horizon = 6, .start_ns = INT64_MIN}, counts, 1, &backtest);
    assert_int_equal(backtest.plan.stride, 6);
    backtest_close(&backtest);
    open_backtest((backtest_plan_t){.context = 40, .horizon = 10, .start_ns = INT64_MIN}, counts, 1, &backtest);
    assert_int_equal(backtest.plan.stride, 11); /* 10 would always meet the same weekday of five */
    backtest_close(&backtest);
}

static void series_that_are_too_short_are_left_out_and_no_series_at_all_is_an_error(void **state)
{
    const size_t counts[] = {45, 100}, short_counts[] = {45};
    const backtest_plan_t plan = {.context = 40, .horizon = 6, .stride = 10, .start_ns = INT64_MIN};
    series_set_t set = make_set(short_counts, 1, wobble);
    backtest_t backtest;

    (void)state;
    open_backtest(plan, counts, 2, &backtest);
    assert_int_equal(backtest.set.count, 1);
    assert_string_equal(backtest.set.series[0].symbol, "S1");
    backtest_close(&backtest);
    assert_int_equal(backtest_open(&plan, &set, model_names, 1, &backtest), -1);
    assert_non_null(strstr(error_text(), "long enough"));
}

static void context_ends_and_future_begins_at_the_origin(void **state)
{
    const size_t counts[] = {100};
    backtest_t backtest;

    (void)state;
    open_backtest((backtest_plan_t){.context = 40, .horizon = 6, .stride = 10, .start_ns = INT64_MIN}, counts, 1, &backtest);
    for (size_t i = 0; i < backtest.origin_count; i++) {
        assert_ptr_equal(backtest_context(&backtest, i) + 40, backtest_future(&backtest, i));
        is_near(backtest_context(&backtest, i)[39], wobble(0, backtest.origins[i].at), 0);
        is_near(backtest.origins[i].size.last, wobble(0, backtest.origins[i].at), 0);
    }
    backtest_close(&backtest);
}

/* ---- no look-ahead ------------------------------------------------------------------------------------------------------------ */

enum { CUT = 93 }; /* the last origin below */

static double changed_after_the_cut(size_t series, size_t bar)
{
    return bar <= CUT ? wobble(series, bar) : 7 * wobble(series, bar);
}

static void score_with_naive(backtest_t *backtest)
{
    const backend_options_t options = {.kind = BACKEND_CPU, .threads = 1};
    const score_models_t naive = {.batch = 4, .precision = BACKEND_F32};
    score_models_cost_t cost;
    backend_t *backend;
    model_t *model;
    char revision[17];

    assert_int_equal(backend_open(&options, &backend), 0);
    assert_int_equal(model_load(backend, "naive", BACKEND_F32, &model, revision), 0);
    if (score_models_run(backtest, 0, model, &naive, &cost) < 0)
        fail_msg("%s", error_text());
    assert_int_equal(score_baselines(backtest, 2), 0);
    model_unload(model);
    backend_close(backend);
}

static void forecasts_do_not_depend_on_what_comes_after_their_origin(void **state)
{
    const size_t counts[] = {100};
    const backtest_plan_t plan = {.context = 40, .horizon = 6, .stride = 1, .origins = 1, .start_ns = INT64_MIN};
    series_set_t sets[] = {make_set(counts, 1, wobble), make_set(counts, 1, changed_after_the_cut)};
    backtest_t backtests[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(backtest_open(&plan, &sets[i], model_names, 1, &backtests[i]), 0);
        assert_int_equal(backtests[i].origins[0].at, CUT);
        assert_int_equal(backtests[i].example_count, 1);
        score_with_naive(&backtests[i]);
    }
    assert_memory_equal(backtests[0].examples[0].quantiles, backtests[1].examples[0].quantiles,
                        (1 + BASELINES) * LEVELS * 6 * sizeof(float));
    assert_true(backtest_scores(&backtests[1], 0, 0)->loss > 2 * backtest_scores(&backtests[0], 0, 0)->loss);
    backtest_close(&backtests[0]);
    backtest_close(&backtests[1]);
}

/* ---- figures ------------------------------------------------------------------------------------------------------------------ */

static void the_naive_model_scores_as_the_naive_baseline(void **state)
{
    const size_t counts[] = {150, 120};
    backtest_t backtest;
    double *scratch;

    (void)state;
    open_backtest((backtest_plan_t){.context = 60, .horizon = 6, .stride = 3, .start_ns = INT64_MIN}, counts, 2, &backtest);
    score_with_naive(&backtest);
    scratch = calloc(2 * backtest.origin_count, sizeof *scratch);
    assert_non_null(scratch);
    for (uint32_t c = 0; c < backtest.cell_count; c++) {
        summary_t s = summary_group(&backtest, &backtest.groups[0], 0, c);

        is_near(s.ratio, 1, 1e-4);
        is_near(s.inside80, summary_group(&backtest, &backtest.groups[0], 1, c).inside80, 1e-9);
        assert_true(isnan(summary_dm_group(&backtest, &backtest.groups[0], 0, 1, c, scratch).p));
    }
    is_near(summary_group(&backtest, &backtest.groups[0], 0, 0).undecided, 1, 0);
    free(scratch);
    backtest_close(&backtest);
}

/* Two series of three origins, horizon 1; the second has prices of a hundred times. A forecast that misses by d at all levels has loss d. */
static double step_prices(size_t series, size_t bar)
{
    return (series == 0 ? 1 : 100) * (100 + (double)(bar % 2)); /* 100 101 100 101 ... : every change is 1 */
}

static void score_points(backtest_t *backtest, uint32_t forecaster, double miss)
{
    float quantiles[LEVELS];

    for (size_t i = 0; i < backtest->origin_count; i++) {
        for (int level = 0; level < LEVELS; level++)
            quantiles[level] = (float)(*backtest_future(backtest, i) + miss * (backtest->origins[i].series == 0 ? 1 : 100));
        backtest_score(backtest, forecaster, i, quantiles);
    }
}

static void open_points(backtest_t *backtest)
{
    const size_t counts[] = {23, 23};
    const backtest_plan_t plan = {.context = 20, .horizon = 1, .stride = 1, .cost_bp = 3, .start_ns = INT64_MIN};
    series_set_t set = make_set(counts, 2, step_prices);

    assert_int_equal(backtest_open(&plan, &set, model_names, 1, backtest), 0);
    assert_int_equal(backtest->origin_count, 6); /* at 19, 20, 21: the future is 100, 101, 100 (times 1, 100) */
    score_points(backtest, 0, 0.5);
    score_points(backtest, backtest_baseline(backtest, BASELINE_NAIVE), -1);
}

static void losses_are_ratios_symbol_by_symbol(void **state)
{
    backtest_t backtest;
    summary_t one, group;

    (void)state;
    open_points(&backtest);
    one = summary_series(&backtest, 1, 0, 0);
    is_near(one.wql, 150.0 / 30100, 1e-6);
    is_near(one.ratio, 0.5, 1e-5);
    is_near(one.mae, 50, 1e-3);
    is_near(one.rmse, 50, 1e-3);
    is_near(one.mase, 0.5, 1e-5);
    is_near(one.mae_percent, 100 * (0.5 / 101 + 0.5 / 100 + 0.5 / 101) / 3, 1e-5);
    group = summary_group(&backtest, &backtest.groups[0], 0, 0);
    is_near(group.wql, one.wql, 1e-6);
    is_near(group.ratio, 0.5, 1e-5);
    assert_true(isnan(group.mae));
    backtest_close(&backtest);
}

/* The model misses upwards by 0.5, so from 101 (future 100) it says 100.5, down; from 100 (future 101) it says 101.5, up: always right. */
static void the_simulated_trade_follows_the_medians_sign_and_pays_both_sides(void **state)
{
    const double down = 1e4 * (1 - 100.0 / 101), up = 1e4 * (101.0 / 100 - 1);
    double scratch[12];
    summary_trade_t trade, always;
    backtest_t backtest;

    (void)state;
    open_points(&backtest);
    is_near(summary_group(&backtest, &backtest.groups[0], 0, 0).direction, 1, 0);
    trade = summary_trade(&backtest, &backtest.groups[0], 0, 0, scratch);
    assert_int_equal(trade.trades, 6);
    is_near(trade.right, 1, 0);
    is_near(trade.gross_bp, (2 * down + up) / 3, 1e-3);
    is_near(trade.net_bp, trade.gross_bp - 6, 1e-9);
    always = summary_always_long(&backtest, &backtest.groups[0], 0, scratch);
    is_near(always.gross_bp, (up - 2 * down) / 3, 1e-3);
    is_near(always.right, 1.0 / 3, 1e-9);
    backtest_close(&backtest);
}

/* Origin by origin the model's loss is 0.5 and naive's 1, 1 and 2: differences in units of naive's mean, 4/3, averaged over the two symbols. */
static void the_test_of_a_group_sees_one_difference_a_time(void **state)
{
    double scratch[12], mean = (-0.5 - 0.5 - 1.5) / 3 / (4.0 / 3);
    backtest_t backtest;
    dm_t test;

    (void)state;
    open_points(&backtest);
    for (size_t i = 0; i < 6; i++) {
        float quantiles[LEVELS], size = backtest.origins[i].series == 0 ? 1 : 100;

        for (int level = 0; level < LEVELS; level++)
            quantiles[level] = (float)*backtest_future(&backtest, i) + size * (i % 3 == 2 ? 2 : 1);
        backtest_score(&backtest, backtest_baseline(&backtest, BASELINE_NAIVE), i, quantiles);
    }
    test = summary_dm_group(&backtest, &backtest.groups[0], 0, backtest_baseline(&backtest, BASELINE_NAIVE), 0, scratch);
    assert_int_equal(test.count, 3);
    is_near(test.mean, mean, 1e-5);
    test = summary_dm_series(&backtest, 1, 0, backtest_baseline(&backtest, BASELINE_NAIVE), 0, scratch);
    assert_int_equal(test.count, 3);
    is_near(test.mean, mean, 1e-5);
    backtest_close(&backtest);
}

static void seasons_and_intervals_are_told_from_times(void **state)
{
    int64_t days[14], bars[40];
    char text[SERIES_INTERVAL_BYTES];

    (void)state;
    for (int i = 0; i < 10; i++) /* Mondays to Fridays; day 4 of the epoch was a Monday */
        days[i] = (4 + i / 5 * 7 + i % 5) * DAY;
    assert_int_equal(series_season(days, 10, DAY), 5);
    for (int i = 0; i < 14; i++)
        days[i] = (4 + i) * DAY;
    assert_int_equal(series_season(days, 14, DAY), 7);
    assert_int_equal(series_season(days, 14, 7 * DAY), 52);
    for (int i = 0; i < 40; i++) /* ten bars a day */
        bars[i] = (i / 10) * DAY + (i % 10) * DAY / 48;
    assert_int_equal(series_season(bars, 40, DAY / 48), 10);
    series_interval_text(5 * DAY / 1440, text);
    assert_string_equal(text, "5m");
    series_interval_text(DAY, text);
    assert_string_equal(text, "1d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(origins_are_counted_back_from_the_newest_bar_with_a_whole_future),
        cmocka_unit_test(start_and_a_number_of_origins_bound_them),
        cmocka_unit_test(a_stride_left_open_meets_every_weekday),
        cmocka_unit_test(series_that_are_too_short_are_left_out_and_no_series_at_all_is_an_error),
        cmocka_unit_test(context_ends_and_future_begins_at_the_origin),
        cmocka_unit_test(forecasts_do_not_depend_on_what_comes_after_their_origin),
        cmocka_unit_test(the_naive_model_scores_as_the_naive_baseline),
        cmocka_unit_test(losses_are_ratios_symbol_by_symbol),
        cmocka_unit_test(the_simulated_trade_follows_the_medians_sign_and_pays_both_sides),
        cmocka_unit_test(the_test_of_a_group_sees_one_difference_a_time),
        cmocka_unit_test(seasons_and_intervals_are_told_from_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
