/* Minima of small smooth functions, without derivatives. Pure functions, any thread. */
#ifndef BARCAST_TOOLS_BACKTEST_MINIMISE_H
#define BARCAST_TOOLS_BACKTEST_MINIMISE_H

enum { MINIMISE_DIMENSIONS_MOST = 3 };

/* Where f is least in [low, high], to `tolerance`, by golden section: one of its local minima. */
double minimise_section(double (*f)(const void *context, double x), const void *context, double low, double high, double tolerance);

/* Nelder and Mead's simplex (1965) from x, first steps of `step` along each axis; x gets the best point. Ends when the values in the simplex
 * differ by less than `tolerance`, or after `calls_most` evaluations. f may return INFINITY. */
void minimise_simplex(double (*f)(const void *context, const double *x), const void *context, int dimensions, double *x,
                      double step, double tolerance, int calls_most);

#endif
