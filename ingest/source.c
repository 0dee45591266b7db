#include "ingest/source.h"

#include "base/error.h"
#include "ingest/source_kind.h"
#include "ingest/timestamp.h"
#include "ingest/validation.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int source_open(const config_feed_t *feed, source_t **out)
{
    switch (feed->type) {
    case CONFIG_FEED_CSV:
        return source_file_open(feed, out);
    case CONFIG_FEED_NDJSON:
        return strcmp(feed->path, "-") == 0 ? source_stdin_open(feed, out) : source_file_open(feed, out);
    case CONFIG_FEED_ZMQ:
        return source_zmq_open(feed, out);
    }
    return error_set(SOURCE_ERR_OPEN, "feed %s: unknown type %d", feed->name, (int)feed->type);
}

int source_next(source_t *source, source_bar_t *out)
{
    return source->kind->next(source, out);
}

int source_descriptor(const source_t *source)
{
    return source->kind->descriptor(source);
}

void source_close(source_t *source)
{
    if (source)
        source->kind->close(source);
}

/* ---- a whole source at once ------------------------------------------------------------------------------------------------ */

/* One symbol's. */
typedef struct {
    char symbol[SHM_SYMBOL_BYTES];
    source_bar_t *bars;
    size_t count, capacity;
    uint32_t handed; /* rows that the source gave, kept or not */
} bar_list_t;

static bool push(bar_list_t *list, const source_bar_t *row)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 1024;
        source_bar_t *bars = realloc(list->bars, capacity * sizeof *bars);
        if (!bars)
            return false;
        list->bars = bars;
        list->capacity = capacity;
    }
    list->bars[list->count++] = *row;
    return true;
}

static shm_bar_t *find_stored(const bar_list_t *list, int64_t open_time_ns)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->bars[middle].bar.open_time_ns < open_time_ns)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < list->count && list->bars[low].bar.open_time_ns == open_time_ns;
    return found ? &list->bars[low].bar : NULL;
}

/* Judges and keeps a row as store.c does with the ring. False when out of memory. */
static bool keep(bar_list_t *list, const source_bar_t *row, size_t *rejected)
{
    shm_bar_t *newest = list->count ? &list->bars[list->count - 1].bar : NULL;
    shm_bar_t *stored = find_stored(list, row->bar.open_time_ns);
    validation_t verdict = validation_fault(&row->bar);
    if (verdict == VALIDATION_NEW)
        verdict = validation_place(&row->bar, newest, stored);
    if (validation_rejects(verdict)) {
        (*rejected)++;
        return true;
    }
    if (verdict == VALIDATION_NEW)
        return push(list, row);
    *stored = row->bar;
    if (verdict == VALIDATION_CORRECT)
        stored->flags |= SHM_BAR_AMENDED;
    return true;
}

/* Sets the interval where the source could not, and marks the gaps. */
static int finish(bar_list_t *list)
{
    if (list->count == 0)
        return error_set(SOURCE_ERR_OPEN, "no valid bar");
    if (list->bars[0].interval_ns == 0) {
        int64_t *times_ns = malloc(list->count * sizeof *times_ns);
        if (!times_ns)
            return error_set(SOURCE_ERR_OPEN, "out of memory");
        for (size_t i = 0; i < list->count; i++)
            times_ns[i] = list->bars[i].bar.open_time_ns;
        int64_t interval_ns = timestamp_interval(times_ns, list->count);
        free(times_ns);
        if (interval_ns == 0)
            return error_set(SOURCE_ERR_OPEN, "cannot tell the bars' interval from a single one: set interval");
        for (size_t i = 0; i < list->count; i++)
            list->bars[i].interval_ns = interval_ns;
    }
    for (size_t i = 1; i < list->count; i++)
        if (validation_missing(list->bars[i - 1].bar.open_time_ns, list->bars[i].bar.open_time_ns, list->bars[i].interval_ns, NULL,
                               0))
            list->bars[i].bar.flags |= SHM_BAR_GAP;
    return SOURCE_OK;
}

/* The series of all symbols, or of the one that is asked for. */
typedef struct {
    const char *symbol; /* NULL: all */
    uint32_t bars_max;
    bar_list_t *lists;
    size_t count, capacity;
    size_t rejected;
} reading_t;

/* Files come merged by time, so symbols alternate: the search begins behind the last one found. NULL when out of memory. */
static bar_list_t *find_list(reading_t *reading, const char *symbol, size_t *hint)
{
    for (size_t i = 0; i < reading->count; i++) {
        size_t at = (*hint + i) % reading->count;
        if (strcmp(reading->lists[at].symbol, symbol) == 0) {
            *hint = at + 1;
            return &reading->lists[at];
        }
    }
    if (reading->count == reading->capacity) {
        size_t capacity = reading->capacity ? reading->capacity * 2 : 16;
        bar_list_t *lists = realloc(reading->lists, capacity * sizeof *lists);
        if (!lists)
            return NULL;
        reading->lists = lists;
        reading->capacity = capacity;
    }
    bar_list_t *list = &reading->lists[reading->count++];
    *list = (bar_list_t){0};
    snprintf(list->symbol, sizeof list->symbol, "%s", symbol);
    *hint = 0;
    return list;
}

static int read_rows(source_t *source, reading_t *reading)
{
    size_t hint = 0;
    for (;;) {
        source_bar_t row;
        int rc = source_next(source, &row);
        if (rc == SOURCE_WAIT) {
            struct pollfd ready = {.fd = source_descriptor(source), .events = POLLIN};
            if (poll(&ready, 1, -1) < 0 && errno != EINTR)
                return error_set(SOURCE_ERR_BROKEN, "poll: %s", strerror(errno));
            continue;
        }
        if (rc == SOURCE_BAD) {
            reading->rejected++;
            continue;
        }
        if (rc != SOURCE_OK)
            return rc == SOURCE_END ? SOURCE_OK : rc;
        if (reading->symbol && strcmp(row.symbol, reading->symbol) != 0)
            continue;
        bar_list_t *list = find_list(reading, row.symbol, &hint);
        if (list && reading->bars_max && list->handed++ >= reading->bars_max)
            continue;
        if (!list || !keep(list, &row, &reading->rejected))
            return error_set(SOURCE_ERR_BROKEN, "out of memory");
    }
}

static void free_reading(reading_t *reading)
{
    for (size_t i = 0; i < reading->count; i++)
        free(reading->lists[i].bars);
    free(reading->lists);
}

/* On success the caller frees the reading, which has one list at least. */
static int read_whole(const config_feed_t *feed, reading_t *reading)
{
    if (feed->type == CONFIG_FEED_ZMQ)
        return error_set(SOURCE_ERR_OPEN, "feed %s: a live feed cannot be read to its end", feed->name);
    source_t *source;
    int rc = source_open(feed, &source);
    if (rc != SOURCE_OK)
        return rc;
    reading->bars_max = feed->bars_max;
    rc = read_rows(source, reading);
    source_close(source);
    if (rc == SOURCE_OK && reading->count == 0)
        rc = error_set(SOURCE_ERR_OPEN, "no valid bar");
    if (rc != SOURCE_OK)
        free_reading(reading);
    return rc;
}

int source_read_all(const config_feed_t *feed, const char *symbol, source_bar_t **bars, size_t *count, size_t *rejected)
{
    reading_t reading = {.symbol = symbol};
    int rc = read_whole(feed, &reading);
    if (rc == SOURCE_OK) {
        bar_list_t *list = reading.lists;
        rc = reading.count == 1
                 ? finish(list)
                 : error_set(SOURCE_ERR_OPEN, "has several symbols (%s, %s, ...): name one", list[0].symbol, list[1].symbol);
        if (rc == SOURCE_OK) {
            *bars = list->bars;
            *count = list->count;
            *rejected = reading.rejected;
            list->bars = NULL;
        }
        free_reading(&reading);
    }
    if (rc != SOURCE_OK)
        return symbol ? error_add(rc, "%s: %s", feed->path, symbol) : error_add(rc, "%s", feed->path);
    return SOURCE_OK;
}

static int finish_every(reading_t *reading, source_series_t **series)
{
    source_series_t *every = malloc(reading->count * sizeof *every);
    if (!every)
        return error_set(SOURCE_ERR_BROKEN, "out of memory");
    for (size_t i = 0; i < reading->count; i++) {
        int rc = finish(&reading->lists[i]);
        if (rc != SOURCE_OK) {
            free(every);
            return error_add(rc, "%s", reading->lists[i].symbol);
        }
        every[i] = (source_series_t){.bars = reading->lists[i].bars, .count = reading->lists[i].count};
    }
    *series = every;
    return SOURCE_OK;
}

int source_read_every(const config_feed_t *feed, source_series_t **series, size_t *count, size_t *rejected)
{
    reading_t reading = {0};
    int rc = read_whole(feed, &reading);
    if (rc == SOURCE_OK && (rc = finish_every(&reading, series)) != SOURCE_OK)
        free_reading(&reading);
    if (rc != SOURCE_OK)
        return error_add(rc, "%s", feed->path);
    *count = reading.count;
    *rejected = reading.rejected;
    free(reading.lists);
    return SOURCE_OK;
}

void source_free_every(source_series_t *series, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(series[i].bars);
    free(series);
}
