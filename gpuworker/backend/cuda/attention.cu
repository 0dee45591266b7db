/* Causal attention with a static cache, prefill and decode: out = softmax(scale · q kᵀ) v, per head, with rotary embedding from
 * tables.
 *
 * qkv [rows][T][3][heads][head_dim], out [rows][T][heads][head_dim], prefix k, v [prefix rows][heads][prefix_tokens][head_dim],
 * tail k, v [rows][heads][tail_tokens][head_dim]: all F32, or all BF16.
 *
 * Prefill: a block a row and head. Its groups first write the rotated k, and v, of all tokens to the cache, and to shared memory
 * where they fit; then each takes queries. Decode: a group a row and head, the samples of one prefix row next to one another, so
 * that a warp reads a prefix once for several of them and a block keeps it in L1; the row's own k and v stay in registers on
 * their way to the tail. */
#include "gpuworker/backend/cuda/attention.cuh"

enum { DECODE_BLOCKS_A_SM = 3 };

typedef struct {
    const void *qkv;
    void *out;
    void *prefix_k, *prefix_v, *tail_k, *tail_v;
    const float *table;
    const int32_t *index, *first, *step;
    int64_t rows, index_stride;
    unsigned samples, variates, heads, items; /* items: rows · heads, of a decode */
    int tokens, prefix_tokens, tail_tokens, head_dim, rotary_dim;
    bool interleaved;
    float scale;
} attention_t;

/* Rotates the lane's elements of the head vector at `from` (which holds them unrotated), in place. */
template <typename G>
static __device__ __forceinline__ void rotate(float (&value)[G::PER], const typename G::T *from, int at, const float *cos_row,
                                              const float *sin_row, int rotary_dim, bool interleaved)
{
    float cosine[G::PER], sine[G::PER], partner[G::PER];

    if (at >= rotary_dim)
        return;
    load<G::PER>(cosine, cos_row + at);
    load<G::PER>(sine, sin_row + at);
    if (interleaved) {
#pragma unroll
        for (int i = 0; i < G::PER; i += 2) {
            partner[i] = -value[i + 1];
            partner[i + 1] = value[i];
        }
    } else {
        int half = rotary_dim / 2;
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            partner[i] = at + i < half ? -to_float(from[at + i + half]) : to_float(from[at + i - half]);
    }
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        value[i] = value[i] * cosine[i] + partner[i] * sine[i];
}

/* Table row of a prefix row's column: q_cos, q_sin, k_cos, k_sin. */
static __device__ __forceinline__ const float *table_row(const attention_t &op, int64_t prefix_row, int column)
{
    return op.table == NULL ? NULL : op.table + (int64_t)op.index[prefix_row * op.index_stride + column] * 4 * op.rotary_dim;
}

/* A value as a cache of element type T will give it back. */
template <typename T> static __device__ __forceinline__ float as_kept(float value)
{
    return to_float(from_float<T>(value));
}

template <typename G>
static __device__ __forceinline__ void rotate_key(const attention_t &op, float (&key)[G::PER], const typename G::T *k, int at,
                                                  const float *table)
{
    rotate<G>(key, k, at, table + 2 * op.rotary_dim, table + 3 * op.rotary_dim, op.rotary_dim, op.interleaved);
}

/* The rotated k, and v, of one token. */
template <typename G>
static __device__ __forceinline__ void load_key_value(const attention_t &op, const typename G::T *k, const typename G::T *v,
                                                      const float *table, int at, float (&key)[G::PER], float (&value)[G::PER])
{
    load<G::PER>(value, v + at);
    load<G::PER>(key, k + at);
    if (table != NULL)
        rotate_key<G>(op, key, k, at, table);
}

/* A query as it was loaded becomes what meets the keys. */
template <typename G>
static __device__ __forceinline__ void turn_query(const attention_t &op, query_t<G> &query, const typename G::T *q,
                                                  const float *table)
{
    if (table != NULL)
        rotate<G>(query.q, q, query.at, table, table + op.rotary_dim, op.rotary_dim, op.interleaved);
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        query.q[i] *= op.scale;
}

template <typename G>
static __device__ __forceinline__ void load_query(const attention_t &op, query_t<G> &query, const typename G::T *q,
                                                  const float *table)
{
    if (!query.active)
        return;
    load<G::PER>(query.q, q + query.at);
    turn_query<G>(op, query, q, table);
}

template <typename G>
static __global__ void __launch_bounds__(ATTENTION_THREADS) attention_prefill_kernel(const attention_t op, bool in_shared)
{
    typedef typename G::T T;
    extern __shared__ uint4 shared[]; /* k, then v, [tokens][head_dim] */
    int64_t row = blockIdx.x / op.heads, head = blockIdx.x % op.heads;
    int group = (int)threadIdx.x / G::LANES, groups = (int)blockDim.x / G::LANES;
    int64_t part = (int64_t)op.heads * op.head_dim, cache = (row * op.heads + head) * op.tokens * op.head_dim;
    const T *qkv = static_cast<const T *>(op.qkv) + row * op.tokens * 3 * part + head * op.head_dim;
    T *out = static_cast<T *>(op.out) + row * op.tokens * part + head * op.head_dim;
    T *cache_k = static_cast<T *>(op.prefix_k) + cache, *cache_v = static_cast<T *>(op.prefix_v) + cache;
    T *shared_k = reinterpret_cast<T *>(shared), *shared_v = shared_k + (int64_t)op.tokens * op.head_dim;

    begin();
    int first = op.first != NULL ? op.first[row] : 0;
    query_t<G> query(op.head_dim);
    load_query<G>(op, query, qkv + min(group, op.tokens - 1) * 3 * part, table_row(op, row, min(group, op.tokens - 1)));
#pragma unroll 1
    for (int token = group; token < op.tokens && query.active; token += groups) {
        const T *k = qkv + token * 3 * part + part;
        int to = token * op.head_dim + query.at;
        float key[G::PER], value[G::PER];

        load_key_value<G>(op, k, k + part, table_row(op, row, token), query.at, key, value);
        store<G::PER>(cache_k + to, key);
        store<G::PER>(cache_v + to, value);
        if (in_shared) {
            store_shared<G::PER>(shared_k + to, key);
            store_shared<G::PER>(shared_v + to, value);
        }
    }
    __syncthreads();
#pragma unroll 1
    for (int turn = 0; turn < op.tokens; turn += groups) {
        int token = min(turn + group, op.tokens - 1); /* surplus groups repeat the last one */
        int end = min(turn + ((int)threadIdx.x / WARP + 1) * (WARP / G::LANES), op.tokens);

        if (turn > 0) {
            query = query_t<G>(op.head_dim);
            load_query<G>(op, query, qkv + token * 3 * part, table_row(op, row, token));
        }
        query.attend(in_shared ? shared_k : cache_k, in_shared ? shared_v : cache_v, op.head_dim, first, end,
                     [=](int key) { return key <= token; });
        query.finish(out + token * part);
    }
}

template <typename G>
static __global__ void __launch_bounds__(ATTENTION_THREADS, DECODE_BLOCKS_A_SM) attention_decode_kernel(const attention_t op)
{
    typedef typename G::T T;
    /* Surplus groups repeat the last item. */
    unsigned item = min(blockIdx.x * (blockDim.x / G::LANES) + threadIdx.x / G::LANES, op.items - 1);
    unsigned sample = item % op.samples, head = item / op.samples % op.heads, prefix_row = item / op.samples / op.heads;
    int64_t row = ((int64_t)(prefix_row / op.variates) * op.samples + sample) * op.variates + prefix_row % op.variates;
    int64_t part = (int64_t)op.heads * op.head_dim;
    int64_t prefix = ((int64_t)prefix_row * op.heads + head) * op.prefix_tokens * op.head_dim,
            tail = (row * op.heads + head) * op.tail_tokens * op.head_dim;

    const T *q = static_cast<const T *>(op.qkv) + row * 3 * part + head * op.head_dim;
    const T *prefix_k = static_cast<const T *>(op.prefix_k) + prefix, *prefix_v = static_cast<const T *>(op.prefix_v) + prefix;
    T *tail_k = static_cast<T *>(op.tail_k) + tail, *tail_v = static_cast<T *>(op.tail_v) + tail;
    query_t<G> query(op.head_dim);
    typename query_t<G>::batch_t batch;
    typename packed_t<G::PER, T>::word own[3][packed_t<G::PER, T>::WORDS]; /* q, k, v */
    float key[G::PER], value[G::PER];
    bool few_steps = op.table != NULL && op.index_stride <= G::LANES;
    int table_rows = 0; /* that of step `lane` */

    /* What does not depend on the step is requested beside it: each trip to memory that waits for another one is a tenth of the time. */
    begin();
    int step = *op.step, first = op.first != NULL ? op.first[prefix_row] : 0;
#pragma unroll
    for (int i = 0; i < 3; i++)
        load_words<G::PER, T>(own[i], q + i * part + query.at, query.active);
    if (few_steps)
        table_rows = op.index[prefix_row * op.index_stride + min(query.lane, (int)op.index_stride - 1)];
    int begin_key = op.prefix_tokens > KEY_BATCH ? __reduce_min_sync(0xffffffffu, first) : 0;
    query.fetch(batch, prefix_k, prefix_v, op.head_dim, begin_key, op.prefix_tokens); /* in flight while q is being rotated */
    table_rows = __shfl_sync(0xffffffffu, table_rows, step, G::LANES);
    const float *table = few_steps ? op.table + (int64_t)table_rows * 4 * op.rotary_dim : table_row(op, prefix_row, step);
    unpack<G::PER, T>(query.q, own[0]);
    unpack<G::PER, T>(key, own[1]);
    unpack<G::PER, T>(value, own[2]);
    if (query.active) {
        int64_t to = (int64_t)step * op.head_dim + query.at;

        turn_query<G>(op, query, q, table);
        if (table != NULL)
            rotate_key<G>(op, key, q + part, query.at, table);
        store<G::PER>(tail_k + to, key);
        store<G::PER>(tail_v + to, value);
#pragma unroll
        for (int i = 0; i < G::PER; i++)
            key[i] = as_kept<T>(key[i]);
    }
    query.attend_first(key, value);

    /* The prefix, then the tail before *step, in one loop: its body is long, and instructions must be fetched too. */
    const T *k = prefix_k, *v = prefix_v;
    int at = begin_key, end = op.prefix_tokens;
    bool in_tail = false;
#pragma unroll 1
    for (;;) {
        query.take(batch, at, [=](int i) { return i < end && (in_tail || i >= first); });
        at += KEY_BATCH;
        if (at >= end) {
            if (in_tail || step == 0)
                break;
            in_tail = true;
            k = tail_k;
            v = tail_v;
            at = 0;
            end = step;
        }
        query.fetch(batch, k, v, op.head_dim, at, end);
    }
    query.finish(static_cast<T *>(op.out) + row * part + head * op.head_dim);
}

template <typename T> static int attention_launch(const attention_t &op, bool prefill, cudaStream_t stream)
{
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim, [&](auto geometry) {
        typedef decltype(geometry) G;
        unsigned queries = prefill ? (unsigned)op.tokens : op.items;
        unsigned groups = queries < G::GROUPS ? queries : (unsigned)G::GROUPS;
        unsigned threads = (groups * G::LANES + WARP - 1) / WARP * WARP;

        if (prefill) {
            size_t bytes = sizeof(T) * 2 * (size_t)op.tokens * (size_t)op.head_dim;
            bool in_shared = bytes <= SHARED_BYTES_DEFAULT;

            return launch("attention (prefill)", attention_prefill_kernel<G>, (unsigned)op.rows * op.heads, threads,
                          in_shared ? bytes : 0, stream, op, in_shared);
        }
        return launch("attention (decode)", attention_decode_kernel<G>, blocks_for(queries, threads / G::LANES), threads, 0, stream,
                      op);
    });
}

extern "C" int cuda_attention_launch(const backend_attention_t *op, cudaStream_t stream)
{
    const backend_kv_t *kv = op->kv;
    bool prefill = op->mode == BACKEND_ATTENTION_PREFILL;
    backend_dtype_t dtype = op->qkv.dtype;
    attention_t p = {};

    if (op->mode > BACKEND_ATTENTION_DECODE || op->norm != NULL || op->visible != NULL)
        return error_set(BACKEND_ERR_UNSUPPORTED, "attention: CUDA has only PREFILL and DECODE, without norms and visibility");
    if (op->out.dtype != dtype || kv->prefix_k.dtype != dtype || kv->prefix_v.dtype != dtype ||
        (!prefill && (kv->tail_k.dtype != dtype || kv->tail_v.dtype != dtype)))
        return error_set(BACKEND_ERR_UNSUPPORTED, "attention: on CUDA qkv, out and the cache have one dtype");
    if (op->rows * op->heads > INT32_MAX)
        return error_set(BACKEND_ERR_UNSUPPORTED, "attention: %lld rows of %d heads are too many for CUDA", (long long)op->rows,
                         op->heads);
    p.qkv = op->qkv.data;
    p.out = op->out.data;
    p.prefix_k = kv->prefix_k.data;
    p.prefix_v = kv->prefix_v.data;
    p.first = op->first != NULL ? static_cast<const int32_t *>(op->first->data) : NULL;
    p.rows = op->rows;
    p.items = (unsigned)(op->rows * op->heads);
    p.samples = (unsigned)op->samples;
    p.variates = (unsigned)op->variates;
    p.tokens = (int)op->tokens;
    p.prefix_tokens = (int)kv->prefix_k.dim[2];
    p.heads = (unsigned)op->heads;
    p.head_dim = op->head_dim;
    p.scale = op->scale;
    p.interleaved = op->rope.interleaved;
    if (op->rope.table != NULL) {
        p.table = static_cast<const float *>(op->rope.table->data);
        p.rotary_dim = (int)op->rope.table->dim[2];
        p.index = static_cast<const int32_t *>(op->rope.index->data);
        p.index_stride = op->rope.index->dim[1];
    }
    if (!prefill) {
        p.tail_k = kv->tail_k.data;
        p.tail_v = kv->tail_v.data;
        p.tail_tokens = (int)kv->tail_k.dim[2];
        p.step = static_cast<const int32_t *>(op->step->data);
    }
    return dtype == BACKEND_BF16 ? attention_launch<__nv_bfloat16>(p, prefill, stream)
                                 : attention_launch<float>(p, prefill, stream);
}
