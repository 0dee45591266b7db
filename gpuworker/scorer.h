/* How well a model's published forecasts of the target did, told when the bars that they were of arrive: a user sees a model go bad.
 *
 * Of every symbol one forecast at a time is watched: each bar that arrives is compared with the step that forecast it, until the forecast's steps
 * are over, at most SCORER_STEPS_MOST; then the next forecast is taken. So all steps weigh the same, and the memory is bounded. The loss of a value
 * is the mean over the levels of twice the pinball loss, in units of the symbol's one-step volatility when the forecast was made. It stands
 * beside that of the naive forecast from the same bar: a random walk whose volatility is the root mean square of the context's last changes (of
 * logarithms for prices). Means forget: a value counts 1/1024 of all, the first ones evenly. Late corrections of bars are not looked at.
 *
 * One thread. */
#ifndef BARCAST_GPUWORKER_SCORER_H
#define BARCAST_GPUWORKER_SCORER_H

#include "shm/counters.h"

#include <stdbool.h>
#include <stdint.h>

enum { SCORER_STEPS_MOST = 24, SCORER_VOLATILITY_BARS = 64 };
enum { SCORER_OK = 0, SCORER_ERR_MEMORY = -1 };

typedef struct scorer scorer_t;

/* For forecasts of `horizon` steps with those ascending levels, two at least. */
int scorer_open(uint32_t level_count, const double *levels, uint32_t horizon, scorer_t **out);
void scorer_close(scorer_t *scorer);

/* Forgets what is watched, not the score, and makes room for the symbols of a segment. All that allocates but scorer_open. */
int scorer_join(scorer_t *scorer, uint32_t symbols_max);

/* What is known of a symbol: the newest `count` values of the target, the last one of bar end - 1; mask 0: unknown. */
typedef struct {
    uint32_t symbol_id;
    uint64_t end;
    uint32_t count;
    const float *values;
    const uint8_t *mask;
    bool log; /* a price */
} scorer_bars_t;

/* What a forecast's score is measured by, taken when its context is at hand. */
typedef struct {
    uint64_t end;
    double last, volatility;
    bool log;
} scorer_origin_t;

/* Scores what the bars tell about the forecast that is watched. True when the forecast made from these bars should be watched next: *origin is
 * then what scorer_watch wants. */
bool scorer_observe(scorer_t *scorer, const scorer_bars_t *bars, scorer_origin_t *origin);

/* Watches a forecast: quantiles [levels][horizon] of the target, copied. */
void scorer_watch(scorer_t *scorer, uint32_t symbol_id, const scorer_origin_t *origin, const float *quantiles);

const shm_score_t *scorer_score(const scorer_t *scorer);

#endif
