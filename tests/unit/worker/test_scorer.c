/* Forecasts scored when their bars arrive (gpuworker/scorer.h). The expected losses are worked out in the comments. */
#include "gpuworker/scorer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LEVELS = 3, HORIZON = 4, SYMBOLS = 2 };
static const double levels[LEVELS] = {0.1, 0.5, 0.9};
/* Steps 0 to 3 of each level. */
static const float quantiles[LEVELS * HORIZON] = {9, 8, 7, 6, 10, 10, 10, 10, 11, 12, 13, 14};
static const double Z = 1.2815515655446004; /* normal quantile of 0.9 */

static scorer_t *opened(void)
{
    scorer_t *scorer = NULL;
    assert_int_equal(scorer_open(LEVELS, levels, HORIZON, &scorer), SCORER_OK);
    assert_int_equal(scorer_join(scorer, SYMBOLS), SCORER_OK);
    return scorer;
}

static bool observe(scorer_t *scorer, uint64_t end, uint32_t count, const float *values, const uint8_t *mask,
                    scorer_origin_t *origin)
{
    scorer_bars_t bars = {.symbol_id = 1, .end = end, .count = count, .values = values, .mask = mask};
    return scorer_observe(scorer, &bars, origin);
}

static const uint8_t known[8] = {1, 1, 1, 1, 1, 1, 1, 1};

/* Changes of +1 and -1: volatility 1, last 10. */
static void watch(scorer_t *scorer)
{
    static const float context[] = {10, 11, 10};
    scorer_origin_t origin;
    assert_true(observe(scorer, 3, 3, context, known, &origin));
    assert_true(origin.end == 3 && origin.last == 10 && fabs(origin.volatility - 1) < 1e-12);
    scorer_watch(scorer, 1, &origin, quantiles);
}

static void a_bar_is_scored_by_the_step_that_forecast_it(void **state)
{
    (void)state;
    scorer_t *scorer = opened();
    scorer_origin_t origin;
    watch(scorer);
    static const float later[] = {11, 10, 10.5f, 13};
    assert_false(observe(scorer, 5, 4, later, known, &origin));
    const shm_score_t *score = scorer_score(scorer);
    assert_int_equal(score->scored, 2);
    /* Bar 3, step 0, 10.5: 0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5 = 0.45; bar 4, step 1, 13: 0.1 * 5 + 0.5 * 3 + 0.9 * 1 = 2.9. Unit 1. */
    double expected = (2 * 0.45 / 3 + 2 * 2.9 / 3) / 2;
    assert_true(fabs(score->loss - expected) < 1e-6);
    assert_true(score->coverage == 0.5);
    /* Random walk: 10 -+ Z and 10 -+ Z sqrt(2). */
    double first = 0.1 * (0.5 + Z) + 0.5 * 0.5 + 0.1 * (Z - 0.5), w = Z * sqrt(2), second = 0.1 * (3 + w) + 0.5 * 3 + 0.9 * (3 - w);
    assert_true(fabs(score->naive_loss - (2 * first / 3 + 2 * second / 3) / 2) < 1e-9);
    scorer_close(scorer);
}

static void the_next_forecast_is_taken_when_the_steps_are_over(void **state)
{
    (void)state;
    scorer_t *scorer = opened();
    scorer_origin_t origin;
    watch(scorer);
    static const float later[] = {10, 11, 10, 11, 12, 11};
    assert_false(observe(scorer, 6, 6, later, known, &origin)); /* bars 3, 4, 5 */
    assert_true(observe(scorer, 8, 6, later, known, &origin));  /* bar 6, the last step; bar 7 was not forecast */
    assert_int_equal(scorer_score(scorer)->scored, 4);
    assert_int_equal(origin.end, 8);
    scorer_close(scorer);
}

static void what_is_unknown_or_no_longer_at_hand_is_not_scored(void **state)
{
    (void)state;
    scorer_t *scorer = opened();
    scorer_origin_t origin;
    watch(scorer);
    static const float later[] = {0, 11};
    static const uint8_t mask[] = {0, 1};
    assert_false(observe(scorer, 6, 2, later, mask, &origin)); /* bar 3 is gone, bar 4 unknown, bar 5 scored */
    assert_int_equal(scorer_score(scorer)->scored, 1);
    scorer_close(scorer);
}

static void a_price_without_changes_is_not_watched(void **state)
{
    (void)state;
    scorer_t *scorer = opened();
    scorer_origin_t origin;
    static const float flat[] = {10, 10, 10};
    assert_false(observe(scorer, 3, 3, flat, known, &origin));
    assert_int_equal(scorer_score(scorer)->scored, 0);
    scorer_close(scorer);
}

static void old_values_are_forgotten(void **state)
{
    (void)state;
    scorer_t *scorer = opened();
    scorer_origin_t origin = {.last = 10, .volatility = 1};
    static const float inside[] = {10, 10}, outside[] = {10, 20};
    for (uint64_t end = 3; end < 3 + 2 * 20000; end += 2) {
        origin.end = end;
        scorer_watch(scorer, 1, &origin, quantiles);
        observe(scorer, end + 1, 2, end < 3 + 20000 ? inside : outside, known, &(scorer_origin_t){0});
    }
    assert_true(scorer_score(scorer)->coverage < 1e-3); /* (1 - 1/1024)^10000 = 6e-5 */
    scorer_close(scorer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bar_is_scored_by_the_step_that_forecast_it),
        cmocka_unit_test(the_next_forecast_is_taken_when_the_steps_are_over),
        cmocka_unit_test(what_is_unknown_or_no_longer_at_hand_is_not_scored),
        cmocka_unit_test(a_price_without_changes_is_not_watched),
        cmocka_unit_test(old_values_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
