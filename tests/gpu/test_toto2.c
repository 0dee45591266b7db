/* Toto 2 on the GPU: the op that is its own, causal patches of contexts and of what is fed back, and whole forecasts of a tiny model. */
#include "tests/gpu/pair.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/model/families.h"

enum { BLOCK = 2, CALLS = 3 };

typedef struct {
    int64_t series, variates, exogenous, patches, patch, minimum_observed;
    double observed; /* share of the context's values, and of the future's */
    backend_dtype_t dtype;
} causal_case_t;

static pair_t *mask_of(const causal_case_t *c, int64_t rows)
{
    int64_t values = c->patches * c->patch;
    pair_t *pair = pair_new("mask", BACKEND_U8, DIMS(rows, values));
    uint8_t *mask = malloc((size_t)(rows * values));

    for (int64_t row = 0; row < rows; row++) {
        int64_t first = c->observed < 1 ? (int64_t)(random_uniform() * (double)values) : 0;

        for (int64_t i = 0; i < values; i++)
            mask[row * values + i] = i >= first && random_uniform() < c->observed;
    }
    pair_write(pair, mask);
    free(mask);
    return pair;
}

static pair_t *future_of(const causal_case_t *c, int64_t length)
{
    int64_t count = c->series * c->exogenous * length;
    pair_t *pair = pair_new("future", BACKEND_F32, DIMS(count));
    float *values = malloc((size_t)count * sizeof *values);

    for (int64_t i = 0; i < count; i++)
        values[i] = random_uniform() < c->observed ? (float)(3 + 20 * random_uniform()) : NAN;
    pair_write(pair, values);
    free(values);
    return pair;
}

static void same_bytes(const pair_t *pair, int64_t count)
{
    uint8_t *values[SIDES];

    EACH_SIDE(side)
    {
        values[side] = malloc((size_t)count);
        pair_read(pair, side, values[side]);
    }
    assert_memory_equal(values[ON_CPU], values[ON_GPU], (size_t)count);
    EACH_SIDE(side) free(values[side]);
    pair_guards(pair);
}

static void check_case(const causal_case_t *c)
{
    int64_t rows = c->series * c->variates, tokens = c->patches + BLOCK - 1, later = 2 * BLOCK - 1,
            length = CALLS * BLOCK * c->patch - 3;
    int64_t y_stride = 2 * c->patch;
    double bound = c->dtype == BACKEND_BF16 ? 1e-2 : 2e-5;
    pair_t *x = pair_random("x", BACKEND_F32, 20, DIMS(rows, c->patches * c->patch)), *mask = mask_of(c, rows);
    pair_t *fed = pair_random("fed back", BACKEND_F32, 20, DIMS(rows, BLOCK * c->patch + 5)),
           *step = pair_new("step", BACKEND_I32, DIMS(1));
    pair_t *future = c->exogenous > 0 ? future_of(c, length) : NULL;
    pair_t *y = pair_new("y", c->dtype, DIMS(rows, tokens, y_stride)),
           *state = pair_new("state", BACKEND_F64, DIMS(rows, BACKEND_SCALER_STATE));
    pair_t *loc = pair_new("loc", BACKEND_F32, DIMS(rows, c->patches + BLOCK)),
           *scale = pair_new("scale", BACKEND_F32, DIMS(rows, c->patches + BLOCK));
    pair_t *visible = pair_new("visible", BACKEND_U8, DIMS(rows, tokens)),
           *lasting = pair_new("lasting", BACKEND_U8, DIMS(rows, tokens));
    pair_t *low = pair_new("low", BACKEND_F32, DIMS(rows)), *high = pair_new("high", BACKEND_F32, DIMS(rows));
    int32_t zero = 0;

    pair_write(step, &zero);
    EACH_SIDE(side)
    {
        backend_causal_patch_t op = {.x = x->view[side],
                                     .x_stride = c->patches * c->patch,
                                     .mask = &mask->view[side],
                                     .rows = rows,
                                     .patches = c->patches,
                                     .patch = c->patch,
                                     .ahead = BLOCK,
                                     .variates = c->variates,
                                     .exogenous = c->exogenous,
                                     .future = future != NULL ? &future->view[side] : NULL,
                                     .future_length = length,
                                     .step = &step->view[side],
                                     .minimum = 1e-6,
                                     .minimum_observed = c->minimum_observed,
                                     .tokens = tokens,
                                     .y = y->view[side],
                                     .y_stride = y_stride,
                                     .loc = loc->view[side],
                                     .scale = scale->view[side],
                                     .state = state->view[side],
                                     .visible = &visible->view[side],
                                     .lasting = &lasting->view[side],
                                     .low = &low->view[side],
                                     .high = &high->view[side],
                                     .cap = 0.5f};

        pair_ok(backend_causal_patch(pair_backend[side], &op));
        op.x = fed->view[side];
        op.x_stride = BLOCK * c->patch + 5;
        op.mask = NULL;
        op.patches = BLOCK;
        op.tokens = later;
        op.visible = op.lasting = op.low = op.high = NULL;
        for (int call = 1; call < CALLS; call++) { /* over the context's results: the last call's are compared */
            pair_ok(backend_causal_patch(pair_backend[side], &op));
            pair_ok(backend_step_advance(pair_backend[side], &step->view[side]));
        }
    }
    pair_compare(y, bound);
    pair_compare(loc, 1e-6);
    pair_compare(scale, 1e-5);
    pair_compare(state, 1e-9);
    same_bytes(visible, rows * tokens);
    same_bytes(lasting, rows * tokens);
    pair_compare(low, 1e-6);
    pair_compare(high, 1e-6);
    pair_test_end(NULL);
}

static void causal_patches_match_the_cpu_over_context_and_what_is_fed_back(void **state)
{
    static const causal_case_t cases[] = {
        {1, 1, 0, 16, 32, 0, 1, BACKEND_F32},    {5, 1, 0, 7, 32, 8, 0.6, BACKEND_F32},  {3, 4, 2, 5, 16, 0, 0.7, BACKEND_F32},
        {2, 3, 1, 40, 16, 8, 0.05, BACKEND_F32}, {4, 2, 1, 9, 32, 3, 0.5, BACKEND_BF16}, {64, 1, 0, 130, 32, 0, 0.9, BACKEND_BF16},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(&cases[i]);
}

/* ---- whole forecasts -------------------------------------------------------------------------------------------------------------- */

/* Walks with gaps; the last series is short; futures are known here and there. */
static void fill(const model_shape_t *shape, model_input_t *input)
{
    for (uint32_t row = 0; row < shape->batch * shape->variates; row++) {
        uint32_t series = row / shape->variates, length = series + 1 == shape->batch ? shape->context / 2 : shape->context;
        double level = 100;

        input->length[series] = length;
        input->group[row] = (int32_t)(row % 2);
        for (uint32_t t = 0; t < shape->context; t++) {
            size_t at = (size_t)row * shape->context + t;

            level += random_normal();
            input->mask[at] = t >= shape->context - length && random_uniform() < 0.9;
            input->values[at] = input->mask[at] ? (float)level : 0;
        }
    }
    for (uint32_t i = 0; i < shape->batch * shape->exogenous * shape->horizon; i++)
        input->future[i] = random_uniform() < 0.8 ? (float)(100 + random_normal()) : NAN;
}

static session_t *forecast(model_t *model, const model_shape_t *shape)
{
    session_t *session;

    if (session_open(model, shape, true, &session) < 0)
        fail_msg("%s", error_text());
    pair_test_begin(NULL); /* the same random numbers on both sides */
    fill(session_shape(session), session_input(session));
    if (session_run(session, shape->batch) < 0)
        fail_msg("%s", error_text());
    return session;
}

/* The walks' deviation is some 10: bounds in their units. */
static void check_forecast(model_t *models[SIDES], model_shape_t shape, double worst_bound, double mean_bound)
{
    int64_t count = (int64_t)shape.batch * shape.variates * shape.quantile_count * shape.horizon;
    session_t *session[SIDES];
    double worst = 0, sum = 0;

    EACH_SIDE(side)
    {
        model_shape_t own = shape;
        if (side == ON_CPU)
            own.precision = BACKEND_F32;
        session[side] = forecast(models[side], &own);
    }
    for (int64_t i = 0; i < count; i++) {
        double off =
            fabs((double)session_output(session[ON_CPU])->quantiles[i] - (double)session_output(session[ON_GPU])->quantiles[i]);

        assert_true(isfinite(off));
        worst = fmax(worst, off);
        sum += off;
    }
    if (worst > worst_bound || sum / (double)count > mean_bound)
        fail_msg("off by %g at worst, %g on average", worst, sum / (double)count);
    EACH_SIDE(side) session_close(session[side]);
}

static void check_precision(const char *directory, backend_dtype_t precision, double worst_bound, double mean_bound)
{
    static const model_shape_t shapes[] = {
        {.batch = 1, .variates = 1, .context = 512, .horizon = 96},
        {.batch = 37, .variates = 1, .context = 200, .horizon = 50, .options = {.minimum_observed = 8, .cap = 5}},
        {.batch = 5, .variates = 1, .context = 128, .horizon = 70, .options = {.decode_block = 32}},
        {.batch = 3, .variates = 4, .context = 128, .horizon = 40, .exogenous = 1, .options = {.decode_block = 16}},
    };
    model_t *models[SIDES];
    char revision[17];

    EACH_SIDE(side)
    {
        if (model_load(pair_backend[side], directory, side == ON_CPU ? BACKEND_F32 : precision, &models[side], revision) < 0)
            fail_msg("%s", error_text());
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        model_shape_t shape = shapes[i];

        shape.precision = precision;
        shape.quantile_count = 3;
        shape.quantiles[0] = 0.1f;
        shape.quantiles[1] = 0.5f;
        shape.quantiles[2] = 0.9f;
        check_forecast(models, shape, worst_bound, mean_bound);
    }
    EACH_SIDE(side) model_unload(models[side]);
}

static void whole_forecasts_match_the_cpu(void **state)
{
    char directory[] = "/tmp/barcast-gpu-toto2-XXXXXX", path[64];

    (void)state;
    assert_non_null(mkdtemp(directory));
    assert_int_equal(toto2_create("tiny", 3, directory), MODEL_OK);
    check_precision(directory, BACKEND_F32, 0.02, 0.002);
    check_precision(directory, BACKEND_BF16, 5, 0.5);
    snprintf(path, sizeof path, "%s/config.json", directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    unlink(path);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {pair_test(causal_patches_match_the_cpu_over_context_and_what_is_fed_back),
                                       pair_test(whole_forecasts_match_the_cpu)};

    if (pair_no_gpu())
        return PAIR_SKIPPED;
    return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
