#include "fixture.h"

#include "scheduler/due.h"

/* Lane 0 takes everything, lane 1 what must go alone, lane 2 what avoids a worker. */
static uint32_t lane_by_kind(void *context, uint32_t model, const char *symbol, bool alone, uint32_t avoid)
{
    (void)context, (void)model, (void)symbol;
    return alone ? 1 : avoid != DUE_NONE ? 2 : 0;
}

static config_t config;

static due_t *open_due(uint32_t model_count, config_due_t policy)
{
    config = small_config(model_count);
    config.scheduler.due = policy;
    config.scheduler.due_every = 4;
    config.scheduler.due_timer_ns = 50 * MS;
    due_t *due;
    assert_int_equal(due_open(&config, 16, 3, lane_by_kind, NULL, &due), DUE_OK);
    return due;
}

static uint32_t waiting(const due_t *due, uint32_t lane)
{
    due_waiting_t out;
    return due_waiting(due, lane, &out) ? out.count : 0;
}

static due_pair_t take_one(due_t *due, uint32_t lane)
{
    due_pair_t pair;
    assert_int_equal(due_take(due, lane, 1, &pair), 1);
    return pair;
}

static void a_symbol_is_due_once_it_has_enough_closed_bars(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "AAPL");
    due_bar(due, 0, 2, 20, 20);
    assert_int_equal(waiting(due, 0), 0);
    due_bar(due, 0, 3, 30, 31);
    due_waiting_t oldest;
    assert_true(due_waiting(due, 0, &oldest));
    assert_int_equal(oldest.count, 1);
    assert_int_equal(oldest.since_ns, 31);
    due_pair_t pair = take_one(due, 0);
    wire_item_t item = due_item(due, pair);
    assert_int_equal(item.symbol_id, 0);
    assert_int_equal(item.end, 3);
    assert_int_equal(item.stored_ns, 30);
    due_close(due);
}

static void a_bar_that_is_not_newer_changes_nothing(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "AAPL");
    due_bar(due, 0, 9, 90, 90);
    due_bar(due, 0, 9, 95, 95);
    due_bar(due, 0, 4, 96, 96);
    due_bar(due, 7, 4, 96, 96); /* a symbol that nobody added */
    assert_int_equal(due_totals(due).due, 1);
    assert_int_equal(due_totals(due).overtaken, 0);
    assert_int_equal(due_item(due, take_one(due, 0)).stored_ns, 90);
    due_close(due);
}

static void patterns_decide_which_model_forecasts_a_symbol(void **state)
{
    (void)state;
    due_t *due = open_due(2, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "AAPL");
    due_symbol_add(due, "BTC-USD");
    due_symbol_add(due, "ETH-USD");
    due_symbol_add(due, "ETH-USDT");
    uint32_t pairs_expected[] = {1, 2, 2, 1};
    for (uint32_t symbol = 0; symbol < 4; symbol++) {
        uint32_t before = due_totals(due).due;
        due_bar(due, symbol, 5, 1, 1);
        assert_int_equal(due_totals(due).due - before, pairs_expected[symbol]);
    }
    assert_string_equal(due_symbol_name(due, 2), "ETH-USD");
    due_close(due);
}

static void each_model_waits_for_its_own_context_min(void **state)
{
    (void)state;
    due_t *due = open_due(2, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "BTC-USD");
    due_bar(due, 0, 4, 1, 1);
    assert_int_equal(due_totals(due).due, 1);
    due_bar(due, 0, 5, 2, 2);
    assert_int_equal(due_totals(due).due, 2);
    due_close(due);
}

static void a_symbol_may_appear_while_others_are_due(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    due_symbol_add(due, "B");
    due_bar(due, 1, 3, 2, 2);
    assert_int_equal(due_symbol_count(due), 2);
    assert_int_equal(waiting(due, 0), 2);
    due_close(due);
}

static void the_oldest_due_goes_first(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    for (int i = 0; i < 5; i++)
        due_symbol_add(due, (char[]){(char)('A' + i), 0});
    uint32_t order[] = {3, 0, 4, 1, 2};
    for (int i = 0; i < 5; i++)
        due_bar(due, order[i], 3, i, i);
    due_pair_t pairs[5];
    assert_int_equal(due_take(due, 0, 5, pairs), 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(pairs[i], order[i]);
    due_close(due);
}

static void newest_wins_an_overtaken_pair_keeps_its_place_and_takes_the_newer_bar(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_symbol_add(due, "B");
    due_bar(due, 0, 3, 10, 10);
    due_bar(due, 1, 3, 11, 11);
    due_bar(due, 0, 4, 20, 20);
    due_bar(due, 0, 5, 30, 30);
    assert_int_equal(due_totals(due).due, 2);
    assert_int_equal(due_totals(due).overtaken, 2);
    due_pair_t first = take_one(due, 0);
    assert_int_equal(first, 0);
    assert_int_equal(due_item(due, first).end, 5);
    assert_int_equal(due_item(due, first).stored_ns, 30);
    due_close(due);
}

static void due_again_in_flight_is_remembered_once_and_queued_when_the_first_is_done(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 10, 10);
    due_pair_t pair = take_one(due, 0);
    due_bar(due, 0, 4, 20, 20);
    due_bar(due, 0, 5, 30, 30);
    assert_int_equal(waiting(due, 0), 0);
    assert_int_equal(due_totals(due).overtaken, 1);
    assert_false(due_finish(due, pair, DUE_ANSWERED, DUE_NONE, 40));
    assert_int_equal(waiting(due, 0), 1);
    assert_int_equal(due_item(due, take_one(due, 0)).end, 5);
    assert_false(due_finish(due, pair, DUE_ANSWERED, DUE_NONE, 50));
    assert_int_equal(waiting(due, 0), 0);
    assert_int_equal(due_totals(due).in_flight, 0);
    due_close(due);
}

static void every_n_bars_counts_from_the_last_time_it_was_due(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_EVERY);
    due_symbol_add(due, "A");
    uint32_t times = 0;
    for (uint64_t end = 1; end <= 20; end++) {
        due_bar(due, 0, end, 1, 1);
        if (waiting(due, 0)) {
            assert_int_equal((end - 3) % 4, 0); /* context_min is 3, due_every 4 */
            due_finish(due, take_one(due, 0), DUE_ANSWERED, DUE_NONE, 1);
            times++;
        }
    }
    assert_int_equal(times, 5);
    due_close(due);
}

static void the_timer_makes_due_what_has_new_bars_and_nothing_else(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_TIMER);
    due_symbol_add(due, "A");
    due_symbol_add(due, "B");
    due_symbol_add(due, "SHORT");
    due_tick(due, 1 * MS);
    for (uint32_t symbol = 0; symbol < 2; symbol++)
        due_bar(due, symbol, 3, 1 * MS, 1 * MS); /* once at the start, whatever the policy */
    due_bar(due, 2, 2, 1 * MS, 1 * MS);
    due_pair_t pairs[3];
    assert_int_equal(due_take(due, 0, 3, pairs), 2);
    due_finish(due, pairs[0], DUE_ANSWERED, DUE_NONE, 2 * MS);
    due_finish(due, pairs[1], DUE_ANSWERED, DUE_NONE, 2 * MS);

    due_bar(due, 1, 4, 3 * MS, 3 * MS);
    due_bar(due, 1, 5, 4 * MS, 4 * MS);
    assert_int_equal(waiting(due, 0), 0);
    assert_int_equal(due_next_ns(due), 51 * MS);
    due_tick(due, 50 * MS);
    assert_int_equal(waiting(due, 0), 0);
    due_tick(due, 51 * MS);
    assert_int_equal(waiting(due, 0), 1);
    due_pair_t pair = take_one(due, 0);
    assert_int_equal(pair, 1);
    assert_int_equal(due_item(due, pair).end, 5);
    due_finish(due, pair, DUE_ANSWERED, DUE_NONE, 52 * MS);
    due_tick(due, 101 * MS);
    assert_int_equal(waiting(due, 0), 0);
    due_close(due);
}

static void a_retry_keeps_its_place_and_takes_the_newest_bar(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    for (int i = 0; i < 4; i++)
        due_symbol_add(due, (char[]){(char)('A' + i), 0});
    due_bar(due, 0, 3, 1, 1);
    due_bar(due, 1, 3, 2, 2);
    due_pair_t pairs[4];
    assert_int_equal(due_take(due, 0, 2, pairs), 2);
    due_bar(due, 2, 3, 3, 3);
    due_bar(due, 0, 4, 4, 4);
    due_finish(due, pairs[1], DUE_UNSENT, DUE_NONE, 5);
    due_finish(due, pairs[0], DUE_LOST, DUE_NONE, 5);
    due_bar(due, 3, 3, 6, 6);
    assert_int_equal(due_totals(due).overtaken, 1);
    assert_int_equal(due_take(due, 0, 4, pairs), 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(pairs[i], i);
    assert_int_equal(due_item(due, 0).end, 4);
    due_close(due);
}

static void a_retry_avoids_the_worker_that_failed_it_once(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    due_finish(due, take_one(due, 0), DUE_LOST, 5, 2);
    due_pair_t pair = take_one(due, 2);
    due_bar(due, 0, 4, 3, 3);
    due_finish(due, pair, DUE_ANSWERED, DUE_NONE, 4);
    assert_int_equal(waiting(due, 0), 1);
    due_close(due);
}

static void two_losses_send_a_pair_alone_until_it_is_answered(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    assert_false(due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 2));
    assert_false(due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 3));
    assert_int_equal(waiting(due, 0), 0);
    due_finish(due, take_one(due, 1), DUE_ANSWERED, DUE_NONE, 4);
    due_bar(due, 0, 4, 5, 5);
    assert_int_equal(waiting(due, 0), 1);
    due_close(due);
}

static void a_failure_that_its_worker_survives_ends_the_suspicion(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    config.scheduler.quarantine_after = 10;
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 2);
    due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 3);
    due_finish(due, take_one(due, 1), DUE_FAILED, DUE_NONE, 4);
    assert_int_equal(waiting(due, 0), 1);
    due_close(due);
}

static void a_pair_that_is_lost_alone_is_quarantined_and_comes_back(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 2);
    due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 3);
    assert_true(due_finish(due, take_one(due, 1), DUE_LOST, DUE_NONE, 4)); /* quarantine_after is 3 */
    assert_int_equal(due_totals(due).quarantined, 1);
    assert_int_equal(due_totals(due).due, 0);
    due_bar(due, 0, 4, 5, 5);
    assert_int_equal(due_totals(due).due, 0);
    int64_t release = 4 + 10000 * MS;
    assert_int_equal(due_next_ns(due), release);
    due_tick(due, release - 1);
    assert_int_equal(due_totals(due).quarantined, 1);
    due_tick(due, release);
    assert_int_equal(due_totals(due).quarantined, 0);
    due_pair_t pair = take_one(due, 1); /* still alone: it killed before */
    assert_int_equal(due_item(due, pair).end, 4);
    assert_true(due_finish(due, pair, DUE_LOST, DUE_NONE, release + 1)); /* one more is enough */
    due_close(due);
}

static void a_pair_is_never_quarantined_for_losses_in_company(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    config.scheduler.quarantine_after = 1;
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    assert_false(due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 2));
    assert_false(due_finish(due, take_one(due, 0), DUE_LOST, DUE_NONE, 3));
    assert_true(due_finish(due, take_one(due, 1), DUE_LOST, DUE_NONE, 4));
    due_close(due);
}

static void failures_in_a_row_quarantine_and_an_answer_forgives_them(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    for (int i = 0; i < 2; i++)
        assert_false(due_finish(due, take_one(due, 0), DUE_FAILED, DUE_NONE, 2));
    due_finish(due, take_one(due, 0), DUE_ANSWERED, DUE_NONE, 3);
    due_bar(due, 0, 4, 4, 4);
    for (int i = 0; i < 2; i++)
        assert_false(due_finish(due, take_one(due, 0), DUE_FAILED, DUE_NONE, 5));
    assert_true(due_finish(due, take_one(due, 0), DUE_FAILED, DUE_NONE, 6));
    due_close(due);
}

static void an_unsent_pair_is_not_blamed(void **state)
{
    (void)state;
    due_t *due = open_due(1, CONFIG_DUE_CLOSE);
    due_symbol_add(due, "A");
    due_bar(due, 0, 3, 1, 1);
    for (int i = 0; i < 20; i++)
        assert_false(due_finish(due, take_one(due, 0), DUE_UNSENT, DUE_NONE, 2));
    due_close(due);
}

static uint32_t moving_lane(void *context, uint32_t model, const char *symbol, bool alone, uint32_t avoid)
{
    (void)model, (void)alone, (void)avoid;
    return ((uint32_t)symbol[0] + *(uint32_t *)context) % 3;
}

static void relaning_keeps_the_order(void **state)
{
    (void)state;
    config = small_config(1);
    uint32_t shift = 0;
    due_t *due;
    assert_int_equal(due_open(&config, 16, 3, moving_lane, &shift, &due), DUE_OK);
    for (uint32_t i = 0; i < 16; i++)
        due_symbol_add(due, (char[]){(char)('A' + i), 0});
    for (uint32_t i = 0; i < 16; i++)
        due_bar(due, (i * 7) % 16, 3, i, i);
    shift = 1;
    due_relane(due);
    uint32_t seen = 0;
    for (uint32_t lane = 0; lane < 3; lane++) {
        int64_t since = -1;
        due_waiting_t oldest;
        while (due_waiting(due, lane, &oldest)) {
            assert_true(oldest.since_ns > since);
            since = oldest.since_ns;
            due_pair_t pair = take_one(due, lane);
            assert_int_equal(('A' + pair + 1) % 3, lane);
            seen++;
        }
    }
    assert_int_equal(seen, 16);
    due_close(due);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_symbol_is_due_once_it_has_enough_closed_bars),
        cmocka_unit_test(a_bar_that_is_not_newer_changes_nothing),
        cmocka_unit_test(patterns_decide_which_model_forecasts_a_symbol),
        cmocka_unit_test(each_model_waits_for_its_own_context_min),
        cmocka_unit_test(a_symbol_may_appear_while_others_are_due),
        cmocka_unit_test(the_oldest_due_goes_first),
        cmocka_unit_test(newest_wins_an_overtaken_pair_keeps_its_place_and_takes_the_newer_bar),
        cmocka_unit_test(due_again_in_flight_is_remembered_once_and_queued_when_the_first_is_done),
        cmocka_unit_test(every_n_bars_counts_from_the_last_time_it_was_due),
        cmocka_unit_test(the_timer_makes_due_what_has_new_bars_and_nothing_else),
        cmocka_unit_test(a_retry_keeps_its_place_and_takes_the_newest_bar),
        cmocka_unit_test(a_retry_avoids_the_worker_that_failed_it_once),
        cmocka_unit_test(two_losses_send_a_pair_alone_until_it_is_answered),
        cmocka_unit_test(a_failure_that_its_worker_survives_ends_the_suspicion),
        cmocka_unit_test(a_pair_that_is_lost_alone_is_quarantined_and_comes_back),
        cmocka_unit_test(a_pair_is_never_quarantined_for_losses_in_company),
        cmocka_unit_test(failures_in_a_row_quarantine_and_an_answer_forgives_them),
        cmocka_unit_test(an_unsent_pair_is_not_blamed),
        cmocka_unit_test(relaning_keeps_the_order),
    };
    return cmocka_run_group_tests_name("scheduler/due", tests, NULL, NULL);
}
