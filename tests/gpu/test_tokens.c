/* sign_tokens, draw_token and transpose on the GPU. */
#include "tests/gpu/pair.h"

#include <math.h>
#include <stdlib.h>

static void quantise(int64_t sequences, int64_t tokens, int bits_1, int bits_2, int64_t copies)
{
    int64_t width = bits_1 + bits_2, x_stride = tokens * width + 3, y_stride = tokens + 1, part = sequences * copies * y_stride;
    pair_t *x = pair_random("x", BACKEND_F32, 1, DIMS(sequences * x_stride)), *y = pair_new("y", BACKEND_I32, DIMS(2 * part));
    int32_t *values = calloc((size_t)(2 * part), sizeof *values), *other = malloc((size_t)(2 * part) * sizeof *other);

    assert_non_null(values);
    assert_non_null(other);
    pair_write(y, values);
    EACH_SIDE(side)
    pair_ok(backend_sign_tokens(pair_backend[side], &(backend_sign_tokens_t){.x = x->view[side],
                                                                             .x_stride = x_stride,
                                                                             .rows = sequences * tokens,
                                                                             .tokens = tokens,
                                                                             .bits_1 = bits_1,
                                                                             .bits_2 = bits_2,
                                                                             .copies = copies,
                                                                             .y = y->view[side],
                                                                             .y_stride = y_stride,
                                                                             .part_stride = part}));
    pair_read(y, ON_CPU, values);
    pair_read(y, ON_GPU, other);
    for (int64_t i = 0; i < 2 * part; i++)
        assert_int_equal(values[i], other[i]);
    pair_guards(y);
    free(values);
    free(other);
    pair_test_end(NULL);
}

static void signs_become_the_same_tokens(void **state)
{
    (void)state;
    quantise(1, 1, 1, 1, 1);
    quantise(2, 13, 10, 10, 3);
    quantise(3, 400, 6, 7, 40);
    quantise(1, 70, 30, 30, 33);
}

/* Sums are rounded otherwise on the GPU, so where u falls within a rounding of a token's edge, its neighbour may come. */
static void draw(int64_t series, int64_t paths, int64_t vocabulary, float temperature, int64_t top_k, float top_p)
{
    int64_t rows = series * paths, stride = vocabulary + 5, token_stride = 4, differing = 0;
    pair_t *logits = pair_random("logits", BACKEND_F32, 2, DIMS(rows * stride)),
           *keys = pair_new("keys", BACKEND_U64, DIMS(series));
    pair_t *step = pair_new("step", BACKEND_I32, DIMS(1)), *tokens = pair_new("tokens", BACKEND_I32, DIMS(rows * token_stride));
    int32_t *values = calloc((size_t)(rows * token_stride), sizeof *values),
            *other = malloc((size_t)(rows * token_stride) * sizeof *other);
    uint64_t *key = malloc((size_t)series * sizeof *key);

    assert_non_null(values);
    assert_non_null(other);
    assert_non_null(key);
    for (int64_t i = 0; i < series; i++)
        key[i] = (uint64_t)(random_uniform() * 1e18);
    pair_write(keys, key);
    pair_write(step, &(int32_t){2});
    pair_write(tokens, values);
    EACH_SIDE(side)
    pair_ok(backend_draw_token(pair_backend[side], &(backend_draw_token_t){.logits = logits->view[side],
                                                                           .rows = rows,
                                                                           .vocabulary = vocabulary,
                                                                           .logits_stride = stride,
                                                                           .paths = paths,
                                                                           .temperature = temperature,
                                                                           .top_p = top_p,
                                                                           .top_k = top_k,
                                                                           .keys = &keys->view[side],
                                                                           .stream = 1,
                                                                           .step = &step->view[side],
                                                                           .tokens = tokens->view[side],
                                                                           .token_stride = token_stride}));
    pair_read(tokens, ON_CPU, values);
    pair_read(tokens, ON_GPU, other);
    for (int64_t i = 0; i < rows * token_stride; i++) {
        assert_true(other[i] >= 0 && other[i] < vocabulary);
        differing += values[i] != other[i];
    }
    assert_true(differing <= (top_k == 1 ? 0 : 1 + rows / 500));
    pair_guards(tokens);
    free(values);
    free(other);
    free(key);
    pair_test_end(NULL);
}

static void the_same_tokens_are_drawn(void **state)
{
    static const int64_t vocabularies[] = {1, 2, 37, 64, 256, 257, 1000, 1024, 1025, 4096};

    (void)state;
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++) {
        draw(3, 50, vocabularies[i], 1.0f, 1, 1.0f);
        draw(3, 50, vocabularies[i], 0.8f, 0, 1.0f);
        draw(5, 40, vocabularies[i], 1.0f, 0, 0.9f);
        draw(5, 40, vocabularies[i], 1.3f, 5, 0.9f);
    }
    draw(100, 20, 1024, 1.0f, 0, 0.9f);
}

/* A logit of NaN never comes; equal ones stay or go together; nothing at all gives token 0. */
static void odd_logits_do_no_harm(void **state)
{
    enum { ROWS = 5, VOCABULARY = 700 };
    float logits[ROWS * VOCABULARY];
    int32_t tokens[SIDES][ROWS];
    pair_t *pair = pair_new("logits", BACKEND_F32, DIMS(ROWS, VOCABULARY)), *keys = pair_new("keys", BACKEND_U64, DIMS(ROWS));
    pair_t *step = pair_new("step", BACKEND_I32, DIMS(1)), *out = pair_new("tokens", BACKEND_I32, DIMS(ROWS));

    (void)state;
    for (int i = 0; i < ROWS * VOCABULARY; i++)
        logits[i] = i / VOCABULARY == 0 ? NAN : i / VOCABULARY == 1 ? 0.5f : i / VOCABULARY == 2 ? -INFINITY : NAN;
    logits[3 * VOCABULARY + 311] = -7;
    for (int i = 0; i < VOCABULARY; i++)
        logits[4 * VOCABULARY + i] = i == 650 ? 80.0f : -80.0f;
    pair_write(pair, logits);
    pair_write(keys, (uint64_t[ROWS]){1, 2, 3, 4, 5});
    pair_write(step, &(int32_t){0});
    EACH_SIDE(side)
    {
        pair_ok(backend_draw_token(pair_backend[side], &(backend_draw_token_t){.logits = pair->view[side],
                                                                               .rows = ROWS,
                                                                               .vocabulary = VOCABULARY,
                                                                               .paths = 1,
                                                                               .temperature = 1,
                                                                               .top_p = 0.9f,
                                                                               .keys = &keys->view[side],
                                                                               .step = &step->view[side],
                                                                               .tokens = out->view[side],
                                                                               .token_stride = 1}));
        pair_read(out, side, tokens[side]);
        assert_int_equal(tokens[side][0], 0);
        assert_int_equal(tokens[side][2], 0);
        assert_int_equal(tokens[side][3], 311);
        assert_int_equal(tokens[side][4], 650);
    }
    assert_true(abs(tokens[ON_CPU][1] - tokens[ON_GPU][1]) <= 1);
}

static void draw_and_embed(int64_t rows, int64_t width, backend_dtype_t dtype)
{
    enum { VOCABULARY = 64 };
    int64_t y_stride = 3 * width;
    pair_t *logits = pair_random("logits", BACKEND_F32, 2, DIMS(rows, VOCABULARY)), *step = pair_new("step", BACKEND_I32, DIMS(1));
    pair_t *tokens = pair_new("tokens", BACKEND_I32, DIMS(rows)), *y = pair_new("y", dtype, DIMS(rows, y_stride));
    pair_t *table = pair_random("table", BACKEND_F32, 1, DIMS(VOCABULARY, width));

    pair_normal(y, 0, 1);
    pair_write(step, &(int32_t){0});
    EACH_SIDE(side)
    {
        backend_embed_t embed = {.table = {table->view[side]},
                                 .count = 1,
                                 .indices = tokens->view[side],
                                 .index_stride = 1,
                                 .rows = rows,
                                 .tokens = 1,
                                 .width = width,
                                 .y = y->view[side],
                                 .y_stride = y_stride};

        pair_ok(backend_draw_token(pair_backend[side], &(backend_draw_token_t){.logits = logits->view[side],
                                                                               .rows = rows,
                                                                               .vocabulary = VOCABULARY,
                                                                               .paths = 1,
                                                                               .temperature = 1,
                                                                               .top_p = 1,
                                                                               .top_k = 1,
                                                                               .step = &step->view[side],
                                                                               .tokens = tokens->view[side],
                                                                               .token_stride = 1,
                                                                               .then = &embed}));
    }
    pair_compare(y, dtype == BACKEND_BF16 ? 4e-3 : 1e-7);
    pair_test_end(NULL);
}

static void drawn_tokens_are_embedded_by_the_same_kernel(void **state)
{
    (void)state;
    draw_and_embed(1, 832, BACKEND_BF16);
    draw_and_embed(7, 1664, BACKEND_F32);
    draw_and_embed(33, 26, BACKEND_F32);
    draw_and_embed(5, 300, BACKEND_BF16);
}

static void turn(int64_t sets, int64_t each, int64_t tokens, int64_t channels, bool affine)
{
    int64_t rows = sets * each, stride = tokens * channels + 2;
    pair_t *x = pair_random("x", BACKEND_F32, 1, DIMS(rows * stride)),
           *y = pair_new("y", BACKEND_F32, DIMS(rows, channels, tokens));
    pair_t *loc = pair_random("loc", BACKEND_F32, 100, DIMS(sets, channels)),
           *scale = pair_random("scale", BACKEND_F32, 3, DIMS(sets, channels));

    EACH_SIDE(side)
    pair_ok(backend_transpose(pair_backend[side], &(backend_transpose_t){.x = x->view[side],
                                                                         .loc = affine ? &loc->view[side] : NULL,
                                                                         .scale = affine ? &scale->view[side] : NULL,
                                                                         .rows = rows,
                                                                         .tokens = tokens,
                                                                         .channels = channels,
                                                                         .x_stride = stride,
                                                                         .rows_each = each,
                                                                         .y = y->view[side]}));
    pair_compare(y, 1e-7);
    pair_test_end(NULL);
}

static void channels_become_series(void **state)
{
    (void)state;
    turn(1, 1, 1, 1, false);
    turn(2, 1, 6, 400, false);
    turn(3, 7, 120, 6, true);
    turn(1, 300, 33, 6, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(signs_become_the_same_tokens), pair_test(the_same_tokens_are_drawn),
        pair_test(odd_logits_do_no_harm),        pair_test(drawn_tokens_are_embedded_by_the_same_kernel),
        pair_test(channels_become_series),
    };

    if (pair_no_gpu())
        return PAIR_SKIPPED;
    return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
