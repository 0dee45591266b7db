#include "tools/bench.h"

#include "tools/version.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double quantile(const int64_t *sorted, size_t count, double q)
{
    size_t at = (size_t)(q * (double)count);
    return (double)sorted[at < count ? at : count - 1];
}

bench_figures_t bench_figures(int64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return (bench_figures_t){.p50 = quantile(values, count, 0.5),
                             .p99 = quantile(values, count, 0.99),
                             .p999 = quantile(values, count, 0.999),
                             .max = (double)values[count - 1]};
}

typedef struct {
    char processor[128];
    long cores;
    struct utsname kernel;
    double load;
} machine_t;

static void read_processor(char out[static 128])
{
    strcpy(out, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[512];
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            snprintf(out, 128, "%.*s", (int)strcspn(colon + 2, "\"\\\n"), colon + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

static machine_t read_machine(void)
{
    machine_t machine = {.cores = sysconf(_SC_NPROCESSORS_ONLN)};
    read_processor(machine.processor);
    uname(&machine.kernel);
    getloadavg(&machine.load, 1);
    return machine;
}

void bench_print_machine(FILE *to)
{
    machine_t machine = read_machine();
    fprintf(to, "on %s, %ld cores, Linux %s, load %.1f, commit %s\n", machine.processor, machine.cores, machine.kernel.release,
            machine.load, version_commit());
}

void bench_print_machine_json(FILE *to)
{
    machine_t machine = read_machine();
    fprintf(to, "\"processor\":\"%s\",\"cores\":%ld,\"kernel\":\"%s\",\"load\":%.1f,\"commit\":\"%s\"", machine.processor,
            machine.cores, machine.kernel.release, machine.load, version_commit());
}
