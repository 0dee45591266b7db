#include "harness.h"

#include "base/clock.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

/* ---- bars ------------------------------------------------------------------------------------------------------------------------ */

shm_bar_t harness_bar(uint32_t symbol, uint64_t index)
{
    double close = 100 * (symbol + 1) * (1 + 0.01 * sin(0.7 * (double)index + symbol));
    return (shm_bar_t){.open_time_ns = (int64_t)(index + 1) * HARNESS_INTERVAL_NS,
                       .open = close * 0.999,
                       .high = close * 1.002,
                       .low = close * 0.998,
                       .close = close,
                       .volume = (double)(1000 + index),
                       .amount = (double)NAN};
}

const char *harness_symbol(uint32_t symbol)
{
    static char text[16];
    snprintf(text, sizeof text, "SYM%02u", symbol);
    return text;
}

void harness_write_csv(const harness_t *harness, uint64_t bars)
{
    char path[128];
    snprintf(path, sizeof path, "%s/bars.csv", harness->directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "time,symbol,open,high,low,close,volume\n");
    for (uint64_t i = 0; i < bars; i++)
        for (uint32_t symbol = 0; symbol < harness->symbols; symbol++) {
            shm_bar_t bar = harness_bar(symbol, i);
            fprintf(file, "%lld,%s,%.17g,%.17g,%.17g,%.17g,%.17g\n", (long long)(bar.open_time_ns / CLOCK_NS_PER_S),
                    harness_symbol(symbol), bar.open, bar.high, bar.low, bar.close, bar.volume);
        }
    assert_int_equal(fclose(file), 0);
}

void harness_push(harness_t *harness, uint64_t from, uint64_t count, bool backwards)
{
    wire_bar_t bars[HARNESS_SYMBOLS_MOST];
    for (uint64_t i = from; i < from + count; i++) {
        for (uint32_t k = 0; k < harness->symbols; k++) {
            uint32_t symbol = backwards ? harness->symbols - 1 - k : k;
            bars[k] = (wire_bar_t){.interval_ns = HARNESS_INTERVAL_NS, .bar = harness_bar(symbol, i)};
            snprintf(bars[k].symbol, sizeof bars[k].symbol, "%s", harness_symbol(symbol));
        }
        assert_int_equal(wire_bars_encode(harness->encoded, bars, harness->symbols), WIRE_OK);
        if (zmq_send(harness->feed, wire_buffer_data(harness->encoded), wire_buffer_bytes(harness->encoded), 0) < 0)
            fail_msg("ingest takes no bars: %s", zmq_strerror(zmq_errno()));
    }
}

/* ---- processes ------------------------------------------------------------------------------------------------------------------- */

static pid_t spawn(const char *program, const char *const *arguments, const char *output)
{
    char path[512];
    char *argv[16] = {path};
    snprintf(path, sizeof path, "%s/%s", BARCAST_BIN_DIR, program);
    for (int i = 0; arguments[i]; i++)
        assert_non_null(argv[i + 1] = strdup(arguments[i]));
    pid_t pid = fork();
    if (pid == 0) {
        int file = output ? open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
        if (file >= 0)
            dup2(file, STDOUT_FILENO);
        execv(path, argv);
        _exit(127);
    }
    for (int i = 1; argv[i]; i++)
        free(argv[i]);
    assert_true(pid > 0);
    return pid;
}

static int exit_status(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int harness_execute(const char *program, const char *const *arguments)
{
    int status;
    pid_t pid = spawn(program, arguments, NULL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return exit_status(status);
}

void harness_start(harness_t *harness)
{
    harness->run = spawn("barcast", (const char *const[]){"run", harness->config_file, NULL}, harness->output_file);
}

int harness_wait_end(harness_t *harness)
{
    int status;
    int64_t until = clock_monotonic_ns() + HARNESS_PATIENCE_MS * CLOCK_NS_PER_MS;
    while (waitpid(harness->run, &status, WNOHANG) == 0) {
        if (clock_monotonic_ns() > until)
            fail_msg("barcast run does not end");
        harness_receive(harness);
    }
    harness->run = 0;
    harness_receive(harness);
    return exit_status(status);
}

int harness_stop(harness_t *harness)
{
    kill(harness->run, SIGTERM);
    return harness_wait_end(harness);
}

/* ---- waiting --------------------------------------------------------------------------------------------------------------------- */

void harness_wait_until(harness_t *harness, bool (*done)(harness_t *harness), const char *what)
{
    int64_t until = clock_monotonic_ns() + HARNESS_PATIENCE_MS * CLOCK_NS_PER_MS;
    while (!done(harness)) {
        if (clock_monotonic_ns() > until)
            fail_msg("%s: this did not happen", what);
        harness_receive(harness);
    }
}

void harness_snapshot(const harness_t *harness, snapshot_t *out)
{
    snapshot_take(harness->name, harness->config->worker.count, out);
}

bool harness_all_ready(harness_t *harness)
{
    snapshot_t *now = malloc(sizeof *now);
    assert_non_null(now);
    harness_snapshot(harness, now);
    bool ready = now->segment && now->info.writer_alive && now->scheduler.alive &&
                 now->scheduler.counter[SHM_COUNTER_WORKERS_ALIVE] == now->worker_count;
    for (uint32_t i = 0; i < now->worker_count; i++)
        ready = ready && now->worker[i].alive && now->worker[i].counter[SHM_COUNTER_READY];
    free(now);
    return ready;
}

bool harness_all_gone(harness_t *harness)
{
    snapshot_t *now = malloc(sizeof *now);
    assert_non_null(now);
    harness_snapshot(harness, now);
    bool alive = (now->segment && now->info.writer_alive) || now->scheduler.alive;
    for (uint32_t i = 0; i < now->worker_count; i++)
        alive = alive || now->worker[i].alive;
    free(now);
    return !alive;
}

/* ---- forecasts ------------------------------------------------------------------------------------------------------------------- */

static void keep(harness_t *harness, const wire_forecast_t *forecast)
{
    uint32_t symbol = (uint32_t)atoi(forecast->symbol + strlen("SYM"));
    assert_in_range(symbol, 0, harness->symbols - 1);
    uint64_t sent = (uint64_t)(forecast->cutoff_ns / HARNESS_INTERVAL_NS) - 1; /* the bar's index unless some were lost */
    assert_true(forecast->last == harness_bar(symbol, sent).close);
    harness->received++;
    if (harness->newest[symbol].horizon && forecast->bar_index < harness->newest[symbol].bar_index)
        return;
    size_t horizon = forecast->horizon, quantiles = forecast->quantile_count * horizon;
    free(harness->newest_values[symbol]);
    float *values = malloc((horizon + quantiles) * sizeof *values);
    assert_non_null(values);
    memcpy(values, forecast->fields[0].mean, horizon * sizeof *values);
    if (quantiles)
        memcpy(values + horizon, forecast->fields[0].quantiles, quantiles * sizeof *values);
    harness->newest_values[symbol] = values;
    harness->newest[symbol] = *forecast;
}

bool harness_receive(harness_t *harness)
{
    wire_forecast_t forecast;
    bool any = false;
    for (int rc; (rc = subscriber_next(harness->subscriber, any ? 0 : 20, &forecast)) != SUBSCRIBER_NONE; any = true) {
        if (rc < 0)
            fail_msg("a forecast cannot be decoded: %s", error_text());
        keep(harness, &forecast);
    }
    return any;
}

bool harness_all_forecast(harness_t *harness, uint64_t index)
{
    for (uint32_t symbol = 0; symbol < harness->symbols; symbol++)
        if (!harness->newest[symbol].horizon || harness->newest[symbol].bar_index != index)
            return false;
    return true;
}

void harness_wait_forecasts(harness_t *harness, uint64_t index)
{
    int64_t until = clock_monotonic_ns() + HARNESS_PATIENCE_MS * CLOCK_NS_PER_MS;
    while (!harness_all_forecast(harness, index)) {
        if (clock_monotonic_ns() > until)
            fail_msg("not every symbol's bar %llu was forecast", (unsigned long long)index);
        harness_receive(harness);
    }
}

/* ---- opening and closing --------------------------------------------------------------------------------------------------------- */

static void write_config(harness_t *harness, const char *sections)
{
    FILE *file = fopen(harness->config_file, "w");
    assert_non_null(file);
    fprintf(file, "[instance]\nname = %s\nruntime_dir = %s/run\n", harness->name, harness->directory);
    for (const char *at = sections; *at;) {
        size_t plain = strcspn(at, "$");
        fprintf(file, "%.*s", (int)plain, at);
        at += plain;
        if (strncmp(at, "$DIR", 4) == 0) {
            fputs(harness->directory, file);
            at += 4;
        }
    }
    assert_int_equal(fclose(file), 0);
    if (config_load(harness->config_file, &harness->config) < 0)
        fail_msg("%s", error_text());
}

void harness_open(harness_t *harness, uint32_t symbols, const char *sections)
{
    static int number;
    memset(harness, 0, sizeof *harness);
    harness->symbols = symbols;
    strcpy(harness->directory, "/tmp/barcast-test-XXXXXX");
    assert_non_null(mkdtemp(harness->directory));
    snprintf(harness->name, sizeof harness->name, "test-%d-%d", (int)getpid(), number++);
    snprintf(harness->config_file, sizeof harness->config_file, "%s/test.ini", harness->directory);
    snprintf(harness->output_file, sizeof harness->output_file, "%s/output", harness->directory);
    write_config(harness, sections);
    assert_int_equal(subscriber_open(&harness->subscriber), SUBSCRIBER_OK);
    assert_int_equal(subscriber_subscribe(harness->subscriber, "", 0), SUBSCRIBER_OK);
    assert_int_equal(subscriber_connect_all(harness->subscriber, harness->config), SUBSCRIBER_OK);
    assert_int_equal(wire_buffer_open(4096, &harness->encoded), WIRE_OK);

    char endpoint[96];
    const int linger = 0, timeout = HARNESS_PATIENCE_MS, reconnect = 20;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/feed", harness->directory);
    harness->zmq = zmq_ctx_new();
    harness->feed = zmq_socket(harness->zmq, ZMQ_PUSH);
    zmq_setsockopt(harness->feed, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(harness->feed, ZMQ_SNDTIMEO, &timeout, sizeof timeout);
    zmq_setsockopt(harness->feed, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect);
    assert_int_equal(zmq_connect(harness->feed, endpoint), 0);
}

/* This instance's objects in shared memory: removed and counted. */
static int remove_objects(const harness_t *harness)
{
    char prefix[96];
    int bytes = snprintf(prefix, sizeof prefix, SHM_OBJECT_PREFIX "%s", harness->name), count = 0;
    DIR *list = opendir("/dev/shm");
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));)
        if (strncmp(entry->d_name, prefix, (size_t)bytes) == 0 && (!entry->d_name[bytes] || entry->d_name[bytes] == '.')) {
            unlinkat(dirfd(list), entry->d_name, 0);
            count++;
        }
    closedir(list);
    return count;
}

/* Processes whose command line names this instance's config file. */
static int count_processes(const harness_t *harness)
{
    int count = 0;
    DIR *list = opendir("/proc");
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        char path[300], line[1024] = "";
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        int file = atoi(entry->d_name) > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file < 0)
            continue;
        ssize_t bytes = read(file, line, sizeof line - 1);
        close(file);
        for (ssize_t i = 0; i < bytes; i++)
            if (line[i] == '\0')
                line[i] = ' ';
        count += strstr(line, harness->config_file) != NULL;
    }
    closedir(list);
    return count;
}

static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about, (void)kind, (void)where;
    return remove(path);
}

void harness_close(harness_t *harness)
{
    bool ended = harness->run == 0;
    if (!ended) { /* the test has failed before: its children go with it */
        kill(harness->run, SIGKILL);
        waitpid(harness->run, NULL, 0);
    }
    char run_directory[80];
    snprintf(run_directory, sizeof run_directory, "%s/run", harness->directory);
    int processes = count_processes(harness), objects = remove_objects(harness);
    bool runtime_left = access(run_directory, F_OK) == 0;

    subscriber_close(harness->subscriber);
    zmq_close(harness->feed);
    zmq_ctx_term(harness->zmq);
    wire_buffer_close(harness->encoded);
    for (uint32_t i = 0; i < harness->symbols; i++)
        free(harness->newest_values[i]);
    nftw(harness->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    config_free(harness->config);
    if (ended) {
        assert_int_equal(objects, 0);
        assert_int_equal(processes, 0);
        assert_false(runtime_left);
    }
}
