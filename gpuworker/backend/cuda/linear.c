/* Which kernels a linear takes: the streaming kernel for few rows; else the norm (or a conversion) into scratch, cuBLASLt with
 * bias, residual or relu in its epilogue, and a kernel of our own for what else there is to add to the product. A long product of few
 * tiles is computed in parts, whose sum is left to the norm that comes next. */
#include <stdlib.h>

#include "gpuworker/backend/cuda/cuda.h"

/* Products in parts. Measured on an H200 with 45 to 266 rows of 3072 columns to 768: three parts and their sum in the next norm take a
 * quarter less than the product with its residual. */
enum { PART_COLUMNS = 1024, TILE = 64, TILES_FEW = 66 };

struct cuda_retired {
    void *memory;
    cuda_retired_t *next;
};

struct cuda_bias_shadow {
    const void *bias;
    void *memory; /* BF16 */
    size_t bytes;
    cuda_bias_shadow_t *next;
};

static int no_allocation(const char *what)
{
    return error_set(BACKEND_ERR_INVALID, "linear: %s: captured before it was run once", what);
}

/* Device memory that belongs to the backend until it closes. */
static int allocate_counted(backend_cuda_t *cuda, const char *label, size_t bytes, void **out)
{
    int rc = cuda->capturing ? no_allocation(label) : cuda_allocate(label, bytes, out);

    if (rc == BACKEND_OK) {
        cuda->base.allocated_bytes += bytes;
        cuda->base.allocation_count++;
    }
    return rc;
}

static int scratch(backend_cuda_t *cuda, int which, int64_t elements, backend_dtype_t dtype, void **out)
{
    size_t bytes = (size_t)elements * backend_dtype_bytes(dtype);
    cuda_retired_t *retired;
    void *memory;
    int rc;

    if (bytes > cuda->scratch[which].bytes) {
        if ((rc = allocate_counted(cuda, "scratch of a matrix product", bytes, &memory)) < 0)
            return rc;
        if (cuda->scratch[which].memory != NULL) {
            if ((retired = malloc(sizeof *retired)) == NULL) {
                cudaFree(memory);
                return error_set(BACKEND_ERR_MEMORY, "linear: no memory");
            }
            *retired = (cuda_retired_t){cuda->scratch[which].memory, cuda->retired};
            cuda->retired = retired;
        }
        cuda->scratch[which].memory = memory;
        cuda->scratch[which].bytes = bytes;
    }
    *out = cuda->scratch[which].memory;
    return BACKEND_OK;
}

/* The bias in BF16, made the first time. */
static int shadow_of(backend_cuda_t *cuda, const backend_weight_t *bias, const void **out)
{
    int64_t elements = backend_tensor_elements(&bias->tensor);
    size_t bytes = (size_t)elements * backend_dtype_bytes(BACKEND_BF16);
    cuda_bias_shadow_t *shadow = cuda->shadows;
    int rc;

    while (shadow != NULL && shadow->bias != bias->tensor.data)
        shadow = shadow->next;
    if (shadow == NULL) {
        if ((shadow = calloc(1, sizeof *shadow)) == NULL)
            return error_set(BACKEND_ERR_MEMORY, "linear: no memory");
        if ((rc = allocate_counted(cuda, "a bias in BF16", bytes, &shadow->memory)) < 0) {
            free(shadow);
            return rc;
        }
        shadow->bias = bias->tensor.data;
        shadow->bytes = bytes;
        shadow->next = cuda->shadows;
        cuda->shadows = shadow;
        rc = cuda_norm_launch(&(cuda_norm_t){.x = shadow->bias,
                                             .x_dtype = BACKEND_F32,
                                             .rows = 1,
                                             .width = elements,
                                             .x_stride = elements,
                                             .kind = BACKEND_NORM_NONE,
                                             .y = shadow->memory,
                                             .y_dtype = BACKEND_BF16},
                              cuda->stream);
        if (rc < 0)
            return rc;
    }
    *out = shadow->memory;
    return BACKEND_OK;
}

static const void *weight_data(const backend_weight_t *weight)
{
    return weight != NULL ? weight->tensor.data : NULL;
}

static const void *tensor_data(const backend_tensor_t *tensor)
{
    return tensor != NULL ? tensor->data : NULL;
}

int cuda_linear_settle(backend_cuda_t *cuda)
{
    cuda_norm_t owed = cuda->owed;

    cuda->owed.lacking.count = 0;
    return owed.lacking.count > 0 ? cuda_norm_launch(&owed, cuda->stream) : BACKEND_OK;
}

/* The owed sum becomes part of the norm where it is what the norm reads. */
static bool take_owed(backend_cuda_t *cuda, cuda_norm_t *norm)
{
    const cuda_norm_t *owed = &cuda->owed;
    bool same = owed->lacking.count > 0 && norm->x == owed->lacking.y && norm->x_dtype == BACKEND_F32 && norm->rows == owed->rows &&
                norm->width == owed->width && norm->x_stride == owed->x_stride;

    if (!same || !cuda_norm_adds(norm))
        return false;
    norm->x = owed->x;
    norm->lacking = owed->lacking;
    cuda->owed.lacking.count = 0;
    return true;
}

/* x as the product wants it: normalised, of W's dtype. */
static int prepare_x(backend_cuda_t *cuda, const backend_linear_t *op, cuda_product_t *product)
{
    cuda_norm_t norm = {.x = op->x.data,
                        .x_dtype = op->x.dtype,
                        .rows = op->rows,
                        .width = product->in,
                        .x_stride = op->x_stride > 0 ? op->x_stride : product->in,
                        .kind = op->norm.kind,
                        .scale = weight_data(op->norm.scale),
                        .shift = weight_data(op->norm.shift),
                        .eps = op->norm.eps,
                        .y_dtype = product->dtype};
    int rc;

    if (op->modulation != NULL) {
        norm.modulation_scale = tensor_data(op->modulation->scale);
        norm.modulation_shift = tensor_data(op->modulation->shift);
        norm.rows_each = op->modulation->rows_each;
        norm.modulation_stride = op->modulation->stride;
    }

    product->x = norm.x;
    product->x_stride = norm.x_stride;
    if (norm.kind == BACKEND_NORM_NONE && norm.modulation_scale == NULL && norm.x_dtype == norm.y_dtype)
        return cuda_linear_settle(cuda);
    if (norm.kind == BACKEND_NORM_NONE)
        norm.scale = norm.shift = NULL;
    if ((rc = scratch(cuda, CUDA_SCRATCH_X, norm.rows * norm.width, norm.y_dtype, &norm.y)) < 0)
        return rc;
    product->x = norm.y;
    product->x_stride = norm.width;
    if (!take_owed(cuda, &norm) && (rc = cuda_linear_settle(cuda)) < 0)
        return rc;
    return cuda_norm_launch(&norm, cuda->stream);
}

/* What cuBLASLt's epilogue cannot do. */
static int finish(backend_cuda_t *cuda, const backend_linear_t *op, const cuda_product_t *product, int64_t y_stride)
{
    cuda_activation_t activation = {.product = product->y,
                                    .product_dtype = product->y_dtype,
                                    .rows = product->rows,
                                    .width = product->out,
                                    .y_stride = y_stride,
                                    .activation = op->activation,
                                    .residual = tensor_data(op->residual),
                                    .offset = tensor_data(op->offset),
                                    .y = op->y.data,
                                    .y_dtype = op->y.dtype};

    if (op->modulation != NULL) {
        activation.gate = tensor_data(op->modulation->gate);
        activation.rows_each = op->modulation->rows_each;
        activation.gate_stride = op->modulation->stride;
    }
    return cuda_activation_launch(&activation, cuda->stream);
}

/* Equal parts of the columns of a product that has too few tiles of its own for the GPU; 1: as it is. */
static int64_t parts_of(const cuda_product_t *product)
{
    int64_t tiles = ((product->rows + TILE - 1) / TILE) * ((product->out + TILE - 1) / TILE), parts = product->in / PART_COLUMNS;
    bool fits =
        product->dtype == BACKEND_BF16 && product->in % PART_COLUMNS == 0 && product->out % TILE == 0 && parts <= CUDA_PARTS_MOST;

    return fits && parts > 1 && tiles <= TILES_FEW ? parts : 1;
}

/* y = residual + bias + product, in parts whose sum is left to the next op. */
static int owe_sum(backend_cuda_t *cuda, const cuda_norm_t *owed, cuda_product_t *product)
{
    void *parts;
    int rc = scratch(cuda, CUDA_SCRATCH_PRODUCT, product->parts * product->rows * product->out, BACKEND_F32, &parts);

    if (rc < 0)
        return rc;
    product->y = parts;
    product->y_stride = product->out;
    product->bias = product->residual = NULL;
    if ((rc = cuda_product(cuda, product)) < 0)
        return rc;
    cuda->owed = *owed;
    cuda->owed.lacking.count = (int)product->parts;
    cuda->owed.lacking.parts = parts;
    return BACKEND_OK;
}

int cuda_linear(backend_t *backend, const backend_linear_t *op)
{
    backend_cuda_t *cuda = cuda_of(backend);
    backend_dtype_t dtype = op->weight->tensor.dtype;
    int64_t out = op->weight->tensor.dim[0], columns = op->activation == BACKEND_ACT_SWIGLU ? out / 2 : out;
    int64_t y_stride = op->y_stride > 0 ? op->y_stride : columns;
    bool bf16 = dtype == BACKEND_BF16 && op->y.dtype == BACKEND_BF16,
         gated = op->modulation != NULL && op->modulation->gate != NULL;
    const backend_tensor_t *added = op->residual != NULL ? op->residual : op->offset;
    bool relu = op->activation == BACKEND_ACT_RELU && added == NULL, plain = op->activation == BACKEND_ACT_NONE || relu;
    bool direct =
        plain && !gated && (op->residual == NULL || op->offset == NULL) && (op->y.dtype == BACKEND_F32 || (bf16 && added == NULL));
    cuda_product_t product = {.weight = op->weight->tensor.data,
                              .bias = weight_data(op->bias),
                              .residual = direct ? tensor_data(added) : NULL,
                              .y = op->y.data,
                              .rows = op->rows,
                              .in = op->weight->tensor.dim[1],
                              .out = out,
                              .y_stride = direct ? y_stride : out,
                              .parts = 1,
                              .dtype = dtype,
                              .y_dtype = bf16 ? BACKEND_BF16 : BACKEND_F32,
                              .relu = direct && relu};
    cuda_norm_t sum = {.x = product.residual,
                       .x_dtype = BACKEND_F32,
                       .rows = op->rows,
                       .width = out,
                       .x_stride = y_stride,
                       .kind = BACKEND_NORM_NONE,
                       .lacking = {.bias = product.bias, .y = op->y.data}};
    int rc;

    if (cuda_linear_few_fits(op))
        return (rc = cuda_linear_settle(cuda)) < 0 ? rc : cuda_linear_few_launch(op, cuda->stream);
    if ((rc = prepare_x(cuda, op, &product)) < 0)
        return rc;
    if (product.residual != NULL && cuda_norm_adds(&sum) && (product.parts = parts_of(&product)) > 1)
        return owe_sum(cuda, &sum, &product);
    if (bf16 && op->bias != NULL && (rc = shadow_of(cuda, op->bias, &product.bias)) < 0)
        return rc;
    if (!direct && (rc = scratch(cuda, CUDA_SCRATCH_PRODUCT, product.rows * product.out, product.y_dtype, &product.y)) < 0)
        return rc;
    rc = cuda_product(cuda, &product);
    return rc < 0 || direct ? rc : finish(cuda, op, &product, y_stride);
}

void cuda_linear_forget(backend_cuda_t *cuda, const void *bias)
{
    for (cuda_bias_shadow_t **link = &cuda->shadows; *link != NULL; link = &(*link)->next)
        if ((*link)->bias == bias) {
            cuda_bias_shadow_t *shadow = *link;

            *link = shadow->next;
            cuda->base.allocated_bytes -= shadow->bytes;
            cudaFree(shadow->memory);
            free(shadow);
            return;
        }
}

void cuda_linear_close(backend_cuda_t *cuda)
{
    while (cuda->shadows != NULL)
        cuda_linear_forget(cuda, cuda->shadows->bias);
    while (cuda->retired != NULL) {
        cuda_retired_t *next = cuda->retired->next;

        cudaFree(cuda->retired->memory);
        free(cuda->retired);
        cuda->retired = next;
    }
    for (int i = 0; i < CUDA_SCRATCHES; i++)
        cudaFree(cuda->scratch[i].memory);
}
