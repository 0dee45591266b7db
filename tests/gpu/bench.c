#include "tests/gpu/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"

enum { REPLAYS = 15 };

backend_t *bench_gpu;

void bench_need(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "%s\n", error_text());
        exit(1);
    }
}

backend_tensor_t bench_tensor(backend_dtype_t dtype, int rank, const int64_t *dim)
{
    backend_tensor_t result;

    bench_need(backend_alloc(bench_gpu, "tensor", dtype, rank, dim, &result));
    return result;
}

void bench_randomise(const backend_tensor_t *to)
{
    int64_t elements = backend_tensor_elements(to);
    uint16_t *values = malloc((size_t)elements * backend_dtype_bytes(to->dtype));
    int64_t halves = elements * (int64_t)backend_dtype_bytes(to->dtype) / 2;
    uint32_t state = 1;

    for (int64_t i = 0; i < halves; i++) {
        state = state * 1664525 + 1013904223;
        values[i] = (uint16_t)((state >> 16 & 0x80ff) | 0x3c00); /* +-0.008 to 0.03 as BF16, and as the upper half of an F32 */
    }
    bench_need(backend_write(bench_gpu, to, values));
    free(values);
}

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_measure(bench_enqueue_t enqueue, void *context, int nodes)
{
    double us[REPLAYS];
    backend_graph_t *graph;

    for (int i = 0; i < nodes; i++)
        enqueue(context, i);
    bench_need(backend_synchronize(bench_gpu));
    bench_need(backend_graph_begin(bench_gpu));
    for (int i = 0; i < nodes; i++)
        enqueue(context, i);
    bench_need(backend_graph_end(bench_gpu, &graph));
    for (int i = -2; i < REPLAYS; i++) {
        double start = now_us();

        bench_need(backend_graph_launch(bench_gpu, graph));
        bench_need(backend_synchronize(bench_gpu));
        if (i >= 0)
            us[i] = (now_us() - start) / nodes;
    }
    backend_graph_free(bench_gpu, graph);
    qsort(us, REPLAYS, sizeof *us, by_size);
    return us[REPLAYS / 2];
}

void bench_report(const char *name, int64_t rows, double us, double bytes, double operations)
{
    printf("%-24s %7lld rows %10.2f us %8.0f GB/s %8.1f TFLOP/s\n", name, (long long)rows, us, bytes / us / 1e3,
           operations / us / 1e6);
}
