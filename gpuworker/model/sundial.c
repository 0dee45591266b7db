/* Sundial (Tsinghua, 2025): a decoder over the patches of one series, and a flow that turns its last token's features into samples of the next
 * C bars.
 *
 * The context is scaled by its mean and deviation (+ 1e-5) and cut into patches of P bars, the first one padded with zeros on its left; a patch
 * and its mask become a token. Layer norms, causal attention with a half-split rotation, SwiGLU. The flow (sundial_flow.c) draws N samples from
 * the last token. A horizon beyond C takes further rounds: the median of the samples at every position, still scaled, is appended as E tokens
 * to every layer's cache, and the flow starts again from the last of these. Mean and quantiles are those of the samples.
 *
 * A bar that is missing inside the context, which the official code does not know, looks like the padding of the first patch: value 0 (the mean)
 * and mask 0, and it is left out of mean and deviation. The variates of a series are rows of their own.
 *
 * Letters: sundial_state.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/sundial_state.h"

static const float SCALE_EPS = 1e-5f;
static const double ROPE_BASE = 10000;

/* Room for the modulations of as many steps as fit, one at least: at batch 1 those of all steps, in one product. */
static const int64_t MODULATION_BYTES = (int64_t)1 << 27;

/* ---- one shape ----------------------------------------------------------------------------------------------------------------- */

/* Of every row and step: which row's condition, which step's time. */
static void write_condition_index(model_state_t *state)
{
    int64_t steps = state->model->config.steps, count = state->rows * steps;
    int32_t *index = buffers_table_new(&state->buffers, &state->condition_index);

    for (int64_t i = 0; index != NULL && i < count; i++) {
        index[i] = (int32_t)(i / steps);
        index[count + i] = (int32_t)(i % steps);
    }
    buffers_table_write(&state->buffers, &state->condition_index, index);
}

static void write_observed(model_state_t *state)
{
    uint8_t *ones = buffers_table_new(&state->buffers, &state->observed);

    if (ones != NULL)
        memset(ones, 1, (size_t)backend_tensor_elements(&state->observed));
    buffers_table_write(&state->buffers, &state->observed, ones);
}

static void plan_inputs(model_state_t *state, model_input_t *input)
{
    const model_shape_t *shape = &state->shape;
    staging_t *inputs = &state->inputs;

    staging_add_inputs(inputs, shape, input,
                       &(staging_inputs_t){.values = &state->values, .mask = &state->mask, .key = &state->key});
    staging_add(inputs, BACKEND_I32, DIMS(state->rows), &state->first, &state->first_host);
    staging_add(inputs, BACKEND_I32, DIMS(state->rows, state->tokens), &state->prefill_index, &state->prefill_host);
    staging_add(inputs, BACKEND_I32, DIMS(state->rows, state->rounds - 1, state->append), &state->append_index,
                &state->append_host);
    if (shape->given_noise)
        staging_add(inputs, BACKEND_F32,
                    DIMS(shape->batch, shape->samples, shape->variates, state->rounds * state->model->config.channels),
                    &state->noise, &input->noise);
    staging_bind(inputs, "sundial inputs", &state->buffers);
    state->length = input->length;
}

static void plan_outputs(model_state_t *state, model_output_t *output)
{
    staging_add_outputs(&state->outputs, &state->shape, output,
                        &(staging_outputs_t){.mean = &state->mean,
                                             .quantiles = &state->quantiles,
                                             .levels = &state->levels,
                                             .paths = &state->paths_out,
                                             .path_stride = state->shape.horizon},
                        &state->buffers);
    staging_bind(&state->outputs, "sundial results", &state->buffers);
}

static void take_caches(model_state_t *state)
{
    const sundial_config_t *config = &state->model->config;
    int64_t head_dim = config->width / config->heads, appended = (state->rounds - 1) * state->append;
    backend_dtype_t dtype = state->model->base.precision;

    for (int64_t i = 0; i < config->layers; i++) {
        backend_kv_t *kv = &state->kv[i];

        kv->prefix_k = buffers_take(&state->buffers, "keys", dtype, DIMS(state->rows, config->heads, state->tokens, head_dim));
        kv->prefix_v = buffers_take(&state->buffers, "values", dtype, DIMS(state->rows, config->heads, state->tokens, head_dim));
        if (appended == 0)
            continue;
        kv->tail_k = buffers_take(&state->buffers, "appended keys", dtype, DIMS(state->rows, config->heads, appended, head_dim));
        kv->tail_v = buffers_take(&state->buffers, "appended values", dtype, DIMS(state->rows, config->heads, appended, head_dim));
    }
}

static void take_decoder(model_state_t *state)
{
    const sundial_config_t *config = &state->model->config;
    buffers_t *buffers = &state->buffers;
    int64_t most = state->rounds > 1 && state->append > state->tokens ? state->append : state->tokens, tokens = state->rows * most;
    backend_dtype_t dtype = state->model->base.precision;

    state->scaled = buffers_take(buffers, "scaled context", BACKEND_F32, DIMS(state->rows, state->shape.context));
    state->loc = buffers_take(buffers, "loc", BACKEND_F32, DIMS(state->rows));
    state->scale = buffers_take(buffers, "scale", BACKEND_F32, DIMS(state->rows));
    state->features = buffers_take(buffers, "patches", dtype, DIMS(tokens, 2 * config->patch + config->hidden));
    state->hidden = buffers_take(buffers, "hidden states", BACKEND_F32, DIMS(tokens, config->width));
    state->qkv = buffers_take(buffers, "qkv", dtype, DIMS(tokens, 3, config->width));
    state->mixed = buffers_take(buffers, "attention output", dtype, DIMS(tokens, config->width));
    state->gated = buffers_take(buffers, "mlp hidden", dtype, DIMS(tokens, config->hidden));
    state->step = buffers_take(buffers, "step", BACKEND_I32, DIMS(1));
    state->rope = buffers_take(buffers, "rotary table", BACKEND_F32,
                               DIMS(state->tokens + (state->rounds - 1) * state->append, 4, config->width / config->heads));
    if (state->rounds > 1) {
        state->observed = buffers_take(buffers, "generated mask", BACKEND_U8, DIMS(state->rows, config->channels));
        state->median = buffers_take(buffers, "median", BACKEND_F32, DIMS(state->rows, config->channels));
    }
}

static void take_flow(model_state_t *state)
{
    const sundial_config_t *config = &state->model->config;
    buffers_t *buffers = &state->buffers;
    int64_t width = config->width, vectors = (3 * config->depth + 2) * width;
    int64_t fit = MODULATION_BYTES / (state->rows * vectors * (int64_t)sizeof(float));
    backend_dtype_t dtype = state->model->base.precision;

    state->row = (sundial_row_t){.x = width,
                                 .projected_drift = width + config->channels,
                                 .x_drift = 2 * width + config->channels,
                                 .stream = 2 * (width + config->channels),
                                 .stride = 3 * width + 2 * config->channels};
    state->chunk = fit < 1 ? 1 : fit < config->steps ? fit : config->steps;
    state->condition_index = buffers_take(buffers, "condition index", BACKEND_I32, DIMS(2, state->rows, config->steps));
    state->condition = buffers_take(buffers, "condition", BACKEND_F32, DIMS(state->rows, width));
    state->moments = buffers_take(buffers, "conditions in time", dtype, DIMS(state->rows, state->chunk, width));
    state->modulation = buffers_take(buffers, "modulations", BACKEND_F32, DIMS(state->rows, state->chunk, vectors));
    state->flow = buffers_take(buffers, "flow", BACKEND_F32, DIMS(state->paths, state->row.stride));
    state->inner = buffers_take(buffers, "flow hidden", dtype, DIMS(state->paths, width));
}

static void sundial_close(model_state_t *state)
{
    buffers_close(&state->buffers);
    free(state->before);
    free(state->after);
    free(state->repeated);
}

static int check_shape(const model_shape_t *shape)
{
    if (shape->samples == 0)
        return error_set(MODEL_ERR_SHAPE, "sundial: samples is 0, expected at least 1: its forecasts are made of them");
    if (shape->exogenous > 0)
        return error_set(MODEL_ERR_SHAPE, "sundial: %u variates are known in the future, expected 0: it has no use for them",
                         shape->exogenous);
    return MODEL_OK;
}

static int sundial_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output)
{
    const sundial_config_t *config = &model->config;
    int rc = check_shape(shape);

    if (rc < 0)
        return rc;
    state->model = model;
    state->backend = model->base.backend;
    state->rows = (int64_t)shape->batch * shape->variates;
    state->paths = state->rows * shape->samples;
    state->tokens = (shape->context + config->patch - 1) / config->patch;
    state->rounds = (shape->horizon + config->channels - 1) / config->channels;
    state->append = config->channels / config->patch;
    shape->context = (uint32_t)(state->tokens * config->patch);
    state->shape = *shape;
    state->buffers = (buffers_t){.backend = state->backend};
    state->kv = buffers_calloc(&state->buffers, model->config.layers, sizeof *state->kv);
    plan_inputs(state, input);
    plan_outputs(state, output);
    take_decoder(state);
    take_caches(state);
    take_flow(state);
    buffers_write_rope(&state->buffers, &state->rope, ROPE_BASE);
    write_condition_index(state);
    if (state->rounds > 1)
        write_observed(state);
    return state->buffers.rc;
}

/* From every series' length: where its tokens begin and which positions they have, those of a session of its own length. */
static void sundial_prepare(model_state_t *state)
{
    int64_t patch = state->model->config.patch, variates = state->shape.variates, appended = (state->rounds - 1) * state->append;

    for (int64_t row = 0; row < state->rows; row++) {
        int64_t real = ((int64_t)state->length[row / variates] + patch - 1) / patch, first = state->tokens - real;

        state->first_host[row] = (int32_t)first;
        for (int64_t t = 0; t < state->tokens; t++)
            state->prefill_host[row * state->tokens + t] = (int32_t)(t > first ? t - first : 0);
        for (int64_t t = 0; t < appended; t++)
            state->append_host[row * appended + t] = (int32_t)(real + t);
    }
}

/* ---- the forecast -------------------------------------------------------------------------------------------------------------- */

static int run_round(model_state_t *state, int round)
{
    sundial_pass_t pass = {.tokens = round == 0 ? state->tokens : state->append, .round = round};
    int rc;

    if (round == 1)
        TRY(backend_step_set(state->backend, &state->step, 0));
    else if (round > 1)
        TRY(backend_step_advance(state->backend, &state->step));
    rc = sundial_decode(state, &pass);
    return rc < 0 ? rc : sundial_flow(state, &pass);
}

static int sundial_forecast(model_state_t *state)
{
    const model_shape_t *shape = &state->shape;
    bool quantiles = shape->quantile_count > 0;
    int rc;

    TRY(backend_copy_in(state->backend, &state->inputs.device, state->inputs.host));
    TRY(backend_instance_scale(state->backend, &(backend_instance_scale_t){.x = state->values,
                                                                           .mask = &state->mask,
                                                                           .rows = state->rows,
                                                                           .width = shape->context,
                                                                           .eps = SCALE_EPS,
                                                                           .add = true,
                                                                           .y = state->scaled,
                                                                           .loc = state->loc,
                                                                           .scale = state->scale}));
    if ((rc = sundial_show_scaler(state)) < 0)
        return rc;
    for (int round = 0; round < state->rounds; round++)
        if ((rc = run_round(state, round)) < 0)
            return rc;
    TRY(backend_summarize(state->backend, &(backend_summarize_t){.paths = state->paths_out,
                                                                 .path_stride = shape->horizon,
                                                                 .series = shape->batch,
                                                                 .samples = shape->samples,
                                                                 .variates = shape->variates,
                                                                 .horizon = shape->horizon,
                                                                 .mean = state->mean,
                                                                 .levels = quantiles ? &state->levels : NULL,
                                                                 .quantiles = quantiles ? &state->quantiles : NULL}));
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}

const model_family_t sundial_family = {
    .name = "sundial",
    .matches = sundial_matches,
    .model_bytes = sizeof(model_t),
    .state_bytes = sizeof(model_state_t),
    .load = sundial_load,
    .unload = sundial_unload,
    .info = sundial_info,
    .open = sundial_open,
    .prepare = sundial_prepare,
    .forecast = sundial_forecast,
    .close = sundial_close,
    .cost = sundial_cost,
    .set_tap = sundial_set_tap,
    .create = sundial_create,
};
