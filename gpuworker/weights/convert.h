/* Stored elements to the types that Barcast computes with. Sources are little-endian and may be unaligned. */
#ifndef BARCAST_GPUWORKER_WEIGHTS_CONVERT_H
#define BARCAST_GPUWORKER_WEIGHTS_CONVERT_H

#include "gpuworker/weights/checkpoint.h"

/* `count` elements of `dtype` to float, f64 rounded to nearest; false for the dtypes that are no floating-point ones. */
bool convert_to_f32(checkpoint_dtype_t dtype, const void *from, int64_t count, float *to);

/* The same to int64, from the integer and bool dtypes. */
bool convert_to_i64(checkpoint_dtype_t dtype, const void *from, int64_t count, int64_t *to);

/* float to bf16, rounded to nearest even; a NaN stays one. */
void convert_to_bf16(const float *from, int64_t count, uint16_t *to);

#endif
