/* Attention of many tokens a row with tensor cores, BF16: PREFILL, ENCODE and EXTEND as in attention_rows.cu, with F32 scores and sums.
 *
 * A block a row, head and tile of queries, 16 a warp (attention_tile.cuh). The keys that the tile sees go through shared memory in chunks,
 * the next one on its way while the warps work on this one, each key with two bits that say which queries see it. PLACED: attention_place.cu
 * has put the tokens' own keys and values into the cache and the queries into `out`, and all is copied as it lies there. Otherwise a block
 * normalises and rotates its queries and the tokens' keys on the way, and stores what its own tokens add to the cache. Where blocks are few,
 * several warps share 16 queries, each with its part of the keys, and join what they saw in the end. Keys are counted over prefix, tail
 * and own tokens. */
#include "gpuworker/backend/cuda/attention_place.cuh"
#include "gpuworker/backend/cuda/attention_tile.cuh"

enum {
    UNROLL_FIRST = 3,            /* vectors of a group on their way at once, of the first chunk */
    UNROLL_NEXT = 1,             /* and of the next ones, beside the tile's own registers */
    NARROW = 64,                 /* heads whose tiles leave room for several blocks on a multiprocessor, */
    WARPS_PLACED = 8,            /* of so many warps at most, which keep their queries in registers, */
    WARPS_PLACING = 9,           /* or of so many: the fewer tiles, the fewer keys are placed twice */
    SHARED_TOGETHER = 220 << 10, /* bytes of several blocks, */
    SHARED_ALONE = 224 << 10,    /* of one alone */
    CHUNK_KEYS = 128,            /* that are enough for a tile whose warps each see all */
    PLACE_TOKENS = 200,          /* worth a kernel of its own (attention_place.cu), if several tiles see them, */
    PLACE_TOKENS_MANY = 48,      /* and more than these where blocks are many */
};

/* How the work is cut. */
typedef struct {
    int tiles, query_warps, parts; /* of a row and head; of a tile: 16 queries each, and warps that share them */
    int blocks;                    /* that a multiprocessor has at once */
    int chunk;                     /* keys */
} cut_t;

/* ---- bringing keys and queries in -------------------------------------------------------------------------------------------- */

/* What a block works on. Keys are numbers in prefix, tail before, own tokens. */
template <typename T> struct stage_t {
    attention_lane_t<T> lane;
    int first_token, end_token;     /* the tile */
    int first, prefix, own, cached; /* visible from here; where the tail, the own tokens, those that are not in the cache begin */
    const int32_t *index;           /* of the rotation, of the own tokens' first */
    const uint8_t *visible;         /* of keys below `flagged` */
    int flagged;
    T *shared_q;
};

template <typename T> struct chunk_t {
    T *k, *v;
    uint8_t *flags;
};

/* Starts the copies of vectors, that of row i from `from` + i · stride, to rows begin .. end - 1 of `to`. */
template <typename G>
static __device__ __forceinline__ void copy_rows(const attention_t &op, typename G::T *to, const typename G::T *from,
                                                 int64_t stride, int begin, int end)
{
    constexpr int PITCH = G::LANES * G::PER + TILE_GAP;
    int at = (int)threadIdx.x % G::LANES * G::PER, groups = (int)blockDim.x / G::LANES, row = begin + (int)threadIdx.x / G::LANES;
    bool wanted = at < op.head_dim;
    const typename G::T *source = wanted ? from + row * stride + at : from;
    int64_t step = wanted ? groups * stride : 0;

#pragma unroll 4
    for (; row < end; row += groups, source += step)
        ptx_copy<G::PER *(int)sizeof(*to)>(to + row * PITCH + at, source, wanted);
}

template <typename G> static __device__ __forceinline__ void clear_rows(typename G::T *to, int begin, int end)
{
    typedef typename packed_t<G::PER, typename G::T>::word word;
    constexpr int PITCH = G::LANES * G::PER + TILE_GAP;

    for (int row = begin + (int)threadIdx.x / G::LANES; row < end; row += (int)blockDim.x / G::LANES)
        *reinterpret_cast<word *>(to + row * PITCH + (int)threadIdx.x % G::LANES * G::PER) = word{};
}

/* Starts the copies of keys and values from .. from + count - 1, zeros after them up to a full product; all but keys that have to be placed. */
template <typename G>
static __device__ __forceinline__ void copy_in(const attention_t &op, const stage_t<typename G::T> &stage,
                                               const chunk_t<typename G::T> &chunk, int from, int count)
{
    const attention_lane_t<typename G::T> &lane = stage.lane;
    int prefix = min(max(stage.prefix - from, 0), count), cached = min(max(stage.cached - from, 0), count);
    int padded = (count + TILE_QUERIES - 1) / TILE_QUERIES * TILE_QUERIES, width = (int)lane.width;
    int64_t in_prefix = (int64_t)from * op.head_dim, in_tail = (int64_t)(from - stage.prefix) * op.head_dim;

    if (prefix > 0) {
        copy_rows<G>(op, chunk.k, lane.prefix_k + in_prefix, op.head_dim, 0, prefix);
        copy_rows<G>(op, chunk.v, lane.prefix_v + in_prefix, op.head_dim, 0, prefix);
    }
    if (prefix < cached) {
        copy_rows<G>(op, chunk.k, lane.tail_k + in_tail, op.head_dim, prefix, cached);
        copy_rows<G>(op, chunk.v, lane.tail_v + in_tail, op.head_dim, prefix, cached);
    }
    if (cached < count)
        copy_rows<G>(op, chunk.v, lane.qkv + 2 * width + (int64_t)(from - stage.own) * 3 * width, 3 * width, cached, count);
    if (count < padded) {
        clear_rows<G>(chunk.k, count, padded);
        clear_rows<G>(chunk.v, count, padded);
    }
}

/* Places keys of `keys` tokens from `token` on into rows from `to` on, and `queries` of the tile, the last token's again past it. */
template <typename G, int UNROLL>
static __device__ __forceinline__ void place_rows(const attention_t &op, const stage_t<typename G::T> &stage, typename G::T *to,
                                                  int token, int keys, int queries)
{
    typedef typename G::T T;
    constexpr int PITCH = G::LANES * G::PER + TILE_GAP, RUN = placed_t<G>::RUN, EACH = WARP / G::LANES;
    int groups = (int)blockDim.x / G::LANES, group = (int)threadIdx.x / G::LANES, width = (int)stage.lane.width,
        all = keys + queries;
    place_t<G> place(op);

#pragma unroll 1
    for (int turn = group; turn / EACH * EACH < all; turn += groups * UNROLL) {
        placed_t<G> part[UNROLL];
        rotation_t<G> rotation[UNROLL];
        int from[UNROLL], index[UNROLL] = {};

#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            int item = min(turn + u * groups, all - 1); /* surplus groups repeat the last one */

            from[u] = item < keys ? token + item : min(stage.first_token + item - keys, op.tokens - 1);
            if (op.table != NULL)
                index[u] = stage.index[from[u]];
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            bool key = turn + u * groups < keys;

            part[u].fetch(place, stage.lane.qkv + (int64_t)from[u] * (3 * width) + (key ? width : 0));
            rotation[u].fetch(op, place, index[u], key);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            int item = turn + u * groups;
            bool key = item < keys;
            T *row = key ? to + item * PITCH : stage.shared_q + (item - keys) * PITCH;

            part[u].finish(op, place, rotation[u], key);
            part[u].multiply(key ? 1.0f : op.scale * (float)M_LOG2E);
            if (item < all) {
                store_shared<RUN>(row + place.low, part[u].low);
                store_shared<RUN>(row + place.high, part[u].high);
            }
        }
    }
}

/* Brings keys and values from .. from + count - 1 of what the tile sees into the chunk, and `queries` of the tile; all are there once
 * ptx_copies_wait() returns. False: some key is seen not by all who see 1. */
template <typename G, int UNROLL, bool PLACED>
static __device__ __forceinline__ bool bring_in(const attention_t &op, const stage_t<typename G::T> &stage,
                                                const chunk_t<typename G::T> &chunk, int from, int count, int queries)
{
    constexpr int PITCH = G::LANES * G::PER + TILE_GAP;
    int flags = (count + STEP_KEYS - 1) / STEP_KEYS * STEP_KEYS;
    auto flag_of = [&](int at) -> uint8_t {
        return at >= count || from + at < stage.first ? 0
               : from + at >= stage.flagged           ? SEEN
               : stage.visible[from + at] == 0        ? SEEN_BY_0
                                                      : SEEN_BY_1;
    };
    uint8_t flag = flag_of((int)threadIdx.x); /* on its way while the rest is */
    bool ordinary = true;

    copy_in<G>(op, stage, chunk, from, count);
    if constexpr (PLACED) {
        int there = min(queries, max(op.tokens - stage.first_token, 0));

        copy_rows<G>(op, stage.shared_q, stage.lane.out + stage.first_token * stage.lane.width, stage.lane.width, 0, there);
        clear_rows<G>(stage.shared_q, there, queries);
    } else {
        int slot = min(max(stage.cached - from, 0), count);

        place_rows<G, UNROLL>(op, stage, chunk.k + slot * PITCH, from + slot - stage.own, count - slot, queries);
    }
    for (int at = (int)threadIdx.x; at < flags; at += (int)blockDim.x, flag = flag_of(at)) {
        chunk.flags[at] = flag;
        ordinary = ordinary && flag != SEEN_BY_0;
    }
    return ordinary;
}

/* ---- what goes out ----------------------------------------------------------------------------------------------------------- */

/* The tile's own tokens among keys from .. from + count - 1, to the cache: the tokens' first at to_k, to_v. */
template <typename G>
static __device__ __forceinline__ void store_own(const attention_t &op, const stage_t<typename G::T> &stage,
                                                 const chunk_t<typename G::T> &chunk, int from, int count, typename G::T *to_k,
                                                 typename G::T *to_v)
{
    typedef typename G::T T;
    typedef packed_t<G::PER, T> packed;
    constexpr int PITCH = G::LANES * G::PER + TILE_GAP;
    int at = (int)threadIdx.x % G::LANES * G::PER, end = min(count, stage.own + stage.end_token - from);

    for (int slot = max(stage.own + stage.first_token - from, 0) + (int)threadIdx.x / G::LANES; slot < end;
         slot += (int)blockDim.x / G::LANES) {
        int64_t cache = (int64_t)(from + slot - stage.own) * op.head_dim + at;

        if (at < op.head_dim) {
            __stwb(reinterpret_cast<typename packed::word *>(to_k + cache),
                   *reinterpret_cast<const typename packed::word *>(chunk.k + slot * PITCH + at));
            __stwb(reinterpret_cast<typename packed::word *>(to_v + cache),
                   *reinterpret_cast<const typename packed::word *>(chunk.v + slot * PITCH + at));
        }
    }
}

/* A warp's queries, from shared memory. */
template <typename G>
static __device__ __forceinline__ void write_tile(const attention_t &op, const __nv_bfloat16 *shared_out, __nv_bfloat16 *out,
                                                  int64_t width, int queries)
{
    typedef packed_t<G::PER, __nv_bfloat16> packed;
    constexpr int PITCH = G::LANES * G::PER + TILE_GAP;
    int lane = (int)threadIdx.x % WARP, at = lane % G::LANES * G::PER;

#pragma unroll
    for (int i = lane / G::LANES; i < TILE_QUERIES; i += WARP / G::LANES)
        if (i < queries && at < op.head_dim)
            __stwb(reinterpret_cast<typename packed::word *>(out + i * width + at),
                   *reinterpret_cast<const typename packed::word *>(shared_out + i * PITCH + at));
}

/* ---- the kernel -------------------------------------------------------------------------------------------------------------- */

template <typename G, int WARPS, int BLOCKS, bool SEVERAL, bool PLACED>
static __global__ void __launch_bounds__(WARPS *WARP, BLOCKS) attention_tiles_kernel(const attention_t op, const cut_t cut)
{
    typedef __nv_bfloat16 T;
    constexpr int WIDTH = G::LANES * G::PER, PITCH = WIDTH + TILE_GAP;
    constexpr bool KEPT = WIDTH <= NARROW && WARPS * BLOCKS <= 16; /* there are registers for it */
    /* k, v [chunk][PITCH], once or twice; q, later out, [queries][PITCH]; flags [chunk], as often as k. In the end what the parts give. */
    extern __shared__ uint4 shared[];
    int queries = cut.query_warps * TILE_QUERIES, parts = BLOCKS > 1 ? 1 : cut.parts, buffers = SEVERAL ? 2 : 1;
    int warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / WARP, 0); /* which tells the compiler that it is uniform */
    int lane_id = (int)threadIdx.x % WARP;
    int query_warp = warp % cut.query_warps, part = warp / cut.query_warps;
    int64_t row = blockIdx.x / op.heads, head = blockIdx.x % op.heads;
    bool extend = op.mode == BACKEND_ATTENTION_EXTEND, encode = op.mode == BACKEND_ATTENTION_ENCODE;
    stage_t<T> stage = {attention_lane_t<T>(op, row, head)};
    const attention_lane_t<T> &lane = stage.lane;

    stage.first_token = (int)(gridDim.y - 1 - blockIdx.y) * queries; /* those that see most go first */
    stage.end_token = min(stage.first_token + queries, op.tokens);
    T *keys = reinterpret_cast<T *>(shared);
    stage.shared_q = keys + (int64_t)buffers * 2 * cut.chunk * PITCH;
    uint8_t *flags = reinterpret_cast<uint8_t *>(stage.shared_q + queries * PITCH);
    T *tile_q = stage.shared_q + query_warp * TILE_QUERIES * PITCH;

    begin();
    int step = extend ? *op.step : 0, done = step * op.step_tokens;
    stage.first = op.first != NULL ? op.first[lane.prefix_row] : 0;
    stage.prefix = extend ? op.prefix_tokens : PLACED ? op.tokens : 0;
    stage.own = extend ? op.prefix_tokens + done : 0;
    stage.cached = PLACED ? INT32_MAX : stage.own;
    stage.index = op.index + lane.prefix_row * op.index_stride + step * op.step_columns;
    stage.visible = op.visible != NULL ? op.visible + lane.prefix_row * (extend ? op.prefix_tokens : op.tokens) : NULL;
    stage.flagged = op.visible == NULL ? 0 : extend ? op.prefix_tokens : op.tokens;
    bool stores = !PLACED && !encode;
    T *to_k = extend ? lane.tail_k + (int64_t)done * op.head_dim : lane.prefix_k;
    T *to_v = extend ? lane.tail_v + (int64_t)done * op.head_dim : lane.prefix_v;
    int begin_key = !stores || extend ? stage.first : min(stage.first, stage.first_token);
    int end_key = stage.own + (encode ? op.tokens : stage.end_token), tile_first = stage.first_token + query_warp * TILE_QUERIES;
    auto chunk_of = [&](int turn) {
        T *k = keys + (int64_t)(turn % 2) * 2 * cut.chunk * PITCH;
        return chunk_t<T>{k, k + cut.chunk * PITCH, flags + turn % 2 * cut.chunk};
    };
    /* None where the tile is padding: then there is nothing to bring in, nor to wait for. */
    int first_count = max(min(cut.chunk, end_key - begin_key), 0);
    bool ordinary =
        bring_in<G, UNROLL_FIRST, PLACED>(op, stage, chunk_of(0), begin_key, first_count, first_count > 0 ? queries : 0);
    tile_t<WIDTH, KEPT> tile(tile_q);
    bool wants_1 = true;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int token = min(tile_first + half * 8 + lane_id / 4, op.tokens - 1);

        tile.limit[half] = !encode ? stage.own + token + 1 : token >= stage.first ? op.tokens : 0;
        tile.wanted[half] = stage.visible != NULL && !extend && stage.visible[token] == 0 ? SEEN_BY_0 : SEEN_BY_1;
        tile.bias[half] = op.bias != NULL ? op.bias + head * (2 * op.tokens - 1) + op.tokens - 1 - token : NULL;
        wants_1 = wants_1 && tile.wanted[half] == SEEN_BY_1;
    }
    /* All of the tile's queries see ordinary keys below `plain_end`, and none from `tile_end` on. */
    int plain_end = !__all_sync(0xffffffffu, wants_1) || (encode && tile_first < stage.first) ? 0
                    : encode                                                                  ? op.tokens
                                                                                              : stage.own + tile_first + 1;
    int tile_end = encode ? end_key : min(end_key, stage.own + tile_first + TILE_QUERIES);

    ptx_copies_wait();
    ordinary = __syncthreads_and(ordinary); /* the first chunk is there */
    tile.take_queries();
#pragma unroll 1
    for (int turn = 0, from = begin_key; from < end_key; turn++, from += cut.chunk) {
        chunk_t<T> chunk = chunk_of(turn);
        int count = min(cut.chunk, end_key - from), next = from + cut.chunk;
        int number = (from - begin_key) / STEP_KEYS % parts; /* of the chunk's first step */
        bool next_ordinary = true;

        if constexpr (SEVERAL) {
            if (next < end_key)
                next_ordinary =
                    bring_in<G, UNROLL_NEXT, PLACED>(op, stage, chunk_of(turn + 1), next, min(cut.chunk, end_key - next), 0);
        }
        if (stores)
            store_own<G>(op, stage, chunk, from, count, to_k, to_v);
#pragma unroll 1
        for (int slot = (part + parts - number) % parts * STEP_KEYS; slot < count && from + slot < tile_end;
             slot += parts * STEP_KEYS) {
            int key = from + slot;
            const T *k = chunk.k + slot * PITCH, *v = chunk.v + slot * PITCH;

            if (ordinary && key >= stage.first && slot + STEP_KEYS <= count && key + STEP_KEYS <= plain_end)
                tile.template attend<true>(k, v, chunk.flags + slot, key, STEP_KEYS);
            else
                tile.template attend<false>(k, v, chunk.flags + slot, key, min(count - slot, tile_end - key));
        }
        if (!SEVERAL || next >= end_key)
            break;
        ptx_copies_wait();
        ordinary = __syncthreads_and(next_ordinary); /* the next chunk is there, and this one done with */
    }
    if (parts == 1) {
        tile.finish(tile_q);
        __syncwarp();
        write_tile<G>(op, tile_q, lane.out + tile_first * lane.width, lane.width, op.tokens - tile_first);
        return;
    }
    __syncthreads(); /* all keys are done with */
    float *sums = reinterpret_cast<float *>(shared);
    float2 *seen = reinterpret_cast<float2 *>(sums + (int64_t)parts * queries * PITCH);
    tile.give(sums + (int64_t)warp * TILE_QUERIES * PITCH, seen + warp * TILE_QUERIES);
    __syncthreads();
    parts = min(parts, max(end_key - begin_key + STEP_KEYS - 1, 0) / STEP_KEYS); /* the others saw nothing */
    for (int query = (int)threadIdx.x / G::LANES; query < stage.end_token - stage.first_token;
         query += (int)blockDim.x / G::LANES) {
        int at = (int)threadIdx.x % G::LANES * G::PER;
        float value[G::PER];

        join_tiles<WIDTH, G::PER>(value, sums + (int64_t)query * PITCH, seen + query, parts, queries, at);
        if (at < op.head_dim)
            store<G::PER>(lane.out + (stage.first_token + query) * lane.width + at, value);
    }
}

/* ---- launching --------------------------------------------------------------------------------------------------------------- */

/* Tiles of as many queries as `warps` can take when `parts` of them share 16 each. */
static cut_t cut_for(const attention_t &op, int warps, int parts, int blocks)
{
    int all = (int)blocks_for(op.tokens, TILE_QUERIES);
    cut_t cut = {};

    cut.tiles = (int)blocks_for(all, warps / parts);
    cut.query_warps = (int)blocks_for(all, cut.tiles);
    cut.parts = parts;
    cut.blocks = blocks;
    return cut;
}

/* The tiles that keep most of the warps at work for which a multiprocessor has registers, two blocks' WARPS_PLACED; the largest such. */
static cut_t cut_to_fill(const attention_t &op)
{
    cut_t best = {};
    int best_busy = -1;

    for (int warps = WARPS_PLACED; warps >= WARPS_PLACED / 2; warps--) {
        cut_t cut = cut_for(op, warps, 1, 1);
        int there = cut.tiles * cut.query_warps; /* in a row and head, some without queries */

        cut.blocks = min(2 * WARPS_PLACED / cut.query_warps, 4);
        int busy = 256 * cut.blocks * cut.query_warps * (int)blocks_for(op.tokens, TILE_QUERIES) / there;
        if (busy > best_busy) {
            best = cut;
            best_busy = busy;
        }
    }
    return best;
}

template <typename G, int WARPS, int BLOCKS, bool PLACED>
static int tiles_launch_cut(const attention_t &op, cut_t cut, cudaStream_t stream)
{
    constexpr size_t PITCH = G::LANES * G::PER + TILE_GAP, ROW_BYTES = PITCH * sizeof(__nv_bfloat16), KEY_BYTES = 2 * ROW_BYTES + 1,
                     JOIN_BYTES = PITCH * sizeof(float) + sizeof(float2); /* that a warp gives of a query */
    constexpr bool ALWAYS = G::LANES * G::PER > NARROW; /* several chunks: wide heads are too rare for a kernel more */
    size_t most_bytes = (size_t)(cut.blocks == 1 ? (int)SHARED_ALONE : SHARED_TOGETHER / cut.blocks),
           queries = (size_t)(cut.query_warps * TILE_QUERIES), join_bytes = cut.parts > 1 ? cut.parts * queries * JOIN_BYTES : 0;
    int keys = (int)blocks_for(op.mode == BACKEND_ATTENTION_EXTEND ? op.prefix_tokens + op.tail_tokens : op.tokens, STEP_KEYS);
    int fits = (int)((most_bytes - queries * ROW_BYTES) / KEY_BYTES) / STEP_KEYS; /* steps, as keys */
    bool several = keys > fits || ALWAYS;
    int most = !several ? keys : cut.parts == 1 ? min(fits / 2, CHUNK_KEYS / STEP_KEYS) : fits / 2;

    cut.chunk = min(keys, most) * STEP_KEYS;
    if constexpr (PLACED) {
        int rc = cuda_attention_place(op, BACKEND_BF16, stream);
        if (rc < 0)
            return rc;
    }
    size_t bytes = queries * ROW_BYTES + (several ? 2 : 1) * (size_t)cut.chunk * KEY_BYTES;

    return launch("attention (tiles)",
                  several ? attention_tiles_kernel<G, WARPS, BLOCKS, true, PLACED>
                          : attention_tiles_kernel<G, WARPS, BLOCKS, ALWAYS, PLACED>,
                  dim3((unsigned)(op.rows * op.heads), (unsigned)cut.tiles), (unsigned)(cut.query_warps * cut.parts * WARP),
                  bytes > join_bytes ? bytes : join_bytes, stream, op, cut);
}

/* With all of a multiprocessor. */
template <typename G, int WARPS> static int tiles_launch_alone(const attention_t &op, cut_t cut, cudaStream_t stream)
{
    bool placed = op.mode != BACKEND_ATTENTION_ENCODE && cut.tiles > 1 && op.tokens >= PLACE_TOKENS;

    return placed ? tiles_launch_cut<G, WARPS, 1, true>(op, cut, stream) : tiles_launch_cut<G, WARPS, 1, false>(op, cut, stream);
}

/* Where a block a multiprocessor is enough, it has all of it, and the keys are cut into as many parts as that allows. */
template <typename G> static int tiles_launch(const attention_t &op, cudaStream_t stream)
{
    constexpr int WIDTH = G::LANES * G::PER, ALONE = WIDTH <= NARROW ? 16 : WIDTH <= 2 * NARROW ? 8 : 4;

    for (int parts = ALONE; parts > 1; parts /= 2) {
        cut_t cut = cut_for(op, ALONE, parts, 1);
        if (op.rows * op.heads * cut.tiles <= SMS)
            return tiles_launch_alone<G, ALONE>(op, cut, stream);
    }
    if constexpr (WIDTH > NARROW)
        return tiles_launch_alone<G, ALONE>(op, cut_for(op, ALONE, 1, 1), stream);
    else if (op.mode != BACKEND_ATTENTION_ENCODE && op.tokens > PLACE_TOKENS_MANY)
        return tiles_launch_cut<G, WARPS_PLACED, 2, true>(op, cut_to_fill(op), stream);
    else
        return tiles_launch_cut<G, WARPS_PLACING, 2, false>(op, cut_for(op, WARPS_PLACING, 1, 2), stream);
}

bool cuda_attention_tiles_fits(const attention_t &op)
{
    int both = op.head_dim | op.rotary_dim;

    return op.head_dim <= 256 && (both % 8 == 0 || (op.head_dim <= 128 && both % 4 == 0));
}

int cuda_attention_tiles(const attention_t &op, cudaStream_t stream)
{
    int both = op.head_dim | op.rotary_dim;

    if (both % 8 == 0)
        return op.head_dim <= 64    ? tiles_launch<geometry_t<8, 8, __nv_bfloat16>>(op, stream)
               : op.head_dim <= 128 ? tiles_launch<geometry_t<8, 16, __nv_bfloat16>>(op, stream)
                                    : tiles_launch<geometry_t<8, 32, __nv_bfloat16>>(op, stream);
    return op.head_dim <= 64 ? tiles_launch<geometry_t<4, 16, __nv_bfloat16>>(op, stream)
                             : tiles_launch<geometry_t<4, 32, __nv_bfloat16>>(op, stream);
}
