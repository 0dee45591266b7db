/* barcast stress: does this machine, with these models, always give what it should? */
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "tools/bench.h"
#include "tools/command.h"
#include "tools/device.h"
#include "tools/options.h"
#include "tools/stress/stress.h"

static const struct {
    const char *name;
    uint32_t rounds;
} modes[] = {{"quick", 3}, {"full", 10}, {"production-check", 20}};

static uint32_t rounds_of(const char *mode)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, mode) == 0)
            return modes[i].rounds;
    return 0;
}

static const char *device_word(const config_t *config)
{
    switch (config->worker.device) {
    case CONFIG_DEVICE_CPU:
        return "cpu";
    case CONFIG_DEVICE_CUDA:
        return "cuda";
    case CONFIG_DEVICE_AUTO:
        break;
    }
    return "auto";
}

typedef struct {
    const char *model, *device, *precision;
} arguments_t;

/* Plans, opens the device, runs; the exit status. */
static int stress(const arguments_t *arguments, const config_t *config, stress_options_t *options)
{
    const char *device = *arguments->device != '\0' || config == NULL ? arguments->device : device_word(config);
    backend_dtype_t precision;
    stress_plan_t plan;
    bool passed;

    if (device_open(*device != '\0' ? device : "auto", arguments->precision, options->threads, &options->backend, &precision) < 0) {
        printf("FAIL: %s\n", error_text());
        return 1;
    }
    if (config != NULL)
        stress_plan_config(config, precision, &plan);
    else
        stress_plan_model(arguments->model, precision, &plan);
    options->plan = &plan;
    options->graphs = config == NULL || config->worker.graphs;
    bench_print_machine(options->to);
    fprintf(options->to, "%s, %u rounds\n", backend_name(options->backend), options->rounds);
    passed = stress_run(options);
    backend_close(options->backend);
    return passed ? 0 : 1;
}

int cmd_stress(int argc, char **argv)
{
    arguments_t arguments = {.model = "", .device = "", .precision = "auto"};
    stress_options_t options = {.to = stdout};
    const char *mode = "quick";
    config_t *config = NULL;
    int first, parsed, status;
    const option_t table[] = {
        {"mode", OPTION_TEXT, &mode, "MODE", "quick, full or production-check: 3, 10 or 20 rounds"},
        {"model", OPTION_TEXT, &arguments.model, "DIR", "a checkpoint, or naive, in a few shapes; instead of CONFIG"},
        {"device", OPTION_TEXT, &arguments.device, "NAME", "cpu, cuda or auto; default: as CONFIG says, else auto"},
        {"precision", OPTION_TEXT, &arguments.precision, "NAME", "fp32, bf16 or auto; of the models that CONFIG leaves it to"},
        {"threads", OPTION_U32, &options.threads, "N", "CPU threads, 0: one a core"},
        {"seed", OPTION_U64, &options.seed, "N", "of the inputs"},
    };
    const options_t spec = {
        .usage = "barcast stress CONFIG | barcast stress --model DIR",
        .about = "Opens all sessions that a worker with this configuration has and feeds them fresh random walks, round after "
                 "round. Each\n"
                 "result must come out again, bit for bit, and from an eager session of the same shape too; the mean of a few "
                 "series must\n"
                 "agree with fp32 on the CPU, one series at a time; after the first round neither device memory nor the process "
                 "may grow, and\n"
                 "nothing is allocated or captured. The last line is PASS, or FAIL and why; the exit status 0 or 1.\n\n"
                 "  barcast stress --mode production-check barcast.ini",
        .options = table,
        .count = sizeof table / sizeof *table,
    };

    if ((parsed = options_parse(&spec, argc, argv, &first)) != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    options.rounds = rounds_of(mode);
    if (options.rounds == 0 || argc - first != (*arguments.model == '\0')) {
        fprintf(stderr, options.rounds == 0 ? "stress: --mode: expected quick, full or production-check\n"
                                            : "stress: expected one configuration, or --model\n");
        return 2;
    }
    if (first < argc && config_load(argv[first], &config) < 0) {
        printf("FAIL: %s\n", error_text());
        return 1;
    }
    if (options.threads == 0)
        options.threads = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    status = stress(&arguments, config, &options);
    config_free(config);
    return status;
}
