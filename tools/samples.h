/* --samples of the one-shot commands: how many paths a forecast draws. */
#ifndef BARCAST_TOOLS_SAMPLES_H
#define BARCAST_TOOLS_SAMPLES_H

#include "gpuworker/model/model.h"

#define SAMPLES_HELP "paths to draw; 0: none; auto: 0 where the model has quantiles for that horizon without any, else 256"

typedef struct {
    bool automatic;
    uint32_t count;
} samples_t;

/* "auto" or a number. Negative: error_text(). */
int samples_parse(const char *text, samples_t *out);

/* For a session of that model and horizon. */
uint32_t samples_for(samples_t samples, const model_t *model, uint32_t horizon);

#endif
