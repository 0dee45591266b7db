/* Quantiles of the mixture's head: against tables and closed forms of Student's t, against the integral of the density, and on heads that no
 * training gives: in order, finite, and where the distribution function says. */
#include "tests/unit/backend/device_bench.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LEVELS_MOST = 16 };

typedef struct {
    int64_t rows, patch, components, horizon, variates, exogenous;
    const float *head, *loc, *scale, *levels, *future;
    int64_t level_count;
} quantiles_case_t;

/* Quantiles [rows][levels][horizon]; the affine map stands second of three. */
static float *quantiles(backend_t *backend, const quantiles_case_t *c)
{
    float *loc = bench_numbers(c->rows * 3), *scale = bench_numbers(c->rows * 3);
    backend_tensor_t future = bench_f32(c->future, c->exogenous > 0 ? c->rows / c->variates * c->exogenous * c->patch : 1);
    backend_student_t_quantiles_t op = {.head = bench_f32(c->head, c->rows * c->patch * 4 * c->components),
                                        .rows = c->rows,
                                        .patch = c->patch,
                                        .components = c->components,
                                        .horizon = c->horizon,
                                        .variates = c->variates,
                                        .exogenous = c->exogenous,
                                        .out_stride = 3,
                                        .out_offset = 1,
                                        .future = &future,
                                        .future_stride = c->patch,
                                        .levels = bench_f32(c->levels, c->level_count),
                                        .quantiles = bench_f32(NULL, c->rows * c->level_count * c->horizon)};

    for (int64_t r = 0; r < c->rows; r++) {
        loc[3 * r + 1] = c->loc[r];
        scale[3 * r + 1] = c->scale[r];
    }
    op.out_loc = bench_f32(loc, c->rows * 3);
    op.out_scale = bench_f32(scale, c->rows * 3);
    assert_int_equal(backend_student_t_quantiles(backend, &op), BACKEND_OK);
    return bench_read(&op.quantiles);
}

static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

static float inverse_softplus(double y)
{
    return (float)(y > 20 ? y : log(expm1(y)));
}

/* ---- one component ------------------------------------------------------------------------------------------------------------ */

static float quantile_of(double df, float level)
{
    float head[4] = {inverse_softplus(df - 2), 0, inverse_softplus(1), 0}, zero = 0, one = 1;

    return *quantiles(bench_open(0), &(quantiles_case_t){.rows = 1,
                                                         .patch = 1,
                                                         .components = 1,
                                                         .horizon = 1,
                                                         .variates = 1,
                                                         .head = head,
                                                         .loc = &zero,
                                                         .scale = &one,
                                                         .levels = &level,
                                                         .level_count = 1});
}

static void one_component_has_the_quantiles_of_the_tables(void **state)
{
    static const struct {
        double df;
        float level;
        double quantile;
    } table[] = {
        {3, 0.9f, 1.637744},   {5, 0.975f, 2.570582},    {10, 0.001f, -4.143700}, {30, 0.95f, 1.697261},
        {1e7, 0.9f, 1.281552}, {1e7, 0.001f, -3.090232}, {1e30, 0.95f, 1.644854},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_true(fabs((double)quantile_of(table[i].df, table[i].level) - table[i].quantile) < 5e-6);
        bench_close();
    }
}

/* Two degrees of freedom, the fewest there are: t = (2q - 1) / sqrt(2q (1 - q)). */
static void the_heaviest_tails_have_their_closed_form(void **state)
{
    static const float levels[] = {0.001f, 0.1f, 0.5f, 0.8f, 0.999f};

    (void)state;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        double q = (double)levels[i], wanted = (2 * q - 1) / sqrt(2 * q * (1 - q));

        assert_true(fabs((double)quantile_of(2 + 1e-9, levels[i]) - wanted) <= 2e-6 * (1 + fabs(wanted)));
        bench_close();
    }
}

/* ---- mixtures ----------------------------------------------------------------------------------------------------------------- */

/* P(T <= t): the integral of the density, which with t = sqrt(df) tan(angle) is cos^(df - 1), by Simpson's rule. */
static double distribution(double df, double t)
{
    enum { INTERVALS = 4000 };
    double end = atan(t / sqrt(df)), h = end / INTERVALS, sum = 1 + pow(cos(end), df - 1);

    for (int i = 1; i < INTERVALS; i++)
        sum += (i % 2 == 0 ? 2 : 4) * pow(cos(h * i), df - 1);
    return 0.5 + exp(lgamma((df + 1) / 2) - lgamma(df / 2)) / sqrt(acos(-1)) * sum * h / 3;
}

typedef struct {
    double mean, spread;
} moments_t;

static double weight_of(const float *head, int64_t k, int64_t components)
{
    double sum = 0;

    for (int64_t i = 0; i < components; i++)
        sum += exp((double)head[3 * components + i] - (double)head[3 * components + k]);
    return 1 / sum;
}

static moments_t moments_of(const float *head, int64_t components)
{
    moments_t moments = {0, 0};

    for (int64_t k = 0; k < components; k++)
        moments.mean += weight_of(head, k, components) * (double)head[components + k];
    for (int64_t k = 0; k < components; k++)
        moments.spread += weight_of(head, k, components) * (pow(softplus((double)head[2 * components + k]), 2) +
                                                            pow((double)head[components + k] - moments.mean, 2));
    moments.spread = sqrt(moments.spread);
    return moments;
}

static double mixed(const float *head, int64_t components, double x)
{
    double sum = 0;

    for (int64_t k = 0; k < components; k++)
        sum += weight_of(head, k, components) *
               distribution(2 + softplus((double)head[k]),
                            (x - (double)head[components + k]) / softplus((double)head[2 * components + k]));
    return sum;
}

/* The distribution function of the head lies on both sides of the level within 1e-5 of the spread around the quantile. */
static void the_quantiles_invert_the_integral_of_the_density(void **state)
{
    static const float levels[] = {0.001f, 0.05f, 0.1f, 0.5f, 0.5f, 0.7f, 0.999f};
    enum { LEVELS = sizeof levels / sizeof *levels };

    (void)state;
    for (int round = 0; round < 12; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        int64_t k = bench_pick(1, 8), patch = bench_pick(1, 3), horizon = bench_pick(1, patch);
        float *head = bench_numbers(patch * 4 * k), loc = 10 * bench_random(), scale = 2 + bench_random(), *got;

        for (int64_t i = 0; i < patch * 4 * k; i++)
            head[i] *= i / k % 4 == 0 ? 6 : i / k % 4 == 2 ? 4 : 2; /* raw df, loc, scale, logits */
        got = quantiles(backend, &(quantiles_case_t){.rows = 1,
                                                     .patch = patch,
                                                     .components = k,
                                                     .horizon = horizon,
                                                     .variates = 1,
                                                     .head = head,
                                                     .loc = &loc,
                                                     .scale = &scale,
                                                     .levels = levels,
                                                     .level_count = LEVELS});
        for (int64_t p = 0; p < horizon; p++)
            for (int q = 0; q < LEVELS; q++) {
                const float *at = head + p * 4 * k;
                double x = ((double)got[q * horizon + p] - (double)loc) / (double)scale;
                double off = 1e-5 * moments_of(at, k).spread + 1e-6 * fabs(x);

                assert_true(mixed(at, k, x - off) < (double)levels[q]);
                assert_true(mixed(at, k, x + off) > (double)levels[q]);
            }
        bench_close();
    }
}

/* ---- any head ----------------------------------------------------------------------------------------------------------------- */

/* Degrees of freedom to 1e30, scales of 1e-7 beside 1e4, weights from nothing to all, far apart. */
static void whatever_the_head_says_the_levels_stay_in_order(void **state)
{
    static const float levels[] = {0.001f, 0.01f, 0.1f, 0.3f, 0.5f, 0.5f, 0.7f, 0.9f, 0.99f, 0.999f};
    enum { LEVELS = sizeof levels / sizeof *levels, ROWS = 16, PATCH = 4 };

    (void)state;
    for (int round = 0; round < 60; round++) {
        backend_t *backend = bench_open(1000 + (uint64_t)round);
        int64_t k = bench_pick(1, 20);
        float *head = bench_numbers(ROWS * PATCH * 4 * k), *loc = bench_numbers(ROWS), *scale = bench_numbers(ROWS), *got;

        for (int64_t i = 0; i < ROWS * PATCH * 4 * k; i++) {
            float wild = powf(10, 4 * bench_random());
            head[i] *= i / k % 4 == 0 && round % 5 == 0 ? 1e30f : i / k % 4 == 3 ? 100.0f : wild;
        }
        for (int r = 0; r < ROWS; r++)
            scale[r] = powf(10, 30 * scale[r]);
        got = quantiles(backend, &(quantiles_case_t){.rows = ROWS,
                                                     .patch = PATCH,
                                                     .components = k,
                                                     .horizon = PATCH,
                                                     .variates = 1,
                                                     .head = head,
                                                     .loc = loc,
                                                     .scale = scale,
                                                     .levels = levels,
                                                     .level_count = LEVELS});
        for (int64_t i = 0; i < ROWS * LEVELS * PATCH; i++) {
            int64_t row = i / (LEVELS * PATCH), level = i / PATCH % LEVELS, p = i % PATCH;
            const float *at = head + (row * PATCH + p) * 4 * k;
            double low = INFINITY, high = -INFINITY,
                   widest = (2 * (double)levels[level] - 1) / sqrt(2 * (double)levels[level] * (1 - (double)levels[level]));

            assert_true(isfinite(got[i]));
            if (level > 0)
                assert_true(got[i] >= got[i - PATCH]);
            for (int64_t c = 0; c < k; c++) {
                double end = (double)at[k + c] + fmax(softplus((double)at[2 * k + c]), (double)FLT_EPSILON) * widest;
                low = fmin(low, fmin(end, (double)at[k + c]));
                high = fmax(high, fmax(end, (double)at[k + c]));
            }
            low = low * (double)scale[row] + (double)loc[row];
            high = high * (double)scale[row] + (double)loc[row];
            assert_true((double)got[i] >= low - 1e-5 * (1e-30 + fabs(low)) - 1e-6 * fabs((double)loc[row]));
            assert_true((double)got[i] <= high + 1e-5 * (1e-30 + fabs(high)) + 1e-6 * fabs((double)loc[row]));
        }
        bench_close();
    }
}

/* A component that holds a millionth of the weight, ten thousand times as wide as the others, moves nothing. */
static void a_wide_component_of_no_weight_does_not_blur_the_others(void **state)
{
    backend_t *backend = bench_open(0);
    float narrow[4] = {3, 1, inverse_softplus(1e-3), 0};
    float wide[8] = {3, 3, 1, -500, inverse_softplus(1e-3), 10, 0, -100}, zero = 0, one = 1, levels[] = {0.001f, 0.2f, 0.9f};
    quantiles_case_t c = {.rows = 1,
                          .patch = 1,
                          .components = 1,
                          .horizon = 1,
                          .variates = 1,
                          .head = narrow,
                          .loc = &zero,
                          .scale = &one,
                          .levels = levels,
                          .level_count = 3};
    float *alone = quantiles(backend, &c), *beside;

    (void)state;
    c.components = 2;
    c.head = wide;
    beside = quantiles(backend, &c);
    for (int q = 0; q < 3; q++)
        assert_true(fabsf(alone[q] - beside[q]) < 1e-7f);
    bench_close();
}

static void what_is_no_usable_number_becomes_0(void **state)
{
    static const float levels[] = {0.1f, 0.5f, 0.9f};
    static const struct {
        float loc, out_loc, out_scale;
    } cases[] = {{NAN, 0, 1}, {INFINITY, 0, 1}, {1e38f, 0, 10}, {0, NAN, 1}, {0, INFINITY, 1}, {3, 0, INFINITY}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float head[8] = {1, 1, cases[i].loc, cases[i].loc, 0, 0, 0, 0}, *got;

        got = quantiles(bench_open(i), &(quantiles_case_t){.rows = 1,
                                                           .patch = 1,
                                                           .components = 2,
                                                           .horizon = 1,
                                                           .variates = 1,
                                                           .head = head,
                                                           .loc = &cases[i].out_loc,
                                                           .scale = &cases[i].out_scale,
                                                           .levels = levels,
                                                           .level_count = 3});
        assert_true(got[0] == 0 && got[1] == 0 && got[2] == 0);
        bench_close();
    }
}

/* ---- rows --------------------------------------------------------------------------------------------------------------------- */

static void a_row_does_not_depend_on_the_others_and_known_variates_are_their_future(void **state)
{
    enum { SERIES = 3, VARIATES = 3, ROWS = SERIES * VARIATES, PATCH = 5, HORIZON = 4, K = 3, LEVELS = 2 };
    static const float levels[LEVELS] = {0.2f, 0.9f};
    backend_t *backend = bench_open(5);
    float *head = bench_numbers(ROWS * PATCH * 4 * K), *loc = bench_numbers(ROWS), *scale = bench_numbers(ROWS);
    float *future = bench_numbers(SERIES * PATCH), *all, *alone;
    quantiles_case_t c = {.rows = ROWS,
                          .patch = PATCH,
                          .components = K,
                          .horizon = HORIZON,
                          .variates = VARIATES,
                          .exogenous = 1,
                          .head = head,
                          .loc = loc,
                          .scale = scale,
                          .levels = levels,
                          .future = future,
                          .level_count = LEVELS};

    (void)state;
    for (int r = 0; r < ROWS; r++)
        scale[r] = 1 + fabsf(scale[r]);
    all = quantiles(backend, &c);
    c.rows = c.variates = 1;
    c.exogenous = 0;
    for (int r = 0; r < ROWS; r++, c.head += PATCH * 4 * K, c.loc++, c.scale++) {
        const float *row = all + r * LEVELS * HORIZON;

        if (r % VARIATES < VARIATES - 1) {
            alone = quantiles(backend, &c);
            assert_memory_equal(row, alone, LEVELS * HORIZON * sizeof *alone);
        } else {
            assert_memory_equal(row, future + r / VARIATES * PATCH, HORIZON * sizeof *row);
            assert_memory_equal(row + HORIZON, future + r / VARIATES * PATCH, HORIZON * sizeof *row);
        }
    }
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_component_has_the_quantiles_of_the_tables),
        cmocka_unit_test(the_heaviest_tails_have_their_closed_form),
        cmocka_unit_test(the_quantiles_invert_the_integral_of_the_density),
        cmocka_unit_test(whatever_the_head_says_the_levels_stay_in_order),
        cmocka_unit_test(a_wide_component_of_no_weight_does_not_blur_the_others),
        cmocka_unit_test(what_is_no_usable_number_becomes_0),
        cmocka_unit_test(a_row_does_not_depend_on_the_others_and_known_variates_are_their_future),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
