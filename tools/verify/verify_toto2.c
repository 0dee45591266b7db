/* Toto 2.0's cases: target, target_mask [B,V,T], series_ids [B,V], perhaps known_dynamic, known_dynamic_mask [B,E,L], known_dynamic_series_ids
 * [B,E] of variates that come after the targets; result quantiles [9,B,V,H]. The call's options stand in case.json. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/verify/verify_impl.h"

enum { LEVELS = 9 };

static const char reason[] = "not compared: the head's layers normalise as they read";
static const verify_exception_t exceptions[] = {
    {"step0.out_norm", reason}, {"step1.out_norm", reason}, {"step2.out_norm", reason}, {"step3.out_norm", reason}, {NULL, NULL},
};

static int toto2_shape(const verify_case_t *run, model_shape_t *out)
{
    const checkpoint_tensor_t *target = checkpoint_find(run->inputs, "target"),
                              *known = checkpoint_find(run->inputs, "known_dynamic");
    const checkpoint_tensor_t *quantiles = checkpoint_find(run->expected, "quantiles");
    uint32_t exogenous = known != NULL && known->rank == 3 ? (uint32_t)known->dim[1] : 0;

    if (target == NULL || target->rank != 3 || quantiles == NULL || quantiles->rank != 4 || quantiles->dim[0] != LEVELS)
        return error_set(-1, "a case needs inputs target [B,V,T] and expected quantiles [9,B,V,H]");
    *out = (model_shape_t){.batch = (uint32_t)target->dim[0],
                           .variates = (uint32_t)target->dim[1] + exogenous,
                           .exogenous = exogenous,
                           .context = (uint32_t)target->dim[2],
                           .horizon = (uint32_t)quantiles->dim[3],
                           .quantile_count = LEVELS,
                           .options = {.decode_block = (uint32_t)verify_number(run, "call.decode_block_size", 0),
                                       .minimum_observed = (uint32_t)verify_number(run, "call.scaler_fallback_min_obs", 0),
                                       .cap = (float)verify_number(run, "call.quantile_real_cap_k", 0)}};
    for (int i = 0; i < LEVELS; i++)
        out->quantiles[i] = (float)(i + 1) / 10;
    return 0;
}

/* One row of the session: `bars` values, the context at its end. Masked values hold 0, as in every session: what the official call has there
 * (the value before) matters in the last patch only, where the model fills it in by itself. */
static void fill_row(const model_shape_t *shape, int64_t row, int64_t bars, const float *values, const float *mask, float id,
                     model_input_t *input)
{
    int64_t at = row * shape->context, before = shape->context - bars;

    memset(input->values + at, 0, (size_t)shape->context * sizeof *input->values);
    memset(input->mask + at, 0, shape->context);
    for (int64_t t = 0; t < bars; t++) {
        input->mask[at + before + t] = mask[t] != 0;
        input->values[at + before + t] = mask[t] != 0 ? values[t] : 0;
    }
    input->group[row] = (int32_t)id;
    input->log_price[row] = 0;
}

static int fill_known(const verify_case_t *run, const model_shape_t *shape, model_input_t *input)
{
    int64_t dim[3], mask_dim[3], id_dim[2], bars = run->shape.context;
    float *known, *mask = NULL, *ids = NULL;
    int rc = -1;

    if (shape->exogenous == 0)
        return 0;
    if ((known = verify_input(run, "known_dynamic", 3, dim)) == NULL ||
        (mask = verify_input(run, "known_dynamic_mask", 3, mask_dim)) == NULL ||
        (ids = verify_input(run, "known_dynamic_series_ids", 2, id_dim)) == NULL)
        goto cleanup;
    if (memcmp(dim, mask_dim, sizeof dim) != 0 || dim[0] != run->shape.batch || dim[2] < bars || id_dim[0] != dim[0] ||
        id_dim[1] != dim[1]) {
        error_set(-1, "inputs.safetensors: known_dynamic, its mask and its ids do not fit together");
        goto cleanup;
    }
    for (int64_t i = 0; i < dim[0] * dim[1]; i++) {
        const float *values = known + i * dim[2], *observed = mask + i * dim[2];
        int64_t row = i / dim[1] * shape->variates + (shape->variates - shape->exogenous) + i % dim[1];

        fill_row(shape, row, bars, values, observed, ids[i], input);
        for (int64_t t = 0; t < shape->horizon; t++)
            input->future[i * shape->horizon + t] = bars + t < dim[2] && observed[bars + t] != 0 ? values[bars + t] : NAN;
    }
    rc = 0;
cleanup:
    free(known);
    free(mask);
    free(ids);
    return rc;
}

static int toto2_fill(const verify_case_t *run, const session_t *session, model_input_t *input)
{
    const model_shape_t *shape = session_shape(session);
    int64_t dim[3], mask_dim[3], id_dim[2];
    float *target = verify_input(run, "target", 3, dim), *mask = verify_input(run, "target_mask", 3, mask_dim);
    float *ids = verify_input(run, "series_ids", 2, id_dim);
    int rc = -1;

    if (target == NULL || mask == NULL || ids == NULL)
        goto cleanup;
    if (memcmp(dim, mask_dim, sizeof dim) != 0 || id_dim[0] != dim[0] || id_dim[1] != dim[1]) {
        error_set(-1, "inputs.safetensors: target, target_mask and series_ids differ in shape");
        goto cleanup;
    }
    for (int64_t i = 0; i < dim[0] * dim[1]; i++)
        fill_row(shape, i / dim[1] * shape->variates + i % dim[1], dim[2], target + i * dim[2], mask + i * dim[2], ids[i], input);
    for (int64_t i = 0; i < dim[0]; i++)
        input->length[i] = (uint32_t)dim[2];
    rc = fill_known(run, shape, input);
cleanup:
    free(target);
    free(mask);
    free(ids);
    return rc;
}

/* Ours are [B][V][9][H]; the case has [9][B][targets][H]. */
static int toto2_results(verify_case_t *run, const session_t *session)
{
    int64_t batch = run->shape.batch, variates = run->shape.variates, targets = variates - run->shape.exogenous;
    int64_t horizon = run->shape.horizon, rows = batch * targets;
    const float *quantiles = session_output(session)->quantiles;
    float *values = malloc((size_t)(LEVELS * rows * horizon) * sizeof *values);
    double *scale = malloc((size_t)(LEVELS * rows) * sizeof *scale);
    int rc = values != NULL && scale != NULL ? verify_scales(run, "target", "target_mask", scale) : error_set(-1, "out of memory");

    for (int64_t i = 0; rc == 0 && i < LEVELS * rows; i++) {
        int64_t level = i / rows, row = i % rows / targets * variates + i % targets;

        scale[i] = scale[i % rows];
        memcpy(values + i * horizon, quantiles + (row * LEVELS + level) * horizon, (size_t)horizon * sizeof *values);
    }
    if (rc == 0)
        verify_forecast(run, "quantiles", values, scale, LEVELS * targets, horizon);
    free(values);
    free(scale);
    return rc;
}

const verify_family_t verify_toto2 = {
    .model = "toto2",
    .shape = toto2_shape,
    .fill = toto2_fill,
    .results = toto2_results,
    .exceptions = exceptions,
};
