/* Lists of session shapes, as options of the commands that measure them: --batch 1,64 --context 512 --horizon 64,336 --samples 256 are four. */
#ifndef BARCAST_TOOLS_SHAPES_H
#define BARCAST_TOOLS_SHAPES_H

#include "gpuworker/model/model.h"

enum { SHAPES_LIST_MOST = 16 };

typedef struct {
    const char *batch, *context, *horizon, *samples; /* "1,64", each number from 1 (samples: 0) to 2^20 */
} shapes_text_t;

typedef struct {
    struct {
        uint32_t count, value[SHAPES_LIST_MOST];
    } batch, context, horizon, samples;
} shapes_t;

/* 0, or negative with error_text() naming the option. */
int shapes_parse(const shapes_text_t *text, shapes_t *out);
uint32_t shapes_count(const shapes_t *shapes);
/* Combination `index`, samples varying fastest, with the nine deciles; the rest of *shape stays. */
void shapes_at(const shapes_t *shapes, uint32_t index, model_shape_t *shape);

#endif
