/* attention and group_attention on the GPU: prefill, decode over a shared prefix, padding, both rotations, all head sizes of the
 * families. */
#include "tests/gpu/pair.h"

#include <stdlib.h>

typedef struct {
    int64_t series, variates, samples, tokens, steps;
    int heads, head_dim, rotary_dim; /* rotary_dim 0: no rotation */
    bool interleaved, padded;
    backend_dtype_t dtype;
} case_t;

static const case_t cases[] = {
    {1, 1, 1, 8, 3, 12, 64, 64, true, false, BACKEND_F32},    {1, 1, 7, 8, 3, 12, 64, 64, true, false, BACKEND_BF16},
    {2, 3, 5, 8, 2, 12, 64, 64, true, true, BACKEND_BF16},    {3, 1, 4, 9, 2, 2, 128, 128, false, true, BACKEND_F32},
    {1, 2, 2, 33, 2, 3, 64, 32, true, true, BACKEND_F32},     {2, 1, 3, 70, 2, 2, 52, 52, false, true, BACKEND_BF16},
    {2, 1, 3, 5, 2, 4, 208, 208, false, false, BACKEND_F32},  {2, 2, 1, 1, 1, 2, 8, 8, true, false, BACKEND_F32},
    {2, 1, 3, 4, 2, 3, 6, 6, true, true, BACKEND_F32},        {2, 1, 2, 300, 1, 2, 64, 0, false, true, BACKEND_BF16},
    {1, 1, 256, 8, 5, 12, 64, 64, true, false, BACKEND_BF16}, {1, 1, 300, 8, 5, 12, 64, 64, true, false, BACKEND_BF16},
    {1, 1, 300, 9, 3, 12, 64, 64, false, true, BACKEND_F32},
};

/* Table rows picked at random: rows of the table are arbitrary numbers to the op. */
static int32_t *random_indices(int64_t count, int64_t most)
{
    int32_t *index = malloc((size_t)count * sizeof *index);

    assert_non_null(index);
    for (int64_t i = 0; i < count; i++)
        index[i] = (int32_t)(random_uniform() * (double)most);
    return index;
}

static pair_t *indices(const char *name, int64_t rows, int64_t columns, int64_t most)
{
    pair_t *pair = pair_new(name, BACKEND_I32, DIMS(rows, columns));
    int32_t *values = random_indices(rows * columns, most);

    pair_write(pair, values);
    free(values);
    return pair;
}

static void check(const case_t *c)
{
    enum { POSITIONS = 40 };
    int64_t prefix_rows = c->series * c->variates, rows = prefix_rows * c->samples, width = c->heads * c->head_dim;
    double tolerance = c->dtype == BACKEND_BF16 ? 1e-2 : 1e-5;
    int32_t zero = 0;
    pair_t *prefill_qkv = pair_random("prefill qkv", c->dtype, 1, DIMS(prefix_rows, c->tokens, 3, c->heads, c->head_dim));
    pair_t *prefill_out = pair_new("prefill out", c->dtype, DIMS(prefix_rows, c->tokens, width));
    pair_t *prefix_k = pair_new("prefix k", c->dtype, DIMS(prefix_rows, c->heads, c->tokens, c->head_dim));
    pair_t *prefix_v = pair_new("prefix v", c->dtype, DIMS(prefix_rows, c->heads, c->tokens, c->head_dim));
    pair_t *tail_k = pair_random("tail k", c->dtype, 0, DIMS(rows, c->heads, c->steps, c->head_dim));
    pair_t *tail_v = pair_random("tail v", c->dtype, 0, DIMS(rows, c->heads, c->steps, c->head_dim));
    pair_t *table = pair_random("table", BACKEND_F32, 1, DIMS(POSITIONS, 4, c->rotary_dim > 0 ? c->rotary_dim : 2));
    pair_t *prefill_index = indices("prefill index", prefix_rows, c->tokens, POSITIONS);
    pair_t *decode_index = indices("decode index", prefix_rows, c->steps, POSITIONS);
    pair_t *first = indices("first", 1, prefix_rows, c->padded ? c->tokens : 1);
    pair_t *step = pair_new("step", BACKEND_I32, DIMS(1));
    backend_kv_t kv[SIDES];
    backend_attention_t op[SIDES];

    print_message("    %lld x %lld series, %lld samples, %lld tokens, %d heads of %d (%d rotated), %s\n", (long long)c->series,
                  (long long)c->variates, (long long)c->samples, (long long)c->tokens, c->heads, c->head_dim, c->rotary_dim,
                  c->dtype == BACKEND_BF16 ? "bf16" : "fp32");
    pair_write(step, &zero);
    EACH_SIDE(side)
    {
        kv[side] = (backend_kv_t){prefix_k->view[side], prefix_v->view[side], tail_k->view[side], tail_v->view[side]};
        op[side] = (backend_attention_t){
            .mode = BACKEND_ATTENTION_PREFILL,
            .qkv = prefill_qkv->view[side],
            .out = prefill_out->view[side],
            .rows = prefix_rows,
            .tokens = c->tokens,
            .samples = 1,
            .variates = c->variates,
            .heads = c->heads,
            .head_dim = c->head_dim,
            .scale = 0.3f,
            .rope = {c->rotary_dim > 0 ? &table->view[side] : NULL, &prefill_index->view[side], c->interleaved},
            .kv = &kv[side],
            .first = c->padded ? &first->view[side] : NULL,
            .step = &step->view[side],
        };
        pair_ok(backend_attention(pair_backend[side], &op[side]));
    }
    pair_compare(prefill_out, tolerance);
    pair_compare(prefix_k, tolerance);
    pair_compare(prefix_v, tolerance);

    for (int64_t s = 0; s < c->steps; s++) {
        pair_t *qkv = pair_random("decode qkv", c->dtype, 1, DIMS(rows, 1, 3, c->heads, c->head_dim));
        pair_t *out = pair_new("decode out", c->dtype, DIMS(rows, width));

        EACH_SIDE(side)
        {
            op[side].mode = BACKEND_ATTENTION_DECODE;
            op[side].qkv = qkv->view[side];
            op[side].out = out->view[side];
            op[side].rows = rows;
            op[side].tokens = 1;
            op[side].samples = c->samples;
            op[side].rope.index = &decode_index->view[side];
            pair_ok(backend_attention(pair_backend[side], &op[side]));
            pair_ok(backend_step_advance(pair_backend[side], &step->view[side]));
        }
        pair_compare(out, tolerance);
        pair_compare(tail_k, tolerance);
        pair_compare(tail_v, tolerance);
    }
    pair_guards(prefix_k);
    pair_guards(prefix_v);
    pair_test_end(NULL);
}

static void attention_matches_the_cpu_in_prefill_and_decode(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i]);
}

static void attention_among_variates_matches_the_cpu(void **state)
{
    static const struct {
        int64_t series, samples, variates, tokens, group_tokens;
        int heads, head_dim;
        bool norm, visible;
        backend_dtype_t dtype;
    } group_cases[] = {
        {1, 1, 1, 8, 1, 12, 64, false, false, BACKEND_BF16},  {2, 3, 5, 1, 1, 12, 64, false, false, BACKEND_F32},
        {2, 1, 7, 3, 1, 12, 64, true, false, BACKEND_BF16},   {3, 2, 20, 2, 1, 2, 52, false, true, BACKEND_F32},
        {1, 1, 100, 1, 1, 2, 128, false, false, BACKEND_F32}, {2, 2, 9, 5, 5, 3, 64, true, false, BACKEND_F32},
        {3, 1, 32, 4, 6, 2, 64, false, true, BACKEND_BF16},   {4, 1, 1, 133, 1, 12, 64, false, true, BACKEND_BF16},
    };

    (void)state;
    for (size_t i = 0; i < sizeof group_cases / sizeof *group_cases; i++) {
        int64_t sets = group_cases[i].series * group_cases[i].samples, variates = group_cases[i].variates,
                tokens = group_cases[i].tokens, ids = group_cases[i].group_tokens;
        int heads = group_cases[i].heads, head_dim = group_cases[i].head_dim;
        pair_t *qkv = pair_random("qkv", group_cases[i].dtype, 1, DIMS(sets, variates, tokens, 3 * heads, head_dim));
        pair_t *out = pair_new("out", group_cases[i].dtype, DIMS(sets, variates, tokens, heads, head_dim));
        pair_t *group = indices("group", group_cases[i].series, variates * ids, 3);
        pair_t *visible = pair_new("visible", BACKEND_U8, DIMS(sets, variates, tokens));
        weight_pair_t *norm_q = pair_weight("norm q", BACKEND_F32, 1, 0.3f, DIMS(head_dim)),
                      *norm_k = pair_weight("norm k", BACKEND_F32, 1, 0.3f, DIMS(head_dim));
        uint8_t *seen = malloc((size_t)(sets * variates * tokens));

        assert_non_null(seen);
        for (int64_t at = 0; at < sets * variates * tokens; at++)
            seen[at] = random_uniform() < 0.7;
        pair_write(visible, seen);
        free(seen);
        EACH_SIDE(side)
        {
            backend_head_norm_t norm = {&norm_q->side[side], &norm_k->side[side], 1e-5f};

            pair_ok(backend_group_attention(
                pair_backend[side], &(backend_group_attention_t){.qkv = qkv->view[side],
                                                                 .out = out->view[side],
                                                                 .sets = sets,
                                                                 .samples = group_cases[i].samples,
                                                                 .variates = variates,
                                                                 .tokens = tokens,
                                                                 .heads = heads,
                                                                 .head_dim = head_dim,
                                                                 .scale = 0.2f,
                                                                 .norm = group_cases[i].norm ? &norm : NULL,
                                                                 .group = &group->view[side],
                                                                 .group_tokens = ids,
                                                                 .visible = group_cases[i].visible ? &visible->view[side] : NULL}));
        }
        pair_compare(out, group_cases[i].dtype == BACKEND_BF16 ? 1e-2 : 1e-5);
        pair_test_end(NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(attention_matches_the_cpu_in_prefill_and_decode),
        pair_test(attention_among_variates_matches_the_cpu),
    };

    return pair_no_gpu() ? PAIR_SKIPPED : cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
