#include "tools/snapshot.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

static void copy_page(const shm_counters_t *counters, snapshot_page_t *out)
{
    out->present = true;
    out->alive = shm_counters_alive(counters);
    out->pid = shm_counters_pid(counters);
    for (int i = 0; i < SHM_COUNTER_COUNT; i++)
        out->counter[i] = shm_counter_get(counters, (shm_counter_t)i);
    shm_latency_snapshot(counters, out->latency);
    for (uint32_t i = 0; i < SHM_SCORES_MOST; i++)
        shm_score_get(counters, i, &out->score[i]);
}

void snapshot_page_take(const char *instance, const char *role, snapshot_page_t *out)
{
    memset(out, 0, sizeof *out);
    shm_counters_t *counters;
    if (shm_counters_join(instance, role, &counters) != SHM_OK)
        return;
    copy_page(counters, out);
    shm_counters_leave(counters);
}

static void take_segment(const char *instance, snapshot_t *out)
{
    shm_segment_t *segment;
    int rc = shm_segment_join(instance, &segment);
    if (rc != SHM_OK && rc != SHM_ERR_STALE_WRITER)
        return;
    out->segment = true;
    shm_segment_info(segment, &out->info);
    out->symbols = shm_symbol_count(segment);
    copy_page(shm_counters_of_segment(segment), &out->ingest);
    out->ingest.pid = out->info.writer_pid;
    out->ingest.alive = out->info.writer_alive;
    shm_segment_leave(segment);
}

void snapshot_take(const char *instance, uint32_t worker_count, snapshot_t *out)
{
    memset(out, 0, sizeof *out);
    out->taken_ns = clock_monotonic_ns();
    out->worker_count = worker_count < SNAPSHOT_WORKERS_MOST ? worker_count : SNAPSHOT_WORKERS_MOST;
    take_segment(instance, out);
    snapshot_page_take(instance, "scheduler", &out->scheduler);
    for (uint32_t i = 0; i < out->worker_count; i++) {
        char role[32];
        snprintf(role, sizeof role, "worker.%u", i);
        snapshot_page_take(instance, role, &out->worker[i]);
    }
}

static double mean_of(double a, uint64_t a_count, double b, uint64_t b_count)
{
    return (a * (double)a_count + b * (double)b_count) / (double)(a_count + b_count);
}

static void add_score(shm_score_t *total, const shm_score_t *score)
{
    if (score->scored == 0)
        return;
    total->loss = mean_of(total->loss, total->scored, score->loss, score->scored);
    total->naive_loss = mean_of(total->naive_loss, total->scored, score->naive_loss, score->scored);
    total->coverage = mean_of(total->coverage, total->scored, score->coverage, score->scored);
    total->scored += score->scored;
}

void snapshot_page_add(snapshot_page_t *total, const snapshot_page_t *page)
{
    for (int i = 0; i < SHM_COUNTER_COUNT; i++)
        total->counter[i] += page->counter[i];
    for (int i = 0; i < SHM_LATENCY_BUCKETS; i++)
        total->latency[i] += page->latency[i];
    for (int i = 0; i < SHM_SCORES_MOST; i++)
        add_score(&total->score[i], &page->score[i]);
}

uint64_t snapshot_rejects(const snapshot_page_t *ingest)
{
    uint64_t sum = 0;
    for (int i = SHM_COUNTER_BAD_NOT_FINITE; i <= SHM_COUNTER_BAD_SYMBOL; i++)
        sum += ingest->counter[i];
    return sum;
}
