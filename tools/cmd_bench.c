/* barcast bench: what this machine does. */
#include "tools/command.h"

#include "base/text.h"
#include "tools/bench.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} benches[] = {
    {"ring", bench_ring, "bars through a ring of shared memory, beside Concurrency Kit's"},
    {"engine", bench_engine, "a model's forecasts alone, against what this machine could do at best"},
    {"pipeline", bench_pipeline, "bar stored to forecast received, through all processes"},
};

enum { BENCH_COUNT = sizeof benches / sizeof *benches };

int cmd_bench(int argc, char **argv)
{
    const char *names[BENCH_COUNT];
    for (int i = 0; i < BENCH_COUNT; i++) {
        names[i] = benches[i].name;
        if (argc > 1 && strcmp(argv[1], names[i]) == 0)
            return benches[i].run(argc - 1, argv + 1);
    }
    bool help = argc > 1 && strcmp(argv[1], "--help") == 0;
    FILE *to = help ? stdout : stderr;
    if (argc > 1 && !help) {
        const char *nearest = text_nearest(argv[1], names, BENCH_COUNT);
        fprintf(to, "barcast bench: no benchmark \"%s\"%s%s%s\n", argv[1], nearest ? "; did you mean " : "", nearest ? nearest : "",
                nearest ? "?" : "");
    }
    fprintf(to, "usage: barcast bench NAME [options]\n\nEach checks its results before it prints figures.\n\n");
    for (int i = 0; i < BENCH_COUNT; i++)
        fprintf(to, "  %-10s %s\n", names[i], benches[i].about);
    return help ? 0 : 2;
}
