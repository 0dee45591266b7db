/* student_t: the mixture's mean, or draws from it (backend.h says which number is used for what).
 *
 * Bailey's polar form: for uniform u, v in (0, 1), sqrt(df (u^(-2/df) - 1)) cos(2πv) has Student's t distribution with df degrees of freedom. */
#include <math.h>

#include "gpuworker/backend/cpu/cpu.h"
#include "gpuworker/backend/philox.h"
#include "gpuworker/backend/student_t.h"

/* The four rows of one value's head: raw df, loc, scale, logits. */
typedef struct {
    const float *df, *loc, *scale, *logits;
    int64_t components;
    float most, sum; /* of the softmax: weight of k is exp(logits[k] - most) / sum */
} mixture_t;

static mixture_t mixture_of(const float *head, int64_t components)
{
    mixture_t mixture = {head, head + components, head + 2 * components, head + 3 * components, components, -INFINITY, 0};

    for (int64_t k = 0; k < components; k++)
        mixture.most = fmaxf(mixture.most, mixture.logits[k]);
    for (int64_t k = 0; k < components; k++)
        mixture.sum += expf(mixture.logits[k] - mixture.most);
    return mixture;
}

static float weight_of(const mixture_t *mixture, int64_t k)
{
    return expf(mixture->logits[k] - mixture->most) / mixture->sum;
}

static float mean_of(const mixture_t *mixture)
{
    float mean = 0;

    for (int64_t k = 0; k < mixture->components; k++)
        mean += weight_of(mixture, k) * mixture->loc[k];
    return mean;
}

static float draw_from(const mixture_t *mixture, philox_t random)
{
    float pick = philox_uniform(random.word[0]), u = philox_uniform(random.word[1]), v = philox_uniform(random.word[2]);
    float running = 0, df, t;
    int64_t k = -1;

    do
        running += weight_of(mixture, ++k);
    while (k + 1 < mixture->components && pick >= running);
    df = 2.0f + student_t_positive(mixture->df[k]);
    t = sqrtf(df * expm1f(-2.0f * logf(u) / df)) * cosf(6.2831853f * v);
    return mixture->loc[k] + student_t_positive(mixture->scale[k]) * t;
}

static void store_params(const backend_student_t_t *op)
{
    int64_t values = op->rows * op->patch, k = op->components;
    const float *head = op->head.data;
    float *params = op->params->data;

    for (int64_t value = 0; value < values; value++)
        for (int64_t i = 0; i < k; i++) {
            const float *raw = head + value * 4 * k + i;
            float *to = params + value * k + i;

            to[0] = 2.0f + student_t_positive(raw[0]);
            to[values * k] = raw[k];
            to[2 * values * k] = student_t_positive(raw[2 * k]);
            to[3 * values * k] = raw[3 * k];
        }
}

int cpu_student_t(backend_t *backend, const backend_student_t_t *op)
{
    int64_t step = *(const int32_t *)op->step->data, paths = op->draws > 0 ? op->draws : 1;

    (void)backend;
    for (int64_t row = 0; row < op->rows; row++) {
        int64_t set = row / op->variates, variate = row % op->variates;
        float loc = ((const float *)op->out_loc.data)[row * op->out_stride + op->out_offset];
        float scale = ((const float *)op->out_scale.data)[row * op->out_stride + op->out_offset];
        uint64_t key = op->draws > 0 ? ((const uint64_t *)op->keys->data)[set / op->samples] : 0;

        for (int64_t p = 0; p < op->patch; p++) {
            mixture_t mixture =
                mixture_of((const float *)op->head.data + (row * op->patch + p) * 4 * op->components, op->components);
            int64_t index = step * op->patch + p;

            for (int64_t path = 0; path < paths; path++) {
                int64_t path_row = (set * paths + path) * op->variates + variate;
                uint32_t sample = (uint32_t)(set % op->samples * paths + path);
                float value =
                    op->draws == 0
                        ? mean_of(&mixture)
                        : draw_from(&mixture, philox(key, (uint32_t)index, sample, (uint32_t)variate, PHILOX_STREAM_STUDENT_T));

                ((float *)op->paths.data)[path_row * op->path_stride + index] = student_t_unscale(value, loc, scale);
            }
        }
    }
    if (op->params != NULL)
        store_params(op);
    return BACKEND_OK;
}
