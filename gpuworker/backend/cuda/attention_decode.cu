/* Attention of one new token a row over few keys: a group of lanes a row and head.
 *
 * The samples of one prefix row stand next to one another, so that a warp reads a prefix once for several of them and a block keeps it in
 * L1; the row's own k and v stay in registers on their way to the tail. Without head norms and `visible`, which would cost the many
 * small decodes time; attention_query.cu has them. */
#include "gpuworker/backend/cuda/attention_op.cuh"

enum { DECODE_BLOCKS_A_SM = 3 };

template <typename G>
static __global__ void __launch_bounds__(ATTENTION_THREADS, DECODE_BLOCKS_A_SM)
    attention_decode_kernel(const attention_t op, unsigned items)
{
    typedef typename G::T T;
    constexpr bool AHEAD = G::PER * sizeof(T) <= 8; /* registers for the next keys while some are being taken in */
    /* Surplus groups repeat the last item. */
    unsigned item = min(blockIdx.x * (blockDim.x / G::LANES) + threadIdx.x / G::LANES, items - 1);
    unsigned sample = item % op.samples, head = item / op.samples % op.heads, prefix_row = item / op.samples / op.heads;
    int64_t row = ((int64_t)(prefix_row / op.variates) * op.samples + sample) * op.variates + prefix_row % op.variates;
    int64_t part = (int64_t)op.heads * op.head_dim;
    int64_t prefix = ((int64_t)prefix_row * op.heads + head) * op.prefix_tokens * op.head_dim,
            tail = (row * op.heads + head) * op.tail_tokens * op.head_dim;

    const T *q = static_cast<const T *>(op.qkv) + row * 3 * part + head * op.head_dim;
    const T *prefix_k = static_cast<const T *>(op.prefix_k) + prefix, *prefix_v = static_cast<const T *>(op.prefix_v) + prefix;
    T *tail_k = static_cast<T *>(op.tail_k) + tail, *tail_v = static_cast<T *>(op.tail_v) + tail;
    query_t<G> query(op.head_dim);
    typename query_t<G>::batch_t batch, next;
    head_part_t<G> new_q, new_k;
    typename packed_t<G::PER, T>::word new_v[packed_t<G::PER, T>::WORDS];
    float key[G::PER], value[G::PER];
    bool few_steps = op.table != NULL && op.index_stride <= G::LANES;
    int table_rows = 0; /* that of step `lane` */

    /* What does not depend on the step is requested beside it: each trip to memory that waits for another one is a tenth of the time. */
    begin();
    int step = *op.step, first = op.first != NULL ? op.first[prefix_row] : 0;
    load_words<G::PER, T>(new_q.own, q + query.at, query.active);
    load_words<G::PER, T>(new_k.own, q + part + query.at, query.active);
    load_words<G::PER, T>(new_v, q + 2 * part + query.at, query.active);
    if (few_steps)
        table_rows = op.index[prefix_row * op.index_stride + min(query.lane, (int)op.index_stride - 1)];
    int begin_key = op.prefix_tokens > KEY_BATCH ? __reduce_min_sync(0xffffffffu, first) : 0;
    query.fetch(batch, prefix_k, prefix_v, op.head_dim, begin_key, op.prefix_tokens); /* in flight while q is being rotated */
    table_rows = __shfl_sync(0xffffffffu, table_rows, step, G::LANES);
    const float *table = few_steps ? op.table + (int64_t)table_rows * 4 * op.rotary_dim : table_row(op, prefix_row, step);
    new_q.fetch_rotation(op, q, table, false, query.at);
    new_k.fetch_rotation(op, q + part, table, true, query.at);
    new_q.finish(op, query.q, table != NULL, false, query.at);
    query.multiply(op.scale);
    new_k.finish(op, key, table != NULL, true, query.at);
    unpack<G::PER, T>(value, new_v);
    if (query.active) {
        int64_t to = (int64_t)step * op.head_dim + query.at;

        store<G::PER>(tail_k + to, key);
        store<G::PER>(tail_v + to, value);
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            key[i] = to_float(from_float<T>(key[i])); /* as the cache will give it back */
    }
    query.attend_first(key, value);

    /* The prefix, then the tail before *step, in one loop: its body is long, and instructions must be fetched too. */
    const T *k = prefix_k, *v = prefix_v;
    int at = begin_key, end = op.prefix_tokens;
    bool in_tail = false, more = true;
#pragma unroll 1
    while (more) {
        auto see = [=](int i, float score) { return i < end && (in_tail || i >= first) ? score : -INFINITY; };
        int taken = at;

        at += KEY_BATCH;
        if (at >= end && !in_tail) {
            in_tail = true;
            k = tail_k;
            v = tail_v;
            at = 0;
            end = step;
        }
        more = at < end;
        if (AHEAD && more)
            query.fetch(next, k, v, op.head_dim, at, end);
        query.take(batch, taken, see);
        if (AHEAD)
            batch = next;
        else if (more)
            query.fetch(batch, k, v, op.head_dim, at, end);
    }
    query.finish(static_cast<T *>(op.out) + row * part + head * op.head_dim);
}

template <typename G> static int decode_launch(const attention_t &op, cudaStream_t stream)
{
    unsigned items = (unsigned)(op.rows * op.heads), groups = items < G::GROUPS ? items : (unsigned)G::GROUPS;
    unsigned threads = (groups * G::LANES + WARP - 1) / WARP * WARP;

    return launch("attention (decode)", attention_decode_kernel<G>, blocks_for(items, threads / G::LANES), threads, 0, stream, op,
                  items);
}

/* A lane has less to do, and there is room for keys ahead, where a head has more lanes than elsewhere: worth its price while all blocks run at
 * once. */
template <typename T> static int decode(const attention_t &op, cudaStream_t stream)
{
    typedef geometry_t<4, 16, T> wide_t;
    int64_t at_once = (int64_t)SMS * DECODE_BLOCKS_A_SM * wide_t::GROUPS;

    if (op.rows * op.heads <= at_once && (op.head_dim | op.rotary_dim) % wide_t::PER == 0 &&
        op.head_dim <= wide_t::PER * wide_t::LANES)
        return decode_launch<wide_t>(op, stream);
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim,
                            [&](auto geometry) { return decode_launch<decltype(geometry)>(op, stream); });
}

int cuda_attention_decode(const attention_t &op, backend_dtype_t dtype, cudaStream_t stream)
{
    return dtype == BACKEND_BF16 ? decode<__nv_bfloat16>(op, stream) : decode<float>(op, stream);
}
