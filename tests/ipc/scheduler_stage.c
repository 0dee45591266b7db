#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/ipc/scheduler_stage.h"

#include "base/clock.h"
#include "base/error.h"
#include "config/config.h"
#include "shm/ring.h"
#include "shm/update_log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#define INTERVAL_NS (60 * CLOCK_NS_PER_S)

stage_t stage;

static void *zmq;
static void *sockets[64]; /* open ones, so that a failed test can end too */
static wire_buffer_t *encoded;

/* ---- the process ----------------------------------------------------------------------------------------------------------------- */

pid_t stage_spawn(const char *file)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl(BARCAST_BIN_DIR "/barcast-scheduler", "barcast-scheduler", "--config", file, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

int stage_wait_exit(pid_t pid)
{
    int status = 0;
    for (int waited = 0; waitpid(pid, &status, WNOHANG) == 0; waited += STAGE_STEP_MS) {
        if (waited >= STAGE_PATIENCE_MS)
            fail_msg("the scheduler does not end");
        usleep(STAGE_STEP_MS * 1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void stage_configure(const char *options)
{
    FILE *file = fopen(stage.config_file, "w");
    assert_non_null(file);
    fprintf(file,
            "[instance]\nname = %s\nruntime_dir = %s/run/dir\n[shm]\nsymbols_max = 256\nring_bars = 64\nlog_entries = 1024\n"
            "[scheduler]\n%s\n[feed.none]\ntype = ndjson\npath = -\n"
            "[model.naive]\npath = naive\nsymbols = S*\ncontext = 4\ncontext_min = %d\nhorizon = 2\n",
            stage.name, stage.directory, options, STAGE_HISTORY);
    assert_int_equal(fclose(file), 0);
}

int stage_open(void **state)
{
    (void)state;
    strcpy(stage.directory, "/tmp/barcast-test-XXXXXX");
    if (!mkdtemp(stage.directory))
        return -1;
    snprintf(stage.config_file, sizeof stage.config_file, "%s/test.ini", stage.directory);
    snprintf(stage.name, sizeof stage.name, "test-%s", strrchr(stage.directory, '-') + 1);
    memset(stage.bars, 0, sizeof stage.bars);
    stage.scheduler = 0;
    stage.segment = NULL;
    zmq = zmq_ctx_new();
    stage_configure("heartbeat = 10s");
    return zmq && wire_buffer_open(4096, &encoded) == WIRE_OK ? 0 : -1;
}

void stage_create_segment(void)
{
    shm_segment_options_t options = {.name = stage.name, .symbols_max = 256, .ring_bars = 64, .log_entries = 1024, .group_id = -1};
    bool rejoined;
    if (shm_segment_create(&options, &stage.segment, &rejoined) < 0)
        fail_msg("%s", error_text());
}

void stage_start_scheduler(void)
{
    stage.scheduler = stage_spawn(stage.config_file);
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

int stage_close(void **state)
{
    (void)state;
    if (stage.scheduler > 0) {
        kill(stage.scheduler, SIGKILL);
        waitpid(stage.scheduler, NULL, 0);
    }
    shm_segment_leave(stage.segment);
    shm_segment_delete(stage.name);
    shm_counters_delete(stage.name, "scheduler");
    wire_buffer_close(encoded);
    for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++)
        close_socket(sockets[i]);
    zmq_ctx_term(zmq);
    char path[128];
    const char *const left[] = {"/run/dir/scheduler", "/run/dir", "/run", "/test.ini", ""};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        snprintf(path, sizeof path, "%s%s", stage.directory, left[i]);
        remove(path);
    }
    return 0;
}

uint64_t stage_counter(shm_counter_t id)
{
    shm_counters_t *page;
    if (shm_counters_join(stage.name, "scheduler", &page) != SHM_OK)
        return 0;
    uint64_t value = shm_counter_get(page, id);
    shm_counters_leave(page);
    return value;
}

void stage_wait_counter(shm_counter_t id, uint64_t least)
{
    for (int waited = 0; stage_counter(id) < least; waited += STAGE_STEP_MS) {
        if (waited >= STAGE_PATIENCE_MS)
            fail_msg("counter %s stays at %llu, below %llu", shm_counter_label(id), (unsigned long long)stage_counter(id),
                     (unsigned long long)least);
        usleep(STAGE_STEP_MS * 1000);
    }
}

/* ---- bars ------------------------------------------------------------------------------------------------------------------------ */

void stage_close_bars(uint32_t symbol, uint64_t count)
{
    char text[SHM_SYMBOL_BYTES];
    uint32_t id;
    snprintf(text, sizeof text, "S%u", symbol);
    assert_int_equal(shm_symbol_add(stage.segment, text, INTERVAL_NS, &id), SHM_OK);
    for (uint64_t i = 0; i < count; i++) {
        shm_bar_t bar = {.open_time_ns = (int64_t)++stage.bars[symbol] * INTERVAL_NS, .open = 1, .high = 1, .low = 1, .close = 1};
        assert_int_equal(shm_ring_append(stage.segment, id, &bar), SHM_OK);
    }
    shm_log_wake(stage.segment);
}

void stage_close_history(uint32_t symbols)
{
    for (uint32_t symbol = 0; symbol < symbols; symbol++)
        stage_close_bars(symbol, STAGE_HISTORY);
}

void stage_begin(uint32_t symbols)
{
    stage_create_segment();
    stage_close_history(symbols);
    stage_start_scheduler();
}

/* ---- the workers ----------------------------------------------------------------------------------------------------------------- */

static void *connect_as(const char *identity)
{
    char endpoint[128];
    int linger = 0;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/run/dir/scheduler", stage.directory);
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

void stage_say_hello(stage_worker_t *worker)
{
    wire_hello_t hello = {.pid = worker->pid, .device = "test", .publish_endpoint = "ipc://nowhere"};
    strcpy(hello.worker, worker->id);
    send_encoded(worker->dealer, wire_hello_encode(encoded, &hello));
}

void stage_say_ready(stage_worker_t *worker)
{
    wire_ready_t ready = {
        .pid = worker->pid, .credits = 2, .session_count = 2, .sessions = {{"naive", 1, 50000}, {"naive", 64, 50000}}};
    strcpy(ready.worker, worker->id);
    send_encoded(worker->dealer, wire_ready_encode(encoded, &ready));
}

stage_worker_t stage_open_worker(const char *id, uint32_t pid)
{
    stage_worker_t worker = {.pid = pid};
    char beat[WIRE_NAME_BYTES + 8];
    strcpy(worker.id, id);
    snprintf(beat, sizeof beat, "%s#beat", id);
    worker.dealer = connect_as(id);
    worker.beat = connect_as(beat);
    stage_say_hello(&worker);
    stage_say_ready(&worker);
    return worker;
}

void stage_close_worker(stage_worker_t *worker)
{
    close_socket(worker->dealer);
    close_socket(worker->beat);
}

void stage_beat(stage_worker_t *worker)
{
    wire_heartbeat_t message = {.batch_id = worker->batch_id, .ready = 1, .interval_ns = 1};
    strcpy(message.sender, worker->id);
    if (!worker->silent)
        send_encoded(worker->beat, wire_heartbeat_encode(encoded, &message));
}

bool stage_take(stage_worker_t *worker, wire_assign_t *assign)
{
    zmq_pollitem_t wait = {.socket = worker->dealer, .events = ZMQ_POLLIN};
    if (zmq_poll(&wait, 1, STAGE_STEP_MS) <= 0)
        return false;
    zmq_msg_t message;
    zmq_msg_init(&message);
    assert_true(zmq_msg_recv(&message, worker->dealer, 0) >= 0);
    wire_type_t type;
    wire_heartbeat_t heartbeat;
    assert_int_equal(wire_peek(zmq_msg_data(&message), zmq_msg_size(&message), &type), WIRE_OK);
    switch (type) {
    case WIRE_ASSIGN:
        assign->items = stage.items;
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

wire_assign_t stage_expect_assign(stage_worker_t *worker)
{
    wire_assign_t assign;
    for (int waited = 0; waited < STAGE_PATIENCE_MS; waited += STAGE_STEP_MS) {
        if (stage_take(worker, &assign))
            return assign;
        stage_beat(worker);
    }
    fail_msg("worker %s gets no batch", worker->id);
    return assign;
}

void stage_say_done(stage_worker_t *worker, const wire_assign_t *assign)
{
    static uint8_t status[WIRE_ITEMS_MOST];
    wire_done_t done = {.batch_id = assign->batch_id, .count = assign->count, .status = status};
    strcpy(done.worker, worker->id);
    worker->batch_id = 0;
    send_encoded(worker->dealer, wire_done_encode(encoded, &done));
}

uint64_t stage_segment_epoch(void)
{
    shm_segment_info_t info;
    shm_segment_info(stage.segment, &info);
    return info.epoch;
}
