/* Runs a model's sessions at every origin of a backtest. */
#ifndef BARCAST_TOOLS_BACKTEST_SCORE_MODELS_H
#define BARCAST_TOOLS_BACKTEST_SCORE_MODELS_H

#include "gpuworker/engine/session.h"
#include "tools/backtest/backtest.h"

typedef struct {
    uint32_t samples; /* paths, for models that draw */
    uint32_t batch;   /* series a run; 0: as many as pay on this device and fit */
    uint64_t seed;
    backend_dtype_t precision;
} score_models_t;

typedef struct {
    uint32_t batch, samples; /* as the session has them: 0 samples for a model that does not draw */
    int64_t run_ns;          /* of all runs */
} score_models_cost_t;

/* Scores the model as `forecaster`. All origins of all series go through one session in full batches, each with its own random numbers (those of
 * the pipeline's forecast of that bar). A model of whole bars sees all six fields, any other one the field alone. Of the future it is told the open times,
 * which an exchange's calendar gives away, and no value. Blocks. Negative with error_text(): no such shape, no memory, a forecast that is not finite, the device. */
int score_models_run(backtest_t *backtest, uint32_t forecaster, model_t *model, const score_models_t *options,
                     score_models_cost_t *cost);

#endif
