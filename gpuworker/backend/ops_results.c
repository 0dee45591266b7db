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

/* The parts of a quantile head that only a forecast needs. */
static void check_forecast(check_t *check, const backend_quantile_head_t *op)
{
    int64_t values = PRODUCT(op->rows, op->total);

    check_range(check, "horizon", op->horizon, 1, op->length);
    check_range(check, "offset", op->offset, 0, op->total - op->horizon);
    if (op->asked != NULL) {
        check_tensor(check, "asked", op->asked, F32, 1);
        if (check->rc == BACKEND_OK)
            check_tensor(check, "quantiles", op->quantiles, F32, PRODUCT(values, backend_tensor_elements(op->asked)));
    }
    check_tensor(check, "mean", op->mean, F32, values);
}

int backend_quantile_head(backend_t *backend, const backend_quantile_head_t *op)
{
    check_t check = check_begin(backend, "quantile_head");
    int64_t patches, reach;

    check_size(&check, "rows", op->rows);
    check_size(&check, "patch", op->patch);
    check_size(&check, "length", op->length);
    check_range(&check, "levels", op->levels, 1, BACKEND_LEVELS_MOST);
    check_range(&check, "row_stride", op->row_stride, 0, INT64_MAX);
    check_range(&check, "patch_stride", op->patch_stride, 0, INT64_MAX);
    check_range(&check, "level_stride", op->level_stride, 0, INT64_MAX);
    check_range(&check, "value_stride", op->value_stride, 0, INT64_MAX);
    check_range(&check, "loc_stride", op->loc_stride, 0, INT64_MAX);
    check_range(&check, "loc_patch_stride", op->loc_patch_stride, 0, INT64_MAX);
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "length", op->length, op->patch);
    patches = op->length / op->patch;
    reach = check_strided(op->patch, op->value_stride, 1);
    reach = check_strided(op->levels, op->level_stride, reach);
    reach = check_strided(patches, op->patch_stride, reach);
    check_tensor(&check, "head", &op->head, F32, check_strided(op->rows, op->row_stride, reach));
    reach = check_strided(op->rows, op->loc_stride, check_strided(patches, op->loc_patch_stride, 1));
    check_tensor(&check, "loc", &op->loc, F32, reach);
    check_tensor(&check, "scale", &op->scale, F32, reach);
    check_equal(&check, (op->low == NULL) == (op->high == NULL), "a cap has a low and a high end");
    check_optional(&check, "low", op->low, F32, op->rows);
    check_optional(&check, "high", op->high, F32, op->rows);
    check_equal(&check, op->native_stride == 0 || op->native_stride >= op->length, "native_stride is less than length");
    check_optional(
        &check, "native", op->native, F32,
        check_strided(PRODUCT(op->rows, op->levels), op->native_stride > 0 ? op->native_stride : op->length, op->length));
    check_equal(&check, op->native != NULL || op->horizon > 0, "neither native quantiles nor a forecast are asked for");
    check_tensor(&check, "native_levels", &op->native_levels, F32, op->levels);
    if (op->horizon != 0)
        check_forecast(&check, op);
    check_supported(&check, backend->vtable->quantile_head != NULL);
    return RUN(check, backend->vtable->quantile_head(backend, op));
}

int backend_unroll(backend_t *backend, const backend_unroll_t *op)
{
    check_t check = check_begin(backend, "unroll");
    int64_t rows = PRODUCT(op->series, op->variates), values;

    check_size(&check, "series", op->series);
    check_size(&check, "variates", op->variates);
    check_size(&check, "context", op->context);
    check_size(&check, "paths", op->paths);
    check_range(&check, "length", op->length, 0, INT32_MAX);
    check_size(&check, "width", op->width);
    check_range(&check, "ahead", op->ahead, 0, INT32_MAX);
    check_range(&check, "exogenous", op->exogenous, 0, op->variates);
    check_tensor(&check, "x", &op->x, F32, PRODUCT(rows, op->context));
    check_tensor(&check, "mask", &op->mask, U8, PRODUCT(rows, op->context));
    if (op->length > 0) {
        check_size(&check, "levels", op->levels);
        check_range(&check, "native_stride", op->native_stride, op->length, INT64_MAX);
        check_tensor(&check, "native", op->native, F32, check_strided(PRODUCT(rows, op->levels), op->native_stride, op->length));
        check_tensor(&check, "path_levels", op->path_levels, I32, op->paths);
    } else
        check_range(&check, "paths without a forecast", op->paths, 1, 1);
    if (op->exogenous > 0) {
        check_range(&check, "future_stride", op->future_stride, op->length + op->ahead, INT64_MAX);
        check_tensor(&check, "future", op->future, F32, PRODUCT(op->series, op->exogenous, op->future_stride));
    }
    values = PRODUCT(rows, op->paths, op->width + op->ahead);
    check_tensor(&check, "y", &op->y, F32, values);
    check_tensor(&check, "y_mask", &op->y_mask, U8, values);
    check_supported(&check, backend->vtable->unroll != NULL);
    return RUN(check, backend->vtable->unroll(backend, op));
}

int backend_weighted_quantiles(backend_t *backend, const backend_weighted_quantiles_t *op)
{
    check_t check = check_begin(backend, "weighted_quantiles");
    int64_t rows = PRODUCT(op->series, op->variates), y_stride = op->y_stride > 0 ? op->y_stride : op->length;

    check_size(&check, "series", op->series);
    check_size(&check, "paths", op->paths);
    check_size(&check, "variates", op->variates);
    check_size(&check, "levels", op->levels);
    check_size(&check, "length", op->length);
    check_range(&check, "paths · levels", PRODUCT(op->paths, op->levels), 1, BACKEND_WEIGHTED_MOST);
    check_range(&check, "y_stride", y_stride, op->length, INT64_MAX);
    check_tensor(&check, "x", &op->x, F32, PRODUCT(rows, op->paths, op->levels, op->length));
    check_tensor(&check, "weights", &op->weights, F32, PRODUCT(op->paths, op->levels));
    check_tensor(&check, "asked", &op->asked, F32, 1);
    if (check.rc == BACKEND_OK)
        check_tensor(&check, "y", &op->y, F32,
                     check_strided(PRODUCT(rows, backend_tensor_elements(&op->asked)), y_stride, op->length));
    check_supported(&check, backend->vtable->weighted_quantiles != NULL);
    return RUN(check, backend->vtable->weighted_quantiles(backend, op));
}
