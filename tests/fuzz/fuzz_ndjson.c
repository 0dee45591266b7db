/* NDJSON: every line through one parser, which remembers the keys of the line before. */
#include "ingest/ndjson.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ndjson_t *parser = ndjson_open();
    const char *at = (const char *)data, *end = at + size;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = newline ? (size_t)(newline - at) : (size_t)(end - at);
        char *line = malloc(length ? length : 1); /* exactly as long as the line, so that reading beyond it is seen */
        memcpy(line, at, length);
        source_bar_t row;
        if (ndjson_row_parse(parser, line, length, &row) == SOURCE_OK && row.symbol[sizeof row.symbol - 1])
            abort();
        free(line);
        at += length + (newline != NULL);
    }
    ndjson_close(parser);
    return 0;
}
