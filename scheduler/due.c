#include "scheduler/due.h"

#include "base/error.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

typedef enum { UNWANTED, IDLE, DUE, IN_FLIGHT, QUARANTINED } state_t;

typedef struct {
    uint64_t end;        /* closed bars known */
    uint64_t marked_end; /* the same when it was last due; 0: never */
    int64_t stored_ns;   /* of bar end - 1 */
    int64_t since_ns;    /* DUE: since when; QUARANTINED: until when */
    uint64_t place;      /* in the order of becoming due */
    uint32_t next;       /* in its lane, or in quarantine */
    uint32_t avoid;
    uint32_t failures; /* consecutive */
    uint32_t losses;   /* of these, in a row: with its whole batch */
    uint8_t state;
    bool again; /* IN_FLIGHT: due again since */
} slot_t;

typedef struct {
    uint32_t head, tail, count;
} queue_t;

typedef struct {
    uint64_t place;
    due_pair_t pair;
} order_t;

struct due {
    const config_t *config;
    due_lane_of_t *lane_of;
    void *context;
    uint32_t symbols_max, symbol_count, lane_count;
    uint64_t next_place;
    int64_t next_timer_ns;
    due_totals_t totals;
    queue_t quarantine; /* in the order of release: every quarantine lasts equally long */
    queue_t *lanes;
    slot_t *slots;
    order_t *order; /* due_relane's */
    char (*names)[WIRE_SYMBOL_BYTES];
};

static const queue_t empty_queue = {DUE_NONE, DUE_NONE, 0};

int due_open(const config_t *config, uint32_t symbols_max, uint32_t lane_count, due_lane_of_t *lane_of, void *context, due_t **out)
{
    size_t pairs = (size_t)symbols_max * config->model_count;
    due_t *due = calloc(1, sizeof *due);
    if (!due)
        return error_set(DUE_ERR_MEMORY, "out of memory");
    *due = (due_t){.config = config,
                   .lane_of = lane_of,
                   .context = context,
                   .symbols_max = symbols_max,
                   .lane_count = lane_count,
                   .quarantine = empty_queue,
                   .lanes = calloc(lane_count, sizeof *due->lanes),
                   .slots = calloc(pairs, sizeof *due->slots),
                   .order = calloc(pairs, sizeof *due->order),
                   .names = calloc(symbols_max, sizeof *due->names)};
    if (!due->lanes || !due->slots || !due->order || !due->names) {
        due_close(due);
        return error_set(DUE_ERR_MEMORY, "out of memory for %u symbols and %u models", symbols_max, config->model_count);
    }
    for (uint32_t lane = 0; lane < lane_count; lane++)
        due->lanes[lane] = empty_queue;
    *out = due;
    return DUE_OK;
}

void due_close(due_t *due)
{
    if (!due)
        return;
    free(due->lanes);
    free(due->slots);
    free(due->order);
    free(due->names);
    free(due);
}

/* ---- queues ---------------------------------------------------------------------------------------------------------------------- */

static void append(due_t *due, queue_t *queue, due_pair_t pair)
{
    due->slots[pair].next = DUE_NONE;
    if (queue->head == DUE_NONE)
        queue->head = pair;
    else
        due->slots[queue->tail].next = pair;
    queue->tail = pair;
    queue->count++;
}

/* For pairs that come back with an old place, near the head. */
static void insert_by_place(due_t *due, queue_t *queue, due_pair_t pair)
{
    slot_t *slots = due->slots;
    uint32_t before = DUE_NONE, after = queue->head;
    while (after != DUE_NONE && slots[after].place < slots[pair].place) {
        before = after;
        after = slots[after].next;
    }
    if (after == DUE_NONE) {
        append(due, queue, pair);
        return;
    }
    slots[pair].next = after;
    if (before == DUE_NONE)
        queue->head = pair;
    else
        slots[before].next = pair;
    queue->count++;
}

static due_pair_t pop(due_t *due, queue_t *queue)
{
    due_pair_t pair = queue->head;
    queue->head = due->slots[pair].next;
    if (queue->head == DUE_NONE)
        queue->tail = DUE_NONE;
    queue->count--;
    return pair;
}

static queue_t *lane_of(due_t *due, due_pair_t pair)
{
    uint32_t models = due->config->model_count;
    const slot_t *slot = &due->slots[pair];
    return &due->lanes[due->lane_of(due->context, pair % models, due->names[pair / models], slot->losses >= DUE_LOSSES_ALONE,
                                    slot->avoid)];
}

static void enqueue_last(due_t *due, due_pair_t pair)
{
    slot_t *slot = &due->slots[pair];
    slot->state = DUE;
    slot->place = due->next_place++;
    due->totals.due++;
    append(due, lane_of(due, pair), pair);
}

/* ---- becoming due ---------------------------------------------------------------------------------------------------------------- */

static bool matches_any(const char *patterns, const char *name)
{
    static const char separators[] = ", \t\r\n";
    for (const char *at = patterns + strspn(patterns, separators); *at; at += strspn(at, separators)) {
        size_t length = strcspn(at, separators);
        char pattern[CONFIG_TEXT_BYTES] = {0};
        memcpy(pattern, at, length < sizeof pattern ? length : sizeof pattern - 1);
        if (text_match(pattern, name))
            return true;
        at += length;
    }
    return false;
}

void due_symbol_add(due_t *due, const char *name)
{
    uint32_t symbol = due->symbol_count;
    if (symbol == due->symbols_max)
        return;
    due->symbol_count++;
    strncpy(due->names[symbol], name, WIRE_SYMBOL_BYTES - 1);
    for (uint32_t model = 0; model < due->config->model_count; model++) {
        slot_t *slot = &due->slots[symbol * due->config->model_count + model];
        slot->state = matches_any(due->config->models[model].symbols, name) ? IDLE : UNWANTED;
        slot->avoid = DUE_NONE;
    }
}

uint32_t due_symbol_count(const due_t *due)
{
    return due->symbol_count;
}

const char *due_symbol_name(const due_t *due, uint32_t symbol)
{
    return due->names[symbol];
}

static void mark(due_t *due, due_pair_t pair, int64_t now_ns)
{
    slot_t *slot = &due->slots[pair];
    slot->marked_end = slot->end;
    switch ((state_t)slot->state) {
    case IDLE:
        slot->since_ns = now_ns;
        enqueue_last(due, pair);
        break;
    case DUE:
        due->totals.overtaken++;
        break;
    case IN_FLIGHT:
        if (slot->again)
            due->totals.overtaken++;
        else
            slot->since_ns = now_ns;
        slot->again = true;
        break;
    case QUARANTINED: /* due again when it is released */
    case UNWANTED:
        break;
    }
}

static bool enough_history(const due_t *due, due_pair_t pair)
{
    return due->slots[pair].end >= due->config->models[pair % due->config->model_count].context_min;
}

static bool due_by_policy(const due_t *due, const slot_t *slot)
{
    if (slot->marked_end == 0)
        return true;
    switch (due->config->scheduler.due) {
    case CONFIG_DUE_CLOSE:
        return true;
    case CONFIG_DUE_EVERY:
        return slot->end - slot->marked_end >= due->config->scheduler.due_every;
    case CONFIG_DUE_TIMER:
        break;
    }
    return false;
}

void due_bar(due_t *due, uint32_t symbol, uint64_t end, int64_t stored_ns, int64_t now_ns)
{
    if (symbol >= due->symbol_count)
        return;
    for (uint32_t model = 0; model < due->config->model_count; model++) {
        due_pair_t pair = symbol * due->config->model_count + model;
        slot_t *slot = &due->slots[pair];
        if (slot->state == UNWANTED || end <= slot->end)
            continue;
        slot->end = end;
        slot->stored_ns = stored_ns;
        if (enough_history(due, pair) && due_by_policy(due, slot))
            mark(due, pair, now_ns);
    }
}

static void run_timer(due_t *due, int64_t now_ns)
{
    if (due->config->scheduler.due != CONFIG_DUE_TIMER || now_ns < due->next_timer_ns)
        return;
    due->next_timer_ns = now_ns + due->config->scheduler.due_timer_ns;
    for (due_pair_t pair = 0; pair < due->symbol_count * due->config->model_count; pair++) {
        const slot_t *slot = &due->slots[pair];
        if (slot->state != UNWANTED && slot->end > slot->marked_end && enough_history(due, pair))
            mark(due, pair, now_ns);
    }
}

void due_tick(due_t *due, int64_t now_ns)
{
    while (due->quarantine.head != DUE_NONE && due->slots[due->quarantine.head].since_ns <= now_ns) {
        due_pair_t pair = pop(due, &due->quarantine);
        due->totals.quarantined--;
        enqueue_last(due, pair);
    }
    run_timer(due, now_ns);
}

int64_t due_next_ns(const due_t *due)
{
    int64_t next = due->config->scheduler.due == CONFIG_DUE_TIMER ? due->next_timer_ns : INT64_MAX;
    if (due->quarantine.head != DUE_NONE && due->slots[due->quarantine.head].since_ns < next)
        next = due->slots[due->quarantine.head].since_ns;
    return next;
}

/* ---- lanes and flight ------------------------------------------------------------------------------------------------------------ */

static int compare_places(const void *a, const void *b)
{
    uint64_t x = ((const order_t *)a)->place, y = ((const order_t *)b)->place;
    return (x > y) - (x < y);
}

void due_relane(due_t *due)
{
    size_t count = 0;
    for (uint32_t lane = 0; lane < due->lane_count; lane++) {
        while (due->lanes[lane].head != DUE_NONE) {
            due_pair_t pair = pop(due, &due->lanes[lane]);
            due->order[count++] = (order_t){due->slots[pair].place, pair};
        }
    }
    qsort(due->order, count, sizeof *due->order, compare_places);
    for (size_t i = 0; i < count; i++)
        append(due, lane_of(due, due->order[i].pair), due->order[i].pair);
}

bool due_waiting(const due_t *due, uint32_t lane, due_waiting_t *out)
{
    const queue_t *queue = &due->lanes[lane];
    if (queue->head == DUE_NONE)
        return false;
    const slot_t *oldest = &due->slots[queue->head];
    *out = (due_waiting_t){queue->count, oldest->place, oldest->since_ns};
    return true;
}

uint32_t due_take(due_t *due, uint32_t lane, uint32_t most, due_pair_t *out)
{
    uint32_t count = 0;
    while (count < most && due->lanes[lane].head != DUE_NONE) {
        out[count] = pop(due, &due->lanes[lane]);
        due->slots[out[count]].state = IN_FLIGHT;
        due->slots[out[count]].avoid = DUE_NONE;
        count++;
    }
    due->totals.due -= count;
    due->totals.in_flight += count;
    return count;
}

wire_item_t due_item(const due_t *due, due_pair_t pair)
{
    const slot_t *slot = &due->slots[pair];
    return (wire_item_t){.symbol_id = pair / due->config->model_count, .end = slot->end, .stored_ns = slot->stored_ns};
}

/* Counts what the outcome says against the pair; true when it is to blame and has failed often enough. */
static bool failed_too_often(slot_t *slot, due_outcome_t outcome, uint32_t quarantine_after)
{
    bool to_blame = outcome == DUE_FAILED || (outcome == DUE_LOST && slot->losses >= DUE_LOSSES_ALONE);
    if (outcome == DUE_FAILED)
        slot->losses = 0; /* its worker lived */
    else if (outcome == DUE_LOST)
        slot->losses++;
    if (outcome != DUE_UNSENT)
        slot->failures++;
    return to_blame && slot->failures >= quarantine_after;
}

bool due_finish(due_t *due, due_pair_t pair, due_outcome_t outcome, uint32_t avoid, int64_t now_ns)
{
    slot_t *slot = &due->slots[pair];
    bool again = slot->again;
    slot->again = false;
    due->totals.in_flight--;
    if (outcome == DUE_ANSWERED) {
        slot->failures = slot->losses = 0;
        if (again)
            enqueue_last(due, pair);
        else
            slot->state = IDLE;
        return false;
    }
    if (again)
        due->totals.overtaken++; /* the retry takes the newest bar */
    if (failed_too_often(slot, outcome, due->config->scheduler.quarantine_after)) {
        slot->state = QUARANTINED;
        slot->since_ns = now_ns + due->config->scheduler.quarantine_ns;
        append(due, &due->quarantine, pair);
        due->totals.quarantined++;
        return true;
    }
    slot->state = DUE;
    slot->avoid = avoid;
    due->totals.due++;
    insert_by_place(due, lane_of(due, pair), pair);
    return false;
}

due_totals_t due_totals(const due_t *due)
{
    return due->totals;
}
