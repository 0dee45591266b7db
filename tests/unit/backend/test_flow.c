/* flow_start and flow_finish: the noise is standard normal and depends on its coordinates alone; drift, paths and median by their formulae. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 500, STRIDE = WIDTH + 7 };

/* Draws [rows][WIDTH] into values of bench_read. */
static float *draw(backend_t *backend, uint64_t *keys, int64_t series, int64_t samples, int64_t variates, int64_t first)
{
    int64_t rows = series * samples * variates;
    backend_tensor_t key = bench_any(BACKEND_U64, keys, series), x = bench_f32(NULL, rows * STRIDE);
    backend_weight_t bias = bench_weight(bench_numbers(WIDTH), WIDTH, 0);

    assert_int_equal(backend_flow_start(backend, &(backend_flow_start_t){.rows = rows,
                                                                         .width = WIDTH,
                                                                         .samples = samples,
                                                                         .variates = variates,
                                                                         .keys = &key,
                                                                         .first = first,
                                                                         .bias = &bias,
                                                                         .steps = 50,
                                                                         .x = x,
                                                                         .drift = bench_f32(NULL, rows * STRIDE),
                                                                         .stride = STRIDE}),
                     BACKEND_OK);
    return bench_read(&x);
}

/* Of n standard normal numbers the mean has deviation 1/sqrt(n), the mean of squares sqrt(2/n), of fourth powers sqrt(96/n). */
static void noise_is_standard_normal(void **state)
{
    backend_t *backend = bench_open(0);
    uint64_t keys[2] = {7, 1234567890123};
    int64_t rows = 2 * 40 * 3;
    float *x = draw(backend, keys, 2, 40, 3, 0);
    double n = (double)(rows * WIDTH), sum = 0, squares = 0, fourth = 0, neighbours = 0;

    (void)state;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < WIDTH; c++) {
            double value = (double)x[r * STRIDE + c];

            sum += value;
            squares += value * value;
            fourth += value * value * value * value;
            neighbours += c > 0 ? value * (double)x[r * STRIDE + c - 1] : 0;
        }
    assert_true(fabs(sum / n) < 5 / sqrt(n));
    assert_true(fabs(squares / n - 1) < 5 * sqrt(2 / n));
    assert_true(fabs(fourth / n - 3) < 5 * sqrt(96 / n));
    assert_true(fabs(neighbours / n) < 5 / sqrt(n));
    bench_close();
}

static void noise_depends_on_key_sample_variate_and_channel_alone(void **state)
{
    backend_t *backend = bench_open(0);
    uint64_t keys[2] = {11, 22};
    float *both = draw(backend, keys, 2, 3, 2, 0), *second = draw(backend, keys + 1, 1, 3, 2, 0);
    float *fewer = draw(backend, keys + 1, 1, 2, 2, 0), *later = draw(backend, keys + 1, 1, 3, 2, 100);

    (void)state;
    assert_memory_equal(both + 6 * STRIDE, second, 5 * STRIDE * sizeof *both);
    assert_memory_equal(fewer, second, 2 * STRIDE * sizeof *both);                      /* variate 0 */
    assert_memory_equal(fewer + 2 * STRIDE, second + 3 * STRIDE, WIDTH * sizeof *both); /* variate 1, sample 0 */
    assert_memory_equal(later, second + 100, (WIDTH - 100) * sizeof *both);
    for (int64_t r = 1; r < 12; r++)
        assert_memory_not_equal(both, both + r * STRIDE, WIDTH * sizeof *both);
    bench_close();
}

static void given_noise_is_taken_and_drifts_to_the_bias(void **state)
{
    enum { SERIES = 2, SAMPLES = 3, VARIATES = 2, ROWS = SERIES * SAMPLES * VARIATES, CHANNELS = 5, FIRST = 4, GIVEN = 11 };
    backend_t *backend = bench_open(1);
    float *noise = bench_numbers(ROWS * GIVEN), *numbers = bench_numbers(CHANNELS), *got_x, *got_drift;
    backend_tensor_t given = bench_f32(noise, ROWS * GIVEN), x = bench_f32(NULL, ROWS * 6), drift = bench_f32(NULL, ROWS * 6);
    backend_weight_t bias = bench_weight(numbers, CHANNELS, 0);

    (void)state;
    assert_int_equal(backend_flow_start(backend, &(backend_flow_start_t){.rows = ROWS,
                                                                         .width = CHANNELS,
                                                                         .samples = SAMPLES,
                                                                         .variates = VARIATES,
                                                                         .first = FIRST,
                                                                         .given = &given,
                                                                         .given_stride = GIVEN,
                                                                         .bias = &bias,
                                                                         .steps = 8,
                                                                         .x = x,
                                                                         .drift = drift,
                                                                         .stride = 6}),
                     BACKEND_OK);
    got_x = bench_read(&x);
    got_drift = bench_read(&drift);
    for (int i = 0; i < SERIES; i++)
        for (int v = 0; v < VARIATES; v++)
            for (int s = 0; s < SAMPLES; s++)
                for (int c = 0; c < CHANNELS; c++) {
                    int64_t row = (i * VARIATES + v) * SAMPLES + s, path = (i * SAMPLES + s) * VARIATES + v;
                    float wanted = noise[path * GIVEN + FIRST + c];

                    assert_true(got_x[row * 6 + c] == wanted);
                    assert_true(fabsf(got_drift[row * 6 + c] - (numbers[c] - wanted) / 8) <= 1e-7f);
                }
    bench_close();
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void finish(int64_t series, int64_t samples, int64_t variates, int64_t width)
{
    backend_t *backend = bench_open((uint64_t)samples);
    int64_t groups = series * variates, rows = groups * samples, stride = width + 3, path_stride = width + 2;
    float *x = bench_numbers(rows * stride), *loc = bench_numbers(groups), *scale = bench_numbers(groups);
    backend_tensor_t paths = bench_f32(bench_numbers(rows * path_stride), rows * path_stride),
                     median = bench_f32(NULL, groups * width);
    float *before = bench_read(&paths), *got, *middle, *sorted = bench_numbers(samples);

    x[0] = x[stride] = 0.5f; /* equal ones */
    assert_int_equal(backend_flow_finish(backend, &(backend_flow_finish_t){.x = bench_f32(x, rows * stride),
                                                                           .stride = stride,
                                                                           .rows = rows,
                                                                           .width = width,
                                                                           .samples = samples,
                                                                           .variates = variates,
                                                                           .loc = bench_f32(loc, groups),
                                                                           .scale = bench_f32(scale, groups),
                                                                           .paths = paths,
                                                                           .path_stride = path_stride,
                                                                           .median = &median}),
                     BACKEND_OK);
    got = bench_read(&paths);
    middle = bench_read(&median);
    for (int64_t g = 0; g < groups; g++)
        for (int64_t c = 0; c < width; c++) {
            for (int64_t s = 0; s < samples; s++) {
                int64_t path = (g / variates * samples + s) * variates + g % variates;

                sorted[s] = x[(g * samples + s) * stride + c];
                assert_true(fabsf(got[path * path_stride + c] - (sorted[s] * scale[g] + loc[g])) <= 1e-6f);
                before[path * path_stride + c] = got[path * path_stride + c];
            }
            qsort(sorted, (size_t)samples, sizeof *sorted, ascending);
            assert_true(middle[g * width + c] == sorted[(samples - 1) / 2]);
        }
    assert_memory_equal(got, before, (size_t)(rows * path_stride) * sizeof *got); /* nothing between the rows */
    bench_close();
}

static void paths_and_medians_come_from_where_the_flow_arrived(void **state)
{
    (void)state;
    finish(2, 5, 3, 4);
    finish(1, 4, 1, 9);
    finish(3, 20, 2, 1);
}

static void a_sample_that_is_not_a_number_counts_as_the_greatest(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t one = bench_f32((float[]){1}, 1), median = bench_f32(NULL, 1);
    float x[4] = {NAN, 3, 1, 2};

    (void)state;
    assert_int_equal(backend_flow_finish(backend, &(backend_flow_finish_t){.x = bench_f32(x, 4),
                                                                           .stride = 1,
                                                                           .rows = 4,
                                                                           .width = 1,
                                                                           .samples = 4,
                                                                           .variates = 1,
                                                                           .loc = one,
                                                                           .scale = one,
                                                                           .paths = bench_f32(NULL, 4),
                                                                           .path_stride = 1,
                                                                           .median = &median}),
                     BACKEND_OK);
    assert_true(*bench_read(&median) == 2);
    bench_close();
}

static void flows_that_do_not_fit_are_refused(void **state)
{
    backend_t *backend = bench_open(0);
    backend_weight_t bias = bench_weight(bench_numbers(4), 4, 0);
    backend_flow_start_t op = {.rows = 6,
                               .width = 4,
                               .samples = 3,
                               .variates = 2,
                               .bias = &bias,
                               .steps = 2,
                               .x = bench_f32(NULL, 24),
                               .drift = bench_f32(NULL, 24),
                               .stride = 4};

    (void)state;
    assert_int_equal(backend_flow_start(backend, &op), BACKEND_ERR_INVALID); /* neither keys nor noise */
    op.keys = &(backend_tensor_t){.data = &op, .dtype = BACKEND_U64, .rank = 1, .dim = {1}};
    assert_int_equal(backend_flow_start(backend, &op), BACKEND_OK);
    op.samples = 4;
    assert_int_equal(backend_flow_start(backend, &op), BACKEND_ERR_INVALID);
    op.samples = 3;
    op.stride = 5;
    assert_int_equal(backend_flow_start(backend, &op), BACKEND_ERR_INVALID);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_is_standard_normal),
        cmocka_unit_test(noise_depends_on_key_sample_variate_and_channel_alone),
        cmocka_unit_test(given_noise_is_taken_and_drifts_to_the_bias),
        cmocka_unit_test(paths_and_medians_come_from_where_the_flow_arrived),
        cmocka_unit_test(a_sample_that_is_not_a_number_counts_as_the_greatest),
        cmocka_unit_test(flows_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
