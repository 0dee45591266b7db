/* A session of Kronos: its buffers, constants and staging, and what the host completes before each run. */

#include "base/error.h"
#include "gpuworker/model/kronos_state.h"

/* The official predictor's defaults; that of the window: KRONOS_WINDOW. */
static const float TEMPERATURE = 1.0f, TOP_P = 0.9f;

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static bool rolls(const model_state_t *state)
{
    return state->cached < state->shape.horizon;
}

static void plan_inputs(model_state_t *state, model_input_t *input)
{
    const model_shape_t *shape = &state->shape;
    int64_t batch = shape->batch, context = shape->context, rolled = shape->horizon - state->cached;
    staging_t *inputs = &state->inputs;

    staging_add_inputs(inputs, shape, input, &(staging_inputs_t){.key = &state->key});
    staging_add(inputs, BACKEND_F32, DIMS(batch, KRONOS_FIELDS, context), &state->filled, &state->filled_host);
    staging_add(inputs, BACKEND_U8, DIMS(batch, KRONOS_FIELDS, context), &state->present, &state->present_host);
    staging_add(inputs, BACKEND_I32, DIMS(batch, KRONOS_TIMES, context + shape->horizon), &state->times, &state->times_host);
    staging_add(inputs, BACKEND_I32, DIMS(batch), &state->first_bar, &state->first_bar_host);
    staging_add(inputs, BACKEND_I32, DIMS(batch), &state->first_token, &state->first_token_host);
    staging_add(inputs, BACKEND_I32, DIMS(batch), &state->first_decoded, &state->first_decoded_host);
    if (rolls(state))
        staging_add(inputs, BACKEND_I32, DIMS(rolled, batch), &state->first_rolled, &state->first_rolled_host);
    staging_bind(inputs, "kronos inputs", &state->buffers);
    state->values = input->values;
    state->mask = input->mask;
    state->length = input->length;
    state->time_ns = input->time_ns;
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
    staging_bind(&state->outputs, "kronos results", &state->buffers);
}

static void take_encoder(model_state_t *state)
{
    const model_t *model = state->model;
    buffers_t *buffers = &state->buffers;
    int64_t batch = state->shape.batch, context = state->shape.context, width = model->encoder.width, heads = model->encoder.heads;

    state->normalised = buffers_take(buffers, "normalised bars", BACKEND_F32, DIMS(batch, KRONOS_FIELDS, context));
    state->loc = buffers_take(buffers, "means", BACKEND_F32, DIMS(batch, KRONOS_FIELDS));
    state->scale = buffers_take(buffers, "deviations", BACKEND_F32, DIMS(batch, KRONOS_FIELDS));
    state->bars = buffers_take(buffers, "normalised bars", BACKEND_F32, DIMS(batch, context, KRONOS_FIELDS));
    kronos_work_take(buffers, &model->encoder, batch * context, &state->encoder_work);
    state->encoder_kv = kronos_cache_take(buffers, BACKEND_F32, heads, width / heads, batch, context, 0, 0);
    state->bits = buffers_take(buffers, "bits", BACKEND_F32, DIMS(batch, context, model->bits_1 + model->bits_2));
    state->tokens = buffers_take(buffers, "tokens", BACKEND_I32, DIMS(3, kronos_path_rows(state), state->columns));
}

static void take_predictor(model_state_t *state)
{
    const kronos_stack_t *stack = &state->model->predictor;
    buffers_t *buffers = &state->buffers;
    int64_t batch = state->shape.batch, rows = kronos_path_rows(state), width = stack->width, head_dim = width / stack->heads;
    int64_t dependency_dim = width / KRONOS_DEPENDENCY_HEADS, tail = state->shape.horizon - 1;
    int64_t tokens = larger(batch * state->kept, rolls(state) ? rows * tail : rows);

    state->time_embedding = buffers_take(buffers, "time embeddings", BACKEND_F32, DIMS(batch * state->columns, width));
    kronos_work_take(buffers, stack, tokens, &state->predictor_work);
    for (int64_t b = 0; buffers->rc == MODEL_OK && b < stack->count; b++)
        state->predictor_kv[b] =
            kronos_cache_take(buffers, stack->precision, stack->heads, head_dim, batch, state->kept, rows, tail);
    state->dependency_kv =
        kronos_cache_take(buffers, stack->precision, KRONOS_DEPENDENCY_HEADS, dependency_dim, batch, state->kept, rows, tail);
    state->branch = buffers_take(buffers, "last features", BACKEND_F32, DIMS(rows, width));
    state->first_head = buffers_take(buffers, "logits", BACKEND_F32, DIMS(rows, width + kronos_vocabulary(state->model, 0)));
    state->second_logits = buffers_take(buffers, "logits", BACKEND_F32, DIMS(rows, kronos_vocabulary(state->model, 1)));
}

static void take_decoder(model_state_t *state)
{
    const kronos_stack_t *stack = &state->model->decoder;
    buffers_t *buffers = &state->buffers;
    int64_t batch = state->shape.batch, rows = kronos_path_rows(state), horizon = state->shape.horizon;
    int64_t head_dim = stack->width / stack->heads;
    int64_t tokens = larger(batch * state->decoded_context, rows * horizon);

    kronos_work_take(buffers, stack, tokens, &state->decoder_work);
    for (int64_t b = 0; buffers->rc == MODEL_OK && b < stack->count; b++)
        state->decoder_kv[b] =
            kronos_cache_take(buffers, stack->precision, stack->heads, head_dim, batch, state->decoded_context, rows, horizon);
    state->decoded = buffers_take(buffers, "decoded bars", BACKEND_F32, DIMS(tokens, KRONOS_FIELDS));
}

/* ---- constants ----------------------------------------------------------------------------------------------------------------- */

typedef int32_t (*value_t)(const model_state_t *state, int64_t row, int64_t column);

static int32_t column_value(const model_state_t *state, int64_t row, int64_t column)
{
    (void)state;
    (void)row;
    return (int32_t)column;
}

static int32_t path_position(const model_state_t *state, int64_t row, int64_t column)
{
    (void)row;
    return (int32_t)(state->kept + column);
}

static int32_t last_token(const model_state_t *state, int64_t row, int64_t column)
{
    (void)row;
    return (int32_t)(column / state->paths * state->kept + state->kept - 1);
}

/* Parts 1 and 2 begin as 0; what stands for part 3 is the row of the time embedding. */
static int32_t token_value(const model_state_t *state, int64_t row, int64_t column)
{
    int64_t rows = kronos_path_rows(state);
    return row < 2 * rows ? 0 : (int32_t)((row - 2 * rows) / state->paths * state->columns + column);
}

/* Fills an I32 tensor of rows (all dimensions but the last) and columns. */
static void write_constant(model_state_t *state, const backend_tensor_t *tensor, value_t value)
{
    int64_t count = backend_tensor_elements(tensor), columns = tensor->dim[tensor->rank - 1];
    int32_t *table = buffers_table_new(&state->buffers, tensor);

    for (int64_t i = 0; table != NULL && i < count; i++)
        table[i] = value(state, i / columns, i % columns);
    buffers_table_write(&state->buffers, tensor, table);
}

static void make_constants(model_state_t *state)
{
    buffers_t *buffers = &state->buffers;
    int64_t batch = state->shape.batch, horizon = state->shape.horizon, rows = kronos_path_rows(state);
    int64_t positions = larger(state->shape.context, state->columns);

    state->steps = buffers_take(buffers, "steps", BACKEND_I32, DIMS(horizon));
    state->column_index = buffers_take(buffers, "positions", BACKEND_I32, DIMS(batch, state->shape.context));
    state->path_index = buffers_take(buffers, "positions", BACKEND_I32, DIMS(batch, horizon));
    state->extend_index = state->path_index;
    state->extend_index.rank = 3;
    state->extend_index.dim[1] = 1;
    state->extend_index.dim[2] = horizon;
    state->branch_index = buffers_take(buffers, "paths' series", BACKEND_I32, DIMS(rows));
    state->predictor_rope = kronos_rope_take(buffers, &state->model->predictor, positions);
    state->tokenizer_rope = kronos_rope_take(buffers, &state->model->encoder, positions);
    write_constant(state, &state->steps, column_value);
    write_constant(state, &state->column_index, column_value);
    write_constant(state, &state->path_index, path_position);
    write_constant(state, &state->branch_index, last_token);
    write_constant(state, &state->tokens, token_value);
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------- */

static int check_shape(const model_shape_t *shape, int64_t window)
{
    if (shape->variates != KRONOS_FIELDS || shape->exogenous != 0)
        return error_set(MODEL_ERR_SHAPE,
                         "kronos: %u variates, %u of them exogenous: it takes whole bars, open, high, low, close, volume, amount",
                         shape->variates, shape->exogenous);
    if (shape->horizon >= window)
        return error_set(MODEL_ERR_SHAPE, "kronos: a horizon of %u bars, expected less than the window of %lld tokens",
                         shape->horizon, (long long)window);
    return MODEL_OK;
}

void kronos_close(model_state_t *state)
{
    buffers_close(&state->buffers);
}

int kronos_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output)
{
    int64_t window = shape->options.window > 0 ? shape->options.window : KRONOS_WINDOW, longest;
    int rc = check_shape(shape, window);

    if (rc < 0)
        return rc;
    if (shape->samples == 0)
        shape->quantile_count = 0;
    state->model = model;
    state->backend = model->base.backend;
    state->shape = *shape;
    state->options = shape->options;
    state->options.temperature = state->options.temperature > 0 ? state->options.temperature : TEMPERATURE;
    state->options.top_p = state->options.top_p > 0 ? state->options.top_p : TOP_P;
    state->paths = shape->samples > 0 ? shape->samples : 1;
    state->window = window;
    state->kept = shape->context < window ? shape->context : window;
    state->columns = state->kept + shape->horizon;
    longest = window - state->kept + 1;
    state->cached = shape->horizon < longest ? shape->horizon : longest;
    state->decoded_context = state->columns > window ? window - shape->horizon : state->kept;
    state->buffers = (buffers_t){.backend = state->backend};
    state->predictor_kv = buffers_calloc(&state->buffers, model->predictor.count, sizeof *state->predictor_kv);
    state->decoder_kv = buffers_calloc(&state->buffers, model->decoder.count + 1, sizeof *state->decoder_kv);
    plan_inputs(state, input);
    plan_outputs(state, output);
    take_encoder(state);
    take_predictor(state);
    take_decoder(state);
    make_constants(state);
    return state->buffers.rc;
}

/* ---- before each run ------------------------------------------------------------------------------------------------------------ */

void kronos_prepare(model_state_t *state)
{
    const model_shape_t *shape = &state->shape;
    int64_t context = shape->context, times = context + shape->horizon, bars = KRONOS_FIELDS * context, batch = shape->batch;

    for (int64_t i = 0; i < batch; i++) {
        int64_t length = state->length[i];

        kronos_fill_bars(state->values + i * bars, state->mask + i * bars, context, length, state->filled_host + i * bars,
                         state->present_host + i * bars);
        kronos_fill_times(state->time_ns + i * times, times, state->times_host + i * KRONOS_TIMES * times);
        state->first_bar_host[i] = (int32_t)(context - length);
        state->first_token_host[i] = (int32_t)larger(state->kept - length, 0);
        state->first_decoded_host[i] = (int32_t)larger(state->decoded_context - length, 0);
        for (int64_t step = state->cached; step < shape->horizon; step++)
            state->first_rolled_host[(step - state->cached) * batch + i] = (int32_t)larger(state->window - step - length, 0);
    }
}

int kronos_set_tap(model_state_t *state, model_tap_t tap, void *context)
{
    int64_t width = larger(state->model->predictor.width, state->model->encoder.width);
    int64_t tokens = larger(backend_tensor_elements(&state->predictor_work.hidden) / state->model->predictor.width,
                            state->shape.batch * state->shape.context);
    int rc = MODEL_OK;

    if (tap != NULL && state->tapped.data == NULL) {
        state->tapped = buffers_take(&state->buffers, "tapped features", BACKEND_F32, DIMS(tokens, width));
        state->tapped_tokens =
            buffers_take(&state->buffers, "tapped tokens", BACKEND_I32, DIMS(2, state->shape.batch, state->shape.context));
        rc = state->buffers.rc < 0 ? state->buffers.rc : kronos_make_identity(state->model);
    }
    if (rc == MODEL_OK)
        state->tap = (tap_t){tap, context};
    return rc;
}
