/* The publisher against SUB sockets of the same ZeroMQ context: inproc pipes have exact high-water marks. */
#include "gpuworker/publisher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

enum { HIGH_WATER_MARK = 4, SYMBOLS = 3, PATIENCE_MS = 20000 };

typedef struct {
    char name[SHM_NAME_BYTES];
    void *zmq;
    shm_counters_t *counters;
    publisher_t *publisher;
} fixture_t;

static int setup(void **state)
{
    fixture_t *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->name, sizeof f->name, "test-publisher-%d", (int)getpid());
    assert_int_equal(shm_counters_create(f->name, "worker.0", &f->counters), SHM_OK);
    f->zmq = zmq_ctx_new();
    assert_int_equal(publisher_open(f->zmq, "inproc://forecasts", HIGH_WATER_MARK, 2, f->counters, &f->publisher), PUBLISHER_OK);
    assert_int_equal(publisher_reset(f->publisher, SYMBOLS), PUBLISHER_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_t *f = *state;
    publisher_close(f->publisher);
    zmq_ctx_term(f->zmq);
    shm_counters_leave(f->counters);
    shm_counters_delete(f->name, "worker.0");
    free(f);
    return 0;
}

static void *subscribe(const fixture_t *f, const void *prefix, size_t bytes)
{
    void *socket = zmq_socket(f->zmq, ZMQ_SUB);
    const int one = 1, none = 0;
    zmq_setsockopt(socket, ZMQ_RCVHWM, &one, sizeof one);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    assert_int_equal(zmq_connect(socket, "inproc://forecasts"), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_SUBSCRIBE, prefix, bytes), 0);
    zmq_pollitem_t wait = {.socket = publisher_socket(f->publisher), .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&wait, 1, PATIENCE_MS), 1);
    publisher_serve(f->publisher);
    return socket;
}

static int publish(const fixture_t *f, uint32_t model, uint32_t symbol_id, double last)
{
    static const char *const models[] = {"naive", "toto"};
    float mean[2] = {(float)last, (float)last};
    wire_forecast_t forecast = {.interval_ns = 60,
                                .cutoff_ns = 600,
                                .start_ns = 660,
                                .horizon = 2,
                                .context = 4,
                                .field_count = 1,
                                .fields = {{.field = "close", .mean = mean}},
                                .last = last};
    snprintf(forecast.symbol, sizeof forecast.symbol, "S%u", symbol_id);
    snprintf(forecast.model, sizeof forecast.model, "%s", models[model]);
    return publisher_send(f->publisher, model, symbol_id, &forecast);
}

/* The next forecast as "topic last seq", "" when there is none. */
static void receive(void *socket, int timeout_ms, char out[static 128])
{
    out[0] = '\0';
    zmq_pollitem_t wait = {.socket = socket, .events = ZMQ_POLLIN};
    if (zmq_poll(&wait, 1, timeout_ms) != 1)
        return;
    char topic[64], body[4096];
    int topic_bytes = zmq_recv(socket, topic, sizeof topic, 0);
    assert_in_range(topic_bytes, 1, sizeof topic);
    assert_int_equal(topic[topic_bytes - 1], '\0');
    int bytes = zmq_recv(socket, body, sizeof body, 0);
    wire_forecast_t forecast;
    wire_scratch_t scratch = {0};
    assert_int_equal(wire_forecast_decode(body, (size_t)bytes, &forecast, &scratch), WIRE_OK);
    snprintf(out, 128, "%s %g %llu", topic, forecast.last, (unsigned long long)forecast.seq);
    wire_scratch_free(&scratch);
}

static void expect(void *socket, const char *expected)
{
    char got[128];
    receive(socket, *expected ? PATIENCE_MS : 0, got);
    assert_string_equal(got, expected);
}

static void subscriber_gets_what_is_published_and_each_topic_counts_for_itself(void **state)
{
    fixture_t *f = *state;
    void *socket = subscribe(f, "", 0);
    assert_int_equal(publish(f, 0, 0, 1.5), PUBLISHER_OK);
    assert_int_equal(publish(f, 0, 0, 2.5), PUBLISHER_OK);
    assert_int_equal(publish(f, 1, 0, 3.5), PUBLISHER_OK);
    expect(socket, "forecast.naive.S0 1.5 1");
    expect(socket, "forecast.naive.S0 2.5 2");
    expect(socket, "forecast.toto.S0 3.5 1");
    zmq_close(socket);
}

static void late_subscriber_gets_the_last_value_of_each_of_its_topics(void **state)
{
    fixture_t *f = *state;
    assert_int_equal(publish(f, 0, 0, 1.5), PUBLISHER_OK);
    assert_int_equal(publish(f, 0, 0, 2.5), PUBLISHER_OK);
    assert_int_equal(publish(f, 0, 2, 3.5), PUBLISHER_OK);
    assert_int_equal(publish(f, 1, 0, 4.5), PUBLISHER_OK);
    void *socket = subscribe(f, "forecast.naive.", 15);
    expect(socket, "forecast.naive.S0 2.5 2");
    expect(socket, "forecast.naive.S2 3.5 1");
    expect(socket, "");
    zmq_close(socket);
}

static void topic_ends_so_that_a_longer_symbol_does_not_match(void **state)
{
    fixture_t *f = *state;
    assert_int_equal(publish(f, 0, 1, 1.5), PUBLISHER_OK);
    char topic[WIRE_TEXT_BYTES];
    int bytes = wire_topic("naive", "S", topic);
    assert_true(bytes > 0);
    void *socket = subscribe(f, topic, (size_t)bytes);
    assert_int_equal(publish(f, 0, 1, 2.5), PUBLISHER_OK);
    expect(socket, "");
    zmq_close(socket);
}

static void slow_subscriber_loses_messages_and_nobody_else_does(void **state)
{
    fixture_t *f = *state;
    void *slow = subscribe(f, "", 0), *quick = subscribe(f, "", 0);
    enum { SENT = 20, PIPE = HIGH_WATER_MARK + 1 };
    char expected[64];
    for (int i = 0; i < SENT; i++) {
        assert_int_equal(publish(f, 0, 0, i), PUBLISHER_OK);
        snprintf(expected, sizeof expected, "forecast.naive.S0 %d %d", i, i + 1);
        expect(quick, expected);
    }
    assert_int_equal(shm_counter_get(f->counters, SHM_COUNTER_PUBLISH_DROPS), 1);
    for (int i = 0; i < PIPE; i++) {
        snprintf(expected, sizeof expected, "forecast.naive.S0 %d %d", i, i + 1);
        expect(slow, expected);
    }
    expect(slow, "");
    zmq_close(slow);
    zmq_close(quick);
}

static void reset_forgets_last_values(void **state)
{
    fixture_t *f = *state;
    assert_int_equal(publish(f, 0, 0, 1.5), PUBLISHER_OK);
    assert_int_equal(publisher_reset(f->publisher, 1), PUBLISHER_OK);
    void *socket = subscribe(f, "", 0);
    expect(socket, "");
    assert_int_equal(publish(f, 0, 1, 1.5), PUBLISHER_ERR_MESSAGE);
    assert_int_equal(publish(f, 0, 0, 2.5), PUBLISHER_OK);
    expect(socket, "forecast.naive.S0 2.5 1");
    zmq_close(socket);
}

static void endpoint_that_cannot_be_bound_is_named(void **state)
{
    fixture_t *f = *state;
    publisher_t *publisher;
    assert_int_equal(publisher_open(f->zmq, "inproc://forecasts", 1, 1, f->counters, &publisher), PUBLISHER_ERR_BIND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(subscriber_gets_what_is_published_and_each_topic_counts_for_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(late_subscriber_gets_the_last_value_of_each_of_its_topics, setup, teardown),
        cmocka_unit_test_setup_teardown(topic_ends_so_that_a_longer_symbol_does_not_match, setup, teardown),
        cmocka_unit_test_setup_teardown(slow_subscriber_loses_messages_and_nobody_else_does, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_forgets_last_values, setup, teardown),
        cmocka_unit_test_setup_teardown(endpoint_that_cannot_be_bound_is_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
