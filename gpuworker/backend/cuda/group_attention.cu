/* Attention across the variates of one series at one token: out = softmax(scale · q kᵀ) v over the variates of equal group id.
 *
 * qkv [sets][variates][T][3][heads][head_dim] -> out [sets][variates][T][heads][head_dim], F32 or BF16; group I32 [sets /
 * samples][variates][group_tokens]; visible U8 [sets][variates][T]. A group of lanes a (set, variate, token, head), head fastest; the
 * keys are read in place, T · 3 · heads · head_dim apart. Under a head norm the keys' weights multiply the query instead, and each score
 * gets its key's factor. A variate alone sees itself: its output is its value. */
#include "gpuworker/backend/cuda/attention.cuh"

typedef struct {
    const void *qkv;
    void *out;
    const int32_t *group;
    const uint8_t *visible;
    head_norm_t norm_q, norm_k;
    int64_t items, samples, tokens, heads, group_tokens;
    int variates, head_dim;
    float scale;
} group_attention_t;

template <typename G, bool NORMED>
static __global__ void __launch_bounds__(ATTENTION_THREADS) group_attention_kernel(const group_attention_t op)
{
    typedef typename G::T T;
    int64_t own_item = (int64_t)blockIdx.x * (blockDim.x / G::LANES) + threadIdx.x / G::LANES;
    int64_t item = own_item < op.items ? own_item : op.items - 1; /* surplus groups repeat the last one */
    int64_t head = item % op.heads, token = item / op.heads % op.tokens, variate = item / op.heads / op.tokens % op.variates,
            set = item / op.heads / op.tokens / op.variates;
    int64_t part = op.heads * op.head_dim, pitch = op.tokens * 3 * part;
    const T *keys = static_cast<const T *>(op.qkv) + (set * op.variates * op.tokens + token) * 3 * part + head * op.head_dim;
    T *out = static_cast<T *>(op.out) + ((set * op.variates + variate) * op.tokens + token) * part + head * op.head_dim;
    query_t<G> query(op.head_dim);

    begin();
    const uint8_t *visible = op.visible != NULL ? op.visible + set * op.variates * op.tokens + token : NULL;
    auto is_visible = [=](int64_t other) { return visible == NULL || visible[other * op.tokens] != 0; };
    if (op.variates == 1) {
        if (query.active) {
            if (is_visible(0))
                load<G::PER>(query.q, keys + 2 * part + query.at);
            store<G::PER>(out + query.at, query.q);
        }
        return;
    }
    const int32_t *groups = op.group + set / op.samples * op.variates * op.group_tokens + (op.group_tokens > 1 ? token : 0);
    int32_t own = groups[variate * op.group_tokens];
    bool there = is_visible(variate);

    if (query.active)
        load<G::PER>(query.q, keys + variate * pitch + query.at);
    if constexpr (NORMED) {
        normalise<G>(op.norm_q, query.q, query.at, op.head_dim);
        if (op.norm_k.weight != NULL && query.active) {
            float weight[G::PER];

            load<G::PER>(weight, op.norm_k.weight + query.at);
#pragma unroll
            for (int i = 0; i < G::PER; i++)
                query.q[i] *= weight[i];
        }
    }
    query.multiply(op.scale);
#pragma unroll 1
    for (int first = 0; first < op.variates; first += KEY_BATCH) {
        typename query_t<G>::batch_t batch;

        query.fetch(batch, keys + part, keys + 2 * part, pitch, first, op.variates);
        auto seen = [=](int key) { return there && key < op.variates && groups[key * op.group_tokens] == own && is_visible(key); };
        if constexpr (NORMED)
            query.template take<true>(batch, first, [=](int key, float score, float squares) {
                return seen(key) ? score / sqrtf(squares / (float)op.head_dim + op.norm_k.eps) : -INFINITY;
            });
        else
            query.take(batch, first, [=](int key, float score) { return seen(key) ? score : -INFINITY; });
    }
    query.finish(out);
}

template <typename T> static int group_attention_launch(const group_attention_t &op, cudaStream_t stream)
{
    return with_geometry<T>("group_attention", op.head_dim, op.head_dim, [&](auto geometry) {
        typedef decltype(geometry) G;

        return launch("group_attention", op.norm_q.present ? group_attention_kernel<G, true> : group_attention_kernel<G, false>,
                      blocks_for(op.items, G::GROUPS), ATTENTION_THREADS, 0, stream, op);
    });
}

extern "C" int cuda_group_attention_launch(const backend_group_attention_t *op, cudaStream_t stream)
{
    group_attention_t p = {};

    if (op->out.dtype != op->qkv.dtype)
        return error_set(BACKEND_ERR_UNSUPPORTED, "group_attention: on CUDA qkv and out have one dtype");
    p.qkv = op->qkv.data;
    p.out = op->out.data;
    p.group = static_cast<const int32_t *>(op->group->data);
    p.visible = op->visible != NULL ? static_cast<const uint8_t *>(op->visible->data) : NULL;
    p.norm_q = head_norm_of(op->norm, false);
    p.norm_k = head_norm_of(op->norm, true);
    p.items = op->sets * op->variates * op->tokens * op->heads;
    p.samples = op->samples;
    p.tokens = op->tokens;
    p.heads = op->heads;
    p.group_tokens = op->group_tokens;
    p.variates = (int)op->variates;
    p.head_dim = op->head_dim;
    p.scale = op->scale;
    return op->qkv.dtype == BACKEND_BF16 ? group_attention_launch<__nv_bfloat16>(p, stream)
                                         : group_attention_launch<float>(p, stream);
}
