/* Sums of table rows, y[row] = act(bias + Σ table[index]) (backend_embed_t), as a piece of a kernel: embed.cu's own, and that of the draw
 * which gave one of the indices. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_EMBED_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_EMBED_CUH

#include "gpuworker/backend/cuda/launch.cuh"

enum { EMBED_VECTOR = 4, EMBED_AT_ONCE = 4 };

typedef struct {
    const void *table[BACKEND_EMBED_TABLES_MOST];
    int32_t entries[BACKEND_EMBED_TABLES_MOST];
    bool bf16[BACKEND_EMBED_TABLES_MOST];
    int count;
    const int32_t *indices, *step;
    int64_t index_stride, table_stride, tokens, y_stride;
    const float *bias;
    bool silu, y_bf16;
    bool vector; /* rows can be read and written EMBED_VECTOR elements at a time */
    int width;
    void *y;
} embed_t;

/* Where the index of a row into a table lies. */
static __device__ __forceinline__ const int32_t *embed_index(const embed_t &op, int64_t row, int table)
{
    return op.indices + row / op.tokens * op.index_stride + row % op.tokens + (op.step != NULL ? *op.step : 0) +
           table * op.table_stride;
}

/* VECTOR neighbouring values of a row, from `at` on; entry(table): the index into a table. Rows of several tables are in flight at once. */
template <int VECTOR, typename Y, typename F>
static __device__ __forceinline__ void embed_values(const embed_t &op, int64_t row, int at, F entry)
{
    typedef packed_t<VECTOR, float> wide_t;
    typedef packed_t<VECTOR, __nv_bfloat16> narrow_t;
    float sum[VECTOR] = {}, part[VECTOR];

    if (op.bias != NULL)
        load<VECTOR>(sum, op.bias + at);
    for (int first = 0; first < op.count; first += EMBED_AT_ONCE) {
        typename wide_t::word wide[EMBED_AT_ONCE][wide_t::WORDS];
        typename narrow_t::word narrow[EMBED_AT_ONCE][narrow_t::WORDS];

#pragma unroll
        for (int i = 0; i < EMBED_AT_ONCE; i++) {
            int table = first + i;
            if (table < op.count) {
                int32_t index = entry(table);
                int64_t from = (int64_t)(index >= 0 && index < op.entries[table] ? index : 0) * op.width + at;
                if (op.bf16[table])
                    load_words<VECTOR>(narrow[i], static_cast<const __nv_bfloat16 *>(op.table[table]) + from, true);
                else
                    load_words<VECTOR>(wide[i], static_cast<const float *>(op.table[table]) + from, true);
            }
        }
#pragma unroll
        for (int i = 0; i < EMBED_AT_ONCE; i++)
            if (first + i < op.count) {
                if (op.bf16[first + i])
                    unpack<VECTOR, __nv_bfloat16>(part, narrow[i]);
                else
                    unpack<VECTOR, float>(part, wide[i]);
#pragma unroll
                for (int j = 0; j < VECTOR; j++)
                    sum[j] += part[j];
            }
    }
    if (op.silu) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            sum[i] = sum[i] / (1.0f + expf(-sum[i]));
    }
    store<VECTOR>(static_cast<Y *>(op.y) + row * op.y_stride + at, sum);
}

static inline embed_t embed_describe(const backend_embed_t *op)
{
    embed_t p = {};

    p.count = op->count;
    p.indices = static_cast<const int32_t *>(op->indices.data);
    p.step = op->step != NULL ? static_cast<const int32_t *>(op->step->data) : NULL;
    p.index_stride = op->index_stride;
    p.table_stride = op->table_stride;
    p.tokens = op->tokens;
    p.y_stride = op->y_stride > 0 ? op->y_stride : op->width;
    p.bias = op->bias != NULL ? static_cast<const float *>(op->bias->tensor.data) : NULL;
    p.silu = op->activation == BACKEND_ACT_SILU;
    p.y_bf16 = op->y.dtype == BACKEND_BF16;
    p.width = (int)op->width;
    p.y = op->y.data;
    p.vector = op->width % EMBED_VECTOR == 0 && aligned_for(p.y, op->y.dtype, p.y_stride, EMBED_VECTOR) &&
               aligned_for(p.bias, BACKEND_F32, 0, EMBED_VECTOR);
    for (int i = 0; i < op->count; i++) {
        p.table[i] = op->table[i].data;
        p.bf16[i] = op->table[i].dtype == BACKEND_BF16;
        p.entries[i] = (int32_t)op->table[i].dim[0];
        p.vector = p.vector && aligned_for(p.table[i], op->table[i].dtype, op->width, EMBED_VECTOR);
    }
    return p;
}

#endif
