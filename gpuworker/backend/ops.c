/* The front of the backends, part two: every op's descriptor is checked here, once for all backends, and handed to the vtable. */
#include <limits.h>

#include "base/error.h"
#include "gpuworker/backend/backend_impl.h"

/* ---- checking ----------------------------------------------------------------------------------------------------------------- */

enum { F32 = 1 << BACKEND_F32, BF16 = 1 << BACKEND_BF16, F64 = 1 << BACKEND_F64, I32 = 1 << BACKEND_I32, U64 = 1 << BACKEND_U64 };
enum { U8 = 1 << BACKEND_U8, FLOAT = F32 | BF16 };

/* The first fault stays; later checks do nothing. */
typedef struct {
    backend_t *backend;
    const char *op;
    int rc;
} check_t;

static check_t check_begin(backend_t *backend, const char *op)
{
    return (check_t){.backend = backend, .op = op, .rc = backend_front_enter(backend)};
}

/* Product of sizes; more than fits (or a negative size, reported by its own check) gives INT64_MAX, which no tensor holds. */
static int64_t product(const int64_t *factors, size_t count)
{
    int64_t result = 1;
    for (size_t i = 0; i < count; i++)
        if (factors[i] < 0 || __builtin_mul_overflow(result, factors[i], &result))
            return INT64_MAX;
    return result;
}

#define PRODUCT(...) product((const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* Elements that `rows` rows of `width` cover when they start `stride` apart. */
static int64_t strided(int64_t rows, int64_t stride, int64_t width)
{
    int64_t reach = PRODUCT(rows - 1, stride);
    return reach > INT64_MAX - width ? INT64_MAX : reach + width;
}

static void check_range(check_t *check, const char *field, int64_t value, int64_t least, int64_t most)
{
    if (check->rc == BACKEND_OK && (value < least || value > most))
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s is %lld, expected %lld to %lld", check->op, field, (long long)value,
                              (long long)least, (long long)most);
}

static void check_size(check_t *check, const char *field, int64_t value)
{
    check_range(check, field, value, 1, INT32_MAX);
}

static const char *dtype_name(backend_dtype_t dtype)
{
    static const char *const names[] = {"F32", "BF16", "F64", "I32", "I64", "U64", "U8"};
    return (unsigned)dtype < sizeof names / sizeof *names ? names[dtype] : "?";
}

static void check_tensor(check_t *check, const char *field, const backend_tensor_t *tensor, unsigned dtypes, int64_t elements)
{
    if (check->rc != BACKEND_OK)
        return;
    if (tensor == NULL || tensor->data == NULL)
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s is missing", check->op, field);
    else if ((unsigned)tensor->dtype > BACKEND_U8 || !(dtypes & (1u << tensor->dtype)))
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s cannot be %s", check->op, field, dtype_name(tensor->dtype));
    else if (tensor->dtype == BACKEND_BF16 && !check->backend->bf16)
        check->rc = error_set(BACKEND_ERR_UNSUPPORTED, "%s: %s is BF16, which %s has not", check->op, field, check->backend->name);
    else if (backend_tensor_elements(tensor) < elements)
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s holds %lld elements, expected %lld", check->op, field,
                              (long long)backend_tensor_elements(tensor), (long long)elements);
}

static void check_optional(check_t *check, const char *field, const backend_tensor_t *tensor, unsigned dtypes, int64_t elements)
{
    if (tensor != NULL)
        check_tensor(check, field, tensor, dtypes, elements);
}

/* A [heads][tokens][head_dim] cache part: rank and dims exactly. */
static void check_cache(check_t *check, const char *field, const backend_tensor_t *tensor, int64_t rows, int heads, int64_t tokens,
                        int head_dim)
{
    check_tensor(check, field, tensor, FLOAT, 1);
    if (check->rc != BACKEND_OK)
        return;
    if (tensor->rank != 4 || tensor->dim[0] < rows || tensor->dim[1] != heads || (tokens > 0 && tensor->dim[2] != tokens) ||
        tensor->dim[3] != head_dim)
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s does not have the shape [%lld][%d][%s][%d]", check->op, field,
                              (long long)rows, heads, tokens > 0 ? "tokens" : "any", head_dim);
}

static void check_equal(check_t *check, bool equal, const char *what)
{
    if (check->rc == BACKEND_OK && !equal)
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s", check->op, what);
}

static void check_multiple(check_t *check, const char *field, int64_t rows, int64_t of)
{
    if (check->rc == BACKEND_OK && rows % of != 0)
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s is %lld, expected a multiple of %lld", check->op, field, (long long)rows,
                              (long long)of);
}

/* Calls the op when all checks passed. */
#define RUN(check, op_call) ((check).rc < 0 ? (check).rc : backend_front_leave((check).backend, (op_call)))

/* ---- ops ---------------------------------------------------------------------------------------------------------------------- */

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

int backend_linear(backend_t *backend, const backend_linear_t *op)
{
    check_t check = check_begin(backend, "linear");
    int64_t out, in, columns;

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
    check_tensor(&check, "x", &op->x, FLOAT, strided(op->rows, op->x_stride > 0 ? op->x_stride : in, in));
    check_optional(&check, "bias", op->bias != NULL ? &op->bias->tensor : NULL, F32, out);
    check_range(&check, "norm.kind", op->norm.kind, BACKEND_NORM_NONE, BACKEND_NORM_LAYER);
    check_optional(&check, "norm.scale", op->norm.scale != NULL ? &op->norm.scale->tensor : NULL, F32, in);
    check_optional(&check, "norm.shift", op->norm.shift != NULL ? &op->norm.shift->tensor : NULL, F32, in);
    check_equal(&check, op->norm.kind == BACKEND_NORM_NONE || op->norm.eps >= 0, "norm.eps is negative");
    check_range(&check, "activation", op->activation, BACKEND_ACT_NONE, BACKEND_ACT_SWIGLU);
    if (op->activation == BACKEND_ACT_SWIGLU)
        check_multiple(&check, "the number of outputs of swiglu", out, 2);
    check_tensor(&check, "y", &op->y, FLOAT, PRODUCT(op->rows, columns));
    check_optional(&check, "residual", op->residual, F32, PRODUCT(op->rows, columns));
    return RUN(check, backend->vtable->linear(backend, op));
}

static void check_rope(check_t *check, const backend_rope_t *rope, int head_dim, int64_t prefix_rows, int64_t columns)
{
    const backend_tensor_t *table = rope->table;

    if (table == NULL || check->rc < 0)
        return;
    check_tensor(check, "rope.table", table, F32, 1);
    check_equal(check, table->rank == 3 && table->dim[1] == 4, "rope.table does not have the shape [positions][4][rotary_dim]");
    if (check->rc < 0)
        return;
    check_range(check, "rope.table's rotary_dim", table->dim[2], 2, head_dim);
    check_multiple(check, "rope.table's rotary_dim", table->dim[2], 2);
    check_tensor(check, "rope.index", rope->index, I32, 1);
    check_equal(check,
                check->rc < 0 || (rope->index->rank == 2 && rope->index->dim[0] >= prefix_rows && rope->index->dim[1] >= columns),
                "rope.index does not have the shape [prefix rows][columns]");
}

int backend_attention(backend_t *backend, const backend_attention_t *op)
{
    check_t check = check_begin(backend, "attention");
    bool prefill = op->mode == BACKEND_ATTENTION_PREFILL;
    int64_t prefix_rows;

    check_range(&check, "mode", op->mode, BACKEND_ATTENTION_PREFILL, BACKEND_ATTENTION_DECODE);
    check_size(&check, "rows", op->rows);
    check_range(&check, "tokens", op->tokens, 1, prefill ? INT32_MAX : 1);
    check_range(&check, "samples", op->samples, 1, prefill ? 1 : INT32_MAX);
    check_size(&check, "variates", op->variates);
    check_size(&check, "heads", op->heads);
    check_size(&check, "head_dim", op->head_dim);
    check_equal(&check, op->kv != NULL, "kv is missing");
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->samples * op->variates);
    prefix_rows = op->rows / op->samples;
    check_tensor(&check, "qkv", &op->qkv, FLOAT, PRODUCT(op->rows, op->tokens, 3, op->heads, op->head_dim));
    check_tensor(&check, "out", &op->out, FLOAT, PRODUCT(op->rows, op->tokens, op->heads, op->head_dim));
    check_cache(&check, "kv.prefix_k", &op->kv->prefix_k, prefix_rows, op->heads, prefill ? op->tokens : 0, op->head_dim);
    check_cache(&check, "kv.prefix_v", &op->kv->prefix_v, prefix_rows, op->heads, op->kv->prefix_k.dim[2], op->head_dim);
    if (!prefill) {
        check_cache(&check, "kv.tail_k", &op->kv->tail_k, op->rows, op->heads, 0, op->head_dim);
        check_cache(&check, "kv.tail_v", &op->kv->tail_v, op->rows, op->heads, op->kv->tail_k.dim[2], op->head_dim);
        check_tensor(&check, "step", op->step, I32, 1);
    }
    check_rope(&check, &op->rope, op->head_dim, prefix_rows, op->tokens);
    check_optional(&check, "first", op->first, I32, prefix_rows);
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
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "sets", op->sets, op->samples);
    check_tensor(&check, "qkv", &op->qkv, FLOAT, PRODUCT(op->sets, op->variates, op->tokens, 3, op->heads, op->head_dim));
    check_tensor(&check, "out", &op->out, FLOAT, PRODUCT(op->sets, op->variates, op->tokens, op->heads, op->head_dim));
    check_tensor(&check, "group", op->group, I32, PRODUCT(op->sets / op->samples, op->variates));
    return RUN(check, backend->vtable->group_attention(backend, op));
}

int backend_causal_scale(backend_t *backend, const backend_causal_scale_t *op)
{
    check_t check = check_begin(backend, "causal_scale");
    int64_t values = PRODUCT(op->rows, op->patches, op->patch);

    check_size(&check, "rows", op->rows);
    check_size(&check, "patches", op->patches);
    check_size(&check, "patch", op->patch);
    check_equal(&check, op->minimum >= 0, "minimum is negative");
    check_tensor(&check, "x", &op->x, F32, values);
    check_tensor(&check, "mask", &op->mask, U8, values);
    check_tensor(&check, "y", &op->y, F32, values);
    check_tensor(&check, "loc", &op->loc, F32, PRODUCT(op->rows, op->patches));
    check_tensor(&check, "scale", &op->scale, F32, PRODUCT(op->rows, op->patches));
    check_tensor(&check, "state", &op->state, F64, PRODUCT(op->rows, BACKEND_SCALER_STATE));
    return RUN(check, backend->vtable->causal_scale(backend, op));
}

int backend_causal_scale_extend(backend_t *backend, const backend_causal_scale_extend_t *op)
{
    check_t check = check_begin(backend, "causal_scale_extend");

    check_size(&check, "rows", op->rows);
    check_size(&check, "samples", op->samples);
    check_size(&check, "variates", op->variates);
    check_size(&check, "patch", op->patch);
    check_range(&check, "x_stride", op->x_stride, op->patch, INT64_MAX);
    check_equal(&check, op->minimum >= 0, "minimum is negative");
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->samples * op->variates);
    check_tensor(&check, "x", &op->x, F32, strided(op->rows, op->x_stride, op->patch));
    check_tensor(&check, "state_in", &op->state_in, F64, PRODUCT(op->rows / op->samples, BACKEND_SCALER_STATE));
    check_tensor(&check, "state", &op->state, F64, PRODUCT(op->rows, BACKEND_SCALER_STATE));
    check_equal(&check, op->state.data != op->state_in.data, "state and state_in are the same buffer");
    check_tensor(&check, "y", &op->y, F32, PRODUCT(op->rows, op->patch));
    check_tensor(&check, "loc", &op->loc, F32, op->rows);
    check_tensor(&check, "scale", &op->scale, F32, op->rows);
    check_tensor(&check, "step", op->step, I32, 1);
    return RUN(check, backend->vtable->causal_scale_extend(backend, op));
}

int backend_student_t(backend_t *backend, const backend_student_t_t *op)
{
    check_t check = check_begin(backend, "student_t");
    int64_t values = PRODUCT(op->rows, op->patch, op->components);
    int64_t affine;

    check_size(&check, "rows", op->rows);
    check_size(&check, "patch", op->patch);
    check_size(&check, "components", op->components);
    check_size(&check, "samples", op->samples);
    check_range(&check, "draws", op->draws, 0, INT32_MAX);
    check_size(&check, "variates", op->variates);
    check_range(&check, "out_stride", op->out_stride, 1, INT64_MAX);
    check_range(&check, "out_offset", op->out_offset, 0, op->out_stride - 1);
    check_range(&check, "path_stride", op->path_stride, op->patch, INT64_MAX);
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->samples * op->variates);
    check_tensor(&check, "head", &op->head, F32, PRODUCT(values, 4));
    affine = strided(op->rows, op->out_stride, op->out_offset + 1);
    check_tensor(&check, "out_loc", &op->out_loc, F32, affine);
    check_tensor(&check, "out_scale", &op->out_scale, F32, affine);
    if (op->draws > 0)
        check_tensor(&check, "keys", op->keys, U64, op->rows / (op->samples * op->variates));
    check_tensor(&check, "step", op->step, I32, 1);
    check_tensor(&check, "paths", &op->paths, F32,
                 strided(PRODUCT(op->rows, op->draws > 0 ? op->draws : 1), op->path_stride, op->patch));
    check_optional(&check, "params", op->params, F32, PRODUCT(values, 4));
    return RUN(check, backend->vtable->student_t(backend, op));
}

int backend_override(backend_t *backend, const backend_override_t *op)
{
    check_t check = check_begin(backend, "override");

    check_size(&check, "series", op->series);
    check_size(&check, "samples", op->samples);
    check_size(&check, "variates", op->variates);
    check_range(&check, "exogenous", op->exogenous, 1, op->variates);
    check_size(&check, "patch", op->patch);
    check_range(&check, "path_stride", op->path_stride, op->patch, INT64_MAX);
    check_range(&check, "future_stride", op->future_stride, op->patch, INT64_MAX);
    check_tensor(&check, "paths", &op->paths, F32,
                 strided(PRODUCT(op->series, op->samples, op->variates), op->path_stride, op->patch));
    check_tensor(&check, "future", &op->future, F32, strided(PRODUCT(op->series, op->exogenous), op->future_stride, op->patch));
    check_tensor(&check, "step", op->step, I32, 1);
    return RUN(check, backend->vtable->override(backend, op));
}

int backend_summarize(backend_t *backend, const backend_summarize_t *op)
{
    check_t check = check_begin(backend, "summarize");
    int64_t values = PRODUCT(op->series, op->variates, op->horizon);

    check_size(&check, "series", op->series);
    check_size(&check, "samples", op->samples);
    check_size(&check, "variates", op->variates);
    check_size(&check, "horizon", op->horizon);
    check_range(&check, "path_stride", op->path_stride, op->horizon, INT64_MAX);
    check_tensor(&check, "paths", &op->paths, F32,
                 strided(PRODUCT(op->series, op->samples, op->variates), op->path_stride, op->horizon));
    check_tensor(&check, "mean", &op->mean, F32, values);
    if (op->levels != NULL) {
        check_tensor(&check, "levels", op->levels, F32, 1);
        if (check.rc == BACKEND_OK)
            check_tensor(&check, "quantiles", op->quantiles, F32, PRODUCT(values, backend_tensor_elements(op->levels)));
    }
    return RUN(check, backend->vtable->summarize(backend, op));
}

int backend_random_walk(backend_t *backend, const backend_random_walk_t *op)
{
    check_t check = check_begin(backend, "random_walk");

    check_size(&check, "rows", op->rows);
    check_size(&check, "context", op->context);
    check_size(&check, "horizon", op->horizon);
    check_range(&check, "levels", op->levels, 0, INT32_MAX);
    check_tensor(&check, "x", &op->x, F32, PRODUCT(op->rows, op->context));
    check_tensor(&check, "mask", &op->mask, U8, PRODUCT(op->rows, op->context));
    check_tensor(&check, "log", op->log, U8, op->rows);
    check_tensor(&check, "mean", &op->mean, F32, PRODUCT(op->rows, op->horizon));
    if (op->levels > 0) {
        check_tensor(&check, "z", op->z, F32, op->levels);
        check_tensor(&check, "quantiles", &op->quantiles, F32, PRODUCT(op->rows, op->levels, op->horizon));
    }
    return RUN(check, backend->vtable->random_walk(backend, op));
}
