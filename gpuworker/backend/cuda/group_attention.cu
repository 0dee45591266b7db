/* Attention across the variates of one series at one token: out = softmax(scale · q kᵀ) v over the variates of equal group id.
 *
 * qkv [sets][variates][T][3][heads][head_dim] -> out [sets][variates][T][heads][head_dim], F32 or BF16; group I32 [sets /
 * samples][variates]. A group of lanes a (set, variate, token, head), head fastest; the keys are read in place, T · 3 · heads ·
 * head_dim apart. */
#include "gpuworker/backend/cuda/attention.cuh"

template <typename G>
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    group_attention_kernel(const typename G::T *qkv, typename G::T *out, const int32_t *group, int64_t items, int64_t samples,
                           int variates, int64_t tokens, int64_t heads, int head_dim, float scale)
{
    int64_t own_item = (int64_t)blockIdx.x * (blockDim.x / G::LANES) + threadIdx.x / G::LANES;
    int64_t item = own_item < items ? own_item : items - 1; /* surplus groups repeat the last one */
    int64_t head = item % heads, token = item / heads % tokens, variate = item / heads / tokens % variates,
            set = item / heads / tokens / variates;
    int64_t part = heads * head_dim, pitch = tokens * 3 * part;

    begin();
    const typename G::T *keys = qkv + (set * variates * tokens + token) * 3 * part + head * head_dim;
    const int32_t *groups = group + set / samples * variates;
    int32_t own = groups[variate];
    query_t<G> query(head_dim);

    if (query.active)
        load<G::PER>(query.q, keys + variate * pitch + query.at);
#pragma unroll
    for (int i = 0; i < G::PER; i++)
        query.q[i] *= scale;
    query.attend(keys + part, keys + 2 * part, pitch, 0, variates, [=](int key) { return groups[key] == own; });
    query.finish(out + ((set * variates + variate) * tokens + token) * part + head * head_dim);
}

template <typename T> static int group_attention_launch(const backend_group_attention_t *op, cudaStream_t stream)
{
    return with_geometry<T>("group_attention", op->head_dim, op->head_dim, [&](auto geometry) {
        typedef decltype(geometry) G;
        int64_t items = op->sets * op->variates * op->tokens * op->heads;

        return launch("group_attention", group_attention_kernel<G>, blocks_for(items, G::GROUPS), ATTENTION_THREADS, 0, stream,
                      static_cast<const T *>(op->qkv.data), static_cast<T *>(op->out.data),
                      static_cast<const int32_t *>(op->group->data), items, op->samples, op->variates, op->tokens, op->heads,
                      op->head_dim, op->scale);
    });
}

extern "C" int cuda_group_attention_launch(const backend_group_attention_t *op, cudaStream_t stream)
{
    if (op->group_tokens > 1 || op->norm != NULL)
        return error_set(BACKEND_ERR_UNSUPPORTED, "group_attention: CUDA has only one id for all tokens, without norms");
    if (op->visible != NULL)
        return error_set(BACKEND_ERR_UNSUPPORTED, "group_attention: CUDA has no invisible tokens");
    if (op->out.dtype != op->qkv.dtype)
        return error_set(BACKEND_ERR_UNSUPPORTED, "group_attention: on CUDA qkv and out have one dtype");
    return op->qkv.dtype == BACKEND_BF16 ? group_attention_launch<__nv_bfloat16>(op, stream)
                                         : group_attention_launch<float>(op, stream);
}
