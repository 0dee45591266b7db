/* Ops between bars and a network's input: scalers and patches. Rules: backend.h. */
#ifndef BARCAST_GPUWORKER_BACKEND_OPS_SCALING_H
#define BARCAST_GPUWORKER_BACKEND_OPS_SCALING_H

#include "gpuworker/backend/device.h"

/* ---- causal patch scaler (Toto 1) ---------------------------------------------------------------------------------------------- */

/* Running statistics of a row, F64: count, sum, M2 (Welford), global scale's lower and upper clamp. */
enum { BACKEND_SCALER_STATE = 5 };

/* Of every patch the mean and scale of all observed values up to its end: sqrt(M2 / max(n - 1, 1) + minimum), clamped to the context's
 * global scale (population variance, + minimum under the root) · 10^±exponent and from below to `minimum`; no clamp when
 * exponent <= 0. y = (x - loc) / scale for all values, masked ones too.
 * Source: CausalPatchStdMeanScaler of Datadog's Toto 1.0. */
typedef struct {
    backend_tensor_t x;    /* F32 [rows][patches · patch], masked values hold 0 */
    backend_tensor_t mask; /* U8 like x: 1 observed */
    int64_t rows, patches, patch;
    double minimum, exponent;
    backend_tensor_t y;     /* F32 like x */
    backend_tensor_t loc;   /* F32 [rows][patches] */
    backend_tensor_t scale; /* F32 [rows][patches] */
    backend_tensor_t state; /* F64 [rows][BACKEND_SCALER_STATE], after the last patch */
} backend_causal_scale_t;

int backend_causal_scale(backend_t *backend, const backend_causal_scale_t *op);

/* The same continued by one generated patch (all observed): x of row r at x + r · x_stride + *step · patch. The state read is state_in
 * [series · variates] at *step 0 (the paths branch there) and state [rows] afterwards, which is written always; may not alias. */
typedef struct {
    backend_tensor_t x; /* F32 */
    int64_t x_stride;
    int64_t rows, samples, variates, patch;
    double minimum;
    backend_tensor_t state_in; /* F64 [series · variates][BACKEND_SCALER_STATE] */
    backend_tensor_t state;    /* F64 [rows][BACKEND_SCALER_STATE] */
    backend_tensor_t y;        /* F32 [rows][patch] */
    backend_tensor_t loc;      /* F32 [rows] */
    backend_tensor_t scale;    /* F32 [rows] */
    const backend_tensor_t *step;
} backend_causal_scale_extend_t;

int backend_causal_scale_extend(backend_t *backend, const backend_causal_scale_extend_t *op);

#endif
