/* to[i] = from[i], bytes: 16 at a time where both ends allow, the rest singly. One side is pinned host memory, which the device
 * reads and writes in place. */
#include "gpuworker/backend/cuda/launch.cuh"

static __global__ void copy_kernel(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t thread = (size_t)blockIdx.x * blockDim.x + threadIdx.x, threads = (size_t)gridDim.x * blockDim.x;
    size_t words =
        (reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % sizeof(uint4) == 0 ? bytes / sizeof(uint4) : 0;

    begin();
    for (size_t i = thread; i < words; i += threads)
        reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(from)[i];
    for (size_t i = words * sizeof(uint4) + thread; i < bytes; i += threads)
        to[i] = from[i];
}

extern "C" int cuda_copy_launch(void *to, const void *from, size_t bytes, cudaStream_t stream)
{
    enum { THREADS = 256, BLOCKS_MOST = 32 };
    unsigned blocks = blocks_for((int64_t)(bytes / sizeof(uint4)) + 1, THREADS);

    return launch("copy", copy_kernel, blocks < BLOCKS_MOST ? blocks : (unsigned)BLOCKS_MOST, THREADS, 0, stream,
                  static_cast<uint8_t *>(to), static_cast<const uint8_t *>(from), bytes);
}
