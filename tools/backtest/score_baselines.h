/* Runs the baselines at every origin of a backtest. */
#ifndef BARCAST_TOOLS_BACKTEST_SCORE_BASELINES_H
#define BARCAST_TOOLS_BACKTEST_SCORE_BASELINES_H

#include "tools/backtest/backtest.h"

/* On `threads` threads, a series at a time each. Blocks; the result does not depend on their number. Negative with error_text(). */
int score_baselines(backtest_t *backtest, uint32_t threads);

#endif
