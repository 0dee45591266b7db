#include "ingest/pacing.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MINUTE (60 * CLOCK_NS_PER_S)

static const int64_t now_ns = 1000000;

static void real_time_keeps_the_distance_of_the_open_times(void **state)
{
    (void)state;
    pacing_t pacing = {.speed = 1};
    assert_int_equal(pacing_deadline_ns(&pacing, 100 * MINUTE, now_ns), now_ns);
    assert_int_equal(pacing_deadline_ns(&pacing, 101 * MINUTE, now_ns), now_ns + MINUTE);
    assert_int_equal(pacing_deadline_ns(&pacing, 110 * MINUTE, now_ns), now_ns + 10 * MINUTE);
}

static void n_times_the_speed_divides_it(void **state)
{
    (void)state;
    pacing_t pacing = {.speed = 60};
    assert_int_equal(pacing_deadline_ns(&pacing, 0, now_ns), now_ns);
    assert_int_equal(pacing_deadline_ns(&pacing, 3 * MINUTE, now_ns), now_ns + 3 * CLOCK_NS_PER_S);
    pacing_t slow = {.speed = 0.5};
    assert_int_equal(pacing_deadline_ns(&slow, 0, now_ns), now_ns);
    assert_int_equal(pacing_deadline_ns(&slow, MINUTE, now_ns), now_ns + 2 * MINUTE);
}

static void flat_out_is_always_due(void **state)
{
    (void)state;
    pacing_t pacing = {0};
    assert_int_equal(pacing_deadline_ns(&pacing, 0, now_ns), INT64_MIN);
    assert_int_equal(pacing_deadline_ns(&pacing, 1000 * MINUTE, now_ns), INT64_MIN);
}

static void steps_a_second_count_open_times_and_not_what_lies_between(void **state)
{
    (void)state;
    pacing_t pacing = {.speed = 1, .steps_per_second = 4};
    assert_int_equal(pacing_deadline_ns(&pacing, 0, now_ns), now_ns);
    assert_int_equal(pacing_deadline_ns(&pacing, MINUTE, now_ns), now_ns + CLOCK_NS_PER_S / 4);
    assert_int_equal(pacing_deadline_ns(&pacing, 1000 * MINUTE, now_ns), now_ns + CLOCK_NS_PER_S / 2);
}

static void bars_of_one_open_time_share_the_deadline(void **state)
{
    (void)state;
    pacing_t pacing = {.steps_per_second = 1};
    for (int symbol = 0; symbol < 3; symbol++)
        assert_int_equal(pacing_deadline_ns(&pacing, 0, now_ns), now_ns);
    for (int symbol = 0; symbol < 3; symbol++)
        assert_int_equal(pacing_deadline_ns(&pacing, MINUTE, now_ns), now_ns + CLOCK_NS_PER_S);
}

static void an_older_bar_is_due_with_the_step_that_it_came_in(void **state)
{
    (void)state;
    pacing_t pacing = {.speed = 1};
    pacing_deadline_ns(&pacing, 0, now_ns);
    pacing_deadline_ns(&pacing, 2 * MINUTE, now_ns);
    assert_int_equal(pacing_deadline_ns(&pacing, MINUTE, now_ns), now_ns + 2 * MINUTE);
    assert_int_equal(pacing_deadline_ns(&pacing, 3 * MINUTE, now_ns), now_ns + 3 * MINUTE);
}

static void a_replay_that_fell_behind_keeps_its_timetable(void **state)
{
    (void)state;
    pacing_t pacing = {.speed = 1};
    pacing_deadline_ns(&pacing, 0, now_ns);
    assert_int_equal(pacing_deadline_ns(&pacing, MINUTE, now_ns + 10 * MINUTE), now_ns + MINUTE);
}

static void a_deadline_beyond_the_clock_is_never(void **state)
{
    (void)state;
    pacing_t pacing = {.speed = 1e-9};
    pacing_deadline_ns(&pacing, INT64_MIN, now_ns);
    assert_int_equal(pacing_deadline_ns(&pacing, INT64_MAX, now_ns), INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_time_keeps_the_distance_of_the_open_times),
        cmocka_unit_test(n_times_the_speed_divides_it),
        cmocka_unit_test(flat_out_is_always_due),
        cmocka_unit_test(steps_a_second_count_open_times_and_not_what_lies_between),
        cmocka_unit_test(bars_of_one_open_time_share_the_deadline),
        cmocka_unit_test(an_older_bar_is_due_with_the_step_that_it_came_in),
        cmocka_unit_test(a_replay_that_fell_behind_keeps_its_timetable),
        cmocka_unit_test(a_deadline_beyond_the_clock_is_never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
