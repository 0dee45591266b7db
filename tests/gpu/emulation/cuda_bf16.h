/* BF16 where kernels are emulated. */
#ifndef BARCAST_TESTS_GPU_EMULATION_CUDA_BF16_H
#define BARCAST_TESTS_GPU_EMULATION_CUDA_BF16_H

#include "emulation.h"

struct __nv_bfloat16 {
    uint16_t bits;
};

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline float __bfloat162float(__nv_bfloat16 value)
{
    return __uint_as_float((uint32_t)value.bits << 16);
}

/* Ties to even. */
static inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    uint32_t bits = __float_as_uint(value);
    return {(uint16_t)(value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

#endif
