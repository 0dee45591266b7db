/* The loop that moves bars from the feeds into the store: history first, then the replay by its timetable and the live feeds as
 * they come. One thread; it blocks only in poll, and never for a reader.
 *
 * After a re-join, files are read from their start again: each symbol's bars up to the newest one that the ring had are skipped
 * unjudged, uncounted and unpaced, then the replay goes on where it stopped. */
#ifndef BARCAST_INGEST_PUMP_H
#define BARCAST_INGEST_PUMP_H

#include "config/config.h"
#include "ingest/store.h"

enum {
    PUMP_OK = 0,      /* preload: done; run: every feed is exhausted */
    PUMP_STOPPED = 1, /* signal_fd could be read */
    PUMP_ERR_FEED = -1,
    PUMP_ERR_SYSTEM = -2
};

typedef struct pump pump_t;

/* Opens every feed. `config` and `store` are borrowed until pump_close. PUMP_ERR_FEED with the feed's name and what is wrong. */
int pump_open(const config_t *config, store_t *store, pump_t **out);
void pump_close(pump_t *pump); /* NULL is allowed */

/* Stores each file feed's history, flat out. Stops when signal_fd (-1: none) can be read. */
int pump_preload(pump_t *pump, int signal_fd);

/* Runs until all feeds are exhausted, or signal_fd can be read. With hold_fd >= 0 the replay starts when a byte or
 * the end of file comes from there (the end too: nobody is left who could release it); live feeds do not wait. PUMP_ERR_FEED when
 * a feed broke for good; the others were run to their end first. */
int pump_run(pump_t *pump, int hold_fd, int signal_fd);

#endif
