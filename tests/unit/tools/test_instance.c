/* How many workers an instance has, and how others learn it. */
#include "tools/instance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void make_config(config_t *out, const char *directory, uint32_t worker_count)
{
    *out = (config_t){.worker = {.count = worker_count, .device = CONFIG_DEVICE_CPU}};
    snprintf(out->instance.name, sizeof out->instance.name, "test-instance-%d", (int)getpid());
    snprintf(out->instance.runtime_dir, sizeof out->instance.runtime_dir, "%s/run", directory);
}

static int make_directory(void **state)
{
    static char directory[] = "/tmp/test-instance-XXXXXX";
    *state = mkdtemp(strcpy(directory, "/tmp/test-instance-XXXXXX"));
    return *state ? 0 : -1;
}

static int remove_directory(void **state)
{
    return rmdir(*state); /* fails when something is left in it */
}

static void number_of_workers_is_the_configs(void **state)
{
    config_t config;
    make_config(&config, *state, 5);
    assert_int_equal(instance_plan_workers(&config, CONFIG_DEVICE_CPU), 5);
    assert_int_equal(instance_plan_workers(&config, CONFIG_DEVICE_CUDA), 5);
    assert_int_equal(instance_workers(&config), 5);
}

static void one_worker_is_planned_on_the_cpu_when_devices_decide(void **state)
{
    config_t config;
    make_config(&config, *state, 0);
    assert_int_equal(instance_plan_workers(&config, CONFIG_DEVICE_CPU), 1);
    assert_in_range(instance_plan_workers(&config, CONFIG_DEVICE_AUTO), 1, 64);
    assert_int_equal(instance_workers(&config), 1);
}

static void others_learn_the_number_from_the_running_instance(void **state)
{
    config_t config;
    instance_t instance, other;
    make_config(&config, *state, 0);
    assert_int_equal(instance_claim(&config, 3, &instance), INSTANCE_OK);
    assert_int_equal(instance_claim(&config, 4, &other), INSTANCE_ERR_BUSY);
    assert_int_equal(instance_workers(&config), 3);
    instance_remove(&config, &instance);
    assert_int_equal(instance_workers(&config), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(number_of_workers_is_the_configs, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(one_worker_is_planned_on_the_cpu_when_devices_decide, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(others_learn_the_number_from_the_running_instance, make_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
