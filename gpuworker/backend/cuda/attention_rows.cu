/* Attention of several tokens a row, in F32 or BF16, without tensor cores: PREFILL, ENCODE and EXTEND in F32, EXTEND of few tokens, and
 * what is too wide or too much for attention_few.cu.
 *
 * A block a row, head and tile of queries, a group of lanes a query. The keys that the tile sees go through shared memory in chunks: those
 * of the cache as they lie there, the tokens' own normalised and rotated on the way. A block stores what its own tokens add to the
 * cache. Keys are counted over prefix, tail and own tokens, in that order; PREFILL and ENCODE have own tokens alone. */
#include "gpuworker/backend/cuda/attention_op.cuh"

template <typename G>
static __global__ void __launch_bounds__(ATTENTION_THREADS) attention_rows_kernel(const attention_t op, int tiles, int chunk)
{
    typedef typename G::T T;
    extern __shared__ uint4 shared[]; /* k, then v, [chunk][head_dim] */
    T *shared_k = reinterpret_cast<T *>(shared), *shared_v = shared_k + (int64_t)chunk * op.head_dim;
    int groups = (int)blockDim.x / G::LANES, group = (int)threadIdx.x / G::LANES, tile = (int)(blockIdx.x % tiles) * groups;
    int64_t row = blockIdx.x / tiles / op.heads, head = blockIdx.x / tiles % op.heads;
    int tile_end = min(tile + groups, op.tokens), token = min(tile + group, op.tokens - 1); /* surplus groups repeat the last one */
    bool extend = op.mode == BACKEND_ATTENTION_EXTEND, encode = op.mode == BACKEND_ATTENTION_ENCODE;
    attention_lane_t<T> lane(op, row, head);
    query_t<G> query(op.head_dim);

    begin();
    int first = op.first != NULL ? op.first[lane.prefix_row] : 0, step = extend ? *op.step : 0, done = step * op.step_tokens;
    int prefix = extend ? op.prefix_tokens : 0, own = prefix + (extend ? done : 0); /* where tail and own tokens begin */
    int64_t column = step * op.step_columns;
    T *to_k = extend ? lane.tail_k + (int64_t)done * op.head_dim : lane.prefix_k,
      *to_v = extend ? lane.tail_v + (int64_t)done * op.head_dim : lane.prefix_v;
    int begin_key = extend || encode ? first : min(first, tile), end_key = own + (encode ? op.tokens : tile_end);
    int sees_from = extend || token >= first ? first : INT32_MAX, sees_to = encode ? op.tokens : own + token + 1;
    const uint8_t *visible = op.visible != NULL ? op.visible + lane.prefix_row * (extend ? prefix : op.tokens) : NULL;
    int wanted = visible != NULL && !extend ? visible[token] : 1, flagged = extend ? prefix : op.tokens;
    const float *bias = op.bias != NULL ? op.bias + head * (2 * op.tokens - 1) + op.tokens - 1 - token : NULL;

    place<G>(op, query.q, lane.qkv + token * 3 * lane.width, table_row(op, lane.prefix_row, column + token), false, query.at);
    query.multiply(op.scale);
#pragma unroll 1
    for (int from = begin_key; from < end_key; from += chunk) {
        int count = min(chunk, end_key - from);

        if (from > begin_key)
            __syncthreads(); /* the chunk before is done with */
#pragma unroll 1
        for (int turn = 0; turn < count; turn += groups) {
            int at = min(turn + group, count - 1), i = from + at; /* surplus groups repeat the last one */
            int t = max(i - own, 0);
            bool mine = i >= own;
            const T *q = lane.qkv + t * 3 * lane.width;
            float key[G::PER] = {}, value[G::PER] = {};

            if (__any_sync(0xffffffffu, mine))
                place<G>(op, key, q + lane.width, table_row(op, lane.prefix_row, column + t), true, query.at);
            if (mine && query.active) {
                load<G::PER>(value, q + 2 * lane.width + query.at);
                if (!encode && t >= tile) {
                    store<G::PER>(to_k + (int64_t)t * op.head_dim + query.at, key);
                    store<G::PER>(to_v + (int64_t)t * op.head_dim + query.at, value);
                }
            } else if (query.active) {
                int64_t cached = (int64_t)(i < prefix ? i : i - prefix) * op.head_dim + query.at;

                load<G::PER>(key, (i < prefix ? lane.prefix_k : lane.tail_k) + cached);
                load<G::PER>(value, (i < prefix ? lane.prefix_v : lane.tail_v) + cached);
            }
            if (query.active) {
                store_shared<G::PER>(shared_k + at * op.head_dim + query.at, key);
                store_shared<G::PER>(shared_v + at * op.head_dim + query.at, value);
            }
        }
        __syncthreads();
        query.attend(shared_k, shared_v, op.head_dim, 0, count, [=](int at, float score) {
            int i = from + at;
            bool seen = i >= sees_from && i < sees_to && (visible == NULL || i >= flagged || visible[i] == wanted);
            return !seen ? -INFINITY : bias != NULL ? score + bias[i] : score;
        });
    }
    query.finish(lane.out + token * lane.width);
}

template <typename T> static int rows_launch(const attention_t &op, cudaStream_t stream)
{
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim, [&](auto geometry) {
        typedef decltype(geometry) G;
        int keys = op.mode == BACKEND_ATTENTION_EXTEND ? op.prefix_tokens + op.tail_tokens : op.tokens;
        int queries =
            op.tokens < G::GROUPS && keys <= G::GROUPS ? op.tokens : G::GROUPS; /* many keys take many groups to bring in */
        unsigned threads = (unsigned)(queries * G::LANES + WARP - 1) / WARP * WARP;
        int tiles = (int)blocks_for(op.tokens, threads / G::LANES),
            fits = SHARED_BYTES_DEFAULT / (2 * (int)sizeof(T) * op.head_dim);
        int chunk = keys < fits ? keys : fits;

        return launch("attention", attention_rows_kernel<G>, (unsigned)(op.rows * op.heads * tiles), threads,
                      sizeof(T) * 2 * (size_t)(chunk * op.head_dim), stream, op, tiles, chunk);
    });
}

int cuda_attention_rows(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream)
{
    return dtype == BACKEND_BF16 ? rows_launch<__nv_bfloat16>(op, stream) : rows_launch<float>(op, stream);
}
