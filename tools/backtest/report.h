/* A scored backtest as a table for the terminal, as JSON and as one HTML page. Nothing in them depends on the clock but the durations in the
 * facts. */
#ifndef BARCAST_TOOLS_BACKTEST_REPORT_H
#define BARCAST_TOOLS_BACKTEST_REPORT_H

#include <stdio.h>

#include "tools/backtest/backtest.h"

typedef struct {
    const char *model, *revision, *device, *commit; /* the model's name without its path */
    const char *precisions[BACKTEST_MODELS_MOST];   /* of the models in the backtest */
    uint32_t samples, batch;
    uint64_t seed;
    double model_seconds[BACKTEST_MODELS_MOST], baselines_seconds;
} report_facts_t;

/* Each returns 0, or negative with error_text() when memory is out. */
int report_table(const backtest_t *backtest, const report_facts_t *facts, bool unicode, FILE *to);
int report_json(const backtest_t *backtest, const report_facts_t *facts, FILE *to);
int report_html(const backtest_t *backtest, const report_facts_t *facts, FILE *to);

/* A date for bars of a day and more, else date and time to the minute. */
enum { REPORT_TIME_BYTES = 24 };
void report_time(int64_t time_ns, int64_t interval_ns, char out[static REPORT_TIME_BYTES]);

#endif
