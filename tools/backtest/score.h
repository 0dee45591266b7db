/* The score of one forecast against what came: the field's losses and what intervals and signs are judged by. Pure functions, any thread.
 *
 * With q(u, h) the forecast quantile at level u for step h and y(h) what came:
 *
 *     quantile loss  = 2/9 sum over the nine deciles of (y - q(u)) (u - [y < q(u)])      an approximation of the CRPS, in the field's units
 *     error          = y - q(0.5): the median is the point forecast
 *
 * Steps are judged in cells: a single step (1, 5, 24, the horizon) or all of them, then the mean over the steps. */
#ifndef BARCAST_TOOLS_BACKTEST_SCORE_H
#define BARCAST_TOOLS_BACKTEST_SCORE_H

#include <stddef.h>
#include <stdint.h>

#include "tools/backtest/levels.h"

enum { SCORE_CELLS_MOST = 5 };

/* Steps first .. last, counted from 1. */
typedef struct {
    uint32_t first, last;
} score_cell_t;

/* The cells of a horizon: 1, 5, 24 and the horizon itself, as far as they fit in it, and all steps last. Returns how many. */
uint32_t score_cells(uint32_t horizon, score_cell_t out[SCORE_CELLS_MOST]);

/* What came after an origin, and what its context says about size. */
typedef struct {
    double last; /* the newest value of the context */
    double
        level; /* what errors and widths are a percentage of: `last` for prices, the context's mean absolute value for other fields */
    double scale; /* the context's mean absolute one-bar change: MASE's denominator */
} score_origin_t;

typedef struct {
    float loss, absolute, squared; /* means over the cell's steps */
    int8_t side, came; /* signs of the move from the last value to the cell's last step: the median's, the value's; 0: none */
} score_t;

/* Sums over the origins of a series, one a step. */
typedef struct {
    double inside50, inside80; /* values that fell into the interval between the quartiles, the outer deciles; bounds included */
    double width50, width80;   /* of the intervals, in shares of the level */
} score_band_t;

/* A move of less than this share of the level is none: it is smaller than the rounding of a float. */
#define SCORE_STILL 1e-6

/* quantiles: [LEVELS][horizon]; future: [horizon]; out: one a cell; bands: [horizon], added to. */
void score_forecast(const score_origin_t *origin, const float *quantiles, const double *future, uint32_t horizon,
                    const score_cell_t *cells, uint32_t cell_count, score_t *out, score_band_t *bands);

/* The quantile loss above of one value against quantiles that lie `stride` apart. */
double score_quantile_loss(const float *quantiles, size_t stride, double value);

#endif
