#include "base/error.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void context_is_put_in_front(void **state)
{
    (void)state;
    assert_int_equal(error_set(-3, "cannot open: %s", "no such file"), -3);
    assert_int_equal(error_add(-4, "%s", "model.safetensors"), -4);
    assert_string_equal(error_text(), "model.safetensors: cannot open: no such file");
}

static void a_new_error_forgets_the_old_one(void **state)
{
    (void)state;
    error_set(-1, "first");
    error_set(-1, "second");
    assert_string_equal(error_text(), "second");
}

static void long_text_is_cut_and_stays_text(void **state)
{
    (void)state;
    char text[2 * ERROR_TEXT_BYTES];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error_set(-1, "%s", text);
    assert_int_equal(strlen(error_text()), ERROR_TEXT_BYTES - 1);
    error_add(-1, "in front");
    assert_int_equal(strlen(error_text()), ERROR_TEXT_BYTES - 1);
    assert_int_equal(strncmp(error_text(), "in front: xxx", 13), 0);
    error_add(-1, "%s", text);
    assert_int_equal(strlen(error_text()), ERROR_TEXT_BYTES - 1);
}

static void *other_thread(void *argument)
{
    (void)argument;
    return error_text()[0] ? "not empty" : NULL;
}

static void each_thread_has_a_text_of_its_own(void **state)
{
    (void)state;
    error_set(-1, "mine");
    pthread_t thread;
    void *wrong;
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    pthread_join(thread, &wrong);
    assert_null(wrong);
    assert_string_equal(error_text(), "mine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(context_is_put_in_front),
        cmocka_unit_test(a_new_error_forgets_the_old_one),
        cmocka_unit_test(long_text_is_cut_and_stays_text),
        cmocka_unit_test(each_thread_has_a_text_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
