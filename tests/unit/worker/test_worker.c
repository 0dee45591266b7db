/* A worker in a thread of its own, with the test as its scheduler and its subscriber. */
#include "base/clock.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/worker.h"
#include "shm/counters.h"
#include "shm/ring.h"
#include "wire/wire.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

enum { BARS = 40, SYMBOLS = 5, PATIENCE_MS = 60000 };
static const int64_t interval_ns = INT64_C(60) * 1000000000;

typedef struct {
    char directory[64], name[SHM_NAME_BYTES];
    config_t *config;
    shm_segment_t *segment;
    uint64_t epoch;
    void *zmq, *router, *subscriber;
    int stop;
    pthread_t thread;
    int result; /* of worker_run, once joined */
    wire_buffer_t *encoded;
} fixture_t;

static atomic_bool device_fails;

int __real_session_wait(session_t *session);
int __wrap_session_wait(session_t *session);

int __wrap_session_wait(session_t *session)
{
    return atomic_load(&device_fails) ? SESSION_ERR_DEVICE : __real_session_wait(session);
}

static void make_segment(fixture_t *f)
{
    shm_segment_options_t options = {.name = f->name, .symbols_max = 8, .ring_bars = 64, .log_entries = 1024, .group_id = -1};
    bool rejoined;
    assert_int_equal(shm_segment_create(&options, &f->segment, &rejoined), SHM_OK);
    shm_segment_info_t info;
    shm_segment_info(f->segment, &info);
    f->epoch = info.epoch;
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
        char text[8];
        uint32_t id;
        snprintf(text, sizeof text, "S%u", symbol);
        assert_int_equal(shm_symbol_add(f->segment, text, interval_ns, &id), SHM_OK);
        assert_int_equal(id, symbol);
        for (int i = 0; i < BARS; i++) {
            double close = 100 * (symbol + 1) + (i % 3);
            shm_bar_t bar = {.open_time_ns = (i + 1) * interval_ns,
                             .open = close,
                             .high = close,
                             .low = close,
                             .close = close,
                             .volume = 1,
                             .amount = 1};
            assert_int_equal(shm_ring_append(f->segment, id, &bar), SHM_OK);
        }
    }
}

static void *run_worker(void *argument)
{
    fixture_t *f = argument;
    worker_options_t options = {.config = f->config, .device = CONFIG_DEVICE_CPU, .stop = f->stop};
    worker_t *worker;
    f->result = worker_open(&options, &worker);
    if (f->result == WORKER_OK) {
        f->result = worker_run(worker);
        worker_close(worker);
    }
    return NULL;
}

static int setup(void **state)
{
    fixture_t *f = calloc(1, sizeof *f);
    assert_non_null(f);
    strcpy(f->directory, "/tmp/barcast-test-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->name, sizeof f->name, "test-worker-%d", (int)getpid());
    char text[1024];
    snprintf(text, sizeof text,
             "[instance]\nname = %s\nruntime_dir = %s\n[shm]\nring_bars = 64\n[scheduler]\nheartbeat = 50ms\n"
             "[feed.none]\ntype = zmq\nendpoint = ipc://%s/feed\n"
             "[model.base]\npath = naive\ncontext = 16\ncontext_min = 4\nhorizon = 3\nbuckets = 1, 2\n",
             f->name, f->directory, f->directory);
    if (config_parse(text, "test", &f->config) < 0)
        fail_msg("the test's config is bad");
    make_segment(f);

    char endpoint[CONFIG_TEXT_BYTES];
    const int none = 0;
    assert_int_equal(config_scheduler_endpoint(f->config, endpoint), CONFIG_OK);
    f->zmq = zmq_ctx_new();
    f->router = zmq_socket(f->zmq, ZMQ_ROUTER);
    zmq_setsockopt(f->router, ZMQ_LINGER, &none, sizeof none);
    assert_int_equal(zmq_bind(f->router, endpoint), 0);
    f->subscriber = zmq_socket(f->zmq, ZMQ_SUB);
    zmq_setsockopt(f->subscriber, ZMQ_SUBSCRIBE, "", 0);
    assert_int_equal(config_publish_endpoint(f->config, 0, endpoint), CONFIG_OK);
    assert_int_equal(zmq_connect(f->subscriber, endpoint), 0);
    assert_int_equal(wire_buffer_open(1024, &f->encoded), WIRE_OK);
    f->stop = eventfd(0, 0);
    assert_int_equal(pthread_create(&f->thread, NULL, run_worker, f), 0);
    *state = f;
    return 0;
}

static void remove_objects(fixture_t *f)
{
    char endpoint[CONFIG_TEXT_BYTES];
    if (config_publish_endpoint(f->config, 0, endpoint) == CONFIG_OK)
        unlink(endpoint + strlen("ipc://"));
    if (config_scheduler_endpoint(f->config, endpoint) == CONFIG_OK)
        unlink(endpoint + strlen("ipc://"));
    rmdir(f->directory);
    shm_counters_delete(f->name, "worker.0");
    shm_segment_delete(f->name);
}

static int teardown(void **state)
{
    fixture_t *f = *state;
    zmq_close(f->router);
    zmq_close(f->subscriber);
    zmq_ctx_term(f->zmq);
    wire_buffer_close(f->encoded);
    shm_segment_leave(f->segment);
    remove_objects(f);
    config_free(f->config);
    close(f->stop);
    free(f);
    return 0;
}

/* The worker's next message of that type; others are passed over. Returns its size. */
static size_t receive(const fixture_t *f, wire_type_t wanted, char *body, size_t room)
{
    for (;;) {
        zmq_pollitem_t wait = {.socket = f->router, .events = ZMQ_POLLIN};
        if (zmq_poll(&wait, 1, PATIENCE_MS) != 1)
            fail_msg("the worker does not say %s", wire_type_name(wanted));
        char identity[64];
        int identity_bytes = zmq_recv(f->router, identity, sizeof identity, 0);
        int bytes = zmq_recv(f->router, body, room, 0);
        assert_in_range(bytes, 1, room);
        wire_type_t type;
        assert_int_equal(wire_peek(body, (size_t)bytes, &type), WIRE_OK);
        if (type == wanted) {
            const char *expected = wanted == WIRE_HEARTBEAT ? "worker.0#beat" : "worker.0";
            assert_int_equal(identity_bytes, strlen(expected));
            assert_memory_equal(identity, expected, strlen(expected));
            return (size_t)bytes;
        }
    }
}

static void send_encoded(const fixture_t *f, int encoded)
{
    assert_int_equal(encoded, WIRE_OK);
    assert_int_equal(zmq_send(f->router, "worker.0", 8, ZMQ_SNDMORE), 8);
    assert_true(zmq_send(f->router, wire_buffer_data(f->encoded), wire_buffer_bytes(f->encoded), 0) >= 0);
}

static void drain(fixture_t *f)
{
    wire_drain_t drain = {.sender = "scheduler.1"};
    send_encoded(f, wire_drain_encode(f->encoded, &drain));
    char body[4096];
    receive(f, WIRE_DRAIN, body, sizeof body);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    assert_int_equal(f->result, WORKER_OK);
}

static void assign(const fixture_t *f, uint64_t batch_id, uint64_t epoch, wire_item_t *items, uint32_t count)
{
    wire_assign_t message = {.batch_id = batch_id, .epoch = epoch, .model = "base", .count = count, .items = items};
    send_encoded(f, wire_assign_encode(f->encoded, &message));
}

static void expect_done(const fixture_t *f, uint64_t batch_id, const uint8_t *expected, uint32_t count)
{
    char body[4096];
    uint8_t status[WIRE_ITEMS_MOST];
    wire_done_t done = {.status = status};
    size_t bytes = receive(f, WIRE_DONE, body, sizeof body);
    assert_int_equal(wire_done_decode(body, bytes, &done), WIRE_OK);
    assert_int_equal(done.batch_id, batch_id);
    assert_string_equal(done.worker, "worker.0");
    assert_int_equal(done.count, count);
    assert_memory_equal(done.status, expected, count);
}

static void wait_for_ready(const fixture_t *f, wire_ready_t *ready)
{
    char body[8192];
    receive(f, WIRE_HELLO, body, sizeof body);
    size_t bytes = receive(f, WIRE_READY, body, sizeof body);
    assert_int_equal(wire_ready_decode(body, bytes, ready), WIRE_OK);
}

/* The id of the symbol that the next forecast is for, after all else in it was checked. */
static uint32_t check_forecast(const fixture_t *f)
{
    char topic[64], expected[64], body[8192];
    zmq_pollitem_t wait = {.socket = f->subscriber, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&wait, 1, PATIENCE_MS), 1);
    int topic_bytes = zmq_recv(f->subscriber, topic, sizeof topic, 0);
    int bytes = zmq_recv(f->subscriber, body, sizeof body, 0);
    wire_forecast_t forecast;
    wire_scratch_t scratch = {0};
    assert_int_equal(wire_forecast_decode(body, (size_t)bytes, &forecast, &scratch), WIRE_OK);
    uint32_t id = (uint32_t)(forecast.symbol[1] - '0');
    snprintf(expected, sizeof expected, "forecast.base.S%u", id);
    assert_int_equal(topic_bytes, strlen(expected) + 1);
    assert_string_equal(topic, expected);
    assert_string_equal(forecast.symbol, expected + strlen("forecast.base."));
    assert_string_equal(forecast.worker, "worker.0");
    assert_int_equal(forecast.cutoff_ns, BARS * interval_ns);
    assert_int_equal(forecast.start_ns, (BARS + 1) * interval_ns);
    assert_int_equal(forecast.bar_index, BARS - 1);
    assert_int_equal(forecast.horizon, 3);
    assert_true(forecast.last == 100 * (id + 1));
    assert_true(forecast.fields[0].mean[2] == (float)forecast.last);
    assert_true(forecast.assigned_ns <= forecast.computed_ns && forecast.computed_ns <= forecast.published_ns);
    wire_scratch_free(&scratch);
    return id;
}

/* All of these, in any order and with repeats: what was sent before the subscription arrived comes as a last value. */
static void expect_forecasts(const fixture_t *f, uint32_t symbols)
{
    for (uint32_t seen = 0; seen != symbols; seen |= 1u << check_forecast(f))
        assert_int_equal(seen & ~symbols, 0);
}

static void worker_announces_its_sessions_and_forecasts_more_than_a_bucket(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    assert_string_equal(ready.worker, "worker.0");
    assert_int_equal(ready.pid, getpid());
    assert_int_equal(ready.session_count, 2);
    assert_string_equal(ready.sessions[0].model, "base");
    assert_int_equal(ready.sessions[0].batch, 1);
    assert_int_equal(ready.sessions[1].batch, 2);

    wire_item_t items[] = {{.symbol_id = 0, .end = BARS},
                           {.symbol_id = 1, .end = 2},
                           {.symbol_id = 2, .end = BARS},
                           {.symbol_id = 7, .end = BARS},
                           {.symbol_id = 4, .end = BARS}};
    const uint8_t expected[] = {WIRE_ITEM_OK, WIRE_ITEM_TOO_SHORT, WIRE_ITEM_OK, WIRE_ITEM_STALE, WIRE_ITEM_OK};
    assign(f, 11, f->epoch, items, 5);
    expect_done(f, 11, expected, 5);
    expect_forecasts(f, 1u << 0 | 1u << 2 | 1u << 4);

    shm_counters_t *counters;
    assert_int_equal(shm_counters_join(f->name, "worker.0", &counters), SHM_OK);
    assert_int_equal(shm_counter_get(counters, SHM_COUNTER_FORECASTS), 3);
    assert_int_equal(shm_counter_get(counters, SHM_COUNTER_BATCHES_RUN), 1);
    assert_int_equal(shm_counter_get(counters, SHM_COUNTER_SESSIONS_OPEN), 2);
    assert_int_equal(shm_counter_get(counters, SHM_COUNTER_READY), 1);
    shm_counters_leave(counters);
    drain(f);
}

static void batch_of_another_segment_is_stale(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    wire_item_t item = {.symbol_id = 0, .end = BARS};
    assign(f, 3, f->epoch + 1, &item, 1);
    expect_done(f, 3, &(uint8_t){WIRE_ITEM_STALE}, 1);
    drain(f);
}

static void worker_follows_to_a_segment_that_was_made_anew(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    shm_segment_leave(f->segment);
    shm_segment_delete(f->name);
    make_segment(f);
    wire_item_t item = {.symbol_id = 3, .end = BARS};
    assign(f, 4, f->epoch, &item, 1);
    expect_done(f, 4, &(uint8_t){WIRE_ITEM_OK}, 1);
    expect_forecasts(f, 1u << 3);
    drain(f);
}

static void scheduler_that_is_new_is_told_hello_and_ready_again(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    for (int i = 1; i <= 2; i++) {
        wire_heartbeat_t heartbeat = {.interval_ns = 50 * CLOCK_NS_PER_MS};
        snprintf(heartbeat.sender, sizeof heartbeat.sender, "scheduler.%d", i);
        send_encoded(f, wire_heartbeat_encode(f->encoded, &heartbeat));
        wait_for_ready(f, &ready);
        assert_int_equal(ready.session_count, 2);
    }
    drain(f);
}

static void heartbeats_say_that_the_worker_is_ready(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    char body[4096];
    wire_heartbeat_t heartbeat = {0};
    for (int i = 0; i < 3 || !heartbeat.ready; i++) {
        size_t bytes = receive(f, WIRE_HEARTBEAT, body, sizeof body);
        assert_int_equal(wire_heartbeat_decode(body, bytes, &heartbeat), WIRE_OK);
        assert_string_equal(heartbeat.sender, "worker.0");
        assert_int_equal(heartbeat.batch_id, 0);
    }
    drain(f);
}

static void malformed_messages_are_survived(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    assert_int_equal(zmq_send(f->router, "worker.0", 8, ZMQ_SNDMORE), 8);
    assert_int_equal(zmq_send(f->router, "\xc1nonsense", 9, 0), 9);
    assert_int_equal(zmq_send(f->router, "worker.0", 8, ZMQ_SNDMORE), 8);
    assert_int_equal(zmq_send(f->router, "", 0, 0), 0);
    wire_item_t item = {.symbol_id = 0, .end = BARS};
    assign(f, 5, f->epoch, &item, 1);
    expect_done(f, 5, &(uint8_t){WIRE_ITEM_OK}, 1);
    drain(f);
}

static void worker_told_to_stop_takes_leave(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    assert_int_equal(eventfd_write(f->stop, 1), 0);
    char body[4096];
    receive(f, WIRE_DRAIN, body, sizeof body);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    assert_int_equal(f->result, WORKER_OK);
}

static void worker_whose_device_fails_ends_without_a_word(void **state)
{
    fixture_t *f = *state;
    wire_ready_t ready;
    wait_for_ready(f, &ready);
    atomic_store(&device_fails, true);
    wire_item_t item = {.symbol_id = 0, .end = BARS};
    assign(f, 6, f->epoch, &item, 1);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    atomic_store(&device_fails, false);
    assert_int_equal(f->result, WORKER_ERR_DEVICE);
    for (;;) { /* no DONE, which would settle the batch, and no DRAIN: the scheduler gives it to another worker */
        zmq_pollitem_t wait = {.socket = f->router, .events = ZMQ_POLLIN};
        if (zmq_poll(&wait, 1, 100) == 0)
            break;
        char frame[4096];
        wire_type_t type;
        zmq_recv(f->router, frame, sizeof frame, 0);
        int bytes = zmq_recv(f->router, frame, sizeof frame, 0);
        assert_int_equal(wire_peek(frame, (size_t)bytes, &type), WIRE_OK);
        assert_true(type != WIRE_DONE && type != WIRE_DRAIN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(worker_announces_its_sessions_and_forecasts_more_than_a_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_of_another_segment_is_stale, setup, teardown),
        cmocka_unit_test_setup_teardown(worker_follows_to_a_segment_that_was_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(scheduler_that_is_new_is_told_hello_and_ready_again, setup, teardown),
        cmocka_unit_test_setup_teardown(heartbeats_say_that_the_worker_is_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(malformed_messages_are_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(worker_told_to_stop_takes_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(worker_whose_device_fails_ends_without_a_word, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
