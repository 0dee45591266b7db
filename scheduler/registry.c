#include "scheduler/registry.h"

#include "base/error.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

struct registry {
    const config_t *config;
    uint32_t count;
    uint64_t generation;
    registry_worker_t workers[REGISTRY_WORKERS_MOST];
};

int registry_open(const config_t *config, registry_t **out)
{
    registry_t *registry = calloc(1, sizeof *registry);
    if (!registry)
        return error_set(REGISTRY_ERR_MEMORY, "out of memory");
    registry->config = config;
    *out = registry;
    return REGISTRY_OK;
}

static void forget_sessions(registry_worker_t *worker)
{
    for (uint32_t model = 0; model < CONFIG_MODELS_MOST; model++) {
        free(worker->plans[model]);
        worker->plans[model] = NULL;
    }
}

void registry_close(registry_t *registry)
{
    if (!registry)
        return;
    for (uint32_t worker = 0; worker < registry->count; worker++)
        forget_sessions(&registry->workers[worker]);
    free(registry);
}

uint32_t registry_count(const registry_t *registry)
{
    return registry->count;
}

const registry_worker_t *registry_worker(const registry_t *registry, uint32_t worker)
{
    return &registry->workers[worker];
}

uint32_t registry_find(const registry_t *registry, const char *id)
{
    for (uint32_t worker = 0; worker < registry->count; worker++)
        if (strcmp(registry->workers[worker].id, id) == 0)
            return worker;
    return REGISTRY_NONE;
}

static uint32_t free_place(registry_t *registry)
{
    if (registry->count < REGISTRY_WORKERS_MOST)
        return registry->count++;
    for (uint32_t worker = 0; worker < registry->count; worker++)
        if (registry->workers[worker].lost && registry->workers[worker].held == 0)
            return worker;
    return REGISTRY_NONE;
}

int registry_arrive(registry_t *registry, const char *id, uint32_t pid, int64_t now_ns, uint32_t *worker)
{
    uint32_t found = registry_find(registry, id);
    if (found == REGISTRY_NONE) {
        found = free_place(registry);
        if (found == REGISTRY_NONE)
            return error_set(REGISTRY_ERR_FULL, "worker %s: there are %d workers already", id, REGISTRY_WORKERS_MOST);
    }
    registry_worker_t *record = &registry->workers[found];
    if (strcmp(record->id, id) != 0 || record->pid != pid) {
        forget_sessions(record);
        *record = (registry_worker_t){.pid = pid};
        strncpy(record->id, id, sizeof record->id - 1);
        registry->generation++;
    }
    registry_heard(registry, found, now_ns);
    *worker = found;
    return REGISTRY_OK;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

int registry_ready(registry_t *registry, uint32_t worker, const wire_ready_t *ready)
{
    registry_worker_t *record = &registry->workers[worker];
    forget_sessions(record);
    record->ready = false;
    registry->generation++;
    for (uint32_t model = 0; model < registry->config->model_count; model++) {
        batcher_t *plan = malloc(sizeof *plan);
        if (!plan)
            return error_set(REGISTRY_ERR_MEMORY, "out of memory");
        if (batcher_plan(plan, ready, registry->config->models[model].name, registry->config->scheduler.batch_max))
            record->plans[model] = plan;
        else
            free(plan);
    }
    record->credits = least(least(ready->credits, registry->config->scheduler.credits), REGISTRY_CREDITS_MOST);
    record->ready = true;
    return REGISTRY_OK;
}

void registry_heard(registry_t *registry, uint32_t worker, int64_t now_ns)
{
    registry_worker_t *record = &registry->workers[worker];
    record->heard_ns = now_ns;
    if (record->lost) {
        record->lost = false;
        registry->generation++;
    }
}

void registry_leave(registry_t *registry, uint32_t worker)
{
    registry->workers[worker].leaving = true;
    registry->generation++;
}

void registry_lose(registry_t *registry, uint32_t worker)
{
    registry->workers[worker].lost = true;
    registry->generation++;
}

static int64_t silent_at_ns(const registry_t *registry, const registry_worker_t *worker)
{
    return worker->heard_ns + registry->config->scheduler.heartbeat_ns * registry->config->scheduler.heartbeat_liveness;
}

uint32_t registry_silent(const registry_t *registry, int64_t now_ns)
{
    for (uint32_t worker = 0; worker < registry->count; worker++)
        if (!registry->workers[worker].lost && silent_at_ns(registry, &registry->workers[worker]) <= now_ns)
            return worker;
    return REGISTRY_NONE;
}

int64_t registry_next_ns(const registry_t *registry)
{
    int64_t next = INT64_MAX;
    for (uint32_t worker = 0; worker < registry->count; worker++) {
        int64_t at = silent_at_ns(registry, &registry->workers[worker]);
        if (!registry->workers[worker].lost && at < next)
            next = at;
    }
    return next;
}

void registry_hold(registry_t *registry, uint32_t worker)
{
    registry->workers[worker].held++;
}

void registry_late(registry_t *registry, uint32_t worker)
{
    registry->workers[worker].late++;
    registry->generation++;
}

void registry_release(registry_t *registry, uint32_t worker, bool was_late)
{
    registry->workers[worker].held--;
    if (was_late) {
        registry->workers[worker].late--;
        registry->generation++;
    }
}

bool registry_able(const registry_worker_t *worker)
{
    return worker->ready && !worker->lost && !worker->leaving && worker->late < worker->credits;
}

static uint64_t score(const char *worker, const char *symbol)
{
    char key[WIRE_NAME_BYTES + WIRE_SYMBOL_BYTES];
    size_t worker_bytes = strlen(worker) + 1, symbol_bytes = strlen(symbol);
    memcpy(key, worker, worker_bytes);
    memcpy(key + worker_bytes, symbol, symbol_bytes);
    return text_hash64(key, worker_bytes + symbol_bytes);
}

uint32_t registry_owner(const registry_t *registry, uint32_t model, const char *symbol, uint32_t avoid)
{
    uint32_t owner = REGISTRY_NONE;
    uint64_t highest = 0;
    bool avoided_is_able = false;
    for (uint32_t worker = 0; worker < registry->count; worker++) {
        const registry_worker_t *record = &registry->workers[worker];
        if (!registry_able(record) || !record->plans[model])
            continue;
        if (worker == avoid) {
            avoided_is_able = true;
            continue;
        }
        uint64_t mine = score(record->id, symbol);
        if (owner == REGISTRY_NONE || mine > highest) {
            owner = worker;
            highest = mine;
        }
    }
    return owner == REGISTRY_NONE && avoided_is_able ? avoid : owner;
}

uint64_t registry_generation(const registry_t *registry)
{
    return registry->generation;
}
