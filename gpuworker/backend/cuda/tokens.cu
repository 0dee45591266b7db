/* Tokens in, series out: a token of the signs of a vector (backend_sign_tokens_t), and channels to series (backend_transpose_t).
 *
 * sign_tokens: a warp a vector, a lane a number, so that a ballot is a token; the lanes then write its copies. transpose: a thread
 * an element of y, neighbours next to one another there. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { TOKEN_THREADS = 256 };

typedef struct {
    const float *x;
    int64_t rows, x_stride, y_stride, part_stride, copies, tokens;
    int bits_1, bits_2;
    int32_t *y;
} sign_tokens_t;

static __global__ void __launch_bounds__(TOKEN_THREADS) sign_tokens_kernel(const sign_tokens_t op)
{
    int64_t row = (int64_t)blockIdx.x * (TOKEN_THREADS / WARP) + threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP;

    begin();
    if (row >= op.rows)
        return;
    int64_t sequence = row / op.tokens, token = row % op.tokens;
    const float *x = op.x + sequence * op.x_stride + token * (op.bits_1 + op.bits_2);
    unsigned first = __ballot_sync(0xffffffffu, lane < op.bits_1 && x[lane] > 0);
    unsigned second = __ballot_sync(0xffffffffu, lane < op.bits_2 && x[op.bits_1 + lane] > 0);
    for (int64_t copy = lane; copy < op.copies; copy += WARP) {
        int32_t *y = op.y + (sequence * op.copies + copy) * op.y_stride + token;

        y[0] = (int32_t)first;
        y[op.part_stride] = (int32_t)second;
    }
}

extern "C" int cuda_sign_tokens_launch(const backend_sign_tokens_t *op, cudaStream_t stream)
{
    sign_tokens_t p = {};

    p.x = static_cast<const float *>(op->x.data);
    p.rows = op->rows;
    p.x_stride = op->x_stride > 0 ? op->x_stride : op->tokens * (op->bits_1 + op->bits_2);
    p.y_stride = op->y_stride;
    p.part_stride = op->part_stride;
    p.copies = op->copies;
    p.tokens = op->tokens;
    p.bits_1 = op->bits_1;
    p.bits_2 = op->bits_2;
    p.y = static_cast<int32_t *>(op->y.data);
    return launch("sign_tokens", sign_tokens_kernel, blocks_for(op->rows, TOKEN_THREADS / WARP), TOKEN_THREADS, 0, stream, p);
}

typedef struct {
    const float *x, *loc, *scale; /* loc, scale NULL: 0, 1 */
    int64_t items, x_stride, rows_each;
    int tokens, channels;
    float *y;
} transpose_t;

static __global__ void __launch_bounds__(TOKEN_THREADS) transpose_kernel(const transpose_t op)
{
    int64_t item = (int64_t)blockIdx.x * TOKEN_THREADS + threadIdx.x;

    begin();
    if (item >= op.items)
        return;
    int token = (int)(item % op.tokens), channel = (int)(item / op.tokens % op.channels);
    int64_t row = item / op.tokens / op.channels, at = row / op.rows_each * op.channels + channel;
    float value = op.x[row * op.x_stride + (int64_t)token * op.channels + channel];

    op.y[item] = op.scale != NULL ? __fadd_rn(__fmul_rn(value, op.scale[at]), op.loc[at]) : value;
}

extern "C" int cuda_transpose_launch(const backend_transpose_t *op, cudaStream_t stream)
{
    transpose_t p = {};

    p.x = static_cast<const float *>(op->x.data);
    p.loc = op->loc != NULL ? static_cast<const float *>(op->loc->data) : NULL;
    p.scale = op->scale != NULL ? static_cast<const float *>(op->scale->data) : NULL;
    p.items = op->rows * op->tokens * op->channels;
    p.x_stride = op->x_stride > 0 ? op->x_stride : op->tokens * op->channels;
    p.rows_each = op->rows_each;
    p.tokens = (int)op->tokens;
    p.channels = (int)op->channels;
    p.y = static_cast<float *>(op->y.data);
    if (p.items > (int64_t)INT32_MAX * TOKEN_THREADS)
        return error_set(BACKEND_ERR_UNSUPPORTED, "transpose: %lld rows are too many for CUDA", (long long)op->rows);
    return launch("transpose", transpose_kernel, blocks_for(p.items, TOKEN_THREADS), TOKEN_THREADS, 0, stream, p);
}
