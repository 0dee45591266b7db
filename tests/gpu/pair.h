/* Tests of the CUDA backend against the CPU backend: every tensor exists on both, with guard bytes around it.
 *
 * A pair is made, filled, used by the same op on both backends, and compared. On the CPU it is F32 where the GPU has BF16; what
 * is written is rounded to BF16 first, so that both compute from the same numbers. Before it is filled, a tensor is poisoned
 * with NaN; the guards in front of and behind it are NaN too, so that an op which reads past its input shows in its output, and
 * one which writes past its output shows in the guards. */
#ifndef BARCAST_TESTS_GPU_PAIR_H
#define BARCAST_TESTS_GPU_PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpuworker/backend/backend.h"

enum { ON_CPU, ON_GPU, SIDES };

#define DIMS(...)                                                                                                                  \
    (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                             \
    {                                                                                                                              \
        __VA_ARGS__                                                                                                                \
    }
#define EACH_SIDE(side) for (int side = ON_CPU; side < SIDES; side++)

typedef struct {
    char name[32];
    backend_dtype_t dtype;         /* on the GPU */
    backend_tensor_t whole[SIDES]; /* with guards, U8 */
    backend_tensor_t view[SIDES];
} pair_t;

typedef struct {
    backend_weight_t side[SIDES];
} weight_pair_t;

/* Says so and returns true where there is no GPU: then main returns PAIR_SKIPPED, ctest's code for a skipped test. */
enum { PAIR_SKIPPED = 77 };
bool pair_no_gpu(void);

/* Setup and teardown of a group: opens and closes both backends. */
int pair_setup(void **state);
int pair_teardown(void **state);

/* Setup and teardown of each test: starts the random numbers anew, frees what the test made. */
int pair_test_begin(void **state);
int pair_test_end(void **state);
#define pair_test(function) cmocka_unit_test_setup_teardown(function, pair_test_begin, pair_test_end)

extern backend_t *pair_backend[SIDES];

/* Is the GPU the CPU in disguise (emulation/emulation.h), to which the largest cases would take minutes? */
bool pair_is_emulated(void);

/* Fails the test with error_text() when rc is not 0. */
void pair_ok(int rc);

pair_t *pair_new(const char *name, backend_dtype_t dtype, int rank, const int64_t *dim);
void pair_write(pair_t *pair, const void *values);           /* elements as float where dtype is F32 or BF16, else as they are */
void pair_normal(pair_t *pair, float mean, float deviation); /* F32, BF16: normal random numbers */
pair_t *pair_random(const char *name, backend_dtype_t dtype, float deviation, int rank, const int64_t *dim);
weight_pair_t *pair_weight(const char *name, backend_dtype_t dtype, float mean, float deviation, int rank, const int64_t *dim);

/* What the GPU's tensor holds, as float where dtype is F32 or BF16, else as it is. `into` has room for all elements. */
void pair_read(const pair_t *pair, int side, void *into);

/* Fails unless ‖gpu - cpu‖ <= tolerance · ‖cpu‖, all is finite (`NaN never passes`), and the guards of both sides are whole. */
void pair_compare(const pair_t *pair, double tolerance);
void pair_guards(const pair_t *pair);

/* The tests' own random numbers: uniform in (0, 1), and normal. */
double random_uniform(void);
double random_normal(void);

#endif
