#include "gpuworker/weights/convert.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and are used here as they lie in the file"
#endif

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Branch-free, so that the loop around it vectorises: the half's exponent and mantissa, put where a float has them, are a float that is
 * 2^112 too small, subnormals included; infinities and NaNs then still need the full exponent. */
static float half_to_float(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    uint32_t bits = bits_of(float_of(magnitude) * 0x1p112f);
    bits |= magnitude >= 0x0f800000 ? 0x7f800000 : 0;
    return float_of(bits | (uint32_t)(half & 0x8000) << 16);
}

static uint16_t float_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

/* to[i] = `expression` of the stored element x, for all i. The copy of one element is how C reads an unaligned one. */
#define CONVERT_LOOP(type, expression)                                                                                             \
    for (int64_t i = 0; i < count; i++) {                                                                                          \
        type x;                                                                                                                    \
        memcpy(&x, bytes + (size_t)i * sizeof x, sizeof x);                                                                        \
        to[i] = (expression);                                                                                                      \
    }

bool convert_to_f32(checkpoint_dtype_t dtype, const void *from, int64_t count, float *to)
{
    const unsigned char *bytes = from;
    switch (dtype) {
    case CHECKPOINT_F32:
        memcpy(to, from, (size_t)count * sizeof *to);
        return true;
    case CHECKPOINT_F16:
        CONVERT_LOOP(uint16_t, half_to_float(x))
        return true;
    case CHECKPOINT_BF16:
        CONVERT_LOOP(uint16_t, float_of((uint32_t)x << 16))
        return true;
    case CHECKPOINT_F64:
        CONVERT_LOOP(double, (float)x)
        return true;
    case CHECKPOINT_I64:
    case CHECKPOINT_I32:
    case CHECKPOINT_U8:
    case CHECKPOINT_BOOL:
        break;
    }
    return false;
}

bool convert_to_i64(checkpoint_dtype_t dtype, const void *from, int64_t count, int64_t *to)
{
    const unsigned char *bytes = from;
    switch (dtype) {
    case CHECKPOINT_I64:
        memcpy(to, from, (size_t)count * sizeof *to);
        return true;
    case CHECKPOINT_I32:
        CONVERT_LOOP(int32_t, x)
        return true;
    case CHECKPOINT_U8:
    case CHECKPOINT_BOOL:
        CONVERT_LOOP(uint8_t, x)
        return true;
    case CHECKPOINT_F32:
    case CHECKPOINT_F16:
    case CHECKPOINT_BF16:
    case CHECKPOINT_F64:
        break;
    }
    return false;
}

void convert_to_bf16(const float *from, int64_t count, uint16_t *to)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = float_to_bf16(from[i]);
}
