/* The writer may be killed between any two instructions. Proved in two ways: by stepping it through each operation one instruction
 * at a time and taking what lies in memory after each as the remains of a killed writer; and by killing one at random moments,
 * hundreds of times over. */
#include "shm_trace.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CAPACITY = TRACE_CAPACITY, PREPARED = TRACE_PREPARED };

/* ---- every instruction ------------------------------------------------------------------------------------------------------- */

/* All that a reader can see of symbol 0, and the table. */
typedef struct {
    uint32_t symbols;
    uint64_t head, closed, oldest;
    shm_bar_t bars[CAPACITY];
} view_t;

static view_t look(const shm_segment_t *segment)
{
    view_t view;
    memset(&view, 0, sizeof view);
    view.symbols = shm_symbol_count(segment);
    view.head = shm_ring_head(segment, 0);
    view.closed = shm_ring_closed(segment, 0);
    view.oldest = shm_ring_oldest(segment, 0);
    for (uint64_t i = view.oldest; i < view.head; i++) {
        assert_int_equal(shm_ring_read(segment, 0, i, &view.bars[i % CAPACITY]), SHM_OK);
        assert_true(test_is_whole(&view.bars[i % CAPACITY], i));
    }
    shm_bar_t edge; /* the slot that an append under way overwrites */
    if (shm_ring_read(segment, 0, view.oldest - 1, &edge) == SHM_OK)
        assert_true(test_is_whole(&edge, view.oldest - 1));
    return view;
}

static bool same(const view_t *a, const view_t *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void append(shm_segment_t *segment)
{
    trace_put(segment, true, PREPARED, 1, 0);
}

static void append_in_progress(shm_segment_t *segment)
{
    trace_put(segment, true, PREPARED, 1, SHM_BAR_IN_PROGRESS);
}

static void amend_the_newest(shm_segment_t *segment)
{
    trace_put(segment, false, PREPARED - 1, 1, SHM_BAR_IN_PROGRESS);
}

static void close_the_newest(shm_segment_t *segment)
{
    trace_put(segment, false, PREPARED - 1, 1, 0);
}

static void correct_an_old_one(shm_segment_t *segment)
{
    trace_put(segment, false, PREPARED - CAPACITY + 1, 1, SHM_BAR_GAP);
}

static void add_a_symbol(shm_segment_t *segment)
{
    assert_int_equal(test_symbol(segment, "NEW"), 1);
}

/* What a killed writer has left must read as `before` or as `after`, in full, for a reader that finds the writer dead, and the same
 * for all once the next writer has re-joined; and that one must be able to go on. */
static void judge_remains(const char *name, const view_t *before, const view_t *after)
{
    shm_segment_t *reader = test_join(name);
    view_t seen = look(reader);
    assert_true(same(&seen, before) || same(&seen, after));
    shm_segment_t *writer = test_rejoin(name);
    view_t again = look(reader);
    assert_true(same(&seen, &again));

    trace_put(writer, false, PREPARED - 3, 7, 0);
    trace_put(writer, true, seen.head, 7, 0);
    test_symbol(writer, "NEXT");
    again = look(reader);
    assert_int_equal(again.head, seen.head + 1);
    assert_int_equal(again.symbols, seen.symbols + 1);
    shm_segment_leave(writer);
    shm_segment_leave(reader);
}

static view_t look_at_image(const char *name, const trace_t *trace, size_t image)
{
    trace_plant(name, trace->images[image], trace->bytes);
    shm_segment_t *reader = test_join(name);
    view_t view = look(reader);
    shm_segment_leave(reader);
    return view;
}

static void step_through(const char *what, trace_operation_t *operation)
{
    char remains[32];
    snprintf(remains, sizeof remains, "%s-remains", what);
    const char *name = test_name(remains);
    trace_t trace = trace_collect(test_name(what), operation);
    assert_true(trace.count > 3);
    view_t before = look_at_image(name, &trace, 0), after = look_at_image(name, &trace, trace.count - 1);
    assert_false(same(&before, &after));
    for (size_t i = 0; i < trace.count; i++) {
        trace_plant(name, trace.images[i], trace.bytes);
        judge_remains(name, &before, &after);
    }
    trace_free(&trace);
}

static void an_append_may_end_after_any_instruction(void **state)
{
    (void)state;
    step_through("append", append);
    step_through("append-open", append_in_progress);
}

static void an_amendment_may_end_after_any_instruction(void **state)
{
    (void)state;
    step_through("amend", amend_the_newest);
    step_through("close", close_the_newest);
    step_through("correct", correct_an_old_one);
}

static void adding_a_symbol_may_end_after_any_instruction(void **state)
{
    (void)state;
    step_through("symbol", add_a_symbol);
}

/* ---- any moment -------------------------------------------------------------------------------------------------------------- */

/* What the writer has promised, in memory that outlives it. A version counts from the moment its call returned. */
typedef struct {
    _Atomic uint64_t appended;
    _Atomic uint32_t begun[CAPACITY], done[CAPACITY]; /* versions, by slot */
} promise_t;

static promise_t *promise;

static void write_version(shm_segment_t *segment, bool is_new, uint64_t index, uint32_t version, uint32_t flags)
{
    /* Read by the parent only after this process has been waited for: nothing to pair with. */
    atomic_store_explicit(&promise->begun[index % CAPACITY], version, memory_order_relaxed);
    trace_put(segment, is_new, index, version, flags);
    atomic_store_explicit(&promise->done[index % CAPACITY], version, memory_order_relaxed);
    if (is_new)
        atomic_store_explicit(&promise->appended, index + 1, memory_order_relaxed);
}

static void write_until_killed(const char *name, uint64_t random, bool first)
{
    shm_segment_t *segment = first ? test_create(name) : test_rejoin(name);
    test_symbol(segment, "A");
    for (uint64_t i = shm_ring_head(segment, 0);; i++) {
        uint32_t version = (uint32_t)(i % 1000) * 8;
        write_version(segment, true, i, ++version, SHM_BAR_IN_PROGRESS);
        write_version(segment, false, i, ++version, SHM_BAR_IN_PROGRESS);
        write_version(segment, false, i, ++version, 0);
        uint64_t old = i - test_random(&random) % (CAPACITY - 1);
        if (i >= CAPACITY && old < i)
            write_version(segment, false, old, promise->done[old % CAPACITY] + 1, 0);
    }
}

/* Every bar that was promised is there, whole, and no older than promised. */
static void check_promises(const shm_segment_t *segment)
{
    uint64_t head = shm_ring_head(segment, 0), appended = promise->appended;
    assert_true(head == appended || head == appended + 1);
    assert_true(shm_ring_closed(segment, 0) + 1 >= head);
    for (uint64_t i = shm_ring_oldest(segment, 0); i < head; i++) {
        shm_bar_t bar;
        assert_int_equal(shm_ring_read(segment, 0, i, &bar), SHM_OK);
        assert_true(test_is_whole(&bar, i));
        bool cut_off = i == appended; /* published, but killed before the call returned: done is still the slot's former bar's */
        assert_true(test_version(&bar) <= promise->begun[i % CAPACITY] &&
                    (cut_off || test_version(&bar) >= promise->done[i % CAPACITY]));
    }
}

static void a_writer_killed_hundreds_of_times_loses_nothing(void **state)
{
    (void)state;
    enum { KILLS = 400 };
    const char *name = test_name("killed");
    promise = mmap(NULL, sizeof *promise, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(promise, MAP_FAILED);
    uint64_t random = 3, appended = 0;
    shm_segment_t *reader = NULL;
    for (int round = 0; round < KILLS; round++) {
        pid_t child = fork();
        if (child == 0)
            write_until_killed(name, random, round == 0);
        while (promise->appended < appended + 10) /* far enough to have something to lose */
            usleep(20);
        usleep((useconds_t)(test_random(&random) % 300));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        if (!reader)
            reader = test_join(name);
        check_promises(reader);
        appended = promise->appended;
        if (shm_ring_head(reader, 0) == appended + 1) { /* published, but killed before it could say so */
            promise->done[appended % CAPACITY] = promise->begun[appended % CAPACITY];
            promise->appended = ++appended;
        }
    }
    shm_segment_info_t info;
    shm_segment_info(reader, &info);
    assert_int_equal(info.writer_generation, KILLS);
    shm_segment_leave(reader);
    munmap(promise, sizeof *promise);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_append_may_end_after_any_instruction),
        cmocka_unit_test(an_amendment_may_end_after_any_instruction),
        cmocka_unit_test(adding_a_symbol_may_end_after_any_instruction),
        cmocka_unit_test(a_writer_killed_hundreds_of_times_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
