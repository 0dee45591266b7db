/* The front of the ops: distributions. Every descriptor is checked here, once for all backends, and handed to the vtable. */
#include "gpuworker/backend/ops_check.h"

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
    affine = check_strided(op->rows, op->out_stride, op->out_offset + 1);
    check_tensor(&check, "out_loc", &op->out_loc, F32, affine);
    check_tensor(&check, "out_scale", &op->out_scale, F32, affine);
    if (op->draws > 0)
        check_tensor(&check, "keys", op->keys, U64, op->rows / (op->samples * op->variates));
    check_tensor(&check, "step", op->step, I32, 1);
    check_tensor(&check, "paths", &op->paths, F32,
                 check_strided(PRODUCT(op->rows, op->draws > 0 ? op->draws : 1), op->path_stride, op->patch));
    check_optional(&check, "params", op->params, F32, PRODUCT(values, 4));
    return RUN(check, backend->vtable->student_t(backend, op));
}

int backend_student_t_quantiles(backend_t *backend, const backend_student_t_quantiles_t *op)
{
    check_t check = check_begin(backend, "student_t_quantiles");
    int64_t affine;

    check_size(&check, "rows", op->rows);
    check_size(&check, "patch", op->patch);
    check_size(&check, "components", op->components);
    check_range(&check, "horizon", op->horizon, 1, op->patch);
    check_size(&check, "variates", op->variates);
    check_range(&check, "exogenous", op->exogenous, 0, op->variates);
    check_range(&check, "out_stride", op->out_stride, 1, INT64_MAX);
    check_range(&check, "out_offset", op->out_offset, 0, op->out_stride - 1);
    if (check.rc < 0)
        return check.rc;
    check_multiple(&check, "rows", op->rows, op->variates);
    check_tensor(&check, "head", &op->head, F32, PRODUCT(op->rows, op->patch, 4, op->components));
    affine = check_strided(op->rows, op->out_stride, op->out_offset + 1);
    check_tensor(&check, "out_loc", &op->out_loc, F32, affine);
    check_tensor(&check, "out_scale", &op->out_scale, F32, affine);
    if (op->exogenous > 0) {
        check_range(&check, "future_stride", op->future_stride, op->horizon, INT64_MAX);
        check_tensor(&check, "future", op->future, F32,
                     check_strided(PRODUCT(op->rows / op->variates, op->exogenous), op->future_stride, op->horizon));
    }
    check_tensor(&check, "levels", &op->levels, F32, 1);
    check_tensor(&check, "quantiles", &op->quantiles, F32, PRODUCT(op->rows, backend_tensor_elements(&op->levels), op->horizon));
    return RUN(check, backend->vtable->student_t_quantiles(backend, op));
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
                 check_strided(PRODUCT(op->series, op->samples, op->variates), op->path_stride, op->patch));
    check_tensor(&check, "future", &op->future, F32,
                 check_strided(PRODUCT(op->series, op->exogenous), op->future_stride, op->patch));
    check_tensor(&check, "step", op->step, I32, 1);
    return RUN(check, backend->vtable->override(backend, op));
}
