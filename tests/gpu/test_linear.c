/* linear on the GPU: every path (few rows, many rows), precision, norm, activation and residual, at odd sizes and at those of
 * Toto base. */
#include "tests/gpu/pair.h"

#include <stdio.h>

typedef struct {
    int64_t rows, in, out, stride; /* stride 0: dense */
    backend_norm_kind_t norm;
    backend_activation_t activation;
    bool bias, residual;
    backend_dtype_t x, weight, y;
} case_t;

static void check(const case_t *c)
{
    int64_t columns = c->activation == BACKEND_ACT_SWIGLU ? c->out / 2 : c->out, stride = c->stride > 0 ? c->stride : c->in;
    bool bf16 = c->weight == BACKEND_BF16;
    pair_t *x = pair_random("x", c->x, 1, DIMS(c->rows, stride));
    pair_t *residual = pair_random("residual", BACKEND_F32, 1, DIMS(c->rows, columns));
    pair_t *y = pair_new("y", c->y, DIMS(c->rows, columns));
    weight_pair_t *weight = pair_weight("weight", c->weight, 0, 0.1f, DIMS(c->out, c->in));
    weight_pair_t *bias = pair_weight("bias", BACKEND_F32, 0, 1, DIMS(c->out));
    weight_pair_t *scale = pair_weight("scale", BACKEND_F32, 1, 0.2f, DIMS(c->in));
    weight_pair_t *shift = pair_weight("shift", BACKEND_F32, 0, 0.2f, DIMS(c->in));

    print_message("    %lld rows (stride %lld), %lld to %lld, norm %d, act %d%s%s, %s\n", (long long)c->rows, (long long)stride,
                  (long long)c->in, (long long)c->out, c->norm, c->activation, c->bias ? ", bias" : "",
                  c->residual ? ", residual in place" : "", bf16 ? "bf16" : "fp32");
    EACH_SIDE(side)
    {
        backend_linear_t op = {
            .x = x->view[side],
            .rows = c->rows,
            .x_stride = c->stride,
            .norm = {c->norm, &scale->side[side], c->norm == BACKEND_NORM_LAYER ? &shift->side[side] : NULL, 1e-5f},
            .weight = &weight->side[side],
            .bias = c->bias ? &bias->side[side] : NULL,
            .activation = c->activation,
            .residual = c->residual ? &residual->view[side] : NULL,
            .y = c->residual ? residual->view[side] : y->view[side],
        };
        pair_ok(backend_linear(pair_backend[side], &op));
    }
    pair_compare(c->residual ? residual : y, bf16 ? 1e-2 : 1e-5);
    pair_guards(x);
    pair_test_end(NULL);
}

static const int64_t few_and_many[] = {1, 2, 8, 9, 16, 17, 20, 31, 33, 64, 65, 300};

static void products_in_fp32_match_the_cpu_for_few_and_many_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof few_and_many / sizeof *few_and_many; i++) {
        check(&(case_t){.rows = few_and_many[i], .in = 64, .out = 768, .bias = true});
        check(&(case_t){.rows = few_and_many[i], .in = 100, .out = 37, .stride = 133});
        check(&(case_t){.rows = few_and_many[i], .in = 768, .out = 96, .norm = BACKEND_NORM_RMS, .bias = true, .residual = true});
        check(&(case_t){.rows = few_and_many[i],
                        .in = 72,
                        .out = 200,
                        .norm = BACKEND_NORM_LAYER,
                        .activation = BACKEND_ACT_SILU,
                        .bias = true});
        check(&(case_t){.rows = few_and_many[i], .in = 72, .out = 200, .norm = BACKEND_NORM_RMS, .activation = BACKEND_ACT_SWIGLU});
    }
}

/* The five products of a layer and the head, as the model calls them. */
static void products_in_bf16_match_the_cpu_at_the_sizes_of_toto(void **state)
{
    enum { WIDTH = 768, HIDDEN = 3072 };

    (void)state;
    for (size_t i = 0; i < sizeof few_and_many / sizeof *few_and_many; i++) {
        case_t base = {.rows = few_and_many[i], .in = WIDTH, .bias = true, .weight = BACKEND_BF16};
        case_t embed = base, qkv = base, out = base, gate_up = base, down = base, head = base;

        embed.in = 64, embed.out = WIDTH;
        qkv.out = 3 * WIDTH, qkv.norm = BACKEND_NORM_RMS, qkv.y = BACKEND_BF16;
        out.out = WIDTH, out.x = BACKEND_BF16, out.residual = true;
        gate_up.out = 2 * HIDDEN, gate_up.norm = BACKEND_NORM_RMS, gate_up.activation = BACKEND_ACT_SWIGLU,
        gate_up.y = BACKEND_BF16;
        down.in = HIDDEN, down.out = WIDTH, down.x = BACKEND_BF16, down.residual = true;
        head.out = 64 * 96, head.stride = 8 * WIDTH;
        check(&embed);
        check(&qkv);
        check(&out);
        check(&gate_up);
        check(&down);
        check(&head);
    }
}

/* 26 chunks of a row are no multiple of the warps that share them. */
static void products_in_bf16_match_the_cpu_at_the_sizes_of_kronos(void **state)
{
    enum { WIDTH = 832, HIDDEN = 2048 };

    (void)state;
    for (size_t i = 0; i < sizeof few_and_many / sizeof *few_and_many; i++) {
        case_t base = {.rows = few_and_many[i], .in = WIDTH, .weight = BACKEND_BF16};
        case_t qkv = base, out = base, gate_up = base, down = base;

        qkv.out = 3 * WIDTH, qkv.norm = BACKEND_NORM_RMS, qkv.bias = true, qkv.y = BACKEND_BF16;
        out.out = WIDTH, out.x = BACKEND_BF16, out.bias = out.residual = true;
        gate_up.out = 2 * HIDDEN, gate_up.norm = BACKEND_NORM_RMS, gate_up.activation = BACKEND_ACT_SWIGLU,
        gate_up.y = BACKEND_BF16;
        down.in = HIDDEN, down.out = WIDTH, down.x = BACKEND_BF16, down.residual = true;
        check(&qkv);
        check(&out);
        check(&gate_up);
        check(&down);
    }
}

static void products_in_bf16_match_the_cpu_at_odd_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof few_and_many / sizeof *few_and_many; i++) {
        case_t base = {.rows = few_and_many[i], .in = 104, .out = 50, .bias = true, .weight = BACKEND_BF16};
        case_t plain = base, layer = base, silu = base, swiglu = base, narrow = base, far = base;

        layer.norm = BACKEND_NORM_LAYER, layer.y = BACKEND_BF16;
        silu.activation = BACKEND_ACT_SILU, silu.residual = true;
        swiglu.activation = BACKEND_ACT_SWIGLU, swiglu.residual = true, swiglu.norm = BACKEND_NORM_RMS;
        narrow.x = narrow.y = BACKEND_BF16, narrow.in = 40, narrow.out = 8;
        far.stride = 8 * 104 + 8, far.norm = BACKEND_NORM_RMS;
        check(&plain);
        check(&layer);
        check(&silu);
        check(&swiglu);
        check(&narrow);
        check(&far);
    }
}

static void a_thousand_rows_go_through_the_library_in_both_precisions(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        backend_dtype_t dtype = i == 0 ? BACKEND_F32 : BACKEND_BF16;

        check(&(case_t){1000, 768, 2304, 0, BACKEND_NORM_RMS, BACKEND_ACT_NONE, true, false, BACKEND_F32, dtype, dtype});
        check(&(case_t){1000, 768, 2048, 0, BACKEND_NORM_RMS, BACKEND_ACT_SWIGLU, true, false, BACKEND_F32, dtype, dtype});
        check(&(case_t){1000, 1024, 768, 0, BACKEND_NORM_NONE, BACKEND_ACT_NONE, true, true, dtype, dtype, BACKEND_F32});
    }
}

/* What further families ask of a linear: parts of wider rows, relu, a condition's modulation and gate, an offset. */
typedef struct {
    int64_t rows, in, out, y_extra, rows_each; /* y_extra: between rows of y; rows_each 0: no modulation */
    backend_norm_kind_t norm;
    backend_activation_t activation;
    bool modulated, gate, residual, offset;
    backend_dtype_t x, weight, y;
} adaptive_case_t;

static void check_adaptive(const adaptive_case_t *c)
{
    int64_t columns = c->activation == BACKEND_ACT_SWIGLU ? c->out / 2 : c->out, y_stride = columns + c->y_extra;
    int64_t conditions = c->rows_each > 0 ? (c->rows - 1) / c->rows_each + 1 : 1, stride = 2 * c->in + columns;
    bool bf16 = c->weight == BACKEND_BF16;
    pair_t *x = pair_random("x", c->x, 1, DIMS(c->rows, c->in)), *y = pair_random("y", c->y, 1, DIMS(c->rows, y_stride));
    pair_t *residual = pair_random("residual", BACKEND_F32, 1, DIMS(c->rows, y_stride)),
           *offset = pair_random("offset", BACKEND_F32, 1, DIMS(c->rows, y_stride));
    pair_t *condition = pair_random("condition", BACKEND_F32, 0.5f, DIMS(conditions, stride));
    weight_pair_t *weight = pair_weight("weight", c->weight, 0, 0.1f, DIMS(c->out, c->in)),
                  *bias = pair_weight("bias", BACKEND_F32, 0, 1, DIMS(c->out));

    print_message("    %lld rows of %lld, %lld to %lld, norm %d, act %d%s%s%s%s, %s\n", (long long)c->rows, (long long)c->rows_each,
                  (long long)c->in, (long long)c->out, c->norm, c->activation, c->modulated ? ", modulated" : "",
                  c->gate ? ", gate" : "", c->residual ? ", residual" : "", c->offset ? ", offset" : "", bf16 ? "bf16" : "fp32");
    EACH_SIDE(side)
    {
        backend_tensor_t shift = backend_tensor_from(&condition->view[side], 0),
                         scale = backend_tensor_from(&condition->view[side], c->in),
                         gate = backend_tensor_from(&condition->view[side], 2 * c->in);
        backend_modulation_t modulation = {.shift = c->modulated ? &shift : NULL,
                                           .scale = c->modulated ? &scale : NULL,
                                           .gate = c->gate ? &gate : NULL,
                                           .rows_each = c->rows_each,
                                           .stride = stride};

        pair_ok(backend_linear(pair_backend[side], &(backend_linear_t){.x = x->view[side],
                                                                       .rows = c->rows,
                                                                       .norm = {c->norm, NULL, NULL, 1e-5f},
                                                                       .modulation = c->rows_each > 0 ? &modulation : NULL,
                                                                       .weight = &weight->side[side],
                                                                       .bias = &bias->side[side],
                                                                       .activation = c->activation,
                                                                       .residual = c->residual ? &residual->view[side] : NULL,
                                                                       .offset = c->offset ? &offset->view[side] : NULL,
                                                                       .y = y->view[side],
                                                                       .y_stride = y_stride}));
    }
    pair_compare(y, bf16 ? 1e-2 : 1e-5);
    pair_guards(x);
    pair_test_end(NULL);
}

static void strides_relu_modulation_and_offsets_match_the_cpu(void **state)
{
    static const int64_t rows[] = {1, 7, 16, 17, 20, 32, 48, 300};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int precision = 0; precision < 2; precision++) {
            backend_dtype_t dtype = precision == 0 ? BACKEND_F32 : BACKEND_BF16;
            adaptive_case_t base = {.rows = rows[i], .in = 96, .out = 72, .y_extra = 8, .weight = dtype, .y = dtype};
            adaptive_case_t relu = base, added = base, flow = base, gated = base, narrow = base, state_step = base, wide = base,
                            last = base;

            relu.activation = BACKEND_ACT_RELU, relu.norm = BACKEND_NORM_RMS;
            added.activation = BACKEND_ACT_RELU, added.residual = added.offset = true, added.y = BACKEND_F32;
            flow.norm = BACKEND_NORM_LAYER, flow.modulated = true, flow.rows_each = rows[i], flow.activation = BACKEND_ACT_SILU;
            gated.x = dtype, gated.gate = gated.residual = true, gated.rows_each = 20, gated.y = BACKEND_F32;
            narrow.norm = BACKEND_NORM_RMS, narrow.modulated = narrow.gate = true, narrow.rows_each = 5, narrow.y_extra = 3;
            state_step.residual = state_step.offset = true, state_step.y = BACKEND_F32, state_step.in = 768, state_step.x = dtype;
            wide.norm = BACKEND_NORM_LAYER, wide.modulated = true, wide.rows_each = 16, wide.in = 1024, wide.out = 768;
            check_adaptive(&relu);
            check_adaptive(&added);
            check_adaptive(&flow);
            check_adaptive(&gated);
            check_adaptive(&narrow);
            check_adaptive(&state_step);
            last.norm = BACKEND_NORM_LAYER, last.modulated = true, last.rows_each = rows[i], last.in = 768, last.out = 1488,
            last.y = BACKEND_F32;
            check_adaptive(&wide);
            check_adaptive(&last);
            added.activation = BACKEND_ACT_NONE, added.residual = false; /* an offset alone */
            check_adaptive(&added);
        }
}

/* A row's values do not depend on the rows beside it, as long as the same kernel takes them. */
static void a_row_alone_gives_what_it_gives_among_eight(void **state)
{
    enum { ROWS = 8, IN = 768, OUT = 2304 };
    static float together[ROWS * OUT], alone[OUT];
    pair_t *x = pair_random("x", BACKEND_F32, 1, DIMS(ROWS, IN)), *y = pair_new("y", BACKEND_F32, DIMS(ROWS, OUT));
    pair_t *one = pair_new("y of one row", BACKEND_F32, DIMS(OUT));
    weight_pair_t *weight = pair_weight("weight", BACKEND_BF16, 0, 0.1f, DIMS(OUT, IN));
    backend_linear_t op = {.x = x->view[ON_GPU],
                           .rows = ROWS,
                           .norm = {BACKEND_NORM_RMS, NULL, NULL, 1e-5f},
                           .weight = &weight->side[ON_GPU],
                           .y = y->view[ON_GPU]};

    (void)state;
    pair_ok(backend_linear(pair_backend[ON_GPU], &op));
    pair_read(y, ON_GPU, together);
    op.rows = 1;
    op.y = one->view[ON_GPU];
    for (int row = 0; row < ROWS; row++) {
        op.x.data = (float *)x->view[ON_GPU].data + row * IN;
        op.x.dim[0] = 1;
        pair_ok(backend_linear(pair_backend[ON_GPU], &op));
        pair_read(one, ON_GPU, alone);
        assert_memory_equal(alone, together + row * OUT, sizeof alone);
    }
}

/* It is left to the next op: a norm of it, or anything else. */
static void the_sum_of_a_product_in_parts_is_the_same_whoever_makes_it(void **state)
{
    enum { ROWS = 256, IN = 3072, WIDTH = 768, OUT = 2304 };
    static float before[ROWS * WIDTH], after[2][ROWS * WIDTH];
    pair_t *x = pair_random("x", BACKEND_BF16, 1, DIMS(ROWS, IN)),
           *hidden = pair_random("hidden", BACKEND_F32, 1, DIMS(ROWS, WIDTH));
    pair_t *y = pair_new("y", BACKEND_BF16, DIMS(ROWS, OUT));
    weight_pair_t *down = pair_weight("down", BACKEND_BF16, 0, 0.1f, DIMS(WIDTH, IN)),
                  *next = pair_weight("next", BACKEND_BF16, 0, 0.1f, DIMS(OUT, WIDTH)),
                  *scale = pair_weight("scale", BACKEND_F32, 1, 0.2f, DIMS(WIDTH)),
                  *bias = pair_weight("bias", BACKEND_F32, 0, 1, DIMS(WIDTH));

    (void)state;
    pair_read(hidden, ON_GPU, before);
    for (int normed = 0; normed < 2; normed++) {
        pair_write(hidden, before);
        EACH_SIDE(side)
        {
            pair_ok(backend_linear(pair_backend[side], &(backend_linear_t){.x = x->view[side],
                                                                           .rows = ROWS,
                                                                           .weight = &down->side[side],
                                                                           .bias = &bias->side[side],
                                                                           .residual = &hidden->view[side],
                                                                           .y = hidden->view[side]}));
            if (normed)
                pair_ok(backend_linear(pair_backend[side],
                                       &(backend_linear_t){.x = hidden->view[side],
                                                           .rows = ROWS,
                                                           .norm = {BACKEND_NORM_RMS, &scale->side[side], NULL, 1e-5f},
                                                           .weight = &next->side[side],
                                                           .y = y->view[side]}));
        }
        pair_compare(hidden, 1e-2);
        if (normed)
            pair_compare(y, 1e-2);
        pair_read(hidden, ON_GPU, after[normed]);
    }
    assert_memory_equal(after[0], after[1], sizeof after[0]);
}

/* The backend keeps BF16 copies of biases by their address, and the address of a freed one comes back. */
static void a_bias_in_the_place_of_a_freed_one_is_not_the_old_one(void **state)
{
    enum { ROWS = 40, IN = 64, OUT = 96 };
    static float zeros[ROWS * IN], sums[ROWS * OUT], bias_host[OUT];
    pair_t *x = pair_new("x", BACKEND_F32, DIMS(ROWS, IN)), *y = pair_new("y", BACKEND_BF16, DIMS(ROWS, OUT));
    weight_pair_t *weight = pair_weight("weight", BACKEND_BF16, 0, 0.1f, DIMS(OUT, IN));

    (void)state;
    pair_write(x, zeros);
    for (int i = 1; i <= 3; i++) {
        backend_weight_t bias;
        backend_linear_t op = {
            .x = x->view[ON_GPU], .rows = ROWS, .weight = &weight->side[ON_GPU], .bias = &bias, .y = y->view[ON_GPU]};

        for (int j = 0; j < OUT; j++)
            bias_host[j] = (float)i;
        pair_ok(backend_weight_upload(pair_backend[ON_GPU], "bias", BACKEND_F32, DIMS(OUT), bias_host, &bias));
        pair_ok(backend_linear(pair_backend[ON_GPU], &op));
        pair_read(y, ON_GPU, sums);
        for (int j = 0; j < ROWS * OUT; j++)
            assert_true(sums[j] == (float)i);
        backend_weight_free(pair_backend[ON_GPU], &bias);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(products_in_fp32_match_the_cpu_for_few_and_many_rows),
        pair_test(products_in_bf16_match_the_cpu_at_the_sizes_of_toto),
        pair_test(products_in_bf16_match_the_cpu_at_the_sizes_of_kronos),
        pair_test(products_in_bf16_match_the_cpu_at_odd_sizes),
        pair_test(a_thousand_rows_go_through_the_library_in_both_precisions),
        pair_test(strides_relu_modulation_and_offsets_match_the_cpu),
        pair_test(a_row_alone_gives_what_it_gives_among_eight),
        pair_test(the_sum_of_a_product_in_parts_is_the_same_whoever_makes_it),
        pair_test(a_bias_in_the_place_of_a_freed_one_is_not_the_old_one),
    };

    return pair_no_gpu() ? PAIR_SKIPPED : cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
