/* What the op tests stand on: a CPU backend, seeded numbers, and tensors with guard words on both sides, so that an op that writes outside its
 * output is caught. One test at a time; bench_close checks all guards and frees everything. */
#ifndef BARCAST_TESTS_UNIT_BACKEND_DEVICE_BENCH_H
#define BARCAST_TESTS_UNIT_BACKEND_DEVICE_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "gpuworker/backend/backend.h"

backend_t *bench_open(uint64_t seed);
void bench_close(void);

/* Uniform in [-1, 1); whole number in [least, most]. */
float bench_random(void);
int64_t bench_pick(int64_t least, int64_t most);
/* malloc'ed, freed by bench_close. */
float *bench_numbers(int64_t count);

/* A tensor of `count` elements between guards; `values` NULL: filled with a number that no op gives. */
backend_tensor_t bench_f32(const float *values, int64_t count);
backend_tensor_t bench_i32(const int32_t *values, int64_t count);
backend_tensor_t bench_any(backend_dtype_t dtype, const void *values, int64_t count);
/* The same with a shape. */
backend_tensor_t bench_shaped(backend_tensor_t tensor, int rank, const int64_t *dim);
backend_weight_t bench_weight(const float *values, int64_t out, int64_t in); /* in 0: a vector */

/* The tensor's elements, freed by bench_close. */
float *bench_read(const backend_tensor_t *tensor);

/* Every |got - wanted| at most `bound` times the root mean square of `wanted` (at least 1e-6). */
#define bench_assert_close(got, wanted, count, bound) bench_close_at((got), (wanted), (count), (bound), __FILE__, __LINE__)
void bench_close_at(const float *got, const double *wanted, int64_t count, double bound, const char *file, int line);

#endif
