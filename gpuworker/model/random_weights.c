#include "gpuworker/model/random_weights.h"

#include "base/error.h"
#include "base/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *name;
    int64_t rows, columns; /* columns 0: a vector; rows 0 too: one number */
    float *data;
} random_tensor_t;

struct random_weights {
    uint64_t seed;
    random_tensor_t *tensors;
    size_t count;
    int rc; /* of the first failure */
};

int random_weights_new(uint64_t seed, random_weights_t **out)
{
    random_weights_t *weights = calloc(1, sizeof *weights);
    if (!weights)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for a checkpoint");
    weights->seed = seed;
    *out = weights;
    return CHECKPOINT_OK;
}

void random_weights_free(random_weights_t *weights)
{
    if (!weights)
        return;
    for (size_t i = 0; i < weights->count; i++) {
        free(weights->tensors[i].name);
        free(weights->tensors[i].data);
    }
    free(weights->tensors);
    free(weights);
}

static int64_t row_elements(const random_tensor_t *tensor)
{
    return tensor->columns ? tensor->columns : 1;
}

/* Element `index` of the SplitMix64 sequence that starts at `key`. */
static uint64_t random_bits(uint64_t key, uint64_t index)
{
    uint64_t x = key + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void fill(uint64_t key, float centre, float spread, int64_t count, float *out)
{
    float step = spread * 0x1p-23f;
    for (int64_t i = 0; i < count; i++) {
        int32_t whole = (int32_t)(random_bits(key, (uint64_t)i) >> 40) - (1 << 23); /* 24 bits: exact as a float */
        float offset = (float)whole * step;
        out[i] = centre + offset; /* a statement of its own: a fused multiply-add would round differently */
    }
}

/* Takes the name. */
static void add_tensor(random_weights_t *weights, float centre, float spread, int64_t rows, int64_t columns, char *name)
{
    random_tensor_t tensor = {.name = name, .rows = rows, .columns = columns};
    size_t elements = rows > 0 ? (size_t)(rows * row_elements(&tensor)) : 1;
    random_tensor_t *grown = weights->rc < 0 ? NULL : realloc(weights->tensors, (weights->count + 1) * sizeof *grown);

    if (grown)
        weights->tensors = grown;
    tensor.data = malloc(elements * sizeof *tensor.data);
    if (!name || !tensor.data || !grown) {
        if (weights->rc == CHECKPOINT_OK)
            weights->rc = error_set(CHECKPOINT_ERR_MEMORY, "no memory for a tensor of %zu elements", elements);
        free(name);
        free(tensor.data);
        return;
    }
    uint64_t key[2] = {weights->seed, text_hash64(name, strlen(name))};
    fill(text_hash64(key, sizeof key), centre, spread, (int64_t)elements, tensor.data);
    weights->tensors[weights->count++] = tensor;
}

/* NULL when there is no memory. */
__attribute__((format(printf, 1, 0))) static char *format_name(const char *format, va_list arguments)
{
    char *name;

    return vasprintf(&name, format, arguments) < 0 ? NULL : name;
}

void random_weights_add(random_weights_t *weights, float centre, float spread, int64_t rows, int64_t columns,
                        const char *name_format, ...)
{
    va_list arguments;

    va_start(arguments, name_format);
    add_tensor(weights, centre, spread, rows, columns, format_name(name_format, arguments));
    va_end(arguments);
}

void random_weights_add_matrix(random_weights_t *weights, float deviation, int64_t rows, int64_t columns, const char *name_format,
                               ...)
{
    va_list arguments;

    va_start(arguments, name_format);
    add_tensor(weights, 0, deviation * random_weights_spread(columns), rows, columns, format_name(name_format, arguments));
    va_end(arguments);
}

/* The tensor that holds [row][column]; NULL, and a failure kept, when there is none. Takes the name. */
static random_tensor_t *find_tensor(random_weights_t *weights, char *name, int64_t row, int64_t column)
{
    random_tensor_t *found = NULL;

    for (size_t i = 0; weights->rc == CHECKPOINT_OK && name && !found && i < weights->count; i++) {
        random_tensor_t *tensor = &weights->tensors[i];
        if (strcmp(tensor->name, name) == 0 && row < tensor->rows && column < row_elements(tensor))
            found = tensor;
    }
    if (weights->rc == CHECKPOINT_OK && !name)
        weights->rc = error_set(CHECKPOINT_ERR_MEMORY, "no memory for a tensor's name");
    else if (weights->rc == CHECKPOINT_OK && !found)
        weights->rc = error_set(CHECKPOINT_ERR_TENSOR, "tensor \"%s\": expected one with an element [%lld][%lld]", name,
                                (long long)row, (long long)column);
    free(name);
    return found;
}

void random_weights_clear_rows(random_weights_t *weights, int64_t from, int64_t to, const char *name_format, ...)
{
    va_list arguments;

    va_start(arguments, name_format);
    random_tensor_t *tensor = find_tensor(weights, format_name(name_format, arguments), to - 1, 0);
    va_end(arguments);
    if (tensor)
        memset(tensor->data + from * row_elements(tensor), 0, (size_t)((to - from) * row_elements(tensor)) * sizeof *tensor->data);
}

void random_weights_set(random_weights_t *weights, int64_t row, int64_t column, float value, const char *name_format, ...)
{
    va_list arguments;

    va_start(arguments, name_format);
    random_tensor_t *tensor = find_tensor(weights, format_name(name_format, arguments), row, column);
    va_end(arguments);
    if (tensor)
        tensor->data[row * row_elements(tensor) + column] = value;
}

float random_weights_spread(int64_t fan_in)
{
    return sqrtf(3.0f / (float)fan_in);
}

int random_weights_write(random_weights_t *weights, const char *dir, const char *config_json, checkpoint_dtype_t dtype)
{
    if (weights->rc < 0)
        return weights->rc;
    checkpoint_source_t *sources = calloc(weights->count + 1, sizeof *sources);
    if (!sources)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for %zu tensors", weights->count);
    for (size_t i = 0; i < weights->count; i++) {
        const random_tensor_t *tensor = &weights->tensors[i];
        int rank = (tensor->rows > 0) + (tensor->columns > 0);
        sources[i] = (checkpoint_source_t){tensor->name, rank, {tensor->rows, tensor->columns}, tensor->data};
    }
    int rc = checkpoint_write(dir, config_json, sources, weights->count, dtype);
    free(sources);
    return rc;
}
