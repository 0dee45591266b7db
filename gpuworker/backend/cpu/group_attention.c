/* group_attention: at one token of one path, out_v = softmax over w (scale · q_v · k_w) v_w, over the variates w of v's group.
 * qkv [sets][variates][tokens][3][heads][head_dim], group [series][variates]. */
#include "gpuworker/backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* One output vector: query `v`, keys of all variates w with group[w] == group[v]; variate w's key at k + w · stride. */
static void attend_group(const float *q, const float *k, const float *values, int64_t stride, const int32_t *group,
                         int64_t variates, int64_t v, const backend_group_attention_t *op, float *scores, float *out)
{
    int d = op->head_dim;
    float most = -INFINITY, sum = 0;

    for (int64_t w = 0; w < variates; w++) {
        float dot = 0;

        for (int j = 0; j < d; j++)
            dot += q[j] * k[w * stride + j];
        scores[w] = group[w] == group[v] ? dot * op->scale : -INFINITY;
        most = fmaxf(most, scores[w]);
    }
    for (int64_t w = 0; w < variates; w++) {
        scores[w] = expf(scores[w] - most);
        sum += scores[w];
    }
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t w = 0; w < variates; w++)
        for (int j = 0; j < d; j++)
            out[j] += scores[w] / sum * values[w * stride + j];
}

int cpu_group_attention(backend_t *backend, const backend_group_attention_t *op)
{
    int64_t d = op->head_dim, width = op->heads * d, stride = op->tokens * 3 * width;
    int rc = cpu_scratch_check("group_attention", op->variates);

    if (rc < 0)
        return rc;
    for (int64_t set = 0; set < op->sets; set++) {
        const int32_t *group = (const int32_t *)op->group->data + set / op->samples * op->variates;
        const float *qkv = (const float *)op->qkv.data + set * op->variates * stride;
        float *out = (float *)op->out.data + set * op->variates * op->tokens * width;

        for (int64_t v = 0; v < op->variates; v++)
            for (int64_t t = 0; t < op->tokens; t++)
                for (int64_t h = 0; h < op->heads; h++) {
                    const float *token = qkv + t * 3 * width + h * d;
                    attend_group(token + v * stride, token + width, token + 2 * width, stride, group, op->variates, v, op,
                                 cpu_scratch(backend), out + (v * op->tokens + t) * width + h * d);
                }
    }
    return BACKEND_OK;
}
