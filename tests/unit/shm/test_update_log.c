#include "base/clock.h"
#include "shm/layout.h"
#include "shm_test.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ENTRIES = 1024 };

static shm_segment_t *segment;
static uint32_t id;

static int set_up(void **state)
{
    (void)state;
    static int count;
    char what[16] = "log-";
    what[4] = (char)('a' + count++);
    segment = test_create(test_name(what));
    id = test_symbol(segment, "A");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    shm_segment_leave(segment);
    return 0;
}

static void append(uint32_t flags)
{
    shm_bar_t bar = test_bar(shm_ring_head(segment, id), 0);
    bar.flags = flags;
    assert_int_equal(shm_ring_append(segment, id, &bar), SHM_OK);
}

static void amend(uint64_t index, uint32_t flags)
{
    shm_bar_t bar = test_bar(index, 1);
    bar.flags = flags;
    assert_int_equal(shm_ring_amend(segment, id, &bar), SHM_OK);
}

static void expect_entry(uint64_t *cursor, uint32_t flags, uint64_t index)
{
    shm_update_t update;
    size_t count;
    assert_int_equal(shm_log_read(segment, cursor, &update, 1, &count), SHM_OK);
    assert_int_equal(count, 1);
    assert_int_equal(update.symbol_id, id);
    assert_int_equal(update.flags, flags);
    assert_int_equal(update.index, index);
}

static void every_append_and_amendment_makes_an_entry(void **state)
{
    (void)state;
    uint64_t cursor = shm_log_newest(segment);
    append(0);
    append(SHM_BAR_IN_PROGRESS);
    amend(1, SHM_BAR_IN_PROGRESS);
    amend(1, 0);
    amend(0, 0);
    append(SHM_BAR_IN_PROGRESS);
    append(SHM_BAR_IN_PROGRESS);
    append(0);
    expect_entry(&cursor, SHM_UPDATE_CLOSED, 0);
    expect_entry(&cursor, SHM_UPDATE_AMENDED, 1);
    expect_entry(&cursor, SHM_UPDATE_AMENDED, 1);
    expect_entry(&cursor, SHM_UPDATE_CLOSED, 1);
    expect_entry(&cursor, SHM_UPDATE_AMENDED, 0);
    expect_entry(&cursor, SHM_UPDATE_AMENDED, 2);
    expect_entry(&cursor, SHM_UPDATE_CLOSED, 2); /* closed by the append of bar 3 */
    expect_entry(&cursor, SHM_UPDATE_AMENDED, 3);
    expect_entry(&cursor, SHM_UPDATE_CLOSED, 3);
    expect_entry(&cursor, SHM_UPDATE_CLOSED, 4);
    shm_update_t update;
    size_t count = 7;
    assert_int_equal(shm_log_read(segment, &cursor, &update, 1, &count), SHM_OK);
    assert_int_equal(count, 0);
}

static void an_entry_says_when_its_bar_was_stored(void **state)
{
    (void)state;
    for (int burst = 0; burst < 3; burst++) {
        shm_update_t updates[2 * SHM_UPDATE_SHARED];
        size_t count;
        uint64_t cursor = shm_log_newest(segment);
        int64_t before = clock_monotonic_ns();
        for (int i = 0; i < 2 * SHM_UPDATE_SHARED; i++)
            append(0);
        int64_t after = clock_monotonic_ns();
        shm_log_wake(segment);
        assert_int_equal(shm_log_read(segment, &cursor, updates, 2 * SHM_UPDATE_SHARED, &count), SHM_OK);
        assert_int_equal(count, 2 * SHM_UPDATE_SHARED);
        for (size_t i = 0; i < count; i++)
            assert_true(before <= updates[i].stored_ns && updates[i].stored_ns <= after); /* not one of the burst before */
        for (size_t i = 1; i < count; i++)                                                /* shared by sixteens */
            assert_true(i == SHM_UPDATE_SHARED ? updates[i].stored_ns > updates[i - 1].stored_ns
                                               : updates[i].stored_ns == updates[i - 1].stored_ns);
    }
}

static void a_reader_takes_at_most_what_it_asks_for(void **state)
{
    (void)state;
    shm_update_t updates[8];
    size_t count;
    uint64_t cursor = shm_log_newest(segment);
    for (int i = 0; i < 10; i++)
        append(0);
    assert_int_equal(shm_log_read(segment, &cursor, updates, 8, &count), SHM_OK);
    assert_int_equal(count, 8);
    assert_int_equal(updates[7].index, 7);
    assert_int_equal(shm_log_read(segment, &cursor, updates, 8, &count), SHM_OK);
    assert_int_equal(count, 2);
    assert_int_equal(updates[1].index, 9);
}

static void a_lapped_reader_is_moved_to_the_newest(void **state)
{
    (void)state;
    shm_update_t update;
    size_t count = 7;
    uint64_t start = shm_log_newest(segment), cursor = start;
    for (int i = 0; i < ENTRIES - 1; i++)
        append(0);
    expect_entry(&cursor, SHM_UPDATE_CLOSED, 0); /* the oldest that is safe */
    cursor = start;
    append(0);
    assert_int_equal(shm_log_read(segment, &cursor, &update, 1, &count), SHM_OVERRUN);
    assert_int_equal(count, 0);
    assert_true(cursor == shm_log_newest(segment));
    append(0);
    expect_entry(&cursor, SHM_UPDATE_CLOSED, ENTRIES);
    cursor = shm_log_newest(segment) + 5; /* of another segment */
    assert_int_equal(shm_log_read(segment, &cursor, &update, 1, &count), SHM_OVERRUN);
    assert_true(cursor == shm_log_newest(segment));
}

static void waiting_ends_with_the_timeout(void **state)
{
    (void)state;
    uint64_t cursor = shm_log_newest(segment);
    int64_t before = clock_monotonic_ns();
    assert_int_equal(shm_log_wait(segment, cursor, 20 * CLOCK_NS_PER_MS), SHM_EMPTY);
    assert_true(clock_monotonic_ns() - before >= 20 * CLOCK_NS_PER_MS);
    assert_int_equal(shm_log_wait(segment, cursor, 0), SHM_EMPTY);
}

static void waiting_does_not_wait_when_there_is_an_entry(void **state)
{
    (void)state;
    uint64_t cursor = shm_log_newest(segment);
    append(0);
    assert_int_equal(shm_log_wait(segment, cursor, -1), SHM_OK);
}

static void on_alarm(int number)
{
    (void)number;
}

static void waiting_ends_with_a_signal(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    alarm(1);
    assert_int_equal(shm_log_wait(segment, shm_log_newest(segment), -1), SHM_EMPTY);
}

/* Readers in processes of their own, on read-only mappings, wait without a timeout for each of many bursts: a lost wake-up
 * hangs. */
static void no_wake_up_is_lost_between_processes(void **state)
{
    (void)state;
    enum { READERS = 3, BARS = 3000, BURST = 3 };
    const char *name = test_name("wake");
    shm_segment_t *writer = test_create(name);
    test_symbol(writer, "A");
    pid_t readers[READERS];
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    for (int r = 0; r < READERS; r++) {
        readers[r] = fork();
        if (readers[r] == 0) {
            shm_segment_t *reader = NULL;
            if (shm_segment_join(name, &reader) != SHM_OK)
                _exit(1);
            uint64_t cursor = shm_log_newest(reader);
            if (write(ready[1], "r", 1) != 1)
                _exit(2);
            while (shm_ring_head(reader, 0) < BARS) {
                shm_update_t updates[16];
                size_t count;
                if (shm_log_wait(reader, cursor, -1) != SHM_OK)
                    _exit(3);
                shm_log_read(reader, &cursor, updates, 16, &count);
            }
            _exit(0);
        }
    }
    char byte;
    for (int r = 0; r < READERS; r++)
        assert_int_equal(read(ready[0], &byte, 1), 1);
    for (uint64_t i = 0; i < BARS; i++) {
        shm_bar_t bar = test_bar(i, 0);
        assert_int_equal(shm_ring_append(writer, 0, &bar), SHM_OK);
        if (i % BURST == BURST - 1) {
            shm_log_wake(writer);
            if (i % 64 == 2)
                usleep(200); /* let them fall asleep now and then */
        }
    }
    for (int r = 0; r < READERS; r++)
        test_wait_good(readers[r]);
    close(ready[0]);
    close(ready[1]);
    shm_segment_leave(writer);
}

static void store_without_entry_and_die(const char *name)
{
    shm_segment_t *writer = test_create(name);
    test_symbol(writer, "A");
    shm_bar_t bar = test_bar(0, 0);
    shm_ring_append(writer, 0, &bar);
    writer->header->log_head = 0; /* as if killed between the ring's head and the log's */
}

static void after_a_rejoin_every_reader_looks_at_the_rings_once(void **state)
{
    (void)state;
    const char *name = test_name("restart");
    test_in_dying_process(store_without_entry_and_die, name);
    shm_segment_t *reader = test_join(name);
    uint64_t cursor = shm_log_newest(reader), late = cursor;
    shm_update_t update;
    size_t count;
    shm_segment_t *writer = test_rejoin(name);
    assert_int_equal(shm_log_wait(reader, cursor, -1), SHM_OK);
    assert_int_equal(shm_log_read(reader, &cursor, &update, 1, &count), SHM_OVERRUN);
    assert_int_equal(shm_ring_closed(reader, 0), 1);
    shm_bar_t bar = test_bar(1, 0);
    assert_int_equal(shm_ring_append(writer, 0, &bar), SHM_OK);
    assert_int_equal(shm_log_read(reader, &cursor, &update, 1, &count), SHM_OK);
    assert_int_equal(count, 1);
    assert_int_equal(update.index, 1);
    assert_int_equal(shm_log_read(reader, &late, &update, 1, &count), SHM_OVERRUN);
    shm_segment_leave(reader);
    shm_segment_leave(writer);
}

/* A thread lags up to nearly a whole log behind, so that the writer laps it while it copies, hundreds of times: entries come in
 * order, whole, and gaps only with OVERRUN. */
typedef struct {
    _Atomic int ready;
    const char *wrong;
} follower_t;

static void *follow(void *argument)
{
    follower_t *follower = argument;
    static shm_update_t updates[ENTRIES];
    uint64_t cursor = shm_log_newest(segment), next = shm_ring_head(segment, id), last = 500000;
    bool lapped = false;
    uint64_t lag = 0;
    atomic_store_explicit(&follower->ready, 1, memory_order_release); /* pairs with the load in the test */
    while (next < last && !follower->wrong) {
        size_t count;
        lag = lag == ENTRIES / 2 ? ENTRIES - 1 : ENTRIES / 2; /* in turn, so that it also gets something */
        while (shm_log_newest(segment) - cursor < lag && shm_ring_head(segment, id) < last)
            continue;
        int rc = shm_log_read(segment, &cursor, updates, ENTRIES, &count);
        if (rc == SHM_OVERRUN) {
            lapped = true;
            next = shm_ring_head(segment, id);
        }
        for (size_t i = 0; i < count; i++) {
            if (updates[i].symbol_id != id || updates[i].flags != SHM_UPDATE_CLOSED)
                follower->wrong = "a torn entry";
            if (lapped ? updates[i].index > next : updates[i].index != next)
                follower->wrong = "entries out of order";
            lapped = false;
            next = updates[i].index + 1;
        }
    }
    return NULL;
}

static void a_log_that_wraps_under_its_reader_gives_no_torn_entry(void **state)
{
    (void)state;
    follower_t follower = {0};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, follow, &follower), 0);
    while (!atomic_load_explicit(&follower.ready, memory_order_acquire)) /* pairs with the store in follow */
        continue;
    for (int i = 0; i < 500000; i++)
        append(0);
    pthread_join(thread, NULL);
    if (follower.wrong)
        fail_msg("%s", follower.wrong);
}

int main(void)
{
#define LOG_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        LOG_TEST(every_append_and_amendment_makes_an_entry),
        LOG_TEST(an_entry_says_when_its_bar_was_stored),
        LOG_TEST(a_reader_takes_at_most_what_it_asks_for),
        LOG_TEST(a_lapped_reader_is_moved_to_the_newest),
        LOG_TEST(waiting_ends_with_the_timeout),
        LOG_TEST(waiting_does_not_wait_when_there_is_an_entry),
        LOG_TEST(waiting_ends_with_a_signal),
        LOG_TEST(a_log_that_wraps_under_its_reader_gives_no_torn_entry),
        cmocka_unit_test(no_wake_up_is_lost_between_processes),
        cmocka_unit_test(after_a_rejoin_every_reader_looks_at_the_rings_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
