/* What the benchmarks of GPU ops share: buffers of random numbers, and the time of an op inside a replayed graph. Errors end the process. */
#ifndef BARCAST_TESTS_GPU_BENCH_H
#define BARCAST_TESTS_GPU_BENCH_H

#include "gpuworker/backend/backend.h"

#define DIMS(...)                                                                                                                  \
    (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                             \
    {                                                                                                                              \
        __VA_ARGS__                                                                                                                \
    }

enum { BENCH_NODES = 48 };

extern backend_t *bench_gpu;

void bench_need(int rc);
backend_tensor_t bench_tensor(backend_dtype_t dtype, int rank, const int64_t *dim);
void bench_randomise(const backend_tensor_t *to); /* small numbers; random, for a product runs faster on zeros */

/* Median microseconds of one of `nodes` ops in a replayed graph. */
typedef void (*bench_enqueue_t)(void *context, int number);
double bench_measure(bench_enqueue_t enqueue, void *context, int nodes);

/* A line: bytes that the op must move, operations that it must do; 0: not told. */
void bench_report(const char *name, int64_t rows, double us, double bytes, double operations);

#endif
