/* y = residual + offset + gate · act(product), the epilogue of a product of many rows where cuBLASLt has none.
 *
 * product [rows][width] F32 or BF16. SWIGLU: y [rows][width / 2] = silu(first half) · second half; else y [rows][width]; rows of y,
 * residual and offset y_stride apart. A thread VECTOR neighbouring values of a row, consecutive threads consecutive values. */
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

template <int VECTOR, typename P, typename Y>
static __global__ void activation_kernel(const cuda_activation_t op, unsigned vectors, int out)
{
    unsigned vector = blockIdx.x * blockDim.x + threadIdx.x, a_row = (unsigned)(out / VECTOR), row = vector / a_row;
    unsigned column = (vector - row * a_row) * VECTOR;
    int64_t at = row * op.y_stride + column;
    const P *from = static_cast<const P *>(op.product) + row * op.width + column;
    float value[VECTOR], other[VECTOR];

    begin();
    if (vector >= vectors)
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
        load<VECTOR>(other, op.gate + row / op.rows_each * op.gate_stride + column);
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
    enum { THREADS = 256, VECTOR = 8 };
    int64_t out = op->activation == BACKEND_ACT_SWIGLU ? op->width / 2 : op->width;
    bool vector =
        out % VECTOR == 0 && aligned_for(op->product, op->product_dtype, op->width, VECTOR) &&
        aligned_for(op->y, op->y_dtype, op->y_stride, VECTOR) && aligned_for(op->residual, BACKEND_F32, op->y_stride, VECTOR) &&
        aligned_for(op->offset, BACKEND_F32, op->y_stride, VECTOR) && aligned_for(op->gate, BACKEND_F32, op->gate_stride, VECTOR);
    int64_t vectors = op->rows * out / (vector ? VECTOR : 1);

    if (vectors > UINT32_MAX - THREADS)
        return error_set(BACKEND_ERR_UNSUPPORTED, "linear: %lld rows of %lld are too many for CUDA", (long long)op->rows,
                         (long long)out);
    return launch("activation", vector ? activation_kernel<VECTOR, P, Y> : activation_kernel<1, P, Y>, blocks_for(vectors, THREADS),
                  THREADS, 0, stream, *op, (unsigned)vectors, (int)out);
}

extern "C" int cuda_activation_launch(const cuda_activation_t *op, cudaStream_t stream)
{
    if (op->product_dtype == BACKEND_BF16)
        return op->y_dtype == BACKEND_BF16 ? activation_launch<__nv_bfloat16, __nv_bfloat16>(op, stream)
                                           : activation_launch<__nv_bfloat16, float>(op, stream);
    return op->y_dtype == BACKEND_BF16 ? activation_launch<float, __nv_bfloat16>(op, stream)
                                       : activation_launch<float, float>(op, stream);
}
