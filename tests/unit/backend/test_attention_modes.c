/* The modes of attention beyond prefill and decode, head norms, visibility and bias, against a double-precision reference that lists, for
 * every query, the keys that it may see. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MOST = 64, HEAD_MOST = 16 };

/* One random layer: what is the same for all its calls. */
typedef struct {
    backend_t *backend;
    int64_t series, samples, variates, context;
    int heads, head_dim, rotary_dim;
    int64_t positions;
    bool interleaved;
    float scale;
    float *norm_q, *norm_k, *table;
    int32_t first[16];
    uint8_t visible[16 * KEYS_MOST];
    backend_weight_t q_weight, k_weight;
    backend_head_norm_t norm;
    backend_tensor_t table_tensor, first_tensor, visible_tensor;
    backend_kv_t kv;
} layer_t;

static int64_t prefix_rows(const layer_t *layer)
{
    return layer->series * layer->variates;
}

static int64_t width(const layer_t *layer)
{
    return (int64_t)layer->heads * layer->head_dim;
}

static void make_layer(layer_t *layer, int round, int64_t tail)
{
    backend_t *backend = bench_open((uint64_t)round);
    int64_t rows, prefix[4], tails[4];

    *layer = (layer_t){.backend = backend,
                       .series = bench_pick(1, 3),
                       .samples = round % 2 == 0 ? 1 : bench_pick(1, 3),
                       .variates = bench_pick(1, 2),
                       .context = bench_pick(2, 9),
                       .heads = (int)bench_pick(1, 3),
                       .head_dim = 2 * (int)bench_pick(2, HEAD_MOST / 2),
                       .positions = 40,
                       .interleaved = round % 3 == 0,
                       .scale = 0.4f};
    layer->rotary_dim = 2 * (int)bench_pick(1, layer->head_dim / 2);
    layer->norm_q = bench_numbers(layer->head_dim);
    layer->norm_k = bench_numbers(layer->head_dim);
    layer->q_weight = bench_weight(layer->norm_q, layer->head_dim, 0);
    layer->k_weight = bench_weight(layer->norm_k, layer->head_dim, 0);
    layer->norm = (backend_head_norm_t){&layer->q_weight, round % 4 == 0 ? NULL : &layer->k_weight, 1e-3f};
    layer->table = bench_numbers(layer->positions * 4 * layer->rotary_dim);
    layer->table_tensor = bench_shaped(bench_f32(layer->table, layer->positions * 4 * layer->rotary_dim), 3,
                                       (int64_t[]){layer->positions, 4, layer->rotary_dim});
    rows = prefix_rows(layer);
    for (int64_t r = 0; r < rows; r++)
        layer->first[r] = (int32_t)bench_pick(0, layer->context - 1);
    for (int64_t i = 0; i < rows * layer->context; i++)
        layer->visible[i] = (uint8_t)bench_pick(0, 1);
    layer->first_tensor = bench_i32(layer->first, rows);
    layer->visible_tensor = bench_any(BACKEND_U8, layer->visible, rows * layer->context);
    memcpy(prefix, (int64_t[]){rows, layer->heads, layer->context, layer->head_dim}, sizeof prefix);
    memcpy(tails, (int64_t[]){rows * layer->samples, layer->heads, tail, layer->head_dim}, sizeof tails);
    layer->kv.prefix_k = bench_shaped(bench_f32(NULL, rows * layer->context * width(layer)), 4, prefix);
    layer->kv.prefix_v = bench_shaped(bench_f32(NULL, rows * layer->context * width(layer)), 4, prefix);
    if (tail > 0) {
        layer->kv.tail_k = bench_shaped(bench_f32(NULL, rows * layer->samples * tail * width(layer)), 4, tails);
        layer->kv.tail_v = bench_shaped(bench_f32(NULL, rows * layer->samples * tail * width(layer)), 4, tails);
    }
}

/* Rows of the rotary table, any. */
static backend_tensor_t make_index(const layer_t *layer, int32_t *index, int64_t steps, int64_t columns)
{
    int64_t rows = prefix_rows(layer);

    for (int64_t i = 0; i < rows * steps * columns; i++)
        index[i] = (int32_t)bench_pick(0, layer->positions - 1);
    if (steps > 1)
        return bench_shaped(bench_i32(index, rows * steps * columns), 3, (int64_t[]){rows, steps, columns});
    return bench_shaped(bench_i32(index, rows * columns), 2, (int64_t[]){rows, columns});
}

static backend_attention_t call(layer_t *layer, backend_attention_mode_t mode, const float *qkv, int64_t tokens)
{
    bool whole = mode == BACKEND_ATTENTION_PREFILL || mode == BACKEND_ATTENTION_ENCODE || mode == BACKEND_ATTENTION_STORE;
    int64_t rows = prefix_rows(layer) * (whole ? 1 : layer->samples);

    return (backend_attention_t){.mode = mode,
                                 .qkv = bench_f32(qkv, rows * tokens * 3 * width(layer)),
                                 .out = bench_f32(NULL, rows * tokens * width(layer)),
                                 .rows = rows,
                                 .tokens = tokens,
                                 .samples = whole ? 1 : layer->samples,
                                 .variates = layer->variates,
                                 .heads = layer->heads,
                                 .head_dim = layer->head_dim,
                                 .scale = layer->scale,
                                 .norm = &layer->norm,
                                 .kv = mode == BACKEND_ATTENTION_ENCODE ? NULL : &layer->kv,
                                 .first = &layer->first_tensor,
                                 .visible = &layer->visible_tensor};
}

/* ---- the reference ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    int count;
    double k[KEYS_MOST][HEAD_MOST], bias[KEYS_MOST];
    const float *v[KEYS_MOST];
} seen_t;

static const float *part_of(const layer_t *layer, const float *qkv, int64_t tokens, int64_t row, int64_t t, int part, int head)
{
    return qkv + ((row * tokens + t) * 3 + part) * width(layer) + head * layer->head_dim;
}

/* Norm, then rotation by table row `index` (-1: none). */
static void place(const layer_t *layer, const float *x, int keys, int32_t index, double *to)
{
    const float *weight = keys ? (layer->norm.k != NULL ? layer->norm_k : NULL) : layer->norm_q;
    double normal[HEAD_MOST], sum = 0;
    int half = layer->rotary_dim / 2;

    for (int j = 0; j < layer->head_dim; j++)
        sum += (double)x[j] * (double)x[j];
    for (int j = 0; j < layer->head_dim; j++)
        normal[j] = (double)x[j] / sqrt(sum / layer->head_dim + (double)layer->norm.eps) * (weight != NULL ? (double)weight[j] : 1);
    for (int j = 0; j < layer->head_dim; j++) {
        to[j] = normal[j];
        if (index >= 0 && j < layer->rotary_dim) {
            const float *cosine = layer->table + (index * 4 + 2 * keys) * layer->rotary_dim, *sine = cosine + layer->rotary_dim;
            int partner = layer->interleaved ? (j % 2 == 0 ? j + 1 : j - 1) : (j < half ? j + half : j - half);
            double sign = (layer->interleaved ? j % 2 == 0 : j < half) ? -1 : 1;

            to[j] = normal[j] * (double)cosine[j] + sign * normal[partner] * (double)sine[j];
        }
    }
}

static void see(seen_t *seen, const layer_t *layer, const float *qkv, int64_t tokens, int64_t row, int64_t t, int head,
                int32_t index, double bias)
{
    place(layer, part_of(layer, qkv, tokens, row, t, 1, head), 1, index, seen->k[seen->count]);
    seen->v[seen->count] = part_of(layer, qkv, tokens, row, t, 2, head);
    seen->bias[seen->count++] = bias;
}

static void check_query(const seen_t *seen, const layer_t *layer, const float *q, int32_t index, const float *got)
{
    double placed[HEAD_MOST], wanted[HEAD_MOST] = {0}, sum = 0;

    place(layer, q, 0, index, placed);
    for (int s = 0; s < seen->count; s++) {
        double score = 0;

        for (int j = 0; j < layer->head_dim; j++)
            score += placed[j] * seen->k[s][j];
        score = exp(score * (double)layer->scale + seen->bias[s]);
        sum += score;
        for (int j = 0; j < layer->head_dim; j++)
            wanted[j] += score * (double)seen->v[s][j];
    }
    for (int j = 0; j < layer->head_dim; j++)
        wanted[j] /= sum > 0 ? sum : 1;
    bench_assert_close(got, wanted, layer->head_dim, 3e-5);
}

/* What a query from outside sees of the prefix. */
static void see_prefix(seen_t *seen, const layer_t *layer, const float *qkv, int64_t row, int head, const int32_t *index)
{
    for (int64_t s = layer->first[row]; s < layer->context; s++)
        if (layer->visible[row * layer->context + s])
            see(seen, layer, qkv, layer->context, row, s, head, index != NULL ? index[row * layer->context + s] : -1, 0);
}

/* ---- tests --------------------------------------------------------------------------------------------------------------------- */

/* ENCODE (causal false) or PREFILL of the whole context, compared. */
static void check_whole(layer_t *layer, bool causal, const float *qkv, const float *bias, const int32_t *index, const float *got)
{
    static seen_t seen;
    int64_t tokens = layer->context;

    for (int64_t row = 0; row < prefix_rows(layer); row++)
        for (int64_t t = 0; t < tokens; t++)
            for (int head = 0; head < layer->heads; head++) {
                const uint8_t *visible = layer->visible + row * tokens;

                seen.count = 0;
                for (int64_t s = layer->first[row]; t >= layer->first[row] && s < (causal ? t + 1 : tokens); s++)
                    if (visible[s] == visible[t])
                        see(&seen, layer, qkv, tokens, row, s, head, index[row * tokens + s],
                            causal ? 0 : (double)bias[head * (2 * tokens - 1) + s - t + tokens - 1]);
                check_query(&seen, layer, part_of(layer, qkv, tokens, row, t, 0, head), index[row * tokens + t],
                            got + (row * tokens + t) * width(layer) + head * layer->head_dim);
            }
}

static void encoding_sees_all_tokens_of_the_same_visibility(void **state)
{
    (void)state;
    for (int round = 0; round < 12; round++) {
        layer_t layer;
        int32_t index[16 * KEYS_MOST];
        backend_tensor_t indices, biases;
        backend_attention_t op;
        float *qkv, *bias;

        make_layer(&layer, round, 0);
        qkv = bench_numbers(prefix_rows(&layer) * layer.context * 3 * width(&layer));
        bias = bench_numbers(layer.heads * (2 * layer.context - 1));
        biases = bench_f32(bias, layer.heads * (2 * layer.context - 1));
        indices = make_index(&layer, index, 1, layer.context);
        op = call(&layer, BACKEND_ATTENTION_ENCODE, qkv, layer.context);
        op.rope = (backend_rope_t){&layer.table_tensor, &indices, layer.interleaved};
        op.bias = &biases;
        assert_int_equal(backend_attention(layer.backend, &op), BACKEND_OK);
        check_whole(&layer, false, qkv, bias, index, bench_read(&op.out));
        bench_close();
    }
}

/* Prefill, then blocks of which the first `kept` tokens stay and the others are forgotten. */
static void check_blocks(layer_t *layer, int64_t steps, int64_t kept, int64_t forgotten)
{
    static seen_t seen;
    static int32_t prefill_index[16 * KEYS_MOST], index[16 * KEYS_MOST];
    int64_t tokens = kept + forgotten, rows = prefix_rows(layer) * layer->samples;
    float *prefill = bench_numbers(prefix_rows(layer) * layer->context * 3 * width(layer));
    float *block = bench_numbers(steps * rows * tokens * 3 * width(layer));
    backend_tensor_t prefill_indices = make_index(layer, prefill_index, 1, layer->context);
    backend_tensor_t indices = make_index(layer, index, steps, tokens), step = bench_i32((int32_t[]){0}, 1);
    backend_attention_t op = call(layer, BACKEND_ATTENTION_PREFILL, prefill, layer->context);

    op.rope = (backend_rope_t){&layer->table_tensor, &prefill_indices, layer->interleaved};
    assert_int_equal(backend_attention(layer->backend, &op), BACKEND_OK);
    check_whole(layer, true, prefill, NULL, prefill_index, bench_read(&op.out));
    for (int64_t k = 0; k < steps; k++) {
        float *got;

        op = call(layer, BACKEND_ATTENTION_EXTEND, block + k * rows * tokens * 3 * width(layer), tokens);
        op.rope = (backend_rope_t){&layer->table_tensor, &indices, layer->interleaved};
        op.step = &step;
        op.step_tokens = kept;
        assert_int_equal(backend_attention(layer->backend, &op), BACKEND_OK);
        got = bench_read(&op.out);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t t = 0; t < tokens; t++)
                for (int head = 0; head < layer->heads; head++) {
                    int64_t prefix_row = row / (layer->samples * layer->variates) * layer->variates + row % layer->variates;
                    const int32_t *own = index + prefix_row * steps * tokens;

                    seen.count = 0;
                    see_prefix(&seen, layer, prefill, prefix_row, head, prefill_index);
                    for (int64_t j = 0; j <= k; j++)
                        for (int64_t s = 0; s < (j < k ? kept : t + 1); s++)
                            see(&seen, layer, block + j * rows * tokens * 3 * width(layer), tokens, row, s, head,
                                own[j * tokens + s], 0);
                    check_query(&seen, layer, part_of(layer, block + k * rows * tokens * 3 * width(layer), tokens, row, t, 0, head),
                                own[k * tokens + t], got + (row * tokens + t) * width(layer) + head * layer->head_dim);
                }
        assert_int_equal(backend_step_advance(layer->backend, &step), BACKEND_OK);
    }
}

static void blocks_extend_the_tail_and_forget_what_is_past_their_step(void **state)
{
    (void)state;
    for (int round = 0; round < 12; round++) {
        layer_t layer;
        int64_t steps = 2 + round % 3, kept = 1 + round % 2, forgotten = round % 3;

        make_layer(&layer, round, steps * kept + forgotten);
        check_blocks(&layer, steps, kept, forgotten);
        bench_close();
    }
}

static void an_append_stores_what_an_extension_does(void **state)
{
    enum { STEPS = 2, TOKENS = 3 };

    (void)state;
    for (int round = 0; round < 6; round++) {
        layer_t layer;
        int32_t index[16 * KEYS_MOST], zero = 0;
        float *tail[2][2];

        make_layer(&layer, round, STEPS * TOKENS);
        int64_t rows = prefix_rows(&layer) * layer.samples, elements = rows * TOKENS * width(&layer);
        const float *block = bench_numbers(STEPS * 3 * elements);
        backend_tensor_t indices = make_index(&layer, index, STEPS, TOKENS), step = bench_i32(&zero, 1);

        size_t bytes = (size_t)(STEPS * elements) * sizeof(float);
        float *nothing = calloc(1, bytes);

        assert_non_null(nothing);
        for (int append = 0; append < 2; append++) {
            assert_int_equal(backend_write(layer.backend, &layer.kv.tail_k, nothing), BACKEND_OK);
            assert_int_equal(backend_write(layer.backend, &layer.kv.tail_v, nothing), BACKEND_OK);
            assert_int_equal(backend_write(layer.backend, &step, &zero), BACKEND_OK);
            for (int k = 0; k < STEPS; k++) {
                backend_attention_t op =
                    call(&layer, append ? BACKEND_ATTENTION_APPEND : BACKEND_ATTENTION_EXTEND, block + k * 3 * elements, TOKENS);

                op.rope = (backend_rope_t){&layer.table_tensor, &indices, layer.interleaved};
                op.step = &step;
                op.step_tokens = TOKENS;
                if (append)
                    op.out = (backend_tensor_t){0};
                assert_int_equal(backend_attention(layer.backend, &op), BACKEND_OK);
                assert_int_equal(backend_step_advance(layer.backend, &step), BACKEND_OK);
            }
            tail[append][0] = bench_read(&layer.kv.tail_k);
            tail[append][1] = bench_read(&layer.kv.tail_v);
        }
        assert_memory_not_equal(tail[0][0], nothing, bytes);
        assert_memory_equal(tail[0][0], tail[1][0], bytes);
        assert_memory_equal(tail[0][1], tail[1][1], bytes);
        free(nothing);
        bench_close();
    }
}

static void queries_read_what_was_stored_and_the_tail_when_there_is_one(void **state)
{
    static seen_t seen;

    (void)state;
    for (int round = 0; round < 12; round++) {
        bool tail = round % 3 == 0;
        int64_t tail_tokens = 4, tokens = 1 + round % 2, rows;
        layer_t layer;
        int32_t index[16 * KEYS_MOST];
        backend_tensor_t indices, step;
        backend_attention_t op;
        float *stored, *asked, *got, *k, *v;

        make_layer(&layer, round, tail_tokens);
        rows = prefix_rows(&layer) * layer.samples;
        stored = bench_numbers(prefix_rows(&layer) * layer.context * 3 * width(&layer));
        asked = bench_numbers(rows * tokens * 3 * width(&layer));
        indices = make_index(&layer, index, 1, layer.context);
        step = bench_i32((int32_t[]){2}, 1);
        op = call(&layer, BACKEND_ATTENTION_STORE, stored, layer.context);
        op.rope = (backend_rope_t){&layer.table_tensor, &indices, layer.interleaved};
        op.out = (backend_tensor_t){0};
        assert_int_equal(backend_attention(layer.backend, &op), BACKEND_OK);
        if (tail) /* keys and values that are there, as they are scored: no norm of ours */
            for (int part = 0; part < 2; part++) {
                float *values = bench_numbers(rows * tail_tokens * width(&layer));
                assert_int_equal(backend_write(layer.backend, part ? &layer.kv.tail_v : &layer.kv.tail_k, values), BACKEND_OK);
            }
        op = call(&layer, BACKEND_ATTENTION_QUERY, asked, tokens);
        op.step = tail ? &step : NULL;
        assert_int_equal(backend_attention(layer.backend, &op), BACKEND_OK);
        got = bench_read(&op.out);
        k = bench_read(&layer.kv.tail_k);
        v = bench_read(&layer.kv.tail_v);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t t = 0; t < tokens; t++)
                for (int head = 0; head < layer.heads; head++) {
                    int64_t prefix_row = row / (layer.samples * layer.variates) * layer.variates + row % layer.variates;

                    seen.count = 0;
                    see_prefix(&seen, &layer, stored, prefix_row, head, index);
                    for (int64_t s = 0; tail && s <= 2; s++) {
                        int64_t at = ((row * layer.heads + head) * tail_tokens + s) * layer.head_dim;
                        for (int j = 0; j < layer.head_dim; j++)
                            seen.k[seen.count][j] = (double)k[at + j];
                        seen.bias[seen.count] = 0;
                        seen.v[seen.count++] = v + at;
                    }
                    check_query(&seen, &layer, part_of(&layer, asked, tokens, row, t, 0, head), -1,
                                got + (row * tokens + t) * width(&layer) + head * layer.head_dim);
                }
        bench_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoding_sees_all_tokens_of_the_same_visibility),
        cmocka_unit_test(blocks_extend_the_tail_and_forget_what_is_past_their_step),
        cmocka_unit_test(an_append_stores_what_an_extension_does),
        cmocka_unit_test(queries_read_what_was_stored_and_the_tail_when_there_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
