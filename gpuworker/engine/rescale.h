/* Small series made larger for a model and its forecasts smaller again: the scaler of Toto 1 adds 0.1 to the variance of what it sees, in which the
 * moves of a price well below 1 drown. Factors are powers of two, so that nothing is rounded either way: the forecast of a series is that of the
 * same series in other units. One that is large enough already is left alone. */
#ifndef BARCAST_GPUWORKER_ENGINE_RESCALE_H
#define BARCAST_GPUWORKER_ENGINE_RESCALE_H

#include "gpuworker/model/model.h"

/* Multiplies the values and known futures of every variate of the first `count` series whose last observed value is below 16 in size, and not 0,
 * by the power of two that brings it to 64 .. 128. exponents [batch · variates] gets the powers. False: all are 0. */
bool rescale_inputs(const model_shape_t *shape, const model_input_t *input, uint32_t count, int8_t *exponents);

/* The inputs as they were, and the results in their units. */
void rescale_back(const model_shape_t *shape, const model_input_t *input, const model_output_t *output, uint32_t count,
                  const int8_t *exponents);

#endif
