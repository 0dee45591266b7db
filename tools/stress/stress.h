/* The stress test: all sessions open as in production, rounds of fresh inputs, every result held against another way to get it.
 *
 * Each session under test has three companions: a twin, the same shape but always eager, whose results must be the same bit for bit; a probe, a
 * few series decoded to their mean on the same device; and the probe's reference, one series at a time in fp32 on the CPU. On a GPU the last
 * two compare devices, on a CPU batches. */
#ifndef BARCAST_TOOLS_STRESS_STRESS_H
#define BARCAST_TOOLS_STRESS_STRESS_H

#include <stdio.h>

#include "config/config.h"
#include "gpuworker/model/model.h"

/* ---- plan.c: what is opened ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name, *path; /* borrowed */
    backend_dtype_t precision;
    const config_model_t *config; /* borrowed; NULL: a model by itself */
} stress_model_t;

typedef struct {
    uint32_t model_count;
    stress_model_t models[CONFIG_MODELS_MOST];
} stress_plan_t;

/* The models that a worker with this configuration loads; `automatic` is the precision of those whose precision is auto. */
void stress_plan_config(const config_t *config, backend_dtype_t automatic, stress_plan_t *out);
void stress_plan_model(const char *path, backend_dtype_t precision, stress_plan_t *out);

enum { STRESS_SHAPES_MOST = CONFIG_BUCKETS_MOST };

/* The sessions of a model, by what it is: those that a worker opens, or, of a model by itself, a few shapes: alone and in batches, one and several
 * patches ahead, paths and the mean, two variates. Their number, or a VARIATES_ERR_* (gpuworker/variates.h). */
int stress_plan_shapes(const stress_model_t *model, const model_info_t *info, model_shape_t out[STRESS_SHAPES_MOST]);

/* ---- compare.c: pure ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    size_t differing; /* values whose bytes are not the same */
    double most;      /* the largest absolute difference; infinity when one of them is not a number */
} stress_difference_t;

stress_difference_t stress_compare(const float *a, const float *b, size_t count);
/* Mean absolute error, in units of `scale`. */
double stress_mae(const float *forecast, const float *truth, size_t count, double scale);
/* Standard deviation; 1 for constant values. */
double stress_scale(const float *values, size_t count);

/* ---- stress.c ------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    backend_t *backend;
    uint32_t threads; /* of the CPU reference */
    const stress_plan_t *plan;
    bool graphs;
    uint32_t rounds;
    uint64_t seed;
    FILE *to;
} stress_options_t;

/* Prints a line a round, a table of the sessions, and last "PASS" or "FAIL: reason". True when it passed. */
bool stress_run(const stress_options_t *options);

#endif
