/* What the attention kernels share: one query of one head, held by a group of LANES lanes with PER neighbouring elements each,
 * that takes in keys and values batch by batch with a running maximum (online softmax), all in F32.
 *
 * The geometry (PER, LANES) is chosen by head_dim: lanes past head_dim hold zeros. Groups of a warp may differ in how many keys
 * they see: every shuffle names its own group's lanes only. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_CUH

#include "gpuworker/backend/cuda/launch.cuh"

enum { ATTENTION_THREADS = 256, KEY_BATCH = 8 };

template <int PER_LANE, int LANES_A_HEAD, typename ELEMENT> struct geometry_t {
    static constexpr int PER = PER_LANE, LANES = LANES_A_HEAD, GROUPS = ATTENTION_THREADS / LANES_A_HEAD;
    typedef ELEMENT T;
};

template <typename G> struct query_t {
    float q[G::PER], sum[G::PER]; /* sum: of weight · value */
    float most, total;            /* largest score so far; sum of weights */
    unsigned lanes;               /* of this group, for shuffles */
    int at;                       /* the lane's first element */
    bool active;                  /* at < head_dim */

    __device__ __forceinline__ query_t(int head_dim)
    {
        unsigned lane = threadIdx.x % WARP;
        lanes = G::LANES == WARP ? 0xffffffffu : ((1u << (G::LANES % WARP)) - 1) << (lane / G::LANES * G::LANES);
        at = (int)(lane % G::LANES) * G::PER;
        active = at < head_dim;
        most = -INFINITY;
        total = 0;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            q[i] = sum[i] = 0;
    }

    __device__ __forceinline__ float dot(const float (&key)[G::PER]) const
    {
        float result = 0;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            result += q[i] * key[i];
#pragma unroll
        for (int offset = G::LANES / 2; offset > 0; offset /= 2)
            result += __shfl_xor_sync(lanes, result, offset);
        return result;
    }

    /* Keys begin .. end-1 for which visible(key); key i at k + i · pitch, its value at v + i · pitch. */
    template <typename V>
    __device__ __forceinline__ void attend(const typename G::T *k, const typename G::T *v, int64_t pitch, int begin, int end,
                                           V visible)
    {
        for (int first = begin; first < end; first += KEY_BATCH) {
            float score[KEY_BATCH], most_now = most;
#pragma unroll
            for (int b = 0; b < KEY_BATCH; b++) {
                int key = min(first + b, end - 1);
                float value[G::PER] = {};
                if (active)
                    load<G::PER>(value, k + key * pitch + at);
                score[b] = dot(value);
                if (first + b >= end || !visible(key))
                    score[b] = -INFINITY;
                most_now = fmaxf(most_now, score[b]);
            }
            if (most_now == -INFINITY)
                continue;
            float shrink = expf(most - most_now);
            most = most_now;
            total *= shrink;
#pragma unroll
            for (int i = 0; i < G::PER; i++)
                sum[i] *= shrink;
#pragma unroll
            for (int b = 0; b < KEY_BATCH; b++) {
                int key = min(first + b, end - 1);
                float value[G::PER] = {}, weight = expf(score[b] - most);
                if (active)
                    load<G::PER>(value, v + key * pitch + at);
                total += weight;
#pragma unroll
                for (int i = 0; i < G::PER; i++)
                    sum[i] += weight * value[i];
            }
        }
    }

    /* sum / total, or zeros where no key was visible. */
    __device__ __forceinline__ void finish(typename G::T *out)
    {
        float factor = total > 0 ? 1.0f / total : 0.0f;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            sum[i] *= factor;
        if (active)
            store<G::PER>(out + at, sum);
    }
};

/* Calls run(geometry_t{}) with the geometry for the head, or refuses. `unit`: a number that PER must divide as well as head_dim. */
template <typename T, typename F> static int with_geometry(const char *op, int head_dim, int64_t unit, F run)
{
    int64_t both = (int64_t)head_dim | unit;

    if (both % 8 == 0 && head_dim <= 64)
        return run(geometry_t<8, 8, T>{});
    if (both % 8 == 0 && head_dim <= 128)
        return run(geometry_t<8, 16, T>{});
    if (both % 8 == 0 && head_dim <= 256)
        return run(geometry_t<8, 32, T>{});
    if (both % 4 == 0 && head_dim <= 128)
        return run(geometry_t<4, 32, T>{});
    if (both % 2 == 0 && head_dim <= 64)
        return run(geometry_t<2, 32, T>{});
    return error_set(BACKEND_ERR_UNSUPPORTED, "%s: the CUDA backend has no kernel for a head_dim of %d (rotary part %lld)", op,
                     head_dim, (long long)unit);
}

#endif
