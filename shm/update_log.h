/* The update log: one entry for every append and amendment of any ring, in order, and a futex word that wakes who waits.
 *
 * Single writer, any number of readers, each with a cursor of its own in its own memory: the segment knows no readers. The entry
 * count since creation is the cursor's unit. A reader that is lapped gets SHM_OVERRUN, its cursor is moved to the newest entry, and
 * it must look at every ring's head once (shm_ring_closed): that is cheaper than any log. */
#ifndef BARCAST_SHM_UPDATE_LOG_H
#define BARCAST_SHM_UPDATE_LOG_H

#include "shm/segment.h"

enum {
    SHM_UPDATE_CLOSED = 1u << 0,  /* the ring has a newly closed bar: `index` is it */
    SHM_UPDATE_AMENDED = 1u << 1, /* an older or the in-progress bar `index` changed */
};

typedef struct {
    uint32_t symbol_id;
    uint32_t flags;    /* SHM_UPDATE_* */
    uint64_t index;    /* the bar */
    int64_t stored_ns; /* clock_monotonic_ns when the bar was stored: where every bar-to-forecast latency starts (see below) */
} shm_update_t;

/* The first entry after shm_log_wake carries the exact time; up to that many in a row of one burst share it, so the others seem
 * stored somewhat earlier than they were, never later. */
#define SHM_UPDATE_SHARED 16

/* The cursor that sees only what comes after this call. */
uint64_t shm_log_newest(const shm_segment_t *segment);

/* Copies up to `most` entries from *cursor on and advances it. *count says how many (0: nothing new). SHM_OK or SHM_OVERRUN. */
int shm_log_read(const shm_segment_t *segment, uint64_t *cursor, shm_update_t *out, size_t most, size_t *count);

/* Waits until there is an entry at `cursor`, at most timeout_ns (< 0: for ever). SHM_OK, SHM_EMPTY on timeout or a signal. */
int shm_log_wait(const shm_segment_t *segment, uint64_t cursor, int64_t timeout_ns);

/* Writer: wakes the waiting readers and ends the burst; one system call, so once after each burst of bars, before the writer
 * rests. */
void shm_log_wake(shm_segment_t *segment);

#endif
