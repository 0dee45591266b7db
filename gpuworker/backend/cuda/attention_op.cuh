/* backend_attention_t as its kernels see it, and how they load q, k and v: normalised, rotated, in F32.
 *
 * qkv [rows][T][3][heads][head_dim], out [rows][T][heads][head_dim], prefix k, v [prefix rows][heads][prefix_tokens][head_dim], tail k, v
 * [rows][heads][tail_tokens][head_dim]: all F32, or all BF16. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_OP_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_ATTENTION_OP_CUH

#include "gpuworker/backend/cuda/attention.cuh"

typedef struct {
    backend_attention_mode_t mode;
    const void *qkv;
    void *out;
    void *prefix_k, *prefix_v, *tail_k, *tail_v;
    head_norm_t norm_q, norm_k;
    const float *table; /* [positions][4][rotary_dim], or NULL */
    const int32_t *index, *first, *step;
    const uint8_t *visible;
    const float *bias;
    int64_t rows, index_stride, step_columns; /* columns of index between prefix rows, between steps */
    unsigned samples, variates, heads;
    int tokens, step_tokens, prefix_tokens, tail_tokens, head_dim, rotary_dim;
    bool interleaved;
    float scale;
} attention_t;

/* One (row, head) of it. */
template <typename T> struct attention_lane_t {
    const T *qkv; /* token t: q at qkv + t · 3 · width, k one width on, v two */
    T *out;       /* token t at out + t · width */
    int64_t width;
    T *prefix_k, *prefix_v, *tail_k, *tail_v;
    int64_t prefix_row;

    __device__ __forceinline__ attention_lane_t(const attention_t &op, int64_t row, int64_t head)
    {
        unsigned number = (unsigned)row; /* 64 bits divide slowly */

        prefix_row = op.samples == 1 ? number : number / (op.samples * op.variates) * op.variates + number % op.variates;
        width = (int64_t)op.heads * op.head_dim;
        int64_t prefix = (prefix_row * op.heads + head) * op.prefix_tokens * op.head_dim,
                tail = (row * op.heads + head) * op.tail_tokens * op.head_dim;
        qkv = static_cast<const T *>(op.qkv) + row * op.tokens * 3 * width + head * op.head_dim;
        out = static_cast<T *>(op.out) + row * op.tokens * width + head * op.head_dim;
        prefix_k = static_cast<T *>(op.prefix_k) + prefix;
        prefix_v = static_cast<T *>(op.prefix_v) + prefix;
        tail_k = static_cast<T *>(op.tail_k) + tail;
        tail_v = static_cast<T *>(op.tail_v) + tail;
    }
};

/* Table row of a prefix row's column: q_cos, q_sin, k_cos, k_sin. */
static __device__ __forceinline__ const float *table_row(const attention_t &op, int64_t prefix_row, int64_t column)
{
    return op.table == NULL ? NULL : op.table + (int64_t)op.index[prefix_row * op.index_stride + column] * 4 * op.rotary_dim;
}

/* A lane's part of a token's query or key on its way from memory: fetch() starts the loads, finish() does the sums. */
template <typename G> struct head_part_t {
    typedef typename G::T T;
    typename packed_t<G::PER, T>::word own[packed_t<G::PER, T>::WORDS];
    T partner[G::PER]; /* half-split: the other half's elements */
    float cosine[G::PER], sine[G::PER];

    /* `from`: the head vector; table: of its token, NULL: no rotation. */
    __device__ __forceinline__ void fetch(const attention_t &op, const T *from, const float *table, bool key, int at)
    {
        load_words<G::PER, T>(own, from + at, at < op.head_dim);
        fetch_rotation(op, from, table, key, at);
    }

    __device__ __forceinline__ void fetch_rotation(const attention_t &op, const T *from, const float *table, bool key, int at)
    {
        if (table != NULL) {
            fetch_table(op, table, key, at);
            fetch_partner(op, from, at);
        }
    }

    __device__ __forceinline__ void fetch_table(const attention_t &op, const float *table, bool key, int at)
    {
        if (at < op.rotary_dim) {
            const float *row = table + (key ? 2 : 0) * op.rotary_dim + at;
            load<G::PER>(cosine, row);
            load<G::PER>(sine, row + op.rotary_dim);
        }
    }

    __device__ __forceinline__ void fetch_partner(const attention_t &op, const T *from, int at)
    {
        constexpr int PAIR = G::PER < 2 ? 1 : 2;
        int distance = op.rotary_dim / 2;

        if (op.interleaved || at >= op.rotary_dim)
            return;
        if (distance % G::PER == 0) {
            typename packed_t<G::PER, T>::word words[packed_t<G::PER, T>::WORDS];

            load_words<G::PER, T>(words, from + (at < distance ? at + distance : at - distance), true);
            memcpy(partner, words, sizeof partner);
        } else if (distance % PAIR == 0) {
#pragma unroll
            for (int i = 0; i < G::PER; i += PAIR) {
                typename packed_t<PAIR, T>::word words[packed_t<PAIR, T>::WORDS];

                load_words<PAIR, T>(words, from + (at + i < distance ? at + i + distance : at + i - distance), true);
                memcpy(partner + i, words, sizeof words);
            }
        } else {
#pragma unroll
            for (int i = 0; i < G::PER; i++)
                partner[i] = from[at + i < distance ? at + i + distance : at + i - distance];
        }
    }

    /* As scores take it (without op.scale); zeros in inactive lanes. Without `place` as it came. By all lanes of the warp. */
    __device__ __forceinline__ void finish(const attention_t &op, float (&value)[G::PER], bool rotated, bool key, int at,
                                           bool place = true) const
    {
        const head_norm_t &norm = key ? op.norm_k : op.norm_q;

        unpack<G::PER, T>(value, own);
        float factor = normalise<G>(norm, value, at, op.head_dim, place), other[G::PER];
        if (!rotated || !place || at >= op.rotary_dim)
            return;
        if (op.interleaved) {
#pragma unroll
            for (int i = 0; i < G::PER; i += 2) {
                other[i] = -value[i + 1];
                other[i + 1] = value[i];
            }
        } else {
            int half = op.rotary_dim / 2;
#pragma unroll
            for (int i = 0; i < G::PER; i++) {
                bool low = at + i < half;

                other[i] = (low ? -factor : factor) * to_float(partner[i]);
                if (norm.weight != NULL)
                    other[i] *= norm.weight[low ? at + i + half : at + i - half];
            }
        }
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            value[i] = value[i] * cosine[i] + other[i] * sine[i];
    }
};

/* The whole way. */
template <typename G>
static __device__ __forceinline__ void place(const attention_t &op, float (&value)[G::PER], const typename G::T *from,
                                             const float *table, bool key, int at)
{
    head_part_t<G> part;

    part.fetch(op, from, table, key, at);
    part.finish(op, value, table != NULL, key, at);
}

int cuda_attention_place(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream); /* attention_place.cu */
bool cuda_attention_few_fits(const attention_t &op);
int cuda_attention_few(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream);  /* attention_few.cu: PREFILL, ENCODE */
int cuda_attention_rows(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream); /* attention_rows.cu */
bool cuda_attention_tiles_fits(const attention_t &op);
int cuda_attention_tiles(const attention_t &op, cudaStream_t stream);                         /* attention_tiles.cu: BF16 */
int cuda_attention_decode(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream); /* attention_decode.cu */
int cuda_attention_query(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream);  /* attention_query.cu */

#endif
