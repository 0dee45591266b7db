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

/* ---- causal patches (Toto 2) ----------------------------------------------------------------------------------------------------- */

/* From values to what the network reads of each patch, scaled by the mean and deviation of all that was observed up to its end.
 *
 * Rows are (series, variate), the last `exogenous` of the `variates` known in the future. With `mask` a row begins with its context: `patches`
 * patches of x. The last of them counts as observed in rows that are not exogenous; what is missing in it repeats the last value observed
 * before (0 when there is none). Without `mask` a row goes on from `state`: x has `patches` patches that were fed back, all observed; those of
 * an exogenous row are its future from patch *step · patches on. Then come `ahead` patches, observed only where an exogenous row's future
 * is known.
 *
 * Of every patch loc = mean, scale = max(sqrt(M2 / max(n - 1, 1)), minimum), of all observed up to its end, in F64. Where these are fewer
 * than `minimum_observed`, the row's first so many are taken instead, later ones too, for y and the cap. y: asinh((x - loc) / scale), 0 where
 * not observed; then 1 where not observed (0 in all that is fed back). A context's cap: its observed values' range, widened by cap · scale of
 * its last patch on both sides (nothing observed: of 0). Source: PatchedCausalStdScaler and forecast() of Datadog's Toto 2.0. */
typedef struct {
    backend_tensor_t x; /* F32: row r at x + r · x_stride */
    int64_t x_stride;
    const backend_tensor_t *mask; /* U8 [rows][patches · patch]: 1 observed; NULL: x is fed back */
    int64_t rows, patches, patch, ahead;
    int64_t variates, exogenous;
    const backend_tensor_t
        *future; /* F32 [rows / variates][exogenous][future_length], NaN where not known; read only with exogenous rows */
    int64_t future_length;
    const backend_tensor_t *step; /* of what is fed back */
    double minimum;
    int64_t minimum_observed; /* at most `patch`, so that a context of a row that is not exogenous has them */
    int64_t tokens;           /* the patches of y: at most patches + ahead */
    backend_tensor_t y;       /* F32 or BF16: [2][patch] of token t of row r at y + (r · tokens + t) · y_stride */
    int64_t y_stride;         /* at least 2 · patch */
    backend_tensor_t loc;     /* F32 [rows][patches + ahead] */
    backend_tensor_t scale;   /* likewise */
    backend_tensor_t state;   /* F64 [rows][BACKEND_SCALER_STATE]: count, sum, M2 after `patches`, the fallback's loc and scale */
    const backend_tensor_t *visible; /* U8 [rows][tokens]: 1 where a patch has an observed value, and ahead; NULL: not asked for */
    const backend_tensor_t *lasting; /* the same, but 0 ahead; NULL: not asked for */
    const backend_tensor_t *low, *high; /* F32 [rows]: the cap of a context; NULL together: none */
    float cap;
} backend_causal_patch_t;

int backend_causal_patch(backend_t *backend, const backend_causal_patch_t *op);

/* ---- instance scaler and patches (Chronos, Sundial, Kronos) ----------------------------------------------------------------------- */

/* Of every row, over its observed values: loc = mean, scale = sqrt(population variance), accumulated in F64, or 0 and 1 where nothing is
 * observed; then scale + eps (`add`), or eps where scale is 0. y = (x - loc) / scale, clamped to ±clip when clip > 0, then asinh when asked for;
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
