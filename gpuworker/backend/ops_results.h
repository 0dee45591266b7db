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
 * as unobserved. Nothing observed: 0. z: standard normal quantile of the level, given. Computed in F64; what a float
 * cannot hold becomes its largest. */
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

/* ---- models that give quantiles themselves --------------------------------------------------------------------------------------- */

enum { BACKEND_LEVELS_MOST = 64, BACKEND_WEIGHTED_MOST = 1024 };

/* Value (row, level, position t) of the head, with p = t mod patch, stands at head + row · row_stride + (t / patch) · patch_stride + level ·
 * level_stride + p · value_stride. It becomes sinh(value) where asked for, then · scale[row] + loc[row]; an infinite one becomes the largest
 * (smallest) finite value of its row, level and patch, NaN 0; with a cap it is clamped to it; then the levels of a position are put in ascending
 * order, so that none cross. `native` gets them; with `unsorted` as they were before that.
 * The forecast takes, of the first `horizon` positions, the levels asked for, by linear interpolation between native levels, the outermost
 * beyond them; its mean is the median. */
typedef struct {
    backend_tensor_t head;               /* F32 */
    int64_t rows, length, patch, levels; /* length = patches · patch */
    int64_t row_stride, patch_stride, level_stride, value_stride;
    bool sinh;
    backend_tensor_t loc, scale; /* F32; of row r and patch i at [r · loc_stride + i · loc_patch_stride] */
    int64_t loc_stride, loc_patch_stride;
    const backend_tensor_t *low, *high; /* F32 [rows]: the cap; NULL together: none */
    const backend_tensor_t *native;     /* F32 [rows][levels][length], levels native_stride apart (0: dense); NULL: not asked for */
    int64_t native_stride;
    bool unsorted;
    backend_tensor_t native_levels;    /* F32 [levels], ascending */
    int64_t horizon;                   /* 0: only `native` */
    const backend_tensor_t *asked;     /* F32 [quantiles], ascending; NULL: no quantiles */
    const backend_tensor_t *quantiles; /* F32 [rows][quantiles][total] */
    const backend_tensor_t *mean;      /* F32 [rows][total] */
    int64_t total, offset;             /* the forecast's whole horizon, and where these positions begin in it */
} backend_quantile_head_t;

int backend_quantile_head(backend_t *backend, const backend_quantile_head_t *op);

/* Beyond the horizon of one pass a quantile model goes on from its own quantiles: path p continues the context with level path_levels[p] of the
 * forecast so far; where the future of a variate is known, with that. Row (series, path, variate) of y gets the last `width` values of what is
 * observed and continued (0 and mask 0 before them, when they are fewer), then `ahead` values of the known future (0 and mask 0 where it is not
 * known). Without a forecast yet, length 0, there is one path, and no levels are read. */
typedef struct {
    backend_tensor_t x;    /* F32 [series][variates][context] */
    backend_tensor_t mask; /* U8 like x */
    int64_t series, variates, context;
    const backend_tensor_t *native; /* F32 [series][variates][levels][length], levels native_stride apart; NULL when length is 0 */
    int64_t levels, length, native_stride;
    const backend_tensor_t *path_levels; /* I32 [paths] */
    int64_t paths;
    const backend_tensor_t *future; /* F32 [series][exogenous][future_stride], NaN not known, of the last variates; NULL: none */
    int64_t exogenous, future_stride;
    int64_t width, ahead;    /* length + ahead <= future_stride */
    backend_tensor_t y;      /* F32 [series][paths][variates][width + ahead] */
    backend_tensor_t y_mask; /* U8 like y */
} backend_unroll_t;

int backend_unroll(backend_t *backend, const backend_unroll_t *op);

/* The quantiles of weighted values: of each series, variate and position over all paths and their levels. The values in ascending order and the
 * running sums of their weights (which sum to 1) are a distribution function; it is interpolated linearly at each level asked for, the least
 * value from 0 to its own weight, the largest beyond the last sum. */
typedef struct {
    backend_tensor_t x; /* F32 [series][paths][variates][levels][length] */
    int64_t series, paths, variates, levels, length;
    backend_tensor_t weights; /* F32 [paths][levels] */
    backend_tensor_t asked;   /* F32 [quantiles], ascending */
    backend_tensor_t y;       /* F32 [series][variates][quantiles][length], quantiles y_stride apart (0: dense) */
    int64_t y_stride;
} backend_weighted_quantiles_t;

int backend_weighted_quantiles(backend_t *backend, const backend_weighted_quantiles_t *op);

#endif
