/* linear: y = residual + offset + gate · act(modulated(norm(x)) · Wᵀ + bias), x [rows][in], W [out][in], y [rows][out] or [rows][out / 2] for SwiGLU.
 *
 * Rows go through in blocks: normalise and modulate a block into scratch, one matrix product (matrix-vector for a single row), then the
 * epilogue. The product lands in y itself, with residual, offset and bias put there first, unless an activation or a gate stands in between. */
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "gpuworker/backend/cpu/cpu.h"

static const float *weight_data(const backend_weight_t *weight)
{
    return weight != NULL ? weight->tensor.data : NULL;
}

static void normalise(const backend_norm_t *norm, const float *x, int64_t width, float *y)
{
    const float *scale = weight_data(norm->scale), *shift = weight_data(norm->shift);
    double sum = 0, squares = 0;
    float mean, factor;

    for (int64_t i = 0; i < width; i++)
        sum += x[i];
    mean = norm->kind == BACKEND_NORM_LAYER ? (float)(sum / (double)width) : 0.0f;
    for (int64_t i = 0; i < width; i++)
        squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    factor = (float)(1.0 / sqrt(squares / (double)width + (double)norm->eps));
    for (int64_t i = 0; i < width; i++) {
        float value = (x[i] - mean) * factor;
        value = scale != NULL ? value * scale[i] : value;
        y[i] = shift != NULL ? value + shift[i] : value;
    }
}

/* What a condition adds for row `row`: a vector of it, or NULL. */
static const float *condition(const backend_modulation_t *modulation, const backend_tensor_t *part, int64_t row)
{
    return part != NULL ? (const float *)part->data + row / modulation->rows_each * modulation->stride : NULL;
}

/* y = modulated(norm(x)) of row `row`. */
static void prepare(const backend_linear_t *op, const float *x, int64_t row, int64_t in, float *y)
{
    const backend_modulation_t *modulation = op->modulation;

    if (op->norm.kind != BACKEND_NORM_NONE)
        normalise(&op->norm, x, in, y);
    else
        memcpy(y, x, (size_t)in * sizeof *y);
    if (modulation != NULL && modulation->shift != NULL) {
        const float *shift = condition(modulation, modulation->shift, row), *scale = condition(modulation, modulation->scale, row);

        for (int64_t i = 0; i < in; i++)
            y[i] = y[i] * (1.0f + scale[i]) + shift[i];
    }
}

/* y [rows][out] += x · Wᵀ */
static void multiply(int64_t rows, int64_t out, int64_t in, const float *x, int64_t x_stride, const float *weight, float *y,
                     int64_t y_stride)
{
    if (rows == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (blasint)out, (blasint)in, 1.0f, weight, (blasint)in, x, 1, 1.0f, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, (blasint)out, (blasint)in, 1.0f, x, (blasint)x_stride,
                    weight, (blasint)in, 1.0f, y, (blasint)y_stride);
}

static float activated(backend_activation_t activation, float x)
{
    switch (activation) {
    case BACKEND_ACT_SILU:
    case BACKEND_ACT_SWIGLU:
        return x / (1.0f + expf(-x));
    case BACKEND_ACT_RELU:
        return x > 0.0f ? x : 0.0f;
    case BACKEND_ACT_NONE:
        break;
    }
    return x;
}

/* What stands in a row of y before the product: the residual (perhaps y itself) plus offset and bias. */
static void start(float *y, const float *residual, const float *offset, const float *bias, int64_t out)
{
    for (int64_t o = 0; o < out; o++)
        y[o] = (residual != NULL ? residual[o] : 0.0f) + (offset != NULL ? offset[o] : 0.0f) + (bias != NULL ? bias[o] : 0.0f);
}

/* y = residual + offset + gate · act(product) of one row. */
static void finish(const backend_linear_t *op, const float *product, const float *gate, const float *residual, const float *offset,
                   int64_t columns, float *y)
{
    for (int64_t c = 0; c < columns; c++) {
        float value = activated(op->activation, product[c]);

        value = op->activation == BACKEND_ACT_SWIGLU ? value * product[columns + c] : value;
        value = gate != NULL ? value * gate[c] : value;
        y[c] = value + (residual != NULL ? residual[c] : 0.0f) + (offset != NULL ? offset[c] : 0.0f);
    }
}

static const float *rows_from(const backend_tensor_t *tensor, int64_t row, int64_t stride)
{
    return tensor != NULL ? (const float *)tensor->data + row * stride : NULL;
}

int cpu_linear(backend_t *backend, const backend_linear_t *op)
{
    const backend_modulation_t *modulation = op->modulation;
    int64_t out = op->weight->tensor.dim[0], in = op->weight->tensor.dim[1];
    int64_t columns = op->activation == BACKEND_ACT_SWIGLU ? out / 2 : out;
    int64_t x_stride = op->x_stride > 0 ? op->x_stride : in, y_stride = op->y_stride > 0 ? op->y_stride : columns;
    bool prepared = op->norm.kind != BACKEND_NORM_NONE || (modulation != NULL && modulation->shift != NULL);
    bool plain = op->activation == BACKEND_ACT_NONE && (modulation == NULL || modulation->gate == NULL);
    int64_t row_floats = (prepared ? in : 0) + (plain ? 0 : out);
    int64_t block = row_floats > 0 ? CPU_SCRATCH_FLOATS / row_floats : op->rows;
    float *input = cpu_scratch(backend);
    int rc = cpu_scratch_check("linear", row_floats);

    if (rc < 0)
        return rc;
    for (int64_t row = 0; row < op->rows; row += block) {
        int64_t rows = op->rows - row < block ? op->rows - row : block;
        const float *x = (const float *)op->x.data + row * x_stride;
        float *y = (float *)op->y.data + row * y_stride;
        float *product = plain ? y : input + (prepared ? rows * in : 0);
        int64_t product_stride = plain ? y_stride : out;

        for (int64_t r = 0; r < rows; r++) {
            if (prepared)
                prepare(op, x + r * x_stride, row + r, in, input + r * in);
            start(product + r * product_stride, plain ? rows_from(op->residual, row + r, y_stride) : NULL,
                  plain ? rows_from(op->offset, row + r, y_stride) : NULL, weight_data(op->bias), out);
        }
        multiply(rows, out, in, prepared ? input : x, prepared ? in : x_stride, op->weight->tensor.data, product, product_stride);
        for (int64_t r = 0; !plain && r < rows; r++)
            finish(op, product + r * out, modulation != NULL ? condition(modulation, modulation->gate, row + r) : NULL,
                   rows_from(op->residual, row + r, y_stride), rows_from(op->offset, row + r, y_stride), columns, y + r * y_stride);
    }
    return BACKEND_OK;
}
