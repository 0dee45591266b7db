/* The model that comes with Barcast: found beside the program, and what it forecasts for a fixed random walk is what the PyTorch code of
 * tools/train computes from the same checkpoint (deciles from four million draws). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"

enum { CONTEXT = 512, HORIZON = 32, DRAWS = 20000 };

static const struct {
    int step;
    double mean, low, middle, high; /* deciles 1, 5, 9 */
} expected[] = {
    {1, 113.58234, 111.9088, 113.5758, 115.2568},
    {5, 113.51269, 110.1664, 113.4884, 116.8809},
    {24, 113.02442, 105.7742, 112.9287, 120.3640},
    {32, 113.02968, 104.6276, 112.8933, 121.5854},
};

/* Steps of at most 2 % either way, from a linear congruential generator. */
static void fill(session_t *session)
{
    model_input_t *input = session_input(session);
    uint32_t random = 12345;
    double price = 100;

    for (int t = 0; t < CONTEXT; t++) {
        random = random * 1664525u + 1013904223u;
        price *= 1 + 0.04 * ((double)(random >> 8) / 16777216 - 0.5);
        input->values[t] = (float)price;
        input->mask[t] = 1;
    }
    for (int t = 0; t < CONTEXT + HORIZON; t++)
        input->time_ns[t] = t * INT64_C(60000000000);
    input->length[0] = CONTEXT;
    input->group[0] = 0;
    input->log_price[0] = 1;
    input->key[0] = 1;
}

static void the_default_model_forecasts_what_pytorch_does(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};
    model_shape_t shape = {.batch = 1,
                           .variates = 1,
                           .context = CONTEXT,
                           .horizon = HORIZON,
                           .samples = DRAWS,
                           .discard_samples = true,
                           .quantile_count = 3,
                           .quantiles = {0.1f, 0.5f, 0.9f}};
    const model_output_t *output;
    backend_t *backend;
    model_t *model = NULL;
    session_t *session = NULL;
    char revision[17];

    (void)state;
    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    if (model_load(backend, "default", BACKEND_F32, &model, revision) < 0 || session_open(model, &shape, false, &session) < 0)
        fail_msg("%s", error_text());
    fill(session);
    assert_int_equal(session_run(session, 1), SESSION_OK);
    output = session_output(session);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int at = expected[i].step - 1;
        double width = expected[i].high - expected[i].low, bound = 0.025 * width; /* five standard errors of so many draws */

        assert_true(fabs((double)output->quantiles[at] - expected[i].low) < bound);
        assert_true(fabs((double)output->quantiles[HORIZON + at] - expected[i].middle) < bound);
        assert_true(fabs((double)output->quantiles[2 * HORIZON + at] - expected[i].high) < bound);
        assert_true(fabs((double)output->mean[at] - expected[i].mean) < bound);
    }
    session_close(session);

    shape.samples = 0; /* mean and quantiles of the mixtures, without draws */
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_OK);
    fill(session);
    assert_int_equal(session_run(session, 1), SESSION_OK);
    output = session_output(session);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int at = expected[i].step - 1;
        double bound = 1e-3 * (expected[i].high - expected[i].low); /* what is left to chance in four million draws */

        assert_true(fabs((double)output->mean[at] - expected[i].mean) < 1e-4);
        assert_true(fabs((double)output->quantiles[at] - expected[i].low) < bound);
        assert_true(fabs((double)output->quantiles[HORIZON + at] - expected[i].middle) < bound);
        assert_true(fabs((double)output->quantiles[2 * HORIZON + at] - expected[i].high) < bound);
    }
    session_close(session);
    model_unload(model);
    backend_close(backend);
}

static void a_default_model_that_does_not_fit_the_buffer_is_an_error(void **state)
{
    char dir[8] = "before";

    (void)state;
    assert_int_equal(model_default_dir(dir, sizeof dir), MODEL_ERR_CHECKPOINT);
    assert_non_null(strstr(error_text(), "longer than 7 bytes"));
}

/* Toto's scaler alone would drown them: it adds 0.1 to the variance. */
static void a_price_of_a_thousandth_is_forecast_like_a_larger_one(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};
    model_shape_t shape = {
        .batch = 1, .variates = 1, .context = CONTEXT, .horizon = HORIZON, .quantile_count = 3, .quantiles = {0.1f, 0.5f, 0.9f}};
    char revision[17];
    backend_t *backend;
    model_t *model;
    session_t *session;

    (void)state;
    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    assert_int_equal(model_load(backend, "default", BACKEND_F32, &model, revision), MODEL_OK);
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_OK);
    fill(session);
    for (int t = 0; t < CONTEXT; t++)
        session_input(session)->values[t] *= 1e-5f;
    assert_int_equal(session_run(session, 1), SESSION_OK);
    const float *quantiles = session_output(session)->quantiles;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int h = expected[i].step - 1;
        double spread = (expected[i].high - expected[i].low) * 1e-5;
        assert_true(fabs((double)quantiles[h] - expected[i].low * 1e-5) < 0.02 * spread);
        assert_true(fabs((double)quantiles[2 * HORIZON + h] - expected[i].high * 1e-5) < 0.02 * spread);
    }
    session_close(session);
    model_unload(model);
    backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_model_forecasts_what_pytorch_does),
        cmocka_unit_test(a_default_model_that_does_not_fit_the_buffer_is_an_error),
        cmocka_unit_test(a_price_of_a_thousandth_is_forecast_like_a_larger_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
