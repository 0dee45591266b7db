/* Counters that other processes read while their owner runs: no locks, no messages, nothing on the hot path but a relaxed store.
 *
 * Each process owns one page of 64-bit counters and is its only writer (one thread a counter). Ingest's page is in the segment;
 * the others may not write there, so scheduler and workers own small objects "/barcast.<name>.<role>" of the same layout (role:
 * "scheduler", "worker.0", ...). The ids below and the label table in counters.c are tied by a static assert; new ones go at the
 * end of their block. `barcast top`, `barcast shm` and the metrics exporter read them. */
#ifndef BARCAST_SHM_COUNTERS_H
#define BARCAST_SHM_COUNTERS_H

#include "shm/segment.h"

typedef enum {
    /* ingest */
    SHM_COUNTER_BARS_STORED, /* appended to a ring */
    SHM_COUNTER_BARS_AMENDED,
    SHM_COUNTER_BARS_FILLED,  /* made by the fill policy */
    SHM_COUNTER_BARS_HISTORY, /* of those stored: preloaded history */
    SHM_COUNTER_BAD_NOT_FINITE,
    SHM_COUNTER_BAD_HIGH_LOW,
    SHM_COUNTER_BAD_PRICE,
    SHM_COUNTER_BAD_VOLUME,
    SHM_COUNTER_BAD_DUPLICATE,
    SHM_COUNTER_BAD_OUT_OF_ORDER,
    SHM_COUNTER_BAD_FORMAT, /* a line or message that is no bar */
    SHM_COUNTER_BAD_SYMBOL, /* not a usable symbol, or the table is full */
    SHM_COUNTER_GAPS,
    SHM_COUNTER_FEEDS_OPEN,  /* gauge */
    SHM_COUNTER_LAST_BAR_NS, /* gauge: newest open time stored, ns since the epoch */
    /* scheduler */
    SHM_COUNTER_UPDATES_READ,
    SHM_COUNTER_LOG_OVERRUNS,
    SHM_COUNTER_SYMBOLS_DUE, /* gauge */
    SHM_COUNTER_BATCHES_SENT,
    SHM_COUNTER_SERIES_SENT,
    SHM_COUNTER_SERIES_DONE,
    SHM_COUNTER_SERIES_FAILED,
    SHM_COUNTER_SERIES_OVERTAKEN, /* due again before it was sent: newest wins */
    SHM_COUNTER_BATCHES_REDISPATCHED,
    SHM_COUNTER_DEADLINES_MISSED,
    SHM_COUNTER_WORKERS_ALIVE, /* gauge: READY and heard of */
    SHM_COUNTER_WORKERS_LOST,
    SHM_COUNTER_SYMBOLS_QUARANTINED, /* gauge */
    SHM_COUNTER_MESSAGES_REJECTED,
    SHM_COUNTER_IDLE, /* gauge: 1 when nothing is due and nothing is in flight */
    /* worker */
    SHM_COUNTER_BATCHES_RUN,
    SHM_COUNTER_FORECASTS,
    SHM_COUNTER_FORECASTS_FAILED,
    SHM_COUNTER_RING_OVERRUNS,
    SHM_COUNTER_PUBLISH_DROPS,
    SHM_COUNTER_SESSIONS_OPEN, /* gauge */
    SHM_COUNTER_COMPUTE_NS,    /* total time inside sessions */
    SHM_COUNTER_READY,         /* gauge: 1 once READY was said */
    SHM_COUNTER_GRAPH_CAPTURES,
    SHM_COUNTER_GRAPH_REPLAYS,
    SHM_COUNTER_COUNT
} shm_counter_t;

/* Latency histogram, bar stored to forecast published, in the page of a worker: bucket i counts values in [2^(i/4), 2^((i+1)/4))
 * us. */
#define SHM_LATENCY_BUCKETS 112

/* How the forecasts of a model have fared, in the page of a worker: one a model, by its place in the configuration. Means over scored values that
 * forget old ones exponentially; see gpuworker/scorer.h. */
enum { SHM_SCORES_MOST = 16 };
typedef struct {
    uint64_t scored;   /* values that have been compared with what was forecast for them, 0: none yet */
    double loss;       /* pinball loss, in units of each symbol's own one-step volatility */
    double naive_loss; /* of a random walk with trailing volatility, at the same values */
    double coverage;   /* share of values between the lowest and the highest level */
} shm_score_t;

typedef struct shm_counters shm_counters_t; /* process-local handle of one page */

/* Owner: makes (or takes over) the page "/barcast.<name>.<role>", all zero. SHM_ERR_BUSY while another owner lives. */
int shm_counters_create(const char *name, const char *role, shm_counters_t **out);
/* Reader: SHM_ERR_NOT_READY when there is none. */
int shm_counters_join(const char *name, const char *role, shm_counters_t **out);
/* Ingest's page inside the segment; the handle lives as long as the segment's. */
shm_counters_t *shm_counters_of_segment(shm_segment_t *segment);
void shm_counters_leave(shm_counters_t *counters);
int shm_counters_delete(const char *name, const char *role);

void shm_counter_add(shm_counters_t *counters, shm_counter_t id, uint64_t amount); /* owner */
void shm_counter_set(shm_counters_t *counters, shm_counter_t id, uint64_t value);  /* owner */
uint64_t shm_counter_get(const shm_counters_t *counters, shm_counter_t id);
const char *shm_counter_label(shm_counter_t id);           /* snake_case, without prefix */
uint32_t shm_counters_pid(const shm_counters_t *counters); /* of the owner; 0 after it left */
bool shm_counters_alive(const shm_counters_t *counters);   /* the owner runs */

void shm_latency_record(shm_counters_t *counters, int64_t latency_ns);                  /* owner */
void shm_score_set(shm_counters_t *counters, uint32_t model, const shm_score_t *score); /* owner */
/* While the owner writes, the words may be of two neighbouring states. */
void shm_score_get(const shm_counters_t *counters, uint32_t model, shm_score_t *out);

void shm_latency_snapshot(const shm_counters_t *counters, uint64_t buckets[SHM_LATENCY_BUCKETS]);
/* The quantile q in (0, 1) of a snapshot (or of several added up), in ns, upper edge of its bucket; 0 when empty. */
int64_t shm_latency_quantile(const uint64_t buckets[SHM_LATENCY_BUCKETS], double q);

#endif
