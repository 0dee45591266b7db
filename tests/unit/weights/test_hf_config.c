/* config.json: the typed look-ups. */
#include "weights_test.h"

#include "base/error.h"
#include "gpuworker/weights/checkpoint.h"

#include <stdlib.h>

static const char json[] =
    "{\"layers\": 12, \"big\": 9007199254740993, \"eps\": 1e-05, \"ten\": 10, \"gated\": false, \"act\": \"relu\", "
    "\"nothing\": null, \"inf\": Infinity, \"inner\": {\"k\": 4, \"deep\": {\"x\": true}}, "
    "\"levels\": [0.1, 1, 0.9], \"names\": [\"a\", \"b\"], \"mixed\": [1, \"b\"], \"a.b\": 1}";

typedef struct {
    void *dir;
    checkpoint_t *checkpoint;
} fixture_t;

static fixture_t fixture;

static int open_fixture(void **state)
{
    if (scratch_make(&fixture.dir) < 0 || checkpoint_write(fixture.dir, json, NULL, 0, CHECKPOINT_F32) < 0 ||
        checkpoint_open(fixture.dir, &fixture.checkpoint) < 0) {
        print_error("%s\n", error_text());
        return -1;
    }
    *state = fixture.checkpoint;
    return 0;
}

static int close_fixture(void **state)
{
    checkpoint_close(*state);
    return scratch_remove(&fixture.dir);
}

static void whole_numbers_are_exact_and_bounded(void **state)
{
    int64_t value = 0;
    assert_int_equal(checkpoint_config_i64(*state, "layers", 12, 12, &value), 0);
    assert_int_equal(value, 12);
    assert_int_equal(checkpoint_config_i64(*state, "big", 0, INT64_MAX, &value), 0);
    assert_int_equal(value, INT64_C(9007199254740993)); /* not a double */
    assert_int_equal(checkpoint_config_i64(*state, "layers", 13, 99, &value), CHECKPOINT_ERR_CONFIG);
    assert_error_has("config.json: key \"layers\": expected a whole number from 13 to 99, found 12");
    assert_int_equal(checkpoint_config_i64(*state, "layers", 0, 11, &value), CHECKPOINT_ERR_CONFIG);
    assert_int_equal(checkpoint_config_i64(*state, "eps", 0, 11, &value), CHECKPOINT_ERR_CONFIG);
    assert_error_has("found 1e-05");
    assert_int_equal(checkpoint_config_i64(*state, "gated", 0, 11, &value), CHECKPOINT_ERR_CONFIG);
    assert_int_equal(value, INT64_C(9007199254740993));
}

static void numbers_may_be_whole_but_must_be_finite(void **state)
{
    double value = 0;
    assert_int_equal(checkpoint_config_f64(*state, "eps", &value), 0);
    assert_true(value == 1e-05);
    assert_int_equal(checkpoint_config_f64(*state, "ten", &value), 0);
    assert_true(value == 10);
    assert_int_equal(checkpoint_config_f64(*state, "inf", &value), CHECKPOINT_ERR_CONFIG);
    assert_error_has("key \"inf\": expected a finite number, found Infinity");
    assert_int_equal(checkpoint_config_f64(*state, "act", &value), CHECKPOINT_ERR_CONFIG);
    assert_true(value == 10);
}

static void bools_and_texts_are_only_that(void **state)
{
    bool flag = true;
    const char *text = "kept";
    assert_int_equal(checkpoint_config_bool(*state, "gated", &flag), 0);
    assert_false(flag);
    assert_int_equal(checkpoint_config_bool(*state, "ten", &flag), CHECKPOINT_ERR_CONFIG);
    assert_error_has("key \"ten\": expected true or false, found 10");
    assert_int_equal(checkpoint_config_text(*state, "ten", &text), CHECKPOINT_ERR_CONFIG);
    assert_error_has("expected a string");
    assert_string_equal(text, "kept");
    assert_int_equal(checkpoint_config_text(*state, "act", &text), 0);
    assert_string_equal(text, "relu");
}

static void dots_descend(void **state)
{
    int64_t value;
    bool flag;
    assert_int_equal(checkpoint_config_i64(*state, "inner.k", 0, 9, &value), 0);
    assert_int_equal(value, 4);
    assert_int_equal(checkpoint_config_bool(*state, "inner.deep.x", &flag), 0);
    assert_int_equal(checkpoint_config_i64(*state, "layers.k", 0, 9, &value), CHECKPOINT_ERR_CONFIG);
    assert_error_has("key \"layers.k\"");
    assert_false(checkpoint_config_has(*state, "inner.none"));
}

static void missing_and_null_are_the_same(void **state)
{
    int64_t value;
    assert_true(checkpoint_config_has(*state, "layers"));
    assert_true(checkpoint_config_has(*state, "gated"));
    assert_false(checkpoint_config_has(*state, "none"));
    assert_false(checkpoint_config_has(*state, "nothing"));
    assert_int_equal(checkpoint_config_i64(*state, "none", 0, 9, &value), CHECKPOINT_ERR_CONFIG);
    assert_error_has("key \"none\": expected a whole number from 0 to 9, found none");
}

static void arrays_are_checked_element_by_element(void **state)
{
    double numbers[3] = {0};
    const char *texts[2] = {0};
    size_t count = 77;
    assert_int_equal(checkpoint_config_numbers(*state, "levels", numbers, 3, &count), 0);
    assert_int_equal(count, 3);
    assert_true(numbers[0] == 0.1 && numbers[1] == 1 && numbers[2] == 0.9);
    assert_int_equal(checkpoint_config_texts(*state, "names", texts, 2, &count), 0);
    assert_int_equal(count, 2);
    assert_string_equal(texts[1], "b");
    assert_int_equal(checkpoint_config_numbers(*state, "levels", numbers, 2, &count), CHECKPOINT_ERR_CONFIG);
    assert_error_has("key \"levels\": expected an array of at most 2 finite numbers, found [0.1,1,0.9]");
    assert_int_equal(checkpoint_config_numbers(*state, "mixed", numbers, 3, &count), CHECKPOINT_ERR_CONFIG);
    assert_int_equal(checkpoint_config_texts(*state, "mixed", texts, 2, &count), CHECKPOINT_ERR_CONFIG);
    assert_int_equal(checkpoint_config_texts(*state, "act", texts, 2, &count), CHECKPOINT_ERR_CONFIG);
    assert_int_equal(count, 2);
}

static void bare_file_has_no_config(void **state)
{
    (void)state;
    checkpoint_t *bare;
    assert_int_equal(checkpoint_open_file(scratch_path(fixture.dir, "model.safetensors"), &bare), 0);
    assert_string_equal(checkpoint_config_json(bare), "");
    assert_false(checkpoint_config_has(bare, "layers"));
    int64_t value;
    assert_int_equal(checkpoint_config_i64(bare, "layers", 0, 99, &value), CHECKPOINT_ERR_CONFIG);
    checkpoint_close(bare);
}

static void faulty_config_is_refused_at_open(void **state)
{
    (void)state;
    static const char *const faulty[] = {"", "{", "[]", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "{} x"};
    for (size_t i = 0; i < sizeof faulty / sizeof *faulty; i++) {
        const char *dir = scratch_path(fixture.dir, "faulty");
        assert_int_equal(checkpoint_write(dir, faulty[i], NULL, 0, CHECKPOINT_F32), 0);
        checkpoint_t *untouched = NULL;
        assert_int_equal(checkpoint_open(dir, &untouched), CHECKPOINT_ERR_FORMAT);
        assert_error_has("faulty/config.json: JSON: ");
        assert_null(untouched);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_are_exact_and_bounded),
        cmocka_unit_test(numbers_may_be_whole_but_must_be_finite),
        cmocka_unit_test(bools_and_texts_are_only_that),
        cmocka_unit_test(dots_descend),
        cmocka_unit_test(missing_and_null_are_the_same),
        cmocka_unit_test(arrays_are_checked_element_by_element),
        cmocka_unit_test(bare_file_has_no_config),
        cmocka_unit_test(faulty_config_is_refused_at_open),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
