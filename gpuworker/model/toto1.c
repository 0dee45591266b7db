/* Toto 1.0 (Datadog, 2025): a decoder over patches of several variates, with a mixture of Student-t distributions for every future value.
 *
 * A series of V variates is cut into patches of P bars; a patch is a token. Each patch is scaled by the statistics of all bars up to its
 * end. Most layers attend over time, causally, each variate on its own; every few layers one attends over the variates of a group instead. The
 * last token's features give the distributions of the next P values of its variate; their mean, or a draw from them, is appended as the next
 * token, and so on to the horizon. Samples of a series share the prefill: their paths branch at the first draw.
 *
 * Letters in shape comments: B series, V variates, T context tokens, P patch, D width, H heads, d head size, F hidden width of the MLP,
 * K mixture components, N paths a series (1 for the mean), steps = patches of the horizon. Rows are (series, path, variate). */
#include "gpuworker/model/toto1.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gpuworker/model/parts.h"

static const float NORM_EPS = 1e-8f;
static const double SCALER_MINIMUM = 0.1, ROPE_BASE = 10000, XPOS_BASE = 512;

/* ---- one shape ---------------------------------------------------------------------------------------------------------------- */

struct model_state {
    model_t *model;
    backend_t *backend;
    model_shape_t shape;
    int64_t tokens, steps, paths; /* T, steps, N */
    bool exact;                   /* quantiles come from the first patch's distributions, not from paths */
    tap_t tap;
    buffers_t buffers;
    staging_t inputs, outputs;
    const uint32_t *length; /* staged by the caller, read by prepare */

    /* inputs */
    backend_tensor_t values, mask, group, key; /* [B][V][context] twice, [B][V], [B] */
    backend_tensor_t future;                   /* [B][exogenous][steps·P], zeros past the horizon */
    const float *future_given;                 /* [B][exogenous][horizon] */
    float *future_padded;
    backend_tensor_t first;                       /* [B·V]: leading tokens that are padding alone */
    backend_tensor_t prefill_index, decode_index; /* [B·V][T], [B·V][steps - 1]: rows of the rotary table */
    int32_t *first_host, *prefill_host, *decode_host;

    /* constants */
    backend_tensor_t rope;   /* [T + T·(steps - 1)][4][d] */
    backend_tensor_t levels; /* [quantiles] */

    /* work: sized for the larger of prefill (B·V rows of T tokens) and decode (B·N·V rows of one) */
    backend_tensor_t scaled, loc, scale; /* [rows][tokens·P], [rows][tokens] twice */
    backend_tensor_t prefix_statistics;  /* [B·V][BACKEND_SCALER_STATE] */
    backend_tensor_t path_statistics;    /* [B·N·V][BACKEND_SCALER_STATE] */
    backend_tensor_t hidden;             /* [rows][tokens][D], the residual stream */
    backend_tensor_t qkv;                /* [rows][tokens][3][H][d] */
    backend_tensor_t mixed;              /* [rows][tokens][H][d] */
    backend_tensor_t gated;              /* [rows][tokens][F] */
    backend_tensor_t head;               /* [rows][P][4][K] */
    backend_tensor_t params;             /* [4][rows·P][K]: for the tap only */
    backend_tensor_t unembedded;         /* [rows][P][D]: for the tap only */
    backend_kv_t *kv;                    /* of every time-wise layer */
    backend_tensor_t step;               /* [1] */

    /* results */
    backend_tensor_t paths_out;       /* [B][N][V][steps·P] */
    backend_tensor_t mean, quantiles; /* [B][V][horizon], [B][V][quantiles][horizon] */
};

/* Rotary table. Position p turns pair i by the angle p · 10000^(-2i/d); xPos also multiplies element j of the query by s_j^e and of the key by
 * s_j^-e, where s_j = (2 (j mod d/2) + 0.4 d) / (1.4 d) and e = (p - max_position // 2) / 512 of the call. So a call's centre cancels between
 * its own queries and keys, but not when a later call meets cached keys. With S real context tokens and c = (S - 1) // 2, the prefill's
 * centre, only these exponents' sums matter, and c can be moved from the cached keys to those who meet them:
 *     prefill token p:   query p,                 key p                   (one row a position, whatever S is)
 *     decode at p >= S:  query p - p // 2 + c,    key p - p // 2 + c      (one row for each S and step)           all over 512. */
static void fill_rope_row(float *row, int64_t head_dim, int64_t position, int64_t exponent)
{
    float *q_cos = row, *q_sin = row + head_dim, *k_cos = row + 2 * head_dim, *k_sin = row + 3 * head_dim;
    int64_t half = head_dim / 2;

    for (int64_t j = 0; j < head_dim; j++) {
        double angle = (double)position * pow(ROPE_BASE, -2.0 * (double)(j / 2) / (double)head_dim);
        double s = (2.0 * (double)(j % half) + 0.4 * (double)head_dim) / (1.4 * (double)head_dim);
        double stretch = pow(s, (double)exponent / XPOS_BASE);

        q_cos[j] = (float)(cos(angle) * stretch);
        q_sin[j] = (float)(sin(angle) * stretch);
        k_cos[j] = (float)(cos(angle) / stretch);
        k_sin[j] = (float)(sin(angle) / stretch);
    }
}

static int64_t decode_rope_row(const model_state_t *state, int64_t real_tokens, int64_t step)
{
    return state->tokens + (real_tokens - 1) * (state->steps - 1) + step;
}

static void write_rope(model_state_t *state)
{
    int64_t head_dim = state->model->config.width / state->model->config.heads, row_floats = 4 * head_dim;
    float *table = buffers_table_new(&state->buffers, &state->rope);

    for (int64_t p = 0; table != NULL && p < state->tokens; p++)
        fill_rope_row(table + p * row_floats, head_dim, p, p);
    for (int64_t real = 1; table != NULL && real <= state->tokens; real++)
        for (int64_t step = 0; step < state->steps - 1; step++) {
            int64_t p = real + step;
            fill_rope_row(table + decode_rope_row(state, real, step) * row_floats, head_dim, p, p - p / 2 + (real - 1) / 2);
        }
    buffers_table_write(&state->buffers, &state->rope, table);
}

static void plan_inputs(model_state_t *state, model_input_t *input)
{
    int64_t batch = state->shape.batch, rows = batch * state->shape.variates;
    staging_t *inputs = &state->inputs;

    staging_add_inputs(
        inputs, &state->shape, input,
        &(staging_inputs_t){.values = &state->values, .mask = &state->mask, .group = &state->group, .key = &state->key});
    staging_add(inputs, BACKEND_I32, DIMS(rows), &state->first, &state->first_host);
    staging_add(inputs, BACKEND_I32, DIMS(rows, state->tokens), &state->prefill_index, &state->prefill_host);
    staging_add(inputs, BACKEND_I32, DIMS(rows, state->steps - 1), &state->decode_index, &state->decode_host);
    staging_add(inputs, BACKEND_F32, DIMS(batch, state->shape.exogenous, state->steps * state->model->config.patch), &state->future,
                &state->future_padded);
    staging_bind(inputs, "toto1 inputs", &state->buffers);
    state->length = input->length;
    state->future_given = input->future;
}

static void plan_outputs(model_state_t *state, model_output_t *output)
{
    staging_add_outputs(&state->outputs, &state->shape, output,
                        &(staging_outputs_t){.mean = &state->mean,
                                             .quantiles = &state->quantiles,
                                             .levels = &state->levels,
                                             .paths = &state->paths_out,
                                             .path_stride = state->steps * state->model->config.patch},
                        &state->buffers);
    staging_bind(&state->outputs, "toto1 results", &state->buffers);
}

static void take_caches(model_state_t *state)
{
    const toto1_config_t *config = &state->model->config;
    int64_t rows = (int64_t)state->shape.batch * state->shape.variates, head_dim = config->width / config->heads;
    backend_dtype_t dtype = state->model->base.precision;

    for (int64_t i = 0; i < config->layers; i++) {
        backend_kv_t *kv = &state->kv[i];

        if (toto1_is_space_layer(config, i))
            continue;
        kv->prefix_k = buffers_take(&state->buffers, "keys", dtype, DIMS(rows, config->heads, state->tokens, head_dim));
        kv->prefix_v = buffers_take(&state->buffers, "values", dtype, DIMS(rows, config->heads, state->tokens, head_dim));
        if (state->steps == 1)
            continue;
        kv->tail_k =
            buffers_take(&state->buffers, "path keys", dtype, DIMS(rows * state->paths, config->heads, state->steps - 1, head_dim));
        kv->tail_v = buffers_take(&state->buffers, "path values", dtype,
                                  DIMS(rows * state->paths, config->heads, state->steps - 1, head_dim));
    }
}

static void take_work(model_state_t *state)
{
    const toto1_config_t *config = &state->model->config;
    buffers_t *buffers = &state->buffers;
    int64_t series_rows = (int64_t)state->shape.batch * state->shape.variates, path_rows = series_rows * state->paths;
    int64_t prefill_tokens = series_rows * state->tokens;
    int64_t tokens = prefill_tokens > path_rows ? prefill_tokens : path_rows; /* rows · tokens of the larger phase */
    backend_dtype_t dtype = state->model->base.precision;

    state->scaled = buffers_take(buffers, "scaled patches", BACKEND_F32, DIMS(tokens, config->patch));
    state->loc = buffers_take(buffers, "patch loc", BACKEND_F32, DIMS(tokens));
    state->scale = buffers_take(buffers, "patch scale", BACKEND_F32, DIMS(tokens));
    state->prefix_statistics = buffers_take(buffers, "statistics", BACKEND_F64, DIMS(series_rows, BACKEND_SCALER_STATE));
    state->path_statistics = buffers_take(buffers, "path statistics", BACKEND_F64, DIMS(path_rows, BACKEND_SCALER_STATE));
    state->hidden = buffers_take(buffers, "hidden states", BACKEND_F32, DIMS(tokens, config->width));
    state->qkv = buffers_take(buffers, "qkv", dtype, DIMS(tokens, 3, config->width));
    state->mixed = buffers_take(buffers, "attention output", dtype, DIMS(tokens, config->width));
    state->gated = buffers_take(buffers, "mlp hidden", dtype, DIMS(tokens, config->hidden));
    state->head = buffers_take(buffers, "distribution head", BACKEND_F32, DIMS(path_rows, config->patch, 4, config->components));
    state->step = buffers_take(buffers, "step", BACKEND_I32, DIMS(1));
    state->rope =
        buffers_take(buffers, "rotary table", BACKEND_F32, DIMS(state->tokens * state->steps, 4, config->width / config->heads));
}

static void toto1_close(model_state_t *state)
{
    buffers_close(&state->buffers);
}

static int toto1_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output)
{
    int64_t patch = model->config.patch;

    state->model = model;
    state->backend = model->base.backend;
    state->tokens = (shape->context + patch - 1) / patch;
    state->steps = (shape->horizon + patch - 1) / patch;
    state->paths = shape->samples > 0 ? shape->samples : 1;
    shape->context = (uint32_t)(state->tokens * patch);
    if (shape->samples == 0 && state->steps > 1)
        shape->quantile_count = 0;
    state->exact = shape->samples == 0 && shape->quantile_count > 0;
    state->shape = *shape;
    state->buffers = (buffers_t){.backend = state->backend};
    state->kv = buffers_calloc(&state->buffers, model->config.layers, sizeof *state->kv);
    plan_inputs(state, input);
    plan_outputs(state, output);
    take_work(state);
    take_caches(state);
    write_rope(state);
    return state->buffers.rc;
}

/* From every series' length: where its tokens begin, and which rows of the rotary table they and the generated ones take. A series that is
 * shorter than the session's context thereby gets the positions that it has in a session of its own length. */
static void toto1_prepare(model_state_t *state)
{
    int64_t patch = state->model->config.patch, variates = state->shape.variates, steps = state->steps;

    for (int64_t row = 0; row < (int64_t)state->shape.batch * variates; row++) {
        int64_t real = ((int64_t)state->length[row / variates] + patch - 1) / patch, first = state->tokens - real;

        state->first_host[row] = (int32_t)first;
        for (int64_t t = 0; t < state->tokens; t++)
            state->prefill_host[row * state->tokens + t] = (int32_t)(t > first ? t - first : 0);
        for (int64_t step = 0; step < steps - 1; step++)
            state->decode_host[row * (steps - 1) + step] = (int32_t)decode_rope_row(state, real, step);
    }
    for (int64_t row = 0; row < (int64_t)state->shape.batch * state->shape.exogenous; row++)
        memcpy(state->future_padded + row * steps * patch, state->future_given + row * state->shape.horizon,
               state->shape.horizon * sizeof(float));
}

/* ---- the forecast -------------------------------------------------------------------------------------------------------------- */

/* The same code runs over the context and over one generated token a path. */
typedef struct {
    int64_t rows, tokens; /* prefill: B·V rows of T tokens; decode: B·N·V rows of one */
    int64_t paths;        /* among the rows: 1, then N */
    int step;             /* the patch that this pass predicts; of the host's loop, for taps only */
} pass_t;

static bool is_prefill(const pass_t *pass)
{
    return pass->step == 0;
}

/* hidden += Wo · attention(Wqkv · norm(hidden)) */
static int attend(model_state_t *state, const pass_t *pass, int64_t index)
{
    const toto1_config_t *config = &state->model->config;
    const toto1_layer_t *layer = &state->model->layers[index];
    int heads = (int)config->heads, head_dim = (int)(config->width / config->heads);
    float scale = 1.0f / sqrtf((float)head_dim);

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->hidden,
                                                           .rows = pass->rows * pass->tokens,
                                                           .norm = {BACKEND_NORM_RMS, &layer->norm1, NULL, NORM_EPS},
                                                           .weight = &layer->qkv,
                                                           .bias = &layer->qkv_bias,
                                                           .y = state->qkv}));
    if (toto1_is_space_layer(config, index))
        TRY(backend_group_attention(state->backend, &(backend_group_attention_t){.qkv = state->qkv,
                                                                                 .out = state->mixed,
                                                                                 .sets = pass->rows / state->shape.variates,
                                                                                 .samples = pass->paths,
                                                                                 .variates = state->shape.variates,
                                                                                 .tokens = pass->tokens,
                                                                                 .heads = heads,
                                                                                 .head_dim = head_dim,
                                                                                 .scale = scale,
                                                                                 .group = &state->group,
                                                                                 .group_tokens = 1}));
    else
        TRY(backend_attention(state->backend, &(backend_attention_t){
                                                  .mode = is_prefill(pass) ? BACKEND_ATTENTION_PREFILL : BACKEND_ATTENTION_DECODE,
                                                  .qkv = state->qkv,
                                                  .out = state->mixed,
                                                  .rows = pass->rows,
                                                  .tokens = pass->tokens,
                                                  .samples = pass->paths,
                                                  .variates = state->shape.variates,
                                                  .heads = heads,
                                                  .head_dim = head_dim,
                                                  .scale = scale,
                                                  .rope = {.table = &state->rope,
                                                           .index = is_prefill(pass) ? &state->prefill_index : &state->decode_index,
                                                           .interleaved = true},
                                                  .kv = &state->kv[index],
                                                  .first = &state->first,
                                                  .step = &state->step}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->mixed,
                                                           .rows = pass->rows * pass->tokens,
                                                           .weight = &layer->wo,
                                                           .bias = &layer->wo_bias,
                                                           .residual = &state->hidden,
                                                           .y = state->hidden}));
    return MODEL_OK;
}

/* hidden += Wdown · swiglu(Wgate_up · norm(hidden)) */
static int feed_forward(model_state_t *state, const pass_t *pass, int64_t index)
{
    const toto1_layer_t *layer = &state->model->layers[index];

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->hidden,
                                                           .rows = pass->rows * pass->tokens,
                                                           .norm = {BACKEND_NORM_RMS, &layer->norm2, NULL, NORM_EPS},
                                                           .weight = &layer->gate_up,
                                                           .bias = &layer->gate_up_bias,
                                                           .activation = BACKEND_ACT_SWIGLU,
                                                           .y = state->gated}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->gated,
                                                           .rows = pass->rows * pass->tokens,
                                                           .weight = &layer->down,
                                                           .bias = &layer->down_bias,
                                                           .residual = &state->hidden,
                                                           .y = state->hidden}));
    return MODEL_OK;
}

/* A tensor [rows][tokens][width] whole, as "s0.NAME" of the prefill. */
static int show_all(model_state_t *state, const pass_t *pass, const char *name, const backend_tensor_t *tensor, int64_t width)
{
    const model_shape_t *shape = &state->shape;

    if (!is_prefill(pass))
        return BACKEND_OK;
    return tap_show(&state->tap, state->backend, name, 0, tensor, 0, 0, 4,
                    (int64_t[]){shape->batch, shape->variates, pass->tokens, width});
}

/* Of a tensor [rows][tokens][width] the last token, as "steps.NAME" of this step. */
static int show_last(model_state_t *state, const pass_t *pass, const char *name, const backend_tensor_t *tensor, int64_t width)
{
    int64_t variates = state->shape.variates;

    return tap_show(&state->tap, state->backend, name, pass->step, tensor, (pass->tokens - 1) * width, pass->tokens * width, 3,
                    (int64_t[]){pass->rows / variates, variates, width});
}

/* scaled patches -> hidden states after the last layer */
static int transform(model_state_t *state, const pass_t *pass)
{
    const model_t *model = state->model;

    TRY(show_all(state, pass, "s0.scaled_inputs", &state->scaled, model->config.patch));
    TRY(show_all(state, pass, "s0.scaler_loc", &state->loc, 1));
    TRY(show_all(state, pass, "s0.scaler_scale", &state->scale, 1));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->scaled,
                                                           .rows = pass->rows * pass->tokens,
                                                           .weight = &model->embed,
                                                           .bias = &model->embed_bias,
                                                           .y = state->hidden}));
    TRY(show_all(state, pass, "s0.patch_embed", &state->hidden, model->config.width));
    for (int64_t i = 0; i < model->config.layers; i++) {
        char name[32];
        int rc;

        if ((rc = attend(state, pass, i)) < 0 || (rc = feed_forward(state, pass, i)) < 0)
            return rc;
        snprintf(name, sizeof name, "s0.layer_%d", (int)i);
        TRY(show_all(state, pass, name, &state->hidden, model->config.width));
        snprintf(name, sizeof name, "steps.layer_%d", (int)i);
        TRY(show_last(state, pass, name, &state->hidden, model->config.width));
    }
    return MODEL_OK;
}

/* The last token of every row, times `weight`: y [rows][outputs]. */
static int project_last(model_state_t *state, const pass_t *pass, const backend_weight_t *weight, const backend_weight_t *bias,
                        backend_tensor_t y)
{
    int64_t width = state->model->config.width, offset = (pass->tokens - 1) * width;
    backend_tensor_t last = {.data = (float *)state->hidden.data + offset, .dtype = BACKEND_F32, .rank = 1};

    last.dim[0] = backend_tensor_elements(&state->hidden) - offset;
    TRY(backend_linear(
        state->backend,
        &(backend_linear_t){
            .x = last, .rows = pass->rows, .x_stride = pass->tokens * width, .weight = weight, .bias = bias, .y = y}));
    return MODEL_OK;
}

static int show_mixture(model_state_t *state, const pass_t *pass)
{
    static const char *const names[] = {"steps.mix_df", "steps.mix_loc", "steps.mix_scale", "steps.mix_logits"};
    const toto1_config_t *config = &state->model->config;
    int64_t variates = state->shape.variates, sets = pass->rows / variates,
            values = pass->rows * config->patch * config->components;
    int64_t patch = config->patch, stride = state->steps * patch;

    if (state->tap.call == NULL)
        return MODEL_OK;
    for (int i = 0; i < 4; i++)
        TRY(tap_show(&state->tap, state->backend, names[i], pass->step, &state->params, i * values, 0, 4,
                     (int64_t[]){sets, variates, patch, config->components}));
    TRY(show_last(state, pass, "steps.out_loc", &state->loc, 1));
    TRY(show_last(state, pass, "steps.out_scale", &state->scale, 1));
    if (state->shape.samples == 0)
        TRY(tap_show(&state->tap, state->backend, "steps.mean", pass->step, &state->paths_out, pass->step * patch, stride, 3,
                     (int64_t[]){sets, variates, patch}));
    if (is_prefill(pass)) {
        int rc = project_last(state, pass, &state->model->unembed, &state->model->unembed_bias, state->unembedded);

        if (rc < 0)
            return rc;
        TRY(tap_show(&state->tap, state->backend, "s0.unembed_last", 0, &state->unembedded, 0, 0, 4,
                     (int64_t[]){sets, variates, patch, config->width}));
    }
    return MODEL_OK;
}

/* hidden states -> the patch that this pass predicts, in every path; at the prefill the paths branch here. */
static int predict(model_state_t *state, const pass_t *pass)
{
    const toto1_config_t *config = &state->model->config;
    const model_shape_t *shape = &state->shape;
    int64_t path_stride = state->steps * config->patch, draws = is_prefill(pass) ? shape->samples : shape->samples > 0;
    int rc = project_last(state, pass, &state->model->head, &state->model->head_bias, state->head);

    if (rc < 0)
        return rc;
    TRY(backend_student_t(state->backend, &(backend_student_t_t){.head = state->head,
                                                                 .rows = pass->rows,
                                                                 .patch = config->patch,
                                                                 .components = config->components,
                                                                 .samples = pass->paths,
                                                                 .draws = draws,
                                                                 .variates = shape->variates,
                                                                 .out_loc = state->loc,
                                                                 .out_scale = state->scale,
                                                                 .out_stride = pass->tokens,
                                                                 .out_offset = pass->tokens - 1,
                                                                 .keys = &state->key,
                                                                 .step = &state->step,
                                                                 .paths = state->paths_out,
                                                                 .path_stride = path_stride,
                                                                 .params = state->tap.call != NULL ? &state->params : NULL}));
    if ((rc = show_mixture(state, pass)) < 0)
        return rc;
    if (shape->exogenous > 0)
        TRY(backend_override(state->backend, &(backend_override_t){.paths = state->paths_out,
                                                                   .path_stride = path_stride,
                                                                   .series = shape->batch,
                                                                   .samples = state->paths,
                                                                   .variates = shape->variates,
                                                                   .exogenous = shape->exogenous,
                                                                   .patch = config->patch,
                                                                   .future = state->future,
                                                                   .future_stride = path_stride,
                                                                   .step = &state->step}));
    return MODEL_OK;
}

/* A value's distribution is what the head says only in the first patch: all later ones depend on what was drawn before. */
static int exact_quantiles(model_state_t *state)
{
    const toto1_config_t *config = &state->model->config;
    const model_shape_t *shape = &state->shape;

    TRY(backend_student_t_quantiles(state->backend,
                                    &(backend_student_t_quantiles_t){.head = state->head,
                                                                     .rows = (int64_t)shape->batch * shape->variates,
                                                                     .patch = config->patch,
                                                                     .components = config->components,
                                                                     .horizon = shape->horizon,
                                                                     .variates = shape->variates,
                                                                     .exogenous = shape->exogenous,
                                                                     .out_loc = state->loc,
                                                                     .out_scale = state->scale,
                                                                     .out_stride = state->tokens,
                                                                     .out_offset = state->tokens - 1,
                                                                     .future = &state->future,
                                                                     .future_stride = config->patch,
                                                                     .levels = state->levels,
                                                                     .quantiles = state->quantiles}));
    return MODEL_OK;
}

static int prefill(model_state_t *state)
{
    pass_t pass = {.rows = (int64_t)state->shape.batch * state->shape.variates, .tokens = state->tokens, .paths = 1};
    int rc;

    TRY(backend_step_set(state->backend, &state->step, 0));
    TRY(backend_causal_scale(state->backend, &(backend_causal_scale_t){.x = state->values,
                                                                       .mask = state->mask,
                                                                       .rows = pass.rows,
                                                                       .patches = pass.tokens,
                                                                       .patch = state->model->config.patch,
                                                                       .minimum = SCALER_MINIMUM,
                                                                       .exponent = state->model->config.exponent,
                                                                       .y = state->scaled,
                                                                       .loc = state->loc,
                                                                       .scale = state->scale,
                                                                       .state = state->prefix_statistics}));
    if ((rc = transform(state, &pass)) < 0)
        return rc;
    return predict(state, &pass);
}

/* Appends the patch predicted last (number *step) as a token and predicts the next one. */
static int decode(model_state_t *state, int step)
{
    const toto1_config_t *config = &state->model->config;
    pass_t pass = {
        .rows = state->shape.batch * state->paths * state->shape.variates, .tokens = 1, .paths = state->paths, .step = step};
    int rc;

    TRY(backend_causal_scale_extend(state->backend, &(backend_causal_scale_extend_t){.x = state->paths_out,
                                                                                     .x_stride = state->steps * config->patch,
                                                                                     .rows = pass.rows,
                                                                                     .samples = pass.paths,
                                                                                     .variates = state->shape.variates,
                                                                                     .patch = config->patch,
                                                                                     .minimum = SCALER_MINIMUM,
                                                                                     .state_in = state->prefix_statistics,
                                                                                     .state = state->path_statistics,
                                                                                     .y = state->scaled,
                                                                                     .loc = state->loc,
                                                                                     .scale = state->scale,
                                                                                     .step = &state->step}));
    if ((rc = transform(state, &pass)) < 0)
        return rc;
    TRY(backend_step_advance(state->backend, &state->step));
    return predict(state, &pass);
}

static int toto1_forecast(model_state_t *state)
{
    const model_shape_t *shape = &state->shape;
    bool sampled = shape->quantile_count > 0 && !state->exact;
    int rc;

    TRY(backend_copy_in(state->backend, &state->inputs.device, state->inputs.host));
    if ((rc = prefill(state)) < 0)
        return rc;
    for (int step = 1; step < state->steps; step++)
        if ((rc = decode(state, step)) < 0)
            return rc;
    if (state->exact && (rc = exact_quantiles(state)) < 0)
        return rc;
    TRY(backend_summarize(state->backend, &(backend_summarize_t){.paths = state->paths_out,
                                                                 .path_stride = state->steps * state->model->config.patch,
                                                                 .series = shape->batch,
                                                                 .samples = state->paths,
                                                                 .variates = shape->variates,
                                                                 .horizon = shape->horizon,
                                                                 .mean = state->mean,
                                                                 .levels = sampled ? &state->levels : NULL,
                                                                 .quantiles = sampled ? &state->quantiles : NULL}));
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}

static int toto1_set_tap(model_state_t *state, model_tap_t tap, void *context)
{
    const toto1_config_t *config = &state->model->config;
    int64_t rows = backend_tensor_elements(&state->head) / (config->patch * 4 * config->components);
    int rc = MODEL_OK;

    if (tap != NULL && state->params.data == NULL) {
        state->params =
            buffers_take(&state->buffers, "tapped mixture", BACKEND_F32, DIMS(4, rows, config->patch, config->components));
        state->unembedded = buffers_take(&state->buffers, "tapped features", BACKEND_F32, DIMS(rows, config->patch, config->width));
        rc = state->buffers.rc < 0 ? state->buffers.rc : toto1_load_unembed(state->model);
    }
    if (rc == MODEL_OK)
        state->tap = (tap_t){tap, context};
    return rc;
}

const model_family_t toto1_family = {
    .name = "toto1",
    .matches = toto1_matches,
    .model_bytes = sizeof(model_t),
    .state_bytes = sizeof(model_state_t),
    .load = toto1_load,
    .unload = toto1_unload,
    .info = toto1_info,
    .open = toto1_open,
    .prepare = toto1_prepare,
    .forecast = toto1_forecast,
    .close = toto1_close,
    .cost = toto1_cost,
    .set_tap = toto1_set_tap,
    .create = toto1_create,
};
