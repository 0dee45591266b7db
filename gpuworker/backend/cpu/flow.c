/* flow_start and flow_finish: noise and the drift of its flow; what the flow has arrived at, as paths and as their median. */
#include <math.h>
#include <stdlib.h>

#include "gpuworker/backend/cpu/cpu.h"
#include "gpuworker/backend/philox.h"

/* Where row (series, variate, sample) stands among rows ordered (series, sample, variate). */
static int64_t path_of(int64_t row, int64_t samples, int64_t variates)
{
    int64_t sample = row % samples, variate = row / samples % variates, series = row / (samples * variates);
    return (series * samples + sample) * variates + variate;
}

static float draw(const backend_flow_start_t *op, int64_t row, int64_t c)
{
    uint64_t key = ((const uint64_t *)op->keys->data)[row / (op->samples * op->variates)];
    philox_t random = philox(key, (uint32_t)(op->first + c), (uint32_t)(row % op->samples),
                             (uint32_t)(row / op->samples % op->variates), PHILOX_STREAM_FLOW);
    float u = philox_uniform(random.word[0]), v = philox_uniform(random.word[1]);

    return sqrtf(-2.0f * logf(u)) * cosf(6.2831853f * v);
}

int cpu_flow_start(backend_t *backend, const backend_flow_start_t *op)
{
    const float *bias = op->bias->tensor.data;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        float *x = (float *)op->x.data + row * op->stride, *drift = (float *)op->drift.data + row * op->stride;
        int64_t from = path_of(row, op->samples, op->variates) * op->given_stride + op->first;

        for (int64_t c = 0; c < op->width; c++) {
            x[c] = op->given != NULL ? ((const float *)op->given->data)[from + c] : draw(op, row, c);
            drift[c] = (bias[c] - x[c]) / (float)op->steps;
        }
    }
    return BACKEND_OK;
}

/* Ascending, NaN last. */
static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return (x > y) - (x < y);
}

static void write_medians(const backend_flow_finish_t *op, int64_t group, float *sorted)
{
    float *median = (float *)op->median->data + group * op->width;

    for (int64_t c = 0; c < op->width; c++) {
        for (int64_t s = 0; s < op->samples; s++)
            sorted[s] = ((const float *)op->x.data)[(group * op->samples + s) * op->stride + c];
        qsort(sorted, (size_t)op->samples, sizeof *sorted, compare_floats);
        median[c] = sorted[(op->samples - 1) / 2];
    }
}

int cpu_flow_finish(backend_t *backend, const backend_flow_finish_t *op)
{
    int rc = cpu_scratch_check("flow_finish", op->samples);

    if (rc < 0)
        return rc;
    for (int64_t row = 0; row < op->rows; row++) {
        const float *x = (const float *)op->x.data + row * op->stride;
        float *path = (float *)op->paths.data + path_of(row, op->samples, op->variates) * op->path_stride;
        float loc = ((const float *)op->loc.data)[row / op->samples], scale = ((const float *)op->scale.data)[row / op->samples];

        for (int64_t c = 0; c < op->width; c++)
            path[c] = x[c] * scale + loc;
    }
    for (int64_t group = 0; op->median != NULL && group < op->rows / op->samples; group++)
        write_medians(op, group, cpu_scratch(backend));
    return BACKEND_OK;
}
