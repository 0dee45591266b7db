/* Known futures over what was generated: paths[series][sample][variate >= variates - exogenous][*step·patch + p] =
 * future[series][exogenous][*step·patch + p]. A thread a value, p fastest. */
#include "gpuworker/backend/cuda/launch.cuh"

static __global__ void override_kernel(float *paths, int64_t path_stride, const float *future, int64_t future_stride,
                                       const int32_t *step, int64_t values, int64_t samples, int64_t variates, int64_t exogenous,
                                       int64_t patch)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    begin();
    if (i >= values)
        return;
    int64_t p = i % patch, row = i / patch;
    int64_t variate = row % exogenous, sample = row / exogenous % samples, series = row / exogenous / samples;
    int64_t at = *step * patch + p;

    paths[((series * samples + sample) * variates + variates - exogenous + variate) * path_stride + at] =
        future[(series * exogenous + variate) * future_stride + at];
}

extern "C" int cuda_override_launch(const backend_override_t *op, cudaStream_t stream)
{
    enum { THREADS = 256 };
    int64_t values = op->series * op->samples * op->exogenous * op->patch;

    return launch("override", override_kernel, blocks_for(values, THREADS), THREADS, 0, stream,
                  static_cast<float *>(op->paths.data), op->path_stride, static_cast<const float *>(op->future.data),
                  op->future_stride, static_cast<const int32_t *>(op->step->data), values, op->samples, op->variates, op->exogenous,
                  op->patch);
}
