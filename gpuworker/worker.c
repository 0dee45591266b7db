#include "gpuworker/worker.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "gpuworker/beat.h"
#include "gpuworker/forecaster.h"
#include "shm/counters.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum {
    JOIN_RETRY_MS = 20,
    LINGER_MS = 1000, /* for the last words to the scheduler */
    COMPLAINT_INTERVAL_S = 10
};

struct worker {
    const config_t *config;
    uint32_t index;
    int stop;
    char name[WIRE_NAME_BYTES];
    char scheduler_endpoint[CONFIG_TEXT_BYTES], publish_endpoint[CONFIG_TEXT_BYTES];

    backend_t *backend;
    shm_counters_t *counters;
    shm_segment_t *segment;
    uint64_t epoch; /* of the segment */
    void *zmq;
    void *dealer;
    publisher_t *publisher;
    beat_t *beat;
    forecaster_t *forecaster;

    wire_buffer_t *encoded;
    wire_item_t *items; /* [WIRE_ITEMS_MOST] */
    uint64_t batch_id;  /* the last one that was assigned */
    wire_ready_t ready;
    char scheduler[WIRE_NAME_BYTES]; /* the instance that we talk to */
    int64_t heard_ns;                /* when it last said something */
    int64_t announced_ns;            /* when we last said READY */
    bool leaving, device_failed;
    log_limit_t bad_message;
};

/* ---- talking to the scheduler --------------------------------------------------------------------------------------------------- */

/* `encoded` is the result of an encoder into worker->encoded. A scheduler that is not there is no error: it will be told later. */
static void say(worker_t *worker, int encoded)
{
    if (encoded == WIRE_OK)
        zmq_send(worker->dealer, wire_buffer_data(worker->encoded), wire_buffer_bytes(worker->encoded), ZMQ_DONTWAIT);
    else
        log_error("cannot encode a message: %s", error_text());
}

static void say_hello(worker_t *worker)
{
    wire_hello_t hello = {.pid = (uint32_t)getpid()};
    snprintf(hello.worker, sizeof hello.worker, "%s", worker->name);
    snprintf(hello.device, sizeof hello.device, "%s", backend_name(worker->backend));
    snprintf(hello.publish_endpoint, sizeof hello.publish_endpoint, "%s", worker->publish_endpoint);
    say(worker, wire_hello_encode(worker->encoded, &hello));
}

static void announce(worker_t *worker)
{
    say_hello(worker);
    say(worker, wire_ready_encode(worker->encoded, &worker->ready));
    worker->announced_ns = clock_monotonic_ns();
}

static void say_drain(worker_t *worker)
{
    wire_drain_t drain;
    snprintf(drain.sender, sizeof drain.sender, "%s", worker->name);
    say(worker, wire_drain_encode(worker->encoded, &drain));
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------- */

static int open_backend(worker_t *worker, config_device_t device)
{
    const config_t *config = worker->config;
    if (device == CONFIG_DEVICE_AUTO)
        device = config->worker.device;
    int devices = backend_built(BACKEND_CUDA) ? backend_device_count(BACKEND_CUDA) : 0;
    if (device == CONFIG_DEVICE_AUTO)
        device = devices > 0 ? CONFIG_DEVICE_CUDA : CONFIG_DEVICE_CPU;
    backend_options_t options = {.kind = BACKEND_CPU, .threads = (int)config->worker.threads};
    if (device == CONFIG_DEVICE_CUDA) {
        if (devices <= 0)
            return error_set(WORKER_ERR_CONFIG, "device cuda: %s",
                             backend_built(BACKEND_CUDA) ? "no usable GPU" : "this build has no CUDA backend");
        options.kind = BACKEND_CUDA;
        options.device = (int)((config->worker.device_first + worker->index) % (uint32_t)devices);
    }
    return backend_open(&options, &worker->backend) < 0 ? WORKER_ERR_DEVICE : WORKER_OK;
}

static int open_sockets(worker_t *worker)
{
    const config_t *config = worker->config;
    if (config_scheduler_endpoint(config, worker->scheduler_endpoint) < 0 ||
        config_publish_endpoint(config, worker->index, worker->publish_endpoint) < 0)
        return WORKER_ERR_CONFIG;
    worker->zmq = zmq_ctx_new();
    if (!worker->zmq)
        return error_set(WORKER_ERR_SYSTEM, "no ZeroMQ context: %s", zmq_strerror(zmq_errno()));
    worker->dealer = beat_dealer(worker->zmq, worker->scheduler_endpoint, worker->name, LINGER_MS);
    if (!worker->dealer)
        return error_set(WORKER_ERR_SYSTEM, "cannot connect to %s: %s", worker->scheduler_endpoint, zmq_strerror(zmq_errno()));
    if (publisher_open(worker->zmq, worker->publish_endpoint, config->publish.high_water_mark, config->model_count,
                       worker->counters, &worker->publisher) < 0)
        return WORKER_ERR_SYSTEM;
    say_hello(worker);
    if (beat_start(worker->zmq, worker->scheduler_endpoint, worker->name, config->scheduler.heartbeat_ns, &worker->beat) < 0)
        return WORKER_ERR_SYSTEM;
    return WORKER_OK;
}

static void batch_finished(void *context, const wire_done_t *done)
{
    worker_t *worker = context;
    say(worker, wire_done_encode(worker->encoded, done));
    if (done->batch_id == worker->batch_id)
        beat_set_batch(worker->beat, 0);
}

static int open_forecaster(worker_t *worker)
{
    forecaster_parts_t parts = {.config = worker->config,
                                .worker = worker->name,
                                .backend = worker->backend,
                                .publisher = worker->publisher,
                                .counters = worker->counters,
                                .overlap = backend_kind(worker->backend) != BACKEND_CPU, /* whose work is the host's own */
                                .finished = batch_finished,
                                .context = worker};
    int rc = forecaster_open(&parts, &worker->forecaster);
    if (rc < 0)
        return rc == FORECASTER_ERR_DEVICE ? WORKER_ERR_DEVICE : WORKER_ERR_CONFIG;
    wire_ready_t *ready = &worker->ready;
    snprintf(ready->worker, sizeof ready->worker, "%s", worker->name);
    ready->pid = (uint32_t)getpid();
    ready->credits = worker->config->scheduler.credits;
    ready->session_count = forecaster_sessions(worker->forecaster, ready->sessions);
    return WORKER_OK;
}

/* Joins the segment of that name that exists now, in place of the one we have. SHM_ERR_NOT_READY: not yet. */
static int join_segment(worker_t *worker)
{
    shm_segment_t *segment;
    int rc = shm_segment_join(worker->config->instance.name, &segment);
    if (rc == SHM_ERR_NOT_READY)
        return rc;
    if (rc < 0 && rc != SHM_ERR_STALE_WRITER) /* a dead ingest comes back and goes on in the same segment */
        return error_add(rc, "segment %s", worker->config->instance.name);
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    if (worker->segment && info.epoch == worker->epoch) {
        shm_segment_leave(segment);
        return SHM_OK;
    }
    if (publisher_reset(worker->publisher, info.symbols_max) < 0 || forecaster_join(worker->forecaster, segment) < 0) {
        shm_segment_leave(segment);
        return SHM_ERR_SYSTEM;
    }
    shm_segment_leave(worker->segment);
    worker->segment = segment;
    worker->epoch = info.epoch;
    return SHM_OK;
}

static int wait_for_segment(worker_t *worker)
{
    int rc;
    struct pollfd stop = {.fd = worker->stop, .events = POLLIN};
    while ((rc = join_segment(worker)) == SHM_ERR_NOT_READY)
        if (poll(&stop, 1, JOIN_RETRY_MS) > 0)
            return WORKER_STOPPED;
    return rc < 0 ? WORKER_ERR_SEGMENT : WORKER_OK;
}

int worker_open(const worker_options_t *options, worker_t **out)
{
    worker_t *worker = calloc(1, sizeof *worker);
    if (!worker)
        return error_set(WORKER_ERR_SYSTEM, "out of memory");
    worker->config = options->config;
    worker->index = options->index;
    worker->stop = options->stop;
    snprintf(worker->name, sizeof worker->name, "worker.%u", options->index);
    worker->items = calloc(WIRE_ITEMS_MOST, sizeof *worker->items);
    int rc = WORKER_ERR_SYSTEM;
    if (!worker->items || wire_buffer_open(WIRE_ITEMS_MOST, &worker->encoded) < 0) {
        error_set(rc, "out of memory");
        goto fail;
    }
    if (shm_counters_create(worker->config->instance.name, worker->name, &worker->counters) < 0)
        goto fail;
    if ((rc = open_backend(worker, options->device)) != WORKER_OK || (rc = open_sockets(worker)) != WORKER_OK ||
        (rc = open_forecaster(worker)) != WORKER_OK || (rc = wait_for_segment(worker)) != WORKER_OK)
        goto fail;
    *out = worker;
    return WORKER_OK;

fail:
    worker_close(worker);
    return rc;
}

void worker_close(worker_t *worker)
{
    if (!worker)
        return;
    beat_stop(worker->beat);
    forecaster_close(worker->forecaster);
    publisher_close(worker->publisher);
    if (worker->dealer)
        zmq_close(worker->dealer);
    if (worker->zmq)
        zmq_ctx_term(worker->zmq);
    backend_close(worker->backend);
    shm_segment_leave(worker->segment);
    shm_counters_leave(worker->counters);
    wire_buffer_close(worker->encoded);
    free(worker->items);
    free(worker);
}

/* ---- running -------------------------------------------------------------------------------------------------------------------- */

/* The segment of another epoch is joined when it is the one that exists; otherwise the batch's symbol ids mean nothing to us. */
static bool same_segment(worker_t *worker, uint64_t epoch)
{
    if (epoch == worker->epoch)
        return true;
    worker->device_failed = forecaster_flush(worker->forecaster) < 0;
    return !worker->device_failed && join_segment(worker) == SHM_OK && epoch == worker->epoch;
}

static void refuse_stale(worker_t *worker, const wire_assign_t *assign)
{
    uint8_t status[WIRE_ITEMS_MOST];
    wire_done_t done = {.batch_id = assign->batch_id, .count = assign->count, .status = status};
    snprintf(done.worker, sizeof done.worker, "%s", worker->name);
    memset(status, WIRE_ITEM_STALE, assign->count);
    batch_finished(worker, &done);
}

static int handle_assign(worker_t *worker, const void *data, size_t bytes)
{
    wire_assign_t assign = {.items = worker->items};
    int rc = wire_assign_decode(data, bytes, &assign);
    if (rc < 0)
        return rc;
    worker->batch_id = assign.batch_id;
    beat_set_batch(worker->beat, assign.batch_id);
    bool same = same_segment(worker, assign.epoch);
    if (worker->device_failed)
        return WIRE_OK; /* the batch is not answered: another worker gets it */
    if (!same)
        refuse_stale(worker, &assign);
    else if (forecaster_run(worker->forecaster, worker->segment, &assign) < 0)
        worker->device_failed = true;
    return WIRE_OK;
}

/* A scheduler that we have not talked to knows nothing of us. */
static int handle_heartbeat(worker_t *worker, const void *data, size_t bytes)
{
    wire_heartbeat_t heartbeat;
    int rc = wire_heartbeat_decode(data, bytes, &heartbeat);
    if (rc == WIRE_OK && strcmp(heartbeat.sender, worker->scheduler) != 0) {
        memcpy(worker->scheduler, heartbeat.sender, sizeof worker->scheduler);
        announce(worker);
    }
    return rc;
}

/* A bad message is complained about and forgotten. */
static void handle(worker_t *worker, const void *data, size_t bytes)
{
    worker->heard_ns = clock_monotonic_ns();
    wire_type_t type;
    int rc = wire_peek(data, bytes, &type);
    if (rc == WIRE_OK)
        switch (type) {
        case WIRE_ASSIGN:
            rc = handle_assign(worker, data, bytes);
            break;
        case WIRE_HEARTBEAT:
            rc = handle_heartbeat(worker, data, bytes);
            break;
        case WIRE_DRAIN:
            worker->leaving = true;
            break;
        default:
            rc = error_set(WIRE_ERR_TYPE, "a worker expects no %s", wire_type_name(type));
        }
    uint64_t held_back;
    if (rc < 0 && log_allow(&worker->bad_message, COMPLAINT_INTERVAL_S * CLOCK_NS_PER_S, &held_back))
        log_warning("the scheduler sent a bad message: %s (%llu more were not mentioned)", error_text(),
                    (unsigned long long)held_back);
}

/* Everything that the scheduler has sent so far. */
static void handle_all(worker_t *worker)
{
    bool received = true;
    while (received && !worker->device_failed) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        received = zmq_msg_recv(&message, worker->dealer, ZMQ_DONTWAIT) >= 0;
        if (received)
            handle(worker, zmq_msg_data(&message), zmq_msg_size(&message));
        zmq_msg_close(&message);
    }
}

/* Publishes what the device has done since. */
static bool device_busy(worker_t *worker)
{
    int rc = worker->device_failed ? FORECASTER_ERR_DEVICE : forecaster_poll(worker->forecaster);
    worker->device_failed = rc < 0;
    return rc == FORECASTER_BUSY;
}

static void keep_in_touch(worker_t *worker)
{
    int64_t interval_ns = worker->config->scheduler.heartbeat_ns;
    int64_t now = clock_monotonic_ns();
    if (now - worker->heard_ns > interval_ns * worker->config->scheduler.heartbeat_liveness &&
        now - worker->announced_ns > interval_ns)
        announce(worker);
}

static bool has_input(worker_t *worker)
{
    int events = 0;
    size_t bytes = sizeof events;
    return zmq_getsockopt(worker->dealer, ZMQ_EVENTS, &events, &bytes) == 0 && (events & ZMQ_POLLIN);
}

/* Does all that there is to do, and while the device computes, looks for more: it is done in milliseconds, sleeping would cost some of them. The
 * sockets' descriptors tell of news once: after this, none is left that they have told of. */
static void take_turn(worker_t *worker)
{
    bool busy;
    do {
        handle_all(worker);
        busy = device_busy(worker);
        publisher_serve(worker->publisher);
        keep_in_touch(worker);
    } while (!worker->device_failed && (busy || has_input(worker))); /* sending may have swallowed the descriptor's news */
}

static int descriptor(void *socket)
{
    int fd = -1;
    size_t bytes = sizeof fd;
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &bytes) == 0 ? fd : -1;
}

int worker_run(worker_t *worker)
{
    shm_counter_set(worker->counters, SHM_COUNTER_READY, 1);
    beat_set_ready(worker->beat);
    worker->heard_ns = clock_monotonic_ns();
    announce(worker);

    /* poll on the descriptors takes a third of the system calls of zmq_poll, which is to be seen in the time from bar to forecast. */
    int interval_ms = (int)(worker->config->scheduler.heartbeat_ns / CLOCK_NS_PER_MS);
    struct pollfd wait[] = {{.fd = descriptor(worker->dealer), .events = POLLIN},
                            {.fd = descriptor(publisher_socket(worker->publisher)), .events = POLLIN},
                            {.fd = worker->stop, .events = POLLIN}};
    for (;;) {
        take_turn(worker);
        if (worker->leaving || worker->device_failed)
            break;
        if (poll(wait, sizeof wait / sizeof *wait, interval_ms) > 0 && wait[2].revents)
            worker->leaving = true; /* after one more turn */
    }
    shm_counter_set(worker->counters, SHM_COUNTER_READY, 0);
    if (worker->device_failed)
        return WORKER_ERR_DEVICE;
    say_drain(worker);
    return WORKER_OK;
}
