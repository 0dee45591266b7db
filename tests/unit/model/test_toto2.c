/* Toto 2.0's sessions: what a forecast must be like, and what it must not depend on. The model is its own tiny random one. */
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

enum { PATCH = 16, CONTEXT = 8 * PATCH, HORIZON = 3 * PATCH + 5, LEVELS = 5, BATCH = 3 };

static backend_t *backend;
static model_t *model, *variates_first; /* the same weights, the layers over variates at the end of a group, and at its beginning */

static void put_variates_first(const char *path)
{
    static const char from[] = "\"variate_layer_first\": false", to[] = "\"variate_layer_first\": true ";
    char text[4096];
    FILE *file = fopen(path, "r");
    size_t bytes = fread(text, 1, sizeof text - 1, file);

    fclose(file);
    text[bytes] = '\0';
    assert_non_null(strstr(text, from));
    memcpy(strstr(text, from), to, sizeof to - 1);
    file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static void load(const char *dir, model_t **out)
{
    char revision[17];

    if (model_load(backend, dir, BACKEND_F32, out, revision) < 0)
        fail_msg("%s", error_text());
}

static int load_tiny(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 1};
    char dir[] = "/tmp/barcast-toto2-XXXXXX", path[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(toto2_create("tiny", 11, dir), MODEL_OK);
    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    load(dir, &model);
    snprintf(path, sizeof path, "%s/config.json", dir);
    put_variates_first(path);
    load(dir, &variates_first);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    model_unload(model);
    model_unload(variates_first);
    assert_int_equal(backend_allocated_bytes(backend), 0);
    backend_close(backend);
    return 0;
}

static model_shape_t shape_of(uint32_t batch, uint32_t variates)
{
    return (model_shape_t){.batch = batch,
                           .variates = variates,
                           .context = CONTEXT,
                           .horizon = HORIZON,
                           .quantile_count = LEVELS,
                           .quantiles = {0.05f, 0.1f, 0.37f, 0.5f, 0.9f},
                           .precision = BACKEND_F32};
}

static session_t *open_session_of(model_t *of, const model_shape_t *shape)
{
    session_t *session;

    if (session_open(of, shape, true, &session) < 0)
        fail_msg("%s", error_text());
    return session;
}

static session_t *open_session(const model_shape_t *shape)
{
    return open_session_of(model, shape);
}

/* A random walk of `bars` values, gone on from `seed`'s, at the end of a row; every seventh is missing where `gaps` is set. */
static void fill(session_t *session, uint32_t row, uint32_t bars, uint64_t seed, bool gaps)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input = session_input(session);
    float *values = input->values + (size_t)row * shape->context;
    uint8_t *mask = input->mask + (size_t)row * shape->context;
    double level = 100 + 10 * (double)seed;

    memset(values, 0, shape->context * sizeof *values);
    memset(mask, 0, shape->context);
    for (uint32_t t = 0; t < bars; t++) {
        uint32_t at = shape->context - bars + t;

        level += (double)((t * 2654435761u + seed * 40503u) % 1000u) / 500 - 1;
        mask[at] = !gaps || (bars - t) % 7 != 0;
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

/* A copy of one row's quantiles [LEVELS][HORIZON], malloc'ed. */
static float *quantiles_of(const session_t *session, uint32_t row)
{
    float *copy = malloc(LEVELS * HORIZON * sizeof *copy);

    memcpy(copy, session_output(session)->quantiles + (size_t)row * LEVELS * HORIZON, LEVELS * HORIZON * sizeof *copy);
    return copy;
}

static void assert_near(const float *got, const float *wanted, double bound)
{
    for (int i = 0; i < LEVELS * HORIZON; i++)
        if (!(fabs((double)got[i] - (double)wanted[i]) <= bound))
            fail_msg("[%d]: %g, expected %g within %g", i, (double)got[i], (double)wanted[i], bound);
}

static void it_continues_the_series_and_quantiles_never_cross(void **state)
{
    static const uint32_t blocks[] = {0, PATCH, 2 * PATCH};

    (void)state;
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        model_shape_t shape = shape_of(1, 1);
        session_t *session;
        const float *values, *mean, *quantiles;
        float low = INFINITY, high = -INFINITY;

        shape.options.decode_block = blocks[b];
        session = open_session(&shape);
        fill(session, 0, CONTEXT, 3, false);
        run(session, 1);
        values = session_input(session)->values;
        mean = session_output(session)->mean;
        quantiles = session_output(session)->quantiles;
        for (int t = 0; t < CONTEXT; t++) {
            low = fminf(low, values[t]);
            high = fmaxf(high, values[t]);
        }
        assert_true(fabsf(mean[0] - values[CONTEXT - 1]) < 0.25f * (high - low));
        for (int t = 0; t < HORIZON; t++) {
            assert_true(mean[t] == quantiles[3 * HORIZON + t]);
            assert_true(mean[t] > low - (high - low) && mean[t] < high + (high - low));
            for (int level = 1; level < LEVELS; level++)
                assert_true(quantiles[level * HORIZON + t] >= quantiles[(level - 1) * HORIZON + t]);
        }
        session_close(session);
    }
}

static void the_same_inputs_give_the_same_bytes_whatever_the_batch_mates(void **state)
{
    model_shape_t shape = shape_of(BATCH, 2);
    session_t *session;
    float *first, *again;

    (void)state;
    shape.options.decode_block = PATCH;
    session = open_session(&shape);
    for (uint32_t row = 0; row < 2 * BATCH; row++)
        fill(session, row, CONTEXT, row, true);
    run(session, BATCH);
    first = quantiles_of(session, 3);
    for (uint32_t row = 0; row < 2 * BATCH; row++)
        if (row / 2 != 1)
            fill(session, row, 40, 77 + row, false);
    run(session, BATCH);
    again = quantiles_of(session, 3);
    assert_memory_equal(first, again, LEVELS * HORIZON * sizeof *first);
    free(first);
    free(again);
    session_close(session);
}

/* A short series has the same positions, centres and group ids in a session of its own length and in a longer one. */
static void a_short_series_does_not_depend_on_the_session_s_context(void **state)
{
    static const uint32_t lengths[] = {3 * PATCH, 4 * PATCH, 5 * PATCH - 3};

    (void)state;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        float *quantiles[2];

        for (int longer = 0; longer < 2; longer++) {
            model_shape_t shape = shape_of(1, 2);
            session_t *session;

            shape.context = longer ? CONTEXT + PATCH : lengths[l];
            shape.options.decode_block = PATCH;
            shape.options.minimum_observed = 8;
            shape.options.cap = 3;
            session = open_session(&shape);
            fill(session, 0, lengths[l], 5, true);
            fill(session, 1, lengths[l], 6, false);
            memset(session_input(session)->mask + 2 * session_shape(session)->context - lengths[l], 0, PATCH); /* of row 1 */
            run(session, 1);
            quantiles[longer] = quantiles_of(session, 1);
            session_close(session);
        }
        assert_near(quantiles[1], quantiles[0], 2e-3);
        free(quantiles[0]);
        free(quantiles[1]);
    }
}

/* With one variate a layer over variates is one product, and tokens leave early: the same as among strangers, where nothing is left out. */
static void check_alone(model_t *of)
{
    model_shape_t alone = shape_of(1, 1), among = shape_of(1, 3);
    session_t *session;
    float *wanted, *got;

    session = open_session_of(of, &alone);
    fill(session, 0, CONTEXT, 4, true);
    run(session, 1);
    wanted = quantiles_of(session, 0);
    session_close(session);
    session = open_session_of(of, &among);
    for (uint32_t row = 0; row < 3; row++) {
        fill(session, row, CONTEXT, 3 + row, true);
        session_input(session)->group[row] = (int32_t)row;
    }
    run(session, 1);
    got = quantiles_of(session, 1);
    assert_near(got, wanted, 1e-3);
    session_input(session)->group[0] = 1;
    run(session, 1);
    free(got);
    got = quantiles_of(session, 1);
    assert_memory_not_equal(got, wanted, LEVELS * HORIZON * sizeof *got); /* a friend is heard */
    free(got);
    free(wanted);
    session_close(session);
}

static void a_variate_alone_is_forecast_as_among_strangers(void **state)
{
    (void)state;
    check_alone(model);
    check_alone(variates_first);
}

static void a_batch_is_forecast_as_one_by_one(void **state)
{
    model_shape_t one = shape_of(1, 1), many = shape_of(BATCH, 1);
    session_t *single, *batch;

    (void)state;
    single = open_session(&one);
    batch = open_session(&many);
    for (uint32_t row = 0; row < BATCH; row++)
        fill(batch, row, CONTEXT - 5 * row, row, true);
    run(batch, BATCH);
    for (uint32_t row = 0; row < BATCH; row++) {
        float *wanted, *got = quantiles_of(batch, row);

        fill(single, 0, CONTEXT - 5 * row, row, true);
        run(single, 1);
        wanted = quantiles_of(single, 0);
        assert_near(got, wanted, 1e-3);
        free(got);
        free(wanted);
    }
    session_close(single);
    session_close(batch);
}

static void count_tap(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim)
{
    (void)name, (void)step, (void)values, (void)rank, (void)dim;
    ++*(int *)context;
}

static void a_tap_sees_tensors_and_changes_nothing(void **state)
{
    model_shape_t shape = shape_of(2, 1);
    session_t *session;
    float *wanted, *got;
    int seen = 0;

    (void)state;
    shape.options.decode_block = 2 * PATCH;
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_OK);
    fill(session, 0, CONTEXT, 4, true);
    fill(session, 1, CONTEXT, 5, false);
    run(session, 2);
    wanted = quantiles_of(session, 1);
    assert_int_equal(session_set_tap(session, count_tap, &seen), SESSION_OK);
    run(session, 2);
    assert_int_equal(seen, 2 * (2 + 2 + 4 + 9)); /* scaler, embeddings, layers and levels of two calls */
    got = quantiles_of(session, 1);
    assert_near(got, wanted, 1e-3);
    free(got);
    free(wanted);
    session_close(session);
}

static void a_known_future_moves_the_forecast_where_it_is_known(void **state)
{
    model_shape_t shape = shape_of(1, 2);
    session_t *session;
    float *unknown, *known;

    (void)state;
    shape.exogenous = 1;
    shape.options.decode_block = PATCH;
    session = open_session(&shape);
    fill(session, 0, CONTEXT, 4, false);
    fill(session, 1, CONTEXT, 5, false);
    for (int t = 0; t < HORIZON; t++)
        session_input(session)->future[t] = NAN;
    run(session, 1);
    unknown = quantiles_of(session, 0);
    for (int t = 2 * PATCH; t < HORIZON; t++)
        session_input(session)->future[t] = 160;
    run(session, 1);
    known = quantiles_of(session, 0);
    for (int i = 0; i < LEVELS * HORIZON; i++) {
        assert_true(isfinite(known[i]));
        if (i % HORIZON < 2 * PATCH)
            assert_true(known[i] == unknown[i]);
    }
    assert_true(known[HORIZON - 1] != unknown[HORIZON - 1]);
    free(known);
    free(unknown);
    session_close(session);
}

static void refused(model_shape_t shape, const char *what)
{
    session_t *session = NULL;

    assert_true(session_open(model, &shape, true, &session) < 0);
    assert_null(session);
    if (strstr(error_text(), what) == NULL)
        fail_msg("\"%s\" does not name %s", error_text(), what);
}

static void shapes_that_cannot_be_are_refused_by_name(void **state)
{
    model_shape_t shape = shape_of(1, 1);

    (void)state;
    shape.options.decode_block = PATCH + 1;
    refused(shape, "decode_block is 17");
    shape = shape_of(1, 1);
    shape.options.minimum_observed = PATCH + 1;
    refused(shape, "minimum_observed is 17");
    shape = shape_of(1, 1);
    shape.options.cap = -1;
    refused(shape, "cap is -1");
}

static void what_it_does_otherwise_it_writes_into_the_shape(void **state)
{
    model_shape_t shape = shape_of(1, 1);
    session_t *session;
    model_info_t info;

    (void)state;
    shape.context = CONTEXT - 3;
    shape.samples = 64;
    session = open_session(&shape);
    assert_int_equal(session_shape(session)->context, CONTEXT);
    assert_int_equal(session_shape(session)->samples, 0);
    assert_int_equal(session_shape(session)->quantile_count, LEVELS);
    assert_null(session_output(session)->samples);
    session_info(session, &info);
    assert_true(info.quantiles_without_samples && info.variates && info.exogenous && !info.samples);
    session_close(session);
}

static void the_cost_counts_every_weight_once_a_call(void **state)
{
    enum { WIDTH = 64, LAYERS = 4, HEAD = 32 };
    model_shape_t shape = shape_of(1, 2), many = shape_of(7, 2);
    model_cost_t once, blocks, batch;
    model_info_t info;

    (void)state;
    model_info(model, &info);
    toto2_family.cost(model, &shape, &once);
    toto2_family.cost(model, &many, &batch);
    shape.options.decode_block = PATCH;
    toto2_family.cost(model, &shape, &blocks);
    /* two biases are added up at load, and the queries' scales are folded */
    assert_true(once.weight_bytes == sizeof(float) * (double)(info.parameters - WIDTH - LAYERS * HEAD));
    assert_true(once.cache_bytes == 0);
    assert_true(fabs(batch.flops / once.flops - 7) < 1e-9);
    assert_true(batch.weight_bytes == once.weight_bytes);
    assert_true(blocks.weight_bytes == 4 * once.weight_bytes); /* four patches, one a call */
    assert_true(blocks.cache_bytes > 0);
    shape = shape_of(1, 1);
    toto2_family.cost(model, &shape, &batch);
    assert_true(batch.flops < once.flops / 2 && batch.weight_bytes < once.weight_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_continues_the_series_and_quantiles_never_cross),
        cmocka_unit_test(the_same_inputs_give_the_same_bytes_whatever_the_batch_mates),
        cmocka_unit_test(a_short_series_does_not_depend_on_the_session_s_context),
        cmocka_unit_test(a_variate_alone_is_forecast_as_among_strangers),
        cmocka_unit_test(a_batch_is_forecast_as_one_by_one),
        cmocka_unit_test(a_tap_sees_tensors_and_changes_nothing),
        cmocka_unit_test(a_known_future_moves_the_forecast_where_it_is_known),
        cmocka_unit_test(shapes_that_cannot_be_are_refused_by_name),
        cmocka_unit_test(what_it_does_otherwise_it_writes_into_the_shape),
        cmocka_unit_test(the_cost_counts_every_weight_once_a_call),
    };
    return cmocka_run_group_tests(tests, load_tiny, unload);
}
