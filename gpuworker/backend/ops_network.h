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
    BACKEND_ACT_RELU,
    BACKEND_ACT_SWIGLU /* y[n/2] = silu(first half) · second half of the row: out has half as many columns as W has rows */
} backend_activation_t;

/* Adaptive layer norm: what a condition does to a layer's rows. Vectors of row r lie at their tensor + (r / rows_each) · stride elements. */
typedef struct {
    const backend_tensor_t *shift, *scale; /* F32 [in]: norm(x) becomes norm(x) · (1 + scale) + shift. NULL together: neither */
    const backend_tensor_t *gate;          /* F32 [columns of y]: act(..) is multiplied by it before the residual. NULL: 1 */
    int64_t rows_each;                     /* neighbouring rows that share a condition */
    int64_t stride;                        /* from a condition's vector to the next condition's */
} backend_modulation_t;

/* y = residual + offset + gate · act(modulated(norm(x)) · Wᵀ + bias)
 * x [rows][in] F32 or BF16, row r at x + r · x_stride elements (0: in), so that one token of each sequence can be picked; W [out][in];
 * bias [out] F32; y [rows][out or out/2], row r at y + r · y_stride (0: dense), so that a part of wider rows can be written; residual
 * and offset like y, the residual may be y itself. */
typedef struct {
    backend_tensor_t x;
    int64_t rows;
    int64_t x_stride;
    backend_norm_t norm;                    /* of each row of x, before the product */
    const backend_modulation_t *modulation; /* NULL: none */
    const backend_weight_t *weight;
    const backend_weight_t *bias; /* NULL: none */
    backend_activation_t activation;
    const backend_tensor_t *residual; /* NULL: none; F32 */
    const backend_tensor_t *offset;   /* NULL: none; F32: what a state moves by at every step whatever the network says */
    backend_tensor_t y;
    int64_t y_stride;
} backend_linear_t;

int backend_linear(backend_t *backend, const backend_linear_t *op);

/* ---- attention ---------------------------------------------------------------------------------------------------------------- */

/* Rotary embedding as tables, so that each family's variant (xPos, partial, scaled) is data. Element j of a head becomes
 * x[j] · cos[j] + x'[j] · sin[j], where x' is the pair's partner with the sign of a rotation: (-x[j+1], x[j-1]) interleaved, or
 * (-x[j + d/2], x[j - d/2]) half-split. Table row: q_cos, q_sin, k_cos, k_sin, each [rotary_dim]; dims past rotary_dim are left alone.
 * Token t has the table row of column t; in DECODE that of column *step, in EXTEND of column t of *step. */
typedef struct {
    const backend_tensor_t *table; /* F32 [positions][4][rotary_dim]; NULL: no rotation */
    const backend_tensor_t *index; /* I32 [prefix rows][columns], EXTEND: [prefix rows][steps][columns]: the table row of a token */
    bool interleaved;
} backend_rope_t;

/* A static KV cache of one layer in two parts: the prefix, written once a series and variate, which all samples of the series share, and
 * the tail, which each row appends to. Position is all there is to a reset.
 *   prefix k, v  [series · variates][heads][prefix_tokens][head_dim]        tail k, v  [rows][heads][tail_tokens][head_dim] */
typedef struct {
    backend_tensor_t prefix_k, prefix_v;
    backend_tensor_t tail_k, tail_v; /* rank 0: the session never decodes */
} backend_kv_t;

/* Of the T tokens given, which are stored, and what their queries see. Causal: a token sees those before it and itself. */
typedef enum {
    BACKEND_ATTENTION_PREFILL, /* their k and v become the prefix; causal */
    BACKEND_ATTENTION_DECODE,  /* one token a row: stored at tail position *step; sees the prefix and tail[0..*step] */
    BACKEND_ATTENTION_EXTEND, /* stored from tail position *step · step_tokens on; sees the prefix, the tail before, and causally its own */
    BACKEND_ATTENTION_ENCODE, /* nothing stored, kv NULL; every token sees all T, bias added */
    BACKEND_ATTENTION_STORE,  /* k and v become the prefix; no queries: q and out are not touched */
    BACKEND_ATTENTION_APPEND, /* stored as by EXTEND; no queries: q and out are not touched */
    BACKEND_ATTENTION_QUERY   /* only q is read, never rotated; sees the prefix and, when step is given, tail[0..*step] */
} backend_attention_mode_t;

/* RMS norm of each head of q and k over head_dim, before the rotation: x / sqrt(mean(x²) + eps) · weight. */
typedef struct {
    const backend_weight_t *q, *k; /* F32 [head_dim]; NULL: 1 */
    float eps;
} backend_head_norm_t;

/* qkv [rows][T][3][heads][head_dim] -> out [rows][T][heads][head_dim]; scale multiplies q·k. Sequence `row` reads prefix row
 * (row / (samples · variates)) · variates + row % variates; before the samples diverge (PREFILL, ENCODE, STORE) samples is 1.
 * Prefix keys before first[prefix row] are invisible (leading padding); a query before it gives zeros. With `visible`, a prefix key of
 * value 0 is seen only by queries of the same T tokens whose value is 0 too, one of value 1 only by those of value 1 and by all queries from
 * outside the prefix; what is not seen has weight 0, and a query that sees nothing gives zeros. */
typedef struct {
    backend_attention_mode_t mode;
    backend_tensor_t qkv;
    backend_tensor_t out;
    int64_t rows, tokens, samples, variates;
    int heads, head_dim;
    float scale;
    const backend_head_norm_t *norm; /* NULL: none */
    backend_rope_t rope;
    backend_kv_t *kv;
    const backend_tensor_t *first;   /* I32 [series · variates]; NULL: all 0 */
    const backend_tensor_t *visible; /* U8 [series · variates][tokens of the prefix, or of ENCODE]; NULL: all 1 */
    const backend_tensor_t
        *bias; /* ENCODE: F32 [heads][2 · T - 1], added to the scaled q·k: of key j and query i at j - i + T - 1; NULL: none */
    const backend_tensor_t *step; /* DECODE, EXTEND, APPEND; QUERY: NULL when there is no tail yet */
    int64_t step_tokens;          /* EXTEND, APPEND */
} backend_attention_t;

int backend_attention(backend_t *backend, const backend_attention_t *op);

/* Attention across the variates of one series at one token, among those of equal group id; not causal, no positions. With `visible`, a token
 * of value 0 is seen by none and gives zeros.
 * qkv [series · samples][variates][T][3][heads][head_dim] -> out [..][variates][T][heads][head_dim]. */
typedef struct {
    backend_tensor_t qkv;
    backend_tensor_t out;
    int64_t sets; /* series · samples */
    int64_t samples, variates, tokens;
    int heads, head_dim;
    float scale;
    const backend_head_norm_t *norm; /* NULL: none */
    const backend_tensor_t *group;   /* I32 [series][variates][group_tokens] */
    int64_t group_tokens;            /* at least T: token t has the t-th of them; 1: one for all */
    const backend_tensor_t *visible; /* U8 [sets][variates][T]; NULL: all 1 */
} backend_group_attention_t;

int backend_group_attention(backend_t *backend, const backend_group_attention_t *op);

/* ---- embedding ------------------------------------------------------------------------------------------------------------------ */

enum { BACKEND_EMBED_TABLES_MOST = 8 };

/* y[row] = act(bias + sum over tables of table[index]): token embeddings, calendars, sums of what is constant. Row r reads the index at
 * indices + (r / tokens) · index_stride + table · table_stride + (r mod tokens) + *step; an index outside its table counts as row 0. */
typedef struct {
    backend_tensor_t table[BACKEND_EMBED_TABLES_MOST]; /* F32 or BF16 [entries][width] */
    int count;
    backend_tensor_t indices;        /* I32 */
    int64_t index_stride;            /* from a sequence's indices to the next sequence's */
    int64_t table_stride;            /* from one table's indices to the next table's; 0: all tables read the same */
    const backend_weight_t *bias;    /* F32 [width]; NULL: none */
    backend_activation_t activation; /* NONE or SILU */
    int64_t rows, tokens, width;     /* rows = sequences · tokens */
    backend_tensor_t y;              /* F32 or BF16, row r at y + r · y_stride (0: dense) */
    int64_t y_stride;
    const backend_tensor_t *step; /* NULL: 0 */
} backend_embed_t;

int backend_embed(backend_t *backend, const backend_embed_t *op);

#endif
