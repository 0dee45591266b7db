/* Thousands of random steps through the whole logic: bars close; workers come, die, freeze, are slow, leave, answer twice; symbols fail or
 * kill. The simulated workers know what they truly hold, so the invariants are checked against them and not against the scheduler's books. */
#include "fixture.h"

#include "base/text.h"
#include "scheduler/dispatch.h"

#include <stdlib.h>

enum { WORKERS = 5, SYMBOLS = 48, MODELS = 2, PAIRS = SYMBOLS * MODELS, CREDITS = 2, QUEUE = 16, STEPS = 6000 };

typedef enum { DEAD, LOADING, RUNNING, FROZEN } life_t;

typedef struct {
    uint64_t id;
    uint32_t count, model;
    wire_item_t items[WIRE_ITEMS_MOST];
} job_t;

typedef struct {
    life_t life;
    uint32_t pid;
    int64_t until_ns; /* DEAD, LOADING, FROZEN: when that ends; RUNNING: when the first job is done */
    int64_t told_ns;  /* last message to the scheduler */
    int64_t able_ns;  /* since when the scheduler may count on it */
    bool was_able;
    uint32_t job_count;
    job_t jobs[QUEUE];
} worker_t;

typedef struct {
    uint64_t end;      /* newest closed bar */
    uint64_t forecast; /* newest bar forecast */
    bool assigned;     /* in a batch that the scheduler has no reason yet to give up */
    bool missed;       /* its last batch missed its deadline: the next may go elsewhere */
    bool away;         /* and did */
    uint32_t worker, pid;
    int64_t sent_ns;
} pair_t;

typedef struct {
    const char *name;
    int die, freeze, slow, leave, swallow; /* chances in a thousand, a step or a batch */
    int poison, failing;                   /* symbols, -1: none */
    bool innocents_stay_free;              /* no symbol but those two may ever be quarantined */
} chaos_t;

static config_t config;
static dispatch_t *dispatch;
static worker_t workers[WORKERS];
static pair_t pairs[PAIRS];
static int64_t now_ns;
static uint64_t forecasts;
static const chaos_t *chaos;
static bool calm; /* the end of a run: nothing bad happens any more */

static bool chance(int in_a_thousand)
{
    return !calm && random() % 1000 < in_a_thousand;
}

static bool bad_symbol(const char *name)
{
    int64_t number;
    return text_to_i64(name + 1, &number) && (number == chaos->poison || number == chaos->failing);
}

static void check_report(void *context, dispatch_event_t event, const char *text)
{
    (void)context, (void)event;
    char symbol[WIRE_SYMBOL_BYTES];
    if (chaos->innocents_stay_free && event == DISPATCH_QUARANTINED && sscanf(text, "symbol %31[^,]", symbol) == 1)
        assert_true(bad_symbol(symbol));
}

static void name_worker(uint32_t worker, char out[WIRE_NAME_BYTES])
{
    snprintf(out, WIRE_NAME_BYTES, "worker.%u", worker);
}

static uint32_t number_of(const char *id)
{
    return (uint32_t)atoi(id + strlen("worker."));
}

/* ---- the workers ----------------------------------------------------------------------------------------------------------------- */

static void tell_hello(uint32_t w)
{
    wire_hello_t hello = {.pid = workers[w].pid};
    name_worker(w, hello.worker);
    assert_int_equal(dispatch_hello(dispatch, &hello, now_ns), DISPATCH_OK);
    for (int i = 0; i < PAIRS; i++)
        if (pairs[i].worker == w && pairs[i].pid != workers[w].pid)
            pairs[i].assigned = false;
    workers[w].told_ns = now_ns;
}

static void tell_ready(uint32_t w)
{
    char id[WIRE_NAME_BYTES];
    name_worker(w, id);
    wire_ready_t ready = ready_message(id, workers[w].pid, CREDITS);
    assert_int_equal(dispatch_ready(dispatch, &ready, now_ns), DISPATCH_OK);
    workers[w].told_ns = now_ns;
}

static void tell_beat(uint32_t w)
{
    wire_heartbeat_t beat = {.batch_id = workers[w].job_count ? workers[w].jobs[0].id : 0, .ready = workers[w].life == RUNNING};
    name_worker(w, beat.sender);
    dispatch_heartbeat(dispatch, &beat, now_ns);
    workers[w].told_ns = now_ns;
}

static void start_job(worker_t *worker)
{
    worker->until_ns = now_ns + (1 + random() % 8) * MS + (chance(chaos->slow) ? 500 * MS : 0);
}

static void die(worker_t *worker)
{
    worker->life = DEAD;
    worker->job_count = 0;
    worker->until_ns = now_ns + random() % 600 * MS;
}

/* True when the batch killed the worker. */
static bool run_job(worker_t *worker, const job_t *job, uint8_t *status)
{
    for (uint32_t i = 0; i < job->count; i++) {
        if ((int)job->items[i].symbol_id == chaos->poison) {
            die(worker);
            return true;
        }
        status[i] = (int)job->items[i].symbol_id == chaos->failing ? WIRE_ITEM_FAILED : WIRE_ITEM_OK;
    }
    return false;
}

static void finish_job(uint32_t w)
{
    worker_t *worker = &workers[w];
    const job_t job = worker->jobs[0];
    uint8_t status[WIRE_ITEMS_MOST];
    if (run_job(worker, &job, status))
        return;
    memmove(worker->jobs, worker->jobs + 1, --worker->job_count * sizeof *worker->jobs);
    start_job(worker);

    wire_done_t done = {.batch_id = job.id, .count = job.count, .status = status};
    name_worker(w, done.worker);
    bool live = dispatch_done(dispatch, &done, now_ns) == DISPATCH_OK;
    worker->told_ns = now_ns;
    if (chance(20))
        assert_int_equal(dispatch_done(dispatch, &done, now_ns), DISPATCH_LATE);
    for (uint32_t i = 0; i < job.count; i++) {
        pair_t *pair = &pairs[job.items[i].symbol_id * MODELS + job.model];
        if (live) {
            assert_true(pair->assigned && pair->worker == w);
            pair->assigned = pair->missed = false;
        }
        if (live && status[i] == WIRE_ITEM_OK) {
            assert_true(job.items[i].end > pair->forecast); /* in order, never twice */
            pair->forecast = job.items[i].end;
            forecasts++;
        }
    }
}

static void live_on(uint32_t w)
{
    worker_t *worker = &workers[w];
    switch (worker->life) {
    case DEAD:
        if (now_ns >= worker->until_ns) {
            worker->life = LOADING;
            worker->pid++;
            worker->until_ns = now_ns + random() % 100 * MS;
            tell_hello(w);
        }
        return;
    case LOADING:
        if (now_ns >= worker->until_ns) {
            worker->life = RUNNING;
            tell_ready(w);
        }
        break;
    case FROZEN:
        if (now_ns < worker->until_ns && !calm)
            return;
        worker->life = RUNNING;
        break;
    case RUNNING:
        if (worker->job_count && now_ns >= worker->until_ns)
            finish_job(w);
        break;
    }
    if (worker->life == DEAD)
        return;
    if (now_ns - worker->told_ns >= config.scheduler.heartbeat_ns / 2)
        tell_beat(w);
    if (chance(chaos->die)) {
        die(worker);
    } else if (worker->life == RUNNING && chance(chaos->freeze)) {
        worker->life = FROZEN;
        worker->until_ns = now_ns + random() % 2000 * MS;
    } else if (worker->life == RUNNING && chance(chaos->leave)) {
        wire_drain_t drain;
        name_worker(w, drain.sender);
        dispatch_leave(dispatch, &drain, now_ns);
        worker->told_ns = now_ns;
        die(worker); /* without finishing: impolite, but its batches must survive it */
    }
}

/* ---- the scheduler's side -------------------------------------------------------------------------------------------------------- */

/* Batches that the scheduler may give up from now on: past their deadline, or their worker silent for too long. */
static void excuse(void)
{
    for (int i = 0; i < PAIRS; i++) {
        pair_t *pair = &pairs[i];
        if (!pair->assigned)
            continue;
        bool missed = now_ns >= pair->sent_ns + config.scheduler.deadline_ns;
        pair->missed = pair->missed || missed;
        if (missed || now_ns - workers[pair->worker].told_ns >= config.scheduler.heartbeat_ns * config.scheduler.heartbeat_liveness)
            pair->assigned = false;
    }
}

static void watch_ability(void)
{
    const registry_t *registry = dispatch_registry(dispatch);
    for (uint32_t i = 0; i < registry_count(registry); i++) {
        const registry_worker_t *record = registry_worker(registry, i);
        worker_t *worker = &workers[number_of(record->id)];
        if (registry_able(record) && !worker->was_able)
            worker->able_ns = now_ns;
        worker->was_able = registry_able(record);
    }
}

static void check_affinity(pair_t *pair, uint32_t w, uint32_t symbol, uint32_t model)
{
    const registry_t *registry = dispatch_registry(dispatch);
    uint32_t owner = registry_owner(registry, model, due_symbol_name(dispatch_due(dispatch), symbol), REGISTRY_NONE);
    assert_int_not_equal(owner, REGISTRY_NONE);
    bool at_home = number_of(registry_worker(registry, owner)->id) == w;
    assert_true(at_home || pair->missed);
    bool moved = pair->sent_ns > 0 && pair->worker != w;
    if (moved && !pair->missed && !pair->away) /* only from a worker that is lost, or to one that came */
        assert_true(!workers[pair->worker].was_able || workers[w].able_ns >= pair->sent_ns);
    pair->away = !at_home;
}

static void receive(uint32_t w, const wire_assign_t *assign)
{
    worker_t *worker = &workers[w];
    uint32_t model = strcmp(assign->model, "m") == 0 ? 0 : 1;
    for (uint32_t i = 0; i < assign->count; i++) {
        pair_t *pair = &pairs[assign->items[i].symbol_id * MODELS + model];
        assert_false(pair->assigned); /* never two in flight for a pair */
        assert_int_equal(assign->items[i].end, pair->end);
        check_affinity(pair, w, assign->items[i].symbol_id, model);
        pair->assigned = true;
        pair->worker = w;
        pair->pid = worker->pid;
        pair->sent_ns = now_ns;
    }
    if (worker->life == DEAD || chance(chaos->swallow))
        return;
    assert_true(worker->job_count < CREDITS);
    job_t *job = &worker->jobs[worker->job_count++];
    job->id = assign->batch_id;
    job->count = assign->count;
    job->model = model;
    memcpy(job->items, assign->items, assign->count * sizeof *job->items);
    if (worker->job_count == 1 && worker->life == RUNNING)
        start_job(worker);
}

static void schedule(void)
{
    excuse();
    dispatch_tick(dispatch, now_ns);
    watch_ability();
    uint32_t number;
    wire_assign_t assign;
    while (dispatch_next(dispatch, now_ns, &number, &assign)) {
        uint32_t w = number_of(registry_worker(dispatch_registry(dispatch), number)->id);
        if (workers[w].life == DEAD && random() % 2) {
            dispatch_unsent(dispatch, number, now_ns);
            for (int i = 0; i < PAIRS; i++) /* it is given up with all that it held */
                if (pairs[i].worker == w)
                    pairs[i].assigned = false;
        } else {
            receive(w, &assign);
        }
        watch_ability();
    }
    for (uint32_t i = 0; i < registry_count(dispatch_registry(dispatch)); i++) {
        const registry_worker_t *record = registry_worker(dispatch_registry(dispatch), i);
        assert_true(record->held <= CREDITS && record->late <= record->held);
    }
}

static void close_bars(void)
{
    uint32_t symbol = (uint32_t)random() % SYMBOLS;
    for (uint32_t burst = random() % 4 ? 1 : (uint32_t)random() % SYMBOLS; burst > 0; burst--, symbol = (symbol + 1) % SYMBOLS) {
        for (uint32_t model = 0; model < MODELS; model++)
            pairs[symbol * MODELS + model].end++;
        due_bar(dispatch_due(dispatch), symbol, pairs[symbol * MODELS].end, now_ns, now_ns);
    }
}

static void settle_down(void)
{
    calm = true;
    for (uint32_t w = 0; w < WORKERS; w++)
        if (workers[w].life == DEAD && workers[w].until_ns > now_ns)
            workers[w].until_ns = now_ns;
    for (int i = 0; i < 20000; i++) {
        now_ns += MS;
        for (uint32_t w = 0; w < WORKERS; w++)
            live_on(w);
        schedule();
    }
}

static void check_all_newest_are_forecast(void)
{
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++)
        for (uint32_t model = 0; model < MODELS; model++) {
            const pair_t *pair = &pairs[symbol * MODELS + model];
            if (model == 0 && !bad_symbol(due_symbol_name(dispatch_due(dispatch), symbol)) && pair->end >= 3)
                assert_int_equal(pair->forecast, pair->end);
        }
}

static void run(const chaos_t *with, unsigned seed)
{
    chaos = with;
    calm = false;
    forecasts = 0;
    now_ns = 1000 * MS;
    memset(workers, 0, sizeof workers);
    memset(pairs, 0, sizeof pairs);
    srandom(seed);
    config = small_config(MODELS);
    config.scheduler.credits = CREDITS;
    config.scheduler.deadline_ns = 400 * MS;
    config.scheduler.quarantine_ns = 700 * MS;
    config.scheduler.linger_ns = seed % 2 ? 2 * MS : 0;
    assert_int_equal(dispatch_open(&config, 1, check_report, NULL, &dispatch), DISPATCH_OK);
    assert_int_equal(dispatch_begin(dispatch, 1, SYMBOLS), DISPATCH_OK);
    for (int i = 0; i < SYMBOLS; i++) {
        char name[WIRE_SYMBOL_BYTES];
        snprintf(name, sizeof name, "S%d", i);
        due_symbol_add(dispatch_due(dispatch), name);
    }
    for (int step = 0; step < STEPS; step++) {
        now_ns += random() % 4 * MS;
        if (random() % 5 == 0)
            close_bars();
        for (uint32_t w = 0; w < WORKERS; w++)
            live_on(w);
        schedule();
    }
    settle_down();
    check_all_newest_are_forecast();
    assert_true(forecasts > 10 * PAIRS);
    dispatch_totals_t totals = dispatch_totals(dispatch);
    assert_int_equal(totals.series_done, forecasts);
    assert_int_equal(totals.due.due + totals.due.in_flight + totals.due.quarantined > 0, chaos->poison >= 0 || chaos->failing >= 0);
    dispatch_close(dispatch);
}

static void run_seeds(const chaos_t *with)
{
    for (unsigned seed = 1; seed <= 12; seed++)
        run(with, seed);
}

static void all_goes_well_when_nothing_goes_wrong(void **state)
{
    (void)state;
    run_seeds(&(chaos_t){.poison = -1, .failing = -1, .innocents_stay_free = true});
}

static void a_poisonous_and_a_failing_symbol_are_the_only_ones_quarantined(void **state)
{
    (void)state;
    run_seeds(&(chaos_t){.poison = 7, .failing = 20, .innocents_stay_free = true});
}

static void workers_that_die_lose_no_forecast(void **state)
{
    (void)state;
    run_seeds(&(chaos_t){.die = 3, .leave = 1, .poison = -1, .failing = -1});
}

static void workers_that_freeze_and_are_slow_lose_no_forecast(void **state)
{
    (void)state;
    run_seeds(&(chaos_t){.freeze = 1, .slow = 10, .poison = -1, .failing = -1});
}

static void everything_at_once_loses_no_forecast(void **state)
{
    (void)state;
    run_seeds(&(chaos_t){.die = 2, .freeze = 1, .slow = 10, .leave = 1, .swallow = 10, .poison = 3, .failing = 11});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_goes_well_when_nothing_goes_wrong),
        cmocka_unit_test(a_poisonous_and_a_failing_symbol_are_the_only_ones_quarantined),
        cmocka_unit_test(workers_that_die_lose_no_forecast),
        cmocka_unit_test(workers_that_freeze_and_are_slow_lose_no_forecast),
        cmocka_unit_test(everything_at_once_loses_no_forecast),
    };
    return cmocka_run_group_tests_name("scheduler/simulation", tests, NULL, NULL);
}
