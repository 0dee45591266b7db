#include "config_test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char out[CONFIG_TEXT_BYTES];

static void the_runtime_dir_is_the_given_one_or_the_sessions_or_in_tmp(void **state)
{
    (void)state;
    config_t config = {.instance.name = "desk"};
    char expected[CONFIG_TEXT_BYTES];
    setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
    assert_int_equal(config_runtime_dir(&config, out), CONFIG_OK);
    assert_string_equal(out, "/run/user/1/barcast/desk");

    snprintf(expected, sizeof expected, "/tmp/barcast-%u/desk", (unsigned)getuid());
    setenv("XDG_RUNTIME_DIR", "not/absolute", 1);
    assert_int_equal(config_runtime_dir(&config, out), CONFIG_OK);
    assert_string_equal(out, expected);
    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(config_runtime_dir(&config, out), CONFIG_OK);
    assert_string_equal(out, expected);

    strcpy(config.instance.runtime_dir, "/run/given");
    assert_int_equal(config_runtime_dir(&config, out), CONFIG_OK);
    assert_string_equal(out, "/run/given");
}

static void endpoints_are_sockets_in_the_runtime_dir(void **state)
{
    (void)state;
    config_t config = {.instance.runtime_dir = "/run/b"};
    assert_int_equal(config_scheduler_endpoint(&config, out), CONFIG_OK);
    assert_string_equal(out, "ipc:///run/b/scheduler");
    assert_int_equal(config_publish_endpoint(&config, 0, out), CONFIG_OK);
    assert_string_equal(out, "ipc:///run/b/publish.0");
    assert_int_equal(config_publish_endpoint(&config, 12, out), CONFIG_OK);
    assert_string_equal(out, "ipc:///run/b/publish.12");
}

static void a_given_endpoint_is_counted_up_by_worker(void **state)
{
    (void)state;
    config_t config = {.scheduler.endpoint = "tcp://10.0.0.1:7000", .publish.endpoint = "tcp://[::1]:65534"};
    assert_int_equal(config_scheduler_endpoint(&config, out), CONFIG_OK);
    assert_string_equal(out, "tcp://10.0.0.1:7000");
    assert_int_equal(config_publish_endpoint(&config, 0, out), CONFIG_OK);
    assert_string_equal(out, "tcp://[::1]:65534");
    assert_int_equal(config_publish_endpoint(&config, 1, out), CONFIG_OK);
    assert_string_equal(out, "tcp://[::1]:65535");
    assert_int_equal(config_publish_endpoint(&config, 2, out), CONFIG_ERR_VALUE);
    assert_string_equal(error_text(), "worker 2 would publish at port 65536, expected at most 65535: lower the port in [publish]");

    strcpy(config.publish.endpoint, "ipc:///run/p");
    assert_int_equal(config_publish_endpoint(&config, 0, out), CONFIG_OK);
    assert_string_equal(out, "ipc:///run/p");
    assert_int_equal(config_publish_endpoint(&config, 1, out), CONFIG_OK);
    assert_string_equal(out, "ipc:///run/p.1");
}

static void a_socket_path_longer_than_the_kernel_takes_is_refused(void **state)
{
    (void)state;
    config_t config = {0};
    memset(config.instance.runtime_dir, 'r', 107 - strlen("/scheduler"));
    assert_int_equal(config_scheduler_endpoint(&config, out), CONFIG_OK);
    assert_int_equal(strlen(out), strlen("ipc://") + 107);
    config.instance.runtime_dir[107 - strlen("/scheduler")] = 'r';
    strcpy(out, "untouched");
    assert_int_equal(config_scheduler_endpoint(&config, out), CONFIG_ERR_VALUE);
    assert_non_null(strstr(error_text(), "has 108 bytes, at most 107 are possible: set a shorter runtime_dir in [instance]"));
    assert_string_equal(out, "untouched");

    memset(config.publish.endpoint, 'p', CONFIG_TEXT_BYTES - 1);
    memcpy(config.publish.endpoint, "ipc://", 6);
    assert_int_equal(config_publish_endpoint(&config, 0, out), CONFIG_ERR_VALUE);
    assert_non_null(strstr(error_text(), "at most 107 are possible"));
    assert_int_equal(config_publish_endpoint(&config, 1, out), CONFIG_ERR_VALUE);
    assert_non_null(strstr(error_text(), "is longer than 255 bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_runtime_dir_is_the_given_one_or_the_sessions_or_in_tmp),
        cmocka_unit_test(endpoints_are_sockets_in_the_runtime_dir),
        cmocka_unit_test(a_given_endpoint_is_counted_up_by_worker),
        cmocka_unit_test(a_socket_path_longer_than_the_kernel_takes_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
