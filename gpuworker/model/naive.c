/* naive: a random walk with trailing volatility, built in. The baseline that every forecast is compared with, and the null model that
 * measures the pipeline's own cost. Quantiles by formula, no samples; a variate's group, calendar and known future are not looked at. */
#include <math.h>

#include "base/normal.h"
#include "gpuworker/model/families.h"
#include "gpuworker/model/parts.h"

struct model {
    model_base_t base;
};

struct model_state {
    backend_t *backend;
    model_shape_t shape;
    buffers_t buffers;
    staging_t inputs, outputs;
    backend_tensor_t values, mask, log_price; /* [batch][variates][context], the last [batch][variates] */
    backend_tensor_t z;                       /* [levels] */
    backend_tensor_t mean, quantiles;         /* [batch][variates][horizon], [batch][variates][levels][horizon] */
};

static void naive_info(const model_t *model, model_info_t *out)
{
    (void)model;
    out->quantiles_without_samples = true;
}

static void write_levels(model_state_t *state)
{
    float z[MODEL_QUANTILES_MOST];

    for (uint32_t i = 0; i < state->shape.quantile_count; i++)
        z[i] = (float)normal_quantile(state->shape.quantiles[i]);
    buffers_write(&state->buffers, &state->z, z);
}

static void naive_close(model_state_t *state)
{
    buffers_close(&state->buffers);
}

static int naive_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output)
{
    shape->samples = 0;
    state->backend = model->base.backend;
    state->shape = *shape;
    state->buffers = (buffers_t){.backend = state->backend};
    staging_add_inputs(&state->inputs, shape, input,
                       &(staging_inputs_t){.values = &state->values, .mask = &state->mask, .log_price = &state->log_price});
    staging_bind(&state->inputs, "naive inputs", &state->buffers);
    staging_add_outputs(&state->outputs, shape, output, &(staging_outputs_t){.mean = &state->mean, .quantiles = &state->quantiles},
                        &state->buffers);
    staging_bind(&state->outputs, "naive results", &state->buffers);
    if (shape->quantile_count > 0) {
        state->z = buffers_take(&state->buffers, "naive levels", BACKEND_F32, DIMS(shape->quantile_count));
        write_levels(state);
    }
    return state->buffers.rc;
}

static int naive_forecast(model_state_t *state)
{
    const model_shape_t *shape = &state->shape;

    TRY(backend_copy_in(state->backend, &state->inputs.device, state->inputs.host));
    TRY(backend_random_walk(state->backend, &(backend_random_walk_t){.x = state->values,
                                                                     .mask = state->mask,
                                                                     .rows = (int64_t)shape->batch * shape->variates,
                                                                     .context = shape->context,
                                                                     .horizon = shape->horizon,
                                                                     .levels = shape->quantile_count,
                                                                     .z = &state->z,
                                                                     .log = &state->log_price,
                                                                     .mean = state->mean,
                                                                     .quantiles = state->quantiles}));
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}

static void naive_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    (void)model;
    *out = (model_cost_t){.io_bytes = model_io_bytes(shape)};
}

const model_family_t naive_family = {
    .name = "naive",
    .model_bytes = sizeof(model_t),
    .state_bytes = sizeof(model_state_t),
    .info = naive_info,
    .open = naive_open,
    .forecast = naive_forecast,
    .close = naive_close,
    .cost = naive_cost,
};
