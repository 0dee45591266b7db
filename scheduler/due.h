/* The due set: which (model, symbol) pairs want a forecast now, in which order. Pure logic: time is an argument, one thread.
 *
 * Each pair has one slot, so nothing is ever queued twice and memory is bounded:
 *
 *               due_bar, due_tick                   due_take
 *     IDLE ──────────────────────────────> DUE ───────────────────> IN FLIGHT
 *      ^                                    ^                        │  │  │
 *      ├───────────────── due_finish: answered, not due again ───────┘  │  │
 *      │                                    ├── due_finish: due again, or a retry
 *      │                                    │ due_tick                     │
 *      │                                QUARANTINED <── due_finish: failed too often
 *
 * A pair is due by the config's policy (`scheduler.due`) once its symbol has the model's context_min closed bars: on each closed bar,
 * every N bars, or by a timer when it has new ones. Whatever the policy, it is due once as soon as it has enough history: a user gets a
 * forecast of every symbol when the workers are ready, not one interval later.
 *
 * Newest wins: a slot holds the newest bar only. A pair that is due again before it was sent keeps its place and takes the newer bar; the older
 * one is counted as overtaken. A pair has at most one live batch, so that the publications of a topic stay in order: due again while it is
 * in flight is remembered once and queued behind the others when the first is done.
 *
 * Due pairs wait in lanes, oldest first. Which lane is the caller's business (dispatch.h: one a worker and model), asked through a callback
 * whenever a pair is queued, and for all at due_relane. */
#ifndef BARCAST_SCHEDULER_DUE_H
#define BARCAST_SCHEDULER_DUE_H

#include "config/config.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define DUE_NONE UINT32_MAX

enum { DUE_OK = 0, DUE_ERR_MEMORY = -1 };

/* A pair whose batch was lost as a whole this often is queued and sent alone: one of its batch mates may be the one that kills workers. */
enum { DUE_LOSSES_ALONE = 2 };

typedef struct due due_t;

/* A pair is symbol id * model count + model index. */
typedef uint32_t due_pair_t;

/* The lane of a pair. `alone`: it must be sent alone. `avoid`: the worker that just failed it, or DUE_NONE. */
typedef uint32_t due_lane_of_t(void *context, uint32_t model, const char *symbol, bool alone, uint32_t avoid);

/* `config` and `context` are borrowed. Symbol ids are below symbols_max, lanes below lane_count. */
int due_open(const config_t *config, uint32_t symbols_max, uint32_t lane_count, due_lane_of_t *lane_of, void *context, due_t **out);
void due_close(due_t *due); /* NULL is allowed */

/* Makes the next symbol id (0, 1, ...) known; the models' `symbols` patterns decide who forecasts it. */
void due_symbol_add(due_t *due, const char *name);
uint32_t due_symbol_count(const due_t *due);
const char *due_symbol_name(const due_t *due, uint32_t symbol);

/* The symbol has `end` closed bars, the last of them stored at stored_ns; what is not newer than known is ignored, so that a look at the
 * ring's head (at the start, after an overrun of the log) and the log may tell it both. */
void due_bar(due_t *due, uint32_t symbol, uint64_t end, int64_t stored_ns, int64_t now_ns);

/* Lets quarantined pairs whose time is over be due again, and runs the timer policy. due_next_ns is when to call it next, INT64_MAX: never. */
void due_tick(due_t *due, int64_t now_ns);
int64_t due_next_ns(const due_t *due);

/* Asks every due pair's lane again: the workers have changed. */
void due_relane(due_t *due);

/* What waits in a lane: how many, and of the oldest its place in the order of all lanes and since when it is due. False: empty. */
typedef struct {
    uint32_t count;
    uint64_t place;
    int64_t since_ns;
} due_waiting_t;
bool due_waiting(const due_t *due, uint32_t lane, due_waiting_t *out);

/* Takes the oldest `most` pairs out of a lane: they are in flight until due_finish. Returns how many. */
uint32_t due_take(due_t *due, uint32_t lane, uint32_t most, due_pair_t *out);
/* What to forecast for a pair: its newest bar. */
wire_item_t due_item(const due_t *due, due_pair_t pair);

typedef enum {
    DUE_ANSWERED, /* a forecast, or a reason that is nobody's fault (too short, lapped): wait for the next bar */
    DUE_FAILED,   /* the model failed on this very pair: retried at once, its failures are counted */
    DUE_LOST,     /* its whole batch was lost with its worker or missed its deadline: retried, blamed only when it was alone */
    DUE_UNSENT    /* it never left: retried, no blame */
} due_outcome_t;

/* Ends a pair's flight. A retry keeps its place, takes the newest bar, and avoids the worker `avoid` (DUE_NONE: none). True when this put
 * the pair into quarantine: `quarantine_after` consecutive failures, losses in company counted but never decisive. One more failure after
 * its release is enough to put it back. */
bool due_finish(due_t *due, due_pair_t pair, due_outcome_t outcome, uint32_t avoid, int64_t now_ns);

typedef struct {
    uint32_t due, in_flight, quarantined; /* pairs in that state now */
    uint64_t overtaken;                   /* since open */
} due_totals_t;
due_totals_t due_totals(const due_t *due);

#endif
