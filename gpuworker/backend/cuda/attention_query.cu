/* Attention of single queries over prefix and tail, DECODE and QUERY: a block a query, its keys spread over all groups of lanes.
 *
 * Batches of eight keys go to the groups in turn, those of the prefix first, then those of the tail. A new token's own key and value stay in
 * registers on their way to the tail. At the end the groups' running maxima, sums and values are joined: within a warp by shuffles,
 * between warps in shared memory, in a fixed order. */
#include "gpuworker/backend/cuda/attention_op.cuh"

enum {
    QUERY_WARPS_MOST = 16,
    QUERY_WARPS_LEAST = 2,    /* of queries that fill the GPU many times */
    WARPS_AT_ONCE = 132 * 16, /* that an H100 or H200 holds of this kernel */
};

/* Joins what the groups `offset` lanes apart have seen. */
template <typename G> static __device__ __forceinline__ void join_lanes(query_t<G> &query, int offset)
{
    float most = fmaxf(query.most, __shfl_xor_sync(0xffffffffu, query.most, offset));
    float factor = most > -INFINITY ? expf(query.most - most) : 1.0f;

    query.most = most;
    query.total *= factor;
    query.total += __shfl_xor_sync(0xffffffffu, query.total, offset);
#pragma unroll
    for (int i = 0; i < G::PER; i++) {
        query.sum[i] *= factor;
        query.sum[i] += __shfl_xor_sync(0xffffffffu, query.sum[i], offset);
    }
}

/* Where batch i lies: which part, its first key, the end of the part. */
typedef struct {
    int prefix_batches, batches, first, prefix_tokens, tail;
} batches_t;

template <typename G>
static __device__ __forceinline__ void fetch_batch(const query_t<G> &query, typename query_t<G>::batch_t &batch,
                                                   const attention_lane_t<typename G::T> &lane, const batches_t &of, int i,
                                                   int head_dim)
{
    if (i < of.prefix_batches)
        query.fetch(batch, lane.prefix_k, lane.prefix_v, head_dim, of.first + i * KEY_BATCH, of.prefix_tokens);
    else
        query.fetch(batch, lane.tail_k, lane.tail_v, head_dim, (i - of.prefix_batches) * KEY_BATCH, of.tail);
}

/* The new token of a decode: stored by the block's first group, and seen by it. By the first warp. */
template <typename G>
static __device__ __forceinline__ void take_own(const attention_t &op, query_t<G> &query,
                                                const attention_lane_t<typename G::T> &lane, const float *table, int step)
{
    typedef typename G::T T;
    const T *k = lane.qkv + lane.width, *v = k + lane.width;
    int64_t to = (int64_t)step * op.head_dim + query.at;
    float key[G::PER], value[G::PER] = {};

    place<G>(op, key, k, table, true, query.at);
    if (query.active) {
        load<G::PER>(value, v + query.at);
        if (threadIdx.x < G::LANES) {
            store<G::PER>(lane.tail_k + to, key);
            store<G::PER>(lane.tail_v + to, value);
        }
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            key[i] = to_float(from_float<T>(key[i])); /* as the cache will give it back */
    }
    query.attend_first(key, value);
    if (threadIdx.x >= G::LANES) {
        query.most = -INFINITY;
        query.total = 0;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            query.sum[i] = 0;
    }
}

template <typename G> static __global__ void __launch_bounds__(QUERY_WARPS_MOST *WARP) attention_query_kernel(const attention_t op)
{
    typedef typename G::T T;
    constexpr int WIDTH = G::LANES * G::PER;
    constexpr bool AHEAD = G::PER * sizeof(T) <= 8; /* registers for the next batch while one is being taken in */
    __shared__ float most_of[QUERY_WARPS_MOST], total_of[QUERY_WARPS_MOST], sum_of[QUERY_WARPS_MOST][WIDTH];
    int warp = (int)threadIdx.x / WARP, warps = (int)blockDim.x / WARP, group = (int)threadIdx.x / G::LANES,
        groups = (int)blockDim.x / G::LANES;
    unsigned samples = op.samples, token = blockIdx.x % op.tokens, sample = blockIdx.x / op.tokens % samples,
             head = blockIdx.x / op.tokens / samples % op.heads, prefix_row = blockIdx.x / op.tokens / samples / op.heads;
    int64_t row = ((int64_t)(prefix_row / op.variates) * samples + sample) * op.variates + prefix_row % op.variates;
    bool decode = op.mode == BACKEND_ATTENTION_DECODE;
    attention_lane_t<T> lane(op, row, head);
    query_t<G> query(op.head_dim);
    typename query_t<G>::batch_t batch, next;
    batches_t of;

    begin();
    int step = op.step != NULL ? *op.step : 0;
    of.first = op.first != NULL ? op.first[prefix_row] : 0;
    of.prefix_tokens = op.prefix_tokens;
    of.tail = op.step == NULL ? 0 : decode ? step : step + 1; /* of the cache; a decode's own key comes on top */
    of.prefix_batches = (op.prefix_tokens - of.first + KEY_BATCH - 1) / KEY_BATCH;
    of.batches = of.prefix_batches + (of.tail + KEY_BATCH - 1) / KEY_BATCH;
    const uint8_t *visible = op.visible != NULL ? op.visible + (int64_t)prefix_row * op.prefix_tokens : NULL;
    if (of.batches > 0)
        fetch_batch<G>(query, batch, lane, of, min(group, of.batches - 1), op.head_dim); /* in flight while q is being rotated */

    const float *table = decode ? table_row(op, prefix_row, step) : NULL;
    place<G>(op, query.q, lane.qkv + token * 3 * lane.width, table, false, query.at);
    query.multiply(op.scale);
    if (decode && warp == 0)
        take_own<G>(op, query, lane, table, step);
#pragma unroll 1
    for (int from = 0; from + warp * (WARP / G::LANES) < of.batches; from += groups) { /* the same in the whole warp */
        int i = min(from + group, of.batches - 1);
        bool in_prefix = i < of.prefix_batches, surplus = from + group >= of.batches;
        int at = in_prefix ? of.first + i * KEY_BATCH : (i - of.prefix_batches) * KEY_BATCH,
            end = in_prefix ? op.prefix_tokens : of.tail;

        if (AHEAD)
            fetch_batch<G>(query, next, lane, of, min(i + groups, of.batches - 1), op.head_dim);
        query.take(batch, at, [=](int key, float score) {
            bool seen = key < end && !surplus && (!in_prefix || visible == NULL || visible[key] == 1);
            return seen ? score : -INFINITY;
        });
        if (AHEAD)
            batch = next;
        else
            fetch_batch<G>(query, batch, lane, of, min(i + groups, of.batches - 1), op.head_dim);
    }

    query.total = sum_lanes<G::LANES>(query.total);
#pragma unroll
    for (int offset = G::LANES; offset < WARP; offset *= 2)
        join_lanes(query, offset);
    if (threadIdx.x % WARP < G::LANES) {
        store_shared<G::PER>(sum_of[warp] + query.at, query.sum);
        if (query.lane == 0) {
            most_of[warp] = query.most;
            total_of[warp] = query.total;
        }
    }
    __syncthreads();
    float most = -INFINITY;
    for (int w = 0; w < warps; w++)
        most = fmaxf(most, most_of[w]);
    for (int j = (int)threadIdx.x; j < op.head_dim; j += (int)blockDim.x) {
        float sum = 0, total = 0;

        for (int w = 0; w < warps; w++) {
            float factor = most > -INFINITY ? expf(most_of[w] - most) : 0.0f;

            total += total_of[w] * factor;
            sum += sum_of[w][j] * factor;
        }
        lane.out[token * lane.width + j] = from_float<T>(total > 0 ? sum / total : 0.0f);
    }
}

/* Warps of a block: enough for all keys in one round while there are few queries, fewer when they fill the GPU by themselves. */
static unsigned warps_for(int64_t queries, int keys, int lanes)
{
    int64_t share = WARPS_AT_ONCE / queries;
    unsigned warps = 1;

    while (warps < QUERY_WARPS_MOST && warps * (unsigned)(WARP / lanes * KEY_BATCH) < (unsigned)keys &&
           (warps < QUERY_WARPS_LEAST || warps * 2 <= share))
        warps *= 2;
    return warps;
}

template <typename T> static int query_launch(const attention_t &op, cudaStream_t stream)
{
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim, [&](auto geometry) {
        typedef decltype(geometry) G;
        int64_t queries = op.rows * op.heads * op.tokens;

        return launch("attention (query)", attention_query_kernel<G>, (unsigned)queries,
                      warps_for(queries, op.prefix_tokens + op.tail_tokens, G::LANES) * WARP, 0, stream, op);
    });
}

int cuda_attention_query(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream)
{
    return dtype == BACKEND_BF16 ? query_launch<__nv_bfloat16>(op, stream) : query_launch<float>(op, stream);
}
