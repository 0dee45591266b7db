/* The CPU backend: the numerical reference, F32 only. Matrix products are OpenBLAS's, the rest is plain C that compilers vectorise. The ops
 * run in the calling thread (OpenBLAS spreads its products over `threads`) and are done when they return. */
#ifndef BARCAST_GPUWORKER_BACKEND_CPU_CPU_H
#define BARCAST_GPUWORKER_BACKEND_CPU_CPU_H

#include "gpuworker/backend/backend_impl.h"

enum { CPU_SCRATCH_FLOATS = 1 << 21 };

typedef struct {
    backend_t base;
    float *scratch; /* CPU_SCRATCH_FLOATS, any op's until it returns */
    int64_t timer_start_ns, timer_stop_ns;
} backend_cpu_t;

static inline float *cpu_scratch(backend_t *backend)
{
    return ((backend_cpu_t *)backend)->scratch;
}

/* The scratch must hold `floats`, or the op is refused by name. */
int cpu_scratch_check(const char *op, int64_t floats);

/* One head's query or key in place: RMS norm over head_dim. In attention.c. */
void cpu_head_norm(float *x, int head_dim, const backend_head_norm_t *norm, bool key);

int cpu_linear(backend_t *backend, const backend_linear_t *op);
int cpu_embed(backend_t *backend, const backend_embed_t *op);
int cpu_attention(backend_t *backend, const backend_attention_t *op);
int cpu_group_attention(backend_t *backend, const backend_group_attention_t *op);
int cpu_causal_scale(backend_t *backend, const backend_causal_scale_t *op);
int cpu_causal_scale_extend(backend_t *backend, const backend_causal_scale_extend_t *op);
int cpu_causal_patch(backend_t *backend, const backend_causal_patch_t *op);
int cpu_student_t(backend_t *backend, const backend_student_t_t *op);
int cpu_student_t_quantiles(backend_t *backend, const backend_student_t_quantiles_t *op);
int cpu_override(backend_t *backend, const backend_override_t *op);
int cpu_sign_tokens(backend_t *backend, const backend_sign_tokens_t *op);
int cpu_draw_token(backend_t *backend, const backend_draw_token_t *op);
int cpu_flow_start(backend_t *backend, const backend_flow_start_t *op);
int cpu_flow_finish(backend_t *backend, const backend_flow_finish_t *op);
int cpu_transpose(backend_t *backend, const backend_transpose_t *op);
int cpu_summarize(backend_t *backend, const backend_summarize_t *op);
int cpu_random_walk(backend_t *backend, const backend_random_walk_t *op);
int cpu_instance_scale(backend_t *backend, const backend_instance_scale_t *op);
int cpu_patch(backend_t *backend, const backend_patch_t *op);
int cpu_quantile_head(backend_t *backend, const backend_quantile_head_t *op);
int cpu_unroll(backend_t *backend, const backend_unroll_t *op);
int cpu_weighted_quantiles(backend_t *backend, const backend_weighted_quantiles_t *op);

#endif
