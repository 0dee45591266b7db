/* Normalised rows for a product of many rows, and plain conversion.
 *
 * RMS: y = x / sqrt(mean(x²) + eps) · scale. LAYER: y = (x - mean) / sqrt(var + eps) · scale + shift. NONE: y = x. Then y · (1 +
 * modulation's scale) + its shift. In F32; x and y F32 or BF16, x rows x_stride apart, y dense. A warp a row, which stays in registers when it is not longer than 1024; else the
 * passes after the first find it in L1. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { NORM_WARPS = 4, NORM_VECTOR = 8, NORM_KEPT = 4, NORM_KEPT_WIDTH = NORM_KEPT * WARP * NORM_VECTOR };

/* A condition's vectors, for neighbouring rows; NULL: none. */
typedef struct {
    const float *scale, *shift;
    int64_t rows_each, stride;
} modulation_t;

/* VECTOR neighbouring values of a row from `at` on. */
template <int VECTOR>
static __device__ __forceinline__ void modulate(const modulation_t &by, float (&value)[VECTOR], int64_t row, int at)
{
    float scale[VECTOR], shift[VECTOR];
    int64_t from = by.scale != NULL ? row / by.rows_each * by.stride + at : 0;

    if (by.scale == NULL)
        return;
    load<VECTOR>(scale, by.scale + from);
    load<VECTOR>(shift, by.shift + from);
#pragma unroll
    for (int i = 0; i < VECTOR; i++)
        value[i] = value[i] * (1.0f + scale[i]) + shift[i];
}

/* A lane keeps NORM_KEPT vectors of its row. Scale and shift are weights and may be read before begin(). */
template <typename X, typename Y>
static __global__ void __launch_bounds__(NORM_WARPS *WARP)
    norm_kept_kernel(const X *x, Y *y, int64_t rows, int width, int64_t x_stride, backend_norm_kind_t kind,
                     const float *__restrict__ scale, const float *__restrict__ shift, float eps, const modulation_t modulation)
{
    int64_t row = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / WARP;
    int first = (int)(threadIdx.x % WARP) * NORM_VECTOR;
    float value[NORM_KEPT][NORM_VECTOR] = {}, factors[NORM_KEPT][NORM_VECTOR], shifts[NORM_KEPT][NORM_VECTOR], mean = 0, factor = 1;

#pragma unroll
    for (int k = 0; k < NORM_KEPT; k++) {
        int i = first + k * WARP * NORM_VECTOR;
#pragma unroll
        for (int j = 0; j < NORM_VECTOR; j++) {
            factors[k][j] = 1;
            shifts[k][j] = 0;
        }
        if (scale != NULL && i < width)
            load<NORM_VECTOR>(factors[k], scale + i);
        if (shift != NULL && i < width)
            load<NORM_VECTOR>(shifts[k], shift + i);
    }
    begin();
    if (row >= rows)
        return;
#pragma unroll
    for (int k = 0; k < NORM_KEPT; k++)
        if (first + k * WARP * NORM_VECTOR < width)
            load<NORM_VECTOR>(value[k], x + row * x_stride + first + k * WARP * NORM_VECTOR);
    if (kind == BACKEND_NORM_LAYER) {
#pragma unroll
        for (int k = 0; k < NORM_KEPT; k++)
#pragma unroll
            for (int j = 0; j < NORM_VECTOR; j++)
                mean += value[k][j];
        mean = sum_lanes<WARP>(mean) / (float)width;
    }
    if (kind != BACKEND_NORM_NONE) {
        float squares = 0;
#pragma unroll
        for (int k = 0; k < NORM_KEPT; k++)
            if (first + k * WARP * NORM_VECTOR < width) {
#pragma unroll
                for (int j = 0; j < NORM_VECTOR; j++)
                    squares += (value[k][j] - mean) * (value[k][j] - mean);
            }
        factor = 1.0f / sqrtf(sum_lanes<WARP>(squares) / (float)width + eps);
    }
#pragma unroll
    for (int k = 0; k < NORM_KEPT; k++) {
#pragma unroll
        for (int j = 0; j < NORM_VECTOR; j++)
            value[k][j] = (value[k][j] - mean) * factor * factors[k][j] + shifts[k][j];
        if (first + k * WARP * NORM_VECTOR < width) {
            modulate<NORM_VECTOR>(modulation, value[k], row, first + k * WARP * NORM_VECTOR);
            store<NORM_VECTOR>(y + row * width + first + k * WARP * NORM_VECTOR, value[k]);
        }
    }
}

template <int VECTOR, typename X, typename Y>
static __global__ void __launch_bounds__(NORM_WARPS *WARP)
    norm_kernel(const X *x, Y *y, int64_t rows, int width, int64_t x_stride, backend_norm_kind_t kind,
                const float *__restrict__ scale, const float *__restrict__ shift, float eps, const modulation_t modulation)
{
    int64_t row = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / WARP;
    int first = (int)(threadIdx.x % WARP) * VECTOR;
    float value[VECTOR], mean = 0, factor = 1;

    begin();
    if (row >= rows)
        return;
    x += row * x_stride;
    y += row * width;

    if (kind == BACKEND_NORM_LAYER) {
        float sum = 0;
        for (int i = first; i < width; i += WARP * VECTOR) {
            load<VECTOR>(value, x + i);
#pragma unroll
            for (int j = 0; j < VECTOR; j++)
                sum += value[j];
        }
        mean = sum_lanes<WARP>(sum) / (float)width;
    }
    if (kind != BACKEND_NORM_NONE) {
        float squares = 0;
        for (int i = first; i < width; i += WARP * VECTOR) {
            load<VECTOR>(value, x + i);
#pragma unroll
            for (int j = 0; j < VECTOR; j++)
                squares += (value[j] - mean) * (value[j] - mean);
        }
        factor = 1.0f / sqrtf(sum_lanes<WARP>(squares) / (float)width + eps);
    }
    for (int i = first; i < width; i += WARP * VECTOR) {
        float factors[VECTOR], shifts[VECTOR];
#pragma unroll
        for (int j = 0; j < VECTOR; j++) {
            factors[j] = 1;
            shifts[j] = 0;
        }
        load<VECTOR>(value, x + i);
        if (scale != NULL)
            load<VECTOR>(factors, scale + i);
        if (shift != NULL)
            load<VECTOR>(shifts, shift + i);
#pragma unroll
        for (int j = 0; j < VECTOR; j++)
            value[j] = (value[j] - mean) * factor * factors[j] + shifts[j];
        modulate<VECTOR>(modulation, value, row, i);
        store<VECTOR>(y + i, value);
    }
}

template <typename X, typename Y> static int norm_launch(const cuda_norm_t *op, cudaStream_t stream)
{
    bool vector = op->width % NORM_VECTOR == 0 && aligned_for(op->x, op->x_dtype, op->x_stride, NORM_VECTOR) &&
                  aligned_for(op->y, op->y_dtype, op->width, NORM_VECTOR) && aligned_for(op->scale, BACKEND_F32, 0, NORM_VECTOR) &&
                  aligned_for(op->shift, BACKEND_F32, 0, NORM_VECTOR) &&
                  aligned_for(op->modulation_scale, BACKEND_F32, op->modulation_stride, NORM_VECTOR) &&
                  aligned_for(op->modulation_shift, BACKEND_F32, op->modulation_stride, NORM_VECTOR);
    modulation_t modulation = {op->modulation_scale, op->modulation_shift, op->rows_each, op->modulation_stride};
    auto kernel = !vector                        ? norm_kernel<1, X, Y>
                  : op->width <= NORM_KEPT_WIDTH ? norm_kept_kernel<X, Y>
                                                 : norm_kernel<NORM_VECTOR, X, Y>;

    return launch("norm", kernel, blocks_for(op->rows, NORM_WARPS), NORM_WARPS * WARP, 0, stream, static_cast<const X *>(op->x),
                  static_cast<Y *>(op->y), op->rows, op->width, op->x_stride, op->kind, op->scale, op->shift, op->eps, modulation);
}

extern "C" int cuda_norm_launch(const cuda_norm_t *op, cudaStream_t stream)
{
    if (op->x_dtype == BACKEND_BF16)
        return op->y_dtype == BACKEND_BF16 ? norm_launch<__nv_bfloat16, __nv_bfloat16>(op, stream)
                                           : norm_launch<__nv_bfloat16, float>(op, stream);
    return op->y_dtype == BACKEND_BF16 ? norm_launch<float, __nv_bfloat16>(op, stream) : norm_launch<float, float>(op, stream);
}
