/* Own keys and values of an attention go to the cache, the keys normalised and rotated: all of STORE and APPEND, and what PREFILL and EXTEND do before
 * attention_tiles.cu where many tiles would else do the same. A group of lanes a row, token and head. */
#include "gpuworker/backend/cuda/attention_place.cuh"

enum { PLACE_THREADS = 256 };

template <typename G> static __global__ void __launch_bounds__(PLACE_THREADS) attention_place_kernel(const attention_t op)
{
    typedef typename G::T T;
    constexpr int RUN = placed_t<G>::RUN;
    unsigned all = (unsigned)(op.rows * op.tokens * op.heads),
             own = blockIdx.x * (PLACE_THREADS / G::LANES) + threadIdx.x / G::LANES,
             item = min(own, all - 1); /* surplus groups repeat the last one */
    int token = (int)(item / op.heads % op.tokens);
    attention_lane_t<T> lane(op, item / op.heads / op.tokens, item % op.heads);
    const T *k = lane.qkv + (int64_t)token * 3 * lane.width + lane.width, *v = k + lane.width;
    place_t<G> place(op);
    placed_t<G> key;
    float value[2][RUN];

    begin();
    bool extend = op.mode == BACKEND_ATTENTION_EXTEND || op.mode == BACKEND_ATTENTION_APPEND;
    int step = extend ? *op.step : 0;
    int64_t to = ((int64_t)step * op.step_tokens + token) * op.head_dim;
    T *to_k = (extend ? lane.tail_k : lane.prefix_k) + to, *to_v = (extend ? lane.tail_v : lane.prefix_v) + to;
    int index = op.table != NULL ? op.index[lane.prefix_row * op.index_stride + step * op.step_columns + token] : 0;

    if (place.active) {
        load<RUN>(value[0], v + place.low);
        load<RUN>(value[1], v + place.high);
    }
    key.fetch(op, place, k, index, true);
    key.finish(op, place, true);
    if (own < all && place.active) {
        store<RUN>(to_k + place.low, key.low);
        store<RUN>(to_k + place.high, key.high);
        store<RUN>(to_v + place.low, value[0]);
        store<RUN>(to_v + place.high, value[1]);
    }
}

template <typename T> static int place_launch(const attention_t &op, cudaStream_t stream)
{
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim, [&](auto geometry) {
        typedef decltype(geometry) G;

        return launch("attention (place)", attention_place_kernel<G>,
                      blocks_for(op.rows * op.tokens * op.heads, PLACE_THREADS / G::LANES), PLACE_THREADS, 0, stream, op);
    });
}

int cuda_attention_place(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream)
{
    return dtype == BACKEND_BF16 ? place_launch<__nv_bfloat16>(op, stream) : place_launch<float>(op, stream);
}
