/* The front of the ops: scalers. Every descriptor is checked here, once for all backends, and handed to the vtable. */
#include "gpuworker/backend/ops_check.h"

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
    check_tensor(&check, "x", &op->x, F32, check_strided(op->rows, op->x_stride, op->patch));
    check_tensor(&check, "state_in", &op->state_in, F64, PRODUCT(op->rows / op->samples, BACKEND_SCALER_STATE));
    check_tensor(&check, "state", &op->state, F64, PRODUCT(op->rows, BACKEND_SCALER_STATE));
    check_equal(&check, op->state.data != op->state_in.data, "state and state_in are the same buffer");
    check_tensor(&check, "y", &op->y, F32, PRODUCT(op->rows, op->patch));
    check_tensor(&check, "loc", &op->loc, F32, op->rows);
    check_tensor(&check, "scale", &op->scale, F32, op->rows);
    check_tensor(&check, "step", op->step, I32, 1);
    return RUN(check, backend->vtable->causal_scale_extend(backend, op));
}

/* What describes a context, and what goes on from one. */
static void check_causal_parts(check_t *check, const backend_causal_patch_t *op)
{
    if (op->mask != NULL) {
        check_tensor(check, "mask", op->mask, U8, PRODUCT(op->rows, op->patches, op->patch));
        check_equal(check, (op->low == NULL) == (op->high == NULL), "low and high are not given together");
        check_optional(check, "low", op->low, F32, op->rows);
        check_optional(check, "high", op->high, F32, op->rows);
    } else {
        check_tensor(check, "step", op->step, I32, 1);
        check_equal(check, op->low == NULL && op->high == NULL, "low and high are given, but only a context has a cap");
    }
    if (op->exogenous > 0)
        check_tensor(check, "future", op->future, F32, PRODUCT(op->rows / op->variates, op->exogenous, op->future_length));
    check_optional(check, "visible", op->visible, U8, PRODUCT(op->rows, op->tokens));
    check_optional(check, "lasting", op->lasting, U8, PRODUCT(op->rows, op->tokens));
}

int backend_causal_patch(backend_t *backend, const backend_causal_patch_t *op)
{
    check_t check = check_begin(backend, "causal_patch");
    int64_t patches = op->patches + op->ahead;

    check_size(&check, "rows", op->rows);
    check_size(&check, "patches", op->patches);
    check_size(&check, "patch", op->patch);
    check_range(&check, "ahead", op->ahead, 0, INT32_MAX);
    check_size(&check, "variates", op->variates);
    check_range(&check, "exogenous", op->exogenous, 0, op->variates);
    check_range(&check, "tokens", op->tokens, 1, patches);
    check_range(&check, "minimum_observed", op->minimum_observed, 0, op->patch);
    check_range(&check, "x_stride", op->x_stride, PRODUCT(op->patches, op->patch), INT64_MAX);
    check_range(&check, "y_stride", op->y_stride, PRODUCT(2, op->patch), INT64_MAX);
    check_equal(&check, op->minimum >= 0, "minimum is negative");
    check_equal(&check, op->cap >= 0, "cap is negative");
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->variates);
    check_tensor(&check, "x", &op->x, F32, check_strided(op->rows, op->x_stride, op->patches * op->patch));
    check_tensor(&check, "y", &op->y, FLOAT, check_strided(PRODUCT(op->rows, op->tokens), op->y_stride, 2 * op->patch));
    check_tensor(&check, "loc", &op->loc, F32, PRODUCT(op->rows, patches));
    check_tensor(&check, "scale", &op->scale, F32, PRODUCT(op->rows, patches));
    check_tensor(&check, "state", &op->state, F64, PRODUCT(op->rows, BACKEND_SCALER_STATE));
    check_causal_parts(&check, op);
    check_supported(&check, backend->vtable->causal_patch != NULL);
    return RUN(check, backend->vtable->causal_patch(backend, op));
}

int backend_instance_scale(backend_t *backend, const backend_instance_scale_t *op)
{
    check_t check = check_begin(backend, "instance_scale");
    int64_t values = PRODUCT(op->rows, op->width);

    check_size(&check, "rows", op->rows);
    check_size(&check, "width", op->width);
    check_range(&check, "ahead", op->ahead, 0, op->width - 1);
    check_equal(&check, op->eps >= 0, "eps is negative");
    check_tensor(&check, "x", &op->x, F32, values);
    check_optional(&check, "mask", op->mask, U8, values);
    check_tensor(&check, "y", &op->y, F32, values);
    check_tensor(&check, "loc", &op->loc, F32, op->rows);
    check_tensor(&check, "scale", &op->scale, F32, op->rows);
    check_supported(&check, backend->vtable->instance_scale != NULL);
    return RUN(check, backend->vtable->instance_scale(backend, op));
}

int backend_patch(backend_t *backend, const backend_patch_t *op)
{
    check_t check = check_begin(backend, "patch");
    int64_t values = PRODUCT(op->patches, op->patch), features = PRODUCT(op->time != NULL ? 3 : 2, op->patch);
    int64_t patch_stride = op->patch_stride > 0 ? op->patch_stride : features;
    int64_t y_width = check_strided(op->patches, patch_stride, features);

    check_size(&check, "rows", op->rows);
    check_size(&check, "patches", op->patches);
    check_size(&check, "patch", op->patch);
    check_range(&check, "x_stride", op->x_stride, 0, INT64_MAX);
    check_equal(&check, op->patch_stride == 0 || op->patch_stride >= features, "patch_stride is less than a patch's features");
    check_equal(&check, op->y_stride == 0 || op->y_stride >= y_width, "y_stride is less than a row");
    check_equal(&check, op->visible_stride == 0 || op->visible_stride >= op->patches, "visible_stride is less than a row");
    if (op->mask != NULL) {
        int64_t x_values = check_strided(op->rows, op->x_stride > 0 ? op->x_stride : values, values);

        check_tensor(&check, "x", &op->x, F32, x_values);
        check_tensor(&check, "mask", op->mask, U8, x_values);
    }
    check_optional(&check, "time", op->time, F32, values);
    check_tensor(&check, "y", &op->y, FLOAT,
                 check_strided(op->rows, op->y_stride > 0 ? op->y_stride : PRODUCT(op->patches, patch_stride), y_width));
    check_optional(&check, "visible", op->visible, U8,
                   check_strided(op->rows, op->visible_stride > 0 ? op->visible_stride : op->patches, op->patches));
    check_supported(&check, backend->vtable->patch != NULL);
    return RUN(check, backend->vtable->patch(backend, op));
}
