/* The quantile levels of a backtest: the nine deciles, which are scored, and the quartiles, which bound the 50 % interval. */
#ifndef BARCAST_TOOLS_BACKTEST_LEVELS_H
#define BARCAST_TOOLS_BACKTEST_LEVELS_H

enum { LEVEL_10 = 0, LEVEL_25 = 2, LEVEL_50 = 5, LEVEL_75 = 8, LEVEL_90 = 10, LEVELS = 11, DECILES = 9 };

static const float levels[LEVELS] = {0.1f, 0.2f, 0.25f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.75f, 0.8f, 0.9f};

/* Where the nine deciles are among them. */
static const int decile_levels[DECILES] = {0, 1, 3, 4, 5, 6, 7, 9, 10};

#endif
