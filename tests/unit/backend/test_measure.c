/* The timer and the machine's rates, on the CPU backend; no figure is asserted but for its order of magnitude being possible at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "gpuworker/backend/backend.h"

static int open_backend(void **state)
{
    return backend_open(&(backend_options_t){.kind = BACKEND_CPU, .threads = 2}, (backend_t **)state);
}

static int close_backend(void **state)
{
    backend_close(*state);
    return 0;
}

static void timer_refuses_another_order(void **state)
{
    int64_t ns = -7;

    assert_int_equal(backend_timer_stop(*state), BACKEND_ERR_INVALID);
    assert_int_equal(backend_timer_read(*state, &ns), BACKEND_ERR_INVALID);
    assert_int_equal(backend_timer_start(*state), BACKEND_OK);
    assert_int_equal(backend_timer_read(*state, &ns), BACKEND_ERR_INVALID);
    assert_int_equal(ns, -7);
    assert_non_null(strstr(error_text(), "start, stop, read"));
}

static void timer_covers_what_lies_between_start_and_stop(void **state)
{
    int64_t begin_ns = clock_monotonic_ns(), outside_ns, inside_ns, again_ns, slept_ns = 3 * CLOCK_NS_PER_MS;

    assert_int_equal(backend_timer_start(*state), BACKEND_OK);
    clock_sleep_until_ns(clock_monotonic_ns() + slept_ns);
    assert_int_equal(backend_timer_stop(*state), BACKEND_OK);
    outside_ns = clock_monotonic_ns() - begin_ns;
    assert_int_equal(backend_timer_read(*state, &inside_ns), BACKEND_OK);
    assert_int_equal(backend_timer_read(*state, &again_ns), BACKEND_OK);
    assert_in_range(inside_ns, slept_ns, outside_ns);
    assert_int_equal(inside_ns, again_ns);
}

static void rates_are_measured_and_the_memory_is_given_back(void **state)
{
    backend_rates_t rates;

    assert_int_equal(backend_measure(*state, &rates), BACKEND_OK);
    assert_true(rates.copy_bytes_per_s > 1e6 && rates.copy_bytes_per_s < 1e14);
    assert_true(rates.f32_flops > 1e6 && rates.f32_flops < 1e16);
    assert_true(rates.bf16_flops <= 0); /* the CPU has none */
    assert_int_equal(backend_allocated_bytes(*state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(timer_refuses_another_order, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(timer_covers_what_lies_between_start_and_stop, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(rates_are_measured_and_the_memory_is_given_back, open_backend, close_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
