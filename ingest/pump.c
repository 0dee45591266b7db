#include "ingest/pump.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "ingest/pacing.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BURST_BARS = 4096 }; /* before the other feeds have their turn and readers are woken */

/* How far one feed is with one symbol. */
typedef struct {
    bool met;
    bool resuming;   /* still among bars that the ring had when it was re-joined */
    uint32_t handed; /* closed bars, by the source, rejected ones included */
} progress_t;

typedef struct {
    const config_feed_t *config;
    source_t *source; /* NULL: exhausted or broken */
    int descriptor;   /* of a live source; -1: a file */
    pacing_t pacing;
    progress_t *progress; /* by symbol id */
    bool resuming;        /* no new bar has come since the re-join: what is malformed was counted before */
    bool has_next;
    source_bar_t next; /* read and not stored yet */
    uint32_t next_id;
} feed_t;

struct pump {
    store_t *store;
    feed_t *feeds;
    uint32_t feed_count, open_count;
    bool broken;
};

/* ---- feeds ----------------------------------------------------------------------------------------------------------------- */

static int feed_open(feed_t *feed, const config_feed_t *config, const store_t *store, uint32_t symbols_max)
{
    *feed = (feed_t){.config = config, .resuming = store_rejoined(store)};
    feed->pacing = (pacing_t){.speed = config->speed, .steps_per_second = config->bars_per_second};
    feed->progress = calloc(symbols_max, sizeof *feed->progress);
    if (!feed->progress)
        return error_set(PUMP_ERR_SYSTEM, "out of memory");
    if (source_open(config, &feed->source) != SOURCE_OK)
        return PUMP_ERR_FEED;
    feed->descriptor = source_descriptor(feed->source);
    if (feed->descriptor >= 0 && config->type == CONFIG_FEED_NDJSON && config->interval_ns == 0)
        return error_set(PUMP_ERR_FEED, "bars from stdin need an interval: set interval");
    return PUMP_OK;
}

static void feed_close(pump_t *pump, feed_t *feed)
{
    source_close(feed->source);
    feed->source = NULL;
    store_feeds_open(pump->store, --pump->open_count);
}

/* Whether the bar is still to be stored: not one that the ring had when it was re-joined, nor beyond bars_max. Live feeds send
 * what is new. */
static bool feed_wants(const pump_t *pump, feed_t *feed, const source_bar_t *bar, uint32_t id)
{
    progress_t *progress = &feed->progress[id];
    int64_t resume_ns = store_resume_ns(pump->store, id);
    if (!progress->met) {
        progress->met = true;
        progress->resuming = feed->descriptor < 0 && resume_ns != INT64_MIN;
    }
    if (feed->config->bars_max && progress->handed >= feed->config->bars_max)
        return false;
    progress->handed += !(bar->bar.flags & SHM_BAR_IN_PROGRESS);
    if (progress->resuming) {
        progress->resuming = bar->bar.open_time_ns < resume_ns;
        return bar->bar.open_time_ns > resume_ns;
    }
    return true;
}

/* Asks the source once, unless a bar is waiting. SOURCE_OK: feed->next is to be stored. SOURCE_BAD: not this one, ask again.
 * SOURCE_WAIT, or SOURCE_END when that closed the feed. */
static int feed_fetch(pump_t *pump, feed_t *feed)
{
    const char *name = feed->config->name;
    if (feed->has_next)
        return SOURCE_OK;
    int rc = source_next(feed->source, &feed->next);
    switch (rc) {
    case SOURCE_OK:
        if (store_symbol(pump->store, name, &feed->next, &feed->next_id) != STORE_OK ||
            !feed_wants(pump, feed, &feed->next, feed->next_id))
            return SOURCE_BAD;
        feed->has_next = true;
        feed->resuming = false;
        return SOURCE_OK;
    case SOURCE_BAD:
        if (!feed->resuming || feed->descriptor >= 0)
            store_reject(pump->store, SHM_COUNTER_BAD_FORMAT, name, error_text());
        return SOURCE_BAD;
    case SOURCE_WAIT:
        return SOURCE_WAIT;
    default:
        if (rc < 0) {
            log_error("feed %s: %s", name, error_text());
            pump->broken = true;
        }
        feed_close(pump, feed);
        return SOURCE_END;
    }
}

static bool is_history(const feed_t *feed)
{
    return feed->descriptor < 0 && feed->progress[feed->next_id].handed <= feed->config->history_bars;
}

static void feed_store(pump_t *pump, feed_t *feed)
{
    store_put(pump->store, feed->config->name, feed->next_id, &feed->next, is_history(feed));
    feed->has_next = false;
}

/* Stores what is due, at most a burst. Returns when there is more to do: INT64_MIN at once, INT64_MAX when poll or nobody knows. */
static int64_t feed_run(pump_t *pump, feed_t *feed, int64_t now_ns)
{
    for (int burst = 0; burst < BURST_BARS; burst++) {
        int rc = feed_fetch(pump, feed);
        if (rc == SOURCE_BAD)
            continue;
        if (rc != SOURCE_OK)
            return INT64_MAX;
        if (feed->descriptor < 0) {
            int64_t deadline_ns = pacing_deadline_ns(&feed->pacing, feed->next.bar.open_time_ns, now_ns);
            if (deadline_ns > now_ns)
                return deadline_ns;
        }
        feed_store(pump, feed);
    }
    return INT64_MIN;
}

/* ---- the loop -------------------------------------------------------------------------------------------------------------- */

int pump_open(const config_t *config, store_t *store, pump_t **out)
{
    pump_t *pump = calloc(1, sizeof *pump);
    if (!pump || !(pump->feeds = calloc(config->feed_count + 1, sizeof *pump->feeds))) {
        free(pump);
        return error_set(PUMP_ERR_SYSTEM, "out of memory");
    }
    pump->store = store;
    for (uint32_t i = 0; i < config->feed_count; i++) {
        pump->feed_count++;
        int rc = feed_open(&pump->feeds[i], &config->feeds[i], store, config->shm.symbols_max);
        if (rc != PUMP_OK) {
            pump_close(pump);
            return error_add(rc, "feed %s", config->feeds[i].name);
        }
    }
    pump->open_count = pump->feed_count;
    store_feeds_open(store, pump->open_count);
    *out = pump;
    return PUMP_OK;
}

void pump_close(pump_t *pump)
{
    if (!pump)
        return;
    for (uint32_t i = 0; i < pump->feed_count; i++) {
        source_close(pump->feeds[i].source);
        free(pump->feeds[i].progress);
    }
    free(pump->feeds);
    free(pump);
}

static bool is_readable(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, 0) > 0;
}

int pump_preload(pump_t *pump, int signal_fd)
{
    for (uint32_t i = 0; i < pump->feed_count; i++) {
        feed_t *feed = &pump->feeds[i];
        for (uint32_t asked = 1; feed->source && feed->descriptor < 0; asked++) {
            if (feed_fetch(pump, feed) == SOURCE_OK) {
                if (!is_history(feed))
                    break;
                feed_store(pump, feed);
            }
            if (asked % BURST_BARS == 0 && is_readable(signal_fd))
                return PUMP_STOPPED;
        }
    }
    store_wake(pump->store);
    return PUMP_OK;
}

/* Gives each feed its turn; returns when the earliest wants the next one. */
static int64_t run_feeds(pump_t *pump, bool held)
{
    int64_t now_ns = clock_monotonic_ns(), next_ns = INT64_MAX;
    for (uint32_t i = 0; i < pump->feed_count; i++) {
        feed_t *feed = &pump->feeds[i];
        if (!feed->source || (held && feed->descriptor < 0))
            continue;
        int64_t wanted_ns = feed_run(pump, feed, now_ns);
        if (wanted_ns < next_ns)
            next_ns = wanted_ns;
    }
    store_wake(pump->store);
    return next_ns;
}

/* Waits for input until next_ns. */
static int wait_for(struct pollfd *waits, nfds_t count, int64_t next_ns)
{
    struct timespec timeout = {0};
    int64_t left_ns = next_ns == INT64_MIN ? 0 : next_ns - clock_monotonic_ns();
    if (left_ns > 0)
        timeout = (struct timespec){.tv_sec = left_ns / CLOCK_NS_PER_S, .tv_nsec = left_ns % CLOCK_NS_PER_S};
    if (ppoll(waits, count, next_ns == INT64_MAX ? NULL : &timeout, NULL) < 0 && errno != EINTR)
        return error_set(PUMP_ERR_SYSTEM, "poll: %s", strerror(errno));
    return PUMP_OK;
}

int pump_run(pump_t *pump, int hold_fd, int signal_fd)
{
    enum { SIGNAL, HOLD, FEEDS };
    struct pollfd waits[FEEDS + CONFIG_FEEDS_MOST];
    for (;;) {
        int64_t next_ns = run_feeds(pump, hold_fd >= 0);
        if (pump->open_count == 0)
            return pump->broken ? error_set(PUMP_ERR_FEED, "a feed broke") : PUMP_OK;
        waits[SIGNAL] = (struct pollfd){.fd = signal_fd, .events = POLLIN};
        waits[HOLD] = (struct pollfd){.fd = hold_fd, .events = POLLIN};
        for (uint32_t i = 0; i < pump->feed_count; i++) /* poll passes over what is negative: files and exhausted feeds */
            waits[FEEDS + i] = (struct pollfd){.fd = pump->feeds[i].source ? pump->feeds[i].descriptor : -1, .events = POLLIN};
        int rc = wait_for(waits, FEEDS + pump->feed_count, next_ns);
        if (rc != PUMP_OK)
            return rc;
        if (waits[SIGNAL].revents)
            return PUMP_STOPPED;
        if (waits[HOLD].revents) {
            char byte;
            if (read(hold_fd, &byte, 1) < 0 && (errno == EINTR || errno == EAGAIN))
                continue;
            hold_fd = -1;
        }
    }
}
