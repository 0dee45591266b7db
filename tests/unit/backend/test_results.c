/* override, summarize and random_walk. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void known_variates_take_their_future_and_others_keep_their_paths(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        int64_t series = bench_pick(1, 3), samples = bench_pick(1, 3), variates = bench_pick(1, 4),
                exogenous = bench_pick(1, variates);
        int64_t patch = bench_pick(1, 5), at = bench_pick(0, 2), stride = 3 * patch + 1, future_stride = 3 * patch + 2;
        int64_t rows = series * samples * variates;
        float *before = bench_numbers(rows * stride), *future = bench_numbers(series * exogenous * future_stride), *after;
        backend_tensor_t step = bench_i32((int32_t[]){(int32_t)at}, 1);
        backend_override_t op = {.paths = bench_f32(before, rows * stride),
                                 .path_stride = stride,
                                 .series = series,
                                 .samples = samples,
                                 .variates = variates,
                                 .exogenous = exogenous,
                                 .patch = patch,
                                 .future = bench_f32(future, series * exogenous * future_stride),
                                 .future_stride = future_stride,
                                 .step = &step};

        assert_int_equal(backend_override(backend, &op), BACKEND_OK);
        after = bench_read(&op.paths);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < stride; i++) {
                int64_t e = row % variates - (variates - exogenous), s = row / (samples * variates);
                bool replaced = e >= 0 && i >= at * patch && i < (at + 1) * patch;
                float wanted = replaced ? future[(s * exogenous + e) * future_stride + i] : before[row * stride + i];
                assert_true(after[row * stride + i] == wanted);
            }
        bench_close();
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void quantiles_interpolate_between_the_sorted_samples(void **state)
{
    static const float levels[] = {0.001f, 0.1f, 0.25f, 0.5f, 0.9f, 0.999f};
    enum { LEVELS = sizeof levels / sizeof *levels, SAMPLES_MOST = 101 };

    (void)state;
    for (int round = 0; round < 8; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        int64_t series = bench_pick(1, 3), variates = bench_pick(1, 3), horizon = bench_pick(1, 7), stride = horizon + 2;
        int64_t samples = round == 0 ? 1 : bench_pick(2, SAMPLES_MOST), rows = series * variates;
        float *paths = bench_numbers(series * samples * variates * stride), *mean, *quantiles;
        backend_tensor_t level_tensor = bench_f32(levels, LEVELS), quantile_tensor = bench_f32(NULL, rows * LEVELS * horizon);
        backend_summarize_t op = {.paths = bench_f32(paths, series * samples * variates * stride),
                                  .path_stride = stride,
                                  .series = series,
                                  .samples = samples,
                                  .variates = variates,
                                  .horizon = horizon,
                                  .mean = bench_f32(NULL, rows * horizon),
                                  .levels = &level_tensor,
                                  .quantiles = &quantile_tensor};

        assert_int_equal(backend_summarize(backend, &op), BACKEND_OK);
        mean = bench_read(&op.mean);
        quantiles = bench_read(&quantile_tensor);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t h = 0; h < horizon; h++) {
                double values[SAMPLES_MOST], sum = 0;

                for (int64_t s = 0; s < samples; s++) {
                    values[s] = (double)paths[((row / variates * samples + s) * variates + row % variates) * stride + h];
                    sum += values[s];
                }
                qsort(values, (size_t)samples, sizeof *values, ascending);
                assert_true(fabs((double)mean[row * horizon + h] - sum / (double)samples) < 1e-6);
                for (int64_t q = 0; q < LEVELS; q++) {
                    double place = (double)levels[q] * (double)(samples - 1), below = floor(place);
                    double upper = values[(int64_t)fmin(below + 1, (double)(samples - 1))];
                    double wanted = values[(int64_t)below] + (place - below) * (upper - values[(int64_t)below]);
                    assert_true(fabs((double)quantiles[(row * LEVELS + q) * horizon + h] - wanted) < 1e-6);
                }
            }
        bench_close();
    }
}

static void walk(backend_t *backend, const float *x, const uint8_t *mask, int64_t context, uint8_t log_space, float *mean,
                 float *quantiles)
{
    backend_tensor_t z = bench_f32((float[]){-1, 0, 2}, 3), log_tensor = bench_any(BACKEND_U8, &log_space, 1);
    backend_random_walk_t op = {.x = bench_f32(x, context),
                                .mask = bench_any(BACKEND_U8, mask, context),
                                .rows = 1,
                                .context = context,
                                .horizon = 4,
                                .levels = 3,
                                .z = &z,
                                .log = &log_tensor,
                                .mean = bench_f32(NULL, 4),
                                .quantiles = bench_f32(NULL, 12)};

    assert_int_equal(backend_random_walk(backend, &op), BACKEND_OK);
    memcpy(mean, bench_read(&op.mean), 4 * sizeof *mean);
    memcpy(quantiles, bench_read(&op.quantiles), 12 * sizeof *quantiles);
}

static void prices_walk_in_logs_and_other_fields_linearly(void **state)
{
    backend_t *backend = bench_open(0);
    float x[6] = {100, 110, 0, 120, 108, 0}, mean[4], quantiles[12];
    uint8_t mask[6] = {1, 1, 0, 1, 1, 0}; /* two changes: 100 to 110, 120 to 108 */
    double in_logs = sqrt((pow(log(1.1), 2) + pow(log(0.9), 2)) / 2), linear = sqrt((100 + 144) / 2.0), z[3] = {-1, 0, 2};

    (void)state;
    walk(backend, x, mask, 6, 1, mean, quantiles);
    for (int h = 0; h < 4; h++) {
        assert_true(mean[h] == 108.0f);
        for (int q = 0; q < 3; q++)
            assert_true(fabs((double)quantiles[q * 4 + h] - 108 * exp(z[q] * in_logs * sqrt(h + 1))) < 1e-4);
    }
    walk(backend, x, mask, 6, 0, mean, quantiles);
    for (int h = 0; h < 4; h++)
        for (int q = 0; q < 3; q++)
            assert_true(fabs((double)quantiles[q * 4 + h] - (108 + z[q] * linear * sqrt(h + 1))) < 1e-4);
    bench_close();
}

static void a_walk_without_observations_stays_at_0(void **state)
{
    backend_t *backend = bench_open(0);
    float x[3] = {5, -2, 7}, mean[4], quantiles[12];

    (void)state;
    walk(backend, x, (uint8_t[]){0, 1, 0}, 3, 1, mean, quantiles); /* the one observed price is not positive */
    for (int i = 0; i < 12; i++)
        assert_true(quantiles[i] == 0.0f && mean[i % 4] == 0.0f);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_variates_take_their_future_and_others_keep_their_paths),
        cmocka_unit_test(quantiles_interpolate_between_the_sorted_samples),
        cmocka_unit_test(prices_walk_in_logs_and_other_fields_linearly),
        cmocka_unit_test(a_walk_without_observations_stays_at_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
