/* attention on the GPU in every mode, with few tokens and many: what is stored, what is seen through `first`, `visible` and causality, head
 * norms, partial rotations and relative biases. */
#include "tests/gpu/pair.h"

#include <stdlib.h>

enum { POSITIONS = 60, STEPS = 3, EMULATED_MOST = 2000000 /* products of a query and a key */ };

typedef struct {
    backend_attention_mode_t mode;
    int64_t series, variates, samples, tokens, prefix; /* prefix: tokens of the cache, where the mode does not write it */
    int heads, head_dim, rotary_dim;                   /* rotary_dim 0: no rotation */
    bool interleaved, padded, visible, norm, bias;
} case_t;

static const char *const mode_names[] = {"prefill", "decode", "extend", "encode", "store", "append", "query"};

/* Numbers 0 .. most - 1. */
static pair_t *numbers(const char *name, int rank, const int64_t *dim, int64_t most)
{
    pair_t *pair = pair_new(name, BACKEND_I32, rank, dim);
    int64_t count = backend_tensor_elements(&pair->view[ON_CPU]);
    int32_t *values = malloc((size_t)count * sizeof *values);

    assert_non_null(values);
    for (int64_t i = 0; i < count; i++)
        values[i] = (int32_t)(random_uniform() * (double)most);
    pair_write(pair, values);
    free(values);
    return pair;
}

static pair_t *flags(const char *name, int64_t rows, int64_t columns)
{
    pair_t *pair = pair_new(name, BACKEND_U8, DIMS(rows, columns));
    uint8_t *values = malloc((size_t)(rows * columns));

    assert_non_null(values);
    for (int64_t i = 0; i < rows * columns; i++)
        values[i] = random_uniform() < 0.7;
    pair_write(pair, values);
    free(values);
    return pair;
}

/* The op over all its steps, both sides, and everything it writes. */
static void check(const case_t *c, backend_dtype_t dtype)
{
    bool append = c->mode == BACKEND_ATTENTION_APPEND, extend = append || c->mode == BACKEND_ATTENTION_EXTEND,
         encode = c->mode == BACKEND_ATTENTION_ENCODE, store = c->mode == BACKEND_ATTENTION_STORE,
         query = c->mode == BACKEND_ATTENTION_QUERY;
    bool decode = c->mode == BACKEND_ATTENTION_DECODE, writes_prefix = store || c->mode == BACKEND_ATTENTION_PREFILL;
    int64_t prefix_rows = c->series * c->variates, rows = prefix_rows * c->samples, width = c->heads * c->head_dim;
    int64_t prefix = writes_prefix || encode ? c->tokens : c->prefix, tail = STEPS * c->tokens;
    int steps = extend || decode || query ? STEPS : 1;
    double tolerance = dtype == BACKEND_BF16 ? 1e-2 : 1e-5;
    pair_t *prefix_k = pair_random("prefix k", dtype, 1, DIMS(prefix_rows, c->heads, prefix, c->head_dim));
    pair_t *prefix_v = pair_random("prefix v", dtype, 1, DIMS(prefix_rows, c->heads, prefix, c->head_dim));
    pair_t *tail_k = pair_random("tail k", dtype, 1, DIMS(rows, c->heads, tail, c->head_dim));
    pair_t *tail_v = pair_random("tail v", dtype, 1, DIMS(rows, c->heads, tail, c->head_dim));
    pair_t *table = pair_random("table", BACKEND_F32, 1, DIMS(POSITIONS, 4, c->rotary_dim > 0 ? c->rotary_dim : 2));
    pair_t *index = extend   ? numbers("index", DIMS(prefix_rows, STEPS, c->tokens), POSITIONS)
                    : decode ? numbers("index", DIMS(prefix_rows, STEPS), POSITIONS)
                             : numbers("index", DIMS(prefix_rows, c->tokens), POSITIONS);
    pair_t *first = numbers("first", DIMS(prefix_rows), c->padded ? prefix : 1);
    pair_t *visible = flags("visible", prefix_rows, prefix);
    pair_t *bias = pair_random("bias", BACKEND_F32, 1, DIMS(c->heads, 2 * c->tokens - 1)),
           *step = pair_new("step", BACKEND_I32, DIMS(1));
    weight_pair_t *norm_q = pair_weight("norm q", BACKEND_F32, 1, 0.3f, DIMS(c->head_dim)),
                  *norm_k = pair_weight("norm k", BACKEND_F32, 1, 0.3f, DIMS(c->head_dim));
    backend_head_norm_t norm[SIDES];
    backend_kv_t kv[SIDES];
    int32_t zero = 0;

    print_message("    %s: %lld x %lld series, %lld samples, %lld tokens after %lld, %d heads of %d (%d rotated)%s%s%s%s, %s\n",
                  mode_names[c->mode], (long long)c->series, (long long)c->variates, (long long)c->samples, (long long)c->tokens,
                  (long long)c->prefix, c->heads, c->head_dim, c->rotary_dim, c->padded ? ", padded" : "",
                  c->visible ? ", visible" : "", c->norm ? ", norm" : "", c->bias ? ", bias" : "",
                  dtype == BACKEND_BF16 ? "bf16" : "fp32");
    pair_write(step, &zero);
    for (int s = 0; s < steps; s++) {
        pair_t *qkv = pair_random("qkv", dtype, 1, DIMS(rows, c->tokens, 3, c->heads, c->head_dim));
        pair_t *out = pair_new("out", dtype, DIMS(rows, c->tokens, width));

        EACH_SIDE(side)
        {
            norm[side] = (backend_head_norm_t){&norm_q->side[side], &norm_k->side[side], 1e-5f};
            kv[side] = (backend_kv_t){prefix_k->view[side], prefix_v->view[side], tail_k->view[side], tail_v->view[side]};
            pair_ok(backend_attention(pair_backend[side], &(backend_attention_t){
                                                              .mode = c->mode,
                                                              .qkv = qkv->view[side],
                                                              .out = out->view[side],
                                                              .rows = rows,
                                                              .tokens = c->tokens,
                                                              .samples = c->samples,
                                                              .variates = c->variates,
                                                              .heads = c->heads,
                                                              .head_dim = c->head_dim,
                                                              .scale = 0.3f,
                                                              .norm = c->norm ? &norm[side] : NULL,
                                                              .rope = {c->rotary_dim > 0 && !query ? &table->view[side] : NULL,
                                                                       &index->view[side], c->interleaved},
                                                              .kv = encode ? NULL : &kv[side],
                                                              .first = c->padded ? &first->view[side] : NULL,
                                                              .visible = c->visible ? &visible->view[side] : NULL,
                                                              .bias = c->bias ? &bias->view[side] : NULL,
                                                              .step = s == 0 && query ? NULL : &step->view[side],
                                                              .step_tokens = c->tokens,
                                                          }));
            if (s > 0 || !query)
                pair_ok(backend_step_advance(pair_backend[side], &step->view[side]));
        }
        if (!store && !append)
            pair_compare(out, tolerance);
        pair_compare(prefix_k, tolerance);
        pair_compare(prefix_v, tolerance);
        pair_compare(tail_k, tolerance);
        pair_compare(tail_v, tolerance);
    }
    pair_test_end(NULL);
}

static bool is_left_to_a_gpu(const case_t *c)
{
    int64_t queries = c->series * c->variates * c->samples * c->heads * c->tokens;

    return pair_is_emulated() && queries * (c->prefix + c->tokens) > EMULATED_MOST;
}

static void check_both(const case_t *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_left_to_a_gpu(&cases[i]))
            continue;
        check(&cases[i], BACKEND_F32);
        check(&cases[i], BACKEND_BF16);
    }
}
#define CHECK_ALL(cases) check_both(cases, sizeof(cases) / sizeof *(cases))

static void prefill_matches_the_cpu_for_few_tokens_and_many(void **state)
{
    static const case_t cases[] = {
        {BACKEND_ATTENTION_PREFILL, 2, 2, 1, 7, 0, 3, 64, 64, true, true, true, true, false},
        {BACKEND_ATTENTION_PREFILL, 20, 1, 1, 8, 0, 12, 64, 64, true, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 30, 1, 1, 8, 0, 12, 64, 64, true, true, true, true, false},
        {BACKEND_ATTENTION_PREFILL, 2, 1, 1, 17, 0, 2, 64, 64, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 1, 2, 1, 133, 0, 2, 64, 32, true, false, true, true, false},
        {BACKEND_ATTENTION_PREFILL, 2, 1, 1, 400, 0, 2, 52, 52, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 1, 1, 1, 515, 0, 2, 64, 64, false, true, true, false, false},
        {BACKEND_ATTENTION_PREFILL, 30, 1, 1, 150, 0, 12, 64, 64, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 1, 1, 1, 150, 0, 2, 128, 128, false, false, false, true, false},
        {BACKEND_ATTENTION_PREFILL, 1, 2, 1, 300, 0, 2, 100, 20, true, true, false, true, false},
        {BACKEND_ATTENTION_PREFILL, 16, 1, 1, 400, 0, 16, 52, 52, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 1, 1, 1, 180, 0, 12, 64, 64, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 2, 1, 1, 530, 0, 16, 64, 64, true, true, true, true, false},
        {BACKEND_ATTENTION_PREFILL, 40, 1, 1, 70, 0, 4, 128, 128, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 40, 1, 1, 70, 0, 4, 100, 20, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 40, 1, 1, 70, 0, 4, 208, 0, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 1, 1, 1, 140, 0, 2, 208, 0, false, true, false, true, false},
        {BACKEND_ATTENTION_PREFILL, 1, 1, 1, 40, 0, 2, 208, 208, false, true, false, false, false},
        {BACKEND_ATTENTION_PREFILL, 40, 1, 1, 40, 0, 4, 64, 64, false, true, true, true, false},
        {BACKEND_ATTENTION_PREFILL, 40, 1, 1, 60, 0, 4, 52, 52, false, true, true, true, false},
        {BACKEND_ATTENTION_PREFILL, 2, 1, 1, 90, 0, 3, 6, 6, true, true, true, false, false},
    };

    (void)state;
    CHECK_ALL(cases);
}

static void encode_matches_the_cpu_with_bias_and_invisible_tokens(void **state)
{
    static const case_t cases[] = {
        {BACKEND_ATTENTION_ENCODE, 3, 1, 1, 9, 0, 2, 64, 64, false, true, true, false, false},
        {BACKEND_ATTENTION_ENCODE, 40, 1, 1, 9, 0, 8, 64, 64, false, true, true, false, true},
        {BACKEND_ATTENTION_ENCODE, 2, 1, 1, 133, 0, 12, 64, 64, false, false, true, false, false},
        {BACKEND_ATTENTION_ENCODE, 30, 1, 1, 600, 0, 3, 64, 64, false, true, true, false, true},
        {BACKEND_ATTENTION_ENCODE, 30, 1, 1, 133, 0, 12, 64, 64, false, false, false, false, false},
        {BACKEND_ATTENTION_ENCODE, 1, 3, 1, 65, 0, 2, 64, 0, false, true, true, false, true},
        {BACKEND_ATTENTION_ENCODE, 2, 1, 1, 33, 0, 4, 16, 16, false, false, false, true, true},
        {BACKEND_ATTENTION_ENCODE, 1, 1, 1, 700, 0, 2, 64, 64, false, true, true, false, true},
        {BACKEND_ATTENTION_ENCODE, 1, 1, 1, 260, 0, 2, 128, 0, false, false, false, false, true},
        {BACKEND_ATTENTION_ENCODE, 2, 1, 1, 16, 0, 2, 32, 32, true, true, false, true, true},
    };

    (void)state;
    CHECK_ALL(cases);
}

static void extend_matches_the_cpu_over_prefix_tail_and_its_own_tokens(void **state)
{
    static const case_t cases[] = {
        {BACKEND_ATTENTION_EXTEND, 2, 1, 3, 2, 9, 2, 64, 64, true, true, true, true, false},
        {BACKEND_ATTENTION_EXTEND, 1, 2, 2, 5, 60, 2, 64, 64, false, false, false, false, false},
        {BACKEND_ATTENTION_EXTEND, 1, 1, 4, 33, 170, 2, 64, 32, true, true, true, true, false},
        {BACKEND_ATTENTION_EXTEND, 1, 1, 10, 116, 393, 8, 64, 64, false, true, false, false, false},
        {BACKEND_ATTENTION_EXTEND, 16, 1, 1, 116, 393, 16, 52, 52, false, true, true, true, false},
        {BACKEND_ATTENTION_EXTEND, 30, 1, 1, 70, 300, 6, 64, 64, false, true, false, false, false},
        {BACKEND_ATTENTION_EXTEND, 30, 1, 1, 20, 300, 6, 52, 52, false, true, true, false, false},
        {BACKEND_ATTENTION_EXTEND, 2, 1, 2, 220, 90, 2, 64, 64, true, true, true, true, false},
        {BACKEND_ATTENTION_EXTEND, 1, 1, 2, 33, 100, 4, 208, 208, true, true, false, false, false},
        {BACKEND_ATTENTION_EXTEND, 2, 2, 1, 3, 300, 2, 52, 52, false, true, false, false, false},
        {BACKEND_ATTENTION_EXTEND, 1, 1, 2, 20, 7, 3, 128, 64, false, false, true, false, false},
    };

    (void)state;
    CHECK_ALL(cases);
}

static void decode_matches_the_cpu_over_long_prefixes(void **state)
{
    static const case_t cases[] = {
        {BACKEND_ATTENTION_DECODE, 1, 1, 1, 1, 400, 16, 52, 52, false, false, false, false, false},
        {BACKEND_ATTENTION_DECODE, 1, 1, 1, 1, 256, 16, 52, 52, false, true, false, false, false},
        {BACKEND_ATTENTION_DECODE, 16, 1, 1, 1, 400, 16, 52, 52, false, true, false, false, false},
        {BACKEND_ATTENTION_DECODE, 3, 1, 1, 1, 77, 3, 52, 52, false, true, true, false, false},
        {BACKEND_ATTENTION_DECODE, 1, 1, 10, 1, 401, 8, 64, 64, false, true, true, true, false},
        {BACKEND_ATTENTION_DECODE, 1, 1, 10, 1, 400, 4, 128, 0, false, true, false, false, false},
        {BACKEND_ATTENTION_DECODE, 16, 1, 1, 1, 400, 4, 208, 0, false, false, false, false, false},
        {BACKEND_ATTENTION_DECODE, 1, 1, 10, 1, 511, 8, 64, 64, false, true, false, false, false},
        {BACKEND_ATTENTION_DECODE, 3, 2, 5, 1, 100, 2, 64, 32, true, true, true, true, false},
        {BACKEND_ATTENTION_DECODE, 16, 1, 10, 1, 300, 16, 52, 52, false, true, false, false, false},
        {BACKEND_ATTENTION_DECODE, 2, 1, 2, 1, 77, 4, 208, 0, false, false, true, false, false},
        {BACKEND_ATTENTION_DECODE, 2, 1, 2, 1, 1, 3, 128, 128, true, false, false, true, false},
        {BACKEND_ATTENTION_DECODE, 2, 1, 2, 1, 50, 3, 6, 6, true, true, false, false, false},
    };

    (void)state;
    CHECK_ALL(cases);
}

static void store_append_and_query_match_the_cpu(void **state)
{
    static const case_t cases[] = {
        {BACKEND_ATTENTION_STORE, 2, 2, 1, 30, 0, 3, 64, 64, false, true, false, true, false},
        {BACKEND_ATTENTION_STORE, 1, 1, 1, 300, 0, 4, 208, 0, false, false, false, false, false},
        {BACKEND_ATTENTION_APPEND, 2, 2, 3, 5, 20, 3, 64, 32, true, false, false, true, false},
        {BACKEND_ATTENTION_APPEND, 1, 1, 10, 115, 7, 4, 208, 0, false, false, false, false, false},
        {BACKEND_ATTENTION_QUERY, 1, 1, 1, 1, 400, 4, 208, 0, false, true, false, false, false},
        {BACKEND_ATTENTION_QUERY, 2, 2, 3, 1, 33, 12, 64, 0, false, false, true, true, false},
        {BACKEND_ATTENTION_QUERY, 2, 1, 2, 5, 129, 2, 64, 0, false, true, true, false, false},
        {BACKEND_ATTENTION_QUERY, 40, 1, 10, 1, 260, 4, 128, 0, false, true, false, false, false},
    };

    (void)state;
    CHECK_ALL(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(prefill_matches_the_cpu_for_few_tokens_and_many),
        pair_test(encode_matches_the_cpu_with_bias_and_invisible_tokens),
        pair_test(extend_matches_the_cpu_over_prefix_tail_and_its_own_tokens),
        pair_test(decode_matches_the_cpu_over_long_prefixes),
        pair_test(store_append_and_query_match_the_cpu),
    };

    return pair_no_gpu() ? PAIR_SKIPPED : cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
