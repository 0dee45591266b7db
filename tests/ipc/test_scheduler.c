/* The scheduler between a segment and workers when all goes well. Nothing is timed, though the latency of the last test is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tests/ipc/scheduler_stage.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void every_symbol_with_history_is_forecast_once_at_the_start_and_then_at_each_closed_bar(void **state)
{
    (void)state;
    stage_create_segment();
    stage_close_history(3);
    stage_close_bars(3, STAGE_HISTORY - 1); /* too few yet */
    stage_start_scheduler();
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    assert_string_equal(assign.model, "naive");
    assert_int_equal(assign.epoch, stage_segment_epoch());
    assert_int_equal(assign.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(stage.items[i].symbol_id, i);
        assert_int_equal(stage.items[i].end, STAGE_HISTORY);
    }
    stage_say_done(&worker, &assign);

    stage_close_bars(3, 1);
    assign = stage_expect_assign(&worker);
    assert_int_equal(assign.count, 1);
    assert_int_equal(stage.items[0].symbol_id, 3);
    assert_int_equal(stage.items[0].end, STAGE_HISTORY);
    assert_true(stage.items[0].stored_ns > 0 && stage.items[0].stored_ns <= assign.sent_ns);
    stage_say_done(&worker, &assign);

    stage_close_bars(70, STAGE_HISTORY); /* a symbol that nobody had heard of */
    assign = stage_expect_assign(&worker);
    assert_int_equal(assign.count, 1);
    assert_int_equal(stage.items[0].symbol_id, 4);
    stage_say_done(&worker, &assign);
    stage_wait_counter(SHM_COUNTER_SERIES_DONE, 5);
    stage_wait_counter(SHM_COUNTER_IDLE, 1);
    assert_int_equal(stage_counter(SHM_COUNTER_SERIES_SENT), 5);
    assert_int_equal(stage_counter(SHM_COUNTER_WORKERS_ALIVE), 1);
    assert_int_equal(stage_counter(SHM_COUNTER_MESSAGES_REJECTED), 0);
    stage_close_worker(&worker);
}

static void the_segment_may_come_later_than_scheduler_and_workers(void **state)
{
    (void)state;
    stage_start_scheduler();
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    stage_wait_counter(SHM_COUNTER_WORKERS_ALIVE, 1);
    stage_create_segment();
    stage_close_history(2);
    wire_assign_t assign = stage_expect_assign(&worker);
    stage_say_done(&worker, &assign);
    stage_close_worker(&worker);
}

static void the_runtime_directory_is_made_for_this_user_only(void **state)
{
    (void)state;
    stage_start_scheduler();
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    stage_wait_counter(SHM_COUNTER_WORKERS_ALIVE, 1);
    struct stat about;
    char path[96];
    snprintf(path, sizeof path, "%s/run/dir", stage.directory);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    stage_close_worker(&worker);
}

static void a_runtime_directory_that_others_can_write_is_refused(void **state)
{
    (void)state;
    char path[96];
    snprintf(path, sizeof path, "%s/run", stage.directory);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/run/dir", stage.directory);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0777), 0);
    assert_int_equal(stage_wait_exit(stage_spawn(stage.config_file)), 1);
}

static void a_second_scheduler_is_refused(void **state)
{
    (void)state;
    stage_begin(1);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    assert_int_equal(stage_wait_exit(stage_spawn(stage.config_file)), 1);
    stage_say_done(&worker, &assign);
    stage_close_bars(0, 1);
    stage_expect_assign(&worker); /* the first one is as well as before */
    stage_close_worker(&worker);
}

static void sigterm_waits_for_what_is_in_flight_and_drains_the_workers(void **state)
{
    (void)state;
    stage_begin(100);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    kill(stage.scheduler, SIGTERM);
    uint32_t seen = assign.count;
    for (; seen < 100; seen += assign.count) { /* what was due still goes out */
        stage_say_done(&worker, &assign);
        assign = stage_expect_assign(&worker);
    }
    int status;
    assert_int_equal(waitpid(stage.scheduler, &status, WNOHANG), 0);
    assert_false(worker.drained);
    stage_say_done(&worker, &assign);
    for (int waited = 0; !worker.drained; waited += STAGE_STEP_MS) {
        assert_true(waited < STAGE_PATIENCE_MS);
        assert_false(stage_take(&worker, &assign));
    }
    assert_int_equal(stage_wait_exit(stage.scheduler), 0);
    stage.scheduler = 0;
    stage_close_worker(&worker);
}

static void sigterm_ends_at_the_deadline_when_a_worker_does_not_answer(void **state)
{
    (void)state;
    stage_configure("heartbeat = 10s\ndeadline = 200ms");
    stage_begin(1);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    stage_expect_assign(&worker);
    kill(stage.scheduler, SIGTERM);
    assert_int_equal(stage_wait_exit(stage.scheduler), 0);
    stage.scheduler = 0;
    stage_close_worker(&worker);
}

static void wrong_usage_and_wrong_config_are_told(void **state)
{
    (void)state;
    assert_int_equal(stage_wait_exit(stage_spawn("no-such-file.ini")), 1);
    stage_configure("heartbeat = never");
    assert_int_equal(stage_wait_exit(stage_spawn(stage.config_file)), 1);
}

static int compare_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_latency(const char *what, int64_t *latency_ns, size_t count)
{
    qsort(latency_ns, count, sizeof *latency_ns, compare_i64);
    print_message("%s: p50 %.1f us, p99 %.1f us, max %.1f us\n", what, (double)latency_ns[count / 2] / 1e3,
                  (double)latency_ns[count * 99 / 100] / 1e3, (double)latency_ns[count - 1] / 1e3);
}

static void each_of_many_bars_is_assigned_in_order(void **state)
{
    (void)state;
    enum { BARS = 1000 };
    static int64_t to_sent_ns[BARS], to_received_ns[BARS];
    stage_begin(1);
    stage_worker_t worker = stage_open_worker("worker.0", 1);
    wire_assign_t assign = stage_expect_assign(&worker);
    for (uint64_t i = 0; i < BARS; i++) {
        stage_say_done(&worker, &assign);
        usleep(500);
        stage_close_bars(0, 1);
        assign = stage_expect_assign(&worker);
        to_received_ns[i] = clock_monotonic_ns() - stage.items[0].stored_ns;
        to_sent_ns[i] = assign.sent_ns - stage.items[0].stored_ns;
        assert_int_equal(assign.count, 1);
        assert_int_equal(stage.items[0].end, STAGE_HISTORY + i + 1);
    }
    print_latency("bar stored -> ASSIGN sent", to_sent_ns, BARS);
    print_latency("bar stored -> ASSIGN received", to_received_ns, BARS);
    stage_close_worker(&worker);
}

#define instance_test(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        instance_test(every_symbol_with_history_is_forecast_once_at_the_start_and_then_at_each_closed_bar),
        instance_test(the_segment_may_come_later_than_scheduler_and_workers),
        instance_test(the_runtime_directory_is_made_for_this_user_only),
        instance_test(a_runtime_directory_that_others_can_write_is_refused),
        instance_test(a_second_scheduler_is_refused),
        instance_test(sigterm_waits_for_what_is_in_flight_and_drains_the_workers),
        instance_test(sigterm_ends_at_the_deadline_when_a_worker_does_not_answer),
        instance_test(wrong_usage_and_wrong_config_are_told),
        instance_test(each_of_many_bars_is_assigned_in_order),
    };
    return cmocka_run_group_tests_name("ipc/scheduler", tests, NULL, NULL);
}
