#include "emulation.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

enum { WARP = 32, WARPS_MOST = 32, SHARED_MOST = 227 << 10, STACK_BYTES = 128 << 10 };

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
thread_local uint4 shared[SHARED_MOST / sizeof(uint4)]; /* what kernels declare as `extern __shared__ … shared[]` */

[[noreturn]] static void fail(const char *what)
{
    fprintf(stderr, "emulation: %s: thread %u of block %u, %u\n", what, threadIdx.x, blockIdx.x, blockIdx.y);
    abort();
}

/* ---- blocks and their threads -------------------------------------------------------------------------------------------------- */

namespace
{

struct copy_t {
    void *to;
    const void *from;
    size_t bytes;
    bool wanted;
    uint64_t *arrived;
};

struct fiber_t {
    std::unique_ptr<char[]> stack;
    ucontext_t begin;
    jmp_buf at;
    bool started, done;
    uint64_t cluster_goal;
    std::vector<copy_t> copies;
};

struct warp_t {
    int alive, waiting, asleep; /* asleep: in a barrier of the block or of the cluster */
    unsigned turn;
    emulation_word_t given[2][WARP];
};

struct cluster_t {
    unsigned blocks, threads; /* of the cluster; of all its blocks */
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t arrived = 0;
    std::vector<char *> base; /* of each block: where `shared` lies */
};

struct block_t {
    std::vector<fiber_t> fibers;
    std::vector<copy_t> bulk;
    warp_t warp[WARPS_MOST];
    int alive, waiting, in_cluster;
    unsigned turn;
    bool all, any, all_were, any_were;
    unsigned current, rank;
    uint64_t awaited; /* the least goal of those in_cluster */
    size_t shared_bytes;
    cluster_t *cluster;
    const std::function<void()> *body;
    jmp_buf scheduler;
    uint64_t random = 1;
};

} // namespace

static thread_local block_t *block;

static warp_t &warp_of_current()
{
    return block->warp[block->current / WARP];
}

static void yield()
{
    if (_setjmp(block->fibers[block->current].at) == 0)
        _longjmp(block->scheduler, 1);
}

static void release_warp(warp_t &warp)
{
    if (warp.alive > 0 && warp.waiting == warp.alive) {
        warp.waiting = 0;
        warp.turn++;
    }
}

static void wake_all()
{
    block->in_cluster = 0;
    for (warp_t &warp : block->warp)
        warp.asleep = 0;
}

static void release_block()
{
    if (block->alive > 0 && block->waiting == block->alive) {
        block->waiting = 0;
        block->all_were = block->all;
        block->any_were = block->any;
        block->all = true;
        block->any = false;
        block->turn++;
        wake_all();
    }
}

static void run_thread()
{
    (*block->body)();
    fiber_t &fiber = block->fibers[block->current];

    if (!fiber.copies.empty())
        fail("ends with copies under way");
    fiber.done = true;
    block->alive--;
    warp_of_current().alive--;
    release_warp(warp_of_current());
    release_block();
    _longjmp(block->scheduler, 1);
}

static void resume(unsigned thread)
{
    fiber_t &fiber = block->fibers[thread];

    block->current = thread;
    threadIdx = dim3(thread, 0, 0);
    if (_setjmp(block->scheduler) != 0)
        return;
    if (fiber.started)
        _longjmp(fiber.at, 1);
    fiber.started = true;
    setcontext(&fiber.begin);
}

static unsigned draw(unsigned below)
{
    block->random = block->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(block->random >> 33) % below;
}

/* Wakes those who wait for the cluster once it is there; if all do, waits with them. */
static void look_at_cluster()
{
    std::unique_lock<std::mutex> lock(block->cluster->mutex);
    auto is_there = [] { return block->cluster->arrived >= block->awaited; };

    if (block->in_cluster == block->alive)
        block->cluster->changed.wait(lock, is_there);
    if (is_there())
        wake_all();
}

static void run_block()
{
    unsigned threads = blockDim.x, warps = (threads + WARP - 1) / WARP;
    unsigned order[WARPS_MOST];

    block->fibers.resize(threads);
    block->bulk.clear();
    block->alive = (int)threads;
    block->waiting = block->in_cluster = 0;
    block->all = true;
    block->any = false;
    memset(shared, 0xff, block->shared_bytes);
    for (unsigned w = 0; w < warps; w++) {
        order[w] = w;
        block->warp[w].alive = (int)std::min(threads - w * WARP, (unsigned)WARP);
        block->warp[w].waiting = block->warp[w].asleep = 0;
    }
    for (fiber_t &fiber : block->fibers) {
        if (fiber.stack == nullptr)
            fiber.stack.reset(new char[STACK_BYTES]);
        fiber.started = fiber.done = false;
        getcontext(&fiber.begin);
        fiber.begin.uc_stack.ss_sp = fiber.stack.get();
        fiber.begin.uc_stack.ss_size = STACK_BYTES;
        fiber.begin.uc_link = NULL;
        makecontext(&fiber.begin, run_thread, 0);
    }
    while (block->alive > 0) {
        for (unsigned w = warps; w > 1; w--)
            std::swap(order[w - 1], order[draw(w)]);
        for (unsigned i = 0; i < warps; i++) {
            warp_t &warp = block->warp[order[i]];

            for (unsigned t = order[i] * WARP; t < threads && t < (order[i] + 1) * WARP && warp.asleep < warp.alive; t++)
                if (!block->fibers[t].done)
                    resume(t);
        }
        if (block->in_cluster > 0)
            look_at_cluster();
    }
}

/* All clusters of a launch, the block of `rank` in each. */
static void run_blocks(const cudaLaunchConfig_t &config, const std::function<void()> &body, unsigned rank,
                       std::vector<std::unique_ptr<cluster_t>> &clusters)
{
    static thread_local block_t own;
    unsigned size = clusters[0]->blocks;

    block = &own;
    block->rank = rank;
    block->shared_bytes = config.dynamicSmemBytes;
    block->body = &body;
    blockDim = config.blockDim;
    gridDim = config.gridDim;
    for (unsigned number = rank; number < config.gridDim.x * config.gridDim.y; number += size) {
        block->cluster = clusters[size > 1 ? number / size : 0].get();
        block->cluster->base[rank] = reinterpret_cast<char *>(shared);
        blockIdx = dim3(number % config.gridDim.x, number / config.gridDim.x, 0);
        run_block();
    }
}

static void run_launch(const cudaLaunchConfig_t &config, const std::function<void()> &body, unsigned size)
{
    unsigned blocks = config.gridDim.x * config.gridDim.y;
    std::vector<std::unique_ptr<cluster_t>> clusters(size > 1 ? blocks / size : 1);
    std::vector<std::thread> others;

    for (auto &cluster : clusters) {
        cluster.reset(new cluster_t);
        cluster->blocks = size;
        cluster->threads = size * config.blockDim.x;
        cluster->base.resize(size);
    }
    for (unsigned rank = 1; rank < size; rank++)
        others.emplace_back([&, rank] { run_blocks(config, body, rank, clusters); });
    run_blocks(config, body, 0, clusters);
    for (std::thread &other : others)
        other.join();
}

/* ---- what kernels call ----------------------------------------------------------------------------------------------------------- */

int emulation_lane()
{
    return (int)(block->current % WARP);
}

const emulation_word_t *emulation_post(const void *mine, size_t bytes)
{
    warp_t &warp = warp_of_current();
    unsigned turn = warp.turn;

    if (bytes > 0)
        memcpy(warp.given[turn % 2][block->current % WARP].bytes, mine, bytes);
    warp.waiting++;
    release_warp(warp);
    while (warp.turn == turn)
        yield();
    return warp.given[turn % 2];
}

void emulation_block(bool value, bool *all, bool *any)
{
    unsigned turn = block->turn;

    block->all = block->all && value;
    block->any = block->any || value;
    block->waiting++;
    warp_of_current().asleep++;
    release_block();
    while (block->turn == turn)
        yield();
    if (all != NULL)
        *all = block->all_were;
    if (any != NULL)
        *any = block->any_were;
}

void emulation_check_aligned(const void *address, size_t bytes)
{
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
        fail("an address that is not aligned");
}

void emulation_check_shared(const void *address, size_t bytes)
{
    const char *at = static_cast<const char *>(address), *first = reinterpret_cast<const char *>(shared);

    emulation_check_aligned(address, bytes);
    if (at < first || at + bytes > first + block->shared_bytes)
        fail("an address outside of the block's shared memory");
}

static void arrive(const copy_t &copy)
{
    if (copy.wanted)
        memcpy(copy.to, copy.from, copy.bytes);
    else
        memset(copy.to, 0, copy.bytes);
}

void emulation_copy_later(void *to, const void *from, size_t bytes, bool wanted)
{
    memset(to, 0xff, bytes);
    block->fibers[block->current].copies.push_back({to, from, bytes, wanted, NULL});
}

void emulation_copies_wait()
{
    for (const copy_t &copy : block->fibers[block->current].copies)
        arrive(copy);
    block->fibers[block->current].copies.clear();
}

void emulation_bulk_expect(uint64_t *arrived, uint32_t bytes)
{
    *arrived = bytes;
}

void emulation_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *arrived)
{
    const char *first = reinterpret_cast<const char *>(shared), *at = static_cast<const char *>(to);

    if (bytes % 16 != 0 || at < first || at + bytes > first + block->shared_bytes)
        fail("a copy beyond the block's shared memory");
    memset(to, 0xff, bytes);
    block->bulk.push_back({to, from, bytes, true, arrived});
}

void emulation_bulk_wait(uint64_t *arrived)
{
    for (;;) {
        for (copy_t &copy : block->bulk)
            if (copy.arrived == arrived) {
                arrive(copy);
                *arrived -= copy.bytes;
                copy.arrived = NULL;
            }
        if (*arrived == 0)
            return;
        yield();
    }
}

unsigned emulation_cluster_blocks()
{
    return block->cluster->blocks;
}

unsigned emulation_cluster_rank()
{
    return block->rank;
}

void emulation_cluster_arrive()
{
    cluster_t *cluster = block->cluster;
    std::lock_guard<std::mutex> lock(cluster->mutex);
    uint64_t goal = (cluster->arrived / cluster->threads + 1) * cluster->threads;

    block->fibers[block->current].cluster_goal = goal;
    if (++cluster->arrived == goal)
        cluster->changed.notify_all();
}

static bool cluster_is_there(uint64_t goal)
{
    std::lock_guard<std::mutex> lock(block->cluster->mutex);
    return block->cluster->arrived >= goal;
}

void emulation_cluster_wait()
{
    uint64_t goal = block->fibers[block->current].cluster_goal;

    while (!cluster_is_there(goal)) {
        block->awaited = block->in_cluster == 0 ? goal : std::min(goal, block->awaited);
        block->in_cluster++;
        warp_of_current().asleep++;
        yield();
    }
}

void *emulation_cluster_map(void *address, unsigned rank)
{
    return block->cluster->base[rank] + (static_cast<char *>(address) - reinterpret_cast<char *>(shared));
}

/* ---- streams and graphs: work is done at once, or kept while a stream is captured ---------------------------------------------- */

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
    if (config.dynamicSmemBytes > SHARED_MOST || config.blockDim.x > WARPS_MOST * WARP || size > 8 || config.gridDim.x == 0 ||
        config.gridDim.x % size != 0 || config.gridDim.y == 0 || config.gridDim.y > 65535)
        return cudaErrorInvalidValue;
    kept.attrs = NULL;
    enqueue(config.stream, [=] { run_launch(kept, thread, size); });
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
