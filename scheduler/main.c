/* barcast-scheduler: decides which symbols are due, and hands them to the workers in batches. */
#include "base/error.h"
#include "base/log.h"
#include "config/config.h"
#include "scheduler/loop.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

static const char help[] =
    "usage: barcast-scheduler --config FILE\n\n"
    "Waits for the shared-memory segment of the instance, follows its closed bars, and assigns the symbols that are\n"
    "due to the workers that connect. `barcast run` starts it; SIGTERM lets it finish what is in flight.\n\n"
    "  --config FILE   the instance's configuration\n"
    "  --help          this text\n";

/* SIGTERM and SIGINT as a descriptor, for every thread that will be started. */
static int open_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    return signalfd(-1, &signals, SFD_CLOEXEC);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *file = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h') {
            fputs(help, stdout);
            return 0;
        }
        if (option != 'c')
            return 2;
        file = optarg;
    }
    if (!file || optind < argc) {
        fputs(help, stderr);
        return 2;
    }

    log_open("barcast-scheduler", LOG_INFO);
    int signals = open_signals();
    if (signals < 0) {
        log_error("signalfd: %s", strerror(errno));
        return 1;
    }
    config_t *config;
    if (config_load(file, &config) < 0) {
        log_error("%s", error_text());
        return 1;
    }
    int rc = loop_run(config, signals);
    if (rc < 0)
        log_error("%s", error_text());
    config_free(config);
    return rc < 0 ? 1 : 0;
}
