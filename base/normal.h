/* The standard normal distribution. */
#ifndef BARCAST_BASE_NORMAL_H
#define BARCAST_BASE_NORMAL_H

/* Inverse of the distribution function, 0 < p < 1, to the last digits; by bisection: some microseconds. Pure. */
double normal_quantile(double p);

#endif
