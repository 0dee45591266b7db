#include "base/error.h"
#include "shm/layout.h"
#include "shm_test.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void a_symbol_keeps_its_id(void **state)
{
    (void)state;
    shm_segment_t *segment = test_create(test_name("ids"));
    uint32_t id = 99;
    assert_int_equal(test_symbol(segment, "AAPL"), 0);
    assert_int_equal(test_symbol(segment, "BTC-USD"), 1);
    assert_int_equal(test_symbol(segment, "AAPL"), 0);
    assert_int_equal(shm_symbol_count(segment), 2);
    assert_int_equal(shm_symbol_find(segment, "BTC-USD", &id), SHM_OK);
    assert_int_equal(id, 1);
    assert_string_equal(shm_symbol_name(segment, 1), "BTC-USD");
    assert_int_equal(shm_symbol_find(segment, "MSFT", &id), SHM_EMPTY);
    assert_int_equal(id, 1);
    assert_null(shm_symbol_name(segment, 2));
    assert_int_equal(shm_symbol_interval_ns(segment, 2), 0);
    shm_segment_leave(segment);
}

static void the_interval_can_be_learnt_later(void **state)
{
    (void)state;
    shm_segment_t *segment = test_create(test_name("interval"));
    uint32_t id;
    assert_int_equal(shm_symbol_add(segment, "A", 0, &id), SHM_OK);
    assert_int_equal(shm_symbol_interval_ns(segment, id), 0);
    assert_int_equal(shm_symbol_add(segment, "A", TEST_STEP_NS, &id), SHM_OK);
    assert_int_equal(shm_symbol_interval_ns(segment, id), TEST_STEP_NS);
    assert_int_equal(shm_symbol_add(segment, "A", 0, &id), SHM_OK);
    assert_int_equal(shm_symbol_interval_ns(segment, id), TEST_STEP_NS);
    shm_segment_leave(segment);
}

static void what_is_no_symbol_is_refused(void **state)
{
    (void)state;
    shm_segment_t *segment = test_create(test_name("bad"));
    const char *bad[] = {"", "A B", "A\n", "\xc3\xa4", "12345678901234567890123456789012"};
    uint32_t id;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(shm_symbol_add(segment, bad[i], TEST_STEP_NS, &id), SHM_ERR_INVALID);
    assert_int_equal(shm_symbol_add(segment, "A", -1, &id), SHM_ERR_INVALID);
    assert_int_equal(shm_symbol_count(segment), 0);
    assert_int_equal(shm_symbol_add(segment, "1234567890123456789012345678901", TEST_STEP_NS, &id), SHM_OK); /* 31 bytes */
    shm_segment_leave(segment);
}

static void a_full_table_says_so_and_still_finds(void **state)
{
    (void)state;
    shm_segment_t *segment = test_create(test_name("full"));
    const char *four[] = {"A", "B", "C", "D"};
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(test_symbol(segment, four[i]), i);
    uint32_t id = 99;
    assert_int_equal(shm_symbol_add(segment, "E", TEST_STEP_NS, &id), SHM_ERR_FULL);
    assert_non_null(strstr(error_text(), "E: "));
    assert_int_equal(shm_symbol_add(segment, "D", TEST_STEP_NS, &id), SHM_OK);
    assert_int_equal(id, 3);
    shm_segment_leave(segment);
}

static void only_the_writer_may_add(void **state)
{
    (void)state;
    const char *name = test_name("reader");
    shm_segment_t *writer = test_create(name), *reader = test_join(name);
    uint32_t id;
    assert_int_equal(shm_symbol_add(reader, "A", TEST_STEP_NS, &id), SHM_ERR_INVALID);
    shm_segment_leave(reader);
    shm_segment_leave(writer);
}

static void thousands_of_symbols_are_found_by_every_process(void **state)
{
    (void)state;
    enum { SYMBOLS = 5000 };
    const char *name = test_name("many");
    shm_segment_options_t options = test_options(name);
    options.symbols_max = SYMBOLS;
    shm_segment_t *writer;
    bool rejoined;
    char symbol[SHM_SYMBOL_BYTES];
    uint32_t id;
    assert_int_equal(shm_segment_create(&options, &writer, &rejoined), SHM_OK);
    for (uint32_t i = 0; i < SYMBOLS; i++) {
        snprintf(symbol, sizeof symbol, "S%u", i);
        assert_int_equal(test_symbol(writer, symbol), i);
    }
    shm_segment_t *reader = test_join(name);
    for (uint32_t i = 0; i < SYMBOLS; i++) {
        snprintf(symbol, sizeof symbol, "S%u", i);
        assert_int_equal(shm_symbol_find(reader, symbol, &id), SHM_OK);
        assert_int_equal(id, i);
    }
    assert_int_equal(shm_symbol_find(reader, "S5000", &id), SHM_EMPTY);
    shm_segment_leave(reader);
    shm_segment_leave(writer);
}

static void add_half_a_symbol_and_die(const char *name)
{
    shm_segment_t *segment = test_create(name);
    test_symbol(segment, "A");
    test_symbol(segment, "half");
    segment->header->symbol_count = 1; /* as if killed before the last store of shm_symbol_add */
}

static void a_half_added_symbol_is_forgotten(void **state)
{
    (void)state;
    const char *name = test_name("half");
    test_in_dying_process(add_half_a_symbol_and_die, name);
    shm_segment_t *reader = test_join(name);
    uint32_t id;
    assert_int_equal(shm_symbol_find(reader, "half", &id), SHM_EMPTY);
    shm_segment_t *writer = test_rejoin(name);
    assert_int_equal(test_symbol(writer, "other"), 1);
    assert_int_equal(test_symbol(writer, "half"), 2);
    assert_int_equal(shm_symbol_find(reader, "half", &id), SHM_OK);
    assert_int_equal(id, 2);
    assert_string_equal(shm_symbol_name(reader, 1), "other");
    shm_segment_leave(reader);
    shm_segment_leave(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_symbol_keeps_its_id),
        cmocka_unit_test(the_interval_can_be_learnt_later),
        cmocka_unit_test(what_is_no_symbol_is_refused),
        cmocka_unit_test(a_full_table_says_so_and_still_finds),
        cmocka_unit_test(only_the_writer_may_add),
        cmocka_unit_test(thousands_of_symbols_are_found_by_every_process),
        cmocka_unit_test(a_half_added_symbol_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
