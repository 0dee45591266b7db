/* Sums of table rows: y[row] = act(bias + Σ table[index]), with an index a table and row (backend_embed_t).
 *
 * Tables F32 or BF16 [entries][width], each of its own dtype; indices I32; y F32 or BF16. A thread EMBED_VECTOR neighbouring values of a row,
 * consecutive threads consecutive values; all threads of a row read the same indices. */
#include "gpuworker/backend/cuda/embed.cuh"

enum { EMBED_THREADS = 256 };

template <int VECTOR, typename Y>
static __global__ void __launch_bounds__(EMBED_THREADS) embed_kernel(const embed_t op, int64_t items)
{
    int64_t item = (int64_t)blockIdx.x * EMBED_THREADS + threadIdx.x;
    int vectors = op.width / VECTOR;

    begin();
    if (item < items) {
        int64_t row = item / vectors;
        const int32_t *index = embed_index(op, row, 0);

        embed_values<VECTOR, Y>(op, row, (int)(item % vectors) * VECTOR, [=](int table) { return index[table * op.table_stride]; });
    }
}

extern "C" int cuda_embed_launch(const backend_embed_t *op, cudaStream_t stream)
{
    embed_t p = embed_describe(op);
    int64_t items = op->rows * (op->width / (p.vector ? EMBED_VECTOR : 1)), blocks = (items + EMBED_THREADS - 1) / EMBED_THREADS;

    if (blocks > INT32_MAX)
        return error_set(BACKEND_ERR_UNSUPPORTED, "embed: %lld rows of %lld are too many for CUDA", (long long)op->rows,
                         (long long)op->width);
    if (p.y_bf16)
        return launch("embed", p.vector ? embed_kernel<EMBED_VECTOR, __nv_bfloat16> : embed_kernel<1, __nv_bfloat16>,
                      (unsigned)blocks, EMBED_THREADS, 0, stream, p, items);
    return launch("embed", p.vector ? embed_kernel<EMBED_VECTOR, float> : embed_kernel<1, float>, (unsigned)blocks, EMBED_THREADS,
                  0, stream, p, items);
}
