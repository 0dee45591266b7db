/* See ops_check.h. */
#include "gpuworker/backend/ops_check.h"

#include <limits.h>

#include "base/error.h"

check_t check_begin(backend_t *backend, const char *op)
{
    return (check_t){.backend = backend, .op = op, .rc = backend_front_enter(backend)};
}

int64_t check_product(const int64_t *factors, size_t count)
{
    int64_t result = 1;
    for (size_t i = 0; i < count; i++)
        if (factors[i] < 0 || __builtin_mul_overflow(result, factors[i], &result))
            return INT64_MAX;
    return result;
}

int64_t check_strided(int64_t rows, int64_t stride, int64_t width)
{
    int64_t reach = PRODUCT(rows - 1, stride);
    return reach > INT64_MAX - width ? INT64_MAX : reach + width;
}

void check_range(check_t *check, const char *field, int64_t value, int64_t least, int64_t most)
{
    if (check->rc == BACKEND_OK && (value < least || value > most))
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s is %lld, expected %lld to %lld", check->op, field, (long long)value,
                              (long long)least, (long long)most);
}

void check_size(check_t *check, const char *field, int64_t value)
{
    check_range(check, field, value, 1, INT32_MAX);
}

static const char *dtype_name(backend_dtype_t dtype)
{
    static const char *const names[] = {"F32", "BF16", "F64", "I32", "I64", "U64", "U8"};
    return (unsigned)dtype < sizeof names / sizeof *names ? names[dtype] : "?";
}

void check_tensor(check_t *check, const char *field, const backend_tensor_t *tensor, unsigned dtypes, int64_t elements)
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

void check_optional(check_t *check, const char *field, const backend_tensor_t *tensor, unsigned dtypes, int64_t elements)
{
    if (tensor != NULL)
        check_tensor(check, field, tensor, dtypes, elements);
}

void check_cache(check_t *check, const char *field, const backend_tensor_t *tensor, int64_t rows, int heads, int64_t tokens,
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

void check_equal(check_t *check, bool equal, const char *what)
{
    if (check->rc == BACKEND_OK && !equal)
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s", check->op, what);
}

void check_multiple(check_t *check, const char *field, int64_t rows, int64_t of)
{
    if (check->rc == BACKEND_OK && rows % of != 0)
        check->rc = error_set(BACKEND_ERR_INVALID, "%s: %s is %lld, expected a multiple of %lld", check->op, field, (long long)rows,
                              (long long)of);
}

void check_supported(check_t *check, bool implemented)
{
    if (check->rc == BACKEND_OK && !implemented)
        check->rc = error_set(BACKEND_ERR_UNSUPPORTED, "%s: %s has no such op", check->op, check->backend->name);
}
