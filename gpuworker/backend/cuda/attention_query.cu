/* Attention of single queries over prefix and tail, DECODE and QUERY: a query's keys spread over the warps of a block, or, of few queries, of
 * a cluster of blocks.
 *
 * The keys are cut into units of eight, those of the prefix first, then those of the tail; the groups of lanes take them in turn. A new
 * token's own key and value stay in registers on their way to the tail. At the end the groups' running maxima, sums and values are
 * joined: within a warp by shuffles, between warps in shared memory of the cluster's first block, in a fixed order. What is stored there counts
 * itself, so that nobody else waits.
 *
 * Trips to memory that wait for one another are most of the time of few queries, so what does not depend on the step is requested beside it. */
#include <cooperative_groups.h>

#include "gpuworker/backend/cuda/attention_op.cuh"
#include "gpuworker/backend/cuda/ptx.cuh"

enum {
    BLOCK_WARPS = 4,       /* at most */
    QUERY_WARPS = WARP,    /* at most: a lane each at the end, and eight blocks, as many as a cluster may have */
    QUERY_WARPS_LEAST = 2, /* of queries that fill the GPU many times */
    WARPS_A_SM = 16,       /* of this kernel, by its registers */
    WARPS_A_SM_ONCE = 20,  /* likewise */
    INDEX_PARTS = 4,       /* of WARP steps each, whose table rows a warp asks for before it knows the step */
};

/* What the warps of a query have seen, a row each, in shared memory of the cluster's first block. */
template <typename G> struct seen_t {
    static constexpr int WIDTH = G::LANES * G::PER, ROW_BYTES = (WIDTH + 2) * (int)sizeof(float);
    float *sum;
    float2 *share;     /* maximum, sum of weights */
    uint64_t *arrived; /* all rows */

    __device__ __forceinline__ seen_t(void *shared, int rows)
    {
        sum = static_cast<float *>(shared);
        share = reinterpret_cast<float2 *>(sum + rows * WIDTH);
        arrived = reinterpret_cast<uint64_t *>(share + rows);
    }

    static size_t bytes(unsigned rows)
    {
        return rows * ROW_BYTES + sizeof(uint64_t);
    }
};

/* Joins what the groups of a warp have seen, and leaves it in row `warp`; alone: the launch has no clusters. */
template <typename G>
static __device__ __forceinline__ void join_groups(query_t<G> &query, const seen_t<G> &seen, int warp, bool alone)
{
    constexpr int STORE = G::PER < 4 ? G::PER : 4;
    float most = query.most;

#pragma unroll
    for (int offset = G::LANES; offset < WARP; offset *= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
    float factor = most > -INFINITY ? expf(query.most - most) : 0.0f, total = sum_lanes<WARP>(query.total * factor);
#pragma unroll
    for (int i = 0; i < G::PER; i++) {
        query.sum[i] *= factor;
#pragma unroll
        for (int offset = G::LANES; offset < WARP; offset *= 2)
            query.sum[i] += __shfl_xor_sync(0xffffffffu, query.sum[i], offset);
    }
    if (threadIdx.x % WARP < G::LANES) {
        float *sum = seen.sum + warp * seen.WIDTH + query.at, share[2] = {most, total};

        if (alone) {
            store_shared<G::PER>(sum, query.sum);
            if (query.lane == 0)
                seen.share[warp] = make_float2(most, total);
        } else {
#pragma unroll
            for (int i = 0; i < G::PER; i += STORE)
                ptx_store_remote<STORE>(sum + i, 0, query.sum + i, seen.arrived);
            if (query.lane == 0)
                ptx_store_remote<2>(&seen.share[warp].x, 0, share, seen.arrived);
        }
    }
}

/* Joins the rows and writes the result. By a whole block, a warp's lanes taking a row each for its weight, then an element each. */
template <typename G>
static __device__ __forceinline__ void join_warps(const seen_t<G> &seen, int warps, typename G::T *out, int head_dim)
{
    int lane = (int)threadIdx.x % WARP;
    float2 share = seen.share[min(lane, warps - 1)];
    float own = share.x, most = own;

#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
    float weight = lane < warps && own > -INFINITY ? expf(own - most) : 0.0f, total = sum_lanes<WARP>(weight * share.y);
    weight = total > 0 ? weight / total : 0.0f;
    for (int first = (int)threadIdx.x - lane; first < head_dim; first += (int)blockDim.x) {
        int at = min(first + lane, head_dim - 1);
        float sum = 0;

#pragma unroll 4
        for (int w = 0; w < warps; w++)
            sum += __shfl_sync(0xffffffffu, weight, w) * seen.sum[w * seen.WIDTH + at];
        if (first + lane < head_dim)
            out[at] = from_float<typename G::T>(sum);
    }
}

/* Where unit i lies: in which part, its first key, the end of the part. */
struct unit_t {
    bool in_prefix;
    int first, end;

    __device__ __forceinline__ unit_t(int i, int prefix_units, int prefix_tokens, int tail)
    {
        in_prefix = i < prefix_units;
        first = (in_prefix ? i : i - prefix_units) * KEY_BATCH;
        end = in_prefix ? prefix_tokens : tail;
    }
};

template <typename G>
static __device__ __forceinline__ void fetch_unit(const query_t<G> &query, typename query_t<G>::batch_t &batch,
                                                  const attention_lane_t<typename G::T> &lane, const unit_t &unit, int head_dim)
{
    query.fetch(batch, unit.in_prefix ? lane.prefix_k : lane.tail_k, unit.in_prefix ? lane.prefix_v : lane.tail_v, head_dim,
                unit.first, unit.end);
}

/* Numbers of the table rows of all steps of a prefix row, a lane each, where they are few. */
struct table_rows_t {
    int32_t number[INDEX_PARTS];

    static __device__ __forceinline__ bool fits(const attention_t &op)
    {
        return op.index_stride <= INDEX_PARTS * WARP;
    }

    __device__ __forceinline__ void fetch(const attention_t &op, int64_t prefix_row)
    {
#pragma unroll
        for (int part = 0; part < INDEX_PARTS; part++) {
            int column = part * WARP + (int)threadIdx.x % WARP;
            number[part] = column < op.index_stride ? op.index[prefix_row * op.index_stride + column] : 0;
        }
    }

    __device__ __forceinline__ const float *at(const attention_t &op, int step) const
    {
        int32_t held = number[0];
#pragma unroll
        for (int part = 1; part < INDEX_PARTS; part++)
            held = step >= part * WARP ? number[part] : held;
        return op.table + (int64_t)__shfl_sync(0xffffffffu, held, step % WARP) * 4 * op.rotary_dim;
    }
};

/* A new token on its way from qkv. */
template <typename G> struct token_t {
    typedef typename G::T T;
    head_part_t<G> q, k;
    typename packed_t<G::PER, T>::word v[packed_t<G::PER, T>::WORDS];
};

/* The new token of a decode: stored by the warp's first group, and seen by it. */
template <typename G>
static __device__ __forceinline__ void take_own(const attention_t &op, query_t<G> &query,
                                                const attention_lane_t<typename G::T> &lane, const token_t<G> &token, bool rotated,
                                                int step)
{
    typedef typename G::T T;
    bool first = threadIdx.x % WARP < G::LANES;
    int64_t to = (int64_t)step * op.head_dim + query.at;
    float key[G::PER], value[G::PER];

    token.k.finish(op, key, rotated, true, query.at);
    unpack<G::PER, T>(value, token.v);
    if (query.active && first) {
        store<G::PER>(lane.tail_k + to, key);
        store<G::PER>(lane.tail_v + to, value);
    }
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        key[i] = to_float(from_float<T>(key[i])); /* as the cache will give it back */
    query.attend_first(key, value);
    if (!first) {
        query.most = -INFINITY;
        query.total = 0;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            query.sum[i] = 0;
    }
}

/* Does a unit leave registers for another one? */
template <typename G> static constexpr bool is_small = G::PER * sizeof(typename G::T) <= 8;

/* ONCE: no group has more than one unit. Then there are few queries, whose blocks fit beside those of two more kernels if they have few
 * registers. */
template <typename G, bool ONCE>
static __global__ void __launch_bounds__(BLOCK_WARPS *WARP, (is_small<G> && ONCE ? WARPS_A_SM_ONCE : WARPS_A_SM) / BLOCK_WARPS)
    attention_query_kernel(const attention_t op)
{
    typedef typename G::T T;
    constexpr bool AHEAD = !ONCE && is_small<G>; /* registers for the next unit while one is being taken in */
    constexpr int GROUPS = WARP / G::LANES;
    extern __shared__ float4 shared[];
    cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    int blocks = (int)cluster.num_blocks(), rank = (int)cluster.block_rank(), block_warps = (int)blockDim.x / WARP,
        warps = block_warps * blocks, warp = rank * block_warps + (int)threadIdx.x / WARP; /* of the query */
    int groups = warps * GROUPS, group = warp * GROUPS + (int)threadIdx.x % WARP / G::LANES;
    unsigned id = blockIdx.x / (unsigned)blocks, samples = op.samples, token = id % op.tokens, sample = id / op.tokens % samples,
             head = id / op.tokens / samples % op.heads, prefix_row = id / op.tokens / samples / op.heads;
    int64_t row = ((int64_t)(prefix_row / op.variates) * samples + sample) * op.variates + prefix_row % op.variates;
    bool alone = blocks == 1, decode = op.mode == BACKEND_ATTENTION_DECODE,
         own = decode && warp == warps - 1; /* it has least to do */
    bool rotated = decode && op.table != NULL, few_steps = rotated && table_rows_t::fits(op);
    int prefix_units = (op.prefix_tokens + KEY_BATCH - 1) / KEY_BATCH;
    attention_lane_t<T> lane(op, row, head);
    const T *q = lane.qkv + token * 3 * lane.width, *k = q + lane.width, *v = k + lane.width;
    query_t<G> query(op.head_dim);
    typename query_t<G>::batch_t batch, next;
    seen_t<G> seen(shared, warps);
    token_t<G> fresh;
    table_rows_t rows;

    if (!alone) {
        if (rank == 0 && threadIdx.x == 0)
            ptx_bulk_expect(seen.arrived, (uint32_t)(warps * seen.ROW_BYTES));
        cluster.barrier_arrive(); /* A1: seen.arrived is there */
    }
    begin();
    int step = op.step != NULL ? *op.step : 0, first = op.first != NULL ? op.first[prefix_row] : 0;
    const uint8_t *visible = op.visible != NULL ? op.visible + (int64_t)prefix_row * op.prefix_tokens : NULL;
    if (few_steps)
        rows.fetch(op, prefix_row);
    load_words<G::PER>(fresh.q.own, q + query.at, query.active);
    if (rotated)
        fresh.q.fetch_partner(op, q, query.at);
    if (own) {
        load_words<G::PER>(fresh.k.own, k + query.at, query.active);
        load_words<G::PER>(fresh.v, v + query.at, query.active);
        if (rotated)
            fresh.k.fetch_partner(op, k, query.at);
    }
    if (group < prefix_units)
        fetch_unit<G>(query, batch, lane, unit_t(group, prefix_units, op.prefix_tokens, 0), op.head_dim);
    int tail = op.step == NULL ? 0 : decode ? step : step + 1; /* of the cache; a decode's own key comes on top */
    int units = prefix_units + (tail + KEY_BATCH - 1) / KEY_BATCH;
    if (group >= prefix_units && units > 0)
        fetch_unit<G>(query, batch, lane, unit_t(min(group, units - 1), prefix_units, op.prefix_tokens, tail), op.head_dim);
    const float *table = few_steps ? rows.at(op, step) : rotated ? table_row(op, prefix_row, step) : NULL;
    if (rotated) {
        fresh.q.fetch_table(op, table, false, query.at);
        if (own)
            fresh.k.fetch_table(op, table, true, query.at);
    }
    fresh.q.finish(op, query.q, rotated, false, query.at);
    query.multiply(op.scale);
    if (own)
        take_own<G>(op, query, lane, fresh, rotated, step);
#pragma unroll 1
    for (int from = 0; from + warp * GROUPS < units; from += ONCE ? units : groups) { /* the same in the whole warp */
        unit_t unit(min(from + group, units - 1), prefix_units, op.prefix_tokens, tail),
            next_unit(min(from + group + groups, units - 1), prefix_units, op.prefix_tokens, tail);
        bool surplus = from + group >= units;

        if (AHEAD && from + groups < units)
            fetch_unit<G>(query, next, lane, next_unit, op.head_dim);
        if ((from + (warp + 1) * GROUPS) * KEY_BATCH > first) /* else all of the warp's are padding */
            query.take(batch, unit.first, [=](int key, float score) {
                bool seen =
                    key < unit.end && !surplus && (!unit.in_prefix || (key >= first && (visible == NULL || visible[key] == 1)));
                return seen ? score : -INFINITY;
            });
        if (AHEAD)
            batch = next;
        else if (!ONCE && from + groups < units)
            fetch_unit<G>(query, batch, lane, next_unit, op.head_dim);
    }

    if (!alone)
        cluster.barrier_wait(); /* pairs with A1 */
    join_groups<G>(query, seen, warp, alone);
    if (rank != 0)
        return;
    if (alone)
        __syncthreads();
    else
        ptx_bulk_wait(seen.arrived);
    join_warps<G>(seen, warps, lane.out + token * lane.width, op.head_dim);
}

typedef struct {
    unsigned blocks, warps; /* of a query; of a block */
} split_t;

/* Enough warps for all keys in one round while there are few queries, fewer when they fill the GPU by themselves; in small blocks, which fit
 * beside those of the kernels around. */
static split_t split_for(int64_t queries, int64_t units, int groups)
{
    int64_t share = (int64_t)SMS * WARPS_A_SM / queries, warps = units / groups + 1; /* one more for the new token */
    split_t split;

    share = share < QUERY_WARPS_LEAST ? (int64_t)QUERY_WARPS_LEAST : share < QUERY_WARPS ? share : (int64_t)QUERY_WARPS;
    warps = warps < share ? warps : share;
    split.blocks = blocks_for(warps, BLOCK_WARPS);
    split.warps = blocks_for(warps, split.blocks);
    return split;
}

template <typename T> static int query_launch(const attention_t &op, cudaStream_t stream)
{
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim, [&](auto geometry) {
        typedef decltype(geometry) G;
        int64_t queries = op.rows * op.heads * op.tokens,
                units = (op.prefix_tokens + KEY_BATCH - 1) / KEY_BATCH + (op.tail_tokens + KEY_BATCH - 1) / KEY_BATCH;
        split_t split = split_for(queries, units, WARP / G::LANES);
        bool once = units <= (int64_t)split.blocks * split.warps * (WARP / G::LANES);

        return launch_cluster("attention (query)", once ? attention_query_kernel<G, true> : attention_query_kernel<G, false>,
                              (unsigned)queries * split.blocks, split.warps * WARP, seen_t<G>::bytes(split.blocks * split.warps),
                              split.blocks, stream, op);
    });
}

int cuda_attention_query(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream)
{
    return dtype == BACKEND_BF16 ? query_launch<__nv_bfloat16>(op, stream) : query_launch<float>(op, stream);
}
