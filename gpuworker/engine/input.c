#include "gpuworker/engine/input.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"

enum { ARRAYS = 8 };

typedef struct {
    void *data;   /* NULL: these inputs have none */
    size_t bytes; /* of one series */
} array_t;

static void list(const model_shape_t *shape, const model_input_t *input, array_t arrays[ARRAYS])
{
    size_t variates = shape->variates, values = variates * shape->context;

    arrays[0] = (array_t){input->values, values * sizeof *input->values};
    arrays[1] = (array_t){input->mask, values * sizeof *input->mask};
    arrays[2] = (array_t){input->length, sizeof *input->length};
    arrays[3] = (array_t){input->group, variates * sizeof *input->group};
    arrays[4] = (array_t){input->key, sizeof *input->key};
    arrays[5] = (array_t){input->log_price, variates * sizeof *input->log_price};
    arrays[6] = (array_t){input->time_ns, ((size_t)shape->context + shape->horizon) * sizeof *input->time_ns};
    arrays[7] = (array_t){input->future, (size_t)shape->exogenous * shape->horizon * sizeof *input->future};
}

int input_open(const model_shape_t *shape, bool calendar, model_input_t *out)
{
    size_t batch = shape->batch, variates = shape->variates, bars = (size_t)shape->context + shape->horizon,
           future = (size_t)shape->exogenous * shape->horizon;

    *out = (model_input_t){.values = calloc(batch, variates * shape->context * sizeof *out->values),
                           .mask = calloc(batch, variates * shape->context * sizeof *out->mask),
                           .length = calloc(batch, sizeof *out->length),
                           .group = calloc(batch, variates * sizeof *out->group),
                           .key = calloc(batch, sizeof *out->key),
                           .log_price = calloc(batch, variates * sizeof *out->log_price),
                           .time_ns = calendar ? calloc(batch, bars * sizeof *out->time_ns) : NULL,
                           .future = future > 0 ? calloc(batch, future * sizeof *out->future) : NULL};
    if (out->values == NULL || out->mask == NULL || out->length == NULL || out->group == NULL || out->key == NULL ||
        out->log_price == NULL || (calendar && out->time_ns == NULL) || (future > 0 && out->future == NULL))
        return error_set(SESSION_ERR_MEMORY, "out of memory for the inputs of %u series", shape->batch);
    return SESSION_OK;
}

void input_close(model_input_t *input)
{
    array_t arrays[ARRAYS];

    list(&(model_shape_t){0}, input, arrays);
    for (int i = 0; i < ARRAYS; i++)
        free(arrays[i].data);
}

void input_copy(const model_shape_t *shape, const model_input_t *to, const model_input_t *from, uint32_t count)
{
    array_t targets[ARRAYS], sources[ARRAYS];

    list(shape, to, targets);
    list(shape, from, sources);
    for (int i = 0; i < ARRAYS; i++)
        if (targets[i].data != NULL && sources[i].data != NULL)
            memcpy(targets[i].data, sources[i].data, count * targets[i].bytes);
}

void input_pad(const model_shape_t *shape, const model_input_t *input, uint32_t count)
{
    array_t arrays[ARRAYS];

    list(shape, input, arrays);
    for (int i = 0; i < ARRAYS; i++)
        for (size_t series = count; series < shape->batch; series++)
            memcpy((char *)arrays[i].data + series * arrays[i].bytes, arrays[i].data, arrays[i].bytes);
}
