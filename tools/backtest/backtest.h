/* A backtest: bars, rolling origins, and everybody's scores there.
 *
 * Walk-forward: at an origin a forecaster sees the `context` bars that end there, and nothing else; its forecast of the `horizon` bars that follow is
 * scored against them. Origins lie `stride` bars apart, counted back from the last one that has its whole future in the file, so that symbols with the
 * same calendar share their origins' times. All forecasters are scored at the same origins.
 *
 *     backtest_open -> backtest_score for every forecaster and origin (score_models.h, score_baselines.h) -> summary.h -> report_*.c */
#ifndef BARCAST_TOOLS_BACKTEST_BACKTEST_H
#define BARCAST_TOOLS_BACKTEST_BACKTEST_H

#include "tools/backtest/baselines.h"
#include "tools/backtest/score.h"
#include "tools/backtest/series.h"

enum { BACKTEST_MODELS_MOST = 2, BACKTEST_FORECASTERS_MOST = BACKTEST_MODELS_MOST + BASELINES, BACKTEST_EXAMPLES_MOST = 6 };

typedef struct {
    uint32_t context, horizon;
    uint32_t
        stride; /* 0: the first number from the horizon on that shares no factor with any season, so that every weekday and hour is met */
    int64_t start_ns; /* no origin before it */
    uint32_t origins; /* a symbol, the newest; 0: all */
    double cost_bp;   /* of one side of a simulated trade */
} backtest_plan_t;

typedef struct {
    uint32_t series;
    size_t at; /* the newest bar of the context */
    int64_t time_ns;
    score_origin_t size;
    float cell_size[SCORE_CELLS_MOST]; /* mean absolute value of what came in each cell's steps */
    float cell_last[SCORE_CELLS_MOST]; /* what came at its last step */
} backtest_origin_t;

/* The symbols of one interval: averages are taken over these. A slice of the series, with its slice of the origins. */
typedef struct {
    size_t first_series, series_count, first_origin, origin_count;
} backtest_group_t;

/* One forecast that is kept to be drawn. */
typedef struct {
    size_t origin;
    float *quantiles; /* [forecasters][LEVELS][horizon] */
} backtest_example_t;

typedef struct {
    backtest_plan_t plan;
    series_set_t set;
    uint32_t cell_count;
    score_cell_t cells[SCORE_CELLS_MOST];
    size_t origin_count;
    backtest_origin_t *origins; /* by series, then time */
    size_t *first_origin;       /* [series + 1] */
    size_t *by_time;            /* the origins by group, then time, then series */
    size_t group_count;
    backtest_group_t *groups;
    uint32_t model_count, forecaster_count; /* models come first, then the baselines in the order of their enum */
    const char *names[BACKTEST_FORECASTERS_MOST];
    score_t *scores;     /* [forecasters][origins][cells] */
    score_band_t *bands; /* [forecasters][series][horizon] */
    size_t example_count;
    backtest_example_t
        *examples; /* of each group, spread evenly over its symbols and over time, chosen before any forecast is made */
} backtest_t;

/* Takes the set over, whatever happens; the model names are borrowed. A series too short for one origin is left out and told on stderr. Negative
 * with error_text(): no origin is left, or no memory. */
int backtest_open(const backtest_plan_t *plan, series_set_t *set, const char *const *model_names, uint32_t model_count,
                  backtest_t *out);
void backtest_close(backtest_t *backtest);

/* The forecaster's number of a baseline. */
uint32_t backtest_baseline(const backtest_t *backtest, baseline_t baseline);

/* The context that an origin's forecasters see, oldest first: plan.context values. */
const double *backtest_context(const backtest_t *backtest, size_t origin);
/* What came: plan.horizon values. */
const double *backtest_future(const backtest_t *backtest, size_t origin);

/* Scores one forecast, [LEVELS][horizon]. Several threads may do so at once when their origins are of different series. */
void backtest_score(backtest_t *backtest, uint32_t forecaster, size_t origin, const float *quantiles);

const score_t *backtest_scores(const backtest_t *backtest, uint32_t forecaster, size_t origin);
const score_band_t *backtest_bands(const backtest_t *backtest, uint32_t forecaster, size_t series);

/* How many of the cells are a single step; they come first. */
uint32_t backtest_single_cells(const backtest_t *backtest);

/* "1", "1-24": a cell's steps. */
enum { BACKTEST_CELL_BYTES = 24 };
void backtest_cell_text(score_cell_t cell, char out[static BACKTEST_CELL_BYTES]);

#endif
