/* causal_scale and causal_scale_extend: every patch is scaled by the mean and deviation of all that was observed up to its end.
 *
 * Welford's recurrence in F64: with x the n-th observed value, mean_n = sum_n / n and M2 += (x - mean_(n-1)) (x - mean_n). A patch's
 * loc is the mean after it, its scale sqrt(M2 / max(n - 1, 1) + minimum), held between two bounds that come from the deviation of the whole
 * context (population variance + minimum) and stay the same for the generated patches. */
#include <math.h>
#include <string.h>

#include "gpuworker/backend/cpu/cpu.h"

/* BACKEND_SCALER_STATE doubles by name. */
typedef struct {
    double count, sum, m2, least, most;
} running_t;

static double mean_of(const running_t *running)
{
    return running->sum / fmax(running->count, 1);
}

static void observe(running_t *running, double x)
{
    double before = mean_of(running);

    running->count += 1;
    running->sum += x;
    running->m2 += (x - before) * (x - mean_of(running));
}

/* Scales one patch with the statistics reached at its end. */
static void scale_patch(const running_t *running, double minimum, const float *x, int64_t patch, float *y, float *loc, float *scale)
{
    double deviation = sqrt(running->m2 / fmax(running->count - 1, 1) + minimum);

    *loc = (float)mean_of(running);
    *scale = (float)fmin(fmax(deviation, running->least), running->most);
    for (int64_t i = 0; i < patch; i++)
        y[i] = (x[i] - *loc) / *scale;
}

/* The bounds from the deviation of all observed values. */
static void set_bounds(running_t *running, const float *x, const uint8_t *mask, int64_t count, double minimum, double exponent)
{
    double n = 0, sum = 0, squares = 0, mean, global;

    running->least = 0;
    running->most = INFINITY;
    if (exponent <= 0)
        return;
    for (int64_t i = 0; i < count; i++)
        if (mask[i]) {
            n += 1;
            sum += x[i];
        }
    mean = sum / fmax(n, 1);
    for (int64_t i = 0; i < count; i++)
        if (mask[i])
            squares += (x[i] - mean) * (x[i] - mean);
    global = sqrt(squares / fmax(n, 1) + minimum);
    running->least = fmax(minimum, global * pow(10, -exponent));
    running->most = global * pow(10, exponent);
}

int cpu_causal_scale(backend_t *backend, const backend_causal_scale_t *op)
{
    int64_t values = op->patches * op->patch;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        const float *x = (const float *)op->x.data + row * values;
        const uint8_t *mask = (const uint8_t *)op->mask.data + row * values;
        float *y = (float *)op->y.data + row * values;
        running_t running = {0};

        set_bounds(&running, x, mask, values, op->minimum, op->exponent);
        for (int64_t p = 0; p < op->patches; p++) {
            int64_t begin = p * op->patch;

            for (int64_t i = begin; i < begin + op->patch; i++)
                if (mask[i])
                    observe(&running, x[i]);
            scale_patch(&running, op->minimum, x + begin, op->patch, y + begin, (float *)op->loc.data + row * op->patches + p,
                        (float *)op->scale.data + row * op->patches + p);
        }
        memcpy((running_t *)op->state.data + row, &running, sizeof running);
    }
    return BACKEND_OK;
}

int cpu_causal_scale_extend(backend_t *backend, const backend_causal_scale_extend_t *op)
{
    int64_t step = *(const int32_t *)op->step->data;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        int64_t prefix_row = row / (op->samples * op->variates) * op->variates + row % op->variates;
        const float *x = (const float *)op->x.data + row * op->x_stride + step * op->patch;
        running_t *state = (running_t *)op->state.data + row;
        running_t running = step == 0 ? ((const running_t *)op->state_in.data)[prefix_row] : *state;

        for (int64_t i = 0; i < op->patch; i++)
            observe(&running, x[i]);
        scale_patch(&running, op->minimum, x, op->patch, (float *)op->y.data + row * op->patch, (float *)op->loc.data + row,
                    (float *)op->scale.data + row);
        *state = running;
    }
    return BACKEND_OK;
}

_Static_assert(sizeof(running_t) == BACKEND_SCALER_STATE * sizeof(double), "the state's layout");
