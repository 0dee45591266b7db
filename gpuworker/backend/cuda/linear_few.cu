/* A linear of few rows: y = residual + offset + gate · act(modulated(norm(x)) · Wᵀ + bias) in one kernel, bound by reading W once at memory
 * speed.
 *
 * x [rows][in] F32 or BF16, rows x_stride apart; W [out][in] BF16; bias, residual, offset F32; y F32 or BF16, rows y_stride apart. in % 32
 * == 0, 16-byte aligned rows.
 *
 * A block computes TILES tiles of 8 outputs for 16 rows of x or fewer; there are no more blocks than multiprocessors where that can be.
 * What no earlier kernel writes is requested before begin(), while that kernel still runs: the copy engine brings the block's
 * part of W to shared memory, and the norm's scale and the bias follow. After begin() it is latency that counts, some 5 cycles an
 * instruction: addresses are worked out before, and x is asked for first. It goes straight to registers, multiplied by scale and
 * rounded to BF16, its squares summed on the way; 1/rms multiplies the finished sum. A norm that shifts (WHOLE: layer norm, modulation)
 * cannot wait so long: the warps hold all of x in registers, join their sums, and normalise before they multiply. For SWIGLU the
 * second half of the tiles is of the second half of W.
 *
 * mma.m16n8k16 takes 16 rows of x (side M) and 8 of W (side N). Which 16 of the k it takes is free as long as both sides agree,
 * so that lane (r = lane / 4, q = lane % 4) of a chunk of 32 k holds the 8 neighbouring ones from 8q, 16 bytes, of x rows r and
 * r + 8 and of W row r: the first 4 feed one mma, the last 4 a second. The warps take chunks in turn, BATCH at once so that their
 * loads are in flight together; their sums are added in a fixed order. */
#include "gpuworker/backend/cuda/linear_few.cuh"

/* ---- the kernel -------------------------------------------------------------------------------------------------------------- */

/* A y that a thread finishes: where it lies, and what is added to the product there. */
typedef struct {
    int row, column;
    int64_t at, gate_at;
    float bias, other_bias, residual, offset, gate;
} y_t;

/* What no kernel writes. */
template <int YS, bool SWIGLU> static __device__ __forceinline__ y_t locate_y(const few_t &op, int item, int first_row, int first_y)
{
    int row = item / YS, column = item % YS, y = first_y + column, ys = SWIGLU ? op.out / 2 : op.out;
    y_t to = {row, column, (first_row + row) * op.y_stride + y, 0, 0, 0, 0, 0, 1};

    if (op.gate != NULL)
        to.gate_at = (first_row + row) / op.rows_each * op.modulation_stride + y;
    if (op.bias != NULL && y < ys) {
        to.bias = op.bias[y];
        if (SWIGLU)
            to.other_bias = op.bias[ys + y];
    }
    return to;
}

/* And what others do. */
static __device__ __forceinline__ void load_y(const few_t &op, y_t &to)
{
    if (op.residual != NULL)
        to.residual = op.residual[to.at];
    if (op.offset != NULL)
        to.offset = op.offset[to.at];
    if (op.gate != NULL)
        to.gate = op.gate[to.gate_at];
}

template <int TILES, bool SWIGLU, int WARPS, int HALVES, int BATCH, bool WHOLE, typename X>
static __global__ void __launch_bounds__(WARPS *WARP, 2) linear_few_kernel(const __grid_constant__ few_t op)
{
    constexpr int OUTS = TILES * TILE, YS = SWIGLU ? OUTS / 2 : OUTS, ROOM = HALVES * HALF, PITCH = partial_pitch(TILES);
    extern __shared__ uint4
        shared[]; /* W [OUTS], rows of pitch_of(in); partial [warps][ROOM][PITCH]; squares [warps][ROOM]; scale; WHOLE: shift */
    __shared__ uint64_t arrived;
    __nv_bfloat16 *w_rows = reinterpret_cast<__nv_bfloat16 *>(shared);
    float *partial = reinterpret_cast<float *>(w_rows + OUTS * pitch_of(op.in)), *squares = partial + WARPS * ROOM * PITCH;
    float *scale = squares + WARPS * ROOM, *shift = scale + op.in;
    int warp = (int)threadIdx.x / WARP, r = (int)threadIdx.x % WARP / 4, q = (int)threadIdx.x % 4;
    int ys = SWIGLU ? op.out / 2 : op.out, first_y = (int)blockIdx.x * YS, first_row = (int)blockIdx.y * op.each;
    int rows = min(op.rows - first_row, op.each), first_k = warp * CHUNK + q * VECTOR, left = op.in - first_k;
    float sum[TILES][4] = {}, square[HALVES] = {};

    cudaTriggerProgrammaticLaunchCompletion();
    if (warp == 0)
        fetch_rows(
            op, w_rows, OUTS, [=](int i) { return i < YS ? first_y + i : ys + first_y + i - YS; }, &arrived);
    if constexpr (sizeof(X) == sizeof(float))
        load_norm<WARPS>(op, scale, WHOLE ? shift : NULL);

    /* All that is known of addresses, so that x is asked for at once when it is there. */
    const X *row[HALVES];
    const __nv_bfloat16 *w = w_rows + r * pitch_of(op.in) + first_k;
    int64_t condition = op.modulation_scale != NULL ? first_row / op.rows_each * op.modulation_stride : 0;
    y_t y = locate_y<YS, SWIGLU>(op, (int)threadIdx.x, first_row, first_y);
    bool own = y.row < rows && first_y + y.column < ys;

#pragma unroll
    for (int half = 0; half < HALVES; half++) {
        int64_t at = (first_row + min(r + half * HALF, rows - 1)) * op.x_stride + first_k;

        ptx_settle(at);
        row[half] = static_cast<const X *>(op.x) + at;
    }
    ptx_settle(condition);
    ptx_settle(y.at);
    ptx_settle(y.gate_at);
    __syncthreads();
    begin();

    x_parts_t<WARPS, HALVES, BATCH, X> x;
    x.fetch(row, left);
    if constexpr (WHOLE) {
        float factor[HALVES], add[HALVES];

        if (op.modulation_scale != NULL)
            join_modulation<WARPS>(op, condition, scale, shift);
        if (own)
            load_y(op, y);
        measure_rows(op, x, partial, factor, add);
        ptx_bulk_wait(&arrived);
        add_chunks<TILES>(op, sum, x, left, w, [&](const x_part_t<X> &part, int half, int k) {
            return part.finish_whole(scale + first_k + k, shift + first_k + k, factor[half], add[half]);
        });
        __syncthreads(); /* `partial` held the shares */
    } else {
        if (own)
            load_y(op, y);
        ptx_bulk_wait(&arrived);
#pragma unroll 1
        for (int before = 0;;) {
            add_chunks<TILES>(op, sum, x, left - before, w + before, [&](const x_part_t<X> &part, int half, int k) {
                return part.finish(scale + first_k + before + k, square[half]);
            });
            before += BATCH * WARPS * CHUNK;
            if (before >= op.in)
                break;
#pragma unroll
            for (int half = 0; half < HALVES; half++)
                row[half] += BATCH * WARPS * CHUNK;
            x.fetch(row, left - before);
        }
    }

    /* Element (2·half + i) of a fragment is output 2q + i of row r + 8·half. */
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
#pragma unroll
        for (int t = 0; t < TILES; t++)
            *reinterpret_cast<float2 *>(partial + (warp * ROOM + half * HALF + r) * PITCH + t * TILE + q * 2) =
                make_float2(sum[t][half * 2], sum[t][half * 2 + 1]);
        if constexpr (!WHOLE && sizeof(X) == sizeof(float)) {
            square[half] = sum_lanes<4>(square[half]);
            if (q == 0)
                squares[warp * ROOM + half * HALF + r] = square[half];
        }
    }
    __syncthreads();

#pragma unroll 1
    for (int item = (int)threadIdx.x; item < rows * YS;) {
        const float *part = partial + y.row * PITCH + y.column;
        float value = 0, other = 0, total_squares = 0;

#pragma unroll
        for (int i = 0; i < WARPS; i++) {
            value += part[i * ROOM * PITCH];
            if (SWIGLU)
                other += part[i * ROOM * PITCH + YS];
            if constexpr (!WHOLE && sizeof(X) == sizeof(float))
                total_squares += squares[i * ROOM + y.row];
        }
        if (!WHOLE && op.norm != BACKEND_NORM_NONE) {
            float factor = rsqrtf(total_squares * op.per_in + op.eps);
            value *= factor;
            other *= factor;
        }
        value += y.bias;
        if (op.activation == BACKEND_ACT_RELU)
            value = fmaxf(value, 0.0f);
        else if (op.activation != BACKEND_ACT_NONE)
            value = __fdividef(value, 1.0f + expf(-value));
        if (SWIGLU)
            value *= other + y.other_bias;
        value = value * y.gate + (y.residual + y.offset);
        if (own && op.y_bf16)
            static_cast<__nv_bfloat16 *>(op.y)[y.at] = __float2bfloat16_rn(value);
        else if (own)
            static_cast<float *>(op.y)[y.at] = value;

        item += WARPS * WARP; /* few threads have another */
        if (item >= rows * YS)
            break;
        y = locate_y<YS, SWIGLU>(op, item, first_row, first_y);
        own = first_y + y.column < ys;
        if (own)
            load_y(op, y);
    }
}

/* ---- launching --------------------------------------------------------------------------------------------------------------- */

/* Does the norm of x shift it, or differ between conditions? */
static bool is_whole(const backend_linear_t *op)
{
    return op->norm.kind == BACKEND_NORM_LAYER || (op->norm.kind != BACKEND_NORM_NONE && op->norm.shift != NULL) ||
           (op->modulation != NULL && op->modulation->scale != NULL);
}

/* Are the rows shared out by 8, so that each block asks for less of x before it can begin? W is read more often, which is nothing beside
 * it while all blocks run at once and many of its rows fit into one. */
static bool is_narrow(const backend_linear_t *op)
{
    int64_t columns = blocks_for(op->weight->tensor.dim[0], TILES_MOST * TILE);

    return op->rows > GROUP && op->weight->tensor.dim[1] <= SHORT && columns * blocks_for(op->rows, HALF) <= SMS;
}

/* Rows of a block: shared out evenly; under a norm with several conditions all rows of a block have one. */
static int64_t rows_each(const backend_linear_t *op)
{
    int64_t most = is_narrow(op) ? HALF : GROUP, groups = (op->rows + most - 1) / most;
    bool conditions = is_whole(op) && op->modulation != NULL && op->modulation->rows_each < op->rows;

    return conditions ? most : (op->rows + groups - 1) / groups;
}

/* 1 or 2: whether a block's rows need both halves of an mma. */
static int halves_for(const backend_linear_t *op)
{
    return rows_each(op) <= HALF ? 1 : 2;
}

static int warps_for(const backend_linear_t *op)
{
    return is_narrow(op) ? NARROW_WARPS : FEW_WARPS;
}

static size_t shared_for(const backend_linear_t *op, int tiles)
{
    size_t in = (size_t)op->weight->tensor.dim[1], room = (size_t)halves_for(op) * HALF;

    return (size_t)tiles * TILE * (size_t)pitch_of((int)in) * sizeof(__nv_bfloat16) +
           ((size_t)warps_for(op) * room * (size_t)(partial_pitch(tiles) + 1) + in * (is_whole(op) ? 2 : 1)) * sizeof(float);
}

/* How many tiles a block takes: enough for one wave, of half as many blocks where they are narrow, as far as they fit. 0: not even the
 * least number does. */
static int tiles_for(const backend_linear_t *op)
{
    static const int choices[] = {TILES_MOST, 4, 3, 2, 1};
    int64_t out = op->weight->tensor.dim[0], groups = blocks_for(op->rows, rows_each(op));
    int64_t blocks_most = is_narrow(op) ? SMS / 2 : SMS;
    bool swiglu = op->activation == BACKEND_ACT_SWIGLU;
    int best = 0;

    for (int tiles : choices) {
        if ((swiglu && tiles % 2 != 0) || shared_for(op, tiles) > FEW_SHARED_MOST)
            continue;
        if (best == 0 || blocks_for(out, tiles * TILE) * groups <= blocks_most)
            best = tiles;
    }
    return best;
}

/* A norm that shifts wants all of x at once, in F32, and one condition for all rows of a block. */
static bool whole_fits(const backend_linear_t *op)
{
    const backend_modulation_t *modulation = op->modulation;

    return op->x.dtype == BACKEND_F32 && op->weight->tensor.dim[1] <= SHORT &&
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
static_assert(TILE >= 2, "shares of sums fit where the partial sums will lie");

template <int TILES, bool SWIGLU, int WARPS, int HALVES>
static int launch_shape(const backend_linear_t *op, const few_t &few, cudaStream_t stream)
{
    constexpr int BATCH = short_batch(WARPS);
    dim3 grid(blocks_for(few.out, TILES * TILE), blocks_for(few.rows, few.each));
    void (*kernel)(const few_t) = linear_few_kernel<TILES, SWIGLU, WARPS, HALVES, BATCH, false, __nv_bfloat16>;

    if (is_whole(op))
        kernel = linear_few_kernel<TILES, SWIGLU, WARPS, HALVES, BATCH, true, float>;
    else if (op->x.dtype == BACKEND_F32)
        kernel = linear_few_kernel<TILES, SWIGLU, WARPS, HALVES, BATCH, false, float>;
    else if constexpr (WARPS == FEW_WARPS)
        if (few.in > SHORT)
            kernel = linear_few_kernel<TILES, SWIGLU, WARPS, HALVES, long_batch(HALVES), false, __nv_bfloat16>;
    return launch("linear", kernel, grid, WARPS * WARP, shared_for(op, TILES), stream, few);
}

template <int TILES, bool SWIGLU> static int few_launch(const backend_linear_t *op, const few_t &few, cudaStream_t stream)
{
    if (warps_for(op) == NARROW_WARPS)
        return launch_shape<TILES, SWIGLU, NARROW_WARPS, 1>(op, few, stream);
    return halves_for(op) == 1 ? launch_shape<TILES, SWIGLU, FEW_WARPS, 1>(op, few, stream)
                               : launch_shape<TILES, SWIGLU, FEW_WARPS, 2>(op, few, stream);
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
    few.each = (int)rows_each(op);
    few.in = (int)in;
    few.out = (int)out;
    few.norm = op->norm.kind;
    few.norm_scale = norm ? weight_data(op->norm.scale) : NULL;
    few.norm_shift = norm ? weight_data(op->norm.shift) : NULL;
    few.eps = op->norm.eps;
    few.per_in = 1.0f / (float)in;
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
    case TILES_MOST:
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
