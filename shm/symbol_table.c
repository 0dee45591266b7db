/* The symbol table: names in the order of their ids, and a hash index over them so that looking one up does not grow with the
 * table. A symbol is there once symbol_count says so. What a killed writer left above the count does not exist: its index entry
 * counts as free, for nothing older was ever probed past it, until another symbol gets that id; then one of the spare entries
 * (there are at least as many as symbols) is wasted. */
#include "base/error.h"
#include "base/text.h"
#include "shm/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

static bool is_symbol_name(const char *symbol)
{
    size_t length = 0;
    while (symbol[length] > ' ' && symbol[length] <= '~')
        length++;
    return length > 0 && length < SHM_SYMBOL_BYTES && !symbol[length];
}

/* Walks the index from the name's place to the symbol or to a free entry. True when found; *entry is where it ended. */
static bool index_find(const shm_segment_t *segment, const char *symbol, uint32_t count, uint32_t *entry, uint32_t *id)
{
    uint32_t at = (uint32_t)text_hash64(symbol, strlen(symbol)) & segment->index_mask;
    for (;; at = (at + 1) & segment->index_mask) {
        uint32_t held =
            atomic_load_explicit(&segment->index[at], memory_order_relaxed); /* ordered by R1, which `count` came from */
        if (held == 0 || held > count)
            break;
        if (strcmp(segment->symbols[held - 1].name, symbol) == 0) {
            *id = held - 1;
            return true;
        }
    }
    *entry = at;
    return false;
}

uint32_t shm_symbol_count(const shm_segment_t *segment)
{
    return atomic_load_explicit(&segment->header->symbol_count, memory_order_acquire); /* R1: pairs with W1 in shm_symbol_add */
}

int shm_symbol_find(const shm_segment_t *segment, const char *symbol, uint32_t *id)
{
    uint32_t entry;
    return index_find(segment, symbol, shm_symbol_count(segment), &entry, id) ? SHM_OK : SHM_EMPTY;
}

/* A ring's pages are taken now: a full /dev/shm is an error here, and would be a SIGBUS in the middle of a bar. */
static int allocate_ring(const shm_segment_t *segment, uint32_t id)
{
    off_t offset = (off_t)(segment->header->rings_offset + id * segment->ring_stride);
    int error = posix_fallocate(segment->fd, offset, (off_t)segment->ring_stride);
    if (error)
        return error_set(SHM_ERR_SYSTEM, "no memory for a ring of %" PRIu64 " bars: %s", segment->ring_mask + 1, strerror(error));
    return SHM_OK;
}

int shm_symbol_add(shm_segment_t *segment, const char *symbol, int64_t interval_ns, uint32_t *id)
{
    if (!segment->writer)
        return error_set(SHM_ERR_INVALID, "only the segment's writer may add symbols");
    if (!symbol || !is_symbol_name(symbol))
        return error_set(SHM_ERR_INVALID, "\"%s\" is no symbol: 1 to %d printable ASCII characters without spaces",
                         symbol ? symbol : "", SHM_SYMBOL_BYTES - 1);
    if (interval_ns < 0)
        return error_set(SHM_ERR_INVALID, "%s: the interval is %" PRId64 " ns, expected 0 or more", symbol, interval_ns);

    uint32_t count = shm_symbol_count(segment), entry, found;
    if (index_find(segment, symbol, count, &entry, &found)) {
        if (interval_ns > 0)
            atomic_store_explicit(&segment->symbols[found].interval_ns, interval_ns, memory_order_relaxed); /* stands alone */
        *id = found;
        return SHM_OK;
    }
    if (count == segment->header->symbols_max)
        return error_set(SHM_ERR_FULL, "%s: the table is full with %" PRIu32 " symbols", symbol, count);
    int rc = allocate_ring(segment, count);
    if (rc < 0)
        return error_add(rc, "%s", symbol);

    memcpy(segment->symbols[count].name, symbol, strlen(symbol) + 1);
    atomic_store_explicit(&segment->symbols[count].interval_ns, interval_ns, memory_order_relaxed); /* ordered by W1 */
    atomic_store_explicit(&segment->index[entry], count + 1, memory_order_relaxed);                 /* ordered by W1 */
    atomic_store_explicit(&segment->header->symbol_count, count + 1, memory_order_release);         /* W1: pairs with R1 */
    *id = count;
    return SHM_OK;
}

const char *shm_symbol_name(const shm_segment_t *segment, uint32_t id)
{
    return id < shm_symbol_count(segment) ? segment->symbols[id].name : NULL;
}

int64_t shm_symbol_interval_ns(const shm_segment_t *segment, uint32_t id)
{
    if (id >= shm_symbol_count(segment))
        return 0;
    return atomic_load_explicit(&segment->symbols[id].interval_ns, memory_order_relaxed); /* stands alone */
}
