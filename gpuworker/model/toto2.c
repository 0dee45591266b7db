/* Toto 2.0 (Datadog, 2026): a decoder over patches of several variates that gives nine quantiles of every future value at once.
 *
 * A series of V variates is cut into patches of P bars; a patch is a token. Each patch is scaled by the statistics of all bars up to its end and
 * squeezed by asinh; empty tokens stand for the patches to come, and the token before each predicts its quantiles. Most layers attend over
 * time, causally, each variate on its own; in every group of layers some attend over the variates of a series instead. The whole horizon comes
 * from one call, or block by block: then a block's medians are appended as tokens, whose keys and values stay, and the next block's empty
 * tokens are forgotten after each call.
 *
 * What our sequence of ops does otherwise than the official code, with the same results: constants are folded into the weights
 * (toto2_load.c); each call's last token, which predicts nothing that is asked for, is left out; with one variate a layer that attends over
 * variates is one product; and once tokens have seen each other for the last time, only those that predict go on.
 *
 * An exogenous variate is read in the context and where its future is known; its own rows of the forecast are the model's, as if it were not.
 *
 * Letters in shape comments: B series, V variates, rows = B·V, S patches of the context, b patches of a block, P patch, D width, H heads, d head
 * size, F hidden width of the MLP, R width inside the residual blocks at both ends. */
#include "gpuworker/model/toto2.h"

static const double SCALER_MINIMUM = 1e-6;

/* What goes through the layers: row r's tokens at stream + r · tokens · D; [1] is free. */
typedef struct {
    const toto2_call_t *call;
    int64_t tokens; /* of a row */
    backend_tensor_t stream[2];
} flow_t;

/* y = residual + act(norm(x) · Wᵀ + bias) over all tokens; eps 0: no norm. */
static int apply(model_state_t *state, const flow_t *flow, const toto2_linear_t *linear, const backend_tensor_t *x, float eps,
                 backend_activation_t activation, const backend_tensor_t *residual, const backend_tensor_t *y)
{
    return backend_linear(state->backend,
                          &(backend_linear_t){.x = *x,
                                              .rows = state->rows * flow->tokens,
                                              .norm = {.kind = eps > 0 ? BACKEND_NORM_RMS : BACKEND_NORM_NONE, .eps = eps},
                                              .weight = &linear->weight,
                                              .bias = toto2_bias(linear),
                                              .activation = activation,
                                              .residual = residual,
                                              .y = *y});
}

/* Values or medians -> [asinh(scaled) | missing] of every token, at the end of the wide rows. */
static int read_patches(model_state_t *state, const toto2_call_t *call)
{
    const toto2_config_t *config = &state->model->config;
    const model_shape_t *shape = &state->shape;
    bool begin = call->number == 0, capped = begin && shape->options.cap > 0, later = begin && state->calls > 1;
    int64_t inside = toto2_block_width(config), predicted = state->block * config->patch;
    backend_tensor_t medians = backend_tensor_from(&state->native, TOTO2_MEDIAN * predicted);

    TRY(backend_causal_patch(state->backend,
                             &(backend_causal_patch_t){.x = begin ? state->values : medians,
                                                       .x_stride = begin ? shape->context : TOTO2_LEVELS * predicted,
                                                       .mask = begin ? &state->mask : NULL,
                                                       .rows = state->rows,
                                                       .patches = call->before,
                                                       .patch = config->patch,
                                                       .ahead = call->block,
                                                       .variates = shape->variates,
                                                       .exogenous = shape->exogenous,
                                                       .future = &state->future,
                                                       .future_length = shape->horizon,
                                                       .step = &state->step,
                                                       .minimum = SCALER_MINIMUM,
                                                       .minimum_observed = shape->options.minimum_observed,
                                                       .tokens = call->tokens,
                                                       .y = backend_tensor_from(&state->wide, inside),
                                                       .y_stride = inside + 2 * config->patch,
                                                       .loc = state->loc,
                                                       .scale = state->scale,
                                                       .state = state->statistics,
                                                       .visible = begin ? &state->visible : NULL,
                                                       .lasting = later ? &state->lasting : NULL,
                                                       .low = capped ? &state->low : NULL,
                                                       .high = capped ? &state->high : NULL,
                                                       .cap = shape->options.cap}));
    return toto2_show_scaler(state, call);
}

/* Wide rows: the first R columns become silu of the block's first layer, then its second layer reads all of them. */
static int embed(model_state_t *state, const flow_t *flow)
{
    const toto2_config_t *config = &state->model->config;
    int64_t inside = toto2_block_width(config), stride = inside + 2 * config->patch;

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = backend_tensor_from(&state->wide, inside),
                                                           .rows = state->rows * flow->tokens,
                                                           .x_stride = stride,
                                                           .weight = &state->model->embed_in.weight,
                                                           .bias = &state->model->embed_in.bias,
                                                           .activation = BACKEND_ACT_SILU,
                                                           .y = state->wide,
                                                           .y_stride = stride}));
    TRY(apply(state, flow, &state->model->embed_out, &state->wide, 0, BACKEND_ACT_NONE, NULL, &flow->stream[0]));
    return toto2_show_embedding(state, flow->call, &flow->stream[0]);
}

static int attend_over_time(model_state_t *state, const flow_t *flow, int64_t index, const backend_head_norm_t *norm)
{
    const toto2_config_t *config = &state->model->config;
    bool begin = flow->call->number == 0;

    TRY(backend_attention(
        state->backend,
        &(backend_attention_t){
            .mode = begin ? BACKEND_ATTENTION_PREFILL : BACKEND_ATTENTION_EXTEND,
            .qkv = state->qkv,
            .out = state->mixed,
            .rows = state->rows,
            .tokens = flow->tokens,
            .samples = 1,
            .variates = state->shape.variates,
            .heads = (int)config->heads,
            .head_dim = (int)config->head_dim,
            .scale = 1 / (float)config->head_dim,
            .norm = norm,
            .rope = {.table = &state->rope, .index = begin ? &state->context_index : &state->block_index, .interleaved = true},
            .kv = &state->kv[index],
            .first = &state->first,
            .visible = begin ? &state->visible : &state->lasting,
            .step = &state->step,
            .step_tokens = state->block}));
    return MODEL_OK;
}

static int attend_over_variates(model_state_t *state, const flow_t *flow, const backend_head_norm_t *norm)
{
    const toto2_config_t *config = &state->model->config;
    const backend_tensor_t *group = flow->call->number == 0 ? &state->context_group : &state->block_group;

    TRY(backend_group_attention(state->backend, &(backend_group_attention_t){.qkv = state->qkv,
                                                                             .out = state->mixed,
                                                                             .sets = state->shape.batch,
                                                                             .samples = 1,
                                                                             .variates = state->shape.variates,
                                                                             .tokens = flow->tokens,
                                                                             .heads = (int)config->heads,
                                                                             .head_dim = (int)config->head_dim,
                                                                             .scale = 1 / (float)config->head_dim,
                                                                             .norm = norm,
                                                                             .group = group,
                                                                             .group_tokens = group->dim[1]}));
    return MODEL_OK;
}

static const backend_weight_t *given(const backend_weight_t *weight)
{
    return weight->tensor.data != NULL ? weight : NULL;
}

/* Of [rows][tokens][width] those tokens that predict a patch, neighbours already when there is one row; else gathered into `to`. */
static int gather(model_state_t *state, const toto2_call_t *call, backend_tensor_t *x, int64_t width, const backend_tensor_t *to)
{
    if (state->rows == 1) {
        *x = backend_tensor_from(x, (call->before - 1) * width);
        return MODEL_OK;
    }
    TRY(backend_embed(state->backend,
                      &(backend_embed_t){.table = {*x},
                                         .count = 1,
                                         .indices = backend_tensor_from(&state->picks, state->rows * call->number * state->block),
                                         .rows = state->rows * call->block,
                                         .tokens = state->rows * call->block,
                                         .width = width,
                                         .y = *to}));
    *x = *to;
    return MODEL_OK;
}

/* Only the tokens that predict a patch go on, in the stream and in `mixed`, where that is not NULL. */
static int pick(model_state_t *state, flow_t *flow, backend_tensor_t *mixed)
{
    const toto2_config_t *config = &state->model->config;
    int rc = gather(state, flow->call, &flow->stream[0], config->width, &state->picked);

    if (rc == MODEL_OK && mixed != NULL)
        rc = gather(state, flow->call, mixed, config->heads * config->head_dim, &state->qkv); /* which has been read */
    flow->tokens = flow->call->block;
    return rc;
}

/* The layer in which tokens see each other for the last time, and this is time's; -1: none, or a tap wants to see all of them. */
static int64_t last_mixing_layer(const model_state_t *state)
{
    const toto2_config_t *config = &state->model->config;
    int64_t layer = config->layers - 1;

    while (state->shape.variates == 1 && layer >= 0 && toto2_is_variate_layer(config, layer))
        layer--;
    return layer >= 0 && state->unread > 0 && !toto2_is_variate_layer(config, layer) ? layer : -1;
}

/* stream += out · attention(qkv · norm(stream)) */
static int attend(model_state_t *state, flow_t *flow, int64_t index)
{
    const toto2_config_t *config = &state->model->config;
    const toto2_layer_t *layer = &state->model->layers[index];
    backend_head_norm_t norm = {given(&layer->q_norm), given(&layer->k_norm), (float)config->eps};
    backend_tensor_t mixed = state->mixed;
    int rc;

    if (toto2_is_variate_layer(config, index) && state->shape.variates == 1) {
        backend_tensor_t before = flow->stream[0];

        TRY(apply(state, flow, &layer->alone, &before, layer->attention_eps, BACKEND_ACT_NONE, &before, &flow->stream[1]));
        flow->stream[0] = flow->stream[1];
        flow->stream[1] = before;
        return MODEL_OK;
    }
    TRY(apply(state, flow, &layer->qkv, &flow->stream[0], layer->attention_eps, BACKEND_ACT_NONE, NULL, &state->qkv));
    rc = toto2_is_variate_layer(config, index) ? attend_over_variates(state, flow, config->head_norm ? &norm : NULL)
                                               : attend_over_time(state, flow, index, config->head_norm ? &norm : NULL);
    if (rc < 0)
        return rc;
    if (index == last_mixing_layer(state) && (rc = pick(state, flow, &mixed)) < 0)
        return rc;
    TRY(apply(state, flow, &layer->out, &mixed, 0, BACKEND_ACT_NONE, &flow->stream[0], &flow->stream[0]));
    return MODEL_OK;
}

/* stream += down · swiglu(gate_up · norm(stream)) */
static int feed_forward(model_state_t *state, const flow_t *flow, int64_t index)
{
    const toto2_layer_t *layer = &state->model->layers[index];

    TRY(apply(state, flow, &layer->gate_up, &flow->stream[0], layer->mlp_eps, BACKEND_ACT_SWIGLU, NULL, &state->gated));
    TRY(apply(state, flow, &layer->down, &state->gated, 0, BACKEND_ACT_NONE, &flow->stream[0], &flow->stream[0]));
    return MODEL_OK;
}

static int transform(model_state_t *state, flow_t *flow)
{
    int rc;

    for (int64_t i = 0; i < state->model->config.layers; i++)
        if ((rc = attend(state, flow, i)) < 0 || (rc = feed_forward(state, flow, i)) < 0 ||
            (rc = toto2_show_layer(state, flow->call, i, &flow->stream[0])) < 0)
            return rc;
    return last_mixing_layer(state) < 0 ? pick(state, flow, NULL) : MODEL_OK;
}

/* head = skip · n + out · silu(in · n), n = norm(stream); then quantiles of the block's values. */
static int predict(model_state_t *state, const flow_t *flow)
{
    const toto2_config_t *config = &state->model->config;
    const model_t *model = state->model;
    const model_shape_t *shape = &state->shape;
    const toto2_call_t *call = flow->call;
    int64_t offset = call->number * state->block * config->patch, length = call->block * config->patch;
    bool capped = shape->options.cap > 0, asked = shape->quantile_count > 0, more = call->number + 1 < state->calls;
    int rc;

    TRY(apply(state, flow, &model->head_in, &flow->stream[0], model->head_eps, BACKEND_ACT_SILU, NULL, &state->wide));
    TRY(apply(state, flow, &model->head_skip, &flow->stream[0], model->head_eps, BACKEND_ACT_NONE, NULL, &state->head));
    TRY(apply(state, flow, &model->head_out, &state->wide, 0, BACKEND_ACT_NONE, &state->head, &state->head));
    if ((rc = toto2_show_head(state, call)) < 0)
        return rc;
    TRY(backend_quantile_head(
        state->backend, &(backend_quantile_head_t){.head = state->head,
                                                   .rows = state->rows,
                                                   .length = length,
                                                   .patch = config->patch,
                                                   .levels = TOTO2_LEVELS,
                                                   .row_stride = length * TOTO2_LEVELS,
                                                   .patch_stride = config->patch * TOTO2_LEVELS,
                                                   .level_stride = 1,
                                                   .value_stride = TOTO2_LEVELS,
                                                   .sinh = true,
                                                   .loc = backend_tensor_from(&state->loc, call->before),
                                                   .scale = backend_tensor_from(&state->scale, call->before),
                                                   .loc_stride = call->before + call->block,
                                                   .loc_patch_stride = 1,
                                                   .low = capped ? &state->low : NULL,
                                                   .high = capped ? &state->high : NULL,
                                                   .native = more ? &state->native : NULL,
                                                   .native_levels = state->native_levels,
                                                   .horizon = offset + length <= shape->horizon ? length : shape->horizon - offset,
                                                   .asked = asked ? &state->levels : NULL,
                                                   .quantiles = asked ? &state->quantiles : NULL,
                                                   .mean = &state->mean,
                                                   .total = shape->horizon,
                                                   .offset = offset}));
    return MODEL_OK;
}

static int toto2_forecast(model_state_t *state)
{
    int rc;

    TRY(backend_copy_in(state->backend, &state->inputs.device, state->inputs.host));
    if (state->calls > 1)
        TRY(backend_step_set(state->backend, &state->step, 0));
    for (int64_t number = 0; number < state->calls; number++) {
        toto2_call_t call = toto2_call(state, number);
        flow_t flow = {.call = &call, .tokens = call.tokens, .stream = {state->hidden[0], state->hidden[1]}};

        if (number > 1)
            TRY(backend_step_advance(state->backend, &state->step));
        if ((rc = read_patches(state, &call)) < 0 || (rc = embed(state, &flow)) < 0 || (rc = transform(state, &flow)) < 0 ||
            (rc = predict(state, &flow)) < 0)
            return rc;
    }
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}

const model_family_t toto2_family = {
    .name = "toto2",
    .matches = toto2_matches,
    .model_bytes = sizeof(model_t),
    .state_bytes = sizeof(model_state_t),
    .load = toto2_load,
    .unload = toto2_unload,
    .info = toto2_info,
    .open = toto2_open,
    .prepare = toto2_prepare,
    .forecast = toto2_forecast,
    .close = toto2_close,
    .cost = toto2_cost,
    .set_tap = toto2_set_tap,
    .create = toto2_create,
};
