/* One ring of bars a symbol: a single writer, any number of readers, no locks; readers never hold the writer up.
 *
 * Bars of a symbol are numbered from 0 as they are appended; a ring of capacity C holds the newest C. `head` is the number of bars
 * appended so far; bar `index` lies in slot index % C. The newest bar may be in progress and is amended in place until it closes; a
 * late correction amends a closed bar that is still in the ring. Bars handed out have stamp 0, and IN_PROGRESS only on the newest.
 *
 * A worked reader:
 *
 *     uint64_t next = 0;                                     // the first bar that this reader has not seen
 *     for (;;) {
 *         shm_bar_t bar;
 *         int rc = shm_ring_read(segment, id, next, &bar);
 *         if (rc == SHM_OK) { if (bar.flags & SHM_BAR_IN_PROGRESS) wait(); else { consume(&bar); next++; } }
 *         else if (rc == SHM_EMPTY) wait();                  // update_log.h: no polling
 *         else if (rc == SHM_OVERRUN) next = shm_ring_oldest(segment, id);   // lapped: count it, go on with what is there
 *     }
 */
#ifndef BARCAST_SHM_RING_H
#define BARCAST_SHM_RING_H

#include "shm/bar.h"
#include "shm/segment.h"

/* ---- writer (ingest's one thread). Each call also appends to the update log; call shm_log_wake once after a burst. ---------- */

/* Appends `bar` (its stamp is ignored). A newest bar still in progress is closed by this, in the same instant. Returns SHM_OK,
 * SHM_ERR_INVALID for a bad id, an open time not after the newest one's, or a handle that is no writer's. No system call. */
int shm_ring_append(shm_segment_t *segment, uint32_t id, const shm_bar_t *bar);

/* Replaces the bar with the same open time: the newest (in progress or closing it), or an older one still in the ring (late
 * correction; SHM_BAR_AMENDED is set on a bar that was closed). SHM_EMPTY when no bar has that open time, SHM_OVERRUN when it left
 * the ring, SHM_ERR_INVALID as above or when it would open a closed bar again. */
int shm_ring_amend(shm_segment_t *segment, uint32_t id, const shm_bar_t *bar);

/* ---- readers, any thread of any process. None blocks. ------------------------------------------------------------------------ */

uint64_t shm_ring_head(const shm_segment_t *segment, uint32_t id);   /* bars appended so far */
uint64_t shm_ring_closed(const shm_segment_t *segment, uint32_t id); /* of these closed: head, or head - 1 */
uint64_t shm_ring_oldest(const shm_segment_t *segment, uint32_t id); /* lowest index that an append under way does not overwrite */

/* Copies bar `index`. SHM_OK, SHM_EMPTY (not appended yet) or SHM_OVERRUN (lapped; the content of `out` is undefined). Never a torn
 * bar. */
int shm_ring_read(const shm_segment_t *segment, uint32_t id, uint64_t index, shm_bar_t *out);

/* The same for up to `most` bars from `index` on, as many as there are: *count of them on SHM_OK (1 at least). Cheaper a bar than
 * shm_ring_read: one look at the head for all. */
int shm_ring_read_many(const shm_segment_t *segment, uint32_t id, uint64_t index, uint32_t most, shm_bar_t *out, uint32_t *count);

/* Copies bars [end - count, end) in time order. SHM_OK only when all of them were whole and none was lapped during the copy;
 * SHM_EMPTY when end > head or count > end. The window is the bars as of the call: an amendment during it shows the old or the new
 * bar. */
int shm_ring_window(const shm_segment_t *segment, uint32_t id, uint64_t end, uint32_t count, shm_bar_t *out);

#endif
