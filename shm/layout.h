/* What lies where in a segment, and the process-local handle. Private to this folder (and to tests that break segments on purpose).
 *
 * All numbers are little-endian; every section starts on a cache line, the rings on a page.
 *
 *   header          offset  bytes  field
 *                        0      8  magic           "BARCAST1"; stored last at creation: 0 means half-made
 *                        8      4  version         SHM_LAYOUT_VERSION
 *                       12      4  header_bytes    512
 *                       16      8  bytes           of the whole segment
 *                       24      8  epoch           wall clock at creation, ns; 0 once another segment has replaced this one
 *                       32     12  symbols_max, ring_bars, log_entries
 *                       44      4  generation      1, +1 at every re-join
 *                       48      4  writer_pid      0 after a clean leave
 *                       52      4  reserved
 *                       56      8  writer_start    start time of that process, so that a recycled pid is not taken for it
 *                       64     48  symbols_offset, index_offset, counters_offset, log_offset, rings_offset, ring_stride
 *                      128      4  symbol_count    published after the symbol it counts
 *                      256     24  journal: sequence, symbol_id, index
 *                      320     64  journal: the bar (as in its slot) before the amendment that is under way
 *                      384      8  log_head        entries written; its low half is the futex word
 *   symbol table    symbols_max times 64: name 32, interval_ns 8, 24 reserved
 *   symbol index    power of two >= 2 * symbols_max, times 4: symbol id + 1, 0 when free; open addressing by the hash of the name
 *   counters        shm_page_t: 2048
 *   update log      log_entries times 24: symbol_id 4, flags 4, index 8, stored_ns 8
 *   rings           symbols_max times ring_stride: head 8, 120 reserved, then ring_bars times 64 (a slot)
 *
 *   slot            bytes 0 to 55 as in bar.h, then one 64-bit word, the state:
 *                   bits 0-7 SHM_BAR_* flags, 8-31 lap (index / ring_bars, modulo 2^24), 32 busy, 33-63 amendments
 *
 * The first 64 bytes keep their places in every layout version. Any change here bumps SHM_LAYOUT_VERSION. */
#ifndef BARCAST_SHM_LAYOUT_H
#define BARCAST_SHM_LAYOUT_H

#include "shm/bar.h"
#include "shm/counters.h"
#include "shm/segment.h"
#include "shm/update_log.h"

#include <stdalign.h>
#include <stdatomic.h>

#define SHM_MAGIC UINT64_C(0x3154534143524142) /* "BARCAST1" */

enum { SHM_LINE = 64, SHM_PAGE = 4096, SHM_SLOT_WORDS = 8, SHM_STATE_WORD = 7, SHM_UPDATE_WORDS = 3, SHM_SCORE_WORDS = 4 };

#define SHM_STATE_FLAGS     UINT64_C(0xff)
#define SHM_STATE_LAP_SHIFT 8
#define SHM_STATE_LAP       (UINT64_C(0xffffff) << SHM_STATE_LAP_SHIFT)
#define SHM_STATE_BUSY      (UINT64_C(1) << 32)
#define SHM_STATE_AMENDMENT (UINT64_C(1) << 33)

typedef struct {
    _Atomic uint64_t word[SHM_SLOT_WORDS];
} shm_slot_t;

typedef struct {
    alignas(SHM_LINE) _Atomic uint64_t head;
    uint8_t reserved[120];
    shm_slot_t slots[];
} shm_ring_t;

typedef struct {
    _Atomic uint64_t word[SHM_UPDATE_WORDS]; /* a shm_update_t */
} shm_log_entry_t;

typedef struct {
    char name[SHM_SYMBOL_BYTES];
    _Atomic int64_t interval_ns;
    uint8_t reserved[24];
} shm_symbol_t;

typedef struct {
    _Atomic uint64_t magic;
    _Atomic uint32_t version;
    uint32_t header_bytes;
    uint64_t bytes;
    _Atomic uint64_t epoch;
    uint32_t symbols_max, ring_bars, log_entries;
    _Atomic uint32_t generation;
    _Atomic uint32_t writer_pid;
    uint32_t reserved;
    _Atomic uint64_t writer_start;
    uint64_t symbols_offset, index_offset, counters_offset, log_offset, rings_offset, ring_stride;
    alignas(128) _Atomic uint32_t symbol_count;
    alignas(128) _Atomic uint64_t journal_sequence;
    _Atomic uint64_t journal_symbol;
    _Atomic uint64_t journal_index;
    alignas(SHM_LINE) shm_slot_t journal_slot;
    alignas(128) _Atomic uint64_t log_head;
} shm_header_t;

/* A page of counters: a section of the segment, or all of an object "/barcast.<name>.<role>". */
#define SHM_PAGE_MAGIC    UINT64_C(0x3153544e554f4342) /* "BCOUNTS1" */
#define SHM_PAGE_COUNTERS 64

typedef struct {
    _Atomic uint64_t magic; /* stored last */
    _Atomic uint32_t version;
    uint32_t counter_count;
    _Atomic uint32_t owner_pid;
    uint32_t reserved;
    _Atomic uint64_t owner_start;
    uint8_t reserved_too[96];
    _Atomic uint64_t counters[SHM_PAGE_COUNTERS];
    _Atomic uint64_t latency[SHM_LATENCY_BUCKETS];
    _Atomic uint64_t scores[SHM_SCORES_MOST][SHM_SCORE_WORDS]; /* shm_score_t each */
} shm_page_t;

#define SHM_AT(type, field, offset) static_assert(offsetof(type, field) == (offset), "the byte table above")
static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4 && sizeof(_Atomic int64_t) == 8, "plain words");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics must not use a process-local lock");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the segment is little-endian");
static_assert(sizeof(shm_slot_t) == sizeof(shm_bar_t) && _Alignof(shm_slot_t) == 8, "a slot holds a bar");
SHM_AT(shm_bar_t, flags, SHM_STATE_WORD * 8);
SHM_AT(shm_bar_t, stamp, SHM_STATE_WORD * 8 + 4);
static_assert(sizeof(shm_log_entry_t) == 24 && sizeof(shm_update_t) == 24 && _Alignof(shm_log_entry_t) == 8, "a log entry");
SHM_AT(shm_update_t, symbol_id, 0);
SHM_AT(shm_update_t, flags, 4);
SHM_AT(shm_update_t, index, 8);
SHM_AT(shm_update_t, stored_ns, 16);
static_assert(sizeof(shm_ring_t) == 128 && _Alignof(shm_ring_t) == 64, "a ring's head");
SHM_AT(shm_ring_t, head, 0);
SHM_AT(shm_ring_t, slots, 128);
static_assert(sizeof(shm_symbol_t) == 64 && _Alignof(shm_symbol_t) == 8, "a symbol");
SHM_AT(shm_symbol_t, name, 0);
SHM_AT(shm_symbol_t, interval_ns, 32);
static_assert(sizeof(shm_header_t) == 512 && _Alignof(shm_header_t) == 128, "the header");
SHM_AT(shm_header_t, magic, 0);
SHM_AT(shm_header_t, version, 8);
SHM_AT(shm_header_t, header_bytes, 12);
SHM_AT(shm_header_t, bytes, 16);
SHM_AT(shm_header_t, epoch, 24);
SHM_AT(shm_header_t, symbols_max, 32);
SHM_AT(shm_header_t, ring_bars, 36);
SHM_AT(shm_header_t, log_entries, 40);
SHM_AT(shm_header_t, generation, 44);
SHM_AT(shm_header_t, writer_pid, 48);
SHM_AT(shm_header_t, writer_start, 56);
SHM_AT(shm_header_t, symbols_offset, 64);
SHM_AT(shm_header_t, index_offset, 72);
SHM_AT(shm_header_t, counters_offset, 80);
SHM_AT(shm_header_t, log_offset, 88);
SHM_AT(shm_header_t, rings_offset, 96);
SHM_AT(shm_header_t, ring_stride, 104);
SHM_AT(shm_header_t, symbol_count, 128);
SHM_AT(shm_header_t, journal_sequence, 256);
SHM_AT(shm_header_t, journal_symbol, 264);
SHM_AT(shm_header_t, journal_index, 272);
SHM_AT(shm_header_t, journal_slot, 320);
SHM_AT(shm_header_t, log_head, 384);
static_assert(sizeof(shm_score_t) == SHM_SCORE_WORDS * 8, "a score is so many words");
static_assert(sizeof(shm_page_t) == 2048 && _Alignof(shm_page_t) == 8, "a page of counters");
SHM_AT(shm_page_t, magic, 0);
SHM_AT(shm_page_t, version, 8);
SHM_AT(shm_page_t, counter_count, 12);
SHM_AT(shm_page_t, owner_pid, 16);
SHM_AT(shm_page_t, owner_start, 24);
SHM_AT(shm_page_t, counters, 128);
SHM_AT(shm_page_t, latency, 640);
static_assert(SHM_COUNTER_COUNT <= SHM_PAGE_COUNTERS, "room for every counter");

struct shm_counters {
    shm_page_t *page;
    bool owned; /* by this handle: leave ends the ownership */
};

/* The handle. Offsets come from the header once, at join; nothing in shared memory is trusted afterwards. */
struct shm_segment {
    shm_header_t *header;
    shm_symbol_t *symbols;
    _Atomic uint32_t *index;
    uint32_t index_mask;
    shm_log_entry_t *log;
    uint64_t log_mask;
    uint8_t *rings;
    uint64_t ring_stride;
    uint64_t ring_mask;
    uint32_t ring_shift; /* log2 of the capacity */
    size_t bytes;
    bool writer;
    int fd;              /* the writer's, to allocate a ring's memory with; -1 for a reader */
    int64_t stored_ns;   /* the writer's: the time that its next entries carry */
    uint32_t stored_for; /* how many more may */
    struct shm_counters counters;
};

static inline shm_ring_t *shm_ring_of(const shm_segment_t *segment, uint32_t id)
{
    return (shm_ring_t *)(void *)(segment->rings + id * segment->ring_stride);
}

/* update_log.c. A publish makes one entry; a restart outruns every reader (ring.c says why). */
void shm_log_append(shm_segment_t *segment, uint32_t id, uint32_t flags, uint64_t index);
void shm_log_restart(shm_segment_t *segment);

/* ring.c. Restores the bar whose amendment a killed writer has left half-done. */
void shm_ring_repair(shm_segment_t *segment);

/* counters.c. Makes `page` this process's own; all zero as well. */
void shm_page_own(shm_page_t *page);
void shm_page_start(shm_page_t *page);
/* Ends that: readers see a page without an owner. */
void shm_page_disown(shm_page_t *page);

#endif
