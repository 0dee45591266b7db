/* Sundial's forecasts, of the seeded tiny checkpoint: what they look like, and what they must not depend on. Numbers are verified elsewhere
 * (unit/engine/test_verify.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/model/families.h"
#include "gpuworker/model/sundial.h"

/* The tiny model gives 64 bars a round from tokens of 16. */
enum { BARS = 150, HORIZON = 100, SAMPLES = 20, QUANTILES = 5, SERIES = 5 };

/* Series vary around 5 by about 1: deviations are compared in units of that. */
static const float BOUND = 2e-5f;

typedef struct {
    backend_t *backend;
    model_t *model;
    char dir[64];
} world_t;

static void remove_checkpoint(const char *dir)
{
    char path[128];

    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

static int open_world(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};
    world_t *world = calloc(1, sizeof *world);
    char revision[17];

    strcpy(world->dir, "/tmp/barcast-sundial-XXXXXX");
    assert_non_null(mkdtemp(world->dir));
    assert_int_equal(sundial_create("tiny", 3, world->dir), MODEL_OK);
    assert_int_equal(backend_open(&options, &world->backend), BACKEND_OK);
    assert_int_equal(model_load(world->backend, world->dir, BACKEND_F32, &world->model, revision), MODEL_OK);
    *state = world;
    return 0;
}

static int close_world(void **state)
{
    world_t *world = *state;

    model_unload(world->model);
    assert_int_equal(backend_allocated_bytes(world->backend), 0);
    backend_close(world->backend);
    remove_checkpoint(world->dir);
    free(world);
    return 0;
}

static model_shape_t shape_of(uint32_t batch, uint32_t context)
{
    return (model_shape_t){.batch = batch,
                           .variates = 1,
                           .context = context,
                           .horizon = HORIZON,
                           .samples = SAMPLES,
                           .quantile_count = QUANTILES,
                           .quantiles = {0.05f, 0.3f, 0.5f, 0.7f, 0.95f}};
}

static session_t *open_session(const world_t *world, model_shape_t shape)
{
    session_t *session;

    if (session_open(world->model, &shape, true, &session) != SESSION_OK)
        fail_msg("%s", error_text());
    return session;
}

/* Bar `age` bars before the newest of series `number`. */
static float bar(uint32_t number, uint32_t age)
{
    return 5 + sinf(0.07f * (float)age + (float)number) + 0.5f * sinf(1.3f * (float)(age * (number + 1)));
}

/* Series `number`, always the same, at place `slot` and variate: its newest `bars` bars. */
static void fill(session_t *session, uint32_t slot, uint32_t variate, uint32_t number, uint32_t bars)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input = session_input(session);
    size_t row = (size_t)slot * shape->variates + variate, end = (row + 1) * shape->context;

    memset(input->values + row * shape->context, 0, shape->context * sizeof *input->values);
    memset(input->mask + row * shape->context, 0, shape->context);
    for (uint32_t age = 0; age < bars; age++) {
        input->values[end - 1 - age] = bar(number, age);
        input->mask[end - 1 - age] = 1;
    }
    input->length[slot] = bars;
    input->key[slot] = model_random_key(1, "series", number);
}

static void run(session_t *session, uint32_t count)
{
    if (session_run(session, count) != SESSION_OK)
        fail_msg("%s", error_text());
}

/* The samples of series 0 in a session of its own, the caller's. */
static float *alone(const world_t *world, uint32_t number, uint32_t bars)
{
    session_t *session = open_session(world, shape_of(1, bars));
    size_t bytes = SAMPLES * HORIZON * sizeof(float);
    float *samples = malloc(bytes);

    fill(session, 0, 0, number, bars);
    run(session, 1);
    memcpy(samples, session_output(session)->samples, bytes);
    session_close(session);
    return samples;
}

static void assert_near(const float *got, const float *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(got[i] - wanted[i]) <= BOUND))
            fail_msg("value %zu is %.7g, expected %.7g", i, (double)got[i], (double)wanted[i]);
}

static void forecasts_continue_the_series_and_fan_out(void **state)
{
    session_t *session = open_session(*state, shape_of(SERIES, BARS));
    const model_output_t *output = session_output(session);

    for (uint32_t i = 0; i < SERIES; i++)
        fill(session, i, 0, i, BARS);
    run(session, SERIES);
    for (uint32_t i = 0; i < SERIES; i++) {
        const float *levels = output->quantiles + (size_t)i * QUANTILES * HORIZON,
                    *highest = levels + (size_t)(QUANTILES - 1) * HORIZON;

        assert_true(fabsf(output->mean[i * HORIZON] - bar(i, 0)) < 0.7f);
        assert_true(highest[63] - levels[63] > 1.5f * (highest[0] - levels[0])); /* the round's last bar */
        for (uint32_t h = 0; h < HORIZON; h++)
            assert_true(fabsf(output->mean[i * HORIZON + h] - 5) < 4);
    }
    session_close(session);
}

static void quantiles_never_cross_and_lie_among_the_samples(void **state)
{
    session_t *session = open_session(*state, shape_of(SERIES, BARS));
    const model_output_t *output = session_output(session);

    for (uint32_t i = 0; i < SERIES; i++)
        fill(session, i, 0, i, BARS);
    run(session, SERIES);
    for (uint32_t i = 0; i < SERIES; i++)
        for (uint32_t h = 0; h < HORIZON; h++) {
            float least = INFINITY, most = -INFINITY, before = -INFINITY;

            for (uint32_t s = 0; s < SAMPLES; s++) {
                least = fminf(least, output->samples[(i * SAMPLES + s) * output->sample_stride + h]);
                most = fmaxf(most, output->samples[(i * SAMPLES + s) * output->sample_stride + h]);
            }
            for (uint32_t q = 0; q < QUANTILES; q++) {
                float value = output->quantiles[(i * QUANTILES + q) * HORIZON + h];

                assert_true(value >= before && value >= least && value <= most);
                before = value;
            }
            assert_true(output->mean[i * HORIZON + h] >= least && output->mean[i * HORIZON + h] <= most);
        }
    session_close(session);
}

static void the_same_inputs_give_the_same_bytes(void **state)
{
    session_t *session = open_session(*state, shape_of(2, BARS));
    const model_output_t *output = session_output(session);
    size_t bytes = 2 * SAMPLES * HORIZON * sizeof(float);
    float *first = malloc(bytes);

    fill(session, 0, 0, 0, BARS);
    fill(session, 1, 0, 1, BARS);
    run(session, 2);
    memcpy(first, output->samples, bytes);
    fill(session, 0, 0, 4, 20);
    run(session, 1); /* places that are not filled repeat the first one */
    fill(session, 0, 0, 0, BARS);
    fill(session, 1, 0, 1, BARS);
    run(session, 2);
    assert_memory_equal(first, output->samples, bytes);
    session_input(session)->key[0]++;
    run(session, 2);
    assert_memory_not_equal(first, output->samples, bytes / 2);
    assert_memory_equal(first + SAMPLES * HORIZON, output->samples + SAMPLES * HORIZON, bytes / 2);
    free(first);
    session_close(session);
}

static void batch_mates_and_leading_padding_do_not_matter(void **state)
{
    static const uint32_t lengths[SERIES] = {BARS, 16, 97, 1, 240};
    session_t *session = open_session(*state, shape_of(SERIES, 240));
    const model_output_t *output = session_output(session);

    for (uint32_t i = 0; i < SERIES; i++)
        fill(session, i, 0, i, lengths[i]);
    run(session, SERIES);
    for (uint32_t i = 0; i < SERIES; i++) {
        float *wanted = alone(*state, i, lengths[i]);

        assert_near(output->samples + (size_t)i * SAMPLES * HORIZON, wanted, SAMPLES * HORIZON);
        free(wanted);
    }
    session_close(session);
}

/* A thousand times the usual rows: the modulations of the steps are computed in chunks. */
static void a_batch_whose_modulations_do_not_fit_at_once_gives_the_same(void **state)
{
    enum { BATCH = 7000, HERE = 6900, SHORT = 16 };
    model_shape_t shape = shape_of(BATCH, SHORT), small = shape_of(1, SHORT);
    session_t *session, *one;

    shape.samples = small.samples = 2;
    shape.horizon = small.horizon = SHORT;
    session = open_session(*state, shape);
    one = open_session(*state, small);
    for (uint32_t i = 0; i < BATCH; i++)
        fill(session, i, 0, i % 7, SHORT);
    fill(one, 0, 0, HERE % 7, SHORT);
    run(session, BATCH);
    run(one, 1);
    assert_near(session_output(session)->samples + HERE * 2 * SHORT, session_output(one)->samples, 2 * SHORT);
    session_close(session);
    session_close(one);
}

/* The first variate of two is the series alone; the second one, though equal, has noise of its own. */
static void variates_are_series_of_their_own(void **state)
{
    model_shape_t shape = shape_of(2, BARS);
    session_t *session;
    float *wanted = alone(*state, 1, BARS);

    shape.variates = 2;
    session = open_session(*state, shape);
    for (uint32_t v = 0; v < 2; v++) {
        fill(session, 0, v, 3, BARS);
        fill(session, 1, v, 1, BARS);
    }
    run(session, 2);
    for (uint32_t s = 0; s < SAMPLES; s++) {
        const float *both = session_output(session)->samples + (size_t)(SAMPLES + s) * 2 * HORIZON;

        assert_near(both, wanted + (size_t)s * HORIZON, HORIZON);
        assert_memory_not_equal(both, both + HORIZON, HORIZON * sizeof *both);
    }
    free(wanted);
    session_close(session);
}

static void missing_bars_are_left_out_of_the_scale(void **state)
{
    session_t *session = open_session(*state, shape_of(1, BARS));
    model_input_t *input = session_input(session);
    uint32_t context = session_shape(session)->context;

    fill(session, 0, 0, 0, BARS);
    for (uint32_t t = 40; t < 60; t++)
        input->mask[context - t] = 0, input->values[context - t] = 0;
    run(session, 1);
    assert_true(fabsf(session_output(session)->mean[0] - bar(0, 0)) < 0.7f);
    memset(input->mask, 0, context);
    memset(input->values, 0, context * sizeof *input->values);
    run(session, 1);
    for (uint32_t h = 0; h < HORIZON; h++)
        assert_true(fabsf(session_output(session)->mean[h]) < 4);
    session_close(session);
}

static void ignore(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim)
{
    (void)name, (void)step, (void)values, (void)rank, (void)dim;
    ++*(int *)context;
}

/* Unseen, the last layer computes the last tokens only. */
static void a_tap_does_not_change_the_forecast(void **state)
{
    session_t *session = open_session(*state, shape_of(1, BARS));
    float *wanted = alone(*state, 2, BARS);
    int seen = 0;

    fill(session, 0, 0, 2, BARS);
    assert_int_equal(session_set_tap(session, ignore, &seen), SESSION_OK);
    run(session, 1);
    assert_true(seen > 50);
    assert_near(session_output(session)->samples, wanted, SAMPLES * HORIZON);
    free(wanted);
    session_close(session);
}

static void shapes_that_it_cannot_do_are_refused(void **state)
{
    const world_t *world = *state;
    session_t *session;
    model_shape_t shape = shape_of(1, BARS);

    shape.samples = 0;
    assert_int_equal(session_open(world->model, &shape, true, &session), SESSION_ERR_SHAPE);
    assert_non_null(strstr(error_text(), "samples is 0"));
    shape = shape_of(1, BARS);
    shape.variates = 2;
    shape.exogenous = 1;
    assert_int_equal(session_open(world->model, &shape, true, &session), SESSION_ERR_SHAPE);
    assert_non_null(strstr(error_text(), "known in the future"));
    shape = shape_of(1, BARS);
    shape.precision = BACKEND_BF16;
    assert_int_equal(session_open(world->model, &shape, true, &session), SESSION_ERR_SHAPE);
}

static void the_seed_decides_the_checkpoint(void **state)
{
    char dir[] = "/tmp/barcast-sundial-XXXXXX", revision[2][17];
    const world_t *world = *state;

    assert_non_null(mkdtemp(dir));
    for (uint64_t seed = 3; seed <= 4; seed++) {
        checkpoint_t *checkpoint;

        assert_int_equal(sundial_create("tiny", seed, dir), MODEL_OK);
        assert_int_equal(checkpoint_open(dir, &checkpoint), CHECKPOINT_OK);
        strcpy(revision[seed - 3], checkpoint_revision(checkpoint));
        checkpoint_close(checkpoint);
    }
    remove_checkpoint(dir);
    assert_string_not_equal(revision[0], revision[1]);
    {
        checkpoint_t *checkpoint;

        assert_int_equal(checkpoint_open(world->dir, &checkpoint), CHECKPOINT_OK);
        assert_string_equal(checkpoint_revision(checkpoint), revision[0]);
        checkpoint_close(checkpoint);
    }
    assert_int_equal(sundial_create("huge", 1, dir), MODEL_ERR_SHAPE);
}

/* The tiny model: patches of 16 into 64 channels, 128 hidden, 2 layers, 64 bars a round, 2 blocks, 10 steps. Two rounds, two samples. */
static void the_cost_is_that_of_all_passes_and_steps(void **state)
{
    enum { W = 64 * 64, DECODER = 128 * 32 + 64 * (32 + 128) + 2 * (4 * W + 3 * 128 * 64), ONCE = 9 * W + W, STEP = 4 * W + 2 * W };
    const world_t *world = *state;
    model_shape_t shape = shape_of(3, 80);
    model_cost_t cost;
    double tokens = 5 + 4, pairs = 3 * tokens * (tokens + 1) / 2, rows = 3, paths = 6;

    shape.samples = 2;
    sundial_cost(world->model, &shape, &cost);
    assert_int_equal((int64_t)cost.weight_bytes, 2 * 4 * (DECODER + ONCE + 10 * STEP));
    assert_int_equal((int64_t)cost.cache_bytes, (5 + 4 + 5) * 3 * 2 /* layers */ * 2 * 64 * 4);
    assert_int_equal((int64_t)cost.flops,
                     (int64_t)(2 * (rows * tokens * DECODER + rows * 2 * W * (1 + 10 * 8) + paths * 2 * (2 * W + 10 * STEP)) +
                               4 * 2 * 64 * pairs));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forecasts_continue_the_series_and_fan_out),
        cmocka_unit_test(quantiles_never_cross_and_lie_among_the_samples),
        cmocka_unit_test(the_same_inputs_give_the_same_bytes),
        cmocka_unit_test(batch_mates_and_leading_padding_do_not_matter),
        cmocka_unit_test(a_batch_whose_modulations_do_not_fit_at_once_gives_the_same),
        cmocka_unit_test(variates_are_series_of_their_own),
        cmocka_unit_test(missing_bars_are_left_out_of_the_scale),
        cmocka_unit_test(a_tap_does_not_change_the_forecast),
        cmocka_unit_test(shapes_that_it_cannot_do_are_refused),
        cmocka_unit_test(the_seed_decides_the_checkpoint),
        cmocka_unit_test(the_cost_is_that_of_all_passes_and_steps),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
