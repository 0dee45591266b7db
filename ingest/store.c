#include "ingest/store.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "ingest/symbols.h"
#include "ingest/timestamp.h"
#include "ingest/validation.h"
#include "shm/ring.h"
#include "shm/update_log.h"

#include <grp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPLAINT_INTERVAL_NS (10 * CLOCK_NS_PER_S)

/* The writer's own copy of what it needs of each ring, so that the usual bar is judged without reading shared memory. */
typedef struct {
    shm_bar_t newest; /* valid when has_newest */
    bool has_newest;
    int64_t interval_ns;
    int64_t resume_ns;
} track_t;

struct store {
    const config_t *config;
    shm_segment_t *segment;
    shm_counters_t *counters;
    bool rejoined;
    bool stored; /* something, since the last wake */
    symbols_t ids;
    track_t *tracks;       /* by symbol id */
    int64_t *missing_ns;   /* gap_fill_max open times */
    int64_t newest_bar_ns; /* of all symbols */
    log_limit_t limits[SHM_COUNTER_COUNT];
};

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

static int find_group(const char *name, int64_t *id)
{
    *id = -1;
    if (!name[0])
        return STORE_OK;
    const struct group *group = getgrnam(name);
    if (!group)
        return error_set(STORE_ERR, "shm group = %s: no such group", name);
    *id = (int64_t)group->gr_gid;
    return STORE_OK;
}

/* Takes over a symbol that is in the segment, old or just added. */
static int track_symbol(store_t *store, uint32_t id)
{
    track_t *track = &store->tracks[id];
    *track = (track_t){.interval_ns = shm_symbol_interval_ns(store->segment, id), .resume_ns = INT64_MIN};
    uint64_t head = shm_ring_head(store->segment, id), closed = shm_ring_closed(store->segment, id);
    shm_bar_t bar;
    if (head > 0)
        track->has_newest = shm_ring_read(store->segment, id, head - 1, &track->newest) == SHM_OK;
    if (closed > 0 && shm_ring_read(store->segment, id, closed - 1, &bar) == SHM_OK)
        track->resume_ns = bar.open_time_ns;
    if (!symbols_add(&store->ids, shm_symbol_name(store->segment, id), id))
        return error_set(STORE_ERR, "out of memory");
    return STORE_OK;
}

int store_open(const config_t *config, store_t **out)
{
    store_t *store = calloc(1, sizeof *store);
    if (!store)
        return error_set(STORE_ERR, "out of memory");
    store->config = config;
    shm_segment_options_t options = {.name = config->instance.name,
                                     .symbols_max = config->shm.symbols_max,
                                     .ring_bars = config->shm.ring_bars,
                                     .log_entries = config->shm.log_entries};
    int rc = find_group(config->shm.group, &options.group_id);
    if (rc == STORE_OK && shm_segment_create(&options, &store->segment, &store->rejoined) != SHM_OK)
        rc = error_add(STORE_ERR, "instance %s", config->instance.name);
    if (rc != STORE_OK)
        goto failed;
    store->counters = shm_counters_of_segment(store->segment);
    store->newest_bar_ns = (int64_t)shm_counter_get(store->counters, SHM_COUNTER_LAST_BAR_NS);
    store->tracks = calloc(options.symbols_max, sizeof *store->tracks);
    store->missing_ns = calloc((size_t)config->ingest.gap_fill_max + 1, sizeof *store->missing_ns);
    if (!store->tracks || !store->missing_ns)
        rc = error_set(STORE_ERR, "out of memory");
    for (uint32_t id = 0; rc == STORE_OK && id < shm_symbol_count(store->segment); id++)
        rc = track_symbol(store, id);
    if (rc != STORE_OK)
        goto failed;
    *out = store;
    return STORE_OK;

failed:
    store_close(store);
    return rc;
}

void store_close(store_t *store)
{
    if (!store)
        return;
    shm_segment_leave(store->segment);
    symbols_free(&store->ids);
    free(store->tracks);
    free(store->missing_ns);
    free(store);
}

bool store_rejoined(const store_t *store)
{
    return store->rejoined;
}

/* ---- counting -------------------------------------------------------------------------------------------------------------- */

static void complain(store_t *store, shm_counter_t kind, const char *feed, const char *reason)
{
    uint64_t more;
    if (!log_allow(&store->limits[kind], COMPLAINT_INTERVAL_NS, &more))
        return;
    /* A gap is news, not a fault: where markets close there is one every night. */
    char since[64] = "";
    if (more > 0)
        snprintf(since, sizeof since, " (and %llu more since the last such line)", (unsigned long long)more);
    log_line(kind == SHM_COUNTER_GAPS ? LOG_INFO : LOG_WARNING, "feed %s: %s: %s%s", feed, shm_counter_label(kind), reason, since);
}

void store_reject(store_t *store, shm_counter_t kind, const char *feed, const char *reason)
{
    shm_counter_add(store->counters, kind, 1);
    complain(store, kind, feed, reason);
}

static shm_counter_t counter_of(validation_t verdict)
{
    switch (verdict) {
    case VALIDATION_NOT_FINITE:
        return SHM_COUNTER_BAD_NOT_FINITE;
    case VALIDATION_HIGH_LOW:
        return SHM_COUNTER_BAD_HIGH_LOW;
    case VALIDATION_PRICE:
        return SHM_COUNTER_BAD_PRICE;
    case VALIDATION_VOLUME:
        return SHM_COUNTER_BAD_VOLUME;
    case VALIDATION_DUPLICATE:
        return SHM_COUNTER_BAD_DUPLICATE;
    default:
        return SHM_COUNTER_BAD_OUT_OF_ORDER;
    }
}

static void reject_bar(store_t *store, const char *feed, const source_bar_t *row, validation_t verdict)
{
    shm_counter_t kind = counter_of(verdict);
    const shm_bar_t *bar = &row->bar;
    char reason[256], at[TIMESTAMP_BYTES];
    timestamp_format(bar->open_time_ns, at);
    snprintf(reason, sizeof reason, "%s at %s (open %g, high %g, low %g, close %g, volume %g): %s", row->symbol, at, bar->open,
             bar->high, bar->low, bar->close, bar->volume, validation_text(verdict));
    store_reject(store, kind, feed, reason);
}

/* ---- storing --------------------------------------------------------------------------------------------------------------- */

int store_symbol(store_t *store, const char *feed, const source_bar_t *bar, uint32_t *id)
{
    if (symbols_find(&store->ids, bar->symbol, id))
        return STORE_OK;
    if (bar->interval_ns <= 0) {
        error_set(STORE_REFUSED, "%s: its interval is not known: set the feed's interval", bar->symbol);
        store_reject(store, SHM_COUNTER_BAD_FORMAT, feed, error_text());
        return STORE_REFUSED;
    }
    if (shm_symbol_add(store->segment, bar->symbol, bar->interval_ns, id) != SHM_OK || track_symbol(store, *id) != STORE_OK) {
        store_reject(store, SHM_COUNTER_BAD_SYMBOL, feed, error_text());
        return STORE_REFUSED;
    }
    return STORE_OK;
}

int64_t store_resume_ns(const store_t *store, uint32_t id)
{
    return store->tracks[id].resume_ns;
}

/* The stored bar with that open time, by bisection: open times in a ring ascend. */
static bool find_stored(const store_t *store, uint32_t id, int64_t open_time_ns, shm_bar_t *out)
{
    uint64_t low = shm_ring_oldest(store->segment, id), high = shm_ring_head(store->segment, id);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (shm_ring_read(store->segment, id, middle, out) != SHM_OK)
            return false;
        if (out->open_time_ns == open_time_ns)
            return true;
        if (out->open_time_ns < open_time_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static void append(store_t *store, uint32_t id, const shm_bar_t *bar, bool history)
{
    track_t *track = &store->tracks[id];
    shm_ring_append(store->segment, id, bar);
    track->newest = *bar;
    track->has_newest = true;
    store->stored = true;
    shm_counter_add(store->counters, SHM_COUNTER_BARS_STORED, 1);
    if (history)
        shm_counter_add(store->counters, SHM_COUNTER_BARS_HISTORY, 1);
    if (bar->open_time_ns > store->newest_bar_ns) {
        store->newest_bar_ns = bar->open_time_ns;
        shm_counter_set(store->counters, SHM_COUNTER_LAST_BAR_NS, (uint64_t)bar->open_time_ns);
    }
}

/* Stands in for an interval in which nothing was traded. */
static shm_bar_t filled_bar(const shm_bar_t *previous, int64_t open_time_ns)
{
    uint32_t unknown = previous->flags & (SHM_BAR_NO_VOLUME | SHM_BAR_NO_AMOUNT);
    return (shm_bar_t){.open_time_ns = open_time_ns,
                       .open = previous->close,
                       .high = previous->close,
                       .low = previous->close,
                       .close = previous->close,
                       .volume = unknown & SHM_BAR_NO_VOLUME ? NAN : 0,
                       .amount = unknown & SHM_BAR_NO_AMOUNT ? NAN : 0,
                       .flags = SHM_BAR_FILLED | unknown};
}

/* Appends a bar, and before it what the gap policy wants. */
static void append_after_gap(store_t *store, const char *feed, uint32_t id, const source_bar_t *row, bool history)
{
    const track_t *track = &store->tracks[id];
    uint64_t fill_most = store->config->ingest.gap == CONFIG_GAP_FILL ? store->config->ingest.gap_fill_max : 0;
    uint64_t missing = 0;
    shm_bar_t bar = row->bar;
    if (track->has_newest)
        missing =
            validation_missing(track->newest.open_time_ns, bar.open_time_ns, track->interval_ns, store->missing_ns, fill_most);
    if (missing > 0) {
        shm_counter_add(store->counters, SHM_COUNTER_GAPS, 1);
        char reason[128], at[TIMESTAMP_BYTES];
        timestamp_format(bar.open_time_ns, at);
        snprintf(reason, sizeof reason, "%s: %llu missing before %s", row->symbol, (unsigned long long)missing, at);
        complain(store, SHM_COUNTER_GAPS, feed, reason);
    }
    if (missing > fill_most) {
        bar.flags |= SHM_BAR_GAP;
    } else {
        for (uint64_t i = 0; i < missing; i++) {
            shm_bar_t filled = filled_bar(&track->newest, store->missing_ns[i]);
            append(store, id, &filled, history);
            shm_counter_add(store->counters, SHM_COUNTER_BARS_FILLED, 1);
        }
    }
    append(store, id, &bar, history);
}

/* Replaces a stored bar; that bars are missing before it stays true. */
static void amend(store_t *store, uint32_t id, const shm_bar_t *bar, const shm_bar_t *stored)
{
    track_t *track = &store->tracks[id];
    shm_bar_t amended = *bar;
    amended.flags |= stored->flags & SHM_BAR_GAP;
    shm_ring_amend(store->segment, id, &amended);
    if (amended.open_time_ns == track->newest.open_time_ns)
        track->newest = amended;
    store->stored = true;
    shm_counter_add(store->counters, SHM_COUNTER_BARS_AMENDED, 1);
}

void store_put(store_t *store, const char *feed, uint32_t id, const source_bar_t *row, bool history)
{
    const track_t *track = &store->tracks[id];
    const shm_bar_t *newest = track->has_newest ? &track->newest : NULL;
    shm_bar_t stored;
    bool has_stored = false;
    validation_t verdict = validation_fault(&row->bar);
    if (verdict == VALIDATION_NEW) {
        if (newest && row->bar.open_time_ns <= newest->open_time_ns)
            has_stored = find_stored(store, id, row->bar.open_time_ns, &stored);
        verdict = validation_place(&row->bar, newest, has_stored ? &stored : NULL);
    }
    if (validation_rejects(verdict))
        reject_bar(store, feed, row, verdict);
    else if (verdict == VALIDATION_NEW)
        append_after_gap(store, feed, id, row, history);
    else
        amend(store, id, &row->bar, &stored);
}

void store_wake(store_t *store)
{
    if (store->stored)
        shm_log_wake(store->segment);
    store->stored = false;
}

uint32_t store_symbol_count(const store_t *store)
{
    return shm_symbol_count(store->segment);
}

uint64_t store_counter(const store_t *store, shm_counter_t id)
{
    return shm_counter_get(store->counters, id);
}

void store_feeds_open(store_t *store, uint32_t count)
{
    shm_counter_set(store->counters, SHM_COUNTER_FEEDS_OPEN, count);
}
