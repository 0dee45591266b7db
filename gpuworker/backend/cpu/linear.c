/* linear: y = residual + act(norm(x) · Wᵀ + bias), x [rows][in], W [out][in], y [rows][out] or [rows][out / 2] for SwiGLU.
 *
 * Rows go through in blocks: normalise a block into scratch, one matrix product (matrix-vector for a single row), then the epilogue. The
 * product lands in y itself, with the residual and bias put there first, unless an activation stands in between. */
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

/* y [rows][out] += x · Wᵀ */
static void multiply(int64_t rows, int64_t out, int64_t in, const float *x, int64_t x_stride, const float *weight, float *y)
{
    if (rows == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (blasint)out, (blasint)in, 1.0f, weight, (blasint)in, x, 1, 1.0f, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, (blasint)out, (blasint)in, 1.0f, x, (blasint)x_stride,
                    weight, (blasint)in, 1.0f, y, (blasint)out);
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

/* What stands in y before the product: the residual (unless y is it) plus the bias. */
static void start(float *y, const float *residual, const float *bias, int64_t rows, int64_t out)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++)
            y[r * out + o] = (residual != NULL ? residual[r * out + o] : 0.0f) + (bias != NULL ? bias[o] : 0.0f);
}

static void activate(const backend_linear_t *op, const float *product, const float *residual, int64_t rows, int64_t out, float *y)
{
    bool gated = op->activation == BACKEND_ACT_SWIGLU;
    int64_t columns = gated ? out / 2 : out;

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            float value = silu(product[r * out + c]);
            value = gated ? value * product[r * out + columns + c] : value;
            y[r * columns + c] = value + (residual != NULL ? residual[r * columns + c] : 0.0f);
        }
}

int cpu_linear(backend_t *backend, const backend_linear_t *op)
{
    int64_t out = op->weight->tensor.dim[0], in = op->weight->tensor.dim[1];
    int64_t x_stride = op->x_stride > 0 ? op->x_stride : in;
    bool normed = op->norm.kind != BACKEND_NORM_NONE, plain = op->activation == BACKEND_ACT_NONE;
    int64_t columns = op->activation == BACKEND_ACT_SWIGLU ? out / 2 : out;
    int64_t row_floats = (normed ? in : 0) + (plain ? 0 : out);
    int64_t block = row_floats > 0 ? CPU_SCRATCH_FLOATS / row_floats : op->rows;
    float *normalised = cpu_scratch(backend);
    int rc = cpu_scratch_check("linear", row_floats);

    if (rc < 0)
        return rc;
    for (int64_t row = 0; row < op->rows; row += block) {
        int64_t rows = op->rows - row < block ? op->rows - row : block;
        const float *x = (const float *)op->x.data + row * x_stride;
        const float *residual = op->residual != NULL ? (const float *)op->residual->data + row * columns : NULL;
        float *y = (float *)op->y.data + row * columns;
        float *product = plain ? y : normalised + (normed ? rows * in : 0);

        for (int64_t r = 0; normed && r < rows; r++)
            normalise(&op->norm, x + r * x_stride, in, normalised + r * in);
        start(product, plain ? residual : NULL, weight_data(op->bias), rows, out);
        multiply(rows, out, in, normed ? normalised : x, normed ? in : x_stride, op->weight->tensor.data, product);
        if (!plain)
            activate(op, product, residual, rows, out, y);
    }
    return BACKEND_OK;
}
