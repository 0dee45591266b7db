/* instance_scale and patch: a row is scaled by its own mean and deviation, then cut into the features that an embedding reads. */
#include <math.h>
#include <string.h>

#include "gpuworker/backend/cpu/cpu.h"

static bool is_observed(const uint8_t *mask, int64_t i)
{
    return mask == NULL || mask[i];
}

/* Mean and deviation of what is observed among `count` values; two passes, in F64. */
static void measure(const backend_instance_scale_t *op, const float *x, const uint8_t *mask, int64_t count, float *loc,
                    float *scale)
{
    double n = 0, sum = 0, squares = 0, mean;

    for (int64_t i = 0; i < count; i++)
        if (is_observed(mask, i)) {
            n += 1;
            sum += x[i];
        }
    mean = n > 0 ? sum / n : 0;
    for (int64_t i = 0; i < count; i++)
        if (is_observed(mask, i))
            squares += (x[i] - mean) * (x[i] - mean);
    *loc = (float)mean;
    *scale = n > 0 ? (float)sqrt(squares / n) : 1.0f;
    if (op->add)
        *scale += op->eps;
    else if (*scale == 0)
        *scale = op->eps;
}

int cpu_instance_scale(backend_t *backend, const backend_instance_scale_t *op)
{
    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        const float *x = (const float *)op->x.data + row * op->width;
        const uint8_t *mask = op->mask != NULL ? (const uint8_t *)op->mask->data + row * op->width : NULL;
        float *y = (float *)op->y.data + row * op->width;
        float *loc = (float *)op->loc.data + row, *scale = (float *)op->scale.data + row;

        measure(op, x, mask, op->width - op->ahead, loc, scale);
        for (int64_t i = 0; i < op->width; i++) {
            float value = (x[i] - *loc) / *scale;

            if (op->clip > 0)
                value = fminf(fmaxf(value, -op->clip), op->clip);
            if (op->asinh)
                value = asinhf(value);
            y[i] = is_observed(mask, i) ? value : 0;
        }
    }
    return BACKEND_OK;
}

/* One patch into [time | values | mask]; returns whether anything of it was observed. */
static bool fill_patch(const backend_patch_t *op, const float *x, const uint8_t *mask, const float *time, float *y)
{
    bool any = false;

    if (time != NULL) {
        memcpy(y, time, (size_t)op->patch * sizeof *y);
        y += op->patch;
    }
    for (int64_t i = 0; i < op->patch; i++) {
        bool observed = mask != NULL && mask[i];

        y[i] = observed ? x[i] : 0;
        y[op->patch + i] = observed != op->missing;
        any |= observed;
    }
    return any;
}

int cpu_patch(backend_t *backend, const backend_patch_t *op)
{
    int64_t values = op->patches * op->patch, x_stride = op->x_stride > 0 ? op->x_stride : values;
    int64_t patch_stride = op->patch_stride > 0 ? op->patch_stride : (op->time != NULL ? 3 : 2) * op->patch;
    int64_t y_stride = op->y_stride > 0 ? op->y_stride : op->patches * patch_stride;
    int64_t visible_stride = op->visible_stride > 0 ? op->visible_stride : op->patches;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++)
        for (int64_t p = 0; p < op->patches; p++) {
            int64_t at = row * x_stride + p * op->patch;
            const float *x = op->mask != NULL ? (const float *)op->x.data + at : NULL;
            const uint8_t *mask = op->mask != NULL ? (const uint8_t *)op->mask->data + at : NULL;
            const float *time = op->time != NULL ? (const float *)op->time->data + p * op->patch : NULL;
            bool any = fill_patch(op, x, mask, time, (float *)op->y.data + row * y_stride + p * patch_stride);

            if (op->visible != NULL)
                ((uint8_t *)op->visible->data)[row * visible_stride + p] = any;
        }
    return BACKEND_OK;
}
