#include "ingest/timestamp.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define S CLOCK_NS_PER_S

static void assert_parses(const char *text, int64_t expected_ns)
{
    int64_t parsed = -1;
    if (!timestamp_parse(text, strlen(text), &parsed))
        fail_msg("%s is no time", text);
    if (parsed != expected_ns)
        fail_msg("%s: %lld, expected %lld", text, (long long)parsed, (long long)expected_ns);
}

static void assert_refuses(const char *text)
{
    int64_t untouched = 42;
    if (timestamp_parse(text, strlen(text), &untouched))
        fail_msg("%s was taken for %lld", text, (long long)untouched);
    assert_int_equal(untouched, 42);
}

/* 2024-06-18 11:15:30 UTC */
#define MOMENT (INT64_C(1718709330) * S)

static void every_way_to_write_a_moment_is_the_same_moment(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "2024-06-18T11:15:30",
        "2024-06-18 11:15:30",
        "2024/06/18 11:15:30",
        "2024.06.18 11:15:30",
        "2024/6/18 11:15:30",
        "2024-06-18t11:15:30z",
        "2024-06-18T11:15:30Z",
        "2024-06-18 11:15:30 UTC",
        "2024-06-18T11:15:30.000Z",
        "2024-06-18T19:15:30+08",
        "2024-06-18T19:15:30+0800",
        "2024-06-18 19:15:30+08:00",
        "2024-06-18 19:15:30 +0800",
        "2024-06-18T06:45:30-0430",
        "2024-06-18 06:45:30-04:30",
        "20240618T111530Z",
        "20240618 111530",
        "20240618111530",
        "20240618111530000",
        "1718709330",
        "1718709330.0",
        "1718709330000",
        "1718709330000000",
        "1718709330000000000",
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        assert_parses(ways[i], MOMENT);
}

static void fractions_of_a_second_are_kept_to_the_nanosecond(void **state)
{
    (void)state;
    assert_parses("2024-06-18 11:15:30.5", MOMENT + S / 2);
    assert_parses("2024-06-18 11:15:30.000000001Z", MOMENT + 1);
    assert_parses("2024-06-18 11:15:30.123456789123+00:00", MOMENT + 123456789);
    assert_parses("1718709330.25", MOMENT + S / 4);
    assert_parses("1718709330123.5", MOMENT + 123500000);
    assert_parses("1718709330123456.5", MOMENT + 123456500);
    assert_parses("1718709330123456789", MOMENT + 123456789);
    assert_parses("20240618111530123", MOMENT + 123000000);
}

static void a_date_alone_is_its_midnight(void **state)
{
    (void)state;
    assert_parses("2020-01-02", INT64_C(1577923200) * S);
    assert_parses("20200102", INT64_C(1577923200) * S);
    assert_parses("2020/1/2", INT64_C(1577923200) * S);
    assert_parses("2020-01-02 9:30", (INT64_C(1577923200) + 34200) * S);
    assert_parses("2020-01-02 0930", (INT64_C(1577923200) + 34200) * S);
}

static void times_before_1970_are_negative(void **state)
{
    (void)state;
    assert_parses("1969-12-31 23:59:59", -S);
    assert_parses("1929-10-24", INT64_C(-1268265600) * S);
    assert_parses("-86400", -86400 * S);
}

static void every_day_of_four_centuries_is_what_timegm_says(void **state)
{
    (void)state;
    for (int year = 1800; year < 2200; year++) {
        for (int day = 0; day < 366; day++) {
            struct tm calendar = {.tm_year = year - 1900, .tm_mday = 1 + day};
            time_t expected = timegm(&calendar);
            char text[32];
            strftime(text, sizeof text, "%Y-%m-%d", &calendar);
            assert_parses(text, (int64_t)expected * S);
        }
    }
}

static void days_that_no_calendar_has_are_refused(void **state)
{
    (void)state;
    assert_parses("2024-02-29", INT64_C(1709164800) * S);
    assert_parses("2000-02-29", INT64_C(951782400) * S);
    assert_refuses("2023-02-29");
    assert_refuses("1900-02-29");
    assert_refuses("2024-04-31");
    assert_refuses("2024-13-01");
    assert_refuses("2024-00-01");
    assert_refuses("2024-01-00");
    assert_refuses("1677-01-01");
    assert_refuses("2262-01-01");
}

static void what_is_no_time_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "abc",
        "2024-06-18 11:15:60",
        "2024-06-18 24:00",
        "2024-06-18 11:60",
        "2024-06-18T",
        "-",
        "2024-06",
        "2024-06-18 11:15:30 PM",
        "2024-06-18 11:15:30+",
        "2024-06-18x",
        "2024-06/18",
        "1e9",
        "17187.1.2",
        "99999999999999999999",
        "2024-06-18 11:15:30+25",
        "9223372036854775808",
        " 2024-06-18",
        "2024-06-18 11:15:30.",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_refuses(texts[i]);
}

static void text_is_not_read_beyond_its_length(void **state)
{
    (void)state;
    int64_t parsed;
    assert_true(timestamp_parse("2024-06-18T11:15:30", 10, &parsed));
    assert_int_equal(parsed, INT64_C(1718668800) * S);
    assert_false(timestamp_parse("2024-06-18", 9, &parsed) && parsed == INT64_C(1718668800) * S);
}

static void a_time_that_is_formatted_parses_to_itself(void **state)
{
    (void)state;
    static const int64_t times[] = {0, MOMENT, MOMENT + 1, -1, -S, INT64_C(-1268265600) * S, MOMENT + 999999999};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char text[TIMESTAMP_BYTES];
        timestamp_format(times[i], text);
        assert_parses(text, times[i]);
    }
    char text[TIMESTAMP_BYTES];
    timestamp_format(INT64_MIN, text);
    timestamp_format(INT64_MAX, text);
    assert_string_equal(text, "2262-04-11T23:47:16.854775807Z");
}

static void the_interval_is_the_most_frequent_step(void **state)
{
    (void)state;
    int64_t closed_at_noon[] = {0, 5, 10, 15, 110, 115, 120, 1200, 1205};
    assert_int_equal(timestamp_interval(closed_at_noon, 9), 5);
    int64_t steps_back[] = {30, 10, 40, 10, 20, 10, 20};
    assert_int_equal(timestamp_interval(steps_back, 7), 10);
    int64_t only_back[] = {30, 20, 10};
    assert_int_equal(timestamp_interval(only_back, 3), 0);
    int64_t equals[] = {0, 7, 10};
    assert_int_equal(timestamp_interval(equals, 3), 3);
    int64_t duplicates[] = {4, 4, 4, 6};
    assert_int_equal(timestamp_interval(duplicates, 4), 2);
    int64_t single[] = {4};
    assert_int_equal(timestamp_interval(single, 1), 0);
    assert_int_equal(timestamp_interval(single, 0), 0);
    int64_t extremes[] = {INT64_MIN, INT64_MAX, 0, INT64_MAX};
    assert_int_equal(timestamp_interval(extremes, 4), INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_to_write_a_moment_is_the_same_moment),
        cmocka_unit_test(fractions_of_a_second_are_kept_to_the_nanosecond),
        cmocka_unit_test(a_date_alone_is_its_midnight),
        cmocka_unit_test(times_before_1970_are_negative),
        cmocka_unit_test(every_day_of_four_centuries_is_what_timegm_says),
        cmocka_unit_test(days_that_no_calendar_has_are_refused),
        cmocka_unit_test(what_is_no_time_is_refused),
        cmocka_unit_test(text_is_not_read_beyond_its_length),
        cmocka_unit_test(a_time_that_is_formatted_parses_to_itself),
        cmocka_unit_test(the_interval_is_the_most_frequent_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
