/* The step counter, I32 [1] on the device: set to a constant, or advanced by one. One thread. */
#include "gpuworker/backend/cuda/launch.cuh"

static __global__ void step_set_kernel(int32_t *step, int32_t value)
{
    begin();
    *step = value;
}

static __global__ void step_advance_kernel(int32_t *step)
{
    begin();
    *step += 1;
}

extern "C" int cuda_step_set_launch(int32_t *step, int32_t value, cudaStream_t stream)
{
    return launch("step_set", step_set_kernel, 1, 1, 0, stream, step, value);
}

extern "C" int cuda_step_advance_launch(int32_t *step, cudaStream_t stream)
{
    return launch("step_advance", step_advance_kernel, 1, 1, 0, stream, step);
}
