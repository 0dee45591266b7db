/* What models need that give quantiles themselves: quantile_head (un-scaling, order, the levels asked for), and beyond one pass's horizon unroll
 * (contexts that go on along quantiles) and weighted_quantiles (the results of those paths in one distribution). */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpuworker/backend/cpu/cpu.h"

/* ---- quantile_head ------------------------------------------------------------------------------------------------------------- */

static float head_value(const backend_quantile_head_t *op, int64_t row, int64_t level, int64_t t)
{
    int64_t patch = t / op->patch, loc_at = row * op->loc_stride + patch * op->loc_patch_stride;
    float value =
        ((const float *)op->head
             .data)[row * op->row_stride + patch * op->patch_stride + level * op->level_stride + t % op->patch * op->value_stride];

    if (op->sinh)
        value = sinhf(value);
    return value * ((const float *)op->scale.data)[loc_at] + ((const float *)op->loc.data)[loc_at];
}

/* What stands for a value that is not finite: the patch's extreme of that row and level. */
static float finite_value(const backend_quantile_head_t *op, int64_t row, int64_t level, int64_t t, float value)
{
    int64_t begin = t / op->patch * op->patch;
    float extreme = 0;
    bool found = false;

    if (isnan(value))
        return 0;
    for (int64_t i = begin; i < begin + op->patch; i++) {
        float other = head_value(op, row, level, i);

        if (isfinite(other) && (!found || (value > 0 ? other > extreme : other < extreme))) {
            extreme = other;
            found = true;
        }
    }
    return extreme;
}

static void sort_ascending(float *values, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        float value = values[i];
        int64_t j = i;

        for (; j > 0 && values[j - 1] > value; j--)
            values[j] = values[j - 1];
        values[j] = value;
    }
}

/* Between native levels linearly, outside them the outermost. */
static float value_at_level(const float *levels, const float *values, int64_t count, float level)
{
    int64_t upper = 0;

    while (upper < count && levels[upper] <= level)
        upper++;
    if (upper == 0 || upper == count)
        return values[upper == 0 ? 0 : count - 1];
    return values[upper - 1] +
           (level - levels[upper - 1]) / (levels[upper] - levels[upper - 1]) * (values[upper] - values[upper - 1]);
}

static void write_native(const backend_quantile_head_t *op, int64_t row, int64_t t, const float *values)
{
    int64_t stride = op->native_stride > 0 ? op->native_stride : op->length;

    for (int64_t level = 0; level < op->levels; level++)
        ((float *)op->native->data)[(row * op->levels + level) * stride + t] = values[level];
}

static void write_forecast(const backend_quantile_head_t *op, int64_t row, int64_t t, const float *values)
{
    const float *levels = op->native_levels.data;
    int64_t asked = op->asked != NULL ? backend_tensor_elements(op->asked) : 0;

    for (int64_t q = 0; q < asked; q++)
        ((float *)op->quantiles->data)[(row * asked + q) * op->total + op->offset + t] =
            value_at_level(levels, values, op->levels, ((const float *)op->asked->data)[q]);
    ((float *)op->mean->data)[row * op->total + op->offset + t] = value_at_level(levels, values, op->levels, 0.5f);
}

int cpu_quantile_head(backend_t *backend, const backend_quantile_head_t *op)
{
    (void)backend;
    for (int64_t row = 0; row < op->rows; row++)
        for (int64_t t = 0; t < op->length; t++) {
            float values[BACKEND_LEVELS_MOST];

            for (int64_t level = 0; level < op->levels; level++) {
                values[level] = head_value(op, row, level, t);
                if (!isfinite(values[level]))
                    values[level] = finite_value(op, row, level, t, values[level]);
                if (op->low != NULL)
                    values[level] =
                        fminf(fmaxf(values[level], ((const float *)op->low->data)[row]), ((const float *)op->high->data)[row]);
            }
            if (op->native != NULL && op->unsorted)
                write_native(op, row, t, values);
            sort_ascending(values, op->levels);
            if (op->native != NULL && !op->unsorted)
                write_native(op, row, t, values);
            if (t < op->horizon)
                write_forecast(op, row, t, values);
        }
    return BACKEND_OK;
}

/* ---- unroll -------------------------------------------------------------------------------------------------------------------- */

/* The known future of a variate, NULL when it has none. */
static const float *future_of(const backend_unroll_t *op, int64_t series, int64_t variate)
{
    int64_t exogenous = variate - (op->variates - op->exogenous);

    return exogenous < 0 ? NULL : (const float *)op->future->data + (series * op->exogenous + exogenous) * op->future_stride;
}

int cpu_unroll(backend_t *backend, const backend_unroll_t *op)
{
    int64_t width = op->width + op->ahead, dropped = op->context + op->length - op->width;

    (void)backend;
    for (int64_t row = 0; row < op->series * op->paths * op->variates; row++) {
        int64_t series = row / (op->paths * op->variates), path = row / op->variates % op->paths, variate = row % op->variates;
        int64_t source = series * op->variates + variate;
        const float *x = (const float *)op->x.data + source * op->context, *future = future_of(op, series, variate), *native = NULL;
        const uint8_t *mask = (const uint8_t *)op->mask.data + source * op->context;
        float *y = (float *)op->y.data + row * width;
        uint8_t *y_mask = (uint8_t *)op->y_mask.data + row * width;

        if (op->length > 0)
            native = (const float *)op->native->data +
                     (source * op->levels + ((const int32_t *)op->path_levels->data)[path]) * op->native_stride;
        for (int64_t i = 0; i < width; i++) {
            int64_t t = i + dropped, later = t - op->context; /* later: since the end of what was given; t < 0: before it */
            bool known = later >= 0 && future != NULL && !isnan(future[later]);

            y_mask[i] = later < 0 ? t >= 0 && mask[t] : known || later < op->length;
            y[i] = later < 0 ? (t >= 0 ? x[t] : 0) : known ? future[later] : later < op->length ? native[later] : 0;
        }
    }
    return BACKEND_OK;
}

/* ---- weighted_quantiles -------------------------------------------------------------------------------------------------------- */

typedef struct {
    float value, weight;
} weighted_t;

static int compare_values(const void *a, const void *b)
{
    float x = ((const weighted_t *)a)->value, y = ((const weighted_t *)b)->value;
    return (x > y) - (x < y);
}

/* values ascending, weights already summed up */
static float weighted_quantile(const weighted_t *sums, int64_t count, float level)
{
    int64_t upper = 0;

    while (upper < count && sums[upper].weight <= level)
        upper++;
    if (upper == 0 || upper == count)
        return sums[upper == 0 ? 0 : count - 1].value;
    return sums[upper - 1].value + (level - sums[upper - 1].weight) / (sums[upper].weight - sums[upper - 1].weight) *
                                       (sums[upper].value - sums[upper - 1].value);
}

/* The values of one position, sorted, with the running sums of their weights. */
static void gather(const backend_weighted_quantiles_t *op, int64_t series, int64_t variate, int64_t t, weighted_t *sums)
{
    int64_t count = op->paths * op->levels;
    double sum = 0;

    for (int64_t i = 0; i < count; i++) {
        int64_t row = (series * op->paths + i / op->levels) * op->variates + variate;

        sums[i].value = ((const float *)op->x.data)[(row * op->levels + i % op->levels) * op->length + t];
        sums[i].weight = ((const float *)op->weights.data)[i];
    }
    qsort(sums, (size_t)count, sizeof *sums, compare_values);
    for (int64_t i = 0; i < count; i++) {
        sum += sums[i].weight;
        sums[i].weight = (float)sum;
    }
}

int cpu_weighted_quantiles(backend_t *backend, const backend_weighted_quantiles_t *op)
{
    int64_t count = op->paths * op->levels, asked = backend_tensor_elements(&op->asked);
    int64_t y_stride = op->y_stride > 0 ? op->y_stride : op->length;
    weighted_t sums[BACKEND_WEIGHTED_MOST];

    (void)backend;
    for (int64_t row = 0; row < op->series * op->variates; row++)
        for (int64_t t = 0; t < op->length; t++) {
            gather(op, row / op->variates, row % op->variates, t, sums);
            for (int64_t q = 0; q < asked; q++)
                ((float *)op->y.data)[(row * asked + q) * y_stride + t] =
                    weighted_quantile(sums, count, ((const float *)op->asked.data)[q]);
        }
    return BACKEND_OK;
}
