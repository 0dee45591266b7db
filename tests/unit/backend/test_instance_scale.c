/* instance_scale and patch against definitions written out in double. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { MOST = 512 };

typedef struct {
    int64_t rows, width, ahead;
    double eps, clip;
    bool add, asinh, masked;
    float x[MOST];
    uint8_t mask[MOST];
} scale_case_t;

static scale_case_t make_case(int round)
{
    scale_case_t c = {.rows = bench_pick(1, 4),
                      .width = bench_pick(2, 60),
                      .eps = 1e-5,
                      .clip = round % 3 == 0 ? 1.25 : 0,
                      .add = round % 2 == 0,
                      .asinh = round % 4 < 2,
                      .masked = round % 5 > 0};

    c.ahead = round % 3 == 1 ? bench_pick(1, c.width - 1) : 0;
    for (int64_t i = 0; i < c.rows * c.width; i++) {
        c.mask[i] = !c.masked || bench_pick(0, 3) > 0;
        c.x[i] = (round % 2 == 0 ? 25000.0f : 0.0f) + 40 * bench_random();
    }
    return c;
}

/* Sum of squared distances over all pairs: a deviation without a mean. */
static void reference(const scale_case_t *c, int64_t row, double *loc, double *scale, double *y)
{
    const float *x = c->x + row * c->width;
    const uint8_t *mask = c->mask + row * c->width;
    int64_t count = c->width - c->ahead;
    double n = 0, sum = 0, pairs = 0;

    for (int64_t i = 0; i < count; i++)
        if (mask[i]) {
            n += 1;
            sum += (double)x[i];
            for (int64_t j = 0; j < count; j++)
                pairs += mask[j] ? pow((double)x[i] - (double)x[j], 2) : 0;
        }
    *loc = n > 0 ? sum / n : 0;
    *scale = n > 0 ? sqrt(pairs / 2) / n : 1;
    *scale = c->add ? *scale + c->eps : *scale > 0 ? *scale : c->eps;
    for (int64_t i = 0; i < c->width; i++) {
        double value = ((double)x[i] - *loc) / *scale;

        value = c->clip > 0 ? fmin(fmax(value, -c->clip), c->clip) : value;
        y[i] = !mask[i] ? 0 : c->asinh ? asinh(value) : value;
    }
}

static void check(backend_t *backend, const scale_case_t *c)
{
    int64_t values = c->rows * c->width;
    backend_tensor_t mask = bench_any(BACKEND_U8, c->mask, values);
    backend_instance_scale_t op = {.x = bench_f32(c->x, values),
                                   .mask = c->masked ? &mask : NULL,
                                   .rows = c->rows,
                                   .width = c->width,
                                   .ahead = c->ahead,
                                   .eps = (float)c->eps,
                                   .clip = (float)c->clip,
                                   .add = c->add,
                                   .asinh = c->asinh,
                                   .y = bench_f32(NULL, values),
                                   .loc = bench_f32(NULL, c->rows),
                                   .scale = bench_f32(NULL, c->rows)};
    float *y, *loc, *scale;

    assert_int_equal(backend_instance_scale(backend, &op), BACKEND_OK);
    y = bench_read(&op.y);
    loc = bench_read(&op.loc);
    scale = bench_read(&op.scale);
    for (int64_t row = 0; row < c->rows; row++) {
        double wanted_loc, wanted_scale, wanted[MOST];

        reference(c, row, &wanted_loc, &wanted_scale, wanted);
        bench_assert_close(&loc[row], &wanted_loc, 1, 1e-6);
        bench_assert_close(&scale[row], &wanted_scale, 1, 1e-5);
        /* a float holds a bar of 25000 to 1e-3, which is 5e-5 of this scale */
        bench_assert_close(y + row * c->width, wanted, c->width, 3e-4);
    }
}

static void rows_are_scaled_by_their_own_mean_and_deviation(void **state)
{
    (void)state;
    for (int round = 0; round < 24; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        scale_case_t c = make_case(round);

        check(backend, &c);
        bench_close();
    }
}

static void a_constant_row_is_divided_by_eps_and_an_unobserved_one_by_1(void **state)
{
    backend_t *backend = bench_open(0);
    scale_case_t c = {.rows = 2, .width = 5, .eps = 1e-5, .asinh = true, .masked = true};

    (void)state;
    for (int i = 0; i < 5; i++) {
        c.x[i] = 3.25f;
        c.mask[i] = 1;
        c.x[5 + i] = 77;
    }
    check(backend, &c);
    bench_close();
}

static void a_known_future_is_scaled_by_the_past_and_does_not_count(void **state)
{
    backend_t *backend = bench_open(0);
    float x[] = {1, 3, 1, 3, 1000}, *loc, *scale, *y;
    backend_instance_scale_t op = {.x = bench_f32(x, 5),
                                   .rows = 1,
                                   .width = 5,
                                   .ahead = 1,
                                   .eps = 1e-5f,
                                   .y = bench_f32(NULL, 5),
                                   .loc = bench_f32(NULL, 1),
                                   .scale = bench_f32(NULL, 1)};

    (void)state;
    assert_int_equal(backend_instance_scale(backend, &op), BACKEND_OK);
    loc = bench_read(&op.loc);
    scale = bench_read(&op.scale);
    y = bench_read(&op.y);
    assert_true(*loc == 2 && *scale == 1 && y[4] == 998);
    bench_close();
}

/* ---- patches ------------------------------------------------------------------------------------------------------------------ */

static void patches_hold_time_values_and_mask_side_by_side(void **state)
{
    static const float x[] = {1, 2, 3, 4, 5, 6, -1, -1, /* */ 7, 8, 9, 10, 11, 12, -1, -1};
    static const uint8_t mask[] = {1, 0, 1, 1, 0, 0, 1, 1, /* */ 0, 0, 0, 1, 1, 1, 1, 1};
    static const float time[] = {.1f, .2f, .3f, .4f, .5f, .6f};
    /* two rows of three patches of two, 20 apart, patches 6 apart at first: [time | values | mask] */
    static const float wanted[2][3][6] = {
        {{.1f, .2f, 1, 0, 1, 0}, {.3f, .4f, 3, 4, 1, 1}, {.5f, .6f, 0, 0, 0, 0}},
        {{.1f, .2f, 0, 0, 0, 0}, {.3f, .4f, 0, 10, 0, 1}, {.5f, .6f, 11, 12, 1, 1}},
    };
    static const uint8_t seen[2][3] = {{1, 1, 0}, {0, 1, 1}};

    (void)state;
    for (int variant = 0; variant < 8; variant++) {
        backend_t *backend = bench_open(0);
        bool timed = variant & 1, missing = variant & 2, spread = variant & 4;
        int64_t features = timed ? 6 : 4, patch_stride = spread ? features + 3 : features,
                row = 3 * patch_stride + (spread ? 2 : 0);
        backend_tensor_t time_of = bench_f32(time, 6), mask_of = bench_any(BACKEND_U8, mask, 16),
                         visible = bench_any(BACKEND_U8, NULL, spread ? 10 : 6);
        backend_patch_t op = {.x = bench_f32(x, 16),
                              .mask = &mask_of,
                              .rows = 2,
                              .patches = 3,
                              .patch = 2,
                              .x_stride = 8,
                              .time = timed ? &time_of : NULL,
                              .missing = missing,
                              .y = bench_f32(NULL, 2 * row),
                              .y_stride = spread ? row : 0,
                              .patch_stride = spread ? patch_stride : 0,
                              .visible = &visible,
                              .visible_stride = spread ? 5 : 0};
        uint8_t visible_read[10];
        float *y;

        assert_int_equal(backend_patch(backend, &op), BACKEND_OK);
        y = bench_read(&op.y);
        assert_int_equal(backend_read(backend, &visible, visible_read), BACKEND_OK);
        for (int64_t r = 0; r < 2; r++)
            for (int64_t p = 0; p < 3; p++) {
                assert_int_equal(visible_read[r * (spread ? 5 : 3) + p], seen[r][p]);
                for (int64_t i = 0; i < features; i++) {
                    float expected = wanted[r][p][timed ? i : i + 2];

                    if (missing && i >= features - 2)
                        expected = 1 - expected;
                    assert_true(y[r * row + p * patch_stride + i] == expected);
                }
            }
        bench_close();
    }
}

static void without_a_mask_nothing_is_observed(void **state)
{
    backend_t *backend = bench_open(0);
    float time[] = {0, .5f}, *y;
    backend_tensor_t time_of = bench_f32(time, 2), visible = bench_any(BACKEND_U8, NULL, 1);
    backend_patch_t op = {.rows = 1, .patches = 1, .patch = 2, .time = &time_of, .y = bench_f32(NULL, 6), .visible = &visible};
    uint8_t seen;

    (void)state;
    assert_int_equal(backend_patch(backend, &op), BACKEND_OK);
    y = bench_read(&op.y);
    assert_memory_equal(y, ((float[]){0, .5f, 0, 0, 0, 0}), 6 * sizeof *y);
    assert_int_equal(backend_read(backend, &visible, &seen), BACKEND_OK);
    assert_int_equal(seen, 0);
    bench_close();
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
    backend_tensor_t eight = bench_f32(NULL, 8), two = bench_f32(NULL, 2);
    backend_instance_scale_t scale = {.x = eight, .rows = 2, .width = 4, .eps = 1e-5f, .y = eight, .loc = two, .scale = two}, bad;
    backend_patch_t patch = {.rows = 2, .patches = 1, .patch = 2, .y = eight}, worse;

    (void)state;
    bad = scale, bad.ahead = 4;
    refused(backend_instance_scale(backend, &bad), "ahead");
    bad = scale, bad.width = 5;
    refused(backend_instance_scale(backend, &bad), "x holds 8");
    bad = scale, bad.rows = 3, bad.width = 2;
    refused(backend_instance_scale(backend, &bad), "loc");
    worse = patch, worse.patches = 2;
    assert_int_equal(backend_patch(backend, &patch), BACKEND_OK);
    refused(backend_patch(backend, &worse), "y holds 8");
    worse = patch, worse.patch_stride = 3;
    refused(backend_patch(backend, &worse), "patch_stride");
    worse = patch, worse.mask = &eight;
    refused(backend_patch(backend, &worse), "x is missing");
    worse = patch, worse.visible = &eight, worse.visible_stride = 1;
    refused(backend_patch(backend, &worse), "visible");
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_scaled_by_their_own_mean_and_deviation),
        cmocka_unit_test(a_constant_row_is_divided_by_eps_and_an_unobserved_one_by_1),
        cmocka_unit_test(a_known_future_is_scaled_by_the_past_and_does_not_count),
        cmocka_unit_test(patches_hold_time_values_and_mask_side_by_side),
        cmocka_unit_test(without_a_mask_nothing_is_observed),
        cmocka_unit_test(descriptors_that_do_not_fit_are_refused_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
