/* All counters of an instance at one moment, copied out of the segment and the processes' pages: what `run`, `top` and `bench` look at. */
#ifndef BARCAST_TOOLS_SNAPSHOT_H
#define BARCAST_TOOLS_SNAPSHOT_H

#include "config/config.h"
#include "shm/counters.h"

enum { SNAPSHOT_WORKERS_MOST = 64 };

typedef struct {
    bool present; /* the page exists; all zero otherwise */
    bool alive;   /* its owner runs */
    uint32_t pid;
    uint64_t counter[SHM_COUNTER_COUNT];
    uint64_t latency[SHM_LATENCY_BUCKETS]; /* workers */
    shm_score_t score[SHM_SCORES_MOST];    /* workers: of each model */
} snapshot_page_t;

typedef struct {
    int64_t taken_ns; /* clock_monotonic_ns */
    bool segment;     /* it exists and is readable */
    shm_segment_info_t info;
    uint32_t symbols;
    snapshot_page_t ingest, scheduler;
    uint32_t worker_count;
    snapshot_page_t worker[SNAPSHOT_WORKERS_MOST];
} snapshot_t;

/* What does not exist is not `present`: no error. */
void snapshot_take(const char *instance, uint32_t worker_count, snapshot_t *out);
void snapshot_page_take(const char *instance, const char *role, snapshot_page_t *out);

/* *total += page: counters and latencies; of scores the means, weighed by what each worker has scored. */
void snapshot_page_add(snapshot_page_t *total, const snapshot_page_t *page);

/* Bars that were rejected, of all kinds. */
uint64_t snapshot_rejects(const snapshot_page_t *ingest);

#endif
