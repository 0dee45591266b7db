/* The naive forecast (backend_random_walk_t): sigma = root mean square of the changes between neighbouring observed values (of
 * their logarithms for prices, where a value that is not positive counts as unobserved); value h ahead: last, its quantile last
 * · exp(z sigma sqrt(h)) or last + z sigma sqrt(h).
 *
 * x F32, mask U8 [rows][context]; mean F32 [rows][horizon]; quantiles [rows][levels][horizon]. A block a row; F64 until the end. */
#include <float.h>

#include "gpuworker/backend/cuda/launch.cuh"

enum { WALK_THREADS = 128 };

typedef struct {
    double squares;
    int64_t changes, last; /* last: index of the newest observed value, or -1 */
} walk_t;

static __device__ __forceinline__ walk_t walk_join(const walk_t &a, const walk_t &b)
{
    walk_t both = {a.squares + b.squares, a.changes + b.changes, a.last > b.last ? a.last : b.last};
    return both;
}

static __global__ void __launch_bounds__(WALK_THREADS)
    random_walk_kernel(const float *x, const uint8_t *mask, const uint8_t *log_rows, int64_t context, int64_t horizon,
                       int64_t levels, const float *z, float *mean, float *quantiles)
{
    __shared__ walk_t shares[WALK_THREADS];
    int64_t row = blockIdx.x;
    walk_t own = {0, 0, -1};

    begin();
    bool in_logs = log_rows[row] != 0;
    x += row * context;
    mask += row * context;
    auto observed = [=](int64_t i) { return mask[i] != 0 && (!in_logs || x[i] > 0); };
    for (int64_t i = threadIdx.x; i < context; i += WALK_THREADS) {
        if (!observed(i))
            continue;
        own.last = i;
        if (i > 0 && observed(i - 1)) {
            double change = in_logs ? log((double)x[i]) - log((double)x[i - 1]) : (double)x[i] - (double)x[i - 1];
            own.squares += change * change;
            own.changes++;
        }
    }
    shares[threadIdx.x] = own;
    __syncthreads();
    for (int half = WALK_THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half)
            shares[threadIdx.x] = walk_join(shares[threadIdx.x], shares[threadIdx.x + half]);
        __syncthreads();
    }

    const walk_t &all = shares[0];
    double last = all.last >= 0 ? x[all.last] : 0.0, sigma = all.changes > 0 ? sqrt(all.squares / (double)all.changes) : 0.0;
    for (int64_t h = threadIdx.x; h < horizon; h += WALK_THREADS)
        mean[row * horizon + h] = (float)last;
    for (int64_t i = threadIdx.x; i < levels * horizon; i += WALK_THREADS) {
        double move = (double)z[i / horizon] * (sigma * sqrt((double)(i % horizon + 1)));
        double value = in_logs ? last * exp(move) : last + move;
        quantiles[row * levels * horizon + i] = (float)fmin(fmax(value, -(double)FLT_MAX), (double)FLT_MAX);
    }
}

extern "C" int cuda_random_walk_launch(const backend_random_walk_t *op, cudaStream_t stream)
{
    return launch("random_walk", random_walk_kernel, (unsigned)op->rows, WALK_THREADS, 0, stream,
                  static_cast<const float *>(op->x.data), static_cast<const uint8_t *>(op->mask.data),
                  static_cast<const uint8_t *>(op->log->data), op->context, op->horizon, op->levels,
                  op->levels > 0 ? static_cast<const float *>(op->z->data) : NULL, static_cast<float *>(op->mean.data),
                  static_cast<float *>(op->quantiles.data));
}
