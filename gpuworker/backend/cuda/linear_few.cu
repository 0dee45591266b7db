/* A linear of few rows: y = residual + act(rms(x) · Wᵀ + bias) in one kernel, bound by reading W once at memory speed.
 *
 * x [rows][in] F32 or BF16, rows x_stride apart; W [out][in] BF16; bias, residual F32; y F32 or BF16. in % 8 == 0, 16-byte
 * aligned rows.
 *
 * The tensor cores do the arithmetic, for what matters here is that a lane's loads are 16 bytes wide and many are in flight.
 * mma.m16n8k16 takes 16 rows of W (side M) and 8 rows of x (side N). Which 16 of the k it takes is free as long as both sides
 * agree, so that lane (r = lane / 4, q = lane % 4) of a chunk of 32 k holds the 8 neighbouring ones from 8q: of W rows r and r +
 * 8, and of x row r; the first 4 feed one mma, the last 4 a second.
 *
 * A block computes TILES tiles of 16 outputs for GROUPS · 8 rows of x. Its warps, and with a cluster the warps of all its
 * blocks, divide k among them and add their partial sums in a fixed order. The norm rides along: Σ x² is gathered in the same
 * pass and 1/rms multiplies the sum (scale is per k, so it is multiplied into x before rounding). For SWIGLU the second tile is
 * the one half of W further down. The first weights are requested before begin(): while the kernel before still runs. */
#include <cooperative_groups.h>

#include "gpuworker/backend/cuda/launch.cuh"

enum {
    FEW_WARPS = 8,
    FEW_THREADS = FEW_WARPS * WARP,
    FEW_ROWS_MOST = 64,
    TILE = 16,          /* outputs of one mma */
    GROUP = 8,          /* rows of x of one mma */
    CHUNK = 32,         /* k of two mma */
    LOADS = 12,         /* 16-byte loads of W that a lane has in flight, */
    LOADS_CROWDED = 8,  /* with 4 groups, whose sums need the registers */
    PITCH_PAD = 4,      /* floats: lanes of a fragment hit different banks */
    SPLIT_MOST = 4,     /* blocks a cluster */
    BLOCKS_WANTED = 96, /* below this, split k over a cluster */
};

typedef struct {
    const void *x;
    int64_t x_stride;
    int rows, in, out; /* out: of W */
    int chunks_a_warp;
    const float *norm_scale;
    bool norm;
    float eps;
    const __nv_bfloat16 *weight;
    const float *bias, *residual;
    backend_activation_t activation;
    void *y;
    bool y_bf16;
} few_t;

static __device__ __forceinline__ uint4 load_weight(const __nv_bfloat16 *from)
{
    uint4 value;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(from));
    return value;
}

/* The W fragments of DEPTH chunks from `chunk`: [chunk][tile][row r, row r + 8]. */
template <int TILES, int DEPTH>
static __device__ __forceinline__ void load_weights(uint4 (&weights)[DEPTH][TILES][2], const few_t &op, int tile_row, int tile_step,
                                                    int chunk, int end)
{
    int r = (int)(threadIdx.x % WARP) / 4, q = (int)threadIdx.x % 4;

#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
        int k = (chunk + d) * CHUNK + q * 8;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int row = tile_row + t * tile_step + half * 8 + r;
                weights[d][t][half] = chunk + d < end && k < op.in && row < op.out
                                          ? load_weight(op.weight + (int64_t)row * op.in + k)
                                          : make_uint4(0, 0, 0, 0);
            }
        }
    }
}

static __device__ __forceinline__ uint32_t pack(float low, float high)
{
    __nv_bfloat162 packed = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&packed);
}

/* Eight neighbouring k of one row of x as BF16, times the norm's scale; adds their squares. */
static __device__ __forceinline__ uint4 load_x(const few_t &op, const __nv_bfloat16 *x, int, float &)
{
    (void)op;
    return *reinterpret_cast<const uint4 *>(x);
}

static __device__ __forceinline__ uint4 load_x(const few_t &op, const float *x, int k, float &squares)
{
    float value[8], scale[8];

    load<8>(value, x);
    if (op.norm) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            squares += value[i] * value[i];
        if (op.norm_scale != NULL) {
            load<8>(scale, op.norm_scale + k);
#pragma unroll
            for (int i = 0; i < 8; i++)
                value[i] *= scale[i];
        }
    }
    return make_uint4(pack(value[0], value[1]), pack(value[2], value[3]), pack(value[4], value[5]), pack(value[6], value[7]));
}

static __device__ __forceinline__ void multiply(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                                uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

template <int TILES, int GROUPS, typename X> static __global__ void __launch_bounds__(FEW_THREADS) linear_few_kernel(const few_t op)
{
    constexpr int DEPTH = (GROUPS < 4 ? (int)LOADS : (int)LOADS_CROWDED) / 2 / TILES, PITCH = TILES * TILE + PITCH_PAD,
                  ROWS = GROUPS * GROUP;
    __shared__ float partial[FEW_WARPS][ROWS][PITCH]; /* [0] then holds the block's sums */
    __shared__ float squares[FEW_WARPS][ROWS];
    cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    int split = (int)cluster.num_blocks(), rank = (int)cluster.block_rank();
    int warp = (int)threadIdx.x / WARP, r = (int)(threadIdx.x % WARP) / 4, q = (int)threadIdx.x % 4;
    bool swiglu = op.activation == BACKEND_ACT_SWIGLU;
    int outs = swiglu ? op.out / 2 : op.out, outs_a_block = swiglu ? TILE : TILES * TILE;
    int first_out = (int)blockIdx.x / split * outs_a_block, first_row = (int)blockIdx.y * ROWS;
    int tile_step = swiglu ? outs : TILE;
    int chunk = (rank * FEW_WARPS + warp) * op.chunks_a_warp, end = chunk + op.chunks_a_warp;
    uint4 weights[DEPTH][TILES][2];
    float sum[TILES][GROUPS][4] = {}, square[GROUPS] = {};

    load_weights<TILES, DEPTH>(weights, op, first_out, tile_step, chunk, end);
    begin();
    for (;;) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            int k = (chunk + d) * CHUNK + q * 8;
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                int row = first_row + g * GROUP + r;
                uint4 x = make_uint4(0, 0, 0, 0);
                if (chunk + d < end && k < op.in && row < op.rows)
                    x = load_x(op, static_cast<const X *>(op.x) + row * op.x_stride + k, k, square[g]);
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    const uint4 &low = weights[d][t][0], &high = weights[d][t][1];
                    multiply(sum[t][g], low.x, high.x, low.y, high.y, x.x, x.y);
                    multiply(sum[t][g], low.z, high.z, low.w, high.w, x.z, x.w);
                }
            }
        }
        chunk += DEPTH;
        if (chunk >= end)
            break;
        load_weights<TILES, DEPTH>(weights, op, first_out, tile_step, chunk, end);
    }

    /* Fragment element (2·half + i) is output r + 8·half of row 2q + i. */
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
#pragma unroll
        for (int t = 0; t < TILES; t++) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                partial[warp][g * GROUP + q * 2 + e % 2][t * TILE + e / 2 * 8 + r] = sum[t][g][e];
        }
        square[g] += __shfl_xor_sync(0xffffffffu, square[g], 1);
        square[g] += __shfl_xor_sync(0xffffffffu, square[g], 2);
        if (q == 0)
            squares[warp][g * GROUP + r] = square[g];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < ROWS * TILES * TILE; i += FEW_THREADS) {
        int row = i / (TILES * TILE), column = i % (TILES * TILE);
        float total = 0;
#pragma unroll
        for (int w = 0; w < FEW_WARPS; w++)
            total += partial[w][row][column];
        partial[0][row][column] = total;
    }
    for (int row = (int)threadIdx.x; row < ROWS; row += FEW_THREADS) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < FEW_WARPS; w++)
            total += squares[w][row];
        squares[0][row] = total;
    }
    if (split > 1)
        cluster.sync();
    else
        __syncthreads();

    for (int i = rank * FEW_THREADS + (int)threadIdx.x; i < ROWS * outs_a_block; i += split * FEW_THREADS) {
        int local = i / outs_a_block, column = i % outs_a_block, row = first_row + local, out = first_out + column;
        float value = 0, other = 0, total_squares = 0;

        if (row >= op.rows || out >= outs)
            continue;
        for (int b = 0; b < split; b++) {
            const float *block_sums = cluster.map_shared_rank(&partial[0][local][column], b);
            value += block_sums[0];
            if (swiglu)
                other += block_sums[TILE];
            total_squares += *cluster.map_shared_rank(&squares[0][local], b);
        }
        if (op.norm) {
            float factor = 1.0f / sqrtf(total_squares / (float)op.in + op.eps);
            value *= factor;
            other *= factor;
        }
        if (op.bias != NULL) {
            value += op.bias[out];
            if (swiglu)
                other += op.bias[outs + out];
        }
        if (op.activation != BACKEND_ACT_NONE)
            value /= 1.0f + expf(-value);
        if (swiglu)
            value *= other;
        int64_t at = (int64_t)row * outs + out;
        if (op.residual != NULL)
            value += op.residual[at];
        if (op.y_bf16)
            static_cast<__nv_bfloat16 *>(op.y)[at] = __float2bfloat16_rn(value);
        else
            static_cast<float *>(op.y)[at] = value;
    }
    if (split > 1)
        cluster.sync(); /* nobody leaves while its sums are being read */
}

extern "C" bool cuda_linear_few_fits(const backend_linear_t *op)
{
    int64_t in = op->weight->tensor.dim[1], stride = op->x_stride == 0 ? in : op->x_stride;
    bool norm = op->norm.kind != BACKEND_NORM_NONE;

    return op->rows <= FEW_ROWS_MOST && op->weight->tensor.dtype == BACKEND_BF16 && in % 8 == 0 &&
           op->norm.kind != BACKEND_NORM_LAYER && !(norm && (op->x.dtype != BACKEND_F32 || op->norm.shift != NULL)) &&
           aligned_for(op->x.data, op->x.dtype, stride, 8) && aligned_for(op->weight->tensor.data, BACKEND_BF16, in, 8);
}

template <int TILES, int GROUPS>
static int few_launch(const few_t *few, backend_dtype_t x_dtype, unsigned blocks, unsigned split, cudaStream_t stream)
{
    dim3 grid(blocks * split, blocks_for(few->rows, GROUPS * GROUP));

    return launch_cluster("linear",
                          x_dtype == BACKEND_BF16 ? linear_few_kernel<TILES, GROUPS, __nv_bfloat16>
                                                  : linear_few_kernel<TILES, GROUPS, float>,
                          grid, FEW_THREADS, 0, split, stream, *few);
}

extern "C" int cuda_linear_few_launch(const backend_linear_t *op, cudaStream_t stream)
{
    int64_t out = op->weight->tensor.dim[0], in = op->weight->tensor.dim[1];
    bool swiglu = op->activation == BACKEND_ACT_SWIGLU;
    bool two_tiles = swiglu || out >= 2 * TILE * BLOCKS_WANTED;
    unsigned tiles = blocks_for(swiglu ? out / 2 : out, two_tiles && !swiglu ? 2 * TILE : TILE);
    int groups = op->rows <= 8 ? 1 : op->rows <= 16 ? 2 : 4;
    int chunks = (int)blocks_for(in, CHUNK);
    unsigned split = 1;

    while (groups > 1 && tiles * blocks_for(op->rows, groups * GROUP) < BLOCKS_WANTED / 2)
        groups /= 2;
    while (split < SPLIT_MOST && tiles * blocks_for(op->rows, groups * GROUP) * split < BLOCKS_WANTED &&
           chunks >= FEW_WARPS * 4 * (int)split)
        split *= 2;

    few_t few = {};
    few.x = op->x.data;
    few.x_stride = op->x_stride == 0 ? in : op->x_stride;
    few.rows = (int)op->rows;
    few.in = (int)in;
    few.out = (int)out;
    few.chunks_a_warp = (int)blocks_for(chunks, FEW_WARPS * split);
    few.norm = op->norm.kind != BACKEND_NORM_NONE;
    few.norm_scale = few.norm && op->norm.scale != NULL ? static_cast<const float *>(op->norm.scale->tensor.data) : NULL;
    few.eps = op->norm.eps;
    few.weight = static_cast<const __nv_bfloat16 *>(op->weight->tensor.data);
    few.bias = op->bias != NULL ? static_cast<const float *>(op->bias->tensor.data) : NULL;
    few.residual = op->residual != NULL ? static_cast<const float *>(op->residual->data) : NULL;
    few.activation = op->activation;
    few.y = op->y.data;
    few.y_bf16 = op->y.dtype == BACKEND_BF16;

    if (two_tiles)
        return groups == 1   ? few_launch<2, 1>(&few, op->x.dtype, tiles, split, stream)
               : groups == 2 ? few_launch<2, 2>(&few, op->x.dtype, tiles, split, stream)
                             : few_launch<2, 4>(&few, op->x.dtype, tiles, split, stream);
    return groups == 1   ? few_launch<1, 1>(&few, op->x.dtype, tiles, split, stream)
           : groups == 2 ? few_launch<1, 2>(&few, op->x.dtype, tiles, split, stream)
                         : few_launch<1, 4>(&few, op->x.dtype, tiles, split, stream);
}
