/* The machine's own ceilings, measured through the backend's public calls: whatever a product of the forecast is run by, the rate is that
 * of a large one run by the same. */
#include <stdlib.h>

#include "base/error.h"
#include "gpuworker/backend/backend.h"

enum { RUNS = 7, BLOCK_WORDS = 1 << 20 };

/* Sizes that fill the device and yet take milliseconds. */
typedef struct {
    int64_t copy_bytes, f32_side, bf16_side;
} sizes_t;

static const sizes_t cpu_sizes = {128 << 20, 1024, 0}, cuda_sizes = {512 << 20, 4096, 8192};

/* ---- random contents ---------------------------------------------------------------------------------------------------------- */

/* Words that are small numbers of both signs read as F32 and as pairs of BF16: products run faster on zeros than on data. */
static uint32_t *make_block(void)
{
    uint32_t *block = malloc(BLOCK_WORDS * sizeof *block);
    uint64_t state = 1;

    for (size_t i = 0; block != NULL && i < BLOCK_WORDS; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        block[i] = ((uint32_t)(state >> 32) & 0x80ff80ff) | 0x3c003c00;
    }
    return block;
}

/* An allocated tensor full of that block again and again. */
static int take(backend_t *backend, const uint32_t *block, backend_dtype_t dtype, int64_t rows, int64_t columns,
                backend_tensor_t *out)
{
    int64_t dim[2] = {rows, columns}, bytes = rows * columns * (int64_t)backend_dtype_bytes(dtype), block_bytes = BLOCK_WORDS * 4;
    int rc = backend_alloc(backend, "measurement", dtype, 2, dim, out);

    for (int64_t done = 0; rc == BACKEND_OK && done < bytes; done += block_bytes) {
        backend_tensor_t piece = {.data = (char *)out->data + done, .dtype = BACKEND_U8, .rank = 1};

        piece.dim[0] = bytes - done < block_bytes ? bytes - done : block_bytes;
        rc = backend_write(backend, &piece, block);
    }
    return rc;
}

/* ---- timing ------------------------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

typedef int (*enqueue_t)(backend_t *backend, const backend_tensor_t tensor[3]);

static int median_seconds(backend_t *backend, enqueue_t enqueue, const backend_tensor_t tensor[3], double *seconds)
{
    int64_t ns[RUNS];
    int rc = enqueue(backend, tensor);

    for (int i = 0; i < RUNS && rc == BACKEND_OK; i++)
        if ((rc = backend_timer_start(backend)) == BACKEND_OK && (rc = enqueue(backend, tensor)) == BACKEND_OK &&
            (rc = backend_timer_stop(backend)) == BACKEND_OK)
            rc = backend_timer_read(backend, &ns[i]);
    if (rc < 0)
        return rc;
    qsort(ns, RUNS, sizeof *ns, by_size);
    *seconds = (double)(ns[RUNS / 2] > 0 ? ns[RUNS / 2] : 1) / 1e9;
    return BACKEND_OK;
}

static int copy(backend_t *backend, const backend_tensor_t tensor[3])
{
    return backend_copy_in(backend, &tensor[1], tensor[0].data);
}

static int multiply(backend_t *backend, const backend_tensor_t tensor[3])
{
    return backend_linear(
        backend,
        &(backend_linear_t){.x = tensor[0], .rows = tensor[0].dim[0], .weight = &(backend_weight_t){tensor[1]}, .y = tensor[2]});
}

/* Median seconds of a call that works on `count` tensors of one shape. */
static int measure(backend_t *backend, const uint32_t *block, enqueue_t enqueue, int count, backend_dtype_t dtype, int64_t rows,
                   int64_t columns, double *seconds)
{
    backend_tensor_t tensor[3] = {{0}};
    int rc = BACKEND_OK;

    for (int i = 0; i < count && rc == BACKEND_OK; i++)
        rc = take(backend, block, dtype, rows, columns, &tensor[i]);
    if (rc == BACKEND_OK)
        rc = median_seconds(backend, enqueue, tensor, seconds);
    for (int i = 0; i < count; i++)
        backend_free(backend, &tensor[i]);
    return rc;
}

static int measure_product(backend_t *backend, const uint32_t *block, backend_dtype_t dtype, int64_t side, double *flops)
{
    double seconds;
    int rc = measure(backend, block, multiply, 3, dtype, side, side, &seconds);

    if (rc == BACKEND_OK)
        *flops = 2.0 * (double)side * (double)side * (double)side / seconds;
    return rc;
}

int backend_measure(backend_t *backend, backend_rates_t *out)
{
    const sizes_t *sizes = backend_kind(backend) == BACKEND_CUDA ? &cuda_sizes : &cpu_sizes;
    uint32_t *block = make_block();
    backend_rates_t rates = {0};
    double seconds;
    int rc;

    if (block == NULL)
        return error_set(BACKEND_ERR_MEMORY, "backend_measure: out of memory");
    rc = measure(backend, block, copy, 2, BACKEND_U8, 1, sizes->copy_bytes, &seconds);
    if (rc == BACKEND_OK) {
        rates.copy_bytes_per_s = 2 * (double)sizes->copy_bytes / seconds;
        rc = measure_product(backend, block, BACKEND_F32, sizes->f32_side, &rates.f32_flops);
    }
    if (rc == BACKEND_OK && backend_has_bf16(backend))
        rc = measure_product(backend, block, BACKEND_BF16, sizes->bf16_side, &rates.bf16_flops);
    free(block);
    if (rc == BACKEND_OK)
        *out = rates;
    return rc < 0 ? error_add(rc, "measuring this machine") : rc;
}
