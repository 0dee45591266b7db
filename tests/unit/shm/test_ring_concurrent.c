/* A writer that never rests against readers of four kinds, as threads on one mapping (for ThreadSanitizer, which knows addresses,
 * not pages) and as processes on read-only mappings of their own. Every field of a bar follows from its index and version, so a
 * torn bar shows. */
#include "shm_test.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CAPACITY = 64, BARS = 200000 };

typedef const char *reader_t(const shm_segment_t *segment);

/* Reads bars one after the other and goes on with the oldest when it was lapped. */
static const char *follow(const shm_segment_t *segment)
{
    shm_bar_t bars[7];
    uint64_t next = 0;
    while (next < BARS) {
        uint32_t count = 0;
        int rc = shm_ring_read_many(segment, 0, next, 7, bars, &count);
        if (rc == SHM_OVERRUN)
            next = shm_ring_oldest(segment, 0);
        for (uint32_t i = 0; i < count; i++, next++)
            if (!test_is_whole(&bars[i], next))
                return "the follower got a torn or a wrong bar";
    }
    return NULL;
}

/* Copies windows of random length that end at the newest bars. */
static const char *copy_windows(const shm_segment_t *segment)
{
    shm_bar_t bars[CAPACITY];
    uint64_t random = 99, good = 0, head;
    while ((head = shm_ring_head(segment, 0)) < BARS) {
        uint32_t count = (uint32_t)(test_random(&random) % CAPACITY);
        if (shm_ring_window(segment, 0, head, count, bars) != SHM_OK)
            continue;
        good++;
        for (uint32_t i = 0; i < count; i++) {
            if (!test_is_whole(&bars[i], head - count + i))
                return "a window has a torn or a wrong bar";
            if (i + 1 < count && bars[i].flags & SHM_BAR_IN_PROGRESS)
                return "a window has a bar in progress before its last";
        }
    }
    return good ? NULL : "no window was ever copied";
}

/* Reads where the writer is about to overwrite, and where it has long done so. */
static const char *read_the_edge(const shm_segment_t *segment)
{
    shm_bar_t bar;
    uint64_t head;
    while ((head = shm_ring_head(segment, 0)) < BARS) {
        for (uint64_t index = head > CAPACITY ? head - CAPACITY : 0; index < head && index + CAPACITY < head + 3; index++) {
            int rc = shm_ring_read(segment, 0, index, &bar);
            if (rc == SHM_OK ? !test_is_whole(&bar, index) : rc != SHM_OVERRUN)
                return "the edge gave a torn or a wrong bar";
        }
        if (head > 2 * CAPACITY && shm_ring_read(segment, 0, head - CAPACITY - 1, &bar) != SHM_OVERRUN)
            return "a lapped bar was handed out";
    }
    return NULL;
}

/* Watches the newest bar: its versions only go forwards, and what is closed stays so. */
static const char *watch_the_newest(const shm_segment_t *segment)
{
    uint64_t last = 0, head, closed_before = 0;
    uint32_t version = 0;
    while ((head = shm_ring_head(segment, 0)) < BARS) {
        uint64_t closed = shm_ring_closed(segment, 0);
        if (closed < closed_before || closed + 1 < head)
            return "the closed bars went backwards";
        closed_before = closed;
        shm_bar_t bar;
        if (head == 0 || shm_ring_read(segment, 0, head - 1, &bar) != SHM_OK)
            continue;
        if (!test_is_whole(&bar, head - 1))
            return "the newest bar is torn";
        if (head == last && test_version(&bar) < version)
            return "an older version came after a newer one";
        last = head;
        version = test_version(&bar);
    }
    return NULL;
}

static reader_t *const readers[] = {follow, copy_windows, read_the_edge, watch_the_newest};
enum { READERS = sizeof readers / sizeof *readers };

static void put(shm_segment_t *segment, bool is_new, uint64_t index, uint32_t version, uint32_t flags)
{
    shm_bar_t bar = test_bar(index, version);
    bar.flags = flags;
    assert_int_equal(is_new ? shm_ring_append(segment, 0, &bar) : shm_ring_amend(segment, 0, &bar), SHM_OK);
}

static void write_all(shm_segment_t *segment)
{
    uint64_t random = 5;
    uint32_t version = 0;
    for (uint64_t i = 0; i < BARS; i++) {
        uint64_t dice = test_random(&random);
        bool open = dice & 1;
        put(segment, true, i, ++version, open ? SHM_BAR_IN_PROGRESS : 0);
        for (uint64_t n = dice >> 8 & 3; open && n > 0; n--)
            put(segment, false, i, ++version, SHM_BAR_IN_PROGRESS);
        if (open && dice & 2)
            put(segment, false, i, ++version, 0);
        if (i > CAPACITY && dice & 4)
            put(segment, false, i - 1 - (dice >> 16) % (CAPACITY - 2), ++version, 0);
    }
}

static shm_segment_t *shared;

static void *run_thread(void *argument)
{
    union {
        const void *in;
        void *out;
    } result = {.in = readers[*(const size_t *)argument](shared)};
    return result.out;
}

static void threads_never_see_a_torn_bar(void **state)
{
    (void)state;
    static size_t numbers[READERS];
    pthread_t threads[READERS];
    shared = test_create(test_name("threads"));
    test_symbol(shared, "A");
    for (size_t i = 0; i < READERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, run_thread, &numbers[i]), 0);
    }
    write_all(shared);
    const char *wrong = NULL;
    for (size_t i = 0; i < READERS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong = result ? result : wrong;
    }
    shm_segment_leave(shared);
    if (wrong)
        fail_msg("%s", wrong);
}

static void processes_never_see_a_torn_bar(void **state)
{
    (void)state;
    const char *name = test_name("processes");
    shm_segment_t *writer = test_create(name);
    test_symbol(writer, "A");
    pid_t children[READERS];
    for (size_t i = 0; i < READERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            const char *wrong = readers[i](test_join(name));
            if (wrong)
                print_error("%s\n", wrong);
            _exit(wrong ? 1 : 0);
        }
    }
    write_all(writer);
    for (size_t i = 0; i < READERS; i++)
        test_wait_good(children[i]);
    shm_segment_leave(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_never_see_a_torn_bar),
        cmocka_unit_test(processes_never_see_a_torn_bar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
