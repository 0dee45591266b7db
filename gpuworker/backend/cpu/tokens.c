/* Tokens: sign_tokens (a bit a sign), draw_token (softmax, the most probable ones, one of them), transpose (channels to series). */
#include <math.h>
#include <stdlib.h>

#include "gpuworker/backend/cpu/cpu.h"
#include "gpuworker/backend/philox.h"

static int32_t pack_signs(const float *x, int bits)
{
    int32_t token = 0;

    for (int i = 0; i < bits; i++)
        token |= (int32_t)(x[i] > 0) << i;
    return token;
}

int cpu_sign_tokens(backend_t *backend, const backend_sign_tokens_t *op)
{
    int64_t width = op->bits_1 + op->bits_2, x_stride = op->x_stride > 0 ? op->x_stride : op->tokens * width;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        int64_t sequence = row / op->tokens, t = row % op->tokens;
        const float *x = (const float *)op->x.data + sequence * x_stride + t * width;

        for (int64_t copy = 0; copy < op->copies; copy++) {
            int32_t *y = (int32_t *)op->y.data + (sequence * op->copies + copy) * op->y_stride + t;

            y[0] = pack_signs(x, op->bits_1);
            y[op->part_stride] = pack_signs(x + op->bits_1, op->bits_2);
        }
    }
    return BACKEND_OK;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The weight of the last token that may be drawn. sorted: scratch for all weights. */
static float least_weight(const backend_draw_token_t *op, const float *weight, double total, float *sorted)
{
    int64_t n = op->vocabulary, last = 0;
    double before = 0;

    if (op->top_k == 0 && op->top_p >= 1)
        return 0;
    for (int64_t i = 0; i < n; i++)
        sorted[i] = weight[i];
    qsort(sorted, (size_t)n, sizeof *sorted, descending);
    if (op->top_k > 0)
        return sorted[op->top_k < n ? op->top_k - 1 : n - 1];
    while (last + 1 < n && before + (double)sorted[last] <= (double)op->top_p * total)
        before += (double)sorted[last++];
    return sorted[last];
}

static int32_t draw(const backend_draw_token_t *op, const float *logits, uint64_t key, uint32_t step, uint32_t path, float *scratch)
{
    float *weight = scratch, *sorted = scratch + op->vocabulary, most = -INFINITY, least;
    double total = 0, sum = 0, target;
    int32_t token = 0;

    for (int64_t i = 0; i < op->vocabulary; i++)
        if (logits[i] > most) {
            most = logits[i];
            token = (int32_t)i;
        }
    if (op->top_k == 1)
        return token;
    for (int64_t i = 0; i < op->vocabulary; i++) {
        weight[i] = expf((logits[i] - most) / op->temperature);
        weight[i] = weight[i] > 0 ? weight[i] : 0; /* and NaN */
        total += (double)weight[i];
    }
    least = least_weight(op, weight, total, sorted);
    total = 0;
    for (int64_t i = 0; i < op->vocabulary; i++)
        total += weight[i] >= least ? (double)weight[i] : 0;
    target = (double)philox_uniform(philox(key, step, path, op->stream, PHILOX_STREAM_TOKEN).word[0]) * total;
    for (int64_t i = 0; i < op->vocabulary && sum <= target; i++)
        if (weight[i] > 0 && weight[i] >= least) {
            sum += (double)weight[i];
            token = (int32_t)i;
        }
    return token;
}

int cpu_draw_token(backend_t *backend, const backend_draw_token_t *op)
{
    int64_t stride = op->logits_stride > 0 ? op->logits_stride : op->vocabulary;
    int32_t step = *(const int32_t *)op->step->data;

    for (int64_t row = 0; row < op->rows; row++) {
        uint64_t key = op->top_k != 1 ? ((const uint64_t *)op->keys->data)[row / op->paths] : 0;

        ((int32_t *)op->tokens.data)[row * op->token_stride + step] =
            draw(op, (const float *)op->logits.data + row * stride, key, (uint32_t)step, (uint32_t)(row % op->paths),
                 cpu_scratch(backend));
    }
    return op->then != NULL ? cpu_embed(backend, op->then) : BACKEND_OK;
}

int cpu_transpose(backend_t *backend, const backend_transpose_t *op)
{
    int64_t x_stride = op->x_stride > 0 ? op->x_stride : op->tokens * op->channels;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++)
        for (int64_t c = 0; c < op->channels; c++) {
            int64_t at = row / op->rows_each * op->channels + c;
            float scale = op->scale != NULL ? ((const float *)op->scale->data)[at] : 1.0f;
            float loc = op->loc != NULL ? ((const float *)op->loc->data)[at] : 0.0f;

            for (int64_t t = 0; t < op->tokens; t++)
                ((float *)op->y.data)[(row * op->channels + c) * op->tokens + t] =
                    ((const float *)op->x.data)[row * x_stride + t * op->channels + c] * scale + loc;
        }
    return BACKEND_OK;
}
