/* What a safetensors file may and may not be: each fault is made on purpose, and its error must name the tensor and what was expected. */
#include "weights_test.h"

#include "base/error.h"
#include "gpuworker/weights/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSOR(name, dtype, shape, begin, end)                                                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

typedef struct {
    const char *sentence, *header;
    size_t data_bytes;
    int rc;
    const char *expected[3]; /* in the error text */
} fault_t;

static const fault_t faults[] = {
    {"header_must_be_json", "{\"a\":", 0, CHECKPOINT_ERR_FORMAT, {"header", "expected more"}},
    {"header_must_not_be_something_else", "{oops}", 0, CHECKPOINT_ERR_FORMAT, {"header", "at byte 1"}},
    {"header_must_be_an_object", "[1, 2]", 0, CHECKPOINT_ERR_FORMAT, {"header", "expected an object", "array"}},
    {"header_must_end_after_the_object", "{} {}", 0, CHECKPOINT_ERR_FORMAT, {"header"}},
    {"header_must_be_utf8", "{\"\xff\":1}", 0, CHECKPOINT_ERR_FORMAT, {"header", "utf"}},
    {"name_must_not_occur_twice",
     "{" TENSOR("w.a", "U8", "[2]", 0, 2) "," TENSOR("w.b", "U8", "[2]", 2, 4) "," TENSOR("w.a", "U8", "[2]", 0, 2) "}",
     4,
     CHECKPOINT_ERR_FORMAT,
     {"expected each key once", "\"w.a\""}},
    {"name_must_not_occur_twice_in_another_spelling",
     "{" TENSOR("a", "U8", "[0]", 0, 0) "," TENSOR("\\u0061", "U8", "[0]", 0, 0) "}",
     0,
     CHECKPOINT_ERR_FORMAT,
     {"expected each key once"}},
    {"name_must_not_be_empty", "{" TENSOR("", "U8", "[0]", 0, 0) "}", 0, CHECKPOINT_ERR_FORMAT, {"expected a name"}},
    {"name_must_not_hold_control_characters",
     "{" TENSOR("a\\u001b[2J", "U8", "[0]", 0, 0) "}",
     0,
     CHECKPOINT_ERR_FORMAT,
     {"control characters", "0x1b"}},
    {"tensor_must_be_an_object", "{\"w\":7}", 0, CHECKPOINT_ERR_FORMAT, {"\"w\"", "expected an object"}},
    {"dtype_must_be_there", "{\"w\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, CHECKPOINT_ERR_FORMAT, {"\"w\"", "dtype"}},
    {"dtype_must_be_known",
     "{" TENSOR("w", "F8_E4M3", "[1]", 0, 1) "}",
     1,
     CHECKPOINT_ERR_TENSOR,
     {"\"w\"", "F8_E4M3", "expected F32, F16"}},
    {"shape_must_be_an_array",
     "{" TENSOR("w", "U8", "1", 0, 1) "}",
     1,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "shape: expected an array"}},
    {"dimension_must_not_be_negative",
     "{" TENSOR("w", "U8", "[1,-1]", 0, 1) "}",
     1,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "shape", "-1"}},
    {"dimension_must_be_whole", "{" TENSOR("w", "U8", "[1.5]", 0, 1) "}", 1, CHECKPOINT_ERR_FORMAT, {"\"w\"", "shape", "1.5"}},
    {"dimension_must_be_a_number", "{" TENSOR("w", "U8", "[null]", 0, 1) "}", 1, CHECKPOINT_ERR_FORMAT, {"\"w\"", "shape", "null"}},
    {"dimension_past_int64_is_refused",
     "{" TENSOR("w", "U8", "[99999999999999999999999]", 0, 1) "}",
     1,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "9223372036854775807 elements"}},
    {"product_of_dimensions_must_not_overflow",
     "{" TENSOR("w", "U8", "[4294967296,4294967296]", 0, 1) "}",
     1,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "2^63"}},
    {"byte_count_must_not_overflow",
     "{" TENSOR("w", "F64", "[2305843009213693952]", 0, 0) "}",
     0,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "2305843009213693952 elements of 8 bytes"}},
    {"rank_must_be_one_that_we_read",
     "{" TENSOR("w", "U8", "[1,1,1,1,1,1]", 0, 1) "}",
     1,
     CHECKPOINT_ERR_TENSOR,
     {"\"w\"", "at most 5"}},
    {"offsets_must_be_there", "{\"w\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, CHECKPOINT_ERR_FORMAT, {"\"w\"", "data_offsets"}},
    {"offsets_must_be_two",
     "{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}",
     1,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "[begin, end]", "3"}},
    {"offsets_must_not_be_negative",
     "{" TENSOR("w", "U8", "[1]", -1, 0) "}",
     1,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "data_offsets", "-1"}},
    {"offsets_must_ascend", "{" TENSOR("w", "U8", "[1]", 3, 2) "}", 4, CHECKPOINT_ERR_FORMAT, {"\"w\"", "[3, 2]", "begin <= end"}},
    {"offsets_must_lie_in_the_file",
     "{" TENSOR("w", "F32", "[2]", 0, 8) "}",
     7,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "[0, 8]", "<= 7"}},
    {"offsets_must_fit_the_shape",
     "{" TENSOR("w", "F32", "[2]", 0, 4) "}",
     4,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "span 4 bytes", "2 elements of 4 bytes"}},
    {"tensors_must_not_overlap",
     "{" TENSOR("first", "U8", "[6]", 0, 6) "," TENSOR("second", "U8", "[4]", 4, 8) "}",
     8,
     CHECKPOINT_ERR_FORMAT,
     {"\"second\"", "overlap", "expected 6, the end of first"}},
    {"tensors_must_not_share_their_bytes",
     "{" TENSOR("first", "U8", "[4]", 0, 4) "," TENSOR("second", "U8", "[4]", 0, 4) "}",
     4,
     CHECKPOINT_ERR_FORMAT,
     {"overlap", "expected 4"}},
    {"no_hole_between_tensors",
     "{" TENSOR("first", "U8", "[2]", 0, 2) "," TENSOR("second", "U8", "[4]", 4, 8) "}",
     8,
     CHECKPOINT_ERR_FORMAT,
     {"\"second\"", "hole", "expected 2, the end of first"}},
    {"no_hole_before_the_first_tensor",
     "{" TENSOR("w", "U8", "[2]", 1, 3) "}",
     3,
     CHECKPOINT_ERR_FORMAT,
     {"\"w\"", "hole", "header"}},
    {"nothing_after_the_last_tensor",
     "{" TENSOR("w", "U8", "[2]", 0, 2) "}",
     5,
     CHECKPOINT_ERR_FORMAT,
     {"5 data bytes", "expected 2", "(w)"}},
};
enum { FAULT_COUNT = sizeof faults / sizeof faults[0] };

static const char zeros[64];

static void header_fault_is_told(void **state)
{
    const fault_t *fault = *state;
    size_t count;
    void *bytes = safetensors_bytes(fault->header, zeros, fault->data_bytes, &count);
    safetensors_t parsed = {.count = 77};
    error_set(0, "%s", "");
    assert_int_equal(safetensors_parse(bytes, count, &parsed), fault->rc);
    assert_int_equal(parsed.count, 77); /* outputs untouched */
    for (int i = 0; i < 3 && fault->expected[i]; i++)
        assert_error_has(fault->expected[i]);
    free(bytes);
}

static void file_shorter_than_its_length_field_is_refused(void **state)
{
    (void)state;
    safetensors_t parsed;
    for (size_t count = 0; count < 8; count++) {
        void *bytes = calloc(count + 1, 1);
        assert_int_equal(safetensors_parse(bytes, count, &parsed), CHECKPOINT_ERR_FORMAT);
        assert_error_has("expected at least the 8 of the header's length");
        free(bytes);
    }
}

static void header_longer_than_the_file_is_refused(void **state)
{
    (void)state;
    uint64_t file[2] = {9, 0};
    safetensors_t parsed;
    assert_int_equal(safetensors_parse(file, sizeof file, &parsed), CHECKPOINT_ERR_FORMAT);
    assert_error_has("header of 9 bytes: expected at most 8");
}

static void header_longer_than_the_bound_is_refused(void **state)
{
    (void)state;
    const uint64_t lengths[] = {SAFETENSORS_HEADER_BYTES_MOST + 1, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        safetensors_t parsed;
        assert_int_equal(safetensors_parse(&lengths[i], sizeof lengths[i], &parsed), CHECKPOINT_ERR_FORMAT);
        assert_error_has("expected at most 100000000");
    }
}

static void metadata_and_blanks_after_the_header_are_ignored(void **state)
{
    (void)state;
    size_t count;
    void *bytes =
        safetensors_bytes("{\"__metadata__\":{\"format\":\"pt\",\"b\":\"{,:\\\"}\"}," TENSOR("w", "I32", "[]", 0, 4) "}   \n",
                          &(int32_t){-5}, 4, &count);
    safetensors_t parsed;
    assert_int_equal(safetensors_parse(bytes, count, &parsed), CHECKPOINT_OK);
    assert_int_equal(parsed.count, 1);
    assert_string_equal(parsed.tensors[0].name, "w");
    assert_int_equal(parsed.tensors[0].rank, 0);
    assert_int_equal(parsed.tensors[0].elements, 1);
    assert_memory_equal(parsed.tensors[0].data, &(int32_t){-5}, 4);
    safetensors_free(&parsed);
    free(bytes);
}

static void tensors_come_in_file_order_and_may_be_empty(void **state)
{
    (void)state;
    size_t count;
    void *bytes = safetensors_bytes(
        "{" TENSOR("c", "U8", "[3]", 1, 4) "," TENSOR("b", "F32", "[7,0]", 1, 1) "," TENSOR("a", "U8", "[1,1]", 0, 1) "}", "wxyz",
        4, &count);
    safetensors_t parsed;
    assert_int_equal(safetensors_parse(bytes, count, &parsed), CHECKPOINT_OK);
    assert_int_equal(parsed.count, 3);
    assert_string_equal(parsed.tensors[0].name, "a");
    assert_string_equal(parsed.tensors[1].name, "b");
    assert_int_equal(parsed.tensors[1].elements, 0);
    assert_string_equal(parsed.tensors[2].name, "c");
    assert_memory_equal(parsed.tensors[2].data, "xyz", 3);
    safetensors_free(&parsed);
    free(bytes);
}

static void file_without_tensors_is_valid(void **state)
{
    (void)state;
    size_t count;
    void *bytes = safetensors_bytes("{}", zeros, 0, &count);
    safetensors_t parsed;
    assert_int_equal(safetensors_parse(bytes, count, &parsed), CHECKPOINT_OK);
    assert_int_equal(parsed.count, 0);
    safetensors_free(&parsed);
    free(bytes);
}

/* What is accepted must lie inside the bytes: touch all of it. */
static void use(const safetensors_t *parsed)
{
    volatile unsigned char sum = 0;
    for (size_t i = 0; i < parsed->count; i++)
        for (size_t at = 0; at < parsed->tensors[i].bytes; at++)
            sum = (unsigned char)(sum + ((const unsigned char *)parsed->tensors[i].data)[at]);
}

static const char sound[] = "{" TENSOR("a", "F32", "[2,2]", 0, 16) "," TENSOR("b", "I64", "[1]", 16, 24) "}";

static void every_truncation_is_refused(void **state)
{
    (void)state;
    size_t count;
    char *bytes = safetensors_bytes(sound, zeros, 24, &count);
    for (size_t cut = 0; cut < count; cut++) {
        char *part = malloc(cut + 1);
        memcpy(part, bytes, cut);
        char *exact = realloc(part, cut ? cut : 1);
        safetensors_t parsed;
        assert_true(safetensors_parse(exact, cut, &parsed) < 0);
        free(exact);
    }
    free(bytes);
}

static void damaged_bytes_never_break_the_parser(void **state)
{
    (void)state;
    uint64_t random = 42;
    unsigned accepted = 0, refused = 0;
    for (int round = 0; round < 50000; round++) {
        size_t count;
        unsigned char *bytes = safetensors_bytes(sound, zeros, 24, &count);
        for (int damage = 0; damage < 1 + round % 4; damage++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            bytes[(random >> 40) % count] = (unsigned char)(random >> 32);
        }
        safetensors_t parsed;
        if (safetensors_parse(bytes, count, &parsed) == 0) {
            use(&parsed);
            safetensors_free(&parsed);
            accepted++;
        } else {
            refused++;
        }
        free(bytes);
    }
    assert_true(accepted > 0 && refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_shorter_than_its_length_field_is_refused),
        cmocka_unit_test(header_longer_than_the_file_is_refused),
        cmocka_unit_test(header_longer_than_the_bound_is_refused),
        cmocka_unit_test(metadata_and_blanks_after_the_header_are_ignored),
        cmocka_unit_test(tensors_come_in_file_order_and_may_be_empty),
        cmocka_unit_test(file_without_tensors_is_valid),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(damaged_bytes_never_break_the_parser),
    };
    struct CMUnitTest fault_tests[FAULT_COUNT] = {{0}};
    for (int i = 0; i < FAULT_COUNT; i++) {
        fault_tests[i].name = faults[i].sentence;
        fault_tests[i].test_func = header_fault_is_told;
        fault_tests[i].initial_state = (void *)(uintptr_t)&faults[i];
    }
    int failed = cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("safetensors faults", fault_tests, NULL, NULL);
}
