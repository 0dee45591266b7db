/* What the attention kernels share.
 *
 * query_t: one query of one head, held by a group of LANES lanes with PER neighbouring elements each, that takes in keys and values eight
 * at a time with a running maximum (online softmax), all in F32. Of a batch of eight keys every lane computes its part of all eight products; they are then summed so that lane j keeps the
 * score of key j % 8 alone, and each weight's exponential is computed once. The geometry (PER, LANES) is chosen by head_dim:
 * lanes past head_dim hold zeros. All groups of a warp go through the same keys and differ in which of them are visible, so that
 * all 32 lanes take part in every shuffle. */
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
    int lane, at;                 /* in the group; its first element */
    bool active;                  /* at < head_dim; else q is zero here, whatever the key and value */
    int from;                     /* at, or a place that is there */

    __device__ __forceinline__ query_t(int head_dim)
    {
        lane = (int)threadIdx.x % G::LANES;
        at = lane * G::PER;
        active = at < head_dim;
        from = min(at, head_dim - G::PER);
        most = -INFINITY;
        total = 0;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            q[i] = sum[i] = 0;
    }

    __device__ __forceinline__ void multiply(float factor)
    {
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            q[i] *= factor;
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
                part[k] = kept + __shfl_xor_sync(0xffffffffu, given, half);
            }
        }
        float sum_of_part = part[0];
#pragma unroll
        for (int offset = KEY_BATCH; offset < G::LANES; offset *= 2)
            sum_of_part += __shfl_xor_sync(0xffffffffu, sum_of_part, offset);
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
            score += __shfl_xor_sync(0xffffffffu, score, offset);
        most = score;
        total = lane == 0 ? 1.0f : 0.0f;
    }

    /* Eight keys and their values as they lie in memory. */
    struct batch_t {
        typename packed_t<G::PER, T>::word keys[KEY_BATCH][packed_t<G::PER, T>::WORDS],
            values[KEY_BATCH][packed_t<G::PER, T>::WORDS];
    };

    /* Keys first .. first + 7, as far as they are below `end`; key i at k + i · pitch, its value at v + i · pitch. */
    __device__ __forceinline__ void fetch(batch_t &batch, const T *k, const T *v, int pitch, int first, int end) const
    {
        const char *from_k = reinterpret_cast<const char *>(k + from), *from_v = reinterpret_cast<const char *>(v + from);
        int row_bytes = pitch * (int)sizeof(T); /* so that an address is one multiply-add */

#pragma unroll
        for (int b = 0; b < KEY_BATCH; b++) {
            int64_t offset = (int64_t)min(first + b, end - 1) * row_bytes;
            load_words<G::PER, T>(batch.keys[b], reinterpret_cast<const T *>(from_k + offset), true);
            load_words<G::PER, T>(batch.values[b], reinterpret_cast<const T *>(from_v + offset), true);
        }
    }

    /* Takes in the batch's keys; see(key, q·k) is the score of a key, -INFINITY where it is invisible. NORMED: see(key, q·k, k·k). */
    template <bool NORMED = false, typename F> __device__ __forceinline__ void take(const batch_t &batch, int first, F see)
    {
        float part[KEY_BATCH], row[G::PER], score;

#pragma unroll
        for (int b = 0; b < KEY_BATCH; b++) {
            unpack<G::PER, T>(row, batch.keys[b]);
            part[b] = 0;
#pragma unroll
            for (int i = 0; i < G::PER; i++)
                part[b] += q[i] * row[i];
        }
        score = sum_parts(part);
        if constexpr (NORMED) {
#pragma unroll
            for (int b = 0; b < KEY_BATCH; b++) {
                unpack<G::PER, T>(row, batch.keys[b]);
                part[b] = 0;
#pragma unroll
                for (int i = 0; i < G::PER; i++)
                    part[b] += active ? row[i] * row[i] : 0.0f;
            }
            score = see(first + lane % KEY_BATCH, score, sum_parts(part));
        } else {
            score = see(first + lane % KEY_BATCH, score);
        }
        float most_now = fmaxf(most, score);
#pragma unroll
        for (int offset = KEY_BATCH / 2; offset > 0; offset /= 2)
            most_now = fmaxf(most_now, __shfl_xor_sync(0xffffffffu, most_now, offset));
        bool any = most_now > -INFINITY; /* else there is nothing yet, and no difference of infinities */
        float shrink = any ? expf(most - most_now) : 1.0f, weight = any ? expf(score - most_now) : 0.0f;
        most = most_now;
        total = total * shrink + (lane < KEY_BATCH ? weight : 0.0f);
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            sum[i] *= shrink;
#pragma unroll
        for (int b = 0; b < KEY_BATCH; b++) {
            float share = __shfl_sync(0xffffffffu, weight, b, G::LANES);
            unpack<G::PER, T>(row, batch.values[b]);
#pragma unroll
            for (int i = 0; i < G::PER; i++)
                sum[i] += share * row[i];
        }
    }

    /* Keys begin .. end-1. begin and end are the same in the whole warp. */
    template <typename F> __device__ __forceinline__ void attend(const T *k, const T *v, int pitch, int begin, int end, F see)
    {
#pragma unroll 1
        for (int first = begin; first < end; first += KEY_BATCH) {
            batch_t batch;

            fetch(batch, k, v, pitch, first, end);
            take(batch, first, [=](int key, float score) { return key < end ? see(key, score) : -INFINITY; });
        }
    }

    /* sum / total, or zeros where no key was visible. */
    __device__ __forceinline__ void finish(T *out)
    {
#pragma unroll
        for (int offset = G::LANES / 2; offset > 0; offset /= 2)
            total += __shfl_xor_sync(0xffffffffu, total, offset);
        float factor = total > 0 ? 1.0f / total : 0.0f;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            sum[i] *= factor;
        if (active)
            store<G::PER>(out + at, sum);
    }
};

/* Of a head norm (backend_head_norm_t) what one of q and k takes. */
typedef struct {
    const float *weight; /* NULL: 1 */
    float eps;
    bool present;
} head_norm_t;

static inline head_norm_t head_norm_of(const backend_head_norm_t *norm, bool key)
{
    const backend_weight_t *weight = norm == NULL ? NULL : key ? norm->k : norm->q;
    head_norm_t result = {weight != NULL ? static_cast<const float *>(weight->tensor.data) : NULL, norm != NULL ? norm->eps : 0,
                          norm != NULL};
    return result;
}

/* Normalises the group's head vector where `wanted`, and returns the factor that all its elements took besides their weights; 1 without a
 * norm. By all lanes of the warp, inactive ones holding zeros. */
template <typename G>
static __device__ __forceinline__ float normalise(const head_norm_t &norm, float (&value)[G::PER], int at, int head_dim,
                                                  bool wanted = true)
{
    float squares = 0, weight[G::PER];

    if (!norm.present)
        return 1.0f;
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        squares += value[i] * value[i];
    float factor = 1.0f / sqrtf(sum_lanes<G::LANES>(squares) / (float)head_dim + norm.eps);
    if (!wanted)
        return 1.0f;
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        weight[i] = 1;
    if (norm.weight != NULL && at < head_dim)
        load<G::PER>(weight, norm.weight + at);
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        value[i] *= factor * weight[i];
    return factor;
}

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
    if (both % 4 == 0 && head_dim <= 64)
        return run(geometry_t<4, 16, T>{});
    if (both % 4 == 0 && head_dim <= 128)
        return run(geometry_t<4, 32, T>{});
    if (both % 2 == 0 && head_dim <= 64)
        return run(geometry_t<2, 32, T>{});
    return error_set(BACKEND_ERR_UNSUPPORTED, "%s: the CUDA backend has no kernel for a head_dim of %d (rotary part %lld)", op,
                     head_dim, (long long)unit);
}

#endif
