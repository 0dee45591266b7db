/* barcast top: an instance at a glance, from its counters alone; it asks no process anything. */
#include "tools/command.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "tools/instance.h"
#include "tools/options.h"
#include "tools/snapshot.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

enum { SCREEN_BYTES = 16384, LINES_WITHOUT_TERMINAL = 1000 };

typedef struct {
    const config_t *config;
    uint32_t worker_count;
    snapshot_t before, now;
    char text[SCREEN_BYTES];
    size_t used;
    int lines, lines_most;
} top_t;

/* ---- one screen ----------------------------------------------------------------------------------------------------------------- */

static void line(top_t *top, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds a line; what does not fit on the screen is left out. */
static void line(top_t *top, const char *format, ...)
{
    if (top->lines == top->lines_most || top->used + 256 > sizeof top->text)
        return;
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(top->text + top->used, 200, format, arguments);
    va_end(arguments);
    top->used += bytes < 200 ? (size_t)bytes : 199;
    top->used += (size_t)sprintf(top->text + top->used, "\x1b[K\n");
    top->lines++;
}

/* Of two snapshots of a counter; a process that was started again counts from zero. */
static double rate(const top_t *top, uint64_t before, uint64_t now)
{
    double seconds = (double)(top->now.taken_ns - top->before.taken_ns) / 1e9;
    if (seconds <= 0)
        return 0;
    return (double)(now >= before ? now - before : now) / seconds;
}

static double page_rate(const top_t *top, const snapshot_page_t *before, const snapshot_page_t *now, shm_counter_t id)
{
    return rate(top, before->pid == now->pid ? before->counter[id] : 0, now->counter[id]);
}

static const char *state(const snapshot_page_t *page, bool ready)
{
    if (!page->present)
        return "absent";
    if (!page->alive)
        return page->pid ? "dead" : "ended";
    return ready ? "up" : "loading";
}

static void describe_ingest(top_t *top)
{
    const snapshot_page_t *page = &top->now.ingest;
    const uint64_t *counter = page->counter;
    line(top, "ingest     %-7s pid %-8u %10.0f bars/s     symbols %u, feeds open %" PRIu64, state(page, true), page->pid,
         page_rate(top, &top->before.ingest, page, SHM_COUNTER_BARS_STORED), top->now.symbols, counter[SHM_COUNTER_FEEDS_OPEN]);
    line(top, "           stored %" PRIu64 ", amended %" PRIu64 ", filled %" PRIu64 ", gaps %" PRIu64 ", rejected %" PRIu64,
         counter[SHM_COUNTER_BARS_STORED], counter[SHM_COUNTER_BARS_AMENDED], counter[SHM_COUNTER_BARS_FILLED],
         counter[SHM_COUNTER_GAPS], snapshot_rejects(page));
    for (int id = SHM_COUNTER_BAD_NOT_FINITE; id <= SHM_COUNTER_BAD_SYMBOL; id++)
        if (counter[id])
            line(top, "             %s %" PRIu64, shm_counter_label((shm_counter_t)id), counter[id]);
}

static void describe_scheduler(top_t *top)
{
    const snapshot_page_t *page = &top->now.scheduler;
    const uint64_t *counter = page->counter;
    uint64_t finished = counter[SHM_COUNTER_SERIES_DONE] + counter[SHM_COUNTER_SERIES_FAILED];
    uint64_t in_flight = counter[SHM_COUNTER_SERIES_SENT] > finished ? counter[SHM_COUNTER_SERIES_SENT] - finished : 0;
    line(top, "scheduler  %-7s pid %-8u %10.0f series/s   due %" PRIu64 ", in flight %" PRIu64, state(page, true), page->pid,
         page_rate(top, &top->before.scheduler, page, SHM_COUNTER_SERIES_SENT), counter[SHM_COUNTER_SYMBOLS_DUE], in_flight);
    line(top, "           batches %" PRIu64 ", sent again %" PRIu64 ", late %" PRIu64 ", overtaken series %" PRIu64,
         counter[SHM_COUNTER_BATCHES_SENT], counter[SHM_COUNTER_BATCHES_REDISPATCHED], counter[SHM_COUNTER_DEADLINES_MISSED],
         counter[SHM_COUNTER_SERIES_OVERTAKEN]);
    line(top, "           failed %" PRIu64 ", quarantined %" PRIu64 "; messages rejected %" PRIu64 ", log overruns %" PRIu64,
         counter[SHM_COUNTER_SERIES_FAILED], counter[SHM_COUNTER_SYMBOLS_QUARANTINED], counter[SHM_COUNTER_MESSAGES_REJECTED],
         counter[SHM_COUNTER_LOG_OVERRUNS]);
    line(top, "           workers alive %" PRIu64 ", lost %" PRIu64, counter[SHM_COUNTER_WORKERS_ALIVE],
         counter[SHM_COUNTER_WORKERS_LOST]);
}

/* What was recorded between the two snapshots; all there is when nothing was. */
static void recent_latency(const snapshot_page_t *before, const snapshot_page_t *now, uint64_t out[SHM_LATENCY_BUCKETS])
{
    uint64_t sum = 0;
    for (int i = 0; i < SHM_LATENCY_BUCKETS; i++) {
        out[i] = before->pid == now->pid && now->latency[i] >= before->latency[i] ? now->latency[i] - before->latency[i]
                                                                                  : now->latency[i];
        sum += out[i];
    }
    if (!sum)
        memcpy(out, now->latency, sizeof now->latency);
}

static void describe_workers(top_t *top)
{
    line(top, "%-6s %-7s %7s %9s %10s %8s %8s %7s %6s", "worker", "state", "pid", "out/s", "forecasts", "p50 ms", "p99 ms",
         "compute", "drops");
    for (uint32_t i = 0; i < top->now.worker_count; i++) {
        const snapshot_page_t *page = &top->now.worker[i], *before = &top->before.worker[i];
        uint64_t latency[SHM_LATENCY_BUCKETS];
        recent_latency(before, page, latency);
        line(top, "%-6u %-7s %7u %9.1f %10" PRIu64 " %8.3f %8.3f %6.1f%% %6" PRIu64, i,
             state(page, page->counter[SHM_COUNTER_READY]), page->pid, page_rate(top, before, page, SHM_COUNTER_FORECASTS),
             page->counter[SHM_COUNTER_FORECASTS], (double)shm_latency_quantile(latency, 0.5) / 1e6,
             (double)shm_latency_quantile(latency, 0.99) / 1e6, page_rate(top, before, page, SHM_COUNTER_COMPUTE_NS) / 1e7,
             page->counter[SHM_COUNTER_PUBLISH_DROPS]);
    }
}

/* How the forecasts did so far, over all workers. */
static void describe_models(top_t *top)
{
    snapshot_page_t total = {0};
    for (uint32_t i = 0; i < top->now.worker_count; i++)
        snapshot_page_add(&total, &top->now.worker[i]);
    line(top, "%-16s %10s %14s %10s", "model", "scored", "loss / naive", "covered");
    for (uint32_t i = 0; i < top->config->model_count; i++) {
        const config_model_t *model = &top->config->models[i];
        const shm_score_t *score = &total.score[i];
        double nominal = model->quantile_count ? model->quantiles[model->quantile_count - 1] - model->quantiles[0] : 0;
        if (score->scored)
            line(top, "%-16s %10" PRIu64 " %14.4f %9.1f%% of %.0f%%", model->name, score->scored, score->loss / score->naive_loss,
                 score->coverage * 100, nominal * 100);
        else
            line(top, "%-16s %10s", model->name, "-");
    }
}

static void draw(top_t *top)
{
    top->used = 0;
    top->lines = 0;
    line(top, "barcast %s   generation %u   %.1f MiB of shared memory", top->config->instance.name, top->now.info.writer_generation,
         (double)top->now.info.bytes / (1 << 20));
    line(top, "%s", "");
    describe_ingest(top);
    line(top, "%s", "");
    describe_scheduler(top);
    line(top, "%s", "");
    describe_workers(top);
    line(top, "%s", "");
    describe_models(top);
}

static void take(top_t *top)
{
    top->before = top->now;
    snapshot_take(top->config->instance.name, top->worker_count, &top->now);
}

/* ---- once, for files and pipes ------------------------------------------------------------------------------------------------- */

static void print_without_escapes(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\x1b')
            i += 2;
        else
            putchar(text[i]);
    }
}

static int print_once(top_t *top, double interval_s)
{
    take(top);
    clock_sleep_until_ns(clock_monotonic_ns() + (int64_t)(interval_s * 1e9));
    take(top);
    if (!top->now.segment && !top->now.scheduler.present) {
        fprintf(stderr, "barcast top: instance \"%s\" is not running\n", top->config->instance.name);
        return 1;
    }
    top->lines_most = LINES_WITHOUT_TERMINAL;
    draw(top);
    print_without_escapes(top->text, top->used);
    return 0;
}

/* ---- live ----------------------------------------------------------------------------------------------------------------------- */

static int terminal_lines(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 2 ? size.ws_row - 2 : 22;
}

static void show(top_t *top)
{
    top->lines_most = terminal_lines();
    draw(top);
    printf("\x1b[H%.*s\x1b[J\n%s", (int)top->used, top->text, "q ends this view, not the instance");
    fflush(stdout);
}

/* Until q or a signal, or until the instance has gone after it was there. */
static void show_until_quit(top_t *top, double interval_s, int signals)
{
    struct pollfd wait[] = {{.fd = signals, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        take(top);
        if (top->before.segment && !top->now.segment)
            return;
        show(top);
        if (poll(wait, 2, (int)(interval_s * 1000)) <= 0)
            continue;
        char key;
        if (wait[0].revents || read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q')
            return;
    }
}

static int show_live(top_t *top, double interval_s)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGHUP);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    int signals = signalfd(-1, &mask, SFD_CLOEXEC);

    struct termios old, raw;
    bool keys = tcgetattr(STDIN_FILENO, &old) == 0;
    if (keys) {
        raw = old;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    printf("\x1b[?1049h\x1b[?25l\x1b[?7l"); /* the alternate screen, without cursor and wrapping */
    show_until_quit(top, interval_s, signals);
    printf("\x1b[?7h\x1b[?25h\x1b[?1049l");
    fflush(stdout);
    if (keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &old);
    close(signals);
    return 0;
}

int cmd_top(int argc, char **argv)
{
    bool once = false;
    double interval_s = 1;
    const option_t options[] = {
        {"once", OPTION_FLAG, &once, NULL, "print one snapshot; also when the output is no terminal"},
        {"interval", OPTION_F64, &interval_s, "S", "seconds between two looks; rates are those between them"},
    };
    const options_t spec = {
        .usage = "barcast top CONFIG [options]",
        .about = "Shows a running instance: its processes, bars and forecasts a second, the time from bar to forecast, what is\n"
                 "due and in flight, what was rejected, and each worker's share of time spent computing; and how each\n"
                 "model's forecasts did once their bars had come: quantile loss beside that of naive, and how many values lay\n"
                 "between its outer levels. It only reads shared memory; the instance does not notice.",
        .options = options,
        .count = sizeof options / sizeof *options,
    };
    int first, rc = options_parse(&spec, argc, argv, &first);
    if (rc != OPTIONS_OK)
        return rc == OPTIONS_HELP ? 0 : 2;
    if (argc - first != 1 || interval_s < 0.05 || interval_s > 3600) {
        fprintf(stderr, "usage: %s\n", spec.usage);
        return 2;
    }
    config_t *config;
    if (config_load(argv[first], &config) < 0) {
        fprintf(stderr, "barcast top: %s\n", error_text());
        return 2;
    }
    static top_t top; /* too big for a stack */
    top.config = config;
    top.worker_count = instance_workers(config);
    int status = once || !isatty(STDOUT_FILENO) ? print_once(&top, interval_s) : show_live(&top, interval_s);
    config_free(config);
    return status;
}
