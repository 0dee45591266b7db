/* The front of the ops: steps, linear layers, attention. Every descriptor is checked here, once for all backends, and handed to the vtable. */
#include "gpuworker/backend/ops_check.h"

int backend_step_set(backend_t *backend, const backend_tensor_t *step, int32_t value)
{
    check_t check = check_begin(backend, "step_set");

    check_tensor(&check, "step", step, I32, 1);
    return RUN(check, backend->vtable->step_set(backend, step, value));
}

int backend_step_advance(backend_t *backend, const backend_tensor_t *step)
{
    check_t check = check_begin(backend, "step_advance");

    check_tensor(&check, "step", step, I32, 1);
    return RUN(check, backend->vtable->step_advance(backend, step));
}

static void check_modulation(check_t *check, const backend_modulation_t *modulation, int64_t rows, int64_t in, int64_t columns)
{
    int64_t conditions;

    if (modulation == NULL)
        return;
    check_range(check, "modulation.rows_each", modulation->rows_each, 1, INT32_MAX);
    check_range(check, "modulation.stride", modulation->stride, 0, INT64_MAX);
    check_equal(check, (modulation->shift != NULL) == (modulation->scale != NULL), "modulation has only one of shift and scale");
    if (check->rc < 0)
        return;
    conditions = (rows - 1) / modulation->rows_each + 1;
    check_optional(check, "modulation.shift", modulation->shift, F32, check_strided(conditions, modulation->stride, in));
    check_optional(check, "modulation.scale", modulation->scale, F32, check_strided(conditions, modulation->stride, in));
    check_optional(check, "modulation.gate", modulation->gate, F32, check_strided(conditions, modulation->stride, columns));
}

int backend_linear(backend_t *backend, const backend_linear_t *op)
{
    check_t check = check_begin(backend, "linear");
    int64_t out, in, columns, reach;

    check_size(&check, "rows", op->rows);
    check_range(&check, "x_stride", op->x_stride, 0, INT64_MAX);
    check_equal(&check, op->weight != NULL && op->weight->tensor.data != NULL && op->weight->tensor.rank == 2,
                "weight is no matrix [out][in]");
    if (check.rc < 0)
        return check.rc;
    out = op->weight->tensor.dim[0];
    in = op->weight->tensor.dim[1];
    columns = op->activation == BACKEND_ACT_SWIGLU ? out / 2 : out;
    check_tensor(&check, "weight", &op->weight->tensor, FLOAT, 1);
    check_tensor(&check, "x", &op->x, FLOAT, check_strided(op->rows, op->x_stride > 0 ? op->x_stride : in, in));
    check_optional(&check, "bias", op->bias != NULL ? &op->bias->tensor : NULL, F32, out);
    check_range(&check, "norm.kind", op->norm.kind, BACKEND_NORM_NONE, BACKEND_NORM_LAYER);
    check_optional(&check, "norm.scale", op->norm.scale != NULL ? &op->norm.scale->tensor : NULL, F32, in);
    check_optional(&check, "norm.shift", op->norm.shift != NULL ? &op->norm.shift->tensor : NULL, F32, in);
    check_equal(&check, op->norm.kind == BACKEND_NORM_NONE || op->norm.eps >= 0, "norm.eps is negative");
    check_range(&check, "activation", op->activation, BACKEND_ACT_NONE, BACKEND_ACT_SWIGLU);
    if (op->activation == BACKEND_ACT_SWIGLU)
        check_multiple(&check, "the number of outputs of swiglu", out, 2);
    if (op->y_stride != 0)
        check_range(&check, "y_stride", op->y_stride, columns, INT64_MAX);
    reach = check_strided(op->rows, op->y_stride > 0 ? op->y_stride : columns, columns);
    check_tensor(&check, "y", &op->y, FLOAT, reach);
    check_optional(&check, "residual", op->residual, F32, reach);
    check_optional(&check, "offset", op->offset, F32, reach);
    check_modulation(&check, op->modulation, op->rows, in, columns);
    return RUN(check, backend->vtable->linear(backend, op));
}

static void check_rope(check_t *check, const backend_attention_t *op, int64_t prefix_rows)
{
    const backend_tensor_t *table = op->rope.table, *index = op->rope.index;
    int rank = op->mode == BACKEND_ATTENTION_EXTEND || op->mode == BACKEND_ATTENTION_APPEND ? 3 : 2;

    if (table == NULL || check->rc < 0)
        return;
    check_equal(check, op->mode != BACKEND_ATTENTION_QUERY, "rope.table is given, but QUERY never rotates");
    check_tensor(check, "rope.table", table, F32, 1);
    check_equal(check, table->rank == 3 && table->dim[1] == 4, "rope.table does not have the shape [positions][4][rotary_dim]");
    if (check->rc < 0)
        return;
    check_range(check, "rope.table's rotary_dim", table->dim[2], 2, op->head_dim);
    check_multiple(check, "rope.table's rotary_dim", table->dim[2], 2);
    check_tensor(check, "rope.index", index, I32, 1);
    check_equal(check, check->rc < 0 || (index->rank == rank && index->dim[0] >= prefix_rows && index->dim[rank - 1] >= op->tokens),
                rank == 3 ? "rope.index does not have the shape [prefix rows][steps][columns]"
                          : "rope.index does not have the shape [prefix rows][columns]");
}

static void check_head_norm(check_t *check, const backend_head_norm_t *norm, int head_dim)
{
    if (norm == NULL)
        return;
    check_optional(check, "norm.q", norm->q != NULL ? &norm->q->tensor : NULL, F32, head_dim);
    check_optional(check, "norm.k", norm->k != NULL ? &norm->k->tensor : NULL, F32, head_dim);
    check_equal(check, norm->eps >= 0, "norm.eps is negative");
}

/* The cache as the mode reads and writes it. */
static void check_caches(check_t *check, const backend_attention_t *op, int64_t prefix_rows)
{
    bool stores = op->mode == BACKEND_ATTENTION_PREFILL || op->mode == BACKEND_ATTENTION_STORE;
    bool tail = !stores && (op->mode != BACKEND_ATTENTION_QUERY || op->step != NULL);

    if (check->rc < 0 || op->mode == BACKEND_ATTENTION_ENCODE)
        return;
    check_cache(check, "kv.prefix_k", &op->kv->prefix_k, prefix_rows, op->heads, stores ? op->tokens : 0, op->head_dim);
    check_cache(check, "kv.prefix_v", &op->kv->prefix_v, prefix_rows, op->heads, op->kv->prefix_k.dim[2], op->head_dim);
    if (!tail)
        return;
    check_cache(check, "kv.tail_k", &op->kv->tail_k, op->rows, op->heads, 0, op->head_dim);
    check_cache(check, "kv.tail_v", &op->kv->tail_v, op->rows, op->heads, op->kv->tail_k.dim[2], op->head_dim);
    check_tensor(check, "step", op->step, I32, 1);
    if (op->mode == BACKEND_ATTENTION_EXTEND || op->mode == BACKEND_ATTENTION_APPEND) {
        check_size(check, "step_tokens", op->step_tokens);
        check_equal(check, op->tokens <= op->kv->tail_k.dim[2], "kv.tail_k has no room for the tokens");
    }
}

int backend_attention(backend_t *backend, const backend_attention_t *op)
{
    check_t check = check_begin(backend, "attention");
    bool encode = op->mode == BACKEND_ATTENTION_ENCODE;
    bool whole = encode || op->mode == BACKEND_ATTENTION_PREFILL || op->mode == BACKEND_ATTENTION_STORE;
    int64_t prefix_rows;

    check_range(&check, "mode", op->mode, BACKEND_ATTENTION_PREFILL, BACKEND_ATTENTION_QUERY);
    check_size(&check, "rows", op->rows);
    check_range(&check, "tokens", op->tokens, 1, op->mode == BACKEND_ATTENTION_DECODE ? 1 : INT32_MAX);
    check_range(&check, "samples", op->samples, 1, whole ? 1 : INT32_MAX);
    check_size(&check, "variates", op->variates);
    check_size(&check, "heads", op->heads);
    check_size(&check, "head_dim", op->head_dim);
    check_equal(&check, encode == (op->kv == NULL), encode ? "kv is given, but ENCODE stores nothing" : "kv is missing");
    check_equal(&check, encode || op->bias == NULL, "bias is given, but only ENCODE adds one");
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->samples * op->variates);
    prefix_rows = op->rows / op->samples;
    check_tensor(&check, "qkv", &op->qkv, FLOAT, PRODUCT(op->rows, op->tokens, 3, op->heads, op->head_dim));
    if (op->mode != BACKEND_ATTENTION_STORE && op->mode != BACKEND_ATTENTION_APPEND)
        check_tensor(&check, "out", &op->out, FLOAT, PRODUCT(op->rows, op->tokens, op->heads, op->head_dim));
    check_caches(&check, op, prefix_rows);
    check_head_norm(&check, op->norm, op->head_dim);
    check_rope(&check, op, prefix_rows);
    check_optional(&check, "first", op->first, I32, prefix_rows);
    check_optional(&check, "visible", op->visible, U8, PRODUCT(prefix_rows, encode ? op->tokens : op->kv->prefix_k.dim[2]));
    check_optional(&check, "bias", op->bias, F32, PRODUCT(op->heads, 2 * op->tokens - 1));
    return RUN(check, backend->vtable->attention(backend, op));
}

int backend_group_attention(backend_t *backend, const backend_group_attention_t *op)
{
    check_t check = check_begin(backend, "group_attention");

    check_size(&check, "sets", op->sets);
    check_size(&check, "samples", op->samples);
    check_size(&check, "variates", op->variates);
    check_size(&check, "tokens", op->tokens);
    check_size(&check, "heads", op->heads);
    check_size(&check, "head_dim", op->head_dim);
    if (op->group_tokens != 1)
        check_range(&check, "group_tokens", op->group_tokens, op->tokens, INT32_MAX);
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "sets", op->sets, op->samples);
    check_tensor(&check, "qkv", &op->qkv, FLOAT, PRODUCT(op->sets, op->variates, op->tokens, 3, op->heads, op->head_dim));
    check_tensor(&check, "out", &op->out, FLOAT, PRODUCT(op->sets, op->variates, op->tokens, op->heads, op->head_dim));
    check_tensor(&check, "group", op->group, I32, PRODUCT(op->sets / op->samples, op->variates, op->group_tokens));
    check_optional(&check, "visible", op->visible, U8, PRODUCT(op->sets, op->variates, op->tokens));
    check_head_norm(&check, op->norm, op->head_dim);
    return RUN(check, backend->vtable->group_attention(backend, op));
}

void check_embed(check_t *check, const backend_embed_t *op)
{
    int64_t reach;

    check_size(check, "rows", op->rows);
    check_size(check, "tokens", op->tokens);
    check_size(check, "width", op->width);
    check_range(check, "count", op->count, 1, BACKEND_EMBED_TABLES_MOST);
    check_range(check, "index_stride", op->index_stride, 0, INT64_MAX);
    check_range(check, "table_stride", op->table_stride, 0, INT64_MAX);
    check_range(check, "y_stride", op->y_stride, 0, INT64_MAX);
    check_equal(check, op->activation == BACKEND_ACT_NONE || op->activation == BACKEND_ACT_SILU,
                "activation is neither none nor silu");
    if (check->rc < 0)
        return;
    check_multiple(check, "rows", op->rows, op->tokens);
    for (int t = 0; t < op->count; t++) {
        check_tensor(check, "table", &op->table[t], FLOAT, op->width);
        check_equal(check, check->rc < 0 || (op->table[t].rank == 2 && op->table[t].dim[1] == op->width),
                    "a table does not have the shape [entries][width]");
    }
    reach = check_strided(op->rows / op->tokens, op->index_stride, op->tokens);
    check_tensor(check, "indices", &op->indices, I32, check_strided(op->count, op->table_stride, reach));
    check_optional(check, "bias", op->bias != NULL ? &op->bias->tensor : NULL, F32, op->width);
    check_tensor(check, "y", &op->y, FLOAT, check_strided(op->rows, op->y_stride > 0 ? op->y_stride : op->width, op->width));
    check_optional(check, "step", op->step, I32, 1);
}

int backend_embed(backend_t *backend, const backend_embed_t *op)
{
    check_t check = check_begin(backend, "embed");

    check_embed(&check, op);
    check_supported(&check, backend->vtable->embed != NULL);
    return RUN(check, backend->vtable->embed(backend, op));
}
