/* Queries and keys on their way from qkv to where scores take them: normalised and rotated, a group of lanes a head vector.
 *
 * A lane holds two runs of PER / 2 elements that the rotation mixes with one another: neighbours, or, half-split, the same place of both
 * halves. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_PLACE_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_PLACE_CUH

#include "gpuworker/backend/cuda/attention_op.cuh"

/* Where this lane's runs begin. */
template <typename G> struct place_t {
    int low, high;
    bool active, rotated;

    __device__ __forceinline__ place_t(const attention_t &op)
    {
        int lane = (int)threadIdx.x % G::LANES, at = lane * G::PER;

        active = at < op.head_dim;
        rotated = at < op.rotary_dim;
        low = rotated && !op.interleaved ? at / 2 : at;
        high = rotated && !op.interleaved ? low + op.rotary_dim / 2 : at + G::PER / 2;
    }
};

/* A lane's part of a token's table row: the factors of both runs. */
template <typename G> struct rotation_t {
    static constexpr int RUN = G::PER / 2;

    float cosine[2][RUN], sine[2][RUN];

    /* index: the table row. */
    __device__ __forceinline__ void fetch(const attention_t &op, const place_t<G> &place, int index, bool key)
    {
        if (!place.rotated)
            return;
        const float *row = op.table + (int64_t)(index * 4 + (key ? 2 : 0)) * op.rotary_dim;
        load<RUN>(cosine[0], row + place.low);
        load<RUN>(cosine[1], row + place.high);
        load<RUN>(sine[0], row + op.rotary_dim + place.low);
        load<RUN>(sine[1], row + op.rotary_dim + place.high);
    }
};

/* A lane's part of one vector: fetch() starts the loads, finish() does the sums. */
template <typename G> struct placed_t {
    typedef typename G::T T;
    static constexpr int RUN = G::PER / 2;

    typename packed_t<RUN, T>::word words[2][packed_t<RUN, T>::WORDS];
    float low[RUN], high[RUN]; /* once finished */

    __device__ __forceinline__ void fetch(const place_t<G> &place, const T *from)
    {
        load_words<RUN, T>(words[0], from + place.low, place.active);
        load_words<RUN, T>(words[1], from + place.high, place.active);
    }

    /* Zeros in inactive lanes. By all lanes of the warp. */
    __device__ __forceinline__ void finish(const attention_t &op, const place_t<G> &place, const rotation_t<G> &rotation, bool key)
    {
        const head_norm_t &norm = key ? op.norm_k : op.norm_q;

        unpack<RUN, T>(low, words[0]);
        unpack<RUN, T>(high, words[1]);
        if (op.norm_k.present)
            normalise(norm, place, op.head_dim);
        if (!place.rotated)
            return;
        if (op.interleaved && RUN > 1) {
            turn_neighbours(low, rotation.cosine[0], rotation.sine[0]);
            turn_neighbours(high, rotation.cosine[1], rotation.sine[1]);
            return;
        }
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            float first = low[i], second = high[i];

            low[i] = first * rotation.cosine[0][i] - second * rotation.sine[0][i];
            high[i] = second * rotation.cosine[1][i] + first * rotation.sine[1][i];
        }
    }

    /* Queries take op.scale, and the base of the exponentials, along. */
    __device__ __forceinline__ void finish_query(const attention_t &op, const place_t<G> &place, const rotation_t<G> &rotation)
    {
        finish(op, place, rotation, false);
        multiply(op.scale * (float)M_LOG2E);
    }

    __device__ __forceinline__ void normalise(const head_norm_t &norm, const place_t<G> &place, int head_dim)
    {
        float squares = 0, weight[2][RUN];

#pragma unroll
        for (int i = 0; i < RUN; i++)
            squares += low[i] * low[i] + high[i] * high[i];
        float factor = 1.0f / sqrtf(sum_lanes<G::LANES>(squares) / (float)head_dim + norm.eps);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            weight[0][i] = weight[1][i] = 1;
        if (norm.weight != NULL && place.active) {
            load<RUN>(weight[0], norm.weight + place.low);
            load<RUN>(weight[1], norm.weight + place.high);
        }
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            low[i] *= factor * weight[0][i];
            high[i] *= factor * weight[1][i];
        }
    }

    static __device__ __forceinline__ void turn_neighbours(float (&run)[RUN], const float (&cosines)[RUN],
                                                           const float (&sines)[RUN])
    {
#pragma unroll
        for (int i = 0; i + 1 < RUN; i += 2) {
            float first = run[i], second = run[i + 1];

            run[i] = first * cosines[i] - second * sines[i];
            run[i + 1] = second * cosines[i + 1] + first * sines[i + 1];
        }
    }

    __device__ __forceinline__ void multiply(float factor)
    {
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            low[i] *= factor;
            high[i] *= factor;
        }
    }
};

#endif
