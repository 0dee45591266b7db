/* Causal patches (backend_causal_patch_t): per patch the mean and deviation of all observed values up to its end, then asinh((x - loc) /
 * scale) and the flags of what is missing.
 *
 * x F32 [rows][..] and mask U8 [rows][patches · patch], loc, scale F32 [rows][patches + ahead], state F64 [rows][BACKEND_SCALER_STATE], y
 * [rows][tokens][2][patch], F32 or BF16. A block a row: a warp a patch takes its moments, one warp joins them into running ones, another
 * looks for the fallback's values, then all write y. Everything about statistics is F64. */
#include "gpuworker/backend/cuda/moments.cuh"

enum { PATCH_THREADS = 256, PATCH_WARPS = PATCH_THREADS / WARP, PATCH_SHARED_MOST = 200 * 1024 };

/* The descriptor with device pointers. */
typedef struct {
    const float *x, *future;
    const uint8_t *mask;
    const int32_t *step;
    int64_t x_stride, future_length, y_stride;
    int patches, ahead, patch, tokens, variates, exogenous, minimum_observed;
    double minimum;
    void *y;
    float *loc, *scale, *low, *high;
    double *state;
    uint8_t *visible, *lasting;
    float cap;
} causal_patch_t;

/* Where the values of one row come from: the first `own` from x, the others from the future, if there is one. */
typedef struct {
    const float *x, *future;
    const uint8_t *mask; /* NULL: all of x is observed */
    int64_t own, forced; /* from `forced` on all of x counts as observed */
    int64_t future_from, future_length;
} source_t;

static __device__ __forceinline__ source_t source_of(const causal_patch_t &op, int64_t row)
{
    int64_t values = (int64_t)op.patches * op.patch, variate = row % op.variates - (op.variates - op.exogenous);
    source_t source = {};

    source.x = op.x + row * op.x_stride;
    source.mask = op.mask != NULL ? op.mask + row * values : NULL;
    source.own = values;
    source.forced = variate < 0 ? values - op.patch : values;
    if (variate >= 0) {
        source.future = op.future + (row / op.variates * op.exogenous + variate) * op.future_length;
        source.future_length = op.future_length;
        if (op.mask == NULL) {
            source.own = 0;
            source.future_from = *op.step * values;
        }
    }
    return source;
}

static __device__ __forceinline__ bool value_at(const source_t &source, int64_t i, float &value)
{
    if (i < source.own) {
        int64_t from = i;
        bool observed = source.mask == NULL || source.mask[i] != 0;

        if (!observed && i >= source.forced) {
            while (from >= 0 && !source.mask[from])
                from--;
            observed = true;
        }
        value = from >= 0 ? source.x[from] : 0;
        return observed;
    }
    i += source.future_from - source.own;
    if (source.future == NULL || i >= source.future_length || isnan(source.future[i]))
        return false;
    value = source.future[i];
    return true;
}

/* The moments of patch p, in every lane of the warp. */
static __device__ moments_t patch_moments(const source_t &source, int64_t p, int patch)
{
    int lane = (int)threadIdx.x % WARP;
    moments_t set = {};
    float value;

    for (int i = lane; i < patch; i += WARP)
        if (value_at(source, p * patch + i, value)) {
            set.count += 1;
            set.sum += value;
        }
    set.count = sum_lanes<WARP>(set.count);
    set.sum = sum_lanes<WARP>(set.sum);
    double mean = moments_mean(set);
    for (int i = lane; i < patch; i += WARP)
        if (value_at(source, p * patch + i, value))
            set.m2 += (value - mean) * (value - mean);
    set.m2 = sum_lanes<WARP>(set.m2);
    return set;
}

static __device__ __forceinline__ double scale_of(const moments_t &set, double minimum)
{
    return fmax(sqrt(set.m2 / fmax(set.count - 1.0, 1.0)), minimum);
}

/* The moments of the row's first `most` observed values; one warp. */
static __device__ moments_t first_moments(const source_t &source, int most)
{
    int64_t values = source.own + source.future_length;
    int lane = (int)threadIdx.x % WARP;
    moments_t set = {};

    for (int pass = 0; pass < 2; pass++) {
        double mean = moments_mean(set), sum = 0;
        int count = 0;

        for (int64_t begin = 0; begin < values && count < most; begin += WARP) {
            float value = 0;
            bool observed = begin + lane < values && value_at(source, begin + lane, value);
            unsigned all = __ballot_sync(0xffffffffu, observed);

            if (observed && count + __popc(all & ((1u << lane) - 1)) < most)
                sum += pass == 0 ? value : (value - mean) * (value - mean);
            count += __popc(all);
        }
        sum = sum_lanes<WARP>(sum);
        if (pass == 0) {
            set.count = min(count, most);
            set.sum = sum;
        } else {
            set.m2 = sum;
        }
    }
    return set;
}

/* The block's least and largest own value that is observed, in thread 0. */
static __device__ void own_range(const source_t &source, float &low, float &high)
{
    __shared__ float lows[PATCH_WARPS], highs[PATCH_WARPS];
    float value;

    low = INFINITY;
    high = -INFINITY;
    for (int64_t i = threadIdx.x; i < source.own; i += PATCH_THREADS)
        if (value_at(source, i, value)) {
            low = fminf(low, value);
            high = fmaxf(high, value);
        }
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        low = fminf(low, __shfl_xor_sync(0xffffffffu, low, offset));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, offset));
    }
    if (threadIdx.x % WARP == 0) {
        lows[threadIdx.x / WARP] = low;
        highs[threadIdx.x / WARP] = high;
    }
    __syncthreads();
    for (int w = 0; threadIdx.x == 0 && w < PATCH_WARPS; w++) {
        low = fminf(low, lows[w]);
        high = fmaxf(high, highs[w]);
    }
}

template <typename T> static __global__ void __launch_bounds__(PATCH_THREADS) causal_patch_kernel(const causal_patch_t op)
{
    extern __shared__ moments_t shared[]; /* running [patches + ahead], then what y is scaled by: float2 [patches + ahead] */
    __shared__ double fallback[2];        /* loc, scale */
    moments_t *running = shared;
    int64_t row = blockIdx.x;
    int all = op.patches + op.ahead, warp = (int)threadIdx.x / WARP;
    float2 *scaling = reinterpret_cast<float2 *>(running + all);
    bool context = op.mask != NULL;

    begin();
    source_t source = source_of(op, row);
    double *state = op.state + row * BACKEND_SCALER_STATE;
    moments_t before = {};
    if (!context)
        before = {state[0], state[1], state[2]};
    for (int p = warp; p < all; p += PATCH_WARPS) {
        moments_t set = patch_moments(source, p, op.patch);
        if (threadIdx.x % WARP == 0)
            running[p] = p == 0 ? moments_join(before, set) : set;
    }
    if (warp == PATCH_WARPS - 1) {
        moments_t set = {};
        if (context)
            set = first_moments(source, op.minimum_observed);
        if (threadIdx.x % WARP == 0) {
            fallback[0] = context ? moments_mean(set) : state[3];
            fallback[1] = context ? scale_of(set, op.minimum) : state[4];
        }
    }
    __syncthreads();
    if (warp == 0)
        moments_scan(running, all);
    __syncthreads();

    for (int p = (int)threadIdx.x; p < all; p += PATCH_THREADS) {
        float loc = (float)moments_mean(running[p]), scale = (float)scale_of(running[p], op.minimum);
        bool enough = running[p].count >= op.minimum_observed;

        op.loc[row * all + p] = loc;
        op.scale[row * all + p] = scale;
        scaling[p] = enough ? make_float2(loc, scale) : make_float2((float)fallback[0], (float)fallback[1]);
        if (p >= op.tokens)
            continue;
        bool any = running[p].count > (p > 0 ? running[p - 1].count : before.count);
        if (op.visible != NULL)
            op.visible[row * op.tokens + p] = any || p >= op.patches;
        if (op.lasting != NULL)
            op.lasting[row * op.tokens + p] = any && p < op.patches;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < (int64_t)op.tokens * op.patch; i += PATCH_THREADS) {
        int p = (int)(i / op.patch);
        bool fed_back = !context && p < op.patches;
        float value = 0;
        bool observed = value_at(source, i, value);
        T *y = static_cast<T *>(op.y) + (row * op.tokens + p) * op.y_stride + i % op.patch;

        y[0] = from_float<T>(observed ? asinhf((value - scaling[p].x) / scaling[p].y) : 0);
        y[op.patch] = from_float<T>(observed || fed_back ? 0 : 1);
    }

    const moments_t &last = running[op.patches - 1];
    float low = 0, high = 0;
    if (op.low != NULL)
        own_range(source, low, high);
    if (threadIdx.x == 0) {
        if (op.low != NULL) {
            float scale = scaling[op.patches - 1].y;

            op.low[row] = (low <= high ? low : 0) - op.cap * scale;
            op.high[row] = (low <= high ? high : 0) + op.cap * scale;
        }
        state[0] = last.count;
        state[1] = last.sum;
        state[2] = last.m2;
        state[3] = fallback[0];
        state[4] = fallback[1];
    }
}

template <typename P> static P data_of(const backend_tensor_t *tensor)
{
    return tensor != NULL ? static_cast<P>(tensor->data) : NULL;
}

extern "C" int cuda_causal_patch_launch(const backend_causal_patch_t *op, cudaStream_t stream)
{
    size_t shared_bytes = (size_t)(op->patches + op->ahead) * (sizeof(moments_t) + sizeof(float2));
    causal_patch_t p = {};

    if (shared_bytes > PATCH_SHARED_MOST)
        return error_set(BACKEND_ERR_UNSUPPORTED, "causal_patch: %lld patches, on CUDA at most %d",
                         (long long)(op->patches + op->ahead), (int)(PATCH_SHARED_MOST / (sizeof(moments_t) + sizeof(float2))));
    p.x = static_cast<const float *>(op->x.data);
    p.x_stride = op->x_stride;
    p.mask = data_of<const uint8_t *>(op->mask);
    p.future = op->exogenous > 0 ? data_of<const float *>(op->future) : NULL;
    p.future_length = op->future_length;
    p.step = data_of<const int32_t *>(op->step);
    p.patches = (int)op->patches;
    p.ahead = (int)op->ahead;
    p.patch = (int)op->patch;
    p.tokens = (int)op->tokens;
    p.variates = (int)op->variates;
    p.exogenous = (int)op->exogenous;
    p.minimum = op->minimum;
    p.minimum_observed = (int)op->minimum_observed;
    p.y = op->y.data;
    p.y_stride = op->y_stride;
    p.loc = static_cast<float *>(op->loc.data);
    p.scale = static_cast<float *>(op->scale.data);
    p.low = data_of<float *>(op->low);
    p.high = data_of<float *>(op->high);
    p.state = static_cast<double *>(op->state.data);
    p.visible = data_of<uint8_t *>(op->visible);
    p.lasting = data_of<uint8_t *>(op->lasting);
    p.cap = op->cap;
    return op->y.dtype == BACKEND_BF16
               ? launch("causal_patch", causal_patch_kernel<__nv_bfloat16>, (unsigned)op->rows, PATCH_THREADS, shared_bytes, stream,
                        p)
               : launch("causal_patch", causal_patch_kernel<float>, (unsigned)op->rows, PATCH_THREADS, shared_bytes, stream, p);
}
