/* A session of Chronos-Bolt, between its opening (chronos_bolt.c) and its passes (chronos_bolt_pass.c). Letters as in chronos_bolt.c. */
#ifndef BARCAST_GPUWORKER_MODEL_CHRONOS_BOLT_STATE_H
#define BARCAST_GPUWORKER_MODEL_CHRONOS_BOLT_STATE_H

#include "gpuworker/model/chronos_bolt.h"

/* One pass of the network. The first one sees the series, later ones the series continued along each level. */
typedef struct {
    int number;
    int64_t paths, rows;       /* 1, then one a level; N · paths */
    int64_t done;              /* bars forecast before it */
    int64_t context, tokens;   /* S; T = S + 1 */
    backend_tensor_t visible;  /* U8 [rows][T] */
    backend_tensor_t constant; /* I32 [T]: which constant row of features each token has */
    backend_tensor_t bias;     /* [H][2·T - 1]: what a relative position adds to a score */
} chronos_bolt_round_t;

struct model_state {
    model_t *model;
    backend_t *backend;
    model_shape_t shape;
    int64_t series; /* N: variates know nothing of each other, each is a series */
    int64_t total;  /* predicted bars: the horizon in whole passes */
    int round_count;
    chronos_bolt_round_t *rounds;
    tap_t tap;
    buffers_t buffers;
    staging_t inputs, outputs;

    backend_tensor_t values, mask; /* [N][C] twice */

    /* constants */
    backend_tensor_t constants;            /* [2][feature columns]: an empty patch, [REG] */
    backend_tensor_t start, start_q;       /* [rows][D], [rows][3][H·d]: the decoder before its first cross attention */
    backend_tensor_t native_levels, asked; /* [levels], [quantiles] */
    backend_tensor_t path_levels;          /* [paths] */
    backend_tensor_t zero, one;            /* [1] each: what a forecast in its own units is scaled by */

    /* work: for the largest round */
    backend_tensor_t continued, continued_mask; /* [rows][S·P] */
    backend_tensor_t scaled, loc, scale;        /* likewise; [rows] twice */
    backend_tensor_t wide;                      /* [rows · T][wide]: features and MLPs, see chronos_parts.h */
    backend_tensor_t hidden;                    /* [rows · T][D], the encoder's residual stream */
    backend_tensor_t qkv, mixed;                /* [rows · T][3][H][d], [rows · T][H][d] */
    backend_tensor_t keys, values_cache;        /* [rows][H][T][d]: of one cross attention at a time */
    backend_tensor_t decoded, other;            /* [rows][D], the decoder's residual stream, changing places */
    backend_tensor_t decoder_hidden;            /* [rows][F] */
    backend_tensor_t head_hidden, head;         /* [rows][F + 2·levels·length], [rows][levels][length] */
    backend_tensor_t round_native;              /* [rows][levels][length] of a later round, or of a tapped only one */
    backend_tensor_t merged, merged_mean;       /* [N][levels][length], [N][length]: over a round's paths */
    backend_tensor_t native;                    /* [N][levels][total]: all rounds' quantiles */

    /* results */
    backend_tensor_t mean, quantiles; /* [N][horizon], [N][quantiles][horizon] */
};

/* What does not depend on the series: features into the wide rows of a round; the decoder's beginning, once. */
int chronos_bolt_write_constants(model_state_t *state, const chronos_bolt_round_t *round);
int chronos_bolt_begin_decoder(model_state_t *state, int64_t rows);
int chronos_bolt_forecast(model_state_t *state);

#endif
