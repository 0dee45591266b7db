/* The timer: two events on the stream. */
#include "gpuworker/backend/cuda/cuda.h"

static int record(backend_cuda_t *cuda, int which)
{
    cudaEvent_t *event = &cuda->timer_event[which];
    int rc = cuda_linear_settle(cuda);

    if (rc == BACKEND_OK && *event == NULL)
        rc = cuda_check("timer", cudaEventCreate(event));

    return rc < 0 ? rc : cuda_check("timer", cudaEventRecord(*event, cuda->stream));
}

int cuda_timer_start(backend_t *backend)
{
    return record(cuda_of(backend), 0);
}

int cuda_timer_stop(backend_t *backend)
{
    return record(cuda_of(backend), 1);
}

int cuda_timer_read(backend_t *backend, int64_t *ns)
{
    const cudaEvent_t *event = cuda_of(backend)->timer_event;
    float milliseconds;
    int rc = cuda_check("timer", cudaEventSynchronize(event[1]));

    if (rc == BACKEND_OK)
        rc = cuda_check("timer", cudaEventElapsedTime(&milliseconds, event[0], event[1]));
    if (rc == BACKEND_OK)
        *ns = (int64_t)((double)milliseconds * 1e6);
    return rc;
}

void cuda_timer_close(backend_cuda_t *cuda)
{
    for (int i = 0; i < 2; i++)
        if (cuda->timer_event[i] != NULL)
            cudaEventDestroy(cuda->timer_event[i]);
}
