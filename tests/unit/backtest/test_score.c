/* Scores worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>

#include "tools/backtest/score.h"

static void is_near(double actual, double expected, double bound)
{
    if (!(fabs(actual - expected) <= bound))
        fail_msg("%.15g is not within %g of %.15g", actual, bound, expected);
}

/* Levels .1 .2 .25 .3 .4 .5 .6 .7 .75 .8 .9 of step 1 lie at 96 .. 106, those of step 2 at twice the distance from 101. */
static void fill(float quantiles[LEVELS * 2])
{
    for (int i = 0; i < LEVELS; i++) {
        quantiles[2 * i] = (float)(96 + i);
        quantiles[2 * i + 1] = (float)(101 + 2 * (i - 5));
    }
}

static void cells_are_1_5_24_the_horizon_and_all_steps(void **state)
{
    score_cell_t cells[SCORE_CELLS_MOST];

    (void)state;
    assert_int_equal(score_cells(1, cells), 1);
    assert_int_equal(score_cells(24, cells), 4);
    assert_int_equal(cells[2].first, 24);
    assert_int_equal(cells[3].first, 1);
    assert_int_equal(cells[3].last, 24);
    assert_int_equal(score_cells(12, cells), 4);
    assert_int_equal(cells[2].last, 12);
    assert_int_equal(score_cells(96, cells), 5);
    assert_int_equal(cells[3].first, 96);
    assert_int_equal(cells[4].first, 1);
}

/* With all deciles at 100 and y = 110: 2/9 * 10 * (0.1 + ... + 0.9) = 10, the absolute error; with y = 90 likewise. */
static void quantile_loss_of_a_point_forecast_is_the_absolute_error(void **state)
{
    float point[LEVELS];

    (void)state;
    for (int i = 0; i < LEVELS; i++)
        point[i] = 100;
    is_near(score_quantile_loss(point, 1, 110), 10, 1e-9);
    is_near(score_quantile_loss(point, 1, 90), 10, 1e-9);
    is_near(score_quantile_loss(point, 1, 100), 0, 1e-12);
}

/* Step 1: deciles at 96 97 99 100 101 102 103 105 106, y = 103. u (y - q) for y above: .1*7 + .2*6 + .3*4 + .4*3 + .5*2 + .6*1 + .7*0 = 5.9;
 * (u - 1)(y - q) below: .2*2 + .1*3 = 0.7. 2/9 * 6.6 = 1.466667. The quartiles at 98 and 104 do not count. */
static void losses_are_those_worked_out_by_hand(void **state)
{
    const score_cell_t cells[] = {{1, 1}, {2, 2}, {1, 2}};
    const score_origin_t origin = {.last = 100, .level = 100, .scale = 1};
    const double future[] = {103, 97};
    score_band_t bands[2] = {{0}};
    float quantiles[LEVELS * 2];
    score_t out[3];

    (void)state;
    fill(quantiles);
    is_near(score_quantile_loss(quantiles, 2, 103), 2.0 / 9 * 6.6, 1e-9);
    score_forecast(&origin, quantiles, future, 2, cells, 3, out, bands);
    is_near((double)out[0].loss, 2.0 / 9 * 6.6, 1e-6);
    is_near((double)out[0].absolute, 2, 1e-6);
    is_near((double)out[0].squared, 4, 1e-6);
    is_near((double)out[1].absolute, 4, 1e-6);
    is_near((double)out[1].squared, 16, 1e-5);
    is_near((double)out[2].absolute, 3, 1e-6);
    is_near((double)out[2].squared, 10, 1e-5);
    is_near((double)out[2].loss, ((double)out[0].loss + (double)out[1].loss) / 2, 1e-6);
    assert_int_equal(out[0].side, 1); /* 101 and 103 are above 100 */
    assert_int_equal(out[0].came, 1);
    assert_int_equal(out[1].side, 1);
    assert_int_equal(out[1].came, -1); /* 97 is below */
    assert_int_equal(out[2].came, -1); /* the last step's */
}

static void coverage_counts_values_inside_bounds_included(void **state)
{
    const score_cell_t cells[] = {{1, 1}};
    const score_origin_t origin = {.last = 100, .level = 200, .scale = 1};
    const double values[] = {95.9, 96, 97.9, 98, 104, 104.1, 106, 106.1};
    score_band_t band = {0};
    float quantiles[LEVELS * 2], first[LEVELS];
    score_t out;

    (void)state;
    fill(quantiles);
    for (int i = 0; i < LEVELS; i++)
        first[i] = quantiles[2 * i];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        score_forecast(&origin, first, &values[i], 1, cells, 1, &out, &band);
    is_near(band.inside80, 6, 0);
    is_near(band.inside50, 2, 0);
    is_near(band.width80, 8 * 10.0 / 200, 1e-12);
    is_near(band.width50, 8 * 6.0 / 200, 1e-12);
}

static void a_median_or_a_value_that_does_not_move_has_no_side(void **state)
{
    const score_cell_t cells[] = {{1, 1}};
    const score_origin_t origin = {.last = 101, .level = 101, .scale = 1}, moved = {.last = 100, .level = 100, .scale = 1};
    const double up = 103, still = 100;
    score_band_t band = {0};
    float quantiles[LEVELS * 2], first[LEVELS];
    score_t out;

    (void)state;
    fill(quantiles);
    for (int i = 0; i < LEVELS; i++)
        first[i] = quantiles[2 * i];
    score_forecast(&origin, first, &up, 1, cells, 1, &out, &band);
    assert_int_equal(out.side, 0);
    assert_int_equal(out.came, 1);
    score_forecast(&moved, first, &still, 1, cells, 1, &out, &band);
    assert_int_equal(out.side, 1);
    assert_int_equal(out.came, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_are_1_5_24_the_horizon_and_all_steps),
        cmocka_unit_test(quantile_loss_of_a_point_forecast_is_the_absolute_error),
        cmocka_unit_test(losses_are_those_worked_out_by_hand),
        cmocka_unit_test(coverage_counts_values_inside_bounds_included),
        cmocka_unit_test(a_median_or_a_value_that_does_not_move_has_no_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
