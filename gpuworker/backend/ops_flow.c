/* The front of the ops: flows. Every descriptor is checked here, once for all backends, and handed to the vtable. */
#include "gpuworker/backend/ops_check.h"

/* What both ops say about their rows. */
static void check_rows(check_t *check, int64_t rows, int64_t width, int64_t samples, int64_t variates, int64_t stride)
{
    check_size(check, "rows", rows);
    check_size(check, "width", width);
    check_size(check, "samples", samples);
    check_size(check, "variates", variates);
    check_range(check, "stride", stride, width, INT64_MAX);
    if (check->rc == BACKEND_OK)
        check_multiple(check, "rows", rows, samples * variates);
}

int backend_flow_start(backend_t *backend, const backend_flow_start_t *op)
{
    check_t check = check_begin(backend, "flow_start");
    int64_t reach;

    check_rows(&check, op->rows, op->width, op->samples, op->variates, op->stride);
    check_range(&check, "first", op->first, 0, INT32_MAX - op->width);
    check_size(&check, "steps", op->steps);
    if (check.rc < 0)
        return check.rc;
    reach = check_strided(op->rows, op->stride, op->width);
    if (op->given != NULL) {
        check_range(&check, "given_stride", op->given_stride, op->first + op->width, INT64_MAX);
        check_tensor(&check, "given", op->given, F32, check_strided(op->rows, op->given_stride, op->first + op->width));
    } else {
        check_tensor(&check, "keys", op->keys, U64, op->rows / (op->samples * op->variates));
    }
    check_equal(&check, op->bias != NULL, "bias is missing");
    check_optional(&check, "bias", op->bias != NULL ? &op->bias->tensor : NULL, F32, op->width);
    check_tensor(&check, "x", &op->x, F32, reach);
    check_tensor(&check, "drift", &op->drift, F32, reach);
    check_supported(&check, backend->vtable->flow_start != NULL);
    return RUN(check, backend->vtable->flow_start(backend, op));
}

int backend_flow_finish(backend_t *backend, const backend_flow_finish_t *op)
{
    check_t check = check_begin(backend, "flow_finish");

    check_rows(&check, op->rows, op->width, op->samples, op->variates, op->stride);
    check_range(&check, "path_stride", op->path_stride, op->width, INT64_MAX);
    if (check.rc < 0)
        return check.rc;
    check_tensor(&check, "x", &op->x, F32, check_strided(op->rows, op->stride, op->width));
    check_tensor(&check, "loc", &op->loc, F32, op->rows / op->samples);
    check_tensor(&check, "scale", &op->scale, F32, op->rows / op->samples);
    check_tensor(&check, "paths", &op->paths, F32, check_strided(op->rows, op->path_stride, op->width));
    check_optional(&check, "median", op->median, F32, PRODUCT(op->rows / op->samples, op->width));
    check_supported(&check, backend->vtable->flow_finish != NULL);
    return RUN(check, backend->vtable->flow_finish(backend, op));
}
