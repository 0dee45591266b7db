/* Any bytes as a safetensors file: refused with a text, or every tensor lies inside them and converts. */
#include "base/error.h"
#include "gpuworker/weights/convert.h"
#include "gpuworker/weights/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* Conversions by element width: what is read stays within tensor->bytes, what is written within the exact allocation. */
static void convert(const checkpoint_tensor_t *tensor)
{
    float *numbers = malloc((size_t)tensor->elements * sizeof *numbers + 1);
    int64_t *wholes = malloc((size_t)tensor->elements * sizeof *wholes + 1);
    if (numbers && wholes &&
        convert_to_f32(tensor->dtype, tensor->data, tensor->elements, numbers) ==
            convert_to_i64(tensor->dtype, tensor->data, tensor->elements, wholes))
        abort(); /* each dtype is one or the other */
    free(numbers);
    free(wholes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    safetensors_t parsed;
    error_set(0, "%s", "");
    if (safetensors_parse(bytes, count, &parsed) < 0) {
        if (!*error_text())
            abort();
        return 0;
    }
    size_t tiled = 0;
    for (size_t i = 0; i < parsed.count; i++) {
        tiled += parsed.tensors[i].bytes;
        convert(&parsed.tensors[i]);
    }
    if (tiled > count)
        abort();
    safetensors_free(&parsed);
    return 0;
}
