/* The real barcast-scheduler between a segment that the test writes and workers that the test plays. All waits are generous; nothing is timed,
 * though the latency of the last test is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "config/config.h"
#include "shm/counters.h"
#include "shm/ring.h"
#include "shm/update_log.h"
#include "wire/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

enum { PATIENCE_MS = 20000, STEP_MS = 5, HISTORY = 4 };
#define INTERVAL_NS (60 * CLOCK_NS_PER_S)

typedef struct {
    char id[WIRE_NAME_BYTES];
    uint32_t pid;
    void *dealer, *beat;
    uint64_t batch_id; /* what its heartbeat says */
    bool silent;
    char scheduler[WIRE_NAME_BYTES]; /* the sender of the last heartbeat */
    bool drained;
} worker_t;

static char directory[64], config_file[96], name[SHM_NAME_BYTES];
static pid_t scheduler;
static shm_segment_t *segment;
static uint64_t bars[256];
static void *zmq;
static void *sockets[64]; /* open ones, so that a failed test can end too */
static wire_buffer_t *encoded;
static wire_item_t items[WIRE_ITEMS_MOST];

/* ---- the process ----------------------------------------------------------------------------------------------------------------- */

static pid_t spawn(const char *file)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl(BARCAST_BIN_DIR "/barcast-scheduler", "barcast-scheduler", "--config", file, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static int wait_exit(pid_t pid)
{
    int status = 0;
    for (int waited = 0; waitpid(pid, &status, WNOHANG) == 0; waited += STEP_MS) {
        if (waited >= PATIENCE_MS)
            fail_msg("the scheduler does not end");
        usleep(STEP_MS * 1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Writes the config; `options` are lines of [scheduler]. */
static void configure(const char *options)
{
    FILE *file = fopen(config_file, "w");
    assert_non_null(file);
    fprintf(file,
            "[instance]\nname = %s\nruntime_dir = %s/run/dir\n[shm]\nsymbols_max = 256\nring_bars = 64\nlog_entries = 1024\n"
            "[scheduler]\n%s\n[feed.none]\ntype = ndjson\npath = -\n"
            "[model.naive]\npath = naive\nsymbols = S*\ncontext = 4\ncontext_min = %d\nhorizon = 2\n",
            name, directory, options, HISTORY);
    assert_int_equal(fclose(file), 0);
}

static int open_instance(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/barcast-test-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(config_file, sizeof config_file, "%s/test.ini", directory);
    snprintf(name, sizeof name, "test-%s", strrchr(directory, '-') + 1);
    memset(bars, 0, sizeof bars);
    scheduler = 0;
    segment = NULL;
    zmq = zmq_ctx_new();
    configure("heartbeat = 10s");
    return zmq && wire_buffer_open(4096, &encoded) == WIRE_OK ? 0 : -1;
}

static void create_segment(void)
{
    shm_segment_options_t options = {.name = name, .symbols_max = 256, .ring_bars = 64, .log_entries = 1024, .group_id = -1};
    bool rejoined;
    if (shm_segment_create(&options, &segment, &rejoined) < 0)
        fail_msg("%s", error_text());
}

static void start_scheduler(void)
{
    scheduler = spawn(config_file);
}

static void close_socket(void *socket)
{
    for (size_t i = 0; socket && i < sizeof sockets / sizeof *sockets; i++) {
        if (sockets[i] == socket) {
            sockets[i] = NULL;
            zmq_close(socket);
            return;
        }
    }
}

static int close_instance(void **state)
{
    (void)state;
    if (scheduler > 0) {
        kill(scheduler, SIGKILL);
        waitpid(scheduler, NULL, 0);
    }
    shm_segment_leave(segment);
    shm_segment_delete(name);
    shm_counters_delete(name, "scheduler");
    wire_buffer_close(encoded);
    for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++)
        close_socket(sockets[i]);
    zmq_ctx_term(zmq);
    char path[128];
    const char *const left[] = {"/run/dir/scheduler", "/run/dir", "/run", "/test.ini", ""};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        snprintf(path, sizeof path, "%s%s", directory, left[i]);
        remove(path);
    }
    return 0;
}

static uint64_t counter(shm_counter_t id)
{
    shm_counters_t *page;
    if (shm_counters_join(name, "scheduler", &page) != SHM_OK)
        return 0;
    uint64_t value = shm_counter_get(page, id);
    shm_counters_leave(page);
    return value;
}

static void wait_counter(shm_counter_t id, uint64_t least)
{
    for (int waited = 0; counter(id) < least; waited += STEP_MS) {
        if (waited >= PATIENCE_MS)
            fail_msg("counter %s stays at %llu, below %llu", shm_counter_label(id), (unsigned long long)counter(id),
                     (unsigned long long)least);
        usleep(STEP_MS * 1000);
    }
}

/* ---- bars ------------------------------------------------------------------------------------------------------------------------ */

/* Closes the next `count` bars of symbol number `symbol`, which exists from its first bar on. */
static void close_bars(uint32_t symbol, uint64_t count)
{
    char text[SHM_SYMBOL_BYTES];
    uint32_t id;
    snprintf(text, sizeof text, "S%u", symbol);
    assert_int_equal(shm_symbol_add(segment, text, INTERVAL_NS, &id), SHM_OK);
    for (uint64_t i = 0; i < count; i++) {
        shm_bar_t bar = {.open_time_ns = (int64_t)++bars[symbol] * INTERVAL_NS, .open = 1, .high = 1, .low = 1, .close = 1};
        assert_int_equal(shm_ring_append(segment, id, &bar), SHM_OK);
    }
    shm_log_wake(segment);
}

static void close_history(uint32_t symbols)
{
    for (uint32_t symbol = 0; symbol < symbols; symbol++)
        close_bars(symbol, HISTORY);
}

/* ---- the workers ----------------------------------------------------------------------------------------------------------------- */

static void *connect_as(const char *identity)
{
    char endpoint[128];
    int linger = 0;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/run/dir/scheduler", directory);
    void *dealer = zmq_socket(zmq, ZMQ_DEALER);
    assert_non_null(dealer);
    size_t place = 0;
    while (sockets[place])
        assert_true(++place < sizeof sockets / sizeof *sockets);
    sockets[place] = dealer;
    assert_int_equal(zmq_setsockopt(dealer, ZMQ_ROUTING_ID, identity, strlen(identity)), 0);
    assert_int_equal(zmq_setsockopt(dealer, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_connect(dealer, endpoint), 0);
    return dealer;
}

static void send_encoded(void *socket, int rc)
{
    if (rc < 0)
        fail_msg("%s", error_text());
    assert_true(zmq_send(socket, wire_buffer_data(encoded), wire_buffer_bytes(encoded), 0) >= 0);
}

static void say_hello(worker_t *worker)
{
    wire_hello_t hello = {.pid = worker->pid, .device = "test", .publish_endpoint = "ipc://nowhere"};
    strcpy(hello.worker, worker->id);
    send_encoded(worker->dealer, wire_hello_encode(encoded, &hello));
}

static void say_ready(worker_t *worker)
{
    wire_ready_t ready = {
        .pid = worker->pid, .credits = 2, .session_count = 2, .sessions = {{"naive", 1, 50000}, {"naive", 64, 50000}}};
    strcpy(ready.worker, worker->id);
    send_encoded(worker->dealer, wire_ready_encode(encoded, &ready));
}

static worker_t open_worker(const char *id, uint32_t pid)
{
    worker_t worker = {.pid = pid};
    char beat[WIRE_NAME_BYTES + 8];
    strcpy(worker.id, id);
    snprintf(beat, sizeof beat, "%s#beat", id);
    worker.dealer = connect_as(id);
    worker.beat = connect_as(beat);
    say_hello(&worker);
    say_ready(&worker);
    return worker;
}

static void close_worker(worker_t *worker)
{
    close_socket(worker->dealer);
    close_socket(worker->beat);
}

static void beat(worker_t *worker)
{
    wire_heartbeat_t message = {.batch_id = worker->batch_id, .ready = 1, .interval_ns = 1};
    strcpy(message.sender, worker->id);
    if (!worker->silent)
        send_encoded(worker->beat, wire_heartbeat_encode(encoded, &message));
}

/* Takes one message if there is one within a step; true when it is an ASSIGN, then in *assign. */
static bool take(worker_t *worker, wire_assign_t *assign)
{
    zmq_pollitem_t wait = {.socket = worker->dealer, .events = ZMQ_POLLIN};
    if (zmq_poll(&wait, 1, STEP_MS) <= 0)
        return false;
    zmq_msg_t message;
    zmq_msg_init(&message);
    assert_true(zmq_msg_recv(&message, worker->dealer, 0) >= 0);
    wire_type_t type;
    wire_heartbeat_t heartbeat;
    assert_int_equal(wire_peek(zmq_msg_data(&message), zmq_msg_size(&message), &type), WIRE_OK);
    switch (type) {
    case WIRE_ASSIGN:
        assign->items = items;
        assert_int_equal(wire_assign_decode(zmq_msg_data(&message), zmq_msg_size(&message), assign), WIRE_OK);
        worker->batch_id = assign->batch_id;
        break;
    case WIRE_HEARTBEAT:
        assert_int_equal(wire_heartbeat_decode(zmq_msg_data(&message), zmq_msg_size(&message), &heartbeat), WIRE_OK);
        strcpy(worker->scheduler, heartbeat.sender);
        break;
    case WIRE_DRAIN:
        worker->drained = true;
        break;
    default:
        fail_msg("a worker gets no %s", wire_type_name(type));
    }
    zmq_msg_close(&message);
    return type == WIRE_ASSIGN;
}

/* The next ASSIGN; `others` keep beating meanwhile. */
static wire_assign_t expect_assign(worker_t *worker)
{
    wire_assign_t assign;
    for (int waited = 0; waited < PATIENCE_MS; waited += STEP_MS) {
        if (take(worker, &assign))
            return assign;
        beat(worker);
    }
    fail_msg("worker %s gets no batch", worker->id);
    return assign;
}

static void say_done(worker_t *worker, const wire_assign_t *assign)
{
    static uint8_t status[WIRE_ITEMS_MOST];
    wire_done_t done = {.batch_id = assign->batch_id, .count = assign->count, .status = status};
    strcpy(done.worker, worker->id);
    worker->batch_id = 0;
    send_encoded(worker->dealer, wire_done_encode(encoded, &done));
}

static uint64_t segment_epoch(void)
{
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    return info.epoch;
}

/* ---- tests ----------------------------------------------------------------------------------------------------------------------- */

static void every_symbol_with_history_is_forecast_once_at_the_start_and_then_at_each_closed_bar(void **state)
{
    (void)state;
    create_segment();
    close_history(3);
    close_bars(3, HISTORY - 1); /* too few yet */
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    assert_string_equal(assign.model, "naive");
    assert_int_equal(assign.epoch, segment_epoch());
    assert_int_equal(assign.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(items[i].symbol_id, i);
        assert_int_equal(items[i].end, HISTORY);
    }
    say_done(&worker, &assign);

    close_bars(3, 1);
    assign = expect_assign(&worker);
    assert_int_equal(assign.count, 1);
    assert_int_equal(items[0].symbol_id, 3);
    assert_int_equal(items[0].end, HISTORY);
    assert_true(items[0].stored_ns > 0 && items[0].stored_ns <= assign.sent_ns);
    say_done(&worker, &assign);

    close_bars(70, HISTORY); /* a symbol that nobody had heard of */
    assign = expect_assign(&worker);
    assert_int_equal(assign.count, 1);
    assert_int_equal(items[0].symbol_id, 4);
    say_done(&worker, &assign);
    wait_counter(SHM_COUNTER_SERIES_DONE, 5);
    wait_counter(SHM_COUNTER_IDLE, 1);
    assert_int_equal(counter(SHM_COUNTER_SERIES_SENT), 5);
    assert_int_equal(counter(SHM_COUNTER_WORKERS_ALIVE), 1);
    assert_int_equal(counter(SHM_COUNTER_MESSAGES_REJECTED), 0);
    close_worker(&worker);
}

static void the_segment_may_come_later_than_scheduler_and_workers(void **state)
{
    (void)state;
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wait_counter(SHM_COUNTER_WORKERS_ALIVE, 1);
    create_segment();
    close_history(2);
    wire_assign_t assign = expect_assign(&worker);
    say_done(&worker, &assign);
    close_worker(&worker);
}

static void the_runtime_directory_is_made_for_this_user_only(void **state)
{
    (void)state;
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wait_counter(SHM_COUNTER_WORKERS_ALIVE, 1);
    struct stat about;
    char path[96];
    snprintf(path, sizeof path, "%s/run/dir", directory);
    assert_int_equal(stat(path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    close_worker(&worker);
}

static void a_runtime_directory_that_others_can_write_is_refused(void **state)
{
    (void)state;
    char path[96];
    snprintf(path, sizeof path, "%s/run", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/run/dir", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0777), 0);
    assert_int_equal(wait_exit(spawn(config_file)), 1);
}

static void a_silent_workers_batch_goes_to_another_worker(void **state)
{
    (void)state;
    configure("heartbeat = 50ms\nheartbeat_liveness = 4");
    create_segment();
    close_history(5);
    start_scheduler();
    worker_t dying = open_worker("dying", 1);
    wire_assign_t lost = expect_assign(&dying);
    assert_int_equal(lost.count, 5);
    dying.silent = true;
    worker_t heir = open_worker("heir", 2);
    wire_assign_t assign = expect_assign(&heir);
    assert_int_equal(assign.count, 5);
    assert_int_not_equal(assign.batch_id, lost.batch_id);
    say_done(&heir, &assign);
    wait_counter(SHM_COUNTER_SERIES_DONE, 5);
    assert_int_equal(counter(SHM_COUNTER_WORKERS_LOST), 1);
    assert_int_equal(counter(SHM_COUNTER_BATCHES_REDISPATCHED), 1);
    close_worker(&dying);
    close_worker(&heir);
}

static void a_restarted_worker_gets_its_batch_again_at_once(void **state)
{
    (void)state;
    create_segment();
    close_history(4);
    start_scheduler();
    worker_t first = open_worker("worker.0", 1);
    wire_assign_t lost = expect_assign(&first);
    worker_t second = open_worker("worker.0", 2); /* takes the name over while the old connection is still there */
    wire_assign_t assign = expect_assign(&second);
    assert_int_equal(assign.count, 4);
    say_done(&second, &lost); /* unknown by now: ignored */
    say_done(&second, &assign);
    wait_counter(SHM_COUNTER_SERIES_DONE, 4);
    wait_counter(SHM_COUNTER_MESSAGES_REJECTED, 1);
    assert_int_equal(counter(SHM_COUNTER_SERIES_DONE), 4);
    close_worker(&first);
    close_worker(&second);
}

static void a_batch_that_misses_its_deadline_goes_to_another_worker(void **state)
{
    (void)state;
    configure("heartbeat = 10s\ndeadline = 300ms");
    create_segment();
    close_history(4);
    start_scheduler();
    worker_t stuck = open_worker("stuck", 1);
    wire_assign_t missed = expect_assign(&stuck);
    worker_t other = open_worker("other", 2);
    wire_assign_t assign = expect_assign(&other);
    assert_int_equal(assign.count, missed.count);
    say_done(&other, &assign);
    say_done(&stuck, &missed); /* late: ignored */
    wait_counter(SHM_COUNTER_MESSAGES_REJECTED, 1);
    assert_int_equal(counter(SHM_COUNTER_SERIES_DONE), 4);
    assert_int_equal(counter(SHM_COUNTER_DEADLINES_MISSED), 1);
    close_worker(&stuck);
    close_worker(&other);
}

static void a_symbol_that_kills_workers_is_quarantined_alone(void **state)
{
    (void)state;
    create_segment();
    close_history(6);
    start_scheduler();
    uint32_t pid = 1;
    worker_t worker = open_worker("worker.0", pid);
    while (counter(SHM_COUNTER_SYMBOLS_QUARANTINED) == 0 || counter(SHM_COUNTER_SERIES_DONE) < 5) {
        wire_assign_t assign;
        if (!take(&worker, &assign))
            continue;
        bool poisoned = false;
        for (uint32_t i = 0; i < assign.count; i++)
            poisoned = poisoned || items[i].symbol_id == 2;
        if (poisoned) {
            assert_true(pid < 10);
            close_worker(&worker);
            worker = open_worker("worker.0", ++pid);
        } else {
            say_done(&worker, &assign);
        }
    }
    assert_int_equal(counter(SHM_COUNTER_SERIES_DONE), 5);
    assert_int_equal(pid, 4); /* it killed three: twice in company, once alone */
    wait_counter(SHM_COUNTER_IDLE, 1);
    close_worker(&worker);
}

static void a_restarted_scheduler_is_told_again_who_is_there(void **state)
{
    (void)state;
    configure("heartbeat = 50ms\nheartbeat_liveness = 100");
    create_segment();
    close_history(2);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    while (!*worker.scheduler)
        take(&worker, &assign);
    char before[WIRE_NAME_BYTES];
    strcpy(before, worker.scheduler);

    kill(scheduler, SIGKILL);
    waitpid(scheduler, NULL, 0);
    start_scheduler(); /* over the socket that the dead one left */
    for (int waited = 0; strcmp(worker.scheduler, before) == 0; waited += STEP_MS) {
        assert_true(waited < PATIENCE_MS);
        beat(&worker);
        take(&worker, &assign);
    }
    say_hello(&worker);
    say_ready(&worker);
    assign = expect_assign(&worker);
    assert_int_equal(assign.count, 2);
    say_done(&worker, &assign);
    wait_counter(SHM_COUNTER_SERIES_DONE, 2);
    close_worker(&worker);
}

static void a_restarted_ingest_goes_on_in_the_same_segment(void **state)
{
    (void)state;
    configure("heartbeat = 50ms\nheartbeat_liveness = 100");
    create_segment();
    close_history(1);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    say_done(&worker, &assign);
    shm_segment_leave(segment);
    usleep(200000);
    create_segment();
    close_bars(0, 1);
    assign = expect_assign(&worker);
    assert_int_equal(items[0].end, HISTORY + 1);
    close_worker(&worker);
}

static void a_new_segment_is_joined_and_starts_afresh(void **state)
{
    (void)state;
    configure("heartbeat = 50ms\nheartbeat_liveness = 100");
    create_segment();
    close_history(1);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    say_done(&worker, &assign);
    uint64_t old_epoch = segment_epoch();
    shm_segment_leave(segment);
    assert_int_equal(shm_segment_delete(name), SHM_OK);
    memset(bars, 0, sizeof bars);
    create_segment();
    assert_int_not_equal(segment_epoch(), old_epoch);
    close_history(2);
    for (uint32_t seen = 0; seen < 2; seen += assign.count) {
        assign = expect_assign(&worker);
        assert_int_equal(assign.epoch, segment_epoch());
        say_done(&worker, &assign);
    }
    close_worker(&worker);
}

static void an_outrun_scheduler_forecasts_the_newest_bars(void **state)
{
    (void)state;
    create_segment();
    close_history(1);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    say_done(&worker, &assign);
    wait_counter(SHM_COUNTER_IDLE, 1);
    kill(scheduler, SIGSTOP);
    for (uint32_t symbol = 0; symbol < 3; symbol++)
        close_bars(symbol, 2000); /* the log holds 1024 */
    kill(scheduler, SIGCONT);
    uint64_t newest[3] = {0};
    while (newest[0] < HISTORY + 2000 || newest[1] < 2000 || newest[2] < 2000) {
        assign = expect_assign(&worker);
        for (uint32_t i = 0; i < assign.count; i++)
            newest[items[i].symbol_id] = items[i].end;
        say_done(&worker, &assign);
    }
    wait_counter(SHM_COUNTER_LOG_OVERRUNS, 1);
    close_worker(&worker);
}

static void messages_that_are_none_are_rejected_and_change_nothing(void **state)
{
    (void)state;
    create_segment();
    close_history(1);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    srandom(3);
    char noise[600];
    enum { NOISES = 200 };
    for (int i = 0; i < NOISES; i++) {
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (char)random();
        assert_true(zmq_send(worker.dealer, noise, (size_t)random() % sizeof noise, 0) >= 0);
    }
    worker_t impostor = {.pid = 9, .dealer = worker.dealer, .id = "worker.1"};
    say_hello(&impostor);
    assert_true(zmq_send(worker.dealer, "three", 5, ZMQ_SNDMORE) >= 0);
    assert_true(zmq_send(worker.dealer, "frames", 6, 0) >= 0);
    wait_counter(SHM_COUNTER_MESSAGES_REJECTED, NOISES + 2);
    say_done(&worker, &assign);
    wait_counter(SHM_COUNTER_SERIES_DONE, 1);
    assert_int_equal(counter(SHM_COUNTER_WORKERS_ALIVE), 1);
    close_worker(&worker);
}

static void a_second_scheduler_is_refused(void **state)
{
    (void)state;
    create_segment();
    close_history(1);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    assert_int_equal(wait_exit(spawn(config_file)), 1);
    say_done(&worker, &assign);
    close_bars(0, 1);
    expect_assign(&worker); /* the first one is as well as before */
    close_worker(&worker);
}

static void sigterm_waits_for_what_is_in_flight_and_drains_the_workers(void **state)
{
    (void)state;
    create_segment();
    close_history(100);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    kill(scheduler, SIGTERM);
    uint32_t seen = assign.count;
    for (; seen < 100; seen += assign.count) { /* what was due still goes out */
        say_done(&worker, &assign);
        assign = expect_assign(&worker);
    }
    int status;
    assert_int_equal(waitpid(scheduler, &status, WNOHANG), 0);
    assert_false(worker.drained);
    say_done(&worker, &assign);
    for (int waited = 0; !worker.drained; waited += STEP_MS) {
        assert_true(waited < PATIENCE_MS);
        assert_false(take(&worker, &assign));
    }
    assert_int_equal(wait_exit(scheduler), 0);
    scheduler = 0;
    close_worker(&worker);
}

static void sigterm_ends_at_the_deadline_when_a_worker_does_not_answer(void **state)
{
    (void)state;
    configure("heartbeat = 10s\ndeadline = 200ms");
    create_segment();
    close_history(1);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    expect_assign(&worker);
    kill(scheduler, SIGTERM);
    assert_int_equal(wait_exit(scheduler), 0);
    scheduler = 0;
    close_worker(&worker);
}

static void wrong_usage_and_wrong_config_are_told(void **state)
{
    (void)state;
    assert_int_equal(wait_exit(spawn("no-such-file.ini")), 1);
    configure("heartbeat = never");
    assert_int_equal(wait_exit(spawn(config_file)), 1);
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
    create_segment();
    close_history(1);
    start_scheduler();
    worker_t worker = open_worker("worker.0", 1);
    wire_assign_t assign = expect_assign(&worker);
    for (uint64_t i = 0; i < BARS; i++) {
        say_done(&worker, &assign);
        usleep(500);
        close_bars(0, 1);
        assign = expect_assign(&worker);
        to_received_ns[i] = clock_monotonic_ns() - items[0].stored_ns;
        to_sent_ns[i] = assign.sent_ns - items[0].stored_ns;
        assert_int_equal(assign.count, 1);
        assert_int_equal(items[0].end, HISTORY + i + 1);
    }
    print_latency("bar stored -> ASSIGN sent", to_sent_ns, BARS);
    print_latency("bar stored -> ASSIGN received", to_received_ns, BARS);
    close_worker(&worker);
}

#define instance_test(test) cmocka_unit_test_setup_teardown(test, open_instance, close_instance)

int main(void)
{
    const struct CMUnitTest tests[] = {
        instance_test(every_symbol_with_history_is_forecast_once_at_the_start_and_then_at_each_closed_bar),
        instance_test(the_segment_may_come_later_than_scheduler_and_workers),
        instance_test(the_runtime_directory_is_made_for_this_user_only),
        instance_test(a_runtime_directory_that_others_can_write_is_refused),
        instance_test(a_silent_workers_batch_goes_to_another_worker),
        instance_test(a_restarted_worker_gets_its_batch_again_at_once),
        instance_test(a_batch_that_misses_its_deadline_goes_to_another_worker),
        instance_test(a_symbol_that_kills_workers_is_quarantined_alone),
        instance_test(a_restarted_scheduler_is_told_again_who_is_there),
        instance_test(a_restarted_ingest_goes_on_in_the_same_segment),
        instance_test(a_new_segment_is_joined_and_starts_afresh),
        instance_test(an_outrun_scheduler_forecasts_the_newest_bars),
        instance_test(messages_that_are_none_are_rejected_and_change_nothing),
        instance_test(a_second_scheduler_is_refused),
        instance_test(sigterm_waits_for_what_is_in_flight_and_drains_the_workers),
        instance_test(sigterm_ends_at_the_deadline_when_a_worker_does_not_answer),
        instance_test(wrong_usage_and_wrong_config_are_told),
        instance_test(each_of_many_bars_is_assigned_in_order),
    };
    return cmocka_run_group_tests_name("ipc/scheduler", tests, NULL, NULL);
}
