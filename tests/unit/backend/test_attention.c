/* attention and group_attention against a double-precision reference that keeps whole keys of every position, without any cache. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MOST = 64, HEAD_MOST = 24 };

typedef struct {
    int64_t series, samples, variates, context, steps;
    int heads, head_dim, rotary_dim;
    bool interleaved;
    float scale;
    int32_t *first;                        /* [series · variates] */
    int32_t *prefill_index, *decode_index; /* [series · variates][context], [..][steps] */
    float *table;                          /* [context + steps][4][rotary_dim] */
    float *prefill;                        /* qkv [series · variates][context][3][heads][head_dim] */
    float *generated;                      /* qkv [steps][rows][3][heads][head_dim] */
} attention_case_t;

static attention_case_t make_case(bool interleaved, bool partial)
{
    attention_case_t c = {.series = bench_pick(1, 3),
                          .samples = bench_pick(1, 4),
                          .variates = bench_pick(1, 3),
                          .context = bench_pick(2, 9),
                          .steps = bench_pick(1, 5),
                          .heads = (int)bench_pick(1, 3),
                          .interleaved = interleaved,
                          .scale = 0.37f};
    int64_t prefix_rows = c.series * c.variates, width;

    c.head_dim = 2 * (int)bench_pick(2, HEAD_MOST / 2);
    c.rotary_dim = partial ? 2 * (int)bench_pick(1, c.head_dim / 2 - 1) : c.head_dim;
    width = (int64_t)c.heads * c.head_dim;
    c.first = malloc((size_t)prefix_rows * sizeof *c.first);
    c.prefill_index = malloc((size_t)(prefix_rows * c.context) * sizeof *c.prefill_index);
    c.decode_index = malloc((size_t)(prefix_rows * c.steps) * sizeof *c.decode_index);
    for (int64_t r = 0; r < prefix_rows; r++)
        c.first[r] = (int32_t)bench_pick(0, c.context - 1);
    for (int64_t i = 0; i < prefix_rows * c.context; i++)
        c.prefill_index[i] = (int32_t)bench_pick(0, c.context + c.steps - 1);
    for (int64_t i = 0; i < prefix_rows * c.steps; i++)
        c.decode_index[i] = (int32_t)bench_pick(0, c.context + c.steps - 1);
    c.table = bench_numbers((c.context + c.steps) * 4 * c.rotary_dim);
    c.prefill = bench_numbers(prefix_rows * c.context * 3 * width);
    c.generated = bench_numbers(c.steps * prefix_rows * c.samples * 3 * width);
    return c;
}

static void free_case(attention_case_t *c)
{
    free(c->first);
    free(c->prefill_index);
    free(c->decode_index);
}

/* Table entries are arbitrary here: x · cos + partner · sin, elementwise, is all that the op may assume. */
static void rotate(const attention_case_t *c, const float *x, int32_t index, int keys, double *to)
{
    const float *cosine = c->table + (index * 4 + 2 * keys) * c->rotary_dim, *sine = cosine + c->rotary_dim;
    int half = c->rotary_dim / 2;

    for (int j = 0; j < c->head_dim; j++) {
        int partner = c->interleaved ? (j % 2 == 0 ? j + 1 : j - 1) : (j < half ? j + half : j - half);
        double sign = (c->interleaved ? j % 2 == 0 : j < half) ? -1 : 1;

        to[j] = (double)x[j];
        if (j < c->rotary_dim)
            to[j] = (double)x[j] * (double)cosine[j] + sign * (double)x[partner] * (double)sine[j];
    }
}

/* Query, key or value of token t of a path: tokens past the context are the generated ones. */
static const float *part_of(const attention_case_t *c, int64_t row, int64_t prefix_row, int64_t t, int part, int head)
{
    int64_t width = (int64_t)c->heads * c->head_dim, rows = c->series * c->samples * c->variates;
    const float *token = t < c->context ? c->prefill + (prefix_row * c->context + t) * 3 * width
                                        : c->generated + ((t - c->context) * rows + row) * 3 * width;
    return token + part * width + head * c->head_dim;
}

static int32_t index_of(const attention_case_t *c, int64_t prefix_row, int64_t t)
{
    return t < c->context ? c->prefill_index[prefix_row * c->context + t] : c->decode_index[prefix_row * c->steps + t - c->context];
}

static void reference(const attention_case_t *c, int64_t row, int64_t prefix_row, int64_t t, int head, double *out)
{
    double q[HEAD_MOST], k[HEAD_MOST], score[KEYS_MOST], sum = 0;

    memset(out, 0, (size_t)c->head_dim * sizeof *out);
    rotate(c, part_of(c, row, prefix_row, t, 0, head), index_of(c, prefix_row, t), 0, q);
    for (int64_t s = c->first[prefix_row]; s <= t; s++) {
        rotate(c, part_of(c, row, prefix_row, s, 1, head), index_of(c, prefix_row, s), 1, k);
        score[s] = 0;
        for (int j = 0; j < c->head_dim; j++)
            score[s] += q[j] * k[j] * (double)c->scale;
        score[s] = exp(score[s]);
        sum += score[s];
    }
    for (int64_t s = c->first[prefix_row]; s <= t; s++)
        for (int j = 0; j < c->head_dim; j++)
            out[j] += score[s] / sum * (double)part_of(c, row, prefix_row, s, 2, head)[j];
}

/* Prefill, then `steps` decode calls, each compared with the reference. */
static void check_case(const attention_case_t *c, backend_t *backend)
{
    int64_t prefix_rows = c->series * c->variates, rows = prefix_rows * c->samples, width = (int64_t)c->heads * c->head_dim;
    int64_t cache[4] = {prefix_rows, c->heads, c->context, c->head_dim}, tail[4] = {rows, c->heads, c->steps, c->head_dim};
    backend_kv_t kv = {.prefix_k = bench_shaped(bench_f32(NULL, prefix_rows * c->context * width), 4, cache),
                       .prefix_v = bench_shaped(bench_f32(NULL, prefix_rows * c->context * width), 4, cache),
                       .tail_k = bench_shaped(bench_f32(NULL, rows * c->steps * width), 4, tail),
                       .tail_v = bench_shaped(bench_f32(NULL, rows * c->steps * width), 4, tail)};
    backend_tensor_t table = bench_shaped(bench_f32(c->table, (c->context + c->steps) * 4 * c->rotary_dim), 3,
                                          (int64_t[]){c->context + c->steps, 4, c->rotary_dim});
    backend_tensor_t prefill_index =
        bench_shaped(bench_i32(c->prefill_index, prefix_rows * c->context), 2, (int64_t[]){prefix_rows, c->context});
    backend_tensor_t decode_index =
        bench_shaped(bench_i32(c->decode_index, prefix_rows * c->steps), 2, (int64_t[]){prefix_rows, c->steps});
    backend_tensor_t first = bench_i32(c->first, prefix_rows), step = bench_i32(NULL, 1);
    backend_tensor_t prefill_out = bench_f32(NULL, prefix_rows * c->context * width), out = bench_f32(NULL, rows * width);
    backend_attention_t op = {.mode = BACKEND_ATTENTION_PREFILL,
                              .out = prefill_out,
                              .rows = prefix_rows,
                              .tokens = c->context,
                              .samples = 1,
                              .variates = c->variates,
                              .heads = c->heads,
                              .head_dim = c->head_dim,
                              .scale = c->scale,
                              .rope = {&table, &prefill_index, c->interleaved},
                              .kv = &kv,
                              .first = &first,
                              .step = &step};
    double wanted[HEAD_MOST];
    float *got;

    op.qkv = bench_f32(c->prefill, prefix_rows * c->context * 3 * width);
    assert_int_equal(backend_attention(backend, &op), BACKEND_OK);
    got = bench_read(&prefill_out);
    for (int64_t r = 0; r < prefix_rows; r++)
        for (int64_t t = 0; t < c->context; t++)
            for (int h = 0; h < c->heads; h++) {
                memset(wanted, 0, sizeof wanted);
                if (t >= c->first[r])
                    reference(c, r, r, t, h, wanted);
                bench_assert_close(got + (r * c->context + t) * width + h * c->head_dim, wanted, c->head_dim, 3e-5);
            }
    op.mode = BACKEND_ATTENTION_DECODE;
    op.rows = rows;
    op.tokens = 1;
    op.samples = c->samples;
    op.out = out;
    op.rope.index = &decode_index;
    assert_int_equal(backend_step_set(backend, &step, 0), BACKEND_OK);
    for (int64_t s = 0; s < c->steps; s++) {
        op.qkv = bench_f32(c->generated + s * rows * 3 * width, rows * 3 * width);
        assert_int_equal(backend_attention(backend, &op), BACKEND_OK);
        got = bench_read(&out);
        for (int64_t row = 0; row < rows; row++)
            for (int h = 0; h < c->heads; h++) {
                reference(c, row, row / (c->samples * c->variates) * c->variates + row % c->variates, c->context + s, h, wanted);
                bench_assert_close(got + row * width + h * c->head_dim, wanted, c->head_dim, 3e-5);
            }
        assert_int_equal(backend_step_advance(backend, &step), BACKEND_OK);
    }
}

static void attention_over_a_cache_equals_attention_over_all_keys(void **state)
{
    (void)state;
    for (int round = 0; round < 12; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        attention_case_t c = make_case(round % 2 == 0, round % 3 == 0);

        check_case(&c, backend);
        free_case(&c);
        bench_close();
    }
}

static void attention_without_a_table_does_not_rotate(void **state)
{
    backend_t *backend = bench_open(0);
    float qkv[2 * 3 * 2] = {1, 0, 3, 1, 10, 20, 0, 1, 2, 5, 30, 40}; /* two tokens of one head of two */
    int64_t cache[4] = {1, 1, 2, 2};
    backend_kv_t kv = {.prefix_k = bench_shaped(bench_f32(NULL, 4), 4, cache),
                       .prefix_v = bench_shaped(bench_f32(NULL, 4), 4, cache)};
    backend_tensor_t out = bench_f32(NULL, 4);
    backend_attention_t op = {.qkv = bench_f32(qkv, 12),
                              .out = out,
                              .rows = 1,
                              .tokens = 2,
                              .samples = 1,
                              .variates = 1,
                              .heads = 1,
                              .head_dim = 2,
                              .scale = 1,
                              .kv = &kv};
    double w = exp(1) / (exp(1) + exp(5)), wanted[4] = {10, 20, 10 * w + 30 * (1 - w), 20 * w + 40 * (1 - w)};

    (void)state;
    assert_int_equal(backend_attention(backend, &op), BACKEND_OK);
    bench_assert_close(bench_read(&out), wanted, 4, 1e-6);
    bench_close();
}

static void check_groups(backend_t *backend, int round)
{
    int64_t series = bench_pick(1, 3), samples = bench_pick(1, 3), variates = 1 + round % 5, tokens = bench_pick(1, 4);
    int64_t heads = bench_pick(1, 3), d = bench_pick(1, 11), width = heads * d, sets = series * samples;
    float *qkv = bench_numbers(sets * variates * tokens * 3 * width);
    int64_t ids = round % 2 == 0 ? 1 : tokens + bench_pick(0, 2); /* per token of a variate */
    int32_t group[3 * 5 * 6];
    uint8_t visible[3 * 3 * 5 * 4];
    backend_tensor_t out = bench_f32(NULL, sets * variates * tokens * width), groups, visible_of;
    backend_group_attention_t op = {.qkv = bench_f32(qkv, sets * variates * tokens * 3 * width),
                                    .out = out,
                                    .sets = sets,
                                    .samples = samples,
                                    .variates = variates,
                                    .tokens = tokens,
                                    .heads = (int)heads,
                                    .head_dim = (int)d,
                                    .scale = 0.6f,
                                    .group_tokens = ids};
    float *got;

    for (int64_t i = 0; i < series * variates * ids; i++)
        group[i] = (int32_t)bench_pick(-1, 1);
    groups = bench_i32(group, series * variates * ids);
    op.group = &groups;
    for (int64_t i = 0; i < sets * variates * tokens; i++)
        visible[i] = round < 3 || bench_pick(0, 2) > 0;
    visible_of = bench_any(BACKEND_U8, visible, sets * variates * tokens);
    op.visible = round < 3 ? NULL : &visible_of;
    assert_int_equal(backend_group_attention(backend, &op), BACKEND_OK);
    got = bench_read(&out);
    for (int64_t set = 0; set < sets; set++)
        for (int64_t v = 0; v < variates; v++)
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t h = 0; h < heads; h++) {
                    const int32_t *own = group + set / samples * variates * ids + (ids > 1 ? t : 0);
                    const float *q = qkv + ((set * variates + v) * tokens + t) * 3 * width + h * d;
                    double wanted[HEAD_MOST] = {0}, sum = 0;

                    for (int64_t w = 0; w < variates; w++) {
                        const float *other = qkv + ((set * variates + w) * tokens + t) * 3 * width + h * d;
                        double score = 0;

                        if (own[w * ids] != own[v * ids] || !visible[(set * variates + v) * tokens + t] ||
                            !visible[(set * variates + w) * tokens + t])
                            continue;
                        for (int64_t j = 0; j < d; j++)
                            score += (double)q[j] * (double)other[width + j] * (double)op.scale;
                        sum += exp(score);
                        for (int64_t j = 0; j < d; j++)
                            wanted[j] += exp(score) * (double)other[2 * width + j];
                    }
                    for (int64_t j = 0; j < d; j++)
                        wanted[j] /= sum > 0 ? sum : 1;
                    bench_assert_close(got + ((set * variates + v) * tokens + t) * width + h * d, wanted, d, 3e-5);
                }
}

static void group_attention_stays_within_a_group_of_visible_variates(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        backend_t *backend = bench_open((uint64_t)round);

        check_groups(backend, round);
        bench_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_over_a_cache_equals_attention_over_all_keys),
        cmocka_unit_test(attention_without_a_table_does_not_rotate),
        cmocka_unit_test(group_attention_stays_within_a_group_of_visible_variates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
