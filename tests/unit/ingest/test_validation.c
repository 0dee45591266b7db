#include "ingest/validation.h"

#include "base/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MINUTE (60 * CLOCK_NS_PER_S)
#define DAY    (86400 * CLOCK_NS_PER_S)

static shm_bar_t sound_bar(void)
{
    return (shm_bar_t){
        .open_time_ns = 100 * MINUTE, .open = 11, .high = 14, .low = 10.5, .close = 12, .volume = 100, .amount = 200};
}

static void a_sound_bar_has_no_fault(void **state)
{
    (void)state;
    shm_bar_t bar = sound_bar();
    assert_int_equal(validation_fault(&bar), VALIDATION_NEW);
    bar.volume = bar.amount = 0;
    assert_int_equal(validation_fault(&bar), VALIDATION_NEW);
    bar.open = bar.high = bar.low = bar.close = 1e-9;
    assert_int_equal(validation_fault(&bar), VALIDATION_NEW);
}

static void nan_and_infinity_are_a_fault_in_any_field(void **state)
{
    (void)state;
    static const double values[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        for (int field = 0; field < 6; field++) {
            shm_bar_t bar = sound_bar();
            double *fields[] = {&bar.open, &bar.high, &bar.low, &bar.close, &bar.volume, &bar.amount};
            *fields[field] = values[i];
            assert_int_equal(validation_fault(&bar), VALIDATION_NOT_FINITE);
        }
    }
}

static void unknown_volume_and_amount_are_no_fault(void **state)
{
    (void)state;
    shm_bar_t bar = sound_bar();
    bar.volume = bar.amount = NAN;
    bar.flags = SHM_BAR_NO_VOLUME | SHM_BAR_NO_AMOUNT;
    assert_int_equal(validation_fault(&bar), VALIDATION_NEW);
    bar.flags = SHM_BAR_NO_VOLUME;
    assert_int_equal(validation_fault(&bar), VALIDATION_NOT_FINITE);
}

static void high_and_low_must_enclose_open_and_close(void **state)
{
    (void)state;
    shm_bar_t bar = sound_bar();
    bar.high = 10;
    assert_int_equal(validation_fault(&bar), VALIDATION_HIGH_LOW);
    bar = sound_bar();
    bar.open = 14.01;
    assert_int_equal(validation_fault(&bar), VALIDATION_HIGH_LOW);
    bar = sound_bar();
    bar.close = 14.01;
    assert_int_equal(validation_fault(&bar), VALIDATION_HIGH_LOW);
    bar = sound_bar();
    bar.open = 10.49;
    assert_int_equal(validation_fault(&bar), VALIDATION_HIGH_LOW);
    bar = sound_bar();
    bar.close = 10.49;
    assert_int_equal(validation_fault(&bar), VALIDATION_HIGH_LOW);
}

static void rounding_of_adjusted_prices_is_no_fault(void **state)
{
    (void)state;
    shm_bar_t bar = sound_bar();
    bar.open = (float)bar.high * (1 + 1e-6);
    bar.close = (float)bar.low * (1 - 1e-6);
    assert_int_equal(validation_fault(&bar), VALIDATION_NEW);
    bar.open = bar.high * (1 + 2 * VALIDATION_ROUNDING);
    assert_int_equal(validation_fault(&bar), VALIDATION_HIGH_LOW);
}

static void prices_must_be_above_zero_and_volumes_not_below(void **state)
{
    (void)state;
    for (int field = 0; field < 4; field++) {
        shm_bar_t bar = sound_bar();
        double *fields[] = {&bar.open, &bar.high, &bar.low, &bar.close};
        *fields[field] = field % 2 ? 0 : -37.63;
        assert_int_equal(validation_fault(&bar), VALIDATION_PRICE);
    }
    shm_bar_t bar = sound_bar();
    bar.volume = -1;
    assert_int_equal(validation_fault(&bar), VALIDATION_VOLUME);
    bar = sound_bar();
    bar.amount = -1;
    assert_int_equal(validation_fault(&bar), VALIDATION_VOLUME);
}

static void the_first_and_every_newer_bar_is_new(void **state)
{
    (void)state;
    shm_bar_t newest = sound_bar(), bar = sound_bar();
    assert_int_equal(validation_place(&bar, NULL, NULL), VALIDATION_NEW);
    bar.open_time_ns++;
    assert_int_equal(validation_place(&bar, &newest, NULL), VALIDATION_NEW);
    newest.flags = SHM_BAR_IN_PROGRESS;
    assert_int_equal(validation_place(&bar, &newest, NULL), VALIDATION_NEW);
}

static void a_bar_in_progress_is_updated_until_it_closes(void **state)
{
    (void)state;
    shm_bar_t stored = sound_bar(), bar = sound_bar();
    stored.flags = bar.flags = SHM_BAR_IN_PROGRESS;
    bar.close = 13;
    assert_int_equal(validation_place(&bar, &stored, &stored), VALIDATION_UPDATE);
    bar = stored;
    bar.flags = 0; /* closes with the same values */
    assert_int_equal(validation_place(&bar, &stored, &stored), VALIDATION_UPDATE);
    stored.flags = 0;
    bar.flags = SHM_BAR_IN_PROGRESS;
    assert_int_equal(validation_place(&bar, &stored, &stored), VALIDATION_OUT_OF_ORDER);
}

static void the_same_bar_again_is_a_duplicate_and_another_one_a_correction(void **state)
{
    (void)state;
    shm_bar_t newest = sound_bar(), stored = sound_bar(), bar = sound_bar();
    newest.open_time_ns += MINUTE;
    stored.volume = bar.volume = NAN;
    assert_int_equal(validation_place(&bar, &newest, &stored), VALIDATION_DUPLICATE);
    for (int field = 0; field < 6; field++) {
        shm_bar_t changed = bar;
        double *fields[] = {&changed.open, &changed.high, &changed.low, &changed.close, &changed.volume, &changed.amount};
        *fields[field] = 11.5;
        assert_int_equal(validation_place(&changed, &newest, &stored), VALIDATION_CORRECT);
    }
    stored.flags = SHM_BAR_FILLED;
    assert_int_equal(validation_place(&bar, &newest, &stored), VALIDATION_CORRECT);
}

static void an_older_bar_that_is_not_stored_is_out_of_order(void **state)
{
    (void)state;
    shm_bar_t newest = sound_bar(), bar = sound_bar();
    bar.open_time_ns--;
    assert_int_equal(validation_place(&bar, &newest, NULL), VALIDATION_OUT_OF_ORDER);
    assert_true(validation_rejects(VALIDATION_OUT_OF_ORDER) && validation_rejects(VALIDATION_NOT_FINITE));
    assert_false(validation_rejects(VALIDATION_NEW) || validation_rejects(VALIDATION_UPDATE) ||
                 validation_rejects(VALIDATION_CORRECT));
}

static uint64_t missing(int64_t previous, int64_t open_time, int64_t interval)
{
    return validation_missing(previous, open_time, interval, NULL, 0);
}

static void every_missing_interval_below_a_day_counts(void **state)
{
    (void)state;
    assert_int_equal(missing(0, MINUTE, MINUTE), 0);
    assert_int_equal(missing(0, 2 * MINUTE, MINUTE), 1);
    assert_int_equal(missing(0, 3 * DAY, MINUTE), 3 * 1440 - 1);
    assert_int_equal(missing(-5 * MINUTE, 5 * MINUTE, 5 * MINUTE), 1);
    int64_t opens[3];
    assert_int_equal(validation_missing(0, 4 * MINUTE, MINUTE, opens, 3), 3);
    assert_true(opens[0] == MINUTE && opens[1] == 2 * MINUTE && opens[2] == 3 * MINUTE);
    opens[2] = 0;
    assert_int_equal(validation_missing(0, 100 * MINUTE, MINUTE, opens, 2), 99);
    assert_int_equal(opens[2], 0);
}

static void steps_are_rounded_to_whole_intervals(void **state)
{
    (void)state;
    assert_int_equal(missing(0, MINUTE + MINUTE / 3, MINUTE), 0);
    assert_int_equal(missing(0, MINUTE / 2, MINUTE), 0);
    assert_int_equal(missing(0, 25 * 60 * MINUTE, DAY), 0); /* the clocks went back */
    assert_int_equal(missing(0, 28 * DAY, 31 * DAY), 0);    /* February */
    assert_int_equal(missing(0, 59 * DAY, 31 * DAY), 1);
}

/* 1970-01-01 was a Thursday. */
static void weekends_are_no_gap_in_daily_bars_of_any_time_zone(void **state)
{
    (void)state;
    static const int64_t midnights[] = {0, 5 * 60 * MINUTE, -8 * 60 * MINUTE,
                                        -9 * 60 * MINUTE}; /* UTC, New York, Shanghai, Tokyo */
    for (size_t i = 0; i < 4; i++) {
        int64_t friday = midnights[i] + DAY, monday = midnights[i] + 4 * DAY, tuesday = midnights[i] + 5 * DAY;
        assert_int_equal(missing(friday, monday, DAY), 0);
        int64_t opens[2] = {0};
        assert_int_equal(validation_missing(friday, tuesday, DAY, opens, 2), 1);
        assert_int_equal(opens[0], monday);
        assert_int_equal(missing(friday - 7 * DAY, monday, DAY), 5);
    }
}

static void weekends_count_where_bars_lie_on_them(void **state)
{
    (void)state;
    const int64_t friday = DAY, saturday = 2 * DAY, sunday = 3 * DAY, monday = 4 * DAY;
    assert_int_equal(missing(friday, sunday, DAY), 1);
    assert_int_equal(missing(saturday, monday, DAY), 1);
    assert_int_equal(missing(friday - 4 * 7 * DAY, sunday, DAY), 29);
}

static void any_two_times_can_be_judged(void **state)
{
    (void)state;
    assert_int_equal(missing(INT64_MIN, INT64_MAX, 1), UINT64_MAX - 1);
    assert_true(missing(INT64_MIN, INT64_MAX, DAY) > 150000);
    assert_int_equal(missing(INT64_MIN, INT64_MAX, INT64_MAX), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_bar_has_no_fault),
        cmocka_unit_test(nan_and_infinity_are_a_fault_in_any_field),
        cmocka_unit_test(unknown_volume_and_amount_are_no_fault),
        cmocka_unit_test(high_and_low_must_enclose_open_and_close),
        cmocka_unit_test(rounding_of_adjusted_prices_is_no_fault),
        cmocka_unit_test(prices_must_be_above_zero_and_volumes_not_below),
        cmocka_unit_test(the_first_and_every_newer_bar_is_new),
        cmocka_unit_test(a_bar_in_progress_is_updated_until_it_closes),
        cmocka_unit_test(the_same_bar_again_is_a_duplicate_and_another_one_a_correction),
        cmocka_unit_test(an_older_bar_that_is_not_stored_is_out_of_order),
        cmocka_unit_test(every_missing_interval_below_a_day_counts),
        cmocka_unit_test(steps_are_rounded_to_whole_intervals),
        cmocka_unit_test(weekends_are_no_gap_in_daily_bars_of_any_time_zone),
        cmocka_unit_test(weekends_count_where_bars_lie_on_them),
        cmocka_unit_test(any_two_times_can_be_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
