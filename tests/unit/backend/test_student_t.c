/* Philox against the authors' vectors; the mixture's mean against a double-precision sum; its draws against distribution functions in closed form
 * (Student's t with 4 degrees of freedom), within what chance explains; and each draw's independence of batch and placement. */
#include "tests/unit/backend/device_bench.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpuworker/backend/philox.h"

static void philox_gives_the_published_vectors(void **state)
{
    static const struct {
        uint64_t key;
        uint32_t counter[4], wanted[4];
    } vectors[] = {
        {0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const uint32_t *c = vectors[i].counter;
        philox_t got = philox(vectors[i].key, c[0], c[1], c[2], c[3]);
        assert_memory_equal(got.word, vectors[i].wanted, sizeof got.word);
    }
}

static void uniform_numbers_stay_inside_the_open_interval(void **state)
{
    (void)state;
    assert_true(philox_uniform(0) > 0.0f);
    assert_true(philox_uniform(UINT32_MAX) < 1.0f);
    assert_true(philox_uniform(0) == 1.0f - philox_uniform(UINT32_MAX));
}

/* ---- mean --------------------------------------------------------------------------------------------------------------------- */

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static void the_mean_is_the_weighted_sum_of_the_locations(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        int64_t rows = bench_pick(1, 6), patch = bench_pick(1, 9), k = bench_pick(1, 7), steps = 3, stride = steps * patch + 2;
        int64_t at = bench_pick(0, 2), tokens = bench_pick(1, 4);
        float *head = bench_numbers(rows * patch * 4 * k), *loc = bench_numbers(rows * tokens),
              *scale = bench_numbers(rows * tokens);
        backend_tensor_t step = bench_i32((int32_t[]){(int32_t)at}, 1), params = bench_f32(NULL, 4 * rows * patch * k);
        backend_student_t_t op = {.head = bench_f32(head, rows * patch * 4 * k),
                                  .rows = rows,
                                  .patch = patch,
                                  .components = k,
                                  .samples = 1,
                                  .draws = 0,
                                  .variates = 1,
                                  .out_loc = bench_f32(loc, rows * tokens),
                                  .out_scale = bench_f32(scale, rows * tokens),
                                  .out_stride = tokens,
                                  .out_offset = tokens - 1,
                                  .step = &step,
                                  .paths = bench_f32(NULL, rows * stride),
                                  .path_stride = stride,
                                  .params = &params};
        float *paths, *shown;

        assert_int_equal(backend_student_t(backend, &op), BACKEND_OK);
        paths = bench_read(&op.paths);
        shown = bench_read(&params);
        for (int64_t v = 0; v < rows * patch; v++) {
            const float *raw = head + v * 4 * k;
            int64_t row = v / patch, out = row * tokens + tokens - 1;
            double sum = 0, mean = 0, wanted[4];

            for (int64_t i = 0; i < k; i++)
                sum += exp((double)raw[3 * k + i]);
            for (int64_t i = 0; i < k; i++) {
                mean += exp((double)raw[3 * k + i]) / sum * (double)raw[k + i];
                wanted[0] = 2 + softplus((double)raw[i]);
                wanted[1] = (double)raw[k + i];
                wanted[2] = softplus((double)raw[2 * k + i]);
                wanted[3] = (double)raw[3 * k + i];
                for (int part = 0; part < 4; part++)
                    bench_assert_close(shown + part * rows * patch * k + v * k + i, wanted + part, 1, 1e-5);
            }
            mean = mean * (double)scale[out] + (double)loc[out];
            assert_true(fabs((double)paths[row * stride + at * patch + v % patch] - mean) < 1e-5);
        }
        bench_close();
    }
}

/* A head of one value: k components with df, location, scale and logit given as the model's raw numbers. */
static double inverse_softplus(double y)
{
    return log(expm1(y));
}

typedef struct {
    float head[8];    /* [4][2] */
    float loc, scale; /* to original units */
    int64_t draws;    /* a row */
    int64_t rows;     /* alike, one a series */
    const uint64_t *keys;
} draw_case_t;

/* Draws from the same head in every row; values [rows][draws]. */
static float *draw(backend_t *backend, const draw_case_t *c, int32_t step_value)
{
    float *head = bench_numbers(c->rows * 8), *loc = bench_numbers(c->rows), *scale = bench_numbers(c->rows);
    backend_tensor_t step = bench_i32(&step_value, 1), keys = bench_any(BACKEND_U64, c->keys, c->rows);
    backend_student_t_t op = {.rows = c->rows,
                              .patch = 1,
                              .components = 2,
                              .samples = 1,
                              .draws = c->draws,
                              .variates = 1,
                              .out_stride = 1,
                              .keys = &keys,
                              .step = &step,
                              .paths = bench_f32(NULL, c->rows * c->draws * (step_value + 1)),
                              .path_stride = step_value + 1};
    float *paths, *values = bench_numbers(c->rows * c->draws);

    for (int64_t r = 0; r < c->rows; r++) {
        memcpy(head + r * 8, c->head, sizeof c->head);
        loc[r] = c->loc;
        scale[r] = c->scale;
    }
    op.head = bench_f32(head, c->rows * 8);
    op.out_loc = bench_f32(loc, c->rows);
    op.out_scale = bench_f32(scale, c->rows);
    assert_int_equal(backend_student_t(backend, &op), BACKEND_OK);
    paths = bench_read(&op.paths);
    for (int64_t i = 0; i < c->rows * c->draws; i++)
        values[i] = paths[i * op.path_stride + step_value];
    return values;
}

/* P(T <= t) for 4 degrees of freedom. */
static double cdf4(double t)
{
    double x = t / sqrt(4 + t * t);
    return 0.5 + 0.75 * (x - x * x * x / 3);
}

/* Three quarters around -1 with scale 0.5, one quarter around 2 with scale 1.5: checked at many points of the mixture's distribution. */
static void draws_follow_the_mixtures_distribution(void **state)
{
    enum { DRAWS = 40000, POINTS = 25 };
    backend_t *backend = bench_open(0);
    float df = (float)inverse_softplus(2);
    draw_case_t c = {.head = {df, df, -1, 2, (float)inverse_softplus(0.5), (float)inverse_softplus(1.5), logf(3), 0},
                     .loc = 100,
                     .scale = 10,
                     .draws = DRAWS,
                     .rows = 1,
                     .keys = (uint64_t[]){42}};
    float *values = draw(backend, &c, 0);

    (void)state;
    for (int p = 0; p < POINTS; p++) {
        double x = -4 + 0.4 * p, share = 0, wanted = 0.75 * cdf4((x + 1) / 0.5) + 0.25 * cdf4((x - 2) / 1.5);

        for (int i = 0; i < DRAWS; i++)
            share += (double)values[i] <= 100 + 10 * x ? 1.0 / DRAWS : 0;
        /* five standard deviations of a share: one chance in a million, and the seed is fixed */
        assert_true(fabs(share - wanted) < 5 * sqrt(wanted * (1 - wanted) / DRAWS));
    }
    bench_close();
}

/* Many degrees of freedom are nearly a normal distribution: variance df / (df - 2), and no overflow on the way. */
static void many_degrees_of_freedom_give_a_normal_distribution(void **state)
{
    enum { DRAWS = 40000 };
    backend_t *backend = bench_open(0);
    draw_case_t c = {.head = {1e6f, 1e6f, 0, 0, (float)inverse_softplus(1), (float)inverse_softplus(1), 0, 0},
                     .loc = 0,
                     .scale = 1,
                     .draws = DRAWS,
                     .rows = 1,
                     .keys = (uint64_t[]){7}};
    float *values = draw(backend, &c, 0);
    double sum = 0, squares = 0, fourth = 0;

    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        sum += (double)values[i];
        squares += pow((double)values[i], 2);
        fourth += pow((double)values[i], 4);
    }
    assert_true(fabs(sum / DRAWS) < 5 / sqrt(DRAWS));
    assert_true(fabs(squares / DRAWS - 1) < 5 * sqrt(2.0 / DRAWS));
    assert_true(fabs(fourth / DRAWS - 3) < 5 * sqrt(96.0 / DRAWS));
    bench_close();
}

static void a_draw_depends_on_its_key_place_and_number_alone(void **state)
{
    backend_t *backend = bench_open(0);
    float head[8] = {1, 1, -1, 2, 0, 0, 0, 0};
    draw_case_t alone = {.loc = 1, .scale = 2, .draws = 5, .rows = 1, .keys = (uint64_t[]){11}};
    draw_case_t among = {.loc = 1, .scale = 2, .draws = 9, .rows = 3, .keys = (uint64_t[]){99, 11, 5}};
    float *one, *three, *later;

    (void)state;
    memcpy(alone.head, head, sizeof head);
    memcpy(among.head, head, sizeof head);
    one = draw(backend, &alone, 0);
    three = draw(backend, &among, 0);
    later = draw(backend, &alone, 1);
    assert_memory_equal(one, three + 9, 5 * sizeof *one); /* the same key in another row, with more draws */
    assert_memory_not_equal(one, three, 5 * sizeof *one); /* another key */
    assert_memory_not_equal(one, later, 5 * sizeof *one); /* another place in the horizon */
    bench_close();
}

/* After the paths have branched every row draws once; path s must go on with the numbers of path s. */
static void a_path_draws_the_same_whether_it_branches_or_goes_on(void **state)
{
    enum { PATHS = 4, VARIATES = 2 };
    backend_t *backend = bench_open(0);
    float *row = bench_numbers(8), *branching = bench_numbers(VARIATES * 8), *going = bench_numbers(PATHS * VARIATES * 8), *one,
          *many;
    float *zeros = bench_numbers(PATHS * VARIATES), *ones = bench_numbers(PATHS * VARIATES);
    backend_tensor_t step = bench_i32((int32_t[]){0}, 1), keys = bench_any(BACKEND_U64, (uint64_t[]){3}, 1);
    backend_student_t_t op = {.rows = VARIATES,
                              .patch = 1,
                              .components = 2,
                              .samples = 1,
                              .draws = PATHS,
                              .variates = VARIATES,
                              .out_stride = 1,
                              .keys = &keys,
                              .step = &step,
                              .path_stride = 1};

    (void)state;
    for (int r = 0; r < PATHS * VARIATES; r++) {
        memcpy(going + r * 8, row, 8 * sizeof *row);
        memcpy(branching + r % VARIATES * 8, row, 8 * sizeof *row);
        zeros[r] = 0;
        ones[r] = 1;
    }
    op.out_loc = bench_f32(zeros, PATHS * VARIATES);
    op.out_scale = bench_f32(ones, PATHS * VARIATES);
    op.head = bench_f32(branching, VARIATES * 8);
    op.paths = bench_f32(NULL, PATHS * VARIATES);
    assert_int_equal(backend_student_t(backend, &op), BACKEND_OK);
    one = bench_read(&op.paths);
    op.head = bench_f32(going, PATHS * VARIATES * 8);
    op.paths = bench_f32(NULL, PATHS * VARIATES);
    op.rows = PATHS * VARIATES;
    op.samples = PATHS;
    op.draws = 1;
    assert_int_equal(backend_student_t(backend, &op), BACKEND_OK);
    many = bench_read(&op.paths);
    assert_memory_equal(one, many, PATHS * VARIATES * sizeof *one);
    bench_close();
}

static void what_is_no_usable_number_becomes_0(void **state)
{
    static const struct {
        float loc, scale;
    } affine[] = {{INFINITY, 1}, {NAN, 1}, {0, INFINITY}, {FLT_MAX, 1}, {-FLT_MAX * 0.6f, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof affine / sizeof *affine; i++) {
        backend_t *backend = bench_open(i);
        draw_case_t c = {.head = {1, 1, 3, 3, 0, 0, 0, 0},
                         .loc = affine[i].loc,
                         .scale = affine[i].scale,
                         .draws = 2,
                         .rows = 1,
                         .keys = (uint64_t[]){1}};
        float *values = draw(backend, &c, 0);

        assert_true(values[0] == 0.0f && values[1] == 0.0f);
        bench_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(uniform_numbers_stay_inside_the_open_interval),
        cmocka_unit_test(the_mean_is_the_weighted_sum_of_the_locations),
        cmocka_unit_test(draws_follow_the_mixtures_distribution),
        cmocka_unit_test(many_degrees_of_freedom_give_a_normal_distribution),
        cmocka_unit_test(a_draw_depends_on_its_key_place_and_number_alone),
        cmocka_unit_test(a_path_draws_the_same_whether_it_branches_or_goes_on),
        cmocka_unit_test(what_is_no_usable_number_becomes_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
