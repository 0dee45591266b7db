/* Ops of the networks themselves: linear layers, attention, embeddings. Rules: backend.h. */
#ifndef BARCAST_GPUWORKER_BACKEND_OPS_NETWORK_H
#define BARCAST_GPUWORKER_BACKEND_OPS_NETWORK_H

#include "gpuworker/backend/device.h"

/* ---- linear ------------------------------------------------------------------------------------------------------------------- */

typedef enum { BACKEND_NORM_NONE, BACKEND_NORM_RMS, BACKEND_NORM_LAYER } backend_norm_kind_t;

/* RMS: x / sqrt(mean(x²) + eps) · scale. LAYER: (x - mean) / sqrt(var + eps) · scale + shift. Over the last axis, in F32. */
typedef struct {
    backend_norm_kind_t kind;
    const backend_weight_t *scale; /* [width] F32; NULL: 1 */
    const backend_weight_t *shift; /* [width] F32; NULL: 0 */
    float eps;
} backend_norm_t;

typedef enum {
    BACKEND_ACT_NONE,
    BACKEND_ACT_SILU,
    BACKEND_ACT_SWIGLU /* y[n/2] = silu(first half) · second half of the row: out has half as many columns as W has rows */
} backend_activation_t;

/* y = residual + act(norm(x) · Wᵀ + bias)
 * x [rows][in] F32 or BF16, row r at x + r · x_stride elements (0: in), so that one token of each sequence can be picked; W [out][in];
 * bias [out] F32; y [rows][out or out/2]; residual like y, may be y itself. */
typedef struct {
    backend_tensor_t x;
    int64_t rows;
    int64_t x_stride;
    backend_norm_t norm; /* of each row of x, before the product */
    const backend_weight_t *weight;
    const backend_weight_t *bias; /* NULL: none */
    backend_activation_t activation;
    const backend_tensor_t *residual; /* NULL: none; F32 */
    backend_tensor_t y;
} backend_linear_t;

int backend_linear(backend_t *backend, const backend_linear_t *op);

/* ---- attention ---------------------------------------------------------------------------------------------------------------- */

/* Rotary embedding as tables, so that each family's variant (xPos, partial, scaled) is data. Element j of a head becomes
 * x[j] · cos[j] + x'[j] · sin[j], where x' is the pair's partner with the sign of a rotation: (-x[j+1], x[j-1]) interleaved, or
 * (-x[j + d/2], x[j - d/2]) half-split. Table row: q_cos, q_sin, k_cos, k_sin, each [rotary_dim]; dims past rotary_dim are left alone. */
typedef struct {
    const backend_tensor_t *table; /* F32 [positions][4][rotary_dim]; NULL: no rotation */
    const backend_tensor_t *index; /* I32 [prefix rows][columns]: the table row of token t, column t (prefill) or *step (decode) */
    bool interleaved;
} backend_rope_t;

/* A static KV cache of one layer in two parts: the prefix, written once a series and variate, which all samples of the series share, and
 * the tail, which each row appends to. Position is all there is to a reset.
 *   prefix k, v  [series · variates][heads][prefix_tokens][head_dim]        tail k, v  [rows][heads][tail_tokens][head_dim] */
typedef struct {
    backend_tensor_t prefix_k, prefix_v;
    backend_tensor_t tail_k, tail_v; /* rank 0: the session never decodes */
} backend_kv_t;

typedef enum {
    BACKEND_ATTENTION_PREFILL, /* causal over the T tokens given; their k and v become the prefix */
    BACKEND_ATTENTION_DECODE   /* one token a row: its k and v go to tail position *step; attends prefix and tail[0..*step] */
} backend_attention_mode_t;

/* qkv [rows][T][3][heads][head_dim] -> out [rows][T][heads][head_dim]; scale multiplies q·k. Sequence `row` reads prefix row
 * (row / (samples · variates)) · variates + row % variates. Keys before first[prefix row] are invisible (leading padding); a query before it
 * gives zeros. */
typedef struct {
    backend_attention_mode_t mode;
    backend_tensor_t qkv;
    backend_tensor_t out;
    int64_t rows, tokens, samples, variates;
    int heads, head_dim;
    float scale;
    backend_rope_t rope;
    backend_kv_t *kv;
    const backend_tensor_t *first; /* I32 [series · variates]; NULL: all 0 */
    const backend_tensor_t *step;  /* DECODE */
} backend_attention_t;

int backend_attention(backend_t *backend, const backend_attention_t *op);

/* Attention across the variates of one series at one token, among those of equal group id; not causal, no positions.
 * qkv [series · samples][variates][T][3][heads][head_dim] -> out [..][variates][T][heads][head_dim]; group I32 [series][variates]. */
typedef struct {
    backend_tensor_t qkv;
    backend_tensor_t out;
    int64_t sets; /* series · samples */
    int64_t samples, variates, tokens;
    int heads, head_dim;
    float scale;
    const backend_tensor_t *group;
} backend_group_attention_t;

int backend_group_attention(backend_t *backend, const backend_group_attention_t *op);

#endif
