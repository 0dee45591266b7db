/* Ops that turn a network's output into future values: distributions and draws. Rules: backend.h. */
#ifndef BARCAST_GPUWORKER_BACKEND_OPS_SAMPLING_H
#define BARCAST_GPUWORKER_BACKEND_OPS_SAMPLING_H

#include "gpuworker/backend/device.h"

/* ---- mixture of Student-t heads ------------------------------------------------------------------------------------------------- */

/* head [rows · patch][4][K] F32: raw df, loc, scale, logits. df = 2 + max(softplus, eps), scale = max(softplus, eps), eps = FLT_EPSILON,
 * weights = softmax(logits). With draws = 0 the value is the mixture's mean, Σ w·loc; otherwise each row gives `draws` random values. The value
 * v becomes v · out_scale[row] + out_loc[row]; where that is not finite, or its size is FLT_MAX / 2 or more, it becomes 0 (as the official
 * code's replace_extreme_values).
 * Output row = row · max(draws, 1) .. for samples: series-major, then draw, then variate: ((row / variates) · draws + draw) · variates +
 * row % variates; value p of it goes to paths + output row · path_stride + *step · patch + p.
 * Random numbers: one Philox block a value (philox.h), key = keys[series], counter = (*step·patch + p, path, variate,
 * PHILOX_STREAM_STUDENT_T), path = ((row / variates) mod samples) · max(draws, 1) + draw, words as philox_uniform: the first picks the
 * component (the first one whose running sum of weights, in order, exceeds it; else the last), the second and third, u and v, give
 * Bailey's polar form t = sqrt(df · expm1(-2 ln(u) / df)) cos(2πv). The value is loc + scale · t. All in F32. */
typedef struct {
    backend_tensor_t head;
    int64_t rows, patch, components;
    int64_t samples; /* paths a series that `rows` already hold: 1 at the prefill */
    int64_t draws;   /* paths to draw from each row: the session's samples at the prefill, then 1; 0: the mean */
    int64_t variates;
    backend_tensor_t out_loc, out_scale; /* F32; row r at [r · out_stride + out_offset] */
    int64_t out_stride, out_offset;
    const backend_tensor_t *keys; /* U64 [series]; not read for the mean */
    const backend_tensor_t *step;
    backend_tensor_t paths; /* F32 */
    int64_t path_stride;
    const backend_tensor_t
        *params; /* NULL, or F32 [4][rows · patch][K]: df, loc, scale after their transforms, logits raw (verification) */
} backend_student_t_t;

int backend_student_t(backend_t *backend, const backend_student_t_t *op);

/* Quantiles of the same mixtures, without draws: those of the first `horizon` values of each row's patch, from the mixture's distribution
 * function, in F64, to 2e-6 of the mixture's spread sqrt(Σ w · (scale² + (loc - mean)²)) or better. The head is read, and a quantile brought to
 * original units, as by backend_student_t; what is no usable number becomes 0; then each level is at least the one below it. The last
 * `exogenous` variates of a series are known: all their quantiles are the future's values. */
typedef struct {
    backend_tensor_t head; /* F32 [rows · patch][4][K] */
    int64_t rows, patch, components, horizon;
    int64_t variates, exogenous;
    backend_tensor_t out_loc, out_scale; /* F32; row r at [r · out_stride + out_offset] */
    int64_t out_stride, out_offset;
    const backend_tensor_t *future; /* F32 [rows / variates][exogenous][future_stride]; not read where none are exogenous */
    int64_t future_stride;
    backend_tensor_t levels;    /* F32 [quantiles], ascending, between 0 and 1 */
    backend_tensor_t quantiles; /* F32 [rows][quantiles][horizon] */
} backend_student_t_quantiles_t;

int backend_student_t_quantiles(backend_t *backend, const backend_student_t_quantiles_t *op);

/* paths[row of variate v >= variates - exogenous][*step·patch ..] = future[series][v - (variates - exogenous)][*step·patch ..]. */
typedef struct {
    backend_tensor_t paths; /* F32 [series · samples · variates], rows path_stride apart */
    int64_t path_stride;
    int64_t series, samples, variates, exogenous, patch;
    backend_tensor_t future; /* F32 [series][exogenous][future_stride] */
    int64_t future_stride;
    const backend_tensor_t *step;
} backend_override_t;

int backend_override(backend_t *backend, const backend_override_t *op);

#endif
