/* Files: every symbol's series, merged by open time. Each symbol's first history_bars come before all the others' later bars, so
 * that whoever preloads history finds it in one piece. */
#include "ingest/series.h"
#include "ingest/source_kind.h"

#include "base/error.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

typedef struct {
    source_bar_t bar; /* the series' next one */
    uint64_t handed;  /* bars handed out of the series */
} lane_t;

typedef struct {
    source_t base;
    uint32_t history_bars;
    table_t **tables;
    size_t table_count;
    series_list_t series;
    lane_t *lanes;  /* one a series */
    uint32_t *heap; /* series with a next bar, the earliest first */
    size_t heap_count;
    size_t filled;  /* series below it are in the heap or exhausted */
    bool root_used; /* the root's bar was handed out: its lane is to be filled again */
} source_file_t;

/* ---- merging --------------------------------------------------------------------------------------------------------------- */

static bool comes_before(const source_file_t *source, uint32_t a, uint32_t b)
{
    const lane_t *left = &source->lanes[a], *right = &source->lanes[b];
    bool left_replays = left->handed >= source->history_bars, right_replays = right->handed >= source->history_bars;
    if (left_replays != right_replays)
        return right_replays;
    if (left->bar.bar.open_time_ns != right->bar.bar.open_time_ns)
        return left->bar.bar.open_time_ns < right->bar.bar.open_time_ns;
    return a < b;
}

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t kept = *a;
    *a = *b;
    *b = kept;
}

static void sift_up(source_file_t *source, size_t at)
{
    for (; at > 0 && comes_before(source, source->heap[at], source->heap[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&source->heap[at], &source->heap[(at - 1) / 2]);
}

static void sift_down(source_file_t *source)
{
    for (size_t at = 0;;) {
        size_t first = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < source->heap_count; child++)
            if (comes_before(source, source->heap[child], source->heap[first]))
                first = child;
        if (first == at)
            return;
        swap(&source->heap[at], &source->heap[first]);
        at = first;
    }
}

static int fill_lane(source_file_t *source, uint32_t at)
{
    series_t *series = &source->series.items[at];
    int rc = series_read(series, &source->lanes[at].bar);
    if (rc == SOURCE_OK)
        source->lanes[at].bar.interval_ns = series->interval_ns;
    return rc;
}

/* Puts the bar that follows the one handed out last into the heap. */
static int refill_root(source_file_t *source)
{
    int rc = fill_lane(source, source->heap[0]);
    if (rc == SOURCE_BAD)
        return rc;
    if (rc == SOURCE_END)
        source->heap[0] = source->heap[--source->heap_count];
    source->root_used = false;
    sift_down(source);
    return SOURCE_OK;
}

/* Puts the first bar of the next series into the heap. */
static int fill_next(source_file_t *source)
{
    int rc = fill_lane(source, (uint32_t)source->filled);
    if (rc == SOURCE_BAD)
        return rc;
    if (rc == SOURCE_OK) {
        source->heap[source->heap_count] = (uint32_t)source->filled;
        sift_up(source, source->heap_count++);
    }
    source->filled++;
    return SOURCE_OK;
}

static int file_next(source_t *base, source_bar_t *out)
{
    source_file_t *source = (source_file_t *)base;
    while (source->filled < source->series.count)
        if (fill_next(source) == SOURCE_BAD)
            return SOURCE_BAD;
    if (source->root_used && refill_root(source) == SOURCE_BAD)
        return SOURCE_BAD;
    if (source->heap_count == 0)
        return SOURCE_END;
    lane_t *lane = &source->lanes[source->heap[0]];
    lane->handed++;
    source->root_used = true;
    *out = lane->bar;
    return SOURCE_OK;
}

static int file_descriptor(const source_t *base)
{
    (void)base;
    return -1;
}

static void file_close(source_t *base)
{
    source_file_t *source = (source_file_t *)base;
    series_list_free(&source->series);
    for (size_t i = 0; i < source->table_count; i++)
        table_close(source->tables[i]);
    free(source->tables);
    free(source->lanes);
    free(source->heap);
    free(source);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

static int out_of_memory(void)
{
    return error_set(SOURCE_ERR_OPEN, "out of memory");
}

static int add_file(source_file_t *source, const config_feed_t *feed, const char *path)
{
    table_t **tables = realloc(source->tables, (source->table_count + 1) * sizeof *tables);
    if (!tables)
        return out_of_memory();
    source->tables = tables;
    int rc = table_open(feed, path, &tables[source->table_count]);
    if (rc != SOURCE_OK)
        return rc;
    rc = series_list_add(&source->series, tables[source->table_count++]);
    return rc == SOURCE_OK ? rc : error_add(rc, "%s", path);
}

static int is_csv_name(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return entry->d_name[0] != '.' && length > 4 && strcasecmp(entry->d_name + length - 4, ".csv") == 0;
}

/* Every *.csv of the directory; one that is unusable is left out with a warning while others are left. */
static int add_directory(source_file_t *source, const config_feed_t *feed)
{
    struct dirent **entries;
    int count = scandir(feed->path, &entries, is_csv_name, alphasort);
    if (count < 0)
        return error_set(SOURCE_ERR_OPEN, "%s: cannot list: %s", feed->path, strerror(errno));
    int rc = error_set(SOURCE_ERR_OPEN, "%s: no *.csv file in this directory", feed->path);
    if (count > 1 && feed->symbol[0])
        error_set(SOURCE_ERR_OPEN, "%s: symbol = %s names one symbol, the directory has %d files", feed->path, feed->symbol, count);
    for (int i = 0; i < count && !(count > 1 && feed->symbol[0]); i++) {
        char path[2 * CONFIG_TEXT_BYTES + 8];
        snprintf(path, sizeof path, "%s/%s", feed->path, entries[i]->d_name);
        if (add_file(source, feed, path) == SOURCE_OK)
            rc = SOURCE_OK;
        else
            log_warning("feed %s: left out: %s", feed->name, error_text());
    }
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    return rc;
}

static int add_path(source_file_t *source, const config_feed_t *feed)
{
    struct stat info;
    if (stat(feed->path, &info) < 0)
        return error_set(SOURCE_ERR_OPEN, "%s: %s", feed->path, strerror(errno));
    if (S_ISDIR(info.st_mode) && feed->type == CONFIG_FEED_CSV)
        return add_directory(source, feed);
    if (!S_ISREG(info.st_mode))
        return error_set(SOURCE_ERR_OPEN, "%s: not a file", feed->path);
    return add_file(source, feed, feed->path);
}

int source_file_open(const config_feed_t *feed, source_t **out)
{
    static const source_kind_t kind = {file_next, file_descriptor, file_close};
    source_file_t *source = calloc(1, sizeof *source);
    if (!source)
        return out_of_memory();
    source->base.kind = &kind;
    source->history_bars = feed->history_bars;
    int rc = add_path(source, feed);
    if (rc != SOURCE_OK)
        goto failed;
    series_list_sort(&source->series);
    rc = series_list_intervals(&source->series, feed->interval_ns);
    if (rc != SOURCE_OK) {
        error_add(rc, "%s", feed->path);
        goto failed;
    }
    source->lanes = calloc(source->series.count, sizeof *source->lanes);
    source->heap = calloc(source->series.count, sizeof *source->heap);
    if (!source->lanes || !source->heap) {
        rc = out_of_memory();
        goto failed;
    }
    *out = &source->base;
    return SOURCE_OK;

failed:
    file_close(&source->base);
    return rc;
}
