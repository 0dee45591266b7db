/* Sessions of Chronos-2 and Chronos-Bolt: what a forecast must be like, and what it must not depend on. The models are their own tiny random
 * ones; their numbers are verified elsewhere (unit/engine/test_verify.c). */
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

enum { CHRONOS2, CHRONOS_BOLT, MODELS };
enum { CONTEXT = 96, PASS = 64, LEVELS = 5, MEDIAN = 3 }; /* PASS: bars that both tiny models predict at once */

static backend_t *backend;
static model_t *models[MODELS];

static void load_tiny(int which, int (*create)(const char *size, uint64_t seed, const char *dir))
{
    char dir[] = "/tmp/barcast-chronos-XXXXXX", path[64], revision[17];

    assert_non_null(mkdtemp(dir));
    assert_int_equal(create("tiny", 11, dir), MODEL_OK);
    if (model_load(backend, dir, BACKEND_F32, &models[which], revision) < 0)
        fail_msg("%s", error_text());
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

static int load(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};

    (void)state;
    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    load_tiny(CHRONOS2, chronos2_create);
    load_tiny(CHRONOS_BOLT, chronos_bolt_create);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++)
        model_unload(models[m]);
    assert_int_equal(backend_allocated_bytes(backend), 0);
    backend_close(backend);
    return 0;
}

static model_shape_t shape_of(uint32_t batch, uint32_t variates, uint32_t horizon)
{
    return (model_shape_t){.batch = batch,
                           .variates = variates,
                           .context = CONTEXT,
                           .horizon = horizon,
                           .samples = 7, /* not available: both give quantiles by themselves */
                           .quantile_count = LEVELS,
                           .quantiles = {0.001f, 0.1f, 0.37f, 0.5f, 0.95f},
                           .precision = BACKEND_F32};
}

static session_t *open_session(int which, const model_shape_t *shape)
{
    session_t *session;

    if (session_open(models[which], shape, true, &session) < 0)
        fail_msg("%s", error_text());
    assert_int_equal(session_shape(session)->samples, 0);
    assert_null(session_output(session)->samples);
    return session;
}

/* The last `bars` of a random walk that ends at the end of a row; every seventh is missing where `gaps` is set. */
static void fill(session_t *session, uint32_t row, uint32_t bars, uint32_t seed, bool gaps)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input = session_input(session);
    float *values = input->values + (size_t)row * shape->context;
    uint8_t *mask = input->mask + (size_t)row * shape->context;
    double level = 100 + 10 * (double)seed;

    memset(values, 0, shape->context * sizeof *values);
    memset(mask, 0, shape->context);
    for (uint32_t back = 0; back < bars; back++) {
        uint32_t at = shape->context - 1 - back;

        level += (double)((back * 2654435761u + seed * 40503u) % 1000u) / 500 - 1;
        mask[at] = !gaps || back % 7 != 3;
        values[at] = mask[at] ? (float)level : 0;
    }
    input->length[row / shape->variates] = bars;
    input->group[row] = 0;
}

static void run(session_t *session, uint32_t count)
{
    if (session_run(session, count) < 0)
        fail_msg("%s", error_text());
}

/* A copy of one row's quantiles [LEVELS][horizon], malloc'ed. */
static float *quantiles_of(const session_t *session, uint32_t row)
{
    size_t values = (size_t)LEVELS * session_shape(session)->horizon;
    float *copy = malloc(values * sizeof *copy);

    assert_non_null(copy);
    memcpy(copy, session_output(session)->quantiles + row * values, values * sizeof *copy);
    return copy;
}

static double distance(const float *a, const float *b, size_t count)
{
    double most = 0;

    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/* ---- both ----------------------------------------------------------------------------------------------------------------------- */

static void forecasts_continue_their_series_and_quantiles_never_cross(void **state)
{
    static const uint32_t horizons[] = {1, 40, PASS, 2 * PASS + 9};

    (void)state;
    for (int m = 0; m < MODELS; m++)
        for (size_t h = 0; h < sizeof horizons / sizeof *horizons; h++) {
            uint32_t horizon = horizons[h];
            model_shape_t shape = shape_of(1, 1, horizon);
            session_t *session = open_session(m, &shape);
            const float *mean = session_output(session)->mean, *quantiles = session_output(session)->quantiles;
            float last, span = 0;

            fill(session, 0, CONTEXT, 3, false);
            last = session_input(session)->values[CONTEXT - 1];
            for (int t = 0; t < CONTEXT; t++)
                span = fmaxf(span, fabsf(session_input(session)->values[t] - last));
            run(session, 1);
            assert_true(fabsf(mean[0] - last) < 0.2f * span);
            for (uint32_t t = 0; t < horizon; t++) {
                assert_true(mean[t] == quantiles[MEDIAN * horizon + t]);
                assert_true(fabsf(mean[t] - last) < 2 * span);
                for (int q = 1; q < LEVELS; q++)
                    assert_true(quantiles[q * horizon + t] >= quantiles[(q - 1) * horizon + t]);
            }
            assert_true(quantiles[4 * horizon] > quantiles[horizon]);
            session_close(session);
        }
}

static void further_rounds_leave_the_first_one_as_it_is(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        model_shape_t one = shape_of(1, 1, PASS), three = shape_of(1, 1, 3 * PASS);
        session_t *alone = open_session(m, &one), *more = open_session(m, &three);

        fill(alone, 0, CONTEXT - 5, 4, true);
        fill(more, 0, CONTEXT - 5, 4, true);
        run(alone, 1);
        run(more, 1);
        assert_true(distance(session_output(alone)->mean, session_output(more)->mean, PASS) < 1e-4);
        session_close(alone);
        session_close(more);
    }
}

static void a_larger_session_gives_the_same(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        model_shape_t shape = shape_of(1, 1, PASS + 20), large = shape_of(3, 1, PASS + 20);
        session_t *own = open_session(m, &shape), *larger;
        float *wanted, *got;

        large.context = 200;
        larger = open_session(m, &large);
        fill(own, 0, 75, 5, true);
        fill(larger, 0, 75, 5, true);
        fill(larger, 1, 200, 6, false);
        run(own, 1);
        run(larger, 2);
        wanted = quantiles_of(own, 0);
        got = quantiles_of(larger, 0);
        assert_true(distance(got, wanted, LEVELS * (PASS + 20)) < 1e-3);
        free(wanted);
        free(got);
        session_close(own);
        session_close(larger);
    }
}

static void a_forecast_depends_on_its_own_series_alone(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        model_shape_t shape = shape_of(3, 1, PASS + 1);
        session_t *session = open_session(m, &shape);
        float *before, *after;

        for (uint32_t row = 0; row < 3; row++)
            fill(session, row, CONTEXT, row, false);
        run(session, 3);
        before = quantiles_of(session, 1);
        fill(session, 0, 30, 8, true);
        fill(session, 2, 1, 9, false);
        run(session, 3);
        after = quantiles_of(session, 1);
        assert_memory_equal(before, after, LEVELS * (PASS + 1) * sizeof *before);
        free(before);
        free(after);
        session_close(session);
    }
}

static void ignore_tap(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim)
{
    (void)name;
    (void)step;
    (void)values;
    (void)rank;
    (void)dim;
    ++*(int *)context;
}

/* Chronos-2 leaves out of its last layer what only a tap sees. */
static void a_tap_does_not_change_the_forecast(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++)
        for (uint32_t variates = 1; variates < 3; variates++) {
            enum { HORIZON = PASS + 40 };
            model_shape_t shape = shape_of(2, variates, HORIZON);
            float *untapped, *tapped;
            session_t *session;
            int shown = 0;

            assert_int_equal(session_open(models[m], &shape, false, &session), SESSION_OK);
            for (uint32_t row = 0; row < shape.batch * variates; row++)
                fill(session, row, CONTEXT, row, true);
            run(session, shape.batch);
            untapped = quantiles_of(session, 1);
            assert_int_equal(session_set_tap(session, ignore_tap, &shown), SESSION_OK);
            run(session, shape.batch);
            tapped = quantiles_of(session, 1);
            assert_true(shown > 0);
            assert_true(distance(tapped, untapped, LEVELS * HORIZON) < 1e-3);
            free(untapped);
            free(tapped);
            session_close(session);
        }
}

static void nothing_observed_is_a_forecast_too(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        model_shape_t shape = shape_of(1, 1, 10);
        session_t *session = open_session(m, &shape);

        fill(session, 0, 1, 0, false);
        session_input(session)->values[CONTEXT - 1] = 0;
        session_input(session)->mask[CONTEXT - 1] = 0;
        run(session, 1);
        for (int i = 0; i < LEVELS * 10; i++)
            assert_true(isfinite(session_output(session)->quantiles[i]));
        session_close(session);
    }
}

static void a_longer_context_is_cut_to_the_models(void **state)
{
    (void)state;
    for (int m = 0; m < MODELS; m++) {
        model_shape_t shape = shape_of(1, 1, 10);
        session_t *session;
        model_info_t info;

        model_info(models[m], &info);
        shape.context = info.context_most + 1;
        session = open_session(m, &shape);
        assert_int_equal(session_shape(session)->context, info.context_most);
        session_close(session);
        shape.context = 33;
        session = open_session(m, &shape);
        assert_int_equal(session_shape(session)->context, 48);
        session_close(session);
    }
}

static void the_tiny_models_have_the_parameters_that_they_should(void **state)
{
    model_info_t info;

    (void)state;
    model_info(models[CHRONOS_BOLT], &info);
    assert_int_equal(info.parameters, 8652672); /* "8.65M", as published */
    assert_int_equal(info.level_count, 9);
    model_info(models[CHRONOS2], &info);
    assert_int_equal(info.level_count, 21);
    assert_true(info.levels[10] == 0.5f);
}

static void costs_are_counted_by_round(void **state)
{
    model_shape_t shape = shape_of(2, 1, PASS), longer = shape_of(2, 1, PASS + 1);
    model_cost_t once, twice;
    /* Tiny Chronos-2: 48 and 64 wide ends of blocks with 128 hidden; 4 layers of 64 wide attention and MLPs; 6 + 1 + 4 tokens of 2 rows. */
    int64_t embed = 128 * (48 + 64) + 48 * 64, head = 128 * (64 + 336) + 64 * 336, attend = 3 * 64 * 64,
            finish = 2 * 64 * 64 + 2 * 64 * 128;
    int64_t finished = 3 * 11 + 4;
    int64_t flops = 2 * (2 * (11 * (embed + 4 * attend) + finished * finish + 4 * head) + finished * 4 * 64 * 11);

    (void)state;
    shape.samples = longer.samples = 0;
    model_family(models[CHRONOS2])->cost(models[CHRONOS2], &shape, &once);
    assert_int_equal((int64_t)once.weight_bytes, 4 * (embed + head + 4 * (attend + finish)));
    assert_int_equal((int64_t)once.flops, flops);
    assert_int_equal((int64_t)once.io_bytes, 2 * (CONTEXT * 5 + PASS * 4 * (1 + LEVELS)));
    for (int m = 0; m < MODELS; m++) {
        model_family(models[m])->cost(models[m], &shape, &once);
        model_family(models[m])->cost(models[m], &longer, &twice);
        assert_true(twice.weight_bytes == 2 * once.weight_bytes);
        assert_true(twice.flops > 9 * once.flops); /* nine paths of a longer context */
    }
}

/* ---- Chronos-2 ------------------------------------------------------------------------------------------------------------------ */

static void a_variate_among_strangers_is_forecast_as_alone(void **state)
{
    model_shape_t single = shape_of(1, 1, PASS + 3), several = shape_of(1, 3, PASS + 3);
    session_t *alone = open_session(CHRONOS2, &single), *among = open_session(CHRONOS2, &several);
    float *wanted, *got;

    (void)state;
    fill(alone, 0, CONTEXT, 2, true);
    for (uint32_t row = 0; row < 3; row++) {
        fill(among, row, CONTEXT, row + 1, row == 1);
        session_input(among)->group[row] = (int32_t)row;
    }
    run(alone, 1);
    run(among, 1);
    wanted = quantiles_of(alone, 0);
    got = quantiles_of(among, 1);
    assert_true(distance(got, wanted, LEVELS * (PASS + 3)) < 1e-3);
    free(wanted);
    free(got);
    session_close(alone);
    session_close(among);
}

static void variates_of_a_group_inform_each_other(void **state)
{
    model_shape_t shape = shape_of(1, 2, 20);
    session_t *session = open_session(CHRONOS2, &shape);
    float *strangers, *related;

    (void)state;
    fill(session, 0, CONTEXT, 1, false);
    fill(session, 1, CONTEXT, 2, false);
    session_input(session)->group[1] = 7;
    run(session, 1);
    strangers = quantiles_of(session, 0);
    session_input(session)->group[1] = 0;
    run(session, 1);
    related = quantiles_of(session, 0);
    assert_true(distance(strangers, related, LEVELS * 20) > 1e-4);
    free(strangers);
    free(related);
    session_close(session);
}

static void a_known_future_changes_its_groups_forecast(void **state)
{
    enum { HORIZON = PASS + 20 };
    model_shape_t shape = shape_of(1, 2, HORIZON);
    session_t *session;
    float *unknown, *known, *late;

    (void)state;
    shape.exogenous = 1;
    session = open_session(CHRONOS2, &shape);
    fill(session, 0, CONTEXT, 1, false);
    fill(session, 1, CONTEXT, 2, false);
    for (int t = 0; t < HORIZON; t++)
        session_input(session)->future[t] = NAN;
    run(session, 1);
    unknown = quantiles_of(session, 0);
    session_input(session)->future[HORIZON - 1] = 150; /* in the second round only */
    run(session, 1);
    late = quantiles_of(session, 0);
    for (int t = 0; t < HORIZON; t++)
        session_input(session)->future[t] = 150;
    run(session, 1);
    known = quantiles_of(session, 0);
    for (int q = 0; q < LEVELS; q++)
        assert_memory_equal(late + q * HORIZON, unknown + q * HORIZON, PASS * sizeof *late);
    assert_true(distance(late, unknown, LEVELS * HORIZON) > 1e-5);
    assert_true(distance(known, unknown, PASS) > 1e-4);
    free(unknown);
    free(known);
    free(late);
    session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forecasts_continue_their_series_and_quantiles_never_cross),
        cmocka_unit_test(further_rounds_leave_the_first_one_as_it_is),
        cmocka_unit_test(a_larger_session_gives_the_same),
        cmocka_unit_test(a_forecast_depends_on_its_own_series_alone),
        cmocka_unit_test(a_tap_does_not_change_the_forecast),
        cmocka_unit_test(nothing_observed_is_a_forecast_too),
        cmocka_unit_test(a_longer_context_is_cut_to_the_models),
        cmocka_unit_test(the_tiny_models_have_the_parameters_that_they_should),
        cmocka_unit_test(costs_are_counted_by_round),
        cmocka_unit_test(a_variate_among_strangers_is_forecast_as_alone),
        cmocka_unit_test(variates_of_a_group_inform_each_other),
        cmocka_unit_test(a_known_future_changes_its_groups_forecast),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
