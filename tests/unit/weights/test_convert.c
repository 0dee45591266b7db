/* Every f16 and bf16 value against the definition, computed the slow way. */
#include "weights_test.h"

#include "gpuworker/weights/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALL = 65536 };

static double half_by_definition(unsigned bits)
{
    int exponent = (int)(bits >> 10 & 31), mantissa = (int)(bits & 1023);
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == 31)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

static double bf16_by_definition(unsigned bits)
{
    int exponent = (int)(bits >> 7 & 255), mantissa = (int)(bits & 127);
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == 255)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(128 + mantissa, exponent - 134) : ldexp(mantissa, -133));
}

static void assert_same(double value, double expected)
{
    assert_true(isnan(expected) ? isnan(value) : value == expected && signbit(value) == signbit(expected));
}

/* From an odd address: nothing in a file is aligned. */
static void check_all(checkpoint_dtype_t dtype, double (*by_definition)(unsigned))
{
    unsigned char *stored = malloc(1 + ALL * sizeof(uint16_t));
    float *values = malloc(ALL * sizeof *values);
    for (unsigned i = 0; i < ALL; i++)
        memcpy(stored + 1 + i * sizeof(uint16_t), &(uint16_t){(uint16_t)i}, sizeof(uint16_t));
    assert_true(convert_to_f32(dtype, stored + 1, ALL, values));
    for (unsigned i = 0; i < ALL; i++)
        assert_same((double)values[i], by_definition(i));
    free(stored);
    free(values);
}

static void every_half_becomes_its_float(void **state)
{
    (void)state;
    check_all(CHECKPOINT_F16, half_by_definition);
}

static void every_bf16_becomes_its_float(void **state)
{
    (void)state;
    check_all(CHECKPOINT_BF16, bf16_by_definition);
}

static void doubles_are_rounded_to_the_nearest_float(void **state)
{
    (void)state;
    const double stored[] = {0.1, -1.0, 1 + 0x1p-24, 1e300, -0.0};
    float values[5];
    assert_true(convert_to_f32(CHECKPOINT_F64, stored, 5, values));
    const float expected[] = {0.1f, -1.0f, 1.0f, INFINITY, -0.0f};
    assert_memory_equal(values, expected, sizeof expected);
}

static void integers_and_bools_widen_to_int64(void **state)
{
    (void)state;
    int64_t values[3];
    const int64_t wide[] = {INT64_MIN, 0, INT64_MAX};
    assert_true(convert_to_i64(CHECKPOINT_I64, wide, 3, values));
    assert_memory_equal(values, wide, sizeof wide);
    assert_true(convert_to_i64(CHECKPOINT_I32, (const int32_t[]){INT32_MIN, -1, INT32_MAX}, 3, values));
    assert_memory_equal(values, ((const int64_t[]){INT32_MIN, -1, INT32_MAX}), sizeof values);
    assert_true(convert_to_i64(CHECKPOINT_U8, (const uint8_t[]){0, 128, 255}, 3, values));
    assert_memory_equal(values, ((const int64_t[]){0, 128, 255}), sizeof values);
    assert_true(convert_to_i64(CHECKPOINT_BOOL, (const uint8_t[]){1, 0, 1}, 3, values));
    assert_memory_equal(values, ((const int64_t[]){1, 0, 1}), sizeof values);
}

static void floats_are_no_integers_and_integers_no_floats(void **state)
{
    (void)state;
    float number;
    int64_t whole;
    assert_false(convert_to_f32(CHECKPOINT_I64, &(int64_t){1}, 1, &number));
    assert_false(convert_to_f32(CHECKPOINT_BOOL, &(uint8_t){1}, 1, &number));
    assert_false(convert_to_i64(CHECKPOINT_F32, &(float){1}, 1, &whole));
}

static void bf16_rounds_to_the_nearest_and_ties_to_even(void **state)
{
    (void)state;
    const uint32_t bits[] = {
        0x3f800000, /* 1 */
        0x3f808000, /* a tie: down to even */
        0x3f808001, /* just above it */
        0x3f818000, /* a tie: up to even */
        0x7f7fffff, /* the largest float: to infinity */
        0x7f800001, /* a NaN whose mantissa lies in the lower half */
        0x80000000, /* -0 */
    };
    float values[7];
    memcpy(values, bits, sizeof values);
    uint16_t stored[7];
    convert_to_bf16(values, 7, stored);
    const uint16_t expected[] = {0x3f80, 0x3f80, 0x3f81, 0x3f82, 0x7f80, 0x7fc0, 0x8000};
    assert_memory_equal(stored, expected, sizeof expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_becomes_its_float),
        cmocka_unit_test(every_bf16_becomes_its_float),
        cmocka_unit_test(doubles_are_rounded_to_the_nearest_float),
        cmocka_unit_test(integers_and_bools_widen_to_int64),
        cmocka_unit_test(floats_are_no_integers_and_integers_no_floats),
        cmocka_unit_test(bf16_rounds_to_the_nearest_and_ties_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
