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
