/* What a verification sees of Sundial: the goldens' tensors, named as there. Works on host copies where the forecast itself has no such tensor,
 * or no longer. Letters: sundial_state.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/sundial_state.h"

enum { NAME_BYTES = 64 };

static const float NORM_EPS = 1e-5f;

/* "roundK.NAME" */
static const char *full_name(const sundial_pass_t *pass, const char *name, char text[static NAME_BYTES])
{
    snprintf(text, NAME_BYTES, "round%d.%s", pass->round, name);
    return text;
}

int sundial_show_scaler(model_state_t *state)
{
    int64_t batch = state->shape.batch, variates = state->shape.variates;

    TRY(tap_show(&state->tap, state->backend, "revin_mean", 0, &state->loc, 0, 0, DIMS(batch, variates)));
    TRY(tap_show(&state->tap, state->backend, "revin_std_plus_eps", 0, &state->scale, 0, 0, DIMS(batch, variates)));
    return MODEL_OK;
}

int sundial_show_tokens(model_state_t *state, const sundial_pass_t *pass, const char *name, const backend_tensor_t *tensor)
{
    char text[NAME_BYTES];

    TRY(tap_show(&state->tap, state->backend, full_name(pass, name, text), 0, tensor, 0, 0,
                 DIMS(state->shape.batch, state->shape.variates, pass->tokens, state->model->config.width)));
    return MODEL_OK;
}

/* final_norm of all tokens, which the forecast has only inside the condition's product: by a product with the identity. */
int sundial_show_condition(model_state_t *state, const sundial_pass_t *pass)
{
    const model_t *model = state->model;
    int64_t width = model->config.width;
    backend_weight_t identity = {state->identity};
    char text[NAME_BYTES];
    int rc;

    if (state->tap.call == NULL)
        return MODEL_OK;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->hidden,
                                                           .rows = state->rows * pass->tokens,
                                                           .norm = {BACKEND_NORM_LAYER, &model->norm, &model->norm_shift, NORM_EPS},
                                                           .weight = &identity,
                                                           .y = state->normed}));
    if ((rc = sundial_show_tokens(state, pass, "final_norm", &state->normed)) < 0)
        return rc;
    TRY(tap_show(&state->tap, state->backend, full_name(pass, "cond", text), 0, &state->normed, (pass->tokens - 1) * width,
                 pass->tokens * width, DIMS(state->shape.batch, state->shape.variates, width)));
    return MODEL_OK;
}

/* A part of every path's row. */
static int show_part(model_state_t *state, const sundial_pass_t *pass, const char *name, int step, int64_t at, int64_t width)
{
    char text[NAME_BYTES];

    TRY(tap_show(&state->tap, state->backend, full_name(pass, name, text), step, &state->flow, at, state->row.stride,
                 DIMS(state->shape.batch, state->shape.variates, state->shape.samples, width)));
    return MODEL_OK;
}

/* `width` floats of each path, gathered in state->repeated. */
static void show_repeated(model_state_t *state, const sundial_pass_t *pass, const char *name, int step, int64_t width)
{
    char text[NAME_BYTES];

    state->tap.call(state->tap.context, full_name(pass, name, text), step, state->repeated,
                    DIMS(state->shape.batch, state->shape.variates, state->shape.samples, width));
}

/* The embeddings of a step's time and of the condition, as the official network has them: once a path. */
static int show_embeddings(model_state_t *state, const sundial_pass_t *pass, int step)
{
    const model_t *model = state->model;
    int64_t width = model->config.width, samples = state->shape.samples;
    float *rows = malloc((size_t)((state->rows + model->config.steps) * width) * sizeof *rows);
    int rc;

    if (rows == NULL)
        return error_set(MODEL_ERR_MEMORY, "sundial: out of memory");
    if ((rc = backend_read(state->backend, &state->condition, rows)) == BACKEND_OK)
        rc = backend_read(state->backend, &model->time.tensor, rows + state->rows * width);
    for (int64_t path = 0; rc == BACKEND_OK && path < state->paths; path++)
        memcpy(state->repeated + path * width, rows + path / samples * width, (size_t)width * sizeof *rows);
    if (rc == BACKEND_OK)
        show_repeated(state, pass, "net_cond_embed_step1", step, width);
    for (int64_t path = 0; rc == BACKEND_OK && path < state->paths; path++)
        memcpy(state->repeated + path * width, rows + (state->rows + step) * width, (size_t)width * sizeof *rows);
    if (rc == BACKEND_OK)
        show_repeated(state, pass, "net_time_embed_step1", step, width);
    free(rows);
    return model_backend_error(rc);
}

int sundial_show_step_begin(model_state_t *state, const sundial_pass_t *pass, int step)
{
    int64_t width = state->model->config.width, channels = state->model->config.channels;
    int rc;

    if (state->tap.call == NULL)
        return MODEL_OK;
    TRY(backend_read(state->backend, &state->flow, state->before));
    if ((rc = show_part(state, pass, "net_input_steps", step, state->row.x, channels)) < 0)
        return rc;
    if (step == 0)
        return show_part(state, pass, "net_input_step0", step, state->row.x, channels);
    if (step > 1)
        return MODEL_OK;
    if ((rc = show_embeddings(state, pass, step)) < 0)
        return rc;
    return show_part(state, pass, "net_input_proj_step1", step, state->row.projected, width);
}

int sundial_show_block(model_state_t *state, const sundial_pass_t *pass, int step, int block)
{
    char name[NAME_BYTES];

    if (state->tap.call == NULL || step != 1)
        return MODEL_OK;
    snprintf(name, sizeof name, "net_res%d_step1", block);
    return show_part(state, pass, name, step, state->row.stream, state->model->config.width);
}

/* What the network said: the step's move of x without its drift, times n, plus b_out. */
int sundial_show_step_end(model_state_t *state, const sundial_pass_t *pass, int step)
{
    const sundial_row_t *row = &state->row;
    int64_t channels = state->model->config.channels;
    float steps = (float)state->model->config.steps, *bias;

    if (state->tap.call == NULL)
        return MODEL_OK;
    if ((bias = malloc((size_t)channels * sizeof *bias)) == NULL)
        return error_set(MODEL_ERR_MEMORY, "sundial: out of memory");
    if (backend_read(state->backend, &state->model->output_bias.tensor, bias) < 0 ||
        backend_read(state->backend, &state->flow, state->after) < 0) {
        free(bias);
        return MODEL_ERR_BACKEND;
    }
    for (int64_t path = 0; path < state->paths; path++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = path * row->stride + c;
            double moved = (double)state->after[at + row->x] - (double)state->before[at + row->x];

            state->repeated[path * channels + c] =
                (float)((moved - (double)state->before[at + row->x_drift]) * (double)steps + (double)bias[c]);
        }
    show_repeated(state, pass, "net_output_steps", step, channels);
    free(bias);
    return MODEL_OK;
}

int sundial_show_samples(model_state_t *state, const sundial_pass_t *pass, int64_t width)
{
    char text[NAME_BYTES];
    int rc = show_part(state, pass, "samples_normalized", 0, state->row.x, width);

    if (rc < 0)
        return rc;
    TRY(tap_show(&state->tap, state->backend, full_name(pass, "median_normalized", text), 0, &state->median, 0, 0,
                 DIMS(state->shape.batch, state->shape.variates, width)));
    return MODEL_OK;
}

static int write_identity(model_state_t *state)
{
    int64_t width = state->model->config.width;
    float *identity = calloc((size_t)(width * width), sizeof *identity);
    int rc;

    if (identity == NULL)
        return error_set(MODEL_ERR_MEMORY, "sundial: out of memory");
    for (int64_t i = 0; i < width; i++)
        identity[i * width + i] = 1;
    rc = model_backend_error(backend_write(state->backend, &state->identity, identity));
    free(identity);
    return rc;
}

int sundial_set_tap(model_state_t *state, model_tap_t tap, void *context)
{
    const sundial_config_t *config = &state->model->config;
    size_t flow = (size_t)backend_tensor_elements(&state->flow);
    int rc = MODEL_OK;

    if (tap != NULL && state->normed.data == NULL) {
        state->normed = buffers_take(&state->buffers, "tapped features", BACKEND_F32, state->hidden.rank, state->hidden.dim);
        state->identity = buffers_take(&state->buffers, "identity", BACKEND_F32, DIMS(config->width, config->width));
        if (state->median.data == NULL)
            state->median = buffers_take(&state->buffers, "tapped median", BACKEND_F32, DIMS(state->rows, config->channels));
        state->before = malloc(flow * sizeof *state->before);
        state->after = malloc(flow * sizeof *state->after);
        state->repeated = malloc(flow * sizeof *state->repeated);
        if (state->before == NULL || state->after == NULL || state->repeated == NULL)
            rc = error_set(MODEL_ERR_MEMORY, "sundial: out of memory");
        else
            rc = state->buffers.rc < 0 ? state->buffers.rc : write_identity(state);
    }
    if (rc == MODEL_OK)
        state->tap = (tap_t){tap, context};
    return rc;
}
