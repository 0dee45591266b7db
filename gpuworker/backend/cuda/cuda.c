/* Opening, memory, copies and graphs of the CUDA backend, and its vtable. */
#include "gpuworker/backend/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Up to this size a copy with pinned memory is a kernel (cuda_copy_launch). */
static const size_t copy_by_kernel_bytes = 256 << 10;

struct backend_graph {
    cudaGraphExec_t exec;
};

/* ---- errors and memory ------------------------------------------------------------------------------------------------------- */

int cuda_check(const char *name, cudaError_t error)
{
    if (error == cudaSuccess)
        return BACKEND_OK;
    cudaGetLastError(); /* where it is not sticky, the next call starts clean */
    return error_set(error == cudaErrorMemoryAllocation ? BACKEND_ERR_MEMORY : BACKEND_ERR_DEVICE, "%s: %s (%s)", name,
                     cudaGetErrorString(error), cudaGetErrorName(error));
}

int cuda_allocate(const char *label, size_t bytes, void **out)
{
    cudaError_t error = cudaMalloc(out, bytes);
    size_t free_bytes = 0, total_bytes = 0;

    if (error != cudaErrorMemoryAllocation)
        return cuda_check(label, error);
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return error_set(BACKEND_ERR_MEMORY, "%s: no device memory for %zu MB, %zu of %zu MB are free", label, bytes >> 20,
                     free_bytes >> 20, total_bytes >> 20);
}

static int cuda_memory(const backend_t *backend, size_t *free_bytes, size_t *total_bytes)
{
    (void)backend;
    return cuda_check("memory", cudaMemGetInfo(free_bytes, total_bytes));
}

static int cuda_alloc(backend_t *backend, const char *label, size_t bytes, void **out)
{
    (void)backend;
    return cuda_allocate(label, bytes, out);
}

static void cuda_free(backend_t *backend, void *memory)
{
    cuda_linear_settle(cuda_of(backend)); /* it may be owed to the memory */
    cuda_linear_forget(cuda_of(backend), memory);
    cudaFree(memory);
}

static int cuda_host_alloc(backend_t *backend, size_t bytes, void **out)
{
    void *memory;
    int rc = cuda_check("pinned host memory", cudaHostAlloc(&memory, bytes, cudaHostAllocPortable));

    (void)backend;
    if (rc < 0)
        return error_add(rc, "%zu MB", bytes >> 20);
    memset(memory, 0, bytes);
    *out = memory;
    return BACKEND_OK;
}

static void cuda_host_free(backend_t *backend, void *memory)
{
    (void)backend;
    cudaFreeHost(memory);
}

/* ---- copies ------------------------------------------------------------------------------------------------------------------ */

static int cuda_synchronize(backend_t *backend)
{
    int rc = cuda_linear_settle(cuda_of(backend));
    return rc < 0 ? rc : cuda_check("synchronize", cudaStreamSynchronize(cuda_of(backend)->stream));
}

static int cuda_idle(backend_t *backend)
{
    int rc = cuda_linear_settle(cuda_of(backend));
    cudaError_t status;

    if (rc < 0)
        return rc;
    status = cudaStreamQuery(cuda_of(backend)->stream);
    return status == cudaErrorNotReady ? 0 : status == cudaSuccess ? 1 : cuda_check("synchronize", status);
}

static int copy(backend_t *backend, const char *name, void *to, const void *from, size_t bytes, const void *host)
{
    backend_cuda_t *cuda = cuda_of(backend);
    struct cudaPointerAttributes attributes;
    int rc = cuda_linear_settle(cuda);

    if (rc < 0)
        return rc;
    if (bytes <= copy_by_kernel_bytes) {
        if ((rc = cuda_check(name, cudaPointerGetAttributes(&attributes, host))) < 0)
            return rc;
        if (attributes.type == cudaMemoryTypeHost)
            return cuda_copy_launch(host == to ? attributes.devicePointer : to, host == from ? attributes.devicePointer : from,
                                    bytes, cuda->stream);
    }
    return cuda_check(name, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda->stream));
}

static int cuda_copy_in(backend_t *backend, void *to, const void *from, size_t bytes)
{
    return copy(backend, "copy to the device", to, from, bytes, from);
}

static int cuda_copy_out(backend_t *backend, const void *from, void *to, size_t bytes)
{
    return copy(backend, "copy from the device", to, from, bytes, to);
}

static int cuda_write(backend_t *backend, void *to, const void *from, size_t bytes)
{
    int rc = cuda_linear_settle(cuda_of(backend));

    if (rc == BACKEND_OK)
        rc = cuda_check("write", cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_of(backend)->stream));
    return rc < 0 ? rc : cuda_synchronize(backend);
}

static int cuda_read(backend_t *backend, const void *from, void *to, size_t bytes)
{
    int rc = cuda_linear_settle(cuda_of(backend));

    if (rc == BACKEND_OK)
        rc = cuda_check("read", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_of(backend)->stream));
    return rc < 0 ? rc : cuda_synchronize(backend);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------------------ */

static int cuda_graph_begin(backend_t *backend)
{
    backend_cuda_t *cuda = cuda_of(backend);
    int rc = cuda_linear_settle(cuda);

    if (rc == BACKEND_OK)
        rc = cuda_check("begin of capture", cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));

    cuda->capturing = rc == BACKEND_OK;
    return rc;
}

static int cuda_graph_end(backend_t *backend, backend_graph_t **out)
{
    backend_cuda_t *cuda = cuda_of(backend);
    backend_graph_t *graph = calloc(1, sizeof *graph);
    cudaGraph_t captured = NULL;
    int settled = cuda_linear_settle(cuda), rc = cuda_check("end of capture", cudaStreamEndCapture(cuda->stream, &captured));

    if (rc == BACKEND_OK)
        rc = settled;
    cuda->capturing = false;
    if (rc == BACKEND_OK && graph == NULL)
        rc = error_set(BACKEND_ERR_MEMORY, "no memory for a graph");
    if (rc == BACKEND_OK)
        rc = cuda_check("graph", cudaGraphInstantiate(&graph->exec, captured, 0));
    if (rc == BACKEND_OK)
        rc = cuda_check("graph upload", cudaGraphUpload(graph->exec, cuda->stream));
    if (captured != NULL)
        cudaGraphDestroy(captured);
    if (rc < 0) {
        if (graph != NULL && graph->exec != NULL)
            cudaGraphExecDestroy(graph->exec);
        free(graph);
        return rc;
    }
    *out = graph;
    return BACKEND_OK;
}

static int cuda_graph_launch(backend_t *backend, backend_graph_t *graph)
{
    int rc = cuda_linear_settle(cuda_of(backend));
    return rc < 0 ? rc : cuda_check("graph launch", cudaGraphLaunch(graph->exec, cuda_of(backend)->stream));
}

static void cuda_graph_free(backend_t *backend, backend_graph_t *graph)
{
    cudaStreamSynchronize(cuda_of(backend)->stream);
    cudaGraphExecDestroy(graph->exec);
    free(graph);
}

/* ---- ops: one kernel each ---------------------------------------------------------------------------------------------------- */

static int cuda_step_set(backend_t *backend, const backend_tensor_t *step, int32_t value)
{
    int rc = cuda_linear_settle(cuda_of(backend));
    return rc < 0 ? rc : cuda_step_set_launch(step->data, value, cuda_of(backend)->stream);
}

static int cuda_step_advance(backend_t *backend, const backend_tensor_t *step)
{
    int rc = cuda_linear_settle(cuda_of(backend));
    return rc < 0 ? rc : cuda_step_advance_launch(step->data, cuda_of(backend)->stream);
}

#define ONE_KERNEL(name)                                                                                                           \
    static int cuda_##name(backend_t *backend, const backend_##name##_t *op)                                                       \
    {                                                                                                                              \
        int rc = cuda_linear_settle(cuda_of(backend));                                                                             \
        return rc < 0 ? rc : cuda_##name##_launch(op, cuda_of(backend)->stream);                                                   \
    }

ONE_KERNEL(attention)
ONE_KERNEL(group_attention)
ONE_KERNEL(causal_scale)
ONE_KERNEL(causal_scale_extend)
ONE_KERNEL(causal_patch)
ONE_KERNEL(student_t)
ONE_KERNEL(student_t_quantiles)
ONE_KERNEL(override)
ONE_KERNEL(summarize)
ONE_KERNEL(random_walk)
ONE_KERNEL(flow_start)
ONE_KERNEL(flow_finish)
ONE_KERNEL(sign_tokens)
ONE_KERNEL(draw_token)
ONE_KERNEL(transpose)
ONE_KERNEL(embed)
ONE_KERNEL(instance_scale)
ONE_KERNEL(patch)
ONE_KERNEL(quantile_head)
ONE_KERNEL(unroll)
ONE_KERNEL(weighted_quantiles)

/* ---- opening ----------------------------------------------------------------------------------------------------------------- */

static void cuda_close(backend_t *backend)
{
    backend_cuda_t *cuda = cuda_of(backend);

    if (cuda->stream != NULL)
        cudaStreamSynchronize(cuda->stream);
    cuda_linear_close(cuda);
    cuda_product_close(cuda);
    cuda_upload_close(cuda);
    cuda_timer_close(cuda);
    if (cuda->stream != NULL)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static const backend_vtable_t cuda_vtable = {
    .close = cuda_close,
    .memory = cuda_memory,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .write = cuda_write,
    .read = cuda_read,
    .copy_in = cuda_copy_in,
    .copy_out = cuda_copy_out,
    .synchronize = cuda_synchronize,
    .idle = cuda_idle,
    .timer_start = cuda_timer_start,
    .timer_stop = cuda_timer_stop,
    .timer_read = cuda_timer_read,
    .weight_write = cuda_weight_write,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .graph_launch = cuda_graph_launch,
    .graph_free = cuda_graph_free,
    .step_set = cuda_step_set,
    .step_advance = cuda_step_advance,
    .linear = cuda_linear,
    .attention = cuda_attention,
    .group_attention = cuda_group_attention,
    .causal_scale = cuda_causal_scale,
    .causal_scale_extend = cuda_causal_scale_extend,
    .causal_patch = cuda_causal_patch,
    .student_t = cuda_student_t,
    .student_t_quantiles = cuda_student_t_quantiles,
    .override = cuda_override,
    .summarize = cuda_summarize,
    .random_walk = cuda_random_walk,
    .flow_start = cuda_flow_start,
    .flow_finish = cuda_flow_finish,
    .sign_tokens = cuda_sign_tokens,
    .draw_token = cuda_draw_token,
    .transpose = cuda_transpose,
    .embed = cuda_embed,
    .instance_scale = cuda_instance_scale,
    .patch = cuda_patch,
    .quantile_head = cuda_quantile_head,
    .unroll = cuda_unroll,
    .weighted_quantiles = cuda_weighted_quantiles,
};

int backend_cuda_device_count(void)
{
    int count = 0;

    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    return count;
}

/* The kernels are compiled for one architecture: say so now, not at the first launch. */
static int check_device(int device, struct cudaDeviceProp *properties)
{
    int count = backend_cuda_device_count(), rc;

    if (device < 0 || device >= count)
        return error_set(BACKEND_ERR_DEVICE, "cuda:%d does not exist: %d device%s here", device, count, count == 1 ? "" : "s");
    if ((rc = cuda_check("device", cudaSetDevice(device))) < 0 ||
        (rc = cuda_check("device", cudaGetDeviceProperties(properties, device))) < 0)
        return error_add(rc, "cuda:%d", device);
    if (properties->major < 9)
        return error_set(BACKEND_ERR_DEVICE, "cuda:%d is a %s of compute capability %d.%d, expected 9.0 or later", device,
                         properties->name, properties->major, properties->minor);
    return BACKEND_OK;
}

int backend_cuda_open(const backend_options_t *options, backend_t **out)
{
    struct cudaDeviceProp properties;
    backend_cuda_t *cuda;
    int rc = check_device(options->device, &properties);

    if (rc < 0)
        return rc;
    if ((cuda = calloc(1, sizeof *cuda)) == NULL)
        return error_set(BACKEND_ERR_MEMORY, "no memory for the CUDA backend");
    cuda->base = (backend_t){.vtable = &cuda_vtable, .kind = BACKEND_CUDA, .bf16 = true};
    cuda->device = options->device;
    snprintf(cuda->base.name, sizeof cuda->base.name, "cuda:%d %.100s", options->device, properties.name);
    if ((rc = cuda_check("stream", cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking))) < 0 ||
        (rc = cuda_upload_open(cuda)) < 0 || (rc = cuda_product_open(cuda, properties.name)) < 0) {
        cuda_close(&cuda->base);
        return error_add(rc, "cuda:%d", options->device);
    }
    *out = &cuda->base;
    return BACKEND_OK;
}
