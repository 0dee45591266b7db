/* Blocks and their threads: emulation.h. */
#include "emulation.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

enum { WARP = 32, WARPS_MOST = EMULATION_THREADS_MOST / WARP, STACK_BYTES = 128 << 10 };

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
thread_local uint4 shared[EMULATION_SHARED_MOST / sizeof(uint4)]; /* what kernels declare as `extern __shared__ … shared[]` */

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

void emulation_run(const cudaLaunchConfig_t &config, const std::function<void()> &body, unsigned size)
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
                __atomic_fetch_sub(arrived, copy.bytes, __ATOMIC_RELAXED);
                copy.arrived = NULL;
            }
        if (__atomic_load_n(arrived, __ATOMIC_ACQUIRE) == 0) /* pairs with emulation_store_remote */
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

/* Where another block of the cluster has it. */
static void *map_to(void *address, unsigned rank)
{
    return block->cluster->base[rank] + (static_cast<char *>(address) - reinterpret_cast<char *>(shared));
}

void emulation_store_remote(void *to, unsigned rank, const void *from, size_t bytes, uint64_t *arrived)
{
    memcpy(map_to(to, rank), from, bytes);
    __atomic_fetch_sub(static_cast<uint64_t *>(map_to(arrived, rank)), bytes,
                       __ATOMIC_RELEASE); /* pairs with emulation_bulk_wait */
}
