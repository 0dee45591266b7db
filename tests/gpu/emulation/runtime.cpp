/* The CUDA runtime: work on a stream is done at once, or kept while it is captured. */
#include "emulation.h"

#include <stdlib.h>

#include <iterator>
#include <map>
#include <vector>

struct emulated_graph {
    std::vector<std::function<void()>> work;
};

struct emulated_stream {
    emulated_graph *captured;
};

struct emulated_event {
    int none;
};

static void enqueue(cudaStream_t stream, std::function<void()> work)
{
    if (stream != NULL && stream->captured != NULL)
        stream->captured->work.push_back(std::move(work));
    else
        work();
}

cudaError_t emulation_launch(const cudaLaunchConfig_t &config, std::function<void()> thread)
{
    cudaLaunchConfig_t kept = config;
    unsigned size = 1;

    for (unsigned i = 0; i < config.numAttrs; i++)
        if (config.attrs[i].id == cudaLaunchAttributeClusterDimension)
            size = config.attrs[i].val.clusterDim.x;
    if (config.dynamicSmemBytes > EMULATION_SHARED_MOST || config.blockDim.x > EMULATION_THREADS_MOST || size > 8 ||
        config.gridDim.x == 0 || config.gridDim.x % size != 0 || config.gridDim.y == 0 || config.gridDim.y > 65535)
        return cudaErrorInvalidValue;
    kept.attrs = NULL;
    enqueue(config.stream, [=] { emulation_run(kept, thread, size); });
    return cudaSuccess;
}

extern "C" {

void emulation_enqueue(cudaStream_t stream, void (*run)(const void *), const void *argument, size_t bytes)
{
    std::vector<char> copy(static_cast<const char *>(argument), static_cast<const char *>(argument) + bytes);

    enqueue(stream, [=] { run(copy.data()); });
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int, cudaStream_t stream)
{
    enqueue(stream, [=] { memcpy(to, from, bytes); });
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int)
{
    stream->captured = new emulated_graph;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = stream->captured;
    stream->captured = NULL;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new emulated_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t)
{
    for (const std::function<void()> &work : exec->work)
        work();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = new emulated_stream();
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = new emulated_event();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    return cudaEventCreate(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t)
{
    *milliseconds = 0.001f; /* there is no time here */
    return cudaSuccess;
}

/* ---- devices and memory ------------------------------------------------------------------------------------------------------- */

static std::map<uintptr_t, size_t> pinned;

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    size_t whole = (bytes + 255) / 256 * 256;

    *out = aligned_alloc(256, whole > 0 ? whole : 256);
    if (*out == NULL)
        return cudaErrorMemoryAllocation;
    memset(*out, 0xff, whole);
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned)
{
    cudaError_t error = cudaMalloc(out, bytes);

    if (error == cudaSuccess)
        pinned[reinterpret_cast<uintptr_t>(*out)] = bytes;
    return error;
}

cudaError_t cudaFreeHost(void *memory)
{
    pinned.erase(reinterpret_cast<uintptr_t>(memory));
    return cudaFree(memory);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = *total_bytes = (size_t)8 << 30;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer)
{
    uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    auto after = pinned.upper_bound(address);
    bool is_pinned = after != pinned.begin() && address < std::prev(after)->first + std::prev(after)->second;

    *attributes = {is_pinned ? cudaMemoryTypeHost : cudaMemoryTypeDevice, const_cast<void *>(pointer)};
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int)
{
    *properties = {"emulated", 9, 0};
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t)
{
    return "error";
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "invalid value";
}
}
