/* Checkpoints that nobody trained: tensors of seeded random numbers, the same bits on every machine. Each number is a function of the seed,
 * the tensor's name and the element's index only, made with integer arithmetic and one exact product (uniform, so that no machine's logarithm
 * takes part). All tensors are held in memory until they are written. */
#ifndef BARCAST_GPUWORKER_MODEL_RANDOM_WEIGHTS_H
#define BARCAST_GPUWORKER_MODEL_RANDOM_WEIGHTS_H

#include "gpuworker/weights/checkpoint.h"

typedef struct random_weights random_weights_t;

/* CHECKPOINT_ERR_MEMORY when there is none. */
int random_weights_new(uint64_t seed, random_weights_t **out);
void random_weights_free(random_weights_t *weights); /* allows NULL */

/* Adds a matrix [rows][columns], a vector [rows] when columns is 0, or one number when rows is 0 too, of numbers uniform in centre ± spread. A failure is kept: this and
 * every later call does nothing, and random_weights_write returns it. */
void random_weights_add(random_weights_t *weights, float centre, float spread, int64_t rows, int64_t columns,
                        const char *name_format, ...) __attribute__((format(printf, 6, 7)));

/* The same of a matrix whose outputs have `deviation` when its inputs have 1. */
void random_weights_add_matrix(random_weights_t *weights, float deviation, int64_t rows, int64_t columns, const char *name_format,
                               ...) __attribute__((format(printf, 5, 6)));

/* For what must not be random: zeroes rows, sets one element (column 0 of a vector). A name or index that does not exist is a failure. */
void random_weights_clear_rows(random_weights_t *weights, int64_t from, int64_t to, const char *name_format, ...)
    __attribute__((format(printf, 4, 5)));
void random_weights_set(random_weights_t *weights, int64_t row, int64_t column, float value, const char *name_format, ...)
    __attribute__((format(printf, 5, 6)));

/* The bound of uniform numbers with standard deviation 1 / sqrt(fan_in): what keeps a layer's outputs as large as its inputs. */
float random_weights_spread(int64_t fan_in);

/* checkpoint_write of all tensors, in the order they were added. */
int random_weights_write(random_weights_t *weights, const char *dir, const char *config_json, checkpoint_dtype_t dtype);

#endif
