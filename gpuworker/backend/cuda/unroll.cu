/* Contexts that go on along quantiles of the forecast so far, and their known future (backend_unroll_t).
 *
 * x, mask [series][variates][context], native [series][variates][levels][native_stride], future [series][exogenous][future_stride] -> y, y_mask
 * [series][paths][variates][width + ahead]. A thread a value, the bars fastest. */
#include "gpuworker/backend/cuda/launch.cuh"

typedef struct {
    const float *x, *native, *future;
    const uint8_t *mask;
    const int32_t *path_levels;
    float *y;
    uint8_t *y_mask;
    int64_t values, paths, variates, exogenous, context, length, levels, native_stride, future_stride, width, ahead;
} unroll_t;

static __global__ void unroll_kernel(const unroll_t op)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, bars = op.width + op.ahead;

    begin();
    if (i >= op.values)
        return;
    int64_t row = i / bars, t = i % bars + op.context + op.length - op.width, later = t - op.context;
    int64_t variate = row % op.variates, path = row / op.variates % op.paths, series = row / op.variates / op.paths;
    int64_t source = series * op.variates + variate, exogenous = variate - (op.variates - op.exogenous);
    float value = 0;
    bool seen = false;

    if (later < 0) {
        if (t >= 0) {
            value = op.x[source * op.context + t];
            seen = op.mask[source * op.context + t] != 0;
        }
    } else {
        if (later < op.length) {
            value = op.native[(source * op.levels + op.path_levels[path]) * op.native_stride + later];
            seen = true;
        }
        if (exogenous >= 0) {
            float known = op.future[(series * op.exogenous + exogenous) * op.future_stride + later];

            if (!isnan(known)) {
                value = known;
                seen = true;
            }
        }
    }
    op.y[i] = value;
    op.y_mask[i] = seen;
}

extern "C" int cuda_unroll_launch(const backend_unroll_t *op, cudaStream_t stream)
{
    enum { THREADS = 256 };
    unroll_t p = {};

    p.x = static_cast<const float *>(op->x.data);
    p.mask = static_cast<const uint8_t *>(op->mask.data);
    if (op->length > 0) {
        p.native = static_cast<const float *>(op->native->data);
        p.path_levels = static_cast<const int32_t *>(op->path_levels->data);
    }
    if (op->exogenous > 0)
        p.future = static_cast<const float *>(op->future->data);
    p.y = static_cast<float *>(op->y.data);
    p.y_mask = static_cast<uint8_t *>(op->y_mask.data);
    p.paths = op->paths;
    p.variates = op->variates;
    p.exogenous = op->exogenous;
    p.context = op->context;
    p.length = op->length;
    p.levels = op->levels;
    p.native_stride = op->native_stride;
    p.future_stride = op->future_stride;
    p.width = op->width;
    p.ahead = op->ahead;
    p.values = op->series * op->paths * op->variates * (op->width + op->ahead);
    return launch("unroll", unroll_kernel, blocks_for(p.values, THREADS), THREADS, 0, stream, p);
}
