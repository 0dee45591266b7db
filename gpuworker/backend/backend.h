/* The op vocabulary: everything a model may ask of a device, implemented by each backend (cpu, the numerical reference; cuda).
 *
 * A model file is written once against this header and never sees a backend. Ops are coarse and fused; each call validates its descriptor
 * once (backend.c) and enqueues work on the backend's one stream, in order. On the CPU backend the work is done when the call returns.
 *
 * Rules that make a forecast one graph launch:
 *   - No op allocates, synchronises or reads device memory on the host. All buffers come from backend_alloc, when a session opens.
 *   - Nothing an op depends on lives on the host: a decode step reads its own number from a device int32 (`step`), which
 *     backend_step_set / backend_step_advance change on the stream; so the same sequence of calls can be captured once and replayed, or
 *     become the body of a device-side loop.
 *   - Weights are uploaded once; a backend may keep what layout it likes behind backend_weight_t.
 *
 * Shapes. Hidden states are [rows][tokens][width], rows = series * samples * variates with the variate fastest; before the paths of a series
 * diverge (the prefill) samples is 1. Everything is row-major and dense unless a stride is named.
 * dtypes. Residual stream, scaling, statistics, norms, softmax, sampling and outputs are F32 (statistics accumulate in F64) whatever the
 * weights; weights, packed qkv and MLP hidden states are F32 or, in the bf16 precision, BF16 with F32 accumulation.
 *
 * Errors: 0 or a BACKEND_ERR_*, text in error_text(). A backend belongs to one thread. */
#ifndef BARCAST_GPUWORKER_BACKEND_BACKEND_H
#define BARCAST_GPUWORKER_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BACKEND_OK = 0,
    BACKEND_ERR_INVALID = -1,     /* a descriptor: shape, dtype, NULL */
    BACKEND_ERR_MEMORY = -2,      /* error_text(): what was asked for, what was free */
    BACKEND_ERR_DEVICE = -3,      /* no such device, or the device failed; after this one nothing else works (sticky) */
    BACKEND_ERR_UNSUPPORTED = -4, /* this backend has no such thing (graphs on the CPU, bf16 on the CPU) */
};

typedef struct backend backend_t;

typedef enum { BACKEND_CPU, BACKEND_CUDA } backend_kind_t;
typedef enum { BACKEND_F32, BACKEND_BF16, BACKEND_F64, BACKEND_I32, BACKEND_I64, BACKEND_U64, BACKEND_U8 } backend_dtype_t;

enum { BACKEND_RANK_MOST = 5 };

/* A buffer in device memory, or a view of one (same struct, not owned). */
typedef struct {
    void *data;
    backend_dtype_t dtype;
    int rank;
    int64_t dim[BACKEND_RANK_MOST];
} backend_tensor_t;

size_t backend_dtype_bytes(backend_dtype_t dtype);
int64_t backend_tensor_elements(const backend_tensor_t *tensor);

/* ---- device, memory, graphs -------------------------------------------------------------------------------------------------- */

typedef struct {
    backend_kind_t kind;
    int device;  /* CUDA: index */
    int threads; /* CPU: at most that many */
} backend_options_t;

int backend_open(const backend_options_t *options, backend_t **out);
void backend_close(backend_t *backend);
bool backend_built(backend_kind_t kind);            /* compiled in */
int backend_device_count(backend_kind_t kind);      /* usable devices of that kind; the CPU counts 1 */
const char *backend_name(const backend_t *backend); /* "cpu (2 threads)", "cuda:0 NVIDIA H200" */
backend_kind_t backend_kind(const backend_t *backend);
bool backend_has_bf16(const backend_t *backend);
int backend_memory(const backend_t *backend, size_t *free_bytes, size_t *total_bytes);

/* Device buffer, not initialised. `label` names it in errors. backend_free allows a zeroed struct. */
int backend_alloc(backend_t *backend, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim,
                  backend_tensor_t *out);
void backend_free(backend_t *backend, backend_tensor_t *tensor);
size_t backend_allocated_bytes(const backend_t *backend);
uint64_t backend_allocation_count(const backend_t *backend); /* ever made: must not move after READY */

/* Host memory that the device reaches fast (pinned), for staging. Zero-filled. */
int backend_host_alloc(backend_t *backend, size_t bytes, void **out);
void backend_host_free(backend_t *backend, void *memory);

/* Synchronous copies for set-up and tests: whole tensor. */
int backend_write(backend_t *backend, const backend_tensor_t *to, const void *from);
int backend_read(backend_t *backend, const backend_tensor_t *from, void *to);

/* Enqueued copies between staging memory and the device: whole tensor. `from` may be device memory too. */
int backend_copy_in(backend_t *backend, const backend_tensor_t *to, const void *from);
int backend_copy_out(backend_t *backend, const backend_tensor_t *from, void *to);

int backend_synchronize(backend_t *backend);

/* The device's own time for what is enqueued between start and stop; read waits for the stop. Wall time on the CPU. One timer a backend;
 * out of this order: BACKEND_ERR_INVALID. */
int backend_timer_start(backend_t *backend);
int backend_timer_stop(backend_t *backend);
int backend_timer_read(backend_t *backend, int64_t *ns);

/* What this machine reaches: the ceilings that a forecast's time is compared with. */
typedef struct {
    double copy_bytes_per_s; /* bytes read plus bytes written, of a copy far larger than the caches */
    double f32_flops;        /* of a large product by backend_linear, a multiply-add counting 2, per second */
    double bf16_flops;       /* 0: this backend has no bf16 */
} backend_rates_t;

/* Medians of a few runs on random data, after a warm-up, in memory of its own that it frees again. Below a second. */
int backend_measure(backend_t *backend, backend_rates_t *out);

/* Capture of everything enqueued between begin and end as one graph; launch enqueues it. */
typedef struct backend_graph backend_graph_t;
bool backend_has_graphs(const backend_t *backend);
int backend_graph_begin(backend_t *backend);
int backend_graph_end(backend_t *backend, backend_graph_t **out);
int backend_graph_launch(backend_t *backend, backend_graph_t *graph);
void backend_graph_free(backend_t *backend, backend_graph_t *graph);

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

/* A matrix [out][in] or a vector [n] on the device, F32 or BF16. `host` is row-major F32 and may be freed afterwards. */
typedef struct {
    backend_tensor_t tensor;
} backend_weight_t;

int backend_weight_upload(backend_t *backend, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim,
                          const float *host, backend_weight_t *out);
void backend_weight_free(backend_t *backend, backend_weight_t *weight);

/* ---- step counter ------------------------------------------------------------------------------------------------------------- */

int backend_step_set(backend_t *backend, const backend_tensor_t *step, int32_t value); /* step: I32 [1] */
int backend_step_advance(backend_t *backend, const backend_tensor_t *step);            /* step += 1 */

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

/* ---- causal patch scaler (Toto 1) ---------------------------------------------------------------------------------------------- */

/* Running statistics of a row, F64: count, sum, M2 (Welford), global scale's lower and upper clamp. */
enum { BACKEND_SCALER_STATE = 5 };

/* Of every patch the mean and scale of all observed values up to its end: sqrt(M2 / max(n - 1, 1) + minimum), clamped to the context's
 * global scale (population variance, + minimum under the root) · 10^±exponent and from below to `minimum`; no clamp when
 * exponent <= 0. y = (x - loc) / scale for all values, masked ones too.
 * Source: CausalPatchStdMeanScaler of Datadog's Toto 1.0. */
typedef struct {
    backend_tensor_t x;    /* F32 [rows][patches · patch], masked values hold 0 */
    backend_tensor_t mask; /* U8 like x: 1 observed */
    int64_t rows, patches, patch;
    double minimum, exponent;
    backend_tensor_t y;     /* F32 like x */
    backend_tensor_t loc;   /* F32 [rows][patches] */
    backend_tensor_t scale; /* F32 [rows][patches] */
    backend_tensor_t state; /* F64 [rows][BACKEND_SCALER_STATE], after the last patch */
} backend_causal_scale_t;

int backend_causal_scale(backend_t *backend, const backend_causal_scale_t *op);

/* The same continued by one generated patch (all observed): x of row r at x + r · x_stride + *step · patch. The state read is state_in
 * [series · variates] at *step 0 (the paths branch there) and state [rows] afterwards, which is written always; may not alias. */
typedef struct {
    backend_tensor_t x; /* F32 */
    int64_t x_stride;
    int64_t rows, samples, variates, patch;
    double minimum;
    backend_tensor_t state_in; /* F64 [series · variates][BACKEND_SCALER_STATE] */
    backend_tensor_t state;    /* F64 [rows][BACKEND_SCALER_STATE] */
    backend_tensor_t y;        /* F32 [rows][patch] */
    backend_tensor_t loc;      /* F32 [rows] */
    backend_tensor_t scale;    /* F32 [rows] */
    const backend_tensor_t *step;
} backend_causal_scale_extend_t;

int backend_causal_scale_extend(backend_t *backend, const backend_causal_scale_extend_t *op);

/* ---- mixture of Student-t heads ------------------------------------------------------------------------------------------------- */

/* head [rows · patch][4][K] F32: raw df, loc, scale, logits. df = 2 + max(softplus, eps), scale = max(softplus, eps), eps = FLT_EPSILON,
 * weights = softmax(logits). With draws = 0 the value is the mixture's mean, Σ w·loc; otherwise each row gives `draws` random values. The value
 * v becomes v · out_scale[row] + out_loc[row]; where that is not finite, or its size is FLT_MAX / 2 or more, it becomes 0 (as the official
 * code's replace_extreme_values).
 * Output row = row · max(draws, 1) .. for samples: series-major, then draw, then variate: ((row / variates) · draws + draw) · variates +
 * row % variates; value p of it goes to paths + output row · path_stride + *step · patch + p.
 * Random numbers: one Philox block a value (philox.h), key = keys[series], counter = (*step·patch + p, path, variate,
 * PHILOX_STREAM_STUDENT_T), path = ((row / variates) mod samples) · max(draws, 1) + draw, words as philox_uniform: the first picks the
 * component (the first one whose running sum of weights, in order, exceeds it; else the last), the second and third, u and v, give
 * Bailey's polar form t = sqrt(df · expm1(-2 ln(u) / df)) cos(2πv). The value is loc + scale · t. All in F32. */
typedef struct {
    backend_tensor_t head;
    int64_t rows, patch, components;
    int64_t samples; /* paths a series that `rows` already hold: 1 at the prefill */
    int64_t draws;   /* paths to draw from each row: the session's samples at the prefill, then 1; 0: the mean */
    int64_t variates;
    backend_tensor_t out_loc, out_scale; /* F32; row r at [r · out_stride + out_offset] */
    int64_t out_stride, out_offset;
    const backend_tensor_t *keys; /* U64 [series]; not read for the mean */
    const backend_tensor_t *step;
    backend_tensor_t paths; /* F32 */
    int64_t path_stride;
    const backend_tensor_t
        *params; /* NULL, or F32 [4][rows · patch][K]: df, loc, scale after their transforms, logits raw (verification) */
} backend_student_t_t;

int backend_student_t(backend_t *backend, const backend_student_t_t *op);

/* paths[row of variate v >= variates - exogenous][*step·patch ..] = future[series][v - (variates - exogenous)][*step·patch ..]. */
typedef struct {
    backend_tensor_t paths; /* F32 [series · samples · variates], rows path_stride apart */
    int64_t path_stride;
    int64_t series, samples, variates, exogenous, patch;
    backend_tensor_t future; /* F32 [series][exogenous][future_stride] */
    int64_t future_stride;
    const backend_tensor_t *step;
} backend_override_t;

int backend_override(backend_t *backend, const backend_override_t *op);

/* ---- results --------------------------------------------------------------------------------------------------------------------- */

/* Over the samples of each series and variate: mean (accumulated in F64), and quantiles by linear interpolation between order statistics
 * (the definition of torch.quantile and numpy.quantile). paths [series][samples][variates], rows path_stride apart, first `horizon` values. */
typedef struct {
    backend_tensor_t paths;
    int64_t path_stride;
    int64_t series, samples, variates, horizon;
    backend_tensor_t mean;             /* F32 [series][variates][horizon] */
    const backend_tensor_t *levels;    /* F32 [quantiles], ascending; NULL: no quantiles */
    const backend_tensor_t *quantiles; /* F32 [series][variates][quantiles][horizon] */
} backend_summarize_t;

int backend_summarize(backend_t *backend, const backend_summarize_t *op);

/* The naive forecast: random walk with the trailing volatility of one-step changes. Prices (log = true) walk in log space without drift:
 * quantile = last · exp(z · sigma · sqrt(h)); other fields walk linearly: last + z · sigma · sqrt(h). mean = last, the last observed value.
 * sigma: root mean square of the (log) changes between neighbouring bars that are both observed; a price that is not positive counts
 * as unobserved. Nothing observed: 0. z: standard normal quantile of the level, given. Computed in F64. */
typedef struct {
    backend_tensor_t x;    /* F32 [rows][context] */
    backend_tensor_t mask; /* U8 like x */
    int64_t rows, context, horizon, levels;
    const backend_tensor_t *z;   /* F32 [levels] */
    const backend_tensor_t *log; /* U8 [rows] */
    backend_tensor_t mean;       /* F32 [rows][horizon] */
    backend_tensor_t quantiles;  /* F32 [rows][levels][horizon] */
} backend_random_walk_t;

int backend_random_walk(backend_t *backend, const backend_random_walk_t *op);

#endif
