/* Sums of table rows: y[row] = act(bias + Σ table[index]), with an index a table and row (backend_embed_t).
 *
 * Tables F32 or BF16 [entries][width], each of its own dtype; indices I32; y F32 or BF16. A thread VECTOR neighbouring values of a row,
 * consecutive threads consecutive values; all threads of a row read the same indices. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { EMBED_THREADS = 256, EMBED_VECTOR = 4 };

typedef struct {
    const void *table[BACKEND_EMBED_TABLES_MOST];
    int32_t entries[BACKEND_EMBED_TABLES_MOST];
    bool bf16[BACKEND_EMBED_TABLES_MOST];
    int count;
    const int32_t *indices, *step;
    int64_t index_stride, table_stride, tokens, y_stride, items; /* items: vectors of y */
    const float *bias;
    bool silu;
    int width;
    void *y;
} embed_t;

template <int VECTOR, typename Y> static __global__ void __launch_bounds__(EMBED_THREADS) embed_kernel(const embed_t op)
{
    int64_t item = (int64_t)blockIdx.x * EMBED_THREADS + threadIdx.x;
    int vectors = op.width / VECTOR;
    int64_t row = item / vectors;
    int at = (int)(item % vectors) * VECTOR;
    float sum[VECTOR] = {}, part[VECTOR];

    begin();
    if (item >= op.items)
        return;
    const int32_t *index = op.indices + row / op.tokens * op.index_stride + row % op.tokens + (op.step != NULL ? *op.step : 0);
    if (op.bias != NULL)
        load<VECTOR>(sum, op.bias + at);
    for (int table = 0; table < op.count; table++) {
        int32_t entry = index[table * op.table_stride];
        int64_t from = (int64_t)(entry >= 0 && entry < op.entries[table] ? entry : 0) * op.width + at;

        if (op.bf16[table])
            load<VECTOR>(part, static_cast<const __nv_bfloat16 *>(op.table[table]) + from);
        else
            load<VECTOR>(part, static_cast<const float *>(op.table[table]) + from);
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            sum[i] += part[i];
    }
    if (op.silu) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            sum[i] = sum[i] / (1.0f + expf(-sum[i]));
    }
    store<VECTOR>(static_cast<Y *>(op.y) + row * op.y_stride + at, sum);
}

extern "C" int cuda_embed_launch(const backend_embed_t *op, cudaStream_t stream)
{
    embed_t p = {};
    bool vector;
    int64_t blocks;

    p.count = op->count;
    p.indices = static_cast<const int32_t *>(op->indices.data);
    p.step = op->step != NULL ? static_cast<const int32_t *>(op->step->data) : NULL;
    p.index_stride = op->index_stride;
    p.table_stride = op->table_stride;
    p.tokens = op->tokens;
    p.y_stride = op->y_stride > 0 ? op->y_stride : op->width;
    p.bias = op->bias != NULL ? static_cast<const float *>(op->bias->tensor.data) : NULL;
    p.silu = op->activation == BACKEND_ACT_SILU;
    p.width = (int)op->width;
    p.y = op->y.data;
    vector = op->width % EMBED_VECTOR == 0 && aligned_for(p.y, op->y.dtype, p.y_stride, EMBED_VECTOR) &&
             aligned_for(p.bias, BACKEND_F32, 0, EMBED_VECTOR);
    for (int i = 0; i < op->count; i++) {
        p.table[i] = op->table[i].data;
        p.bf16[i] = op->table[i].dtype == BACKEND_BF16;
        p.entries[i] = (int32_t)op->table[i].dim[0];
        vector = vector && aligned_for(p.table[i], op->table[i].dtype, op->width, EMBED_VECTOR);
    }
    p.items = op->rows * (op->width / (vector ? EMBED_VECTOR : 1));
    blocks = (p.items + EMBED_THREADS - 1) / EMBED_THREADS;
    if (blocks > INT32_MAX)
        return error_set(BACKEND_ERR_UNSUPPORTED, "embed: %lld rows of %lld are too many for CUDA", (long long)op->rows,
                         (long long)op->width);
    if (op->y.dtype == BACKEND_BF16)
        return launch("embed", vector ? embed_kernel<EMBED_VECTOR, __nv_bfloat16> : embed_kernel<1, __nv_bfloat16>,
                      (unsigned)blocks, EMBED_THREADS, 0, stream, p);
    return launch("embed", vector ? embed_kernel<EMBED_VECTOR, float> : embed_kernel<1, float>, (unsigned)blocks, EMBED_THREADS, 0,
                  stream, p);
}
