/* Sundial's cases: context [B,T], noise_roundK [N·B,C] (row = sample · B + series), results samples [B,N,H] and their mean [B,H]. What the official
 * flow has of its rows, sample by sample, is put in our order, series by series, before it is compared. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/verify/verify_impl.h"

enum { NAME_BYTES = 64, STEPS_RECORDED = 4 };

static const verify_exception_t exceptions[] = {
    {"round0.net_t_step0", "a step's time: seen in its embedding"},
    {"round0.net_t_all", "the steps' times: seen in their embeddings"},
    {NULL, NULL},
};

static int sundial_shape(const verify_case_t *run, model_shape_t *out)
{
    const checkpoint_tensor_t *context = checkpoint_find(run->inputs, "context"),
                              *samples = checkpoint_find(run->expected, "samples");

    if (context == NULL || context->rank != 2 || samples == NULL || samples->rank != 3)
        return error_set(-1, "a case needs an input context of rank 2 and expected samples of rank 3");
    *out = (model_shape_t){.batch = (uint32_t)context->dim[0],
                           .variates = 1,
                           .context = (uint32_t)context->dim[1],
                           .horizon = (uint32_t)samples->dim[2],
                           .samples = (uint32_t)samples->dim[1],
                           .given_noise = true};
    return 0;
}

/* Of the flow's n steps the goldens hold the first two, the middle one and the last. */
static int entry_of_step(const verify_case_t *run, int step)
{
    const checkpoint_tensor_t *times = checkpoint_find(run->expected, "round0.net_t_all");
    int steps = times != NULL ? (int)times->elements : 0, recorded[STEPS_RECORDED] = {0, 1, steps / 2, steps - 1};

    for (int i = 0; i < STEPS_RECORDED; i++)
        if (recorded[i] == step)
            return i;
    return -1;
}

/* [..][sample][series][width] -> [..][series][sample][width] */
static int reorder(const verify_case_t *run, verify_tensor_t *tensor)
{
    int64_t batch = run->shape.batch, samples = run->shape.samples, width = tensor->tensor->dim[tensor->tensor->rank - 1];
    float *from = tensor->values, *to = malloc((size_t)tensor->tensor->elements * sizeof *to);

    if (to == NULL)
        return error_set(-1, "%s: out of memory", tensor->tensor->name);
    for (int64_t row = 0; row < tensor->tensor->elements / width; row++) {
        int64_t block = row / (batch * samples), series = row / samples % batch, sample = row % samples;

        memcpy(to + row * width, from + ((block * samples + sample) * batch + series) * width, (size_t)width * sizeof *to);
    }
    tensor->values = to;
    free(from);
    return 0;
}

static int sundial_expect(verify_case_t *run)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < run->count; i++)
        if (strstr(run->tensors[i].tensor->name, ".net_") != NULL && run->tensors[i].tensor->rank >= 2)
            rc = reorder(run, &run->tensors[i]);
    run->entry_of_step = entry_of_step;
    return rc;
}

static int fill_noise(const verify_case_t *run, model_input_t *input)
{
    int64_t batch = run->shape.batch, samples = run->shape.samples, rounds = 0, dim[2];
    char name[NAME_BYTES];

    for (snprintf(name, sizeof name, "noise_round0"); checkpoint_find(run->inputs, name) != NULL;)
        snprintf(name, sizeof name, "noise_round%d", (int)++rounds);
    if (rounds == 0)
        return error_set(-1, "inputs.safetensors: no tensor noise_round0");
    for (int64_t round = 0; round < rounds; round++) {
        float *noise;

        snprintf(name, sizeof name, "noise_round%d", (int)round);
        if ((noise = verify_input(run, name, 2, dim)) == NULL)
            return -1;
        for (int64_t row = 0; row < dim[0] && dim[0] == batch * samples; row++) {
            int64_t sample = row / batch, series = row % batch;

            memcpy(input->noise + ((series * samples + sample) * rounds + round) * dim[1], noise + row * dim[1],
                   (size_t)dim[1] * sizeof *noise);
        }
        free(noise);
    }
    return 0;
}

static int sundial_fill(const verify_case_t *run, const session_t *session, model_input_t *input)
{
    int64_t dim[2], context = session_shape(session)->context, before;
    float *series = verify_input(run, "context", 2, dim);

    if (series == NULL)
        return -1;
    before = context - dim[1];
    for (int64_t i = 0; i < dim[0]; i++) {
        memset(input->values + i * context, 0, (size_t)context * sizeof *input->values);
        memset(input->mask + i * context, 0, (size_t)context);
        memcpy(input->values + i * context + before, series + i * dim[1], (size_t)dim[1] * sizeof *series);
        memset(input->mask + i * context + before, 1, (size_t)dim[1]);
        input->length[i] = (uint32_t)dim[1];
        input->key[i] = (uint64_t)i;
        input->group[i] = 0;
        input->log_price[i] = 0;
    }
    free(series);
    return fill_noise(run, input);
}

/* Standard deviation of each series, once for each of its samples; 1 for a constant one. */
static double *scales_of(const verify_case_t *run)
{
    int64_t dim[2], samples = run->shape.samples;
    float *series = verify_input(run, "context", 2, dim);
    double *scale = malloc(run->shape.batch * run->shape.samples * sizeof *scale);

    for (int64_t i = 0; series != NULL && scale != NULL && i < dim[0] * samples; i++) {
        double sum = 0, squares = 0, deviation, n = (double)dim[1];

        for (int64_t t = i / samples * dim[1]; t < (i / samples + 1) * dim[1]; t++) {
            sum += (double)series[t];
            squares += (double)series[t] * (double)series[t];
        }
        deviation = sqrt(fmax(squares / n - sum / n * (sum / n), 0));
        scale[i] = deviation > 0 ? deviation : 1;
    }
    free(series);
    return scale;
}

static int sundial_results(verify_case_t *run, const session_t *session)
{
    const model_output_t *output = session_output(session);
    uint32_t samples = run->shape.samples;
    double *scale = scales_of(run);

    if (scale == NULL)
        return error_set(-1, "out of memory");
    verify_forecast(run, "samples", output->samples, scale, samples, run->shape.horizon);
    for (uint32_t i = 0; i < run->shape.batch; i++)
        scale[i] = scale[i * samples];
    verify_forecast(run, "mean", output->mean, scale, 1, run->shape.horizon);
    free(scale);
    return 0;
}

const verify_family_t verify_sundial = {
    .model = "sundial",
    .shape = sundial_shape,
    .expect = sundial_expect,
    .fill = sundial_fill,
    .results = sundial_results,
    .exceptions = exceptions,
};
