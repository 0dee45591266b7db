/* causal_scale and causal_scale_extend against sums over all values seen, computed afresh for every patch. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 256 };

typedef struct {
    double loc, scale;
} statistic_t;

/* Mean and clamped deviation of the observed ones among `count` values; bounds from the first `context`. */
static statistic_t reference(const float *x, const uint8_t *mask, int64_t count, int64_t context, double minimum, double exponent)
{
    double n[2] = {0}, sum[2] = {0}, squares[2] = {0}, deviation, global;
    int64_t lengths[2] = {count, context};

    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < lengths[k]; i++)
            if (mask[i]) {
                n[k] += 1;
                sum[k] += (double)x[i];
            }
        for (int64_t i = 0; i < lengths[k]; i++)
            if (mask[i])
                squares[k] += pow((double)x[i] - sum[k] / fmax(n[k], 1), 2);
    }
    deviation = sqrt(squares[0] / fmax(n[0] - 1, 1) + minimum);
    global = sqrt(squares[1] / fmax(n[1], 1) + minimum);
    if (exponent > 0)
        deviation = fmin(fmax(deviation, fmax(minimum, global * pow(10, -exponent))), global * pow(10, exponent));
    return (statistic_t){sum[0] / fmax(n[0], 1), deviation};
}

typedef struct {
    int64_t series, samples, variates, patches, patch, steps;
    double minimum, exponent;
    float x[MOST];
    uint8_t mask[MOST];
} scaler_case_t;

/* Large offsets next to small changes: what a naive sum of squares loses. */
static scaler_case_t make_case(int round)
{
    scaler_case_t c = {.series = bench_pick(1, 2),
                       .samples = bench_pick(1, 3),
                       .variates = bench_pick(1, 2),
                       .patches = bench_pick(1, 6),
                       .patch = bench_pick(1, 10),
                       .steps = 3,
                       .minimum = 0.1,
                       .exponent = (double[]){0, 0.05, 10}[round % 3]};

    for (int64_t i = 0; i < c.series * c.variates * c.patches * c.patch; i++) {
        c.mask[i] = bench_pick(0, 4) > 0 || round % 5 == 0;
        c.x[i] = c.mask[i] ? (round % 2 == 0 ? 30000.0f : 0.5f) + 3 * bench_random() : 0.0f;
    }
    return c;
}

static void check_patch(const float *y, float loc, float scale, const float *x, int64_t patch, statistic_t wanted)
{
    double scaled[MOST];

    for (int64_t i = 0; i < patch; i++)
        scaled[i] = ((double)x[i] - (double)loc) / (double)scale;
    bench_assert_close(&loc, &wanted.loc, 1, 1e-6);
    bench_assert_close(&scale, &wanted.scale, 1, 1e-6);
    bench_assert_close(y, scaled, patch, 1e-5);
}

static backend_tensor_t check_context(backend_t *backend, const scaler_case_t *c)
{
    int64_t rows = c->series * c->variates, values = c->patches * c->patch;
    backend_tensor_t state = bench_any(BACKEND_F64, NULL, rows * BACKEND_SCALER_STATE);
    backend_causal_scale_t op = {.x = bench_f32(c->x, rows * values),
                                 .mask = bench_any(BACKEND_U8, c->mask, rows * values),
                                 .rows = rows,
                                 .patches = c->patches,
                                 .patch = c->patch,
                                 .minimum = c->minimum,
                                 .exponent = c->exponent,
                                 .y = bench_f32(NULL, rows * values),
                                 .loc = bench_f32(NULL, rows * c->patches),
                                 .scale = bench_f32(NULL, rows * c->patches),
                                 .state = state};
    float *y, *loc, *scale;

    assert_int_equal(backend_causal_scale(backend, &op), BACKEND_OK);
    y = bench_read(&op.y);
    loc = bench_read(&op.loc);
    scale = bench_read(&op.scale);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t p = 0; p < c->patches; p++)
            check_patch(y + r * values + p * c->patch, loc[r * c->patches + p], scale[r * c->patches + p],
                        c->x + r * values + p * c->patch, c->patch,
                        reference(c->x + r * values, c->mask + r * values, (p + 1) * c->patch, values, c->minimum, c->exponent));
    return state;
}

/* Every path goes on from its series' statistics with values of its own. */
static void check_extension(backend_t *backend, const scaler_case_t *c, backend_tensor_t state_in)
{
    int64_t rows = c->series * c->samples * c->variates, stride = c->steps * c->patch + 3, values = c->patches * c->patch;
    float *paths = bench_numbers(rows * stride), *y, *loc, *scale;
    backend_tensor_t step = bench_i32((int32_t[]){0}, 1);
    backend_causal_scale_extend_t op = {.x = bench_f32(paths, rows * stride),
                                        .x_stride = stride,
                                        .rows = rows,
                                        .samples = c->samples,
                                        .variates = c->variates,
                                        .patch = c->patch,
                                        .minimum = c->minimum,
                                        .state_in = state_in,
                                        .state = bench_any(BACKEND_F64, NULL, rows * BACKEND_SCALER_STATE),
                                        .y = bench_f32(NULL, rows * c->patch),
                                        .loc = bench_f32(NULL, rows),
                                        .scale = bench_f32(NULL, rows),
                                        .step = &step};

    for (int64_t s = 0; s < c->steps; s++) {
        assert_int_equal(backend_causal_scale_extend(backend, &op), BACKEND_OK);
        y = bench_read(&op.y);
        loc = bench_read(&op.loc);
        scale = bench_read(&op.scale);
        for (int64_t r = 0; r < rows; r++) {
            int64_t prefix = r / (c->samples * c->variates) * c->variates + r % c->variates;
            float all[MOST];
            uint8_t mask[MOST];

            memcpy(all, c->x + prefix * values, (size_t)values * sizeof *all);
            memcpy(mask, c->mask + prefix * values, (size_t)values);
            memcpy(all + values, paths + r * stride, (size_t)((s + 1) * c->patch) * sizeof *all);
            memset(mask + values, 1, (size_t)((s + 1) * c->patch));
            check_patch(y + r * c->patch, loc[r], scale[r], paths + r * stride + s * c->patch, c->patch,
                        reference(all, mask, values + (s + 1) * c->patch, values, c->minimum, c->exponent));
        }
        assert_int_equal(backend_step_advance(backend, &step), BACKEND_OK);
    }
}

static void patches_are_scaled_by_all_that_was_seen_up_to_their_end(void **state)
{
    (void)state;
    for (int round = 0; round < 15; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        scaler_case_t c = make_case(round);

        check_extension(backend, &c, check_context(backend, &c));
        bench_close();
    }
}

static void a_series_without_observations_has_loc_0_and_the_minimum_scale(void **state)
{
    backend_t *backend = bench_open(0);
    scaler_case_t c = {
        .series = 1, .samples = 1, .variates = 1, .patches = 2, .patch = 4, .steps = 2, .minimum = 0.1, .exponent = 10};

    (void)state;
    check_extension(backend, &c, check_context(backend, &c));
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches_are_scaled_by_all_that_was_seen_up_to_their_end),
        cmocka_unit_test(a_series_without_observations_has_loc_0_and_the_minimum_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
