/* What Toto 2.0 shows to a tap, by the names that the goldens use: "step0.layer_3" is call 0's. Letters as in toto2.c. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "gpuworker/model/toto2.h"

enum { NAME_BYTES = 48 };

int toto2_set_tap(model_state_t *state, model_tap_t tap, void *context)
{
    size_t patches = (size_t)(state->rows * (state->patches + state->steps));

    if (tap != NULL && state->unread > 0) {
        int rc;

        state->unread = 0;
        if ((rc = toto2_take_tokens(state)) < 0)
            return rc;
        state->seen_loc = calloc(patches, sizeof *state->seen_loc);
        state->seen_scale = calloc(patches, sizeof *state->seen_scale);
        if (state->seen_loc == NULL || state->seen_scale == NULL)
            return error_set(MODEL_ERR_MEMORY, "toto2: out of memory");
    }
    state->tap = (tap_t){tap, context};
    return MODEL_OK;
}

static const char *name_of(char *text, const toto2_call_t *call, const char *name)
{
    snprintf(text, NAME_BYTES, "step%d.%s", (int)call->number, name);
    return text;
}

/* The official scaler covers context and horizon in every call: patches past this call's have the statistics of its last one. */
static int show_statistics(model_state_t *state, const toto2_call_t *call, const char *name, const backend_tensor_t *from,
                           float *seen)
{
    int64_t all = state->patches + state->steps, count = call->before + call->block;
    int64_t begin = call->number == 0 ? 0 : state->patches + (call->number - 1) * state->block;
    float *values = malloc((size_t)backend_tensor_elements(from) * sizeof *values);
    char text[NAME_BYTES];
    int rc;

    if (values == NULL)
        return error_set(MODEL_ERR_MEMORY, "tap %s: out of memory", name);
    if ((rc = backend_read(state->backend, from, values)) == BACKEND_OK) {
        for (int64_t row = 0; row < state->rows; row++)
            for (int64_t i = begin; i < all; i++)
                seen[row * all + i] = values[row * count + (i - begin < count ? i - begin : count - 1)];
        state->tap.call(state->tap.context, name_of(text, call, name), 0, seen, 3,
                        (int64_t[]){state->shape.batch, state->shape.variates, all});
    }
    free(values);
    return model_backend_error(rc);
}

int toto2_show_scaler(model_state_t *state, const toto2_call_t *call)
{
    int rc;

    if (state->tap.call == NULL)
        return MODEL_OK;
    if ((rc = show_statistics(state, call, "scaler_loc", &state->loc, state->seen_loc)) < 0)
        return rc;
    return show_statistics(state, call, "scaler_scale", &state->scale, state->seen_scale);
}

typedef struct {
    const tap_t *tap;
    float scale;
} scaled_tap_t;

static void show_scaled(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim)
{
    const scaled_tap_t *scaled = context;
    int64_t count = 1;
    float *own;

    for (int i = 0; i < rank; i++)
        count *= dim[i];
    if ((own = malloc((size_t)count * sizeof *own)) == NULL)
        return;
    for (int64_t i = 0; i < count; i++)
        own[i] = values[i] * scaled->scale;
    scaled->tap->call(scaled->tap->context, name, step, own, rank, dim);
    free(own);
}

/* Tokens [begin, begin + count) of every row, times `scale`. */
static int show_tokens(model_state_t *state, const toto2_call_t *call, const char *name, const backend_tensor_t *stream,
                       int64_t begin, int64_t count, float scale)
{
    int64_t width = state->model->config.width;
    scaled_tap_t scaled = {&state->tap, scale};
    tap_t tap = {show_scaled, &scaled};
    char text[NAME_BYTES];

    TRY(tap_show(&tap, state->backend, name_of(text, call, name), 0, stream, begin * width, call->tokens * width, 4,
                 (int64_t[]){state->shape.batch, state->shape.variates, 1, count * width}));
    return MODEL_OK;
}

int toto2_show_embedding(model_state_t *state, const toto2_call_t *call, const backend_tensor_t *stream)
{
    int rc;

    if (state->tap.call == NULL)
        return MODEL_OK;
    rc = show_tokens(state, call, call->number == 0 ? "context_embed" : "median_embed", stream, 0, call->before, 1);
    return rc < 0 ? rc : show_tokens(state, call, "pred_embed", stream, call->before, call->block, 1);
}

int toto2_show_layer(model_state_t *state, const toto2_call_t *call, int64_t layer, const backend_tensor_t *stream)
{
    char name[NAME_BYTES];

    if (state->tap.call == NULL)
        return MODEL_OK;
    snprintf(name, sizeof name, "layer_%d", (int)layer);
    return show_tokens(state, call, name, stream, 0, call->tokens, state->model->layers[layer].scale);
}

/* Level by level: [9] stands before the series in the goldens. */
int toto2_show_head(model_state_t *state, const toto2_call_t *call)
{
    int64_t length = call->block * state->model->config.patch;
    char text[NAME_BYTES];

    for (int level = 0; level < TOTO2_LEVELS; level++)
        TRY(tap_show(&state->tap, state->backend, name_of(text, call, "head_asinh_quantiles"), level, &state->head, level,
                     TOTO2_LEVELS, 4, (int64_t[]){state->shape.batch, state->shape.variates, length, 1}));
    return MODEL_OK;
}
