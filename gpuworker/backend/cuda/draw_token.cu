/* A token of each row of logits, drawn from the most probable ones (backend_draw_token_t).
 *
 * A block a row; every thread keeps PER neighbouring weights exp((logit - largest) / temperature) in registers. What may be drawn is
 * not sorted out but searched: weights are positive floats, whose bits order as they do, so the weight of the last token that stays is
 * the least bit pattern above which the weights hold no more than top_p of the sum (fewer than top_k of them lie). Each round of the
 * search measures WAYS - 1 patterns at once. A scan in the tokens' order then finds where u of the rest falls. All sums are trees of
 * fixed shape, so equal inputs draw equal tokens. The block then embeds its row's token, where asked to. */
#include "gpuworker/backend/cuda/embed.cuh"
#include "gpuworker/backend/philox.h"

enum { DRAW_THREADS = 256, DRAW_WARPS = DRAW_THREADS / WARP, WAYS = 4, NONE = INT32_MAX };

static const uint32_t ALL_LANES = 0xffffffffu, ONE_BITS = 0x3f800000u;

typedef struct {
    const float *logits;
    int64_t logits_stride, paths, token_stride;
    int vocabulary;
    float temperature, top_p;
    int64_t top_k;
    const uint64_t *keys;
    uint32_t stream;
    const int32_t *step;
    int32_t *tokens;
    bool embeds;
    embed_t then;
} draw_token_t;

/* A float as an integer that orders as it does; NaN below all. */
static __device__ __forceinline__ uint32_t ordered(float value)
{
    uint32_t bits = __float_as_uint(value);
    return isnan(value) ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float from_ordered(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* Over the whole block, in every thread. `shared` [DRAW_WARPS]: nobody may still be reading it. */
static __device__ __forceinline__ uint32_t block_max(uint32_t value, uint32_t *shared)
{
    value = __reduce_max_sync(ALL_LANES, value);
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = value;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < DRAW_WARPS; w++)
        value = max(value, shared[w]);
    return value;
}

/* The first of the block's indices, NONE where a thread has none. */
static __device__ __forceinline__ int block_first(int index, uint32_t *shared)
{
    return (int)~block_max(~(uint32_t)index, shared);
}

template <int PER>
static __device__ __forceinline__ int first_largest(const uint32_t (&key)[PER], uint32_t largest, uint32_t *shared)
{
    int found = NONE;

#pragma unroll
    for (int i = PER - 1; i >= 0; i--)
        if (key[i] == largest)
            found = (int)threadIdx.x * PER + i;
    return block_first(found, shared);
}

/* The bits of the weight of the last token that may be drawn. */
template <int PER>
static __device__ __forceinline__ uint32_t least_weight(const draw_token_t &op, const float (&weight)[PER], float total,
                                                        float (*shared)[WAYS - 1][DRAW_WARPS])
{
    float limit = op.top_k > 0 ? (float)op.top_k - 0.5f : op.top_p * total;
    uint32_t low = 0, high = ONE_BITS;

#pragma unroll 1
    for (int round = 0; low < high; round++) {
        uint32_t at[WAYS - 1], lowest = low;
        float above[WAYS - 1] = {};
        bool found = false;

#pragma unroll
        for (int way = 0; way < WAYS - 1; way++) {
            at[way] = low + (uint32_t)((uint64_t)(high - low) * (way + 1) / WAYS);
#pragma unroll
            for (int i = 0; i < PER; i++)
                above[way] += __float_as_uint(weight[i]) > at[way] ? (op.top_k > 0 ? 1.0f : weight[i]) : 0.0f;
        }
#pragma unroll
        for (int way = 0; way < WAYS - 1; way++) {
            above[way] = sum_lanes<WARP>(above[way]);
            if (threadIdx.x % WARP == 0)
                shared[round % 2][way][threadIdx.x / WARP] = above[way];
        }
        __syncthreads(); /* the round after the next writes here again: by then all have passed the next one's barrier */
#pragma unroll
        for (int way = 0; way < WAYS - 1; way++) {
            float sum = 0;

#pragma unroll
            for (int w = 0; w < DRAW_WARPS; w++)
                sum += shared[round % 2][way][w];
            if (!found && sum <= limit) {
                found = true;
                high = at[way];
            } else if (!found) {
                lowest = at[way] + 1;
            }
        }
        low = lowest;
    }
    return high;
}

template <typename Y> static __device__ __forceinline__ void embed_row(const embed_t &op, int64_t row)
{
    if (op.vector)
        for (int at = (int)threadIdx.x * EMBED_VECTOR; at < op.width; at += DRAW_THREADS * EMBED_VECTOR)
            embed_values<EMBED_VECTOR, Y>(op, row, at);
    else
        for (int at = (int)threadIdx.x; at < op.width; at += DRAW_THREADS)
            embed_values<1, Y>(op, row, at);
}

template <int PER> static __global__ void __launch_bounds__(DRAW_THREADS) draw_token_kernel(const draw_token_t op)
{
    __shared__ uint32_t shared[4][DRAW_WARPS];
    __shared__ float sums[2][DRAW_WARPS], searched[2][WAYS - 1][DRAW_WARPS];
    int64_t row = blockIdx.x;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, from = (int)threadIdx.x * PER;
    uint32_t key[PER], largest = 0, least = 0;
    float weight[PER], sum = 0, total = 0;

    begin();
    int32_t step = *op.step;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        key[i] = from + i < op.vocabulary ? ordered(op.logits[row * op.logits_stride + from + i]) : 0;
        largest = max(largest, key[i]);
    }
    largest = block_max(largest, shared[0]);
    int token = first_largest<PER>(key, largest, shared[1]); /* 0 where all are NaN */
    if (op.top_k != 1 && largest != 0) {
#pragma unroll
        for (int i = 0; i < PER; i++) {
            weight[i] = key[i] != 0 ? expf((from_ordered(key[i]) - from_ordered(largest)) / op.temperature) : 0.0f;
            weight[i] = weight[i] > 0 ? weight[i] : 0.0f;
            sum += weight[i];
        }
        sum = sum_lanes<WARP>(sum);
        if (lane == 0)
            sums[0][warp] = sum;
        __syncthreads();
#pragma unroll
        for (int w = 0; w < DRAW_WARPS; w++)
            total += sums[0][w];
        if (op.top_k > 0 || op.top_p < 1)
            least = least_weight<PER>(op, weight, total, searched);

        /* The running sums of what stays: before the thread's first weight, `before`; of all, `total`. */
        sum = 0;
#pragma unroll
        for (int i = 0; i < PER; i++) {
            weight[i] = __float_as_uint(weight[i]) >= least ? weight[i] : 0.0f;
            sum += weight[i];
        }
        float before = sum;
#pragma unroll
        for (int offset = 1; offset < WARP; offset *= 2) {
            float other = __shfl_up_sync(ALL_LANES, before, offset);
            before += lane >= offset ? other : 0.0f;
        }
        if (lane == WARP - 1)
            sums[1][warp] = before;
        before = __shfl_up_sync(ALL_LANES, before, 1);
        before = lane > 0 ? before : 0.0f;
        __syncthreads();
        float earlier = 0;
        total = 0;
#pragma unroll
        for (int w = 0; w < DRAW_WARPS; w++) {
            earlier += w < warp ? sums[1][w] : 0.0f;
            total += sums[1][w];
        }
        before += earlier;
        float target = philox_uniform(philox(op.keys[row / op.paths], (uint32_t)step, (uint32_t)(row % op.paths), op.stream,
                                             PHILOX_STREAM_TOKEN)
                                          .word[0]) *
                       total;
        int found = NONE;
        uint32_t last = 0; /* 1 + the thread's last token that stays */
#pragma unroll
        for (int i = 0; i < PER; i++)
            if (weight[i] > 0) {
                before += weight[i];
                found = found == NONE && before > target ? from + i : found;
                last = (uint32_t)(from + i) + 1;
            }
        found = block_first(found, shared[2]);
        last = block_max(last, shared[3]);
        token = found != NONE ? found : last > 0 ? (int)last - 1 : token; /* rounding may leave the target at the very sum */
    }
    if (threadIdx.x == 0)
        op.tokens[row * op.token_stride + step] = token;
    if (op.embeds) {
        __syncthreads(); /* the row's embedding reads that token back */
        if (op.then.y_bf16)
            embed_row<__nv_bfloat16>(op.then, row);
        else
            embed_row<float>(op.then, row);
    }
}

extern "C" int cuda_draw_token_launch(const backend_draw_token_t *op, cudaStream_t stream)
{
    draw_token_t p = {};

    p.logits = static_cast<const float *>(op->logits.data);
    p.logits_stride = op->logits_stride > 0 ? op->logits_stride : op->vocabulary;
    p.paths = op->paths;
    p.token_stride = op->token_stride;
    p.vocabulary = (int)op->vocabulary;
    p.temperature = op->temperature;
    p.top_p = op->top_p;
    p.top_k = op->top_k;
    p.keys = op->top_k != 1 ? static_cast<const uint64_t *>(op->keys->data) : NULL;
    p.stream = op->stream;
    p.step = static_cast<const int32_t *>(op->step->data);
    p.tokens = static_cast<int32_t *>(op->tokens.data);
    p.embeds = op->then != NULL;
    if (p.embeds)
        p.then = embed_describe(op->then);
    static_assert(BACKEND_DRAW_VOCABULARY_MOST == 16 * DRAW_THREADS, "the largest kernel holds the largest vocabulary");
    return launch("draw_token",
                  p.vocabulary <= DRAW_THREADS       ? draw_token_kernel<1>
                  : p.vocabulary <= 4 * DRAW_THREADS ? draw_token_kernel<4>
                                                     : draw_token_kernel<16>,
                  (unsigned)op->rows, DRAW_THREADS, 0, stream, p);
}
