/* The front: counting, and descriptors that are refused with a text that names the op and the field. */
#include "tests/unit/backend/device_bench.h"

#include <string.h>

#include "base/error.h"

static void allocations_are_counted_and_given_back(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t tensor;
    uint64_t before = backend_allocation_count(backend);

    (void)state;
    assert_int_equal(backend_alloc(backend, "x", BACKEND_F64, 2, (int64_t[]){3, 5}, &tensor), BACKEND_OK);
    assert_int_equal(backend_allocated_bytes(backend), 3 * 5 * 8);
    assert_int_equal(backend_allocation_count(backend), before + 1);
    backend_free(backend, &tensor);
    assert_int_equal(backend_allocated_bytes(backend), 0);
    assert_int_equal(backend_allocation_count(backend), before + 1);
    backend_free(backend, &tensor); /* zeroed by the first */
    bench_close();
}

static void shapes_that_cannot_be_are_refused(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t tensor;

    (void)state;
    assert_int_equal(backend_alloc(backend, "x", BACKEND_F32, 2, (int64_t[]){3, 0}, &tensor), BACKEND_ERR_INVALID);
    assert_int_equal(backend_alloc(backend, "x", BACKEND_F32, 2, (int64_t[]){INT64_MAX, 3}, &tensor), BACKEND_ERR_INVALID);
    assert_int_equal(backend_alloc(backend, "x", BACKEND_F32, BACKEND_RANK_MOST + 1, (int64_t[]){1, 1, 1, 1, 1, 1}, &tensor),
                     BACKEND_ERR_INVALID);
    assert_int_equal(backend_alloc(backend, "x", BACKEND_BF16, 1, (int64_t[]){3}, &tensor), BACKEND_ERR_UNSUPPORTED);
    bench_close();
}

static void the_cpu_has_neither_graphs_nor_bf16_and_says_so(void **state)
{
    backend_t *backend = bench_open(0);

    (void)state;
    assert_false(backend_has_graphs(backend));
    assert_false(backend_has_bf16(backend));
    assert_int_equal(backend_graph_begin(backend), BACKEND_ERR_UNSUPPORTED);
    assert_string_equal(backend_name(backend), "cpu (2 threads)");
    bench_close();
}

static void refused(int rc, const char *op, const char *field)
{
    assert_int_equal(rc, BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), op));
    assert_non_null(strstr(error_text(), field));
}

static void a_linear_that_does_not_fit_is_refused_by_field(void **state)
{
    backend_t *backend = bench_open(0);
    float *numbers = bench_numbers(64);
    backend_weight_t weight = bench_weight(numbers, 4, 3), short_bias = bench_weight(numbers, 3, 0);
    backend_linear_t good = {.x = bench_f32(numbers, 6), .rows = 2, .weight = &weight, .y = bench_f32(NULL, 8)}, op;

    (void)state;
    assert_int_equal(backend_linear(backend, &good), BACKEND_OK);
    op = good;
    op.rows = 3;
    refused(backend_linear(backend, &op), "linear", "x holds 6 elements, expected 9");
    op = good;
    op.rows = 0;
    refused(backend_linear(backend, &op), "linear", "rows is 0");
    op = good;
    op.x_stride = 4;
    refused(backend_linear(backend, &op), "linear", "x holds 6 elements, expected 7");
    op = good;
    op.weight = NULL;
    refused(backend_linear(backend, &op), "linear", "weight");
    op = good;
    op.bias = &short_bias;
    refused(backend_linear(backend, &op), "linear", "bias");
    op = good;
    op.y.data = NULL;
    refused(backend_linear(backend, &op), "linear", "y is missing");
    op = good;
    op.y.dtype = BACKEND_F64;
    refused(backend_linear(backend, &op), "linear", "y cannot be F64");
    op = good;
    op.y = bench_f32(NULL, 7);
    refused(backend_linear(backend, &op), "linear", "y holds 7");
    op = good;
    op.y_stride = 3;
    refused(backend_linear(backend, &op), "linear", "y_stride is 3");
    op.y_stride = 5;
    refused(backend_linear(backend, &op), "linear", "y holds 8 elements, expected 9");
    bench_close();
}

static void a_modulation_that_does_not_fit_is_refused_by_field(void **state)
{
    backend_t *backend = bench_open(0);
    float *numbers = bench_numbers(64);
    backend_weight_t weight = bench_weight(numbers, 4, 3);
    backend_tensor_t six = bench_f32(numbers, 6), seven = bench_f32(numbers, 7);
    backend_modulation_t modulation = {.shift = &six, .scale = &six, .gate = &seven, .rows_each = 2, .stride = 3};
    backend_linear_t op = {
        .x = bench_f32(numbers, 9), .rows = 3, .weight = &weight, .modulation = &modulation, .y = bench_f32(NULL, 12)};

    (void)state;
    assert_int_equal(backend_linear(backend, &op), BACKEND_OK);
    modulation.gate = &six;
    refused(backend_linear(backend, &op), "linear", "modulation.gate holds 6 elements, expected 7");
    modulation.gate = NULL;
    modulation.rows_each = 1;
    refused(backend_linear(backend, &op), "linear", "modulation.shift holds 6 elements, expected 9");
    modulation.rows_each = 0;
    refused(backend_linear(backend, &op), "linear", "rows_each is 0");
    modulation.rows_each = 3;
    modulation.scale = NULL;
    refused(backend_linear(backend, &op), "linear", "only one of shift and scale");
    bench_close();
}

static void an_attention_that_does_not_fit_is_refused_by_field(void **state)
{
    backend_t *backend = bench_open(0);
    float *numbers = bench_numbers(256);
    int64_t cache[4] = {2, 1, 3, 4};
    backend_kv_t kv = {.prefix_k = bench_shaped(bench_f32(NULL, 24), 4, cache),
                       .prefix_v = bench_shaped(bench_f32(NULL, 24), 4, cache)};
    backend_tensor_t table = bench_shaped(bench_f32(numbers, 3 * 4 * 4), 3, (int64_t[]){3, 4, 4});
    backend_tensor_t index = bench_shaped(bench_i32((int32_t[6]){0}, 6), 2, (int64_t[]){2, 3});
    backend_tensor_t short_flags = bench_any(BACKEND_U8, (uint8_t[5]){0}, 5);
    backend_attention_t good = {.qkv = bench_f32(numbers, 72),
                                .out = bench_f32(NULL, 24),
                                .rows = 2,
                                .tokens = 3,
                                .samples = 1,
                                .variates = 1,
                                .heads = 1,
                                .head_dim = 4,
                                .scale = 1,
                                .rope = {.table = &table, .index = &index},
                                .kv = &kv},
                        op;

    (void)state;
    assert_int_equal(backend_attention(backend, &good), BACKEND_OK);
    op = good;
    op.samples = 2;
    refused(backend_attention(backend, &op), "attention", "samples is 2");
    op = good;
    op.kv = NULL;
    refused(backend_attention(backend, &op), "attention", "kv is missing");
    op = good;
    op.tokens = 2;
    refused(backend_attention(backend, &op), "attention", "kv.prefix_k");
    op = good;
    op.mode = BACKEND_ATTENTION_DECODE;
    op.tokens = 1;
    refused(backend_attention(backend, &op), "attention", "kv.tail_k is missing");
    op = good;
    op.mode = BACKEND_ATTENTION_ENCODE;
    refused(backend_attention(backend, &op), "attention", "kv is given");
    op = good;
    op.mode = BACKEND_ATTENTION_QUERY;
    refused(backend_attention(backend, &op), "attention", "never rotates");
    op = good;
    op.bias = &op.out;
    refused(backend_attention(backend, &op), "attention", "bias is given");
    op = good;
    op.visible = &short_flags;
    refused(backend_attention(backend, &op), "attention", "visible holds 5 elements, expected 6");
    table = bench_shaped(table, 3, (int64_t[]){3, 4, 8});
    refused(backend_attention(backend, &good), "attention", "rope.table");
    bench_close();
}

static void scaler_states_may_not_alias(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t step = bench_i32((int32_t[]){0}, 1), statistics = bench_any(BACKEND_F64, NULL, BACKEND_SCALER_STATE);
    backend_causal_scale_extend_t op = {.x = bench_f32(bench_numbers(4), 4),
                                        .x_stride = 4,
                                        .rows = 1,
                                        .samples = 1,
                                        .variates = 1,
                                        .patch = 4,
                                        .state_in = statistics,
                                        .state = statistics,
                                        .y = bench_f32(NULL, 4),
                                        .loc = bench_f32(NULL, 1),
                                        .scale = bench_f32(NULL, 1),
                                        .step = &step};

    (void)state;
    refused(backend_causal_scale_extend(backend, &op), "causal_scale_extend", "same buffer");
    bench_close();
}

static void draws_need_keys(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t step = bench_i32((int32_t[]){0}, 1), one = bench_f32(bench_numbers(1), 1);
    backend_student_t_t op = {.head = bench_f32(bench_numbers(4), 4),
                              .rows = 1,
                              .patch = 1,
                              .components = 1,
                              .samples = 1,
                              .draws = 1,
                              .variates = 1,
                              .out_loc = one,
                              .out_scale = one,
                              .out_stride = 1,
                              .step = &step,
                              .paths = bench_f32(NULL, 1),
                              .path_stride = 1};

    (void)state;
    refused(backend_student_t(backend, &op), "student_t", "keys is missing");
    op.draws = 0;
    assert_int_equal(backend_student_t(backend, &op), BACKEND_OK);
    bench_close();
}

static void quantiles_stay_within_the_patch_and_known_variates_need_a_future(void **state)
{
    backend_t *backend = bench_open(0);
    backend_tensor_t two = bench_f32(bench_numbers(2), 2);
    backend_student_t_quantiles_t op = {.head = bench_f32(bench_numbers(16), 16),
                                        .rows = 2,
                                        .patch = 2,
                                        .components = 1,
                                        .horizon = 3,
                                        .variates = 2,
                                        .exogenous = 1,
                                        .out_loc = two,
                                        .out_scale = two,
                                        .out_stride = 1,
                                        .future_stride = 2,
                                        .levels = bench_f32((float[]){0.5f}, 1),
                                        .quantiles = bench_f32(NULL, 4)};

    (void)state;
    refused(backend_student_t_quantiles(backend, &op), "student_t_quantiles", "horizon");
    op.horizon = 2;
    refused(backend_student_t_quantiles(backend, &op), "student_t_quantiles", "future is missing");
    op.future = &two;
    assert_int_equal(backend_student_t_quantiles(backend, &op), BACKEND_OK);
    op.levels = bench_f32((float[]){0.2f, 0.5f}, 2);
    refused(backend_student_t_quantiles(backend, &op), "student_t_quantiles", "quantiles holds 4 elements, expected 8");
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_counted_and_given_back),
        cmocka_unit_test(shapes_that_cannot_be_are_refused),
        cmocka_unit_test(the_cpu_has_neither_graphs_nor_bf16_and_says_so),
        cmocka_unit_test(a_linear_that_does_not_fit_is_refused_by_field),
        cmocka_unit_test(a_modulation_that_does_not_fit_is_refused_by_field),
        cmocka_unit_test(an_attention_that_does_not_fit_is_refused_by_field),
        cmocka_unit_test(scaler_states_may_not_alias),
        cmocka_unit_test(draws_need_keys),
        cmocka_unit_test(quantiles_stay_within_the_patch_and_known_variates_need_a_future),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
