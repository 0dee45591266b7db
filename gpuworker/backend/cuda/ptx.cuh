/* The instructions that CUDA C++ has no name for: tensor cores and what feeds them, asynchronous copies to shared memory. All assembly is here,
 * so that tests/gpu/emulation can stand in for it. "Shared" arguments point into the block's shared memory. */
#ifndef BARCAST_GPUWORKER_BACKEND_CUDA_PTX_CUH
#define BARCAST_GPUWORKER_BACKEND_CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <stdint.h>

static __device__ __forceinline__ uint32_t ptx_shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* ---- tensor cores ------------------------------------------------------------------------------------------------------------ */

/* sum += a [16][16] · b [16][8] of BF16, by a whole warp. Lane (r = lane / 4, c = lane % 4) holds of a the pairs k = 2c, 2c + 1 of rows r and
 * r + 8, then the same of k + 8; of b those of column r; of the sum columns 2c, 2c + 1 of row r, then of row r + 8. */
static __device__ __forceinline__ void ptx_multiply(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                                    uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* Four 8 × 8 matrices of 16-bit elements, the rows of matrix i at the shared addresses that lanes 8i .. 8i + 7 give. */
static __device__ __forceinline__ void ptx_load_matrices(uint32_t (&to)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(ptx_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void ptx_load_matrices_transposed(uint32_t (&to)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(ptx_shared_address(row))
                 : "memory");
}

/* Two floats, rounded to BF16, as the tensor cores take them. */
static __device__ __forceinline__ uint32_t ptx_pair(float low, float high)
{
    __nv_bfloat162 packed = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&packed);
}

static __device__ __forceinline__ float ptx_power_of_2(float x)
{
    float result;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

/* Keeps the compiler from working a number out later than here. */
static __device__ __forceinline__ void ptx_settle(int64_t &value)
{
    asm volatile("" : "+l"(value));
}

/* ---- copies of single threads -------------------------------------------------------------------------------------------------- */

/* Starts a copy of BYTES (4, 8 or 16) to shared memory, of zeros unless `wanted`. There once the thread's ptx_copies_wait() returns. */
template <int BYTES> static __device__ __forceinline__ void ptx_copy(void *shared, const void *from, bool wanted)
{
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared_address(shared)), "l"(from),
                     "r"(wanted ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(ptx_shared_address(shared)), "l"(from), "n"(BYTES),
                     "r"(wanted ? BYTES : 0)
                     : "memory");
}

static __device__ __forceinline__ void ptx_copies_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* ---- copies by the copy engine --------------------------------------------------------------------------------------------------- */

/* Makes `arrived`, in shared memory, wait for `bytes` of copies. By one thread, before any of them. */
static __device__ __forceinline__ void ptx_bulk_expect(uint64_t *arrived, uint32_t bytes)
{
    uint32_t barrier = ptx_shared_address(arrived);

    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/* Starts a copy of `bytes`, a multiple of 16, to shared memory; both ends 16-byte aligned. */
static __device__ __forceinline__ void ptx_bulk_copy(void *shared, const void *from, uint32_t bytes, uint64_t *arrived)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(ptx_shared_address(shared)),
        "l"(from), "r"(bytes), "r"(ptx_shared_address(arrived))
        : "memory");
}

/* Stores COUNT floats, 2 or 4, to shared memory of block `rank` of the cluster, aligned to their size together; `arrived` of that block waits
 * for their bytes as for those of copies. A launch without clusters must not. */
template <int COUNT>
static __device__ __forceinline__ void ptx_store_remote(float *shared, uint32_t rank, const float *from, uint64_t *arrived)
{
    uint32_t to, barrier;

    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(ptx_shared_address(shared)), "r"(rank));
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(barrier) : "r"(ptx_shared_address(arrived)), "r"(rank));
    if constexpr (COUNT == 4)
        asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                     "f"(from[0]), "f"(from[1]), "f"(from[2]), "f"(from[3]), "r"(barrier)
                     : "memory");
    else
        asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to),
                     "f"(from[0]), "f"(from[1]), "r"(barrier)
                     : "memory");
}

/* Until all bytes are there. By any thread that has seen ptx_bulk_expect() done. */
static __device__ __forceinline__ void ptx_bulk_wait(uint64_t *arrived)
{
    uint32_t done = 0;

    while (!done)
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(ptx_shared_address(arrived))
                     : "memory");
}

#endif
