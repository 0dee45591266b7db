/* GARCH(1,1): the variance of the next return is s2(t+1) = omega + alpha r(t)^2 + beta s2(t) (Bollerslev 1986).
 *
 * Fitted by Gaussian quasi-maximum likelihood with variance targeting (Engle and Mezrich 1996): omega = (1 - alpha - beta) times the sample's mean
 * square, so that two parameters are searched. Returns have mean zero, as in every baseline here. Pure functions, any thread. */
#ifndef BARCAST_TOOLS_BACKTEST_GARCH_H
#define BARCAST_TOOLS_BACKTEST_GARCH_H

#include <stddef.h>

typedef struct {
    double omega, alpha, beta;
    double variance; /* the sample's mean square, which the process returns to */
    double next;     /* of the first return after the sample */
    double df;       /* of Student's t, unit variance, fitted to the standardised returns in a second step: 4.1 to 200 */
} garch_t;

/* Fits `count` returns, oldest first; about 0.2 ms for 500. The search starts from the best of twelve usual processes,
 * never from an earlier fit: so a fit is a function of its sample alone. Returns that are all zero give zeros and df 200. */
void garch_fit(const double *returns, size_t count, garch_t *out);

/* Variance of the sum of the `steps` next returns: the sum of their expected variances. */
double garch_sum_variance(const garch_t *garch, size_t steps);

#endif
