/* The front of the backends, part one: devices, memory, copies, graphs, weights. Validates, counts, and calls the vtable. */
#include "gpuworker/backend/backend.h"

#include <string.h>

#include "base/error.h"
#include "gpuworker/backend/backend_impl.h"

size_t backend_dtype_bytes(backend_dtype_t dtype)
{
    switch (dtype) {
    case BACKEND_F32:
    case BACKEND_I32:
        return 4;
    case BACKEND_BF16:
        return 2;
    case BACKEND_F64:
    case BACKEND_I64:
    case BACKEND_U64:
        return 8;
    case BACKEND_U8:
        return 1;
    }
    return 0;
}

int64_t backend_tensor_elements(const backend_tensor_t *tensor)
{
    int64_t elements = tensor->rank > 0;
    for (int i = 0; i < tensor->rank; i++)
        elements *= tensor->dim[i];
    return elements;
}

backend_tensor_t backend_tensor_from(const backend_tensor_t *tensor, int64_t offset)
{
    return (backend_tensor_t){.data = (char *)tensor->data + (size_t)offset * backend_dtype_bytes(tensor->dtype),
                              .dtype = tensor->dtype,
                              .rank = 1,
                              .dim = {backend_tensor_elements(tensor) - offset}};
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------ */

int backend_open(const backend_options_t *options, backend_t **out)
{
    switch (options->kind) {
    case BACKEND_CPU:
        return backend_cpu_open(options, out);
    case BACKEND_CUDA:
#ifdef BARCAST_HAVE_CUDA
        return backend_cuda_open(options, out);
#else
        return error_set(BACKEND_ERR_UNSUPPORTED, "this build has no CUDA backend (it was configured without a CUDA toolkit)");
#endif
    }
    return error_set(BACKEND_ERR_INVALID, "backend_open: kind %d does not exist", (int)options->kind);
}

void backend_close(backend_t *backend)
{
    if (backend != NULL)
        backend->vtable->close(backend);
}

bool backend_built(backend_kind_t kind)
{
#ifdef BARCAST_HAVE_CUDA
    return kind == BACKEND_CPU || kind == BACKEND_CUDA;
#else
    return kind == BACKEND_CPU;
#endif
}

int backend_device_count(backend_kind_t kind)
{
#ifdef BARCAST_HAVE_CUDA
    if (kind == BACKEND_CUDA)
        return backend_cuda_device_count();
#endif
    return kind == BACKEND_CPU;
}

const char *backend_name(const backend_t *backend)
{
    return backend->name;
}

backend_kind_t backend_kind(const backend_t *backend)
{
    return backend->kind;
}

bool backend_has_bf16(const backend_t *backend)
{
    return backend->bf16;
}

/* ---- the sticky device failure ------------------------------------------------------------------------------------------------ */

int backend_front_enter(const backend_t *backend)
{
    if (backend->failed)
        return error_set(BACKEND_ERR_DEVICE, "%s failed earlier and takes no more work", backend->name);
    return BACKEND_OK;
}

int backend_front_leave(backend_t *backend, int rc)
{
    if (rc == BACKEND_ERR_DEVICE)
        backend->failed = true;
    return rc;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------- */

int backend_memory(const backend_t *backend, size_t *free_bytes, size_t *total_bytes)
{
    int rc = backend_front_enter(backend);
    return rc < 0 ? rc : backend->vtable->memory(backend, free_bytes, total_bytes);
}

static size_t tensor_bytes(const backend_tensor_t *tensor)
{
    return (size_t)backend_tensor_elements(tensor) * backend_dtype_bytes(tensor->dtype);
}

/* Bytes of a buffer to be, or a negative code. */
static int64_t shape_bytes(const backend_t *backend, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim)
{
    int64_t bytes = (int64_t)backend_dtype_bytes(dtype);

    if (bytes == 0)
        return error_set(BACKEND_ERR_INVALID, "%s: dtype %d does not exist", label, (int)dtype);
    if (dtype == BACKEND_BF16 && !backend->bf16)
        return error_set(BACKEND_ERR_UNSUPPORTED, "%s: %s has no bf16", label, backend->name);
    if (rank < 1 || rank > BACKEND_RANK_MOST)
        return error_set(BACKEND_ERR_INVALID, "%s: rank %d, expected 1 to %d", label, rank, BACKEND_RANK_MOST);
    for (int i = 0; i < rank; i++)
        if (dim[i] < 1 || __builtin_mul_overflow(bytes, dim[i], &bytes))
            return error_set(BACKEND_ERR_INVALID, "%s: dimension %d of %lld is not a possible size", label, i, (long long)dim[i]);
    return bytes;
}

int backend_alloc(backend_t *backend, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim, backend_tensor_t *out)
{
    backend_tensor_t tensor = {.dtype = dtype, .rank = rank};
    int64_t bytes;
    int rc = backend_front_enter(backend);

    if (rc < 0)
        return rc;
    if ((bytes = shape_bytes(backend, label, dtype, rank, dim)) < 0)
        return (int)bytes;
    rc = backend_front_leave(backend, backend->vtable->alloc(backend, label, (size_t)bytes, &tensor.data));
    if (rc < 0)
        return rc;
    memcpy(tensor.dim, dim, (size_t)rank * sizeof *dim);
    backend->allocated_bytes += (size_t)bytes;
    backend->allocation_count++;
    *out = tensor;
    return BACKEND_OK;
}

void backend_free(backend_t *backend, backend_tensor_t *tensor)
{
    if (tensor->data == NULL)
        return;
    backend->allocated_bytes -= tensor_bytes(tensor);
    backend->vtable->free(backend, tensor->data);
    *tensor = (backend_tensor_t){0};
}

size_t backend_allocated_bytes(const backend_t *backend)
{
    return backend->allocated_bytes;
}

uint64_t backend_allocation_count(const backend_t *backend)
{
    return backend->allocation_count;
}

int backend_host_alloc(backend_t *backend, size_t bytes, void **out)
{
    int rc = backend_front_enter(backend);

    if (rc < 0)
        return rc;
    if (bytes == 0)
        return error_set(BACKEND_ERR_INVALID, "backend_host_alloc: 0 bytes");
    rc = backend_front_leave(backend, backend->vtable->host_alloc(backend, bytes, out));
    if (rc == BACKEND_OK)
        backend->allocation_count++;
    return rc;
}

void backend_host_free(backend_t *backend, void *memory)
{
    if (memory != NULL)
        backend->vtable->host_free(backend, memory);
}

/* ---- copies ------------------------------------------------------------------------------------------------------------------- */

static int check_copy(const backend_t *backend, const char *name, const backend_tensor_t *tensor, const void *host)
{
    int rc = backend_front_enter(backend);

    if (rc == BACKEND_OK && (tensor->data == NULL || backend_tensor_elements(tensor) < 1 || host == NULL))
        rc = error_set(BACKEND_ERR_INVALID, "%s: the %s is missing", name, host == NULL ? "host memory" : "tensor");
    return rc;
}

int backend_write(backend_t *backend, const backend_tensor_t *to, const void *from)
{
    int rc = check_copy(backend, "backend_write", to, from);
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->write(backend, to->data, from, tensor_bytes(to)));
}

int backend_read(backend_t *backend, const backend_tensor_t *from, void *to)
{
    int rc = check_copy(backend, "backend_read", from, to);
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->read(backend, from->data, to, tensor_bytes(from)));
}

int backend_copy_in(backend_t *backend, const backend_tensor_t *to, const void *from)
{
    int rc = check_copy(backend, "backend_copy_in", to, from);
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->copy_in(backend, to->data, from, tensor_bytes(to)));
}

int backend_copy_out(backend_t *backend, const backend_tensor_t *from, void *to)
{
    int rc = check_copy(backend, "backend_copy_out", from, to);
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->copy_out(backend, from->data, to, tensor_bytes(from)));
}

int backend_synchronize(backend_t *backend)
{
    int rc = backend_front_enter(backend);
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->synchronize(backend));
}

int backend_idle(backend_t *backend)
{
    int rc = backend_front_enter(backend);
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->idle(backend));
}

/* ---- time --------------------------------------------------------------------------------------------------------------------- */

static int timer_order(const char *name)
{
    return error_set(BACKEND_ERR_INVALID, "%s: the order is start, stop, read", name);
}

int backend_timer_start(backend_t *backend)
{
    int rc = backend_front_enter(backend);

    if (rc < 0)
        return rc;
    backend->timer = TIMER_RUNNING;
    return backend_front_leave(backend, backend->vtable->timer_start(backend));
}

int backend_timer_stop(backend_t *backend)
{
    int rc = backend_front_enter(backend);

    if (rc < 0)
        return rc;
    if (backend->timer != TIMER_RUNNING)
        return timer_order("backend_timer_stop");
    backend->timer = TIMER_STOPPED;
    return backend_front_leave(backend, backend->vtable->timer_stop(backend));
}

int backend_timer_read(backend_t *backend, int64_t *ns)
{
    int rc = backend_front_enter(backend);

    if (rc < 0)
        return rc;
    if (backend->timer != TIMER_STOPPED)
        return timer_order("backend_timer_read");
    return backend_front_leave(backend, backend->vtable->timer_read(backend, ns));
}

/* ---- graphs ------------------------------------------------------------------------------------------------------------------- */

bool backend_has_graphs(const backend_t *backend)
{
    return backend->vtable->graph_begin != NULL;
}

static int check_graph(const backend_t *backend, const char *name)
{
    int rc = backend_front_enter(backend);

    if (rc == BACKEND_OK && !backend_has_graphs(backend))
        rc = error_set(BACKEND_ERR_UNSUPPORTED, "%s: %s has no graphs", name, backend->name);
    return rc;
}

int backend_graph_begin(backend_t *backend)
{
    int rc = check_graph(backend, "backend_graph_begin");
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->graph_begin(backend));
}

int backend_graph_end(backend_t *backend, backend_graph_t **out)
{
    int rc = check_graph(backend, "backend_graph_end");
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->graph_end(backend, out));
}

int backend_graph_launch(backend_t *backend, backend_graph_t *graph)
{
    int rc = check_graph(backend, "backend_graph_launch");
    return rc < 0 ? rc : backend_front_leave(backend, backend->vtable->graph_launch(backend, graph));
}

void backend_graph_free(backend_t *backend, backend_graph_t *graph)
{
    if (graph != NULL)
        backend->vtable->graph_free(backend, graph);
}

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

int backend_weight_upload(backend_t *backend, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim,
                          const float *host, backend_weight_t *out)
{
    backend_weight_t weight = {0};
    int rc;

    if (dtype != BACKEND_F32 && dtype != BACKEND_BF16)
        return error_set(BACKEND_ERR_INVALID, "%s: a weight is F32 or BF16", label);
    if (rank < 1 || rank > 2)
        return error_set(BACKEND_ERR_INVALID, "%s: a weight is a vector or a matrix, not of rank %d", label, rank);
    if ((rc = backend_alloc(backend, label, dtype, rank, dim, &weight.tensor)) < 0)
        return rc;
    rc = backend_front_leave(backend, backend->vtable->weight_write(backend, &weight, host));
    if (rc < 0) {
        backend_free(backend, &weight.tensor);
        return error_add(rc, "%s", label);
    }
    *out = weight;
    return BACKEND_OK;
}

void backend_weight_free(backend_t *backend, backend_weight_t *weight)
{
    backend_free(backend, &weight->tensor);
}
