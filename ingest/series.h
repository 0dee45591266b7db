/* All rows of one symbol in a feed's files, in the order in which they are to be handed out. One thread.
 *
 * A series is a chain of runs, one for each file that has rows of the symbol. A run of a file that holds one symbol, oldest
 * first, is walked line by line; for any other file an index says where the symbol's rows lie (16 bytes a row), backwards where
 * the file has the newest first. */
#ifndef BARCAST_INGEST_SERIES_H
#define BARCAST_INGEST_SERIES_H

#include "ingest/symbols.h"
#include "ingest/table.h"

typedef struct series_run series_run_t;

typedef struct {
    char symbol[SHM_SYMBOL_BYTES];
    int64_t interval_ns;     /* 0 until series_list_intervals */
    series_run_t *runs;      /* chain; the first one belongs to the oldest file once series_list_sort was called */
    const series_run_t *run; /* the cursor: the run, */
    size_t row;              /* its next row when it has an index, */
    table_place_t place;     /* and where that lies when it has none */
} series_t;

typedef struct {
    series_t *items;
    size_t count, capacity;
    symbols_t symbols;
} series_list_t; /* zero-initialise */

/* Adds the rows of `table`, which must outlive the list. SOURCE_ERR_OPEN when there is no well-formed row. */
int series_list_add(series_list_t *list, table_t *table);

/* After the last table: orders the runs by time and puts every cursor at its series' first row. */
void series_list_sort(series_list_t *list);

/* Sets every series' interval: `interval_ns`, or where that is 0 the series' most frequent step among its first ones, or that of
 * most other series when it has none. SOURCE_ERR_OPEN when no series has two bars. After series_list_sort. */
int series_list_intervals(series_list_t *list, int64_t interval_ns);

void series_list_free(series_list_t *list);

/* The next row: SOURCE_OK, SOURCE_BAD with its text, or SOURCE_END. */
int series_read(series_t *series, source_bar_t *out);

#endif
