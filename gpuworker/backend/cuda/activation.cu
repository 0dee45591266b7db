/* y = residual + act(product), the epilogue of a product of many rows where cuBLASLt has none.
 *
 * product [rows][width] F32 or BF16. NONE, SILU: y [rows][width]. SWIGLU: y [rows][width / 2] = silu(first half) · second half.
 * A thread VECTOR neighbouring values of a row, consecutive threads consecutive values. */
#include "gpuworker/backend/cuda/launch.cuh"

static __device__ __forceinline__ float silu(float value)
{
    return __fdividef(value, 1.0f + expf(-value));
}

template <int VECTOR, typename P, typename Y>
static __global__ void activation_kernel(const P *product, const float *residual, Y *y, unsigned vectors, int out, int width,
                                         backend_activation_t activation)
{
    unsigned vector = blockIdx.x * blockDim.x + threadIdx.x, a_row = (unsigned)(out / VECTOR), row = vector / a_row;
    int64_t item = (int64_t)vector * VECTOR;
    const P *from = product + (int64_t)row * width + (vector - row * a_row) * VECTOR;
    float value[VECTOR], other[VECTOR];

    begin();
    if (vector >= vectors)
        return;
    load<VECTOR>(value, from);
    if (activation != BACKEND_ACT_NONE) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            value[i] = silu(value[i]);
    }
    if (activation == BACKEND_ACT_SWIGLU) {
        load<VECTOR>(other, from + out);
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            value[i] *= other[i];
    }
    if (residual != NULL) {
        load<VECTOR>(other, residual + item);
#pragma unroll
        for (int i = 0; i < VECTOR; i++)
            value[i] += other[i];
    }
    store<VECTOR>(y + item, value);
}

template <typename P, typename Y> static int activation_launch(const cuda_activation_t *op, cudaStream_t stream)
{
    enum { THREADS = 256, VECTOR = 8 };
    int64_t out = op->activation == BACKEND_ACT_SWIGLU ? op->width / 2 : op->width;
    int64_t items = op->rows * out;
    bool vector = out % VECTOR == 0 && aligned_for(op->product, op->product_dtype, op->width, VECTOR) &&
                  aligned_for(op->y, op->y_dtype, out, VECTOR) && aligned_for(op->residual, BACKEND_F32, out, VECTOR);

    int64_t vectors = items / (vector ? VECTOR : 1);
    if (vectors > UINT32_MAX - THREADS)
        return error_set(BACKEND_ERR_UNSUPPORTED, "linear: %lld rows of %lld are too many for CUDA", (long long)op->rows,
                         (long long)out);
    return launch("activation", vector ? activation_kernel<VECTOR, P, Y> : activation_kernel<1, P, Y>, blocks_for(vectors, THREADS),
                  THREADS, 0, stream, static_cast<const P *>(op->product), op->residual, static_cast<Y *>(op->y), (unsigned)vectors,
                  (int)out, (int)op->width, op->activation);
}

extern "C" int cuda_activation_launch(const cuda_activation_t *op, cudaStream_t stream)
{
    if (op->product_dtype == BACKEND_BF16)
        return op->y_dtype == BACKEND_BF16 ? activation_launch<__nv_bfloat16, __nv_bfloat16>(op, stream)
                                           : activation_launch<__nv_bfloat16, float>(op, stream);
    return op->y_dtype == BACKEND_BF16 ? activation_launch<float, __nv_bfloat16>(op, stream)
                                       : activation_launch<float, float>(op, stream);
}
