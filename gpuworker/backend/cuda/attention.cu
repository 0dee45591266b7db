/* Causal attention with a static cache, prefill and decode: out = softmax(scale · q kᵀ) v, per head, with rotary embedding from
 * tables.
 *
 * qkv [rows][T][3][heads][head_dim], out [rows][T][heads][head_dim], prefix k, v [prefix rows][heads][prefix_tokens][head_dim],
 * tail k, v [rows][heads][tail_tokens][head_dim]: all F32, or all BF16.
 *
 * Prefill: a block a row and head. Its groups first write the rotated k, and v, of all tokens to the cache; then each takes
 * queries and reads the cache back, which only this block has written. Decode: a group a row and head, the samples of one prefix
 * row next to one another, so that a warp reads a prefix once for several of them and a block keeps it in L1; its own k and v go
 * to the tail first and are read back by the lanes that wrote them. */
#include "gpuworker/backend/cuda/attention.cuh"

typedef struct {
    const void *qkv;
    void *out;
    void *prefix_k, *prefix_v, *tail_k, *tail_v;
    const float *table;
    const int32_t *index, *first, *step;
    int64_t rows, samples, variates, index_stride;
    int tokens, prefix_tokens, tail_tokens, heads, head_dim, rotary_dim;
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

/* The rotated k, and v, of one token to their place in a cache. */
template <typename G>
static __device__ __forceinline__ void append(const attention_t &op, const typename G::T *k, const typename G::T *v,
                                              typename G::T *to_k, typename G::T *to_v, const float *table, int at)
{
    float value[G::PER];

    if (at >= op.head_dim)
        return;
    load<G::PER>(value, v + at);
    store<G::PER>(to_v + at, value);
    load<G::PER>(value, k + at);
    if (table != NULL)
        rotate<G>(value, k, at, table + 2 * op.rotary_dim, table + 3 * op.rotary_dim, op.rotary_dim, op.interleaved);
    store<G::PER>(to_k + at, value);
}

template <typename G>
static __device__ __forceinline__ void load_query(const attention_t &op, query_t<G> &query, const typename G::T *q,
                                                  const float *table)
{
    if (!query.active)
        return;
    load<G::PER>(query.q, q + query.at);
    if (table != NULL)
        rotate<G>(query.q, q, query.at, table, table + op.rotary_dim, op.rotary_dim, op.interleaved);
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        query.q[i] *= op.scale;
}

template <typename G> static __global__ void __launch_bounds__(ATTENTION_THREADS) attention_prefill_kernel(const attention_t op)
{
    typedef typename G::T T;
    int64_t row = (int64_t)blockIdx.x / op.heads, head = (int64_t)blockIdx.x % op.heads;
    int group = (int)threadIdx.x / G::LANES, groups = (int)blockDim.x / G::LANES;
    int64_t part = (int64_t)op.heads * op.head_dim, cache = (row * op.heads + head) * op.tokens * op.head_dim;
    const T *qkv = static_cast<const T *>(op.qkv) + row * op.tokens * 3 * part + head * op.head_dim;
    T *out = static_cast<T *>(op.out) + row * op.tokens * part + head * op.head_dim;
    T *cache_k = static_cast<T *>(op.prefix_k) + cache, *cache_v = static_cast<T *>(op.prefix_v) + cache;

    begin();
    int first = op.first != NULL ? op.first[row] : 0;
    for (int token = group; token < op.tokens; token += groups) {
        const T *q = qkv + token * 3 * part;
        append<G>(op, q + part, q + 2 * part, cache_k + (int64_t)token * op.head_dim, cache_v + (int64_t)token * op.head_dim,
                  table_row(op, row, token), query_t<G>(op.head_dim).at);
    }
    __syncthreads();
    for (int token = group; token < op.tokens; token += groups) {
        query_t<G> query(op.head_dim);
        load_query<G>(op, query, qkv + token * 3 * part, table_row(op, row, token));
        query.attend(cache_k, cache_v, op.head_dim, first, token + 1, [](int) { return true; });
        query.finish(out + token * part);
    }
}

template <typename G> static __global__ void __launch_bounds__(ATTENTION_THREADS) attention_decode_kernel(const attention_t op)
{
    typedef typename G::T T;
    int64_t item = (int64_t)blockIdx.x * (blockDim.x / G::LANES) + threadIdx.x / G::LANES;
    int64_t sample = item % op.samples, head = item / op.samples % op.heads, prefix_row = item / op.samples / op.heads;
    int64_t row = (prefix_row / op.variates * op.samples + sample) * op.variates + prefix_row % op.variates;
    int64_t part = (int64_t)op.heads * op.head_dim;
    int64_t prefix = (prefix_row * op.heads + head) * op.prefix_tokens * op.head_dim,
            tail = (row * op.heads + head) * op.tail_tokens * op.head_dim;

    begin();
    if (item >= op.rows * op.heads)
        return;
    int step = *op.step, first = op.first != NULL ? op.first[prefix_row] : 0;
    const float *table = table_row(op, prefix_row, step);
    const T *q = static_cast<const T *>(op.qkv) + row * 3 * part + head * op.head_dim;
    T *tail_k = static_cast<T *>(op.tail_k) + tail, *tail_v = static_cast<T *>(op.tail_v) + tail;
    query_t<G> query(op.head_dim);

    load_query<G>(op, query, q, table);
    append<G>(op, q + part, q + 2 * part, tail_k + (int64_t)step * op.head_dim, tail_v + (int64_t)step * op.head_dim, table,
              query.at);
    query.attend(static_cast<const T *>(op.prefix_k) + prefix, static_cast<const T *>(op.prefix_v) + prefix, op.head_dim, first,
                 op.prefix_tokens, [](int) { return true; });
    query.attend(tail_k, tail_v, op.head_dim, 0, step + 1, [](int) { return true; });
    query.finish(static_cast<T *>(op.out) + row * part + head * op.head_dim);
}

template <typename T> static int attention_launch(const attention_t &op, bool prefill, cudaStream_t stream)
{
    return with_geometry<T>("attention", op.head_dim, op.rotary_dim, [&](auto geometry) {
        typedef decltype(geometry) G;
        int64_t queries = prefill ? op.tokens : op.rows * op.heads;
        unsigned groups = (unsigned)(queries < G::GROUPS ? queries : G::GROUPS);
        unsigned threads = (groups * G::LANES + WARP - 1) / WARP * WARP;

        if (prefill)
            return launch("attention (prefill)", attention_prefill_kernel<G>, (unsigned)(op.rows * op.heads), threads, 0, stream,
                          op);
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

    if (op->out.dtype != dtype || kv->prefix_k.dtype != dtype || kv->prefix_v.dtype != dtype ||
        (!prefill && (kv->tail_k.dtype != dtype || kv->tail_v.dtype != dtype)))
        return error_set(BACKEND_ERR_UNSUPPORTED, "attention: on CUDA qkv, out and the cache have one dtype");
    p.qkv = op->qkv.data;
    p.out = op->out.data;
    p.prefix_k = kv->prefix_k.data;
    p.prefix_v = kv->prefix_v.data;
    p.first = op->first != NULL ? static_cast<const int32_t *>(op->first->data) : NULL;
    p.rows = op->rows;
    p.samples = op->samples;
    p.variates = op->variates;
    p.tokens = (int)op->tokens;
    p.prefix_tokens = (int)kv->prefix_k.dim[2];
    p.heads = op->heads;
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
