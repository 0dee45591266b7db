/* barcast run: one instance, all its processes, from start to a clean end. */
#include "tools/command.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "tools/instance.h"
#include "tools/options.h"
#include "tools/snapshot.h"
#include "tools/supervisor.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOK_MS = 20,         /* how often the counters are looked at while something is waited for */
    IDLE_MS = 300,        /* nothing to do for that long: everything that ingest stored has been dealt with */
    LEAVE_MS = 10 * 1000, /* what processes get to leave by themselves */
    GRACE_MS = 1000       /* what workers get to follow the scheduler */
};

typedef struct {
    const char *file;
    config_t *config;
    bool quiet;
    uint32_t worker_count;
    char index_text[SNAPSHOT_WORKERS_MOST][8];
    const char *device; /* NULL: the config's */
    int64_t end_ns;     /* --duration; INT64_MAX for none */

    instance_t instance;
    supervisor_t *supervisor;
    int ingest, scheduler, worker[SNAPSHOT_WORKERS_MOST];
    bool hold;     /* ingest waits for our word before it replays */
    bool released; /* it has been given */
    snapshot_t now;
    snapshot_page_t gone; /* what workers did that have died since */
} run_t;

/* ---- starting -------------------------------------------------------------------------------------------------------------------- */

static void release_ingest(run_t *run)
{
    run->released = true;
    if (run->hold && !supervisor_input(run->supervisor, run->ingest, "\n", 1))
        log_debug("ingest was not there to be released");
}

/* An ingest that is started again after the release shall not wait. */
static void ingest_started(void *context, int child)
{
    run_t *run = context;
    run->ingest = child;
    if (run->released)
        release_ingest(run);
}

/* A worker's page starts from zero again with its successor. */
static void worker_died(void *context, int child)
{
    run_t *run = context;
    for (uint32_t i = 0; i < run->worker_count; i++)
        if (run->worker[i] == child) {
            char role[32];
            snprintf(role, sizeof role, "worker.%u", i);
            snapshot_page_t page;
            snapshot_page_take(run->config->instance.name, role, &page);
            snapshot_page_add(&run->gone, &page);
            shm_counters_delete(run->config->instance.name, role); /* so that it is not added twice */
        }
}

static bool reads_our_input(const config_t *config)
{
    for (uint32_t i = 0; i < config->feed_count; i++)
        if (config->feeds[i].type == CONFIG_FEED_NDJSON && strcmp(config->feeds[i].path, "-") == 0)
            return true;
    return false;
}

static void give_arguments(supervisor_child_t *child, const run_t *run, const char *const *more)
{
    size_t count = 0;
    child->arguments[count++] = "--config";
    child->arguments[count++] = run->file;
    for (; *more; more++)
        child->arguments[count++] = *more;
}

static int start_all(run_t *run)
{
    supervisor_child_t scheduler = {.name = "scheduler", .program = "barcast-scheduler"};
    give_arguments(&scheduler, run, (const char *const[]){NULL});
    run->scheduler = supervisor_start(run->supervisor, &scheduler);
    if (run->scheduler < 0)
        return run->scheduler;

    for (uint32_t i = 0; i < run->worker_count; i++) {
        supervisor_child_t worker = {.program = "barcast-gpuworker", .died = worker_died, .context = run};
        snprintf(worker.name, sizeof worker.name, "worker.%u", i);
        snprintf(run->index_text[i], sizeof run->index_text[i], "%u", i);
        give_arguments(&worker, run,
                       (const char *const[]){"--index", run->index_text[i], run->device ? "--device" : NULL, run->device, NULL});
        run->worker[i] = supervisor_start(run->supervisor, &worker);
        if (run->worker[i] < 0)
            return run->worker[i];
    }

    run->hold = !reads_our_input(run->config);
    supervisor_child_t ingest = {.name = "ingest",
                                 .program = "barcast-ingest",
                                 .input = run->hold ? CHILD_INPUT_PIPE : CHILD_INPUT_INHERIT,
                                 .started = ingest_started,
                                 .context = run};
    give_arguments(&ingest, run, (const char *const[]){run->hold ? "--hold" : NULL, NULL});
    run->ingest = supervisor_start(run->supervisor, &ingest);
    return run->ingest < 0 ? run->ingest : SUPERVISOR_OK;
}

/* ---- watching -------------------------------------------------------------------------------------------------------------------- */

static void look(run_t *run, int wait_ms)
{
    supervisor_wait(run->supervisor, wait_ms);
    snapshot_take(run->config->instance.name, run->worker_count, &run->now);
}

static bool told_to_stop(const run_t *run)
{
    return supervisor_stop_requests(run->supervisor) > 0 || clock_monotonic_ns() >= run->end_ns;
}

static bool somebody_failed(const run_t *run)
{
    bool failed = supervisor_state(run->supervisor, run->ingest) == CHILD_FAILED ||
                  supervisor_state(run->supervisor, run->scheduler) == CHILD_FAILED;
    for (uint32_t i = 0; i < run->worker_count; i++)
        failed = failed || supervisor_state(run->supervisor, run->worker[i]) == CHILD_FAILED;
    return failed;
}

static bool all_ready(const run_t *run)
{
    for (uint32_t i = 0; i < run->worker_count; i++) {
        const snapshot_page_t *page = &run->now.worker[i];
        bool is_current = page->pid == (uint32_t)supervisor_pid(run->supervisor, run->worker[i]);
        if (!page->present || !is_current || !page->counter[SHM_COUNTER_READY])
            return false;
    }
    return true;
}

static void tell_endpoints(const run_t *run)
{
    for (uint32_t i = 0; i < run->worker_count; i++) {
        char endpoint[CONFIG_TEXT_BYTES];
        if (config_publish_endpoint(run->config, i, endpoint) == CONFIG_OK)
            log_info("worker.%u publishes at %s", i, endpoint);
    }
}

/* Until the feeds have ended (true), or somebody wants an end (false). */
static bool watch(run_t *run)
{
    while (supervisor_state(run->supervisor, run->ingest) != CHILD_ENDED) {
        if (told_to_stop(run) || somebody_failed(run))
            return false;
        look(run, run->released ? 200 : LOOK_MS);
        if (!run->released && all_ready(run)) {
            tell_endpoints(run);
            log_info("all workers are ready: the feeds start");
            release_ingest(run);
        }
    }
    return true;
}

static void wait_until_idle(run_t *run)
{
    int64_t idle_since = INT64_MAX;
    while (!told_to_stop(run) && !somebody_failed(run)) {
        look(run, LOOK_MS);
        bool idle = run->now.scheduler.alive && run->now.scheduler.counter[SHM_COUNTER_IDLE] == 1;
        if (!idle)
            idle_since = INT64_MAX;
        else if (idle_since == INT64_MAX)
            idle_since = run->now.taken_ns;
        else if (run->now.taken_ns - idle_since > IDLE_MS * CLOCK_NS_PER_MS)
            return;
    }
}

/* ---- ending ---------------------------------------------------------------------------------------------------------------------- */

static bool is_up(const run_t *run, int child)
{
    return supervisor_state(run->supervisor, child) == CHILD_RUNNING;
}

static bool workers_up(const run_t *run)
{
    for (uint32_t i = 0; i < run->worker_count; i++)
        if (is_up(run, run->worker[i]))
            return true;
    return false;
}

static void end_workers(run_t *run, int signal)
{
    for (uint32_t i = 0; i < run->worker_count; i++)
        supervisor_end(run->supervisor, run->worker[i], signal);
}

static bool wait_for_end(run_t *run, bool (*up)(const run_t *run), int64_t most_ms)
{
    int64_t until = clock_monotonic_ns() + most_ms * CLOCK_NS_PER_MS;
    int requests = supervisor_stop_requests(run->supervisor);
    while (up(run) && clock_monotonic_ns() < until && supervisor_stop_requests(run->supervisor) == requests)
        supervisor_wait(run->supervisor, LOOK_MS);
    return !up(run);
}

static bool ingest_up(const run_t *run)
{
    return is_up(run, run->ingest);
}

static bool scheduler_up(const run_t *run)
{
    return is_up(run, run->scheduler);
}

/* Feeds first; then the scheduler, which lets its workers finish and sends them home; then workers that it did not know. Who does not leave
 * after that is made to when the supervisor closes. A further Ctrl-C shortens each wait. */
static void end_all(run_t *run)
{
    supervisor_end(run->supervisor, run->ingest, SIGTERM);
    if (!wait_for_end(run, ingest_up, LEAVE_MS))
        log_warning("ingest does not leave");
    end_workers(run, 0);
    supervisor_end(run->supervisor, run->scheduler, SIGTERM);
    if (!wait_for_end(run, scheduler_up, LEAVE_MS + run->config->scheduler.deadline_ns / CLOCK_NS_PER_MS))
        log_warning("the scheduler does not leave");
    wait_for_end(run, workers_up, GRACE_MS);
    end_workers(run, SIGTERM);
    if (!wait_for_end(run, workers_up, LEAVE_MS))
        log_warning("some workers do not leave");
}

static void print_summary(run_t *run)
{
    snapshot_take(run->config->instance.name, run->worker_count, &run->now);
    const uint64_t *ingest = run->now.ingest.counter;
    const snapshot_page_t *workers = &run->gone; /* all have ended by now */
    printf("bars in: %" PRIu64 " (%" PRIu64 " of them history), %u symbols, %" PRIu64 " rejected, %" PRIu64 " gaps\n",
           ingest[SHM_COUNTER_BARS_STORED], ingest[SHM_COUNTER_BARS_HISTORY], run->now.symbols, snapshot_rejects(&run->now.ingest),
           ingest[SHM_COUNTER_GAPS]);
    printf("forecasts out: %" PRIu64 " (%" PRIu64 " failed)\n", workers->counter[SHM_COUNTER_FORECASTS],
           workers->counter[SHM_COUNTER_FORECASTS_FAILED]);
    if (workers->counter[SHM_COUNTER_FORECASTS])
        printf("bar to forecast: p50 %.3f ms, p99 %.3f ms\n", (double)shm_latency_quantile(workers->latency, 0.5) / 1e6,
               (double)shm_latency_quantile(workers->latency, 0.99) / 1e6);
    fflush(stdout);
}

/* ---- the command ----------------------------------------------------------------------------------------------------------------- */

static int supervise(run_t *run)
{
    if (supervisor_open(&run->supervisor) < 0)
        return 1;
    int status = 1;
    bool started = start_all(run) == SUPERVISOR_OK;
    if (started) {
        if (watch(run))
            wait_until_idle(run);
        end_all(run);
        status = somebody_failed(run) ? 1 : 0;
    } else {
        log_error("%s", error_text());
    }
    if (started && !run->quiet)
        print_summary(run);
    supervisor_close(run->supervisor);
    return status;
}

static config_device_t device_of(const run_t *run)
{
    if (!run->device)
        return run->config->worker.device;
    return strcmp(run->device, "cpu") == 0 ? CONFIG_DEVICE_CPU : CONFIG_DEVICE_CUDA;
}

int cmd_run(int argc, char **argv)
{
    static run_t run;
    double duration_s = 0;
    const option_t options[] = {
        {"device", OPTION_TEXT, &run.device, "cpu|cuda", "device of the workers, instead of the config's"},
        {"duration", OPTION_F64, &duration_s, "S", "end after that many seconds; 0: when the feeds end"},
        {"quiet", OPTION_FLAG, &run.quiet, NULL, "warnings and errors only, no summary"},
    };
    const options_t spec = {
        .usage = "barcast run CONFIG [options]",
        .about = "Runs an instance: ingest, scheduler and workers as processes of their own, started again when they die.\n"
                 "Feeds start when all workers are ready. It ends when all feeds have ended and every forecast is out, or on\n"
                 "SIGINT or SIGTERM, and leaves no process, shared memory or socket behind.\n"
                 "\n"
                 "  barcast run config/demo.ini --device cpu",
        .options = options,
        .count = sizeof options / sizeof *options,
    };
    int first, rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (argc - first != 1 || duration_s < 0 || (run.device && strcmp(run.device, "cpu") && strcmp(run.device, "cuda"))) {
        fprintf(stderr, "usage: %s\n", spec.usage);
        return 2;
    }
    if (run.quiet)
        setenv("BARCAST_LOG", "warning", 1); /* for all processes of the instance */
    log_open("barcast", LOG_INFO);
    run.file = argv[first];
    run.end_ns = duration_s > 0 ? clock_monotonic_ns() + (int64_t)(duration_s * 1e9) : INT64_MAX;
    if (config_load(run.file, &run.config) < 0) {
        log_error("%s", error_text());
        return 2;
    }
    run.worker_count = instance_plan_workers(run.config, device_of(&run));
    int status = 1;
    if (instance_claim(run.config, run.worker_count, &run.instance) < 0) {
        log_error("%s", error_text());
    } else {
        status = supervise(&run);
        instance_remove(run.config, &run.instance);
    }
    config_free(run.config);
    return status;
}
