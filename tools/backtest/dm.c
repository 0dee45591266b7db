#include "tools/backtest/dm.h"

#include <math.h>

#include "tools/backtest/distribution.h"

static double autocovariance(const double *d, size_t count, double mean, size_t lag)
{
    double sum = 0;

    for (size_t t = lag; t < count; t++)
        sum += (d[t] - mean) * (d[t - lag] - mean);
    return sum / (double)count;
}

dm_t dm_test(const double *differences, size_t count, size_t lag)
{
    dm_t test = {.count = count, .mean = NAN, .error = NAN, .statistic = NAN, .p = NAN};
    double n = (double)count, h = (double)lag + 1, sum = 0, variance, factor;

    for (size_t t = 0; t < count; t++)
        sum += differences[t];
    if (count > 0)
        test.mean = sum / n;
    if (count < 3 || lag >= count)
        return test;
    variance = autocovariance(differences, count, test.mean, 0);
    for (size_t j = 1; j <= lag; j++)
        variance += 2 * (1 - (double)j / h) * autocovariance(differences, count, test.mean, j);
    if (!(variance > 1e-30 * test.mean * test.mean))
        return test;
    test.error = sqrt(variance / n);
    factor = (n + 1 - 2 * h + h * (h - 1) / n) / n;
    if (factor <= 0)
        return test;
    test.statistic = test.mean / test.error * sqrt(factor);
    test.p = 2 * distribution_t_cdf(-fabs(test.statistic), n - 1);
    return test;
}
