/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011). A block
 * of four 32-bit words is a pure function of a 128-bit counter and a 64-bit key, so every draw of a forecast has its own fixed
 * coordinates and CPU and GPU give the same one. Plain C for both compilers. */
#ifndef BARCAST_GPUWORKER_BACKEND_PHILOX_H
#define BARCAST_GPUWORKER_BACKEND_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_FUNCTION static __host__ __device__ __forceinline__
#else
#define PHILOX_FUNCTION static inline
#endif

typedef struct {
    uint32_t word[4];
} philox_t;

/* Streams: the last word of the counter, one a purpose. */
enum { PHILOX_STREAM_STUDENT_T = 1, PHILOX_STREAM_TOKEN = 2, PHILOX_STREAM_FLOW = 3 };

/* Ten rounds over counter (c0, c1, c2, c3), c0 and the key's low half being word 0. */
PHILOX_FUNCTION philox_t philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    philox_t block;

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t high_a = (uint32_t)(a >> 32), high_b = (uint32_t)(b >> 32);

        c0 = high_b ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = high_a ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    block.word[0] = c0;
    block.word[1] = c1;
    block.word[2] = c2;
    block.word[3] = c3;
    return block;
}

/* A word as a uniform number: its upper 23 bits n become (n + 0.5) / 2^23. All these are exact in F32, lie symmetrically, and neither 0 nor
 * 1 is among them, so that a logarithm is always finite. */
PHILOX_FUNCTION float philox_uniform(uint32_t word)
{
    return ((float)(word >> 9) + 0.5f) * 0x1p-23f;
}

#endif
