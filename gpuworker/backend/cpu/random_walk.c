/* random_walk: the naive forecast. With sigma the root mean square of the changes between neighbouring observed bars, the value h bars ahead is
 * normal around the last one with deviation sigma · sqrt(h): in log space for prices, so that quantile = last · exp(z · sigma · sqrt(h)). */
#include <float.h>
#include <math.h>

#include "gpuworker/backend/cpu/cpu.h"

/* The last observed value and the volatility of one row; a price that is not positive counts as unobserved. */
static void measure(const float *x, const uint8_t *mask, int64_t count, bool log_space, double *last, double *sigma)
{
    double squares = 0, previous = 0;
    int64_t changes = 0;
    bool connected = false;

    *last = 0;
    for (int64_t i = 0; i < count; i++) {
        bool observed = mask[i] && (!log_space || x[i] > 0);
        double value = observed && log_space ? log(x[i]) : x[i];

        if (observed && connected) {
            squares += (value - previous) * (value - previous);
            changes++;
        }
        if (observed) {
            *last = x[i];
            previous = value;
        }
        connected = observed;
    }
    *sigma = changes > 0 ? sqrt(squares / (double)changes) : 0;
}

int cpu_random_walk(backend_t *backend, const backend_random_walk_t *op)
{
    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        bool log_space = ((const uint8_t *)op->log->data)[row] != 0;
        float *mean = (float *)op->mean.data + row * op->horizon;
        double last, sigma;

        measure((const float *)op->x.data + row * op->context, (const uint8_t *)op->mask.data + row * op->context, op->context,
                log_space, &last, &sigma);
        for (int64_t h = 0; h < op->horizon; h++) {
            double deviation = sigma * sqrt((double)(h + 1));

            mean[h] = (float)last;
            for (int64_t q = 0; q < op->levels; q++) {
                double move = (double)((const float *)op->z->data)[q] * deviation;
                double value = log_space ? last * exp(move) : last + move;

                ((float *)op->quantiles.data)[(row * op->levels + q) * op->horizon + h] =
                    (float)fmin(fmax(value, -(double)FLT_MAX), (double)FLT_MAX);
            }
        }
    }
    return BACKEND_OK;
}
