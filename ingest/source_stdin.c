#include "ingest/columns.h"
#include "ingest/ndjson.h"
#include "ingest/source_kind.h"

#include "base/error.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 2 * NDJSON_LINE_BYTES_MOST };

typedef struct {
    source_t base;
    char symbol[SHM_SYMBOL_BYTES]; /* of lines that name none; "": there is none */
    int64_t interval_ns;
    ndjson_t *parser;
    char *buffer;
    size_t start, end; /* what was read and not handed out yet */
    uint64_t line;
    bool skipping; /* inside an over-long line that was already told about */
    bool ended;
} source_stdin_t;

/* Takes the next whole line off the buffer; the last one needs no line end. */
static bool take_line(source_stdin_t *source, const char **text, size_t *length)
{
    const char *start = source->buffer + source->start;
    size_t held = source->end - source->start;
    const char *newline = memchr(start, '\n', held);
    if (!newline && !(source->ended && held > 0))
        return false;
    *text = start;
    *length = newline ? (size_t)(newline - start) : held;
    source->start += *length + (newline != NULL);
    source->line++;
    return true;
}

/* Reads what is there. SOURCE_OK, SOURCE_WAIT, SOURCE_END or SOURCE_ERR_BROKEN. Standard input is shared with whoever started us,
 * so it stays in blocking mode and is only read when poll says that there is something. */
static int refill(source_stdin_t *source)
{
    if (source->ended)
        return SOURCE_END;
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&ready, 1, 0) <= 0)
        return SOURCE_WAIT;
    memmove(source->buffer, source->buffer + source->start, source->end - source->start);
    source->end -= source->start;
    source->start = 0;
    ssize_t got = read(STDIN_FILENO, source->buffer + source->end, BUFFER_BYTES - source->end);
    if (got < 0)
        return errno == EINTR || errno == EAGAIN ? SOURCE_WAIT : error_set(SOURCE_ERR_BROKEN, "stdin: %s", strerror(errno));
    source->end += (size_t)got;
    source->ended = got == 0;
    return SOURCE_OK;
}

/* A line that fills the buffer without an end is dropped piece by piece, and told about once. */
static int drop_long_line(source_stdin_t *source)
{
    source->start = source->end = 0;
    if (source->skipping)
        return SOURCE_OK;
    source->skipping = true;
    return error_set(SOURCE_BAD, "stdin:%llu: a line of more than %d bytes", (unsigned long long)source->line + 1,
                     NDJSON_LINE_BYTES_MOST);
}

static int parse_line(source_stdin_t *source, const char *text, size_t length, source_bar_t *out)
{
    source_bar_t row;
    int rc = ndjson_row_parse(source->parser, text, length, &row);
    if (rc == SOURCE_OK && !row.symbol[0]) {
        memcpy(row.symbol, source->symbol, sizeof row.symbol);
        if (!row.symbol[0])
            rc = error_set(SOURCE_BAD, "no symbol, and the feed's section gives none");
    }
    if (rc != SOURCE_OK)
        return error_add(rc, "stdin:%llu", (unsigned long long)source->line);
    row.interval_ns = source->interval_ns;
    *out = row;
    return SOURCE_OK;
}

static int stdin_next(source_t *base, source_bar_t *out)
{
    source_stdin_t *source = (source_stdin_t *)base;
    for (;;) {
        const char *text;
        size_t length;
        int rc;
        if (take_line(source, &text, &length)) {
            bool rest_of_long = source->skipping;
            source->skipping = false;
            if (!rest_of_long && !columns_blank(text, length))
                return parse_line(source, text, length, out);
        } else if (source->end - source->start == BUFFER_BYTES) {
            rc = drop_long_line(source);
            if (rc != SOURCE_OK)
                return rc;
        } else {
            rc = refill(source);
            if (rc != SOURCE_OK)
                return rc;
        }
    }
}

static int stdin_descriptor(const source_t *base)
{
    (void)base;
    return STDIN_FILENO;
}

static void stdin_close(source_t *base)
{
    source_stdin_t *source = (source_stdin_t *)base;
    ndjson_close(source->parser);
    free(source->buffer);
    free(source);
}

int source_stdin_open(const config_feed_t *feed, source_t **out)
{
    static const source_kind_t kind = {stdin_next, stdin_descriptor, stdin_close};
    size_t symbol_bytes = strlen(feed->symbol);
    if (symbol_bytes > 0 && !columns_symbol_ok(feed->symbol, symbol_bytes))
        return error_set(SOURCE_ERR_OPEN, "stdin: symbol = %s is no usable symbol", feed->symbol);
    source_stdin_t *source = calloc(1, sizeof *source);
    if (!source)
        return error_set(SOURCE_ERR_OPEN, "out of memory");
    source->base.kind = &kind;
    memcpy(source->symbol, feed->symbol, symbol_bytes);
    source->interval_ns = feed->interval_ns;
    source->parser = ndjson_open();
    source->buffer = malloc(BUFFER_BYTES);
    if (!source->parser || !source->buffer) {
        stdin_close(&source->base);
        return error_set(SOURCE_ERR_OPEN, "out of memory");
    }
    *out = &source->base;
    return SOURCE_OK;
}
