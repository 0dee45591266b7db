/* Ops that turn paths or bars into a forecast: mean and quantiles. Rules: backend.h. */
#ifndef BARCAST_GPUWORKER_BACKEND_OPS_RESULTS_H
#define BARCAST_GPUWORKER_BACKEND_OPS_RESULTS_H

#include "gpuworker/backend/device.h"

/* ---- results --------------------------------------------------------------------------------------------------------------------- */

/* Over the samples of each series and variate: mean (accumulated in F64), and quantiles by linear interpolation between order statistics
 * (the definition of torch.quantile and numpy.quantile). paths [series][samples][variates], rows path_stride apart, first `horizon` values. */
typedef struct {
    backend_tensor_t paths;
    int64_t path_stride;
    int64_t series, samples, variates, horizon;
    backend_tensor_t mean;             /* F32 [series][variates][horizon] */
    const backend_tensor_t *levels;    /* F32 [quantiles], ascending; NULL: no quantiles */
    const backend_tensor_t *quantiles; /* F32 [series][variates][quantiles][horizon] */
} backend_summarize_t;

int backend_summarize(backend_t *backend, const backend_summarize_t *op);

/* The naive forecast: random walk with the trailing volatility of one-step changes. Prices (log = true) walk in log space without drift:
 * quantile = last · exp(z · sigma · sqrt(h)); other fields walk linearly: last + z · sigma · sqrt(h). mean = last, the last observed value.
 * sigma: root mean square of the (log) changes between neighbouring bars that are both observed; a price that is not positive counts
 * as unobserved. Nothing observed: 0. z: standard normal quantile of the level, given. Computed in F64. */
typedef struct {
    backend_tensor_t x;    /* F32 [rows][context] */
    backend_tensor_t mask; /* U8 like x */
    int64_t rows, context, horizon, levels;
    const backend_tensor_t *z;   /* F32 [levels] */
    const backend_tensor_t *log; /* U8 [rows] */
    backend_tensor_t mean;       /* F32 [rows][horizon] */
    backend_tensor_t quantiles;  /* F32 [rows][levels][horizon] */
} backend_random_walk_t;

int backend_random_walk(backend_t *backend, const backend_random_walk_t *op);

#endif
