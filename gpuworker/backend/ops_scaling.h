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

/* ---- instance scaler and patches (Chronos, Sundial, Kronos) ----------------------------------------------------------------------- */

/* Of every row, over its observed values: loc = mean, scale = sqrt(population variance), accumulated in F64; then scale + eps (`add`), or eps
 * where scale is 0. Nothing observed: loc 0, scale 1. y = (x - loc) / scale, clamped to ±clip when clip > 0, then asinh when asked for;
 * what is masked becomes 0. The last `ahead` values of a row are scaled with the others and do not count: a future that is known. */
typedef struct {
    backend_tensor_t x;           /* F32 [rows][width] */
    const backend_tensor_t *mask; /* U8 like x: 1 observed; NULL: all */
    int64_t rows, width, ahead;   /* ahead < width */
    float eps, clip;
    bool add, asinh;
    backend_tensor_t y;     /* F32 like x */
    backend_tensor_t loc;   /* F32 [rows] */
    backend_tensor_t scale; /* F32 [rows] */
} backend_instance_scale_t;

int backend_instance_scale(backend_t *backend, const backend_instance_scale_t *op);

/* What an embedding reads of each patch: [time | values | mask], each `patch` wide, the first only when a time encoding is given. Masked values
 * become 0; the mask is 1 where observed, or where missing when `missing` is set. */
typedef struct {
    backend_tensor_t x;           /* F32 [rows][patches · patch], rows x_stride apart (0: dense) */
    const backend_tensor_t *mask; /* U8 like x; NULL: nothing is observed, x is not read */
    int64_t rows, patches, patch, x_stride;
    const backend_tensor_t *time; /* F32 [patches · patch], the same for all rows; NULL: no such part */
    bool missing;
    backend_tensor_t y;             /* F32 or BF16 [rows][patches][2 or 3][patch], the last two dense */
    int64_t y_stride, patch_stride; /* from a row to the next, from a patch to the next; 0: dense */
    const backend_tensor_t *
        visible; /* U8 [rows][patches], rows visible_stride apart (0: dense): 1 where a patch has an observed value; NULL: not asked for */
    int64_t visible_stride;
} backend_patch_t;

int backend_patch(backend_t *backend, const backend_patch_t *op);

#endif
