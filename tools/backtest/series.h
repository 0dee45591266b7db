/* The bars of a backtest: every symbol of some files, in memory, and the field of theirs that is forecast. One thread. */
#ifndef BARCAST_TOOLS_BACKTEST_SERIES_H
#define BARCAST_TOOLS_BACKTEST_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/bar.h"
#include "shm/segment.h"

typedef struct {
    char symbol[SHM_SYMBOL_BYTES];
    int64_t interval_ns;
    size_t count;
    int64_t *time_ns; /* open times */
    double *fields;   /* [SHM_BAR_FIELDS][count]: open, high, low, close, volume, amount; NaN where unknown */
    double *values;   /* the one that is forecast, among them; all finite */
    size_t season;    /* bars a season, as far as the interval tells: see series_season */
} series_t;

typedef struct {
    size_t field; /* the number of the one that is forecast */
    const char *field_name;
    bool price; /* the field is a price: above zero, walks in logarithms */
    series_t *series;
    size_t count, rejected; /* bars that were no bars */
} series_set_t;

/* Is a field a price? */
bool series_field_is_price(size_t field);

/* Reads all symbols of `count` files, CSV or NDJSON by their endings, or directories of CSV files, to forecast `field` (open, high, low, close,
 * volume or amount). The set is in order of interval, then symbol; series_close frees it. Negative with error_text(): a file cannot be read, a symbol is in
 * two files with the same interval, a bar lacks the field. */
int series_open(const char *const *paths, size_t count, const char *field, series_set_t *out);
void series_close(series_set_t *set);

/* Bars a season. Daily bars: 5, or 7 where some lie on weekends; weekly 52, monthly 12; shorter ones: as many as the median day has. */
size_t series_season(const int64_t *time_ns, size_t count, int64_t interval_ns);

/* "5m", "1h", "1d". */
enum { SERIES_INTERVAL_BYTES = 24 };
void series_interval_text(int64_t interval_ns, char out[static SERIES_INTERVAL_BYTES]);

#endif
