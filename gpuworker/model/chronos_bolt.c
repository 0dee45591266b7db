/* Chronos-Bolt (Amazon, 2024): a T5 encoder over the patches of a series, and a decoder of one token that gives the quantiles of all future values
 * at once.
 *
 * A series is scaled by its own mean and deviation and cut into patches of P bars; S patches and a [REG] token are the encoder's sequence. Scores
 * are not scaled, but each head adds a bias by relative position, the same in all layers. The decoder's token looks at the encoded sequence; a
 * residual block makes the levels of all bars of it.
 *
 * One pass predicts a fixed number of bars. Beyond them the series is continued along every level, each path is forecast again, and the quantiles
 * over all paths and their levels are the forecast and continue the paths; all of it a fixed sequence of rounds. The context of a round is what its
 * predecessors left of it: the last context_length bars.
 *
 * A session's context is rounded up to whole patches and, like the official pipeline's, cut to the model's context_length. A series that is
 * shorter begins with invisible patches, which changes nothing, since positions only count relative to each other.
 *
 * Letters in shape comments: N series, C context bars, P patch, T = S + 1 tokens, D width, H heads, d head size, F hidden width of the MLP. */
#include "gpuworker/model/chronos_bolt_state.h"

#include <math.h>
#include <string.h>

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------------- */

static void plan_rounds(model_state_t *state)
{
    const chronos_bolt_config_t *config = &state->model->config;

    for (int k = 0; k < state->round_count; k++) {
        chronos_bolt_round_t *round = &state->rounds[k];

        round->number = k;
        round->paths = k == 0 ? 1 : config->levels.count;
        round->rows = state->series * round->paths;
        round->done = k * config->length;
        round->context = (min64(state->shape.context + round->done, config->context_most) + config->patch - 1) / config->patch;
        round->tokens = round->context + 1;
    }
}

/* The largest round: contexts and rows only grow. */
static const chronos_bolt_round_t *last_round(const model_state_t *state)
{
    return &state->rounds[state->round_count - 1];
}

/* ---- buffers ------------------------------------------------------------------------------------------------------------------ */

static void plan_outputs(model_state_t *state, model_output_t *output)
{
    staging_add_outputs(&state->outputs, &state->shape, output,
                        &(staging_outputs_t){.mean = &state->mean, .quantiles = &state->quantiles, .levels = &state->asked},
                        &state->buffers);
    staging_bind(&state->outputs, "chronos_bolt results", &state->buffers);
}

static void take_unrolling(model_state_t *state)
{
    const chronos_bolt_config_t *config = &state->model->config;
    const chronos_bolt_round_t *most = last_round(state);
    int64_t levels = config->levels.count, bars = most->context * config->patch;
    buffers_t *buffers = &state->buffers;

    state->continued = buffers_take(buffers, "continued context", BACKEND_F32, DIMS(most->rows, bars));
    state->continued_mask = buffers_take(buffers, "continued mask", BACKEND_U8, DIMS(most->rows, bars));
    state->round_native = buffers_take(buffers, "quantiles of a round", BACKEND_F32, DIMS(most->rows, levels, config->length));
    state->merged = buffers_take(buffers, "quantiles over paths", BACKEND_F32, DIMS(state->series, levels, config->length));
    state->merged_mean = buffers_take(buffers, "mean over paths", BACKEND_F32, DIMS(state->series, config->length));
    state->native = buffers_take(buffers, "quantiles of all rounds", BACKEND_F32, DIMS(state->series, levels, state->total));
    state->path_levels = buffers_take(buffers, "path levels", BACKEND_I32, DIMS(levels));
    state->zero = buffers_take(buffers, "zero", BACKEND_F32, DIMS(1));
    state->one = buffers_take(buffers, "one", BACKEND_F32, DIMS(1));
}

static void take_work(model_state_t *state)
{
    const chronos_bolt_config_t *config = &state->model->config;
    const chronos_bolt_round_t *most = last_round(state);
    buffers_t *buffers = &state->buffers;
    backend_dtype_t dtype = state->model->base.precision;
    int64_t rows = most->rows, tokens = rows * most->tokens, inner = config->heads * config->head_dim;
    int64_t outputs = config->levels.count * config->length;

    state->scaled = buffers_take(buffers, "scaled context", BACKEND_F32, DIMS(rows, most->context * config->patch));
    state->loc = buffers_take(buffers, "loc", BACKEND_F32, DIMS(rows));
    state->scale = buffers_take(buffers, "scale", BACKEND_F32, DIMS(rows));
    state->wide = buffers_take(buffers, "features and mlp hidden", dtype, DIMS(tokens, chronos_bolt_wide(config)));
    state->hidden = buffers_take(buffers, "hidden states", BACKEND_F32, DIMS(tokens, config->width));
    state->qkv = buffers_take(buffers, "qkv", dtype, DIMS(tokens, 3, inner));
    state->mixed = buffers_take(buffers, "attention output", dtype, DIMS(tokens, inner));
    state->keys = buffers_take(buffers, "keys", dtype, DIMS(rows, config->heads, most->tokens, config->head_dim));
    state->values_cache = buffers_take(buffers, "values", dtype, DIMS(rows, config->heads, most->tokens, config->head_dim));
    state->decoded = buffers_take(buffers, "decoder states", BACKEND_F32, DIMS(rows, config->width));
    state->other = buffers_take(buffers, "decoder states", BACKEND_F32, DIMS(rows, config->width));
    state->decoder_hidden = buffers_take(buffers, "decoder mlp hidden", dtype, DIMS(rows, config->hidden));
    state->head_hidden = buffers_take(buffers, "head hidden", dtype, DIMS(rows, config->hidden + 2 * outputs));
    state->head = buffers_take(buffers, "quantile head", BACKEND_F32, DIMS(rows, outputs));
    state->constants = buffers_take(buffers, "constant features", BACKEND_F32, DIMS(2, chronos_feature_columns(2 * config->patch)));
    state->start = buffers_take(buffers, "decoder's beginning", BACKEND_F32, DIMS(rows, config->width));
    state->start_q = buffers_take(buffers, "decoder's first query", dtype, DIMS(rows, 3, inner));
    state->native_levels = buffers_take(buffers, "native levels", BACKEND_F32, DIMS(config->levels.count));
    for (int k = 0; k < state->round_count; k++) {
        chronos_bolt_round_t *round = &state->rounds[k];

        round->visible = buffers_take(buffers, "visible tokens", BACKEND_U8, DIMS(round->rows, round->tokens));
        round->constant = buffers_take(buffers, "constant features", BACKEND_I32, DIMS(round->tokens));
        round->bias = buffers_take(buffers, "position bias", BACKEND_F32, DIMS(config->heads, 2 * round->tokens - 1));
    }
}

/* ---- constants ---------------------------------------------------------------------------------------------------------------- */

/* T5's buckets of a relative position, key less query: one half for later keys, one for earlier ones; of each the first half one distance each, the
 * rest in equal steps of the logarithm up to distance_most. In F32 as the official code, whose steps end exactly at powers of 2. */
static int64_t bucket_of(const chronos_bolt_config_t *config, int64_t relative)
{
    int64_t half = config->buckets / 2, exact = half / 2, distance = relative < 0 ? -relative : relative, bucket = distance;

    if (distance >= exact) {
        float steps = logf((float)distance / (float)exact) / (float)log((double)config->distance_most / (double)exact);

        bucket = min64(exact + (int64_t)(steps * (float)(half - exact)), half - 1);
    }
    return relative > 0 ? half + bucket : bucket;
}

static void write_bias(model_state_t *state, const chronos_bolt_round_t *round)
{
    const chronos_bolt_config_t *config = &state->model->config;
    int64_t width = 2 * round->tokens - 1;
    float *bias = buffers_table_new(&state->buffers, &round->bias);

    for (int64_t i = 0; bias != NULL && i < config->heads * width; i++)
        bias[i] = state->model->bucket_bias[bucket_of(config, i % width - round->tokens + 1) * config->heads + i / width];
    buffers_table_write(&state->buffers, &round->bias, bias);
}

/* [REG], the last token, is always visible; the patches are written by each forecast. */
static void write_visible(model_state_t *state, const chronos_bolt_round_t *round)
{
    uint8_t *visible = buffers_table_new(&state->buffers, &round->visible);

    if (visible != NULL)
        memset(visible, 1, (size_t)backend_tensor_elements(&round->visible));
    buffers_table_write(&state->buffers, &round->visible, visible);
}

/* An empty patch each, but for [REG]. */
static void write_tokens(model_state_t *state, const chronos_bolt_round_t *round)
{
    int32_t *constant = buffers_table_new(&state->buffers, &round->constant);

    if (constant != NULL)
        constant[round->context] = 1;
    buffers_table_write(&state->buffers, &round->constant, constant);
}

static void write_features(model_state_t *state)
{
    float *rows = buffers_table_new(&state->buffers, &state->constants);

    if (rows != NULL)
        rows[state->constants.dim[1] + 2 * state->model->config.patch] = 1; /* [REG] */
    buffers_table_write(&state->buffers, &state->constants, rows);
}

/* What only several rounds need. */
static void write_unrolling(model_state_t *state)
{
    int32_t levels[CHRONOS_LEVELS_MOST];

    for (int32_t i = 0; i < CHRONOS_LEVELS_MOST; i++)
        levels[i] = i;
    buffers_write(&state->buffers, &state->path_levels, levels);
    buffers_write(&state->buffers, &state->zero, &(float){0});
    buffers_write(&state->buffers, &state->one, &(float){1});
}

static int write_constants(model_state_t *state)
{
    int rc;

    write_features(state);
    for (int k = 0; k < state->round_count; k++) {
        write_visible(state, &state->rounds[k]);
        write_tokens(state, &state->rounds[k]);
        write_bias(state, &state->rounds[k]);
    }
    buffers_write(&state->buffers, &state->native_levels, state->model->config.levels.value);
    if (state->round_count > 1)
        write_unrolling(state);
    if ((rc = state->buffers.rc) < 0 || (rc = chronos_bolt_begin_decoder(state, last_round(state)->rows)) < 0)
        return rc;
    /* a single round's rows keep their constants; several share the rows and write them each time */
    return state->round_count > 1 ? MODEL_OK : chronos_bolt_write_constants(state, &state->rounds[0]);
}

/* ---- a session ---------------------------------------------------------------------------------------------------------------- */

static void chronos_bolt_close(model_state_t *state)
{
    buffers_close(&state->buffers);
}

static int chronos_bolt_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input,
                             model_output_t *output)
{
    const chronos_bolt_config_t *config = &model->config;

    shape->context = (uint32_t)min64((shape->context + config->patch - 1) / config->patch * config->patch, config->context_most);
    shape->samples = 0;
    state->model = model;
    state->backend = model->base.backend;
    state->shape = *shape;
    state->series = (int64_t)shape->batch * shape->variates;
    state->round_count = (int)((shape->horizon + config->length - 1) / config->length);
    state->total = state->round_count * config->length;
    state->buffers = (buffers_t){.backend = state->backend};
    state->rounds = buffers_calloc(&state->buffers, state->round_count, sizeof *state->rounds);
    if (state->rounds == NULL)
        return state->buffers.rc;
    plan_rounds(state);
    staging_add_inputs(&state->inputs, shape, input, &(staging_inputs_t){.values = &state->values, .mask = &state->mask});
    staging_bind(&state->inputs, "chronos_bolt inputs", &state->buffers);
    plan_outputs(state, output);
    take_work(state);
    if (state->round_count > 1)
        take_unrolling(state);
    return write_constants(state);
}

static int chronos_bolt_set_tap(model_state_t *state, model_tap_t tap, void *context)
{
    const chronos_bolt_config_t *config = &state->model->config;

    if (tap != NULL && state->round_native.data == NULL) {
        state->round_native = buffers_take(&state->buffers, "tapped quantiles", BACKEND_F32,
                                           DIMS(state->series, config->levels.count, config->length));
        if (state->buffers.rc < 0)
            return state->buffers.rc;
    }
    state->tap = (tap_t){tap, context};
    return MODEL_OK;
}

const model_family_t chronos_bolt_family = {
    .name = "chronos_bolt",
    .matches = chronos_bolt_matches,
    .model_bytes = sizeof(model_t),
    .state_bytes = sizeof(model_state_t),
    .load = chronos_bolt_load,
    .unload = chronos_bolt_unload,
    .info = chronos_bolt_info,
    .open = chronos_bolt_open,
    .forecast = chronos_bolt_forecast,
    .close = chronos_bolt_close,
    .cost = chronos_bolt_cost,
    .set_tap = chronos_bolt_set_tap,
    .create = chronos_bolt_create,
};
