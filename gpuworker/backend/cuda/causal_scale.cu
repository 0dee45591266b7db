/* The causal patch scaler (backend_causal_scale_t): per patch the mean and clamped deviation of all observed values up to its
 * end; y = (x - loc) / scale.
 *
 * x, y F32 and mask U8 [rows][patches · patch], loc, scale F32 [rows][patches], state F64 [rows][BACKEND_SCALER_STATE]. A block
 * a row: a warp a patch takes its moments, one warp joins them into running ones (a scan over 32 patches at a time), then all
 * write y. Everything about statistics is F64. */
#include "gpuworker/backend/cuda/moments.cuh"

enum { SCALE_THREADS = 256, SCALE_SHARED_MOST = 200 * 1024 };

static __global__ void __launch_bounds__(SCALE_THREADS)
    causal_scale_kernel(const float *x, const uint8_t *mask, int patches, int64_t patch, double minimum, double exponent, float *y,
                        float *loc, float *scale, double *state)
{
    extern __shared__ moments_t shared[]; /* [patches] */
    moments_t *running = shared;
    int64_t row = blockIdx.x, values = patches * patch;

    begin();
    x += row * values;
    mask += row * values;
    y += row * values;
    loc += row * patches;
    scale += row * patches;
    for (int p = (int)threadIdx.x / WARP; p < patches; p += SCALE_THREADS / WARP) {
        moments_t set = moments_of_patch(x + p * patch, patch, [=](int64_t i) { return mask[p * patch + i] != 0; });
        if (threadIdx.x % WARP == 0)
            running[p] = set;
    }
    __syncthreads();
    if (threadIdx.x < WARP)
        moments_scan(running, patches);
    __syncthreads();

    moments_t all = running[patches - 1];
    double lower = 0, upper = INFINITY;
    if (exponent > 0) {
        double global = sqrt(all.m2 / fmax(all.count, 1.0) + minimum), factor = pow(10.0, exponent);
        lower = fmax(minimum, global / factor);
        upper = global * factor;
    }
    for (int p = (int)threadIdx.x; p < patches; p += SCALE_THREADS) {
        loc[p] = (float)moments_mean(running[p]);
        scale[p] = (float)moments_scale(running[p], minimum, lower, upper);
    }
    if (threadIdx.x == 0) {
        state += row * BACKEND_SCALER_STATE;
        state[0] = all.count;
        state[1] = all.sum;
        state[2] = all.m2;
        state[3] = lower;
        state[4] = upper;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < values; i += SCALE_THREADS)
        y[i] = (x[i] - loc[i / patch]) / scale[i / patch];
}

extern "C" int cuda_causal_scale_launch(const backend_causal_scale_t *op, cudaStream_t stream)
{
    size_t shared_bytes = (size_t)op->patches * sizeof(moments_t);

    if (shared_bytes > SCALE_SHARED_MOST)
        return error_set(BACKEND_ERR_UNSUPPORTED, "causal_scale: %lld patches, on CUDA at most %d", (long long)op->patches,
                         (int)(SCALE_SHARED_MOST / sizeof(moments_t)));
    return launch("causal_scale", causal_scale_kernel, (unsigned)op->rows, SCALE_THREADS, shared_bytes, stream,
                  static_cast<const float *>(op->x.data), static_cast<const uint8_t *>(op->mask.data), op->patches, op->patch,
                  op->minimum, op->exponent, static_cast<float *>(op->y.data), static_cast<float *>(op->loc.data),
                  static_cast<float *>(op->scale.data), static_cast<double *>(op->state.data));
}
