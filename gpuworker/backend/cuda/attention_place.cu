/* Own keys and values of an attention go to the cache, the keys normalised and rotated: all of STORE and APPEND, and what PREFILL and EXTEND do before
 * attention_tiles.cu where many tiles would else do the same. These have queries too, which go to `out`, ready for the scores, until what they
 * give replaces them. A group of lanes a row, token and two heads, which have its rotation in common. */
#include "gpuworker/backend/cuda/attention_place.cuh"

enum {
    PLACE_THREADS = 128,
    PLACE_HEADS = 2, /* a group */
};

template <typename G, bool QUERIES>
static __global__ void __launch_bounds__(PLACE_THREADS) attention_place_kernel(const attention_t op)
{
    typedef typename G::T T;
    constexpr int RUN = placed_t<G>::RUN;
    unsigned sets = (op.heads + PLACE_HEADS - 1) / PLACE_HEADS, all = (unsigned)(op.rows * op.tokens) * sets,
             own = blockIdx.x * (PLACE_THREADS / G::LANES) + threadIdx.x / G::LANES,
             item = min(own, all - 1); /* surplus groups repeat the last one */
    int token = (int)(item / sets % (unsigned)op.tokens), head = (int)(item % sets * PLACE_HEADS);
    int heads = own < all ? min((int)op.heads - head, (int)PLACE_HEADS) : 0; /* to be stored */
    attention_lane_t<T> lane(op, item / sets / (unsigned)op.tokens, head);
    const T *q = lane.qkv + (int64_t)token * 3 * lane.width, *k = q + lane.width, *v = k + lane.width;
    place_t<G> place(op);
    placed_t<G> key[PLACE_HEADS], value[PLACE_HEADS], query[QUERIES ? PLACE_HEADS : 1];
    rotation_t<G> turn_key, turn_query;

    begin();
    bool extend = op.mode == BACKEND_ATTENTION_EXTEND || op.mode == BACKEND_ATTENTION_APPEND;
    int step = extend ? *op.step : 0;
    int index = op.table != NULL ? op.index[lane.prefix_row * op.index_stride + step * op.step_columns + token] : 0;
    int64_t to = ((int64_t)step * op.step_tokens + token) * op.head_dim,
            stride = (int64_t)(extend ? op.tail_tokens : op.prefix_tokens) * op.head_dim;
    T *to_k = (extend ? lane.tail_k : lane.prefix_k) + to, *to_v = (extend ? lane.tail_v : lane.prefix_v) + to,
      *to_q = lane.out + (int64_t)token * lane.width;

#pragma unroll
    for (int i = 0; i < PLACE_HEADS; i++) {
        int at = min(i, (int)op.heads - 1 - head) * op.head_dim;

        key[i].fetch(place, k + at);
        value[i].fetch(place, v + at);
        if constexpr (QUERIES)
            query[i].fetch(place, q + at);
    }
    turn_key.fetch(op, place, index, true);
    if constexpr (QUERIES)
        turn_query.fetch(op, place, index, false);
#pragma unroll
    for (int i = 0; i < PLACE_HEADS; i++) {
        bool stored = i < heads && place.active;

        key[i].finish(op, place, turn_key, true);
        if (stored) {
            store<RUN>(to_k + i * stride + place.low, key[i].low);
            store<RUN>(to_k + i * stride + place.high, key[i].high);
            store_words<RUN, T>(to_v + i * stride + place.low, value[i].words[0]);
            store_words<RUN, T>(to_v + i * stride + place.high, value[i].words[1]);
        }
        if constexpr (QUERIES) {
            query[i].finish_query(op, place, turn_query);
            if (stored) {
                store<RUN>(to_q + i * op.head_dim + place.low, query[i].low);
                store<RUN>(to_q + i * op.head_dim + place.high, query[i].high);
            }
        }
    }
}

template <typename T> static int place_launch(const attention_t &op, cudaStream_t stream)
{
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim, [&](auto geometry) {
        typedef decltype(geometry) G;
        bool queries = op.mode == BACKEND_ATTENTION_PREFILL || op.mode == BACKEND_ATTENTION_EXTEND;

        return launch("attention (place)", queries ? attention_place_kernel<G, true> : attention_place_kernel<G, false>,
                      blocks_for(op.rows * op.tokens * blocks_for(op.heads, PLACE_HEADS), PLACE_THREADS / G::LANES), PLACE_THREADS,
                      0, stream, op);
    });
}

int cuda_attention_place(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream)
{
    return dtype == BACKEND_BF16 ? place_launch<__nv_bfloat16>(op, stream) : place_launch<float>(op, stream);
}
