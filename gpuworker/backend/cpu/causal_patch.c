/* causal_patch: Welford's recurrence along each row, in F64, then what the network reads of each patch. */
#include <math.h>

#include "gpuworker/backend/cpu/cpu.h"

/* BACKEND_SCALER_STATE doubles by name. */
typedef struct {
    double count, sum, m2, fallback_loc, fallback_scale;
} running_t;

static void observe(running_t *running, double x)
{
    double before = running->sum / fmax(running->count, 1);

    running->count += 1;
    running->sum += x;
    running->m2 += (x - before) * (x - running->sum / running->count);
}

static double loc_of(const running_t *running)
{
    return running->sum / fmax(running->count, 1);
}

static double scale_of(const running_t *running, double minimum)
{
    return fmax(sqrt(running->m2 / fmax(running->count - 1, 1)), minimum);
}

/* Where the values of one row come from: the first `own` from x, the others from the future, if there is one. */
typedef struct {
    const float *x;
    const uint8_t *mask; /* NULL: all of x is observed */
    int64_t own;
    int64_t forced; /* from here on all of x counts as observed */
    const float *future;
    int64_t future_from, future_length;
} source_t;

static source_t source_of(const backend_causal_patch_t *op, int64_t row)
{
    int64_t values = op->patches * op->patch, variate = row % op->variates - (op->variates - op->exogenous);
    source_t source = {.x = (const float *)op->x.data + row * op->x_stride, .own = values, .forced = values};

    if (op->mask != NULL)
        source.mask = (const uint8_t *)op->mask->data + row * values;
    if (variate < 0) {
        source.forced = values - op->patch;
        return source;
    }
    source.future = (const float *)op->future->data + (row / op->variates * op->exogenous + variate) * op->future_length;
    source.future_length = op->future_length;
    if (op->mask == NULL) {
        source.own = 0;
        source.future_from = *(const int32_t *)op->step->data * values;
    }
    return source;
}

/* Value i of the row; false when it is not observed. */
static bool value_at(const source_t *source, int64_t i, float *value)
{
    if (i < source->own) {
        int64_t from = i;

        if (source->mask != NULL && i >= source->forced)
            while (from >= 0 && !source->mask[from])
                from--;
        *value = from >= 0 ? source->x[from] : 0;
        return source->mask == NULL || i >= source->forced || source->mask[i];
    }
    i += source->future_from - source->own;
    if (source->future == NULL || i >= source->future_length || isnan(source->future[i]))
        return false;
    *value = source->future[i];
    return true;
}

/* The statistics of a row's first `minimum_observed` values. */
static void set_fallback(const backend_causal_patch_t *op, const source_t *source, running_t *running)
{
    int64_t values = source->own + source->future_length;
    running_t first = {0};
    float value;

    for (int64_t i = 0; i < values && first.count < (double)op->minimum_observed; i++)
        if (value_at(source, i, &value))
            observe(&first, (double)value);
    running->fallback_loc = loc_of(&first);
    running->fallback_scale = scale_of(&first, op->minimum);
}

static void set_cap(const backend_causal_patch_t *op, const source_t *source, int64_t row, float scale)
{
    float low = INFINITY, high = -INFINITY, value;

    for (int64_t i = 0; i < source->own; i++)
        if (value_at(source, i, &value)) {
            low = fminf(low, value);
            high = fmaxf(high, value);
        }
    ((float *)op->low->data)[row] = (low <= high ? low : 0) - op->cap * scale;
    ((float *)op->high->data)[row] = (low <= high ? high : 0) + op->cap * scale;
}

/* Token t of a row, scaled. */
static bool write_features(const backend_causal_patch_t *op, const source_t *source, int64_t t, float loc, float scale, float *y)
{
    bool fed_back = op->mask == NULL && t < op->patches, any = false;
    float value;

    for (int64_t i = 0; i < op->patch; i++) {
        bool observed = value_at(source, t * op->patch + i, &value);

        y[i] = observed ? asinhf((value - loc) / scale) : 0;
        y[op->patch + i] = observed || fed_back ? 0 : 1;
        any |= observed;
    }
    return any;
}

static void patch_row(const backend_causal_patch_t *op, int64_t row)
{
    source_t source = source_of(op, row);
    running_t *state = (running_t *)op->state.data + row, running = {0};
    int64_t patches = op->patches + op->ahead;

    if (op->mask == NULL)
        running = *state;
    else
        set_fallback(op, &source, &running);
    for (int64_t t = 0; t < patches; t++) {
        float loc, scale, value;

        for (int64_t i = t * op->patch; i < (t + 1) * op->patch; i++)
            if (value_at(&source, i, &value))
                observe(&running, (double)value);
        loc = (float)loc_of(&running);
        scale = (float)scale_of(&running, op->minimum);
        ((float *)op->loc.data)[row * patches + t] = loc;
        ((float *)op->scale.data)[row * patches + t] = scale;
        if (running.count < (double)op->minimum_observed) {
            loc = (float)running.fallback_loc;
            scale = (float)running.fallback_scale;
        }
        if (t == op->patches - 1) {
            *state = running;
            if (op->low != NULL)
                set_cap(op, &source, row, scale);
        }
        if (t < op->tokens) {
            int64_t token = row * op->tokens + t;
            bool any = write_features(op, &source, t, loc, scale, (float *)op->y.data + token * op->y_stride);

            if (op->visible != NULL)
                ((uint8_t *)op->visible->data)[token] = any || t >= op->patches;
            if (op->lasting != NULL)
                ((uint8_t *)op->lasting->data)[token] = any && t < op->patches;
        }
    }
}

int cpu_causal_patch(backend_t *backend, const backend_causal_patch_t *op)
{
    (void)backend;
    for (int64_t row = 0; row < op->rows; row++)
        patch_row(op, row);
    return BACKEND_OK;
}

_Static_assert(sizeof(running_t) == BACKEND_SCALER_STATE * sizeof(double), "the state's layout");
