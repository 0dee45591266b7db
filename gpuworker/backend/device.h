/* A device: its memory, copies, graphs, weights and step counters. The ops that compute on it: ops_*.h; the rules for both: backend.h. */
#ifndef BARCAST_GPUWORKER_BACKEND_DEVICE_H
#define BARCAST_GPUWORKER_BACKEND_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BACKEND_OK = 0,
    BACKEND_ERR_INVALID = -1,     /* a descriptor: shape, dtype, NULL */
    BACKEND_ERR_MEMORY = -2,      /* error_text(): what was asked for, what was free */
    BACKEND_ERR_DEVICE = -3,      /* no such device, or the device failed; after this one nothing else works (sticky) */
    BACKEND_ERR_UNSUPPORTED = -4, /* this backend has no such thing (graphs on the CPU, bf16 on the CPU) */
};

typedef struct backend backend_t;

typedef enum { BACKEND_CPU, BACKEND_CUDA } backend_kind_t;
typedef enum { BACKEND_F32, BACKEND_BF16, BACKEND_F64, BACKEND_I32, BACKEND_I64, BACKEND_U64, BACKEND_U8 } backend_dtype_t;

enum { BACKEND_RANK_MOST = 5 };

/* A buffer in device memory, or a view of one (same struct, not owned). */
typedef struct {
    void *data;
    backend_dtype_t dtype;
    int rank;
    int64_t dim[BACKEND_RANK_MOST];
} backend_tensor_t;

size_t backend_dtype_bytes(backend_dtype_t dtype);
int64_t backend_tensor_elements(const backend_tensor_t *tensor);
/* A view of what begins `offset` elements in, as one row of all that is left: for ops that name their strides. */
backend_tensor_t backend_tensor_from(const backend_tensor_t *tensor, int64_t offset);

/* ---- device, memory, graphs -------------------------------------------------------------------------------------------------- */

typedef struct {
    backend_kind_t kind;
    int device;  /* CUDA: index */
    int threads; /* CPU: at most that many */
} backend_options_t;

int backend_open(const backend_options_t *options, backend_t **out);
void backend_close(backend_t *backend);
bool backend_built(backend_kind_t kind);            /* compiled in */
int backend_device_count(backend_kind_t kind);      /* usable devices of that kind; the CPU counts 1 */
const char *backend_name(const backend_t *backend); /* "cpu (2 threads)", "cuda:0 NVIDIA H200" */
backend_kind_t backend_kind(const backend_t *backend);
bool backend_has_bf16(const backend_t *backend);
int backend_memory(const backend_t *backend, size_t *free_bytes, size_t *total_bytes);

/* Device buffer, not initialised. `label` names it in errors. backend_free allows a zeroed struct. */
int backend_alloc(backend_t *backend, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim,
                  backend_tensor_t *out);
void backend_free(backend_t *backend, backend_tensor_t *tensor);
size_t backend_allocated_bytes(const backend_t *backend);
uint64_t backend_allocation_count(const backend_t *backend); /* ever made: must not move after READY */

/* Host memory that the device reaches fast (pinned), for staging. Zero-filled. */
int backend_host_alloc(backend_t *backend, size_t bytes, void **out);
void backend_host_free(backend_t *backend, void *memory);

/* Synchronous copies for set-up and tests: whole tensor. */
int backend_write(backend_t *backend, const backend_tensor_t *to, const void *from);
int backend_read(backend_t *backend, const backend_tensor_t *from, void *to);

/* Enqueued copies between staging memory and the device: whole tensor. `from` may be device memory too. */
int backend_copy_in(backend_t *backend, const backend_tensor_t *to, const void *from);
int backend_copy_out(backend_t *backend, const backend_tensor_t *from, void *to);

int backend_synchronize(backend_t *backend);
/* 1: everything that was enqueued is done. 0: not yet. */
int backend_idle(backend_t *backend);

/* The device's own time for what is enqueued between start and stop; read waits for the stop. Wall time on the CPU. One timer a backend;
 * out of this order: BACKEND_ERR_INVALID. */
int backend_timer_start(backend_t *backend);
int backend_timer_stop(backend_t *backend);
int backend_timer_read(backend_t *backend, int64_t *ns);

/* What this machine reaches: the ceilings that a forecast's time is compared with. */
typedef struct {
    double copy_bytes_per_s; /* bytes read plus bytes written, of a copy far larger than the caches */
    double f32_flops;        /* of a large product by backend_linear, a multiply-add counting 2, per second */
    double bf16_flops;       /* 0: this backend has no bf16 */
} backend_rates_t;

/* Medians of a few runs on random data, after a warm-up, in memory of its own that it frees again. Below a second. */
int backend_measure(backend_t *backend, backend_rates_t *out);

/* Capture of everything enqueued between begin and end as one graph; launch enqueues it. */
typedef struct backend_graph backend_graph_t;
bool backend_has_graphs(const backend_t *backend);
int backend_graph_begin(backend_t *backend);
int backend_graph_end(backend_t *backend, backend_graph_t **out);
int backend_graph_launch(backend_t *backend, backend_graph_t *graph);
void backend_graph_free(backend_t *backend, backend_graph_t *graph);

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

/* A matrix [out][in] or a vector [n] on the device, F32 or BF16. `host` is row-major F32 and may be freed afterwards. */
typedef struct {
    backend_tensor_t tensor;
} backend_weight_t;

int backend_weight_upload(backend_t *backend, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim,
                          const float *host, backend_weight_t *out);
void backend_weight_free(backend_t *backend, backend_weight_t *weight);

/* ---- step counter ------------------------------------------------------------------------------------------------------------- */

int backend_step_set(backend_t *backend, const backend_tensor_t *step, int32_t value); /* step: I32 [1] */
int backend_step_advance(backend_t *backend, const backend_tensor_t *step);            /* step += 1 */

#endif
