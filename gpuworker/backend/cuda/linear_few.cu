/* A linear of few rows: y = residual + offset + gate · act(modulated(norm(x)) · Wᵀ + bias) in one kernel, bound by reading W once at memory
 * speed.
 *
 * x [rows][in] F32 or BF16, rows x_stride apart; W [out][in] BF16; bias, residual, offset F32; y F32 or BF16, rows y_stride apart. in % 32
 * == 0, 16-byte aligned rows.
 *
 * A block computes TILES tiles of 8 outputs for 16 rows of x; there are no more blocks than multiprocessors where that can be.
 * What no earlier kernel writes is requested before begin(), while that kernel still runs: the copy engine brings the block's
 * part of W to shared memory, and the norm's scale and the bias follow. x goes straight to registers, multiplied by scale and
 * rounded to BF16, its squares summed on the way; 1/rms multiplies the finished sum. A norm that shifts (WHOLE: layer norm, modulation)
 * cannot wait so long: the warps hold all of x in registers, join their sums, and normalise before they multiply. For SWIGLU the
 * second half of the tiles is of the second half of W.
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
    WHOLE_BATCH = 4,       /* chunks of x that a lane holds of a row under a norm that shifts */
};

typedef struct {
    const void *x;
    int64_t x_stride, y_stride;
    int rows, group, in, out; /* group: rows of a block, 8 or 16; out: of W */
    const float *norm_scale, *norm_shift;
    backend_norm_kind_t norm;
    float eps;
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

    __device__ __forceinline__ void sum_up(float &sum, float &squares) const
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum += raw[i].x + raw[i].y + raw[i].z + raw[i].w;
            squares += raw[i].x * raw[i].x + raw[i].y * raw[i].y + raw[i].z * raw[i].z + raw[i].w * raw[i].w;
        }
    }

    /* (x - mean) · factor · scale + shift; both are in shared memory. */
    __device__ __forceinline__ uint4 finish_whole(const float *scale, const float *shift, float mean, float factor) const
    {
        uint32_t packed[4];

#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float4 &x = raw[i], a = reinterpret_cast<const float4 *>(scale)[i],
                         b = reinterpret_cast<const float4 *>(shift)[i];

            packed[2 * i] = pair((x.x - mean) * factor * a.x + b.x, (x.y - mean) * factor * a.y + b.y);
            packed[2 * i + 1] = pair((x.z - mean) * factor * a.z + b.z, (x.w - mean) * factor * a.w + b.w);
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

/* The parts of rows r and r + 8 in BATCH chunks from `first`, FEW_WARPS apart. */
template <int BATCH, typename X> struct x_parts_t {
    x_part_t<X> low[BATCH], high[BATCH];

    __device__ __forceinline__ void fetch(const few_t &op, int first, int first_row, int rows)
    {
        int r = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;
        const X *x = static_cast<const X *>(op.x);
        const X *low_row = x + (first_row + min(r, rows - 1)) * op.x_stride,
                *high_row = x + (first_row + min(r + 8, rows - 1)) * op.x_stride;

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
    }
};

/* Adds those chunks to the sums; finish(part, half, k) makes a part into what the tensor cores take. */
template <int TILES, int BATCH, typename X, typename F>
static __device__ __forceinline__ void add_chunks(const few_t &op, float (&sum)[TILES][4], const x_parts_t<BATCH, X> &x, int first,
                                                  int rows, const __nv_bfloat16 *w_rows, F finish)
{
    int r = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;

#pragma unroll
    for (int j = 0; j < BATCH; j++) {
        int chunk = first + j * FEW_WARPS, k = chunk * CHUNK + q * VECTOR;
        if (chunk * CHUNK >= op.in)
            break;
        uint4 a = finish(x.low[j], 0, k), b = {};
        if (rows > 8)
            b = finish(x.high[j], 1, k);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            uint4 w = *reinterpret_cast<const uint4 *>(w_rows + (t * TILE + r) * pitch_of(op.in) + k);
            multiply(sum[t], a, b, w);
        }
    }
}

/* Mean and 1 / deviation (mean square for RMS) of rows r and r + 8 from the whole of x. By all threads; `shares` [FEW_WARPS][GROUP][2]. */
template <int BATCH, typename X>
static __device__ __forceinline__ void measure_rows(const few_t &op, const x_parts_t<BATCH, X> &x, int rows, float *shares,
                                                    float (&mean)[2], float (&factor)[2])
{
    int warp = (int)threadIdx.x / WARP, r = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = 0, squares = 0;

        mean[half] = 0;
        factor[half] = 1;
        if (op.norm == BACKEND_NORM_NONE || (half == 1 && rows <= 8))
            continue;
#pragma unroll
        for (int j = 0; j < BATCH; j++)
            (half == 0 ? x.low[j] : x.high[j]).sum_up(sum, squares);
        sum = sum_lanes<4>(sum);
        squares = sum_lanes<4>(squares);
        if (q == 0)
            *reinterpret_cast<float2 *>(shares + (warp * GROUP + half * 8 + r) * 2) = make_float2(sum, squares);
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = 0, squares = 0;

        if (op.norm == BACKEND_NORM_NONE || (half == 1 && rows <= 8))
            continue;
#pragma unroll
        for (int w = 0; w < FEW_WARPS; w++) {
            float2 share = *reinterpret_cast<const float2 *>(shares + (w * GROUP + half * 8 + r) * 2);
            sum += share.x;
            squares += share.y;
        }
        if (op.norm == BACKEND_NORM_LAYER)
            mean[half] = sum / (float)op.in;
        factor[half] = rsqrtf(fmaxf(squares / (float)op.in - mean[half] * mean[half], 0.0f) + op.eps);
    }
}

/* What a norm that shifts does to column k: scale[k], shift[k], into shared memory. */
static __device__ __forceinline__ void join_modulation(const few_t &op, int first_row, float *scale, float *shift)
{
    int64_t condition = op.modulation_scale != NULL ? first_row / op.rows_each * op.modulation_stride : 0;

#pragma unroll 1
    for (int k = (int)threadIdx.x; k < op.in; k += FEW_THREADS) {
        float a = op.norm_scale != NULL ? op.norm_scale[k] : 1, b = op.norm_shift != NULL ? op.norm_shift[k] : 0;

        if (op.modulation_scale != NULL) {
            float by = 1 + op.modulation_scale[condition + k];

            a *= by;
            b = b * by + op.modulation_shift[condition + k];
        }
        scale[k] = a;
        shift[k] = b;
    }
}

template <int TILES, bool SWIGLU, int BATCH, bool WHOLE, typename X>
static __global__ void __launch_bounds__(FEW_THREADS, 2) linear_few_kernel(const __grid_constant__ few_t op)
{
    constexpr int OUTS = TILES * TILE, YS = SWIGLU ? OUTS / 2 : OUTS, PITCH = partial_pitch(TILES);
    extern __shared__ uint4
        shared[]; /* W [OUTS], rows of pitch_of(in); partial [warps][group][PITCH]; squares [warps][GROUP]; scale; WHOLE: shift */
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
    if (!WHOLE && op.norm_scale != NULL)
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

    if (own) {
        int64_t own_at = (first_row + own_row) * op.y_stride + own_y;

        if (op.residual != NULL)
            residual = op.residual[own_at];
        if (op.offset != NULL)
            residual += op.offset[own_at];
    }
    if constexpr (WHOLE) {
        x_parts_t<BATCH, X> x;
        float mean[2], factor[2];

        x.fetch(op, warp, first_row, rows);
        join_modulation(op, first_row, scale, scale + op.in);
        measure_rows<BATCH, X>(op, x, rows, partial, mean, factor);
        wait_for_rows(&arrived);
        add_chunks<TILES>(op, sum, x, warp, rows, w_rows, [&](const x_part_t<X> &part, int half, int k) {
            return part.finish_whole(scale + k, scale + op.in + k, mean[half], factor[half]);
        });
        __syncthreads(); /* `partial` held the shares */
    } else {
#pragma unroll 1
        for (int chunk = warp; chunk < chunks; chunk += FEW_WARPS * BATCH) {
            x_parts_t<BATCH, X> x;

            x.fetch(op, chunk, first_row, rows);
            wait_for_rows(&arrived);
            add_chunks<TILES>(op, sum, x, chunk, rows, w_rows, [&](const x_part_t<X> &part, int half, int k) {
                return part.finish(op.norm_scale != NULL ? scale + k : NULL, square[half]);
            });
        }
    }

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
            if (!WHOLE && q == 0)
                squares[warp * GROUP + half * 8 + r] = square[half];
        }
    __syncthreads();

#pragma unroll 1
    for (int item = (int)threadIdx.x; item < rows * YS; item += FEW_THREADS) {
        int row = item / YS, column = item % YS, y = first_y + column;
        int64_t at = (first_row + row) * op.y_stride + y;
        float value = 0, other = 0, total_squares = 0;

        if (y >= ys)
            continue;
#pragma unroll
        for (int w = 0; w < FEW_WARPS; w++) {
            value += partial[(w * op.group + row) * PITCH + column];
            if (SWIGLU)
                other += partial[(w * op.group + row) * PITCH + column + YS];
            if (!WHOLE)
                total_squares += squares[w * GROUP + row];
        }
        if (!WHOLE && op.norm != BACKEND_NORM_NONE) {
            float factor = rsqrtf(total_squares / (float)op.in + op.eps);
            value *= factor;
            other *= factor;
        }
        if (item >= FEW_THREADS) {
            bias = op.bias != NULL ? op.bias[y] : 0;
            other_bias = SWIGLU && op.bias != NULL ? op.bias[ys + y] : 0;
            residual = (op.residual != NULL ? op.residual[at] : 0) + (op.offset != NULL ? op.offset[at] : 0);
        }
        value += bias;
        if (op.activation == BACKEND_ACT_RELU)
            value = fmaxf(value, 0.0f);
        else if (op.activation != BACKEND_ACT_NONE)
            value = __fdividef(value, 1.0f + expf(-value));
        if (SWIGLU)
            value *= other + other_bias;
        if (op.gate != NULL)
            value *= op.gate[(first_row + row) / op.rows_each * op.modulation_stride + y];
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

/* Does the norm of x shift it, or differ between conditions? */
static bool is_whole(const backend_linear_t *op)
{
    return op->norm.kind == BACKEND_NORM_LAYER || (op->norm.kind != BACKEND_NORM_NONE && op->norm.shift != NULL) ||
           (op->modulation != NULL && op->modulation->scale != NULL);
}

static size_t shared_for(const backend_linear_t *op, int tiles)
{
    size_t in = (size_t)op->weight->tensor.dim[1];

    return (size_t)tiles * TILE * (size_t)pitch_of((int)in) * sizeof(__nv_bfloat16) +
           (FEW_WARPS * (size_t)group_for(op->rows) * (size_t)partial_pitch(tiles) + FEW_WARPS * GROUP +
            in * (is_whole(op) ? 2 : 1)) *
               sizeof(float);
}

/* How many tiles a block takes: enough for one wave, as far as they fit. 0: not even the least number does. */
static int tiles_for(const backend_linear_t *op)
{
    static const int choices[] = {6, 4, 3, 2, 1};
    int64_t out = op->weight->tensor.dim[0], groups = (op->rows + GROUP - 1) / GROUP;
    bool swiglu = op->activation == BACKEND_ACT_SWIGLU;
    int best = 0;

    for (int tiles : choices) {
        if ((swiglu && tiles % 2 != 0) || shared_for(op, tiles) > FEW_SHARED_MOST)
            continue;
        if (best == 0 || blocks_for(out, tiles * TILE) * groups <= FEW_BLOCKS_MOST)
            best = tiles;
    }
    return best;
}

/* A norm that shifts wants all of x at once, in F32, and one condition for all rows of a block. */
static bool whole_fits(const backend_linear_t *op)
{
    const backend_modulation_t *modulation = op->modulation;

    return op->x.dtype == BACKEND_F32 && op->weight->tensor.dim[1] <= WHOLE_BATCH * FEW_WARPS * CHUNK &&
           (modulation == NULL || modulation->rows_each >= op->rows || modulation->rows_each % GROUP == 0);
}

extern "C" bool cuda_linear_few_fits(const backend_linear_t *op)
{
    int64_t in = op->weight->tensor.dim[1], stride = op->x_stride == 0 ? in : op->x_stride;
    bool norm = op->norm.kind != BACKEND_NORM_NONE;

    return op->rows <= FEW_ROWS_MOST && op->weight->tensor.dtype == BACKEND_BF16 && in % CHUNK == 0 &&
           !(norm && op->x.dtype != BACKEND_F32) && (!is_whole(op) || whole_fits(op)) &&
           aligned_for(op->x.data, op->x.dtype, stride, VECTOR) && aligned_for(op->weight->tensor.data, BACKEND_BF16, in, VECTOR) &&
           tiles_for(op) > 0;
}

/* Elements between partial sums' rows need WHOLE's shares to fit there too. */
static_assert(FEW_WARPS * GROUP / 2 * TILE >= FEW_WARPS * GROUP * 2, "shares of sums fit where the partial sums will lie");

template <int TILES, bool SWIGLU> static int few_launch(const backend_linear_t *op, const few_t &few, cudaStream_t stream)
{
    dim3 grid(blocks_for(few.out, TILES * TILE), blocks_for(few.rows, GROUP));
    size_t bytes = shared_for(op, TILES);
    bool deep = few.in > 3 * FEW_WARPS * CHUNK;
    void (*kernel)(const few_t) = linear_few_kernel<TILES, SWIGLU, 3, false, __nv_bfloat16>;

    if (is_whole(op))
        kernel = linear_few_kernel<TILES, SWIGLU, WHOLE_BATCH, true, float>;
    else if (op->x.dtype == BACKEND_F32)
        kernel = linear_few_kernel<TILES, SWIGLU, 3, false, float>;
    else if (deep)
        kernel = linear_few_kernel<TILES, SWIGLU, 12, false, __nv_bfloat16>;
    return launch("linear", kernel, grid, FEW_THREADS, bytes, stream, few);
}

static const float *tensor_data(const backend_tensor_t *tensor)
{
    return tensor != NULL ? static_cast<const float *>(tensor->data) : NULL;
}

static const float *weight_data(const backend_weight_t *weight)
{
    return weight != NULL ? tensor_data(&weight->tensor) : NULL;
}

extern "C" int cuda_linear_few_launch(const backend_linear_t *op, cudaStream_t stream)
{
    bool swiglu = op->activation == BACKEND_ACT_SWIGLU, norm = op->norm.kind != BACKEND_NORM_NONE;
    int64_t in = op->weight->tensor.dim[1], out = op->weight->tensor.dim[0];
    few_t few = {};

    few.x = op->x.data;
    few.x_stride = op->x_stride == 0 ? in : op->x_stride;
    few.y_stride = op->y_stride > 0 ? op->y_stride : swiglu ? out / 2 : out;
    few.rows = (int)op->rows;
    few.group = group_for(op->rows);
    few.in = (int)in;
    few.out = (int)out;
    few.norm = op->norm.kind;
    few.norm_scale = norm ? weight_data(op->norm.scale) : NULL;
    few.norm_shift = norm ? weight_data(op->norm.shift) : NULL;
    few.eps = op->norm.eps;
    if (op->modulation != NULL) {
        few.modulation_scale = tensor_data(op->modulation->scale);
        few.modulation_shift = tensor_data(op->modulation->shift);
        few.gate = tensor_data(op->modulation->gate);
        few.modulation_stride = op->modulation->stride;
        few.rows_each = (int)op->modulation->rows_each;
    }
    few.weight = static_cast<const __nv_bfloat16 *>(op->weight->tensor.data);
    few.bias = weight_data(op->bias);
    few.residual = tensor_data(op->residual);
    few.offset = tensor_data(op->offset);
    few.activation = op->activation;
    few.y = op->y.data;
    few.y_bf16 = op->y.dtype == BACKEND_BF16;
    switch (tiles_for(op)) {
    case 6:
        return swiglu ? few_launch<6, true>(op, few, stream) : few_launch<6, false>(op, few, stream);
    case 4:
        return swiglu ? few_launch<4, true>(op, few, stream) : few_launch<4, false>(op, few, stream);
    case 3:
        return few_launch<3, false>(op, few, stream);
    case 2:
        return swiglu ? few_launch<2, true>(op, few, stream) : few_launch<2, false>(op, few, stream);
    default:
        return few_launch<1, false>(op, few, stream);
    }
}
