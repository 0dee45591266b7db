/* CSV: the first line is the header, the others are rows. */
#include "ingest/csv.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    csv_layout_t layout;
    bool has_header = false;
    const char *at = (const char *)data, *end = at + size;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = newline ? (size_t)(newline - at) : (size_t)(end - at);
        char *line = malloc(length ? length : 1); /* exactly as long as the line, so that reading beyond it is seen */
        memcpy(line, at, length);
        source_bar_t row;
        if (!has_header)
            has_header = csv_header_parse(line, length, &layout) == SOURCE_OK;
        else if (csv_row_parse(&layout, line, length, &row) == SOURCE_OK &&
                 (row.symbol[sizeof row.symbol - 1] || (layout.has_symbol && !row.symbol[0])))
            abort();
        free(line);
        at += length + (newline != NULL);
    }
    return 0;
}
