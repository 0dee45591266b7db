#include "base/error.h"
#include "shm/update_log.h"
#include "shm_test.h"

#include <string.h>

enum { CAPACITY = 64 };

static shm_segment_t *segment;
static uint32_t id;

static int set_up(void **state)
{
    (void)state;
    static int count;
    char what[16] = "ring-";
    what[5] = (char)('a' + count++);
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

static shm_bar_t flagged(uint64_t index, uint32_t version, uint32_t flags)
{
    shm_bar_t bar = test_bar(index, version);
    bar.flags = flags;
    return bar;
}

static int append(uint64_t index, uint32_t version, uint32_t flags)
{
    shm_bar_t bar = flagged(index, version, flags);
    return shm_ring_append(segment, id, &bar);
}

static int amend(uint64_t index, uint32_t version, uint32_t flags)
{
    shm_bar_t bar = flagged(index, version, flags);
    return shm_ring_amend(segment, id, &bar);
}

static void append_up_to(uint64_t head)
{
    for (uint64_t i = shm_ring_head(segment, id); i < head; i++)
        assert_int_equal(append(i, 0, 0), SHM_OK);
}

static void expect_bar(uint64_t index, uint32_t version, uint32_t flags)
{
    shm_bar_t bar, expected = flagged(index, version, flags);
    assert_int_equal(shm_ring_read(segment, id, index, &bar), SHM_OK);
    assert_memory_equal(&bar, &expected, sizeof bar);
}

static void an_empty_ring_has_nothing(void **state)
{
    (void)state;
    shm_bar_t bar;
    uint32_t count = 7;
    assert_int_equal(shm_ring_head(segment, id), 0);
    assert_int_equal(shm_ring_closed(segment, id), 0);
    assert_int_equal(shm_ring_oldest(segment, id), 0);
    assert_int_equal(shm_ring_read(segment, id, 0, &bar), SHM_EMPTY);
    assert_int_equal(shm_ring_read_many(segment, id, 0, 5, &bar, &count), SHM_EMPTY);
    assert_int_equal(count, 7);
    assert_int_equal(shm_ring_window(segment, id, 0, 0, &bar), SHM_OK);
    assert_int_equal(shm_ring_window(segment, id, 0, 1, &bar), SHM_EMPTY);
    assert_int_equal(amend(0, 0, 0), SHM_EMPTY);
}

static void what_was_appended_is_read_back_without_its_stamp(void **state)
{
    (void)state;
    shm_bar_t bar = flagged(0, 3, SHM_BAR_GAP | SHM_BAR_NO_AMOUNT | 0xffffff00u);
    bar.stamp = 12345;
    assert_int_equal(shm_ring_append(segment, id, &bar), SHM_OK);
    expect_bar(0, 3, SHM_BAR_GAP | SHM_BAR_NO_AMOUNT);
}

static void a_full_ring_holds_all_but_the_slot_being_overwritten(void **state)
{
    (void)state;
    append_up_to(CAPACITY);
    assert_int_equal(shm_ring_oldest(segment, id), 1);
    for (uint64_t i = 0; i < CAPACITY; i++) /* with the writer at rest even the oldest one is there */
        expect_bar(i, 0, 0);
}

static void a_lapped_reader_learns_it(void **state)
{
    (void)state;
    shm_bar_t bars[CAPACITY];
    uint32_t count;
    append_up_to(5 * CAPACITY + 3);
    uint64_t oldest = shm_ring_oldest(segment, id);
    assert_int_equal(oldest, 4 * CAPACITY + 4);
    const uint64_t lapped[] = {0, 3, CAPACITY + 3, 4 * CAPACITY + 2};
    for (size_t i = 0; i < sizeof lapped / sizeof *lapped; i++) {
        assert_int_equal(shm_ring_read(segment, id, lapped[i], bars), SHM_OVERRUN);
        assert_int_equal(shm_ring_read_many(segment, id, lapped[i], CAPACITY, bars, &count), SHM_OVERRUN);
    }
    for (uint64_t i = oldest; i < 5 * CAPACITY + 3; i++)
        expect_bar(i, 0, 0);
    assert_int_equal(shm_ring_read(segment, id, 5 * CAPACITY + 3, bars), SHM_EMPTY);
}

static void a_window_is_all_or_nothing_in_time_order(void **state)
{
    (void)state;
    shm_bar_t bars[CAPACITY + 2];
    append_up_to(2 * CAPACITY);
    assert_int_equal(shm_ring_window(segment, id, 2 * CAPACITY, CAPACITY - 1, bars), SHM_OK);
    for (uint64_t i = 0; i < CAPACITY - 1; i++)
        assert_true(test_is_whole(&bars[i], CAPACITY + 1 + i));
    assert_int_equal(shm_ring_window(segment, id, 2 * CAPACITY - 10, CAPACITY - 10, bars), SHM_OK);
    assert_true(test_is_whole(&bars[0], CAPACITY));
    assert_int_equal(shm_ring_window(segment, id, 2 * CAPACITY - 10, CAPACITY - 9, bars), SHM_OVERRUN);
    assert_int_equal(shm_ring_window(segment, id, 2 * CAPACITY, CAPACITY + 1, bars), SHM_OVERRUN);
    assert_int_equal(shm_ring_window(segment, id, 2 * CAPACITY + 1, 1, bars), SHM_EMPTY);
    assert_int_equal(shm_ring_window(segment, id, 3, 4, bars), SHM_EMPTY);
}

static void read_many_takes_what_there_is(void **state)
{
    (void)state;
    shm_bar_t bars[8];
    uint32_t count;
    append_up_to(10);
    assert_int_equal(shm_ring_read_many(segment, id, 0, 8, bars, &count), SHM_OK);
    assert_int_equal(count, 8);
    assert_true(test_is_whole(&bars[7], 7));
    assert_int_equal(shm_ring_read_many(segment, id, 8, 8, bars, &count), SHM_OK);
    assert_int_equal(count, 2);
    assert_int_equal(shm_ring_read_many(segment, id, 10, 8, bars, &count), SHM_EMPTY);
}

static void the_newest_bar_is_amended_until_it_closes(void **state)
{
    (void)state;
    append_up_to(3);
    assert_int_equal(append(3, 0, SHM_BAR_IN_PROGRESS), SHM_OK);
    assert_int_equal(shm_ring_head(segment, id), 4);
    assert_int_equal(shm_ring_closed(segment, id), 3);
    assert_int_equal(amend(3, 1, SHM_BAR_IN_PROGRESS), SHM_OK);
    expect_bar(3, 1, SHM_BAR_IN_PROGRESS);
    assert_int_equal(shm_ring_closed(segment, id), 3);
    assert_int_equal(amend(3, 2, 0), SHM_OK); /* closing is no amendment of a closed bar */
    expect_bar(3, 2, 0);
    assert_int_equal(shm_ring_closed(segment, id), 4);
}

static void the_next_append_closes_a_bar_in_progress(void **state)
{
    (void)state;
    assert_int_equal(append(0, 0, SHM_BAR_IN_PROGRESS), SHM_OK);
    assert_int_equal(append(1, 0, SHM_BAR_IN_PROGRESS), SHM_OK);
    expect_bar(0, 0, 0);
    expect_bar(1, 0, SHM_BAR_IN_PROGRESS);
    assert_int_equal(shm_ring_closed(segment, id), 1);
    shm_bar_t bars[2];
    assert_int_equal(shm_ring_window(segment, id, 2, 2, bars), SHM_OK);
    assert_int_equal(bars[0].flags, 0);
    assert_int_equal(bars[1].flags, SHM_BAR_IN_PROGRESS);
    assert_int_equal(amend(0, 5, 0), SHM_OK); /* by now a late correction */
    expect_bar(0, 5, SHM_BAR_AMENDED);
}

static void a_late_correction_is_marked_for_good(void **state)
{
    (void)state;
    append_up_to(2 * CAPACITY);
    assert_int_equal(amend(CAPACITY + 1, 1, SHM_BAR_GAP), SHM_OK);
    expect_bar(CAPACITY + 1, 1, SHM_BAR_GAP | SHM_BAR_AMENDED);
    assert_int_equal(amend(2 * CAPACITY - 1, 2, 0), SHM_OK); /* the newest, already closed */
    expect_bar(2 * CAPACITY - 1, 2, SHM_BAR_AMENDED);
    expect_bar(CAPACITY + 2, 0, 0);
}

static void an_amendment_needs_a_bar_that_is_there(void **state)
{
    (void)state;
    append_up_to(10);
    shm_bar_t between = test_bar(4, 1);
    between.open_time_ns += 1;
    assert_int_equal(shm_ring_amend(segment, id, &between), SHM_EMPTY);
    assert_int_equal(amend(10, 1, 0), SHM_EMPTY);
    between.open_time_ns = -1;
    assert_int_equal(shm_ring_amend(segment, id, &between), SHM_EMPTY); /* nothing has left the ring yet */
    append_up_to(2 * CAPACITY);
    assert_int_equal(amend(CAPACITY, 1, 0), SHM_OVERRUN);
    assert_int_equal(amend(0, 1, 0), SHM_OVERRUN);
    for (uint64_t i = CAPACITY + 1; i < 2 * CAPACITY; i++) {
        assert_int_equal(amend(i, 1, 0), SHM_OK);
        expect_bar(i, 1, SHM_BAR_AMENDED);
    }
}

static void misuse_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    append_up_to(5);
    assert_int_equal(append(4, 1, 0), SHM_ERR_INVALID);
    assert_non_null(strstr(error_text(), "A: open time"));
    assert_int_equal(append(2, 1, 0), SHM_ERR_INVALID);
    assert_int_equal(amend(4, 1, SHM_BAR_IN_PROGRESS), SHM_ERR_INVALID); /* would open it again */
    assert_int_equal(amend(2, 1, SHM_BAR_IN_PROGRESS), SHM_ERR_INVALID);
    shm_bar_t bar = test_bar(5, 0);
    uint32_t count;
    assert_int_equal(shm_ring_append(segment, 1, &bar), SHM_ERR_INVALID);
    assert_int_equal(shm_ring_amend(segment, UINT32_MAX, &bar), SHM_ERR_INVALID);
    assert_int_equal(shm_ring_read(segment, 1, 0, &bar), SHM_ERR_INVALID);
    assert_int_equal(shm_ring_read_many(segment, 1, 0, 1, &bar, &count), SHM_ERR_INVALID);
    assert_int_equal(shm_ring_window(segment, 1, 1, 1, &bar), SHM_ERR_INVALID);
    assert_int_equal(shm_ring_head(segment, 1), 0);
    assert_int_equal(shm_ring_closed(segment, 1), 0);
    assert_int_equal(shm_ring_oldest(segment, 1), 0);
    assert_int_equal(shm_ring_head(segment, id), 5);
    for (uint64_t i = 0; i < 5; i++)
        expect_bar(i, 0, 0);
}

static void a_reader_may_not_write(void **state)
{
    (void)state;
    const char *name = test_name("read-only");
    shm_segment_t *writer = test_create(name), *reader = test_join(name);
    test_symbol(writer, "A");
    shm_bar_t bar = test_bar(0, 0);
    assert_int_equal(shm_ring_append(reader, 0, &bar), SHM_ERR_INVALID);
    assert_int_equal(shm_ring_amend(reader, 0, &bar), SHM_ERR_INVALID);
    assert_int_equal(shm_ring_append(writer, 0, &bar), SHM_OK);
    assert_int_equal(shm_ring_read(reader, 0, 0, &bar), SHM_OK);
    shm_segment_leave(reader);
    shm_segment_leave(writer);
}

static void rings_do_not_touch_each_other(void **state)
{
    (void)state;
    uint32_t other = test_symbol(segment, "B");
    append_up_to(3 * CAPACITY);
    shm_bar_t bar = test_bar(0, 9);
    assert_int_equal(shm_ring_append(segment, other, &bar), SHM_OK);
    assert_int_equal(shm_ring_head(segment, other), 1);
    assert_int_equal(shm_ring_read(segment, other, 0, &bar), SHM_OK);
    assert_true(test_is_whole(&bar, 0));
    for (uint64_t i = shm_ring_oldest(segment, id); i < 3 * CAPACITY; i++)
        expect_bar(i, 0, 0);
}

/* A million random steps against the simplest thing that could be right: all bars ever, in an array. */
static void a_million_random_steps_agree_with_a_simple_model(void **state)
{
    (void)state;
    enum { STEPS = 1000000, BARS_MOST = STEPS };
    typedef struct {
        uint32_t version, flags;
    } model_t;
    static model_t model[BARS_MOST];
    uint64_t head = 0, random = 42, counts[3] = {0};
    for (uint32_t step = 1; step <= STEPS; step++) {
        uint64_t dice = test_random(&random);
        uint32_t progress = dice >> 60 < 8 ? SHM_BAR_IN_PROGRESS : 0;
        uint64_t oldest = head < CAPACITY ? 0 : head - CAPACITY + 1;
        uint64_t reach = head < 2 * CAPACITY ? head : 2 * CAPACITY;
        uint64_t index = head - (reach ? (dice >> 8) % (reach + 1) : 0); /* around what the ring holds, head included */
        if ((dice & 0xff) < 100) {
            assert_int_equal(append(head, step, progress), SHM_OK);
            if (head > 0)
                model[head - 1].flags &= ~(uint32_t)SHM_BAR_IN_PROGRESS;
            model[head++] = (model_t){step, progress};
        } else if ((dice & 0xff) < 200) {
            int rc = amend(index, step, progress);
            bool open = index + 1 == head && model[index].flags & SHM_BAR_IN_PROGRESS;
            int expected = index >= head ? SHM_EMPTY : index < oldest ? SHM_OVERRUN : progress && !open ? SHM_ERR_INVALID : SHM_OK;
            assert_int_equal(rc, expected);
            if (rc == SHM_OK)
                model[index] = (model_t){step, progress | (open ? 0 : SHM_BAR_AMENDED) | (model[index].flags & SHM_BAR_AMENDED)};
        } else {
            shm_bar_t bars[CAPACITY + 1];
            uint32_t count = (uint32_t)(dice >> 40) % (CAPACITY + 2);
            int rc = shm_ring_window(segment, id, index, count, bars);
            int expected = index > head || count > index ? SHM_EMPTY : head - (index - count) > CAPACITY ? SHM_OVERRUN : SHM_OK;
            assert_int_equal(rc, expected);
            for (uint32_t i = 0; rc == SHM_OK && i < count; i++) {
                shm_bar_t whole = flagged(index - count + i, model[index - count + i].version, model[index - count + i].flags);
                assert_memory_equal(&bars[i], &whole, sizeof whole);
            }
            counts[rc]++;
        }
        assert_int_equal(shm_ring_head(segment, id), head);
        assert_int_equal(shm_ring_closed(segment, id), head && model[head - 1].flags & SHM_BAR_IN_PROGRESS ? head - 1 : head);
    }
    assert_true(counts[SHM_OK] > 10000 && counts[SHM_EMPTY] > 10 && counts[SHM_OVERRUN] > 10000); /* the walk went everywhere */
}

int main(void)
{
#define RING_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        RING_TEST(an_empty_ring_has_nothing),
        RING_TEST(what_was_appended_is_read_back_without_its_stamp),
        RING_TEST(a_full_ring_holds_all_but_the_slot_being_overwritten),
        RING_TEST(a_lapped_reader_learns_it),
        RING_TEST(a_window_is_all_or_nothing_in_time_order),
        RING_TEST(read_many_takes_what_there_is),
        RING_TEST(the_newest_bar_is_amended_until_it_closes),
        RING_TEST(the_next_append_closes_a_bar_in_progress),
        RING_TEST(a_late_correction_is_marked_for_good),
        RING_TEST(an_amendment_needs_a_bar_that_is_there),
        RING_TEST(misuse_is_refused_and_changes_nothing),
        RING_TEST(rings_do_not_touch_each_other),
        RING_TEST(a_million_random_steps_agree_with_a_simple_model),
        cmocka_unit_test(a_reader_may_not_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
