/* causal_patch against a reference that recomputes the statistics of every patch from the whole series, as the official model does at each
 * step: context, fed-back values and known futures side by side in one array, means and deviations in two passes. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PATCH = 4, VALUES_MOST = 128 };

/* One row as the official model holds it. */
typedef struct {
    double value[VALUES_MOST];
    bool observed[VALUES_MOST];
} series_t;

/* Of the observed values before `end`, at most the first `most`. */
static void statistics(const series_t *row, int64_t end, double most, double *count, double *loc, double *scale)
{
    double sum = 0, squares = 0;

    *count = 0;
    for (int64_t i = 0; i < end; i++)
        if (row->observed[i] && *count < most) {
            *count += 1;
            sum += row->value[i];
        }
    *loc = sum / fmax(*count, 1);
    for (int64_t i = 0, seen = 0; i < end; i++)
        if (row->observed[i] && (double)seen < *count) {
            seen++;
            squares += (row->value[i] - *loc) * (row->value[i] - *loc);
        }
    *scale = fmax(sqrt(squares / fmax(*count - 1, 1)), 1e-6);
}

typedef struct {
    int64_t series, variates, exogenous, patches, ahead, block, steps, minimum_observed;
    float *x, *future;
    uint8_t mask[16 * VALUES_MOST];
    series_t rows[16];
} case_t;

static int64_t row_count(const case_t *c)
{
    return c->series * c->variates;
}

static int64_t future_length(const case_t *c)
{
    return (c->steps + 1) * c->block * PATCH - 3; /* not whole patches */
}

static bool is_exogenous(const case_t *c, int64_t row)
{
    return row % c->variates >= c->variates - c->exogenous;
}

static void make_case(case_t *c, int round)
{
    *c = (case_t){.series = bench_pick(1, 3),
                  .variates = bench_pick(1, 4),
                  .patches = bench_pick(1, 6),
                  .block = bench_pick(1, 3),
                  .steps = 2,
                  .minimum_observed = round % 2 == 0 ? 0 : 3};
    c->exogenous = bench_pick(0, c->variates - 1);
    c->ahead = c->block;
    c->x = bench_numbers(row_count(c) * c->patches * PATCH);
    c->future = bench_numbers(c->series * c->exogenous * future_length(c) + 1);
    for (int64_t i = 0; i < c->series * c->exogenous * future_length(c); i++)
        if (bench_pick(0, 4) == 0)
            c->future[i] = NAN;
    for (int64_t row = 0; row < row_count(c); row++) {
        int64_t values = c->patches * PATCH, first = bench_pick(0, values); /* leading values are missing, others here and there */

        for (int64_t i = 0; i < values; i++) {
            c->x[row * values + i] = 100 + 5 * c->x[row * values + i];
            c->mask[row * values + i] = i >= first && bench_pick(0, 3) > 0;
            if (!c->mask[row * values + i])
                c->x[row * values + i] = 0;
        }
    }
}

/* The series before anything is fed back. */
static void begin_rows(case_t *c)
{
    int64_t values = c->patches * PATCH;

    for (int64_t row = 0; row < row_count(c); row++) {
        series_t *series = &c->rows[row];
        double last = 0;

        memset(series, 0, sizeof *series);
        for (int64_t i = 0; i < values; i++) {
            series->observed[i] = c->mask[row * values + i];
            last = series->observed[i] ? (double)c->x[row * values + i] : last;
            series->value[i] = series->observed[i] ? (double)c->x[row * values + i] : 0;
            if (i >= values - PATCH && !is_exogenous(c, row)) {
                series->observed[i] = true;
                series->value[i] = last;
            }
        }
        for (int64_t i = 0; is_exogenous(c, row) && i < future_length(c); i++) {
            int64_t known = row % c->variates - (c->variates - c->exogenous);
            float value = c->future[(row / c->variates * c->exogenous + known) * future_length(c) + i];

            series->observed[values + i] = !isnan(value);
            series->value[values + i] = isnan(value) ? 0 : (double)value;
        }
    }
}

/* Compares what a call gave for `patches` + `ahead` patches that begin at patch `from` of the series. */
static void check_call(const case_t *c, const backend_causal_patch_t *op, int64_t from)
{
    int64_t patches = op->patches + op->ahead;
    const float *y = bench_read(&op->y), *loc = bench_read(&op->loc), *scale = bench_read(&op->scale);
    const uint8_t *visible = op->visible != NULL ? op->visible->data : NULL,
                  *lasting = op->lasting != NULL ? op->lasting->data : NULL;

    for (int64_t row = 0; row < row_count(c); row++)
        for (int64_t t = 0; t < patches; t++) {
            const series_t *series = &c->rows[row];
            double count, wanted_loc, wanted_scale, wanted[2 * PATCH];
            bool any = false;

            statistics(series, (from + t + 1) * PATCH, INFINITY, &count, &wanted_loc, &wanted_scale);
            bench_assert_close(&loc[row * patches + t], &wanted_loc, 1, 1e-6);
            bench_assert_close(&scale[row * patches + t], &wanted_scale, 1, 1e-5);
            if (count < (double)c->minimum_observed)
                statistics(series, VALUES_MOST, (double)c->minimum_observed, &count, &wanted_loc, &wanted_scale);
            if (t == op->patches - 1 && op->low != NULL) {
                double low = INFINITY, high = -INFINITY;

                for (int64_t i = 0; i < op->patches * PATCH; i++)
                    if (series->observed[i]) {
                        low = fmin(low, series->value[i]);
                        high = fmax(high, series->value[i]);
                    }
                low = (isfinite(low) ? low : 0) - (double)op->cap * wanted_scale;
                high = (isfinite(high) ? high : 0) + (double)op->cap * wanted_scale;
                bench_assert_close((const float *)op->low->data + row, &low, 1, 1e-5);
                bench_assert_close((const float *)op->high->data + row, &high, 1, 1e-5);
            }
            if (t >= op->tokens)
                continue;
            for (int64_t i = 0; i < PATCH; i++) {
                int64_t at = (from + t) * PATCH + i;

                wanted[i] = series->observed[at] ? asinh((series->value[at] - wanted_loc) / wanted_scale) : 0;
                wanted[PATCH + i] = series->observed[at] || (op->mask == NULL && t < op->patches) ? 0 : 1;
                any |= series->observed[at];
            }
            bench_assert_close(y + (row * op->tokens + t) * op->y_stride, wanted, 2 * PATCH, 1e-3);
            if (visible != NULL)
                assert_int_equal(visible[row * op->tokens + t], any || t >= op->patches);
            if (lasting != NULL)
                assert_int_equal(lasting[row * op->tokens + t], any && t < op->patches);
        }
}

static void every_patch_is_scaled_by_all_that_was_observed_up_to_its_end(void **state)
{
    (void)state;
    for (int round = 0; round < 24; round++) {
        backend_t *backend = bench_open((uint64_t)round);
        static case_t c;
        int64_t rows, tokens, stride = 2 * PATCH + round % 3;
        backend_tensor_t mask, future, visible, lasting, low, high, step = bench_i32((int32_t[]){0}, 1);
        backend_causal_patch_t op;

        make_case(&c, round);
        begin_rows(&c);
        rows = row_count(&c);
        tokens = c.patches + c.ahead - round % 2;
        mask = bench_any(BACKEND_U8, c.mask, rows * c.patches * PATCH);
        future = bench_f32(c.future, c.series * c.exogenous * future_length(&c) + 1);
        visible = bench_any(BACKEND_U8, NULL, rows * tokens);
        lasting = bench_any(BACKEND_U8, NULL, rows * tokens);
        low = bench_f32(NULL, rows);
        high = bench_f32(NULL, rows);
        op = (backend_causal_patch_t){.x = bench_f32(c.x, rows * c.patches * PATCH),
                                      .x_stride = c.patches * PATCH,
                                      .mask = &mask,
                                      .rows = rows,
                                      .patches = c.patches,
                                      .patch = PATCH,
                                      .ahead = c.ahead,
                                      .variates = c.variates,
                                      .exogenous = c.exogenous,
                                      .future = &future,
                                      .future_length = future_length(&c),
                                      .step = &step,
                                      .minimum = 1e-6,
                                      .minimum_observed = c.minimum_observed,
                                      .tokens = tokens,
                                      .y = bench_f32(NULL, rows * tokens * stride),
                                      .y_stride = stride,
                                      .loc = bench_f32(NULL, rows * (c.patches + c.ahead)),
                                      .scale = bench_f32(NULL, rows * (c.patches + c.ahead)),
                                      .state = bench_any(BACKEND_F64, NULL, rows * BACKEND_SCALER_STATE),
                                      .visible = &visible,
                                      .lasting = &lasting,
                                      .low = &low,
                                      .high = &high,
                                      .cap = 0.5f};
        assert_int_equal(backend_causal_patch(backend, &op), BACKEND_OK);
        check_call(&c, &op, 0);

        for (int64_t k = 0; k < c.steps; k++) { /* blocks that are fed back, of which the last patch is not asked for */
            float *fed = bench_numbers(rows * c.block * PATCH);

            for (int64_t row = 0; row < rows; row++)
                for (int64_t i = 0; i < c.block * PATCH && !is_exogenous(&c, row); i++) {
                    int64_t at = (c.patches + k * c.block) * PATCH + i;
                    c.rows[row].observed[at] = true;
                    c.rows[row].value[at] = (double)fed[row * c.block * PATCH + i];
                }
            op.x = bench_f32(fed, rows * c.block * PATCH);
            op.x_stride = c.block * PATCH;
            op.mask = NULL;
            op.low = op.high = NULL;
            op.patches = c.block;
            op.tokens = 2 * c.block - 1;
            op.y = bench_f32(NULL, rows * op.tokens * stride);
            op.loc = bench_f32(NULL, rows * 2 * c.block);
            op.scale = bench_f32(NULL, rows * 2 * c.block);
            op.visible = op.lasting = NULL;
            assert_int_equal(backend_causal_patch(backend, &op), BACKEND_OK);
            check_call(&c, &op, c.patches + k * c.block);
            assert_int_equal(backend_step_advance(backend, &step), BACKEND_OK);
        }
        bench_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_patch_is_scaled_by_all_that_was_observed_up_to_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
