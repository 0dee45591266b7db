/* The same seed gives the same forecast whatever the batch, the number of workers or the order of the symbols: the same random draws, and values
 * within 1e-5 of the series' scale. With a random checkpoint of the real model family, drawing samples. */
#include "harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SYMBOLS = 6, BARS = 80, VALUES_MOST = 512 };

typedef struct {
    int64_t cutoff_ns;
    uint32_t count;
    float values[VALUES_MOST]; /* mean, then quantiles */
} result_t;

static harness_t harness;

static int close_instance(void **state)
{
    (void)state;
    harness_close(&harness);
    return 0;
}

/* The last forecast of every symbol from one run. */
static void forecast_with(const char *workers_and_buckets, const char *seed, bool backwards, result_t out[SYMBOLS])
{
    char sections[1024], checkpoint[96];
    snprintf(sections, sizeof sections,
             "[feed.live]\ntype = zmq\nendpoint = ipc://$DIR/feed\n"
             "[model.toto]\npath = $DIR/checkpoint\ncontext = 80\ncontext_min = 80\nhorizon = 12\nsamples = 8\nseed = %s\n%s",
             seed, workers_and_buckets);
    harness_open(&harness, SYMBOLS, sections);
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint", harness.directory);
    assert_int_equal(harness_execute("barcast", (const char *const[]){"models", "create", "--family", "toto1", "--size", "tiny",
                                                                      "--seed", "5", "--out", checkpoint, NULL}),
                     0);
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready");
    harness_push(&harness, 0, BARS, backwards);
    harness_wait_forecasts(&harness, BARS - 1);
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
        const wire_forecast_t *forecast = &harness.newest[symbol];
        out[symbol].cutoff_ns = forecast->cutoff_ns;
        out[symbol].count = forecast->horizon * (1 + forecast->quantile_count);
        assert_in_range(out[symbol].count, forecast->horizon * 2, VALUES_MOST);
        memcpy(out[symbol].values, harness.newest_values[symbol], out[symbol].count * sizeof(float));
    }
    assert_int_equal(harness_stop(&harness), 0);
}

/* The largest deviation, in units of each series' last price. */
static double deviation(const result_t a[SYMBOLS], const result_t b[SYMBOLS])
{
    double worst = 0;
    for (uint32_t symbol = 0; symbol < SYMBOLS; symbol++) {
        assert_int_equal(a[symbol].cutoff_ns, b[symbol].cutoff_ns);
        assert_int_equal(a[symbol].count, b[symbol].count);
        for (uint32_t i = 0; i < a[symbol].count; i++)
            worst = fmax(worst, fabs((double)a[symbol].values[i] - (double)b[symbol].values[i]) / (100.0 * (symbol + 1)));
    }
    return worst;
}

static void forecast_does_not_depend_on_workers_batches_or_order(void **state)
{
    static result_t one[SYMBOLS], other[SYMBOLS];
    forecast_with("buckets = 1\n", "42", false, one);
    close_instance(state);
    forecast_with("buckets = 2, 4\n[worker]\ncount = 2\n", "42", true, other);
    assert_true(deviation(one, other) < 1e-5);
}

static void another_seed_draws_another_forecast(void **state)
{
    static result_t one[SYMBOLS], other[SYMBOLS];
    forecast_with("buckets = 4\n", "42", false, one);
    close_instance(state);
    forecast_with("buckets = 4\n", "43", false, other);
    assert_true(deviation(one, other) > 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(forecast_does_not_depend_on_workers_batches_or_order, close_instance),
        cmocka_unit_test_teardown(another_seed_draws_another_forecast, close_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
