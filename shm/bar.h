/* The bar: what lies in a ring, what a feed hands in, what a reader gets out. 64 bytes, one cache line.
 *
 *   offset  bytes  field
 *        0      8  open_time_ns   int64, start of the bar's interval, ns since the Unix epoch, UTC; the bar's key with its symbol
 *        8     40  open, high, low, close, volume     double; prices as the feed gives them, volume in units traded
 *       48      8  amount         double, turnover in the quote currency; NaN when the feed has none (SHM_BAR_NO_AMOUNT)
 *       56      4  flags          SHM_BAR_*
 *       60      4  stamp          the slot's sequence lock inside a ring (ring.h); 0 elsewhere */
#ifndef BARCAST_SHM_BAR_H
#define BARCAST_SHM_BAR_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SHM_BAR_IN_PROGRESS = 1u << 0, /* the interval has not ended: only the newest bar of a ring may carry it */
    SHM_BAR_AMENDED = 1u << 1,     /* published more than once after it closed */
    SHM_BAR_GAP = 1u << 2,         /* one or more intervals are missing before this bar */
    SHM_BAR_FILLED = 1u << 3,      /* not traded: made by the fill policy, previous close, zero volume */
    SHM_BAR_NO_VOLUME = 1u << 4,   /* volume unknown (stored as NaN) */
    SHM_BAR_NO_AMOUNT = 1u << 5,   /* amount unknown (stored as NaN) */
};

typedef struct {
    int64_t open_time_ns;
    double open;
    double high;
    double low;
    double close;
    double volume;
    double amount;
    uint32_t flags;
    uint32_t stamp;
} shm_bar_t;

static_assert(sizeof(shm_bar_t) == 64 && _Alignof(shm_bar_t) == 8, "a bar is one cache line");
static_assert(offsetof(shm_bar_t, open_time_ns) == 0 && offsetof(shm_bar_t, open) == 8 && offsetof(shm_bar_t, high) == 16 &&
                  offsetof(shm_bar_t, low) == 24 && offsetof(shm_bar_t, close) == 32 && offsetof(shm_bar_t, volume) == 40 &&
                  offsetof(shm_bar_t, amount) == 48 && offsetof(shm_bar_t, flags) == 56 && offsetof(shm_bar_t, stamp) == 60,
              "the byte table above");

/* The numbers of a bar by name, in the order in which they lie in it. */
enum { SHM_BAR_FIELDS = 6 };

typedef struct {
    const char *name;
    size_t offset; /* of a double in shm_bar_t */
    bool price;
} shm_bar_field_t;

extern const shm_bar_field_t shm_bar_fields[SHM_BAR_FIELDS]; /* open, high, low, close, volume, amount */

double shm_bar_value(const shm_bar_t *bar, const shm_bar_field_t *field);

#endif
