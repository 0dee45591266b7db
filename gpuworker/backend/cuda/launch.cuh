/* How every kernel here is launched and begins, and the few device helpers that several share.
 *
 * Programmatic dependent launch: a kernel may be scheduled while the one before it on the stream still runs, which hides launch
 * latency and block start-up between the many small dependent kernels of a forecast. The price is a rule: every kernel calls
 * begin() in every thread before it touches memory that any kernel writes (reads or writes; weights and tables are never written
 * and may be read before). begin() waits until the kernel before has finished, which itself had waited for the one before it, so
 * the order on the stream is kept. For the same reason activations are never read through the read-only path (__ldg): their
 * pointers are not __restrict__. -DCUDA_OVERLAP=0 turns it off everywhere. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_LAUNCH_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_LAUNCH_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "gpuworker/backend/cuda/kernels.h"

#ifndef CUDA_OVERLAP
#define CUDA_OVERLAP 1
#endif

enum {
    WARP = 32,
    SHARED_BYTES_DEFAULT = 48 * 1024,
    SMS = 132, /* multiprocessors of an H100 or H200, which sizes are chosen for */
};

/* Launches `kernel` with `cluster` blocks a cluster (1: none) and returns a backend status that names the op. */
template <typename... Parameters, typename... Arguments>
static int launch_cluster(const char *name, void (*kernel)(Parameters...), dim3 grid, unsigned block, size_t shared_bytes,
                          unsigned cluster, cudaStream_t stream, Arguments... arguments)
{
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};

    config.gridDim = grid;
    config.blockDim = dim3(block);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = attributes;
    if (CUDA_OVERLAP) {
        attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attributes[config.numAttrs].val.clusterDim.x = cluster;
        attributes[config.numAttrs].val.clusterDim.y = 1;
        attributes[config.numAttrs++].val.clusterDim.z = 1;
    }
    if (shared_bytes > SHARED_BYTES_DEFAULT) {
        int rc = cuda_check(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes));
        if (rc < 0)
            return rc;
    }
    return cuda_check(name, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

template <typename... Parameters, typename... Arguments>
static int launch(const char *name, void (*kernel)(Parameters...), dim3 grid, unsigned block, size_t shared_bytes,
                  cudaStream_t stream, Arguments... arguments)
{
    return launch_cluster(name, kernel, grid, block, shared_bytes, 1, stream, arguments...);
}

static inline unsigned blocks_for(int64_t items, int64_t per_block)
{
    return (unsigned)((items + per_block - 1) / per_block);
}

/* First call of every kernel: lets the next kernel be scheduled, and waits for the one before. */
static __device__ __forceinline__ void begin()
{
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
}

static __device__ __forceinline__ float to_float(float value)
{
    return value;
}

static __device__ __forceinline__ float to_float(__nv_bfloat16 value)
{
    return __bfloat162float(value);
}

template <typename T> static __device__ __forceinline__ T from_float(float value);

template <> __device__ __forceinline__ float from_float<float>(float value)
{
    return value;
}

template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value)
{
    return __float2bfloat16_rn(value);
}

/* What moves BYTES in one access. */
template <int BYTES> struct word_t;
template <> struct word_t<2> {
    typedef uint16_t type;
};
template <> struct word_t<4> {
    typedef uint32_t type;
};
template <> struct word_t<8> {
    typedef uint2 type;
};
template <> struct word_t<16> {
    typedef uint4 type;
};

/* COUNT consecutive elements, aligned to their own size together (16 bytes at most), by the widest accesses. */
template <int COUNT, typename T> struct packed_t {
    static constexpr int BYTES = COUNT * (int)sizeof(T), WORD = BYTES < 16 ? BYTES : 16, WORDS = BYTES / WORD;
    typedef typename word_t<WORD>::type word;
};

/* As they lie in memory; zeros where `active` is false. */
template <int COUNT, typename T>
static __device__ __forceinline__ void load_words(typename packed_t<COUNT, T>::word (&to)[packed_t<COUNT, T>::WORDS], const T *from,
                                                  bool active)
{
    typedef typename packed_t<COUNT, T>::word word;

#pragma unroll
    for (int i = 0; i < packed_t<COUNT, T>::WORDS; i++)
        to[i] = active ? reinterpret_cast<const word *>(from)[i] : word{};
}

template <int COUNT, typename T>
static __device__ __forceinline__ void unpack(float (&to)[COUNT],
                                              const typename packed_t<COUNT, T>::word (&words)[packed_t<COUNT, T>::WORDS])
{
    T values[COUNT];

    memcpy(values, words, sizeof values);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        to[i] = to_float(values[i]);
}

template <int COUNT, typename T> static __device__ __forceinline__ void load(float (&to)[COUNT], const T *from)
{
    typename packed_t<COUNT, T>::word words[packed_t<COUNT, T>::WORDS];

    load_words<COUNT, T>(words, from, true);
    unpack<COUNT, T>(to, words);
}

template <int COUNT, typename T>
static __device__ __forceinline__ void pack(typename packed_t<COUNT, T>::word (&words)[packed_t<COUNT, T>::WORDS],
                                            const float (&from)[COUNT])
{
    T values[COUNT];

#pragma unroll
    for (int i = 0; i < COUNT; i++)
        values[i] = from_float<T>(from[i]);
    memcpy(words, values, sizeof values);
}

/* To shared memory. */
template <int COUNT, typename T> static __device__ __forceinline__ void store_shared(T *to, const float (&from)[COUNT])
{
    typedef packed_t<COUNT, T> packed;
    typename packed::word words[packed::WORDS];

    pack<COUNT, T>(words, from);
#pragma unroll
    for (int i = 0; i < packed::WORDS; i++)
        reinterpret_cast<typename packed::word *>(to)[i] = words[i];
}

/* To global memory; a plain store may be split into its fields. */
template <int COUNT, typename T>
static __device__ __forceinline__ void store_words(T *to,
                                                   const typename packed_t<COUNT, T>::word (&words)[packed_t<COUNT, T>::WORDS])
{
#pragma unroll
    for (int i = 0; i < packed_t<COUNT, T>::WORDS; i++)
        __stwb(reinterpret_cast<typename packed_t<COUNT, T>::word *>(to) + i, words[i]);
}

template <int COUNT, typename T> static __device__ __forceinline__ void store(T *to, const float (&from)[COUNT])
{
    typename packed_t<COUNT, T>::word words[packed_t<COUNT, T>::WORDS];

    pack<COUNT, T>(words, from);
    store_words<COUNT, T>(to, words);
}

/* Sum over the WIDTH lanes of a group, in every lane of it: the same tree always. */
template <int WIDTH, typename T> static __device__ __forceinline__ T sum_lanes(T value)
{
#pragma unroll
    for (int offset = WIDTH / 2; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

/* Can a buffer be read `elements` at a time, in rows `stride` elements apart? */
static inline bool aligned_for(const void *data, backend_dtype_t dtype, int64_t stride, int elements)
{
    size_t size = dtype == BACKEND_BF16 ? 2 : 4;
    size_t bytes = size * (size_t)elements < 16 ? size * (size_t)elements : 16;
    return reinterpret_cast<uintptr_t>(data) % bytes == 0 && (size_t)stride * size % bytes == 0;
}

#endif
