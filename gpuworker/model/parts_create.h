/* What the families' makers of random checkpoints share: the table of sizes, the end. */
#ifndef BARCAST_GPUWORKER_MODEL_PARTS_CREATE_H
#define BARCAST_GPUWORKER_MODEL_PARTS_CREATE_H

#include <stddef.h>

#include "gpuworker/model/families.h"
#include "gpuworker/model/random_weights.h"

/* The row called `name` of a table whose rows begin with a const char *name; else NULL, and an error that lists the names. */
#define CREATE_SIZE(family, sizes, name) create_size((family), (sizes), sizeof(sizes) / sizeof *(sizes), sizeof *(sizes), (name))
const void *create_size(const char *family, const void *sizes, size_t count, size_t row_bytes, const char *name);

/* Writes the checkpoint DIR in F32 and frees the weights. A model's code. */
int create_write(random_weights_t *weights, const char *dir, const char *config_json);

#endif
