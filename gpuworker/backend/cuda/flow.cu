/* The two ends of a flow: flow_start draws noise (or takes what is given) and works out its drift (bias - x) / steps; flow_finish turns what
 * the flow has arrived at into paths, x · scale + loc, and into the median of the samples.
 *
 * x, drift F32 [rows] `stride` apart, rows (series, variate, sample), the sample fastest; paths and given in the order (series, sample,
 * variate). A thread a value of x, channels fastest: neighbours read and write neighbours. The median's thread is the one whose value has
 * the middle rank: it reads all samples of its channel, which the blocks beside it want too. */
#include "gpuworker/backend/cuda/launch.cuh"
#include "gpuworker/backend/philox.h"

enum { FLOW_THREADS = 256 };

/* Where row (series, variate, sample) stands among rows ordered (series, sample, variate). */
static __device__ __forceinline__ int64_t path_of(int64_t row, int64_t samples, int64_t variates)
{
    int64_t sample = row % samples, variate = row / samples % variates, series = row / (samples * variates);
    return (series * samples + sample) * variates + variate;
}

typedef struct {
    int64_t width, samples, variates, first, given_stride, stride;
    const uint64_t *keys;
    const float *given, *bias;
    float steps;
    float *x, *drift;
} flow_start_t;

static __global__ void __launch_bounds__(FLOW_THREADS) flow_start_kernel(flow_start_t op)
{
    int64_t row = blockIdx.x, c = (int64_t)blockIdx.y * FLOW_THREADS + threadIdx.x;
    float x;

    begin();
    if (c >= op.width)
        return;
    if (op.given != NULL) {
        x = op.given[path_of(row, op.samples, op.variates) * op.given_stride + op.first + c];
    } else {
        philox_t random = philox(op.keys[row / (op.samples * op.variates)], (uint32_t)(op.first + c), (uint32_t)(row % op.samples),
                                 (uint32_t)(row / op.samples % op.variates), PHILOX_STREAM_FLOW);
        x = sqrtf(-2.0f * logf(philox_uniform(random.word[0]))) * cospif(2.0f * philox_uniform(random.word[1]));
    }
    op.x[row * op.stride + c] = x;
    op.drift[row * op.stride + c] = (op.bias[c] - x) / op.steps;
}

extern "C" int cuda_flow_start_launch(const backend_flow_start_t *op, cudaStream_t stream)
{
    flow_start_t p = {};

    p.width = op->width;
    p.samples = op->samples;
    p.variates = op->variates;
    p.first = op->first;
    p.given_stride = op->given_stride;
    p.stride = op->stride;
    p.keys = op->given == NULL ? static_cast<const uint64_t *>(op->keys->data) : NULL;
    p.given = op->given != NULL ? static_cast<const float *>(op->given->data) : NULL;
    p.bias = static_cast<const float *>(op->bias->tensor.data);
    p.steps = (float)op->steps;
    p.x = static_cast<float *>(op->x.data);
    p.drift = static_cast<float *>(op->drift.data);
    return launch("flow_start", flow_start_kernel, dim3((unsigned)op->rows, blocks_for(op->width, FLOW_THREADS)), FLOW_THREADS, 0,
                  stream, p);
}

typedef struct {
    int64_t width, samples, variates, stride, path_stride;
    const float *x, *loc, *scale;
    float *paths, *median; /* median NULL: not asked for */
} flow_finish_t;

/* Comes `a` before `b` among the samples of a channel? Ascending, NaN last, equal ones by sample. */
static __device__ __forceinline__ bool before(float a, float b, bool first)
{
    if (isnan(a) || isnan(b))
        return !isnan(a) || (isnan(b) && first);
    return a < b || (a == b && first);
}

static __global__ void __launch_bounds__(FLOW_THREADS) flow_finish_kernel(flow_finish_t op)
{
    int64_t row = blockIdx.x, c = (int64_t)blockIdx.y * FLOW_THREADS + threadIdx.x;
    int64_t group = row / op.samples, sample = row % op.samples, rank = 0;

    begin();
    if (c >= op.width)
        return;
    float x = op.x[row * op.stride + c];
    op.paths[path_of(row, op.samples, op.variates) * op.path_stride + c] = x * op.scale[group] + op.loc[group];
    if (op.median == NULL)
        return;
    const float *others = op.x + group * op.samples * op.stride + c;
    for (int64_t s = 0; s < op.samples; s++)
        rank += s != sample && before(others[s * op.stride], x, s < sample);
    if (rank == (op.samples - 1) / 2)
        op.median[group * op.width + c] = x;
}

extern "C" int cuda_flow_finish_launch(const backend_flow_finish_t *op, cudaStream_t stream)
{
    flow_finish_t p = {};

    p.width = op->width;
    p.samples = op->samples;
    p.variates = op->variates;
    p.stride = op->stride;
    p.path_stride = op->path_stride;
    p.x = static_cast<const float *>(op->x.data);
    p.loc = static_cast<const float *>(op->loc.data);
    p.scale = static_cast<const float *>(op->scale.data);
    p.paths = static_cast<float *>(op->paths.data);
    p.median = op->median != NULL ? static_cast<float *>(op->median->data) : NULL;
    return launch("flow_finish", flow_finish_kernel, dim3((unsigned)op->rows, blocks_for(op->width, FLOW_THREADS)), FLOW_THREADS, 0,
                  stream, p);
}
