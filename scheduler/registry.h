/* The registry: which workers there are, what they can run, how much they may still be given, and whose symbol is whose. Pure logic.
 *
 *              registry_arrive              registry_ready
 *     (unknown) ────────────> loading ────────────────────> ready <──────> lost
 *                                ^                            │   registry_lose, registry_heard
 *                                └── registry_arrive: new pid ┘
 *
 * A worker is *able* when it is ready, not lost, not leaving, and not stalled: a worker all of whose credits are taken by batches that missed
 * their deadline beats, but does not work.
 *
 * Affinity is rendezvous hashing: of the able workers that have sessions of the model, a symbol belongs to the one with the highest
 * text_hash64(worker id, NUL, symbol). So a symbol keeps its worker while that worker is able, whatever its load: only a lost worker's
 * symbols move, and a worker that comes takes its share from the others and moves nothing between them. Affinity yields to death, drain
 * and stall only; where the owner has no credit, the symbol waits. */
#ifndef BARCAST_SCHEDULER_REGISTRY_H
#define BARCAST_SCHEDULER_REGISTRY_H

#include "config/config.h"
#include "scheduler/batcher.h"

#include <stdbool.h>
#include <stdint.h>

#define REGISTRY_NONE UINT32_MAX

enum { REGISTRY_WORKERS_MOST = 64, REGISTRY_CREDITS_MOST = 64 };
enum { REGISTRY_OK = 0, REGISTRY_ERR_FULL = -1, REGISTRY_ERR_MEMORY = -2 };

typedef struct {
    char id[WIRE_NAME_BYTES]; /* kept over restarts of the worker */
    uint32_t pid;
    bool ready, lost, leaving;
    int64_t heard_ns;
    uint32_t credits; /* batches it may hold: the least of its own word, the config's, REGISTRY_CREDITS_MOST */
    uint32_t held;    /* batches it holds */
    uint32_t late; /* of these: missed their deadline, or it was lost with them; they keep their credit until it is heard of them */
    batcher_t *plans[CONFIG_MODELS_MOST]; /* NULL: no session of that model */
} registry_worker_t;

typedef struct registry registry_t;

int registry_open(const config_t *config, registry_t **out); /* `config` is borrowed */
void registry_close(registry_t *registry);                   /* NULL is allowed */

/* Workers are numbered in the order of their first arrival; a number belongs to an id for good, except that a full table reuses that of a
 * lost worker which holds nothing. */
uint32_t registry_count(const registry_t *registry);
const registry_worker_t *registry_worker(const registry_t *registry, uint32_t worker);
uint32_t registry_find(const registry_t *registry, const char *id);

/* A worker says HELLO (or READY to a scheduler that does not know it). Another pid than before makes it a new, loading worker: whoever calls
 * has taken back what the old one held. */
int registry_arrive(registry_t *registry, const char *id, uint32_t pid, int64_t now_ns, uint32_t *worker);
/* Its sessions and credits; those of models that are not in the config are left out. */
int registry_ready(registry_t *registry, uint32_t worker, const wire_ready_t *ready);
/* Any sign of life; a lost worker is back with it. */
void registry_heard(registry_t *registry, uint32_t worker, int64_t now_ns);
void registry_leave(registry_t *registry, uint32_t worker);
void registry_lose(registry_t *registry, uint32_t worker);

/* A worker that was not heard of for heartbeat_liveness intervals and is not yet lost, or REGISTRY_NONE. */
uint32_t registry_silent(const registry_t *registry, int64_t now_ns);
/* When the next one will be; INT64_MAX: never. */
int64_t registry_next_ns(const registry_t *registry);

/* Credits: a batch is given, becomes late, is over. */
void registry_hold(registry_t *registry, uint32_t worker);
void registry_late(registry_t *registry, uint32_t worker);
void registry_release(registry_t *registry, uint32_t worker, bool was_late);

bool registry_able(const registry_worker_t *worker);

/* The owner of a symbol, REGISTRY_NONE when no able worker has the model. `avoid` is passed over when there is another. */
uint32_t registry_owner(const registry_t *registry, uint32_t model, const char *symbol, uint32_t avoid);

/* Changes whenever owners may have. */
uint64_t registry_generation(const registry_t *registry);

#endif
