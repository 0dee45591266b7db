/* When bars open (base/calendar.h). Instants are written as UTC, computed by `date -u -d` in a shell. */
#include "base/calendar.h"
#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define S      INT64_C(1000000000)
#define MINUTE (60 * S)
#define DAY    (86400 * S)

static const int64_t FRIDAY_2024_03_08 = 1709856000 * S; /* 00:00 UTC; New York's clocks change on the 10th */

static calendar_t *opened(const char *zone, const char *days, const char *hours)
{
    calendar_t *calendar = NULL;
    if (calendar_open(zone, days, hours, &calendar) < 0)
        fail_msg("%s", error_text());
    return calendar;
}

static void bars_of_an_always_open_market_are_one_interval_apart(void **state)
{
    (void)state;
    calendar_t *calendar = opened("", "", "");
    int64_t times[3];
    calendar_following(calendar, FRIDAY_2024_03_08, 5 * MINUTE, 3, times);
    for (int i = 0; i < 3; i++)
        assert_int_equal(times[i], FRIDAY_2024_03_08 + (i + 1) * 5 * MINUTE);
    calendar_close(calendar);
}

static void daily_bars_skip_the_weekend(void **state)
{
    (void)state;
    calendar_t *calendar = opened("", "mon,tue,wed,thu,fri", "09:30-16:00");
    int64_t times[6];
    calendar_following(calendar, FRIDAY_2024_03_08 - DAY, DAY, 6, times);
    const int64_t days[6] = {0, 3, 4, 5, 6, 7};
    for (int i = 0; i < 6; i++)
        assert_int_equal(times[i], FRIDAY_2024_03_08 + days[i] * DAY);
    calendar_close(calendar);
}

static void a_session_goes_on_after_lunch_and_after_the_night(void **state)
{
    (void)state;
    calendar_t *calendar = opened("", "mon, tue, wed, thu, fri", "09:30-11:30, 13:00-15:00");
    int64_t times[4], last = FRIDAY_2024_03_08 + (11 * 60) * MINUTE;
    calendar_following(calendar, last, 30 * MINUTE, 4, times);
    assert_int_equal(times[0], FRIDAY_2024_03_08 + 13 * 60 * MINUTE);
    calendar_following(calendar, FRIDAY_2024_03_08 + 14 * 60 * MINUTE, 30 * MINUTE, 4, times);
    assert_int_equal(times[0], FRIDAY_2024_03_08 + (14 * 60 + 30) * MINUTE);
    assert_int_equal(times[1], FRIDAY_2024_03_08 + 3 * DAY + (9 * 60 + 30) * MINUTE);
    assert_int_equal(times[2], times[1] + 30 * MINUTE);
    calendar_close(calendar);
}

static void a_session_keeps_its_local_hours_when_the_clocks_change(void **state)
{
    (void)state;
    calendar_t *calendar = opened("America/New_York", "mon,tue,wed,thu,fri", "09:30-16:00");
    int64_t last = FRIDAY_2024_03_08 + (20 * 60 + 30) * MINUTE; /* 15:30 EST */
    int64_t times[2];
    assert_int_equal(calendar_local_ns(calendar, last), last - 5 * 60 * MINUTE);
    calendar_following(calendar, last, 30 * MINUTE, 2, times);
    assert_int_equal(times[0], FRIDAY_2024_03_08 + 3 * DAY + (13 * 60 + 30) * MINUTE); /* 09:30 EDT on Monday */
    assert_int_equal(times[1], times[0] + 30 * MINUTE);
    assert_int_equal(calendar_local_ns(calendar, times[0]), times[0] - 4 * 60 * MINUTE);
    calendar_close(calendar);
}

static void local_time_of_the_process_stays_as_it_was(void **state)
{
    (void)state;
    setenv("TZ", "Asia/Tokyo", 1);
    calendar_close(opened("America/New_York", "", ""));
    assert_string_equal(getenv("TZ"), "Asia/Tokyo");
    unsetenv("TZ");
    calendar_close(opened("America/New_York", "", ""));
    assert_null(getenv("TZ"));
}

static void refused(const char *zone, const char *days, const char *hours, int code, const char *word)
{
    calendar_t *calendar = NULL;
    assert_int_equal(calendar_open(zone, days, hours, &calendar), code);
    assert_null(calendar);
    assert_non_null(strstr(error_text(), word));
}

static void what_is_no_day_hour_or_zone_is_named(void **state)
{
    (void)state;
    refused("", "mon,tues", "", CALENDAR_ERR_TEXT, "tues");
    refused("", "", "09:30", CALENDAR_ERR_TEXT, "09:30");
    refused("", "", "09:30-25:00", CALENDAR_ERR_TEXT, "25:00");
    refused("", "", "16:00-09:30", CALENDAR_ERR_TEXT, "16:00-09:30");
    refused("", "", "13:00-15:00,09:30-11:30", CALENDAR_ERR_TEXT, "09:30-11:30");
    refused("America/Gotham", "", "", CALENDAR_ERR_ZONE, "America/Gotham");
    refused("../etc/passwd", "", "", CALENDAR_ERR_ZONE, "passwd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_of_an_always_open_market_are_one_interval_apart),
        cmocka_unit_test(daily_bars_skip_the_weekend),
        cmocka_unit_test(a_session_goes_on_after_lunch_and_after_the_night),
        cmocka_unit_test(a_session_keeps_its_local_hours_when_the_clocks_change),
        cmocka_unit_test(local_time_of_the_process_stays_as_it_was),
        cmocka_unit_test(what_is_no_day_hour_or_zone_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
