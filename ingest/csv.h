/* CSV: a header line finds the columns, then every row is a bar. Separators are ',', ';' or tab, told from the header; cells may be
 * quoted; a row is a line, so a quoted line break is a malformed row. Pure functions, any thread. */
#ifndef BARCAST_INGEST_CSV_H
#define BARCAST_INGEST_CSV_H

#include "ingest/columns.h"

#include <stdbool.h>
#include <stddef.h>

enum { CSV_COLUMNS_MOST = 256 };

typedef struct {
    char separator;
    bool has_symbol;
    int last;                         /* the last column that matters */
    signed char of[CSV_COLUMNS_MOST]; /* column_t of each field, or COLUMN_NONE */
} csv_layout_t;

/* Reads the header line (no line end, no byte order mark). SOURCE_ERR_OPEN when a time or a price has no column. */
int csv_header_parse(const char *line, size_t length, csv_layout_t *out);

/* Reads one row (no line end). SOURCE_OK or SOURCE_BAD with a text that names the column. */
int csv_row_parse(const csv_layout_t *layout, const char *line, size_t length, source_bar_t *out);

#endif
