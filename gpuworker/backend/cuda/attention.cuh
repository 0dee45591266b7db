/* What the attention kernels share: one query of one head, held by a group of LANES lanes with PER neighbouring elements each,
 * that takes in keys and values eight at a time with a running maximum (online softmax), all in F32.
 *
 * Of a batch of eight keys every lane computes its part of all eight products; they are then summed so that lane j keeps the
 * score of key j % 8 alone, and each weight's exponential is computed once. The geometry (PER, LANES) is chosen by head_dim:
 * lanes past head_dim hold zeros. Groups of a warp may differ in how many keys they see: every shuffle names its own group's
 * lanes only. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_CUH

#include "gpuworker/backend/cuda/launch.cuh"

enum { ATTENTION_THREADS = 128, KEY_BATCH = 8 };

template <int PER_LANE, int LANES_A_HEAD, typename ELEMENT> struct geometry_t {
    static constexpr int PER = PER_LANE, LANES = LANES_A_HEAD, GROUPS = ATTENTION_THREADS / LANES_A_HEAD;
    typedef ELEMENT T;
};

template <typename G> struct query_t {
    typedef typename G::T T;
    float q[G::PER], sum[G::PER]; /* sum: of weight · value */
    float most, total;            /* largest score so far; this lane's part of the sum of weights */
    unsigned lanes;               /* of this group, for shuffles */
    int lane, at;                 /* in the group; its first element */
    bool active;                  /* at < head_dim */

    __device__ __forceinline__ query_t(int head_dim)
    {
        unsigned in_warp = threadIdx.x % WARP;
        lanes = G::LANES == WARP ? 0xffffffffu : ((1u << (G::LANES % WARP)) - 1) << (in_warp / G::LANES * G::LANES);
        lane = (int)(in_warp % G::LANES);
        at = lane * G::PER;
        active = at < head_dim;
        most = -INFINITY;
        total = 0;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            q[i] = sum[i] = 0;
    }

    /* Sums part[k] over the group; returns that of k = lane % KEY_BATCH. */
    __device__ __forceinline__ float sum_parts(float (&part)[KEY_BATCH]) const
    {
#pragma unroll
        for (int half = KEY_BATCH / 2; half > 0; half /= 2) {
            bool upper = lane & half;
#pragma unroll
            for (int k = 0; k < half; k++) {
                float given = upper ? part[k] : part[k + half], kept = upper ? part[k + half] : part[k];
                part[k] = kept + __shfl_xor_sync(lanes, given, half);
            }
        }
        float sum_of_part = part[0];
#pragma unroll
        for (int offset = KEY_BATCH; offset < G::LANES; offset *= 2)
            sum_of_part += __shfl_xor_sync(lanes, sum_of_part, offset);
        return sum_of_part;
    }

    /* The query's own key and value, seen before all others. */
    __device__ __forceinline__ void attend_first(const float (&key)[G::PER], const float (&value)[G::PER])
    {
        float score = 0;
#pragma unroll
        for (int i = 0; i < G::PER; i++) {
            score += q[i] * key[i];
            sum[i] = value[i];
        }
#pragma unroll
        for (int offset = G::LANES / 2; offset > 0; offset /= 2)
            score += __shfl_xor_sync(lanes, score, offset);
        most = score;
        total = lane == 0 ? 1.0f : 0.0f;
    }

    /* Keys begin .. end-1 for which visible(key); key i at k(i), its value at v(i). */
    template <typename K, typename V, typename F> __device__ __forceinline__ void attend(int begin, int end, K k, V v, F visible)
    {
#pragma unroll 1
        for (int first = begin; first < end; first += KEY_BATCH) {
            typedef packed_t<G::PER, T> packed;
            typename packed::word keys[KEY_BATCH][packed::WORDS], values[KEY_BATCH][packed::WORDS];
            float part[KEY_BATCH], row[G::PER];

#pragma unroll
            for (int b = 0; b < KEY_BATCH; b++) {
                int key = min(first + b, end - 1);
                load_words<G::PER, T>(keys[b], k(key) + at, active);
                load_words<G::PER, T>(values[b], v(key) + at, active);
            }
#pragma unroll
            for (int b = 0; b < KEY_BATCH; b++) {
                unpack<G::PER, T>(row, keys[b]);
                part[b] = 0;
#pragma unroll
                for (int i = 0; i < G::PER; i++)
                    part[b] += q[i] * row[i];
            }
            int own = first + lane % KEY_BATCH;
            float score = sum_parts(part), most_now;
            if (own >= end || !visible(own))
                score = -INFINITY;
            most_now = fmaxf(most, score);
#pragma unroll
            for (int offset = KEY_BATCH / 2; offset > 0; offset /= 2)
                most_now = fmaxf(most_now, __shfl_xor_sync(lanes, most_now, offset));
            if (most_now == -INFINITY)
                continue;
            float shrink = expf(most - most_now), weight = expf(score - most_now);
            most = most_now;
            total = total * shrink + (lane < KEY_BATCH ? weight : 0.0f);
#pragma unroll
            for (int i = 0; i < G::PER; i++)
                sum[i] *= shrink;
#pragma unroll
            for (int b = 0; b < KEY_BATCH; b++) {
                float share = __shfl_sync(lanes, weight, b, G::LANES);
                unpack<G::PER, T>(row, values[b]);
#pragma unroll
                for (int i = 0; i < G::PER; i++)
                    sum[i] += share * row[i];
            }
        }
    }

    /* sum / total, or zeros where no key was visible. */
    __device__ __forceinline__ void finish(T *out)
    {
#pragma unroll
        for (int offset = G::LANES / 2; offset > 0; offset /= 2)
            total += __shfl_xor_sync(lanes, total, offset);
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
