/* Quantiles of the mixture of Student-t head without draws (backend_student_t_quantiles_t): the distribution function inverted in F64, by the
 * formulas of student_t.h.
 *
 * head F32 [rows · patch][4][K] -> quantiles [rows][levels][horizon]. A block a value: its first warp prepares the components in shared
 * memory; then a group of LANES lanes searches a level, each lane adding up its share of the components. */
#include "gpuworker/backend/cuda/launch.cuh"
#include "gpuworker/backend/student_t.h"

enum { QUANTILE_THREADS_MOST = 256, QUANTILE_SHARED_MOST = 160 * 1024 };

typedef struct {
    const float *head, *out_loc, *out_scale, *future, *levels;
    int64_t patch, horizon, variates, exogenous, out_stride, out_offset, future_stride;
    int components, level_count;
    float *quantiles;
} quantiles_t;

typedef struct {
    double mean, spread;
} moments_t;

/* All lanes of a warp: the components of one value, and the moments of their mixture. */
static __device__ moments_t prepare(const float *raw, int components, student_t_component_t *to)
{
    int lane = (int)threadIdx.x % WARP;
    double most = -INFINITY, total = 0, mean = 0, squares = 0;

    for (int k = lane; k < components; k += WARP)
        most = fmax(most, (double)raw[3 * components + k]);
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        most = fmax(most, __shfl_xor_sync(0xffffffffu, most, offset));
    for (int k = lane; k < components; k += WARP)
        total += exp((double)raw[3 * components + k] - most);
    total = sum_lanes<WARP>(total);
    for (int k = lane; k < components; k += WARP) {
        double weight = exp((double)raw[3 * components + k] - most) / total;

        to[k] = student_t_component(raw[k], raw[components + k], raw[2 * components + k], weight);
        mean += weight * to[k].loc;
    }
    mean = sum_lanes<WARP>(mean);
    for (int k = lane; k < components; k += WARP) {
        double off = to[k].loc - mean;
        squares += to[k].weight * (to[k].scale * to[k].scale + off * off);
    }
    return {mean, sqrt(sum_lanes<WARP>(squares))};
}

/* A group's lanes all return the quantile. All groups of a warp search together, until the last one has arrived. */
template <int LANES>
static __device__ double search_quantile(const student_t_component_t *component, int components, moments_t moments, double level)
{
    student_t_search_t search = {0, INFINITY, -INFINITY, 0, 0, 0};
    double outermost = student_t_outermost(level);
    int lane = (int)threadIdx.x % LANES;
    bool arrived = false;

    for (int k = lane; k < components; k += LANES)
        if (component[k].weight != 0)
            student_t_widen(&search, &component[k], outermost);
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        search.low = fmin(search.low, __shfl_xor_sync(0xffffffffu, search.low, offset));
        search.high = fmax(search.high, __shfl_xor_sync(0xffffffffu, search.high, offset));
    }
    student_t_begin(&search, level, moments.mean, moments.spread);
    for (int steps = 0; steps < STUDENT_T_STEPS_MOST && __any_sync(0xffffffffu, !arrived); steps++) {
        student_t_sides_t sides = {0, 0, 0};

        for (int k = lane; k < components; k += LANES)
            if (component[k].weight != 0)
                student_t_add(&component[k], search.x, &sides);
        sides = {sum_lanes<LANES>(sides.below), sum_lanes<LANES>(sides.above), sum_lanes<LANES>(sides.density)};
        if (!arrived)
            arrived = student_t_arrived(&search, &sides);
    }
    return search.x;
}

template <int LANES>
static __global__ void __launch_bounds__(QUANTILE_THREADS_MOST) student_t_quantiles_kernel(const quantiles_t op)
{
    extern __shared__ student_t_component_t component[]; /* [K], then the levels' values, float [levels] */
    __shared__ moments_t moments;
    float *found = reinterpret_cast<float *>(component + op.components);
    int64_t row = blockIdx.x / op.horizon, p = blockIdx.x % op.horizon, affine = row * op.out_stride + op.out_offset;
    int64_t series = row / op.variates, known = row % op.variates - (op.variates - op.exogenous);
    float *to = op.quantiles + row * op.level_count * op.horizon + p;

    begin();
    if (known >= 0) {
        for (int q = (int)threadIdx.x; q < op.level_count; q += (int)blockDim.x)
            to[q * op.horizon] = op.future[(series * op.exogenous + known) * op.future_stride + p];
        return;
    }
    if (threadIdx.x < WARP) {
        moments_t mine = prepare(op.head + (row * op.patch + p) * 4 * op.components, op.components, component);
        if (threadIdx.x == 0)
            moments = mine;
    }
    __syncthreads();
    for (int first = 0; first < op.level_count; first += (int)blockDim.x / LANES) {
        int q = first + (int)threadIdx.x / LANES, used = q < op.level_count ? q : op.level_count - 1;
        double x = search_quantile<LANES>(component, op.components, moments, (double)op.levels[used]);

        if (q < op.level_count && threadIdx.x % LANES == 0)
            found[q] = student_t_unscale((float)x, op.out_loc[affine], op.out_scale[affine]);
    }
    __syncthreads();
    for (int q = (int)threadIdx.x; q < op.level_count; q += (int)blockDim.x) {
        float most = found[0];

        for (int below = 1; below <= q; below++)
            most = fmaxf(most, found[below]);
        to[q * op.horizon] = most;
    }
}

/* LANES: the least power of two that holds the components, from 4 to a warp. */
template <int LANES> static int launch_lanes(const quantiles_t &op, int64_t rows, size_t shared_bytes, cudaStream_t stream)
{
    if constexpr (LANES > 4)
        if (op.components <= LANES / 2)
            return launch_lanes<LANES / 2>(op, rows, shared_bytes, stream);
    int64_t threads = (op.level_count * (int64_t)LANES + WARP - 1) / WARP * WARP;
    return launch("student_t_quantiles", student_t_quantiles_kernel<LANES>, (unsigned)(rows * op.horizon),
                  (unsigned)(threads < QUANTILE_THREADS_MOST ? threads : (int64_t)QUANTILE_THREADS_MOST), shared_bytes, stream, op);
}

extern "C" int cuda_student_t_quantiles_launch(const backend_student_t_quantiles_t *op, cudaStream_t stream)
{
    int64_t levels = backend_tensor_elements(&op->levels);
    int64_t shared_bytes = op->components * (int64_t)sizeof(student_t_component_t) + levels * (int64_t)sizeof(float);
    quantiles_t p = {};

    if (shared_bytes > QUANTILE_SHARED_MOST || op->rows * op->horizon > INT32_MAX)
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
    p.quantiles = static_cast<float *>(op->quantiles.data);
    return launch_lanes<WARP>(p, op->rows, (size_t)shared_bytes, stream);
}
