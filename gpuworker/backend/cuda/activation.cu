/* y = residual + offset + gate · act(product), the epilogue of a product of many rows where cuBLASLt has none.
 *
 * product [rows][width] F32 or BF16. SWIGLU: y [rows][width / 2] = silu(first half) · second half; else y [rows][width]; rows of y,
 * residual and offset y_stride apart. A thread VECTOR neighbouring values, a block a row or a part of one. */
#include "gpuworker/backend/cuda/launch.cuh"

static __device__ __forceinline__ float silu(float value)
{
    return __fdividef(value, 1.0f + expf(-value));
}

template <int VECTOR> static __device__ __forceinline__ void add(float (&value)[VECTOR], const float *from)
{
    float other[VECTOR];

    if (from == NULL)
        return;
    load<VECTOR>(other, from);
#pragma unroll
    for (int i = 0; i < VECTOR; i++)
        value[i] += other[i];
}

template <int VECTOR, typename P, typename Y> static __global__ void activation_kernel(const cuda_activation_t op, int out)
{
    int column = (int)(blockIdx.y * blockDim.x + threadIdx.x) * VECTOR;
    int64_t row = blockIdx.x, at = row * op.y_stride + column;
    const P *from = static_cast<const P *>(op.product) + row * op.width + column;
    float value[VECTOR], other[VECTOR];

    begin();
    if (column >= out)
        return;
    load<VECTOR>(value, from);
    if (op.activation == BACKEND_ACT_RELU) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            value[i] = fmaxf(value[i], 0.0f);
    } else if (op.activation != BACKEND_ACT_NONE) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            value[i] = silu(value[i]);
    }
    if (op.activation == BACKEND_ACT_SWIGLU) {
        load<VECTOR>(other, from + out);
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            value[i] *= other[i];
    }
    if (op.gate != NULL) {
        load<VECTOR>(other, op.gate + (unsigned)row / (unsigned)op.rows_each * op.gate_stride + column);
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            value[i] *= other[i];
    }
    add<VECTOR>(value, op.residual != NULL ? op.residual + at : NULL);
    add<VECTOR>(value, op.offset != NULL ? op.offset + at : NULL);
    store<VECTOR>(static_cast<Y *>(op.y) + at, value);
}

template <typename P, typename Y> static int activation_launch(const cuda_activation_t *op, cudaStream_t stream)
{
    enum { THREADS_MOST = 128, VECTOR = 8 };
    int64_t out = op->activation == BACKEND_ACT_SWIGLU ? op->width / 2 : op->width;
    bool vector =
        out % VECTOR == 0 && aligned_for(op->product, op->product_dtype, op->width, VECTOR) &&
        aligned_for(op->y, op->y_dtype, op->y_stride, VECTOR) && aligned_for(op->residual, BACKEND_F32, op->y_stride, VECTOR) &&
        aligned_for(op->offset, BACKEND_F32, op->y_stride, VECTOR) && aligned_for(op->gate, BACKEND_F32, op->gate_stride, VECTOR);
    int64_t vectors = out / (vector ? VECTOR : 1), warps = (vectors + WARP - 1) / WARP;
    unsigned threads = warps < THREADS_MOST / WARP ? (unsigned)warps * WARP : (unsigned)THREADS_MOST;

    if (vectors > UINT16_MAX * THREADS_MOST || op->rows > INT32_MAX)
        return error_set(BACKEND_ERR_UNSUPPORTED, "linear: %lld rows of %lld are too many for CUDA", (long long)op->rows,
                         (long long)out);
    return launch("activation", vector ? activation_kernel<VECTOR, P, Y> : activation_kernel<1, P, Y>,
                  dim3((unsigned)op->rows, blocks_for(vectors, threads)), threads, 0, stream, *op, (int)out);
}

extern "C" int cuda_activation_launch(const cuda_activation_t *op, cudaStream_t stream)
{
    if (op->product_dtype == BACKEND_BF16)
        return op->y_dtype == BACKEND_BF16 ? activation_launch<__nv_bfloat16, __nv_bfloat16>(op, stream)
                                           : activation_launch<__nv_bfloat16, float>(op, stream);
    return op->y_dtype == BACKEND_BF16 ? activation_launch<float, __nv_bfloat16>(op, stream)
                                       : activation_launch<float, float>(op, stream);
}
