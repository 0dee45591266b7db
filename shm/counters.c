#include "base/error.h"
#include "shm/layout.h"
#include "shm/object.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* clang-format off */
static const char *const labels[] = {
    [SHM_COUNTER_BARS_STORED] = "bars_stored",
    [SHM_COUNTER_BARS_AMENDED] = "bars_amended",
    [SHM_COUNTER_BARS_FILLED] = "bars_filled",
    [SHM_COUNTER_BARS_HISTORY] = "bars_history",
    [SHM_COUNTER_BAD_NOT_FINITE] = "bad_not_finite",
    [SHM_COUNTER_BAD_HIGH_LOW] = "bad_high_low",
    [SHM_COUNTER_BAD_PRICE] = "bad_price",
    [SHM_COUNTER_BAD_VOLUME] = "bad_volume",
    [SHM_COUNTER_BAD_DUPLICATE] = "bad_duplicate",
    [SHM_COUNTER_BAD_OUT_OF_ORDER] = "bad_out_of_order",
    [SHM_COUNTER_BAD_FORMAT] = "bad_format",
    [SHM_COUNTER_BAD_SYMBOL] = "bad_symbol",
    [SHM_COUNTER_GAPS] = "gaps",
    [SHM_COUNTER_FEEDS_OPEN] = "feeds_open",
    [SHM_COUNTER_LAST_BAR_NS] = "last_bar_ns",
    [SHM_COUNTER_UPDATES_READ] = "updates_read",
    [SHM_COUNTER_LOG_OVERRUNS] = "log_overruns",
    [SHM_COUNTER_SYMBOLS_DUE] = "symbols_due",
    [SHM_COUNTER_BATCHES_SENT] = "batches_sent",
    [SHM_COUNTER_SERIES_SENT] = "series_sent",
    [SHM_COUNTER_SERIES_DONE] = "series_done",
    [SHM_COUNTER_SERIES_FAILED] = "series_failed",
    [SHM_COUNTER_SERIES_OVERTAKEN] = "series_overtaken",
    [SHM_COUNTER_BATCHES_REDISPATCHED] = "batches_redispatched",
    [SHM_COUNTER_DEADLINES_MISSED] = "deadlines_missed",
    [SHM_COUNTER_WORKERS_ALIVE] = "workers_alive",
    [SHM_COUNTER_WORKERS_LOST] = "workers_lost",
    [SHM_COUNTER_SYMBOLS_QUARANTINED] = "symbols_quarantined",
    [SHM_COUNTER_MESSAGES_REJECTED] = "messages_rejected",
    [SHM_COUNTER_IDLE] = "idle",
    [SHM_COUNTER_BATCHES_RUN] = "batches_run",
    [SHM_COUNTER_FORECASTS] = "forecasts",
    [SHM_COUNTER_FORECASTS_FAILED] = "forecasts_failed",
    [SHM_COUNTER_RING_OVERRUNS] = "ring_overruns",
    [SHM_COUNTER_PUBLISH_DROPS] = "publish_drops",
    [SHM_COUNTER_SESSIONS_OPEN] = "sessions_open",
    [SHM_COUNTER_COMPUTE_NS] = "compute_ns",
    [SHM_COUNTER_READY] = "ready",
    [SHM_COUNTER_GRAPH_CAPTURES] = "graph_captures",
    [SHM_COUNTER_GRAPH_REPLAYS] = "graph_replays",
};
/* clang-format on */
static_assert(sizeof labels / sizeof *labels == SHM_COUNTER_COUNT, "a label for every counter");

static bool page_owned(const shm_page_t *page)
{
    uint32_t pid = atomic_load_explicit(&page->owner_pid, memory_order_acquire); /* R1: pairs with W1 in shm_page_own */
    return shm_process_alive(pid, atomic_load_explicit(&page->owner_start, memory_order_relaxed)); /* ordered by R1 */
}

static bool is_page(const shm_page_t *page)
{
    return atomic_load_explicit(&page->magic, memory_order_acquire) == SHM_PAGE_MAGIC; /* R2: pairs with W2 in shm_page_start */
}

void shm_page_own(shm_page_t *page)
{
    uint32_t pid = (uint32_t)getpid();
    atomic_store_explicit(&page->owner_start, shm_process_start(pid), memory_order_relaxed); /* ordered by W1 */
    atomic_store_explicit(&page->owner_pid, pid, memory_order_release);                      /* W1: pairs with R1 in page_owned */
}

void shm_page_disown(shm_page_t *page)
{
    atomic_store_explicit(&page->owner_pid, 0, memory_order_release); /* W1: pairs with R1 in page_owned */
}

void shm_page_start(shm_page_t *page)
{
    shm_page_own(page);
    for (size_t i = 0; i < SHM_PAGE_COUNTERS; i++)
        atomic_store_explicit(&page->counters[i], 0, memory_order_relaxed); /* each stands alone */
    for (size_t i = 0; i < SHM_LATENCY_BUCKETS; i++)
        atomic_store_explicit(&page->latency[i], 0, memory_order_relaxed); /* each stands alone */
    for (size_t i = 0; i < SHM_SCORES_MOST * SHM_SCORE_WORDS; i++)
        atomic_store_explicit(&page->scores[i / SHM_SCORE_WORDS][i % SHM_SCORE_WORDS], 0, memory_order_relaxed); /* likewise */
    page->counter_count = SHM_COUNTER_COUNT;
    atomic_store_explicit(&page->version, SHM_LAYOUT_VERSION, memory_order_relaxed); /* ordered by W2 */
    atomic_store_explicit(&page->magic, SHM_PAGE_MAGIC, memory_order_release);       /* W2: pairs with R2 in shm_counters_join */
}

static int handle_new(shm_page_t *page, bool owned, shm_counters_t **out)
{
    shm_counters_t *counters = malloc(sizeof *counters);
    if (!counters) {
        munmap(page, sizeof *page);
        return error_set(SHM_ERR_SYSTEM, "out of memory");
    }
    *counters = (shm_counters_t){.page = page, .owned = owned};
    *out = counters;
    return SHM_OK;
}

int shm_counters_create(const char *name, const char *role, shm_counters_t **out)
{
    char path[SHM_PATH_BYTES];
    int fd;
    size_t bytes;
    int rc = shm_object_path(name, role, path);
    if (rc < 0 || (rc = shm_object_claim(path, &fd, &bytes)) < 0)
        return rc;
    shm_page_t *page = NULL;
    if (bytes < sizeof *page && ftruncate(fd, sizeof *page) < 0)
        rc = error_set(SHM_ERR_SYSTEM, "%s: cannot size: %s", path, strerror(errno));
    else if ((page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        rc = error_set(SHM_ERR_SYSTEM, "%s: cannot map: %s", path, strerror(errno));
    else if (is_page(page) && page_owned(page)) {
        rc = error_set(SHM_ERR_BUSY, "%s: belongs to the living process %u", path,
                       atomic_load_explicit(&page->owner_pid, memory_order_relaxed)); /* stands alone */
        munmap(page, sizeof *page);
    } else
        shm_page_start(page);
    close(fd);
    return rc < 0 ? rc : handle_new(page, true, out);
}

int shm_counters_join(const char *name, const char *role, shm_counters_t **out)
{
    char path[SHM_PATH_BYTES];
    const void *base;
    size_t bytes;
    int rc = shm_object_path(name, role, path);
    if (rc < 0 || (rc = shm_object_map(path, &base, &bytes)) < 0)
        return rc;
    shm_page_t *page = (shm_page_t *)(uintptr_t)base; /* the mapping is read-only; only an owner's handle writes */
    if (bytes < sizeof *page)
        rc = error_set(SHM_ERR_BAD_LAYOUT, "%s: %zu bytes, expected %zu", path, bytes, sizeof *page);
    else {
        uint64_t magic = atomic_load_explicit(&page->magic, memory_order_acquire); /* R2: pairs with W2 in shm_page_start */
        uint32_t version = atomic_load_explicit(&page->version, memory_order_relaxed);
        if (magic == 0)
            rc = error_set(SHM_ERR_NOT_READY, "%s: its creator has not finished", path);
        else if (magic != SHM_PAGE_MAGIC)
            rc = error_set(SHM_ERR_BAD_LAYOUT, "%s: no page of counters", path);
        else if (version != SHM_LAYOUT_VERSION || page->counter_count != SHM_COUNTER_COUNT)
            rc = error_set(SHM_ERR_WRONG_VERSION, "%s: version %u with %u counters, expected %d with %d", path, version,
                           page->counter_count, SHM_LAYOUT_VERSION, SHM_COUNTER_COUNT);
    }
    if (rc < 0) {
        munmap(page, bytes);
        return rc;
    }
    return handle_new(page, false, out);
}

shm_counters_t *shm_counters_of_segment(shm_segment_t *segment)
{
    return &segment->counters;
}

void shm_counters_leave(shm_counters_t *counters)
{
    if (!counters)
        return;
    if (counters->owned)
        shm_page_disown(counters->page);
    munmap(counters->page, sizeof *counters->page);
    free(counters);
}

int shm_counters_delete(const char *name, const char *role)
{
    char path[SHM_PATH_BYTES];
    int rc = shm_object_path(name, role, path);
    return rc < 0 ? rc : shm_object_unlink(path);
}

/* One thread writes a counter, so a load and a store do; each counter stands alone, so both are relaxed. */
static void word_add(_Atomic uint64_t *word, uint64_t amount)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + amount, memory_order_relaxed);
}

void shm_counter_add(shm_counters_t *counters, shm_counter_t id, uint64_t amount)
{
    word_add(&counters->page->counters[id], amount);
}

void shm_counter_set(shm_counters_t *counters, shm_counter_t id, uint64_t value)
{
    atomic_store_explicit(&counters->page->counters[id], value, memory_order_relaxed); /* stands alone */
}

uint64_t shm_counter_get(const shm_counters_t *counters, shm_counter_t id)
{
    return atomic_load_explicit(&counters->page->counters[id], memory_order_relaxed); /* stands alone */
}

const char *shm_counter_label(shm_counter_t id)
{
    return labels[id];
}

uint32_t shm_counters_pid(const shm_counters_t *counters)
{
    return atomic_load_explicit(&counters->page->owner_pid, memory_order_relaxed); /* stands alone */
}

bool shm_counters_alive(const shm_counters_t *counters)
{
    return page_owned(counters->page);
}

/* ---- latency histogram: four buckets an octave ------------------------------------------------------------------------------ */

static const double quarters[] = {1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429}; /* 2^(i/4) */

void shm_latency_record(shm_counters_t *counters, int64_t latency_ns)
{
    size_t bucket = 0; /* also for what is under 1 us */
    if (latency_ns > 1000) {
        int octave;
        double mantissa = 2 * frexp((double)latency_ns / 1000.0, &octave); /* in [1, 2) */
        bucket = 4 * (size_t)(octave - 1) + (mantissa >= quarters[1]) + (mantissa >= quarters[2]) + (mantissa >= quarters[3]);
    }
    if (bucket >= SHM_LATENCY_BUCKETS)
        bucket = SHM_LATENCY_BUCKETS - 1;
    word_add(&counters->page->latency[bucket], 1);
}

void shm_latency_snapshot(const shm_counters_t *counters, uint64_t buckets[SHM_LATENCY_BUCKETS])
{
    for (size_t i = 0; i < SHM_LATENCY_BUCKETS; i++)
        buckets[i] = atomic_load_explicit(&counters->page->latency[i], memory_order_relaxed); /* each stands alone */
}

int64_t shm_latency_quantile(const uint64_t buckets[SHM_LATENCY_BUCKETS], double q)
{
    uint64_t total = 0, seen = 0;
    for (size_t i = 0; i < SHM_LATENCY_BUCKETS; i++)
        total += buckets[i];
    for (size_t i = 0; i < SHM_LATENCY_BUCKETS; i++) {
        seen += buckets[i];
        if (seen > 0 && (double)seen >= q * (double)total)
            return (int64_t)(1000.0 * ldexp(quarters[(i + 1) % 4], (int)(i + 1) / 4));
    }
    return 0;
}

void shm_score_set(shm_counters_t *counters, uint32_t model, const shm_score_t *score)
{
    uint64_t words[SHM_SCORE_WORDS];
    memcpy(words, score, sizeof words);
    for (size_t i = 0; model < SHM_SCORES_MOST && i < SHM_SCORE_WORDS; i++)
        atomic_store_explicit(&counters->page->scores[model][i], words[i], memory_order_relaxed); /* each stands alone */
}

void shm_score_get(const shm_counters_t *counters, uint32_t model, shm_score_t *out)
{
    uint64_t words[SHM_SCORE_WORDS] = {0};
    for (size_t i = 0; model < SHM_SCORES_MOST && i < SHM_SCORE_WORDS; i++)
        words[i] = atomic_load_explicit(&counters->page->scores[model][i], memory_order_relaxed); /* each stands alone */
    memcpy(out, words, sizeof words);
}
