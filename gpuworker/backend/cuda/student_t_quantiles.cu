/* Quantiles of the mixture of Student-t head without draws (backend_student_t_quantiles_t): the distribution function inverted in F64, by the
 * formulas of student_t.h.
 *
 * head F32 [rows · patch][4][K] -> quantiles [rows][levels][horizon]. A block has several values of [rows · horizon]: a warp each prepares
 * their components in shared memory; then a group of LANES lanes searches for one level of one value, each lane adding up its share of the
 * components.
 *
 * F64 takes many times as long as F32, so that the group first comes near in F32, measuring in spreads of the mixture from its mean. The
 * search in F64 starts there; as a rule its first step or second is the last. What F32 finds is a guess and nothing else: no number, or one
 * that is wrong, costs steps. */
#include "gpuworker/backend/cuda/launch.cuh"
#include "gpuworker/backend/student_t.h"

enum {
    QUANTILE_THREADS_MOST = 288,
    QUANTILE_VALUES_MOST = 4, /* of a block */
    QUANTILE_SHARED_MOST = 160 * 1024,
    LANES_MOST = 8,
    QUICK_STEPS_MOST = 16,
};

/* A component as the search in F32 knows it, in spreads from the mean. */
typedef struct {
    float df, loc, per_df, per_scale, per_b, weight, height, term[STUDENT_T_TERMS];
} quick_component_t;

typedef struct {
    float below, above, density;
} quick_sides_t;

typedef struct {
    double mean, spread;
} moments_t;

typedef struct {
    const float *head, *out_loc, *out_scale, *future, *levels;
    int64_t patch, horizon, variates, exogenous, out_stride, out_offset, future_stride, count; /* of values */
    int components, level_count, values;                                                       /* values of a block */
    float *quantiles;
} quantiles_t;

/* What a block has in shared memory. */
typedef struct {
    student_t_component_t *component; /* [values][K] */
    moments_t *moments;               /* [values] */
    quick_component_t *quick;         /* [values][K] */
    float *found;                     /* [values][levels] */
} room_t;

static size_t room_bytes(int64_t values, int64_t components, int64_t levels)
{
    return (size_t)(values * components) * (sizeof(student_t_component_t) + sizeof(quick_component_t)) +
           (size_t)values * (sizeof(moments_t) + (size_t)levels * sizeof(float));
}

/* ---- preparing ---------------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ quick_component_t quick_component(const student_t_component_t &from, moments_t moments)
{
    quick_component_t quick = {(float)from.df,
                               (float)((from.loc - moments.mean) / moments.spread),
                               (float)from.per_df,
                               (float)(from.per_scale * moments.spread),
                               (float)from.per_b,
                               (float)from.weight,
                               (float)(from.height * moments.spread),
                               {}};

#pragma unroll
    for (int j = 0; j < STUDENT_T_TERMS; j++)
        quick.term[j] = (float)from.term[j];
    return quick;
}

/* All lanes of a warp: the components of one value, and the moments of their mixture. */
static __device__ void prepare(const float *raw, int components, student_t_component_t *to, quick_component_t *quick,
                               moments_t *moments)
{
    int lane = (int)threadIdx.x % WARP;
    double most = -INFINITY, total = 0, mean = 0, squares = 0;
    moments_t of;

    for (int k = lane; k < components; k += WARP)
        most = fmax(most, (double)raw[3 * components + k]);
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        most = fmax(most, __shfl_xor_sync(0xffffffffu, most, offset));
    for (int k = lane; k < components; k += WARP)
        total += to[k].weight = exp((double)raw[3 * components + k] - most);
    total = sum_lanes<WARP>(total);
    for (int k = lane; k < components; k += WARP) {
        to[k] = student_t_component(raw[k], raw[components + k], raw[2 * components + k], to[k].weight / total);
        mean += to[k].weight * to[k].loc;
    }
    mean = sum_lanes<WARP>(mean);
    for (int k = lane; k < components; k += WARP) {
        double off = to[k].loc - mean;
        squares += to[k].weight * (to[k].scale * to[k].scale + off * off);
    }
    of = {mean, sqrt(sum_lanes<WARP>(squares))};
    for (int k = lane; k < components; k += WARP)
        quick[k] = quick_component(to[k], of);
    if (lane == 0)
        *moments = of;
}

/* ---- searching ---------------------------------------------------------------------------------------------------------------- */

/* student_t_add in F32. Kept from infinities: beyond the bounds of t and y a tail is nothing. */
static __device__ __forceinline__ void quick_add(const quick_component_t &component, float x, quick_sides_t *sides)
{
    float off = (x - component.loc) * component.per_scale, t = fminf(fabsf(off), 1e8f), df = component.df;
    float more = df + (2 * STUDENT_T_TERMS - 0.5f), log_x = -log1pf(t * t * component.per_df), power = expf(0.5f * df * log_x);
    float root = rsqrtf(df + t * t), ratio = df * root * root, sum = component.term[STUDENT_T_TERMS - 1];
    float y = fminf(-more * log_x, 200.0f), hill, tail;

#pragma unroll
    for (int j = STUDENT_T_TERMS - 2; j >= 0; j--)
        sum = sum * ratio + component.term[j];
    hill = __fdividef(((-0.4f * y - 3.3f) * y - 24) * y - 85.5f, 0.8f * y * y + 100 + 48 * more * more);
    hill = 1 + (y + 3 + hill) * component.per_b;
    tail = component.weight * (t * root * power * sum + 0.5f * erfcf(hill * sqrtf(0.5f * y)));
    sides->below += off < 0 ? tail : component.weight - tail;
    sides->above += off < 0 ? component.weight - tail : tail;
    sides->density += component.height * power * root;
}

/* A group's lanes all return about where the quantile is, between `low` and `high`; NaN: no idea. Like the search of student_t.h, with a step
 * that leaves the bracket halving it. */
template <int LANES>
static __device__ __forceinline__ float search_quickly(const quick_component_t *component, int components, float wanted, float low,
                                                       float high, bool arrived)
{
    float x = fminf(fmaxf(0.55f * wanted, low), high);
    int lane = (int)threadIdx.x % LANES;

    for (int steps = 0; steps < QUICK_STEPS_MOST && __any_sync(0xffffffffu, !arrived); steps++) {
        quick_sides_t sides = {0, 0, 0};
        float off, next;

        if (!arrived)
            for (int k = lane; k < components; k += LANES)
                quick_add(component[k], x, &sides);
        sides = {sum_lanes<LANES>(sides.below), sum_lanes<LANES>(sides.above), sum_lanes<LANES>(sides.density)};
        if (arrived)
            continue;
        off = logf(sides.below / sides.above) - wanted;
        next = x - off / (sides.density / sides.below + sides.density / sides.above);
        low = off < 0 ? x : low;
        high = off < 0 ? high : x;
        arrived = !(fabsf(off) >= 1e-3f);
        x = arrived || (next >= low && next <= high) ? next : low + 0.5f * (high - low);
    }
    return x;
}

/* A group's lanes all return the quantile. All groups of a warp search together, until the last one has arrived: those that seek nothing
 * have from the start. */
template <int LANES>
static __device__ double search_quantile(const student_t_component_t *component, const quick_component_t *quick, int components,
                                         moments_t moments, double level, bool arrived)
{
    student_t_search_t search = {0, INFINITY, -INFINITY, 0, 0, 0};
    double outermost = student_t_outermost(level);
    int lane = (int)threadIdx.x % LANES;
    float guess;

    if (!arrived)
        for (int k = lane; k < components; k += LANES)
            if (component[k].weight != 0)
                student_t_widen(&search, &component[k], outermost);
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        search.low = fmin(search.low, __shfl_xor_sync(0xffffffffu, search.low, offset));
        search.high = fmax(search.high, __shfl_xor_sync(0xffffffffu, search.high, offset));
    }
    student_t_begin(&search, level, moments.mean, moments.spread);
    guess = search_quickly<LANES>(quick, components, (float)search.wanted, (float)((search.low - moments.mean) / moments.spread),
                                  (float)((search.high - moments.mean) / moments.spread), arrived);
    if (!isnan(guess))
        search.x = fmin(fmax(moments.mean + moments.spread * (double)guess, search.low), search.high);
    for (int steps = 0; steps < STUDENT_T_STEPS_MOST && __any_sync(0xffffffffu, !arrived); steps++) {
        student_t_sides_t sides = {0, 0, 0};

        if (!arrived)
            for (int k = lane; k < components; k += LANES)
                if (component[k].weight != 0)
                    student_t_add(&component[k], search.x, &sides);
        sides = {sum_lanes<LANES>(sides.below), sum_lanes<LANES>(sides.above), sum_lanes<LANES>(sides.density)};
        if (!arrived)
            arrived = student_t_arrived(&search, &sides);
    }
    return search.x;
}

/* ---- the kernel --------------------------------------------------------------------------------------------------------------- */

/* Where the known future of a value lies; NULL: it is forecast. */
static __device__ __forceinline__ const float *future_of(const quantiles_t &op, int64_t row, int64_t p)
{
    int64_t series = row / op.variates, known = row % op.variates - (op.variates - op.exogenous);
    return known < 0 ? NULL : op.future + (series * op.exogenous + known) * op.future_stride + p;
}

template <int LANES>
static __global__ void __launch_bounds__(QUANTILE_THREADS_MOST) student_t_quantiles_kernel(const quantiles_t op)
{
    extern __shared__ student_t_component_t shared[];
    room_t room;
    int64_t first = (int64_t)blockIdx.x * op.values;
    int values = (int)min((int64_t)op.values, op.count - first), items = values * op.level_count;

    room.component = shared;
    room.moments = reinterpret_cast<moments_t *>(room.component + op.values * op.components);
    room.quick = reinterpret_cast<quick_component_t *>(room.moments + op.values);
    room.found = reinterpret_cast<float *>(room.quick + op.values * op.components);

    begin();
    for (int v = (int)threadIdx.x / WARP; v < values; v += (int)blockDim.x / WARP) {
        int64_t row = (first + v) / op.horizon, p = (first + v) % op.horizon;

        if (future_of(op, row, p) == NULL)
            prepare(op.head + (row * op.patch + p) * 4 * op.components, op.components, room.component + v * op.components,
                    room.quick + v * op.components, &room.moments[v]);
    }
    __syncthreads();
    for (int before = 0; before < items; before += (int)blockDim.x / LANES) {
        int item = before + (int)threadIdx.x / LANES, v = min(item, items - 1) / op.level_count;
        int64_t row = (first + v) / op.horizon, p = (first + v) % op.horizon, affine = row * op.out_stride + op.out_offset;
        const float *future = future_of(op, row, p);
        double x =
            search_quantile<LANES>(room.component + v * op.components, room.quick + v * op.components, op.components,
                                   room.moments[v], (double)op.levels[item % op.level_count], item >= items || future != NULL);

        if (item < items && threadIdx.x % LANES == 0)
            room.found[item] = future != NULL ? *future : student_t_unscale((float)x, op.out_loc[affine], op.out_scale[affine]);
    }
    __syncthreads();
    for (int item = (int)threadIdx.x; item < items; item += (int)blockDim.x) {
        int v = item % values, level = item / values;
        int64_t row = (first + v) / op.horizon, p = (first + v) % op.horizon;
        const float *found = room.found + v * op.level_count;
        float most = found[0];

        for (int below = 1; below <= level; below++)
            most = fmaxf(most, found[below]);
        op.quantiles[(row * op.level_count + level) * op.horizon + p] = most;
    }
}

/* LANES: the least power of two that holds the components, from 4 to LANES_MOST. */
template <int LANES> static int launch_lanes(const quantiles_t &op, size_t shared_bytes, cudaStream_t stream)
{
    if constexpr (LANES > 4)
        if (op.components <= LANES / 2)
            return launch_lanes<LANES / 2>(op, shared_bytes, stream);
    int64_t threads = (op.values * op.level_count * (int64_t)LANES + WARP - 1) / WARP * WARP;
    return launch("student_t_quantiles", student_t_quantiles_kernel<LANES>, blocks_for(op.count, op.values),
                  (unsigned)(threads < QUANTILE_THREADS_MOST ? threads : (int64_t)QUANTILE_THREADS_MOST), shared_bytes, stream, op);
}

extern "C" int cuda_student_t_quantiles_launch(const backend_student_t_quantiles_t *op, cudaStream_t stream)
{
    int64_t levels = backend_tensor_elements(&op->levels);
    int64_t values = QUANTILE_VALUES_MOST;
    quantiles_t p = {};

    while (values > 1 && (values * levels * LANES_MOST > QUANTILE_THREADS_MOST ||
                          room_bytes(values, op->components, levels) > SHARED_BYTES_DEFAULT))
        values /= 2;
    if (room_bytes(values, op->components, levels) > QUANTILE_SHARED_MOST || op->rows * op->horizon > INT32_MAX)
        return error_set(BACKEND_ERR_UNSUPPORTED,
                         "student_t_quantiles: %lld values of %lld components and %lld levels are too many for CUDA",
                         (long long)(op->rows * op->horizon), (long long)op->components, (long long)levels);
    p.head = static_cast<const float *>(op->head.data);
    p.out_loc = static_cast<const float *>(op->out_loc.data);
    p.out_scale = static_cast<const float *>(op->out_scale.data);
    p.future = op->exogenous > 0 ? static_cast<const float *>(op->future->data) : NULL;
    p.levels = static_cast<const float *>(op->levels.data);
    p.patch = op->patch;
    p.horizon = op->horizon;
    p.variates = op->variates;
    p.exogenous = op->exogenous;
    p.out_stride = op->out_stride;
    p.out_offset = op->out_offset;
    p.future_stride = op->future_stride;
    p.components = (int)op->components;
    p.level_count = (int)levels;
    p.count = op->rows * op->horizon;
    p.values = (int)values;
    p.quantiles = static_cast<float *>(op->quantiles.data);
    return launch_lanes<LANES_MOST>(p, room_bytes(values, op->components, levels), stream);
}
