/* Bars in, forecasts out, through all processes; and how a run begins and ends. */
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

static const char naive[] = "[model.base]\npath = naive\ncontext = 32\ncontext_min = 8\nhorizon = 4\nbuckets = 1, 8\n";
static const char zmq_feed[] = "[feed.live]\ntype = zmq\nendpoint = ipc://$DIR/feed\n";
static const char csv_feed[] = "[feed.file]\ntype = csv\npath = $DIR/bars.csv\nhistory_bars = 20\nbars_per_second = 20\n";

static harness_t harness;

static void open_instance(uint32_t symbols, const char *feed, const char *more)
{
    char sections[1024];
    snprintf(sections, sizeof sections, "%s%s%s", feed, naive, more);
    harness_open(&harness, symbols, sections);
}

static int close_instance(void **state)
{
    (void)state;
    harness_close(&harness);
    return 0;
}

static uint64_t number_after(const char *text, const char *label)
{
    const char *at = strstr(text, label);
    if (!at)
        fail_msg("the summary has no \"%s\":\n%s", label, text);
    return strtoull(at + strlen(label), NULL, 10);
}

static void read_output(char *out, size_t bytes)
{
    FILE *file = fopen(harness.output_file, "r");
    assert_non_null(file);
    out[fread(out, 1, bytes - 1, file)] = '\0';
    fclose(file);
}

static void run_ends_by_itself_after_every_newest_bar_was_forecast(void **state)
{
    (void)state;
    enum { SYMBOLS = 20, BARS = 60 };
    open_instance(SYMBOLS, csv_feed, "");
    harness_write_csv(&harness, BARS);
    harness_start(&harness);
    assert_int_equal(harness_wait_end(&harness), 0);
    assert_true(harness_all_forecast(&harness, BARS - 1));

    char summary[4096];
    read_output(summary, sizeof summary);
    assert_int_equal(number_after(summary, "bars in: "), SYMBOLS * BARS);
    assert_int_equal(number_after(summary, "(") /* of them history */, SYMBOLS * 20);
    uint64_t forecasts = number_after(summary, "forecasts out: ");
    assert_in_range(forecasts, SYMBOLS,
                    SYMBOLS * BARS); /* a worker that is ready early forecasts while history is still being stored */
    assert_in_range(harness.received, SYMBOLS, forecasts);
}

static void naive_forecast_stays_at_the_last_close(void **state)
{
    (void)state;
    open_instance(3, zmq_feed, "");
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready");
    harness_push(&harness, 0, 30, false);
    harness_wait_forecasts(&harness, 29);
    for (uint32_t symbol = 0; symbol < 3; symbol++) {
        const wire_forecast_t *forecast = &harness.newest[symbol];
        assert_int_equal(forecast->horizon, 4);
        assert_int_equal(forecast->cutoff_ns, harness_bar(symbol, 29).open_time_ns);
        assert_int_equal(forecast->start_ns, forecast->cutoff_ns + HARNESS_INTERVAL_NS);
        assert_int_equal(forecast->interval_ns, HARNESS_INTERVAL_NS);
        for (uint32_t step = 0; step < 4; step++) {
            assert_true(harness.newest_values[symbol][step] == (float)forecast->last);
            const float *quantiles = harness.newest_values[symbol] + forecast->horizon;
            for (uint32_t level = 1; level < forecast->quantile_count; level++)
                assert_true(quantiles[level * 4 + step] >= quantiles[(level - 1) * 4 + step]);
        }
    }
    assert_int_equal(harness_stop(&harness), 0);
}

static void late_subscriber_gets_the_last_value_of_every_symbol(void **state)
{
    (void)state;
    enum { SYMBOLS = 10 };
    open_instance(SYMBOLS, zmq_feed, "[worker]\ncount = 2\n");
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready");
    harness_push(&harness, 0, 12, false);
    harness_wait_forecasts(&harness, 11);

    subscriber_close(harness.subscriber);
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++)
        harness.newest[symbol].horizon = 0;
    assert_int_equal(subscriber_open(&harness.subscriber), SUBSCRIBER_OK);
    assert_int_equal(subscriber_subscribe(harness.subscriber, "forecast.base.", 14), SUBSCRIBER_OK);
    assert_int_equal(subscriber_connect_all(harness.subscriber, harness.config), SUBSCRIBER_OK);
    harness_wait_forecasts(&harness, 11);
    assert_int_equal(harness_stop(&harness), 0);
}

static void second_run_of_a_running_instance_is_refused_and_does_no_harm(void **state)
{
    (void)state;
    open_instance(2, zmq_feed, "");
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready");
    assert_int_equal(harness_execute("barcast", (const char *const[]){"run", harness.config_file, NULL}), 1);
    harness_push(&harness, 0, 10, false);
    harness_wait_forecasts(&harness, 9);
    assert_int_equal(harness_stop(&harness), 0);
}

static void configuration_with_a_fault_is_refused_before_anything_starts(void **state)
{
    (void)state;
    open_instance(2, zmq_feed, "");
    FILE *file = fopen(harness.config_file, "a");
    assert_non_null(file);
    fprintf(file, "horizn = 5\n");
    assert_int_equal(fclose(file), 0);
    assert_int_equal(harness_execute("barcast", (const char *const[]){"run", harness.config_file, NULL}), 2);
}

static void worker_that_cannot_start_ends_the_run(void **state)
{
    (void)state;
    harness_open(&harness, 2,
                 "[feed.live]\ntype = zmq\nendpoint = ipc://$DIR/feed\n[model.gone]\npath = $DIR/no-such-checkpoint\n");
    harness_start(&harness);
    assert_int_equal(harness_wait_end(&harness), 1);
}

static void supervisor_that_is_killed_takes_its_processes_along(void **state)
{
    (void)state;
    open_instance(2, zmq_feed, "");
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready");
    kill(harness.run, SIGKILL);
    assert_int_equal(harness_wait_end(&harness), 128 + SIGKILL);
    harness_wait_until(&harness, harness_all_gone, "its processes are gone");
    /* What a killed supervisor leaves in shared memory, its next run takes over and removes. */
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready again");
    harness_push(&harness, 0, 10, false);
    harness_wait_forecasts(&harness, 9);
    assert_int_equal(harness_stop(&harness), 0);
}

static void duration_ends_a_run_whose_feed_goes_on(void **state)
{
    (void)state;
    open_instance(1, zmq_feed, "");
    assert_int_equal(harness_execute("barcast", (const char *const[]){"run", harness.config_file, "--duration", "0.2", NULL}), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(run_ends_by_itself_after_every_newest_bar_was_forecast, close_instance),
        cmocka_unit_test_teardown(naive_forecast_stays_at_the_last_close, close_instance),
        cmocka_unit_test_teardown(late_subscriber_gets_the_last_value_of_every_symbol, close_instance),
        cmocka_unit_test_teardown(second_run_of_a_running_instance_is_refused_and_does_no_harm, close_instance),
        cmocka_unit_test_teardown(configuration_with_a_fault_is_refused_before_anything_starts, close_instance),
        cmocka_unit_test_teardown(worker_that_cannot_start_ends_the_run, close_instance),
        cmocka_unit_test_teardown(supervisor_that_is_killed_takes_its_processes_along, close_instance),
        cmocka_unit_test_teardown(duration_ends_a_run_whose_feed_goes_on, close_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
