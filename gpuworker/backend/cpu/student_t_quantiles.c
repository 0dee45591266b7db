/* student_t_quantiles: the mixture's distribution function inverted, level by level (student_t.h has the formulas). */
#include "gpuworker/backend/cpu/cpu.h"
#include "gpuworker/backend/student_t.h"

typedef struct {
    student_t_component_t *component; /* those of some weight */
    int64_t count;
    double mean, spread;
} mixture_t;

static mixture_t mixture_of(const float *head, int64_t components, student_t_component_t *room)
{
    const float *df = head, *loc = head + components, *scale = loc + components, *logits = scale + components;
    mixture_t mixture = {.component = room};
    double most = -INFINITY, sum = 0, squares = 0;

    for (int64_t k = 0; k < components; k++)
        most = fmax(most, (double)logits[k]);
    for (int64_t k = 0; k < components; k++)
        sum += exp((double)logits[k] - most);
    for (int64_t k = 0; k < components; k++) {
        double weight = exp((double)logits[k] - most) / sum;

        mixture.mean += weight * (double)loc[k];
        if (weight != 0)
            room[mixture.count++] = student_t_component(df[k], loc[k], scale[k], weight);
    }
    for (int64_t k = 0; k < mixture.count; k++) {
        double off = room[k].loc - mixture.mean;
        squares += room[k].weight * (room[k].scale * room[k].scale + off * off);
    }
    mixture.spread = sqrt(squares);
    return mixture;
}

static double quantile_of(const mixture_t *mixture, double level)
{
    student_t_search_t search = {.low = INFINITY, .high = -INFINITY};
    double outermost = student_t_outermost(level);
    student_t_sides_t sides;
    int steps = 0;

    for (int64_t k = 0; k < mixture->count; k++)
        student_t_widen(&search, &mixture->component[k], outermost);
    student_t_begin(&search, level, mixture->mean, mixture->spread);
    do {
        sides = (student_t_sides_t){0};
        for (int64_t k = 0; k < mixture->count; k++)
            student_t_add(&mixture->component[k], search.x, &sides);
    } while (!student_t_arrived(&search, &sides) && ++steps < STUDENT_T_STEPS_MOST);
    return search.x;
}

int cpu_student_t_quantiles(backend_t *backend, const backend_student_t_quantiles_t *op)
{
    int64_t levels = backend_tensor_elements(&op->levels), targets = op->variates - op->exogenous;
    student_t_component_t *room = (void *)cpu_scratch(backend);
    int rc = cpu_scratch_check("student_t_quantiles", op->components * (int64_t)(sizeof *room / sizeof(float)));

    if (rc < 0)
        return rc;
    for (int64_t row = 0; row < op->rows; row++) {
        int64_t known = row / op->variates * op->exogenous + row % op->variates - targets;
        float loc = ((const float *)op->out_loc.data)[row * op->out_stride + op->out_offset];
        float scale = ((const float *)op->out_scale.data)[row * op->out_stride + op->out_offset];

        for (int64_t p = 0; p < op->horizon; p++) {
            float *to = (float *)op->quantiles.data + row * levels * op->horizon + p;
            mixture_t mixture;

            if (row % op->variates >= targets) {
                for (int64_t q = 0; q < levels; q++)
                    to[q * op->horizon] = ((const float *)op->future->data)[known * op->future_stride + p];
                continue;
            }
            mixture = mixture_of((const float *)op->head.data + (row * op->patch + p) * 4 * op->components, op->components, room);
            for (int64_t q = 0; q < levels; q++) {
                double level = (double)((const float *)op->levels.data)[q];
                float value = student_t_unscale((float)quantile_of(&mixture, level), loc, scale);

                to[q * op->horizon] = q > 0 ? fmaxf(value, to[(q - 1) * op->horizon]) : value;
            }
        }
    }
    return BACKEND_OK;
}
