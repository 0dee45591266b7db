/* The forecasts that a model has to beat. Each looks at the context alone and yields the same quantile levels as the models.
 *
 * Prices are forecast in logarithms, other fields as they are. With z the (log) values, n of them, r their changes and h the step:
 *
 *     naive      z(n), variance h mean(r^2)                           a random walk with trailing volatility
 *     drift      z(n) + h mean(r), variance s2 h (1 + h/(n - 1))      s2: variance of r (Hyndman and Athanasopoulos, FPP3, 5.5)
 *     seasonal   z(n + h - m k), variance k mean((z(t) - z(t-m))^2)   k = ceil(h/m); with less than two seasons of context: naive
 *     ewma       z(n), variance h s2, s2 = 0.94 s2 + 0.06 r^2         RiskMetrics (1996); starts from mean(r^2)
 *     garch      z(n), GARCH(1,1)'s expected variance of h steps      Gaussian; refitted at every origin, on its context (garch.h)
 *     garch-t    the same variance, Student's t                       see below
 *     theta, ets                                                      see smoothing.h
 *
 * All but garch-t have normal quantiles. garch-t fits the degrees of freedom of one step; the sum of h steps gets those whose excess kurtosis
 * is a h-th of it, 4 + h (df - 4). Pure functions, any thread. */
#ifndef BARCAST_TOOLS_BACKTEST_BASELINES_H
#define BARCAST_TOOLS_BACKTEST_BASELINES_H

#include <stdbool.h>
#include <stddef.h>

#include "tools/backtest/levels.h"

typedef enum {
    BASELINE_NAIVE,
    BASELINE_DRIFT,
    BASELINE_SEASONAL,
    BASELINE_EWMA,
    BASELINE_GARCH,
    BASELINE_GARCH_T,
    BASELINE_THETA,
    BASELINE_ETS,
    BASELINES
} baseline_t;

enum { BASELINES_CONTEXT_LEAST = 16 };

const char *baseline_name(baseline_t baseline);

typedef struct {
    const double *values; /* the context, oldest first; all finite, above zero where `price` */
    size_t count;         /* at least BASELINES_CONTEXT_LEAST */
    bool price;
    size_t season, horizon;
} baselines_input_t;

/* Numbers that baselines_forecast needs as working memory. */
size_t baselines_work(size_t count, size_t horizon);

/* All of them at once. out: [BASELINES][LEVELS][horizon]. */
void baselines_forecast(const baselines_input_t *input, double *work, float *out);

#endif
