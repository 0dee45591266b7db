#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What a call wrote to stderr. */
static char written[8192];

static void capture(void (*call)(void))
{
    int pipe_ends[2], kept = dup(STDERR_FILENO);
    assert_int_equal(pipe(pipe_ends), 0);
    dup2(pipe_ends[1], STDERR_FILENO);
    close(pipe_ends[1]);
    call();
    dup2(kept, STDERR_FILENO);
    close(kept);
    size_t used = 0;
    for (ssize_t got; (got = read(pipe_ends[0], written + used, sizeof written - 1 - used)) > 0;)
        used += (size_t)got;
    written[used] = '\0';
    close(pipe_ends[0]);
}

static void say_all(void)
{
    log_error("no %s", "file");
    log_warning("odd");
    log_info("started with %d", 3);
    log_debug("detail");
}

static void open_log(log_level_t level, const char *wanted, const char *journal)
{
    unsetenv("BARCAST_LOG");
    unsetenv("JOURNAL_STREAM");
    if (wanted)
        setenv("BARCAST_LOG", wanted, 1);
    if (journal)
        setenv("JOURNAL_STREAM", journal, 1);
    log_open("barcast-test", level);
}

static void a_line_names_the_process_and_what_is_wrong(void **state)
{
    (void)state;
    open_log(LOG_INFO, NULL, NULL);
    capture(say_all);
    assert_string_equal(written, "barcast-test: error: no file\nbarcast-test: warning: odd\nbarcast-test: started with 3\n");
}

static void the_environment_decides_the_level(void **state)
{
    (void)state;
    open_log(LOG_DEBUG, "error", NULL);
    capture(say_all);
    assert_string_equal(written, "barcast-test: error: no file\n");
    open_log(LOG_ERROR, "debug", NULL);
    capture(say_all);
    assert_non_null(strstr(written, "detail"));
    open_log(LOG_WARNING, "loud", NULL); /* no level */
    capture(say_all);
    assert_string_equal(written, "barcast-test: error: no file\nbarcast-test: warning: odd\n");
}

static void the_journal_gets_numbers_for_words(void **state)
{
    (void)state;
    open_log(LOG_WARNING, NULL, "8:1");
    capture(say_all);
    assert_string_equal(written, "<3>barcast-test: no file\n<4>barcast-test: odd\n");
}

static void say_much(void)
{
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_error("%s", text);
}

static void a_long_line_is_cut_and_stays_one_line(void **state)
{
    (void)state;
    open_log(LOG_INFO, NULL, NULL);
    capture(say_much);
    assert_in_range(strlen(written), 1000, 2048);
    assert_ptr_equal(strchr(written, '\n'), written + strlen(written) - 1);
}

static void a_repeated_complaint_is_held_back_and_counted(void **state)
{
    (void)state;
    log_limit_t limit = {0};
    uint64_t suppressed = 99;
    assert_true(log_allow(&limit, INT64_C(3600000000000), &suppressed));
    assert_int_equal(suppressed, 0);
    for (int i = 0; i < 5; i++)
        assert_false(log_allow(&limit, INT64_C(3600000000000), &suppressed));
    limit.next_ns = 0; /* an hour later */
    assert_true(log_allow(&limit, INT64_C(3600000000000), &suppressed));
    assert_int_equal(suppressed, 5);
    assert_false(log_allow(&limit, INT64_C(3600000000000), &suppressed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_names_the_process_and_what_is_wrong),
        cmocka_unit_test(the_environment_decides_the_level),
        cmocka_unit_test(the_journal_gets_numbers_for_words),
        cmocka_unit_test(a_long_line_is_cut_and_stays_one_line),
        cmocka_unit_test(a_repeated_complaint_is_held_back_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
