/* Over the samples of each series and variate: mean in F64, and quantiles by linear interpolation between order statistics
 * (backend_summarize_t).
 *
 * paths F32 [series][samples][variates], rows path_stride apart; mean [series][variates][horizon]; quantiles
 * [series][variates][levels][horizon]. A column is one horizon value of one series and variate; its samples are padded with +inf
 * to a power of two.
 *
 * Up to 512 samples: a warp a column, 8 neighbouring ones a block, which brings them through shared memory to registers. There a
 * bitonic network sorts them without a barrier: element e lies in lane e / PER, register e % PER, and every merge starts with
 * the mirrored comparison (e with its mirror image in the merged run), so that all comparisons put the smaller number first.
 *
 * More samples: a block some neighbouring columns in shared memory, sorted there by the whole block. */
#include "gpuworker/backend/cuda/launch.cuh"

enum {
    SUMMARY_THREADS = 256,
    SUMMARY_WARPS = SUMMARY_THREADS / WARP,
    SUMMARY_PER_LANE_MOST = 16,
    SUMMARY_PITCH_PAD = 4, /* 8 columns of 4 samples hit different banks */
    SUMMARY_COLUMNS_MOST = 8,
    SUMMARY_SAMPLES_MOST = 32768,
    SUMMARY_SHARED_MOST = SUMMARY_SAMPLES_MOST * 4,
};

typedef struct {
    const float *paths, *levels;
    int64_t path_stride, samples, variates, horizon;
    int level_count, columns, padded; /* padded: samples, to a power of two */
    float *mean, *quantiles;
} summarize_t;

/* The samples of value h of a row: sample s at column_of(...)[s · variates · path_stride]. */
static __device__ __forceinline__ const float *column_of(const summarize_t &op, int64_t row, int64_t h)
{
    return op.paths + (row / op.variates * op.samples * op.variates + row % op.variates) * op.path_stride + h;
}

/* Quantile `level` of sorted numbers, number i at sorted[i · stride]. */
static __device__ __forceinline__ void put_quantile(const summarize_t &op, int64_t row, int64_t h, int level, const float *sorted,
                                                    int stride)
{
    double position = (double)op.levels[level] * (double)(op.samples - 1);
    int64_t below = (int64_t)position, above = below + 1 < op.samples ? below + 1 : below;
    float low = sorted[below * stride], high = sorted[above * stride];

    op.quantiles[(row * op.level_count + level) * op.horizon + h] = low + (float)(position - (double)below) * (high - low);
}

/* ---- a warp a column --------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void order(float &low, float &high)
{
    float smaller = fminf(low, high);
    high = fmaxf(low, high);
    low = smaller;
}

/* Ascending order of the warp's WARP · PER numbers. */
template <int PER> static __device__ __forceinline__ void sort_lanes(float (&value)[PER])
{
    int lane = (int)threadIdx.x % WARP;

#pragma unroll
    for (int size = 2; size <= WARP * PER; size *= 2) {
        if (size <= PER) {
#pragma unroll
            for (int i = 0; i < PER; i++)
                if (i % size < size / 2)
                    order(value[i], value[i / size * size + size - 1 - i % size]);
        } else {
            bool lower = (lane & size / PER / 2) == 0;
            float mirrored[PER];
#pragma unroll
            for (int i = 0; i < PER; i++)
                mirrored[i] = __shfl_xor_sync(0xffffffffu, value[PER - 1 - i], size / PER - 1);
#pragma unroll
            for (int i = 0; i < PER; i++)
                value[i] = lower ? fminf(value[i], mirrored[i]) : fmaxf(value[i], mirrored[i]);
        }
#pragma unroll
        for (int stride = size / 4; stride > 0; stride /= 2) {
            if (stride >= PER) {
                bool lower = (lane & stride / PER) == 0;
#pragma unroll
                for (int i = 0; i < PER; i++) {
                    float other = __shfl_xor_sync(0xffffffffu, value[i], stride / PER);
                    value[i] = lower ? fminf(value[i], other) : fmaxf(value[i], other);
                }
            } else {
#pragma unroll
                for (int i = 0; i < PER; i++)
                    if ((i & stride) == 0)
                        order(value[i], value[i + stride]);
            }
        }
    }
}

template <int PER> static __global__ void __launch_bounds__(SUMMARY_THREADS) summarize_warp_kernel(const summarize_t op)
{
    constexpr int PITCH = WARP * PER + SUMMARY_PITCH_PAD;
    __shared__ float values[SUMMARY_WARPS][PITCH];
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t row = blockIdx.x, first = (int64_t)blockIdx.y * SUMMARY_WARPS, h = first + warp;
    float value[PER];
    double sum = 0;

    begin();
    int column = (int)threadIdx.x % SUMMARY_WARPS;
    if (first + column < op.horizon) {
        const float *from = column_of(op, row, first + column);
#pragma unroll
        for (int i = 0; i < PER; i++) {
            int64_t s = i * WARP + (int)threadIdx.x / SUMMARY_WARPS;
            values[column][s] = s < op.samples ? from[s * op.variates * op.path_stride] : INFINITY;
        }
    }
    __syncthreads();
    if (h >= op.horizon)
        return;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        value[i] = values[warp][i * WARP + lane];
        if (i * WARP + lane < op.samples)
            sum += value[i];
    }
    sum = sum_lanes<WARP>(sum);
    if (lane == 0)
        op.mean[row * op.horizon + h] = (float)(sum / (double)op.samples);
    if (op.level_count == 0)
        return;
    sort_lanes<PER>(value);
    __syncwarp(); /* all lanes have read what is written over now */
#pragma unroll
    for (int i = 0; i < PER; i++)
        values[warp][lane * PER + i] = value[i];
    __syncwarp();
    for (int level = lane; level < op.level_count; level += WARP)
        put_quantile(op, row, h, level, values[warp], 1);
}

/* ---- a block a few columns --------------------------------------------------------------------------------------------------- */

/* Ascending order of each column of values [count][columns], count a power of two. */
static __device__ void sort_columns(float *values, int count, int columns)
{
    for (int size = 2; size <= count; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            for (int i = (int)threadIdx.x; i < count / 2 * columns; i += SUMMARY_THREADS) {
                int pair = i / columns, low = 2 * pair - (pair & (stride - 1));
                float *a = values + low * columns + i % columns, *b = a + stride * columns;
                float x = *a, y = *b;
                if ((x > y) == ((low & size) == 0)) {
                    *a = y;
                    *b = x;
                }
            }
            __syncthreads();
        }
}

/* Thread t sums column t % columns of every (threads / columns)-th sample; the sums of a column are added as a tree. */
static __global__ void __launch_bounds__(SUMMARY_THREADS) summarize_kernel(const summarize_t op)
{
    extern __shared__ float shared[]; /* [padded][columns] */
    __shared__ double sums[SUMMARY_THREADS];
    float *values = shared;
    int64_t row = blockIdx.x;
    int column = (int)threadIdx.x % op.columns, share = (int)threadIdx.x / op.columns, shares = SUMMARY_THREADS / op.columns;
    int64_t h = (int64_t)blockIdx.y * op.columns + column;
    const float *from = column_of(op, row, h);
    double sum = 0;

    begin();
    for (int64_t s = share; s < op.samples; s += shares) {
        float value = h < op.horizon ? from[s * op.variates * op.path_stride] : 0;
        sum += value;
        if (op.level_count > 0)
            values[s * op.columns + column] = value;
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = shares / 2; half > 0; half /= 2) {
        if (share < half)
            sums[threadIdx.x] += sums[threadIdx.x + half * op.columns];
        __syncthreads();
    }
    if (share == 0 && h < op.horizon)
        op.mean[row * op.horizon + h] = (float)(sums[threadIdx.x] / (double)op.samples);
    if (op.level_count == 0)
        return;

    for (int64_t s = op.samples + share; s < op.padded; s += shares)
        values[s * op.columns + column] = INFINITY;
    __syncthreads();
    sort_columns(values, op.padded, op.columns);
    for (int level = share; h < op.horizon && level < op.level_count; level += shares)
        put_quantile(op, row, h, level, values + column, op.columns);
}

/* ---- launching --------------------------------------------------------------------------------------------------------------- */

template <int PER> static int launch_warps(const summarize_t &op, int64_t rows, cudaStream_t stream)
{
    if constexpr (PER > 1)
        if (op.samples <= WARP * PER / 2)
            return launch_warps<PER / 2>(op, rows, stream);
    return launch("summarize", summarize_warp_kernel<PER>, dim3((unsigned)rows, blocks_for(op.horizon, SUMMARY_WARPS)),
                  SUMMARY_THREADS, 0, stream, op);
}

extern "C" int cuda_summarize_launch(const backend_summarize_t *op, cudaStream_t stream)
{
    int64_t rows = op->series * op->variates;
    summarize_t p = {};

    p.paths = static_cast<const float *>(op->paths.data);
    p.path_stride = op->path_stride;
    p.samples = op->samples;
    p.variates = op->variates;
    p.horizon = op->horizon;
    p.mean = static_cast<float *>(op->mean.data);
    if (op->levels != NULL) {
        p.levels = static_cast<const float *>(op->levels->data);
        p.level_count = (int)backend_tensor_elements(op->levels);
        p.quantiles = static_cast<float *>(op->quantiles->data);
        if (op->samples > SUMMARY_SAMPLES_MOST)
            return error_set(BACKEND_ERR_UNSUPPORTED, "summarize: %lld samples, on CUDA at most %d", (long long)op->samples,
                             SUMMARY_SAMPLES_MOST);
    }
    if (op->samples <= WARP * SUMMARY_PER_LANE_MOST)
        return launch_warps<SUMMARY_PER_LANE_MOST>(p, rows, stream);
    for (p.padded = 1; p.level_count > 0 && p.padded < op->samples;)
        p.padded *= 2;
    p.columns = SUMMARY_COLUMNS_MOST;
    while ((int64_t)p.padded * p.columns * (int64_t)sizeof(float) > SUMMARY_SHARED_MOST)
        p.columns /= 2;
    return launch("summarize", summarize_kernel, dim3((unsigned)rows, blocks_for(op->horizon, p.columns)), SUMMARY_THREADS,
                  sizeof(float) * (size_t)p.padded * (size_t)p.columns, stream, p);
}
