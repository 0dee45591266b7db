/* The CUDA backend's own state, for its host files: cuda.c (device, memory, copies, graphs, the vtable), upload.c (weights),
 * timer.c, linear.c (which kernels a linear takes), product.c (matrix products by cuBLASLt).
 *
 * Everything is enqueued on one stream. Products of many rows need scratch memory and a chosen algorithm; both come into being
 * the first time that a shape is seen, which is the eager run that every session makes before it captures. While capturing
 * nothing is allocated or chosen: a shape that was not seen before is an error. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_CUDA_H
#define BARCAST_GPUWORKER_BACKEND_CUDA_CUDA_H

#include <cublasLt.h>

#include "gpuworker/backend/backend_impl.h"
#include "gpuworker/backend/cuda/kernels.h"

typedef struct cuda_product_plan cuda_product_plan_t;
typedef struct cuda_bias_shadow cuda_bias_shadow_t;
typedef struct cuda_retired cuda_retired_t;
typedef struct cuda_choices cuda_choices_t;

enum { CUDA_SCRATCH_X, CUDA_SCRATCH_PRODUCT, CUDA_SCRATCHES };
enum { CUDA_STAGES = 2 };

typedef struct {
    backend_t base;
    int device;
    cudaStream_t stream;
    bool capturing;
    cudaEvent_t timer_event[2]; /* timer.c: start and stop; NULL until the first start */

    /* linear.c: a scratch that became too small is retired, not freed, for graphs still point into it */
    struct {
        void *memory;
        size_t bytes;
    } scratch[CUDA_SCRATCHES];
    cuda_retired_t *retired;
    cuda_norm_t owed;            /* the sum that a product in parts still needs, where something is lacking: cuda_linear_settle() */
    cuda_bias_shadow_t *shadows; /* BF16 copies of biases: cuBLASLt wants a bias in the product's dtype */

    /* product.c */
    cublasLtHandle_t lt;
    void *workspace;
    cuda_product_plan_t *plans;
    cuda_choices_t *choices; /* NULL: no memory for them */

    /* upload.c: pinned, used in turn */
    struct {
        void *memory;
        cudaEvent_t sent;
    } stage[CUDA_STAGES];
} backend_cuda_t;

static inline backend_cuda_t *cuda_of(backend_t *backend)
{
    return (backend_cuda_t *)backend;
}

/* cudaMalloc whose error says what was asked for and what was free. */
int cuda_allocate(const char *label, size_t bytes, void **out);

/* timer.c */
int cuda_timer_start(backend_t *backend);
int cuda_timer_stop(backend_t *backend);
int cuda_timer_read(backend_t *backend, int64_t *ns);
void cuda_timer_close(backend_cuda_t *cuda);

/* upload.c */
int cuda_upload_open(backend_cuda_t *cuda);
void cuda_upload_close(backend_cuda_t *cuda);
int cuda_weight_write(backend_t *backend, const backend_weight_t *weight, const float *host);

/* linear.c. The sum of a product in parts is left to the next op, for it is part of a linear's norm where that is what comes next.
 * Whatever else the backend is asked for calls cuda_linear_settle() first, which enqueues the sum. */
int cuda_linear_settle(backend_cuda_t *cuda);
int cuda_linear(backend_t *backend, const backend_linear_t *op);
void cuda_linear_forget(backend_cuda_t *cuda, const void *memory); /* it is about to be freed */
void cuda_linear_close(backend_cuda_t *cuda);

/* y = residual + relu(x · Wᵀ + bias), without `relu` residual + x · Wᵀ + bias: x [rows][in], rows x_stride apart, of W's dtype; W [out][in];
 * bias [out] of y's dtype or NULL; y [rows][out], rows y_stride apart, BF16 only when W is; residual like y, F32 as then y is, or NULL,
 * which it is with `relu`. In several parts y is [parts][rows][out], the products of equal runs of columns of x and W, without bias,
 * residual and relu. */
typedef struct {
    const void *x, *weight, *bias, *residual;
    void *y;
    int64_t rows, in, out, x_stride, y_stride, parts;
    backend_dtype_t dtype, y_dtype; /* of x and W; of y */
    bool relu;
} cuda_product_t;

/* What distinguishes plans. Compared as bytes: no padding. */
typedef struct {
    int64_t rows, in, out, x_stride, y_stride, parts;
    int32_t dtype, y_dtype;
    int32_t epilogue, residual;                        /* a cublasLtEpilogue_t; 0 or 1 */
    int32_t align_w, align_x, align_residual, align_y; /* bytes, 256 at most */
} cuda_product_key_t;

_Static_assert(sizeof(cuda_product_key_t) == 6 * 8 + 8 * 4, "a key without padding");

int cuda_product_open(backend_cuda_t *cuda, const char *gpu); /* the GPU's name */
void cuda_product_close(backend_cuda_t *cuda);
int cuda_product(backend_cuda_t *cuda, const cuda_product_t *product);

/* choices.c: the algorithms of earlier processes. The functions take NULL, and none of them fails. */
cuda_choices_t *cuda_choices_open(const char *gpu, size_t workspace_bytes);
bool cuda_choices_find(const cuda_choices_t *choices, const cuda_product_key_t *key, cublasLtMatmulAlgo_t *algorithm);
void cuda_choices_keep(cuda_choices_t *choices, const cuda_product_key_t *key, const cublasLtMatmulAlgo_t *algorithm);
void cuda_choices_close(cuda_choices_t *choices);

#endif
