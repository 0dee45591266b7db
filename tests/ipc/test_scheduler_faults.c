/* The scheduler when workers, ingest or itself die, hang, fall behind or talk nonsense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/ipc/scheduler_stage.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

static void a_silent_workers_batch_goes_to_another_worker(void **state)
{
    (void)state;
    stage_configure("heartbeat = 50ms\nheartbeat_liveness = 4");
    stage_begin(5);
    stage_worker_t dying = stage_open_worker("dying", 1);
    wire_assign_t lost = stage_expect_assign(&dying);
    assert_int_equal(lost.count, 5);
    dying.silent = true;
    stage_worker_t heir = stage_open_worker("heir", 2);
    wire_assign_t assign = stage_expect_assign(&heir);
    assert_int_equal(assign.count, 5);
    assert_int_not_equal(assign.batch_id, lost.batch_id);
    stage_say_done(&heir, &assign);
    stage_wait_counter(SHM_COUNTER_SERIES_DONE, 5);
    assert_int_equal(stage_counter(SHM_COUNTER_WORKERS_LOST), 1);
    assert_int_equal(stage_counter(SHM_COUNTER_BATCHES_REDISPATCHED), 1);
    stage_close_worker(&dying);
    stage_close_worker(&heir);
}

static void a_restarted_worker_gets_its_batch_again_at_once(void **state)
{
    (void)state;
    stage_begin(4);
    stage_worker_t first = stage_open_worker("worker.0", 1);
    wire_assign_t lost = stage_expect_assign(&first);
    stage_worker_t second = stage_open_worker("worker.0", 2); /* takes the name over while the old connection is still there */
    wire_assign_t assign = stage_expect_assign(&second);
    assert_int_equal(assign.count, 4);
    stage_say_done(&second, &lost); /* unknown by now: ignored */
    stage_say_done(&second, &assign);
    stage_wait_counter(SHM_COUNTER_SERIES_DONE, 4);
    stage_wait_counter(SHM_COUNTER_MESSAGES_REJECTED, 1);
    assert_int_equal(stage_counter(SHM_COUNTER_SERIES_DONE), 4);
    stage_close_worker(&first);
    stage_close_worker(&second);
}

static void a_batch_that_misses_its_deadline_goes_to_another_worker(void **state)
{
    (void)state;
    stage_configure("heartbeat = 10s\ndeadline = 300ms");
    stage_begin(4);
    stage_worker_t stuck = stage_open_worker("stuck", 1);
    wire_assign_t missed = stage_expect_assign(&stuck);
    stage_worker_t other = stage_open_worker("other", 2);
    wire_assign_t assign = stage_expect_assign(&other);
    assert_int_equal(assign.count, missed.count);
    stage_say_done(&other, &assign);
    stage_say_done(&stuck, &missed); /* late: ignored */
    stage_wait_counter(SHM_COUNTER_MESSAGES_REJECTED, 1);
    assert_int_equal(stage_counter(SHM_COUNTER_SERIES_DONE), 4);
    assert_int_equal(stage_counter(SHM_COUNTER_DEADLINES_MISSED), 1);
    stage_close_worker(&stuck);
    stage_close_worker(&other);
}

static void a_symbol_that_kills_workers_is_quarantined_alone(void **state)
{
    (void)state;
    stage_begin(6);
    uint32_t pid = 1;
    stage_worker_t worker = stage_open_worker("worker.0", pid);
    while (stage_counter(SHM_COUNTER_SYMBOLS_QUARANTINED) == 0 || stage_counter(SHM_COUNTER_SERIES_DONE) < 5) {
        wire_assign_t assign;
        if (!stage_take(&worker, &assign))
            continue;
        bool poisoned = false;
        for (uint32_t i = 0; i < assign.count; i++)
            poisoned = poisoned || stage.items[i].symbol_id == 2;
        if (poisoned) {
            assert_true(pid < 10);
            stage_close_worker(&worker);
            worker = stage_open_worker("worker.0", ++pid);
        } else {
            stage_say_done(&worker, &assign);
        }
    }
    assert_int_equal(stage_counter(SHM_COUNTER_SERIES_DONE), 5);
    assert_int_equal(pid, 4); /* it killed three: twice in company, once alone */
    stage_wait_counter(SHM_COUNTER_IDLE, 1);
    stage_close_worker(&worker);
}

static void a_restarted_scheduler_is_told_again_who_is_there(void **state)
{
    (void)state;
    stage_configure("heartbeat = 50ms\nheartbeat_liveness = 100");
    stage_begin(2);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    while (!*worker.scheduler)
        stage_take(&worker, &assign);
    char before[WIRE_NAME_BYTES];
    strcpy(before, worker.scheduler);

    kill(stage.scheduler, SIGKILL);
    waitpid(stage.scheduler, NULL, 0);
    stage_start_scheduler(); /* over the socket that the dead one left */
    for (int waited = 0; strcmp(worker.scheduler, before) == 0; waited += STAGE_STEP_MS) {
        assert_true(waited < STAGE_PATIENCE_MS);
        stage_beat(&worker);
        stage_take(&worker, &assign);
    }
    stage_say_hello(&worker);
    stage_say_ready(&worker);
    assign = stage_expect_assign(&worker);
    assert_int_equal(assign.count, 2);
    stage_say_done(&worker, &assign);
    stage_wait_counter(SHM_COUNTER_SERIES_DONE, 2);
    stage_close_worker(&worker);
}

static void a_restarted_ingest_goes_on_in_the_same_segment(void **state)
{
    (void)state;
    stage_configure("heartbeat = 50ms\nheartbeat_liveness = 100");
    stage_begin(1);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    stage_say_done(&worker, &assign);
    shm_segment_leave(stage.segment);
    usleep(200000);
    stage_create_segment();
    stage_close_bars(0, 1);
    assign = stage_expect_assign(&worker);
    assert_int_equal(stage.items[0].end, STAGE_HISTORY + 1);
    stage_close_worker(&worker);
}

static void a_new_segment_is_joined_and_starts_afresh(void **state)
{
    (void)state;
    stage_configure("heartbeat = 50ms\nheartbeat_liveness = 100");
    stage_begin(1);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    stage_say_done(&worker, &assign);
    uint64_t old_epoch = stage_segment_epoch();
    shm_segment_leave(stage.segment);
    assert_int_equal(shm_segment_delete(stage.name), SHM_OK);
    memset(stage.bars, 0, sizeof stage.bars);
    stage_create_segment();
    assert_int_not_equal(stage_segment_epoch(), old_epoch);
    stage_close_history(2);
    for (uint32_t seen = 0; seen < 2; seen += assign.count) {
        assign = stage_expect_assign(&worker);
        assert_int_equal(assign.epoch, stage_segment_epoch());
        stage_say_done(&worker, &assign);
    }
    stage_close_worker(&worker);
}

static void an_outrun_scheduler_forecasts_the_newest_bars(void **state)
{
    (void)state;
    stage_begin(1);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    stage_say_done(&worker, &assign);
    stage_wait_counter(SHM_COUNTER_IDLE, 1);
    kill(stage.scheduler, SIGSTOP);
    for (uint32_t symbol = 0; symbol < 3; symbol++)
        stage_close_bars(symbol, 2000); /* the log holds 1024 */
    kill(stage.scheduler, SIGCONT);
    uint64_t newest[3] = {0};
    while (newest[0] < STAGE_HISTORY + 2000 || newest[1] < 2000 || newest[2] < 2000) {
        assign = stage_expect_assign(&worker);
        for (uint32_t i = 0; i < assign.count; i++)
            newest[stage.items[i].symbol_id] = stage.items[i].end;
        stage_say_done(&worker, &assign);
    }
    stage_wait_counter(SHM_COUNTER_LOG_OVERRUNS, 1);
    stage_close_worker(&worker);
}

static void messages_that_are_none_are_rejected_and_change_nothing(void **state)
{
    (void)state;
    stage_begin(1);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    srandom(3);
    char noise[600];
    enum { NOISES = 200 };
    for (int i = 0; i < NOISES; i++) {
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (char)random();
        assert_true(zmq_send(worker.dealer, noise, (size_t)random() % sizeof noise, 0) >= 0);
    }
    stage_worker_t impostor = {.pid = 9, .dealer = worker.dealer, .id = "worker.1"};
    stage_say_hello(&impostor);
    assert_true(zmq_send(worker.dealer, "three", 5, ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(worker.dealer, "frames", 6, 0) >= 0);
    stage_wait_counter(SHM_COUNTER_MESSAGES_REJECTED, NOISES + 2);
    stage_say_done(&worker, &assign);
    stage_wait_counter(SHM_COUNTER_SERIES_DONE, 1);
    assert_int_equal(stage_counter(SHM_COUNTER_WORKERS_ALIVE), 1);
    stage_close_worker(&worker);
}

#define instance_test(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        instance_test(a_silent_workers_batch_goes_to_another_worker),
        instance_test(a_restarted_worker_gets_its_batch_again_at_once),
        instance_test(a_batch_that_misses_its_deadline_goes_to_another_worker),
        instance_test(a_symbol_that_kills_workers_is_quarantined_alone),
        instance_test(a_restarted_scheduler_is_told_again_who_is_there),
        instance_test(a_restarted_ingest_goes_on_in_the_same_segment),
        instance_test(a_new_segment_is_joined_and_starts_afresh),
        instance_test(an_outrun_scheduler_forecasts_the_newest_bars),
        instance_test(messages_that_are_none_are_rejected_and_change_nothing),
    };
    return cmocka_run_group_tests_name("ipc/scheduler_faults", tests, NULL, NULL);
}
