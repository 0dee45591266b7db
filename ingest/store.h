/* Where accepted bars go: the writer's side of the segment. One thread, nothing blocks.
 *
 * Every bar is judged (validation.h) and then appended, amended or counted as rejected by kind in the segment's counters.
 * Complaints are limited to one a kind in ten seconds and carry the last reason. */
#ifndef BARCAST_INGEST_STORE_H
#define BARCAST_INGEST_STORE_H

#include "config/config.h"
#include "ingest/source.h"
#include "shm/counters.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    STORE_OK = 0,
    STORE_REFUSED = 1, /* counted and complained about */
    STORE_ERR = -1     /* no segment: error_text() */
};

typedef struct store store_t;

/* Creates the instance's segment or re-joins the one of a killed writer. `config` is borrowed. */
int store_open(const config_t *config, store_t **out);

/* Leaves the segment and marks a clean end; its bars stay. NULL is allowed. */
void store_close(store_t *store);

bool store_rejoined(const store_t *store);

/* The number of a bar's symbol, added when new. STORE_REFUSED when it cannot be: no interval known, not a symbol, table full. */
int store_symbol(store_t *store, const char *feed, const source_bar_t *bar, uint32_t *id);

/* Open time of the newest closed bar that the symbol had when the segment was re-joined, INT64_MIN when there was none. */
int64_t store_resume_ns(const store_t *store, uint32_t id);

/* Judges the bar and acts. `history`: it is counted as preloaded. */
void store_put(store_t *store, const char *feed, uint32_t id, const source_bar_t *bar, bool history);

/* Counts something that is no bar at all, and complains with `reason`. */
void store_reject(store_t *store, shm_counter_t kind, const char *feed, const char *reason);

/* Wakes the readers when something was stored since the last call: once after each burst. */
void store_wake(store_t *store);

uint32_t store_symbol_count(const store_t *store);
uint64_t store_counter(const store_t *store, shm_counter_t id);
void store_feeds_open(store_t *store, uint32_t count); /* the gauge */

#endif
