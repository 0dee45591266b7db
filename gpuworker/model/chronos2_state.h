/* A session of Chronos-2, between its opening (chronos2.c) and its passes (chronos2_pass.c). Letters as in chronos2.c. */
#ifndef BARCAST_GPUWORKER_MODEL_CHRONOS2_STATE_H
#define BARCAST_GPUWORKER_MODEL_CHRONOS2_STATE_H

#include "gpuworker/model/chronos2.h"

/* One pass of the network. The first one sees the series, later ones the series continued along each path. */
typedef struct {
    int number;
    int64_t paths, rows;        /* 1, then CHRONOS2_PATHS; B · paths · V */
    int64_t done;               /* bars forecast before it */
    int64_t context, ahead;     /* S, A: tokens of its context and of the bars that it predicts */
    int64_t tokens;             /* T = S + 1 + A */
    backend_tensor_t visible;   /* U8 [rows][T] */
    backend_tensor_t constant;  /* I32 [T]: which constant row of features each token has */
    backend_tensor_t predicted; /* I32 [rows · A]: where in the hidden states the predicted tokens stand */
} chronos2_round_t;

struct model_state {
    model_t *model;
    backend_t *backend;
    model_shape_t shape;
    int64_t total; /* predicted bars: the horizon in whole patches */
    int round_count;
    chronos2_round_t *rounds;
    tap_t tap;
    buffers_t buffers;
    staging_t inputs, outputs;

    /* inputs */
    backend_tensor_t values, mask, group; /* [B][V][C] twice, [B][V] */
    backend_tensor_t future;              /* [B][E][total], NaN past the horizon */
    const float *future_given;            /* [B][E][horizon] */
    float *future_padded;

    /* constants */
    backend_tensor_t time;                 /* [most S · P + most A · P]: every bar's distance from the forecast, scaled */
    backend_tensor_t constants;            /* [2 + most A][feature columns]: an empty patch, [REG], unknown futures */
    backend_tensor_t rope, positions;      /* [T][4][d]; [rows][T] */
    backend_tensor_t native_levels, asked; /* [levels], [quantiles] */
    backend_tensor_t path_levels, weights; /* [paths], [paths][levels]: of the unrolling */
    backend_tensor_t zero, one;            /* [1] each: what a forecast in its own units is scaled by */

    /* work: for the largest round */
    backend_tensor_t continued, continued_mask; /* [rows][S·P + A·P]: context, and its known future */
    backend_tensor_t scaled, loc, scale;        /* likewise; [rows] twice */
    backend_tensor_t wide;                      /* [rows · T][wide]: features and MLPs, see chronos_parts.h */
    backend_tensor_t hidden, other;             /* [rows · T][D]: the residual stream, changing places */
    backend_tensor_t qkv, mixed;                /* [rows · T][3][H][d], [rows · T][H][d] */
    backend_tensor_t head_hidden, head;         /* [rows · A][F + 2·levels·P], [rows · A][levels][P] */
    backend_tensor_t round_native;              /* [rows][levels][A·P] of a later round, or of a tapped only one */
    backend_tensor_t native;                    /* [B][V][levels][total]: all rounds' quantiles */

    /* results */
    backend_tensor_t mean, quantiles; /* [B][V][horizon], [B][V][quantiles][horizon] */
};

/* The features that do not depend on the series, into the wide rows of a round. */
int chronos2_write_constants(model_state_t *state, const chronos2_round_t *round);
int chronos2_forecast(model_state_t *state);

#endif
