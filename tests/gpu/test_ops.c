/* The remaining ops on the GPU: scaler, mixture head, override, summaries, the naive forecast, copies, errors. */
#include "tests/gpu/pair.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static pair_t *bytes_of(const char *name, int64_t count, double ones)
{
    pair_t *pair = pair_new(name, BACKEND_U8, DIMS(count));
    uint8_t *values = malloc((size_t)count);

    assert_non_null(values);
    for (int64_t i = 0; i < count; i++)
        values[i] = random_uniform() < ones;
    pair_write(pair, values);
    free(values);
    return pair;
}

static pair_t *step_of(int32_t value)
{
    pair_t *step = pair_new("step", BACKEND_I32, DIMS(1));

    pair_write(step, &value);
    return step;
}

/* ---- the causal scaler ------------------------------------------------------------------------------------------------------- */

static void scale_and_extend(int64_t series, int64_t variates, int64_t samples, int64_t patches, int64_t patch, double exponent,
                             double observed)
{
    enum { STEPS = 3 };
    const double minimum = 0.1;
    int64_t rows = series * variates, paths = rows * samples, values = patches * patch, x_stride = STEPS * patch + 5;
    pair_t *x = pair_new("x", BACKEND_F32, DIMS(rows, values)), *mask = bytes_of("mask", rows * values, observed);
    pair_t *y = pair_new("y", BACKEND_F32, DIMS(rows, values)), *loc = pair_new("loc", BACKEND_F32, DIMS(rows, patches));
    pair_t *scale = pair_new("scale", BACKEND_F32, DIMS(rows, patches)),
           *state_in = pair_new("state in", BACKEND_F64, DIMS(rows, BACKEND_SCALER_STATE));
    pair_t *state = pair_new("state", BACKEND_F64, DIMS(paths, BACKEND_SCALER_STATE)),
           *more = pair_new("more", BACKEND_F32, DIMS(paths, x_stride));
    pair_t *more_y = pair_new("more y", BACKEND_F32, DIMS(paths, patch)),
           *more_loc = pair_new("more loc", BACKEND_F32, DIMS(paths));
    pair_t *more_scale = pair_new("more scale", BACKEND_F32, DIMS(paths)), *step = step_of(0);

    pair_normal(x, 3, 20);
    pair_normal(more, 3, 20);
    EACH_SIDE(side)
    {
        pair_ok(backend_causal_scale(pair_backend[side], &(backend_causal_scale_t){.x = x->view[side],
                                                                                   .mask = mask->view[side],
                                                                                   .rows = rows,
                                                                                   .patches = patches,
                                                                                   .patch = patch,
                                                                                   .minimum = minimum,
                                                                                   .exponent = exponent,
                                                                                   .y = y->view[side],
                                                                                   .loc = loc->view[side],
                                                                                   .scale = scale->view[side],
                                                                                   .state = state_in->view[side]}));
    }
    pair_compare(y, 1e-6);
    pair_compare(loc, 1e-6);
    pair_compare(scale, 1e-6);
    pair_compare(state_in, 1e-12);
    for (int s = 0; s < STEPS; s++) {
        EACH_SIDE(side)
        {
            pair_ok(
                backend_causal_scale_extend(pair_backend[side], &(backend_causal_scale_extend_t){.x = more->view[side],
                                                                                                 .x_stride = x_stride,
                                                                                                 .rows = paths,
                                                                                                 .samples = samples,
                                                                                                 .variates = variates,
                                                                                                 .patch = patch,
                                                                                                 .minimum = minimum,
                                                                                                 .state_in = state_in->view[side],
                                                                                                 .state = state->view[side],
                                                                                                 .y = more_y->view[side],
                                                                                                 .loc = more_loc->view[side],
                                                                                                 .scale = more_scale->view[side],
                                                                                                 .step = &step->view[side]}));
            pair_ok(backend_step_advance(pair_backend[side], &step->view[side]));
        }
        pair_compare(more_y, 1e-6);
        pair_compare(more_loc, 1e-6);
        pair_compare(more_scale, 1e-6);
        pair_compare(state, 1e-12);
    }
    pair_guards(more);
    pair_test_end(NULL);
}

static void the_scaler_matches_the_cpu_over_context_and_generated_patches(void **state)
{
    (void)state;
    scale_and_extend(1, 1, 1, 8, 64, 10, 1);
    scale_and_extend(3, 2, 5, 8, 64, 1, 0.7);
    scale_and_extend(2, 1, 3, 1, 1, 0, 1);
    scale_and_extend(2, 3, 2, 70, 7, 0.5, 0.1);
    scale_and_extend(5, 1, 2, 33, 33, 10, 0); /* nothing observed */
}

/* ---- the mixture head -------------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t series, variates, samples, draws, patch, components;
} mixture_case_t;

/* Values of the mixture, on both sides. params: NULL, or gets the transformed parameters. */
static pair_t *mixture(const mixture_case_t *c, pair_t **params)
{
    enum { STEP = 1, OUT_STRIDE = 3, OUT_OFFSET = 2 };
    int64_t rows = c->series * c->samples * c->variates, paths = c->draws > 0 ? rows * c->draws : rows, path_stride = 3 * c->patch;
    pair_t *head = pair_random("head", BACKEND_F32, 2, DIMS(rows, c->patch, 4, c->components));
    pair_t *loc = pair_random("out loc", BACKEND_F32, 1, DIMS(rows, OUT_STRIDE)),
           *scale = pair_random("out scale", BACKEND_F32, 1, DIMS(rows, OUT_STRIDE));
    pair_t *keys = pair_new("keys", BACKEND_U64, DIMS(c->series)), *step = step_of(STEP);
    pair_t *out = pair_random("paths", BACKEND_F32, 0, DIMS(paths, path_stride));
    uint64_t *key = malloc((size_t)c->series * sizeof *key);

    assert_non_null(key);
    if (params != NULL)
        *params = pair_new("params", BACKEND_F32, DIMS(4, rows * c->patch, c->components));
    for (int64_t i = 0; i < c->series; i++)
        key[i] = (uint64_t)(random_uniform() * 0x1p63);
    pair_write(keys, key);
    free(key);
    EACH_SIDE(side)
    {
        pair_ok(backend_student_t(pair_backend[side],
                                  &(backend_student_t_t){.head = head->view[side],
                                                         .rows = rows,
                                                         .patch = c->patch,
                                                         .components = c->components,
                                                         .samples = c->samples,
                                                         .draws = c->draws,
                                                         .variates = c->variates,
                                                         .out_loc = loc->view[side],
                                                         .out_scale = scale->view[side],
                                                         .out_stride = OUT_STRIDE,
                                                         .out_offset = OUT_OFFSET,
                                                         .keys = &keys->view[side],
                                                         .step = &step->view[side],
                                                         .paths = out->view[side],
                                                         .path_stride = path_stride,
                                                         .params = params != NULL ? &(*params)->view[side] : NULL}));
    }
    return out;
}

static void the_mean_of_the_mixture_matches_the_cpu(void **state)
{
    static const mixture_case_t cases[] = {{1, 1, 1, 0, 64, 24}, {3, 2, 1, 0, 5, 1}, {2, 1, 7, 0, 9, 100}};
    pair_t *params;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pair_compare(mixture(&cases[i], &params), 1e-5);
        pair_compare(params, 1e-5);
        pair_test_end(NULL);
    }
}

/* The same draws: the same random numbers pick the same component, except where rounding moves a border past the number, once in
 * a million. */
static void draws_from_the_mixture_are_those_of_the_cpu(void **state)
{
    static const mixture_case_t cases[] = {
        {1, 1, 1, 256, 64, 24}, {3, 2, 1, 10, 5, 1}, {2, 3, 7, 1, 9, 100}, {2, 3, 5, 1, 7, 32}, {4, 1, 64, 1, 64, 24}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pair_t *paths = mixture(&cases[i], NULL);
        int64_t elements = backend_tensor_elements(&paths->view[ON_CPU]), other = 0;
        float *values[SIDES];

        EACH_SIDE(side)
        {
            values[side] = malloc((size_t)elements * sizeof(float));
            assert_non_null(values[side]);
            pair_read(paths, side, values[side]);
        }
        for (int64_t j = 0; j < elements; j++)
            other += !(fabsf(values[ON_GPU][j] - values[ON_CPU][j]) <= 1e-4f * (1 + fabsf(values[ON_CPU][j])));
        assert_in_range(other, 0, 1 + elements / 10000);
        EACH_SIDE(side) free(values[side]);
        pair_guards(paths);
        pair_test_end(NULL);
    }
}

static void values_too_large_for_use_become_zero(void **state)
{
    static const float raw[3][4] = {{0, 1e38f, 0, 0}, {0, NAN, 0, 0}, {0, 2, 0, 0}}; /* df, loc, scale, logits */
    static const float loc[3] = {0, 0, 1}, scale[3] = {10, 1, 1};
    int32_t zero = 0;
    float values[3];
    pair_t *head = pair_new("head", BACKEND_F32, DIMS(3, 1, 4, 1)), *out_loc = pair_new("loc", BACKEND_F32, DIMS(3));
    pair_t *out_scale = pair_new("scale", BACKEND_F32, DIMS(3)), *step = step_of(zero),
           *paths = pair_new("paths", BACKEND_F32, DIMS(3));

    (void)state;
    pair_write(head, raw);
    pair_write(out_loc, loc);
    pair_write(out_scale, scale);
    EACH_SIDE(side)
    {
        pair_ok(backend_student_t(pair_backend[side], &(backend_student_t_t){.head = head->view[side],
                                                                             .rows = 3,
                                                                             .patch = 1,
                                                                             .components = 1,
                                                                             .samples = 1,
                                                                             .variates = 1,
                                                                             .out_loc = out_loc->view[side],
                                                                             .out_scale = out_scale->view[side],
                                                                             .out_stride = 1,
                                                                             .step = &step->view[side],
                                                                             .paths = paths->view[side],
                                                                             .path_stride = 1}));
        pair_read(paths, side, values);
        assert_true(values[0] == 0 && values[1] == 0 && fabsf(values[2] - 3) < 1e-6f);
    }
}

/* Exact quantiles of random heads: `spread` of the raw numbers, the last variate known where there are several. */
static pair_t *mixture_quantiles(const mixture_case_t *c, float spread, int64_t horizon, const float *level, int64_t level_count)
{
    enum { OUT_STRIDE = 3, OUT_OFFSET = 2 };
    int64_t rows = c->series * c->variates, exogenous = c->variates > 1;
    pair_t *head = pair_random("head", BACKEND_F32, spread, DIMS(rows, c->patch, 4, c->components));
    pair_t *loc = pair_random("out loc", BACKEND_F32, 1, DIMS(rows, OUT_STRIDE)),
           *levels = pair_new("levels", BACKEND_F32, DIMS(level_count));
    pair_t *scale = pair_new("out scale", BACKEND_F32, DIMS(rows, OUT_STRIDE));
    pair_t *future = pair_random("future", BACKEND_F32, 1, DIMS(c->series, c->patch));
    pair_t *out = pair_new("quantiles", BACKEND_F32, DIMS(rows, level_count, horizon));

    pair_normal(scale, 2, 0.1f);
    pair_write(levels, level);
    EACH_SIDE(side)
    {
        pair_ok(backend_student_t_quantiles(pair_backend[side], &(backend_student_t_quantiles_t){.head = head->view[side],
                                                                                                 .rows = rows,
                                                                                                 .patch = c->patch,
                                                                                                 .components = c->components,
                                                                                                 .horizon = horizon,
                                                                                                 .variates = c->variates,
                                                                                                 .exogenous = exogenous,
                                                                                                 .out_loc = loc->view[side],
                                                                                                 .out_scale = scale->view[side],
                                                                                                 .out_stride = OUT_STRIDE,
                                                                                                 .out_offset = OUT_OFFSET,
                                                                                                 .future = &future->view[side],
                                                                                                 .future_stride = c->patch,
                                                                                                 .levels = levels->view[side],
                                                                                                 .quantiles = out->view[side]}));
    }
    return out;
}

static void exact_quantiles_of_the_mixture_match_the_cpu(void **state)
{
    enum { LEVELS = 9, LEVELS_MANY = 60 };
    static const float levels[LEVELS] = {0.001f, 0.1f, 0.1f, 0.25f, 0.5f, 0.75f, 0.9f, 0.99f, 0.999f};
    static const mixture_case_t cases[] = {{.series = 64, .variates = 1, .patch = 32, .components = 8},
                                           {.series = 3, .variates = 2, .patch = 5, .components = 1},
                                           {.series = 1, .variates = 3, .patch = 64, .components = 24},
                                           {.series = 2, .variates = 1, .patch = 3, .components = 100}};
    float many[LEVELS_MANY];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int round = 0; round < 3; round++) {
            const mixture_case_t *c = &cases[i];
            int64_t horizon = round == 0 ? c->patch : (c->patch + 1) / 2, level_count = round == 2 ? 1 : LEVELS;

            pair_compare(mixture_quantiles(c, round == 1 ? 10 : 2, horizon, levels, level_count), 1e-5);
            pair_test_end(NULL);
        }
    for (int level = 0; level < LEVELS_MANY; level++)
        many[level] = ((float)level + 0.5f) / LEVELS_MANY;
    pair_compare(mixture_quantiles(&cases[2], 2, cases[2].patch, many, LEVELS_MANY), 1e-5);
    pair_test_end(NULL);
}

/* ---- between paths and results ----------------------------------------------------------------------------------------------- */

static void known_futures_replace_what_was_generated(void **state)
{
    enum { SERIES = 3, SAMPLES = 5, VARIATES = 4, EXOGENOUS = 2, PATCH = 7, STRIDE = 30, FUTURE_STRIDE = 29 };
    pair_t *paths = pair_random("paths", BACKEND_F32, 1, DIMS(SERIES * SAMPLES * VARIATES, STRIDE));
    pair_t *future = pair_random("future", BACKEND_F32, 1, DIMS(SERIES, EXOGENOUS, FUTURE_STRIDE)), *step = step_of(2);

    (void)state;
    EACH_SIDE(side)
    {
        pair_ok(backend_override(pair_backend[side], &(backend_override_t){.paths = paths->view[side],
                                                                           .path_stride = STRIDE,
                                                                           .series = SERIES,
                                                                           .samples = SAMPLES,
                                                                           .variates = VARIATES,
                                                                           .exogenous = EXOGENOUS,
                                                                           .patch = PATCH,
                                                                           .future = future->view[side],
                                                                           .future_stride = FUTURE_STRIDE,
                                                                           .step = &step->view[side]}));
    }
    pair_compare(paths, 0);
}

static void mean_and_quantiles_match_the_cpu(void **state)
{
    static const float levels[] = {0, 0.1f, 0.25f, 0.5f, 0.9f, 1};
    static const struct {
        int64_t series, samples, variates, horizon;
        bool quantiles;
    } cases[] = {{1, 256, 1, 64, true}, {2, 1, 3, 5, true},    {3, 100, 2, 33, true}, {1, 4096, 1, 9, true},
                 {40, 20, 5, 64, true}, {2, 5000, 1, 3, true}, {2, 77, 3, 50, false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t rows = cases[i].series * cases[i].variates, horizon = cases[i].horizon, stride = horizon + 11;
        int64_t count = sizeof levels / sizeof *levels;
        pair_t *paths = pair_random("paths", BACKEND_F32, 1, DIMS(rows * cases[i].samples, stride));
        pair_t *mean = pair_new("mean", BACKEND_F32, DIMS(rows, horizon)), *level = pair_new("levels", BACKEND_F32, DIMS(count));
        pair_t *quantiles = pair_new("quantiles", BACKEND_F32, DIMS(rows, count, horizon));

        pair_write(level, levels);
        EACH_SIDE(side)
        {
            pair_ok(backend_summarize(pair_backend[side],
                                      &(backend_summarize_t){.paths = paths->view[side],
                                                             .path_stride = stride,
                                                             .series = cases[i].series,
                                                             .samples = cases[i].samples,
                                                             .variates = cases[i].variates,
                                                             .horizon = horizon,
                                                             .mean = mean->view[side],
                                                             .levels = cases[i].quantiles ? &level->view[side] : NULL,
                                                             .quantiles = &quantiles->view[side]}));
        }
        pair_compare(mean, 1e-6);
        if (cases[i].quantiles)
            pair_compare(quantiles, 1e-6);
        pair_test_end(NULL);
    }
}

static void the_naive_forecast_matches_the_cpu(void **state)
{
    static const float z[] = {-1.2815516f, 0, 1.2815516f};
    static const struct {
        int64_t rows, context, horizon, levels;
        double observed;
    } cases[] = {{10, 512, 64, 3, 1}, {7, 100, 5, 3, 0.6}, {3, 1, 1, 2, 1}, {4, 300, 3, 0, 0.9}, {2, 9, 4, 3, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t rows = cases[i].rows, levels = cases[i].levels;
        pair_t *x = pair_new("x", BACKEND_F32, DIMS(rows, cases[i].context)),
               *mask = bytes_of("mask", rows * cases[i].context, cases[i].observed);
        pair_t *log = bytes_of("log", rows, 0.5), *normal = pair_new("z", BACKEND_F32, DIMS(3));
        pair_t *mean = pair_new("mean", BACKEND_F32, DIMS(rows, cases[i].horizon));
        pair_t *quantiles = pair_new("quantiles", BACKEND_F32, DIMS(rows, levels > 0 ? levels : 1, cases[i].horizon));

        pair_normal(x, 2, 1); /* some are not positive */
        pair_write(normal, z);
        EACH_SIDE(side)
        {
            pair_ok(backend_random_walk(pair_backend[side], &(backend_random_walk_t){.x = x->view[side],
                                                                                     .mask = mask->view[side],
                                                                                     .rows = rows,
                                                                                     .context = cases[i].context,
                                                                                     .horizon = cases[i].horizon,
                                                                                     .levels = levels,
                                                                                     .z = &normal->view[side],
                                                                                     .log = &log->view[side],
                                                                                     .mean = mean->view[side],
                                                                                     .quantiles = quantiles->view[side]}));
        }
        pair_compare(mean, 0);
        if (levels > 0)
            pair_compare(quantiles, 1e-6);
        pair_test_end(NULL);
    }
}

/* ---- copies, the step counter, errors ---------------------------------------------------------------------------------------- */

static void copies_from_pinned_and_pageable_memory_arrive_whole(void **state)
{
    static const int64_t sizes[] = {1, 15, 4096, 100003, 3 << 20};

    (void)state;
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        int64_t bytes = sizes[i / 2];
        bool pinned = i % 2 == 0;
        pair_t *tensor = pair_new("tensor", BACKEND_U8, DIMS(bytes));
        uint8_t *memory[2]; /* there and back */

        for (int j = 0; j < 2; j++) {
            if (pinned)
                pair_ok(backend_host_alloc(pair_backend[ON_GPU], (size_t)bytes, (void **)&memory[j]));
            else
                assert_non_null(memory[j] = calloc(1, (size_t)bytes));
        }
        for (int64_t b = 0; b < bytes; b++)
            memory[0][b] = (uint8_t)(random_uniform() * 256);
        pair_ok(backend_copy_in(pair_backend[ON_GPU], &tensor->view[ON_GPU], memory[0]));
        pair_ok(backend_copy_out(pair_backend[ON_GPU], &tensor->view[ON_GPU], memory[1]));
        pair_ok(backend_synchronize(pair_backend[ON_GPU]));
        assert_memory_equal(memory[0], memory[1], (size_t)bytes);
        pair_guards(tensor);
        for (int j = 0; j < 2; j++) {
            if (pinned)
                backend_host_free(pair_backend[ON_GPU], memory[j]);
            else
                free(memory[j]);
        }
        pair_test_end(NULL);
    }
}

static void the_step_counter_is_set_and_advanced_on_the_stream(void **state)
{
    pair_t *step = step_of(99);
    int32_t value;

    (void)state;
    pair_ok(backend_step_set(pair_backend[ON_GPU], &step->view[ON_GPU], 5));
    pair_ok(backend_step_advance(pair_backend[ON_GPU], &step->view[ON_GPU]));
    pair_ok(backend_step_advance(pair_backend[ON_GPU], &step->view[ON_GPU]));
    pair_read(step, ON_GPU, &value);
    assert_int_equal(value, 7);
    pair_guards(step);
}

static void weights_are_rounded_to_the_nearest_even_bf16(void **state)
{
    static const float given[] = {1, 1.00390625f, 1.01171875f, -3.1415926f, 1e-40f, 3.4e38f}, /* two lie half way */
        expected[] = {1, 1, 1.015625f, -3.140625f, 9.18355e-41f, INFINITY};
    enum { COUNT = sizeof given / sizeof *given };
    uint16_t bits[COUNT];
    backend_weight_t weight;
    int64_t count = COUNT;

    (void)state;
    pair_ok(backend_weight_upload(pair_backend[ON_GPU], "weight", BACKEND_BF16, 1, &count, given, &weight));
    pair_ok(backend_read(pair_backend[ON_GPU], &weight.tensor, bits));
    backend_weight_free(pair_backend[ON_GPU], &weight);
    for (int i = 0; i < COUNT; i++) {
        uint32_t wide = (uint32_t)bits[i] << 16;
        float value;

        memcpy(&value, &wide, sizeof value);
        assert_true(value == expected[i] || fabsf(value - expected[i]) < 1e-42f);
    }
}

static void running_out_of_memory_says_what_was_asked_and_what_was_free(void **state)
{
    backend_tensor_t tensor;
    int64_t dim = (int64_t)1 << 46;

    (void)state;
    assert_int_equal(backend_alloc(pair_backend[ON_GPU], "monster", BACKEND_U8, 1, &dim, &tensor), BACKEND_ERR_MEMORY);
    assert_non_null(strstr(error_text(), "monster: no device memory for 67108864 MB"));
    assert_non_null(strstr(error_text(), "free"));
    pair_ok(backend_synchronize(pair_backend[ON_GPU]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(the_scaler_matches_the_cpu_over_context_and_generated_patches),
        pair_test(the_mean_of_the_mixture_matches_the_cpu),
        pair_test(draws_from_the_mixture_are_those_of_the_cpu),
        pair_test(exact_quantiles_of_the_mixture_match_the_cpu),
        pair_test(values_too_large_for_use_become_zero),
        pair_test(known_futures_replace_what_was_generated),
        pair_test(mean_and_quantiles_match_the_cpu),
        pair_test(the_naive_forecast_matches_the_cpu),
        pair_test(copies_from_pinned_and_pageable_memory_arrive_whole),
        pair_test(the_step_counter_is_set_and_advanced_on_the_stream),
        pair_test(weights_are_rounded_to_the_nearest_even_bf16),
        pair_test(running_out_of_memory_says_what_was_asked_and_what_was_free),
    };

    return pair_no_gpu() ? PAIR_SKIPPED : cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
