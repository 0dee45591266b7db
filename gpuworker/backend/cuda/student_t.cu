/* The mixture of Student-t head (backend_student_t_t): its mean, or random draws from it.
 *
 * head F32 [rows · patch][4][K]: raw df, loc, scale, logits. Usually a warp a value (row, p) and a share of its draws: lanes take
 * components, the transformed parameters and the running sums of the weights go to shared memory, then lanes take draws:
 * component by inverse cdf, Student-t by Bailey's polar form, with the random numbers of backend.h's coordinates. */
#include "gpuworker/backend/cuda/launch.cuh"
#include "gpuworker/backend/philox.h"
#include "gpuworker/backend/student_t.h"

enum {
    MIXTURE_WARPS = 4,
    MIXTURE_COMPONENTS_MOST = 1024,
    MIXTURE_WARPS_WANTED = 4096,
    SINGLE_THREADS = 64,
    SINGLE_COMPONENTS_MOST = 32
};

typedef struct {
    const float *head, *out_loc, *out_scale;
    int64_t values, patch, samples, draws, variates, out_stride, out_offset, path_stride;
    int components;
    const uint64_t *keys;
    const int32_t *step;
    float *paths, *params;
} student_t_t;

static __device__ __forceinline__ float t_draw(float df, float u, float v)
{
    return sqrtf(df * expm1f(-2.0f / df * logf(u))) * cospif(2.0f * v);
}

/* Value v of row `row`, place p of the patch, path `draw` of the row. */
static __device__ __forceinline__ void put(const student_t_t &op, int64_t row, int64_t p, int64_t draw, int64_t draws, float v)
{
    int64_t affine = row * op.out_stride + op.out_offset;
    int64_t path = (row / op.variates * draws + draw) * op.variates + row % op.variates;

    op.paths[path * op.path_stride + *op.step * op.patch + p] = student_t_unscale(v, op.out_loc[affine], op.out_scale[affine]);
}

/* The random numbers of value p of the patch in one path. */
static __device__ __forceinline__ philox_t numbers(const student_t_t &op, int64_t row, int64_t p, int64_t draw)
{
    int64_t series = row / (op.samples * op.variates), sample = row / op.variates % op.samples * op.draws + draw;

    return philox(op.keys[series], (uint32_t)(*op.step * op.patch + p), (uint32_t)sample, (uint32_t)(row % op.variates),
                  PHILOX_STREAM_STUDENT_T);
}

static __device__ __forceinline__ float max_lanes(float value)
{
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}

/* Sum of the values of the lanes up to this one. */
static __device__ __forceinline__ float running_sum(float value)
{
#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        float left = __shfl_up_sync(0xffffffffu, value, offset);
        if ((int)threadIdx.x % WARP >= offset)
            value += left;
    }
    return value;
}

/* One draw a value: a lane a value, which holds all logits in registers; of the other parameters only the picked ones are read. */
static __global__ void __launch_bounds__(SINGLE_THREADS) student_t_single_kernel(const student_t_t op)
{
    int64_t item = (int64_t)blockIdx.x * SINGLE_THREADS + threadIdx.x;
    float weight[SINGLE_COMPONENTS_MOST], most = -INFINITY, total = 0, running = 0;
    int picked = 0;

    begin();
    if (item >= op.values)
        return;
    const float *raw = op.head + item * 4 * op.components;
#pragma unroll
    for (int k = 0; k < SINGLE_COMPONENTS_MOST; k += 4) {
        float4 four = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
        if (k < op.components)
            four = *reinterpret_cast<const float4 *>(raw + 3 * op.components + k);
        weight[k] = four.x;
        weight[k + 1] = four.y;
        weight[k + 2] = four.z;
        weight[k + 3] = four.w;
    }
    int64_t row = item / op.patch, p = item % op.patch;
    philox_t random = numbers(op, row, p, 0);
#pragma unroll
    for (int k = 0; k < SINGLE_COMPONENTS_MOST; k++)
        most = fmaxf(most, weight[k]);
#pragma unroll
    for (int k = 0; k < SINGLE_COMPONENTS_MOST; k++)
        total += weight[k] = expf(weight[k] - most);
    float target = philox_uniform(random.word[0]) * total;
#pragma unroll
    for (int k = 0; k < SINGLE_COMPONENTS_MOST; k++) {
        running += weight[k];
        picked += k < op.components - 1 && running <= target;
    }
    raw += picked;
    float t = t_draw(2.0f + student_t_positive(raw[0]), philox_uniform(random.word[1]), philox_uniform(random.word[2]));
    put(op, row, p, 0, 1, raw[op.components] + student_t_positive(raw[2 * op.components]) * t);
}

static __global__ void __launch_bounds__(MIXTURE_WARPS *WARP) student_t_kernel(const student_t_t op)
{
    extern __shared__ float shared[]; /* [warps][4][K]: df, loc, scale, running sum of unnormalised weights */
    int64_t item = (int64_t)blockIdx.x * MIXTURE_WARPS + threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP, components = op.components;
    float *df = shared + threadIdx.x / WARP * 4 * components, *loc = df + components, *scale = loc + components,
          *running = scale + components;

    begin();
    if (item >= op.values)
        return;
    int64_t row = item / op.patch, p = item % op.patch;
    const float *raw = op.head + item * 4 * components;
    float most = -INFINITY, total = 0, mean = 0;

    for (int k = lane; k < components; k += WARP) {
        df[k] = 2.0f + student_t_positive(raw[k]);
        loc[k] = raw[components + k];
        scale[k] = student_t_positive(raw[2 * components + k]);
        running[k] = raw[3 * components + k];
        most = fmaxf(most, running[k]);
        if (op.params != NULL) {
            float *params = op.params + item * components + k;
            params[0] = df[k];
            params[op.values * components] = loc[k];
            params[2 * op.values * components] = scale[k];
            params[3 * op.values * components] = running[k];
        }
    }
    most = max_lanes(most);
    for (int first = 0; first < components; first += WARP) {
        int k = first + lane;
        float weight = k < components ? expf(running[k] - most) : 0, sum = total + running_sum(weight);

        if (k < components) {
            mean += weight * loc[k];
            running[k] = sum;
        }
        total = __shfl_sync(0xffffffffu, sum, WARP - 1);
    }
    __syncwarp();

    if (op.draws == 0) {
        mean = sum_lanes<WARP>(mean) / total;
        if (lane == 0)
            put(op, row, p, 0, 1, mean);
        return;
    }
    for (int64_t draw = (int64_t)blockIdx.y * WARP + lane; draw < op.draws; draw += (int64_t)gridDim.y * WARP) {
        philox_t random = numbers(op, row, p, draw);
        float target = philox_uniform(random.word[0]) * total;
        int k = 0;

        for (int i = 0; i < components - 1; i++)
            k += running[i] <= target;
        put(op, row, p, draw, op.draws,
            loc[k] + scale[k] * t_draw(df[k], philox_uniform(random.word[1]), philox_uniform(random.word[2])));
    }
}

extern "C" int cuda_student_t_launch(const backend_student_t_t *op, cudaStream_t stream)
{
    student_t_t p = {};
    unsigned shares = 1;

    if (op->components > MIXTURE_COMPONENTS_MOST)
        return error_set(BACKEND_ERR_UNSUPPORTED, "student_t: %lld components, on CUDA at most %d", (long long)op->components,
                         MIXTURE_COMPONENTS_MOST);
    p.head = static_cast<const float *>(op->head.data);
    p.out_loc = static_cast<const float *>(op->out_loc.data);
    p.out_scale = static_cast<const float *>(op->out_scale.data);
    p.values = op->rows * op->patch;
    p.patch = op->patch;
    p.samples = op->samples;
    p.draws = op->draws;
    p.variates = op->variates;
    p.out_stride = op->out_stride;
    p.out_offset = op->out_offset;
    p.path_stride = op->path_stride;
    p.components = (int)op->components;
    p.keys = op->draws > 0 ? static_cast<const uint64_t *>(op->keys->data) : NULL;
    p.step = static_cast<const int32_t *>(op->step->data);
    p.paths = static_cast<float *>(op->paths.data);
    p.params = op->params != NULL ? static_cast<float *>(op->params->data) : NULL;
    if (p.draws == 1 && p.params == NULL && p.components <= SINGLE_COMPONENTS_MOST && p.components % 4 == 0 &&
        aligned_for(p.head, BACKEND_F32, p.components, 4))
        return launch("student_t", student_t_single_kernel, blocks_for(p.values, SINGLE_THREADS), SINGLE_THREADS, 0, stream, p);
    while (p.values * shares < MIXTURE_WARPS_WANTED && (int64_t)shares * WARP < op->draws)
        shares *= 2;
    return launch("student_t", student_t_kernel, dim3(blocks_for(p.values, MIXTURE_WARPS), shares), MIXTURE_WARPS * WARP,
                  MIXTURE_WARPS * 4 * sizeof(float) * (size_t)op->components, stream, p);
}
