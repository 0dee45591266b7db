/* embed: sums of table rows. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

enum { TABLES_MOST = 3, ENTRIES_MOST = 9 };

static void rows_are_sums_of_the_tables_entries_and_the_bias(void **state)
{
    (void)state;
    for (int round = 0; round < 16; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        int64_t sequences = bench_pick(1, 3), tokens = bench_pick(1, 5), width = bench_pick(1, 20), rows = sequences * tokens;
        int64_t step = bench_pick(0, 2), index_stride = tokens + 3, table_stride = sequences * index_stride, y_stride = width + 2;
        int count = (int)bench_pick(1, TABLES_MOST);
        float *values[TABLES_MOST], *bias = bench_numbers(width), *got;
        int32_t indices[TABLES_MOST * 3 * 8];
        backend_weight_t bias_weight = bench_weight(bias, width, 0);
        backend_tensor_t step_tensor = bench_i32((int32_t[]){(int32_t)step}, 1);
        backend_embed_t op = {.count = count,
                              .index_stride = index_stride,
                              .table_stride = round % 4 == 3 ? 0 : table_stride,
                              .bias = round % 2 == 0 ? &bias_weight : NULL,
                              .activation = round % 3 == 0 ? BACKEND_ACT_SILU : BACKEND_ACT_NONE,
                              .rows = rows,
                              .tokens = tokens,
                              .width = width,
                              .y = bench_f32(NULL, rows * y_stride - 2),
                              .y_stride = y_stride,
                              .step = round % 5 != 4 ? &step_tensor : NULL};
        int64_t entries[TABLES_MOST];

        for (int t = 0; t < count; t++) {
            entries[t] = bench_pick(1, ENTRIES_MOST);
            values[t] = bench_numbers(entries[t] * width);
            op.table[t] = bench_shaped(bench_f32(values[t], entries[t] * width), 2, (int64_t[]){entries[t], width});
        }
        for (int64_t i = 0; i < count * table_stride; i++)
            indices[i] = (int32_t)bench_pick(-2, ENTRIES_MOST + 1);
        op.indices = bench_i32(indices, count * table_stride);
        assert_int_equal(backend_embed(backend, &op), BACKEND_OK);
        got = bench_read(&op.y);
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < width; i++) {
                int64_t at = row / tokens * index_stride + row % tokens + (op.step != NULL ? step : 0);
                double wanted = op.bias != NULL ? (double)bias[i] : 0;

                for (int t = 0; t < count; t++) {
                    int64_t entry = indices[at + t * op.table_stride];
                    entry = entry < 0 || entry >= entries[t] ? 0 : entry;
                    wanted += (double)values[t][entry * width + i];
                }
                wanted = op.activation == BACKEND_ACT_SILU ? wanted / (1 + exp(-wanted)) : wanted;
                assert_true(fabs((double)got[row * y_stride + i] - wanted) < 1e-6);
            }
        bench_close();
    }
}

static void tables_of_another_width_and_indices_that_are_too_few_are_refused(void **state)
{
    backend_t *backend = bench_open(0);
    int32_t indices[6] = {0};
    backend_tensor_t table = bench_f32(NULL, 12);
    backend_embed_t op = {.table = {bench_shaped(table, 2, (int64_t[]){3, 4})},
                          .count = 1,
                          .indices = bench_i32(indices, 6),
                          .index_stride = 3,
                          .rows = 6,
                          .tokens = 3,
                          .width = 4,
                          .y = bench_f32(NULL, 24)};

    (void)state;
    assert_int_equal(backend_embed(backend, &op), BACKEND_OK);
    op.table[0] = bench_shaped(table, 2, (int64_t[]){4, 3});
    assert_int_equal(backend_embed(backend, &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "embed: a table does not have the shape [entries][width]"));
    op.table[0] = bench_shaped(table, 2, (int64_t[]){3, 4});
    op.index_stride = 4;
    assert_int_equal(backend_embed(backend, &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "embed: indices holds 6 elements, expected 7"));
    op.index_stride = 3;
    op.count = 0;
    assert_int_equal(backend_embed(backend, &op), BACKEND_ERR_INVALID);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sums_of_the_tables_entries_and_the_bias),
        cmocka_unit_test(tables_of_another_width_and_indices_that_are_too_few_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
