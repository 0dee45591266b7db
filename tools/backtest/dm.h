/* The Diebold-Mariano test: is the mean of a series of loss differences other than zero? Pure functions, any thread. */
#ifndef BARCAST_TOOLS_BACKTEST_DM_H
#define BARCAST_TOOLS_BACKTEST_DM_H

#include <stddef.h>

typedef struct {
    size_t count;
    double mean;
    double error;     /* standard error of the mean, autocorrelation included */
    double statistic; /* with the small-sample factor; NaN, like p, where the test cannot be made */
    double p;         /* two-sided, Student's t with count - 1 degrees of freedom */
} dm_t;

/* Tests `count` differences d in time order (Diebold and Mariano 1995). Their long-run variance is Newey and West's (1987), which cannot become
 * negative:
 *
 *     V = g(0) + 2 sum over j = 1 .. lag of (1 - j/(lag + 1)) g(j),   g(j) = 1/n sum of (d(t) - mean)(d(t - j) - mean)
 *
 * lag: by how many places two forecasts may lie apart and still share future bars; h - 1 for h steps ahead from every bar. The statistic
 * mean / sqrt(V/n) is multiplied by sqrt((n + 1 - 2h + h(h - 1)/n) / n), h = lag + 1 (Harvey, Leybourne and Newbold 1997).
 * Not possible with fewer than three differences, with lag >= n or when all are equal. */
dm_t dm_test(const double *differences, size_t count, size_t lag);

#endif
