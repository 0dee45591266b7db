/* One file of bars, CSV or NDJSON, mapped read-only: rows are read where they lie, from any place, in any order.
 * Owned by one thread; nothing blocks but the page cache. A file that is cut short while it is mapped ends the process (SIGBUS):
 * replace files by rename, as every careful writer does. */
#ifndef BARCAST_INGEST_TABLE_H
#define BARCAST_INGEST_TABLE_H

#include "config/config.h"
#include "ingest/source.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct table table_t;

typedef struct {
    uint64_t offset; /* bytes from the file's start */
    uint64_t line;   /* of the file, from 1 */
} table_place_t;

/* Maps `path` and reads its header. A row without a symbol of its own gets feed->symbol, else the file's name without directory,
 * ending and feed->symbol_suffix. SOURCE_ERR_OPEN with a text that names the file. */
int table_open(const config_feed_t *feed, const char *path, table_t **out);
void table_close(table_t *table); /* NULL is allowed */

/* Whether rows may carry symbols of their own. */
bool table_has_symbols(const table_t *table);

/* Where the rows start. */
table_place_t table_first(const table_t *table);

/* Reads the first row at or after *place, blank lines skipped, and moves *place behind it; *row (NULL: not wanted) becomes the
 * row's own place. SOURCE_OK, SOURCE_BAD with a text that names file, line and column, or SOURCE_END. */
int table_read(const table_t *table, table_place_t *place, table_place_t *row, source_bar_t *out);

#endif
