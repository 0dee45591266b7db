/* The front of the ops: mean and quantiles. Every descriptor is checked here, once for all backends, and handed to the vtable. */
#include "gpuworker/backend/ops_check.h"

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
                 check_strided(PRODUCT(op->series, op->samples, op->variates), op->path_stride, op->horizon));
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
