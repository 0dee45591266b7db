/* Attention of many tokens a row with tensor cores, BF16: PREFILL, ENCODE and EXTEND as in attention_rows.cu, with F32 scores and sums.
 *
 * A block a row, head and tile of queries, 16 a warp. The keys that the tile sees go through shared memory in chunks, normalised and
 * rotated on the way where they are the tokens' own, each with two bits that say which queries see it; a block stores what its own
 * tokens add to the cache. Keys are counted over prefix, tail and own tokens. All warps bring in, of which there may be more than have
 * queries.
 *
 * mma.m16n8k16: scores [16 queries][8 keys] += q [16][16] · kᵀ; in the accumulator lane (r = lane / 4, c = lane % 4) holds keys 2c, 2c + 1 of
 * queries r and r + 8, which is what the next product, weights [16][16 keys] · v [16 keys][8], takes as its left side. ldmatrix brings
 * both sides from shared memory, v transposed on the way; rows are 8 elements apart of their width, so that its eight rows lie in
 * different banks. Exponentials to base 2. */
#include "gpuworker/backend/cuda/attention_op.cuh"

enum {
    TILE_QUERIES = 16,    /* of a warp */
    STEP_KEYS = 32,       /* that a warp takes in at once */
    TILE_WARPS = 8,       /* most warps of a block that have queries */
    TILE_WARPS_ALONE = 4, /* the same where few blocks are to be had */
    STAGE_THREADS = 128,  /* at least, to bring in keys */
    STAGE_UNROLL = 2,     /* vectors of a group on their way at once */
    SHARED_MOST = 100 << 10,
    FEW_BLOCKS = 2 * 132, /* multiprocessors of an H100 or H200 */
};
enum { SEEN_BY_0 = 1, SEEN_BY_1 = 2, SEEN = SEEN_BY_0 | SEEN_BY_1 };

/* Wider heads keep more in registers. */
static __host__ __device__ constexpr int threads_most(int width)
{
    return width <= 64 ? 512 : 256;
}

static __device__ __forceinline__ uint32_t shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* Four 8 × 8 matrices, the rows of matrix i at the addresses that lanes 8i .. 8i + 7 give. */
static __device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void load_transposed(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ uint32_t pair(float low, float high)
{
    __nv_bfloat162 packed = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&packed);
}

static __device__ __forceinline__ float power_of_2(float x)
{
    float result;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

/* ---- bringing keys and queries in -------------------------------------------------------------------------------------------- */

/* What a block works on. Keys are numbers in prefix, tail before, own tokens. */
template <typename T> struct stage_t {
    attention_lane_t<T> lane;
    int first_token, end_token; /* the tile */
    int first, prefix, own;     /* visible from here; where tail and own tokens begin */
    int64_t column;             /* of the rotation, of the own tokens' first */
    T *to_k, *to_v;             /* where the own tokens' first goes; NULL: nowhere */
    const uint8_t *visible;     /* of keys below `flagged` */
    int flagged;
    T *shared_k, *shared_v, *shared_q;
    uint8_t *flags;
};

/* Keys from .. from + count - 1 with zeros up to `padded`, then `queries` of the tile. False: some key is seen not by all who see 1. */
template <typename G>
static __device__ __forceinline__ bool bring_in(const attention_t &op, const stage_t<typename G::T> &stage, int from, int count,
                                                int padded, int queries)
{
    typedef typename G::T T;
    typedef packed_t<G::PER, T> packed;
    constexpr int PITCH = G::LANES * G::PER + 8;
    int groups = (int)blockDim.x / G::LANES, group = (int)threadIdx.x / G::LANES, at = (int)threadIdx.x % G::LANES * G::PER;
    bool active = at < op.head_dim, ordinary = true;

#pragma unroll 1
    for (int turn = 0; turn < padded + queries; turn += groups * STAGE_UNROLL) {
        head_part_t<G> part[STAGE_UNROLL];
        typename packed::word value[STAGE_UNROLL][packed::WORDS];
        bool is_key[STAGE_UNROLL], mine[STAGE_UNROLL], cached[STAGE_UNROLL];
        int item[STAGE_UNROLL], token[STAGE_UNROLL];
        const float *table[STAGE_UNROLL];

#pragma unroll
        for (int u = 0; u < STAGE_UNROLL; u++) {
            item[u] = min(turn + u * groups + group, padded + queries - 1); /* surplus groups repeat the last one */
            int i = from + item[u];

            is_key[u] = item[u] < padded;
            cached[u] = is_key[u] && item[u] < count && i < stage.own;
            mine[u] = is_key[u] && item[u] < count && i >= stage.own;
            token[u] = min(max(is_key[u] ? i - stage.own : stage.first_token + item[u] - padded, 0), op.tokens - 1);
            table[u] = cached[u] ? NULL : table_row(op, stage.lane.prefix_row, stage.column + token[u]);
        }
#pragma unroll
        for (int u = 0; u < STAGE_UNROLL; u++) {
            int i = from + item[u];
            int64_t source = (int64_t)(i < stage.prefix ? i : i - stage.prefix) * op.head_dim;
            const T *q = stage.lane.qkv + token[u] * 3 * stage.lane.width;
            const T *k = !cached[u] ? q + (is_key[u] ? stage.lane.width : 0)
                                    : (i < stage.prefix ? stage.lane.prefix_k : stage.lane.tail_k) + source;
            const T *v =
                !cached[u] ? q + 2 * stage.lane.width : (i < stage.prefix ? stage.lane.prefix_v : stage.lane.tail_v) + source;

            part[u].fetch(op, k, table[u], is_key[u], at);
            load_words<G::PER, T>(value[u], v + at, active && (mine[u] || cached[u]));
        }
#pragma unroll
        for (int u = 0; u < STAGE_UNROLL; u++) {
            T *to = (is_key[u] ? stage.shared_k + item[u] * PITCH : stage.shared_q + (item[u] - padded) * PITCH) + at;
            float key[G::PER];

            part[u].finish(op, key, table[u] != NULL, is_key[u], at, !cached[u]);
            if (is_key[u] && !mine[u] && !cached[u]) {
#pragma unroll
                for (int j = 0; j < G::PER; j++)
                    key[j] = 0;
            }
            store_shared<G::PER>(to, key);
            if (!is_key[u])
                continue;
#pragma unroll
            for (int w = 0; w < packed::WORDS; w++)
                reinterpret_cast<typename packed::word *>(stage.shared_v + item[u] * PITCH + at)[w] = value[u][w];
            if (mine[u] && active && stage.to_k != NULL && token[u] >= stage.first_token && token[u] < stage.end_token) {
                int64_t cache = (int64_t)token[u] * op.head_dim + at;

                store<G::PER>(stage.to_k + cache, key);
#pragma unroll
                for (int w = 0; w < packed::WORDS; w++)
                    __stwb(reinterpret_cast<typename packed::word *>(stage.to_v + cache) + w, value[u][w]);
            }
            if (at == 0) {
                int i = from + item[u];
                uint8_t flag = item[u] >= count || i < stage.first ? 0
                               : i >= stage.flagged                ? SEEN
                               : stage.visible[i] == 0             ? SEEN_BY_0
                                                                   : SEEN_BY_1;

                stage.flags[item[u]] = flag;
                ordinary = ordinary && (flag != SEEN_BY_0);
            }
        }
    }
    return ordinary;
}

/* ---- a warp's queries -------------------------------------------------------------------------------------------------------- */

/* Two queries a lane, r and r + 8. */
template <int WIDTH> struct tile_t {
    uint32_t q[WIDTH / 16][4];
    float sum[WIDTH / 8][4]; /* weight · value */
    float most[2], total[2]; /* largest score so far; this lane's part of the sum of weights */
    int limit[2];            /* keys from here on are invisible */
    unsigned wanted[2];      /* the bit of a key that this query sees */
    const float *bias[2];    /* of key i at bias[i]; NULL: none */
};

/* Takes in the keys at shared_k, shared_v: number `first` and the next 31, of which `there` exist. plain: all 32 are seen by all. */
template <int WIDTH, int PITCH>
static __device__ __forceinline__ void attend_tile(tile_t<WIDTH> &tile, const __nv_bfloat16 *shared_k,
                                                   const __nv_bfloat16 *shared_v, const uint8_t *flags, int first, int there,
                                                   bool plain, float scale)
{
    int lane = (int)threadIdx.x % WARP, c = lane % 4, matrix = lane / 8, r = lane % 8;
    float score[STEP_KEYS / 8][4] = {};
    bool half = there <= STEP_KEYS / 2; /* the second half does not exist */

#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++)
#pragma unroll
        for (int both = 0; both < STEP_KEYS / 16; both++) {
            uint32_t b[4];

            if (both > 0 && half)
                continue;
            load_matrices(b, shared_k + (both * 16 + matrix / 2 * 8 + r) * PITCH + k * 16 + matrix % 2 * 8);
            multiply(score[both * 2], tile.q[k], b[0], b[1]);
            multiply(score[both * 2 + 1], tile.q[k], b[2], b[3]);
        }
#pragma unroll
    for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            score[n][i] *= scale;
    if (tile.bias[0] != NULL) {
#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int at = n * 8 + c * 2 + i % 2;
                if (at < there)
                    score[n][i] += tile.bias[i / 2][first + at] * (float)M_LOG2E;
            }
    }
    if (!plain) {
#pragma unroll
        for (int n = 0; n < STEP_KEYS / 8; n++) {
            uint32_t flag = *reinterpret_cast<const uint16_t *>(flags + n * 8 + c * 2);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                bool seen = ((i % 2 == 0 ? flag : flag >> 8) & tile.wanted[i / 2]) != 0;
                if (!seen || first + n * 8 + c * 2 + i % 2 >= tile.limit[i / 2])
                    score[n][i] = -INFINITY;
            }
        }
    }

    float most[2] = {tile.most[0], tile.most[1]}, base[2];
#pragma unroll
    for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            most[i / 2] = fmaxf(most[i / 2], score[n][i]);
#pragma unroll
    for (int row = 0; row < 2; row++) {
        most[row] = fmaxf(most[row], __shfl_xor_sync(0xffffffffu, most[row], 1));
        most[row] = fmaxf(most[row], __shfl_xor_sync(0xffffffffu, most[row], 2));
        base[row] = most[row] > -INFINITY ? most[row] : 0.0f; /* nothing seen yet: no difference of infinities */
    }
    if (__any_sync(0xffffffffu, most[0] > tile.most[0] || most[1] > tile.most[1])) {
        float shrink[2] = {power_of_2(tile.most[0] - base[0]), power_of_2(tile.most[1] - base[1])};

#pragma unroll
        for (int row = 0; row < 2; row++) {
            tile.most[row] = most[row];
            tile.total[row] *= shrink[row];
        }
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                tile.sum[n][i] *= shrink[i / 2];
    }
#pragma unroll
    for (int n = 0; n < STEP_KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            score[n][i] = power_of_2(score[n][i] - base[i / 2]);
            tile.total[i / 2] += score[n][i];
        }
#pragma unroll
    for (int both = 0; both < STEP_KEYS / 16; both++) {
        const float(&low)[4] = score[both * 2], (&high)[4] = score[both * 2 + 1];
        uint32_t weight[4] = {pair(low[0], low[1]), pair(low[2], low[3]), pair(high[0], high[1]), pair(high[2], high[3])};

        if (both > 0 && half)
            continue;
#pragma unroll
        for (int n = 0; n < WIDTH / 16; n++) {
            uint32_t b[4];

            load_transposed(b, shared_v + (both * 16 + matrix % 2 * 8 + r) * PITCH + n * 16 + matrix / 2 * 8);
            multiply(tile.sum[n * 2], weight, b[0], b[1]);
            multiply(tile.sum[n * 2 + 1], weight, b[2], b[3]);
        }
    }
}

/* sum / total, or zeros where no key was visible, over this warp's part of shared_q and from there to memory. */
template <typename G, int WIDTH>
static __device__ __forceinline__ void write_tile(const attention_t &op, const tile_t<WIDTH> &tile, __nv_bfloat16 *shared_out,
                                                  __nv_bfloat16 *out, int64_t width, int queries)
{
    constexpr int PITCH = WIDTH + 8;
    typedef packed_t<G::PER, __nv_bfloat16> packed;
    int lane = (int)threadIdx.x % WARP, at = lane % G::LANES * G::PER;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = sum_lanes<4>(tile.total[half]), factor = total > 0 ? 1.0f / total : 0.0f;

#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
            *reinterpret_cast<uint32_t *>(shared_out + (half * 8 + lane / 4) * PITCH + n * 8 + lane % 4 * 2) =
                pair(tile.sum[n][half * 2] * factor, tile.sum[n][half * 2 + 1] * factor);
    }
    __syncwarp();
#pragma unroll
    for (int i = lane / G::LANES; i < TILE_QUERIES; i += WARP / G::LANES)
        if (i < queries && at < op.head_dim) {
#pragma unroll
            for (int w = 0; w < packed::WORDS; w++)
                __stwb(reinterpret_cast<typename packed::word *>(out + i * width + at) + w,
                       reinterpret_cast<const typename packed::word *>(shared_out + i * PITCH + at)[w]);
        }
}

template <typename G>
static __global__ void __launch_bounds__(threads_most(G::LANES *G::PER))
    attention_tiles_kernel(const attention_t op, int tiles, int warps, int chunk)
{
    typedef __nv_bfloat16 T;
    constexpr int WIDTH = G::LANES * G::PER, PITCH = WIDTH + 8;
    extern __shared__ uint4 shared[]; /* k, v [chunk][PITCH]; q, later out, [queries][PITCH]; flags [chunk] */
    int queries = warps * TILE_QUERIES, warp = (int)threadIdx.x / WARP, lane_id = (int)threadIdx.x % WARP;
    int64_t row = blockIdx.x / tiles / op.heads, head = blockIdx.x / tiles % op.heads;
    bool extend = op.mode == BACKEND_ATTENTION_EXTEND, encode = op.mode == BACKEND_ATTENTION_ENCODE;
    stage_t<T> stage = {attention_lane_t<T>(op, row, head)};
    const attention_lane_t<T> &lane = stage.lane;
    tile_t<WIDTH> tile;

    stage.first_token = (int)(blockIdx.x % tiles) * queries;
    stage.end_token = min(stage.first_token + queries, op.tokens);
    stage.shared_k = reinterpret_cast<T *>(shared);
    stage.shared_v = stage.shared_k + chunk * PITCH;
    stage.shared_q = stage.shared_v + chunk * PITCH;
    stage.flags = reinterpret_cast<uint8_t *>(stage.shared_q + queries * PITCH);

    begin();
    int step = extend ? *op.step : 0, done = step * op.step_tokens;
    stage.first = op.first != NULL ? op.first[lane.prefix_row] : 0;
    stage.prefix = extend ? op.prefix_tokens : 0;
    stage.own = stage.prefix + (extend ? done : 0);
    stage.column = step * op.step_columns;
    stage.to_k = encode ? NULL : extend ? lane.tail_k + (int64_t)done * op.head_dim : lane.prefix_k;
    stage.to_v = encode ? NULL : extend ? lane.tail_v + (int64_t)done * op.head_dim : lane.prefix_v;
    stage.visible = op.visible != NULL ? op.visible + lane.prefix_row * (extend ? op.prefix_tokens : op.tokens) : NULL;
    stage.flagged = op.visible == NULL ? 0 : extend ? op.prefix_tokens : op.tokens;
    int begin_key = extend || encode ? stage.first : min(stage.first, stage.first_token);
    int end_key = stage.own + (encode ? op.tokens : stage.end_token), warp_first = stage.first_token + warp * TILE_QUERIES;
    bool wants_1 = true;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int token = min(warp_first + half * 8 + lane_id / 4, op.tokens - 1);

        tile.most[half] = -INFINITY;
        tile.total[half] = 0;
        tile.limit[half] = !encode ? stage.own + token + 1 : token >= stage.first ? op.tokens : 0;
        tile.wanted[half] = stage.visible != NULL && !extend && stage.visible[token] == 0 ? SEEN_BY_0 : SEEN_BY_1;
        tile.bias[half] = op.bias != NULL ? op.bias + head * (2 * op.tokens - 1) + op.tokens - 1 - token : NULL;
        wants_1 = wants_1 && tile.wanted[half] == SEEN_BY_1;
    }
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            tile.sum[n][i] = 0;
    /* All of the warp's queries see ordinary keys below `plain_end`, and none from `warp_end` on. */
    int plain_end = !__all_sync(0xffffffffu, wants_1) || (encode && warp_first < stage.first) ? 0
                    : encode                                                                  ? op.tokens
                                                                                              : stage.own + warp_first + 1;
    int warp_end = encode ? end_key : min(end_key, stage.own + warp_first + TILE_QUERIES);

#pragma unroll 1
    for (int from = begin_key; from < end_key; from += chunk) {
        int count = min(chunk, end_key - from), padded = (count + STEP_KEYS - 1) / STEP_KEYS * STEP_KEYS;

        if (from > begin_key)
            __syncthreads(); /* the chunk before is done with */
        bool ordinary = bring_in<G>(op, stage, from, count, padded, from == begin_key ? queries : 0);
        ordinary = __syncthreads_and(ordinary);
        if (warp >= warps)
            continue;
        if (from == begin_key)
#pragma unroll
            for (int k = 0; k < WIDTH / 16; k++)
                load_matrices(tile.q[k], stage.shared_q + (warp * TILE_QUERIES + lane_id % 16) * PITCH + k * 16 + lane_id / 16 * 8);
#pragma unroll 1
        for (int slot = 0; slot < count && from + slot < warp_end; slot += STEP_KEYS) {
            int key = from + slot;
            bool plain = ordinary && key >= stage.first && slot + STEP_KEYS <= count && key + STEP_KEYS <= plain_end;

            attend_tile<WIDTH, PITCH>(tile, stage.shared_k + slot * PITCH, stage.shared_v + slot * PITCH, stage.flags + slot, key,
                                      count - slot, plain, op.scale * (float)M_LOG2E);
        }
    }
    if (warp < warps)
        write_tile<G, WIDTH>(op, tile, stage.shared_q + warp * TILE_QUERIES * PITCH, lane.out + warp_first * lane.width, lane.width,
                             op.tokens - warp_first);
}

/* ---- launching --------------------------------------------------------------------------------------------------------------- */

template <typename G> static int tiles_launch(const attention_t &op, cudaStream_t stream)
{
    constexpr int WIDTH = G::LANES * G::PER;
    constexpr size_t PITCH_BYTES = (WIDTH + 8) * sizeof(__nv_bfloat16);
    int keys = op.mode == BACKEND_ATTENTION_EXTEND ? op.prefix_tokens + op.tail_tokens : op.tokens;
    int all_warps = (int)blocks_for(op.tokens, TILE_QUERIES);
    bool few = op.rows * op.heads * blocks_for(all_warps, TILE_WARPS_ALONE) <= FEW_BLOCKS;
    int tiles = (int)blocks_for(all_warps, few ? TILE_WARPS_ALONE : TILE_WARPS), warps = (int)blocks_for(all_warps, tiles);
    int threads = few ? threads_most(WIDTH) : warps * WARP > STAGE_THREADS ? warps * WARP : STAGE_THREADS;
    size_t queries_bytes = (size_t)(warps * TILE_QUERIES) * PITCH_BYTES;
    int fits = (int)((SHARED_MOST - queries_bytes) / (2 * PITCH_BYTES + 1)) / STEP_KEYS * STEP_KEYS;
    int chunks = (int)blocks_for(keys, fits), chunk = (int)blocks_for(blocks_for(keys, chunks), STEP_KEYS) * STEP_KEYS;

    return launch("attention (tiles)", attention_tiles_kernel<G>, (unsigned)(op.rows * op.heads * tiles), (unsigned)threads,
                  queries_bytes + (size_t)chunk * (2 * PITCH_BYTES + 1), stream, op, tiles, warps, chunk);
}

bool cuda_attention_tiles_fits(const attention_t &op)
{
    return op.head_dim <= 128 && op.head_dim % 4 == 0 && op.rotary_dim % 4 == 0;
}

int cuda_attention_tiles(const attention_t &op, cudaStream_t stream)
{
    int both = op.head_dim | op.rotary_dim;

    if (both % 8 == 0)
        return op.head_dim <= 64 ? tiles_launch<geometry_t<8, 8, __nv_bfloat16>>(op, stream)
                                 : tiles_launch<geometry_t<8, 16, __nv_bfloat16>>(op, stream);
    return op.head_dim <= 64 ? tiles_launch<geometry_t<4, 16, __nv_bfloat16>>(op, stream)
                             : tiles_launch<geometry_t<4, 32, __nv_bfloat16>>(op, stream);
}
