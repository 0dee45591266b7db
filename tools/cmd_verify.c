/* barcast verify: golden cases of the official implementations, run by ours. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "tools/command.h"
#include "tools/device.h"
#include "tools/options.h"
#include "tools/verify/verify.h"

enum { PATH_BYTES = 4096 };

typedef struct {
    uint32_t cases[3]; /* by verify_result_t */
} tally_t;

/* Cases below `dir`, in name order. */
static void walk(const verify_options_t *options, const char *dir, tally_t *tally)
{
    char path[PATH_BYTES];
    struct dirent **entries;
    struct stat status;
    int count;

    snprintf(path, sizeof path, "%s/case.json", dir);
    if (access(path, F_OK) == 0) {
        tally->cases[verify_case(options, dir)]++;
        return;
    }
    if ((count = scandir(dir, &entries, NULL, alphasort)) < 0)
        return;
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
            walk(options, path, tally);
        free(entries[i]);
    }
    free(entries);
}

static int report(const tally_t *tally)
{
    printf("%u passed, %u failed, %u skipped\n", tally->cases[VERIFY_PASSED], tally->cases[VERIFY_FAILED],
           tally->cases[VERIFY_SKIPPED]);
    if (tally->cases[VERIFY_PASSED] + tally->cases[VERIFY_FAILED] + tally->cases[VERIFY_SKIPPED] == 0)
        fprintf(stderr, "verify: no case.json in these directories\n");
    return tally->cases[VERIFY_FAILED] == 0 && tally->cases[VERIFY_PASSED] + tally->cases[VERIFY_SKIPPED] > 0 ? 0 : 1;
}

int cmd_verify(int argc, char **argv)
{
    const char *device = "auto", *precision = "fp32", *graphs = "off";
    verify_options_t run = {.to = stdout};
    uint32_t threads = 0;
    const option_t table[] = {
        {"device", OPTION_TEXT, &device, "NAME", DEVICE_HELP},
        {"precision", OPTION_TEXT, &precision, "NAME", PRECISION_HELP},
        {"graphs", OPTION_TEXT, &graphs, "on|off", "replay a captured graph; only results are compared then"},
        {"batch", OPTION_U32, &run.batch, "N", "series in the session, when more than the case has"},
        {"context", OPTION_U32, &run.context, "BARS", "context of the session, when longer than the case's"},
        {"tolerance", OPTION_F64, &run.tolerance, "X", "largest deviation that passes; 0: 1e-4, and 0.05 in bf16"},
        {"threads", OPTION_U32, &threads, "N", "CPU threads; 0: all"},
    };
    const options_t spec = {
        "barcast verify DIR... [options]",
        "Runs the golden cases in these directories (case.json, model/, inputs.safetensors, expected.safetensors: what an "
        "official\n"
        "implementation computed) through the real model and session code, and prints for every tensor the largest deviation, in\n"
        "units of the tensor's root mean square; for forecasts in units of the series' standard deviation. Fails when one exceeds "
        "the\n"
        "tolerance. Cases of models that this build does not know are counted as skipped.\n"
        "\n"
        "  barcast verify goldens/toto1 --batch 4 --context 1024",
        table, sizeof table / sizeof *table};
    tally_t tally = {{0}};
    int first, parsed = options_parse(&spec, argc, argv, &first);

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (first >= argc || (strcmp(graphs, "on") != 0 && strcmp(graphs, "off") != 0)) {
        fprintf(stderr, "usage: %s\n", spec.usage);
        return 2;
    }
    run.graphs = strcmp(graphs, "on") == 0;
    if (device_open(device, precision, threads, &run.backend, &run.precision) < 0) {
        fprintf(stderr, "verify: %s\n", error_text());
        return 1;
    }
    if (run.tolerance <= 0)
        run.tolerance = run.precision == BACKEND_F32 ? 1e-4 : 0.05;
    printf("on %s, %s, tolerance %.0e\n", backend_name(run.backend), run.precision == BACKEND_F32 ? "fp32" : "bf16", run.tolerance);
    for (int i = first; i < argc; i++)
        walk(&run, argv[i], &tally);
    backend_close(run.backend);
    return report(&tally);
}
