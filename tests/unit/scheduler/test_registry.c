#include "fixture.h"

#include "scheduler/registry.h"

enum { SYMBOLS = 500 };

static config_t config;
static char symbols[SYMBOLS][WIRE_SYMBOL_BYTES];

static registry_t *open_registry(void)
{
    config = small_config(2);
    for (int i = 0; i < SYMBOLS; i++)
        snprintf(symbols[i], sizeof symbols[i], "SYM%03d", i);
    registry_t *registry;
    assert_int_equal(registry_open(&config, &registry), REGISTRY_OK);
    return registry;
}

static uint32_t add_ready(registry_t *registry, const char *id, uint32_t pid)
{
    uint32_t worker;
    wire_ready_t ready = ready_message(id, pid, 2);
    assert_int_equal(registry_arrive(registry, id, pid, 0, &worker), REGISTRY_OK);
    assert_int_equal(registry_ready(registry, worker, &ready), REGISTRY_OK);
    return worker;
}

static void owners(const registry_t *registry, uint32_t out[SYMBOLS])
{
    for (int i = 0; i < SYMBOLS; i++)
        out[i] = registry_owner(registry, 0, symbols[i], REGISTRY_NONE);
}

static void nobody_owns_a_symbol_before_a_worker_is_ready(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    uint32_t worker;
    assert_int_equal(registry_owner(registry, 0, "AAPL", REGISTRY_NONE), REGISTRY_NONE);
    registry_arrive(registry, "worker.0", 10, 0, &worker);
    assert_int_equal(registry_owner(registry, 0, "AAPL", REGISTRY_NONE), REGISTRY_NONE);
    add_ready(registry, "worker.0", 10);
    assert_int_equal(registry_owner(registry, 0, "AAPL", REGISTRY_NONE), worker);
    registry_close(registry);
}

static void workers_share_the_symbols_about_evenly(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    for (int i = 0; i < 4; i++)
        add_ready(registry, (char[]){'w', (char)('0' + i), 0}, 10);
    uint32_t owner[SYMBOLS], share[4] = {0};
    owners(registry, owner);
    for (int i = 0; i < SYMBOLS; i++)
        share[owner[i]]++;
    for (int i = 0; i < 4; i++)
        assert_in_range(share[i], SYMBOLS / 4 - 50, SYMBOLS / 4 + 50);
    registry_close(registry);
}

static void only_a_lost_workers_symbols_move_and_they_come_back_with_it(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    for (int i = 0; i < 4; i++)
        add_ready(registry, (char[]){'w', (char)('0' + i), 0}, 10);
    uint32_t before[SYMBOLS], during[SYMBOLS], after[SYMBOLS];
    owners(registry, before);
    registry_lose(registry, 2);
    owners(registry, during);
    registry_heard(registry, 2, 5);
    owners(registry, after);
    for (int i = 0; i < SYMBOLS; i++) {
        assert_int_not_equal(during[i], 2);
        assert_true(during[i] == before[i] || before[i] == 2);
    }
    assert_memory_equal(before, after, sizeof before);
    registry_close(registry);
}

static void a_worker_that_comes_takes_only_its_share(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    add_ready(registry, "a", 1);
    add_ready(registry, "b", 1);
    uint32_t before[SYMBOLS], after[SYMBOLS], taken = 0;
    owners(registry, before);
    uint32_t newcomer = add_ready(registry, "c", 1);
    owners(registry, after);
    for (int i = 0; i < SYMBOLS; i++) {
        assert_true(after[i] == before[i] || after[i] == newcomer);
        taken += after[i] == newcomer;
    }
    assert_in_range(taken, SYMBOLS / 3 - 50, SYMBOLS / 3 + 50);
    registry_close(registry);
}

static void a_worker_owns_only_symbols_of_models_that_it_has(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    add_ready(registry, "both", 1);
    uint32_t worker;
    wire_ready_t ready = {.credits = 1, .session_count = 2, .sessions = {{"m", 8, 1}, {"unknown", 8, 1}}};
    registry_arrive(registry, "single", 2, 0, &worker);
    registry_ready(registry, worker, &ready);
    for (int i = 0; i < SYMBOLS; i++)
        assert_int_equal(registry_owner(registry, 1, symbols[i], REGISTRY_NONE), 0);
    registry_close(registry);
}

static void the_avoided_worker_is_taken_when_it_is_the_only_one(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    add_ready(registry, "a", 1);
    assert_int_equal(registry_owner(registry, 0, "AAPL", 0), 0);
    add_ready(registry, "b", 1);
    assert_int_equal(registry_owner(registry, 0, "AAPL", 0), 1);
    assert_int_equal(registry_owner(registry, 0, "AAPL", 1), 0);
    registry_close(registry);
}

static void silence_is_measured_in_missed_heartbeats(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    assert_int_equal(registry_next_ns(registry), INT64_MAX);
    add_ready(registry, "a", 1);
    registry_heard(registry, 0, 1000 * MS);
    assert_int_equal(registry_next_ns(registry), 1300 * MS);
    assert_int_equal(registry_silent(registry, 1300 * MS - 1), REGISTRY_NONE);
    assert_int_equal(registry_silent(registry, 1300 * MS), 0);
    registry_lose(registry, 0);
    assert_int_equal(registry_silent(registry, 1300 * MS), REGISTRY_NONE);
    registry_close(registry);
}

static void another_pid_makes_a_worker_load_again(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    uint32_t worker = add_ready(registry, "a", 1), again;
    registry_arrive(registry, "a", 1, 5, &again);
    assert_true(registry_worker(registry, worker)->ready);
    registry_arrive(registry, "a", 2, 6, &again);
    assert_int_equal(again, worker);
    assert_false(registry_worker(registry, worker)->ready);
    assert_int_equal(registry_worker(registry, worker)->pid, 2);
    assert_int_equal(registry_count(registry), 1);
    registry_close(registry);
}

static void a_leaving_worker_owns_nothing(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    add_ready(registry, "a", 1);
    registry_leave(registry, 0);
    assert_int_equal(registry_owner(registry, 0, "AAPL", REGISTRY_NONE), REGISTRY_NONE);
    registry_close(registry);
}

static void a_worker_late_with_all_its_credits_is_stalled(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    add_ready(registry, "a", 1);
    for (int i = 0; i < 2; i++) {
        assert_true(registry_able(registry_worker(registry, 0)));
        registry_hold(registry, 0);
        registry_late(registry, 0);
    }
    assert_false(registry_able(registry_worker(registry, 0)));
    registry_release(registry, 0, true);
    assert_true(registry_able(registry_worker(registry, 0)));
    registry_close(registry);
}

static void the_generation_changes_whenever_owners_may(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    uint64_t last = registry_generation(registry);
    add_ready(registry, "a", 1);
    assert_int_not_equal(registry_generation(registry), last);
    last = registry_generation(registry);
    registry_heard(registry, 0, 7);
    registry_hold(registry, 0);
    registry_release(registry, 0, false);
    assert_int_equal(registry_generation(registry), last);
    registry_lose(registry, 0);
    assert_int_not_equal(registry_generation(registry), last);
    last = registry_generation(registry);
    registry_heard(registry, 0, 8);
    assert_int_not_equal(registry_generation(registry), last);
    last = registry_generation(registry);
    registry_leave(registry, 0);
    assert_int_not_equal(registry_generation(registry), last);
    registry_close(registry);
}

static void a_full_table_reuses_the_place_of_a_lost_worker_and_refuses_otherwise(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    char id[WIRE_NAME_BYTES];
    uint32_t worker;
    for (int i = 0; i < REGISTRY_WORKERS_MOST; i++) {
        snprintf(id, sizeof id, "worker.%d", i);
        add_ready(registry, id, 1);
    }
    assert_int_equal(registry_arrive(registry, "one more", 1, 0, &worker), REGISTRY_ERR_FULL);
    registry_lose(registry, 41);
    assert_int_equal(registry_arrive(registry, "one more", 1, 0, &worker), REGISTRY_OK);
    assert_int_equal(worker, 41);
    assert_int_equal(registry_find(registry, "worker.41"), REGISTRY_NONE);
    assert_false(registry_worker(registry, 41)->ready);
    registry_close(registry);
}

static void credits_are_the_least_of_all_words(void **state)
{
    (void)state;
    registry_t *registry = open_registry();
    uint32_t given[] = {1, 2, 9}, granted[] = {1, 2, 2};
    for (int i = 0; i < 3; i++) {
        uint32_t worker;
        wire_ready_t ready = ready_message("a", 1, given[i]);
        registry_arrive(registry, "a", 1, 0, &worker);
        registry_ready(registry, worker, &ready);
        assert_int_equal(registry_worker(registry, worker)->credits, granted[i]);
    }
    registry_close(registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_owns_a_symbol_before_a_worker_is_ready),
        cmocka_unit_test(workers_share_the_symbols_about_evenly),
        cmocka_unit_test(only_a_lost_workers_symbols_move_and_they_come_back_with_it),
        cmocka_unit_test(a_worker_that_comes_takes_only_its_share),
        cmocka_unit_test(a_worker_owns_only_symbols_of_models_that_it_has),
        cmocka_unit_test(the_avoided_worker_is_taken_when_it_is_the_only_one),
        cmocka_unit_test(silence_is_measured_in_missed_heartbeats),
        cmocka_unit_test(another_pid_makes_a_worker_load_again),
        cmocka_unit_test(a_leaving_worker_owns_nothing),
        cmocka_unit_test(a_worker_late_with_all_its_credits_is_stalled),
        cmocka_unit_test(the_generation_changes_whenever_owners_may),
        cmocka_unit_test(a_full_table_reuses_the_place_of_a_lost_worker_and_refuses_otherwise),
        cmocka_unit_test(credits_are_the_least_of_all_words),
    };
    return cmocka_run_group_tests_name("scheduler/registry", tests, NULL, NULL);
}
