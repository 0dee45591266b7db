#include "shm/segment.h"

#include "base/clock.h"
#include "base/error.h"
#include "shm/layout.h"
#include "shm/object.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *shm_result_name(int result)
{
    switch (result) {
    case SHM_OK:
        return "ok";
    case SHM_EMPTY:
        return "empty";
    case SHM_OVERRUN:
        return "overrun";
    case SHM_ERR_NOT_READY:
        return "not ready";
    case SHM_ERR_BAD_LAYOUT:
        return "bad layout";
    case SHM_ERR_WRONG_VERSION:
        return "wrong version";
    case SHM_ERR_STALE_WRITER:
        return "stale writer";
    case SHM_ERR_BUSY:
        return "busy";
    case SHM_ERR_FULL:
        return "full";
    case SHM_ERR_INVALID:
        return "invalid";
    case SHM_ERR_SYSTEM:
        return "system error";
    default:
        return "unknown";
    }
}

/* ---- shape ------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t symbols_max, ring_bars, log_entries;
    uint64_t symbols, index, counters, log, rings, ring_stride, bytes;
    uint32_t index_entries;
} shape_t;

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static bool is_power_of_two_in(uint32_t value, uint32_t least, uint32_t most)
{
    return value >= least && value <= most && (value & (value - 1)) == 0;
}

/* Where everything lies in a segment of this shape; false when the sizes are out of range. */
static bool shape_of(uint32_t symbols_max, uint32_t ring_bars, uint32_t log_entries, shape_t *shape)
{
    if (symbols_max < 1 || symbols_max > 65536 || !is_power_of_two_in(ring_bars, 64, 1048576) ||
        !is_power_of_two_in(log_entries, 1024, 16777216))
        return false;
    *shape = (shape_t){.symbols_max = symbols_max, .ring_bars = ring_bars, .log_entries = log_entries, .index_entries = 2};
    while (shape->index_entries < 2 * symbols_max)
        shape->index_entries *= 2;
    shape->symbols = sizeof(shm_header_t);
    shape->index = shape->symbols + symbols_max * sizeof(shm_symbol_t);
    shape->counters = round_up(shape->index + shape->index_entries * sizeof(uint32_t), SHM_LINE);
    shape->log = shape->counters + sizeof(shm_page_t);
    shape->rings = round_up(shape->log + (uint64_t)log_entries * sizeof(shm_log_entry_t), SHM_PAGE);
    shape->ring_stride = sizeof(shm_ring_t) + (uint64_t)ring_bars * sizeof(shm_slot_t);
    shape->bytes = round_up(shape->rings + symbols_max * shape->ring_stride, SHM_PAGE);
    return true;
}

/* ---- judging what is there --------------------------------------------------------------------------------------------------- */

static bool writer_alive(const shm_header_t *header)
{
    uint32_t pid = atomic_load_explicit(&header->writer_pid, memory_order_acquire); /* R1: pairs with W1 in own_segment */
    return shm_process_alive(pid, atomic_load_explicit(&header->writer_start, memory_order_relaxed)); /* ordered by R1 */
}

/* SHM_OK and *shape when `bytes` at `header` are a whole segment that this code understands; else NOT_READY, BAD_LAYOUT or
 * WRONG_VERSION. */
static int judge(const shm_header_t *header, size_t bytes, const char *path, shape_t *shape)
{
    if (bytes < sizeof *header)
        return error_set(SHM_ERR_BAD_LAYOUT, "%s: %zu bytes, too few for a header", path, bytes);
    uint64_t magic = atomic_load_explicit(&header->magic, memory_order_acquire); /* R2: pairs with W2 in fill_header */
    if (magic == 0)
        return error_set(SHM_ERR_NOT_READY, "%s: its creator has not finished", path);
    if (magic != SHM_MAGIC)
        return error_set(SHM_ERR_BAD_LAYOUT, "%s: magic %016" PRIx64 " is not a segment's", path, magic);
    uint32_t version = atomic_load_explicit(&header->version, memory_order_relaxed); /* ordered by R2 */
    if (version != SHM_LAYOUT_VERSION)
        return error_set(SHM_ERR_WRONG_VERSION, "%s: layout version %" PRIu32 ", expected %d", path, version, SHM_LAYOUT_VERSION);
    if (!shape_of(header->symbols_max, header->ring_bars, header->log_entries, shape))
        return error_set(SHM_ERR_BAD_LAYOUT, "%s: %" PRIu32 " symbols, %" PRIu32 " bars, %" PRIu32 " log entries are out of range",
                         path, header->symbols_max, header->ring_bars, header->log_entries);
    if (header->header_bytes != sizeof *header || header->bytes != shape->bytes || bytes != shape->bytes ||
        header->symbols_offset != shape->symbols || header->index_offset != shape->index ||
        header->counters_offset != shape->counters || header->log_offset != shape->log || header->rings_offset != shape->rings ||
        header->ring_stride != shape->ring_stride ||
        atomic_load_explicit(&header->symbol_count, memory_order_relaxed) > shape->symbols_max)
        return error_set(SHM_ERR_BAD_LAYOUT, "%s: sizes and offsets do not fit together (%zu bytes, expected %" PRIu64 ")", path,
                         bytes, shape->bytes);
    return SHM_OK;
}

static int handle_new(void *base, const shape_t *shape, shm_segment_t **out)
{
    shm_segment_t *segment = malloc(sizeof *segment);
    if (!segment)
        return error_set(SHM_ERR_SYSTEM, "out of memory");
    uint8_t *at = base;
    *segment = (shm_segment_t){
        .header = base,
        .symbols = (shm_symbol_t *)(void *)(at + shape->symbols),
        .index = (_Atomic uint32_t *)(void *)(at + shape->index),
        .index_mask = shape->index_entries - 1,
        .log = (shm_log_entry_t *)(void *)(at + shape->log),
        .log_mask = shape->log_entries - 1,
        .rings = at + shape->rings,
        .ring_stride = shape->ring_stride,
        .ring_mask = shape->ring_bars - 1,
        .ring_shift = (uint32_t)__builtin_ctz(shape->ring_bars),
        .bytes = shape->bytes,
        .fd = -1,
        .counters = {.page = (shm_page_t *)(void *)(at + shape->counters)},
    };
    *out = segment;
    return SHM_OK;
}

/* ---- writer ------------------------------------------------------------------------------------------------------------------ */

static void *map_writable(int fd, size_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static int set_access(int fd, int64_t group_id)
{
    if (group_id >= 0 && fchown(fd, (uid_t)-1, (gid_t)group_id) < 0)
        return error_set(SHM_ERR_SYSTEM, "cannot give it to group %" PRId64 ": %s", group_id, strerror(errno));
    if (fchmod(fd, group_id >= 0 ? 0640 : 0600) < 0)
        return error_set(SHM_ERR_SYSTEM, "cannot set its mode: %s", strerror(errno));
    return SHM_OK;
}

/* From here on other creators and all readers see a living writer. */
static void own_segment(shm_header_t *header)
{
    uint32_t pid = (uint32_t)getpid();
    atomic_store_explicit(&header->writer_start, shm_process_start(pid), memory_order_relaxed); /* ordered by W1 */
    atomic_store_explicit(&header->writer_pid, pid, memory_order_release); /* W1: pairs with R1 in writer_alive */
}

static void fill_header(shm_header_t *header, const shape_t *shape)
{
    header->header_bytes = sizeof *header;
    header->bytes = shape->bytes;
    header->symbols_max = shape->symbols_max;
    header->ring_bars = shape->ring_bars;
    header->log_entries = shape->log_entries;
    header->symbols_offset = shape->symbols;
    header->index_offset = shape->index;
    header->counters_offset = shape->counters;
    header->log_offset = shape->log;
    header->rings_offset = shape->rings;
    header->ring_stride = shape->ring_stride;
    atomic_store_explicit(&header->epoch, (uint64_t)clock_realtime_ns(), memory_order_relaxed); /* ordered by W2 */
    atomic_store_explicit(&header->generation, 1, memory_order_relaxed);                        /* ordered by W2 */
    own_segment(header);
    atomic_store_explicit(&header->version, SHM_LAYOUT_VERSION, memory_order_relaxed); /* ordered by W2 */
    atomic_store_explicit(&header->magic, SHM_MAGIC, memory_order_release);            /* W2: pairs with R2 in judge */
}

/* Makes the segment in an empty object. The pages before the rings are allocated now, a ring's with its symbol. */
static int make(int fd, const shape_t *shape, int64_t group_id, shm_segment_t **out)
{
    int rc = set_access(fd, group_id);
    if (rc < 0)
        return rc;
    if (ftruncate(fd, (off_t)shape->bytes) < 0)
        return error_set(SHM_ERR_SYSTEM, "cannot size it to %" PRIu64 " bytes: %s", shape->bytes, strerror(errno));
    int error = posix_fallocate(fd, 0, (off_t)shape->rings);
    if (error)
        return error_set(SHM_ERR_SYSTEM, "no memory for %" PRIu64 " bytes: %s", shape->rings, strerror(error));
    void *base = map_writable(fd, shape->bytes);
    if (base == MAP_FAILED)
        return error_set(SHM_ERR_SYSTEM, "cannot map: %s", strerror(errno));
    rc = handle_new(base, shape, out);
    if (rc < 0) {
        munmap(base, shape->bytes);
        return rc;
    }
    shm_page_start((*out)->counters.page);
    fill_header(base, shape);
    return SHM_OK;
}

/* Goes on in the segment of a dead writer. Each step may be cut off and is done again by the next re-join. */
static int rejoin(int fd, const shape_t *shape, int64_t group_id, shm_header_t *header, shm_segment_t **out)
{
    int rc = set_access(fd, group_id);
    if (rc < 0 || (rc = handle_new(header, shape, out)) < 0)
        return rc;
    own_segment(header);
    shm_page_own((*out)->counters.page);
    shm_ring_repair(*out);
    uint32_t generation = atomic_load_explicit(&header->generation, memory_order_relaxed);
    atomic_store_explicit(&header->generation, generation + 1, memory_order_relaxed); /* stands alone */
    shm_log_restart(*out);
    return SHM_OK;
}

enum { REPLACE = 1 }; /* an answer of take_over: what is there is of no use, and nobody's */

static int take_over(int fd, size_t bytes, const char *path, const shape_t *wanted, int64_t group_id, shm_segment_t **out)
{
    shm_header_t *header = map_writable(fd, bytes);
    if (header == MAP_FAILED)
        return error_set(SHM_ERR_SYSTEM, "cannot map: %s", strerror(errno));
    shape_t found;
    int rc = judge(header, bytes, path, &found);
    /* The first 64 bytes mean the same in every version. */
    bool ours = bytes >= sizeof *header && atomic_load_explicit(&header->magic, memory_order_relaxed) == SHM_MAGIC; /* after R2 */
    if (ours && writer_alive(header))
        rc = error_set(SHM_ERR_BUSY, "its writer, process %" PRIu32 ", is alive",
                       atomic_load_explicit(&header->writer_pid, memory_order_relaxed));
    else if (rc == SHM_OK && header->symbols_max == wanted->symbols_max && header->ring_bars == wanted->ring_bars &&
             header->log_entries == wanted->log_entries)
        rc = rejoin(fd, wanted, group_id, header, out);
    else {
        if (ours)
            atomic_store_explicit(&header->epoch, 0, memory_order_relaxed); /* stands alone: tells who still maps it */
        rc = REPLACE;
    }
    if (rc != SHM_OK)
        munmap(header, bytes);
    return rc;
}

int shm_segment_create(const shm_segment_options_t *options, shm_segment_t **out, bool *rejoined)
{
    char path[SHM_PATH_BYTES];
    shape_t shape;
    int rc = shm_object_path(options->name, NULL, path);
    if (rc < 0)
        return rc;
    if (!shape_of(options->symbols_max, options->ring_bars, options->log_entries, &shape))
        return error_set(SHM_ERR_INVALID,
                         "%s: %" PRIu32 " symbols, %" PRIu32 " bars a ring, %" PRIu32
                         " log entries: expected 1 to 65536, and powers of two "
                         "from 64 to 1048576 and from 1024 to 16777216",
                         options->name, options->symbols_max, options->ring_bars, options->log_entries);
    for (;;) {
        int fd;
        size_t bytes;
        rc = shm_object_claim(path, &fd, &bytes);
        if (rc < 0)
            return rc;
        shm_segment_t *segment = NULL;
        rc = bytes == 0 ? make(fd, &shape, options->group_id, &segment)
                        : take_over(fd, bytes, path, &shape, options->group_id, &segment);
        if (rc == SHM_OK) {
            segment->writer = true;
            segment->fd = fd;
            flock(fd, LOCK_UN); /* the header names the owner now; children of a fork must not keep the lock */
            *rejoined = bytes > 0;
            *out = segment;
            return SHM_OK;
        }
        if (rc == REPLACE || bytes == 0) { /* never shrunk: a reader may be looking at it */
            int removed = shm_object_unlink(path);
            rc = removed < 0 ? removed : rc;
        }
        close(fd);
        if (rc < 0)
            return error_add(rc, "%s", path);
    }
}

void shm_segment_leave(shm_segment_t *segment)
{
    if (!segment)
        return;
    if (segment->writer) {
        shm_page_disown(segment->counters.page);
        atomic_store_explicit(&segment->header->writer_pid, 0, memory_order_release); /* W1: pairs with R1 in writer_alive */
        close(segment->fd);
    }
    munmap(segment->header, segment->bytes);
    free(segment);
}

int shm_segment_delete(const char *name)
{
    char path[SHM_PATH_BYTES];
    int rc = shm_object_path(name, NULL, path);
    return rc < 0 ? rc : shm_object_unlink(path);
}

/* ---- reader ------------------------------------------------------------------------------------------------------------------ */

int shm_segment_join(const char *name, shm_segment_t **out)
{
    char path[SHM_PATH_BYTES];
    const void *base;
    size_t bytes;
    int rc = shm_object_path(name, NULL, path);
    if (rc < 0 || (rc = shm_object_map(path, &base, &bytes)) < 0)
        return rc;
    void *mapping = (void *)(uintptr_t)base; /* read-only; only a writer's handle stores */
    shape_t shape;
    rc = judge(base, bytes, path, &shape);
    if (rc == SHM_OK)
        rc = handle_new(mapping, &shape, out);
    if (rc < 0) {
        munmap(mapping, bytes);
        return rc;
    }
    const shm_header_t *header = base;
    if (!writer_alive(header))
        return error_set(SHM_ERR_STALE_WRITER, "%s: its writer is gone", path);
    return SHM_OK;
}

void shm_segment_info(const shm_segment_t *segment, shm_segment_info_t *out)
{
    const shm_header_t *header = segment->header;
    *out = (shm_segment_info_t){
        .epoch = atomic_load_explicit(&header->epoch, memory_order_relaxed), /* each of these stands alone */
        .writer_pid = atomic_load_explicit(&header->writer_pid, memory_order_relaxed),
        .writer_generation = atomic_load_explicit(&header->generation, memory_order_relaxed),
        .writer_alive = writer_alive(header),
        .symbols_max = header->symbols_max,
        .ring_bars = (uint32_t)segment->ring_mask + 1,
        .log_entries = (uint32_t)segment->log_mask + 1,
        .bytes = segment->bytes,
    };
}

const void *shm_segment_base(const shm_segment_t *segment, size_t *bytes)
{
    *bytes = segment->bytes;
    return segment->header;
}
