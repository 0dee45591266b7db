/* One safetensors file in memory:
 *
 *     uint64   bytes of the header, little-endian
 *     header   a JSON object: tensor name -> {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, and "__metadata__"
 *     data     the tensors, row-major; offsets count from here
 *
 * The tensors must tile the data exactly: no overlap, no hole, nothing after the last. */
#ifndef BARCAST_GPUWORKER_WEIGHTS_SAFETENSORS_H
#define BARCAST_GPUWORKER_WEIGHTS_SAFETENSORS_H

#include "gpuworker/weights/checkpoint.h"

enum { SAFETENSORS_HEADER_BYTES_MOST = 100 * 1000 * 1000 };

struct json_object;

typedef struct {
    struct json_object *header;   /* what the names are borrowed from */
    checkpoint_tensor_t *tensors; /* in file order; data points into the bytes */
    size_t count;
} safetensors_t;

/* Parses and validates bytes[count], which must outlive *out. Any bytes may be given: CHECKPOINT_ERR_FORMAT, or CHECKPOINT_ERR_TENSOR for a
 * dtype or rank that Barcast does not read, and a text that names the tensor. */
int safetensors_parse(const void *bytes, size_t count, safetensors_t *out);

/* Allows a zeroed struct. */
void safetensors_free(safetensors_t *safetensors);

/* The format's own name ("BF16"), and the bytes of one element. */
const char *safetensors_dtype_name(checkpoint_dtype_t dtype);
size_t safetensors_dtype_bytes(checkpoint_dtype_t dtype);

#endif
