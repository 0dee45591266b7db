/* barcast forecast: its printed forms byte by byte on a small forecast, and the command itself on a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/forecast_view.h"

#define DAY INT64_C(86400000000000)

static const float mean[] = {10, 11, 12}, levels[] = {0.1f, 0.5f, 0.9f};
static const float quantiles[] = {9, 8, 7, 10, 11, 12, 11, 14, 17}, history[] = {7, 8, 0, 10};
static const uint8_t observed[] = {1, 1, 0, 1};
static const int64_t times[] = {19719 * DAY, 19720 * DAY, 19721 * DAY, 19722 * DAY}; /* the last is 2023-12-31 */
static const int64_t future[] = {19723 * DAY, 19724 * DAY, 19725 * DAY};

static forecast_view_t small_view(void)
{
    return (forecast_view_t){.symbol = "X",
                             .model = "m",
                             .revision = "r",
                             .interval_ns = DAY,
                             .cutoff_ns = 19722 * DAY,
                             .future_ns = future,
                             .context = 4,
                             .horizon = 3,
                             .quantile_count = 3,
                             .field_count = 1,
                             .seed = 7,
                             .levels = levels,
                             .fields = {{"close", 10, mean, quantiles}},
                             .history = history,
                             .observed = observed,
                             .times_ns = times,
                             .history_count = 4};
}

typedef void (*print_t)(const forecast_view_t *view, FILE *to);

static char *printed(print_t print, const forecast_view_t *view)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);

    assert_non_null(to);
    print(view, to);
    fclose(to);
    return text;
}

static void csv_has_a_line_a_bar(void **state)
{
    forecast_view_t view = small_view();
    char *text = printed(forecast_view_csv, &view);

    (void)state;
    assert_string_equal(text, "timestamp,mean,q0.1,q0.5,q0.9\n"
                              "2024-01-01T00:00:00Z,10,9,10,11\n"
                              "2024-01-02T00:00:00Z,11,8,11,14\n"
                              "2024-01-03T00:00:00Z,12,7,12,17\n");
    free(text);
}

static void csv_columns_of_several_fields_carry_their_names(void **state)
{
    forecast_view_t view = small_view();
    char *text;

    (void)state;
    view.fields[view.field_count++] = (forecast_view_field_t){"volume", 1, mean, NULL};
    text = printed(forecast_view_csv, &view);
    assert_int_equal(strncmp(text, "timestamp,close_mean,close_q0.1,close_q0.5,close_q0.9,volume_mean\n", 66), 0);
    free(text);
}

static void json_has_the_names_of_a_published_forecast(void **state)
{
    forecast_view_t view = small_view();
    char *text = printed(forecast_view_json, &view);
    json_object *json = json_tokener_parse(text), *value, *level;

    (void)state;
    assert_non_null(json);
    assert_true(json_object_object_get_ex(json, "symbol", &value));
    assert_string_equal(json_object_get_string(value), "X");
    assert_true(json_object_object_get_ex(json, "start_ns", &value));
    assert_true(json_object_get_int64(value) == 19723 * DAY);
    assert_true(json_object_object_get_ex(json, "times_ns", &value));
    assert_true(json_object_get_int64(json_object_array_get_idx(value, 2)) == 19725 * DAY);
    assert_true(json_object_object_get_ex(json, "quantiles", &value) && json_object_object_get_ex(value, "0.9", &level));
    assert_int_equal(json_object_array_length(level), 3);
    assert_true(json_object_get_double(json_object_array_get_idx(level, 2)) == 17);
    json_object_put(json);
    free(text);
}

static void print_ascii_table(const forecast_view_t *view, FILE *to)
{
    forecast_view_table(view, 40, false, to);
}

static void print_unicode_table(const forecast_view_t *view, FILE *to)
{
    forecast_view_table(view, 40, true, to);
}

/* 15 rows from 17 down to 7, so value v stands in row 1.4 (17 - v), rounded: history 7 8 (missing) 10, then bands 9-11, 8-14, 7-17 around
 * 10 11 12. */
static void the_chart_shows_history_bands_and_median(void **state)
{
    forecast_view_t view = small_view();
    char *text = printed(print_ascii_table, &view), *unicode = printed(print_unicode_table, &view),
         *chart = strstr(text, "        17 |");

    (void)state;
    assert_non_null(strstr(text, "X, model m: 4 bars, the last of 2023-12-31 (UTC), close 10\n"));
    assert_non_null(strstr(text, "2024-01-03                 12            7           12           17\n"));
    assert_non_null(chart);
    assert_string_equal(chart, "        17 |      .\n"
                               "           |      .\n"
                               "           |      .\n"
                               "           |      .\n"
                               "           |     ..\n"
                               "           |     ..\n"
                               "           |     ..\n"
                               "        12 |     .=\n"
                               "           |    .=.\n"
                               "           |    ...\n"
                               "           |   o=..\n"
                               "           |    ...\n"
                               "           |     ..\n"
                               "           | o   ..\n"
                               "         7 |o     .\n"
                               "            2023-12-282024-01-03\n");
    assert_non_null(strstr(unicode, "━"));
    assert_null(strstr(text, "━"));
    free(text);
    free(unicode);
}

static void a_flat_forecast_without_quantiles_can_be_drawn(void **state)
{
    static const float flat[] = {5, 5, 5, 5};
    forecast_view_t view = small_view();
    char *text;

    (void)state;
    view.fields[0] = (forecast_view_field_t){"close", 5, flat, NULL};
    view.history = flat;
    text = printed(print_ascii_table, &view);
    assert_non_null(strstr(text, "oo o==="));
    free(text);
}

/* ---- the command -------------------------------------------------------------------------------------------------------------- */

static char input[] = "/tmp/barcast-forecast-XXXXXX.csv";

static int write_input(void **state)
{
    int descriptor = mkstemps(input, 4);
    FILE *file = fdopen(descriptor, "w");

    (void)state;
    assert_non_null(file);
    fprintf(file, "Date,Open,High,Low,Close,Volume\n");
    for (int day = 1; day <= 28; day++) {
        double close = 100 + 5 * sin(0.7 * day);
        fprintf(file, "2024-02-%02d,%.3f,%.3f,%.3f,%.3f,%d\n", day, close, close + 1, close - 1, close, 1000 + day);
    }
    fclose(file);
    return 0;
}

static int remove_input(void **state)
{
    (void)state;
    return unlink(input);
}

/* Runs `barcast forecast --input FILE arguments`; its exit status, output into text[bytes]. */
static int command(const char *arguments, char *text, size_t bytes)
{
    char line[1024];
    FILE *pipe;
    size_t got;
    int status;

    snprintf(line, sizeof line, "%s/barcast forecast --device cpu --input %s %s 2>&1", BARCAST_BIN_DIR, input, arguments);
    assert_non_null(pipe = popen(line, "r"));
    got = fread(text, 1, bytes - 1, pipe);
    text[got] = '\0';
    status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define TOTO1 "--model " BARCAST_SOURCE_DIR "/tests/fixtures/golden/toto1/groups/model"

static void the_same_call_prints_the_same_bytes(void **state)
{
    static const char *const calls[] = {"", TOTO1, TOTO1 " --format json --fields close,volume,open --samples 8 --seed 3"};
    char first[1 << 15], second[1 << 15];

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        assert_int_equal(command(calls[i], first, sizeof first), 0);
        assert_int_equal(command(calls[i], second, sizeof second), 0);
        assert_string_equal(first, second);
    }
}

static void another_seed_draws_other_paths(void **state)
{
    char first[1 << 15], second[1 << 15];

    (void)state;
    assert_int_equal(command(TOTO1 " --format csv --seed 1", first, sizeof first), 0);
    assert_int_equal(command(TOTO1 " --format csv --seed 2", second, sizeof second), 0);
    assert_string_not_equal(first, second);
}

/* The model's patch has 8 bars. */
static void within_a_patch_nothing_is_drawn_and_the_quantiles_are_there(void **state)
{
    char first[1 << 15], second[1 << 15];

    (void)state;
    assert_int_equal(command(TOTO1 " --horizon 8 --format csv --seed 1", first, sizeof first), 0);
    assert_int_equal(command(TOTO1 " --horizon 8 --format csv --seed 2", second, sizeof second), 0);
    assert_string_equal(first, second);
    assert_non_null(strstr(first, "0.9"));
    assert_int_equal(command(TOTO1 " --horizon 8 --format csv --seed 2 --samples 16", second, sizeof second), 0);
    assert_string_not_equal(first, second);
}

static void wrong_usage_says_what_was_expected(void **state)
{
    static const struct {
        const char *arguments, *names;
        int status;
    } calls[] = {
        {"--fields close,colour", "colour", 2}, {"--format xml", "xml", 2},
        {"--quantiles 0.1,x", "\"x\"", 2},      {"--quantiles 0.9,0.1", "levels ascend", 1},
        {"--model /nowhere", "/nowhere", 1},    {"--symbol NONE", "NONE", 1},
        {"--samples 1.5", "\"1.5\"", 2},
    };
    char text[1 << 12];

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        assert_int_equal(command(calls[i].arguments, text, sizeof text), calls[i].status);
        if (strstr(text, calls[i].names) == NULL)
            fail_msg("%s: \"%s\" does not say %s", calls[i].arguments, text, calls[i].names);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_has_a_line_a_bar),
        cmocka_unit_test(csv_columns_of_several_fields_carry_their_names),
        cmocka_unit_test(json_has_the_names_of_a_published_forecast),
        cmocka_unit_test(the_chart_shows_history_bands_and_median),
        cmocka_unit_test(a_flat_forecast_without_quantiles_can_be_drawn),
        cmocka_unit_test(the_same_call_prints_the_same_bytes),
        cmocka_unit_test(another_seed_draws_other_paths),
        cmocka_unit_test(within_a_patch_nothing_is_drawn_and_the_quantiles_are_there),
        cmocka_unit_test(wrong_usage_says_what_was_expected),
    };
    return cmocka_run_group_tests(tests, write_input, remove_input);
}
