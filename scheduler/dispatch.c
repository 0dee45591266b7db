#include "scheduler/dispatch.h"

#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t id;
    int64_t deadline_ns;
    uint32_t count;
    bool alone; /* its worker gets nothing else meanwhile */
    bool late;
    due_pair_t *pairs; /* room for batch_max */
} batch_t;

struct dispatch {
    const config_t *config;
    dispatch_report_t *report;
    void *report_context;
    registry_t *registry;
    due_t *due;
    uint64_t epoch, next_batch_id, laned_generation;
    uint32_t batch_max;
    bool draining;
    dispatch_totals_t totals;
    batch_t *held[REGISTRY_WORKERS_MOST][REGISTRY_CREDITS_MOST]; /* the first registry_worker_t.held of a row are in use */
    wire_item_t items[WIRE_ITEMS_MOST];
};

/* ---- lanes: two a worker and model, the second for pairs that must be sent alone; one for pairs that nobody can forecast now ------- */

static uint32_t lane_number(const dispatch_t *dispatch, uint32_t worker, uint32_t model, bool alone)
{
    return (worker * dispatch->config->model_count + model) * 2 + alone;
}

static uint32_t lane_of(void *context, uint32_t model, const char *symbol, bool alone, uint32_t avoid)
{
    const dispatch_t *dispatch = context;
    uint32_t owner = registry_owner(dispatch->registry, model, symbol, avoid);
    if (owner == REGISTRY_NONE)
        return lane_number(dispatch, REGISTRY_WORKERS_MOST, 0, false);
    return lane_number(dispatch, owner, model, alone);
}

static void follow_registry(dispatch_t *dispatch)
{
    if (!dispatch->due || dispatch->laned_generation == registry_generation(dispatch->registry))
        return;
    dispatch->laned_generation = registry_generation(dispatch->registry);
    due_relane(dispatch->due);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

int dispatch_open(const config_t *config, uint64_t first_batch_id, dispatch_report_t *report, void *context, dispatch_t **out)
{
    dispatch_t *dispatch = calloc(1, sizeof *dispatch);
    if (!dispatch || registry_open(config, &dispatch->registry) < 0) {
        free(dispatch);
        return error_set(DISPATCH_ERR_MEMORY, "out of memory");
    }
    dispatch->config = config;
    dispatch->report = report;
    dispatch->report_context = context;
    dispatch->next_batch_id = first_batch_id;
    dispatch->batch_max = config->scheduler.batch_max < WIRE_ITEMS_MOST ? config->scheduler.batch_max : WIRE_ITEMS_MOST;
    *out = dispatch;
    return DISPATCH_OK;
}

static void free_batch(batch_t *batch)
{
    if (batch)
        free(batch->pairs);
    free(batch);
}

void dispatch_close(dispatch_t *dispatch)
{
    if (!dispatch)
        return;
    for (uint32_t worker = 0; worker < REGISTRY_WORKERS_MOST; worker++)
        for (uint32_t slot = 0; slot < REGISTRY_CREDITS_MOST; slot++)
            free_batch(dispatch->held[worker][slot]);
    due_close(dispatch->due);
    registry_close(dispatch->registry);
    free(dispatch);
}

due_t *dispatch_due(dispatch_t *dispatch)
{
    return dispatch->due;
}

const registry_t *dispatch_registry(const dispatch_t *dispatch)
{
    return dispatch->registry;
}

__attribute__((format(printf, 3, 4))) static void report(const dispatch_t *dispatch, dispatch_event_t event, const char *format,
                                                         ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dispatch->report(dispatch->report_context, event, text);
}

/* ---- batches --------------------------------------------------------------------------------------------------------------------- */

static uint32_t held_count(const dispatch_t *dispatch, uint32_t worker)
{
    return registry_worker(dispatch->registry, worker)->held;
}

/* An unused record at the end of the worker's row; NULL: out of memory. Records stay in the row when their batch is over. */
static batch_t *free_record(dispatch_t *dispatch, uint32_t worker)
{
    batch_t **at = &dispatch->held[worker][held_count(dispatch, worker)];
    if (*at)
        return *at;
    batch_t *batch = calloc(1, sizeof *batch);
    due_pair_t *pairs = calloc(dispatch->batch_max, sizeof *pairs);
    if (!batch || !pairs) {
        free(batch);
        free(pairs);
        return NULL;
    }
    batch->pairs = pairs;
    return *at = batch;
}

static void forget(dispatch_t *dispatch, uint32_t worker, uint32_t slot)
{
    batch_t **row = dispatch->held[worker];
    uint32_t last = held_count(dispatch, worker) - 1;
    batch_t *batch = row[slot];
    row[slot] = row[last];
    row[last] = batch;
    registry_release(dispatch->registry, worker, batch->late);
}

static void finish(dispatch_t *dispatch, due_pair_t pair, due_outcome_t outcome, uint32_t avoid, int64_t now_ns)
{
    if (!due_finish(dispatch->due, pair, outcome, avoid, now_ns))
        return;
    uint32_t models = dispatch->config->model_count;
    report(dispatch, DISPATCH_QUARANTINED, "symbol %s, model %s: quarantined for %.0f s after repeated failures",
           due_symbol_name(dispatch->due, pair / models), dispatch->config->models[pair % models].name,
           (double)dispatch->config->scheduler.quarantine_ns / 1e9);
}

/* Gives a live batch's series back; the last first, so that each finds its old place at the head of its lane. */
static void take_back(dispatch_t *dispatch, const batch_t *batch, due_outcome_t outcome, uint32_t avoid, int64_t now_ns)
{
    follow_registry(dispatch);
    for (uint32_t i = batch->count; i-- > 0;)
        finish(dispatch, batch->pairs[i], outcome, avoid, now_ns);
    dispatch->totals.redispatched++;
}

static void make_late(dispatch_t *dispatch, uint32_t worker, batch_t *batch)
{
    batch->late = true;
    registry_late(dispatch->registry, worker);
}

/* The worker takes no part until it is heard again; what it holds goes to others. */
static void lose(dispatch_t *dispatch, uint32_t worker, int64_t now_ns)
{
    const registry_worker_t *record = registry_worker(dispatch->registry, worker);
    if (record->lost)
        return;
    registry_lose(dispatch->registry, worker);
    if (!record->leaving || record->held > 0)
        dispatch->totals.workers_lost++;
    for (uint32_t slot = 0; slot < record->held; slot++) {
        batch_t *batch = dispatch->held[worker][slot];
        if (batch->late)
            continue;
        make_late(dispatch, worker, batch);
        take_back(dispatch, batch, DUE_LOST, DUE_NONE, now_ns);
    }
}

int dispatch_begin(dispatch_t *dispatch, uint64_t epoch, uint32_t symbols_max)
{
    due_t *due;
    uint32_t lanes = lane_number(dispatch, REGISTRY_WORKERS_MOST, 0, false) + 1;
    if (due_open(dispatch->config, symbols_max, lanes, lane_of, dispatch, &due) < 0)
        return DISPATCH_ERR_MEMORY;
    for (uint32_t worker = 0; worker < registry_count(dispatch->registry); worker++)
        for (uint32_t slot = 0; slot < held_count(dispatch, worker); slot++)
            if (!dispatch->held[worker][slot]->late)
                make_late(dispatch, worker, dispatch->held[worker][slot]);
    due_close(dispatch->due);
    dispatch->due = due;
    dispatch->epoch = epoch;
    return DISPATCH_OK;
}

/* ---- what workers say ------------------------------------------------------------------------------------------------------------ */

/* Another process has taken the worker's id: the old one is gone, and with it all it held. */
static void bury(dispatch_t *dispatch, uint32_t worker, int64_t now_ns)
{
    const registry_worker_t *record = registry_worker(dispatch->registry, worker);
    if (!record->lost && !record->leaving)
        report(dispatch, DISPATCH_WORKER_LOST, "worker %s: pid %u is gone with %u batches", record->id, record->pid, record->held);
    lose(dispatch, worker, now_ns);
    while (held_count(dispatch, worker) > 0)
        forget(dispatch, worker, 0);
}

static int arrive(dispatch_t *dispatch, const char *id, uint32_t pid, int64_t now_ns, uint32_t *worker)
{
    uint32_t known = registry_find(dispatch->registry, id);
    if (known != REGISTRY_NONE && registry_worker(dispatch->registry, known)->pid != pid)
        bury(dispatch, known, now_ns);
    return registry_arrive(dispatch->registry, id, pid, now_ns, worker) < 0 ? DISPATCH_ERR_FULL : DISPATCH_OK;
}

int dispatch_hello(dispatch_t *dispatch, const wire_hello_t *hello, int64_t now_ns)
{
    uint32_t worker = registry_find(dispatch->registry, hello->worker);
    bool known = worker != REGISTRY_NONE && registry_worker(dispatch->registry, worker)->pid == hello->pid;
    int rc = arrive(dispatch, hello->worker, hello->pid, now_ns, &worker);
    if (rc == DISPATCH_OK && !known)
        report(dispatch, DISPATCH_WORKER_CAME, "worker %s: pid %u on %s, publishes on %s", hello->worker, hello->pid, hello->device,
               hello->publish_endpoint);
    return rc;
}

int dispatch_ready(dispatch_t *dispatch, const wire_ready_t *ready, int64_t now_ns)
{
    uint32_t worker;
    int rc = arrive(dispatch, ready->worker, ready->pid, now_ns, &worker);
    if (rc < 0)
        return rc;
    const registry_worker_t *record = registry_worker(dispatch->registry, worker);
    bool was_ready = record->ready;
    if (registry_ready(dispatch->registry, worker, ready) < 0)
        return DISPATCH_ERR_MEMORY;
    if (!was_ready)
        report(dispatch, DISPATCH_WORKER_CAME, "worker %s: ready, %u sessions, %u credits", ready->worker, ready->session_count,
               record->credits);
    return DISPATCH_OK;
}

/* The known worker of that name, heard of now; REGISTRY_NONE when it has to introduce itself. */
static uint32_t heard(dispatch_t *dispatch, const char *id, int64_t now_ns)
{
    uint32_t worker = registry_find(dispatch->registry, id);
    if (worker != REGISTRY_NONE) {
        if (registry_worker(dispatch->registry, worker)->lost)
            report(dispatch, DISPATCH_WORKER_CAME, "worker %s: heard again", id);
        registry_heard(dispatch->registry, worker, now_ns);
    }
    return worker;
}

int dispatch_heartbeat(dispatch_t *dispatch, const wire_heartbeat_t *heartbeat, int64_t now_ns)
{
    uint32_t worker = heard(dispatch, heartbeat->sender, now_ns);
    if (worker == REGISTRY_NONE)
        return DISPATCH_UNKNOWN;
    if (heartbeat->batch_id == 0) /* idle: what it is late with, it never got or has told */
        for (uint32_t slot = held_count(dispatch, worker); slot-- > 0;)
            if (dispatch->held[worker][slot]->late)
                forget(dispatch, worker, slot);
    return DISPATCH_OK;
}

int dispatch_leave(dispatch_t *dispatch, const wire_drain_t *drain, int64_t now_ns)
{
    uint32_t worker = heard(dispatch, drain->sender, now_ns);
    if (worker == REGISTRY_NONE)
        return DISPATCH_UNKNOWN;
    report(dispatch, DISPATCH_WORKER_LEFT, "worker %s: leaves", drain->sender);
    registry_leave(dispatch->registry, worker);
    return DISPATCH_OK;
}

static void settle(dispatch_t *dispatch, const batch_t *batch, const uint8_t *status, int64_t now_ns)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        bool answered = status[i] == WIRE_ITEM_OK || status[i] == WIRE_ITEM_TOO_SHORT || status[i] == WIRE_ITEM_OVERRUN ||
                        status[i] == WIRE_ITEM_STALE;
        if (status[i] == WIRE_ITEM_OK)
            dispatch->totals.series_done++;
        else if (!answered)
            dispatch->totals.series_failed++;
        finish(dispatch, batch->pairs[i], answered ? DUE_ANSWERED : DUE_FAILED, DUE_NONE, now_ns);
    }
}

int dispatch_done(dispatch_t *dispatch, const wire_done_t *done, int64_t now_ns)
{
    uint32_t worker = heard(dispatch, done->worker, now_ns);
    if (worker == REGISTRY_NONE)
        return DISPATCH_UNKNOWN;
    for (uint32_t slot = 0; slot < held_count(dispatch, worker); slot++) {
        const batch_t *batch = dispatch->held[worker][slot];
        if (batch->id != done->batch_id)
            continue;
        if (batch->late) {
            forget(dispatch, worker, slot);
            break;
        }
        if (batch->count != done->count)
            return error_set(DISPATCH_ERR_COUNT, "worker %s: DONE of %u series for a batch of %u", done->worker, done->count,
                             batch->count);
        follow_registry(dispatch);
        settle(dispatch, batch, done->status, now_ns);
        forget(dispatch, worker, slot);
        return DISPATCH_OK;
    }
    dispatch->totals.done_late++;
    return DISPATCH_LATE;
}

/* ---- time ------------------------------------------------------------------------------------------------------------------------ */

static void lose_silent(dispatch_t *dispatch, uint32_t worker, int64_t now_ns)
{
    const registry_worker_t *record = registry_worker(dispatch->registry, worker);
    if (!record->leaving || record->held > 0) /* else it said so */
        report(dispatch, DISPATCH_WORKER_LOST, "worker %s: lost with %u batches: not heard for %.1f s", record->id, record->held,
               (double)(now_ns - record->heard_ns) / 1e9);
    lose(dispatch, worker, now_ns);
}

static void miss_deadlines(dispatch_t *dispatch, uint32_t worker, int64_t now_ns)
{
    for (uint32_t slot = 0; slot < held_count(dispatch, worker); slot++) {
        batch_t *batch = dispatch->held[worker][slot];
        if (batch->late || now_ns < batch->deadline_ns)
            continue;
        dispatch->totals.deadlines_missed++;
        make_late(dispatch, worker, batch);
        take_back(dispatch, batch, DUE_LOST, worker, now_ns);
    }
}

void dispatch_tick(dispatch_t *dispatch, int64_t now_ns)
{
    for (uint32_t silent; (silent = registry_silent(dispatch->registry, now_ns)) != REGISTRY_NONE;)
        lose_silent(dispatch, silent, now_ns);
    for (uint32_t worker = 0; worker < registry_count(dispatch->registry); worker++)
        miss_deadlines(dispatch, worker, now_ns);
    follow_registry(dispatch);
    if (dispatch->due && !dispatch->draining)
        due_tick(dispatch->due, now_ns);
}

void dispatch_drain(dispatch_t *dispatch)
{
    dispatch->draining = true;
}

/* ---- sending --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t lane, worker, model, series;
    uint64_t place;
    bool alone;
} choice_t;

static bool holds_one_alone(const dispatch_t *dispatch, uint32_t worker)
{
    for (uint32_t slot = 0; slot < held_count(dispatch, worker); slot++)
        if (dispatch->held[worker][slot]->alone && !dispatch->held[worker][slot]->late)
            return true;
    return false;
}

/* The worker's lane of the oldest due pair, if that may go out now. *ready_ns: when one that lingers may. */
static bool choose_lane(const dispatch_t *dispatch, uint32_t worker, int64_t now_ns, choice_t *best, int64_t *ready_ns)
{
    const registry_worker_t *record = registry_worker(dispatch->registry, worker);
    bool found = false;
    if (!registry_able(record) || record->held >= record->credits || holds_one_alone(dispatch, worker))
        return false;
    for (uint32_t model = 0; model < dispatch->config->model_count; model++) {
        for (uint32_t alone = 0; alone < 2; alone++) {
            uint32_t lane = lane_number(dispatch, worker, model, alone);
            due_waiting_t waiting;
            if (!due_waiting(dispatch->due, lane, &waiting) || (found && best->place < waiting.place))
                continue;
            int64_t linger_until_ns = waiting.since_ns + dispatch->config->scheduler.linger_ns;
            if (!alone && !dispatch->draining && now_ns < linger_until_ns && waiting.count < record->plans[model]->largest) {
                if (linger_until_ns < *ready_ns)
                    *ready_ns = linger_until_ns;
                continue;
            }
            uint32_t series = alone ? 1 : batcher_next(record->plans[model], waiting.count);
            *best = (choice_t){lane, worker, model, series, waiting.place, alone};
            found = true;
        }
    }
    return found && !(best->alone && record->held > 0); /* alone: when the worker has finished the others */
}

bool dispatch_next(dispatch_t *dispatch, int64_t now_ns, uint32_t *worker, wire_assign_t *out)
{
    if (!dispatch->due)
        return false;
    follow_registry(dispatch);
    choice_t best = {.place = UINT64_MAX};
    bool found = false;
    for (uint32_t at = 0; at < registry_count(dispatch->registry); at++) {
        choice_t choice;
        int64_t ready_ns = INT64_MAX;
        if (choose_lane(dispatch, at, now_ns, &choice, &ready_ns) && choice.place < best.place) {
            best = choice;
            found = true;
        }
    }
    batch_t *batch;
    if (!found || !(batch = free_record(dispatch, best.worker)))
        return false;

    batch->id = dispatch->next_batch_id++;
    batch->deadline_ns = now_ns + dispatch->config->scheduler.deadline_ns;
    batch->alone = best.alone;
    batch->late = false;
    batch->count = due_take(dispatch->due, best.lane, best.series, batch->pairs);
    registry_hold(dispatch->registry, best.worker);
    dispatch->totals.batches_sent++;
    dispatch->totals.series_sent += batch->count;

    *worker = best.worker;
    *out = (wire_assign_t){
        .batch_id = batch->id, .epoch = dispatch->epoch, .sent_ns = now_ns, .count = batch->count, .items = dispatch->items};
    strcpy(out->model, dispatch->config->models[best.model].name);
    for (uint32_t i = 0; i < batch->count; i++)
        out->items[i] = due_item(dispatch->due, batch->pairs[i]);
    return true;
}

void dispatch_unsent(dispatch_t *dispatch, uint32_t worker, int64_t now_ns)
{
    uint32_t newest = held_count(dispatch, worker) - 1;
    report(dispatch, DISPATCH_WORKER_LOST, "worker %s: cannot be reached", registry_worker(dispatch->registry, worker)->id);
    take_back(dispatch, dispatch->held[worker][newest], DUE_UNSENT, DUE_NONE, now_ns);
    forget(dispatch, worker, newest);
    lose(dispatch, worker, now_ns);
}

int64_t dispatch_next_ns(const dispatch_t *dispatch, int64_t now_ns)
{
    int64_t next = registry_next_ns(dispatch->registry);
    if (dispatch->due && !dispatch->draining && due_next_ns(dispatch->due) < next)
        next = due_next_ns(dispatch->due);
    for (uint32_t worker = 0; worker < registry_count(dispatch->registry); worker++) {
        for (uint32_t slot = 0; slot < held_count(dispatch, worker); slot++) {
            const batch_t *batch = dispatch->held[worker][slot];
            if (!batch->late && batch->deadline_ns < next)
                next = batch->deadline_ns;
        }
        choice_t ignored;
        if (dispatch->due)
            choose_lane(dispatch, worker, now_ns, &ignored, &next);
    }
    return next;
}

dispatch_totals_t dispatch_totals(const dispatch_t *dispatch)
{
    dispatch_totals_t totals = dispatch->totals;
    for (uint32_t worker = 0; worker < registry_count(dispatch->registry); worker++) {
        const registry_worker_t *record = registry_worker(dispatch->registry, worker);
        totals.workers_alive += record->ready && !record->lost;
    }
    if (dispatch->due)
        totals.due = due_totals(dispatch->due);
    return totals;
}
