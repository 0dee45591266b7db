/* Dispatch: joins the due set, the batcher and the registry; knows every batch in flight. Pure logic: it is told what came and what time it
 * is, and says what to send. One thread at a time.
 *
 *                dispatch_next                dispatch_done
 *     (due set) ──────────────> live batch ───────────────────> (over: every series answered or failed by its status)
 *         ^                       │  │  │
 *         ├── dispatch_unsent ────┘  │  │
 *         ├── worker restarted ──────┘  │                  dispatch_done, worker idle, worker restarted
 *         └── deadline, worker silent ──┴──> late batch ─────────────────────────────────────────────────> (over: ignored)
 *
 * Whatever ends a live batch other than DONE gives its series back to the due set at their old places, with their newest bars: they go to the worker
 * that owns them now, after a missed deadline to another one if there is one. The late batch keeps its credit until its worker is done with it
 * or beats idle, so a worker never holds more than its credits.
 *
 * The poisonous symbol: series that were lost twice with their whole batch are sent alone, to a worker that holds nothing else and gets nothing
 * else meanwhile. Those that come through are cleared; the one that kills again is quarantined (due.h).
 *
 * A worker that has several models runs the one with its oldest due pair first. */
#ifndef BARCAST_SCHEDULER_DISPATCH_H
#define BARCAST_SCHEDULER_DISPATCH_H

#include "scheduler/due.h"
#include "scheduler/registry.h"

enum {
    DISPATCH_OK = 0,
    DISPATCH_UNKNOWN = 1, /* from a worker that never said who it is: send it a heartbeat, it will */
    DISPATCH_LATE = 2,    /* DONE of a batch that is no longer awaited: ignored */
    DISPATCH_ERR_MEMORY = -1,
    DISPATCH_ERR_FULL = -2,
    DISPATCH_ERR_COUNT = -3 /* DONE with another number of series than its batch */
};

typedef struct dispatch dispatch_t;

/* What an operator should know. */
typedef enum { DISPATCH_WORKER_CAME, DISPATCH_WORKER_LEFT, DISPATCH_WORKER_LOST, DISPATCH_QUARANTINED } dispatch_event_t;
typedef void dispatch_report_t(void *context, dispatch_event_t event, const char *text);

/* `config` and `context` are borrowed. Batch ids count up from first_batch_id: one that no earlier scheduler has used. */
int dispatch_open(const config_t *config, uint64_t first_batch_id, dispatch_report_t *report, void *context, dispatch_t **out);
void dispatch_close(dispatch_t *dispatch); /* NULL is allowed */

/* A (new) segment: everything about symbols starts afresh, the workers stay. Until the first one nothing is due. */
int dispatch_begin(dispatch_t *dispatch, uint64_t epoch, uint32_t symbols_max);

/* The due set, to be told symbols and bars; NULL before dispatch_begin. And the workers. */
due_t *dispatch_due(dispatch_t *dispatch);
const registry_t *dispatch_registry(const dispatch_t *dispatch);

/* What workers say. */
int dispatch_hello(dispatch_t *dispatch, const wire_hello_t *hello, int64_t now_ns);
int dispatch_ready(dispatch_t *dispatch, const wire_ready_t *ready, int64_t now_ns);
int dispatch_heartbeat(dispatch_t *dispatch, const wire_heartbeat_t *heartbeat, int64_t now_ns);
int dispatch_done(dispatch_t *dispatch, const wire_done_t *done, int64_t now_ns);
int dispatch_leave(dispatch_t *dispatch, const wire_drain_t *drain, int64_t now_ns);

/* Deadlines, silent workers, quarantine, the timer. */
void dispatch_tick(dispatch_t *dispatch, int64_t now_ns);

/* The next batch to send, at once; call until it says false. *worker is whom to send it to; the items of *out are valid until the next call. */
bool dispatch_next(dispatch_t *dispatch, int64_t now_ns, uint32_t *worker, wire_assign_t *out);
/* The batch that dispatch_next just gave cannot be sent: nobody is to blame, its worker is lost until it is heard again. */
void dispatch_unsent(dispatch_t *dispatch, uint32_t worker, int64_t now_ns);

/* When dispatch_tick and dispatch_next want to be called next even if nothing comes; INT64_MAX: never. */
int64_t dispatch_next_ns(const dispatch_t *dispatch, int64_t now_ns);

/* Shutting down: no lingering, no timer, no release from quarantine. */
void dispatch_drain(dispatch_t *dispatch);

typedef struct {
    uint32_t workers_alive;
    uint64_t batches_sent, series_sent, series_done, series_failed, redispatched, deadlines_missed, workers_lost, done_late;
    due_totals_t due;
} dispatch_totals_t;
dispatch_totals_t dispatch_totals(const dispatch_t *dispatch);

#endif
