/* Rows brought to mean 0 and deviation 1 by what is observed of them (backend_instance_scale_t).
 *
 * x F32, mask U8, y F32 [rows][width]; loc, scale F32 [rows]. A block a row; the statistics in F64, in two passes, the second of which
 * finds the row in L1. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { SCALE_THREADS = 256, SCALE_WARPS = SCALE_THREADS / WARP };

/* The block's sum, in every thread: the same tree always. shares: SCALE_WARPS, free again when the function returns. */
static __device__ __forceinline__ double sum_block(double value, double *shares)
{
    double sum = 0;

    value = sum_lanes<WARP>(value);
    if (threadIdx.x % WARP == 0)
        shares[threadIdx.x / WARP] = value;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < SCALE_WARPS; warp++)
        sum += shares[warp];
    __syncthreads();
    return sum;
}

static __global__ void __launch_bounds__(SCALE_THREADS)
    instance_scale_kernel(const float *x, const uint8_t *mask, float *y, float *loc, float *scale, int64_t width, int64_t count,
                          float eps, float clip, bool add, bool asinh)
{
    __shared__ double shares[SCALE_WARPS];
    int64_t row = blockIdx.x, at = row * width;
    double sum = 0, observations = 0, squares = 0;

    begin();
    auto observed = [=](int64_t i) { return mask == NULL || mask[at + i] != 0; };
    for (int64_t i = threadIdx.x; i < count; i += SCALE_THREADS)
        if (observed(i)) {
            sum += (double)x[at + i];
            observations += 1;
        }
    sum = sum_block(sum, shares);
    observations = sum_block(observations, shares);
    double mean = observations > 0 ? sum / observations : 0.0;
    for (int64_t i = threadIdx.x; i < count; i += SCALE_THREADS)
        if (observed(i))
            squares += ((double)x[at + i] - mean) * ((double)x[at + i] - mean);
    squares = sum_block(squares, shares);
    float centre = (float)mean, deviation = observations > 0 ? (float)sqrt(squares / observations) : 1.0f;
    if (add)
        deviation += eps;
    else if (deviation == 0)
        deviation = eps;
    if (threadIdx.x == 0) {
        loc[row] = centre;
        scale[row] = deviation;
    }
    for (int64_t i = threadIdx.x; i < width; i += SCALE_THREADS) {
        float value = 0;

        if (observed(i)) {
            value = (x[at + i] - centre) / deviation;
            if (clip > 0)
                value = fminf(fmaxf(value, -clip), clip);
            if (asinh)
                value = asinhf(value);
        }
        y[at + i] = value;
    }
}

extern "C" int cuda_instance_scale_launch(const backend_instance_scale_t *op, cudaStream_t stream)
{
    return launch("instance_scale", instance_scale_kernel, (unsigned)op->rows, SCALE_THREADS, 0, stream,
                  static_cast<const float *>(op->x.data),
                  op->mask != NULL ? static_cast<const uint8_t *>(op->mask->data) : (const uint8_t *)NULL,
                  static_cast<float *>(op->y.data), static_cast<float *>(op->loc.data), static_cast<float *>(op->scale.data),
                  op->width, op->width - op->ahead, op->eps, op->clip, op->add, op->asinh);
}
