/* The few distribution functions that quantile forecasts and tests need. Pure functions, any thread. */
#ifndef BARCAST_TOOLS_BACKTEST_DISTRIBUTION_H
#define BARCAST_TOOLS_BACKTEST_DISTRIBUTION_H

/* P(T <= x) of Student's t with df > 0 degrees of freedom (not necessarily whole), to 1e-10. */
double distribution_t_cdf(double x, double df);

/* The quantile of Student's t with df >= 4 whose normal counterpart is z, |z| <= 1.3, to 2e-4: the expansion in 1/df of Abramowitz and
 * Stegun, 26.7.5. For the inner quantiles that it is used for, it is as good as an inversion and hundreds of times faster. */
double distribution_t_quantile_near(double z, double df);

#endif
