/* Chronos-2 (Amazon, 2025): an encoder over patches of related series, with quantiles of every future value.
 *
 * Each variate is scaled by its own mean and deviation and cut into patches of P bars; S context patches, a [REG] token and one token for every
 * patch to predict are its sequence. A patch's features are the time of its bars, their values (of a future: where it is known) and what is
 * observed of them. Every layer attends over time within a variate, then at one time over the variates of a group, then comes an MLP. The last A
 * tokens give the levels of all P bars of their patches.
 *
 * One pass predicts a bounded number of patches. Beyond them the series is continued along nine of its own quantiles, each path is forecast again,
 * and the quantiles over all paths and their levels, weighted by the probability that they stand for, are the forecast and continue the paths;
 * all of it a fixed sequence of rounds. The context of a round is what its predecessors left of it: the last context_length bars.
 *
 * A session's context is rounded up to whole patches and, like the official pipeline's, cut to the model's context_length. A series that is
 * shorter begins with invisible patches: positions only count relative to each other, times from the end, so that it gets the forecast of a
 * session of its own length.
 *
 * Letters in shape comments: B series, V variates (the last E with a known future), C context bars, S context tokens, A predicted ones,
 * T = S + 1 + A, P patch, D width, H heads, d head size, F hidden width of the MLP. Rows are (series, path, variate). */
#include "gpuworker/model/chronos2_state.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------------- */

/* What all rounds need at most. */
typedef struct {
    int64_t rows, context, ahead, tokens;    /* of one row each */
    int64_t row_tokens, row_bars, row_ahead; /* rows · tokens, rows · (context + ahead) · P, rows · ahead */
} extent_t;

static void plan_rounds(model_state_t *state)
{
    const chronos2_config_t *config = &state->model->config;
    int64_t series_rows = (int64_t)state->shape.batch * state->shape.variates, patches = state->total / config->patch;

    for (int k = 0; k < state->round_count; k++) {
        chronos2_round_t *round = &state->rounds[k];
        int64_t before = k * config->output_patches;

        round->number = k;
        round->paths = k == 0 ? 1 : CHRONOS2_PATHS;
        round->rows = series_rows * round->paths;
        round->done = before * config->patch;
        round->context = min64(state->shape.context + round->done, config->context_most) / config->patch;
        round->ahead = min64(patches - before, config->output_patches);
        round->tokens = round->context + 1 + round->ahead;
    }
}

static extent_t extent_of(const model_state_t *state)
{
    extent_t most = {0};

    for (int k = 0; k < state->round_count; k++) {
        const chronos2_round_t *round = &state->rounds[k];

        most.rows = max64(most.rows, round->rows);
        most.context = max64(most.context, round->context);
        most.ahead = max64(most.ahead, round->ahead);
        most.tokens = max64(most.tokens, round->tokens);
        most.row_tokens = max64(most.row_tokens, round->rows * round->tokens);
        most.row_bars = max64(most.row_bars, round->rows * (round->context + round->ahead) * state->model->config.patch);
        most.row_ahead = max64(most.row_ahead, round->rows * round->ahead);
    }
    return most;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------------------ */

static void plan_inputs(model_state_t *state, model_input_t *input)
{
    staging_add_inputs(&state->inputs, &state->shape, input,
                       &(staging_inputs_t){.values = &state->values, .mask = &state->mask, .group = &state->group});
    staging_add(&state->inputs, BACKEND_F32, DIMS(state->shape.batch, state->shape.exogenous, state->total), &state->future,
                &state->future_padded);
    staging_bind(&state->inputs, "chronos2 inputs", &state->buffers);
    state->future_given = input->future;
}

static void plan_outputs(model_state_t *state, model_output_t *output)
{
    staging_add_outputs(&state->outputs, &state->shape, output,
                        &(staging_outputs_t){.mean = &state->mean, .quantiles = &state->quantiles, .levels = &state->asked},
                        &state->buffers);
    staging_bind(&state->outputs, "chronos2 results", &state->buffers);
}

static void take_work(model_state_t *state)
{
    const chronos2_config_t *config = &state->model->config;
    buffers_t *buffers = &state->buffers;
    backend_dtype_t dtype = state->model->base.precision;
    extent_t most = extent_of(state);
    int64_t inner = config->heads * config->head_dim, outputs = config->levels.count * config->patch;

    if (state->shape.exogenous > 0 || state->round_count > 1) {
        state->continued = buffers_take(buffers, "continued context", BACKEND_F32, DIMS(most.row_bars));
        state->continued_mask = buffers_take(buffers, "continued mask", BACKEND_U8, DIMS(most.row_bars));
    }
    state->scaled = buffers_take(buffers, "scaled context", BACKEND_F32, DIMS(most.row_bars));
    state->loc = buffers_take(buffers, "loc", BACKEND_F32, DIMS(most.rows));
    state->scale = buffers_take(buffers, "scale", BACKEND_F32, DIMS(most.rows));
    state->wide = buffers_take(buffers, "features and mlp hidden", dtype, DIMS(most.row_tokens, chronos2_wide(config)));
    state->hidden = buffers_take(buffers, "hidden states", BACKEND_F32, DIMS(most.row_tokens, config->width));
    state->other = buffers_take(buffers, "hidden states", BACKEND_F32, DIMS(most.row_tokens, config->width));
    state->qkv = buffers_take(buffers, "qkv", dtype, DIMS(most.row_tokens, 3, inner));
    state->mixed = buffers_take(buffers, "attention output", dtype, DIMS(most.row_tokens, inner));
    state->head_hidden = buffers_take(buffers, "head hidden", dtype, DIMS(most.row_ahead, config->hidden + 2 * outputs));
    state->head = buffers_take(buffers, "quantile head", BACKEND_F32, DIMS(most.row_ahead, outputs));
    if (state->round_count > 1) {
        state->round_native = buffers_take(buffers, "quantiles of a round", BACKEND_F32,
                                           DIMS(most.rows, config->levels.count, most.ahead * config->patch));
        state->native = buffers_take(buffers, "quantiles of all rounds", BACKEND_F32,
                                     DIMS(state->shape.batch, state->shape.variates, config->levels.count, state->total));
    }
    for (int k = 0; k < state->round_count; k++) {
        chronos2_round_t *round = &state->rounds[k];

        round->visible = buffers_take(buffers, "visible tokens", BACKEND_U8, DIMS(round->rows, round->tokens));
        round->constant = buffers_take(buffers, "constant features", BACKEND_I32, DIMS(round->tokens));
        round->predicted = buffers_take(buffers, "predicted tokens", BACKEND_I32, DIMS(round->rows * round->ahead));
    }
}

static void take_constants(model_state_t *state)
{
    const chronos2_config_t *config = &state->model->config;
    buffers_t *buffers = &state->buffers;
    extent_t most = extent_of(state);

    state->time = buffers_take(buffers, "times", BACKEND_F32, DIMS((most.context + most.ahead) * config->patch));
    state->constants =
        buffers_take(buffers, "constant features", BACKEND_F32, DIMS(2 + most.ahead, chronos_feature_columns(3 * config->patch)));
    state->rope = buffers_take(buffers, "rotary table", BACKEND_F32, DIMS(most.tokens, 4, config->head_dim));
    state->positions = buffers_take(buffers, "positions", BACKEND_I32, DIMS(most.rows, most.tokens));
    state->native_levels = buffers_take(buffers, "native levels", BACKEND_F32, DIMS(config->levels.count));
    if (state->round_count > 1) {
        state->path_levels = buffers_take(buffers, "path levels", BACKEND_I32, DIMS(CHRONOS2_PATHS));
        state->weights = buffers_take(buffers, "path weights", BACKEND_F32, DIMS(CHRONOS2_PATHS, config->levels.count));
        state->zero = buffers_take(buffers, "zero", BACKEND_F32, DIMS(1));
        state->one = buffers_take(buffers, "one", BACKEND_F32, DIMS(1));
    }
}

/* ---- constants ---------------------------------------------------------------------------------------------------------------- */

/* -context .. -1, 0 .. ahead - 1 bars */
static void write_time(model_state_t *state)
{
    const chronos2_config_t *config = &state->model->config;
    int64_t context = extent_of(state).context * config->patch;
    float *time = buffers_table_new(&state->buffers, &state->time);

    for (int64_t i = 0; time != NULL && i < state->time.dim[0]; i++)
        time[i] = (float)(i - context) / (float)config->time_scale;
    buffers_table_write(&state->buffers, &state->time, time);
}

static void write_features(model_state_t *state)
{
    const chronos2_config_t *config = &state->model->config;
    int64_t columns = state->constants.dim[1], futures = state->constants.dim[0] - 2;
    float *row = buffers_table_new(&state->buffers, &state->constants);

    if (row != NULL)
        row[columns + 3 * config->patch] = 1; /* [REG] */
    for (int64_t i = 0; row != NULL && i < futures * config->patch; i++)
        row[(2 + i / config->patch) * columns + i % config->patch] = (float)i / (float)config->time_scale;
    buffers_table_write(&state->buffers, &state->constants, row);
}

static void write_positions(model_state_t *state)
{
    int32_t *positions = buffers_table_new(&state->buffers, &state->positions);

    for (int64_t i = 0; positions != NULL && i < backend_tensor_elements(&state->positions); i++)
        positions[i] = (int32_t)(i % state->positions.dim[1]);
    buffers_table_write(&state->buffers, &state->positions, positions);
}

/* [REG] and the future are always visible; the context's patches are written by each forecast. */
static void write_visible(model_state_t *state, const chronos2_round_t *round)
{
    uint8_t *visible = buffers_table_new(&state->buffers, &round->visible);

    if (visible != NULL)
        memset(visible, 1, (size_t)backend_tensor_elements(&round->visible));
    buffers_table_write(&state->buffers, &round->visible, visible);
}

static void write_indices(model_state_t *state, const chronos2_round_t *round)
{
    int32_t *constant = buffers_table_new(&state->buffers, &round->constant);
    int32_t *predicted = buffers_table_new(&state->buffers, &round->predicted);

    for (int64_t t = round->context; constant != NULL && t < round->tokens; t++)
        constant[t] = (int32_t)(1 + t - round->context);
    for (int64_t i = 0; predicted != NULL && i < round->rows * round->ahead; i++)
        predicted[i] = (int32_t)(i / round->ahead * round->tokens + round->context + 1 + i % round->ahead);
    buffers_table_write(&state->buffers, &round->constant, constant);
    buffers_table_write(&state->buffers, &round->predicted, predicted);
}

/* The probability that level i of `count` stands for: half the way to each neighbour, as shares of all. */
static double mass_of(const float *levels, int64_t count, int64_t i)
{
    double before = i > 0 ? (double)levels[i - 1] : 0, after = i + 1 < count ? (double)levels[i + 1] : 1;
    double sum = (1 + (double)levels[count - 1] - (double)levels[0]) / 2;

    return (after - before) / 2 / sum;
}

/* What only several rounds need. */
static void write_unrolling(model_state_t *state)
{
    const chronos2_config_t *config = &state->model->config;
    float paths[CHRONOS2_PATHS], weights[CHRONOS2_PATHS * CHRONOS_LEVELS_MOST];
    int64_t levels = config->levels.count;

    for (int p = 0; p < CHRONOS2_PATHS; p++)
        paths[p] = config->levels.value[config->path_level[p]];
    for (int64_t i = 0; i < CHRONOS2_PATHS * levels; i++)
        weights[i] = (float)(mass_of(paths, CHRONOS2_PATHS, i / levels) * mass_of(config->levels.value, levels, i % levels));
    buffers_write(&state->buffers, &state->path_levels, config->path_level);
    buffers_write(&state->buffers, &state->weights, weights);
    buffers_write(&state->buffers, &state->zero, &(float){0});
    buffers_write(&state->buffers, &state->one, &(float){1});
}

static int write_constants(model_state_t *state)
{
    write_time(state);
    write_features(state);
    buffers_write_rope(&state->buffers, &state->rope, state->model->config.rope_theta);
    write_positions(state);
    for (int k = 0; k < state->round_count; k++) {
        write_visible(state, &state->rounds[k]);
        write_indices(state, &state->rounds[k]);
    }
    buffers_write(&state->buffers, &state->native_levels, state->model->config.levels.value);
    if (state->round_count > 1)
        write_unrolling(state);
    /* a single round's rows keep their constants; several share the rows and write them each time */
    return state->buffers.rc < 0 || state->round_count > 1 ? state->buffers.rc : chronos2_write_constants(state, &state->rounds[0]);
}

/* ---- a session ---------------------------------------------------------------------------------------------------------------- */

static void chronos2_close(model_state_t *state)
{
    buffers_close(&state->buffers);
}

static int check_shape(const model_t *model, const model_shape_t *shape)
{
    const chronos2_config_t *config = &model->config;

    if (shape->horizon > config->output_patches * config->patch && !config->unrolls)
        return error_set(MODEL_ERR_SHAPE,
                         "chronos2: horizon is %u, expected at most %lld: this model lacks some of the quantiles 0.1 to 0.9, along "
                         "which a forecast goes on",
                         shape->horizon, (long long)(config->output_patches * config->patch));
    return MODEL_OK;
}

static int chronos2_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output)
{
    const chronos2_config_t *config = &model->config;
    int64_t patches = (shape->horizon + config->patch - 1) / config->patch;
    int rc = check_shape(model, shape);

    if (rc < 0)
        return rc;
    shape->context = (uint32_t)min64((shape->context + config->patch - 1) / config->patch * config->patch, config->context_most);
    shape->samples = 0;
    state->model = model;
    state->backend = model->base.backend;
    state->shape = *shape;
    state->total = patches * config->patch;
    state->round_count = (int)((patches + config->output_patches - 1) / config->output_patches);
    state->buffers = (buffers_t){.backend = state->backend};
    state->rounds = buffers_calloc(&state->buffers, state->round_count, sizeof *state->rounds);
    if (state->rounds == NULL)
        return state->buffers.rc;
    plan_rounds(state);
    plan_inputs(state, input);
    plan_outputs(state, output);
    take_work(state);
    take_constants(state);
    return write_constants(state);
}

/* Nothing is known of the bars past the horizon. */
static void chronos2_prepare(model_state_t *state)
{
    int64_t horizon = state->shape.horizon;

    for (int64_t row = 0; row < (int64_t)state->shape.batch * state->shape.exogenous; row++) {
        float *padded = state->future_padded + row * state->total;

        memcpy(padded, state->future_given + row * horizon, (size_t)horizon * sizeof *padded);
        for (int64_t i = horizon; i < state->total; i++)
            padded[i] = NAN;
    }
}

static int chronos2_set_tap(model_state_t *state, model_tap_t tap, void *context)
{
    const chronos2_config_t *config = &state->model->config;

    if (tap != NULL && state->round_native.data == NULL) {
        const chronos2_round_t *round = &state->rounds[0];

        state->round_native = buffers_take(&state->buffers, "tapped quantiles", BACKEND_F32,
                                           DIMS(round->rows, config->levels.count, round->ahead * config->patch));
        if (state->buffers.rc < 0)
            return state->buffers.rc;
    }
    state->tap = (tap_t){tap, context};
    return MODEL_OK;
}

const model_family_t chronos2_family = {
    .name = "chronos2",
    .matches = chronos2_matches,
    .model_bytes = sizeof(model_t),
    .state_bytes = sizeof(model_state_t),
    .load = chronos2_load,
    .unload = chronos2_unload,
    .info = chronos2_info,
    .open = chronos2_open,
    .prepare = chronos2_prepare,
    .forecast = chronos2_forecast,
    .close = chronos2_close,
    .cost = chronos2_cost,
    .set_tap = chronos2_set_tap,
    .create = chronos2_create,
};
