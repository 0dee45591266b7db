/* Which kernel an attention takes. */
#include "gpuworker/backend/cuda/attention_op.cuh"

enum {
    FEW_TOKENS = 16, /* queries of a row and head that are better off without tensor cores, with as few keys as these */
    FEW_KEYS = 64,
    SHORT_KEYS = 32, /* prefix and tail that one group of lanes goes through quickly enough */
};

static const void *data_of(const backend_tensor_t *tensor)
{
    return tensor != NULL ? tensor->data : NULL;
}

static attention_t attention_of(const backend_attention_t *op)
{
    const backend_kv_t *kv = op->kv;
    attention_t p = {};

    p.mode = op->mode;
    p.qkv = op->qkv.data;
    p.out = op->out.data;
    p.norm_q = head_norm_of(op->norm, false);
    p.norm_k = head_norm_of(op->norm, true);
    p.first = static_cast<const int32_t *>(data_of(op->first));
    p.visible = static_cast<const uint8_t *>(data_of(op->visible));
    p.bias = static_cast<const float *>(data_of(op->bias));
    p.step = static_cast<const int32_t *>(data_of(op->step));
    p.rows = op->rows;
    p.samples = (unsigned)op->samples;
    p.variates = (unsigned)op->variates;
    p.tokens = (int)op->tokens;
    p.step_tokens = op->mode == BACKEND_ATTENTION_EXTEND || op->mode == BACKEND_ATTENTION_APPEND ? (int)op->step_tokens : 1;
    p.heads = (unsigned)op->heads;
    p.head_dim = op->head_dim;
    p.scale = op->scale;
    if (kv != NULL) {
        p.prefix_k = kv->prefix_k.data;
        p.prefix_v = kv->prefix_v.data;
        p.prefix_tokens = (int)kv->prefix_k.dim[2];
        if (kv->tail_k.rank == 4) {
            p.tail_k = kv->tail_k.data;
            p.tail_v = kv->tail_v.data;
            p.tail_tokens = (int)kv->tail_k.dim[2];
        }
    }
    if (op->rope.table != NULL) {
        const backend_tensor_t *index = op->rope.index;

        p.table = static_cast<const float *>(op->rope.table->data);
        p.rotary_dim = (int)op->rope.table->dim[2];
        p.interleaved = op->rope.interleaved;
        p.index = static_cast<const int32_t *>(index->data);
        p.step_columns = index->rank == 3 ? index->dim[2] : 1;
        p.index_stride = index->dim[1] * (index->rank == 3 ? index->dim[2] : 1);
    }
    return p;
}

extern "C" int cuda_attention_launch(const backend_attention_t *op, cudaStream_t stream)
{
    const backend_kv_t *kv = op->kv;
    backend_dtype_t dtype = op->qkv.dtype;
    attention_t p = attention_of(op);
    bool whole = op->mode == BACKEND_ATTENTION_PREFILL || op->mode == BACKEND_ATTENTION_ENCODE;
    bool queries = op->mode != BACKEND_ATTENTION_STORE && op->mode != BACKEND_ATTENTION_APPEND;
    int keys = whole ? p.tokens : p.prefix_tokens + p.tail_tokens;

    if ((queries && op->out.dtype != dtype) || (kv != NULL && (kv->prefix_k.dtype != dtype || kv->prefix_v.dtype != dtype)) ||
        (p.tail_k != NULL && (kv->tail_k.dtype != dtype || kv->tail_v.dtype != dtype)))
        return error_set(BACKEND_ERR_UNSUPPORTED, "attention: on CUDA qkv, out and the cache have one dtype");
    if (op->rows * op->heads > INT32_MAX / 64 || op->tokens > INT32_MAX / 64)
        return error_set(BACKEND_ERR_UNSUPPORTED, "attention: %lld rows of %lld tokens and %d heads are too many for CUDA",
                         (long long)op->rows, (long long)op->tokens, op->heads);
    switch (op->mode) {
    case BACKEND_ATTENTION_DECODE:
        if (keys <= SHORT_KEYS && op->norm == NULL && op->visible == NULL)
            return cuda_attention_decode(p, dtype, stream);
        return cuda_attention_query(p, dtype, stream);
    case BACKEND_ATTENTION_QUERY:
        return cuda_attention_query(p, dtype, stream);
    case BACKEND_ATTENTION_PREFILL:
    case BACKEND_ATTENTION_ENCODE:
    case BACKEND_ATTENTION_EXTEND:
        if (whole && cuda_attention_few_fits(p))
            return cuda_attention_few(p, dtype, stream);
        if (dtype == BACKEND_BF16 && (p.tokens > FEW_TOKENS || keys > FEW_KEYS) && cuda_attention_tiles_fits(p))
            return cuda_attention_tiles(p, stream);
        break;
    case BACKEND_ATTENTION_STORE:
    case BACKEND_ATTENTION_APPEND:
        return cuda_attention_place(p, dtype, stream);
    }
    return cuda_attention_rows(p, dtype, stream);
}
