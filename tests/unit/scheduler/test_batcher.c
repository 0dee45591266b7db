#include "fixture.h"

#include "scheduler/batcher.h"

#include <float.h>
#include <stdlib.h>

static wire_ready_t sessions(const uint32_t *sizes, const int64_t *run_ns, uint32_t count)
{
    wire_ready_t ready = {.session_count = count};
    for (uint32_t i = 0; i < count; i++) {
        strcpy(ready.sessions[i].model, "m");
        ready.sessions[i].batch = sizes[i];
        ready.sessions[i].run_ns = run_ns[i];
    }
    return ready;
}

static void seventy_due_go_as_sixty_four_and_eight(void **state)
{
    (void)state;
    wire_ready_t ready = ready_message("w", 1, 1);
    batcher_t batcher;
    assert_true(batcher_plan(&batcher, &ready, "m", 64));
    assert_int_equal(batcher_next(&batcher, 70), 64);
    assert_int_equal(batcher_next(&batcher, 6), 6);
    assert_int_equal(batcher_next(&batcher, 1), 1);
    assert_int_equal(batcher.largest, 64);
}

static void a_half_empty_large_bucket_wins_when_it_is_fast(void **state)
{
    (void)state;
    wire_ready_t ready = sessions((uint32_t[]){1, 64}, (int64_t[]){1000000, 1200000}, 2);
    batcher_t batcher;
    assert_true(batcher_plan(&batcher, &ready, "m", 64));
    for (uint32_t due = 2; due <= 64; due++)
        assert_int_equal(batcher_next(&batcher, due), due);
}

static void singles_win_when_a_batch_saves_nothing(void **state)
{
    (void)state;
    wire_ready_t ready = sessions((uint32_t[]){1, 8}, (int64_t[]){10000000, 90000000}, 2);
    batcher_t batcher;
    assert_true(batcher_plan(&batcher, &ready, "m", 64));
    for (uint32_t due = 1; due <= 100; due++)
        assert_int_equal(batcher_next(&batcher, due), 1);
}

static void a_model_that_costs_nothing_is_sent_in_the_largest_batches(void **state)
{
    (void)state;
    wire_ready_t ready = sessions((uint32_t[]){1, 8, 64}, (int64_t[]){0, 0, 0}, 3);
    batcher_t batcher;
    assert_true(batcher_plan(&batcher, &ready, "m", 64));
    assert_int_equal(batcher_next(&batcher, 200), 64);
    assert_int_equal(batcher_next(&batcher, 5), 5);
}

static void a_batch_never_passes_batch_max(void **state)
{
    (void)state;
    wire_ready_t ready = ready_message("w", 1, 1);
    batcher_t batcher;
    assert_true(batcher_plan(&batcher, &ready, "m", 20));
    for (uint32_t due = 1; due <= 2 * BATCHER_DUE_MOST; due += 13)
        assert_in_range(batcher_next(&batcher, due), 1, 20);
    assert_int_equal(batcher.largest, 20);
}

static void more_due_than_the_table_holds_are_planned_as_the_most(void **state)
{
    (void)state;
    wire_ready_t ready = ready_message("w", 1, 1);
    batcher_t batcher;
    assert_true(batcher_plan(&batcher, &ready, "m", 64));
    assert_int_equal(batcher_next(&batcher, 60000), batcher_next(&batcher, BATCHER_DUE_MOST));
}

static void a_worker_without_the_model_gives_no_plan(void **state)
{
    (void)state;
    wire_ready_t ready = ready_message("w", 1, 1);
    batcher_t batcher = {.largest = 77};
    assert_false(batcher_plan(&batcher, &ready, "other", 64));
    assert_int_equal(batcher.largest, 77);
}

/* The reference: the least sum of waiting times over all sequences, by plain recursion. */
static double least_waiting(const uint32_t *sizes, const int64_t *run_ns, uint32_t count, uint32_t due)
{
    double least = due ? DBL_MAX : 0;
    for (uint32_t b = 0; due && b < count; b++) {
        uint32_t size = sizes[b] < due ? sizes[b] : due;
        double sum = (double)(run_ns[b] + BATCHER_OVERHEAD_NS) * due + least_waiting(sizes, run_ns, count, due - size);
        if (sum < least)
            least = sum;
    }
    return least;
}

static void following_the_plan_costs_the_least_over_all_sequences(void **state)
{
    (void)state;
    srandom(7);
    for (int round = 0; round < 40; round++) {
        uint32_t sizes[] = {1 + (uint32_t)random() % 2, 3 + (uint32_t)random() % 3, 7 + (uint32_t)random() % 6};
        int64_t run_ns[] = {random() % 3000000, random() % 6000000, random() % 9000000};
        wire_ready_t ready = sessions(sizes, run_ns, 3);
        batcher_t batcher;
        assert_true(batcher_plan(&batcher, &ready, "m", 64));
        for (uint32_t due = 1; due <= 18; due++) {
            double followed = 0;
            for (uint32_t left = due; left > 0;) {
                uint32_t first = batcher_next(&batcher, left);
                double cheapest = DBL_MAX;
                for (int b = 0; b < 3; b++)
                    if (sizes[b] >= first && (double)run_ns[b] < cheapest)
                        cheapest = (double)run_ns[b];
                followed += (cheapest + BATCHER_OVERHEAD_NS) * left;
                left -= first;
            }
            assert_true(followed <= least_waiting(sizes, run_ns, 3, due) * (1 + 1e-12));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seventy_due_go_as_sixty_four_and_eight),
        cmocka_unit_test(a_half_empty_large_bucket_wins_when_it_is_fast),
        cmocka_unit_test(singles_win_when_a_batch_saves_nothing),
        cmocka_unit_test(a_model_that_costs_nothing_is_sent_in_the_largest_batches),
        cmocka_unit_test(a_batch_never_passes_batch_max),
        cmocka_unit_test(more_due_than_the_table_holds_are_planned_as_the_most),
        cmocka_unit_test(a_worker_without_the_model_gives_no_plan),
        cmocka_unit_test(following_the_plan_costs_the_least_over_all_sequences),
    };
    return cmocka_run_group_tests_name("scheduler/batcher", tests, NULL, NULL);
}
