/* Normalised rows for a product of many rows, and plain conversion.
 *
 * RMS: y = x / sqrt(mean(x²) + eps) · scale. LAYER: y = (x - mean) / sqrt(var + eps) · scale + shift. NONE: y = x. Then y · (1 +
 * modulation's scale) + its shift. In F32; x and y F32 or BF16, x rows x_stride apart, y dense. A row that is not longer than 1024 stays in
 * registers: those of a warp, or, of few rows, of a whole block, for then the way through the kernel is its time, and a lane's part of it
 * shorter. Of a longer one the passes after the first find it in L1. */
#include "gpuworker/backend/cuda/launch.cuh"

enum {
    NORM_WARPS = 4, /* of a block, a row each */
    NORM_VECTOR = 8,
    KEPT_WIDTH = 1024,
    SPREAD_WARPS = 8, /* of a row */
    SPREAD_VECTOR = 4,
    SPREAD_ROWS = 2048, /* at most */
};

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

/* Sum over a row's lanes: of WARPS warps of the block, in the order of their numbers. `shared`: one a warp. */
template <int WARPS> static __device__ __forceinline__ float sum_row(float value, float *shared)
{
    value = sum_lanes<WARP>(value);
    if (WARPS > 1) {
        if (threadIdx.x % WARP == 0)
            shared[threadIdx.x / WARP] = value;
        __syncthreads();
        value = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            value += shared[w];
    }
    return value;
}

/* What a row lacks from `at` on. */
template <int VECTOR>
static __device__ __forceinline__ void add_lacking(const cuda_lacking_t &lacking, float (&value)[VECTOR], int64_t rows, int64_t row,
                                                   int width, int64_t stride, int at)
{
    float part[CUDA_PARTS_MOST][VECTOR] = {}, bias[VECTOR] = {};

#pragma unroll
    for (int p = 0; p < CUDA_PARTS_MOST; p++)
        if (p < lacking.count)
            load<VECTOR>(part[p], lacking.parts + (p * rows + row) * width + at);
    if (lacking.bias != NULL)
        load<VECTOR>(bias, lacking.bias + at);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        value[i] += bias[i];
#pragma unroll
        for (int p = 0; p < CUDA_PARTS_MOST; p++)
            value[i] += part[p][i];
    }
    store<VECTOR>(lacking.y + row * stride + at, value);
}

/* A row in the registers of WARPS warps: of one of a block's, or of all. Scale and shift are weights and may be read before begin(). */
template <int WARPS, int VECTOR, bool LACKING, typename X, typename Y>
static __global__ void __launch_bounds__((WARPS > 1 ? WARPS : NORM_WARPS) * WARP)
    norm_kept_kernel(const X *x, Y *y, int64_t rows, int width, int64_t x_stride, backend_norm_kind_t kind,
                     const float *__restrict__ scale, const float *__restrict__ shift, float eps, const modulation_t modulation,
                     const cuda_lacking_t lacking)
{
    constexpr int LANES = WARPS * WARP, STEP = LANES * VECTOR, KEPT = KEPT_WIDTH / STEP;
    __shared__ float sums[2][WARPS];
    int64_t row = WARPS > 1 ? blockIdx.x : (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / WARP;
    int first = (int)(threadIdx.x % LANES) * VECTOR;
    float value[KEPT][VECTOR] = {}, factors[KEPT][VECTOR], shifts[KEPT][VECTOR], mean = 0, factor = 1;

#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int i = first + k * STEP;
#pragma unroll
        for (int j = 0; j < VECTOR; j++) {
            factors[k][j] = 1;
            shifts[k][j] = 0;
        }
        if (scale != NULL && i < width)
            load<VECTOR>(factors[k], scale + i);
        if (shift != NULL && i < width)
            load<VECTOR>(shifts[k], shift + i);
    }
    begin();
    if (row >= rows)
        return;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (first + k * STEP < width) {
            load<VECTOR>(value[k], x + row * x_stride + first + k * STEP);
            if (LACKING)
                add_lacking<VECTOR>(lacking, value[k], rows, row, width, x_stride, first + k * STEP);
        }
    if (LACKING && y == NULL)
        return;
    if (kind == BACKEND_NORM_LAYER) {
#pragma unroll
        for (int k = 0; k < KEPT; k++)
#pragma unroll
            for (int j = 0; j < VECTOR; j++)
                mean += value[k][j];
        mean = sum_row<WARPS>(mean, sums[0]) / (float)width;
    }
    if (kind != BACKEND_NORM_NONE) {
        float squares = 0;
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            if (first + k * STEP < width) {
#pragma unroll
                for (int j = 0; j < VECTOR; j++)
                    squares += (value[k][j] - mean) * (value[k][j] - mean);
            }
        factor = 1.0f / sqrtf(sum_row<WARPS>(squares, sums[1]) / (float)width + eps);
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
#pragma unroll
        for (int j = 0; j < VECTOR; j++)
            value[k][j] = (value[k][j] - mean) * factor * factors[k][j] + shifts[k][j];
        if (first + k * STEP < width) {
            modulate<VECTOR>(modulation, value[k], row, first + k * STEP);
            store<VECTOR>(y + row * width + first + k * STEP, value[k]);
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

static bool in_vectors(const cuda_norm_t *op)
{
    return op->width % NORM_VECTOR == 0 && aligned_for(op->x, op->x_dtype, op->x_stride, NORM_VECTOR) &&
           aligned_for(op->y, op->y_dtype, op->width, NORM_VECTOR) && aligned_for(op->scale, BACKEND_F32, 0, NORM_VECTOR) &&
           aligned_for(op->shift, BACKEND_F32, 0, NORM_VECTOR) &&
           aligned_for(op->modulation_scale, BACKEND_F32, op->modulation_stride, NORM_VECTOR) &&
           aligned_for(op->modulation_shift, BACKEND_F32, op->modulation_stride, NORM_VECTOR);
}

static bool is_spread(const cuda_norm_t *op)
{
    return op->width <= KEPT_WIDTH && op->rows <= SPREAD_ROWS && in_vectors(op);
}

template <bool LACKING, typename X, typename Y> static int norm_launch(const cuda_norm_t *op, cudaStream_t stream)
{
    modulation_t modulation = {op->modulation_scale, op->modulation_shift, op->rows_each, op->modulation_stride};
    const X *x = static_cast<const X *>(op->x);
    Y *y = static_cast<Y *>(op->y);
    bool vector = in_vectors(op), kept = vector && op->width <= KEPT_WIDTH;
    auto kernel = vector ? norm_kernel<NORM_VECTOR, X, Y> : norm_kernel<1, X, Y>;

    if (is_spread(op))
        return launch("norm", norm_kept_kernel<SPREAD_WARPS, SPREAD_VECTOR, LACKING, X, Y>, (unsigned)op->rows, SPREAD_WARPS * WARP,
                      0, stream, x, y, op->rows, op->width, op->x_stride, op->kind, op->scale, op->shift, op->eps, modulation,
                      op->lacking);
    if (kept)
        return launch("norm", norm_kept_kernel<1, NORM_VECTOR, false, X, Y>, blocks_for(op->rows, NORM_WARPS), NORM_WARPS * WARP, 0,
                      stream, x, y, op->rows, op->width, op->x_stride, op->kind, op->scale, op->shift, op->eps, modulation,
                      op->lacking);
    return launch("norm", kernel, blocks_for(op->rows, NORM_WARPS), NORM_WARPS * WARP, 0, stream, x, y, op->rows, op->width,
                  op->x_stride, op->kind, op->scale, op->shift, op->eps, modulation);
}

extern "C" bool cuda_norm_adds(const cuda_norm_t *op)
{
    return op->x_dtype == BACKEND_F32 && is_spread(op) && aligned_for(op->lacking.bias, BACKEND_F32, 0, SPREAD_VECTOR) &&
           aligned_for(op->lacking.y, BACKEND_F32, op->x_stride, SPREAD_VECTOR);
}

extern "C" int cuda_norm_launch(const cuda_norm_t *op, cudaStream_t stream)
{
    if (op->x_dtype == BACKEND_BF16)
        return op->y_dtype == BACKEND_BF16 ? norm_launch<false, __nv_bfloat16, __nv_bfloat16>(op, stream)
                                           : norm_launch<false, __nv_bfloat16, float>(op, stream);
    if (op->lacking.count > 0)
        return op->y_dtype == BACKEND_BF16 ? norm_launch<true, float, __nv_bfloat16>(op, stream)
                                           : norm_launch<true, float, float>(op, stream);
    return op->y_dtype == BACKEND_BF16 ? norm_launch<false, float, __nv_bfloat16>(op, stream)
                                       : norm_launch<false, float, float>(op, stream);
}
