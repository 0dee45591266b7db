/* cuda_product() where kernels are emulated: cuBLASLt's part of a linear by OpenBLAS in F32. */
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "gpuworker/backend/cuda/cuda.h"

static float value_at(const void *data, backend_dtype_t dtype, int64_t at)
{
    uint32_t bits;
    float value;

    if (dtype == BACKEND_F32)
        return ((const float *)data)[at];
    bits = (uint32_t)((const uint16_t *)data)[at] << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void put(void *data, backend_dtype_t dtype, int64_t at, float value)
{
    uint32_t bits;

    if (dtype == BACKEND_F32) {
        ((float *)data)[at] = value;
        return;
    }
    memcpy(&bits, &value, sizeof bits);
    ((uint16_t *)data)[at] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Rows as floats, dense. */
static float *rows_of(const void *data, backend_dtype_t dtype, int64_t rows, int64_t width, int64_t stride)
{
    float *values = malloc((size_t)(rows * width) * sizeof *values);

    for (int64_t i = 0; values != NULL && i < rows * width; i++)
        values[i] = value_at(data, dtype, i / width * stride + i % width);
    return values;
}

static void multiply(const void *argument)
{
    const cuda_product_t *p = argument;
    float *x = rows_of(p->x, p->dtype, p->rows, p->in, p->x_stride), *w = rows_of(p->weight, p->dtype, p->out, p->in, p->in);
    float *y = malloc((size_t)(p->parts * p->rows * p->out) * sizeof *y);
    int64_t in = p->in / p->parts;

    if (x == NULL || w == NULL || y == NULL)
        abort();
    for (int64_t part = 0; part < p->parts; part++)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)p->rows, (int)p->out, (int)in, 1, x + part * in, (int)p->in,
                    w + part * in, (int)p->in, 0, y + part * p->rows * p->out, (int)p->out);
    for (int64_t i = 0; i < p->parts * p->rows * p->out; i++) {
        int64_t at = i / p->out * p->y_stride + i % p->out;
        float sum = y[i];

        if (p->bias != NULL)
            sum += value_at(p->bias, p->y_dtype, i % p->out);
        if (p->residual != NULL)
            sum += value_at(p->residual, p->y_dtype, at);
        put(p->y, p->y_dtype, at, p->relu && sum < 0 ? 0 : sum);
    }
    free(x);
    free(w);
    free(y);
}

int cuda_product(backend_cuda_t *cuda, const cuda_product_t *product)
{
    emulation_enqueue(cuda->stream, multiply, product, sizeof *product);
    return BACKEND_OK;
}

int cuda_product_open(backend_cuda_t *cuda, const char *gpu)
{
    (void)cuda;
    (void)gpu;
    return BACKEND_OK;
}

void cuda_product_close(backend_cuda_t *cuda)
{
    (void)cuda;
}
