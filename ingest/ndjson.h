/* NDJSON: one JSON object a line is a bar, its keys are found like CSV headers (columns.h), values are numbers or text, as
 * exchanges send them. A parser is used by one thread; no function blocks. */
#ifndef BARCAST_INGEST_NDJSON_H
#define BARCAST_INGEST_NDJSON_H

#include "ingest/source.h"

#include <stddef.h>

enum { NDJSON_LINE_BYTES_MOST = 64 << 10 };

typedef struct ndjson ndjson_t;

/* NULL when out of memory. */
ndjson_t *ndjson_open(void);
void ndjson_close(ndjson_t *parser);

/* Reads one line (no line end). SOURCE_OK or SOURCE_BAD with a text that names the key. */
int ndjson_row_parse(ndjson_t *parser, const char *line, size_t length, source_bar_t *out);

#endif
