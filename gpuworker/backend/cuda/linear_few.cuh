/* The parts of which linear_few.cu is made, whose head tells the whole: how a block brings its rows of W to shared memory and its rows of x to
 * registers, what a norm makes of x, and the product of both. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_LINEAR_FEW_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_LINEAR_FEW_CUH

#include "gpuworker/backend/cuda/launch.cuh"
#include "gpuworker/backend/cuda/ptx.cuh"

enum {
    FEW_WARPS = 8,
    NARROW_WARPS = 12, /* under narrow blocks, whose lanes have the registers to spare */
    FEW_ROWS_MOST = 32,
    FEW_SHARED_MOST = 227 << 10,
    TILE = 8, /* outputs of one mma */
    TILES_MOST = 6,
    HALF = 8,         /* rows of x that a lane holds one of; an mma takes two halves */
    GROUP = 2 * HALF, /* the most rows of a block */
    CHUNK = 32,       /* k of two mma */
    VECTOR = 8,       /* elements that a lane moves at once */
    SHORT = 1024,     /* the longest row in F32 of which a lane holds its part of all chunks */
};

/* Chunks of a row that a lane holds at once. */
static __host__ __device__ constexpr int short_batch(int warps)
{
    return (SHORT / CHUNK + warps - 1) / warps;
}

/* The same for longer rows, of BF16. */
static __host__ __device__ constexpr int long_batch(int halves)
{
    return (halves == 1 ? 3 : 2) * short_batch(FEW_WARPS);
}

typedef struct {
    const void *x;
    int64_t x_stride, y_stride;
    int rows, each, in, out; /* each: rows of a block; out: of W */
    const float *norm_scale, *norm_shift;
    backend_norm_kind_t norm;
    float eps, per_in;                                       /* 1 / in */
    const float *modulation_scale, *modulation_shift, *gate; /* the vectors of row r at r / rows_each · stride */
    int64_t modulation_stride;
    int rows_each;
    const __nv_bfloat16 *weight;
    const float *bias, *residual, *offset;
    backend_activation_t activation;
    void *y;
    bool y_bf16;
} few_t;

/* Floats between the rows of partial sums: the rows of a fragment hit different banks. */
static __host__ __device__ constexpr int partial_pitch(int tiles)
{
    return (tiles % 2 == 0 ? tiles + 1 : tiles) * TILE;
}

/* Elements between rows of W in shared memory, so that neighbouring ones hit different banks. */
static __host__ __device__ constexpr int pitch_of(int in)
{
    return in + CHUNK;
}

/* ---- bringing W in ----------------------------------------------------------------------------------------------------------- */

/* Starts the copy of `count` rows of W, number i being row row_of(i), to rows pitch_of(in) apart; `arrived` completes when all are
 * there. By the first warp; the others may wait after a __syncthreads. */
template <typename F>
static __device__ __forceinline__ void fetch_rows(const few_t &op, __nv_bfloat16 *to, int count, F row_of, uint64_t *arrived)
{
    uint32_t bytes = (uint32_t)op.in * (uint32_t)sizeof(__nv_bfloat16);

    if (threadIdx.x == 0)
        ptx_bulk_expect(arrived, bytes * (uint32_t)count);
    __syncwarp();
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < count; i += WARP)
        ptx_bulk_copy(to + i * pitch_of(op.in), op.weight + (int64_t)min(row_of(i), op.out - 1) * op.in, bytes, arrived);
}

/* ---- bringing x in ----------------------------------------------------------------------------------------------------------- */

/* Eight neighbouring values of x as they lie in memory, and made into what the tensor cores take. */
template <typename X> struct x_part_t;

template <> struct x_part_t<__nv_bfloat16> {
    uint4 raw;

    __device__ __forceinline__ void fetch(const __nv_bfloat16 *x, bool there)
    {
        raw = there ? *reinterpret_cast<const uint4 *>(x) : uint4{};
    }

    __device__ __forceinline__ uint4 finish(const float *, float &) const
    {
        return raw;
    }

    __device__ __forceinline__ void sum_up(float &, float &) const
    {
    }

    __device__ __forceinline__ uint4 finish_whole(const float *, const float *, float, float) const
    {
        return raw;
    }
};

template <> struct x_part_t<float> {
    float4 raw[2];

    __device__ __forceinline__ void fetch(const float *x, bool there)
    {
#pragma unroll
        for (int i = 0; i < 2; i++)
            raw[i] = there ? reinterpret_cast<const float4 *>(x)[i] : float4{};
    }

    /* x · scale, which is in shared memory. */
    __device__ __forceinline__ uint4 finish(const float *scale, float &squares) const
    {
        uint32_t packed[4];

#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float4 &x = raw[i], a = reinterpret_cast<const float4 *>(scale)[i];

            squares += (x.x * x.x + x.y * x.y) + (x.z * x.z + x.w * x.w);
            packed[2 * i] = ptx_pair(x.x * a.x, x.y * a.y);
            packed[2 * i + 1] = ptx_pair(x.z * a.z, x.w * a.w);
        }
        return make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }

    __device__ __forceinline__ void sum_up(float &sum, float &squares) const
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum += (raw[i].x + raw[i].y) + (raw[i].z + raw[i].w);
            squares += (raw[i].x * raw[i].x + raw[i].y * raw[i].y) + (raw[i].z * raw[i].z + raw[i].w * raw[i].w);
        }
    }

    /* (x · factor + add) · scale + shift; the latter two are in shared memory. */
    __device__ __forceinline__ uint4 finish_whole(const float *scale, const float *shift, float factor, float add) const
    {
        uint32_t packed[4];

#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float4 &x = raw[i], a = reinterpret_cast<const float4 *>(scale)[i],
                         b = reinterpret_cast<const float4 *>(shift)[i];

            packed[2 * i] = ptx_pair((x.x * factor + add) * a.x + b.x, (x.y * factor + add) * a.y + b.y);
            packed[2 * i + 1] = ptx_pair((x.z * factor + add) * a.z + b.z, (x.w * factor + add) * a.w + b.w);
        }
        return make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
};

/* ---- multiplying -------------------------------------------------------------------------------------------------------------- */

/* sum += x · Wᵀ over a chunk: `low` of x row r, `high` of x row r + 8, `w` of W row r. */
static __device__ __forceinline__ void multiply(float (&sum)[4], const uint4 &low, const uint4 &high, const uint4 &w)
{
    ptx_multiply(sum, low.x, high.x, low.y, high.y, w.x, w.y);
    ptx_multiply(sum, low.z, high.z, low.w, high.w, w.z, w.w);
}

/* What a lane takes of rows r and r + 8 (HALVES 1: of row r alone) in BATCH chunks WARPS apart; row[half] is where the first lies, left
 * that many elements before the end of the row. */
template <int WARPS, int HALVES, int BATCH, typename X> struct x_parts_t {
    x_part_t<X> part[HALVES][BATCH];

    __device__ __forceinline__ void fetch(const X *const (&row)[HALVES], int left)
    {
#pragma unroll
        for (int j = 0; j < BATCH; j++)
#pragma unroll
            for (int half = 0; half < HALVES; half++)
                part[half][j].fetch(row[half] + j * WARPS * CHUNK, j * WARPS * CHUNK < left);
    }
};

/* Adds those chunks to the sums; finish(part, half, k) makes a part into what the tensor cores take, k elements after the first. `w` is the
 * lane's part of W in the first chunk. */
template <int TILES, int WARPS, int HALVES, int BATCH, typename X, typename F>
static __device__ __forceinline__ void add_chunks(const few_t &op, float (&sum)[TILES][4],
                                                  const x_parts_t<WARPS, HALVES, BATCH, X> &x, int left, const __nv_bfloat16 *w,
                                                  F finish)
{
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
        int k = j * WARPS * CHUNK;
        if (k >= left)
            break;
        uint4 weights[TILES], a, b = {};
#pragma unroll
        for (int t = 0; t < TILES; t++)
            weights[t] = *reinterpret_cast<const uint4 *>(w + t * TILE * pitch_of(op.in) + k);
        a = finish(x.part[0][j], 0, k);
        if constexpr (HALVES == 2)
            b = finish(x.part[1][j], 1, k);
#pragma unroll
        for (int t = 0; t < TILES; t++)
            multiply(sum[t], a, b, weights[t]);
    }
}

/* 1 / deviation (1 / root mean square for RMS) of rows r and r + 8 from the whole of x, and what then to add: -mean / deviation. By all
 * threads; `shares` [WARPS][HALVES][HALF][2]. */
template <int WARPS, int HALVES, int BATCH, typename X>
static __device__ __forceinline__ void measure_rows(const few_t &op, const x_parts_t<WARPS, HALVES, BATCH, X> &x, float *shares,
                                                    float (&factor)[HALVES], float (&add)[HALVES])
{
    int warp = (int)threadIdx.x / WARP, r = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < HALVES; half++) {
        float sum = 0, squares = 0;

#pragma unroll
        for (int j = 0; j < BATCH; j++)
            x.part[half][j].sum_up(sum, squares);
        sum = sum_lanes<4>(sum);
        squares = sum_lanes<4>(squares);
        if (q == 0)
            *reinterpret_cast<float2 *>(shares + (warp * HALVES * HALF + half * HALF + r) * 2) = make_float2(sum, squares);
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
        float sum = 0, squares = 0, mean;

#pragma unroll
        for (int w = 0; w < WARPS / 4; w++) {
            float2 share = *reinterpret_cast<const float2 *>(shares + ((w * 4 + q) * HALVES * HALF + half * HALF + r) * 2);
            sum += share.x;
            squares += share.y;
        }
        sum = sum_lanes<4>(sum);
        squares = sum_lanes<4>(squares);
        mean = op.norm == BACKEND_NORM_LAYER ? sum * op.per_in : 0;
        factor[half] = op.norm == BACKEND_NORM_NONE ? 1 : rsqrtf(fmaxf(squares * op.per_in - mean * mean, 0.0f) + op.eps);
        add[half] = -mean * factor[half];
    }
}

/* What a norm does to column k: scale[k], and shift[k] unless `shift` is NULL, into shared memory. What every thread writes here it alone
 * reads in join_modulation. */
template <int WARPS> static __device__ __forceinline__ void load_norm(const few_t &op, float *scale, float *shift)
{
#pragma unroll 1
    for (int k = (int)threadIdx.x; k < op.in; k += WARPS * WARP) {
        scale[k] = op.norm_scale != NULL ? op.norm_scale[k] : 1;
        if (shift != NULL)
            shift[k] = op.norm_shift != NULL ? op.norm_shift[k] : 0;
    }
}

/* Joins a condition's modulation to it, from `from` on, all columns in flight together. */
template <int WARPS>
static __device__ __forceinline__ void join_modulation(const few_t &op, int64_t from, float *scale, float *shift)
{
    constexpr int THREADS = WARPS * WARP, EACH = (SHORT + THREADS - 1) / THREADS;
    float by[EACH], add[EACH];

#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int k = (int)threadIdx.x + i * THREADS;

        by[i] = k < op.in ? op.modulation_scale[from + k] : 0;
        add[i] = k < op.in ? op.modulation_shift[from + k] : 0;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int k = (int)threadIdx.x + i * THREADS;

        if (k < op.in) {
            scale[k] *= 1 + by[i];
            shift[k] = shift[k] * (1 + by[i]) + add[i];
        }
    }
}

#endif
