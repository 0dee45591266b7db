/* The forecast of Chronos-Bolt: one round after the other. See chronos_bolt.c for the model and the letters, chronos_parts.h for the wide rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/chronos_bolt_state.h"

static const float SCALE_EPS = 1e-5f; /* in place of the deviation of a constant series */

/* ---- taps --------------------------------------------------------------------------------------------------------------------- */

/* Rows of `width` values, row_stride apart. The goldens hold hidden states of the first round only. */
static int show_rows(model_state_t *state, const chronos_bolt_round_t *round, const char *name, const backend_tensor_t *tensor,
                     int64_t row_stride, int64_t width)
{
    return chronos_show(&state->tap, state->backend, round->number, name, tensor,
                        &(chronos_view_t){.series = state->series,
                                          .paths = round->paths,
                                          .variates = 1,
                                          .row_stride = row_stride,
                                          .d0 = 1,
                                          .d1 = 1,
                                          .d2 = width});
}

static int show_layer(model_state_t *state, const chronos_bolt_round_t *round, const char *stack, int64_t layer,
                      const backend_tensor_t *tensor, int64_t row_values)
{
    char name[48];

    if (round->number > 0)
        return BACKEND_OK;
    snprintf(name, sizeof name, "%s_block_%d", stack, (int)layer);
    return show_rows(state, round, name, tensor, row_values, row_values);
}

static int show_input(model_state_t *state, const chronos_bolt_round_t *round)
{
    const chronos_bolt_config_t *config = &state->model->config;
    int64_t bars = round->context * config->patch, wide = chronos_bolt_wide(config);

    if (round->number > 0)
        return BACKEND_OK;
    TRY(show_rows(state, round, "loc", &state->loc, 1, 1));
    TRY(show_rows(state, round, "scale", &state->scale, 1, 1));
    TRY(show_rows(state, round, "scaled_context", &state->scaled, bars, bars));
    TRY(chronos_show(&state->tap, state->backend, 0, "patched_context", &state->wide,
                     &(chronos_view_t){.series = state->series,
                                       .paths = 1,
                                       .variates = 1,
                                       .offset = config->hidden,
                                       .row_stride = round->tokens * wide,
                                       .d0 = round->context,
                                       .s0 = wide,
                                       .d1 = 1,
                                       .d2 = 2 * config->patch}));
    return BACKEND_OK;
}

/* ---- from bars to hidden states ------------------------------------------------------------------------------------------------ */

int chronos_bolt_write_constants(model_state_t *state, const chronos_bolt_round_t *round)
{
    const chronos_bolt_config_t *config = &state->model->config;

    TRY(backend_embed(state->backend, &(backend_embed_t){.table = {state->constants},
                                                         .count = 1,
                                                         .indices = round->constant,
                                                         .rows = round->rows * round->tokens,
                                                         .tokens = round->tokens,
                                                         .width = chronos_feature_columns(2 * config->patch),
                                                         .y = backend_tensor_from(&state->wide, config->hidden),
                                                         .y_stride = chronos_bolt_wide(config)}));
    return MODEL_OK;
}

/* The rows that a round sees: scaled, cut, with the tokens' features in the wide rows. */
static int read_bars(model_state_t *state, const chronos_bolt_round_t *round)
{
    const chronos_bolt_config_t *config = &state->model->config;
    bool given = round->number == 0; /* the series as it is */
    const backend_tensor_t *mask = given ? &state->mask : &state->continued_mask;
    int64_t bars = round->context * config->patch, wide = chronos_bolt_wide(config);
    int rc;

    if (!given)
        TRY(backend_unroll(state->backend, &(backend_unroll_t){.x = state->values,
                                                               .mask = state->mask,
                                                               .series = state->series,
                                                               .variates = 1,
                                                               .context = state->shape.context,
                                                               .native = &state->native,
                                                               .levels = config->levels.count,
                                                               .length = round->done,
                                                               .native_stride = state->total,
                                                               .path_levels = &state->path_levels,
                                                               .paths = round->paths,
                                                               .width = bars,
                                                               .y = state->continued,
                                                               .y_mask = state->continued_mask}));
    TRY(backend_instance_scale(state->backend, &(backend_instance_scale_t){.x = given ? state->values : state->continued,
                                                                           .mask = mask,
                                                                           .rows = round->rows,
                                                                           .width = bars,
                                                                           .eps = SCALE_EPS,
                                                                           .y = state->scaled,
                                                                           .loc = state->loc,
                                                                           .scale = state->scale}));
    if (state->round_count > 1 && (rc = chronos_bolt_write_constants(state, round)) < 0)
        return rc;
    TRY(backend_patch(state->backend, &(backend_patch_t){.x = state->scaled,
                                                         .mask = mask,
                                                         .rows = round->rows,
                                                         .patches = round->context,
                                                         .patch = config->patch,
                                                         .y = backend_tensor_from(&state->wide, config->hidden),
                                                         .y_stride = round->tokens * wide,
                                                         .patch_stride = wide,
                                                         .visible = &round->visible,
                                                         .visible_stride = round->tokens}));
    TRY(show_input(state, round));
    return MODEL_OK;
}

static int embed(model_state_t *state, const chronos_bolt_round_t *round)
{
    const model_t *model = state->model;
    int64_t wide = chronos_bolt_wide(&model->config), width = model->config.width;

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
    if (round->number == 0) {
        TRY(show_rows(state, round, "patch_embed", &state->hidden, round->tokens * width, round->context * width));
        TRY(show_rows(state, round, "input_embeds", &state->hidden, round->tokens * width, round->tokens * width));
    }
    return MODEL_OK;
}

/* ---- the encoder -------------------------------------------------------------------------------------------------------------- */

static backend_norm_t norm_of(const model_state_t *state, const backend_weight_t *scale)
{
    return (backend_norm_t){BACKEND_NORM_RMS, scale, NULL, state->model->config.eps};
}

static int encode_layer(model_state_t *state, const chronos_bolt_round_t *round, const chronos_bolt_encoder_layer_t *layer)
{
    const chronos_bolt_config_t *config = &state->model->config;
    int64_t rows = round->rows * round->tokens, wide = chronos_bolt_wide(config);

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->hidden,
                                                           .rows = rows,
                                                           .norm = norm_of(state, &layer->attention_norm),
                                                           .weight = &layer->qkv,
                                                           .y = state->qkv}));
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
                                                                 .visible = &round->visible,
                                                                 .bias = &round->bias}));
    TRY(backend_linear(
        state->backend,
        &(backend_linear_t){.x = state->mixed, .rows = rows, .weight = &layer->o, .residual = &state->hidden, .y = state->hidden}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->hidden,
                                                           .rows = rows,
                                                           .norm = norm_of(state, &layer->mlp_norm),
                                                           .weight = &layer->wi,
                                                           .activation = BACKEND_ACT_RELU,
                                                           .y = state->wide,
                                                           .y_stride = wide}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->wide,
                                                           .rows = rows,
                                                           .x_stride = wide,
                                                           .weight = &layer->wo,
                                                           .residual = &state->hidden,
                                                           .y = state->hidden}));
    return MODEL_OK;
}

/* ---- the decoder -------------------------------------------------------------------------------------------------------------- */

/* y = residual + weight · norm(x), of each row's one token. */
static int project(model_state_t *state, int64_t rows, backend_tensor_t x, const backend_weight_t *norm,
                   const backend_weight_t *weight, const backend_tensor_t *residual, backend_tensor_t y, int64_t y_stride)
{
    backend_linear_t op = {.x = x, .rows = rows, .weight = weight, .residual = residual, .y = y, .y_stride = y_stride};

    if (norm != NULL)
        op.norm = norm_of(state, norm);
    TRY(backend_linear(state->backend, &op));
    return MODEL_OK;
}

static int self_attend(model_state_t *state, int64_t rows, const chronos_bolt_decoder_layer_t *layer, backend_tensor_t y)
{
    return project(state, rows, state->decoded, &layer->self_norm, &layer->self_alone, &state->decoded, y, 0);
}

static int make_query(model_state_t *state, int64_t rows, const chronos_bolt_decoder_layer_t *layer, backend_tensor_t x,
                      backend_tensor_t y)
{
    const chronos_bolt_config_t *config = &state->model->config;

    return project(state, rows, x, &layer->cross_norm, &layer->cross_q, NULL, y, 3 * config->heads * config->head_dim);
}

/* Up to its first cross attention the decoder knows nothing of the series. */
int chronos_bolt_begin_decoder(model_state_t *state, int64_t rows)
{
    const model_t *model = state->model;
    int64_t width = model->config.width;
    float *tokens = malloc((size_t)(rows * width) * sizeof *tokens);
    int rc;

    if (tokens == NULL)
        return error_set(MODEL_ERR_MEMORY, "decoder's beginning: out of memory");
    for (int64_t row = 0; row < rows; row++)
        memcpy(tokens + row * width, model->start, (size_t)width * sizeof *tokens);
    rc = model_backend_error(backend_write(state->backend, &state->decoded, tokens));
    free(tokens);
    if (rc == MODEL_OK)
        rc = self_attend(state, rows, &model->decoder[0], state->start);
    return rc == MODEL_OK ? make_query(state, rows, &model->decoder[0], state->start, state->start_q) : rc;
}

/* The encoded sequence as a layer's keys and values, in the part of qkv that the queries leave free. */
static int store_encoded(model_state_t *state, const chronos_bolt_round_t *round, const chronos_bolt_decoder_layer_t *layer,
                         backend_kv_t *kv)
{
    const chronos_bolt_config_t *config = &state->model->config;
    int64_t inner = config->heads * config->head_dim;

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->hidden,
                                                           .rows = round->rows * round->tokens,
                                                           .norm = norm_of(state, &state->model->encoder_norm),
                                                           .weight = &layer->cross_kv,
                                                           .y = backend_tensor_from(&state->qkv, inner),
                                                           .y_stride = 3 * inner}));
    TRY(backend_attention(state->backend, &(backend_attention_t){.mode = BACKEND_ATTENTION_STORE,
                                                                 .qkv = state->qkv,
                                                                 .rows = round->rows,
                                                                 .tokens = round->tokens,
                                                                 .samples = 1,
                                                                 .variates = 1,
                                                                 .heads = (int)config->heads,
                                                                 .head_dim = (int)config->head_dim,
                                                                 .scale = 1,
                                                                 .kv = kv}));
    return MODEL_OK;
}

/* other = x + Wo · what the query sees of the encoded sequence */
static int cross_attend(model_state_t *state, const chronos_bolt_round_t *round, const chronos_bolt_decoder_layer_t *layer,
                        backend_tensor_t query, const backend_tensor_t *x, backend_kv_t *kv)
{
    const chronos_bolt_config_t *config = &state->model->config;

    TRY(backend_attention(state->backend, &(backend_attention_t){.mode = BACKEND_ATTENTION_QUERY,
                                                                 .qkv = query,
                                                                 .out = state->mixed,
                                                                 .rows = round->rows,
                                                                 .tokens = 1,
                                                                 .samples = 1,
                                                                 .variates = 1,
                                                                 .heads = (int)config->heads,
                                                                 .head_dim = (int)config->head_dim,
                                                                 .scale = 1,
                                                                 .kv = kv,
                                                                 .visible = &round->visible}));
    return project(state, round->rows, state->mixed, NULL, &layer->cross_o, x, state->other, 0);
}

/* decoded = other + Wo · relu(Wi · norm(other)) */
static int decoder_mlp(model_state_t *state, int64_t rows, const chronos_bolt_decoder_layer_t *layer)
{
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->other,
                                                           .rows = rows,
                                                           .norm = norm_of(state, &layer->mlp_norm),
                                                           .weight = &layer->wi,
                                                           .activation = BACKEND_ACT_RELU,
                                                           .y = state->decoder_hidden}));
    return project(state, rows, state->decoder_hidden, NULL, &layer->wo, &state->other, state->decoded, 0);
}

static int decode_layer(model_state_t *state, const chronos_bolt_round_t *round, int64_t index)
{
    const chronos_bolt_config_t *config = &state->model->config;
    const chronos_bolt_decoder_layer_t *layer = &state->model->decoder[index];
    backend_kv_t kv = {.prefix_k = {.data = state->keys.data,
                                    .dtype = state->keys.dtype,
                                    .rank = 4,
                                    .dim = {round->rows, config->heads, round->tokens, config->head_dim}}};
    int rc;

    kv.prefix_v = kv.prefix_k;
    kv.prefix_v.data = state->values_cache.data;
    if ((rc = store_encoded(state, round, layer, &kv)) < 0)
        return rc;
    if (index == 0)
        rc = cross_attend(state, round, layer, state->start_q, &state->start, &kv);
    else if ((rc = self_attend(state, round->rows, layer, state->other)) == MODEL_OK &&
             (rc = make_query(state, round->rows, layer, state->other, state->qkv)) == MODEL_OK)
        rc = cross_attend(state, round, layer, state->qkv, &state->other, &kv);
    return rc == MODEL_OK ? decoder_mlp(state, round->rows, layer) : rc;
}

static int transform(model_state_t *state, const chronos_bolt_round_t *round)
{
    const chronos_bolt_config_t *config = &state->model->config;
    int rc;

    for (int64_t i = 0; i < config->encoder_layers; i++) {
        if ((rc = encode_layer(state, round, &state->model->encoder[i])) < 0)
            return rc;
        TRY(show_layer(state, round, "encoder", i, &state->hidden, round->tokens * config->width));
    }
    for (int64_t i = 0; i < config->decoder_layers; i++) {
        if ((rc = decode_layer(state, round, i)) < 0)
            return rc;
        TRY(show_layer(state, round, "decoder", i, &state->decoded, config->width));
    }
    return MODEL_OK;
}

/* ---- from hidden states to quantiles -------------------------------------------------------------------------------------------- */

static int project_head(model_state_t *state, const chronos_bolt_round_t *round)
{
    const model_t *model = state->model;

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->decoded,
                                                           .rows = round->rows,
                                                           .norm = norm_of(state, &model->decoder_norm),
                                                           .weight = &model->head.hidden,
                                                           .bias = &model->head.hidden_bias,
                                                           .activation = BACKEND_ACT_RELU,
                                                           .y = state->head_hidden}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->head_hidden,
                                                           .rows = round->rows,
                                                           .weight = &model->head.output,
                                                           .bias = &model->head.output_bias,
                                                           .y = state->head}));
    return MODEL_OK;
}

/* Of values [rows][levels][length], scaled by loc and scale (loc_stride 0: the same for all): native quantiles, and with a horizon the forecast. */
static int give_quantiles(model_state_t *state, backend_quantile_head_t op, int64_t rows, int64_t length, int64_t horizon)
{
    int64_t levels = state->model->config.levels.count;

    op.rows = rows;
    op.length = op.level_stride = length;
    op.patch = op.patch_stride = state->model->config.length;
    op.levels = levels;
    op.row_stride = levels * length;
    op.value_stride = 1;
    op.unsorted = true;
    op.native_levels = state->native_levels;
    op.horizon = op.total = horizon;
    op.asked = state->shape.quantile_count > 0 ? &state->asked : NULL;
    op.quantiles = &state->quantiles;
    op.mean = &state->mean;
    TRY(backend_quantile_head(state->backend, &op));
    return MODEL_OK;
}

/* Native quantiles of the round: of the first one in their place among all rounds', of later ones those of every path. */
static int predict(model_state_t *state, const chronos_bolt_round_t *round)
{
    const chronos_bolt_config_t *config = &state->model->config;
    bool alone = state->round_count == 1, first_of_many = !alone && round->number == 0;
    const backend_tensor_t *native = first_of_many ? &state->native : &state->round_native;
    int64_t values = config->levels.count * config->length, native_stride = first_of_many ? state->total : config->length;
    backend_quantile_head_t op = {.head = state->head,
                                  .loc = state->loc,
                                  .scale = state->scale,
                                  .loc_stride = 1,
                                  .native = alone && state->tap.call == NULL ? NULL : native,
                                  .native_stride = native_stride};
    int rc = project_head(state, round);

    if (rc < 0 || (rc = give_quantiles(state, op, round->rows, config->length, alone ? state->shape.horizon : 0)) < 0)
        return rc;
    TRY(show_rows(state, round, "normalized_quantiles", &state->head, values, values));
    TRY(chronos_show(&state->tap, state->backend, round->number, "quantiles", native,
                     &(chronos_view_t){.series = state->series,
                                       .paths = round->paths,
                                       .variates = 1,
                                       .row_stride = config->levels.count * native_stride,
                                       .d0 = config->levels.count,
                                       .s0 = native_stride,
                                       .d1 = 1,
                                       .d2 = config->length}));
    return MODEL_OK;
}

/* The quantiles over all paths and their levels, as samples of equal weight, into their place among all rounds'. */
static int merge_paths(model_state_t *state, const chronos_bolt_round_t *round)
{
    const chronos_bolt_config_t *config = &state->model->config;
    backend_tensor_t native = backend_tensor_from(&state->native, round->done);
    backend_quantile_head_t placed = {
        .head = state->merged, .loc = state->zero, .scale = state->one, .native = &native, .native_stride = state->total};

    TRY(backend_summarize(state->backend, &(backend_summarize_t){.paths = state->round_native,
                                                                 .path_stride = config->length,
                                                                 .series = state->series,
                                                                 .samples = round->paths * config->levels.count,
                                                                 .variates = 1,
                                                                 .horizon = config->length,
                                                                 .mean = state->merged_mean,
                                                                 .levels = &state->native_levels,
                                                                 .quantiles = &state->merged}));
    return give_quantiles(state, placed, state->series, config->length, 0);
}

static int run_round(model_state_t *state, const chronos_bolt_round_t *round)
{
    int rc;

    if ((rc = read_bars(state, round)) < 0 || (rc = embed(state, round)) < 0 || (rc = transform(state, round)) < 0 ||
        (rc = predict(state, round)) < 0)
        return rc;
    return round->paths > 1 ? merge_paths(state, round) : MODEL_OK;
}

int chronos_bolt_forecast(model_state_t *state)
{
    backend_quantile_head_t all = {.head = state->native, .loc = state->zero, .scale = state->one};
    int rc;

    TRY(backend_copy_in(state->backend, &state->inputs.device, state->inputs.host));
    for (int k = 0; k < state->round_count; k++)
        if ((rc = run_round(state, &state->rounds[k])) < 0)
            return rc;
    if (state->round_count > 1 && (rc = give_quantiles(state, all, state->series, state->total, state->shape.horizon)) < 0)
        return rc;
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}
