/* A token of each row of logits, drawn from the most probable ones (backend_draw_token_t).
 *
 * A block a row; every thread keeps PER neighbouring weights exp((logit - largest) / temperature) in registers, and each weight's share of
 * their sum as an integer, all of them together 2^31: sums of shares are exact, so they may be formed in any order, and equal inputs draw
 * equal tokens. What may be drawn is not sorted out but searched: weights are positive floats, whose bits order as they do, so the
 * weight of the last token that stays is the least bit pattern above which lie no more than top_p of all shares (fewer than top_k
 * weights). A pass over DIGIT bits adds the shares up by their weight's digit and finds the digit at which the sum from the largest on
 * passes the limit; PASSES of them give the pattern. A scan in the tokens' order then finds where u of the rest falls. The block then
 * embeds its row's token, where asked to. */
#include "gpuworker/backend/cuda/embed.cuh"
#include "gpuworker/backend/philox.h"

enum { DRAW_THREADS = 256, DRAW_WARPS = DRAW_THREADS / WARP, DIGIT = 10, PASSES = 3, BINS = 1 << DIGIT, NONE = INT32_MAX };

static_assert(BINS == 4 * DRAW_THREADS, "a thread has four bins");
static_assert(DIGIT * PASSES == 30, "the bits of a weight, which is 1 at most, are below 2^30");

static const uint32_t ALL_LANES = 0xffffffffu;

typedef struct {
    const float *logits;
    int64_t logits_stride, paths, token_stride;
    int vocabulary;
    float exponent; /* exp(x / temperature) = exp2(x · exponent) */
    uint32_t top_p; /* in 2^-32 */
    int64_t top_k;  /* 0: by top_p */
    bool all;       /* neither */
    const uint64_t *keys;
    uint32_t stream;
    const int32_t *step;
    int32_t *tokens;
    bool embeds;
    embed_t then;
} draw_token_t;

typedef struct {
    uint32_t bin[PASSES][BINS], sums[PASSES + 1][DRAW_WARPS], largest[DRAW_WARPS], first[DRAW_WARPS];
    float totals[DRAW_WARPS];
    struct {
        uint32_t digit, above; /* of the last bin that may be drawn from; what the bins above it hold */
    } last[PASSES];
    int32_t token, entry[BACKEND_EMBED_TABLES_MOST];
    bool own[BACKEND_EMBED_TABLES_MOST]; /* the table's entry is the token */
} draw_shared_t;

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

/* Over the whole block, in every thread; `shared` [DRAW_WARPS] is for this call alone, as with all that follow. */
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

static __device__ __forceinline__ float block_sum(float value, float *shared)
{
    float sum = 0;

    value = sum_lanes<WARP>(value);
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = value;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < DRAW_WARPS; w++)
        sum += shared[w];
    return sum;
}

/* The sum of the values of all threads before this one; `total`: of all. */
static __device__ __forceinline__ uint32_t block_scan(uint32_t value, uint32_t *shared, uint32_t &total)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    uint32_t sum = value;

#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        uint32_t other = __shfl_up_sync(ALL_LANES, sum, offset);
        sum += lane >= offset ? other : 0;
    }
    if (lane == WARP - 1)
        shared[warp] = sum;
    __syncthreads();
    uint32_t before = sum - value;
    total = 0;
#pragma unroll
    for (int w = 0; w < DRAW_WARPS; w++) {
        before += w < warp ? shared[w] : 0;
        total += shared[w];
    }
    return before;
}

/* The first token of the largest logit; 0 where all are NaN. */
template <int PER>
static __device__ __forceinline__ int first_largest(const uint32_t (&key)[PER], uint32_t largest, uint32_t *shared)
{
    int found = NONE;

#pragma unroll
    for (int i = PER - 1; i >= 0; i--)
        if (key[i] == largest)
            found = (int)threadIdx.x * PER + i;
    return (int)~block_max(~(uint32_t)found, shared);
}

/* The bits of the weight of the last token that may be drawn. */
template <int PER>
static __device__ __forceinline__ uint32_t least_weight(const draw_token_t &op, const float (&weight)[PER],
                                                        const uint32_t (&share)[PER], draw_shared_t &shared)
{
    uint32_t bits = 0, above = 0, limit = 0; /* the bits found so far; the shares of weights that begin with more than those */

#pragma unroll
    for (int pass = 0; pass < PASSES; pass++) {
        int shift = DIGIT * (PASSES - 1 - pass);
        uint32_t total;

#pragma unroll
        for (int i = 0; i < PER; i++) {
            uint32_t own = __float_as_uint(weight[i]) >> shift;
            if (own >> DIGIT == bits && own != 0)
                atomicAdd(&shared.bin[pass][own % BINS], op.top_k > 0 ? 1 : share[i]);
        }
        __syncthreads();
        int first = (DRAW_THREADS - 1 - (int)threadIdx.x) * 4; /* of this thread's bins: the first thread has the largest */
        uint4 bin = *reinterpret_cast<const uint4 *>(shared.bin[pass] + first);
        uint32_t held[4] = {bin.w, bin.z, bin.y, bin.x},
                 sum = above + block_scan(bin.x + bin.y + bin.z + bin.w, shared.sums[pass], total);
        if (pass == 0)
            limit = op.top_k > 0 ? (uint32_t)min(op.top_k - 1, (int64_t)BACKEND_DRAW_VOCABULARY_MOST) : __umulhi(total, op.top_p);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (sum <= limit && sum + held[i] > limit) { /* nowhere else */
                shared.last[pass].digit = (uint32_t)(first + 3 - i);
                shared.last[pass].above = sum;
            }
            sum += held[i];
        }
        __syncthreads();
        if (total + above <= limit)
            return 0; /* fewer than top_k tokens: in the first pass */
        bits = bits << DIGIT | shared.last[pass].digit;
        above = shared.last[pass].above;
    }
    return bits;
}

template <int VECTOR, typename Y>
static __device__ __forceinline__ void embed_token(const embed_t &op, int64_t row, const draw_shared_t &shared)
{
    for (int at = (int)threadIdx.x * VECTOR; at < op.width; at += DRAW_THREADS * VECTOR)
        embed_values<VECTOR, Y>(op, row, at, [&](int table) { return shared.own[table] ? shared.token : shared.entry[table]; });
}

template <int PER> static __global__ void __launch_bounds__(DRAW_THREADS) draw_token_kernel(const draw_token_t op)
{
    __shared__ draw_shared_t shared;
    int64_t row = blockIdx.x;
    int from = (int)threadIdx.x * PER;
    uint32_t key[PER], share[PER], largest = 0;
    float logit[PER], weight[PER], sum = 0;
    uint64_t random_key = 0;

#pragma unroll
    for (int pass = 0; pass < PASSES; pass++)
        reinterpret_cast<uint4 *>(shared.bin[pass])[threadIdx.x] = uint4{};
    begin();
    int32_t step = *op.step;
    if (op.keys != NULL)
        random_key = op.keys[row / op.paths];
#pragma unroll
    for (int i = 0; i < PER; i++)
        logit[i] = from + i < op.vocabulary ? op.logits[row * op.logits_stride + from + i] : NAN;
    int32_t *place = op.tokens + row * op.token_stride + step;
    if (op.embeds && (int)threadIdx.x < op.then.count) { /* what is embedded beside the token is on its way meanwhile */
        const int32_t *index = embed_index(op.then, row, (int)threadIdx.x);
        shared.own[threadIdx.x] = index == place;
        shared.entry[threadIdx.x] = index == place ? 0 : *index;
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
        key[i] = ordered(logit[i]);
        largest = max(largest, key[i]);
    }
    largest = block_max(largest, shared.largest);
    float total = 0;
    if (op.top_k != 1 && largest != 0) {
#pragma unroll
        for (int i = 0; i < PER; i++) {
            weight[i] = exp2f((logit[i] - from_ordered(largest)) * op.exponent);
            weight[i] = weight[i] > 0 ? weight[i] : 0.0f; /* and NaN */
            sum += weight[i];
        }
        total = block_sum(sum, shared.totals);
    }
    if (total > 0) {
        uint32_t least = 0, own = 0, all;

#pragma unroll
        for (int i = 0; i < PER; i++)
            share[i] = __float2uint_rn(weight[i] * (0x1p31f / total));
        if (!op.all)
            least = least_weight<PER>(op, weight, share, shared);
#pragma unroll
        for (int i = 0; i < PER; i++) {
            share[i] = __float_as_uint(weight[i]) >= least ? share[i] : 0;
            own += share[i];
        }
        uint32_t before = block_scan(own, shared.sums[PASSES], all);
        float u =
            philox_uniform(philox(random_key, (uint32_t)step, (uint32_t)(row % op.paths), op.stream, PHILOX_STREAM_TOKEN).word[0]);
        uint32_t target = (uint32_t)((uint64_t)(u * 0x1p24f) * all >> 24); /* u is a multiple of 2^-24 */
#pragma unroll
        for (int i = 0; i < PER; i++) {
            if (before <= target && before + share[i] > target)
                shared.token = from + i;
            before += share[i];
        }
    } else {
        int token = first_largest<PER>(key, largest, shared.first);
        if (threadIdx.x == 0)
            shared.token = token;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        *place = shared.token;
    if (op.embeds && op.then.vector) {
        if (op.then.y_bf16)
            embed_token<EMBED_VECTOR, __nv_bfloat16>(op.then, row, shared);
        else
            embed_token<EMBED_VECTOR, float>(op.then, row, shared);
    } else if (op.embeds) {
        if (op.then.y_bf16)
            embed_token<1, __nv_bfloat16>(op.then, row, shared);
        else
            embed_token<1, float>(op.then, row, shared);
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
    p.exponent = 1.44269504f / op->temperature; /* log2(e) */
    p.all = op->top_k == 0 && op->top_p >= 1;
    p.top_p = p.all ? 0 : (uint32_t)((double)op->top_p * 0x1p32);
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
