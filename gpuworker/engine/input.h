/* What is done to all arrays of a session's staged inputs alike: a place to gather them in beside the session's own, copies, padding.
 *
 * A series has the same bytes in every session of a model, whatever the session's batch: inputs gathered for one fit another. */
#ifndef BARCAST_GPUWORKER_ENGINE_INPUT_H
#define BARCAST_GPUWORKER_ENGINE_INPUT_H

#include "gpuworker/model/model.h"

/* Arrays in plain memory for shape->batch series, zeroed; without the times where `calendar` is false, and without noise. SESSION_OK or
 * SESSION_ERR_MEMORY; input_close frees them then too. */
int input_open(const model_shape_t *shape, bool calendar, model_input_t *out);
void input_close(model_input_t *input);

/* Series 0 .. count-1 of every array that both have. */
void input_copy(const model_shape_t *shape, const model_input_t *to, const model_input_t *from, uint32_t count);

/* Repeats series 0 in the places count .. shape->batch-1. */
void input_pad(const model_shape_t *shape, const model_input_t *input, uint32_t count);

#endif
