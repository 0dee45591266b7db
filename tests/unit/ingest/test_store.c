/* Verdicts on their way into a real segment: rings, flags, counters. */
#include "ingest/store.h"

#include "base/clock.h"
#include "base/error.h"
#include "shm/ring.h"
#include "shm/update_log.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MINUTE (60 * CLOCK_NS_PER_S)

typedef struct {
    config_t config;
    store_t *store;
    shm_segment_t *reader;
} fixture_t;

static int setup(void **state)
{
    fixture_t *fixture = calloc(1, sizeof *fixture);
    snprintf(fixture->config.instance.name, sizeof fixture->config.instance.name, "test-store-%d", (int)getpid());
    fixture->config.shm.symbols_max = 2;
    fixture->config.shm.ring_bars = 64;
    fixture->config.shm.log_entries = 1024;
    fixture->config.ingest.gap_fill_max = 3;
    *state = fixture;
    return store_open(&fixture->config, &fixture->store) || shm_segment_join(fixture->config.instance.name, &fixture->reader);
}

static int teardown(void **state)
{
    fixture_t *fixture = *state;
    shm_segment_leave(fixture->reader);
    store_close(fixture->store);
    shm_segment_delete(fixture->config.instance.name);
    free(fixture);
    return 0;
}

static source_bar_t bar_at(int minute, double price)
{
    return (source_bar_t){.symbol = "A",
                          .interval_ns = MINUTE,
                          .bar = {.open_time_ns = minute * MINUTE,
                                  .open = price,
                                  .high = price,
                                  .low = price,
                                  .close = price,
                                  .volume = 10,
                                  .amount = NAN,
                                  .flags = SHM_BAR_NO_AMOUNT}};
}

static void put(fixture_t *fixture, const source_bar_t *bar)
{
    uint32_t id;
    assert_int_equal(store_symbol(fixture->store, "test", bar, &id), STORE_OK);
    assert_int_equal(id, 0);
    store_put(fixture->store, "test", id, bar, false);
}

static void put_at(fixture_t *fixture, int minute, double price)
{
    source_bar_t bar = bar_at(minute, price);
    put(fixture, &bar);
}

static uint64_t count_of(const fixture_t *fixture, shm_counter_t id)
{
    return store_counter(fixture->store, id);
}

static shm_bar_t stored(const fixture_t *fixture, uint64_t index)
{
    shm_bar_t bar;
    assert_int_equal(shm_ring_read(fixture->reader, 0, index, &bar), SHM_OK);
    return bar;
}

static void sound_bars_are_stored_as_they_came(void **state)
{
    fixture_t *fixture = *state;
    source_bar_t bar = bar_at(1, 11);
    put(fixture, &bar);
    put_at(fixture, 2, 12);
    assert_int_equal(shm_ring_closed(fixture->reader, 0), 2);
    assert_int_equal(shm_symbol_interval_ns(fixture->reader, 0), MINUTE);
    shm_bar_t read = stored(fixture, 0);
    assert_memory_equal(&read, &bar.bar, offsetof(shm_bar_t, stamp));
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_STORED), 2);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_HISTORY), 0);
    assert_int_equal(count_of(fixture, SHM_COUNTER_LAST_BAR_NS), 2 * MINUTE);
}

static void each_fault_is_counted_by_its_kind_and_not_stored(void **state)
{
    fixture_t *fixture = *state;
    put_at(fixture, 10, 11);
    source_bar_t bar = bar_at(11, 11);
    bar.bar.close = NAN;
    put(fixture, &bar);
    bar = bar_at(11, 11);
    bar.bar.high = 10;
    put(fixture, &bar);
    put_at(fixture, 11, -1);
    bar = bar_at(11, 11);
    bar.bar.volume = -1;
    put(fixture, &bar);
    put_at(fixture, 10, 11);
    put_at(fixture, 9, 11);
    for (shm_counter_t id = SHM_COUNTER_BAD_NOT_FINITE; id <= SHM_COUNTER_BAD_OUT_OF_ORDER; id++)
        assert_int_equal(count_of(fixture, id), 1);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_STORED), 1);
    assert_int_equal(shm_ring_head(fixture->reader, 0), 1);
}

static void a_late_correction_amends_the_stored_bar(void **state)
{
    fixture_t *fixture = *state;
    for (int minute = 1; minute <= 5; minute++)
        put_at(fixture, minute, 11);
    put_at(fixture, 2, 12);
    put_at(fixture, 5, 13);
    assert_int_equal(shm_ring_head(fixture->reader, 0), 5);
    assert_true(stored(fixture, 1).close == 12 && stored(fixture, 1).flags & SHM_BAR_AMENDED);
    assert_true(stored(fixture, 4).close == 13 && stored(fixture, 4).flags & SHM_BAR_AMENDED);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_AMENDED), 2);
    put_at(fixture, 2, 12);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BAD_DUPLICATE), 1);
}

static void a_bar_that_left_the_ring_is_out_of_order(void **state)
{
    fixture_t *fixture = *state;
    for (int minute = 1; minute <= 100; minute++)
        put_at(fixture, minute, 11);
    put_at(fixture, 2, 12);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BAD_OUT_OF_ORDER), 1);
    put_at(fixture, 60, 12);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_AMENDED), 1);
}

static void a_bar_in_progress_is_amended_and_closed_by_itself_or_the_next(void **state)
{
    fixture_t *fixture = *state;
    source_bar_t bar = bar_at(1, 11);
    bar.bar.flags |= SHM_BAR_IN_PROGRESS;
    put(fixture, &bar);
    assert_int_equal(shm_ring_closed(fixture->reader, 0), 0);
    bar.bar.high = bar.bar.close = 12;
    put(fixture, &bar);
    assert_int_equal(shm_ring_closed(fixture->reader, 0), 0);
    bar.bar.flags &= ~(uint32_t)SHM_BAR_IN_PROGRESS;
    put(fixture, &bar);
    assert_int_equal(shm_ring_closed(fixture->reader, 0), 1);
    assert_true(stored(fixture, 0).close == 12 && !(stored(fixture, 0).flags & SHM_BAR_AMENDED));

    bar = bar_at(2, 13);
    bar.bar.flags |= SHM_BAR_IN_PROGRESS;
    put(fixture, &bar);
    put_at(fixture, 3, 14);
    assert_int_equal(shm_ring_closed(fixture->reader, 0), 3);
    put(fixture, &bar); /* too late */
    assert_int_equal(count_of(fixture, SHM_COUNTER_BAD_OUT_OF_ORDER), 1);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_AMENDED), 2);
}

static void the_mark_policy_flags_the_bar_after_a_gap(void **state)
{
    fixture_t *fixture = *state;
    put_at(fixture, 1, 11);
    put_at(fixture, 2, 11);
    put_at(fixture, 5, 11);
    put_at(fixture, 6, 11);
    assert_int_equal(shm_ring_head(fixture->reader, 0), 4);
    assert_false(stored(fixture, 1).flags & SHM_BAR_GAP);
    assert_true(stored(fixture, 2).flags & SHM_BAR_GAP);
    assert_false(stored(fixture, 3).flags & SHM_BAR_GAP);
    assert_int_equal(count_of(fixture, SHM_COUNTER_GAPS), 1);
    put_at(fixture, 5, 12);
    assert_true(stored(fixture, 2).flags & SHM_BAR_GAP && stored(fixture, 2).flags & SHM_BAR_AMENDED);
}

static void the_fill_policy_makes_flat_bars_up_to_its_limit(void **state)
{
    fixture_t *fixture = *state;
    fixture->config.ingest.gap = CONFIG_GAP_FILL;
    put_at(fixture, 1, 11);
    put_at(fixture, 5, 12);
    assert_int_equal(shm_ring_head(fixture->reader, 0), 5);
    for (int i = 1; i <= 3; i++) {
        shm_bar_t bar = stored(fixture, (uint64_t)i);
        assert_int_equal(bar.open_time_ns, (i + 1) * MINUTE);
        assert_true(bar.open == 11 && bar.high == 11 && bar.low == 11 && bar.close == 11 && bar.volume == 0 && isnan(bar.amount));
        assert_int_equal(bar.flags, SHM_BAR_FILLED | SHM_BAR_NO_AMOUNT);
    }
    assert_int_equal(stored(fixture, 4).flags, SHM_BAR_NO_AMOUNT);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_FILLED), 3);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_STORED), 5);
    assert_int_equal(count_of(fixture, SHM_COUNTER_GAPS), 1);

    put_at(fixture, 10, 13); /* four are missing: too many */
    assert_int_equal(shm_ring_head(fixture->reader, 0), 6);
    assert_true(stored(fixture, 5).flags & SHM_BAR_GAP);

    put_at(fixture, 3, 11.5); /* traded after all */
    assert_true(stored(fixture, 2).close == 11.5 && !(stored(fixture, 2).flags & SHM_BAR_FILLED));
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_AMENDED), 1);
}

static void a_symbol_without_room_or_interval_is_refused_and_counted(void **state)
{
    fixture_t *fixture = *state;
    uint32_t id;
    source_bar_t bar = bar_at(1, 11);
    bar.interval_ns = 0;
    assert_int_equal(store_symbol(fixture->store, "test", &bar, &id), STORE_REFUSED);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BAD_FORMAT), 1);
    bar.interval_ns = MINUTE;
    for (char name = 'A'; name <= 'C'; name++) {
        bar.symbol[0] = name;
        assert_int_equal(store_symbol(fixture->store, "test", &bar, &id), name < 'C' ? STORE_OK : STORE_REFUSED);
    }
    assert_int_equal(count_of(fixture, SHM_COUNTER_BAD_SYMBOL), 1);
    assert_int_equal(store_symbol_count(fixture->store), 2);
}

static void readers_are_woken_only_when_something_was_stored(void **state)
{
    fixture_t *fixture = *state;
    uint64_t cursor = shm_log_newest(fixture->reader);
    put_at(fixture, 1, 11);
    store_wake(fixture->store);
    shm_update_t updates[4];
    size_t count;
    assert_int_equal(shm_log_read(fixture->reader, &cursor, updates, 4, &count), SHM_OK);
    assert_int_equal(count, 1);
    assert_int_equal(updates[0].flags, SHM_UPDATE_CLOSED);
}

static void history_is_counted_apart(void **state)
{
    fixture_t *fixture = *state;
    source_bar_t bar = bar_at(1, 11);
    uint32_t id;
    assert_int_equal(store_symbol(fixture->store, "test", &bar, &id), STORE_OK);
    store_put(fixture->store, "test", id, &bar, true);
    store_put(fixture->store, "test", id, &bar, true);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_HISTORY), 1);
}

static void a_reopened_store_goes_on_with_what_the_rings_hold(void **state)
{
    fixture_t *fixture = *state;
    put_at(fixture, 1, 11);
    source_bar_t bar = bar_at(2, 12);
    bar.bar.flags |= SHM_BAR_IN_PROGRESS;
    put(fixture, &bar);
    store_close(fixture->store);
    assert_int_equal(store_open(&fixture->config, &fixture->store), STORE_OK);
    assert_true(store_rejoined(fixture->store));
    assert_int_equal(store_resume_ns(fixture->store, 0), MINUTE);
    put_at(fixture, 2, 12);
    put_at(fixture, 1, 11);
    put_at(fixture, 4, 11);
    assert_int_equal(shm_ring_closed(fixture->reader, 0), 3);
    assert_true(stored(fixture, 2).flags & SHM_BAR_GAP);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_STORED), 3);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BARS_AMENDED), 1);
    assert_int_equal(count_of(fixture, SHM_COUNTER_BAD_DUPLICATE), 1);
}

static void an_unknown_group_is_an_error_that_names_it(void **state)
{
    fixture_t *fixture = *state;
    config_t config = fixture->config;
    strcpy(config.shm.group, "no-such-group-here");
    store_t *store;
    assert_int_equal(store_open(&config, &store), STORE_ERR);
    assert_non_null(strstr(error_text(), "no-such-group-here"));
}

static void a_second_writer_is_refused(void **state)
{
    fixture_t *fixture = *state;
    store_t *store;
    assert_int_equal(store_open(&fixture->config, &store), STORE_ERR);
    assert_non_null(strstr(error_text(), fixture->config.instance.name));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(sound_bars_are_stored_as_they_came),
        TEST(each_fault_is_counted_by_its_kind_and_not_stored),
        TEST(a_late_correction_amends_the_stored_bar),
        TEST(a_bar_that_left_the_ring_is_out_of_order),
        TEST(a_bar_in_progress_is_amended_and_closed_by_itself_or_the_next),
        TEST(the_mark_policy_flags_the_bar_after_a_gap),
        TEST(the_fill_policy_makes_flat_bars_up_to_its_limit),
        TEST(a_symbol_without_room_or_interval_is_refused_and_counted),
        TEST(readers_are_woken_only_when_something_was_stored),
        TEST(history_is_counted_apart),
        TEST(a_reopened_store_goes_on_with_what_the_rings_hold),
        TEST(an_unknown_group_is_an_error_that_names_it),
        TEST(a_second_writer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
