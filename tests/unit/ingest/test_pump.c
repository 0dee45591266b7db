/* Feeds through the pump into a real segment: history, replay, limits, what a re-join skips. */
#include "base/clock.h"
#include "base/error.h"
#include "ingest/pump.h"
#include "scratch.h"
#include "shm/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HEADER "time,open,high,low,close,volume\n"
#define MINUTE (60 * CLOCK_NS_PER_S)

static config_t config_of(config_feed_t feed)
{
    config_t config = {.feed_count = 1, .shm = {.symbols_max = 16, .ring_bars = 64, .log_entries = 1024}};
    snprintf(config.instance.name, sizeof config.instance.name, "test-pump-%d", (int)getpid());
    config.feeds[0] = feed;
    return config;
}

/* Minutes `first` to `last` of one symbol. */
static void write_minutes(void **state, const char *name, int first, int last)
{
    char text[8192];
    size_t used = (size_t)snprintf(text, sizeof text, HEADER);
    for (int minute = first; minute <= last; minute++)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%d,%d,%d,%d,%d,1\n", minute * 60, minute, minute, minute, minute);
    free(scratch_write(state, name, text));
}

typedef struct {
    store_t *store;
    pump_t *pump;
} running_t;

static running_t open_all(const config_t *config)
{
    running_t running = {0};
    if (store_open(config, &running.store) || pump_open(config, running.store, &running.pump))
        fail_msg("%s", error_text());
    return running;
}

static void close_all(running_t *running)
{
    pump_close(running->pump);
    store_close(running->store);
}

static uint64_t count_of(const running_t *running, shm_counter_t id)
{
    return store_counter(running->store, id);
}

static int setup(void **state)
{
    config_t config = config_of((config_feed_t){0});
    shm_segment_delete(config.instance.name);
    return scratch_setup(state);
}

static int teardown(void **state)
{
    config_t config = config_of((config_feed_t){0});
    shm_segment_delete(config.instance.name);
    return scratch_teardown(state);
}

static void history_is_stored_before_the_replay_and_counted(void **state)
{
    write_minutes(state, "A.csv", 1, 10);
    write_minutes(state, "B.csv", 6, 20);
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    feed.history_bars = 8;
    config_t config = config_of(feed);
    running_t running = open_all(&config);
    assert_int_equal(count_of(&running, SHM_COUNTER_FEEDS_OPEN), 1);
    assert_int_equal(pump_preload(running.pump, -1), PUMP_OK);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_HISTORY), 16);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), 16);
    assert_int_equal(pump_run(running.pump, -1, -1), PUMP_OK);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_HISTORY), 16);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), 25);
    assert_int_equal(count_of(&running, SHM_COUNTER_FEEDS_OPEN), 0);
    close_all(&running);
}

static void a_feed_shorter_than_its_history_ends_after_it(void **state)
{
    write_minutes(state, "A.csv", 1, 3);
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    feed.history_bars = 512;
    feed.speed = 1;
    config_t config = config_of(feed);
    running_t running = open_all(&config);
    assert_int_equal(pump_preload(running.pump, -1), PUMP_OK);
    assert_int_equal(pump_run(running.pump, -1, -1), PUMP_OK);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_HISTORY), 3);
    close_all(&running);
}

static void bars_max_limits_each_symbol(void **state)
{
    write_minutes(state, "A.csv", 1, 10);
    write_minutes(state, "B.csv", 5, 20);
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    feed.bars_max = 7;
    config_t config = config_of(feed);
    running_t running = open_all(&config);
    assert_int_equal(pump_run(running.pump, -1, -1), PUMP_OK);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), 14);
    close_all(&running);
}

static void malformed_rows_are_counted_and_do_not_stop_the_feed(void **state)
{
    free(scratch_write(state, "A.csv", HEADER "60,1,1,1,1,1\nx\n120,1,1,1,1,1\ny\n180,1,1,1,1,1\n"));
    config_t config = config_of(scratch_feed(state, CONFIG_FEED_CSV, "A.csv"));
    running_t running = open_all(&config);
    assert_int_equal(pump_run(running.pump, -1, -1), PUMP_OK);
    assert_int_equal(count_of(&running, SHM_COUNTER_BAD_FORMAT), 2);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), 3);
    close_all(&running);
}

static void a_rejoined_replay_goes_on_where_it_stopped_and_counts_nothing_twice(void **state)
{
    static const char first_half[] = HEADER "60,1,1,1,1,1\nx\n120,1,1,1,1,1\n120,1,1,1,1,1\n240,1,1,1,1,1\n120,2,2,2,2,2\n";
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", first_half, "300,1,1,1,1,1\ny\n240,3,3,3,3,3\n360,-1,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    feed.history_bars = 3;
    config_t config = config_of(feed);

    for (int run = 0; run < 2; run++) {
        free(scratch_write(state, "A.csv", run == 0 ? first_half : whole));
        running_t running = open_all(&config);
        assert_int_equal(store_rejoined(running.store), run == 1);
        assert_int_equal(pump_preload(running.pump, -1), PUMP_OK);
        assert_int_equal(pump_run(running.pump, -1, -1), PUMP_OK);
        assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), run == 0 ? 3 : 4);
        assert_int_equal(count_of(&running, SHM_COUNTER_BARS_HISTORY), 2); /* of the three handed out one was a duplicate */
        assert_int_equal(count_of(&running, SHM_COUNTER_BAD_FORMAT), run == 0 ? 1 : 2);
        assert_int_equal(count_of(&running, SHM_COUNTER_GAPS), 1);
        assert_int_equal(count_of(&running, SHM_COUNTER_BARS_AMENDED), run == 0 ? 1 : 2);
        assert_int_equal(count_of(&running, SHM_COUNTER_BAD_PRICE), run == 0 ? 0 : 1);
        close_all(&running);
    }
}

static void a_kill_between_two_bars_of_a_step_loses_neither(void **state)
{
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    config_t config = config_of(feed);
    write_minutes(state, "A.csv", 1, 5);
    write_minutes(state, "B.csv", 1, 4); /* as if stopped after A's bar of minute 5 */
    for (int run = 0; run < 2; run++) {
        running_t running = open_all(&config);
        assert_int_equal(pump_run(running.pump, -1, -1), PUMP_OK);
        assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), run == 0 ? 9 : 14);
        assert_int_equal(count_of(&running, SHM_COUNTER_BAD_DUPLICATE), 0);
        assert_int_equal(count_of(&running, SHM_COUNTER_GAPS), 0);
        close_all(&running);
        write_minutes(state, "A.csv", 1, 7);
        write_minutes(state, "B.csv", 1, 7);
    }
}

static void the_replay_is_held_until_a_byte_or_the_end_comes(void **state)
{
    write_minutes(state, "A.csv", 1, 5);
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    feed.history_bars = 2;
    for (int by_end = 0; by_end < 2; by_end++) {
        config_t config = config_of(feed);
        running_t running = open_all(&config);
        assert_int_equal(pump_preload(running.pump, -1), PUMP_OK);
        int hold[2], stop[2];
        assert_int_equal(pipe(hold) | pipe(stop), 0);
        assert_int_equal(write(stop[1], "x", 1), 1);
        assert_int_equal(pump_run(running.pump, hold[0], stop[0]), PUMP_STOPPED);
        assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), 2);
        if (!by_end)
            assert_int_equal(write(hold[1], "\n", 1), 1);
        close(hold[1]);
        assert_int_equal(pump_run(running.pump, hold[0], -1), PUMP_OK);
        assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), 5);
        close_all(&running);
        shm_segment_delete(config.instance.name);
        close(hold[0]);
        close(stop[0]);
        close(stop[1]);
    }
}

static void a_stop_ends_a_replay_that_is_waiting(void **state)
{
    free(scratch_write(state, "A.csv", HEADER "0,1,1,1,1,1\n86400,1,1,1,1,1\n"));
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    feed.speed = 1;
    config_t config = config_of(feed);
    running_t running = open_all(&config);
    int stop[2];
    assert_int_equal(pipe(stop), 0);
    assert_int_equal(write(stop[1], "x", 1), 1);
    assert_int_equal(pump_run(running.pump, -1, stop[0]), PUMP_STOPPED);
    assert_int_equal(count_of(&running, SHM_COUNTER_BARS_STORED), 1); /* the second one is a day away */
    close(stop[0]);
    close(stop[1]);
    close_all(&running);
}

static void a_feed_that_cannot_be_opened_is_named(void **state)
{
    config_t config = config_of(scratch_feed(state, CONFIG_FEED_CSV, "none.csv"));
    strcpy(config.feeds[0].name, "stocks");
    store_t *store;
    pump_t *pump;
    assert_int_equal(store_open(&config, &store), STORE_OK);
    assert_int_equal(pump_open(&config, store, &pump), PUMP_ERR_FEED);
    assert_non_null(strstr(error_text(), "feed stocks: "));
    config.feeds[0] = (config_feed_t){.name = "live", .type = CONFIG_FEED_NDJSON, .path = "-"};
    assert_int_equal(pump_open(&config, store, &pump), PUMP_ERR_FEED);
    assert_non_null(strstr(error_text(), "feed live: bars from stdin need an interval"));
    store_close(store);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(history_is_stored_before_the_replay_and_counted),
        TEST(a_feed_shorter_than_its_history_ends_after_it),
        TEST(bars_max_limits_each_symbol),
        TEST(malformed_rows_are_counted_and_do_not_stop_the_feed),
        TEST(a_rejoined_replay_goes_on_where_it_stopped_and_counts_nothing_twice),
        TEST(a_kill_between_two_bars_of_a_step_loses_neither),
        TEST(the_replay_is_held_until_a_byte_or_the_end_comes),
        TEST(a_stop_ends_a_replay_that_is_waiting),
        TEST(a_feed_that_cannot_be_opened_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
