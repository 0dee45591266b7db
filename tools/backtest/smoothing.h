/* Exponential smoothing: the Theta method and damped Holt, as mean and standard deviation of every step. Pure functions, any thread. */
#ifndef BARCAST_TOOLS_BACKTEST_SMOOTHING_H
#define BARCAST_TOOLS_BACKTEST_SMOOTHING_H

#include <stddef.h>

/* The standard Theta method (Assimakopoulos and Nikolopoulos 2000) in the closed form of Hyndman and Billah (2003): simple exponential smoothing
 * whose parameter minimises the squared one-step errors, plus a drift of half the slope b of the least-squares line:
 *
 *     mean(h) = level + b/2 (h - 1 + 1/a - (1 - a)^n / a),     variance(h) = s2 (1 + (h - 1) a^2)
 *
 * `count` values, at least 3, oldest first; mean and deviation get `horizon` numbers. */
void smoothing_theta(const double *values, size_t count, size_t horizon, double *mean, double *deviation);

/* ETS(A,Ad,N), Holt's linear method with a damped trend (Hyndman, Koehler, Ord and Snyder 2008, table 6.1), in its error-correction form:
 *
 *     e = y - level - phi trend,  level' = level + phi trend + a e,  trend' = phi trend + b e,   0 < b < a < 1,  0.8 < phi < 0.98
 *
 * a, b and phi minimise the squared errors; level and trend start at the first value and the mean of the first ten changes. */
void smoothing_holt(const double *values, size_t count, size_t horizon, double *mean, double *deviation);

#endif
