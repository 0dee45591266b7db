#include "scheduler/loop.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "scheduler/dispatch.h"
#include "scheduler/endpoint.h"
#include "shm/counters.h"
#include "shm/ring.h"
#include "shm/update_log.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <zmq.h>

enum {
    UPDATES_MOST = 256,       /* of one read of the log */
    UPDATE_READS_MOST = 64,   /* of one turn, so that a flat-out writer cannot keep it from ending */
    COMPLAINT_INTERVAL_S = 10 /* between two log lines of the same kind */
};
static const int64_t join_interval_ns = 20 * CLOCK_NS_PER_MS;
static const int64_t watch_most_ns = 100 * CLOCK_NS_PER_MS; /* how long the watcher may take to notice that it shall end */
static const int64_t say_goodbye_ms = 1000;

typedef struct {
    const config_t *config;
    int signals;
    char name[WIRE_NAME_BYTES]; /* "scheduler.PID.START": workers introduce themselves to a name that they do not know */
    void *zmq, *router;
    int router_fd;
    shm_counters_t *counters;
    pthread_t watcher;
    bool watching;
    atomic_bool stop_watching;

    pthread_mutex_t lock; /* of all below, and of `router` */
    dispatch_t *dispatch;
    shm_segment_t *segment; /* changed only while nobody watches; NULL: not yet */
    uint64_t epoch, cursor;
    bool draining;
    int64_t next_beat_ns;
    uint64_t updates_read, log_overruns, rejected;
    wire_buffer_t *encoded;
    shm_update_t updates[UPDATES_MOST];
    uint8_t status[WIRE_ITEMS_MOST];
    log_limit_t bad_message, bad_segment, quarantined;
} loop_t;

/* A symbol that is quarantined again and again, or a thousand at once, must not fill the log. */
static void report(void *context, dispatch_event_t event, const char *text)
{
    loop_t *loop = context;
    uint64_t held_back;
    if (event == DISPATCH_QUARANTINED) {
        if (log_allow(&loop->quarantined, COMPLAINT_INTERVAL_S * CLOCK_NS_PER_S, &held_back))
            log_warning("%s (%llu more were not mentioned)", text, (unsigned long long)held_back);
    } else {
        log_line(event == DISPATCH_WORKER_LOST ? LOG_WARNING : LOG_INFO, "%s", text);
    }
}

/* ---- messages -------------------------------------------------------------------------------------------------------------------- */

/* Sends what was encoded last. False when the worker cannot be reached, or reads nothing any more. */
static bool send_to(loop_t *loop, const char *worker)
{
    return zmq_send(loop->router, worker, strlen(worker), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
           zmq_send(loop->router, wire_buffer_data(loop->encoded), wire_buffer_bytes(loop->encoded), ZMQ_DONTWAIT) >= 0;
}

static void beat_to(loop_t *loop, const char *worker)
{
    wire_heartbeat_t beat = {.ready = 1, .interval_ns = loop->config->scheduler.heartbeat_ns};
    strcpy(beat.sender, loop->name);
    if (wire_heartbeat_encode(loop->encoded, &beat) == WIRE_OK)
        send_to(loop, worker); /* one that is gone is noticed by its silence */
}

static void reject(loop_t *loop, const char *why)
{
    uint64_t held_back;
    loop->rejected++;
    if (log_allow(&loop->bad_message, COMPLAINT_INTERVAL_S * CLOCK_NS_PER_S, &held_back))
        log_warning("a message was rejected: %s (%llu more were not mentioned)", why, (unsigned long long)held_back);
}

/* A worker speaks for itself only, from its socket NAME or its heartbeat's NAME#beat. */
static bool belongs(zmq_msg_t *identity, const char *worker)
{
    size_t bytes = strlen(worker), identity_bytes = zmq_msg_size(identity);
    const char *text = zmq_msg_data(identity);
    return identity_bytes >= bytes && memcmp(text, worker, bytes) == 0 &&
           (identity_bytes == bytes || (identity_bytes == bytes + 5 && memcmp(text + bytes, "#beat", 5) == 0));
}

typedef union {
    wire_hello_t hello;
    wire_ready_t ready;
    wire_heartbeat_t heartbeat;
    wire_done_t done;
    wire_drain_t drain;
} message_t;

/* Decodes any message that a worker may send; *worker is who says it. */
static int decode(loop_t *loop, zmq_msg_t *body, wire_type_t *type, message_t *out, const char **worker)
{
    const void *data = zmq_msg_data(body);
    size_t bytes = zmq_msg_size(body);
    int rc = wire_peek(data, bytes, type);
    if (rc < 0)
        return rc;
    switch (*type) {
    case WIRE_HELLO:
        *worker = out->hello.worker;
        return wire_hello_decode(data, bytes, &out->hello);
    case WIRE_READY:
        *worker = out->ready.worker;
        return wire_ready_decode(data, bytes, &out->ready);
    case WIRE_HEARTBEAT:
        *worker = out->heartbeat.sender;
        return wire_heartbeat_decode(data, bytes, &out->heartbeat);
    case WIRE_DONE:
        *worker = out->done.worker;
        out->done.status = loop->status;
        return wire_done_decode(data, bytes, &out->done);
    case WIRE_DRAIN:
        *worker = out->drain.sender;
        return wire_drain_decode(data, bytes, &out->drain);
    default:
        return error_set(WIRE_ERR_TYPE, "a scheduler expects no %s", wire_type_name(*type));
    }
}

static int act_on(loop_t *loop, wire_type_t type, const message_t *message)
{
    int64_t now = clock_monotonic_ns();
    switch (type) {
    case WIRE_HELLO:
        return dispatch_hello(loop->dispatch, &message->hello, now);
    case WIRE_READY:
        return dispatch_ready(loop->dispatch, &message->ready, now);
    case WIRE_HEARTBEAT:
        return dispatch_heartbeat(loop->dispatch, &message->heartbeat, now);
    case WIRE_DONE:
        return dispatch_done(loop->dispatch, &message->done, now);
    default:
        return dispatch_leave(loop->dispatch, &message->drain, now);
    }
}

static void handle(loop_t *loop, zmq_msg_t *identity, zmq_msg_t *body)
{
    wire_type_t type;
    message_t message;
    const char *worker = "";
    int rc = decode(loop, body, &type, &message, &worker);
    if (rc == WIRE_OK && !belongs(identity, worker)) {
        reject(loop, "it names another worker than its socket");
        return;
    }
    if (rc == WIRE_OK)
        rc = act_on(loop, type, &message);
    if (rc == DISPATCH_UNKNOWN)
        beat_to(loop, worker);
    else if (rc < 0)
        reject(loop, error_text());
}

/* One message of two frames; false when there is none. */
static bool receive(loop_t *loop)
{
    zmq_msg_t identity, body;
    zmq_msg_init(&identity);
    zmq_msg_init(&body);
    bool received = zmq_msg_recv(&identity, loop->router, ZMQ_DONTWAIT) >= 0;
    int frames = received ? 1 : 0;
    zmq_msg_t *last = &identity;
    for (; received && zmq_msg_more(last); frames++) {
        last = &body;
        zmq_msg_recv(&body, loop->router, ZMQ_DONTWAIT); /* the frames of a message come together */
    }
    if (frames == 2)
        handle(loop, &identity, &body);
    else if (received)
        reject(loop, "it has not one frame");
    zmq_msg_close(&identity);
    zmq_msg_close(&body);
    return received;
}

static bool more_to_receive(loop_t *loop)
{
    int events = 0;
    size_t bytes = sizeof events;
    return zmq_getsockopt(loop->router, ZMQ_EVENTS, &events, &bytes) == 0 && (events & ZMQ_POLLIN);
}

/* ---- bars ------------------------------------------------------------------------------------------------------------------------ */

static void add_symbols(loop_t *loop)
{
    due_t *due = dispatch_due(loop->dispatch);
    uint32_t count = shm_symbol_count(loop->segment);
    while (due_symbol_count(due) < count)
        due_symbol_add(due, shm_symbol_name(loop->segment, due_symbol_count(due)));
}

/* What the log does not tell: the state at the start, and after we were outrun. When those bars were stored is not known any more. */
static void look_at_all_rings(loop_t *loop)
{
    add_symbols(loop);
    due_t *due = dispatch_due(loop->dispatch);
    int64_t now = clock_monotonic_ns();
    for (uint32_t symbol = 0; symbol < due_symbol_count(due); symbol++)
        due_bar(due, symbol, shm_ring_closed(loop->segment, symbol), now, now);
}

static void read_updates(loop_t *loop)
{
    size_t count = UPDATES_MOST;
    for (int reads = 0; loop->segment && !loop->draining && count == UPDATES_MOST && reads < UPDATE_READS_MOST; reads++) {
        if (shm_log_read(loop->segment, &loop->cursor, loop->updates, UPDATES_MOST, &count) == SHM_OVERRUN) {
            loop->log_overruns++;
            look_at_all_rings(loop);
            continue;
        }
        if (count == 0)
            return;
        loop->updates_read += count;
        add_symbols(loop);
        int64_t now = clock_monotonic_ns();
        for (size_t i = 0; i < count; i++) {
            const shm_update_t *update = &loop->updates[i];
            if (update->flags & SHM_UPDATE_CLOSED)
                due_bar(dispatch_due(loop->dispatch), update->symbol_id, update->index + 1, update->stored_ns, now);
        }
    }
}

/* ---- turns ----------------------------------------------------------------------------------------------------------------------- */

static void send_batches(loop_t *loop)
{
    uint32_t worker;
    wire_assign_t assign;
    for (int64_t now; now = clock_monotonic_ns(), dispatch_next(loop->dispatch, now, &worker, &assign);)
        if (wire_assign_encode(loop->encoded, &assign) < 0 ||
            !send_to(loop, registry_worker(dispatch_registry(loop->dispatch), worker)->id))
            dispatch_unsent(loop->dispatch, worker, now);
}

static void beat_to_all(loop_t *loop)
{
    int64_t now = clock_monotonic_ns();
    if (now < loop->next_beat_ns)
        return;
    loop->next_beat_ns = now + loop->config->scheduler.heartbeat_ns;
    const registry_t *registry = dispatch_registry(loop->dispatch);
    for (uint32_t worker = 0; worker < registry_count(registry); worker++)
        beat_to(loop, registry_worker(registry, worker)->id);
}

static void publish_counters(loop_t *loop)
{
    dispatch_totals_t totals = dispatch_totals(loop->dispatch);
    bool idle = loop->segment && totals.due.due == 0 && totals.due.in_flight == 0 &&
                (loop->draining || shm_log_newest(loop->segment) == loop->cursor);
    const struct {
        shm_counter_t id;
        uint64_t value;
    } values[] = {
        {SHM_COUNTER_UPDATES_READ, loop->updates_read},
        {SHM_COUNTER_LOG_OVERRUNS, loop->log_overruns},
        {SHM_COUNTER_SYMBOLS_DUE, totals.due.due},
        {SHM_COUNTER_BATCHES_SENT, totals.batches_sent},
        {SHM_COUNTER_SERIES_SENT, totals.series_sent},
        {SHM_COUNTER_SERIES_DONE, totals.series_done},
        {SHM_COUNTER_SERIES_FAILED, totals.series_failed},
        {SHM_COUNTER_SERIES_OVERTAKEN, totals.due.overtaken},
        {SHM_COUNTER_BATCHES_REDISPATCHED, totals.redispatched},
        {SHM_COUNTER_DEADLINES_MISSED, totals.deadlines_missed},
        {SHM_COUNTER_WORKERS_ALIVE, totals.workers_alive},
        {SHM_COUNTER_WORKERS_LOST, totals.workers_lost},
        {SHM_COUNTER_SYMBOLS_QUARANTINED, totals.due.quarantined},
        {SHM_COUNTER_MESSAGES_REJECTED, loop->rejected + totals.done_late},
        {SHM_COUNTER_IDLE, idle},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        shm_counter_set(loop->counters, values[i].id, values[i].value);
}

/* Does all that there is to do. Returns for how long there is nothing else unless something comes, at most `most_ns`. */
static int64_t take_turn(loop_t *loop, int64_t most_ns)
{
    do {
        while (receive(loop))
            continue;
        read_updates(loop);
        dispatch_tick(loop->dispatch, clock_monotonic_ns());
        send_batches(loop);
        beat_to_all(loop);
    } while (more_to_receive(loop)); /* sending may have swallowed the descriptor's edge */
    publish_counters(loop);

    int64_t now = clock_monotonic_ns();
    int64_t next = dispatch_next_ns(loop->dispatch, now);
    if (loop->next_beat_ns < next)
        next = loop->next_beat_ns;
    return next <= now ? 0 : next - now < most_ns ? next - now : most_ns;
}

static void *watch(void *argument)
{
    loop_t *loop = argument;
    while (!atomic_load_explicit(&loop->stop_watching, memory_order_relaxed)) { /* pairs with the store in stop_watching */
        pthread_mutex_lock(&loop->lock);
        int64_t wait_ns = take_turn(loop, watch_most_ns);
        uint64_t cursor = loop->cursor;
        pthread_mutex_unlock(&loop->lock);
        shm_log_wait(loop->segment, cursor, wait_ns);
    }
    return NULL;
}

/* ---- the segment ----------------------------------------------------------------------------------------------------------------- */

static void stop_watching(loop_t *loop)
{
    if (!loop->watching)
        return;
    atomic_store_explicit(&loop->stop_watching, true, memory_order_relaxed); /* pairs with the load in watch */
    pthread_join(loop->watcher, NULL);
    loop->watching = false;
}

static int start_watching(loop_t *loop)
{
    atomic_store_explicit(&loop->stop_watching, false, memory_order_relaxed);
    int reason = pthread_create(&loop->watcher, NULL, watch, loop);
    if (reason)
        return error_set(LOOP_ERR_SYSTEM, "cannot start the thread that watches the log: %s", strerror(reason));
    loop->watching = true;
    return LOOP_OK;
}

static int begin_segment(loop_t *loop, shm_segment_t *segment, const shm_segment_info_t *info)
{
    stop_watching(loop);
    shm_segment_leave(loop->segment);
    loop->segment = segment;
    loop->epoch = info->epoch;
    if (dispatch_begin(loop->dispatch, info->epoch, info->symbols_max) < 0)
        return LOOP_ERR_SYSTEM;
    loop->cursor = shm_log_newest(segment);
    look_at_all_rings(loop);
    log_info("joined segment %s: %u symbols, room for %u", loop->config->instance.name, shm_symbol_count(segment),
             info->symbols_max);
    return start_watching(loop);
}

static bool segment_is_current(const loop_t *loop)
{
    shm_segment_info_t info;
    if (!loop->segment)
        return false;
    shm_segment_info(loop->segment, &info);
    return info.writer_alive && info.epoch == loop->epoch;
}

/* Joins the segment when there is one that is not ours yet. */
static int follow_segment(loop_t *loop)
{
    if (segment_is_current(loop))
        return LOOP_OK;
    shm_segment_t *segment;
    int rc = shm_segment_join(loop->config->instance.name, &segment);
    if (rc < 0 && rc != SHM_ERR_STALE_WRITER) {
        uint64_t held_back;
        if (rc != SHM_ERR_NOT_READY && log_allow(&loop->bad_segment, COMPLAINT_INTERVAL_S * CLOCK_NS_PER_S, &held_back))
            log_warning("cannot join the segment: %s", error_text());
        return LOOP_OK;
    }
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    if (loop->segment && info.epoch == loop->epoch) {
        shm_segment_leave(segment); /* its writer is away */
        return LOOP_OK;
    }
    return begin_segment(loop, segment, &info);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static int64_t turn(loop_t *loop, int64_t most_ns)
{
    pthread_mutex_lock(&loop->lock);
    int64_t wait_ns = take_turn(loop, most_ns);
    pthread_mutex_unlock(&loop->lock);
    return wait_ns;
}

/* Waits for a message or a signal; true when it was a signal. */
static bool wait_for_signal(const loop_t *loop, int64_t wait_ns)
{
    struct pollfd wait[] = {{.fd = loop->router_fd, .events = POLLIN}, {.fd = loop->signals, .events = POLLIN}};
    struct timespec most = {.tv_sec = wait_ns / CLOCK_NS_PER_S, .tv_nsec = wait_ns % CLOCK_NS_PER_S};
    struct signalfd_siginfo signal;
    return ppoll(wait, 2, &most, NULL) > 0 && wait[1].revents && read(loop->signals, &signal, sizeof signal) > 0;
}

static int serve(loop_t *loop)
{
    int rc;
    int64_t next_follow_ns = 0;
    do {
        int64_t now = clock_monotonic_ns();
        if (now >= next_follow_ns) {
            if ((rc = follow_segment(loop)) < 0)
                return rc;
            next_follow_ns = now + (loop->segment ? loop->config->scheduler.heartbeat_ns : join_interval_ns);
        }
    } while (!wait_for_signal(loop, turn(loop, loop->segment ? loop->config->scheduler.heartbeat_ns : join_interval_ns)));
    return LOOP_OK;
}

static void drain(loop_t *loop)
{
    stop_watching(loop);
    loop->draining = true;
    dispatch_drain(loop->dispatch);
    int64_t until = clock_monotonic_ns() + loop->config->scheduler.deadline_ns;
    for (;;) {
        int64_t wait_ns = turn(loop, until - clock_monotonic_ns());
        dispatch_totals_t totals = dispatch_totals(loop->dispatch);
        bool more = totals.due.in_flight > 0 || (totals.due.due > 0 && totals.workers_alive > 0);
        if (!more || clock_monotonic_ns() >= until || wait_for_signal(loop, wait_ns))
            break;
    }
    dispatch_totals_t totals = dispatch_totals(loop->dispatch);
    log_info("ends: %llu forecasts done, %u not waited for", (unsigned long long)totals.series_done,
             totals.due.due + totals.due.in_flight);

    const int linger = (int)say_goodbye_ms;
    wire_drain_t message;
    strcpy(message.sender, loop->name);
    zmq_setsockopt(loop->router, ZMQ_LINGER, &linger, sizeof linger);
    const registry_t *registry = dispatch_registry(loop->dispatch);
    if (wire_drain_encode(loop->encoded, &message) == WIRE_OK)
        for (uint32_t worker = 0; worker < registry_count(registry); worker++)
            send_to(loop, registry_worker(registry, worker)->id);
}

static int open_loop(loop_t *loop)
{
    int64_t start = clock_realtime_ns();
    snprintf(loop->name, sizeof loop->name, "scheduler.%d.%llx", (int)getpid(), (unsigned long long)start);
    if (!(loop->zmq = zmq_ctx_new()))
        return error_set(LOOP_ERR_SYSTEM, "no ZeroMQ context: %s", zmq_strerror(zmq_errno()));
    if (endpoint_bind(loop->config, loop->zmq, &loop->router) < 0)
        return LOOP_ERR_SYSTEM;
    size_t bytes = sizeof loop->router_fd;
    if (zmq_getsockopt(loop->router, ZMQ_FD, &loop->router_fd, &bytes))
        return error_set(LOOP_ERR_SYSTEM, "ZMQ_FD: %s", zmq_strerror(zmq_errno()));
    if (shm_counters_create(loop->config->instance.name, "scheduler", &loop->counters) < 0 ||
        wire_buffer_open(1 << 16, &loop->encoded) < 0 ||
        dispatch_open(loop->config, (uint64_t)start, report, loop, &loop->dispatch) < 0)
        return LOOP_ERR_SYSTEM;
    return LOOP_OK;
}

static void close_loop(loop_t *loop)
{
    stop_watching(loop);
    if (loop->router)
        zmq_close(loop->router);
    if (loop->zmq)
        zmq_ctx_term(loop->zmq);
    dispatch_close(loop->dispatch);
    wire_buffer_close(loop->encoded);
    shm_segment_leave(loop->segment);
    if (loop->counters)
        shm_counters_leave(loop->counters);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

int loop_run(const config_t *config, int signals)
{
    loop_t *loop = calloc(1, sizeof *loop);
    if (!loop)
        return error_set(LOOP_ERR_SYSTEM, "out of memory");
    loop->config = config;
    loop->signals = signals;
    pthread_mutex_init(&loop->lock, NULL);
    int rc = open_loop(loop);
    if (rc == LOOP_OK && (rc = serve(loop)) == LOOP_OK)
        drain(loop);
    close_loop(loop);
    return rc;
}
