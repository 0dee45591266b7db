/* What the benchmarks share: each checks its results first, then prints figures with the machine and the commit. */
#ifndef BARCAST_TOOLS_BENCH_H
#define BARCAST_TOOLS_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* One file each; exit status as in command.h. */
int bench_ring(int argc, char **argv);
int bench_pipeline(int argc, char **argv);
int bench_engine(int argc, char **argv);

typedef struct {
    double p50, p99, p999, max;
} bench_figures_t;

/* Of `count` values, at least one; sorts them. */
bench_figures_t bench_figures(int64_t *values, size_t count);

/* Processor, its cores, kernel, load and the commit of this build: one line of text, or members of a JSON object (without braces). */
void bench_print_machine(FILE *to);
void bench_print_machine_json(FILE *to);

#endif
