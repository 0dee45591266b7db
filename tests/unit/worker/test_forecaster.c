/* A forecaster that publishes a batch while the next one is computed, on a device that may have too little memory or fail. */
#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/forecaster.h"
#include "shm/ring.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

enum { BARS = 20, SYMBOLS = 6, BATCHES_MOST = 8, PATIENCE_MS = 60000 };
static const int64_t interval_ns = INT64_C(60) * 1000000000;
static const char endpoint[] = "inproc://forecasts";

typedef struct {
    char name[SHM_NAME_BYTES];
    config_t *config;
    shm_segment_t *segment;
    shm_counters_t *counters;
    void *zmq, *subscriber;
    publisher_t *publisher;
    backend_t *backend;
    forecaster_t *forecaster;
    uint32_t finished;
    uint64_t batch_id[BATCHES_MOST]; /* of those finished, in order */
    uint8_t status[BATCHES_MOST][SYMBOLS];
} fixture_t;

static uint32_t biggest_that_fits; /* batch of a session; 0: all fit */
static bool device_fails, device_computes;
static float *started_values; /* what the device was given */

int __real_session_open(model_t *model, const model_shape_t *shape, bool graphs, session_t **out);
int __wrap_session_open(model_t *model, const model_shape_t *shape, bool graphs, session_t **out);
int __real_session_start(session_t *session, uint32_t count);
int __wrap_session_start(session_t *session, uint32_t count);
int __real_session_ready(session_t *session);
int __wrap_session_ready(session_t *session);
int __real_session_wait(session_t *session);
int __wrap_session_wait(session_t *session);

int __wrap_session_open(model_t *model, const model_shape_t *shape, bool graphs, session_t **out)
{
    if (biggest_that_fits && shape->batch > biggest_that_fits)
        return error_set(SESSION_ERR_MEMORY, "cache: no device memory for 200 MB, 100 of 1000 MB are free");
    return __real_session_open(model, shape, graphs, out);
}

static size_t value_bytes(const session_t *session)
{
    const model_shape_t *shape = session_shape(session);
    return (size_t)shape->batch * shape->variates * shape->context * sizeof(float);
}

int __wrap_session_start(session_t *session, uint32_t count)
{
    started_values = realloc(started_values, value_bytes(session));
    assert_non_null(started_values);
    memcpy(started_values, session_input(session)->values, value_bytes(session));
    return __real_session_start(session, count);
}

int __wrap_session_ready(session_t *session)
{
    return device_computes ? 0 : __real_session_ready(session);
}

/* Whatever is gathered meanwhile: the device reads what it was given. */
int __wrap_session_wait(session_t *session)
{
    assert_memory_equal(session_input(session)->values, started_values, value_bytes(session));
    return device_fails ? error_set(SESSION_ERR_DEVICE, "synchronize: an illegal memory access") : __real_session_wait(session);
}

static void note_finished(void *context, const wire_done_t *done)
{
    fixture_t *f = context;
    assert_in_range(done->count, 1, SYMBOLS);
    assert_string_equal(done->worker, "worker.0");
    f->batch_id[f->finished] = done->batch_id;
    memcpy(f->status[f->finished++], done->status, done->count);
}

static void make_segment(fixture_t *f)
{
    shm_segment_options_t options = {.name = f->name, .symbols_max = SYMBOLS, .ring_bars = 64, .log_entries = 1024, .group_id = -1};
    bool rejoined;
    assert_int_equal(shm_segment_create(&options, &f->segment, &rejoined), SHM_OK);
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
        uint32_t id;
        assert_int_equal(shm_symbol_add(f->segment, (const char[]){'S', (char)('0' + symbol), '\0'}, interval_ns, &id), SHM_OK);
        for (int i = 1; i <= BARS; i++) {
            double close = 100 * (symbol + 1) + i;
            shm_bar_t bar = {
                .open_time_ns = i * interval_ns, .open = close, .high = close, .low = close, .close = close, .volume = 1};
            assert_int_equal(shm_ring_append(f->segment, id, &bar), SHM_OK);
        }
    }
}

static int open_forecaster(fixture_t *f)
{
    forecaster_parts_t parts = {.config = f->config,
                                .worker = "worker.0",
                                .backend = f->backend,
                                .publisher = f->publisher,
                                .counters = f->counters,
                                .overlap = true,
                                .finished = note_finished,
                                .context = f};
    return forecaster_open(&parts, &f->forecaster);
}

static int setup(void **state)
{
    fixture_t *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->name, sizeof f->name, "test-forecaster-%d", (int)getpid());
    assert_int_equal(config_parse("[feed.none]\ntype = zmq\nendpoint = ipc:///nowhere\n"
                                  "[model.base]\npath = naive\ncontext = 16\ncontext_min = 4\nhorizon = 3\nbuckets = 1, 2\n",
                                  "test", &f->config),
                     CONFIG_OK);
    make_segment(f);
    assert_int_equal(shm_counters_create(f->name, "worker.0", &f->counters), SHM_OK);
    f->zmq = zmq_ctx_new();
    assert_int_equal(publisher_open(f->zmq, endpoint, 1000, 1, f->counters, &f->publisher), PUBLISHER_OK);
    assert_int_equal(publisher_reset(f->publisher, SYMBOLS), PUBLISHER_OK);
    f->subscriber = zmq_socket(f->zmq, ZMQ_SUB);
    zmq_setsockopt(f->subscriber, ZMQ_SUBSCRIBE, "", 0);
    assert_int_equal(zmq_connect(f->subscriber, endpoint), 0);
    zmq_pollitem_t subscription = {.socket = publisher_socket(f->publisher), .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&subscription, 1, PATIENCE_MS), 1);
    publisher_serve(f->publisher);

    assert_int_equal(backend_open(&(backend_options_t){.kind = BACKEND_CPU, .threads = 1}, &f->backend), BACKEND_OK);
    assert_int_equal(open_forecaster(f), FORECASTER_OK);
    assert_int_equal(forecaster_join(f->forecaster, f->segment), FORECASTER_OK);
    *state = f;
    return 0;
}
static int teardown(void **state)
{
    fixture_t *f = *state;
    forecaster_close(f->forecaster);
    backend_close(f->backend);
    zmq_close(f->subscriber);
    publisher_close(f->publisher);
    zmq_ctx_term(f->zmq);
    shm_counters_leave(f->counters);
    shm_counters_delete(f->name, "worker.0");
    shm_segment_leave(f->segment);
    shm_segment_delete(f->name);
    config_free(f->config);
    free(started_values);
    started_values = NULL;
    free(f);
    return 0;
}

/* A batch of the symbols `first` .. `first + count - 1`. */
static void run(fixture_t *f, uint64_t batch_id, uint32_t first, uint32_t count)
{
    wire_item_t items[SYMBOLS];
    for (uint32_t i = 0; i < count; i++)
        items[i] = (wire_item_t){.symbol_id = first + i, .end = BARS};
    wire_assign_t assign = {.batch_id = batch_id, .model = "base", .count = count, .items = items};
    assert_int_equal(forecaster_run(f->forecaster, f->segment, &assign), FORECASTER_OK);
    memset(items, 0xff, sizeof items); /* the caller's again */
}

/* The next forecast published is `symbol`'s, and of its own values. */
static void expect_forecast(const fixture_t *f, uint32_t symbol)
{
    char topic[64], body[8192];
    assert_true(zmq_recv(f->subscriber, topic, sizeof topic, ZMQ_DONTWAIT) > 0);
    int bytes = zmq_recv(f->subscriber, body, sizeof body, ZMQ_DONTWAIT);
    wire_forecast_t forecast;
    wire_scratch_t scratch = {0};
    assert_int_equal(wire_forecast_decode(body, (size_t)bytes, &forecast, &scratch), WIRE_OK);
    float last = (float)(100 * (symbol + 1) + BARS);
    assert_int_equal(forecast.symbol[1], '0' + symbol);
    assert_true((float)forecast.last == last);
    assert_true(forecast.fields[0].mean[2] == last);
    const float *median = forecast.fields[0].quantiles + forecast.quantile_count / 2 * forecast.horizon;
    assert_true(median[2] > last - 1 && median[2] < last + 1);
    wire_scratch_free(&scratch);
}

static void expect_no_forecast(const fixture_t *f)
{
    char topic[64];
    assert_int_equal(zmq_recv(f->subscriber, topic, sizeof topic, ZMQ_DONTWAIT), -1);
}

/* A naive model's forecasts fare as the naive forecast does: its trailing volatility is of the whole context, 16 bars here. */
static void forecasts_are_scored_when_their_bars_arrive(void **state)
{
    fixture_t *f = *state;
    shm_score_t score;
    run(f, 1, 0, 1);
    forecaster_flush(f->forecaster);
    shm_score_get(f->counters, 0, &score);
    assert_int_equal(score.scored, 0);
    for (int i = 1; i <= 2; i++) {
        double close = 100 + BARS + i;
        shm_bar_t bar = {
            .open_time_ns = (BARS + i) * interval_ns, .open = close, .high = close, .low = close, .close = close, .volume = 1};
        assert_int_equal(shm_ring_append(f->segment, 0, &bar), SHM_OK);
    }
    wire_item_t item = {.symbol_id = 0, .end = BARS + 2};
    wire_assign_t assign = {.batch_id = 2, .model = "base", .count = 1, .items = &item};
    assert_int_equal(forecaster_run(f->forecaster, f->segment, &assign), FORECASTER_OK);
    forecaster_flush(f->forecaster);
    shm_score_get(f->counters, 0, &score);
    assert_int_equal(score.scored, 2);
    assert_true(score.loss > 0 && fabs(score.loss / score.naive_loss - 1) < 1e-3);
    assert_true(score.coverage == 0.5); /* one deviation up after a bar is within 1.28, two after two are not within 1.28 sqrt(2) */
}

static void batch_is_published_while_the_next_one_is_computed(void **state)
{
    fixture_t *f = *state;
    run(f, 1, 0, 2);
    expect_no_forecast(f);
    assert_int_equal(f->finished, 0);
    run(f, 2, 2, 2); /* in the same session, over the results of the first */
    expect_forecast(f, 0);
    expect_forecast(f, 1);
    expect_no_forecast(f);
    assert_int_equal(f->finished, 1);
    assert_int_equal(forecaster_flush(f->forecaster), FORECASTER_OK);
    expect_forecast(f, 2);
    expect_forecast(f, 3);
    assert_int_equal(f->finished, 2);
    assert_int_equal(f->batch_id[0], 1);
    assert_int_equal(f->batch_id[1], 2);
    assert_int_equal(forecaster_poll(f->forecaster), FORECASTER_OK);
    expect_no_forecast(f);
    assert_int_equal(shm_counter_get(f->counters, SHM_COUNTER_FORECASTS), 4);
    assert_int_equal(shm_counter_get(f->counters, SHM_COUNTER_BATCHES_RUN), 2);
}

static void poll_publishes_once_the_device_is_done(void **state)
{
    fixture_t *f = *state;
    assert_int_equal(forecaster_poll(f->forecaster), FORECASTER_OK);
    run(f, 1, 0, 2);
    device_computes = true;
    int busy = forecaster_poll(f->forecaster);
    device_computes = false;
    assert_int_equal(busy, FORECASTER_BUSY);
    expect_no_forecast(f);
    assert_int_equal(f->finished, 0);
    assert_int_equal(forecaster_poll(f->forecaster), FORECASTER_OK);
    expect_forecast(f, 0);
    expect_forecast(f, 1);
    assert_int_equal(f->finished, 1);
}

static void batch_of_several_runs_is_finished_with_its_last(void **state)
{
    fixture_t *f = *state;
    run(f, 1, 0, 5);
    for (uint32_t symbol = 0; symbol < 4; symbol++)
        expect_forecast(f, symbol);
    expect_no_forecast(f);
    assert_int_equal(f->finished, 0);
    run(f, 2, 5, 1);
    expect_forecast(f, 4);
    assert_int_equal(f->finished, 1);
    assert_int_equal(forecaster_flush(f->forecaster), FORECASTER_OK);
    expect_forecast(f, 5);
    assert_int_equal(f->finished, 2);
}

static void batch_without_a_window_is_finished_at_once(void **state)
{
    fixture_t *f = *state;
    run(f, 1, 0, 1);
    run(f, 2, SYMBOLS, 2);
    assert_int_equal(f->finished, 1);
    assert_int_equal(f->batch_id[0], 2);
    assert_memory_equal(f->status[0], ((const uint8_t[]){WIRE_ITEM_STALE, WIRE_ITEM_STALE}), 2);
    assert_int_equal(forecaster_flush(f->forecaster), FORECASTER_OK);
    expect_forecast(f, 0);
    assert_int_equal(f->batch_id[1], 1);
    assert_int_equal(f->status[1][0], WIRE_ITEM_OK);
}

static void batch_of_an_unknown_model_fails(void **state)
{
    fixture_t *f = *state;
    wire_item_t item = {.symbol_id = 0, .end = BARS};
    wire_assign_t assign = {.batch_id = 9, .model = "other", .count = 1, .items = &item};
    assert_int_equal(forecaster_run(f->forecaster, f->segment, &assign), FORECASTER_OK);
    assert_int_equal(f->finished, 1);
    assert_int_equal(f->status[0][0], WIRE_ITEM_FAILED);
}

static void bucket_that_does_not_fit_is_left_out(void **state)
{
    fixture_t *f = *state;
    wire_session_t sessions[WIRE_SESSIONS_MOST];
    forecaster_close(f->forecaster);
    f->forecaster = NULL;
    biggest_that_fits = 1;
    int rc = open_forecaster(f);
    biggest_that_fits = 0;
    assert_int_equal(rc, FORECASTER_OK);
    assert_int_equal(forecaster_sessions(f->forecaster, sessions), 1);
    assert_int_equal(sessions[0].batch, 1);
}

static void device_that_fails_is_named_with_what_failed(void **state)
{
    fixture_t *f = *state;
    run(f, 1, 0, 1);
    run(f, 2, 1, 1);
    wire_item_t item = {.symbol_id = 2, .end = BARS};
    wire_assign_t assign = {.batch_id = 3, .model = "base", .count = 1, .items = &item};
    device_fails = true;
    int rc = forecaster_run(f->forecaster, f->segment, &assign);
    device_fails = false;
    assert_int_equal(rc, FORECASTER_ERR_DEVICE);
    assert_non_null(strstr(error_text(), "cpu"));
    assert_non_null(strstr(error_text(), "model base"));
    assert_non_null(strstr(error_text(), "synchronize: an illegal memory access"));
    assert_int_equal(f->finished, 1); /* what was computed before is out, what the device had is not finished */
    assert_int_equal(f->batch_id[0], 1);
    expect_forecast(f, 0);
    expect_no_forecast(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(forecasts_are_scored_when_their_bars_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_is_published_while_the_next_one_is_computed, setup, teardown),
        cmocka_unit_test_setup_teardown(poll_publishes_once_the_device_is_done, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_of_several_runs_is_finished_with_its_last, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_without_a_window_is_finished_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_of_an_unknown_model_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(bucket_that_does_not_fit_is_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(device_that_fails_is_named_with_what_failed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
