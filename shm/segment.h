/* The shared-memory segment of one Barcast instance: header, symbol table, update log, ingest's counters, one ring a symbol.
 *
 * Life cycle: create (ingest, the only writer; it also re-joins and repairs what a killed writer left) / join (everybody else, read
 * only) / leave / delete. The object is POSIX shm "/barcast.<name>", mode 0600, or 0640 for a group.
 * Handles are process-local and opaque; one handle may be used by several reading threads, the writer's handle by one thread. */
#ifndef BARCAST_SHM_SEGMENT_H
#define BARCAST_SHM_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SHM_LAYOUT_VERSION 2
#define SHM_SYMBOL_BYTES   32         /* with the final NUL */
#define SHM_NAME_BYTES     64         /* instance name, with the final NUL: letters, digits, '-', '_', '.' */
#define SHM_OBJECT_PREFIX  "barcast." /* what the names of all objects of ours begin with, as files in /dev/shm */

/* Results of this module. Those above 0 are answers, not errors. */
enum {
    SHM_OK = 0,
    SHM_EMPTY = 1,              /* that bar, symbol or update does not exist yet */
    SHM_OVERRUN = 2,            /* the writer has lapped the reader: the data is gone, take the newest */
    SHM_ERR_NOT_READY = -1,     /* no such object, or its creator has not finished */
    SHM_ERR_BAD_LAYOUT = -2,    /* magic, sizes or offsets are not ours */
    SHM_ERR_WRONG_VERSION = -3, /* another layout version */
    SHM_ERR_STALE_WRITER = -4,  /* join only: readable, but its writer is dead; the handle is valid all the same */
    SHM_ERR_BUSY = -5,          /* create: a living writer owns it */
    SHM_ERR_FULL = -6,          /* symbol table full */
    SHM_ERR_INVALID = -7,       /* an argument: name, symbol, capacity, index */
    SHM_ERR_SYSTEM = -8,        /* the operating system: error_text() has errno's words */
};

typedef struct shm_segment shm_segment_t;

typedef struct {
    const char *name;     /* instance */
    uint32_t symbols_max; /* rings to make room for, 1 to 65536 */
    uint32_t ring_bars;   /* bars a ring holds, power of two, 64 to 1048576 */
    uint32_t log_entries; /* update log length, power of two, 1024 to 16777216 */
    int64_t group_id;     /* group that may read, -1 for none */
} shm_segment_options_t;

/* Writer: makes the segment, or re-joins an existing one of the same shape whose writer is dead: keeps the epoch, every closed bar
 * and the counters of the segment, undoes a half-done amendment, forgets a bar or symbol that was not published yet, bumps the
 * writer generation, and makes the update log overrun once for every reader (a killed writer may have stored a bar without its
 * entry). SHM_ERR_BUSY while the old writer lives; a segment of another shape or version whose writer is dead is replaced, its
 * epoch becomes 0 for who still maps it. *rejoined tells which happened. Does not block. */
int shm_segment_create(const shm_segment_options_t *options, shm_segment_t **out, bool *rejoined);

/* Reader: maps it read-only. Never blocks; poll again on SHM_ERR_NOT_READY. On SHM_ERR_STALE_WRITER *out is set. A writer that
 * re-joins goes on in the same mapping; one that makes a new segment does not, so a reader whose writer is dead joins anew now and
 * then and compares the epochs. */
int shm_segment_join(const char *name, shm_segment_t **out);

/* Unmaps. The writer's leave marks a clean end first. NULL is allowed. */
void shm_segment_leave(shm_segment_t *segment);

/* Removes the name; mappings stay usable. SHM_OK also when there is none. */
int shm_segment_delete(const char *name);

typedef struct {
    uint64_t epoch;             /* clock_realtime_ns at creation; a reader that sees another one (or 0) must join again */
    uint32_t writer_pid;        /* 0 after a clean leave */
    uint32_t writer_generation; /* 1 at creation, +1 at every re-join */
    bool writer_alive;
    uint32_t symbols_max, ring_bars, log_entries;
    uint64_t bytes;
} shm_segment_info_t;

void shm_segment_info(const shm_segment_t *segment, shm_segment_info_t *out);

/* The read-only mapping itself: for the GPU worker that registers it with its driver. */
const void *shm_segment_base(const shm_segment_t *segment, size_t *bytes);

/* ---- symbol table: append-only, an id never changes its symbol -------------------------------------------------------------- */

/* Writer: the id of `symbol` (printable ASCII without spaces, 1 to 31 bytes), added when new; its ring's memory is allocated then
 * (SHM_ERR_SYSTEM when the machine has none left). The interval is the bar's length, 0 when not known yet; a later call with
 * another one that is not 0 changes it. */
int shm_symbol_add(shm_segment_t *segment, const char *symbol, int64_t interval_ns, uint32_t *id);

/* Anyone. SHM_EMPTY when there is no such symbol. */
int shm_symbol_find(const shm_segment_t *segment, const char *symbol, uint32_t *id);
uint32_t shm_symbol_count(const shm_segment_t *segment);
const char *shm_symbol_name(const shm_segment_t *segment, uint32_t id); /* NULL for an id that does not exist */
int64_t shm_symbol_interval_ns(const shm_segment_t *segment, uint32_t id);

const char *shm_result_name(int result);

#endif
