/* quantile_head, unroll and weighted_quantiles against definitions written out in double. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { MOST = 4096 };

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The broken line through (position, value), level beyond its ends. */
static double line_at(const double *position, const double *value, int64_t count, double at)
{
    if (at <= position[0])
        return value[0];
    for (int64_t i = 1; i < count; i++)
        if (at <= position[i])
            return value[i - 1] + (at - position[i - 1]) / (position[i] - position[i - 1]) * (value[i] - value[i - 1]);
    return value[count - 1];
}

/* ---- quantile_head ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t rows, patches, patch, levels, asked, total, offset;
    bool sinh, capped, patch_scales;
    backend_quantile_head_t op;
    backend_tensor_t low, high, native, asked_levels, quantiles, mean;
    float *head, *loc, *scale;
} head_case_t;

static const float native_levels[] = {0.05f, 0.1f, 0.3f, 0.5f, 0.8f}, asked_levels[] = {0.01f, 0.1f, 0.25f, 0.5f, 0.6f, 0.99f};

static void make_head(head_case_t *c, int round)
{
    int64_t values;

    *c = (head_case_t){.rows = bench_pick(1, 3),
                       .patches = bench_pick(1, 3),
                       .patch = bench_pick(1, 5),
                       .levels = 5,
                       .asked = 6,
                       .sinh = round % 2 == 0,
                       .capped = round % 3 == 0,
                       .patch_scales = round % 4 < 2};
    c->total = c->patches * c->patch + 4;
    c->offset = 2;
    values = c->rows * c->patches * c->levels * c->patch;
    c->head = bench_numbers(values);
    c->loc = bench_numbers(c->rows * c->patches);
    c->scale = bench_numbers(c->rows * c->patches);
    c->native = bench_f32(NULL, c->rows * c->levels * (c->patches * c->patch + 1));
    c->asked_levels = bench_f32(asked_levels, c->asked);
    c->quantiles = bench_f32(NULL, c->rows * c->asked * c->total);
    c->mean = bench_f32(NULL, c->rows * c->total);
    c->low = bench_f32((float[]){-.5f, -.25f, -1}, 3);
    c->high = bench_f32((float[]){.5f, .75f, .25f}, 3);
    /* even rounds: [row][patch][level][p]; odd ones: [row][patch][p][level] */
    c->op = (backend_quantile_head_t){.head = bench_f32(c->head, values),
                                      .rows = c->rows,
                                      .length = c->patches * c->patch,
                                      .patch = c->patch,
                                      .levels = c->levels,
                                      .row_stride = c->patches * c->levels * c->patch,
                                      .patch_stride = c->levels * c->patch,
                                      .level_stride = round % 2 == 0 ? c->patch : 1,
                                      .value_stride = round % 2 == 0 ? 1 : c->levels,
                                      .sinh = c->sinh,
                                      .loc = bench_f32(c->loc, c->rows * c->patches),
                                      .scale = bench_f32(c->scale, c->rows * c->patches),
                                      .loc_stride = c->patches,
                                      .loc_patch_stride = c->patch_scales,
                                      .low = c->capped ? &c->low : NULL,
                                      .high = c->capped ? &c->high : NULL,
                                      .native = &c->native,
                                      .native_stride = c->patches * c->patch + 1,
                                      .unsorted = round % 5 == 0,
                                      .native_levels = bench_f32(native_levels, c->levels),
                                      .horizon = c->patches * c->patch,
                                      .asked = &c->asked_levels,
                                      .quantiles = &c->quantiles,
                                      .mean = &c->mean,
                                      .total = c->total,
                                      .offset = c->offset};
}

static void head_reference(const head_case_t *c, int64_t row, int64_t t, double *values)
{
    static const double low[] = {-.5, -.25, -1}, high[] = {.5, .75, .25};
    int64_t patch = t / c->patch, loc_at = row * c->patches + (c->patch_scales ? patch : 0);

    for (int64_t level = 0; level < c->levels; level++) {
        double value = (double)c->head[row * c->op.row_stride + patch * c->op.patch_stride + level * c->op.level_stride +
                                       t % c->patch * c->op.value_stride];

        value = (c->sinh ? sinh(value) : value) * (double)c->scale[loc_at] + (double)c->loc[loc_at];
        values[level] = c->capped ? fmin(fmax(value, low[row]), high[row]) : value;
    }
}

static void heads_become_ordered_quantiles_at_the_levels_asked_for(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        head_case_t c;
        float *native, *quantiles, *mean;

        make_head(&c, round);
        assert_int_equal(backend_quantile_head(backend, &c.op), BACKEND_OK);
        native = bench_read(&c.native);
        quantiles = bench_read(&c.quantiles);
        mean = bench_read(&c.mean);
        for (int64_t row = 0; row < c.rows; row++)
            for (int64_t t = 0; t < c.op.length; t++) {
                double values[8], levels[8];

                head_reference(&c, row, t, values);
                for (int i = 0; i < 5; i++)
                    levels[i] = (double)native_levels[i];
                if (!c.op.unsorted)
                    qsort(values, 5, sizeof *values, compare_doubles);
                for (int64_t level = 0; level < c.levels; level++)
                    assert_true(fabs((double)native[(row * c.levels + level) * c.op.native_stride + t] - values[level]) < 1e-6);
                qsort(values, 5, sizeof *values, compare_doubles);
                for (int64_t q = 0; q < c.asked; q++)
                    assert_true(fabs((double)quantiles[(row * c.asked + q) * c.total + c.offset + t] -
                                     line_at(levels, values, 5, (double)asked_levels[q])) < 1e-6);
                assert_true(fabs((double)mean[row * c.total + c.offset + t] - values[3]) < 1e-6);
            }
        bench_close();
    }
}

static void infinite_values_become_their_patchs_extremes_and_nan_0(void **state)
{
    backend_t *backend = bench_open(0);
    /* one row, two patches of three, one level */
    float head[] = {INFINITY, 2, 3, NAN, -INFINITY, INFINITY}, *native;
    backend_tensor_t out = bench_f32(NULL, 6);
    backend_quantile_head_t op = {.head = bench_f32(head, 6),
                                  .rows = 1,
                                  .length = 6,
                                  .patch = 3,
                                  .levels = 1,
                                  .patch_stride = 3,
                                  .value_stride = 1,
                                  .loc = bench_f32((float[]){1}, 1),
                                  .scale = bench_f32((float[]){2}, 1),
                                  .native = &out,
                                  .native_levels = bench_f32((float[]){.5f}, 1)};

    (void)state;
    assert_int_equal(backend_quantile_head(backend, &op), BACKEND_OK);
    native = bench_read(&out);
    assert_memory_equal(native, ((float[]){7, 5, 7, 0, 0, 0}), 6 * sizeof *native);
    bench_close();
}

/* ---- unroll -------------------------------------------------------------------------------------------------------------------- */

static void paths_continue_the_context_along_their_levels_and_the_known_future(void **state)
{
    /* one series, a target and a covariate; context 3, forecast 2 so far of levels 0, 1, 2 (stride 4), two paths on levels 2 and 0 */
    static const float x[] = {1, 2, 3, /* */ 10, 20, 30};
    static const uint8_t mask[] = {0, 1, 1, /* */ 1, 0, 1};
    static const float native[] = {.1f, .2f, 0, 0, .3f, .4f, 0, 0, .5f, .6f, 0, 0, /* */ 1, 2, 0, 0, 3, 4, 0, 0, 5, 6, 0, 0};
    static const float future[] = {-1, NAN, -3, NAN};
    static const float wanted[2][2][6] = {
        {{2, 3, .5f, .6f, 0, 0}, {20, 30, -1, 6, -3, 0}},
        {{2, 3, .1f, .2f, 0, 0}, {20, 30, -1, 2, -3, 0}},
    };
    static const uint8_t wanted_mask[2][6] = {{1, 1, 1, 1, 0, 0}, {0, 1, 1, 1, 1, 0}};
    backend_t *backend = bench_open(0);
    backend_tensor_t native_of = bench_f32(native, 24), future_of = bench_f32(future, 4), levels = bench_i32((int32_t[]){2, 0}, 2);
    backend_unroll_t op = {.x = bench_f32(x, 6),
                           .mask = bench_any(BACKEND_U8, mask, 6),
                           .series = 1,
                           .variates = 2,
                           .context = 3,
                           .native = &native_of,
                           .levels = 3,
                           .length = 2,
                           .native_stride = 4,
                           .path_levels = &levels,
                           .paths = 2,
                           .future = &future_of,
                           .exogenous = 1,
                           .future_stride = 4,
                           .width = 4,
                           .ahead = 2,
                           .y = bench_f32(NULL, 24),
                           .y_mask = bench_any(BACKEND_U8, NULL, 24)};
    uint8_t y_mask[2][2][6];

    (void)state;
    assert_int_equal(backend_unroll(backend, &op), BACKEND_OK);
    assert_memory_equal(bench_read(&op.y), wanted, sizeof wanted);
    assert_int_equal(backend_read(backend, &op.y_mask, y_mask), BACKEND_OK);
    assert_memory_equal(y_mask[0], wanted_mask, sizeof wanted_mask);
    assert_memory_equal(y_mask[1], wanted_mask, sizeof wanted_mask);
    bench_close();
}

static void without_a_forecast_the_context_gets_its_known_future_appended(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t future = bench_f32((float[]){5, NAN, 6, 7}, 4);
    backend_unroll_t op = {.x = bench_f32((float[]){1, 2, 3, 4}, 4),
                           .mask = bench_any(BACKEND_U8, (uint8_t[]){1, 0, 1, 1}, 4),
                           .series = 2,
                           .variates = 1,
                           .context = 2,
                           .paths = 1,
                           .future = &future,
                           .exogenous = 1,
                           .future_stride = 2,
                           .width = 2,
                           .ahead = 2,
                           .y = bench_f32(NULL, 8),
                           .y_mask = bench_any(BACKEND_U8, NULL, 8)};
    uint8_t mask[8];

    (void)state;
    assert_int_equal(backend_unroll(backend, &op), BACKEND_OK);
    assert_memory_equal(bench_read(&op.y), ((float[]){1, 2, 5, 0, 3, 4, 6, 7}), 8 * sizeof(float));
    assert_int_equal(backend_read(backend, &op.y_mask, mask), BACKEND_OK);
    assert_memory_equal(mask, ((uint8_t[]){1, 0, 1, 0, 1, 1, 1, 1}), 8);
    op.width = 3; /* more than there is */
    op.ahead = 1;
    assert_int_equal(backend_unroll(backend, &op), BACKEND_OK);
    assert_memory_equal(bench_read(&op.y), ((float[]){0, 1, 2, 5, 0, 3, 4, 6}), 8 * sizeof(float));
    assert_int_equal(backend_read(backend, &op.y_mask, mask), BACKEND_OK);
    assert_memory_equal(mask, ((uint8_t[]){0, 1, 0, 1, 0, 1, 1, 1}), 8);
    op.paths = 2;
    assert_int_equal(backend_unroll(backend, &op), BACKEND_ERR_INVALID);
    bench_close();
}

/* ---- weighted_quantiles -------------------------------------------------------------------------------------------------------- */

typedef struct {
    double value, weight;
} pair_t;

static int compare_pairs(const void *a, const void *b)
{
    return compare_doubles(&((const pair_t *)a)->value, &((const pair_t *)b)->value);
}

static void quantiles_over_weighted_paths_follow_their_distribution_function(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        int64_t series = bench_pick(1, 2), paths = bench_pick(1, 9), variates = bench_pick(1, 3), levels = bench_pick(1, 21),
                length = 3;
        int64_t count = paths * levels, stride = length + 2;
        float *x = bench_numbers(series * paths * variates * levels * length), *weights = bench_numbers(count), sum = 0, *y;
        backend_weighted_quantiles_t op = {.series = series,
                                           .paths = paths,
                                           .variates = variates,
                                           .levels = levels,
                                           .length = length,
                                           .asked = bench_f32(asked_levels, 6),
                                           .y = bench_f32(NULL, series * variates * 6 * stride),
                                           .y_stride = stride};

        for (int64_t i = 0; i < count; i++)
            sum += weights[i] = 1.5f + weights[i];
        for (int64_t i = 0; i < count; i++)
            weights[i] /= sum;
        op.x = bench_f32(x, series * paths * variates * levels * length);
        op.weights = bench_f32(weights, count);
        assert_int_equal(backend_weighted_quantiles(backend, &op), BACKEND_OK);
        y = bench_read(&op.y);
        for (int64_t row = 0; row < series * variates; row++)
            for (int64_t t = 0; t < length; t++) {
                pair_t pairs[256];
                double position[256], value[256], running = 0;

                for (int64_t p = 0; p < paths; p++)
                    for (int64_t l = 0; l < levels; l++)
                        pairs[p * levels + l] = (pair_t){
                            (double)x[(((row / variates * paths + p) * variates + row % variates) * levels + l) * length + t],
                            (double)weights[p * levels + l]};
                qsort(pairs, (size_t)count, sizeof *pairs, compare_pairs);
                for (int64_t i = 0; i < count; i++) {
                    position[i] = running += pairs[i].weight;
                    value[i] = pairs[i].value;
                }
                for (int64_t q = 0; q < 6; q++)
                    assert_true(fabs((double)y[(row * 6 + q) * stride + t] -
                                     line_at(position, value, count, (double)asked_levels[q])) < 1e-4);
            }
        bench_close();
    }
}

static void refused(int rc, const char *names)
{
    assert_int_equal(rc, BACKEND_ERR_INVALID);
    if (strstr(error_text(), names) == NULL)
        fail_msg("\"%s\" does not name %s", error_text(), names);
}

static void descriptors_that_do_not_fit_are_refused_by_field(void **state)
{
    backend_t *backend = bench_open(0);
    head_case_t c;
    backend_quantile_head_t head;
    backend_weighted_quantiles_t weighted = {.series = 1, .paths = 2, .variates = 1, .levels = 3, .length = 1};

    (void)state;
    make_head(&c, 3);
    head = c.op, head.length++;
    if (c.patch > 1)
        refused(backend_quantile_head(backend, &head), "length");
    head = c.op, head.levels = BACKEND_LEVELS_MOST + 1;
    refused(backend_quantile_head(backend, &head), "levels");
    head = c.op, head.row_stride += 1000;
    head.rows++;
    refused(backend_quantile_head(backend, &head), "head");
    head = c.op, head.high = NULL;
    refused(backend_quantile_head(backend, &head), "cap");
    head = c.op, head.native_stride = head.length - 1;
    if (head.native_stride > 0)
        refused(backend_quantile_head(backend, &head), "native_stride");
    head = c.op, head.native = NULL, head.horizon = 0;
    refused(backend_quantile_head(backend, &head), "neither");
    head = c.op, head.offset = head.total;
    refused(backend_quantile_head(backend, &head), "offset");
    weighted.x = bench_f32(NULL, 6);
    weighted.weights = bench_f32(NULL, 5);
    refused(backend_weighted_quantiles(backend, &weighted), "weights");
    weighted.paths = BACKEND_WEIGHTED_MOST;
    refused(backend_weighted_quantiles(backend, &weighted), "paths");
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_become_ordered_quantiles_at_the_levels_asked_for),
        cmocka_unit_test(infinite_values_become_their_patchs_extremes_and_nan_0),
        cmocka_unit_test(paths_continue_the_context_along_their_levels_and_the_known_future),
        cmocka_unit_test(without_a_forecast_the_context_gets_its_known_future_appended),
        cmocka_unit_test(quantiles_over_weighted_paths_follow_their_distribution_function),
        cmocka_unit_test(descriptors_that_do_not_fit_are_refused_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
