/* Columns by their names: what CSV headers and JSON keys call the parts of a bar, and how their cells become one.
 * Pure functions, any thread. */
#ifndef BARCAST_INGEST_COLUMNS_H
#define BARCAST_INGEST_COLUMNS_H

#include "ingest/source.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    COLUMN_TIME,
    COLUMN_DATE, /* serves as the time when there is no time column, and completes one that holds only a time of day */
    COLUMN_OPEN,
    COLUMN_HIGH,
    COLUMN_LOW,
    COLUMN_CLOSE,
    COLUMN_VOLUME,
    COLUMN_AMOUNT,
    COLUMN_SYMBOL,
    COLUMN_COUNT
} column_t;

#define COLUMN_NONE (-1)

/* A cell's text, not NUL-terminated, blanks and quotes already off; text NULL: the row has no such column. */
typedef struct {
    const char *text;
    size_t length;
} cell_t;

/* Which column the header or key `name` means, or COLUMN_NONE. Case, surrounding blanks and <>, a leading "1. " do not count, and a
 * blank, '-', '.' or '/' inside is a '_'. *rank orders several names of one column in the same file: the lowest is meant ("close"
 * before "adj_close", whose open, high and low are not adjusted with it). */
int column_match(const char *name, size_t length, int *rank);

/* "open", "high", ...: what errors call it; and all its names, comma-separated, for the error that misses it. */
const char *column_name(column_t column);
const char *column_synonyms(column_t column);

/* Makes a bar of a row's cells. A missing or empty volume or amount is unknown: NaN and SHM_BAR_NO_VOLUME, SHM_BAR_NO_AMOUNT.
 * out->symbol is "" without a symbol cell, out->interval_ns 0. SOURCE_OK, or SOURCE_BAD with a text that names the column. */
int columns_to_bar(const cell_t cells[static COLUMN_COUNT], source_bar_t *out);

/* Whether `symbol` is one that the segment takes: printable ASCII without spaces, 1 to SHM_SYMBOL_BYTES - 1 bytes. */
bool columns_symbol_ok(const char *symbol, size_t length);

/* Whether a line holds nothing but blanks. */
bool columns_blank(const char *line, size_t length);

#endif
