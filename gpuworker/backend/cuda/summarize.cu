/* Over the samples of each series and variate: mean in F64, and quantiles by linear interpolation between order statistics
 * (backend_summarize_t).
 *
 * paths F32 [series][samples][variates], rows path_stride apart; mean [series][variates][horizon]; quantiles
 * [series][variates][levels][horizon]. A block COLUMNS neighbouring horizon values (columns) of one series and variate. Thread t
 * sums column t % columns of every (threads / columns)-th sample; the sums of a column are added as a tree. For the quantiles
 * all samples of the columns lie in shared memory, padded with +inf to a power of two, and each column is sorted by a bitonic
 * network. */
#include "gpuworker/backend/cuda/launch.cuh"

enum {
    SUMMARY_THREADS = 256,
    SUMMARY_COLUMNS_MOST = 32,
    SUMMARY_COLUMNS_LEAST = 4, /* fewer only where more do not fit */
    SUMMARY_BLOCKS_WANTED = 132,
    SUMMARY_SAMPLES_MOST = 32768,
    SUMMARY_SHARED_MOST = SUMMARY_SAMPLES_MOST * 4,
};

typedef struct {
    const float *paths, *levels;
    int64_t path_stride, samples, variates, horizon;
    int level_count, columns, padded; /* padded: samples, to a power of two */
    float *mean, *quantiles;
} summarize_t;

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

static __global__ void __launch_bounds__(SUMMARY_THREADS) summarize_kernel(const summarize_t op)
{
    extern __shared__ float values[]; /* [padded][columns] */
    __shared__ double sums[SUMMARY_THREADS];
    int64_t row = blockIdx.x, first = row / op.variates * op.samples * op.variates + row % op.variates;
    int column = (int)threadIdx.x % op.columns, share = (int)threadIdx.x / op.columns, shares = SUMMARY_THREADS / op.columns;
    int64_t h = (int64_t)blockIdx.y * op.columns + column;
    double sum = 0;

    begin();
    for (int64_t s = share; s < op.samples; s += shares) {
        float value = h < op.horizon ? op.paths[(first + s * op.variates) * op.path_stride + h] : 0;
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
    for (int level = share; level < op.level_count; level += shares) {
        double position = (double)op.levels[level] * (double)(op.samples - 1);
        int64_t below = (int64_t)position, above = below + 1 < op.samples ? below + 1 : below;
        float low = values[below * op.columns + column], high = values[above * op.columns + column];
        if (h < op.horizon)
            op.quantiles[(row * op.level_count + level) * op.horizon + h] = low + (float)(position - (double)below) * (high - low);
    }
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
        for (p.padded = 1; p.padded < op->samples;)
            p.padded *= 2;
    }
    p.columns = SUMMARY_COLUMNS_MOST;
    while (p.columns > 1 &&
           ((int64_t)p.padded * p.columns * (int64_t)sizeof(float) > SUMMARY_SHARED_MOST ||
            (p.columns > SUMMARY_COLUMNS_LEAST && rows * blocks_for(op->horizon, p.columns) < SUMMARY_BLOCKS_WANTED)))
        p.columns /= 2;
    return launch("summarize", summarize_kernel, dim3((unsigned)rows, blocks_for(op->horizon, p.columns)), SUMMARY_THREADS,
                  sizeof(float) * (size_t)p.padded * (size_t)p.columns, stream, p);
}
