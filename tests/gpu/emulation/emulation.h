/* CUDA kernels on the CPU: the language that gpuworker/backend/cuda is written in, for a C++ compiler.
 *
 * The .cu files are compiled as they are, as C++, with this folder's headers in front of the toolkit's. A launch runs its blocks one after another;
 * a block's threads are fibers of one thread of the system, which take turns at the barriers, warps in an order that is drawn anew every round.
 * What is `__shared__` is thread_local, so that the blocks of a cluster are threads of the system. Dynamic shared memory begins as NaN,
 * asynchronous copies come at the last moment, and addresses are checked for what they may be. So arithmetic, indices, barriers and missing
 * waits are tested on any machine; registers, timing, memory order between blocks, and cuBLASLt (product.c: OpenBLAS) are not. Captured
 * streams keep what they are given and replay it. */
#ifndef BARCAST_TESTS_GPU_EMULATION_H
#define BARCAST_TESTS_GPU_EMULATION_H

#include <cuda_runtime_api.h>

#include <limits.h>
#include <math.h>
#include <string.h>

#include <cmath>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__      thread_local
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

/* ---- types ------------------------------------------------------------------------------------------------------------------- */

struct dim3 {
    unsigned x, y, z;

    constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth)
    {
    }
};

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

static inline float2 make_float2(float x, float y)
{
    return {x, y};
}

static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return {x, y, z, w};
}

extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

/* ---- the threads of a block (emulation.cpp) ----------------------------------------------------------------------------------- */

int emulation_lane();

/* Waits for the whole warp and returns what each lane gave; it stays until the warp's next but one. */
struct alignas(8) emulation_word_t {
    char bytes[64];
};
const emulation_word_t *emulation_post(const void *mine, size_t bytes);

template <typename T> static inline const T &emulation_read(const emulation_word_t *lanes, int lane)
{
    static_assert(sizeof(T) <= sizeof(emulation_word_t), "as much as a lane gives");
    return *reinterpret_cast<const T *>(lanes[lane & 31].bytes);
}

/* Waits for the whole block; true when `value` was true in all threads, or in any. */
void emulation_block(bool value, bool *all, bool *any);

void emulation_check_aligned(const void *address, size_t bytes);
void emulation_check_shared(const void *address, size_t bytes);
void emulation_copy_later(void *shared, const void *from, size_t bytes, bool wanted);
void emulation_copies_wait();
void emulation_bulk_expect(uint64_t *arrived, uint32_t bytes);
void emulation_bulk_copy(void *shared, const void *from, uint32_t bytes, uint64_t *arrived);
void emulation_bulk_wait(uint64_t *arrived);

unsigned emulation_cluster_blocks();
unsigned emulation_cluster_rank();
void emulation_cluster_arrive();
void emulation_cluster_wait();
void emulation_store_remote(void *shared, unsigned rank, const void *from, size_t bytes, uint64_t *arrived);

static inline void __syncwarp()
{
    emulation_post(NULL, 0);
}

static inline void __syncthreads()
{
    emulation_block(true, NULL, NULL);
}

static inline int __syncthreads_and(int value)
{
    bool all;

    emulation_block(value != 0, &all, NULL);
    return all;
}

static inline int __syncthreads_or(int value)
{
    bool any;

    emulation_block(value != 0, NULL, &any);
    return any;
}

template <typename T> static inline T __shfl_xor_sync(unsigned, T value, int mask)
{
    return emulation_read<T>(emulation_post(&value, sizeof value), emulation_lane() ^ mask);
}

template <typename T> static inline T __shfl_up_sync(unsigned, T value, int by)
{
    int lane = emulation_lane();
    return emulation_read<T>(emulation_post(&value, sizeof value), lane >= by ? lane - by : lane);
}

template <typename T> static inline T __shfl_sync(unsigned, T value, int from, int width = 32)
{
    return emulation_read<T>(emulation_post(&value, sizeof value), emulation_lane() / width * width + (from & (width - 1)));
}

static inline unsigned __ballot_sync(unsigned, int value)
{
    const emulation_word_t *lanes = emulation_post(&value, sizeof value);
    unsigned bits = 0;

    for (int i = 0; i < 32; i++)
        bits |= (emulation_read<int>(lanes, i) != 0 ? 1u : 0u) << i;
    return bits;
}

static inline int __any_sync(unsigned mask, int value)
{
    return __ballot_sync(mask, value) != 0;
}

static inline int __all_sync(unsigned mask, int value)
{
    return __ballot_sync(mask, value) == 0xffffffffu;
}

template <typename T> static inline T __reduce_max_sync(unsigned, T value)
{
    const emulation_word_t *lanes = emulation_post(&value, sizeof value);

    for (int i = 0; i < 32; i++)
        value = emulation_read<T>(lanes, i) > value ? emulation_read<T>(lanes, i) : value;
    return value;
}

template <typename T> static inline T __reduce_min_sync(unsigned, T value)
{
    const emulation_word_t *lanes = emulation_post(&value, sizeof value);

    for (int i = 0; i < 32; i++)
        value = emulation_read<T>(lanes, i) < value ? emulation_read<T>(lanes, i) : value;
    return value;
}

template <typename T> static inline T atomicAdd(T *to, T value)
{
    T before = *to;

    *to += value;
    return before;
}

template <typename T> static inline void __stwb(T *to, T value)
{
    emulation_check_aligned(to, sizeof value);
    *to = value;
}

/* ---- arithmetic ---------------------------------------------------------------------------------------------------------------- */

using std::isfinite;
using std::isinf;
using std::isnan;

template <typename A, typename B> static inline auto min(A a, B b) -> decltype(a + b)
{
    return a < b ? a : b;
}

template <typename A, typename B> static inline auto max(A a, B b) -> decltype(a + b)
{
    return a > b ? a : b;
}

static inline uint32_t __float_as_uint(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __uint_as_float(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float __fadd_rn(float a, float b)
{
    volatile float sum = a + b; /* never part of a fused multiply-add */
    return sum;
}

static inline float __fmul_rn(float a, float b)
{
    volatile float product = a * b;
    return product;
}

static inline float __fdividef(float a, float b)
{
    return a / b;
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

static inline float cospif(float x)
{
    return (float)cos(M_PI * (double)x);
}

static inline uint32_t __float2uint_rn(float x)
{
    return x > 0 ? (uint32_t)llrintf(x) : 0;
}

static inline uint32_t __umulhi(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

static inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}

/* ---- launching ----------------------------------------------------------------------------------------------------------------- */

enum { cudaLaunchAttributeProgrammaticStreamSerialization = 1, cudaLaunchAttributeClusterDimension };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };

struct cudaLaunchAttribute {
    int id;
    struct {
        int programmaticStreamSerializationAllowed;
        dim3 clusterDim;
    } val;
};

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

enum { EMULATION_THREADS_MOST = 1024, EMULATION_SHARED_MOST = 227 << 10 }; /* of a block */

/* Runs all threads of a launch, its blocks in clusters of `size`, in this thread of the system and size - 1 more. */
void emulation_run(const cudaLaunchConfig_t &config, const std::function<void()> &thread, unsigned size);

/* The same on the config's stream. */
cudaError_t emulation_launch(const cudaLaunchConfig_t &config, std::function<void()> thread);

template <typename... Parameters, typename... Arguments>
static cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...), Arguments... arguments)
{
    return emulation_launch(*config, [=] { kernel(arguments...); });
}

template <typename F> static cudaError_t cudaFuncSetAttribute(F, int, int)
{
    return cudaSuccess;
}

static inline void cudaTriggerProgrammaticLaunchCompletion()
{
}

static inline void cudaGridDependencySynchronize()
{
}

#endif
