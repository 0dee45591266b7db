/* Sundial's flow: from the features of a row's last token to N samples of its next C bars. Letters: sundial_state.h.
 *
 * A sample x starts as noise z and moves in n Euler steps, x += (f(x, i/n) - z) / n. The network f projects x into its width, p = W_in x + b_in,
 * passes p through L blocks whose layer norms are modulated by m = silu(time + condition), and maps the features h it ends with back:
 * f = W_out h + b_out. Written out, a step adds to x the product (W_out / n) h and a part that is the same in all steps, (b_out - z) / n; and
 * so W_in times both to p:
 *
 *     [p; x] += [W_in W_out / n; W_out / n] h + [W_in (b_out - z) / n; (b_out - z) / n]
 *
 * So p is carried along like x, the matrix is made once at load (model->move), and a step is 2·L + 1 products and nothing else: the modulated
 * norm is the prologue of a product, gate and residual the epilogue. In F32 p differs from W_in x + b_in by the rounding of n additions. In
 * bf16 x, p and the stream stay F32, and so does W_in, whose rounding of the noise would be added up over all steps.
 *
 * Times are the same in every forecast and their embeddings are weights (model->time); the modulations m of all steps of a chunk and all
 * blocks are one product. */
#include "gpuworker/model/sundial_state.h"

static const float DECODER_EPS = 1e-5f, FLOW_EPS = 1e-6f;

static backend_tensor_t part(const model_state_t *state, int64_t at)
{
    return backend_tensor_from(&state->flow, at);
}

/* The last tokens' features, normalised, become the condition. */
static int condition(model_state_t *state, const sundial_pass_t *pass)
{
    const model_t *model = state->model;
    int64_t width = model->config.width;

    TRY(backend_linear(state->backend,
                       &(backend_linear_t){.x = backend_tensor_from(&state->hidden, (pass->tokens - 1) * width),
                                           .rows = state->rows,
                                           .x_stride = pass->tokens * width,
                                           .norm = {BACKEND_NORM_LAYER, &model->norm, &model->norm_shift, DECODER_EPS},
                                           .weight = &model->condition,
                                           .bias = &model->condition_bias,
                                           .y = state->condition}));
    return MODEL_OK;
}

/* Noise, its projection, and the drift of both. */
static int begin(model_state_t *state, const sundial_pass_t *pass)
{
    const model_t *model = state->model;
    const sundial_row_t *row = &state->row;
    int64_t channels = model->config.channels;

    TRY(backend_flow_start(state->backend, &(backend_flow_start_t){.rows = state->paths,
                                                                   .width = channels,
                                                                   .samples = state->shape.samples,
                                                                   .variates = state->shape.variates,
                                                                   .keys = &state->key,
                                                                   .first = pass->round * channels,
                                                                   .given = state->shape.given_noise ? &state->noise : NULL,
                                                                   .given_stride = state->rounds * channels,
                                                                   .bias = &model->output_bias,
                                                                   .steps = model->config.steps,
                                                                   .x = part(state, row->x),
                                                                   .drift = part(state, row->x_drift),
                                                                   .stride = row->stride}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = part(state, row->x),
                                                           .rows = state->paths,
                                                           .x_stride = row->stride,
                                                           .weight = &model->input,
                                                           .bias = &model->input_bias,
                                                           .y = part(state, row->projected),
                                                           .y_stride = row->stride}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = part(state, row->x_drift),
                                                           .rows = state->paths,
                                                           .x_stride = row->stride,
                                                           .weight = &model->input,
                                                           .y = part(state, row->projected_drift),
                                                           .y_stride = row->stride}));
    return MODEL_OK;
}

/* Modulations of `count` steps from `first` on. */
static int modulate(model_state_t *state, int64_t first, int64_t count)
{
    const model_t *model = state->model;
    const sundial_config_t *config = &model->config;

    TRY(backend_embed(state->backend, &(backend_embed_t){.table = {state->condition, model->time.tensor},
                                                         .count = 2,
                                                         .indices = backend_tensor_from(&state->condition_index, first),
                                                         .index_stride = config->steps,
                                                         .table_stride = state->rows * config->steps,
                                                         .activation = BACKEND_ACT_SILU,
                                                         .rows = state->rows * count,
                                                         .tokens = count,
                                                         .width = config->width,
                                                         .y = state->moments}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->moments,
                                                           .rows = state->rows * count,
                                                           .weight = &model->modulation,
                                                           .bias = &model->modulation_bias,
                                                           .y = state->modulation}));
    return MODEL_OK;
}

/* stream = from + gate · Wdown silu(Wup (norm(from) · (1 + scale) + shift)), `from` being the projected state or the stream itself. */
static int block(model_state_t *state, const sundial_block_t *weights, int64_t from, backend_modulation_t shared,
                 const backend_tensor_t *modulation)
{
    int64_t width = state->model->config.width, stride = state->row.stride;
    backend_tensor_t shift = *modulation, scale = backend_tensor_from(modulation, width),
                     gate = backend_tensor_from(modulation, 2 * width), residual = part(state, from);
    backend_modulation_t before = shared, after = shared;

    before.shift = &shift;
    before.scale = &scale;
    after.gate = &gate;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = residual,
                                                           .rows = state->paths,
                                                           .x_stride = stride,
                                                           .norm = {.kind = BACKEND_NORM_LAYER, .eps = FLOW_EPS},
                                                           .modulation = &before,
                                                           .weight = &weights->up,
                                                           .bias = &weights->up_bias,
                                                           .activation = BACKEND_ACT_SILU,
                                                           .y = state->inner}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->inner,
                                                           .rows = state->paths,
                                                           .modulation = &after,
                                                           .weight = &weights->down,
                                                           .bias = &weights->down_bias,
                                                           .residual = &residual,
                                                           .y = part(state, state->row.stream),
                                                           .y_stride = stride}));
    return MODEL_OK;
}

/* [p; x] += move · (norm(stream) · (1 + scale) + shift) + drift */
static int move(model_state_t *state, backend_modulation_t shared, const backend_tensor_t *modulation)
{
    const sundial_row_t *row = &state->row;
    backend_tensor_t shift = *modulation, scale = backend_tensor_from(modulation, state->model->config.width);
    backend_tensor_t moving = part(state, row->projected), drift = part(state, row->projected_drift);

    shared.shift = &shift;
    shared.scale = &scale;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = part(state, row->stream),
                                                           .rows = state->paths,
                                                           .x_stride = row->stride,
                                                           .norm = {.kind = BACKEND_NORM_LAYER, .eps = FLOW_EPS},
                                                           .modulation = &shared,
                                                           .weight = &state->model->move,
                                                           .residual = &moving,
                                                           .offset = &drift,
                                                           .y = moving,
                                                           .y_stride = row->stride}));
    return MODEL_OK;
}

/* Step `index`, whose modulations stand at place `at` of a chunk of `count`. */
static int step(model_state_t *state, const sundial_pass_t *pass, int index, int64_t at, int64_t count)
{
    const sundial_config_t *config = &state->model->config;
    int64_t vectors = (3 * config->depth + 2) * config->width;
    backend_modulation_t shared = {.rows_each = state->shape.samples, .stride = count * vectors};
    backend_tensor_t modulation;
    int rc = sundial_show_step_begin(state, pass, index);

    for (int i = 0; rc == MODEL_OK && i < config->depth; i++) {
        modulation = backend_tensor_from(&state->modulation, at * vectors + 3 * i * config->width);
        rc = block(state, &state->model->blocks[i], i == 0 ? state->row.projected : state->row.stream, shared, &modulation);
        if (rc == MODEL_OK)
            rc = sundial_show_block(state, pass, index, i);
    }
    modulation = backend_tensor_from(&state->modulation, at * vectors + 3 * config->depth * config->width);
    if (rc == MODEL_OK)
        rc = move(state, shared, &modulation);
    return rc < 0 ? rc : sundial_show_step_end(state, pass, index);
}

/* The samples as bars, as many as the horizon still wants. */
static int finish(model_state_t *state, const sundial_pass_t *pass)
{
    const sundial_config_t *config = &state->model->config;
    int64_t offset = pass->round * config->channels, rest = state->shape.horizon - offset;
    int64_t width = rest < config->channels ? rest : config->channels;
    bool more = pass->round < state->rounds - 1;

    TRY(backend_flow_finish(state->backend,
                            &(backend_flow_finish_t){.x = part(state, state->row.x),
                                                     .stride = state->row.stride,
                                                     .rows = state->paths,
                                                     .width = width,
                                                     .samples = state->shape.samples,
                                                     .variates = state->shape.variates,
                                                     .loc = state->loc,
                                                     .scale = state->scale,
                                                     .paths = backend_tensor_from(&state->paths_out, offset),
                                                     .path_stride = state->shape.horizon,
                                                     .median = more || state->tap.call != NULL ? &state->median : NULL}));
    return sundial_show_samples(state, pass, width);
}

int sundial_flow(model_state_t *state, const sundial_pass_t *pass)
{
    int64_t steps = state->model->config.steps;
    int rc;

    if ((rc = condition(state, pass)) < 0 || (rc = sundial_show_condition(state, pass)) < 0 || (rc = begin(state, pass)) < 0)
        return rc;
    for (int64_t first = 0; first < steps; first += state->chunk) {
        int64_t count = steps - first < state->chunk ? steps - first : state->chunk;

        if ((rc = modulate(state, first, count)) < 0)
            return rc;
        for (int64_t i = 0; i < count; i++)
            if ((rc = step(state, pass, (int)(first + i), i, count)) < 0)
                return rc;
    }
    return finish(state, pass);
}
