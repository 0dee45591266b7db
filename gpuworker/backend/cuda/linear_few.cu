/* A linear of few rows: y = residual + act(rms(x) · Wᵀ + bias) in one kernel, bound by reading W once at memory speed.
 *
 * x [rows][in] F32 or BF16, rows x_stride apart; W [out][in] BF16; bias, residual F32; y F32 or BF16. in % 32 == 0, 16-byte
 * aligned rows.
 *
 * A block computes TILES tiles of 8 outputs for 16 rows of x; there are no more blocks than multiprocessors where that can be.
 * What no earlier kernel writes is requested before begin(), while that kernel still runs: the copy engine brings the block's
 * part of W to shared memory, and the norm's scale and the bias follow. x goes straight to registers, multiplied by scale and
 * rounded to BF16, its squares summed on the way; 1/rms multiplies the finished sum. For SWIGLU the second half of the tiles is
 * of the second half of W.
 *
 * mma.m16n8k16 takes 16 rows of x (side M) and 8 of W (side N). Which 16 of the k it takes is free as long as both sides agree,
 * so that lane (r = lane / 4, q = lane % 4) of a chunk of 32 k holds the 8 neighbouring ones from 8q, 16 bytes, of x rows r and
 * r + 8 and of W row r: the first 4 feed one mma, the last 4 a second. The warps take chunks in turn, BATCH at once so that their
 * loads are in flight together; their sums are added in a fixed order. */
#include "gpuworker/backend/cuda/launch.cuh"

enum {
    FEW_WARPS = 8,
    FEW_THREADS = FEW_WARPS * WARP,
    FEW_ROWS_MOST = 32,
    FEW_SHARED_MOST = 227 << 10,
    FEW_BLOCKS_MOST = 132, /* multiprocessors of an H100 or H200 */
    TILE = 8,              /* outputs of one mma */
    GROUP = 16,            /* rows of x of one mma */
    CHUNK = 32,            /* k of two mma */
    VECTOR = 8,            /* elements that a lane moves at once */
};

typedef struct {
    const void *x;
    int64_t x_stride;
    int rows, group, in, out; /* group: rows of a block, 8 or 16; out: of W */
    const float *norm_scale;
    bool norm;
    float eps;
    const __nv_bfloat16 *weight;
    const float *bias, *residual;
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

static __device__ __forceinline__ uint32_t shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* Starts the copy of `count` rows of W, number i being row row_of(i), to rows pitch_of(in) apart; `arrived` completes when all are
 * there. By the first warp; the others may wait after a __syncthreads. */
template <typename F>
static __device__ __forceinline__ void fetch_rows(const few_t &op, __nv_bfloat16 *to, int count, F row_of, uint64_t *arrived)
{
    uint32_t barrier = shared_address(arrived), bytes = (uint32_t)op.in * (uint32_t)sizeof(__nv_bfloat16);

    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes * (uint32_t)count)
                     : "memory");
    }
    __syncwarp();
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < count; i += WARP)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         shared_address(to + i * pitch_of(op.in))),
                     "l"(op.weight + (int64_t)min(row_of(i), op.out - 1) * op.in), "r"(bytes), "r"(barrier)
                     : "memory");
}

static __device__ __forceinline__ void wait_for_rows(uint64_t *arrived)
{
    uint32_t done = 0;

    while (!done)
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(shared_address(arrived))
                     : "memory");
}

/* ---- bringing x in ----------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t pair(float low, float high)
{
    __nv_bfloat162 packed = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&packed);
}

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
};

template <> struct x_part_t<float> {
    float4 raw[2];

    __device__ __forceinline__ void fetch(const float *x, bool there)
    {
#pragma unroll
        for (int i = 0; i < 2; i++)
            raw[i] = there ? reinterpret_cast<const float4 *>(x)[i] : float4{};
    }

    /* `scale` is in shared memory, or NULL. */
    __device__ __forceinline__ uint4 finish(const float *scale, float &squares) const
    {
        uint32_t packed[4];

#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float4 &x = raw[i];
            float4 factor = scale != NULL ? reinterpret_cast<const float4 *>(scale)[i] : make_float4(1, 1, 1, 1);

            squares += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
            packed[2 * i] = pair(x.x * factor.x, x.y * factor.y);
            packed[2 * i + 1] = pair(x.z * factor.z, x.w * factor.w);
        }
        return make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
};

/* ---- the kernel -------------------------------------------------------------------------------------------------------------- */

/* sum += x · Wᵀ over a chunk: `low` of x row r, `high` of x row r + 8, `w` of W row r. */
static __device__ __forceinline__ void multiply(float (&sum)[4], const uint4 &low, const uint4 &high, const uint4 &w)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(low.x), "r"(high.x), "r"(low.y), "r"(high.y), "r"(w.x), "r"(w.y));
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(low.z), "r"(high.z), "r"(low.w), "r"(high.w), "r"(w.z), "r"(w.w));
}

/* Adds BATCH chunks from `first`, 8 apart, to the sums. */
template <int TILES, int BATCH, typename X>
static __device__ __forceinline__ void add_chunks(const few_t &op, float (&sum)[TILES][4], float (&square)[2], int first,
                                                  int first_row, int rows, const __nv_bfloat16 *w_rows, const float *scale,
                                                  uint64_t *arrived)
{
    int r = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;
    const X *x = static_cast<const X *>(op.x);
    const X *low_row = x + (first_row + min(r, rows - 1)) * op.x_stride,
            *high_row = x + (first_row + min(r + 8, rows - 1)) * op.x_stride;
    x_part_t<X> low[BATCH], high[BATCH];

#pragma unroll
    for (int j = 0; j < BATCH; j++) {
        int k = (first + j * FEW_WARPS) * CHUNK + q * VECTOR;
        low[j].fetch(low_row + k, k < op.in);
    }
    if (rows > 8) {
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            int k = (first + j * FEW_WARPS) * CHUNK + q * VECTOR;
            high[j].fetch(high_row + k, k < op.in);
        }
    }
    wait_for_rows(arrived);
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
        int chunk = first + j * FEW_WARPS, k = chunk * CHUNK + q * VECTOR;
        if (chunk * CHUNK >= op.in)
            break;
        const float *scales = op.norm_scale != NULL ? scale + k : NULL;
        uint4 a = low[j].finish(scales, square[0]), b = {};
        if (rows > 8)
            b = high[j].finish(scales, square[1]);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            uint4 w = *reinterpret_cast<const uint4 *>(w_rows + (t * TILE + r) * pitch_of(op.in) + k);
            multiply(sum[t], a, b, w);
        }
    }
}

template <int TILES, bool SWIGLU, int BATCH, typename X>
static __global__ void __launch_bounds__(FEW_THREADS, 2) linear_few_kernel(const __grid_constant__ few_t op)
{
    constexpr int OUTS = TILES * TILE, YS = SWIGLU ? OUTS / 2 : OUTS, PITCH = partial_pitch(TILES);
    extern __shared__ uint4
        shared[]; /* W [OUTS], rows of pitch_of(in); partial [warps][group][PITCH]; squares [warps][GROUP]; scale */
    __shared__ uint64_t arrived;
    __nv_bfloat16 *w_rows = reinterpret_cast<__nv_bfloat16 *>(shared);
    float *partial = reinterpret_cast<float *>(w_rows + OUTS * pitch_of(op.in)), *squares = partial + FEW_WARPS * op.group * PITCH;
    float *scale = squares + FEW_WARPS * GROUP;
    int warp = (int)threadIdx.x / WARP, r = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;
    int ys = SWIGLU ? op.out / 2 : op.out, first_y = (int)blockIdx.x * YS, first_row = (int)blockIdx.y * GROUP;
    int rows = min(op.rows - first_row, GROUP), chunks = op.in / CHUNK;
    float sum[TILES][4] = {}, square[2] = {}, bias = 0, other_bias = 0, residual = 0;

    cudaTriggerProgrammaticLaunchCompletion();
    if (warp == 0)
        fetch_rows(
            op, w_rows, OUTS, [=](int i) { return i < YS ? first_y + i : ys + first_y + i - YS; }, &arrived);
    if (op.norm_scale != NULL)
#pragma unroll 1
        for (int k = (int)threadIdx.x * 4; k < op.in; k += FEW_THREADS * 4)
            *reinterpret_cast<float4 *>(scale + k) = *reinterpret_cast<const float4 *>(op.norm_scale + k);

    /* The first y that this thread finishes; few have a second. */
    int own_row = (int)threadIdx.x / YS, own_y = first_y + (int)threadIdx.x % YS;
    bool own = own_row < rows && own_y < ys;
    if (op.bias != NULL && own) {
        bias = op.bias[own_y];
        if (SWIGLU)
            other_bias = op.bias[ys + own_y];
    }
    __syncthreads();
    begin();

    if (op.residual != NULL && own)
        residual = op.residual[(int64_t)(first_row + own_row) * ys + own_y];
#pragma unroll 1
    for (int chunk = warp; chunk < chunks; chunk += FEW_WARPS * BATCH)
        add_chunks<TILES, BATCH, X>(op, sum, square, chunk, first_row, rows, w_rows, scale, &arrived);

        /* Element (2·half + i) of a fragment is output 2q + i of row r + 8·half. */
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (half == 0 || rows > 8) {
#pragma unroll
            for (int t = 0; t < TILES; t++)
                *reinterpret_cast<float2 *>(partial + (warp * op.group + half * 8 + r) * PITCH + t * TILE + q * 2) =
                    make_float2(sum[t][half * 2], sum[t][half * 2 + 1]);
            square[half] += __shfl_xor_sync(0xffffffffu, square[half], 1);
            square[half] += __shfl_xor_sync(0xffffffffu, square[half], 2);
            if (q == 0)
                squares[warp * GROUP + half * 8 + r] = square[half];
        }
    __syncthreads();

#pragma unroll 1
    for (int item = (int)threadIdx.x; item < rows * YS; item += FEW_THREADS) {
        int row = item / YS, column = item % YS, y = first_y + column;
        int64_t at = (int64_t)(first_row + row) * ys + y;
        float value = 0, other = 0, total_squares = 0;

        if (y >= ys)
            continue;
#pragma unroll
        for (int w = 0; w < FEW_WARPS; w++) {
            value += partial[(w * op.group + row) * PITCH + column];
            if (SWIGLU)
                other += partial[(w * op.group + row) * PITCH + column + YS];
            total_squares += squares[w * GROUP + row];
        }
        if (op.norm) {
            float factor = rsqrtf(total_squares / (float)op.in + op.eps);
            value *= factor;
            other *= factor;
        }
        if (item >= FEW_THREADS) {
            bias = op.bias != NULL ? op.bias[y] : 0;
            other_bias = SWIGLU && op.bias != NULL ? op.bias[ys + y] : 0;
            residual = op.residual != NULL ? op.residual[at] : 0;
        }
        value += bias;
        if (op.activation != BACKEND_ACT_NONE)
            value = __fdividef(value, 1.0f + expf(-value));
        if (SWIGLU)
            value *= other + other_bias;
        value += residual;
        if (op.y_bf16)
            static_cast<__nv_bfloat16 *>(op.y)[at] = __float2bfloat16_rn(value);
        else
            static_cast<float *>(op.y)[at] = value;
    }
}

/* ---- launching --------------------------------------------------------------------------------------------------------------- */

static int group_for(int64_t rows)
{
    return rows <= GROUP / 2 ? GROUP / 2 : GROUP;
}

static size_t shared_for(int tiles, int64_t rows, int64_t in)
{
    return (size_t)tiles * TILE * (size_t)pitch_of((int)in) * sizeof(__nv_bfloat16) +
           (FEW_WARPS * (size_t)group_for(rows) * (size_t)partial_pitch(tiles) + FEW_WARPS * GROUP + (size_t)in) * sizeof(float);
}

/* How many tiles a block takes: enough for one wave, as far as they fit. 0: not even the least number does. */
static int tiles_for(const backend_linear_t *op)
{
    static const int choices[] = {6, 4, 3, 2, 1};
    int64_t out = op->weight->tensor.dim[0], in = op->weight->tensor.dim[1], groups = (op->rows + GROUP - 1) / GROUP;
    bool swiglu = op->activation == BACKEND_ACT_SWIGLU;
    int best = 0;

    for (int tiles : choices) {
        if ((swiglu && tiles % 2 != 0) || shared_for(tiles, op->rows, in) > FEW_SHARED_MOST)
            continue;
        if (best == 0 || blocks_for(out, tiles * TILE) * groups <= FEW_BLOCKS_MOST)
            best = tiles;
    }
    return best;
}

extern "C" bool cuda_linear_few_fits(const backend_linear_t *op)
{
    int64_t in = op->weight->tensor.dim[1], stride = op->x_stride == 0 ? in : op->x_stride;
    bool norm = op->norm.kind != BACKEND_NORM_NONE;

    return op->rows <= FEW_ROWS_MOST && op->weight->tensor.dtype == BACKEND_BF16 && in % CHUNK == 0 &&
           op->norm.kind != BACKEND_NORM_LAYER && !(norm && (op->x.dtype != BACKEND_F32 || op->norm.shift != NULL)) &&
           aligned_for(op->x.data, op->x.dtype, stride, VECTOR) && aligned_for(op->weight->tensor.data, BACKEND_BF16, in, VECTOR) &&
           tiles_for(op) > 0;
}

template <int TILES, bool SWIGLU> static int few_launch(const few_t &few, backend_dtype_t x_dtype, cudaStream_t stream)
{
    dim3 grid(blocks_for(few.out, TILES * TILE), blocks_for(few.rows, GROUP));
    size_t bytes = shared_for(TILES, few.rows, few.in);
    bool deep = few.in > 3 * FEW_WARPS * CHUNK;

    if (x_dtype == BACKEND_F32)
        return launch("linear", linear_few_kernel<TILES, SWIGLU, 3, float>, grid, FEW_THREADS, bytes, stream, few);
    return launch("linear",
                  deep ? linear_few_kernel<TILES, SWIGLU, 12, __nv_bfloat16> : linear_few_kernel<TILES, SWIGLU, 3, __nv_bfloat16>,
                  grid, FEW_THREADS, bytes, stream, few);
}

extern "C" int cuda_linear_few_launch(const backend_linear_t *op, cudaStream_t stream)
{
    int64_t in = op->weight->tensor.dim[1];
    few_t few = {};

    few.x = op->x.data;
    few.x_stride = op->x_stride == 0 ? in : op->x_stride;
    few.rows = (int)op->rows;
    few.group = group_for(op->rows);
    few.in = (int)in;
    few.out = (int)op->weight->tensor.dim[0];
    few.norm = op->norm.kind != BACKEND_NORM_NONE;
    few.norm_scale = few.norm && op->norm.scale != NULL ? static_cast<const float *>(op->norm.scale->tensor.data) : NULL;
    few.eps = op->norm.eps;
    few.weight = static_cast<const __nv_bfloat16 *>(op->weight->tensor.data);
    few.bias = op->bias != NULL ? static_cast<const float *>(op->bias->tensor.data) : NULL;
    few.residual = op->residual != NULL ? static_cast<const float *>(op->residual->data) : NULL;
    few.activation = op->activation;
    few.y = op->y.data;
    few.y_bf16 = op->y.dtype == BACKEND_BF16;
    bool swiglu = op->activation == BACKEND_ACT_SWIGLU;
    switch (tiles_for(op)) {
    case 6:
        return swiglu ? few_launch<6, true>(few, op->x.dtype, stream) : few_launch<6, false>(few, op->x.dtype, stream);
    case 4:
        return swiglu ? few_launch<4, true>(few, op->x.dtype, stream) : few_launch<4, false>(few, op->x.dtype, stream);
    case 3:
        return few_launch<3, false>(few, op->x.dtype, stream);
    case 2:
        return swiglu ? few_launch<2, true>(few, op->x.dtype, stream) : few_launch<2, false>(few, op->x.dtype, stream);
    default:
        return few_launch<1, false>(few, op->x.dtype, stream);
    }
}
