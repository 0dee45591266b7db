/* Count, sum and M2 = Σ (x - mean)² of a set of numbers in F64, and how two sets' join (Chan, Golub, LeVeque): what the causal
 * scaler keeps. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_MOMENTS_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_MOMENTS_CUH

#include "gpuworker/backend/cuda/launch.cuh"

typedef struct {
    double count, sum, m2;
} moments_t;

static __device__ __forceinline__ double moments_mean(const moments_t &set)
{
    return set.sum / fmax(set.count, 1.0);
}

static __device__ __forceinline__ moments_t moments_join(const moments_t &a, const moments_t &b)
{
    moments_t both = {a.count + b.count, a.sum + b.sum, a.m2 + b.m2};

    if (a.count > 0 && b.count > 0) {
        double delta = moments_mean(b) - moments_mean(a);
        both.m2 += delta * delta * (a.count * b.count / both.count);
    }
    return both;
}

/* The causal scale of backend_causal_scale_t: deviation of all seen so far, within lower .. upper. */
static __device__ __forceinline__ double moments_scale(const moments_t &set, double minimum, double lower, double upper)
{
    double scale = sqrt(set.m2 / fmax(set.count - 1.0, 1.0) + minimum);
    return fmin(fmax(scale, lower), upper);
}

/* The moments of one patch, in every lane of the warp; observed(i) and x[i] for i < patch. */
template <typename F> static __device__ __forceinline__ moments_t moments_of_patch(const float *x, int64_t patch, F observed)
{
    int lane = (int)threadIdx.x % WARP;
    moments_t set = {};

    for (int64_t i = lane; i < patch; i += WARP)
        if (observed(i)) {
            set.count += 1;
            set.sum += x[i];
        }
    set.count = sum_lanes<WARP>(set.count);
    set.sum = sum_lanes<WARP>(set.sum);
    double mean = moments_mean(set);
    for (int64_t i = lane; i < patch; i += WARP)
        if (observed(i))
            set.m2 += (x[i] - mean) * (x[i] - mean);
    set.m2 = sum_lanes<WARP>(set.m2);
    return set;
}

static __device__ __forceinline__ moments_t moments_shuffle_up(const moments_t &set, int offset)
{
    moments_t from = {__shfl_up_sync(0xffffffffu, set.count, offset), __shfl_up_sync(0xffffffffu, set.sum, offset),
                      __shfl_up_sync(0xffffffffu, set.m2, offset)};
    return from;
}

static __device__ __forceinline__ moments_t moments_broadcast(const moments_t &set, int lane)
{
    moments_t from = {__shfl_sync(0xffffffffu, set.count, lane), __shfl_sync(0xffffffffu, set.sum, lane),
                      __shfl_sync(0xffffffffu, set.m2, lane)};
    return from;
}

/* sets[i] becomes the join of sets[0 .. i]; one warp. */
static __device__ void moments_scan(moments_t *sets, int count)
{
    int lane = (int)threadIdx.x % WARP;
    moments_t before = {};

    for (int first = 0; first < count; first += WARP) {
        moments_t set = {};
        if (first + lane < count)
            set = sets[first + lane];
        for (int offset = 1; offset < WARP; offset *= 2) {
            moments_t left = moments_shuffle_up(set, offset);
            if (lane >= offset)
                set = moments_join(left, set);
        }
        set = moments_join(before, set);
        if (first + lane < count)
            sets[first + lane] = set;
        before = moments_broadcast(set, WARP - 1);
    }
}

#endif
