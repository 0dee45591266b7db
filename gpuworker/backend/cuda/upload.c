/* Weights to the device: through two pinned buffers in turn, so that converting a piece to BF16 (or copying it) overlaps sending
 * the one before. */
#include <string.h>

#include "gpuworker/backend/cuda/cuda.h"

static const size_t stage_bytes = (size_t)8 << 20;

int cuda_upload_open(backend_cuda_t *cuda)
{
    for (int i = 0; i < CUDA_STAGES; i++) {
        int rc = cuda_check("pinned memory for uploads", cudaHostAlloc(&cuda->stage[i].memory, stage_bytes, cudaHostAllocDefault));

        if (rc == BACKEND_OK)
            rc = cuda_check("event", cudaEventCreateWithFlags(&cuda->stage[i].sent, cudaEventDisableTiming));
        if (rc < 0)
            return rc;
    }
    return BACKEND_OK;
}

void cuda_upload_close(backend_cuda_t *cuda)
{
    for (int i = 0; i < CUDA_STAGES; i++) {
        if (cuda->stage[i].sent != NULL)
            cudaEventDestroy(cuda->stage[i].sent);
        cudaFreeHost(cuda->stage[i].memory);
    }
}

/* Round to nearest, ties to even; a NaN stays one. */
static void to_bf16(const float *from, uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;

        memcpy(&bits, &from[i], sizeof bits);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        to[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
    }
}

int cuda_weight_write(backend_t *backend, const backend_weight_t *weight, const float *host)
{
    backend_cuda_t *cuda = cuda_of(backend);
    size_t count = (size_t)backend_tensor_elements(&weight->tensor), size = backend_dtype_bytes(weight->tensor.dtype);
    size_t piece = stage_bytes / size;
    int rc = cuda_linear_settle(cuda), turn = 0;

    for (size_t done = 0; rc == BACKEND_OK && done < count; done += piece, turn = (turn + 1) % CUDA_STAGES) {
        size_t now = count - done < piece ? count - done : piece;
        void *stage = cuda->stage[turn].memory;

        if ((rc = cuda_check("upload", cudaEventSynchronize(cuda->stage[turn].sent))) < 0)
            break;
        if (weight->tensor.dtype == BACKEND_BF16)
            to_bf16(host + done, stage, now);
        else
            memcpy(stage, host + done, now * size);
        rc = cuda_check("upload", cudaMemcpyAsync((char *)weight->tensor.data + done * size, stage, now * size,
                                                  cudaMemcpyHostToDevice, cuda->stream));
        if (rc == BACKEND_OK)
            rc = cuda_check("upload", cudaEventRecord(cuda->stage[turn].sent, cuda->stream));
    }
    return rc;
}
