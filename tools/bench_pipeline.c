/* barcast bench pipeline: what the pipeline itself costs, from a bar being stored to its forecast being received, through the real processes with
 * the naive model. Every forecast is checked before a figure is printed. */
#include "tools/bench.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "tools/options.h"
#include "tools/snapshot.h"
#include "tools/subscriber.h"
#include "tools/supervisor.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { CONTEXT = 64, HORIZON = 8, PATIENCE_S = 60 };
static const int64_t interval_ns = 60 * CLOCK_NS_PER_S;

typedef enum { STAGE_QUEUE, STAGE_COMPUTE, STAGE_PUBLISH, STAGE_RECEIVE, STAGE_TOTAL, STAGE_COUNT } stage_t;
static const char *const stage_names[STAGE_COUNT] = {
    [STAGE_QUEUE] = "queue",     /* stored -> the worker has it */
    [STAGE_COMPUTE] = "compute", /* -> computed, with the rest of its batch */
    [STAGE_PUBLISH] = "publish", /* -> handed to the socket */
    [STAGE_RECEIVE] = "receive", /* -> in this process, decoded */
    [STAGE_TOTAL] = "total",
};

typedef struct {
    uint32_t symbols;
    double rate, seconds;
    bool burst, json;

    char directory[64], config_file[96], name[SHM_NAME_BYTES];
    config_t *config;
    supervisor_t *supervisor;
    int run; /* `barcast run` */
    void *zmq, *feed;
    wire_buffer_t *encoded;
    wire_bar_t *bars; /* [symbols] */

    subscriber_t *subscriber; /* the receiver's */
    pthread_t receiver;
    atomic_bool stop;
    uint64_t measured_from; /* bars below belong to the warm-up */
    atomic_uint_fast64_t received;
    uint64_t wrong;
    char wrong_text[256];
    size_t sample_capacity;
    int64_t *samples[STAGE_COUNT];
} bench_t;

/* ---- bars, and what a right forecast of them is --------------------------------------------------------------------------------- */

static double close_of(uint32_t symbol, uint64_t index)
{
    return (10 + symbol) * (1 + 0.01 * sin(0.37 * (double)index + symbol));
}

static void fill_bar(wire_bar_t *out, uint32_t symbol, uint64_t index)
{
    double close = close_of(symbol, index);
    *out = (wire_bar_t){.interval_ns = interval_ns,
                        .bar = {.open_time_ns = (int64_t)(index + 1) * interval_ns,
                                .open = close,
                                .high = close,
                                .low = close,
                                .close = close,
                                .volume = 1,
                                .amount = close}};
    snprintf(out->symbol, sizeof out->symbol, "B%05u", symbol);
}

static bool is_right(const wire_forecast_t *forecast, uint32_t symbol, uint64_t index)
{
    double last = close_of(symbol, index);
    bool right = forecast->last == last && forecast->horizon == HORIZON;
    for (uint32_t step = 0; right && step < HORIZON; step++)
        right = forecast->fields[0].mean[step] == (float)last;
    return right;
}

static int send_bars(bench_t *bench, uint32_t first, uint32_t count, uint64_t index)
{
    for (uint32_t i = 0; i < count; i++)
        fill_bar(&bench->bars[i], first + i, index);
    if (wire_bars_encode(bench->encoded, bench->bars, count) < 0)
        return -1;
    if (zmq_send(bench->feed, wire_buffer_data(bench->encoded), wire_buffer_bytes(bench->encoded), 0) < 0)
        return error_set(-1, "ingest takes no bars: %s", zmq_strerror(zmq_errno()));
    return 0;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------------ */

static void take(bench_t *bench, const wire_forecast_t *forecast, int64_t now)
{
    uint32_t symbol = (uint32_t)strtoul(forecast->symbol + 1, NULL, 10);
    uint64_t index = (uint64_t)(forecast->cutoff_ns / interval_ns) - 1;
    if (!is_right(forecast, symbol, index) && !bench->wrong++)
        snprintf(bench->wrong_text, sizeof bench->wrong_text, "%s, bar %llu: last %.17g, mean %.9g, expected %.17g",
                 forecast->symbol, (unsigned long long)index, forecast->last, (double)forecast->fields[0].mean[0],
                 close_of(symbol, index));
    uint64_t at = atomic_load_explicit(&bench->received, memory_order_relaxed);
    if (index >= bench->measured_from && at < bench->sample_capacity) {
        bench->samples[STAGE_QUEUE][at] = forecast->assigned_ns - forecast->stored_ns;
        bench->samples[STAGE_COMPUTE][at] = forecast->computed_ns - forecast->assigned_ns;
        bench->samples[STAGE_PUBLISH][at] = forecast->published_ns - forecast->computed_ns;
        bench->samples[STAGE_RECEIVE][at] = now - forecast->published_ns;
        bench->samples[STAGE_TOTAL][at] = now - forecast->stored_ns;
        /* Release: pairs with the acquire in wait_received, which then may read the samples. */
        atomic_store_explicit(&bench->received, at + 1, memory_order_release);
    }
}

static void *receive_thread(void *argument)
{
    bench_t *bench = argument;
    while (!atomic_load_explicit(&bench->stop, memory_order_relaxed)) { /* pairs with the store in measure */
        wire_forecast_t forecast;
        int rc = subscriber_next(bench->subscriber, 50, &forecast);
        if (rc == SUBSCRIBER_OK)
            take(bench, &forecast, clock_monotonic_ns());
        else if (rc < 0 && !bench->wrong++)
            snprintf(bench->wrong_text, sizeof bench->wrong_text, "%s", error_text());
    }
    return NULL;
}

/* Until `count` forecasts were received, or none came for a second (some were overtaken). */
static uint64_t wait_received(bench_t *bench, uint64_t count)
{
    uint64_t before = 0;
    int64_t since = clock_monotonic_ns();
    for (;;) {
        uint64_t received = atomic_load_explicit(&bench->received, memory_order_acquire); /* pairs with take */
        int64_t now = clock_monotonic_ns();
        if (received != before)
            since = now;
        if (received >= count || now - since > CLOCK_NS_PER_S)
            return received;
        before = received;
        clock_sleep_until_ns(now + CLOCK_NS_PER_MS);
    }
}

/* ---- the instance --------------------------------------------------------------------------------------------------------------- */

static int write_config(bench_t *bench)
{
    FILE *file = fopen(bench->config_file, "w");
    if (!file)
        return error_set(-1, "cannot write %s", bench->config_file);
    fprintf(file,
            "[instance]\nname = %s\nruntime_dir = %s/run\n"
            "[shm]\nsymbols_max = %u\nring_bars = 256\n"
            "[scheduler]\nbatch_max = 256\n"
            "[feed.bench]\ntype = zmq\nendpoint = ipc://%s/feed\n"
            "[model.naive]\npath = naive\ncontext = %d\ncontext_min = 2\nhorizon = %d\nbuckets = 1, 8, 64, 256\n",
            bench->name, bench->directory, bench->symbols, bench->directory, CONTEXT, HORIZON);
    if (fclose(file))
        return error_set(-1, "cannot write %s", bench->config_file);
    return config_load(bench->config_file, &bench->config);
}

static int start_instance(bench_t *bench)
{
    supervisor_child_t run = {
        .name = "run", .program = "barcast", .arguments = {"run", bench->config_file, "--quiet", "--device", "cpu", NULL}};
    if (supervisor_open(&bench->supervisor) < 0)
        return -1;
    bench->run = supervisor_start(bench->supervisor, &run);
    if (bench->run < 0)
        return -1;
    static snapshot_t now;
    for (int64_t until = clock_monotonic_ns() + PATIENCE_S * CLOCK_NS_PER_S; clock_monotonic_ns() < until;) {
        supervisor_wait(bench->supervisor, 20);
        snapshot_take(bench->name, 1, &now);
        if (now.segment && now.scheduler.counter[SHM_COUNTER_WORKERS_ALIVE] == 1 && now.worker[0].counter[SHM_COUNTER_READY])
            return 0;
        if (supervisor_state(bench->supervisor, bench->run) != CHILD_RUNNING || supervisor_stop_requests(bench->supervisor))
            break;
    }
    return error_set(-1, "the instance did not start");
}

static void end_instance(bench_t *bench)
{
    if (!bench->supervisor)
        return;
    if (bench->run >= 0)
        supervisor_end(bench->supervisor, bench->run, SIGTERM);
    for (int64_t until = clock_monotonic_ns() + PATIENCE_S * CLOCK_NS_PER_S;
         bench->run >= 0 && supervisor_state(bench->supervisor, bench->run) == CHILD_RUNNING && clock_monotonic_ns() < until;)
        supervisor_wait(bench->supervisor, 20);
    supervisor_close(bench->supervisor);
}

static int open_feed(bench_t *bench)
{
    char endpoint[96];
    const int linger = 0, timeout_ms = PATIENCE_S * 1000;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/feed", bench->directory);
    bench->zmq = zmq_ctx_new();
    bench->feed = bench->zmq ? zmq_socket(bench->zmq, ZMQ_PUSH) : NULL;
    if (!bench->feed || zmq_setsockopt(bench->feed, ZMQ_LINGER, &linger, sizeof linger) ||
        zmq_setsockopt(bench->feed, ZMQ_SNDTIMEO, &timeout_ms, sizeof timeout_ms) || zmq_connect(bench->feed, endpoint))
        return error_set(-1, "cannot make a feed: %s", zmq_strerror(zmq_errno()));
    return wire_buffer_open(1 << 16, &bench->encoded);
}

static int open_bench(bench_t *bench)
{
    strcpy(bench->directory, "/tmp/barcast-bench-XXXXXX");
    if (!mkdtemp(bench->directory)) {
        bench->directory[0] = '\0';
        return error_set(-1, "cannot make a folder in /tmp");
    }
    snprintf(bench->config_file, sizeof bench->config_file, "%s/bench.ini", bench->directory);
    snprintf(bench->name, sizeof bench->name, "bench-%d", (int)getpid());
    bench->sample_capacity = (size_t)(bench->rate * bench->seconds) + bench->symbols;
    bench->bars = calloc(bench->symbols, sizeof *bench->bars);
    for (int i = 0; i < STAGE_COUNT; i++)
        bench->samples[i] = calloc(bench->sample_capacity, sizeof **bench->samples);
    if (!bench->bars || !bench->samples[STAGE_TOTAL])
        return error_set(-1, "out of memory for %zu samples", bench->sample_capacity);
    int rc = write_config(bench);
    if (rc < 0 || (rc = start_instance(bench)) < 0 || (rc = open_feed(bench)) < 0)
        return rc;
    if (subscriber_open(&bench->subscriber) < 0 || subscriber_subscribe(bench->subscriber, "", 0) < 0)
        return -1;
    return subscriber_connect_all(bench->subscriber, bench->config);
}

static void close_bench(bench_t *bench)
{
    end_instance(bench);
    subscriber_close(bench->subscriber);
    if (bench->feed)
        zmq_close(bench->feed);
    if (bench->zmq)
        zmq_ctx_term(bench->zmq);
    wire_buffer_close(bench->encoded);
    config_free(bench->config);
    for (int i = 0; i < STAGE_COUNT; i++)
        free(bench->samples[i]);
    free(bench->bars);
    if (bench->directory[0]) {
        unlink(bench->config_file);
        char feed[96];
        snprintf(feed, sizeof feed, "%s/feed", bench->directory);
        unlink(feed);
        rmdir(bench->directory);
    }
}

/* ---- measuring ------------------------------------------------------------------------------------------------------------------ */

/* Fills the context, and goes on until the last bar of each symbol was forecast: then everything is connected and has been touched once. */
static int warm_up(bench_t *bench)
{
    for (uint64_t index = 0; index < CONTEXT; index++)
        if (send_bars(bench, 0, bench->symbols, index) < 0)
            return -1;
    bench->measured_from = CONTEXT - 1; /* the receiver is not running yet */
    uint32_t forecasts = 0;
    int64_t until = clock_monotonic_ns() + PATIENCE_S * CLOCK_NS_PER_S;
    while (forecasts < bench->symbols) {
        wire_forecast_t forecast;
        int rc = subscriber_next(bench->subscriber, 100, &forecast);
        if (rc < 0)
            return rc;
        if (rc == SUBSCRIBER_OK && forecast.cutoff_ns == CONTEXT * interval_ns)
            forecasts++;
        if (clock_monotonic_ns() > until)
            return error_set(-1, "only %u of %u symbols were forecast in %d s", forecasts, bench->symbols, PATIENCE_S);
    }
    bench->measured_from = CONTEXT;
    return 0;
}

/* Sends bars at the rate: each symbol's at its own moment, or all symbols' at once. Returns how many. */
static int64_t feed_bars(bench_t *bench)
{
    uint32_t group = bench->burst ? bench->symbols : 1;
    uint64_t groups = (uint64_t)(bench->rate * bench->seconds / group);
    int64_t start = clock_monotonic_ns();
    for (uint64_t i = 0; i < groups; i++) {
        uint64_t bar = i * group;
        clock_sleep_until_ns(start + (int64_t)((double)bar / bench->rate * 1e9));
        if (send_bars(bench, (uint32_t)(bar % bench->symbols), group, CONTEXT + bar / bench->symbols) < 0)
            return -1;
    }
    return (int64_t)(groups * group);
}

static int64_t measure(bench_t *bench, uint64_t *received)
{
    int reason = pthread_create(&bench->receiver, NULL, receive_thread, bench);
    if (reason)
        return error_set(-1, "cannot start a thread: %s", strerror(reason));
    int64_t sent = feed_bars(bench);
    *received = wait_received(bench, sent > 0 ? (uint64_t)sent : 0);
    atomic_store_explicit(&bench->stop, true, memory_order_relaxed); /* pairs with the load in receive_thread */
    pthread_join(bench->receiver, NULL);
    return sent;
}

static void report(bench_t *bench, int64_t sent, uint64_t received)
{
    const char *mode = bench->burst ? "burst" : "paced";
    bench_figures_t figures[STAGE_COUNT];
    for (int i = 0; i < STAGE_COUNT; i++)
        figures[i] = bench_figures(bench->samples[i], received);
    if (bench->json) {
        printf("{\"bench\":\"pipeline\",\"mode\":\"%s\",\"symbols\":%u,\"bars_per_s\":%g,\"bars\":%lld,\"forecasts\":%llu", mode,
               bench->symbols, bench->rate, (long long)sent, (unsigned long long)received);
        for (int i = 0; i < STAGE_COUNT; i++)
            printf(",\"%s_us\":{\"p50\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f,\"max\":%.1f}", stage_names[i], figures[i].p50 / 1e3,
                   figures[i].p99 / 1e3, figures[i].p999 / 1e3, figures[i].max / 1e3);
        printf(",");
        bench_print_machine_json(stdout);
        printf("}\n");
        return;
    }
    printf("bench pipeline, %s: %u symbols, %g bars/s, %lld bars, %llu forecasts, all right (mean = last close)\n", mode,
           bench->symbols, bench->rate, (long long)sent, (unsigned long long)received);
    bench_print_machine(stdout);
    printf("%-10s %10s %10s %10s %10s  (microseconds)\n", "", "p50", "p99", "p99.9", "max");
    for (int i = 0; i < STAGE_COUNT; i++)
        printf("%-10s %10.1f %10.1f %10.1f %10.1f\n", stage_names[i], figures[i].p50 / 1e3, figures[i].p99 / 1e3,
               figures[i].p999 / 1e3, figures[i].max / 1e3);
}

static int run_bench(bench_t *bench)
{
    uint64_t received = 0;
    int64_t sent = -1;
    bench->run = -1;
    if (open_bench(bench) < 0 || warm_up(bench) < 0 || (sent = measure(bench, &received)) < 0) {
        fprintf(stderr, "barcast bench pipeline: %s\n", error_text());
    } else if (bench->wrong || !received) {
        fprintf(stderr, "barcast bench pipeline: %llu forecasts are wrong: %s\n", (unsigned long long)bench->wrong,
                bench->wrong ? bench->wrong_text : "none was received");
        sent = -1;
    } else {
        report(bench, sent, received);
    }
    close_bench(bench);
    return sent < 0 ? 1 : 0;
}

int bench_pipeline(int argc, char **argv)
{
    static bench_t bench = {.symbols = 200, .rate = 1000, .seconds = 10};
    const option_t options[] = {
        {"symbols", OPTION_U32, &bench.symbols, "N", "symbols, each forecast at each of its bars"},
        {"rate", OPTION_F64, &bench.rate, "R", "bars a second in all"},
        {"seconds", OPTION_F64, &bench.seconds, "S", "how long"},
        {"burst", OPTION_FLAG, &bench.burst, NULL, "the bars of all symbols at once, as on the minute, instead of evenly spread"},
        {"json", OPTION_FLAG, &bench.json, NULL, "one JSON object"},
    };
    const options_t spec = {
        .usage = "barcast bench pipeline [options]",
        .about = "Starts an instance of its own with the naive model, feeds it through a zmq feed, and measures from a bar being\n"
                 "stored in shared memory to its forecast being received and decoded in this process. A bar whose symbol had a\n"
                 "newer one before it was forecast has no forecast. Every forecast is checked first.",
        .options = options,
        .count = sizeof options / sizeof *options,
    };
    int rc = options_parse(&spec, argc, argv, NULL);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (bench.symbols < 1 || bench.symbols > 65536 || !(bench.rate > 0 && bench.rate <= 1e6) ||
        !(bench.seconds > 0 && bench.seconds <= 3600) || bench.rate * bench.seconds < bench.symbols) {
        fprintf(stderr, "barcast bench pipeline: expected 1 to 65536 symbols and at least one bar of each; see --help\n");
        return 2;
    }
    return run_bench(&bench);
}
