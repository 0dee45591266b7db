/* What the families' sessions share: buffers with one sticky error, staging in one copy, taps. Their loading: parts_load.h.
 *
 * The sticky helpers remember their first failure in `rc` and do nothing after it, so that a long list of allocations reads as a list and is
 * checked once at its end. */
#ifndef BARCAST_GPUWORKER_MODEL_PARTS_H
#define BARCAST_GPUWORKER_MODEL_PARTS_H

#include "gpuworker/model/model.h"

/* Rank and dimensions as two arguments: DIMS(rows, width). */
#define DIMS(...)                                                                                                                  \
    (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                             \
    {                                                                                                                              \
        __VA_ARGS__                                                                                                                \
    }

/* A backend's code as a model's: 0 stays 0. */
int model_backend_error(int backend_rc);

/* Leaves the function with the model's code when the backend's call failed. */
#define TRY(call)                                                                                                                  \
    do {                                                                                                                           \
        int try_rc = (call);                                                                                                       \
        if (try_rc < 0)                                                                                                            \
            return model_backend_error(try_rc);                                                                                    \
    } while (0)

/* ---- buffers of a session ----------------------------------------------------------------------------------------------------- */

enum { BUFFERS_MEMORY_MOST = 4, BUFFERS_STAGED_MOST = 2 };

typedef struct {
    backend_t *backend;
    int rc; /* MODEL_OK or the first failure */
    size_t count, room;
    backend_tensor_t *owned;
    size_t memory_count, staged_count; /* on the host: of calloc, and what copies go through */
    void *memory[BUFFERS_MEMORY_MOST], *staged[BUFFERS_STAGED_MOST];
} buffers_t;

/* The struct starts as {.backend = backend}. All that is taken is valid until buffers_close; zeroed or NULL after a failure. */
backend_tensor_t buffers_take(buffers_t *buffers, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim);
/* Zeroed memory of the host, at most BUFFERS_MEMORY_MOST times. */
void *buffers_calloc(buffers_t *buffers, int64_t count, size_t bytes);
void buffers_close(buffers_t *buffers);

void buffers_write(buffers_t *buffers, const backend_tensor_t *tensor, const void *host);
/* Constants that the host computes: zeroed room for all elements of a tensor, NULL after a failure; and its upload, which frees it. */
void *buffers_table_new(buffers_t *buffers, const backend_tensor_t *tensor);
void buffers_table_write(buffers_t *buffers, const backend_tensor_t *tensor, void *table);
/* A rotary table [positions][4][d], queries and keys alike: position p turns pair (j, j + d/2) by the angle p · theta^(-2j/d). */
void buffers_write_rope(buffers_t *buffers, const backend_tensor_t *rope, double theta);

/* ---- staging ------------------------------------------------------------------------------------------------------------------ */

/* Several tensors in one block, so that one copy moves them all: every copy of a captured graph costs a node. */
enum { STAGING_MOST = 16 };

typedef struct {
    int count;
    struct {
        size_t bytes;
        backend_tensor_t *device; /* NULL: on the host only */
        void *host;               /* address of the caller's pointer */
    } slot[STAGING_MOST];
    backend_tensor_t device; /* the block without what stays on the host, U8 */
    void *host;
} staging_t;

/* Plans one tensor. `host` is the address of a pointer (float **, int32_t **); it and *device are filled in by staging_bind. */
void staging_add(staging_t *staging, backend_dtype_t dtype, int rank, const int64_t *dim, backend_tensor_t *device, void *host);

/* Plans all of a model's inputs; what has no device tensor here stays on the host. */
typedef struct {
    backend_tensor_t *values, *mask, *length, *group, *key, *log_price, *time_ns, *future;
} staging_inputs_t;

void staging_add_inputs(staging_t *staging, const model_shape_t *shape, model_input_t *input, const staging_inputs_t *devices);

/* Allocates the block on both sides; failures go to buffers->rc. */
void staging_bind(staging_t *staging, const char *label, buffers_t *buffers);

/* Plans a model's results: the mean [B][V][horizon]; where quantiles are asked for these, [B][V][quantiles][horizon], and their levels,
 * written; paths [B][max(N, 1)][V][path_stride], on the device only when nobody asked for them. NULL: the model does without. */
typedef struct {
    backend_tensor_t *mean, *quantiles, *levels, *paths;
    int64_t path_stride;
} staging_outputs_t;

void staging_add_outputs(staging_t *staging, const model_shape_t *shape, model_output_t *output, const staging_outputs_t *devices,
                         buffers_t *buffers);

/* Bytes that a full batch of the shape brings in and takes out (model_cost_t). */
double model_io_bytes(const model_shape_t *shape);

/* ---- taps ---------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    model_tap_t call; /* NULL: nobody listens, tap_show does nothing */
    void *context;
} tap_t;

/* Shows an F32 tensor of that shape: its rows (the last dimension) lie `stride` elements apart (0: dense), the first at `offset`. */
int tap_show(const tap_t *tap, backend_t *backend, const char *name, int step, const backend_tensor_t *tensor, int64_t offset,
             int64_t stride, int rank, const int64_t *dim);
/* The same of an I32 tensor's first elements, shown as floats. */
int tap_show_integers(const tap_t *tap, backend_t *backend, const char *name, int step, const backend_tensor_t *tensor,
                      int64_t stride, int rank, const int64_t *dim);

#endif
