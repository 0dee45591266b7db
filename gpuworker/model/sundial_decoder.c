/* Sundial's decoder: patches to tokens, and layers of causal attention and SwiGLU over them. Letters: sundial_state.h. */
#include <math.h>
#include <stdio.h>

#include "gpuworker/model/sundial_state.h"

static const float NORM_EPS = 1e-5f;

/* Tokens of a buffer that a product reads or writes: all of a pass, or the last of every row. */
typedef struct {
    int64_t count, first, stride; /* the last two in tokens */
} choice_t;

static choice_t all_tokens(const model_state_t *state, const sundial_pass_t *pass)
{
    return (choice_t){.count = state->rows * pass->tokens, .stride = 1};
}

static choice_t last_tokens(const model_state_t *state, const sundial_pass_t *pass)
{
    return (choice_t){.count = state->rows, .first = pass->tokens - 1, .stride = pass->tokens};
}

/* [patch | mask] -> hidden layer beside it -> token. A round's tokens follow each other, so that a token is a row of its own here. */
static int embed(model_state_t *state, const sundial_pass_t *pass)
{
    const model_t *model = state->model;
    int64_t patch = model->config.patch, tokens = state->rows * pass->tokens, stride = 2 * patch + model->config.hidden;
    bool context = pass->round == 0;

    TRY(backend_patch(state->backend, &(backend_patch_t){.x = context ? state->scaled : state->median,
                                                         .mask = context ? &state->mask : &state->observed,
                                                         .rows = tokens,
                                                         .patches = 1,
                                                         .patch = patch,
                                                         .y = state->features,
                                                         .y_stride = stride}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->features,
                                                           .rows = tokens,
                                                           .x_stride = stride,
                                                           .weight = &model->embed_hidden,
                                                           .bias = &model->embed_hidden_bias,
                                                           .activation = BACKEND_ACT_SILU,
                                                           .y = backend_tensor_from(&state->features, 2 * patch),
                                                           .y_stride = stride}));
    TRY(backend_linear(
        state->backend,
        &(backend_linear_t){
            .x = state->features, .rows = tokens, .weight = &model->embed, .bias = &model->embed_bias, .y = state->hidden}));
    return MODEL_OK;
}

/* mixed = attention(Wqkv · norm(hidden)) of all tokens */
static int attend(model_state_t *state, const sundial_pass_t *pass, int64_t index)
{
    const sundial_config_t *config = &state->model->config;
    const sundial_layer_t *layer = &state->model->layers[index];
    int64_t head_dim = config->width / config->heads;
    bool context = pass->round == 0;

    TRY(backend_linear(state->backend,
                       &(backend_linear_t){.x = state->hidden,
                                           .rows = state->rows * pass->tokens,
                                           .norm = {BACKEND_NORM_LAYER, &layer->norm1, &layer->norm1_shift, NORM_EPS},
                                           .weight = &layer->qkv,
                                           .bias = &layer->qkv_bias,
                                           .y = state->qkv}));
    TRY(backend_attention(
        state->backend,
        &(backend_attention_t){.mode = context ? BACKEND_ATTENTION_PREFILL : BACKEND_ATTENTION_EXTEND,
                               .qkv = state->qkv,
                               .out = state->mixed,
                               .rows = state->rows,
                               .tokens = pass->tokens,
                               .samples = 1,
                               .variates = state->shape.variates,
                               .heads = (int)config->heads,
                               .head_dim = (int)head_dim,
                               .scale = 1.0f / sqrtf((float)head_dim),
                               .rope = {.table = &state->rope, .index = context ? &state->prefill_index : &state->append_index},
                               .kv = &state->kv[index],
                               .first = &state->first,
                               .step = context ? NULL : &state->step,
                               .step_tokens = state->append}));
    return MODEL_OK;
}

/* hidden += Wo · mixed, then hidden += Wdown · swiglu(Wgate_up · norm(hidden)), of the tokens chosen. */
static int feed_forward(model_state_t *state, int64_t index, choice_t tokens)
{
    const sundial_layer_t *layer = &state->model->layers[index];
    int64_t width = state->model->config.width, first = tokens.first * width, stride = tokens.stride * width;
    backend_tensor_t hidden = backend_tensor_from(&state->hidden, first);

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = backend_tensor_from(&state->mixed, first),
                                                           .rows = tokens.count,
                                                           .x_stride = stride,
                                                           .weight = &layer->wo,
                                                           .residual = &hidden,
                                                           .y = hidden,
                                                           .y_stride = stride}));
    TRY(backend_linear(state->backend,
                       &(backend_linear_t){.x = hidden,
                                           .rows = tokens.count,
                                           .x_stride = stride,
                                           .norm = {BACKEND_NORM_LAYER, &layer->norm2, &layer->norm2_shift, NORM_EPS},
                                           .weight = &layer->gate_up,
                                           .activation = BACKEND_ACT_SWIGLU,
                                           .y = state->gated}));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->gated,
                                                           .rows = tokens.count,
                                                           .weight = &layer->down,
                                                           .residual = &hidden,
                                                           .y = hidden,
                                                           .y_stride = stride}));
    return MODEL_OK;
}

int sundial_decode(model_state_t *state, const sundial_pass_t *pass)
{
    int64_t layers = state->model->config.layers;
    int rc = embed(state, pass);

    if (rc == MODEL_OK)
        rc = sundial_show_tokens(state, pass, "embed", &state->hidden);
    for (int64_t i = 0; rc == MODEL_OK && i < layers; i++) {
        /* After the last attention nobody asks for a token but the last one. */
        bool last = i == layers - 1 && state->tap.call == NULL;
        char name[32];

        if ((rc = attend(state, pass, i)) < 0 ||
            (rc = feed_forward(state, i, last ? last_tokens(state, pass) : all_tokens(state, pass))) < 0)
            break;
        snprintf(name, sizeof name, "layer_%d", (int)i);
        rc = sundial_show_tokens(state, pass, name, &state->hidden);
    }
    return rc;
}
