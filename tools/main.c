/* barcast: one command for everything that is not a server process. */
#include "base/log.h"
#include "base/text.h"
#include "tools/command.h"
#include "tools/version.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} command_t;

static const command_t commands[] = {
    {"run", cmd_run, "start an instance: ingest, scheduler and workers, supervised"},
    {"sub", cmd_sub, "print forecasts as subscribers get them"},
    {"top", cmd_top, "live view of a running instance: rates, latencies, workers, rejects"},
    {"forecast", cmd_forecast, "one forecast from a file of bars, as a table and a fan chart"},
    {"backtest", cmd_backtest, "walk through past bars: what a model's forecasts were worth, beside baselines"},
    {"verify", cmd_verify, "compare a model with golden cases, tensor by tensor"},
    {"stress", cmd_stress, "rounds of fresh inputs through all sessions: a verdict on machine and models"},
    {"bench", cmd_bench, "measure the ring, the engine or the whole pipeline on this machine"},
    {"shm", cmd_shm, "look into an instance's shared memory, or remove it"},
    {"config", cmd_config, "check a configuration, or print every key with its documentation"},
    {"models", cmd_models, "list model families, inspect a checkpoint, make a random one"},
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_help(FILE *to)
{
    fprintf(to, "usage: barcast COMMAND [...]\n\nBars in, forecasts out.\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].about);
    fprintf(to, "\n`barcast COMMAND --help` says more; `barcast --version` which build this is.\n");
}

static int complain_unknown(const char *word)
{
    const char *names[COMMAND_COUNT];
    for (int i = 0; i < COMMAND_COUNT; i++)
        names[i] = commands[i].name;
    const char *nearest = text_nearest(word, names, COMMAND_COUNT);
    fprintf(stderr, "barcast: no command \"%s\"%s%s%s; see barcast --help\n", word, nearest ? "; did you mean " : "",
            nearest ? nearest : "", nearest ? "?" : "");
    return 2;
}

int main(int argc, char **argv)
{
    log_open("barcast", LOG_INFO);
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        version_print(stdout);
        return 0;
    }
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return complain_unknown(argv[1]);
}
