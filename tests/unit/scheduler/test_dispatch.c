#include "fixture.h"

#include "scheduler/dispatch.h"

#include <stdlib.h>

enum { EPOCH = 77, FIRST_BATCH = 1000 };

static config_t config;
static dispatch_t *dispatch;
static char reports[8192];

static void remember_report(void *context, dispatch_event_t event, const char *text)
{
    (void)context, (void)event;
    size_t used = strlen(reports);
    snprintf(reports + used, sizeof reports - used, "%s\n", text);
}

static int open_dispatch(void **state)
{
    (void)state;
    config = small_config(1);
    reports[0] = 0;
    if (dispatch_open(&config, FIRST_BATCH, remember_report, NULL, &dispatch) < 0)
        return -1;
    return dispatch_begin(dispatch, EPOCH, 256);
}

static int close_dispatch(void **state)
{
    (void)state;
    dispatch_close(dispatch);
    return 0;
}

static void add_symbols(uint32_t count)
{
    char name[WIRE_SYMBOL_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "S%03u", due_symbol_count(dispatch_due(dispatch)));
        due_symbol_add(dispatch_due(dispatch), name);
    }
}

static void close_bar(uint32_t first, uint32_t count, uint64_t end, int64_t now_ns)
{
    for (uint32_t symbol = first; symbol < first + count; symbol++)
        due_bar(dispatch_due(dispatch), symbol, end, now_ns, now_ns);
}

static void make_ready(const char *id, uint32_t pid, uint32_t credits, int64_t now_ns)
{
    wire_hello_t hello = {.pid = pid};
    strcpy(hello.worker, id);
    wire_ready_t ready = ready_message(id, pid, credits);
    assert_int_equal(dispatch_hello(dispatch, &hello, now_ns), DISPATCH_OK);
    assert_int_equal(dispatch_ready(dispatch, &ready, now_ns), DISPATCH_OK);
}

static int beat(const char *id, uint64_t batch_id, int64_t now_ns)
{
    wire_heartbeat_t heartbeat = {.batch_id = batch_id, .ready = 1};
    strcpy(heartbeat.sender, id);
    return dispatch_heartbeat(dispatch, &heartbeat, now_ns);
}

/* Answers a batch: every series with `status`. */
static int done(const char *id, uint64_t batch_id, uint32_t count, wire_item_status_t status, int64_t now_ns)
{
    uint8_t statuses[WIRE_ITEMS_MOST];
    memset(statuses, status, sizeof statuses);
    wire_done_t message = {.batch_id = batch_id, .count = count, .status = statuses};
    strcpy(message.worker, id);
    return dispatch_done(dispatch, &message, now_ns);
}

typedef struct {
    const char *worker;
    uint64_t id;
    uint32_t count;
    uint32_t symbols[WIRE_ITEMS_MOST];
    uint64_t ends[WIRE_ITEMS_MOST];
} sent_t;

static bool next(sent_t *out, int64_t now_ns)
{
    uint32_t worker;
    wire_assign_t assign;
    if (!dispatch_next(dispatch, now_ns, &worker, &assign))
        return false;
    assert_int_equal(assign.epoch, EPOCH);
    assert_int_equal(assign.sent_ns, now_ns);
    assert_string_equal(assign.model, "m");
    out->worker = registry_worker(dispatch_registry(dispatch), worker)->id;
    out->id = assign.batch_id;
    out->count = assign.count;
    for (uint32_t i = 0; i < assign.count; i++) {
        out->symbols[i] = assign.items[i].symbol_id;
        out->ends[i] = assign.items[i].end;
    }
    return true;
}

#define assert_nothing_to_send(now_ns)                                                                                             \
    do {                                                                                                                           \
        sent_t unexpected;                                                                                                         \
        assert_false(next(&unexpected, now_ns));                                                                                   \
    } while (0)

static void due_symbols_wait_until_a_worker_is_ready(void **state)
{
    (void)state;
    add_symbols(3);
    close_bar(0, 3, 3, 1);
    assert_nothing_to_send(2);
    assert_int_equal(dispatch_totals(dispatch).due.due, 3);
    make_ready("w", 1, 2, 3);
    sent_t sent;
    assert_true(next(&sent, 4));
    assert_string_equal(sent.worker, "w");
    assert_int_equal(sent.id, FIRST_BATCH);
    assert_int_equal(sent.count, 3);
    assert_int_equal(sent.ends[2], 3);
    assert_nothing_to_send(4);
    assert_int_equal(done("w", sent.id, 3, WIRE_ITEM_OK, 5), DISPATCH_OK);
    dispatch_totals_t totals = dispatch_totals(dispatch);
    assert_int_equal(totals.series_done, 3);
    assert_int_equal(totals.due.due + totals.due.in_flight, 0);
}

static void a_burst_goes_out_in_the_planned_buckets_within_the_credits(void **state)
{
    (void)state;
    add_symbols(200);
    close_bar(0, 200, 3, 1);
    make_ready("w", 1, 2, 1);
    sent_t first, second, third;
    assert_true(next(&first, 2));
    assert_true(next(&second, 2));
    assert_int_equal(first.count, 64);
    assert_int_equal(second.count, 64);
    assert_nothing_to_send(2);
    done("w", first.id, first.count, WIRE_ITEM_OK, 3);
    assert_true(next(&third, 3));
    assert_int_equal(third.count, 64);
    done("w", second.id, second.count, WIRE_ITEM_OK, 4);
    assert_true(next(&first, 4));
    assert_int_equal(first.count, 8);
}

static void a_lone_symbol_lingers_and_a_full_bucket_does_not(void **state)
{
    (void)state;
    config.scheduler.linger_ns = 5 * MS;
    make_ready("w", 1, 2, 0);
    add_symbols(65);
    close_bar(0, 1, 3, 10 * MS);
    assert_nothing_to_send(10 * MS);
    assert_int_equal(dispatch_next_ns(dispatch, 10 * MS), 15 * MS);
    close_bar(1, 2, 3, 12 * MS);
    sent_t sent;
    assert_true(next(&sent, 15 * MS));
    assert_int_equal(sent.count, 3);
    close_bar(0, 3, 4, 15 * MS); /* in flight: due again when done */
    close_bar(3, 62, 3, 15 * MS);
    assert_nothing_to_send(15 * MS);
    done("w", sent.id, sent.count, WIRE_ITEM_OK, 16 * MS);
    assert_true(next(&sent, 16 * MS));
    assert_int_equal(sent.count, 64);
}

static void draining_does_not_linger(void **state)
{
    (void)state;
    config.scheduler.linger_ns = 500 * MS;
    make_ready("w", 1, 2, 0);
    add_symbols(1);
    close_bar(0, 1, 3, 1 * MS);
    assert_nothing_to_send(2 * MS);
    dispatch_drain(dispatch);
    sent_t sent;
    assert_true(next(&sent, 2 * MS));
}

static void the_oldest_due_model_of_a_worker_goes_first(void **state)
{
    (void)state;
    close_dispatch(NULL);
    config = small_config(2);
    dispatch_open(&config, FIRST_BATCH, remember_report, NULL, &dispatch);
    dispatch_begin(dispatch, EPOCH, 4);
    make_ready("w", 1, 2, 0);
    due_symbol_add(dispatch_due(dispatch), "AAPL");
    due_symbol_add(dispatch_due(dispatch), "BTC-USD");
    due_bar(dispatch_due(dispatch), 1, 5, 1, 1); /* due for "m", then for "crypto" */
    due_bar(dispatch_due(dispatch), 0, 5, 2, 2);
    uint32_t worker;
    wire_assign_t assign;
    assert_true(dispatch_next(dispatch, 3, &worker, &assign));
    assert_string_equal(assign.model, "m");
    assert_int_equal(assign.count, 2);
    assert_true(dispatch_next(dispatch, 3, &worker, &assign));
    assert_string_equal(assign.model, "crypto");
    assert_int_equal(assign.count, 1);
    assert_int_equal(assign.items[0].symbol_id, 1);
}

static void a_silent_workers_batch_goes_to_another_one_with_the_newest_bars(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(4);
    close_bar(0, 4, 3, 1 * MS);
    sent_t first, second;
    assert_true(next(&first, 1 * MS));
    make_ready("b", 1, 2, 200 * MS);
    close_bar(0, 1, 4, 210 * MS);
    dispatch_tick(dispatch, 299 * MS);
    assert_nothing_to_send(299 * MS);
    dispatch_tick(dispatch, 300 * MS);
    assert_true(next(&second, 300 * MS));
    assert_string_equal(second.worker, "b");
    assert_int_equal(second.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(second.symbols[i], i);
        assert_int_equal(second.ends[i], i == 0 ? 4 : 3);
    }
    assert_int_equal(dispatch_totals(dispatch).workers_lost, 1);
    assert_int_equal(dispatch_totals(dispatch).redispatched, 1);
    assert_non_null(strstr(reports, "worker a: lost with 1 batches"));
}

static void a_restarted_worker_is_seen_at_once_by_its_pid(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(2);
    close_bar(0, 2, 3, 1 * MS);
    sent_t first, second;
    assert_true(next(&first, 1 * MS));
    make_ready("a", 2, 2, 5 * MS);
    assert_true(next(&second, 5 * MS));
    assert_int_equal(second.count, 2);
    assert_int_not_equal(second.id, first.id);
    assert_int_equal(registry_worker(dispatch_registry(dispatch), 0)->held, 1);
    assert_int_equal(done("a", first.id, 2, WIRE_ITEM_OK, 6 * MS), DISPATCH_LATE);
    assert_int_equal(done("a", second.id, 2, WIRE_ITEM_OK, 7 * MS), DISPATCH_OK);
    assert_int_equal(dispatch_totals(dispatch).done_late, 1);
    assert_int_equal(dispatch_totals(dispatch).series_done, 2);
    assert_int_equal(dispatch_totals(dispatch).workers_lost, 1);
}

static void a_batch_that_misses_its_deadline_goes_to_another_worker_if_there_is_one(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(2);
    close_bar(0, 2, 3, 1 * MS);
    sent_t first, second;
    assert_true(next(&first, 1 * MS));
    assert_int_equal(dispatch_next_ns(dispatch, 1 * MS), 300 * MS);
    beat("a", first.id, 900 * MS);
    make_ready("b", 1, 2, 900 * MS);
    assert_int_equal(dispatch_next_ns(dispatch, 900 * MS), 1001 * MS);
    dispatch_tick(dispatch, 1001 * MS);
    assert_true(next(&second, 1001 * MS));
    assert_string_equal(second.worker, "b");
    assert_int_equal(dispatch_totals(dispatch).deadlines_missed, 1);

    assert_int_equal(done("a", first.id, 2, WIRE_ITEM_OK, 1002 * MS), DISPATCH_LATE); /* ignored */
    assert_int_equal(dispatch_totals(dispatch).series_done, 0);
    assert_int_equal(dispatch_totals(dispatch).due.in_flight, 2);
    assert_int_equal(done("b", second.id, 2, WIRE_ITEM_OK, 1003 * MS), DISPATCH_OK);
    assert_int_equal(done("b", second.id, 2, WIRE_ITEM_OK, 1003 * MS), DISPATCH_LATE); /* a duplicate */
    assert_int_equal(dispatch_totals(dispatch).series_done, 2);
}

static void a_late_batch_keeps_its_credit_until_its_worker_is_heard_of_it(void **state)
{
    (void)state;
    make_ready("a", 1, 1, 0);
    add_symbols(2);
    close_bar(0, 2, 3, 1 * MS);
    sent_t sent;
    assert_true(next(&sent, 1 * MS));
    beat("a", sent.id, 1000 * MS);
    dispatch_tick(dispatch, 1001 * MS);
    assert_nothing_to_send(1001 * MS); /* the only worker, and stalled */
    beat("a", sent.id, 1100 * MS);
    assert_nothing_to_send(1100 * MS);
    beat("a", 0, 1200 * MS); /* idle: it never got the batch */
    assert_true(next(&sent, 1200 * MS));
    assert_string_equal(sent.worker, "a");
    assert_int_equal(sent.count, 2);
}

static void the_only_worker_gets_a_missed_batch_again_when_it_has_a_credit_left(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(2);
    close_bar(0, 2, 3, 1 * MS);
    sent_t first, second;
    assert_true(next(&first, 1 * MS));
    beat("a", first.id, 1000 * MS);
    dispatch_tick(dispatch, 1001 * MS);
    assert_true(next(&second, 1001 * MS));
    assert_string_equal(second.worker, "a");
    assert_int_equal(registry_worker(dispatch_registry(dispatch), 0)->held, 2);
}

static void a_lost_worker_that_is_heard_again_is_back(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(1);
    dispatch_tick(dispatch, 300 * MS);
    assert_int_equal(dispatch_totals(dispatch).workers_alive, 0);
    close_bar(0, 1, 3, 301 * MS);
    assert_nothing_to_send(301 * MS);
    assert_int_equal(beat("a", 0, 310 * MS), DISPATCH_OK);
    assert_int_equal(dispatch_totals(dispatch).workers_alive, 1);
    sent_t sent;
    assert_true(next(&sent, 310 * MS));
}

static void an_unknown_worker_is_asked_to_introduce_itself(void **state)
{
    (void)state;
    assert_int_equal(beat("stranger", 0, 1), DISPATCH_UNKNOWN);
    assert_int_equal(done("stranger", 5, 1, WIRE_ITEM_OK, 1), DISPATCH_UNKNOWN);
}

static void a_worker_that_leaves_finishes_what_it_holds_and_gets_no_more(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(2);
    close_bar(0, 1, 3, 1 * MS);
    sent_t sent;
    assert_true(next(&sent, 1 * MS));
    assert_int_equal(dispatch_leave(dispatch, &(wire_drain_t){"a"}, 2 * MS), DISPATCH_OK);
    close_bar(1, 1, 3, 3 * MS);
    assert_nothing_to_send(3 * MS);
    assert_int_equal(done("a", sent.id, 1, WIRE_ITEM_OK, 4 * MS), DISPATCH_OK);
    dispatch_tick(dispatch, 1000 * MS);
    assert_int_equal(dispatch_totals(dispatch).workers_lost, 0);
    make_ready("b", 1, 2, 1000 * MS);
    assert_true(next(&sent, 1000 * MS));
    assert_string_equal(sent.worker, "b");
}

static void a_batch_that_cannot_be_sent_blames_nobody(void **state)
{
    (void)state;
    config.scheduler.quarantine_after = 1;
    add_symbols(1);
    close_bar(0, 1, 3, 1 * MS);
    for (int64_t i = 1; i < 8; i++) {
        make_ready("a", 1, 2, i * MS);
        uint32_t worker;
        wire_assign_t assign;
        assert_true(dispatch_next(dispatch, i * MS, &worker, &assign));
        dispatch_unsent(dispatch, worker, i * MS);
        assert_nothing_to_send(i * MS);
        assert_int_equal(dispatch_totals(dispatch).due.due, 1);
    }
    assert_int_equal(dispatch_totals(dispatch).due.quarantined, 0);
}

static void an_unreachable_workers_other_batches_go_to_others(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(2);
    close_bar(0, 1, 3, 1 * MS);
    sent_t sent;
    assert_true(next(&sent, 1 * MS));
    close_bar(1, 1, 3, 2 * MS);
    uint32_t worker;
    wire_assign_t assign;
    assert_true(dispatch_next(dispatch, 2 * MS, &worker, &assign));
    dispatch_unsent(dispatch, worker, 2 * MS);
    make_ready("b", 1, 2, 3 * MS);
    assert_true(next(&sent, 3 * MS));
    assert_int_equal(sent.count, 2);
    assert_int_equal(sent.symbols[0], 0);
}

static void statuses_that_are_nobodys_fault_wait_for_the_next_bar(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(1);
    uint8_t harmless[] = {WIRE_ITEM_TOO_SHORT, WIRE_ITEM_OVERRUN, WIRE_ITEM_STALE};
    for (uint64_t end = 3; end < 30; end++) {
        close_bar(0, 1, end, 1 * MS);
        sent_t sent;
        assert_true(next(&sent, 1 * MS));
        assert_int_equal(done("a", sent.id, 1, harmless[end % 3], 1 * MS), DISPATCH_OK);
        assert_nothing_to_send(1 * MS);
    }
    assert_int_equal(dispatch_totals(dispatch).series_failed, 0);
    assert_int_equal(dispatch_totals(dispatch).due.quarantined, 0);
}

static void a_symbol_that_keeps_failing_is_quarantined_alone_and_reported(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(8);
    close_bar(0, 8, 3, 1 * MS);
    sent_t sent;
    uint32_t runs = 0;
    while (next(&sent, 1 * MS)) {
        uint8_t status[8];
        for (uint32_t i = 0; i < sent.count; i++)
            status[i] = sent.symbols[i] == 5 ? WIRE_ITEM_FAILED : WIRE_ITEM_OK;
        wire_done_t message = {.batch_id = sent.id, .worker = "a", .count = sent.count, .status = status};
        assert_int_equal(dispatch_done(dispatch, &message, 1 * MS), DISPATCH_OK);
        runs++;
    }
    assert_int_equal(runs, 3);
    dispatch_totals_t totals = dispatch_totals(dispatch);
    assert_int_equal(totals.series_done, 7);
    assert_int_equal(totals.series_failed, 3);
    assert_int_equal(totals.due.quarantined, 1);
    assert_non_null(strstr(reports, "symbol S005, model m: quarantined for 10 s"));
}

static void a_done_of_another_length_is_refused(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(3);
    close_bar(0, 3, 3, 1 * MS);
    sent_t sent;
    assert_true(next(&sent, 1 * MS));
    assert_int_equal(done("a", sent.id, 2, WIRE_ITEM_OK, 2 * MS), DISPATCH_ERR_COUNT);
    assert_int_equal(dispatch_totals(dispatch).due.in_flight, 3);
}

static void the_symbol_that_kills_workers_is_found_alone(void **state)
{
    (void)state;
    add_symbols(8);
    close_bar(0, 8, 3, 1 * MS);
    uint32_t pid = 1, deaths = 0, alone = 0;
    make_ready("a", pid, 2, 1 * MS);
    sent_t sent;
    while (next(&sent, 1 * MS)) {
        bool poisoned = false;
        for (uint32_t i = 0; i < sent.count; i++)
            poisoned = poisoned || sent.symbols[i] == 6;
        if (deaths >= DUE_LOSSES_ALONE) {
            assert_int_equal(sent.count, 1);
            assert_nothing_to_send(1 * MS); /* nothing else meanwhile, in spite of a free credit */
            alone++;
        }
        if (poisoned) {
            deaths++;
            make_ready("a", ++pid, 2, 1 * MS);
        } else {
            done("a", sent.id, sent.count, WIRE_ITEM_OK, 1 * MS);
        }
    }
    assert_int_equal(alone, 8);
    assert_int_equal(deaths, 3);
    dispatch_totals_t totals = dispatch_totals(dispatch);
    assert_int_equal(totals.series_done, 7);
    assert_int_equal(totals.due.quarantined, 1);
    assert_non_null(strstr(reports, "symbol S006"));

    close_bar(0, 8, 4, 2 * MS); /* the cleared ones travel together again */
    assert_true(next(&sent, 2 * MS));
    assert_int_equal(sent.count, 7);
}

static void a_suspect_waits_until_its_worker_holds_nothing_else(void **state)
{
    (void)state;
    config.scheduler.credits = 3;
    add_symbols(2);
    make_ready("a", 1, 3, 0);
    close_bar(0, 1, 3, 1 * MS);
    sent_t suspect, other;
    assert_true(next(&suspect, 1 * MS));
    beat("a", suspect.id, 900 * MS);
    dispatch_tick(dispatch, 1001 * MS);
    assert_true(next(&suspect, 1001 * MS));
    beat("a", suspect.id, 1200 * MS);
    close_bar(1, 1, 3, 1400 * MS);
    assert_true(next(&other, 1400 * MS));
    beat("a", suspect.id, 1900 * MS);
    dispatch_tick(dispatch, 2001 * MS); /* the second deadline that symbol 0 misses */
    beat("a", 0, 2002 * MS);
    assert_int_equal(registry_worker(dispatch_registry(dispatch), 0)->held, 1);
    assert_nothing_to_send(2002 * MS);
    done("a", other.id, 1, WIRE_ITEM_OK, 2003 * MS);
    assert_true(next(&suspect, 2003 * MS));
    assert_int_equal(suspect.symbols[0], 0);
}

static void a_new_segment_starts_afresh_and_keeps_the_workers(void **state)
{
    (void)state;
    make_ready("a", 1, 2, 0);
    add_symbols(3);
    close_bar(0, 3, 3, 1 * MS);
    sent_t sent;
    assert_true(next(&sent, 1 * MS));
    assert_int_equal(dispatch_begin(dispatch, EPOCH, 16), DISPATCH_OK);
    assert_int_equal(dispatch_totals(dispatch).due.in_flight, 0);
    assert_int_equal(due_symbol_count(dispatch_due(dispatch)), 0);
    add_symbols(1);
    close_bar(0, 1, 9, 2 * MS);
    assert_int_equal(done("a", sent.id, 3, WIRE_ITEM_STALE, 2 * MS), DISPATCH_LATE);
    assert_true(next(&sent, 2 * MS));
    assert_int_equal(sent.count, 1);
    assert_int_equal(sent.ends[0], 9);
}

#define dispatch_test(name) cmocka_unit_test_setup_teardown(name, open_dispatch, close_dispatch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        dispatch_test(due_symbols_wait_until_a_worker_is_ready),
        dispatch_test(a_burst_goes_out_in_the_planned_buckets_within_the_credits),
        dispatch_test(a_lone_symbol_lingers_and_a_full_bucket_does_not),
        dispatch_test(draining_does_not_linger),
        dispatch_test(the_oldest_due_model_of_a_worker_goes_first),
        dispatch_test(a_silent_workers_batch_goes_to_another_one_with_the_newest_bars),
        dispatch_test(a_restarted_worker_is_seen_at_once_by_its_pid),
        dispatch_test(a_batch_that_misses_its_deadline_goes_to_another_worker_if_there_is_one),
        dispatch_test(a_late_batch_keeps_its_credit_until_its_worker_is_heard_of_it),
        dispatch_test(the_only_worker_gets_a_missed_batch_again_when_it_has_a_credit_left),
        dispatch_test(a_lost_worker_that_is_heard_again_is_back),
        dispatch_test(an_unknown_worker_is_asked_to_introduce_itself),
        dispatch_test(a_worker_that_leaves_finishes_what_it_holds_and_gets_no_more),
        dispatch_test(a_batch_that_cannot_be_sent_blames_nobody),
        dispatch_test(an_unreachable_workers_other_batches_go_to_others),
        dispatch_test(statuses_that_are_nobodys_fault_wait_for_the_next_bar),
        dispatch_test(a_symbol_that_keeps_failing_is_quarantined_alone_and_reported),
        dispatch_test(a_done_of_another_length_is_refused),
        dispatch_test(the_symbol_that_kills_workers_is_found_alone),
        dispatch_test(a_suspect_waits_until_its_worker_holds_nothing_else),
        dispatch_test(a_new_segment_starts_afresh_and_keeps_the_workers),
    };
    return cmocka_run_group_tests_name("scheduler/dispatch", tests, NULL, NULL);
}
