/* One session of Kronos: what kronos_open.c makes, and kronos.c and kronos_codec.c compute with. Letters of the shapes: kronos.c. */
#ifndef BARCAST_GPUWORKER_MODEL_KRONOS_STATE_H
#define BARCAST_GPUWORKER_MODEL_KRONOS_STATE_H

#include "gpuworker/model/kronos.h"

struct model_state {
    model_t *model;
    backend_t *backend;
    model_shape_t shape;
    model_options_t options; /* the shape's, defaults filled in */
    tap_t tap;
    buffers_t buffers;
    staging_t inputs, outputs;

    int64_t paths;           /* N */
    int64_t window;          /* W */
    int64_t kept;            /* K = min(T, W) */
    int64_t columns;         /* C = K + horizon: tokens of a path */
    int64_t cached;          /* steps 0 .. cached - 1 see at most W tokens and go by the cache; the later ones roll */
    int64_t decoded_context; /* context tokens that the tokenizer's decoder sees: min(K, W - horizon) */

    /* inputs */
    const float *values; /* as the caller staged them */
    const uint8_t *mask;
    const uint32_t *length;
    const int64_t *time_ns;
    backend_tensor_t key;                    /* [B] */
    backend_tensor_t filled, present;        /* [B][6][T] */
    backend_tensor_t times;                  /* [B][5][T + horizon] */
    backend_tensor_t first_bar, first_token; /* [B]: leading padding among the T bars, among the K tokens */
    backend_tensor_t first_decoded;          /* [B]: among the decoder's context tokens */
    backend_tensor_t first_rolled;           /* [steps from `cached` on][B]: among the window's tokens */
    float *filled_host;
    uint8_t *present_host;
    int32_t *times_host, *first_bar_host, *first_token_host, *first_decoded_host, *first_rolled_host;

    /* constants */
    backend_tensor_t steps;                          /* [horizon]: 0, 1, 2 … */
    backend_tensor_t column_index;                   /* [B][T]: 0, 1, 2 … in each row */
    backend_tensor_t path_index, extend_index;       /* [B][horizon]: K, K + 1 …; the same as [B][1][horizon] */
    backend_tensor_t branch_index;                   /* [B·N]: each path's series' last token among [B][K] */
    backend_tensor_t predictor_rope, tokenizer_rope; /* [positions][4][d] */
    backend_tensor_t levels;                         /* [quantiles] */

    /* the tokenizer's encoder */
    backend_tensor_t normalised, loc, scale; /* [B][6][T], [B][6] twice */
    backend_tensor_t bars;                   /* [B][T][6] */
    kronos_work_t encoder_work;
    backend_kv_t encoder_kv;
    backend_tensor_t bits;   /* [B][T][bits_1 + bits_2] */
    backend_tensor_t tokens; /* [3][B·N][C]: part 1, part 2, row of time_embedding */

    /* the predictor */
    backend_tensor_t time_embedding; /* [B][C][D] */
    kronos_work_t predictor_work;
    backend_kv_t *predictor_kv;     /* of every block */
    backend_kv_t dependency_kv;     /* d = D / 4 */
    backend_tensor_t branch;        /* [B·N][D]: the last context token's features, once a path */
    backend_tensor_t first_head;    /* [B·N][D + V1]: norm(x), later + the dependency layer's output; logits of part 1 */
    backend_tensor_t second_logits; /* [B·N][V2] */

    /* the tokenizer's decoder */
    kronos_work_t decoder_work;
    backend_kv_t *decoder_kv;       /* of every block */
    backend_tensor_t decoded;       /* [B·N][horizon][6]; for the tap: [B][decoded_context][6] */
    backend_tensor_t tapped;        /* [tokens][D]: for the tap only */
    backend_tensor_t tapped_tokens; /* [2][B][T]: for the tap only */

    /* results */
    backend_tensor_t paths_out;       /* [B][N][6][horizon] */
    backend_tensor_t mean, quantiles; /* [B][6][horizon], [B][6][quantiles][horizon] */
};

static inline int64_t kronos_path_rows(const model_state_t *state)
{
    return state->shape.batch * state->paths;
}

/* ---- session (kronos_open.c) ---------------------------------------------------------------------------------------------------------- */

int kronos_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output);
void kronos_prepare(model_state_t *state);
void kronos_close(model_state_t *state);
int kronos_set_tap(model_state_t *state, model_tap_t tap, void *context);

/* ---- views and taps, for kronos.c and kronos_codec.c --------------------------------------------------------------------------------- */

enum { KRONOS_PART_1, KRONOS_PART_2, KRONOS_PART_TIME, KRONOS_PARTS }; /* of `tokens` */

/* Of the token parts from `part` on, the columns from `column` on. */
static inline backend_tensor_t kronos_tokens_from(const model_state_t *state, int part, int64_t column)
{
    return backend_tensor_from(&state->tokens, part * kronos_path_rows(state) * state->columns + column);
}

/* The device's number `step`. */
static inline backend_tensor_t kronos_step_at(const model_state_t *state, int64_t step)
{
    return backend_tensor_from(&state->steps, step);
}

/* The rotary table's rows of the columns from `column` on. */
static inline backend_tensor_t kronos_columns_from(const model_state_t *state, int64_t column)
{
    backend_tensor_t view = state->column_index;

    view.data = (int32_t *)view.data + column;
    return view;
}

static inline int kronos_show(const model_state_t *state, const char *name, int step, const backend_tensor_t *tensor, int64_t rows,
                              int64_t tokens, int64_t width)
{
    return tap_show(&state->tap, state->backend, name, step, tensor, 0, 0, 3, (int64_t[]){rows, tokens, width});
}

/* Integers [rows][tokens], whose rows lie `stride` apart, as floats. */
static inline int kronos_show_integers(const model_state_t *state, const char *name, int step, const backend_tensor_t *tensor,
                                       int64_t rows, int64_t tokens, int64_t stride)
{
    return tap_show_integers(&state->tap, state->backend, name, step, tensor, stride, 2, (int64_t[]){rows, tokens});
}

/* ---- parts of a forecast ------------------------------------------------------------------------------------------------------------ */

/* kronos_codec.c: filled bars -> tokens, of the last K bars of each series, in each of its paths. */
int kronos_encode(model_state_t *state);
/* kronos_codec.c: the paths' tokens -> paths_out, in the series' units. */
int kronos_decode(model_state_t *state);

#endif
