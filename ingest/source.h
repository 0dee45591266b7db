/* A source of bars: the small interface behind which every feed stands (csv, ndjson, zmq; live feeds later).
 *
 * A source is opened from its [feed.NAME] section, is owned by one thread, and hands bars out in the order in which they came;
 * finite sources (files) merge their symbols by open time. It parses, it does not judge: validation.h does. */
#ifndef BARCAST_INGEST_SOURCE_H
#define BARCAST_INGEST_SOURCE_H

#include "config/config.h"
#include "shm/bar.h"
#include "shm/segment.h"

enum {
    SOURCE_OK = 0,
    SOURCE_WAIT = 1,       /* nothing now; poll the descriptor */
    SOURCE_END = 2,        /* a finite source is exhausted */
    SOURCE_BAD = 3,        /* one line or message was no bar: error_text() names file and line; go on */
    SOURCE_ERR_OPEN = -1,  /* no such file, no header, no usable columns: error_text() names it */
    SOURCE_ERR_BROKEN = -2 /* failed in mid-stream for good */
};

typedef struct {
    char symbol[SHM_SYMBOL_BYTES];
    int64_t interval_ns; /* 0: not known yet */
    shm_bar_t bar;
} source_bar_t;

typedef struct source source_t;

/* Opens a feed; `feed` is not kept. SOURCE_OK or SOURCE_ERR_OPEN. */
int source_open(const config_feed_t *feed, source_t **out);
/* The next bar. Never blocks. */
int source_next(source_t *source, source_bar_t *out);
/* Descriptor to poll for reading after SOURCE_WAIT (edge-triggered: call source_next until it says so), -1 for files: always
 * ready. */
int source_descriptor(const source_t *source);
void source_close(source_t *source);

/* Reads a whole file source at once: all bars of one symbol in time order (the one-shot `barcast forecast`, backtests). *bars is
 * malloc'ed. `symbol` NULL: the only one there is, an error when there are several. Validated as ingest would; a rejected bar is
 * left out and counted in *rejected; gaps are marked, never filled; feed->bars_max counts. Blocks when the path is "-", until the
 * end of standard input. */
int source_read_all(const config_feed_t *feed, const char *symbol, source_bar_t **bars, size_t *count, size_t *rejected);

/* The same of every symbol in the source, in the order of their first bars. *series and the bars in it are malloc'ed: source_free_every frees
 * both. */
typedef struct {
    source_bar_t *bars;
    size_t count;
} source_series_t;

int source_read_every(const config_feed_t *feed, source_series_t **series, size_t *count, size_t *rejected);
void source_free_every(source_series_t *series, size_t count);

#endif
