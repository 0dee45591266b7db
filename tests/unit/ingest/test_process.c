/* The process itself: started, fed, stopped, killed. */
#include "base/clock.h"
#include "scratch.h"
#include "shm/counters.h"
#include "shm/ring.h"
#include "shm/update_log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SYMBOLS = 4, BARS = 4000, RING_BARS = 8192 };

static char instance[64];

static int setup(void **state)
{
    snprintf(instance, sizeof instance, "test-ingest-%d", (int)getpid());
    shm_segment_delete(instance);
    return scratch_setup(state);
}

static int teardown(void **state)
{
    shm_segment_delete(instance);
    return scratch_teardown(state);
}

static void write_config(void **state, const char *feed)
{
    char text[1024];
    snprintf(text, sizeof text,
             "[instance]\nname = %s\n[shm]\nsymbols_max = 16\nring_bars = %d\nlog_entries = 65536\n"
             "[feed.test]\ntype = csv\npath = bars.csv\n%s[model.naive]\npath = naive\n",
             instance, RING_BARS, feed);
    free(scratch_write(state, "test.ini", text));
}

/* SYMBOLS times BARS minutes in one file; a bar's close says which one it is. */
static void write_bars(void **state)
{
    char *path = scratch_write(state, "bars.csv", "");
    FILE *file = fopen(path, "w");
    fprintf(file, "symbol,time,open,high,low,close,volume\n");
    for (int bar = 0; bar < BARS; bar++)
        for (int symbol = 0; symbol < SYMBOLS; symbol++)
            fprintf(file, "S%d,%d,%d,%d,%d,%d,1\n", symbol, bar * 60, bar + 1, bar + 1, bar + 1, bar + 1);
    fclose(file);
    free(path);
}

/* Starts barcast-ingest; *input is its standard input, its messages are dropped. */
static pid_t start(void **state, const char *option, int *input)
{
    char config[512];
    snprintf(config, sizeof config, "%s/test.ini", (const char *)*state);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[0], STDIN_FILENO);
        close(ends[0]);
        close(ends[1]);
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        execl(BARCAST_BIN_DIR "/barcast-ingest", "barcast-ingest", "--config", config, option, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    close(ends[0]);
    *input = ends[1];
    return pid;
}

static int wait_for(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Joins the segment once it is there and its writer, which is ours, is alive. */
static shm_segment_t *join_soon(void)
{
    shm_segment_t *segment;
    for (int rc; (rc = shm_segment_join(instance, &segment)) != SHM_OK; usleep(1000))
        if (rc == SHM_ERR_STALE_WRITER)
            shm_segment_leave(segment);
    return segment;
}

static void wait_for_bars(shm_segment_t *segment, uint64_t bars)
{
    while (shm_counter_get(shm_counters_of_segment(segment), SHM_COUNTER_BARS_STORED) < bars)
        usleep(1000);
}

static void check_every_bar(const shm_segment_t *segment)
{
    assert_int_equal(shm_symbol_count(segment), SYMBOLS);
    for (uint32_t id = 0; id < SYMBOLS; id++) {
        assert_int_equal(shm_ring_closed(segment, id), BARS);
        for (uint64_t index = 0; index < BARS; index++) {
            shm_bar_t bar;
            assert_int_equal(shm_ring_read(segment, id, index, &bar), SHM_OK);
            assert_int_equal(bar.open_time_ns, (int64_t)index * 60 * CLOCK_NS_PER_S);
            assert_true(bar.close == (double)index + 1 && bar.open == bar.close && bar.volume == 1);
        }
    }
}

static void a_finite_feed_is_replayed_and_ends_with_success(void **state)
{
    write_bars(state);
    write_config(state, "history_bars = 100\nspeed = 0\n");
    int input;
    pid_t pid = start(state, NULL, &input);
    assert_int_equal(wait_for(pid), 0);
    close(input);
    shm_segment_t *segment;
    assert_int_equal(shm_segment_join(instance, &segment), SHM_ERR_STALE_WRITER);
    check_every_bar(segment);
    assert_int_equal(shm_counter_get(shm_counters_of_segment(segment), SHM_COUNTER_BARS_HISTORY), SYMBOLS * 100);
    shm_segment_leave(segment);
}

static void a_held_replay_waits_for_its_byte(void **state)
{
    write_bars(state);
    write_config(state, "history_bars = 100\nspeed = 0\n");
    int input;
    pid_t pid = start(state, "--hold", &input);
    shm_segment_t *segment = join_soon();
    wait_for_bars(segment, SYMBOLS * 100);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    assert_int_equal(shm_counter_get(shm_counters_of_segment(segment), SHM_COUNTER_BARS_STORED), SYMBOLS * 100);
    assert_int_equal(write(input, "\n", 1), 1);
    assert_int_equal(wait_for(pid), 0);
    check_every_bar(segment);
    shm_segment_leave(segment);
    close(input);
}

static void a_signal_ends_it_with_success_and_the_bars_stay(void **state)
{
    write_bars(state);
    write_config(state, "history_bars = 100\nspeed = 1\n");
    for (int i = 0; i < 2; i++) {
        int input;
        pid_t pid = start(state, NULL, &input);
        shm_segment_t *segment = join_soon();
        wait_for_bars(segment, SYMBOLS * 100);
        kill(pid, i == 0 ? SIGTERM : SIGINT);
        assert_int_equal(wait_for(pid), 0);
        assert_true(shm_ring_closed(segment, 0) >= 100);
        shm_segment_leave(segment);
        close(input);
    }
}

static void killed_again_and_again_it_goes_on_and_loses_no_bar(void **state)
{
    write_bars(state);
    write_config(state, "history_bars = 100\nbars_per_second = 4000\n");
    shm_segment_t *segment = NULL;
    int input;
    for (int kills = 0; kills < 5; kills++) {
        pid_t pid = start(state, NULL, &input);
        if (!segment)
            segment = join_soon();
        wait_for_bars(segment, SYMBOLS * (100 + 500 * (uint64_t)kills));
        kill(pid, SIGKILL);
        assert_true(WIFSIGNALED(wait_for(pid)));
        close(input);
    }
    pid_t pid = start(state, NULL, &input);
    assert_int_equal(wait_for(pid), 0);
    close(input);
    check_every_bar(segment);
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    assert_int_equal(info.writer_generation, 6);
    for (shm_counter_t id = SHM_COUNTER_BAD_NOT_FINITE; id <= SHM_COUNTER_GAPS; id++)
        assert_int_equal(shm_counter_get(shm_counters_of_segment(segment), id), 0);
    shm_segment_leave(segment);
}

static void wrong_configurations_and_arguments_are_told_by_the_exit_status(void **state)
{
    int input;
    assert_int_equal(WEXITSTATUS(wait_for(start(state, NULL, &input))), 1); /* no such file */
    close(input);
    write_config(state, "spede = 1\n");
    assert_int_equal(WEXITSTATUS(wait_for(start(state, NULL, &input))), 1);
    close(input);
    write_config(state, "");
    assert_int_equal(WEXITSTATUS(wait_for(start(state, NULL, &input))), 1); /* no bars.csv */
    close(input);
    assert_int_equal(WEXITSTATUS(wait_for(start(state, "--no-such-option", &input))), 2);
    close(input);
    write_config(state, "[feed.more]\ntype = ndjson\npath = -\ninterval = 1m\n");
    assert_int_equal(WEXITSTATUS(wait_for(start(state, "--hold", &input))), 1); /* both want standard input */
    close(input);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_finite_feed_is_replayed_and_ends_with_success),
        TEST(a_held_replay_waits_for_its_byte),
        TEST(a_signal_ends_it_with_success_and_the_bars_stay),
        TEST(killed_again_and_again_it_goes_on_and_loses_no_bar),
        TEST(wrong_configurations_and_arguments_are_told_by_the_exit_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
