#include "base/error.h"
#include "base/log.h"
#include "ingest/pump.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const char help[] =
    "usage: barcast-ingest --config FILE [--hold]\n"
    "\n"
    "Reads the feeds of FILE, judges their bars and writes them into the instance's shared memory: history first, then the\n"
    "replay and live feeds. Ends when every feed is exhausted, or on SIGTERM or SIGINT; the shared memory stays, and a\n"
    "later barcast-ingest goes on with it. Usually `barcast run` starts it.\n"
    "\n"
    "  --config FILE  the instance's configuration\n"
    "  --hold         preload the history, then hold the replay until one byte, or the end, comes from standard input\n"
    "  --help         this text\n";

typedef struct {
    const char *config;
    bool hold;
} arguments_t;

/* -1 to go on, else the exit status. */
static int parse_arguments(int argc, char **argv, arguments_t *out)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"hold", no_argument, NULL, 'H'}, {"help", no_argument, NULL, 'h'}, {0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'c':
            out->config = optarg;
            break;
        case 'H':
            out->hold = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return 2;
        }
    }
    if (out->config && optind == argc)
        return -1;
    fputs(help, stderr);
    return 2;
}

/* Standard input cannot both hold the replay and be a feed. */
static int check_stdin(const config_t *config, bool hold)
{
    int users = hold;
    for (uint32_t i = 0; i < config->feed_count; i++)
        users += config->feeds[i].type == CONFIG_FEED_NDJSON && strcmp(config->feeds[i].path, "-") == 0;
    return users < 2 ? 0 : error_set(-1, "%s: standard input can serve only one of --hold and a feed with path = -", config->file);
}

/* SIGTERM and SIGINT as a descriptor, so that no moment is without an ear for them. */
static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static uint64_t rejected(const store_t *store)
{
    uint64_t sum = 0;
    for (shm_counter_t id = SHM_COUNTER_BAD_NOT_FINITE; id <= SHM_COUNTER_BAD_SYMBOL; id++)
        sum += store_counter(store, id);
    return sum;
}

static int run(const config_t *config, bool hold, int signal_fd, store_t *store)
{
    pump_t *pump;
    int rc = pump_open(config, store, &pump);
    if (rc != PUMP_OK)
        return rc;
    rc = pump_preload(pump, signal_fd);
    if (rc == PUMP_OK) {
        log_info("%" PRIu32 " symbols, %" PRIu64 " bars of history%s", store_symbol_count(store),
                 store_counter(store, SHM_COUNTER_BARS_HISTORY), store_rejoined(store) ? ", re-joined" : "");
        rc = pump_run(pump, hold ? STDIN_FILENO : -1, signal_fd);
    }
    pump_close(pump);
    if (rc >= PUMP_OK)
        log_info("%s: %" PRIu64 " bars stored (%" PRIu64 " of them filled in), %" PRIu64 " amended, %" PRIu64 " gaps, %" PRIu64
                 " rejected",
                 rc == PUMP_STOPPED ? "stopped" : "all feeds are exhausted", store_counter(store, SHM_COUNTER_BARS_STORED),
                 store_counter(store, SHM_COUNTER_BARS_FILLED), store_counter(store, SHM_COUNTER_BARS_AMENDED),
                 store_counter(store, SHM_COUNTER_GAPS), rejected(store));
    return rc;
}

int main(int argc, char **argv)
{
    log_open("barcast-ingest", LOG_INFO);
    arguments_t arguments = {0};
    int status = parse_arguments(argc, argv, &arguments);
    if (status >= 0)
        return status;
    int signal_fd = open_signals();
    config_t *config = NULL;
    store_t *store = NULL;
    int rc = config_load(arguments.config, &config);
    if (rc == CONFIG_OK)
        rc = check_stdin(config, arguments.hold);
    if (rc == CONFIG_OK)
        rc = store_open(config, &store);
    if (rc == STORE_OK)
        rc = run(config, arguments.hold, signal_fd, store);
    if (rc < 0)
        log_error("%s", error_text());
    store_close(store);
    config_free(config);
    return rc < 0;
}
