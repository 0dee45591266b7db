/* Kronos's transformer blocks: x += Wo · attention(norm(x)), x += Wdown · swiglu(norm(x)); causal, half-split rotary positions. */
#include <math.h>
#include <stdio.h>

#include "gpuworker/model/kronos.h"

const float KRONOS_NORM_EPS = 1e-5f;
static const float ROPE_BASE = 10000;

static int attend(backend_t *backend, const kronos_stack_t *stack, const kronos_block_t *block, const backend_tensor_t *rope,
                  const kronos_work_t *work, const kronos_pass_t *pass, backend_kv_t *kv)
{
    int64_t head_dim = stack->width / stack->heads;

    TRY(backend_linear(backend, &(backend_linear_t){.x = work->hidden,
                                                    .rows = pass->rows * pass->tokens,
                                                    .norm = {BACKEND_NORM_RMS, &block->norm1, NULL, KRONOS_NORM_EPS},
                                                    .weight = &block->qkv,
                                                    .bias = &block->qkv_bias,
                                                    .y = work->qkv}));
    TRY(backend_attention(backend, &(backend_attention_t){.mode = pass->mode,
                                                          .qkv = work->qkv,
                                                          .out = work->mixed,
                                                          .rows = pass->rows,
                                                          .tokens = pass->tokens,
                                                          .samples = pass->samples,
                                                          .variates = 1,
                                                          .heads = (int)stack->heads,
                                                          .head_dim = (int)head_dim,
                                                          .scale = 1.0f / sqrtf((float)head_dim),
                                                          .rope = {.table = rope, .index = pass->index},
                                                          .kv = kv,
                                                          .first = pass->first,
                                                          .step = pass->step,
                                                          .step_tokens = pass->tokens}));
    TRY(backend_linear(backend, &(backend_linear_t){.x = work->mixed,
                                                    .rows = pass->rows * pass->tokens,
                                                    .weight = &block->out,
                                                    .bias = &block->out_bias,
                                                    .residual = &work->hidden,
                                                    .y = work->hidden}));
    return MODEL_OK;
}

static int feed_forward(backend_t *backend, const kronos_block_t *block, const kronos_work_t *work, const kronos_pass_t *pass)
{
    TRY(backend_linear(backend, &(backend_linear_t){.x = work->hidden,
                                                    .rows = pass->rows * pass->tokens,
                                                    .norm = {BACKEND_NORM_RMS, &block->norm2, NULL, KRONOS_NORM_EPS},
                                                    .weight = &block->gate_up,
                                                    .activation = BACKEND_ACT_SWIGLU,
                                                    .y = work->gated}));
    TRY(backend_linear(backend, &(backend_linear_t){.x = work->gated,
                                                    .rows = pass->rows * pass->tokens,
                                                    .weight = &block->down,
                                                    .residual = &work->hidden,
                                                    .y = work->hidden}));
    return MODEL_OK;
}

int kronos_stack_run(backend_t *backend, const kronos_stack_t *stack, const backend_tensor_t *rope, const kronos_work_t *work,
                     const kronos_pass_t *pass, const tap_t *tap)
{
    for (int64_t b = 0; b < stack->count; b++) {
        char name[48];
        int rc;

        if ((rc = attend(backend, stack, &stack->blocks[b], rope, work, pass, &pass->kv[b * pass->kv_stride])) < 0 ||
            (rc = feed_forward(backend, &stack->blocks[b], work, pass)) < 0)
            return rc;
        if (pass->tap_name == NULL)
            continue;
        snprintf(name, sizeof name, "%s_%d", pass->tap_name, (int)b);
        TRY(tap_show(tap, backend, name, pass->tap_step, &work->hidden, 0, 0, 3,
                     (int64_t[]){pass->rows, pass->tokens, stack->width}));
    }
    return MODEL_OK;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------------------- */

void kronos_work_take(buffers_t *buffers, const kronos_stack_t *stack, int64_t tokens, kronos_work_t *out)
{
    out->hidden = buffers_take(buffers, "hidden states", BACKEND_F32, DIMS(tokens, stack->width));
    out->qkv = buffers_take(buffers, "qkv", stack->precision, DIMS(tokens, 3, stack->width));
    out->mixed = buffers_take(buffers, "attention output", stack->precision, DIMS(tokens, stack->width));
    out->gated = buffers_take(buffers, "mlp hidden", stack->precision, DIMS(tokens, stack->hidden));
}

backend_kv_t kronos_cache_take(buffers_t *buffers, backend_dtype_t dtype, int64_t heads, int64_t head_dim, int64_t rows,
                               int64_t prefix, int64_t tail_rows, int64_t tail)
{
    backend_kv_t kv = {.prefix_k = buffers_take(buffers, "keys", dtype, DIMS(rows, heads, prefix, head_dim)),
                       .prefix_v = buffers_take(buffers, "values", dtype, DIMS(rows, heads, prefix, head_dim))};

    if (tail > 0) {
        kv.tail_k = buffers_take(buffers, "path keys", dtype, DIMS(tail_rows, heads, tail, head_dim));
        kv.tail_v = buffers_take(buffers, "path values", dtype, DIMS(tail_rows, heads, tail, head_dim));
    }
    return kv;
}

/* Position p turns the pair (j, j + d/2) by p · 10000^(-2j/d), the product rounded to a float as the official code's is. */
backend_tensor_t kronos_rope_take(buffers_t *buffers, const kronos_stack_t *stack, int64_t positions)
{
    int64_t head_dim = stack->width / stack->heads, half = head_dim / 2;
    backend_tensor_t rope = buffers_take(buffers, "rotary table", BACKEND_F32, DIMS(positions, 4, head_dim));
    float *table = buffers_table_new(buffers, &rope);

    for (int64_t i = 0; table != NULL && i < positions * head_dim; i++) {
        int64_t position = i / head_dim, j = i % head_dim;
        float frequency = 1.0f / powf(ROPE_BASE, (float)(2 * (j % half)) / (float)head_dim);
        float angle = (float)position * frequency, *row = table + position * 4 * head_dim + j;

        row[0] = row[2 * head_dim] = (float)cos((double)angle);
        row[head_dim] = row[3 * head_dim] = (float)sin((double)angle);
    }
    buffers_table_write(buffers, &rope, table);
    return rope;
}
