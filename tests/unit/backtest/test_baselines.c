/* Baselines against independent computations: GARCH, Theta and Holt against SciPy's optimisers on the same definitions, written down apart from
 * the C code; the walks by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "base/normal.h"
#include "tools/backtest/baselines.h"
#include "tools/backtest/distribution.h"
#include "tools/backtest/garch.h"
#include "tools/backtest/smoothing.h"

static void is_near(double actual, double expected, double bound)
{
    if (!(fabs(actual - expected) <= bound))
        fail_msg("%.15g is not within %g of %.15g", actual, bound, expected);
}

/* ---- GARCH -------------------------------------------------------------------------------------------------------------------- */

/* splitmix64; the sum of twelve uniforms is nearly normal, and the same in Python. */
static double normal_number(uint64_t *random)
{
    double sum = -6;

    for (int i = 0; i < 12; i++) {
        uint64_t z = *random += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        sum += (double)((z ^ z >> 31) >> 11) * 0x1p-53;
    }
    return sum;
}

static double *simulated(uint64_t seed, size_t count, double omega, double alpha, double beta)
{
    double *returns = malloc(count * sizeof *returns), variance = omega / (1 - alpha - beta);

    assert_non_null(returns);
    for (size_t t = 0; t < count; t++) {
        returns[t] = sqrt(variance) * normal_number(&seed);
        variance = omega + alpha * returns[t] * returns[t] + beta * variance;
    }
    return returns;
}

/* SciPy: Nelder-Mead from three starts on the variance-targeted likelihood to 1e-11, then a bounded search for the degrees of freedom. */
static void garch_finds_the_likelihoods_maximum(void **state)
{
    double *a = simulated(3, 500, 2e-6, 0.10, 0.85), *b = simulated(4, 300, 1e-4, 0.25, 0.5);
    garch_t garch;

    (void)state;
    garch_fit(a, 500, &garch);
    is_near(garch.alpha, 0.07851943, 5e-3);
    is_near(garch.beta, 0.83214606, 1e-2);
    is_near(garch.variance / 4.0128348018991046e-05, 1, 1e-9);
    is_near(garch.next / 4.610217411139161e-05, 1, 1e-2);
    is_near(garch.df, 21.68, 1);
    garch_fit(b, 300, &garch);
    is_near(garch.alpha, 0.06427322, 5e-3);
    is_near(garch.beta, 0.65631641, 2e-2);
    is_near(garch.next / 0.00041271505899935626, 1, 1e-2);
    assert_true(garch.df > 150);
    free(a);
    free(b);
}

/* Asymptotic standard errors at 20,000 returns are about 0.006 for alpha and 0.008 for beta. */
static void garch_recovers_the_parameters_of_a_long_simulation(void **state)
{
    double *returns = simulated(11, 20000, 2e-6, 0.10, 0.85);
    garch_t garch;

    (void)state;
    garch_fit(returns, 20000, &garch);
    is_near(garch.alpha, 0.10, 0.02);
    is_near(garch.beta, 0.85, 0.03);
    is_near(garch.omega / 2e-6, 1, 0.3);
    free(returns);
}

/* The long-run variance 4, the next one 6, persistence 0.5: expected variances are 6, 5, 4.5. */
static void garch_variance_of_a_sum_returns_to_the_mean(void **state)
{
    const garch_t garch = {.omega = 2, .alpha = 0.1, .beta = 0.4, .variance = 4, .next = 6};

    (void)state;
    is_near(garch_sum_variance(&garch, 1), 6, 1e-12);
    is_near(garch_sum_variance(&garch, 2), 11, 1e-12);
    is_near(garch_sum_variance(&garch, 3), 15.5, 1e-12);
}

static void garch_of_a_price_that_stands_still_is_zero(void **state)
{
    const double returns[40] = {0};
    garch_t garch;

    (void)state;
    garch_fit(returns, 40, &garch);
    is_near(garch_sum_variance(&garch, 24), 0, 0);
    is_near(garch.df, 200, 1e-9);
}

/* ---- smoothing ---------------------------------------------------------------------------------------------------------------- */

static const double sample[] = {10, 10.4, 10.1, 10.9, 11.2, 10.8, 11.5, 11.9, 11.6, 12.3, 12, 12.8};

/* SciPy: alpha = 0.769376 by minimize_scalar, level 12.623363, slope 0.233916 by polyfit, then the closed form. */
static void theta_agrees_with_its_closed_form(void **state)
{
    double mean[6], deviation[6];

    (void)state;
    smoothing_theta(sample, 12, 6, mean, deviation);
    is_near(mean[0], 12.775379744118805, 1e-3);
    is_near(mean[1], 12.892337786076848, 1e-3);
    is_near(mean[5], 13.360169953909017, 1e-3);
    is_near(deviation[0], 0.509044084869609, 1e-4);
    is_near(deviation[1], 0.642271465966374, 1e-3);
    is_near(deviation[5], 1.012946029465551, 2e-3);
}

/* SciPy: L-BFGS-B from four starts ends on the edge, b = a = 0.1052 and phi = 0.98; the sum of squares is 1.006207. */
static void damped_holt_finds_the_least_squares(void **state)
{
    double mean[3], deviation[3];

    (void)state;
    smoothing_holt(sample, 12, 3, mean, deviation);
    is_near(mean[0], 12.776683617480943, 5e-3);
    is_near(mean[2], 13.252610992195596, 2e-2);
    is_near(deviation[0], 0.3024456390992339, 1e-3);
    is_near(deviation[2], 0.3227919776629765, 3e-3);
}

/* ---- the set ------------------------------------------------------------------------------------------------------------------ */

enum { COUNT = 64, HORIZON = 12 };

static float *forecast_of(const double *values, bool price, size_t season)
{
    baselines_input_t input = {.values = values, .count = COUNT, .price = price, .season = season, .horizon = HORIZON};
    double *work = malloc(baselines_work(COUNT, HORIZON) * sizeof *work);
    float *out = calloc(BASELINES * LEVELS * HORIZON, sizeof *out);

    assert_true(work != NULL && out != NULL);
    baselines_forecast(&input, work, out);
    free(work);
    return out;
}

static double quantile_of(const float *out, baseline_t baseline, int level, size_t step)
{
    return (double)out[((size_t)baseline * LEVELS + (size_t)level) * HORIZON + step - 1];
}

/* Values that alternate by +3 and -1: the mean square of changes is 5 (32 of +3, 31 of -1: 319/63), their mean (32 * 3 - 31)/63 = 65/63. */
static void walks_have_the_variances_that_the_header_promises(void **state)
{
    double values[COUNT], n = COUNT - 1, square = 319 / n, mean = 65 / n, variance = (square - mean * mean) * n / (n - 1), ewma, z;
    float *out;

    (void)state;
    for (int t = 0; t < COUNT; t++)
        values[t] = t == 0 ? 100 : values[t - 1] + (t % 2 ? 3 : -1);
    out = forecast_of(values, false, 4);
    z = normal_quantile(0.9);
    is_near(quantile_of(out, BASELINE_NAIVE, LEVEL_50, 7), 165, 1e-4);
    is_near(quantile_of(out, BASELINE_NAIVE, LEVEL_90, 1), 165 + z * sqrt(square), 1e-4);
    is_near(quantile_of(out, BASELINE_NAIVE, LEVEL_90, 9), 165 + z * sqrt(square) * 3, 1e-4);
    is_near(quantile_of(out, BASELINE_DRIFT, LEVEL_50, 10), 165 + 10 * mean, 1e-4);
    is_near(quantile_of(out, BASELINE_DRIFT, LEVEL_10, 10), 165 + 10 * mean - z * sqrt(variance * 10 * (1 + 10 / n)), 1e-4);
    ewma = square;
    for (int t = 1; t < COUNT; t++)
        ewma = 0.94 * ewma + 0.06 * (t % 2 ? 9 : 1);
    is_near(quantile_of(out, BASELINE_EWMA, LEVEL_75, 4), 165 + 2 * sqrt(ewma) * normal_quantile(0.75), 1e-4);
    /* four bars earlier the value was lower by 4, always: season 4 repeats the last four, without any spread but that */
    is_near(quantile_of(out, BASELINE_SEASONAL, LEVEL_50, 1), values[COUNT - 4], 1e-4);
    is_near(quantile_of(out, BASELINE_SEASONAL, LEVEL_50, 6), values[COUNT - 3], 1e-4);
    is_near(quantile_of(out, BASELINE_SEASONAL, LEVEL_90, 4), 165 + z * 4, 1e-4);
    is_near(quantile_of(out, BASELINE_SEASONAL, LEVEL_90, 5), values[COUNT - 4] + z * 4 * sqrt(2), 1e-4);
    free(out);
}

static void a_season_that_does_not_fit_twice_is_naive(void **state)
{
    double values[COUNT];
    float *out;

    (void)state;
    for (int t = 0; t < COUNT; t++)
        values[t] = 50 + (t * 7919 % 13);
    out = forecast_of(values, true, COUNT / 2 + 1);
    for (int level = 0; level < LEVELS; level++)
        for (size_t step = 1; step <= HORIZON; step++)
            is_near(quantile_of(out, BASELINE_SEASONAL, level, step), quantile_of(out, BASELINE_NAIVE, level, step), 0);
    free(out);
}

static void prices_are_forecast_in_logarithms(void **state)
{
    double prices[COUNT], logs[COUNT];
    float *of_prices, *of_logs;

    (void)state;
    for (int t = 0; t < COUNT; t++) {
        logs[t] = 0.02 * (t * 7919 % 13);
        prices[t] = exp(logs[t]);
    }
    of_prices = forecast_of(prices, true, 5);
    of_logs = forecast_of(logs, false, 5);
    for (size_t i = 0; i < (size_t)BASELINES * LEVELS * HORIZON; i++)
        is_near((double)of_prices[i], exp((double)of_logs[i]), 2e-6 * (double)of_prices[i]);
    free(of_prices);
    free(of_logs);
}

static void quantiles_ascend_and_garch_t_has_the_gaussians_variance_with_fatter_tails(void **state)
{
    double values[COUNT], narrow, wide;
    uint64_t random = 5;
    float *out;

    (void)state;
    for (int t = 0; t < COUNT; t++) /* every tenth move is six times the others */
        values[t] = (t == 0 ? 100 : values[t - 1] + normal_number(&random) * (t % 10 == 3 ? 6 : 1));
    out = forecast_of(values, false, 5);
    for (baseline_t b = 0; b < BASELINES; b++)
        for (size_t step = 1; step <= HORIZON; step++)
            for (int level = 1; level < LEVELS; level++)
                assert_true(quantile_of(out, b, level, step) > quantile_of(out, b, level - 1, step));
    narrow = quantile_of(out, BASELINE_GARCH_T, LEVEL_75, 1) - quantile_of(out, BASELINE_GARCH_T, LEVEL_25, 1);
    wide = quantile_of(out, BASELINE_GARCH, LEVEL_75, 1) - quantile_of(out, BASELINE_GARCH, LEVEL_25, 1);
    assert_true(narrow < 0.95 * wide);
    narrow = quantile_of(out, BASELINE_GARCH_T, LEVEL_75, HORIZON) - quantile_of(out, BASELINE_GARCH_T, LEVEL_25, HORIZON);
    wide = quantile_of(out, BASELINE_GARCH, LEVEL_75, HORIZON) - quantile_of(out, BASELINE_GARCH, LEVEL_25, HORIZON);
    assert_true(narrow < wide);
    free(out);
}

static void a_price_that_stands_still_is_forecast_to_stand_still(void **state)
{
    double values[COUNT];
    float *out;

    (void)state;
    for (int t = 0; t < COUNT; t++)
        values[t] = 11.27;
    out = forecast_of(values, true, 5);
    for (size_t i = 0; i < (size_t)BASELINES * LEVELS * HORIZON; i++)
        is_near((double)out[i], 11.27, 1e-5);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garch_finds_the_likelihoods_maximum),
        cmocka_unit_test(garch_recovers_the_parameters_of_a_long_simulation),
        cmocka_unit_test(garch_variance_of_a_sum_returns_to_the_mean),
        cmocka_unit_test(garch_of_a_price_that_stands_still_is_zero),
        cmocka_unit_test(theta_agrees_with_its_closed_form),
        cmocka_unit_test(damped_holt_finds_the_least_squares),
        cmocka_unit_test(walks_have_the_variances_that_the_header_promises),
        cmocka_unit_test(a_season_that_does_not_fit_twice_is_naive),
        cmocka_unit_test(prices_are_forecast_in_logarithms),
        cmocka_unit_test(quantiles_ascend_and_garch_t_has_the_gaussians_variance_with_fatter_tails),
        cmocka_unit_test(a_price_that_stands_still_is_forecast_to_stand_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
