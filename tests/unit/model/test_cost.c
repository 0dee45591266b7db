/* What a forecast costs, against numbers counted by hand for the tiny Toto. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "gpuworker/model/toto1.h"

/* Embedding 64 x 16, four layers of 4 · 64 · 64 + 3 · 128 · 64, a head of 16 · 4 · 4 x 64; the vectors beside them. */
enum { MATRICES = 1024 + 4 * 40960 + 16384, VECTORS = 64 + 4 * 704 + 256 };

static model_t tiny(backend_dtype_t precision)
{
    return (model_t){.config = {.patch = 16,
                                .width = 64,
                                .layers = 4,
                                .heads = 2,
                                .hidden = 128,
                                .components = 4,
                                .space_every = 4,
                                .space_first = false},
                     .base.precision = precision};
}

/* 3 tokens in, 3 passes; 6 rows and 30 paths. */
static const model_shape_t shape = {
    .batch = 2, .variates = 3, .context = 48, .horizon = 40, .samples = 5, .quantile_count = 9, .discard_samples = true};

static void every_pass_reads_all_weights_once(void **state)
{
    model_t f32 = tiny(BACKEND_F32), bf16 = tiny(BACKEND_BF16);
    model_cost_t cost;

    (void)state;
    toto1_cost(&f32, &shape, &cost);
    assert_int_equal((int64_t)cost.weight_bytes, 3 * 4 * (MATRICES + VECTORS));
    toto1_cost(&bf16, &shape, &cost);
    assert_int_equal((int64_t)cost.weight_bytes, 3 * (2 * MATRICES + 4 * VECTORS));
}

static void samples_share_the_reading_of_their_prefix(void **state)
{
    model_t model = tiny(BACKEND_F32);
    model_cost_t cost;
    /* 18 prefix tokens written once and read by two steps; each of 30 paths writes two of its own and reads the first one again */
    int64_t tokens = 18 * 3 + 30 * 2 + 30;

    (void)state;
    toto1_cost(&model, &shape, &cost);
    assert_int_equal((int64_t)cost.cache_bytes, tokens * 3 /* layers over time */ * 2 * 64 * 4);
}

static void products_and_attention_are_counted_for_every_token(void **state)
{
    model_t model = tiny(BACKEND_F32);
    model_cost_t cost;
    int64_t tokens = 18 + 30 * 2, heads = 6 + 30 * 2;
    int64_t products = tokens * 2 * (1024 + 4 * 40960) + heads * 2 * 16384;
    int64_t seen_over_time = 6 * (1 + 2 + 3) + 30 * (4 + 5), seen_over_variates = tokens * 3;

    (void)state;
    toto1_cost(&model, &shape, &cost);
    assert_int_equal((int64_t)cost.flops, products + 4 * 64 * (3 * seen_over_time + seen_over_variates));
}

static void published_paths_are_moved_too(void **state)
{
    model_t model = tiny(BACKEND_F32);
    model_shape_t published = shape;
    model_cost_t cost;

    (void)state;
    toto1_cost(&model, &shape, &cost);
    assert_int_equal((int64_t)cost.io_bytes, 6 * (48 * 5 + 40 * 4 * 10));
    published.discard_samples = false;
    toto1_cost(&model, &published, &cost);
    assert_int_equal((int64_t)cost.io_bytes, 6 * (48 * 5 + 40 * 4 * 15));
}

static void one_pass_reads_what_a_loaded_model_holds(void **state)
{
    model_shape_t short_shape = shape;
    char dir[] = "/tmp/barcast-test-cost-XXXXXX", path[64], revision[17];
    backend_t *backend;
    model_t *model;
    model_info_t info;
    model_cost_t cost;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(toto1_create("tiny", 1, dir), 0);
    assert_int_equal(backend_open(&(backend_options_t){.kind = BACKEND_CPU}, &backend), 0);
    assert_int_equal(model_load(backend, dir, BACKEND_F32, &model, revision), 0);
    short_shape.horizon = 16;
    model_info(model, &info);
    model_family(model)->cost(model, &short_shape, &cost);
    assert_int_equal((int64_t)cost.weight_bytes, (int64_t)info.weight_bytes);
    model_unload(model);
    backend_close(backend);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

static void naive_only_moves_bars_and_results(void **state)
{
    model_cost_t cost;

    (void)state;
    naive_family.cost(NULL, &shape, &cost);
    assert_int_equal((int64_t)cost.io_bytes, 6 * (48 * 5 + 40 * 4 * 10));
    assert_int_equal((int64_t)(cost.weight_bytes + cost.cache_bytes + cost.flops), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pass_reads_all_weights_once),
        cmocka_unit_test(samples_share_the_reading_of_their_prefix),
        cmocka_unit_test(products_and_attention_are_counted_for_every_token),
        cmocka_unit_test(published_paths_are_moved_too),
        cmocka_unit_test(one_pass_reads_what_a_loaded_model_holds),
        cmocka_unit_test(naive_only_moves_bars_and_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
