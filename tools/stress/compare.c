#include <math.h>
#include <string.h>

#include "tools/stress/stress.h"

stress_difference_t stress_compare(const float *a, const float *b, size_t count)
{
    stress_difference_t difference = {0};

    for (size_t i = 0; i < count; i++) {
        double apart = fabs((double)a[i] - (double)b[i]);

        if (memcmp(&a[i], &b[i], sizeof *a) == 0)
            continue;
        difference.differing++;
        difference.most = isnan(apart) ? INFINITY : fmax(difference.most, apart);
    }
    return difference;
}

double stress_mae(const float *forecast, const float *truth, size_t count, double scale)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += fabs((double)forecast[i] - (double)truth[i]);
    return sum / (double)count / scale;
}

double stress_scale(const float *values, size_t count)
{
    double mean = 0, squares = 0;

    for (size_t i = 0; i < count; i++)
        mean += (double)values[i] / (double)count;
    for (size_t i = 0; i < count; i++)
        squares += pow((double)values[i] - mean, 2);
    return squares > 0 ? sqrt(squares / (double)count) : 1;
}
