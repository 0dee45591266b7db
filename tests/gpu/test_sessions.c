/* Sessions on the GPU: a thousand mixed requests after they opened make no allocation and no capture, and give the bytes of an eager twin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/model/families.h"

enum { SHAPES = 5, REQUESTS = 1000, SKIPPED = 77 };

static const model_shape_t shapes[SHAPES] = {
    {.batch = 1, .variates = 1, .context = 128, .horizon = 16, .samples = 64, .quantile_count = 3, .quantiles = {0.1f, 0.5f, 0.9f}},
    {.batch = 1, .variates = 2, .context = 96, .horizon = 40, .samples = 16, .quantile_count = 1, .quantiles = {0.5f}},
    {.batch = 8, .variates = 1, .context = 128, .horizon = 33},
    {.batch = 32, .variates = 1, .context = 64, .horizon = 16, .samples = 8, .quantile_count = 1, .quantiles = {0.5f}},
    {.batch = 100, .variates = 1, .context = 64, .horizon = 8, .quantile_count = 3, .quantiles = {0.1f, 0.5f, 0.9f}},
};

static char directory[] = "/tmp/barcast-test-sessions-XXXXXX";
static uint32_t random_state = 1;

static uint32_t random_below(uint32_t most)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % most;
}

static void must(int rc)
{
    if (rc < 0)
        fail_msg("%s", error_text());
}

/* Random walks, some shorter than the context; the same values into both twins. */
static void fill(session_t *session, session_t *twin, uint32_t count)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input[] = {session_input(session), session_input(twin)};

    for (uint32_t series = 0; series < count; series++) {
        uint32_t length = random_below(3) == 0 ? 1 + random_below(shape->context) : shape->context;
        uint64_t key = random_below(1u << 20);
        for (int side = 0; side < 2; side++) {
            input[side]->length[series] = length;
            input[side]->key[series] = key;
        }
        for (uint32_t v = 0; v < shape->variates; v++) {
            size_t row = (size_t)series * shape->variates + v;
            float price = 100;
            for (uint32_t t = 0; t < shape->context; t++) {
                bool real = t >= shape->context - length;
                price *= 1 + ((float)random_below(2001) - 1000) * 1e-5f;
                for (int side = 0; side < 2; side++) {
                    input[side]->values[row * shape->context + t] = real ? price : 0;
                    input[side]->mask[row * shape->context + t] = real;
                }
            }
            input[0]->group[row] = input[1]->group[row] = 0;
            input[0]->log_price[row] = input[1]->log_price[row] = 1;
        }
    }
}

static void same_bytes(const session_t *session, const session_t *twin, uint32_t count)
{
    const model_shape_t *shape = session_shape(session);
    const model_output_t *replayed = session_output(session), *eager = session_output(twin);
    size_t rows = (size_t)count * shape->variates, horizon = shape->horizon * sizeof(float);

    assert_memory_equal(replayed->mean, eager->mean, rows * horizon);
    if (shape->quantile_count > 0)
        assert_memory_equal(replayed->quantiles, eager->quantiles, rows * shape->quantile_count * horizon);
}

static void a_thousand_mixed_requests_allocate_and_capture_nothing(void **state)
{
    backend_t *backend;
    model_t *models[2][2]; /* precision, family */
    session_t *graphs[2][2][SHAPES], *twins[2][2][SHAPES];
    const backend_dtype_t precisions[2] = {BACKEND_F32, BACKEND_BF16};
    char revision[17];

    (void)state;
    must(backend_open(&(backend_options_t){.kind = BACKEND_CUDA}, &backend));
    for (int p = 0; p < 2; p++)
        for (int family = 0; family < 2; family++) {
            must(model_load(backend, family ? "naive" : directory, precisions[p], &models[p][family], revision));
            for (int i = 0; i < SHAPES; i++) {
                model_shape_t shape = shapes[i];
                shape.precision = precisions[p];
                must(session_open(models[p][family], &shape, true, &graphs[p][family][i]));
                must(session_open(models[p][family], &shape, false, &twins[p][family][i]));
            }
        }
    uint64_t allocations = backend_allocation_count(backend);
    size_t free_before, free_after, total;
    must(backend_memory(backend, &free_before, &total));
    for (int request = 0; request < REQUESTS; request++) {
        uint32_t p = random_below(2), family = random_below(4) == 0, i = random_below(SHAPES);
        session_t *session = graphs[p][family][i], *twin = twins[p][family][i];
        uint32_t count = 1 + random_below(shapes[i].batch);
        fill(session, twin, count);
        must(session_run(session, count));
        must(session_run(twin, count));
        same_bytes(session, twin, count);
    }
    must(backend_memory(backend, &free_after, &total));
    assert_int_equal(backend_allocation_count(backend), allocations);
    assert_true(free_after >= free_before);
    for (int p = 0; p < 2; p++)
        for (int family = 0; family < 2; family++) {
            for (int i = 0; i < SHAPES; i++) {
                session_stats_t stats;
                session_stats(graphs[p][family][i], &stats);
                assert_true(stats.graph);
                assert_int_equal(stats.captures, 1);
                session_close(graphs[p][family][i]);
                session_close(twins[p][family][i]);
            }
            model_unload(models[p][family]);
        }
    backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_thousand_mixed_requests_allocate_and_capture_nothing)};

    if (backend_device_count(BACKEND_CUDA) == 0) {
        printf("skipped: no CUDA device\n");
        return SKIPPED;
    }
    if (mkdtemp(directory) == NULL || toto1_create("tiny", 3, directory) < 0)
        return EXIT_FAILURE;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command) == 0 ? failed : EXIT_FAILURE;
}
