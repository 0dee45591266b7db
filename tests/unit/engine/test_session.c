/* Sessions: what a forecast must not depend on. The model is a small golden checkpoint of three variates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"

#define CHECKPOINT       BARCAST_SOURCE_DIR "/tests/fixtures/golden/toto1/groups/model"
#define KNOWN_CHECKPOINT BARCAST_SOURCE_DIR "/tests/fixtures/golden/toto1/exogenous/model"

enum { VARIATES = 3, BARS = 40, PATCH = 8, HORIZON = 20, SAMPLES = 16, QUANTILES = 3, SERIES = 5 };

/* Series vary around 5 by about 1: deviations are compared in units of that. */
static const double BOUND = 1e-5;

typedef struct {
    backend_t *backend;
    model_t *toto1, *naive;
} world_t;

static int open_world(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};
    world_t *world = calloc(1, sizeof *world);
    char revision[17];

    assert_int_equal(backend_open(&options, &world->backend), BACKEND_OK);
    assert_int_equal(model_load(world->backend, CHECKPOINT, BACKEND_F32, &world->toto1, revision), MODEL_OK);
    assert_int_equal(strlen(revision), 16);
    assert_int_equal(model_load(world->backend, "naive", BACKEND_F32, &world->naive, revision), MODEL_OK);
    *state = world;
    return 0;
}

static int close_world(void **state)
{
    world_t *world = *state;

    model_unload(world->toto1);
    model_unload(world->naive);
    assert_int_equal(backend_allocated_bytes(world->backend), 0);
    backend_close(world->backend);
    free(world);
    return 0;
}

static model_shape_t shape_of(uint32_t batch, uint32_t context, uint32_t samples)
{
    return (model_shape_t){.batch = batch,
                           .variates = VARIATES,
                           .context = context,
                           .horizon = HORIZON,
                           .samples = samples,
                           .quantile_count = QUANTILES,
                           .quantiles = {0.1f, 0.5f, 0.9f}};
}

static session_t *open_session(model_t *model, uint32_t batch, uint32_t context, uint32_t samples)
{
    model_shape_t shape = shape_of(batch, context, samples);
    session_t *session;

    if (session_open(model, &shape, true, &session) != SESSION_OK)
        fail_msg("%s", error_text());
    return session;
}

/* Series `number`, always the same, at place `slot`: its newest `bars` bars. */
static void fill(session_t *session, uint32_t slot, uint32_t number, uint32_t bars)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input = session_input(session);

    for (uint32_t v = 0; v < VARIATES; v++) {
        size_t row = (size_t)slot * VARIATES + v, end = (row + 1) * shape->context;

        memset(input->values + row * shape->context, 0, shape->context * sizeof *input->values);
        memset(input->mask + row * shape->context, 0, shape->context);
        for (uint32_t age = 0; age < bars; age++) {
            input->values[end - 1 - age] =
                5 + sinf(0.37f * (float)age + (float)(number + v)) + 0.5f * sinf(1.3f * (float)(age * (number + 1)));
            input->mask[end - 1 - age] = 1;
        }
        input->group[row] = v == 1;
        input->log_price[row] = 1;
    }
    input->length[slot] = bars;
    input->key[slot] = model_random_key(1, "S", number);
}

static void run(session_t *session, uint32_t count)
{
    if (session_run(session, count) != SESSION_OK)
        fail_msg("%s", error_text());
}

/* One forecast of a series, copied. */
typedef struct {
    float mean[VARIATES * HORIZON], quantiles[VARIATES * QUANTILES * HORIZON], samples[SAMPLES * VARIATES * HORIZON];
} forecast_t;

static forecast_t forecast_at(const session_t *session, uint32_t slot)
{
    const model_output_t *output = session_output(session);
    forecast_t f;

    memcpy(f.mean, output->mean + (size_t)slot * VARIATES * HORIZON, sizeof f.mean);
    memcpy(f.quantiles, output->quantiles + (size_t)slot * VARIATES * QUANTILES * HORIZON, sizeof f.quantiles);
    for (size_t path = 0; path < (size_t)SAMPLES * VARIATES; path++)
        memcpy(f.samples + path * HORIZON, output->samples + ((size_t)slot * SAMPLES * VARIATES + path) * output->sample_stride,
               HORIZON * sizeof(float));
    return f;
}

static void assert_near(const forecast_t *a, const forecast_t *b)
{
    const float *x = a->mean, *y = b->mean; /* the three arrays lie one after the other */

    for (size_t i = 0; i < sizeof *a / sizeof *x; i++)
        if (!(fabs((double)x[i] - (double)y[i]) <= BOUND))
            fail_msg("value %zu is %.9g in one forecast, %.9g in the other", i, (double)x[i], (double)y[i]);
}

static void the_same_call_twice_gives_the_same_bytes(void **state)
{
    world_t *world = *state;
    session_t *session = open_session(world->toto1, 2, BARS, SAMPLES);
    forecast_t first, second;

    fill(session, 0, 0, BARS);
    fill(session, 1, 1, 17);
    run(session, 2);
    first = forecast_at(session, 1);
    fill(session, 0, 3, 9); /* another forecast in between */
    run(session, 1);
    fill(session, 0, 0, BARS);
    fill(session, 1, 1, 17);
    run(session, 2);
    second = forecast_at(session, 1);
    assert_memory_equal(&first, &second, sizeof first);
    session_close(session);
}

static void a_batch_gives_what_its_series_give_alone(void **state)
{
    world_t *world = *state;
    session_t *together = open_session(world->toto1, SERIES, BARS, SAMPLES), *alone = open_session(world->toto1, 1, BARS, SAMPLES);

    for (uint32_t i = 0; i < SERIES; i++)
        fill(together, i, i, BARS - 7 * i);
    run(together, SERIES);
    for (uint32_t i = 0; i < SERIES; i++) {
        forecast_t one, of_many = forecast_at(together, i);

        fill(alone, 0, i, BARS - 7 * i);
        run(alone, 1);
        one = forecast_at(alone, 0);
        assert_near(&one, &of_many);
    }
    session_close(together);
    session_close(alone);
}

static void the_order_of_series_and_padding_rows_do_not_matter(void **state)
{
    world_t *world = *state;
    session_t *session = open_session(world->toto1, SERIES, BARS, SAMPLES);
    forecast_t before, after;

    for (uint32_t i = 0; i < SERIES; i++)
        fill(session, i, i, BARS);
    run(session, SERIES);
    before = forecast_at(session, 2);
    fill(session, 0, 4, 11);
    fill(session, 1, 2, BARS);
    run(session, 2); /* the other three are padding now */
    after = forecast_at(session, 1);
    assert_near(&before, &after);
    session_close(session);
}

static void a_short_series_in_a_longer_session_forecasts_as_in_its_own(void **state)
{
    world_t *world = *state;
    static const uint32_t lengths[] = {1, 8, 13, 40};

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        session_t *own = open_session(world->toto1, 1, lengths[i], SAMPLES), *longer = open_session(world->toto1, 2, 100, SAMPLES);
        forecast_t a, b;

        fill(own, 0, 1, lengths[i]);
        run(own, 1);
        a = forecast_at(own, 0);
        fill(longer, 0, 2, 77);
        fill(longer, 1, 1, lengths[i]);
        run(longer, 2);
        b = forecast_at(longer, 1);
        assert_near(&a, &b);
        session_close(own);
        session_close(longer);
    }
}

static void quantiles_ascend_and_bracket_the_samples(void **state)
{
    world_t *world = *state;
    session_t *session = open_session(world->toto1, 1, BARS, SAMPLES);
    forecast_t f;

    fill(session, 0, 0, BARS);
    run(session, 1);
    f = forecast_at(session, 0);
    for (size_t v = 0; v < VARIATES; v++)
        for (size_t h = 0; h < HORIZON; h++) {
            const float *q = f.quantiles + v * QUANTILES * HORIZON + h;
            size_t below = 0;

            for (size_t s = 0; s < SAMPLES; s++)
                below += f.samples[(s * VARIATES + v) * HORIZON + h] <= q[HORIZON];
            assert_int_equal(below, SAMPLES / 2); /* the median of an even count lies between the two in the middle */
            assert_true(q[0] <= q[HORIZON] && q[HORIZON] <= q[2 * HORIZON]);
        }
    session_close(session);
}

/* Of n independent draws the share at or below the quantile of level q has the standard deviation sqrt(q (1 - q) / n). */
static void without_samples_the_first_patch_has_the_quantiles_that_samples_approach(void **state)
{
    enum { MANY = 4096 };
    world_t *world = *state;
    model_shape_t shape = shape_of(1, BARS, 0);
    session_t *exact, *sampled;

    shape.horizon = PATCH;
    assert_int_equal(session_open(world->toto1, &shape, true, &exact), SESSION_OK);
    shape.samples = MANY;
    assert_int_equal(session_open(world->toto1, &shape, true, &sampled), SESSION_OK);
    fill(exact, 0, 2, BARS);
    fill(sampled, 0, 2, BARS);
    run(exact, 1);
    run(sampled, 1);
    assert_int_equal(session_shape(exact)->quantile_count, QUANTILES);
    for (int v = 0; v < VARIATES; v++)
        for (int h = 0; h < PATCH; h++)
            for (int q = 0; q < QUANTILES; q++) {
                double level = (double)shape.quantiles[q];
                int below = 0;

                for (int s = 0; s < MANY; s++)
                    below +=
                        session_output(sampled)->samples[(s * VARIATES + v) * (int)session_output(sampled)->sample_stride + h] <=
                        session_output(exact)->quantiles[(v * QUANTILES + q) * PATCH + h];
                assert_true(fabs((double)below / MANY - level) < 5 * sqrt(level * (1 - level) / MANY));
            }
    session_close(exact);
    session_close(sampled);
}

static void exact_quantiles_of_a_known_variate_are_its_future(void **state)
{
    world_t *world = *state;
    model_shape_t shape = shape_of(1, BARS, 0);
    char revision[17];
    model_t *model;
    session_t *session;

    shape.variates = 2;
    shape.exogenous = 1;
    shape.horizon = PATCH - 1;
    assert_int_equal(model_load(world->backend, KNOWN_CHECKPOINT, BACKEND_F32, &model, revision), MODEL_OK);
    assert_int_equal(session_open(model, &shape, true, &session), SESSION_OK);
    for (uint32_t i = 0; i < 2 * session_shape(session)->context; i++) {
        session_input(session)->values[i] = sinf((float)i);
        session_input(session)->mask[i] = 1;
    }
    session_input(session)->length[0] = BARS;
    for (uint32_t h = 0; h < shape.horizon; h++)
        session_input(session)->future[h] = 10 + (float)h;
    run(session, 1);
    for (uint32_t q = 0; q < QUANTILES; q++)
        for (uint32_t h = 0; h < shape.horizon; h++) {
            const float *target = session_output(session)->quantiles + q * shape.horizon + h;

            assert_true(target[QUANTILES * shape.horizon] == 10 + (float)h);
            if (q > 0)
                assert_true(target[0] > target[-(int)shape.horizon]);
        }
    session_close(session);
    model_unload(model);
}

static void a_model_tells_up_to_which_horizon_it_has_quantiles_without_samples(void **state)
{
    world_t *world = *state;

    assert_true(model_has_quantiles(world->toto1, PATCH) && !model_has_quantiles(world->toto1, PATCH + 1));
    assert_true(model_has_quantiles(world->naive, 1000));
}

static void nothing_is_allocated_after_open(void **state)
{
    world_t *world = *state;
    session_t *session = open_session(world->toto1, 2, BARS, SAMPLES);
    uint64_t count = backend_allocation_count(world->backend);
    session_stats_t stats;

    fill(session, 0, 0, BARS);
    for (int i = 0; i < 3; i++)
        run(session, 1);
    assert_true(backend_allocation_count(world->backend) == count);
    session_stats(session, &stats);
    assert_true(stats.bytes > 0 && !stats.graph && stats.captures == 0 && stats.eager_runs == 5); /* two of them in open */
    session_close(session);
}

static void what_the_model_does_otherwise_is_written_into_the_shape(void **state)
{
    world_t *world = *state;
    model_shape_t shape = shape_of(1, 33, 4);
    session_t *mean_only = open_session(world->toto1, 1, 33, 0), *naive = open_session(world->naive, 1, 33, SAMPLES), *discarding;

    assert_int_equal(session_shape(mean_only)->context, 40); /* patches of 8 */
    assert_int_equal(session_shape(mean_only)->quantile_count, 0);
    assert_null(session_output(mean_only)->quantiles);
    assert_null(session_output(mean_only)->samples);
    assert_int_equal(session_shape(naive)->context, 33);
    assert_int_equal(session_shape(naive)->samples, 0);
    assert_non_null(session_output(naive)->quantiles);
    shape.discard_samples = true;
    assert_int_equal(session_open(world->toto1, &shape, true, &discarding), SESSION_OK);
    assert_null(session_output(discarding)->samples);
    assert_non_null(session_output(discarding)->quantiles);
    session_close(mean_only);
    session_close(naive);
    session_close(discarding);
}

static void impossible_shapes_and_runs_are_refused(void **state)
{
    world_t *world = *state;
    model_shape_t shape = shape_of(1, BARS, 0);
    session_t *session;

    shape.batch = 0;
    assert_int_equal(session_open(world->toto1, &shape, true, &session), SESSION_ERR_SHAPE);
    shape = shape_of(1, BARS, 0);
    shape.exogenous = VARIATES;
    assert_int_equal(session_open(world->toto1, &shape, true, &session), SESSION_ERR_SHAPE);
    shape = shape_of(1, BARS, 0);
    shape.quantiles[1] = 0.05f;
    assert_int_equal(session_open(world->toto1, &shape, true, &session), SESSION_ERR_SHAPE);
    shape = shape_of(1, BARS, 0);
    shape.precision = BACKEND_BF16;
    assert_int_equal(session_open(world->toto1, &shape, true, &session), SESSION_ERR_SHAPE);
    session = open_session(world->toto1, 2, BARS, 0);
    assert_int_equal(session_run(session, 0), SESSION_ERR_SHAPE);
    assert_int_equal(session_run(session, 3), SESSION_ERR_SHAPE);
    fill(session, 0, 0, BARS);
    session_input(session)->length[0] = BARS + 1;
    assert_int_equal(session_run(session, 1), SESSION_ERR_SHAPE);
    session_close(session);
}

/* z of 0.1 and 0.9 is 1.2815516 in tables. */
static void naive_widens_with_the_root_of_the_horizon(void **state)
{
    world_t *world = *state;
    session_t *session = open_session(world->naive, 2, BARS, 0);
    const model_output_t *output = session_output(session);
    float last;

    fill(session, 0, 0, BARS);
    fill(session, 1, 1, BARS);
    run(session, 2);
    for (size_t row = 0; row < 2 * VARIATES; row++) {
        const float *q = output->quantiles + row * QUANTILES * HORIZON;
        const float *x = session_input(session)->values + row * session_shape(session)->context;
        double squares = 0, sigma;

        last = x[BARS - 1];
        for (int t = 1; t < BARS; t++)
            squares += pow(log((double)x[t] / (double)x[t - 1]), 2);
        sigma = sqrt(squares / (BARS - 1));
        for (size_t h = 0; h < HORIZON; h++) {
            double move = 1.2815516 * sigma * sqrt((double)h + 1);

            assert_true(output->mean[row * HORIZON + h] == last);
            assert_true(fabs((double)q[h] / ((double)last * exp(-move)) - 1) < 1e-6);
            assert_true(fabs((double)q[HORIZON + h] / (double)last - 1) < 1e-6);
            assert_true(fabs((double)q[2 * HORIZON + h] / ((double)last * exp(move)) - 1) < 1e-6);
        }
    }
    session_close(session);
}

/* Powers of two are exact: what differs from the forecast of the series near 100 is nothing but the unit, bit for bit. */
static void a_small_series_is_forecast_as_if_it_were_near_100(void **state)
{
    enum { HALVINGS = 20 };
    world_t *world = *state;
    model_shape_t shape = shape_of(2, BARS, SAMPLES);
    const float unit = ldexpf(1, HALVINGS);
    const size_t rows = VARIATES * HORIZON;
    session_t *large, *small;

    assert_int_equal(session_open(world->toto1, &shape, true, &large), SESSION_OK);
    shape.options.rescale = true;
    assert_int_equal(session_open(world->toto1, &shape, true, &small), SESSION_OK);
    fill(large, 0, 1, BARS);
    fill(small, 0, 1, BARS);
    size_t values = (size_t)VARIATES * session_shape(large)->context;
    for (size_t i = 0; i < values; i++) {
        float value = session_input(large)->values[i] * 16; /* near 80 */
        session_input(large)->values[i] = value;
        session_input(small)->values[i] = value / unit;
    }
    assert_int_equal(session_run(large, 1), SESSION_OK);
    for (int again = 0; again < 2; again++) { /* the inputs are the caller's as they were */
        assert_int_equal(session_run(small, 1), SESSION_OK);
        for (size_t i = 0; i < values; i++)
            assert_true(session_input(small)->values[i] * unit == session_input(large)->values[i]);
        for (size_t i = 0; i < rows; i++)
            assert_true(session_output(small)->mean[i] * unit == session_output(large)->mean[i]);
        for (size_t i = 0; i < rows * QUANTILES; i++)
            assert_true(session_output(small)->quantiles[i] * unit == session_output(large)->quantiles[i]);
        for (size_t i = 0; i < (size_t)SAMPLES * VARIATES; i++)
            for (size_t h = 0; h < HORIZON; h++) {
                size_t at = i * session_output(small)->sample_stride + h;
                assert_true(session_output(small)->samples[at] * unit == session_output(large)->samples[at]);
            }
    }
    session_close(large);
    session_close(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_call_twice_gives_the_same_bytes),
        cmocka_unit_test(a_batch_gives_what_its_series_give_alone),
        cmocka_unit_test(the_order_of_series_and_padding_rows_do_not_matter),
        cmocka_unit_test(a_short_series_in_a_longer_session_forecasts_as_in_its_own),
        cmocka_unit_test(quantiles_ascend_and_bracket_the_samples),
        cmocka_unit_test(without_samples_the_first_patch_has_the_quantiles_that_samples_approach),
        cmocka_unit_test(exact_quantiles_of_a_known_variate_are_its_future),
        cmocka_unit_test(a_model_tells_up_to_which_horizon_it_has_quantiles_without_samples),
        cmocka_unit_test(nothing_is_allocated_after_open),
        cmocka_unit_test(what_the_model_does_otherwise_is_written_into_the_shape),
        cmocka_unit_test(impossible_shapes_and_runs_are_refused),
        cmocka_unit_test(naive_widens_with_the_root_of_the_horizon),
        cmocka_unit_test(a_small_series_is_forecast_as_if_it_were_near_100),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
