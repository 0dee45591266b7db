/* What an op takes on the GPU at the sizes of Toto 1.0 base in bf16: a graph of many of them, replayed. Not a test: the tests
 * beside it verify the same ops.
 *
 * Weights rotate through more memory than the L2 holds, as they do in a forecast. GB/s counts each input and output once;
 * TFLOP/s counts the product's multiplications and additions. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/gpu/bench.h"

enum { WIDTH = 768, HIDDEN = 3072, HEADS = 12, HEAD_DIM = 64, PATCH = 64, COMPONENTS = 24, TOKENS = 8 };
static const int64_t weight_pool_bytes = 200 << 20;

/* ---- linear ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    int64_t in, out;
    bool norm, swiglu, residual;
    backend_dtype_t x, y;
} product_t;

static const product_t products[] = {
    {"embed", PATCH, WIDTH, false, false, false, BACKEND_F32, BACKEND_F32},
    {"qkv", WIDTH, 3 * WIDTH, true, false, false, BACKEND_F32, BACKEND_BF16},
    {"attention out", WIDTH, WIDTH, false, false, true, BACKEND_BF16, BACKEND_F32},
    {"gate up", WIDTH, 2 * HIDDEN, true, true, false, BACKEND_F32, BACKEND_BF16},
    {"down", HIDDEN, WIDTH, false, false, true, BACKEND_BF16, BACKEND_F32},
    {"head", WIDTH, PATCH * 4 * COMPONENTS, false, false, false, BACKEND_F32, BACKEND_F32},
};

typedef struct {
    backend_linear_t op;
    backend_weight_t *weights;
    int count;
} linear_run_t;

static void enqueue_linear(void *context, int number)
{
    linear_run_t *run = context;

    run->op.weight = &run->weights[number % run->count];
    bench_need(backend_linear(bench_gpu, &run->op));
}

static void bench_linear(const product_t *p, int64_t rows)
{
    int64_t weight_bytes = p->in * p->out * 2, columns = p->swiglu ? p->out / 2 : p->out;
    linear_run_t run = {.count =
                            weight_pool_bytes / weight_bytes < BENCH_NODES ? (int)(weight_pool_bytes / weight_bytes) : BENCH_NODES};
    backend_weight_t norm = {bench_tensor(BACKEND_F32, DIMS(p->in))}, bias = {bench_tensor(BACKEND_F32, DIMS(p->out))};
    backend_tensor_t y = bench_tensor(p->y, DIMS(rows, columns)), x = bench_tensor(p->x, DIMS(rows, p->in));
    double us;

    run.weights = calloc((size_t)run.count, sizeof *run.weights);
    for (int i = 0; i < run.count; i++) {
        run.weights[i].tensor = bench_tensor(BACKEND_BF16, DIMS(p->out, p->in));
        bench_randomise(&run.weights[i].tensor);
    }
    bench_randomise(&norm.tensor);
    bench_randomise(&bias.tensor);
    bench_randomise(&x);
    bench_randomise(&y);
    run.op = (backend_linear_t){.x = x,
                                .rows = rows,
                                .norm = {p->norm ? BACKEND_NORM_RMS : BACKEND_NORM_NONE, p->norm ? &norm : NULL, NULL, 1e-8f},
                                .bias = &bias,
                                .activation = p->swiglu ? BACKEND_ACT_SWIGLU : BACKEND_ACT_NONE,
                                .residual = p->residual ? &y : NULL,
                                .y = y};
    us = bench_measure(enqueue_linear, &run, BENCH_NODES);
    bench_report(p->name, rows, us,
                 (double)(weight_bytes + rows * p->in * (int64_t)backend_dtype_bytes(p->x) +
                          rows * columns * (int64_t)backend_dtype_bytes(p->y) * (p->residual ? 2 : 1)),
                 2.0 * (double)rows * (double)p->in * (double)p->out);
    for (int i = 0; i < run.count; i++)
        backend_weight_free(bench_gpu, &run.weights[i]);
    free(run.weights);
    backend_weight_free(bench_gpu, &norm);
    backend_weight_free(bench_gpu, &bias);
    backend_free(bench_gpu, &x);
    backend_free(bench_gpu, &y);
}

/* ---- the other ops, one layer's buffers -------------------------------------------------------------------------------------- */

typedef struct {
    backend_attention_t attention;
    backend_causal_scale_extend_t extend;
    backend_student_t_t student_t;
    backend_student_t_quantiles_t exact;
    backend_summarize_t summarize;
} others_t;

static void enqueue_attention(void *context, int number)
{
    (void)number;
    bench_need(backend_attention(bench_gpu, &((others_t *)context)->attention));
}

static void enqueue_extend(void *context, int number)
{
    (void)number;
    bench_need(backend_causal_scale_extend(bench_gpu, &((others_t *)context)->extend));
}

static void enqueue_exact(void *context, int number)
{
    (void)number;
    bench_need(backend_student_t_quantiles(bench_gpu, &((others_t *)context)->exact));
}

static void enqueue_student_t(void *context, int number)
{
    (void)number;
    bench_need(backend_student_t(bench_gpu, &((others_t *)context)->student_t));
}

static void enqueue_summarize(void *context, int number)
{
    (void)number;
    bench_need(backend_summarize(bench_gpu, &((others_t *)context)->summarize));
}

static void bench_others(int64_t series, int64_t samples)
{
    enum { STEPS = 5, LEVELS = 9, FEW_NODES = 8 };
    int64_t rows = series * samples, stride = (STEPS + 1) * PATCH;
    backend_tensor_t prefill_qkv = bench_tensor(BACKEND_BF16, DIMS(series, TOKENS, 3, WIDTH)),
                     qkv = bench_tensor(BACKEND_BF16, DIMS(rows, 3, WIDTH));
    backend_tensor_t mixed = bench_tensor(BACKEND_BF16, DIMS(rows > series * TOKENS ? rows : series * TOKENS, WIDTH));
    backend_tensor_t table = bench_tensor(BACKEND_F32, DIMS(TOKENS + STEPS, 4, HEAD_DIM)),
                     step = bench_tensor(BACKEND_I32, DIMS(1));
    backend_tensor_t prefill_index = bench_tensor(BACKEND_I32, DIMS(series, TOKENS)),
                     decode_index = bench_tensor(BACKEND_I32, DIMS(series, STEPS));
    backend_kv_t kv = {bench_tensor(BACKEND_BF16, DIMS(series, HEADS, TOKENS, HEAD_DIM)),
                       bench_tensor(BACKEND_BF16, DIMS(series, HEADS, TOKENS, HEAD_DIM)),
                       bench_tensor(BACKEND_BF16, DIMS(rows, HEADS, STEPS, HEAD_DIM)),
                       bench_tensor(BACKEND_BF16, DIMS(rows, HEADS, STEPS, HEAD_DIM))};
    backend_tensor_t paths = bench_tensor(BACKEND_F32, DIMS(rows, stride)),
                     state_in = bench_tensor(BACKEND_F64, DIMS(series, BACKEND_SCALER_STATE));
    backend_tensor_t state = bench_tensor(BACKEND_F64, DIMS(rows, BACKEND_SCALER_STATE)),
                     scaled = bench_tensor(BACKEND_F32, DIMS(rows, PATCH));
    backend_tensor_t loc = bench_tensor(BACKEND_F32, DIMS(rows)), scale = bench_tensor(BACKEND_F32, DIMS(rows)),
                     keys = bench_tensor(BACKEND_U64, DIMS(series));
    backend_tensor_t head = bench_tensor(BACKEND_F32, DIMS(rows, PATCH, 4, COMPONENTS)),
                     mean = bench_tensor(BACKEND_F32, DIMS(series, stride));
    backend_tensor_t levels = bench_tensor(BACKEND_F32, DIMS(LEVELS)),
                     quantiles = bench_tensor(BACKEND_F32, DIMS(series, LEVELS, stride));
    backend_tensor_t *all[] = {&prefill_qkv, &qkv,       &mixed,     &table, &step,     &prefill_index, &decode_index, &kv.prefix_k,
                               &kv.prefix_v, &kv.tail_k, &kv.tail_v, &paths, &state_in, &state,         &scaled,       &loc,
                               &scale,       &keys,      &head,      &mean,  &levels,   &quantiles};
    int32_t *zeros = calloc((size_t)(series * TOKENS), sizeof *zeros);
    float quantile_levels[LEVELS];
    others_t o;

    for (int i = 0; i < LEVELS; i++)
        quantile_levels[i] = 0.1f * (float)(i + 1);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        bench_randomise(all[i]);
    bench_need(backend_write(bench_gpu, &levels, quantile_levels));
    bench_need(backend_write(bench_gpu, &prefill_index, zeros));
    bench_need(backend_write(bench_gpu, &decode_index, zeros));
    bench_need(backend_step_set(bench_gpu, &step, STEPS - 1));
    free(zeros);

    o.attention = (backend_attention_t){.mode = BACKEND_ATTENTION_PREFILL,
                                        .qkv = prefill_qkv,
                                        .out = mixed,
                                        .rows = series,
                                        .tokens = TOKENS,
                                        .samples = 1,
                                        .variates = 1,
                                        .heads = HEADS,
                                        .head_dim = HEAD_DIM,
                                        .scale = 0.125f,
                                        .rope = {&table, &prefill_index, true},
                                        .kv = &kv,
                                        .step = &step};
    bench_report("attention prefill", series * TOKENS, bench_measure(enqueue_attention, &o, BENCH_NODES),
                 (double)(series * TOKENS * WIDTH) * 2 * (3 + 2 + 1), 0);
    o.attention.mode = BACKEND_ATTENTION_DECODE;
    o.attention.qkv = qkv;
    o.attention.rows = rows;
    o.attention.tokens = 1;
    o.attention.samples = samples;
    o.attention.rope.index = &decode_index;
    bench_report("attention decode", rows, bench_measure(enqueue_attention, &o, BENCH_NODES),
                 (double)(rows * WIDTH) * 2 * (3 + 2 + 1 + 2 * (STEPS - 1)), 0);

    o.extend = (backend_causal_scale_extend_t){.x = paths,
                                               .x_stride = stride,
                                               .rows = rows,
                                               .samples = samples,
                                               .variates = 1,
                                               .patch = PATCH,
                                               .minimum = 0.1,
                                               .state_in = state_in,
                                               .state = state,
                                               .y = scaled,
                                               .loc = loc,
                                               .scale = scale,
                                               .step = &step};
    bench_report("causal scale extend", rows, bench_measure(enqueue_extend, &o, BENCH_NODES), (double)(rows * (2 * PATCH + 20)) * 4,
                 0);

    o.student_t = (backend_student_t_t){.head = head,
                                        .rows = rows,
                                        .patch = PATCH,
                                        .components = COMPONENTS,
                                        .samples = samples,
                                        .draws = 1,
                                        .variates = 1,
                                        .out_loc = loc,
                                        .out_scale = scale,
                                        .out_stride = 1,
                                        .keys = &keys,
                                        .step = &step,
                                        .paths = paths,
                                        .path_stride = stride};
    bench_report("student_t, a draw a row", rows, bench_measure(enqueue_student_t, &o, FEW_NODES),
                 (double)(rows * PATCH) * 4 * (4 * COMPONENTS + 1), 0);
    o.student_t.rows = series;
    o.student_t.samples = 1;
    o.student_t.draws = samples;
    bench_report("student_t, branching", rows, bench_measure(enqueue_student_t, &o, FEW_NODES), (double)(rows * PATCH) * 4, 0);

    o.exact = (backend_student_t_quantiles_t){.head = head,
                                              .rows = series,
                                              .patch = PATCH,
                                              .components = COMPONENTS,
                                              .horizon = PATCH,
                                              .variates = 1,
                                              .out_loc = loc,
                                              .out_scale = scale,
                                              .out_stride = 1,
                                              .levels = levels,
                                              .quantiles = quantiles};
    bench_report("student_t, 9 exact quantiles", series, bench_measure(enqueue_exact, &o, FEW_NODES),
                 (double)(series * PATCH) * 4 * (4 * COMPONENTS + LEVELS), 0);

    o.summarize = (backend_summarize_t){.paths = paths,
                                        .path_stride = stride,
                                        .series = series,
                                        .samples = samples,
                                        .variates = 1,
                                        .horizon = stride,
                                        .mean = mean,
                                        .levels = &levels,
                                        .quantiles = &quantiles};
    bench_report("summarize, 384 values", rows, bench_measure(enqueue_summarize, &o, FEW_NODES), (double)(rows * stride) * 4, 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        backend_free(bench_gpu, all[i]);
}

/* bench_gpu_ops [ROWS...]: products of so many rows; without arguments all sizes, and the other ops. */
int main(int argc, char **argv)
{
    static const int64_t rows[] = {1, 8, 16, 32, 64, 128, 256, 512, 4096, 16384};
    static const int64_t series[] = {1, 64, 512};

    if (backend_device_count(BACKEND_CUDA) == 0) {
        printf("skipped: no CUDA device\n");
        return 77;
    }
    bench_need(backend_open(&(backend_options_t){.kind = BACKEND_CUDA}, &bench_gpu));
    printf("%s\n", backend_name(bench_gpu));
    for (size_t p = 0; p < sizeof products / sizeof *products; p++)
        for (int i = 1; i < argc; i++)
            bench_linear(&products[p], atoll(argv[i]));
    for (size_t p = 0; argc == 1 && p < sizeof products / sizeof *products; p++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            bench_linear(&products[p], rows[r]);
    for (size_t s = 0; argc == 1 && s < sizeof series / sizeof *series; s++)
        bench_others(series[s], 256);
    backend_close(bench_gpu);
    return 0;
}
