/* sign_tokens, draw_token, transpose. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ---- sign_tokens -------------------------------------------------------------------------------------------------------------- */

static void a_token_has_a_bit_for_each_positive_number(void **state)
{
    enum { BITS_1 = 3, BITS_2 = 2, TOKENS = 2, COPIES = 2, STRIDE = 3 };
    static const float x[2 * TOKENS * (BITS_1 + BITS_2)] = {
        1, -1, 2, 0, 1, /* 101, 10 */
        0, 0,  0, 0, 0, /* 000, 00; nothing is positive */
        3, 2,  1, 1, 1, /* 111, 11 */
        0, 1,  0, 1, 0, /* 010, 01 */
    };
    static const float wanted[2][2][TOKENS] = {{{5, 0}, {7, 2}}, {{2, 0}, {3, 1}}}; /* [part][sequence][token] */
    backend_t *backend = bench_open(0);
    int32_t tokens[2 * 2 * COPIES * STRIDE];
    backend_sign_tokens_t op = {.x = bench_f32(x, sizeof x / sizeof *x),
                                .rows = 2 * TOKENS,
                                .tokens = TOKENS,
                                .bits_1 = BITS_1,
                                .bits_2 = BITS_2,
                                .copies = COPIES,
                                .y_stride = STRIDE,
                                .part_stride = 2 * COPIES * STRIDE};

    (void)state;
    memset(tokens, -1, sizeof tokens);
    op.y = bench_i32(tokens, sizeof tokens / sizeof *tokens);
    assert_int_equal(backend_sign_tokens(backend, &op), BACKEND_OK);
    assert_int_equal(backend_read(backend, &op.y, tokens), BACKEND_OK);
    for (int part = 0; part < 2; part++)
        for (int row = 0; row < 2 * COPIES; row++) {
            const int32_t *got = tokens + part * op.part_stride + row * STRIDE;

            for (int t = 0; t < TOKENS; t++)
                assert_int_equal(got[t], wanted[part][row / COPIES][t]);
            assert_int_equal(got[TOKENS], -1); /* between the rows */
        }
    op.part_stride = 2 * COPIES * STRIDE - 2;
    assert_int_equal(backend_sign_tokens(backend, &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "sign_tokens: part_stride"));
    bench_close();
}

/* ---- draw_token --------------------------------------------------------------------------------------------------------------- */

enum { VOCABULARY = 12 };

/* Tokens of `rows` rows with the same logits, each with a key of its own; freed by bench_close. */
static int32_t *draw(backend_t *backend, const float *logits, int64_t vocabulary, int64_t rows, float temperature, int64_t top_k,
                     float top_p)
{
    float *all = bench_numbers(rows * vocabulary);
    uint64_t *keys = (uint64_t *)bench_numbers(rows * 2);
    int32_t *tokens = (int32_t *)bench_numbers(rows);
    backend_tensor_t key_tensor, step = bench_i32((int32_t[]){0}, 1);
    backend_draw_token_t op = {.rows = rows,
                               .vocabulary = vocabulary,
                               .paths = 1,
                               .temperature = temperature,
                               .top_p = top_p,
                               .top_k = top_k,
                               .stream = 1,
                               .step = &step,
                               .token_stride = 1};

    for (int64_t i = 0; i < rows * vocabulary; i++)
        all[i] = logits[i % vocabulary];
    for (int64_t i = 0; i < rows; i++)
        keys[i] = (uint64_t)i;
    key_tensor = bench_any(BACKEND_U64, keys, rows);
    op.keys = &key_tensor;
    op.logits = bench_f32(all, rows * vocabulary);
    op.tokens = bench_i32(NULL, rows);
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_OK);
    assert_int_equal(backend_read(backend, &op.tokens, tokens), BACKEND_OK);
    return tokens;
}

/* The shares of the tokens in many draws lie within 5 standard errors of `wanted`. */
static void expect_shares(const float *logits, float temperature, int64_t top_k, float top_p, const double *wanted)
{
    enum { DRAWS = 20000 };
    backend_t *backend = bench_open(0);
    int32_t *tokens = draw(backend, logits, VOCABULARY, DRAWS, temperature, top_k, top_p);
    int64_t count[VOCABULARY] = {0};

    for (int i = 0; i < DRAWS; i++) {
        assert_true(tokens[i] >= 0 && tokens[i] < VOCABULARY);
        count[tokens[i]]++;
    }
    for (int i = 0; i < VOCABULARY; i++)
        assert_true(fabs((double)count[i] / DRAWS - wanted[i]) <= 5 * sqrt(wanted[i] * (1 - wanted[i]) / DRAWS));
    bench_close();
}

/* Probabilities of softmax(logits / temperature) where kept, 0 elsewhere. */
static void soften(const float *logits, double temperature, const bool *kept, double *out)
{
    double sum = 0;

    for (int i = 0; i < VOCABULARY; i++) {
        out[i] = kept == NULL || kept[i] ? exp((double)logits[i] / temperature) : 0;
        sum += out[i];
    }
    for (int i = 0; i < VOCABULARY; i++)
        out[i] /= sum;
}

static const float some_logits[VOCABULARY] = {0.1f, 2.0f, -1.0f, 0.5f, 1.5f, -3.0f, 0.0f, 1.0f, -0.5f, 0.7f, -2.0f, 0.2f};

static void tokens_come_with_the_probability_of_the_softmax(void **state)
{
    double wanted[VOCABULARY];

    (void)state;
    soften(some_logits, 0.8, NULL, wanted);
    expect_shares(some_logits, 0.8f, 0, 1.0f, wanted);
}

static void top_k_keeps_the_most_probable_tokens(void **state)
{
    bool kept[VOCABULARY] = {[1] = true, [4] = true, [7] = true};
    double wanted[VOCABULARY];

    (void)state;
    soften(some_logits, 1.0, kept, wanted);
    expect_shares(some_logits, 1.0f, 3, 0.1f, wanted); /* and ignores top_p */
    soften(some_logits, 1.0, NULL, wanted);
    expect_shares(some_logits, 1.0f, 100, 1.0f, wanted); /* more than there are */
}

static void top_p_keeps_tokens_until_the_ones_before_hold_that_much(void **state)
{
    float logits[VOCABULARY];
    bool kept[VOCABULARY] = {[3] = true, [5] = true, [8] = true};
    double wanted[VOCABULARY];

    (void)state;
    for (int i = 0; i < VOCABULARY; i++)
        logits[i] = logf(0.3f / 9);
    logits[3] = logf(0.4f);
    logits[5] = logf(0.2f);
    logits[8] = logf(0.1f);
    soften(logits, 1.0, kept, wanted);
    expect_shares(logits, 1.0f, 0, 0.65f, wanted); /* before the third 0.6 lie, before the fourth 0.7 */
    soften(logits, 1.0, NULL, wanted);
    expect_shares(logits, 1.0f, 0, 0.72f, wanted); /* the fourth and all that are as probable */
}

static void greedy_takes_the_first_of_the_largest(void **state)
{
    float logits[VOCABULARY] = {0};
    backend_t *backend = bench_open(0);

    (void)state;
    logits[4] = logits[9] = 1.0f;
    logits[2] = NAN;
    assert_int_equal(draw(backend, logits, VOCABULARY, 1, 1.0f, 1, 1.0f)[0], 4);
    for (int i = 0; i < VOCABULARY; i++)
        logits[i] = NAN;
    assert_int_equal(draw(backend, logits, VOCABULARY, 1, 1.0f, 1, 1.0f)[0], 0);
    assert_int_equal(draw(backend, logits, VOCABULARY, 1, 1.0f, 0, 0.9f)[0], 0);
    bench_close();
}

static void a_draw_depends_on_key_path_step_and_stream_only(void **state)
{
    enum { ROWS = 6, PATHS = 3, STEPS = 4 };
    backend_t *backend = bench_open(3);
    float logits[ROWS * VOCABULARY];
    uint64_t keys[ROWS / PATHS] = {77, 77};
    int32_t tokens[ROWS * STEPS], other[ROWS * STEPS];
    backend_tensor_t key_tensor = bench_any(BACKEND_U64, keys, ROWS / PATHS), step = bench_i32((int32_t[]){2}, 1);
    backend_draw_token_t op = {.rows = ROWS,
                               .vocabulary = VOCABULARY,
                               .paths = PATHS,
                               .temperature = 1e6f, /* all equally probable */
                               .top_p = 1,
                               .keys = &key_tensor,
                               .stream = 1,
                               .step = &step,
                               .token_stride = STEPS};
    int same = 0;

    (void)state;
    for (int i = 0; i < ROWS * VOCABULARY; i++)
        logits[i] = some_logits[i % VOCABULARY];
    memset(tokens, -1, sizeof tokens);
    op.logits = bench_f32(logits, ROWS * VOCABULARY);
    op.tokens = bench_i32(tokens, ROWS * STEPS);
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_OK);
    assert_int_equal(backend_read(backend, &op.tokens, tokens), BACKEND_OK);
    for (int row = 0; row < PATHS; row++) {
        assert_int_equal(tokens[row * STEPS + 2], tokens[(row + PATHS) * STEPS + 2]); /* the same key in another row */
        assert_int_equal(tokens[row * STEPS + 1], -1);
    }
    op.stream = 2;
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_OK);
    assert_int_equal(backend_read(backend, &op.tokens, other), BACKEND_OK);
    for (int row = 0; row < PATHS; row++)
        same += tokens[row * STEPS + 2] == other[row * STEPS + 2];
    assert_true(same < PATHS);
    bench_close();
}

static void an_embedding_of_the_drawn_tokens_may_come_along(void **state)
{
    enum { ROWS = 4, WIDTH = 5, STRIDE = 7 };
    backend_t *backend = bench_open(5);
    float *table = bench_numbers(VOCABULARY * WIDTH), *logits = bench_numbers(ROWS * VOCABULARY), *y;
    int32_t tokens[ROWS];
    backend_tensor_t step = bench_i32((int32_t[]){0}, 1);
    backend_embed_t embed = {.table = {bench_shaped(bench_f32(table, VOCABULARY * WIDTH), 2, (int64_t[]){VOCABULARY, WIDTH})},
                             .count = 1,
                             .indices = bench_i32(NULL, ROWS),
                             .index_stride = 1,
                             .rows = ROWS,
                             .tokens = 1,
                             .width = WIDTH,
                             .y = bench_f32(NULL, ROWS * STRIDE),
                             .y_stride = STRIDE};
    backend_draw_token_t op = {.logits = bench_f32(logits, ROWS * VOCABULARY),
                               .rows = ROWS,
                               .vocabulary = VOCABULARY,
                               .paths = 1,
                               .temperature = 1,
                               .top_p = 1,
                               .top_k = 1,
                               .step = &step,
                               .tokens = embed.indices,
                               .token_stride = 1,
                               .then = &embed};

    (void)state;
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_OK);
    assert_int_equal(backend_read(backend, &op.tokens, tokens), BACKEND_OK);
    y = bench_read(&embed.y);
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < WIDTH; i++)
            assert_true(y[row * STRIDE + i] == table[tokens[row] * WIDTH + i]);
    embed.tokens = 2;
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "draw_token: `then` does not embed one token a row"));
    bench_close();
}

static void draws_that_cannot_be_are_refused(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t step = bench_i32((int32_t[]){0}, 1);
    backend_draw_token_t op = {.logits = bench_f32(NULL, 5000),
                               .rows = 1,
                               .vocabulary = 5000,
                               .paths = 1,
                               .temperature = 1,
                               .top_p = 1,
                               .top_k = 1,
                               .step = &step,
                               .tokens = bench_i32(NULL, 1),
                               .token_stride = 1};

    (void)state;
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "draw_token: vocabulary is 5000"));
    op.vocabulary = 8;
    op.temperature = 0;
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "temperature is not positive"));
    op.temperature = 1;
    op.top_k = 2;
    assert_int_equal(backend_draw_token(backend, &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "keys is missing"));
    bench_close();
}

/* ---- transpose ---------------------------------------------------------------------------------------------------------------- */

static void channels_become_series_in_their_own_units(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        int64_t sets = bench_pick(1, 3), each = bench_pick(1, 3), rows = sets * each, tokens = bench_pick(1, 9),
                channels = bench_pick(1, 6), stride = tokens * channels + bench_pick(0, 2);
        float *x = bench_numbers(rows * stride), *loc = bench_numbers(sets * channels), *scale = bench_numbers(sets * channels),
              *got;
        backend_tensor_t loc_tensor = bench_f32(loc, sets * channels), scale_tensor = bench_f32(scale, sets * channels);
        bool affine = round % 2 == 0;
        backend_transpose_t op = {.x = bench_f32(x, rows * stride),
                                  .loc = affine ? &loc_tensor : NULL,
                                  .scale = affine ? &scale_tensor : NULL,
                                  .rows = rows,
                                  .tokens = tokens,
                                  .channels = channels,
                                  .x_stride = stride,
                                  .rows_each = each,
                                  .y = bench_f32(NULL, rows * tokens * channels)};

        assert_int_equal(backend_transpose(backend, &op), BACKEND_OK);
        got = bench_read(&op.y);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t c = 0; c < channels; c++)
                for (int64_t t = 0; t < tokens; t++) {
                    int64_t at = row / each * channels + c;
                    double value = (double)x[row * stride + t * channels + c];
                    double wanted = affine ? value * (double)scale[at] + (double)loc[at] : value;

                    assert_true(fabs((double)got[(row * channels + c) * tokens + t] - wanted) < 1e-6);
                }
        bench_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_has_a_bit_for_each_positive_number),
        cmocka_unit_test(tokens_come_with_the_probability_of_the_softmax),
        cmocka_unit_test(top_k_keeps_the_most_probable_tokens),
        cmocka_unit_test(top_p_keeps_tokens_until_the_ones_before_hold_that_much),
        cmocka_unit_test(greedy_takes_the_first_of_the_largest),
        cmocka_unit_test(a_draw_depends_on_key_path_step_and_stream_only),
        cmocka_unit_test(an_embedding_of_the_drawn_tokens_may_come_along),
        cmocka_unit_test(draws_that_cannot_be_are_refused),
        cmocka_unit_test(channels_become_series_in_their_own_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
