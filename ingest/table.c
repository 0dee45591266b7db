#include "ingest/table.h"

#include "base/error.h"
#include "ingest/csv.h"
#include "ingest/ndjson.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROW_BYTES_MOST = 64 << 10 };

struct table {
    char *path;
    const char *data; /* NULL for an empty file */
    size_t bytes;
    table_place_t first;
    char symbol[SHM_SYMBOL_BYTES]; /* of rows that name none; "": the file gives none */
    ndjson_t *ndjson;              /* NULL: the file is CSV */
    csv_layout_t csv;
};

typedef struct {
    const char *text;
    size_t length;
} line_t;

/* The first line at or after *place that is not blank, without its end; *place moves to the line after it. */
static bool next_line(const table_t *table, table_place_t *place, table_place_t *start, line_t *out)
{
    while (place->offset < table->bytes) {
        const char *text = table->data + place->offset;
        size_t rest = table->bytes - place->offset;
        const char *end = memchr(text, '\n', rest);
        line_t line = {text, end ? (size_t)(end - text) : rest};
        *start = *place;
        place->offset += line.length + (end != NULL);
        place->line++;
        if (line.length > 0 && line.text[line.length - 1] == '\r')
            line.length--;
        if (!columns_blank(line.text, line.length)) {
            *out = line;
            return true;
        }
    }
    return false;
}

static int map_file(table_t *table)
{
    int fd = open(table->path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0) {
        int rc = error_set(SOURCE_ERR_OPEN, "%s: cannot open: %s", table->path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    void *data = info.st_size > 0 ? mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int rc = data == MAP_FAILED ? error_set(SOURCE_ERR_OPEN, "%s: cannot map: %s", table->path, strerror(errno)) : SOURCE_OK;
    close(fd);
    if (rc == SOURCE_OK) {
        table->data = data;
        table->bytes = (size_t)info.st_size;
    }
    return rc;
}

static void name_symbol(table_t *table, const config_feed_t *feed)
{
    const char *slash = strrchr(table->path, '/');
    const char *name = slash ? slash + 1 : table->path;
    const char *dot = strrchr(name, '.');
    size_t length = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    size_t suffix = strlen(feed->symbol_suffix);
    if (length > suffix && memcmp(name + length - suffix, feed->symbol_suffix, suffix) == 0)
        length -= suffix;
    if (feed->symbol[0]) {
        name = feed->symbol;
        length = strlen(name);
    }
    if (columns_symbol_ok(name, length))
        memcpy(table->symbol, name, length);
}

static int read_header(table_t *table)
{
    static const char mark[] = "\xef\xbb\xbf";
    table->first = (table_place_t){0, 1};
    if (table->bytes >= 3 && memcmp(table->data, mark, 3) == 0)
        table->first.offset = 3;
    if (table->ndjson)
        return SOURCE_OK;
    line_t line;
    table_place_t start;
    if (!next_line(table, &table->first, &start, &line))
        return error_set(SOURCE_ERR_OPEN, "%s: empty: a header line was expected", table->path);
    int rc = csv_header_parse(line.text, line.length, &table->csv);
    if (rc != SOURCE_OK)
        return error_add(rc, "%s:%llu", table->path, (unsigned long long)start.line);
    if (!table->csv.has_symbol && !table->symbol[0])
        return error_set(SOURCE_ERR_OPEN,
                         "%s: the file's name is no usable symbol (1 to 31 printable characters without blanks): set symbol",
                         table->path);
    return SOURCE_OK;
}

int table_open(const config_feed_t *feed, const char *path, table_t **out)
{
    table_t *table = calloc(1, sizeof *table);
    if (!table || !(table->path = strdup(path)) || (feed->type == CONFIG_FEED_NDJSON && !(table->ndjson = ndjson_open()))) {
        table_close(table);
        return error_set(SOURCE_ERR_OPEN, "%s: out of memory", path);
    }
    name_symbol(table, feed);
    int rc = map_file(table);
    if (rc == SOURCE_OK)
        rc = read_header(table);
    if (rc != SOURCE_OK) {
        table_close(table);
        return rc;
    }
    *out = table;
    return SOURCE_OK;
}

void table_close(table_t *table)
{
    if (!table)
        return;
    if (table->data)
        munmap((void *)(uintptr_t)table->data, table->bytes);
    ndjson_close(table->ndjson);
    free(table->path);
    free(table);
}

bool table_has_symbols(const table_t *table)
{
    return table->ndjson || table->csv.has_symbol;
}

table_place_t table_first(const table_t *table)
{
    return table->first;
}

static int parse_line(const table_t *table, line_t line, source_bar_t *out)
{
    if (line.length > ROW_BYTES_MOST)
        return error_set(SOURCE_BAD, "a row of more than %d bytes", ROW_BYTES_MOST);
    source_bar_t row;
    int rc = table->ndjson ? ndjson_row_parse(table->ndjson, line.text, line.length, &row)
                           : csv_row_parse(&table->csv, line.text, line.length, &row);
    if (rc != SOURCE_OK)
        return rc;
    if (!row.symbol[0]) {
        if (!table->symbol[0])
            return error_set(SOURCE_BAD, "no symbol, and the file's name is none");
        memcpy(row.symbol, table->symbol, sizeof row.symbol);
    }
    *out = row;
    return SOURCE_OK;
}

int table_read(const table_t *table, table_place_t *place, table_place_t *row, source_bar_t *out)
{
    line_t line;
    table_place_t start;
    if (!next_line(table, place, &start, &line))
        return SOURCE_END;
    if (row)
        *row = start;
    int rc = parse_line(table, line, out);
    return rc == SOURCE_OK ? rc : error_add(rc, "%s:%llu", table->path, (unsigned long long)start.line);
}
