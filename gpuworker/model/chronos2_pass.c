/* The forecast of Chronos-2: one round after the other. See chronos2.c for the model and the letters, chronos_parts.h for the wide rows. */
#include <stdio.h>

#include "gpuworker/model/chronos2_state.h"

static const float SCALE_EPS = 1e-5f; /* in place of the deviation of a constant series */

/* ---- taps --------------------------------------------------------------------------------------------------------------------- */

/* Rows of [d0][d1][d2], as chronos_show has them. */
static int show(model_state_t *state, const chronos2_round_t *round, const char *name, const backend_tensor_t *tensor,
                chronos_view_t view)
{
    view.series = state->shape.batch;
    view.variates = state->shape.variates;
    view.paths = round->paths;
    return chronos_show(&state->tap, state->backend, round->number, name, tensor, &view);
}

/* Tokens first .. first + count - 1 of hidden states; only the first round's are in the goldens. */
static int show_tokens(model_state_t *state, const chronos2_round_t *round, const char *name, const backend_tensor_t *tensor,
                       int64_t first, int64_t count)
{
    int64_t width = state->model->config.width;

    if (round->number > 0)
        return BACKEND_OK;
    return show(
        state, round, name, tensor,
        (chronos_view_t){.offset = first * width, .row_stride = round->tokens * width, .d0 = 1, .d1 = 1, .d2 = count * width});
}

static int show_features(model_state_t *state, const chronos2_round_t *round, const char *name, int64_t first, int64_t count)
{
    const chronos2_config_t *config = &state->model->config;
    int64_t wide = chronos2_wide(config);

    if (round->number > 0)
        return BACKEND_OK;
    return show(state, round, name, &state->wide,
                (chronos_view_t){.offset = first * wide + config->hidden,
                                 .row_stride = round->tokens * wide,
                                 .d0 = count,
                                 .s0 = wide,
                                 .d1 = 1,
                                 .d2 = 3 * config->patch});
}

static int show_layer(model_state_t *state, const chronos2_round_t *round, int64_t layer, const char *part,
                      const backend_tensor_t *tensor)
{
    char name[48];

    snprintf(name, sizeof name, "block%d.%s", (int)layer, part);
    return show_tokens(state, round, name, tensor, 0, round->tokens);
}

static int show_scaled(model_state_t *state, const chronos2_round_t *round, int64_t bars, int64_t row_bars)
{
    if (round->number > 0)
        return BACKEND_OK;
    TRY(show(state, round, "loc", &state->loc, (chronos_view_t){.row_stride = 1, .d0 = 1, .d1 = 1, .d2 = 1}));
    TRY(show(state, round, "scale", &state->scale, (chronos_view_t){.row_stride = 1, .d0 = 1, .d1 = 1, .d2 = 1}));
    TRY(show(state, round, "scaled_context", &state->scaled,
             (chronos_view_t){.row_stride = row_bars, .d0 = 1, .d1 = 1, .d2 = bars}));
    return BACKEND_OK;
}

/* The head [row][token][level][P] and its un-scaled values, both as [level][token · P]. */
static int show_quantiles(model_state_t *state, const chronos2_round_t *round, const backend_tensor_t *native,
                          int64_t native_stride)
{
    int64_t levels = state->model->config.levels.count, patch = state->model->config.patch, outputs = levels * patch;

    TRY(show(state, round, "normalized_quantiles", &state->head,
             (chronos_view_t){
                 .row_stride = round->ahead * outputs, .d0 = levels, .s0 = patch, .d1 = round->ahead, .s1 = outputs, .d2 = patch}));
    TRY(show(state, round, "quantiles", native,
             (chronos_view_t){
                 .row_stride = levels * native_stride, .d0 = levels, .s0 = native_stride, .d1 = 1, .d2 = round->ahead * patch}));
    return BACKEND_OK;
}

/* ---- from bars to hidden states ------------------------------------------------------------------------------------------------ */

int chronos2_write_constants(model_state_t *state, const chronos2_round_t *round)
{
    const chronos2_config_t *config = &state->model->config;
    int64_t columns = chronos_feature_columns(3 * config->patch);

    TRY(backend_embed(state->backend, &(backend_embed_t){.table = {state->constants},
                                                         .count = 1,
                                                         .indices = round->constant,
                                                         .rows = round->rows * round->tokens,
                                                         .tokens = round->tokens,
                                                         .width = columns,
                                                         .y = backend_tensor_from(&state->wide, config->hidden),
                                                         .y_stride = chronos2_wide(config)}));
    return MODEL_OK;
}

/* Cuts `patches` patches out of the scaled rows, from bar `bar` on, into the features of the tokens from `token` on. */
static int cut(model_state_t *state, const chronos2_round_t *round, const backend_tensor_t *mask, int64_t row_bars, int64_t bar,
               int64_t token, int64_t patches, int64_t time, const backend_tensor_t *visible)
{
    const chronos2_config_t *config = &state->model->config;
    int64_t wide = chronos2_wide(config);
    backend_tensor_t mask_from = backend_tensor_from(mask, bar), time_from = backend_tensor_from(&state->time, time);

    TRY(backend_patch(state->backend, &(backend_patch_t){.x = backend_tensor_from(&state->scaled, bar),
                                                         .mask = &mask_from,
                                                         .rows = round->rows,
                                                         .patches = patches,
                                                         .patch = config->patch,
                                                         .x_stride = row_bars,
                                                         .time = &time_from,
                                                         .y = backend_tensor_from(&state->wide, token * wide + config->hidden),
                                                         .y_stride = round->tokens * wide,
                                                         .patch_stride = wide,
                                                         .visible = visible,
                                                         .visible_stride = round->tokens}));
    return MODEL_OK;
}

/* The rows that a round sees: scaled, cut, with the tokens' features in the wide rows. */
static int read_bars(model_state_t *state, const chronos2_round_t *round)
{
    const chronos2_config_t *config = &state->model->config;
    const model_shape_t *shape = &state->shape;
    bool given = shape->exogenous == 0 && round->number == 0; /* the series as it is */
    int64_t context = round->context * config->patch, ahead = shape->exogenous > 0 ? round->ahead * config->patch : 0;
    int64_t most_context = state->time.dim[0] - state->rounds[0].ahead * config->patch; /* bars before the time 0 */
    const backend_tensor_t *values = given ? &state->values : &state->continued,
                           *mask = given ? &state->mask : &state->continued_mask;
    int rc;

    if (!given)
        TRY(backend_unroll(state->backend, &(backend_unroll_t){.x = state->values,
                                                               .mask = state->mask,
                                                               .series = shape->batch,
                                                               .variates = shape->variates,
                                                               .context = shape->context,
                                                               .native = &state->native,
                                                               .levels = config->levels.count,
                                                               .length = round->done,
                                                               .native_stride = state->total,
                                                               .path_levels = &state->path_levels,
                                                               .paths = round->paths,
                                                               .future = &state->future,
                                                               .exogenous = shape->exogenous,
                                                               .future_stride = state->total,
                                                               .width = context,
                                                               .ahead = ahead,
                                                               .y = state->continued,
                                                               .y_mask = state->continued_mask}));
    TRY(backend_instance_scale(state->backend, &(backend_instance_scale_t){.x = *values,
                                                                           .mask = mask,
                                                                           .rows = round->rows,
                                                                           .width = context + ahead,
                                                                           .ahead = ahead,
                                                                           .eps = SCALE_EPS,
                                                                           .asinh = config->asinh,
                                                                           .y = state->scaled,
                                                                           .loc = state->loc,
                                                                           .scale = state->scale}));
    TRY(show_scaled(state, round, context, context + ahead));
    if (state->round_count > 1 && (rc = chronos2_write_constants(state, round)) < 0)
        return rc;
    if ((rc = cut(state, round, mask, context + ahead, 0, 0, round->context, most_context - context, &round->visible)) < 0)
        return rc;
    if (ahead > 0 &&
        (rc = cut(state, round, mask, context + ahead, context, round->context + 1, round->ahead, most_context, NULL)) < 0)
        return rc;
    TRY(show_features(state, round, "patched_context", 0, round->context));
    TRY(show_features(state, round, "patched_future", round->context + 1, round->ahead));
    return MODEL_OK;
}

static int embed(model_state_t *state, const chronos2_round_t *round)
{
    const model_t *model = state->model;
    int64_t wide = chronos2_wide(&model->config), first_future = round->context + 1;

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = backend_tensor_from(&state->wide, model->config.hidden),
                                                           .rows = round->rows * round->tokens,
                                                           .x_stride = wide,
                                                           .weight = &model->embed.hidden,
                                                           .bias = &model->embed.hidden_bias,
                                                           .activation = BACKEND_ACT_RELU,
                                                           .y = state->wide,
                                                           .y_stride = wide}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->wide,
                                                           .rows = round->rows * round->tokens,
                                                           .weight = &model->embed.output,
                                                           .bias = &model->embed.output_bias,
                                                           .y = state->hidden}));
    TRY(show_tokens(state, round, "context_embed", &state->hidden, 0, round->context));
    TRY(show_tokens(state, round, "future_embed", &state->hidden, first_future, round->ahead));
    TRY(show_tokens(state, round, "input_embeds", &state->hidden, 0, round->tokens));
    return MODEL_OK;
}

/* ---- layers ------------------------------------------------------------------------------------------------------------------- */

/* Tokens that the parts of a layer work on: all of a round, or in the last layer those alone that predict. */
typedef struct {
    int64_t rows; /* of hidden: tokens of all rows */
    int64_t tokens;
    const backend_tensor_t *visible; /* [rows][tokens]; NULL: all */
    backend_tensor_t hidden, other;  /* the residual stream before and after a layer, and in it */
} span_t;

/* y = residual + weight · norm(x) */
static int project(model_state_t *state, int64_t rows, backend_tensor_t x, const backend_weight_t *norm,
                   const backend_weight_t *weight, const backend_tensor_t *residual, backend_tensor_t y)
{
    backend_linear_t op = {.x = x, .rows = rows, .weight = weight, .residual = residual, .y = y};

    if (norm != NULL)
        op.norm = (backend_norm_t){BACKEND_NORM_RMS, norm, NULL, state->model->config.eps};
    TRY(backend_linear(state->backend, &op));
    return MODEL_OK;
}

/* mixed = attention over time, of all tokens */
static int attend_time(model_state_t *state, const chronos2_round_t *round, const chronos2_layer_t *layer)
{
    const chronos2_config_t *config = &state->model->config;
    int rc = project(state, round->rows * round->tokens, state->hidden, &layer->time_norm, &layer->time_qkv, NULL, state->qkv);

    if (rc < 0)
        return rc;
    TRY(backend_attention(state->backend, &(backend_attention_t){.mode = BACKEND_ATTENTION_ENCODE,
                                                                 .qkv = state->qkv,
                                                                 .out = state->mixed,
                                                                 .rows = round->rows,
                                                                 .tokens = round->tokens,
                                                                 .samples = 1,
                                                                 .variates = 1,
                                                                 .heads = (int)config->heads,
                                                                 .head_dim = (int)config->head_dim,
                                                                 .scale = 1,
                                                                 .rope = {.table = &state->rope, .index = &state->positions},
                                                                 .visible = &round->visible}));
    return MODEL_OK;
}

/* other = hidden + Wo · attention over the group; a variate alone attends to itself only. */
static int attend_group(model_state_t *state, const chronos2_round_t *round, const span_t *span, const chronos2_layer_t *layer)
{
    const chronos2_config_t *config = &state->model->config;
    int rc;

    if (state->shape.variates == 1)
        return project(state, span->rows, span->hidden, &layer->group_norm, &layer->group_alone, &span->hidden, span->other);
    if ((rc = project(state, span->rows, span->hidden, &layer->group_norm, &layer->group_qkv, NULL, state->qkv)) < 0)
        return rc;
    TRY(backend_group_attention(state->backend, &(backend_group_attention_t){.qkv = state->qkv,
                                                                             .out = state->mixed,
                                                                             .sets = state->shape.batch * round->paths,
                                                                             .samples = round->paths,
                                                                             .variates = state->shape.variates,
                                                                             .tokens = span->tokens,
                                                                             .heads = (int)config->heads,
                                                                             .head_dim = (int)config->head_dim,
                                                                             .scale = 1,
                                                                             .group = &state->group,
                                                                             .group_tokens = 1,
                                                                             .visible = span->visible}));
    return project(state, span->rows, state->mixed, NULL, &layer->group_o, &span->hidden, span->other);
}

/* hidden = other + Wo · relu(Wi · norm(other)), through the first part of the wide rows */
static int feed_forward(model_state_t *state, const span_t *span, const chronos2_layer_t *layer)
{
    int64_t wide = chronos2_wide(&state->model->config);

    TRY(backend_linear(state->backend,
                       &(backend_linear_t){.x = span->other,
                                           .rows = span->rows,
                                           .norm = {BACKEND_NORM_RMS, &layer->mlp_norm, NULL, state->model->config.eps},
                                           .weight = &layer->wi,
                                           .activation = BACKEND_ACT_RELU,
                                           .y = state->wide,
                                           .y_stride = wide}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->wide,
                                                           .rows = span->rows,
                                                           .x_stride = wide,
                                                           .weight = &layer->wo,
                                                           .residual = &span->other,
                                                           .y = span->hidden}));
    return MODEL_OK;
}

/* What follows attention over time: hidden += Wo · mixed, group, MLP. */
static int finish_layer(model_state_t *state, const chronos2_round_t *round, const span_t *span, backend_tensor_t mixed,
                        int64_t index)
{
    const chronos2_layer_t *layer = &state->model->layers[index];
    bool all = span->tokens == round->tokens;
    int rc;

    if ((rc = project(state, span->rows, mixed, NULL, &layer->time_o, &span->hidden, span->hidden)) < 0)
        return rc;
    if (all)
        TRY(show_layer(state, round, index, "after_time", &span->hidden));
    if ((rc = attend_group(state, round, span, layer)) < 0)
        return rc;
    if (all)
        TRY(show_layer(state, round, index, "after_group", &span->other));
    if ((rc = feed_forward(state, span, layer)) < 0)
        return rc;
    if (all)
        TRY(show_layer(state, round, index, "after_ff", &span->hidden));
    return MODEL_OK;
}

/* The predicted tokens of [rows][tokens][width] as dense rows: in place when there is one row, else gathered into `room`. */
static int pick_predicted(model_state_t *state, const chronos2_round_t *round, const backend_tensor_t *from, int64_t width,
                          const backend_tensor_t *room, backend_tensor_t *picked)
{
    backend_tensor_t table = {.data = from->data, .dtype = from->dtype, .rank = 2, .dim = {round->rows * round->tokens, width}};

    *picked = round->rows == 1 ? backend_tensor_from(from, (round->context + 1) * width) : *room;
    if (round->rows > 1)
        TRY(backend_embed(state->backend, &(backend_embed_t){.table = {table},
                                                             .count = 1,
                                                             .indices = round->predicted,
                                                             .rows = round->rows * round->ahead,
                                                             .tokens = round->rows * round->ahead,
                                                             .width = width,
                                                             .y = *room}));
    return MODEL_OK;
}

/* Once the last layer has attended over time, only the predicted tokens count. */
static int finish_predicted(model_state_t *state, const chronos2_round_t *round, int64_t index, backend_tensor_t *predicted)
{
    const chronos2_config_t *config = &state->model->config;
    span_t span = {.rows = round->rows * round->ahead, .tokens = round->ahead};
    backend_tensor_t mixed;
    int rc;

    if ((rc = pick_predicted(state, round, &state->mixed, config->heads * config->head_dim, &state->qkv, &mixed)) < 0 ||
        (rc = pick_predicted(state, round, &state->hidden, config->width, &state->other, &span.hidden)) < 0)
        return rc;
    span.other = round->rows == 1 ? state->other : state->hidden;
    *predicted = span.hidden;
    return finish_layer(state, round, &span, mixed, index);
}

/* All layers; the predicted tokens' states as dense rows. Who taps sees all tokens of the last layer too. */
static int transform(model_state_t *state, const chronos2_round_t *round, backend_tensor_t *predicted)
{
    const chronos2_config_t *config = &state->model->config;
    span_t span = {.rows = round->rows * round->tokens,
                   .tokens = round->tokens,
                   .visible = &round->visible,
                   .hidden = state->hidden,
                   .other = state->other};
    int rc;

    for (int64_t i = 0; i < config->layers; i++) {
        if ((rc = attend_time(state, round, &state->model->layers[i])) < 0)
            return rc;
        if (i + 1 == config->layers && state->tap.call == NULL)
            return finish_predicted(state, round, i, predicted);
        if ((rc = finish_layer(state, round, &span, state->mixed, i)) < 0)
            return rc;
    }
    return pick_predicted(state, round, &state->hidden, config->width, &state->other, predicted);
}

/* ---- from hidden states to quantiles -------------------------------------------------------------------------------------------- */

static int project_head(model_state_t *state, const chronos2_round_t *round, backend_tensor_t predicted)
{
    const model_t *model = state->model;

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = predicted,
                                                           .rows = round->rows * round->ahead,
                                                           .norm = {BACKEND_NORM_RMS, &model->final_norm, NULL, model->config.eps},
                                                           .weight = &model->head.hidden,
                                                           .bias = &model->head.hidden_bias,
                                                           .activation = BACKEND_ACT_RELU,
                                                           .y = state->head_hidden}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->head_hidden,
                                                           .rows = round->rows * round->ahead,
                                                           .weight = &model->head.output,
                                                           .bias = &model->head.output_bias,
                                                           .y = state->head}));
    return MODEL_OK;
}

/* Quantiles of the forecast from a head's values; with `horizon` 0 only the native ones. */
static int give_quantiles(model_state_t *state, backend_quantile_head_t op, int64_t horizon)
{
    op.levels = state->model->config.levels.count;
    op.native_levels = state->native_levels;
    op.value_stride = 1;
    op.unsorted = true;
    op.horizon = op.total = horizon;
    op.asked = state->shape.quantile_count > 0 ? &state->asked : NULL;
    op.quantiles = &state->quantiles;
    op.mean = &state->mean;
    TRY(backend_quantile_head(state->backend, &op));
    return MODEL_OK;
}

/* Native quantiles of the round: of the first one in their place among all rounds', of later ones those of every path. */
static int predict(model_state_t *state, const chronos2_round_t *round, backend_tensor_t predicted)
{
    const chronos2_config_t *config = &state->model->config;
    int64_t outputs = config->levels.count * config->patch, length = round->ahead * config->patch;
    bool alone = state->round_count == 1, first_of_many = !alone && round->number == 0;
    const backend_tensor_t *native = first_of_many ? &state->native : &state->round_native;
    int64_t native_stride = first_of_many ? state->total : length;
    int rc = project_head(state, round, predicted);

    if (rc < 0)
        return rc;
    rc = give_quantiles(state,
                        (backend_quantile_head_t){.head = state->head,
                                                  .rows = round->rows,
                                                  .length = length,
                                                  .patch = config->patch,
                                                  .row_stride = round->ahead * outputs,
                                                  .patch_stride = outputs,
                                                  .level_stride = config->patch,
                                                  .sinh = config->asinh,
                                                  .loc = state->loc,
                                                  .scale = state->scale,
                                                  .loc_stride = 1,
                                                  .native = alone && state->tap.call == NULL ? NULL : native,
                                                  .native_stride = native_stride},
                        alone ? state->shape.horizon : 0);
    if (rc < 0)
        return rc;
    TRY(show_quantiles(state, round, native, native_stride));
    return MODEL_OK;
}

/* All paths' quantiles into those of the forecast. */
static int merge_paths(model_state_t *state, const chronos2_round_t *round)
{
    const chronos2_config_t *config = &state->model->config;

    TRY(backend_weighted_quantiles(state->backend,
                                   &(backend_weighted_quantiles_t){.x = state->round_native,
                                                                   .series = state->shape.batch,
                                                                   .paths = round->paths,
                                                                   .variates = state->shape.variates,
                                                                   .levels = config->levels.count,
                                                                   .length = round->ahead * config->patch,
                                                                   .weights = state->weights,
                                                                   .asked = state->native_levels,
                                                                   .y = backend_tensor_from(&state->native, round->done),
                                                                   .y_stride = state->total}));
    return MODEL_OK;
}

static int run_round(model_state_t *state, const chronos2_round_t *round)
{
    backend_tensor_t predicted;
    int rc;

    if ((rc = read_bars(state, round)) < 0 || (rc = embed(state, round)) < 0 || (rc = transform(state, round, &predicted)) < 0 ||
        (rc = predict(state, round, predicted)) < 0)
        return rc;
    return round->paths > 1 ? merge_paths(state, round) : MODEL_OK;
}

int chronos2_forecast(model_state_t *state)
{
    int64_t levels = state->model->config.levels.count;
    int rc;

    TRY(backend_copy_in(state->backend, &state->inputs.device, state->inputs.host));
    for (int k = 0; k < state->round_count; k++)
        if ((rc = run_round(state, &state->rounds[k])) < 0)
            return rc;
    if (state->round_count > 1 && (rc = give_quantiles(state,
                                                       (backend_quantile_head_t){.head = state->native,
                                                                                 .rows = state->rounds[0].rows,
                                                                                 .length = state->total,
                                                                                 .patch = state->model->config.patch,
                                                                                 .patch_stride = state->model->config.patch,
                                                                                 .row_stride = levels * state->total,
                                                                                 .level_stride = state->total,
                                                                                 .loc = state->zero,
                                                                                 .scale = state->one},
                                                       state->shape.horizon)) < 0)
        return rc;
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}
