/* Bars and times as Kronos wants them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include <time.h>

#include "gpuworker/model/kronos.h"

enum { BARS = 6 };

/* Fills the last `length` bars of open, high, low, close, volume, amount; a mask of "110111" has one gap. */
static void fill(const float values[KRONOS_FIELDS][BARS], const char *const masks[KRONOS_FIELDS], int64_t length,
                 float filled[KRONOS_FIELDS][BARS], uint8_t present[KRONOS_FIELDS][BARS])
{
    uint8_t mask[KRONOS_FIELDS][BARS];

    for (int f = 0; f < KRONOS_FIELDS; f++)
        for (int t = 0; t < BARS; t++)
            mask[f][t] = masks[f][t] == '1';
    kronos_fill_bars(values[0], mask[0], BARS, length, filled[0], present[0]);
}

static void expect(const float got[BARS], const float wanted[BARS])
{
    for (int t = 0; t < BARS; t++)
        assert_true(got[t] == wanted[t]);
}

static const float bars[KRONOS_FIELDS][BARS] = {{1, 2, 3, 4, 5, 6}, {2, 3, 4, 5, 6, 7},       {0, 1, 2, 3, 4, 5},
                                                {1, 2, 3, 4, 5, 6}, {10, 20, 30, 40, 50, 60}, {11, 22, 33, 44, 55, 66}};
#define WHOLE   "111111"
#define NOTHING "000000"

static void gaps_take_the_value_before_them_and_leading_ones_the_first(void **state)
{
    const char *masks[KRONOS_FIELDS] = {"001011", WHOLE, WHOLE, "110001", WHOLE, "011110"};
    float filled[KRONOS_FIELDS][BARS];
    uint8_t present[KRONOS_FIELDS][BARS];

    (void)state;
    fill(bars, masks, BARS, filled, present);
    expect(filled[0], (float[BARS]){3, 3, 3, 3, 5, 6});
    expect(filled[1], bars[1]);
    expect(filled[3], (float[BARS]){1, 2, 2, 2, 2, 6});
    expect(filled[5], (float[BARS]){22, 22, 33, 44, 55, 55});
    for (int i = 0; i < KRONOS_FIELDS * BARS; i++)
        assert_int_equal(present[i / BARS][i % BARS], 1);
}

static void a_shorter_window_has_nothing_before_it(void **state)
{
    const char *masks[KRONOS_FIELDS] = {"111011", WHOLE, WHOLE,
                                        WHOLE,    WHOLE, WHOLE}; /* what lies before the window does not count */
    float filled[KRONOS_FIELDS][BARS];
    uint8_t present[KRONOS_FIELDS][BARS];

    (void)state;
    fill(bars, masks, 3, filled, present);
    expect(filled[0], (float[BARS]){0, 0, 0, 5, 5, 6});
    for (int i = 0; i < KRONOS_FIELDS * BARS; i++)
        assert_int_equal(present[i / BARS][i % BARS], i % BARS >= 3);
}

static void missing_fields_are_made_up_as_the_official_predictor_does(void **state)
{
    const char *no_amount[KRONOS_FIELDS] = {WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, NOTHING};
    const char *no_volume[KRONOS_FIELDS] = {WHOLE, WHOLE, WHOLE, WHOLE, NOTHING, WHOLE};
    const char *close_only[KRONOS_FIELDS] = {NOTHING, NOTHING, NOTHING, "111011", NOTHING, NOTHING};
    const char *nothing[KRONOS_FIELDS] = {NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING};
    float filled[KRONOS_FIELDS][BARS];
    uint8_t present[KRONOS_FIELDS][BARS];

    (void)state;
    fill(bars, no_amount, BARS, filled, present);
    for (int t = 0; t < BARS; t++)
        assert_true(fabsf(filled[5][t] - bars[4][t] * (bars[0][t] + bars[1][t] + bars[2][t] + bars[3][t]) / 4) < 1e-4f);
    fill(bars, no_volume, BARS, filled, present);
    expect(filled[4], (float[BARS]){0});
    expect(filled[5], (float[BARS]){0});
    fill(bars, close_only, BARS, filled, present);
    for (int f = 0; f < 4; f++)
        expect(filled[f], (float[BARS]){1, 2, 3, 3, 5, 6});
    fill(bars, nothing, BARS, filled, present);
    for (int f = 0; f < KRONOS_FIELDS; f++)
        expect(filled[f], (float[BARS]){0});
}

/* Against the C library's calendar, over four centuries around 1970. */
static void times_are_those_of_the_calendar(void **state)
{
    (void)state;
    for (int64_t i = -4000; i < 4000; i++) {
        int64_t seconds = i * 1577847 + 59; /* some 18 days, at odd times of the day */
        time_t time = (time_t)seconds;
        struct tm wanted;
        int32_t got[KRONOS_TIMES];

        assert_non_null(gmtime_r(&time, &wanted));
        kronos_fill_times(&(int64_t){seconds * INT64_C(1000000000) + 999999999}, 1, got);
        assert_int_equal(got[0], wanted.tm_min);
        assert_int_equal(got[1], wanted.tm_hour);
        assert_int_equal(got[2], (wanted.tm_wday + 6) % 7);
        assert_int_equal(got[3], wanted.tm_mday);
        assert_int_equal(got[4], wanted.tm_mon + 1);
    }
}

static void times_are_written_feature_by_feature(void **state)
{
    /* Thursday 1970-01-01 00:00, Tuesday 2000-02-29 12:34:56, an hour later, Wednesday 2000-03-01 00:00 */
    int64_t time_ns[4] = {0, INT64_C(951827696789000000), INT64_C(951831296789000000), INT64_C(951868800000000000)};
    int32_t got[KRONOS_TIMES * 4];
    static const int32_t wanted[KRONOS_TIMES * 4] = {0, 34, 34, 0, 0, 12, 13, 0, 3, 1, 1, 2, 1, 29, 29, 1, 1, 2, 2, 3};

    (void)state;
    kronos_fill_times(time_ns, 4, got);
    assert_memory_equal(got, wanted, sizeof got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaps_take_the_value_before_them_and_leading_ones_the_first),
        cmocka_unit_test(a_shorter_window_has_nothing_before_it),
        cmocka_unit_test(missing_fields_are_made_up_as_the_official_predictor_does),
        cmocka_unit_test(times_are_those_of_the_calendar),
        cmocka_unit_test(times_are_written_feature_by_feature),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
