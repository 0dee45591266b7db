/* The batcher: how many of the due symbols go into the next batch of one worker and model. Pure logic.
 *
 * A worker has sessions (buckets) of fixed sizes, each with the measured duration of one run; a batch of fewer series than the bucket costs the
 * same. Batches of a worker run one after the other, so a run of t delays every series that has not been forecast yet, those in it included.
 * The batcher takes the sequence of buckets for which the sum of all series' waiting times is least:
 *
 *     W(0) = 0,   W(n) = min over buckets b of  (run_ns(b) + BATCHER_OVERHEAD_NS) * n + W(n - min(b, n))
 *
 * and batcher_next gives the first batch of that sequence; the rest is planned anew with what is due then. For 70 due and buckets 1, 8, 64 of
 * 1, 1.5, 5 ms that is 64, then 8 (359 series-ms; 64 and six singles 371, twice 64 380). The table is filled once when a worker says READY. */
#ifndef BARCAST_SCHEDULER_BATCHER_H
#define BARCAST_SCHEDULER_BATCHER_H

#include "wire/wire.h"

/* What a batch costs beside its run: the message each way and the threads it wakes. Keeps a model whose runs cost nothing from being sent
 * one series at a time. */
#define BATCHER_OVERHEAD_NS 30000

enum { BATCHER_DUE_MOST = WIRE_ITEMS_MOST }; /* more due than this is planned as if it were this many */

typedef struct {
    uint32_t largest;                     /* series in its largest batch */
    uint16_t first[BATCHER_DUE_MOST + 1]; /* series in the first batch when that many are due */
} batcher_t;

/* Plans for the sessions of `model`; a batch never holds more than batch_max series. False, *out untouched, when none is of that model. */
bool batcher_plan(batcher_t *out, const wire_ready_t *ready, const char *model, uint32_t batch_max);

/* Series in the next batch when `due` (> 0) are due. */
uint32_t batcher_next(const batcher_t *batcher, uint32_t due);

#endif
