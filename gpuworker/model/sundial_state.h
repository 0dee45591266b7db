/* One session of Sundial: what its parts share. sundial.c opens it and runs its rounds, sundial_decoder.c turns bars into features,
 * sundial_flow.c features into samples, sundial_taps.c shows both to a verification.
 *
 * Letters in shape comments: B series, V variates, R = B·V rows (a variate is a series of its own here), N samples, P bars of a token, T
 * context tokens, C bars of a round, E = C/P tokens that a round appends, D width, H heads, d head size, F hidden width of the MLP, L blocks of
 * the flow, n its Euler steps. */
#ifndef BARCAST_GPUWORKER_MODEL_SUNDIAL_STATE_H
#define BARCAST_GPUWORKER_MODEL_SUNDIAL_STATE_H

#include "gpuworker/model/parts.h"
#include "gpuworker/model/sundial.h"

/* Where the parts of a row of `flow` begin, and how wide it is: one stride serves the product that writes two parts at once. */
typedef struct {
    int64_t projected, x;             /* what moves: W_in · x + b_in [D], x [C] */
    int64_t projected_drift, x_drift; /* by how much in a step whatever the network says, likewise */
    int64_t stream;                   /* [D]: the residual stream of the blocks */
    int64_t stride;
} sundial_row_t;

struct model_state {
    model_t *model;
    backend_t *backend;
    model_shape_t shape;
    int64_t rows, paths;            /* R, R·N */
    int64_t tokens, rounds, append; /* T, rounds, E */
    sundial_row_t row;
    tap_t tap;
    buffers_t buffers;
    staging_t inputs, outputs;
    const uint32_t *length; /* staged by the caller, read by prepare */

    /* inputs */
    backend_tensor_t values, mask, key;           /* [R][T·P] twice, [B] */
    backend_tensor_t noise;                       /* [B][N][V][rounds·C], when the caller gives it */
    backend_tensor_t first;                       /* [R]: leading tokens that are padding alone */
    backend_tensor_t prefill_index, append_index; /* [R][T], [R][rounds - 1][E]: rows of the rotary table */
    int32_t *first_host, *prefill_host, *append_host;

    /* constants */
    backend_tensor_t rope;            /* [T + (rounds - 1)·E][4][d] */
    backend_tensor_t levels;          /* [quantiles] */
    backend_tensor_t observed;        /* [R][C]: ones, the mask of what was generated */
    backend_tensor_t condition_index; /* [2][R][n]: row and step, as backend_embed wants them */

    /* decoder: sized for the prefill or for E tokens a row, whichever is more */
    backend_tensor_t scaled, loc, scale; /* [R][T·P], [R] twice */
    backend_tensor_t features;           /* [tokens][2·P + F]: a patch, its mask, and the hidden layer of its embedding */
    backend_tensor_t hidden;             /* [tokens][D], the residual stream */
    backend_tensor_t qkv, mixed, gated;  /* [tokens][3][H][d], [tokens][H][d], [tokens][F] */
    backend_kv_t *kv;                    /* of every layer */
    backend_tensor_t step;               /* [1]: rounds appended so far, less one */
    backend_tensor_t normed, identity;   /* [tokens][D], [D][D]: for the tap only */

    /* flow */
    int64_t chunk;                    /* steps whose modulations are computed at once */
    backend_tensor_t condition;       /* [R][D] */
    backend_tensor_t moments;         /* [R][chunk][D]: silu(time + condition) */
    backend_tensor_t modulation;      /* [R][chunk][(3·L + 2)·D] */
    backend_tensor_t flow;            /* [R·N][row.stride] */
    backend_tensor_t inner;           /* [R·N][D] */
    backend_tensor_t median;          /* [R][C]: what the next round reads */
    float *before, *after, *repeated; /* host copies of flow and room for R·N rows: for the tap only */

    /* results */
    backend_tensor_t paths_out;       /* [B][N][V][horizon] */
    backend_tensor_t mean, quantiles; /* [B][V][horizon], [B][V][quantiles][horizon] */
};

/* One pass of the decoder: over the context, or over the tokens that the round before appended. */
typedef struct {
    int64_t tokens; /* a row: T or E */
    int round;
} sundial_pass_t;

/* The pass's bars (context, or the median that stands in state->median) to hidden states after the last layer; without a tap and in the last
 * round only those of a row's last token are complete. */
int sundial_decode(model_state_t *state, const sundial_pass_t *pass);

/* Hidden states of the pass's last tokens to the round's bars in every path, and to the median when another round follows. */
int sundial_flow(model_state_t *state, const sundial_pass_t *pass);

/* What each does when somebody listens, and nothing otherwise. `name` follows "roundK.". */
int sundial_show_scaler(model_state_t *state);
int sundial_show_tokens(model_state_t *state, const sundial_pass_t *pass, const char *name, const backend_tensor_t *tensor);
int sundial_show_condition(model_state_t *state, const sundial_pass_t *pass);
int sundial_show_step_begin(model_state_t *state, const sundial_pass_t *pass, int step);
int sundial_show_block(model_state_t *state, const sundial_pass_t *pass, int step, int block);
int sundial_show_step_end(model_state_t *state, const sundial_pass_t *pass, int step);
int sundial_show_samples(model_state_t *state, const sundial_pass_t *pass, int64_t width);
int sundial_set_tap(model_state_t *state, model_tap_t tap, void *context);

#endif
