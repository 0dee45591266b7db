/* The launchers of the CUDA backend, one a kernel file: what the dispatch (cuda.c, linear.c) may call.
 *
 * A launcher enqueues its kernel on `stream`, allocates nothing, synchronises nothing, and returns BACKEND_OK,
 * BACKEND_ERR_UNSUPPORTED when the shape is past the kernel's limits, or BACKEND_ERR_DEVICE when the launch failed; error_text()
 * names the op. Descriptors are those of backend.h, already validated by the front; every pointer in them is device memory.
 * Kernels are deterministic: equal inputs give equal bytes. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_KERNELS_H
#define BARCAST_GPUWORKER_BACKEND_CUDA_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "gpuworker/backend/backend.h"

/* BACKEND_OK, or the CUDA error as BACKEND_ERR_MEMORY (allocation) or BACKEND_ERR_DEVICE with the name of what was tried. */
int cuda_check(const char *name, cudaError_t error);

int cuda_step_set_launch(int32_t *step, int32_t value, cudaStream_t stream);
int cuda_step_advance_launch(int32_t *step, cudaStream_t stream);

/* Copies between device memory and pinned host memory by a kernel: for the small ones a copy node of a graph costs more than the
 * bytes. Both pointers as the device sees them. */
int cuda_copy_launch(void *to, const void *from, size_t bytes, cudaStream_t stream);

enum { CUDA_PARTS_MOST = 4 };

/* What x still lacks of a product in parts: x + bias + the parts, in this order, is taken for x, and stored at y. */
typedef struct {
    int count;          /* CUDA_PARTS_MOST at most; 0: nothing */
    const float *parts; /* [count][rows][width] */
    const float *bias;  /* [width]; NULL: none */
    float *y;           /* rows as far apart as those of x; may be x */
} cuda_lacking_t;

/* y = modulated(norm(x)), dense, F32 or BF16: the prologue of a product of many rows, and the conversion when norm.kind is NONE. */
typedef struct {
    const void *x;
    backend_dtype_t x_dtype;
    int64_t rows, width, x_stride;
    backend_norm_kind_t kind;
    const float *scale, *shift; /* NULL: 1, 0 */
    float eps;
    const float *modulation_scale, *modulation_shift; /* of row r at r / rows_each · modulation_stride; NULL together: neither */
    int64_t rows_each, modulation_stride;
    void *y; /* NULL: only what x lacks is wanted */
    backend_dtype_t y_dtype;
    cuda_lacking_t lacking;
} cuda_norm_t;

bool cuda_norm_adds(const cuda_norm_t *op); /* may its x lack anything? */
int cuda_norm_launch(const cuda_norm_t *op, cudaStream_t stream);

/* y = residual + offset + gate · act(product): the epilogue that cuBLASLt does not have. product [rows][width], F32 or BF16; y [rows][width, or
 * width / 2 for SWIGLU], residual and offset like it, rows y_stride apart. */
typedef struct {
    const void *product;
    backend_dtype_t product_dtype;
    int64_t rows, width, y_stride;
    backend_activation_t activation;
    const float *residual, *offset, *gate; /* NULL: none, none, 1 */
    int64_t rows_each, gate_stride;        /* the gate of row r at r / rows_each · gate_stride */
    void *y;
    backend_dtype_t y_dtype;
} cuda_activation_t;

int cuda_activation_launch(const cuda_activation_t *op, cudaStream_t stream);

/* The whole of backend_linear in one kernel that streams the weights once, for few rows and BF16 weights. */
bool cuda_linear_few_fits(const backend_linear_t *op);
int cuda_linear_few_launch(const backend_linear_t *op, cudaStream_t stream);

int cuda_attention_launch(const backend_attention_t *op, cudaStream_t stream);
int cuda_group_attention_launch(const backend_group_attention_t *op, cudaStream_t stream);
int cuda_causal_scale_launch(const backend_causal_scale_t *op, cudaStream_t stream);
int cuda_causal_scale_extend_launch(const backend_causal_scale_extend_t *op, cudaStream_t stream);
int cuda_causal_patch_launch(const backend_causal_patch_t *op, cudaStream_t stream);
int cuda_student_t_launch(const backend_student_t_t *op, cudaStream_t stream);
int cuda_student_t_quantiles_launch(const backend_student_t_quantiles_t *op, cudaStream_t stream);
int cuda_override_launch(const backend_override_t *op, cudaStream_t stream);
int cuda_summarize_launch(const backend_summarize_t *op, cudaStream_t stream);
int cuda_random_walk_launch(const backend_random_walk_t *op, cudaStream_t stream);
int cuda_flow_start_launch(const backend_flow_start_t *op, cudaStream_t stream);
int cuda_flow_finish_launch(const backend_flow_finish_t *op, cudaStream_t stream);
int cuda_sign_tokens_launch(const backend_sign_tokens_t *op, cudaStream_t stream);
int cuda_draw_token_launch(const backend_draw_token_t *op, cudaStream_t stream);
int cuda_transpose_launch(const backend_transpose_t *op, cudaStream_t stream);
int cuda_embed_launch(const backend_embed_t *op, cudaStream_t stream);
int cuda_instance_scale_launch(const backend_instance_scale_t *op, cudaStream_t stream);
int cuda_patch_launch(const backend_patch_t *op, cudaStream_t stream);
int cuda_quantile_head_launch(const backend_quantile_head_t *op, cudaStream_t stream);
int cuda_unroll_launch(const backend_unroll_t *op, cudaStream_t stream);
int cuda_weighted_quantiles_launch(const backend_weighted_quantiles_t *op, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
