/* The op of Toto 2 alone on the GPU: causal patches of contexts and of what is fed back. */
#include "tests/gpu/pair.h"

#include <math.h>
#include <stdlib.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {pair_test(causal_patches_match_the_cpu_over_context_and_what_is_fed_back)};

    if (pair_no_gpu())
        return PAIR_SKIPPED;
    return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
