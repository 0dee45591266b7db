/* Chronos-2's cases. The official pipeline packs all items of a call into one batch of rows with group ids; here they are the variates of one
 * series: batch.context [rows,T] (NaN: missing), batch.group_ids [rows], batch.future_covariates [rows,H] (NaN: unknown). A session has the
 * variates with a known future last, so rows change places. Results: of item i, group i, the first rows' prediction_i [targets,levels,H] and
 * quantiles_interp_i [targets,H,interp_levels]. What a round of the network gives is compared as it comes by, levels in the model's order. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/verify/verify_levels.h"

static const char padding[] = "not compared: in its place the patches are, whose masks act in every block";
static const char unrolled[] = "not compared: the quantiles of its round depend on all of it";
static const char folded[] = "not compared: this norm is part of the head's first product";

static const verify_exception_t exceptions[] = {
    {"interp_levels", "used by quantiles_interp"},
    {"round0.attention_mask", padding},
    {"round0.encoder_out", folded},
    {"round1.context", unrolled},
    {"round1.group_ids", unrolled},
    {"round1.future_covariates", unrolled},
    {"round2.context", unrolled},
    {"round2.group_ids", unrolled},
    {"round2.future_covariates", unrolled},
    {NULL, NULL},
};

/* ---- the case's batch ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t rows, bars, horizon, exogenous;
    float *context, *ids, *future;
} batch_t;

static void free_batch(batch_t *batch)
{
    free(batch->context);
    free(batch->ids);
    free(batch->future);
}

static bool has_future(const batch_t *batch, int64_t row)
{
    for (int64_t i = 0; i < batch->horizon; i++)
        if (!isnan(batch->future[row * batch->horizon + i]))
            return true;
    return false;
}

static int read_batch(const verify_case_t *run, batch_t *batch)
{
    int64_t context[2], ids[1], future[2];

    *batch = (batch_t){.context = verify_input(run, "batch.context", 2, context),
                       .ids = verify_input(run, "batch.group_ids", 1, ids),
                       .future = verify_input(run, "batch.future_covariates", 2, future)};
    if (batch->context == NULL || batch->ids == NULL || batch->future == NULL || ids[0] != context[0] || future[0] != context[0]) {
        free_batch(batch);
        return error_set(-1, "inputs.safetensors: batch.context, batch.group_ids and batch.future_covariates differ in rows");
    }
    batch->rows = context[0];
    batch->bars = context[1];
    batch->horizon = future[1];
    for (int64_t row = 0; row < batch->rows; row++)
        batch->exogenous += has_future(batch, row);
    return 0;
}

/* The session's variate of each row: those with a known future last, else in their order. */
static void place_rows(const batch_t *batch, int64_t *variate)
{
    int64_t targets = 0, exogenous = batch->rows - batch->exogenous;

    for (int64_t row = 0; row < batch->rows; row++)
        variate[row] = has_future(batch, row) ? exogenous++ : targets++;
}

static int fill(const verify_case_t *run, const session_t *session, model_input_t *input)
{
    const model_shape_t *shape = session_shape(session);
    int64_t targets = run->shape.variates - run->shape.exogenous;
    batch_t batch;

    if (read_batch(run, &batch) < 0)
        return -1;
    for (int64_t row = 0; row < batch.rows; row++) {
        int64_t variate = run->row_of[row], at = variate * shape->context;

        verify_fill_row(batch.context + row * batch.bars, batch.bars, shape->context, input->values + at, input->mask + at);
        input->group[variate] = (int32_t)batch.ids[row];
        input->log_price[variate] = 0;
        if (variate >= targets)
            memcpy(input->future + (variate - targets) * batch.horizon, batch.future + row * batch.horizon,
                   (size_t)batch.horizon * sizeof *batch.future);
    }
    input->length[0] = (uint32_t)(batch.bars < shape->context ? batch.bars : shape->context);
    input->key[0] = 0;
    free_batch(&batch);
    return 0;
}

static int shape_of(const verify_case_t *run, model_shape_t *out)
{
    batch_t batch;

    if (read_batch(run, &batch) < 0)
        return -1;
    *out = (model_shape_t){.batch = 1,
                           .variates = (uint32_t)batch.rows,
                           .exogenous = (uint32_t)batch.exogenous,
                           .context = (uint32_t)batch.bars,
                           .horizon = (uint32_t)batch.horizon};
    free_batch(&batch);
    return verify_ask_levels(run, out);
}

/* ---- expected and results --------------------------------------------------------------------------------------------------------- */

static int expect(verify_case_t *run)
{
    char prediction[48], interpolated[48];
    batch_t batch;

    if (read_batch(run, &batch) < 0)
        return -1;
    run->row_of = malloc((size_t)batch.rows * sizeof *run->row_of);
    if (run->row_of != NULL)
        place_rows(&batch, run->row_of);
    free_batch(&batch);
    if (run->row_of == NULL)
        return error_set(-1, "out of memory");
    verify_forget_masked(run, ".after_");
    for (int item = 0;; item++) {
        snprintf(prediction, sizeof prediction, "prediction_%d", item);
        snprintf(interpolated, sizeof interpolated, "quantiles_interp_%d", item);
        if (verify_expected(run, prediction) == NULL)
            return 0;
        if (verify_order_levels(run, prediction, interpolated) < 0)
            return -1;
    }
}

static int results(verify_case_t *run, const session_t *session)
{
    const verify_tensor_t *scale = verify_expected(run, "round0.scale");
    char prediction[48], interpolated[48];
    int64_t row_ids[1];
    float *ids = verify_input(run, "batch.group_ids", 1, row_ids);
    int rc = ids != NULL && scale != NULL ? 0 : error_set(-1, "a case needs batch.group_ids and round0.scale");

    for (int item = 0; rc == 0; item++) {
        int64_t row = 0;

        snprintf(prediction, sizeof prediction, "prediction_%d", item);
        snprintf(interpolated, sizeof interpolated, "quantiles_interp_%d", item);
        if (verify_expected(run, prediction) == NULL)
            break;
        while (row < row_ids[0] - 1 && ids[row] != (float)item)
            row++;
        rc = verify_levels(run, session, prediction, interpolated, row, scale->values);
    }
    free(ids);
    return rc;
}

const verify_family_t verify_chronos2 = {
    .model = "chronos2",
    .shape = shape_of,
    .expect = expect,
    .fill = fill,
    .results = results,
    .exceptions = exceptions,
};
