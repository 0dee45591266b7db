#include "base/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const char *const words[] = {"symbols_max", "ring_bars", "log_entries", "group"};

static const char *nearest(const char *word)
{
    return text_nearest(word, words, sizeof words / sizeof *words);
}

static void a_slip_of_the_finger_finds_the_word(void **state)
{
    (void)state;
    assert_string_equal(nearest("ring_bar"), "ring_bars");       /* one missing */
    assert_string_equal(nearest("symbolls_max"), "symbols_max"); /* one too many */
    assert_string_equal(nearest("log_entreis"), "log_entries");  /* two swapped */
    assert_string_equal(nearest("GROUP"), "group");
    assert_string_equal(nearest("group"), "group");
}

static void nothing_is_offered_for_another_word(void **state)
{
    (void)state;
    assert_null(nearest("colour"));
    assert_null(nearest(""));
    assert_null(nearest("a_word_of_more_than_sixty_three_letters_is_compared_with_nothing_at_all"));
    assert_null(text_nearest("group", words, 0));
}

static void only_a_whole_integer_in_range_is_one(void **state)
{
    (void)state;
    int64_t value = 7;
    const char *bad[] = {"", " 1", "1 ", "1.0", "1e3", "x", "-", "9223372036854775808", "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(text_to_i64(bad[i], &value));
    assert_int_equal(value, 7);
    assert_true(text_to_i64("-9223372036854775808", &value));
    assert_true(value == INT64_MIN);
    assert_true(text_to_i64("0042", &value));
    assert_int_equal(value, 42);
}

static void only_a_whole_number_in_range_is_one(void **state)
{
    (void)state;
    double value = 7;
    const char *bad[] = {"", " 1", "1 ", "1.0x", "1,5", "1e999", "-1e999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(text_to_f64(bad[i], &value));
    assert_true(value == 7);
    assert_true(text_to_f64("-1.5e3", &value));
    assert_true(value == -1500);
    assert_true(text_to_f64("1e-320", &value)); /* so small that it loses digits, but a number */
    assert_true(value > 0 && value < 1e-300);
    assert_true(text_to_f64("nan", &value) && isnan(value)); /* whether it is welcome is the caller's question */
}

static void the_hash_is_the_same_for_ever(void **state)
{
    (void)state;
    assert_true(text_hash64("", 0) == UINT64_C(0xefd01f60ba992926));
    assert_true(text_hash64("a", 1) == UINT64_C(0x82a2a958a9bece5b));
    assert_true(text_hash64("BTC-USD", 7) == UINT64_C(0x7429c9a4b1c34eea));
}

static void a_pattern_matches_the_whole_name(void **state)
{
    (void)state;
    assert_true(text_match("*", "BTC-USD"));
    assert_true(text_match("BTC*", "BTC-USD"));
    assert_true(text_match("?TC-USD", "BTC-USD"));
    assert_false(text_match("BTC", "BTC-USD"));
    assert_false(text_match("?TC", "BTC-USD"));
    assert_false(text_match("btc*", "BTC-USD"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slip_of_the_finger_finds_the_word),  cmocka_unit_test(nothing_is_offered_for_another_word),
        cmocka_unit_test(only_a_whole_integer_in_range_is_one), cmocka_unit_test(only_a_whole_number_in_range_is_one),
        cmocka_unit_test(the_hash_is_the_same_for_ever),        cmocka_unit_test(a_pattern_matches_the_whole_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
