/* All model families in one pipeline, each with symbols of its own and a topic of its own. Random checkpoints: what is checked is what each kind
 * of model gets to see and what its messages carry. */
#include "harness.h"

#include "base/clock.h"
#include "base/error.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SYMBOLS = 3, BARS = 58, HORIZON = 4, FIELDS_MOST = 6 };

typedef struct {
    const char *family; /* the model's name too */
    const char *keys;
    const char *symbols; /* of "012" */
    const char *fields[FIELDS_MOST];
    bool paths;
} expected_t;

/* Kronos' market is open in the first hour of a day: bar 58 opens at 00:58. */
static const expected_t expected[] = {
    {"toto1", "symbols = SYM00, SYM01\n", "01", {"close"}, true},
    {"toto2", "symbols = SYM01\ncompanions = SYM00, SYM02\n", "1", {"close"}, false},
    {"kronos",
     "symbols = SYM02\nhours = 00:00-01:00\npublish_samples = on\ntop_p = 0.95\n",
     "2",
     {"close", "open", "high", "low", "volume", "amount"},
     true},
    {"chronos2", "symbols = SYM00, SYM02\ncompanions = SYM00, SYM01, SYM02\ncycles = day\n", "02", {"close"}, false},
    {"chronos_bolt", "symbols = SYM01\n", "1", {"close"}, false},
    {"sundial", "symbols = *\nfields = close, volume\n", "012", {"close", "volume"}, true},
};
enum { MODELS = sizeof expected / sizeof *expected, SAMPLES = 5 };

static harness_t harness;

static int close_instance(void **state)
{
    (void)state;
    harness_close(&harness);
    return 0;
}

static void open_instance(void)
{
    char sections[4096];
    int used = snprintf(sections, sizeof sections, "[worker]\ncount = 2\n[feed.live]\ntype = zmq\nendpoint = ipc://$DIR/feed\n");
    for (int i = 0; i < MODELS; i++)
        used +=
            snprintf(sections + used, sizeof sections - (size_t)used,
                     "[model.%s]\npath = $DIR/%s\ncontext = 48\ncontext_min = 48\nhorizon = %d\nsamples = %d\nbuckets = 1, 2\n%s",
                     expected[i].family, expected[i].family, HORIZON, SAMPLES, expected[i].keys);
    harness_open(&harness, SYMBOLS, sections);
    for (int i = 0; i < MODELS; i++) {
        char checkpoint[128];
        snprintf(checkpoint, sizeof checkpoint, "%s/%s", harness.directory, expected[i].family);
        assert_int_equal(harness_execute("barcast", (const char *const[]){"models", "create", "--family", expected[i].family,
                                                                          "--size", "tiny", "--out", checkpoint, NULL}),
                         0);
    }
}

static int model_of(const wire_forecast_t *forecast)
{
    for (int i = 0; i < MODELS; i++)
        if (strcmp(expected[i].family, forecast->model) == 0)
            return i;
    fail_msg("a forecast of model %s", forecast->model);
    return -1;
}

/* Values are finite, says the decoder. */
static void check_quantiles(const wire_forecast_t *forecast, const wire_field_t *field)
{
    for (uint32_t q = 1; q < forecast->quantile_count; q++)
        for (uint32_t h = 0; h < forecast->horizon; h++)
            assert_true(field->quantiles[q * forecast->horizon + h] >= field->quantiles[(q - 1) * forecast->horizon + h]);
}

static void check(const wire_forecast_t *forecast, const expected_t *model)
{
    uint32_t fields = 0;
    while (fields < FIELDS_MOST && model->fields[fields])
        fields++;
    assert_non_null(strchr(model->symbols, forecast->symbol[4]));
    assert_int_equal(forecast->field_count, fields);
    assert_int_equal(forecast->horizon, HORIZON);
    assert_int_equal(forecast->quantile_count, 9);
    assert_int_equal(forecast->sample_count, model->paths ? SAMPLES : 0);
    for (uint32_t i = 0; i < fields; i++) {
        assert_string_equal(forecast->fields[i].field, model->fields[i]);
        assert_non_null(forecast->fields[i].mean);
        check_quantiles(forecast, &forecast->fields[i]);
        assert_true((forecast->fields[i].samples != NULL) == (strcmp(model->family, "kronos") == 0));
    }
    assert_true((forecast->times_ns != NULL) == (strcmp(model->family, "kronos") == 0));
}

/* The last bar opens at 00:58: one more before the market closes, the others tomorrow. */
static void check_hours(const wire_forecast_t *forecast)
{
    const int64_t day = INT64_C(24) * 60 * HARNESS_INTERVAL_NS;
    assert_true(forecast->cutoff_ns == BARS * HARNESS_INTERVAL_NS);
    assert_true(forecast->times_ns[0] == forecast->cutoff_ns + HARNESS_INTERVAL_NS && forecast->start_ns == forecast->times_ns[0]);
    for (int h = 1; h < HORIZON; h++)
        assert_true(forecast->times_ns[h] == day + (h - 1) * HARNESS_INTERVAL_NS);
}

static void every_family_forecasts_its_symbols_in_one_pipeline(void **state)
{
    (void)state;
    bool newest[MODELS][SYMBOLS] = {0};
    int missing = 0;
    for (int i = 0; i < MODELS; i++)
        missing += (int)strlen(expected[i].symbols);
    open_instance();
    harness_start(&harness);
    harness_wait_until(&harness, harness_all_ready, "all processes are ready");
    harness_push(&harness, 0, BARS, false);
    int64_t until = clock_monotonic_ns() + HARNESS_PATIENCE_MS * CLOCK_NS_PER_MS;
    while (missing > 0) {
        wire_forecast_t forecast;
        int rc = subscriber_next(harness.subscriber, 100, &forecast);
        if (rc < 0)
            fail_msg("%s", error_text());
        if (clock_monotonic_ns() > until)
            fail_msg("%d of the newest forecasts did not come", missing);
        if (rc == SUBSCRIBER_NONE)
            continue;
        int model = model_of(&forecast), symbol = forecast.symbol[4] - '0';
        check(&forecast, &expected[model]);
        if (forecast.bar_index != BARS - 1 || newest[model][symbol])
            continue;
        if (forecast.times_ns)
            check_hours(&forecast);
        newest[model][symbol] = true;
        missing--;
    }
    assert_int_equal(harness_stop(&harness), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_family_forecasts_its_symbols_in_one_pipeline, close_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
