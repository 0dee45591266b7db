/* How the front checks an op's descriptor: a list of checks of which the first fault stays, then the vtable call.
 *
 *     check_t check = check_begin(backend, "summarize");
 *     check_size(&check, "series", op->series);
 *     ...
 *     return RUN(check, backend->vtable->summarize(backend, op));
 *
 * Private to the front (ops_*.c). */
#ifndef BARCAST_GPUWORKER_BACKEND_OPS_CHECK_H
#define BARCAST_GPUWORKER_BACKEND_OPS_CHECK_H

#include "gpuworker/backend/backend_impl.h"

/* Sets of dtypes. */
enum { F32 = 1 << BACKEND_F32, BF16 = 1 << BACKEND_BF16, F64 = 1 << BACKEND_F64, I32 = 1 << BACKEND_I32, U64 = 1 << BACKEND_U64 };
enum { U8 = 1 << BACKEND_U8, FLOAT = F32 | BF16 };

/* The first fault stays; later checks do nothing. */
typedef struct {
    backend_t *backend;
    const char *op;
    int rc;
} check_t;

check_t check_begin(backend_t *backend, const char *op);

/* Product of sizes; more than fits (or a negative size, reported by its own check) gives INT64_MAX, which no tensor holds. */
int64_t check_product(const int64_t *factors, size_t count);
#define PRODUCT(...) check_product((const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* Elements that `rows` rows of `width` cover when they start `stride` apart. */
int64_t check_strided(int64_t rows, int64_t stride, int64_t width);

void check_range(check_t *check, const char *field, int64_t value, int64_t least, int64_t most);
void check_size(check_t *check, const char *field, int64_t value); /* 1 to INT32_MAX */
void check_tensor(check_t *check, const char *field, const backend_tensor_t *tensor, unsigned dtypes, int64_t elements);
void check_optional(check_t *check, const char *field, const backend_tensor_t *tensor, unsigned dtypes, int64_t elements);
/* A [rows][heads][tokens][head_dim] cache part: rank and dims exactly; tokens 0: any. */
void check_cache(check_t *check, const char *field, const backend_tensor_t *tensor, int64_t rows, int heads, int64_t tokens,
                 int head_dim);
void check_equal(check_t *check, bool equal, const char *what);
void check_multiple(check_t *check, const char *field, int64_t rows, int64_t of);
/* All that backend_embed wants of its descriptor. */
void check_embed(check_t *check, const backend_embed_t *op);
/* BACKEND_ERR_UNSUPPORTED unless the backend implements the op: its vtable slot is not NULL. */
void check_supported(check_t *check, bool implemented);

/* Calls the op when all checks passed. */
#define RUN(check, op_call) ((check).rc < 0 ? (check).rc : backend_front_leave((check).backend, (op_call)))

#endif
