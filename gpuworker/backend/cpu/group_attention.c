/* group_attention: at one token of one path, out_v = softmax over w (scale · q_v · k_w) v_w, over the variates w of v's group.
 * qkv [sets][variates][tokens][3][heads][head_dim], group [series][variates][group_tokens]. */
#include "gpuworker/backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* The queries and keys of one (set, token, head), normalised: [variates][2][head_dim]; variate w's in qkv at from + w · stride. */
static void place(const backend_group_attention_t *op, const float *from, int64_t stride, float *placed)
{
    int64_t d = op->head_dim, width = op->heads * d;

    for (int64_t w = 0; w < op->variates; w++)
        for (int part = 0; part < 2; part++) {
            float *to = placed + (2 * w + part) * d;

            memcpy(to, from + w * stride + part * width, (size_t)d * sizeof *to);
            if (op->norm != NULL)
                cpu_head_norm(to, op->head_dim, op->norm, part == 1);
        }
}

/* Whether variate w is seen at all; `visible` points to the token of the set's first variate. */
static bool is_visible(const backend_group_attention_t *op, const uint8_t *visible, int64_t w)
{
    return visible == NULL || visible[w * op->tokens];
}

/* One output vector: query `v`, keys of all variates w with the same group id. */
static void attend(const backend_group_attention_t *op, const float *placed, const float *values, int64_t stride,
                   const int32_t *group, const uint8_t *visible, int64_t v, float *scores, float *out)
{
    int64_t d = op->head_dim, ids = op->group_tokens;
    float most = -INFINITY, sum = 0;

    memset(out, 0, (size_t)d * sizeof *out);
    if (!is_visible(op, visible, v))
        return;
    for (int64_t w = 0; w < op->variates; w++) {
        float dot = 0;

        for (int64_t j = 0; j < d; j++)
            dot += placed[2 * v * d + j] * placed[(2 * w + 1) * d + j];
        scores[w] = group[w * ids] == group[v * ids] && is_visible(op, visible, w) ? dot * op->scale : -INFINITY;
        most = fmaxf(most, scores[w]);
    }
    for (int64_t w = 0; w < op->variates; w++) {
        scores[w] = expf(scores[w] - most);
        sum += scores[w];
    }
    for (int64_t w = 0; w < op->variates; w++)
        for (int64_t j = 0; j < d; j++)
            out[j] += scores[w] / sum * values[w * stride + j];
}

int cpu_group_attention(backend_t *backend, const backend_group_attention_t *op)
{
    int64_t d = op->head_dim, width = op->heads * d, stride = op->tokens * 3 * width;
    float *scores = cpu_scratch(backend), *placed = scores + op->variates;
    int rc = cpu_scratch_check("group_attention", op->variates * (1 + 2 * d));

    if (rc < 0)
        return rc;
    for (int64_t set = 0; set < op->sets; set++) {
        const int32_t *group = (const int32_t *)op->group->data + set / op->samples * op->variates * op->group_tokens;
        const float *qkv = (const float *)op->qkv.data + set * op->variates * stride;
        float *out = (float *)op->out.data + set * op->variates * op->tokens * width;

        for (int64_t t = 0; t < op->tokens; t++)
            for (int64_t h = 0; h < op->heads; h++) {
                const float *from = qkv + t * 3 * width + h * d;
                const uint8_t *visible =
                    op->visible != NULL ? (const uint8_t *)op->visible->data + set * op->variates * op->tokens + t : NULL;

                place(op, from, stride, placed);
                for (int64_t v = 0; v < op->variates; v++)
                    attend(op, placed, from + 2 * width, stride, group + (op->group_tokens > 1 ? t : 0), visible, v, scores,
                           out + (v * op->tokens + t) * width + h * d);
            }
    }
    return BACKEND_OK;
}
