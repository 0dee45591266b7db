/* `barcast shm` as its users run it. */
#include "shm/counters.h"
#include "shm_test.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static char output[65536];

/* Runs `barcast shm COMMAND NAME REST` and returns its exit status; what it said, on either stream, is in `output`. */
static int run(const char *command, const char *name, const char *rest)
{
    char line[512];
    snprintf(line, sizeof line, "%s/barcast shm %s %s %s 2>&1", BARCAST_BIN_DIR, command, name, rest);
    FILE *pipe = popen(line, "r");
    assert_non_null(pipe);
    size_t bytes = fread(output, 1, sizeof output - 1, pipe);
    output[bytes] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool said(const char *text)
{
    return strstr(output, text) != NULL;
}

static shm_segment_t *segment;
static shm_counters_t *counters;

static void start(const char *name)
{
    segment = test_create(name);
    uint32_t id = test_symbol(segment, "BTC-USD");
    for (uint64_t i = 0; i < 100; i++) {
        shm_bar_t bar = test_bar(i, 0);
        bar.flags = i == 99 ? SHM_BAR_IN_PROGRESS : 0;
        shm_ring_append(segment, id, &bar);
    }
    shm_counter_add(shm_counters_of_segment(segment), SHM_COUNTER_BARS_STORED, 4711);
    assert_int_equal(shm_counters_create(name, "worker.0", &counters), SHM_OK);
    shm_counter_add(counters, SHM_COUNTER_FORECASTS, 815);
}

static void end(void)
{
    shm_counters_leave(counters);
    shm_segment_leave(segment);
}

static void a_living_instance_is_shown_and_not_removed(void **state)
{
    (void)state;
    const char *name = test_name("shown");
    start(name);
    assert_int_equal(run("list", "", ""), 0);
    assert_true(said(name) && said("alive"));
    assert_int_equal(run("info", name, ""), 0);
    assert_true(said("BTC-USD") && said("4711") && said("worker.0") && said("815"));
    assert_int_equal(run("bars", name, "BTC-USD --last 2"), 0);
    assert_true(said("1970-01-01T01:38:00Z") && said("1970-01-01T01:39:00Z") && said("in-progress"));
    assert_false(said("1970-01-01T01:37:00Z"));
    assert_int_equal(run("rm", name, ""), 1);
    assert_true(said("is alive"));
    shm_segment_leave(test_join(name)); /* still there */
    assert_int_equal(run("rm", name, "--force"), 0);
    shm_segment_t *reader;
    assert_int_equal(shm_segment_join(name, &reader), SHM_ERR_NOT_READY);
    end();
}

static void what_a_dead_instance_left_is_removed(void **state)
{
    (void)state;
    const char *name = test_name("left");
    test_in_dying_process(start, name);
    assert_int_equal(run("info", name, ""), 0);
    assert_true(said("dead"));
    assert_int_equal(run("rm", name, ""), 0);
    assert_true(said("2 objects removed"));
    assert_int_equal(run("info", name, ""), 1);
}

static void wrong_use_is_explained(void **state)
{
    (void)state;
    const char *name = test_name("usage");
    start(name);
    assert_int_equal(run("lst", "", ""), 2);
    assert_true(said("did you mean list"));
    assert_int_equal(run("bars", name, ""), 2);
    assert_true(said("usage"));
    assert_int_equal(run("bars", name, "NONE"), 1);
    assert_true(said("no symbol \"NONE\""));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_living_instance_is_shown_and_not_removed),
        cmocka_unit_test(what_a_dead_instance_left_is_removed),
        cmocka_unit_test(wrong_use_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
