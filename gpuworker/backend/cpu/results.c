/* What stands between the paths and the results: override (exogenous variates take their known future) and summarize (mean and quantiles
 * over the samples). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpuworker/backend/cpu/cpu.h"

int cpu_override(backend_t *backend, const backend_override_t *op)
{
    int64_t begin = *(const int32_t *)op->step->data * op->patch, targets = op->variates - op->exogenous;

    (void)backend;
    for (int64_t set = 0; set < op->series * op->samples; set++)
        for (int64_t e = 0; e < op->exogenous; e++) {
            float *path = (float *)op->paths.data + (set * op->variates + targets + e) * op->path_stride + begin;
            const float *future =
                (const float *)op->future.data + (set / op->samples * op->exogenous + e) * op->future_stride + begin;

            memcpy(path, future, (size_t)op->patch * sizeof *path);
        }
    return BACKEND_OK;
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between the order statistics around level · (n - 1). */
static float quantile_of(const float *sorted, int64_t n, float level)
{
    double position = (double)level * (double)(n - 1);
    int64_t below = (int64_t)position;
    float fraction = (float)(position - (double)below);

    return below + 1 < n ? sorted[below] + fraction * (sorted[below + 1] - sorted[below]) : sorted[n - 1];
}

int cpu_summarize(backend_t *backend, const backend_summarize_t *op)
{
    int64_t levels = op->levels != NULL ? backend_tensor_elements(op->levels) : 0;
    float *sorted = cpu_scratch(backend);
    int rc = cpu_scratch_check("summarize", op->samples);

    if (rc < 0)
        return rc;
    for (int64_t row = 0; row < op->series * op->variates; row++)
        for (int64_t h = 0; h < op->horizon; h++) {
            int64_t first = row / op->variates * op->samples * op->variates + row % op->variates;
            double sum = 0;

            for (int64_t s = 0; s < op->samples; s++) {
                sorted[s] = ((const float *)op->paths.data)[(first + s * op->variates) * op->path_stride + h];
                sum += sorted[s];
            }
            ((float *)op->mean.data)[row * op->horizon + h] = (float)(sum / (double)op->samples);
            if (levels == 0)
                continue;
            qsort(sorted, (size_t)op->samples, sizeof *sorted, compare_floats);
            for (int64_t q = 0; q < levels; q++)
                ((float *)op->quantiles->data)[(row * levels + q) * op->horizon + h] =
                    quantile_of(sorted, op->samples, ((const float *)op->levels->data)[q]);
        }
    return BACKEND_OK;
}
