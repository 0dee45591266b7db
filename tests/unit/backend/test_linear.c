/* linear against a double-precision triple loop, over random shapes and every combination of norm, bias, activation and residual. */
#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t rows, out, in, stride;
    const float *x, *weight, *bias, *residual, *scale, *shift;
    backend_norm_kind_t norm;
    backend_activation_t activation;
    float eps;
} linear_case_t;

static void reference_norm(const linear_case_t *c, const float *x, double *to)
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
    }
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void reference(const linear_case_t *c, double *y)
{
    double *x = malloc((size_t)c->in * sizeof *x), *product = malloc((size_t)c->out * sizeof *product);
    int64_t columns = c->activation == BACKEND_ACT_SWIGLU ? c->out / 2 : c->out;

    for (int64_t r = 0; r < c->rows; r++) {
        reference_norm(c, c->x + r * c->stride, x);
        for (int64_t o = 0; o < c->out; o++) {
            product[o] = c->bias != NULL ? (double)c->bias[o] : 0;
            for (int64_t i = 0; i < c->in; i++)
                product[o] += x[i] * (double)c->weight[o * c->in + i];
        }
        for (int64_t o = 0; o < columns; o++) {
            double value = c->activation == BACKEND_ACT_NONE ? product[o] : silu(product[o]);
            value *= c->activation == BACKEND_ACT_SWIGLU ? product[columns + o] : 1;
            y[r * columns + o] = value + (c->residual != NULL ? (double)c->residual[r * columns + o] : 0);
        }
    }
    free(x);
    free(product);
}

/* `choice` picks the combination, so that sixty of them meet every value of every option. */
static linear_case_t make_case(int choice, int64_t rows)
{
    linear_case_t c = {.rows = rows,
                       .out = 2 * bench_pick(1, 40),
                       .in = bench_pick(1, 70),
                       .norm = (backend_norm_kind_t)(choice % 3),
                       .activation = (backend_activation_t)(choice / 3 % 3),
                       .eps = 1e-5f};
    int64_t columns = c.activation == BACKEND_ACT_SWIGLU ? c.out / 2 : c.out;

    c.stride = c.in + (choice % 2 == 0 ? 0 : bench_pick(1, 9));
    c.x = bench_numbers(c.rows * c.stride);
    c.weight = bench_numbers(c.out * c.in);
    c.bias = choice / 9 % 2 == 0 ? bench_numbers(c.out) : NULL;
    c.residual = choice / 18 % 2 == 0 ? bench_numbers(c.rows * columns) : NULL;
    c.scale = choice / 5 % 2 == 0 ? bench_numbers(c.in) : NULL;
    c.shift = choice / 7 % 2 == 0 ? bench_numbers(c.in) : NULL;
    return c;
}

/* Runs the case; in place when `alias`: the residual is y itself. */
static void check_case(backend_t *backend, const linear_case_t *c, bool alias)
{
    int64_t columns = c->activation == BACKEND_ACT_SWIGLU ? c->out / 2 : c->out, count = c->rows * columns;
    double *wanted = malloc((size_t)count * sizeof *wanted);
    backend_weight_t weight = bench_weight(c->weight, c->out, c->in), bias, scale, shift;
    backend_tensor_t residual, y = bench_f32(alias ? c->residual : NULL, count);
    backend_linear_t op = {
        .x = bench_f32(c->x, c->rows * c->stride), .rows = c->rows, .weight = &weight, .activation = c->activation, .y = y};

    op.x_stride = c->stride == c->in ? 0 : c->stride;
    op.norm = (backend_norm_t){.kind = c->norm, .eps = c->eps};
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
        residual = alias ? y : bench_f32(c->residual, count);
        op.residual = &residual;
    }
    assert_int_equal(backend_linear(backend, &op), BACKEND_OK);
    reference(c, wanted);
    bench_assert_close(bench_read(&y), wanted, count, 3e-5);
    free(wanted);
}

static void linear_is_the_product_with_its_norm_bias_activation_and_residual(void **state)
{
    (void)state;
    for (int choice = 0; choice < 60; choice++) {
        backend_t *backend = bench_open((uint64_t)choice);
        linear_case_t c = make_case(choice, bench_pick(1, 33));

        check_case(backend, &c, false);
        bench_close();
    }
}

static void linear_may_add_to_its_own_output(void **state)
{
    (void)state;
    for (int choice = 0; choice < 9; choice++) {
        backend_t *backend = bench_open((uint64_t)choice);
        linear_case_t c = make_case(choice, 7);

        check_case(backend, &c, true);
        bench_close();
    }
}

/* More rows than the scratch of the CPU backend takes at once. */
static void linear_takes_any_number_of_rows(void **state)
{
    backend_t *backend = bench_open(0);
    linear_case_t c = {
        .rows = 5001, .out = 96, .in = 640, .stride = 640, .norm = BACKEND_NORM_RMS, .activation = BACKEND_ACT_SWIGLU};

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
        cmocka_unit_test(linear_is_the_product_with_its_norm_bias_activation_and_residual),
        cmocka_unit_test(linear_may_add_to_its_own_output),
        cmocka_unit_test(linear_takes_any_number_of_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
