/* What the scores of a backtest come to: figures of a symbol, of a group of symbols, tests and a simulated trade. Pure functions of a backtest that
 * is scored; any thread.
 *
 * A group's figure is the mean over its symbols of theirs, each symbol weighing the same. So no average mixes price levels: losses are divided by
 * the values' size or by naive's loss on the same symbol, errors and widths are percentages of the level at the origin. */
#ifndef BARCAST_TOOLS_BACKTEST_SUMMARY_H
#define BARCAST_TOOLS_BACKTEST_SUMMARY_H

#include "tools/backtest/backtest.h"
#include "tools/backtest/dm.h"

/* NaN where there is nothing to divide by. */
typedef struct {
    double wql;                /* weighted quantile loss: sum of the quantile losses / sum of |y| */
    double ratio;              /* wql / naive's */
    double mae, rmse;          /* of the median, in the field's units; NaN for a group */
    double mae_percent;        /* |y - median| / level, percent */
    double rmse_percent;       /* root of the mean of the squares of the same */
    double mase;               /* mean of |y - median| / the context's mean absolute one-bar change */
    double inside50, inside80; /* coverage of the two intervals, shares */
    double width50, width80;   /* their widths, percent of the level */
    double direction;          /* share of right signs among those that decided; NaN for a cell of several steps */
    double undecided;          /* share of medians that do not move; of values that moved */
} summary_t;

summary_t summary_series(const backtest_t *backtest, size_t series, uint32_t forecaster, uint32_t cell);
summary_t summary_group(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t cell);

/* Coverage of a group at one step (from 1), shares. */
typedef struct {
    double inside50, inside80;
} summary_coverage_t;

summary_coverage_t summary_coverage(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t step);

/* Diebold-Mariano of quantile losses, forecaster `a` minus `b`: a negative statistic says that a is better. Differences are divided by naive's mean
 * loss on their symbol. Of a group: differences of symbols with the same origin time are averaged first, for symbols move together, and the test sees
 * one series in time. The lag covers every pair of origins whose cells share future bars: ceil(h / stride) - 1. `scratch` has room for two doubles an
 * origin of the backtest. */
dm_t summary_dm_series(const backtest_t *backtest, size_t series, uint32_t a, uint32_t b, uint32_t cell, double *scratch);
dm_t summary_dm_group(const backtest_t *backtest, const backtest_group_t *group, uint32_t a, uint32_t b, uint32_t cell,
                      double *scratch);

/* A simulation, not a strategy: at each origin buy when the median of the cell's last step lies above the last value, sell short when below, close at that
 * step; each side costs plan.cost_bp. Fills at the last close, sizes, borrowing and impact are left out. Prices and single steps only. */
typedef struct {
    size_t trades, origins;
    double gross_bp, net_bp; /* mean return a trade; NaN without one */
    double error_bp;         /* standard error of the mean, overlap and common moves included */
    double right;            /* share of trades with a gain before costs */
} summary_trade_t;

summary_trade_t summary_trade(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t cell,
                              double *scratch);
/* The same for buying every time. */
summary_trade_t summary_always_long(const backtest_t *backtest, const backtest_group_t *group, uint32_t cell, double *scratch);

/* One forecaster's loss over time: a group's origins in `count` slices of equal duration, loss / naive's in each, both in units of the context's mean
 * change; NaN for a slice without origins. */
void summary_over_time(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t cell, size_t count,
                       double *ratios);

/* First and last origin's time. */
void summary_time_range(const backtest_t *backtest, const backtest_group_t *group, int64_t *first_ns, int64_t *last_ns);

#endif
