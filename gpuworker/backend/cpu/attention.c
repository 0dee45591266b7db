/* attention: out = softmax(scale · q kᵀ) v for every head, causal, with rotary tables and a KV cache in two parts (backend_kv_t).
 *
 * PREFILL rotates and stores the keys and values of all tokens as the prefix, then lets query t attend prefix[first .. t].
 * DECODE stores one key and value at tail position *step and attends prefix[first ..] and tail[0 .. *step]. */
#include <math.h>
#include <string.h>

#include "gpuworker/backend/cpu/cpu.h"

/* The pairs of one head, in place, by the table row of `column` (backend_rope_t). */
static void rotate(const backend_rope_t *rope, float *x, const int32_t *index, int64_t column, bool keys)
{
    int64_t rotary_dim = rope->table->dim[2], half = rotary_dim / 2;
    const float *cosine = (const float *)rope->table->data + (index[column] * 4 + (keys ? 2 : 0)) * rotary_dim;
    const float *sine = cosine + rotary_dim;

    for (int64_t pair = 0; pair < half; pair++) {
        int64_t a = rope->interleaved ? 2 * pair : pair, b = rope->interleaved ? a + 1 : a + half;
        float xa = x[a], xb = x[b];

        x[a] = xa * cosine[a] - xb * sine[a];
        x[b] = xb * cosine[b] + xa * sine[b];
    }
}

/* Keys and values of `tokens` neighbours, head_dim apart. */
typedef struct {
    const float *k, *v;
    int64_t tokens;
} keys_t;

/* softmax over all keys of the runs, then the weighted sum of their values. scores: one float a key. */
static void attend(const float *q, const keys_t *runs, int count, int head_dim, float scale, float *scores, float *out)
{
    float most = -INFINITY, sum = 0;
    int64_t n = 0;

    for (int run = 0; run < count; run++)
        for (int64_t t = 0; t < runs[run].tokens; t++) {
            const float *k = runs[run].k + t * head_dim;
            float lanes[8] = {0}, dot = 0; /* eight sums side by side, which compilers may keep in one register */
            int j = 0;

            for (; j + 8 <= head_dim; j += 8)
                for (int lane = 0; lane < 8; lane++)
                    lanes[lane] += q[j + lane] * k[j + lane];
            for (; j < head_dim; j++)
                dot += q[j] * k[j];
            for (int lane = 0; lane < 8; lane++)
                dot += lanes[lane];
            scores[n] = dot * scale;
            most = fmaxf(most, scores[n++]);
        }
    for (int64_t i = 0; i < n; i++) {
        scores[i] = expf(scores[i] - most);
        sum += scores[i];
    }
    memset(out, 0, (size_t)head_dim * sizeof *out);
    n = 0;
    for (int run = 0; run < count; run++)
        for (int64_t t = 0; t < runs[run].tokens; t++) {
            const float *v = runs[run].v + t * head_dim;
            float weight = scores[n++] / sum;

            for (int j = 0; j < head_dim; j++)
                out[j] += weight * v[j];
        }
}

/* One (row, head): where its queries, cache and outputs lie. */
typedef struct {
    const float *qkv; /* token t: q at qkv + t · 3 · width, k one width on, v two */
    float *out;       /* token t at out + t · width */
    int64_t width;    /* heads · head_dim */
    float *prefix_k, *prefix_v, *tail_k, *tail_v;
    int64_t first;
    const int32_t *index; /* table rows of the columns; NULL: no rotation */
} lane_t;

static lane_t lane_of(const backend_attention_t *op, int64_t row, int head)
{
    int64_t prefix_row = row / (op->samples * op->variates) * op->variates + row % op->variates;
    int64_t prefix_tokens = op->kv->prefix_k.dim[2], d = op->head_dim;
    lane_t lane = {.width = op->heads * d};

    lane.qkv = (const float *)op->qkv.data + row * op->tokens * 3 * lane.width + head * d;
    lane.out = (float *)op->out.data + row * op->tokens * lane.width + head * d;
    lane.prefix_k = (float *)op->kv->prefix_k.data + (prefix_row * op->heads + head) * prefix_tokens * d;
    lane.prefix_v = (float *)op->kv->prefix_v.data + (prefix_row * op->heads + head) * prefix_tokens * d;
    if (op->mode == BACKEND_ATTENTION_DECODE) {
        int64_t tail_tokens = op->kv->tail_k.dim[2];
        lane.tail_k = (float *)op->kv->tail_k.data + (row * op->heads + head) * tail_tokens * d;
        lane.tail_v = (float *)op->kv->tail_v.data + (row * op->heads + head) * tail_tokens * d;
    }
    lane.first = op->first != NULL ? ((const int32_t *)op->first->data)[prefix_row] : 0;
    lane.index = op->rope.table != NULL ? (const int32_t *)op->rope.index->data + prefix_row * op->rope.index->dim[1] : NULL;
    return lane;
}

/* Stores token t's key and value at `k` and `v`. */
static void store(const backend_attention_t *op, const lane_t *lane, int64_t token, int64_t column, float *k, float *v)
{
    const float *from = lane->qkv + token * 3 * lane->width;
    size_t bytes = (size_t)op->head_dim * sizeof *k;

    memcpy(k, from + lane->width, bytes);
    memcpy(v, from + 2 * lane->width, bytes);
    if (lane->index != NULL)
        rotate(&op->rope, k, lane->index, column, true);
}

static const float *rotated_query(const backend_attention_t *op, const lane_t *lane, int64_t token, int64_t column, float *q)
{
    memcpy(q, lane->qkv + token * 3 * lane->width, (size_t)op->head_dim * sizeof *q);
    if (lane->index != NULL)
        rotate(&op->rope, q, lane->index, column, false);
    return q;
}

static void prefill(const backend_attention_t *op, const lane_t *lane, float *scratch)
{
    int64_t d = op->head_dim, first = lane->first;
    float *q = scratch, *scores = scratch + d;

    for (int64_t t = 0; t < op->tokens; t++)
        store(op, lane, t, t, lane->prefix_k + t * d, lane->prefix_v + t * d);
    for (int64_t t = 0; t < op->tokens; t++) {
        keys_t keys = {lane->prefix_k + first * d, lane->prefix_v + first * d, t + 1 - first};

        if (t < first)
            memset(lane->out + t * lane->width, 0, (size_t)d * sizeof(float));
        else
            attend(rotated_query(op, lane, t, t, q), &keys, 1, op->head_dim, op->scale, scores, lane->out + t * lane->width);
    }
}

static void decode(const backend_attention_t *op, const lane_t *lane, int64_t step, float *scratch)
{
    int64_t d = op->head_dim, first = lane->first, prefix_tokens = op->kv->prefix_k.dim[2];
    keys_t keys[2] = {{lane->prefix_k + first * d, lane->prefix_v + first * d, prefix_tokens - first},
                      {lane->tail_k, lane->tail_v, step + 1}};

    store(op, lane, 0, step, lane->tail_k + step * d, lane->tail_v + step * d);
    attend(rotated_query(op, lane, 0, step, scratch), keys, 2, op->head_dim, op->scale, scratch + d, lane->out);
}

int cpu_attention(backend_t *backend, const backend_attention_t *op)
{
    bool decoding = op->mode == BACKEND_ATTENTION_DECODE;
    int64_t keys = op->kv->prefix_k.dim[2] + (decoding ? op->kv->tail_k.dim[2] : 0);
    int64_t step = decoding ? *(const int32_t *)op->step->data : 0;
    int rc = cpu_scratch_check("attention", keys + op->head_dim);

    if (rc < 0)
        return rc;
    for (int64_t row = 0; row < op->rows; row++)
        for (int head = 0; head < op->heads; head++) {
            lane_t lane = lane_of(op, row, head);

            if (decoding)
                decode(op, &lane, step, cpu_scratch(backend));
            else
                prefill(op, &lane, cpu_scratch(backend));
        }
    return BACKEND_OK;
}
