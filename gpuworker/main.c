/* barcast-gpuworker: forecasts what the scheduler assigns, on one device, and publishes it. */
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "gpuworker/worker.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

static const char usage[] = "usage: barcast-gpuworker --config FILE --index N [--device cpu|cuda]\n"
                            "\n"
                            "One worker of a Barcast instance: loads the config's models on one device, forecasts what\n"
                            "barcast-scheduler assigns and publishes it. `barcast run` starts as many as the config says.\n"
                            "SIGTERM and SIGINT: finish the batch, take leave of the scheduler, exit.\n"
                            "\n"
                            "  --config FILE      the instance's configuration\n"
                            "  --index N          which worker this is, from 0: decides its name, publish endpoint and GPU\n"
                            "  --device cpu|cuda  instead of the config's\n";

typedef struct {
    const char *config;
    uint32_t index;
    config_device_t device;
} arguments_t;

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static bool parse_device(const char *text, config_device_t *out)
{
    bool cpu = strcmp(text, "cpu") == 0;
    if (!cpu && strcmp(text, "cuda") != 0)
        return false;
    *out = cpu ? CONFIG_DEVICE_CPU : CONFIG_DEVICE_CUDA;
    return true;
}

static bool parse_index(const char *text, uint32_t *out)
{
    int64_t index;
    if (!text_to_i64(text, &index) || index < 0 || index > 1023)
        return false;
    *out = (uint32_t)index;
    return true;
}

/* -1: go on; otherwise the exit status. */
static int parse(int argc, char **argv, arguments_t *out)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"index", required_argument, NULL, 'i'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    bool index_given = false;
    for (int found; (found = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        bool good = true;
        if (found == 'h') {
            fputs(usage, stdout);
            return EXIT_OK;
        } else if (found == 'c') {
            out->config = optarg;
        } else if (found == 'i') {
            good = index_given = parse_index(optarg, &out->index);
        } else if (found == 'd') {
            good = parse_device(optarg, &out->device);
        } else {
            return EXIT_USAGE;
        }
        if (!good) {
            fprintf(stderr, "barcast-gpuworker: bad value \"%s\"; see --help\n", optarg);
            return EXIT_USAGE;
        }
    }
    if (!out->config || !index_given || optind < argc) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return -1;
}

static int stop; /* eventfd */

static void on_signal(int signal)
{
    (void)signal;
    int reason = errno;
    eventfd_write(stop, 1);
    errno = reason;
}

/* SIGTERM and SIGINT make `stop` readable. By a handler: the BLAS library has started threads before main, which take signals whatever we block. */
static bool catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return stop >= 0 && sigaction(SIGTERM, &action, NULL) == 0 && sigaction(SIGINT, &action, NULL) == 0;
}

static int work(const worker_options_t *options)
{
    worker_t *worker = NULL;
    int rc = worker_open(options, &worker);
    if (rc == WORKER_OK) {
        log_info("ready");
        rc = worker_run(worker);
    }
    if (rc < 0) /* before closing: that may fail as well on a broken device */
        log_error("%s", error_text());
    worker_close(worker);
    return rc < 0 ? EXIT_FAILED : EXIT_OK;
}

int main(int argc, char **argv)
{
    arguments_t arguments = {.device = CONFIG_DEVICE_AUTO};
    int status = parse(argc, argv, &arguments);
    if (status >= 0)
        return status;
    char name[32];
    snprintf(name, sizeof name, "barcast-gpuworker.%u", arguments.index);
    log_open(name, LOG_INFO);

    config_t *config;
    if (config_load(arguments.config, &config) < 0) {
        log_error("%s", error_text());
        return EXIT_USAGE;
    }
    if (catch_signals()) {
        status = work(&(worker_options_t){.config = config, .index = arguments.index, .device = arguments.device, .stop = stop});
    } else {
        log_error("cannot catch signals: %s", strerror(errno));
        status = EXIT_FAILED;
    }
    config_free(config);
    return status;
}
