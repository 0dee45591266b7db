/* attention: out = softmax(scale · q kᵀ + bias) v for every head, with head norms, rotary tables and a KV cache in two parts (backend_kv_t).
 *
 * Every mode is a choice of what is stored and of the runs of keys that a query sees: the prefix from `first` on, the tail up to a
 * position, or the tokens themselves (backend_attention_mode_t). */
#include <math.h>
#include <string.h>

#include "gpuworker/backend/cpu/cpu.h"

void cpu_head_norm(float *x, int head_dim, const backend_head_norm_t *norm, bool key)
{
    const backend_weight_t *weight = key ? norm->k : norm->q;
    float sum = 0, inverse;

    for (int j = 0; j < head_dim; j++)
        sum += x[j] * x[j];
    inverse = 1 / sqrtf(sum / (float)head_dim + norm->eps);
    for (int j = 0; j < head_dim; j++)
        x[j] *= inverse * (weight != NULL ? ((const float *)weight->tensor.data)[j] : 1);
}

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

/* Neighbouring keys and values, of which a query sees those whose flag is `wanted`, or all. */
typedef struct {
    const float *k, *v;
    int64_t k_stride, v_stride, tokens;
    const uint8_t *visible; /* NULL: all are seen */
    uint8_t wanted;
    const float *bias; /* added to the score of each; NULL: 0 */
} keys_t;

static float score(const float *q, const float *k, int head_dim)
{
    float lanes[8] = {0}, dot = 0; /* eight sums side by side, which compilers may keep in one register */
    int j = 0;

    for (; j + 8 <= head_dim; j += 8)
        for (int lane = 0; lane < 8; lane++)
            lanes[lane] += q[j + lane] * k[j + lane];
    for (; j < head_dim; j++)
        dot += q[j] * k[j];
    for (int lane = 0; lane < 8; lane++)
        dot += lanes[lane];
    return dot;
}

/* softmax over the seen keys of all runs, then the weighted sum of their values; nothing seen gives zeros. scores: one float a key. */
static void attend(const float *q, const keys_t *runs, int count, int head_dim, float scale, float *scores, float *out)
{
    float most = -INFINITY, sum = 0;
    int64_t n = 0;

    for (int run = 0; run < count; run++)
        for (int64_t t = 0; t < runs[run].tokens; t++, n++) {
            const keys_t *keys = &runs[run];

            if (keys->visible != NULL && keys->visible[t] != keys->wanted)
                scores[n] = -INFINITY;
            else
                scores[n] = score(q, keys->k + t * keys->k_stride, head_dim) * scale + (keys->bias != NULL ? keys->bias[t] : 0);
            most = fmaxf(most, scores[n]);
        }
    memset(out, 0, (size_t)head_dim * sizeof *out);
    if (most == -INFINITY)
        return;
    for (int64_t i = 0; i < n; i++) {
        scores[i] = expf(scores[i] - most);
        sum += scores[i];
    }
    n = 0;
    for (int run = 0; run < count; run++)
        for (int64_t t = 0; t < runs[run].tokens; t++) {
            const float *v = runs[run].v + t * runs[run].v_stride;
            float weight = scores[n++] / sum;

            if (weight > 0) /* what is not seen may hold anything */
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
    const uint8_t *visible; /* of the prefix, or of ENCODE's tokens */
    const float *bias;
    const int32_t *index; /* table rows of the columns; NULL: no rotation */
} lane_t;

static lane_t lane_of(const backend_attention_t *op, int64_t row, int head)
{
    int64_t prefix_row = row / (op->samples * op->variates) * op->variates + row % op->variates, d = op->head_dim;
    int64_t prefix_tokens = op->kv != NULL ? op->kv->prefix_k.dim[2] : op->tokens;
    lane_t lane = {.width = op->heads * d};

    lane.qkv = (const float *)op->qkv.data + row * op->tokens * 3 * lane.width + head * d;
    if (op->mode != BACKEND_ATTENTION_STORE && op->mode != BACKEND_ATTENTION_APPEND)
        lane.out = (float *)op->out.data + row * op->tokens * lane.width + head * d;
    if (op->kv != NULL) {
        lane.prefix_k = (float *)op->kv->prefix_k.data + (prefix_row * op->heads + head) * prefix_tokens * d;
        lane.prefix_v = (float *)op->kv->prefix_v.data + (prefix_row * op->heads + head) * prefix_tokens * d;
    }
    if (op->step != NULL && op->kv != NULL && op->kv->tail_k.rank == 4) {
        int64_t tail_tokens = op->kv->tail_k.dim[2];
        lane.tail_k = (float *)op->kv->tail_k.data + (row * op->heads + head) * tail_tokens * d;
        lane.tail_v = (float *)op->kv->tail_v.data + (row * op->heads + head) * tail_tokens * d;
    }
    lane.first = op->first != NULL ? ((const int32_t *)op->first->data)[prefix_row] : 0;
    lane.visible = op->visible != NULL ? (const uint8_t *)op->visible->data + prefix_row * prefix_tokens : NULL;
    lane.bias = op->bias != NULL ? (const float *)op->bias->data + head * (2 * op->tokens - 1) : NULL;
    if (op->rope.table != NULL) {
        const backend_tensor_t *index = op->rope.index;
        lane.index = (const int32_t *)index->data + prefix_row * index->dim[1] * (index->rank == 3 ? index->dim[2] : 1);
    }
    return lane;
}

/* A query or key of one token, as scores take it: normalised, then rotated. */
static void place(const backend_attention_t *op, const lane_t *lane, const float *from, int64_t column, bool key, float *to)
{
    memcpy(to, from, (size_t)op->head_dim * sizeof *to);
    if (op->norm != NULL)
        cpu_head_norm(to, op->head_dim, op->norm, key);
    if (lane->index != NULL)
        rotate(&op->rope, to, lane->index, column, key);
}

static void place_query(const backend_attention_t *op, const lane_t *lane, int64_t token, int64_t column, float *q)
{
    place(op, lane, lane->qkv + token * 3 * lane->width, column, false, q);
}

static void store(const backend_attention_t *op, const lane_t *lane, int64_t token, int64_t column, float *k, float *v)
{
    const float *from = lane->qkv + token * 3 * lane->width;

    place(op, lane, from + lane->width, column, true, k);
    memcpy(v, from + 2 * lane->width, (size_t)op->head_dim * sizeof *v);
}

static void store_prefix(const backend_attention_t *op, const lane_t *lane)
{
    int64_t d = op->head_dim;

    for (int64_t t = 0; t < op->tokens; t++)
        store(op, lane, t, t, lane->prefix_k + t * d, lane->prefix_v + t * d);
}

/* The prefix as queries from outside see it. */
static keys_t prefix_keys(const backend_attention_t *op, const lane_t *lane)
{
    int64_t d = op->head_dim, first = lane->first;

    return (keys_t){.k = lane->prefix_k + first * d,
                    .v = lane->prefix_v + first * d,
                    .k_stride = d,
                    .v_stride = d,
                    .tokens = op->kv->prefix_k.dim[2] - first,
                    .visible = lane->visible != NULL ? lane->visible + first : NULL,
                    .wanted = 1};
}

static keys_t tail_keys(const backend_attention_t *op, const lane_t *lane, int64_t tokens)
{
    return (keys_t){.k = lane->tail_k, .v = lane->tail_v, .k_stride = op->head_dim, .v_stride = op->head_dim, .tokens = tokens};
}

static void prefill(const backend_attention_t *op, const lane_t *lane, float *q, float *scores)
{
    keys_t keys;

    store_prefix(op, lane);
    keys = prefix_keys(op, lane);
    for (int64_t t = 0; t < op->tokens; t++) {
        keys.tokens = t < lane->first ? 0 : t + 1 - lane->first;
        keys.wanted = lane->visible != NULL ? lane->visible[t] : 1;
        place_query(op, lane, t, t, q);
        attend(q, &keys, 1, op->head_dim, op->scale, scores, lane->out + t * lane->width);
    }
}

/* From tail position `begin` on, the tokens of the columns from `column` on. */
static void store_tail(const backend_attention_t *op, const lane_t *lane, int64_t begin, int64_t column)
{
    int64_t d = op->head_dim;

    for (int64_t t = 0; t < op->tokens; t++)
        store(op, lane, t, column + t, lane->tail_k + (begin + t) * d, lane->tail_v + (begin + t) * d);
}

/* EXTEND, APPEND, which is EXTEND without queries, and DECODE, which is EXTEND by one token at position *step. */
static void extend(const backend_attention_t *op, const lane_t *lane, int64_t step, float *q, float *scores)
{
    bool decode = op->mode == BACKEND_ATTENTION_DECODE;
    int64_t begin = decode ? step : step * op->step_tokens;
    int64_t column = decode || op->rope.table == NULL ? step : step * op->rope.index->dim[2];

    store_tail(op, lane, begin, column);
    for (int64_t t = 0; t < op->tokens && op->mode != BACKEND_ATTENTION_APPEND; t++) {
        keys_t keys[2] = {prefix_keys(op, lane), tail_keys(op, lane, begin + t + 1)};

        place_query(op, lane, t, column + t, q);
        attend(q, keys, 2, op->head_dim, op->scale, scores, lane->out + t * lane->width);
    }
}

/* placed: the keys of all tokens, after the scores. */
static void encode(const backend_attention_t *op, const lane_t *lane, float *q, float *scores)
{
    int64_t d = op->head_dim, first = lane->first, tokens = op->tokens;
    float *placed = scores + tokens;
    keys_t keys = {.k = placed + first * d,
                   .v = lane->qkv + first * 3 * lane->width + 2 * lane->width,
                   .k_stride = d,
                   .v_stride = 3 * lane->width,
                   .visible = lane->visible != NULL ? lane->visible + first : NULL};

    for (int64_t t = first; t < tokens; t++)
        place(op, lane, lane->qkv + t * 3 * lane->width + lane->width, t, true, placed + t * d);
    for (int64_t t = 0; t < tokens; t++) {
        keys.tokens = t < first ? 0 : tokens - first;
        keys.wanted = lane->visible != NULL ? lane->visible[t] : 1;
        keys.bias = lane->bias != NULL ? lane->bias + first - t + tokens - 1 : NULL;
        place_query(op, lane, t, t, q);
        attend(q, &keys, 1, op->head_dim, op->scale, scores, lane->out + t * lane->width);
    }
}

static void query(const backend_attention_t *op, const lane_t *lane, int64_t step, float *q, float *scores)
{
    keys_t keys[2] = {prefix_keys(op, lane), tail_keys(op, lane, step + 1)};

    for (int64_t t = 0; t < op->tokens; t++) {
        place_query(op, lane, t, t, q);
        attend(q, keys, op->step != NULL ? 2 : 1, op->head_dim, op->scale, scores, lane->out + t * lane->width);
    }
}

int cpu_attention(backend_t *backend, const backend_attention_t *op)
{
    int64_t own = op->mode == BACKEND_ATTENTION_ENCODE ? op->tokens * (1 + op->head_dim) : 0;
    int64_t prefix = op->kv != NULL ? op->kv->prefix_k.dim[2] : 0, tail = op->kv != NULL ? op->kv->tail_k.dim[2] : 0;
    int64_t step = op->step != NULL ? *(const int32_t *)op->step->data : 0;
    float *q = cpu_scratch(backend), *scores = q + op->head_dim;
    int rc = cpu_scratch_check("attention", op->head_dim + prefix + tail + own);

    if (rc < 0)
        return rc;
    for (int64_t row = 0; row < op->rows; row++)
        for (int head = 0; head < op->heads; head++) {
            lane_t lane = lane_of(op, row, head);

            switch (op->mode) {
            case BACKEND_ATTENTION_PREFILL:
                prefill(op, &lane, q, scores);
                break;
            case BACKEND_ATTENTION_DECODE:
            case BACKEND_ATTENTION_EXTEND:
            case BACKEND_ATTENTION_APPEND:
                extend(op, &lane, step, q, scores);
                break;
            case BACKEND_ATTENTION_ENCODE:
                encode(op, &lane, q, scores);
                break;
            case BACKEND_ATTENTION_STORE:
                store_prefix(op, &lane);
                break;
            case BACKEND_ATTENTION_QUERY:
                query(op, &lane, step, q, scores);
                break;
            }
        }
    return BACKEND_OK;
}
