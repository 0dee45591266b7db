#include "gpuworker/engine/rescale.h"

#include <math.h>

static const float SMALL = 16;
enum { RAISED_EXPONENT = 7, EXPONENT_MOST = 100 }; /* 64 .. 128 is 0.5 .. 1 times 2^7 */

static void multiply(float *values, size_t count, int exponent)
{
    float factor = ldexpf(1, exponent);

    for (size_t i = 0; i < count; i++)
        values[i] *= factor;
}

static int exponent_of(const float *values, const uint8_t *mask, uint32_t context)
{
    uint32_t last = context;
    int exponent;

    while (last > 0 && !mask[last - 1])
        last--;
    if (last == 0 || values[last - 1] == 0 || !(fabsf(values[last - 1]) < SMALL))
        return 0;
    frexpf(values[last - 1], &exponent);
    exponent = RAISED_EXPONENT - exponent;
    return exponent < EXPONENT_MOST ? exponent : EXPONENT_MOST;
}

static void multiply_inputs(const model_shape_t *shape, const model_input_t *input, size_t row, int exponent)
{
    size_t series = row / shape->variates, variate = row % shape->variates, first = shape->variates - shape->exogenous;

    multiply(input->values + row * shape->context, shape->context, exponent);
    if (variate >= first)
        multiply(input->future + (series * shape->exogenous + variate - first) * shape->horizon, shape->horizon, exponent);
}

bool rescale_inputs(const model_shape_t *shape, const model_input_t *input, uint32_t count, int8_t *exponents)
{
    bool any = false;

    for (size_t row = 0; row < (size_t)count * shape->variates; row++) {
        exponents[row] =
            (int8_t)exponent_of(input->values + row * shape->context, input->mask + row * shape->context, shape->context);
        if (exponents[row] == 0)
            continue;
        multiply_inputs(shape, input, row, exponents[row]);
        any = true;
    }
    return any;
}

/* Results are the session's memory, which only its readers take as constant. */
static float *writable(const float *results)
{
    return (float *)(uintptr_t)results;
}

void rescale_back(const model_shape_t *shape, const model_input_t *input, const model_output_t *output, uint32_t count,
                  const int8_t *exponents)
{
    size_t quantiles = (size_t)shape->quantile_count * shape->horizon;

    for (size_t row = 0; row < (size_t)count * shape->variates; row++) {
        size_t series = row / shape->variates, variate = row % shape->variates;

        if (exponents[row] == 0)
            continue;
        multiply_inputs(shape, input, row, -exponents[row]);
        if (output->mean != NULL)
            multiply(writable(output->mean) + row * shape->horizon, shape->horizon, -exponents[row]);
        if (output->quantiles != NULL)
            multiply(writable(output->quantiles) + row * quantiles, quantiles, -exponents[row]);
        for (size_t sample = 0; output->samples != NULL && sample < shape->samples; sample++)
            multiply(writable(output->samples) +
                         ((series * shape->samples + sample) * shape->variates + variate) * output->sample_stride,
                     shape->horizon, -exponents[row]);
    }
}
