/* What attention takes on the GPU in bf16, at the sizes of the families: a graph of many of the same, replayed. Not a test: test_attention_modes.c
 * verifies the same ops. GB/s counts what must be read and written once. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/gpu/bench.h"

typedef struct {
    const char *name;
    backend_attention_mode_t mode;
    int64_t series, samples, tokens, prefix, tail;
    int heads, head_dim;
    bool rope, visible;
} case_t;

static const case_t cases[] = {
    {"chronos2 encode", BACKEND_ATTENTION_ENCODE, 1, 1, 133, 0, 0, 12, 64, true, true},
    {"chronos2 encode", BACKEND_ATTENTION_ENCODE, 64, 1, 133, 0, 0, 12, 64, true, true},
    {"chronos2 encode", BACKEND_ATTENTION_ENCODE, 512, 1, 133, 0, 0, 12, 64, true, true},
    {"sundial prefill", BACKEND_ATTENTION_PREFILL, 1, 1, 180, 180, 0, 12, 64, true, false},
    {"sundial prefill", BACKEND_ATTENTION_PREFILL, 64, 1, 180, 180, 0, 12, 64, true, false},
    {"kronos prefill", BACKEND_ATTENTION_PREFILL, 1, 1, 256, 256, 24, 16, 52, true, false},
    {"kronos prefill", BACKEND_ATTENTION_PREFILL, 1, 1, 400, 400, 120, 8, 64, true, false},
    {"kronos prefill", BACKEND_ATTENTION_PREFILL, 1, 1, 400, 400, 120, 16, 52, true, false},
    {"kronos prefill", BACKEND_ATTENTION_PREFILL, 16, 1, 400, 400, 120, 16, 52, true, false},
    {"kronos extend", BACKEND_ATTENTION_EXTEND, 1, 10, 116, 393, 119, 8, 64, true, false},
    {"kronos extend", BACKEND_ATTENTION_EXTEND, 16, 1, 116, 393, 119, 16, 52, true, false},
    {"kronos dependency", BACKEND_ATTENTION_EXTEND, 1, 10, 116, 393, 119, 4, 208, false, false},
    {"toto1 prefill", BACKEND_ATTENTION_PREFILL, 512, 1, 8, 8, 5, 12, 64, true, false},
    {"toto2 prefill", BACKEND_ATTENTION_PREFILL, 1, 1, 16, 16, 3, 8, 64, true, false},
    {"toto2 prefill", BACKEND_ATTENTION_PREFILL, 512, 1, 16, 16, 3, 8, 64, true, false},
    {"toto2 extend", BACKEND_ATTENTION_EXTEND, 1, 1, 3, 16, 12, 8, 64, true, false},
    {"toto1 decode", BACKEND_ATTENTION_DECODE, 1, 256, 1, 8, 5, 12, 64, true, false},
    {"kronos decode", BACKEND_ATTENTION_DECODE, 1, 1, 1, 256, 24, 16, 52, true, false},
    {"kronos decode", BACKEND_ATTENTION_DECODE, 1, 10, 1, 400, 120, 8, 64, true, false},
    {"kronos decode", BACKEND_ATTENTION_DECODE, 16, 1, 1, 400, 120, 16, 52, true, false},
    {"kronos decode", BACKEND_ATTENTION_DECODE, 16, 10, 1, 400, 120, 16, 52, true, false},
    {"kronos query", BACKEND_ATTENTION_QUERY, 1, 10, 1, 400, 120, 4, 208, false, false},
    {"kronos query", BACKEND_ATTENTION_QUERY, 16, 10, 1, 400, 120, 4, 208, false, false},
};

static void enqueue(void *context, int number)
{
    (void)number;
    bench_need(backend_attention(bench_gpu, context));
}

static void bench(const case_t *c)
{
    int64_t rows = c->series * c->samples, width = c->heads * c->head_dim, prefix = c->prefix > 0 ? c->prefix : 1;
    int64_t tail = c->tail > 0 ? c->tail : 1, columns = c->tokens > tail ? c->tokens : tail;
    int64_t steps = c->mode == BACKEND_ATTENTION_EXTEND ? tail / c->tokens : 1;
    int64_t seen = c->prefix * c->series + (c->mode == BACKEND_ATTENTION_DECODE ? tail * rows : 0);
    backend_tensor_t qkv = bench_tensor(BACKEND_BF16, DIMS(rows, c->tokens, 3, width)),
                     out = bench_tensor(BACKEND_BF16, DIMS(rows, c->tokens, width));
    backend_kv_t kv = {bench_tensor(BACKEND_BF16, DIMS(c->series, c->heads, prefix, c->head_dim)),
                       bench_tensor(BACKEND_BF16, DIMS(c->series, c->heads, prefix, c->head_dim)),
                       bench_tensor(BACKEND_BF16, DIMS(rows, c->heads, tail, c->head_dim)),
                       bench_tensor(BACKEND_BF16, DIMS(rows, c->heads, tail, c->head_dim))};
    backend_tensor_t table = bench_tensor(BACKEND_F32, DIMS(1024, 4, c->head_dim)), step = bench_tensor(BACKEND_I32, DIMS(1));
    backend_tensor_t visible = bench_tensor(BACKEND_U8, DIMS(c->series, c->tokens));
    backend_tensor_t index = c->mode == BACKEND_ATTENTION_EXTEND ? bench_tensor(BACKEND_I32, DIMS(c->series, steps, c->tokens))
                                                                 : bench_tensor(BACKEND_I32, DIMS(c->series, columns));
    backend_tensor_t *all[] = {&qkv, &out, &kv.prefix_k, &kv.prefix_v, &kv.tail_k, &kv.tail_v, &table, &step, &visible, &index};
    int32_t *places = calloc((size_t)(c->series * columns * steps), sizeof *places);
    uint8_t *ones = malloc((size_t)(c->series * c->tokens));
    backend_attention_t op = {.mode = c->mode,
                              .qkv = qkv,
                              .out = out,
                              .rows = rows,
                              .tokens = c->tokens,
                              .samples = c->samples,
                              .variates = 1,
                              .heads = c->heads,
                              .head_dim = c->head_dim,
                              .scale = 0.125f,
                              .rope = {c->rope ? &table : NULL, &index, false},
                              .kv = c->mode == BACKEND_ATTENTION_ENCODE ? NULL : &kv,
                              .visible = c->visible ? &visible : NULL,
                              .step = &step,
                              .step_tokens = c->tokens};

    bench_randomise(&qkv);
    bench_randomise(&kv.prefix_k);
    bench_randomise(&kv.prefix_v);
    bench_randomise(&kv.tail_k);
    bench_randomise(&kv.tail_v);
    bench_randomise(&table);
    for (int64_t i = 0; i < c->series * columns * steps; i++)
        places[i] = (int32_t)(i % columns);
    for (int64_t i = 0; i < c->series * c->tokens; i++)
        ones[i] = 1;
    bench_need(backend_write(bench_gpu, &index, places));
    bench_need(backend_write(bench_gpu, &visible, ones));
    bench_need(backend_step_set(bench_gpu, &step, c->mode == BACKEND_ATTENTION_EXTEND ? 0 : (int32_t)tail / 2));
    bench_report(c->name, rows * c->tokens, bench_measure(enqueue, &op, BENCH_NODES),
                 2.0 * (double)(rows * c->tokens * width * 4) + 2.0 * (double)(seen * width * 2), 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        backend_free(bench_gpu, all[i]);
    free(places);
    free(ones);
}

int main(void)
{
    if (backend_device_count(BACKEND_CUDA) == 0) {
        printf("skipped: no CUDA device\n");
        return 77;
    }
    bench_need(backend_open(&(backend_options_t){.kind = BACKEND_CUDA}, &bench_gpu));
    printf("%s\n", backend_name(bench_gpu));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        bench(&cases[i]);
    backend_close(bench_gpu);
    return 0;
}
