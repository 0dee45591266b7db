/* kill -9 of each process in mid-run: the others go on, the supervisor starts it again, no newest bar stays without a forecast, no closed bar is
 * lost or torn. */
#include "harness.h"

#include "shm/ring.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SYMBOLS = 8, HISTORY = 20 };

static const char sections[] = "[feed.live]\ntype = zmq\nendpoint = ipc://$DIR/feed\n"
                               "[shm]\nring_bars = 2048\n"
                               "[scheduler]\nheartbeat = 100ms\n"
                               "[model.base]\npath = naive\ncontext = 32\ncontext_min = 8\nhorizon = 4\nbuckets = 1, 8\n";

static harness_t harness;
static snapshot_t before;

/* All processes ready, and a forecast of every symbol's bar HISTORY - 1. */
static void start_and_feed(const char *more)
{
    char text[1024];
    snprintf(text, sizeof text, "%s%s", sections, more);
    harness_open(&harness, SYMBOLS, text);
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready");
    harness_push(&harness, 0, HISTORY, false);
    harness_wait_forecasts(&harness, HISTORY - 1);
    harness_snapshot(&harness, &before);
}

static int close_instance(void **state)
{
    (void)state;
    harness_close(&harness);
    return 0;
}

static bool worker_is_another(harness_t *h)
{
    static snapshot_t now;
    harness_snapshot(h, &now);
    return now.worker[0].alive && now.worker[0].pid != before.worker[0].pid && now.worker[0].counter[SHM_COUNTER_READY];
}

static bool scheduler_is_another(harness_t *h)
{
    static snapshot_t now;
    harness_snapshot(h, &now);
    return now.scheduler.alive && now.scheduler.pid != before.scheduler.pid;
}

static bool ingest_is_another(harness_t *h)
{
    static snapshot_t now;
    harness_snapshot(h, &now);
    return now.info.writer_alive && now.info.writer_pid != before.info.writer_pid;
}

static void killed_worker_is_replaced_and_every_newest_bar_is_forecast(void **state)
{
    (void)state;
    start_and_feed("");
    kill((pid_t)before.worker[0].pid, SIGKILL);
    harness_push(&harness, HISTORY, 10, false); /* while nobody can forecast */
    harness_wait_until(&harness, worker_is_another, "the worker was started again");
    harness_wait_forecasts(&harness, HISTORY + 9);
    harness_push(&harness, HISTORY + 10, 10, false);
    harness_wait_forecasts(&harness, HISTORY + 19);
    assert_int_equal(harness_stop(&harness), 0);
}

static void second_worker_takes_over_the_symbols_of_a_killed_one(void **state)
{
    (void)state;
    start_and_feed("[worker]\ncount = 2\n");
    kill((pid_t)before.worker[0].pid, SIGKILL);
    harness_push(&harness, HISTORY, 1, false);
    harness_wait_forecasts(&harness, HISTORY);
    harness_wait_until(&harness, worker_is_another, "the worker was started again");
    harness_push(&harness, HISTORY + 1, 10, false);
    harness_wait_forecasts(&harness, HISTORY + 10);
    assert_int_equal(harness_stop(&harness), 0);
}

static void killed_scheduler_is_replaced_and_finds_its_workers(void **state)
{
    (void)state;
    start_and_feed("[worker]\ncount = 2\n");
    kill((pid_t)before.scheduler.pid, SIGKILL);
    harness_push(&harness, HISTORY, 10, false);
    harness_wait_until(&harness, scheduler_is_another, "the scheduler was started again");
    harness_wait_forecasts(&harness, HISTORY + 9);
    harness_push(&harness, HISTORY + 10, 10, false);
    harness_wait_forecasts(&harness, HISTORY + 19);
    static snapshot_t now;
    harness_snapshot(&harness, &now);
    for (int i = 0; i < 2; i++)
        assert_int_equal(now.worker[i].pid, before.worker[i].pid);
    assert_int_equal(harness_stop(&harness), 0);
}

/* Every bar of the ring is one that was sent, whole, and none is missing below `heads`. */
static void check_rings(const uint64_t heads[SYMBOLS])
{
    shm_segment_t *segment;
    assert_int_equal(shm_segment_join(harness.name, &segment), SHM_OK);
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
        uint32_t id;
        assert_int_equal(shm_symbol_find(segment, harness_symbol(symbol), &id), SHM_OK);
        uint64_t head = shm_ring_head(segment, id);
        assert_true(head >= heads[symbol]);
        for (uint64_t i = 0; i < head; i++) {
            shm_bar_t bar;
            assert_int_equal(shm_ring_read(segment, id, i, &bar), SHM_OK);
            uint64_t index = (uint64_t)(bar.open_time_ns / HARNESS_INTERVAL_NS) - 1;
            shm_bar_t sent = harness_bar(symbol, index);
            assert_true(i >= heads[symbol] || index == i);
            assert_true(bar.open == sent.open && bar.high == sent.high && bar.low == sent.low && bar.close == sent.close &&
                        bar.volume == sent.volume);
        }
    }
    shm_segment_leave(segment);
}

static void read_heads(uint64_t heads[SYMBOLS])
{
    shm_segment_t *segment;
    int rc = shm_segment_join(harness.name, &segment);
    assert_true(rc == SHM_OK || rc == SHM_ERR_STALE_WRITER);
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
        uint32_t id;
        assert_int_equal(shm_symbol_find(segment, harness_symbol(symbol), &id), SHM_OK);
        heads[symbol] = shm_ring_closed(segment, id);
    }
    shm_segment_leave(segment);
}

static uint64_t next_bar;

static bool all_cut_off_at(const harness_t *h, int64_t cutoff_ns)
{
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++)
        if (h->newest[symbol].cutoff_ns != cutoff_ns)
            return false;
    return true;
}

/* A PUSH socket may lose what it had handed to the dead process, so one bar after another until one is stored and forecast. */
static bool bars_flow_again(harness_t *h)
{
    int64_t cutoff_ns = harness_bar(0, next_bar).open_time_ns;
    harness_push(h, next_bar++, 1, false);
    for (int i = 0; i < 25 && !all_cut_off_at(h, cutoff_ns); i++)
        harness_receive(h);
    return all_cut_off_at(h, cutoff_ns);
}

static void killed_ingest_goes_on_in_the_same_segment_without_losing_a_closed_bar(void **state)
{
    (void)state;
    start_and_feed("");
    uint64_t heads[SYMBOLS];
    harness_push(&harness, HISTORY, 300, false);
    kill((pid_t)before.ingest.pid, SIGKILL); /* somewhere among them */
    read_heads(heads);
    harness_wait_until(&harness, ingest_is_another, "ingest was started again");
    check_rings(heads);

    next_bar = HISTORY + 300;
    harness_wait_until(&harness, bars_flow_again, "bars are stored and forecast again");
    static snapshot_t now;
    harness_snapshot(&harness, &now);
    assert_int_equal(now.info.epoch, before.info.epoch);
    assert_int_equal(now.info.writer_generation, before.info.writer_generation + 1);
    assert_int_equal(harness_stop(&harness), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(killed_worker_is_replaced_and_every_newest_bar_is_forecast, close_instance),
        cmocka_unit_test_teardown(second_worker_takes_over_the_symbols_of_a_killed_one, close_instance),
        cmocka_unit_test_teardown(killed_scheduler_is_replaced_and_finds_its_workers, close_instance),
        cmocka_unit_test_teardown(killed_ingest_goes_on_in_the_same_segment_without_losing_a_closed_bar, close_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
