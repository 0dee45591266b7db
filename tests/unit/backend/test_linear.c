/* linear against a double-precision triple loop, over random shapes and every combination of norm, modulation, bias, activation, gate, residual,
 * offset and stride. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t rows, out, in, stride, y_stride;
    const float *x, *weight, *bias, *residual, *offset, *scale, *shift;
    int64_t rows_each, conditions;              /* rows_each 0: no modulation */
    const float *by_shift, *by_scale, *by_gate; /* the modulation's, [conditions][in or columns] in one block each */
    backend_norm_kind_t norm;
    backend_activation_t activation;
    float eps;
} linear_case_t;

static int64_t columns_of(const linear_case_t *c)
{
    return c->activation == BACKEND_ACT_SWIGLU ? c->out / 2 : c->out;
}

/* A modulation's vectors lie as far apart as the wider of its parts. */
static int64_t condition_stride(const linear_case_t *c)
{
    return c->in > columns_of(c) ? c->in : columns_of(c);
}

static void reference_norm(const linear_case_t *c, const float *x, int64_t condition, double *to)
{
    double mean = 0, squares = 0;

    for (int64_t i = 0; i < c->in && c->norm == BACKEND_NORM_LAYER; i++)
        mean += (double)x[i] / (double)c->in;
    for (int64_t i = 0; i < c->in; i++)
        squares += pow((double)x[i] - mean, 2) / (double)c->in;
    for (int64_t i = 0; i < c->in; i++) {
        to[i] = c->norm == BACKEND_NORM_NONE ? (double)x[i] : ((double)x[i] - mean) / sqrt(squares + (double)c->eps);
        to[i] *= c->norm != BACKEND_NORM_NONE && c->scale != NULL ? (double)c->scale[i] : 1;
        to[i] += c->norm != BACKEND_NORM_NONE && c->shift != NULL ? (double)c->shift[i] : 0;
        if (c->by_shift != NULL)
            to[i] = to[i] * (1 + (double)c->by_scale[condition + i]) + (double)c->by_shift[condition + i];
    }
}

static double activated(backend_activation_t activation, double x)
{
    if (activation == BACKEND_ACT_RELU)
        return fmax(x, 0);
    return activation == BACKEND_ACT_NONE ? x : x / (1 + exp(-x));
}

static void reference(const linear_case_t *c, double *y)
{
    double *x = malloc((size_t)c->in * sizeof *x), *product = malloc((size_t)c->out * sizeof *product);
    int64_t columns = columns_of(c);

    for (int64_t r = 0; r < c->rows; r++) {
        int64_t condition = c->rows_each > 0 ? r / c->rows_each * condition_stride(c) : 0;

        reference_norm(c, c->x + r * c->stride, condition, x);
        for (int64_t o = 0; o < c->out; o++) {
            product[o] = c->bias != NULL ? (double)c->bias[o] : 0;
            for (int64_t i = 0; i < c->in; i++)
                product[o] += x[i] * (double)c->weight[o * c->in + i];
        }
        for (int64_t o = 0; o < columns; o++) {
            double value = activated(c->activation, product[o]);

            value *= c->activation == BACKEND_ACT_SWIGLU ? product[columns + o] : 1;
            value *= c->by_gate != NULL ? (double)c->by_gate[condition + o] : 1;
            y[r * columns + o] = value + (c->residual != NULL ? (double)c->residual[r * c->y_stride + o] : 0) +
                                 (c->offset != NULL ? (double)c->offset[r * c->y_stride + o] : 0);
        }
    }
    free(x);
    free(product);
}

/* `choice` picks the combination, so that 144 of them meet every value of every option. */
static linear_case_t make_case(int choice, int64_t rows)
{
    linear_case_t c = {.rows = rows,
                       .out = 2 * bench_pick(1, 40),
                       .in = bench_pick(1, 70),
                       .norm = (backend_norm_kind_t)(choice % 3),
                       .activation = (backend_activation_t)(choice / 3 % 4),
                       .eps = 1e-5f};

    c.stride = c.in + (choice % 2 == 0 ? 0 : bench_pick(1, 9));
    c.y_stride = columns_of(&c) + (choice / 4 % 2 == 0 ? 0 : bench_pick(1, 9));
    c.x = bench_numbers(c.rows * c.stride);
    c.weight = bench_numbers(c.out * c.in);
    c.bias = choice / 9 % 2 == 0 ? bench_numbers(c.out) : NULL;
    c.residual = choice / 18 % 2 == 0 ? bench_numbers(c.rows * c.y_stride) : NULL;
    c.offset = choice / 2 % 5 == 0 ? bench_numbers(c.rows * c.y_stride) : NULL;
    c.scale = choice / 5 % 2 == 0 ? bench_numbers(c.in) : NULL;
    c.shift = choice / 7 % 2 == 0 ? bench_numbers(c.in) : NULL;
    c.rows_each = choice / 36 == 0 ? 0 : bench_pick(1, rows);
    if (c.rows_each > 0) {
        c.conditions = (rows - 1) / c.rows_each + 1;
        c.by_shift = choice / 36 != 2 ? bench_numbers(c.conditions * condition_stride(&c)) : NULL;
        c.by_scale = choice / 36 != 2 ? bench_numbers(c.conditions * condition_stride(&c)) : NULL;
        c.by_gate = choice / 36 != 1 ? bench_numbers(c.conditions * condition_stride(&c)) : NULL;
    }
    return c;
}

/* The case's modulation, its tensors in part[3]. */
static backend_modulation_t make_modulation(const linear_case_t *c, backend_tensor_t *part)
{
    backend_modulation_t modulation = {.rows_each = c->rows_each, .stride = condition_stride(c)};
    int64_t count = c->conditions * condition_stride(c);

    if (c->by_shift != NULL) {
        part[0] = bench_f32(c->by_shift, count);
        part[1] = bench_f32(c->by_scale, count);
        modulation.shift = &part[0];
        modulation.scale = &part[1];
    }
    if (c->by_gate != NULL) {
        part[2] = bench_f32(c->by_gate, count);
        modulation.gate = &part[2];
    }
    return modulation;
}

/* Moves the rows together; what lies between them must be as it was. */
static void squeeze(float *y, const linear_case_t *c, const float *before)
{
    int64_t columns = columns_of(c);

    for (int64_t r = 0; r < c->rows; r++) {
        int64_t gap = r + 1 < c->rows ? c->y_stride - columns : 0;

        assert_memory_equal(y + r * c->y_stride + columns, before + r * c->y_stride + columns, (size_t)gap * sizeof *y);
        memmove(y + r * columns, y + r * c->y_stride, (size_t)columns * sizeof *y);
    }
}

/* Runs the case; in place when `alias`: the residual is y itself. */
static void check_case(backend_t *backend, const linear_case_t *c, bool alias)
{
    int64_t columns = columns_of(c), count = c->rows * columns;
    double *wanted = malloc((size_t)count * sizeof *wanted);
    backend_weight_t weight = bench_weight(c->weight, c->out, c->in), bias, scale, shift;
    backend_tensor_t residual, offset, y = bench_f32(alias ? c->residual : NULL, c->rows * c->y_stride), part[3];
    backend_modulation_t modulation = make_modulation(c, part);
    backend_linear_t op = {
        .x = bench_f32(c->x, c->rows * c->stride), .rows = c->rows, .weight = &weight, .activation = c->activation, .y = y};
    const float *before = bench_read(&y);
    float *got;

    op.x_stride = c->stride == c->in ? 0 : c->stride;
    op.y_stride = c->y_stride == columns ? 0 : c->y_stride;
    op.norm = (backend_norm_t){.kind = c->norm, .eps = c->eps};
    op.modulation = c->rows_each > 0 ? &modulation : NULL;
    if (c->bias != NULL) {
        bias = bench_weight(c->bias, c->out, 0);
        op.bias = &bias;
    }
    if (c->scale != NULL) {
        scale = bench_weight(c->scale, c->in, 0);
        op.norm.scale = &scale;
    }
    if (c->shift != NULL) {
        shift = bench_weight(c->shift, c->in, 0);
        op.norm.shift = &shift;
    }
    if (c->residual != NULL) {
        residual = alias ? y : bench_f32(c->residual, c->rows * c->y_stride);
        op.residual = &residual;
    }
    if (c->offset != NULL) {
        offset = bench_f32(c->offset, c->rows * c->y_stride);
        op.offset = &offset;
    }
    assert_int_equal(backend_linear(backend, &op), BACKEND_OK);
    reference(c, wanted);
    got = bench_read(&y);
    squeeze(got, c, before);
    bench_assert_close(got, wanted, count, 3e-5);
    free(wanted);
}

static void linear_is_the_product_with_its_norm_modulation_bias_activation_gate_and_residual(void **state)
{
    (void)state;
    for (int choice = 0; choice < 144; choice++) {
        backend_t *backend = bench_open((uint64_t)choice);
        linear_case_t c = make_case(choice, bench_pick(1, 33));

        check_case(backend, &c, false);
        bench_close();
    }
}

static void linear_may_add_to_its_own_output(void **state)
{
    (void)state;
    for (int choice = 0; choice < 144; choice++) {
        backend_t *backend = bench_open((uint64_t)choice);
        linear_case_t c = make_case(choice, 7);

        if (c.residual != NULL)
            check_case(backend, &c, true);
        bench_close();
    }
}

/* More rows than the scratch of the CPU backend takes at once. */
static void linear_takes_any_number_of_rows(void **state)
{
    backend_t *backend = bench_open(0);
    linear_case_t c = {.rows = 5001,
                       .out = 96,
                       .in = 640,
                       .stride = 640,
                       .y_stride = 48,
                       .norm = BACKEND_NORM_RMS,
                       .activation = BACKEND_ACT_SWIGLU};

    (void)state;
    c.x = bench_numbers(c.rows * c.in);
    c.weight = bench_numbers(c.out * c.in);
    c.bias = bench_numbers(c.out);
    check_case(backend, &c, false);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_is_the_product_with_its_norm_modulation_bias_activation_gate_and_residual),
        cmocka_unit_test(linear_may_add_to_its_own_output),
        cmocka_unit_test(linear_takes_any_number_of_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
