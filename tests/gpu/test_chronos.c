/* What only the Chronos families use on the GPU: contexts continued along quantiles, and quantiles over weighted paths. */
#include "tests/gpu/pair.h"

#include <math.h>
#include <stdlib.h>

static void compare_bytes(const pair_t *pair, int64_t count)
{
    uint8_t *cpu = malloc((size_t)count), *gpu = malloc((size_t)count);

    assert_non_null(cpu);
    assert_non_null(gpu);
    pair_read(pair, ON_CPU, cpu);
    pair_read(pair, ON_GPU, gpu);
    assert_memory_equal(cpu, gpu, (size_t)count);
    pair_guards(pair);
    free(cpu);
    free(gpu);
}

static pair_t *mask_of(int64_t count)
{
    pair_t *mask = pair_new("mask", BACKEND_U8, DIMS(count));
    uint8_t *values = malloc((size_t)count);

    assert_non_null(values);
    for (int64_t i = 0; i < count; i++)
        values[i] = random_uniform() < 0.7;
    pair_write(mask, values);
    free(values);
    return mask;
}

/* Known one time in two; a poisoned tensor is all NaN. */
static pair_t *future_of(int64_t rows, int64_t width)
{
    pair_t *future = pair_new("future", BACKEND_F32, DIMS(rows, width));
    float *values = malloc((size_t)(rows * width) * sizeof *values);

    assert_non_null(values);
    for (int64_t i = 0; i < rows * width; i++)
        values[i] = random_uniform() < 0.5 ? (float)random_normal() : NAN;
    pair_write(future, values);
    free(values);
    return future;
}

static void unroll(int64_t series, int64_t variates, int64_t exogenous, int64_t context, int64_t length, int64_t paths,
                   int64_t width, int64_t ahead)
{
    enum { LEVELS = 21 };
    int64_t rows = series * variates, stride = length + ahead + 3, values = rows * paths * (width + ahead);
    pair_t *x = pair_random("x", BACKEND_F32, 1, DIMS(rows, context)), *mask = mask_of(rows * context);
    pair_t *native = pair_random("native", BACKEND_F32, 1, DIMS(rows, LEVELS, stride)),
           *levels = pair_new("levels", BACKEND_I32, DIMS(9));
    pair_t *future = exogenous > 0 ? future_of(series * exogenous, stride) : NULL;
    pair_t *y = pair_new("y", BACKEND_F32, DIMS(values)), *y_mask = pair_new("y mask", BACKEND_U8, DIMS(values));

    pair_write(levels, (int32_t[]){2, 4, 6, 8, 10, 12, 14, 16, 18});
    EACH_SIDE(side)
    {
        pair_ok(backend_unroll(pair_backend[side], &(backend_unroll_t){.x = x->view[side],
                                                                       .mask = mask->view[side],
                                                                       .series = series,
                                                                       .variates = variates,
                                                                       .context = context,
                                                                       .native = &native->view[side],
                                                                       .levels = LEVELS,
                                                                       .length = length,
                                                                       .native_stride = stride,
                                                                       .path_levels = &levels->view[side],
                                                                       .paths = paths,
                                                                       .future = future != NULL ? &future->view[side] : NULL,
                                                                       .exogenous = exogenous,
                                                                       .future_stride = stride,
                                                                       .width = width,
                                                                       .ahead = ahead,
                                                                       .y = y->view[side],
                                                                       .y_mask = y_mask->view[side]}));
    }
    pair_compare(y, 0);
    compare_bytes(y_mask, values);
}

static void contexts_are_continued_along_their_paths(void **state)
{
    (void)state;
    unroll(1, 1, 0, 16, 24, 9, 32, 0);
    unroll(3, 4, 2, 100, 64, 9, 90, 16);
    unroll(2, 3, 1, 33, 0, 1, 33, 10);
    unroll(2, 1, 0, 20, 24, 9, 48, 0);
}

static void weighted(int64_t series, int64_t paths, int64_t variates, int64_t levels, int64_t length)
{
    int64_t count = paths * levels;
    pair_t *x = pair_random("x", BACKEND_F32, 3, DIMS(series, paths, variates, levels, length));
    pair_t *weights = pair_new("weights", BACKEND_F32, DIMS(count)), *asked = pair_new("asked", BACKEND_F32, DIMS(5));
    pair_t *y = pair_new("y", BACKEND_F32, DIMS(series * variates * 5, length));
    float *share = malloc((size_t)count * sizeof *share), sum = 0;

    assert_non_null(share);
    for (int64_t i = 0; i < count; i++)
        sum += share[i] = 0.1f + (float)random_uniform();
    for (int64_t i = 0; i < count; i++)
        share[i] /= sum;
    pair_write(weights, share);
    pair_write(asked, (float[]){0.001f, 0.1f, 0.5f, 0.83f, 0.999f});
    EACH_SIDE(side)
    {
        pair_ok(backend_weighted_quantiles(pair_backend[side], &(backend_weighted_quantiles_t){.x = x->view[side],
                                                                                               .series = series,
                                                                                               .paths = paths,
                                                                                               .variates = variates,
                                                                                               .levels = levels,
                                                                                               .length = length,
                                                                                               .weights = weights->view[side],
                                                                                               .asked = asked->view[side],
                                                                                               .y = y->view[side]}));
    }
    pair_compare(y, 1e-5);
    free(share);
}

static void weighted_quantiles_agree_with_the_cpu(void **state)
{
    (void)state;
    weighted(1, 9, 1, 21, 16);
    weighted(3, 9, 2, 21, 100);
    weighted(2, 1, 3, 1, 7);
    weighted(1, 16, 1, 64, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(contexts_are_continued_along_their_paths),
        pair_test(weighted_quantiles_agree_with_the_cpu),
    };

    if (pair_no_gpu())
        return PAIR_SKIPPED;
    return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
