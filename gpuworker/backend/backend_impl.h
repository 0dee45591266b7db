/* What a backend implements: the vtable behind the public functions of backend.h.
 *
 * The front (backend.c for the device and its memory, ops_*.c for the ops) validates every call, so an implementation may rely on what
 * backend.h promises: pointers that may not be NULL are not, dtypes are those allowed, buffers hold at least the elements of the shape,
 * BF16 appears only when `bf16` is set, counts are positive. It checks only what the front cannot know (limits of its kernels: then
 * BACKEND_ERR_UNSUPPORTED, its text naming the op). Ops enqueue on the backend's one stream and never allocate or synchronise.
 *
 * A backend embeds struct backend as its first member, fills in everything above "kept by the front" in its opener and hands it out:
 *
 *     typedef struct { backend_t base; cudaStream_t stream; ... } backend_cuda_t;
 *
 * Every function returns 0 or a BACKEND_ERR_* with error_text() set. After a BACKEND_ERR_DEVICE the front calls nothing but close, free
 * and host_free. */
#ifndef BARCAST_GPUWORKER_BACKEND_BACKEND_IMPL_H
#define BARCAST_GPUWORKER_BACKEND_BACKEND_IMPL_H

#include "gpuworker/backend/backend.h"

typedef struct {
    void (*close)(backend_t *backend); /* frees the backend itself too */

    int (*memory)(const backend_t *backend, size_t *free_bytes, size_t *total_bytes);
    int (*alloc)(backend_t *backend, const char *label, size_t bytes, void **out); /* aligned to 256 bytes */
    void (*free)(backend_t *backend, void *memory);
    int (*host_alloc)(backend_t *backend, size_t bytes, void **out); /* zero-filled */
    void (*host_free)(backend_t *backend, void *memory);
    int (*write)(backend_t *backend, void *to, const void *from, size_t bytes);   /* done when it returns */
    int (*read)(backend_t *backend, const void *from, void *to, size_t bytes);    /* likewise, after all that was enqueued before */
    int (*copy_in)(backend_t *backend, void *to, const void *from, size_t bytes); /* enqueued */
    int (*copy_out)(backend_t *backend, const void *from, void *to, size_t bytes); /* enqueued */
    int (*synchronize)(backend_t *backend);
    int (*idle)(backend_t *backend); /* 1: yes, 0: no */

    int (*timer_start)(backend_t *backend); /* called in the order start, stop, read; the last may repeat */
    int (*timer_stop)(backend_t *backend);
    int (*timer_read)(backend_t *backend, int64_t *ns);

    /* Fills a weight that the front has allocated: host F32 into weight->tensor's dtype. */
    int (*weight_write)(backend_t *backend, const backend_weight_t *weight, const float *host);

    /* All four NULL in a backend without graphs. */
    int (*graph_begin)(backend_t *backend);
    int (*graph_end)(backend_t *backend, backend_graph_t **out);
    int (*graph_launch)(backend_t *backend, backend_graph_t *graph);
    void (*graph_free)(backend_t *backend, backend_graph_t *graph);

    int (*step_set)(backend_t *backend, const backend_tensor_t *step, int32_t value);
    int (*step_advance)(backend_t *backend, const backend_tensor_t *step);

    int (*linear)(backend_t *backend, const backend_linear_t *op);
    int (*attention)(backend_t *backend, const backend_attention_t *op);
    int (*group_attention)(backend_t *backend, const backend_group_attention_t *op);
    int (*causal_scale)(backend_t *backend, const backend_causal_scale_t *op);
    int (*causal_scale_extend)(backend_t *backend, const backend_causal_scale_extend_t *op);
    int (*causal_patch)(backend_t *backend, const backend_causal_patch_t *op);
    int (*student_t)(backend_t *backend, const backend_student_t_t *op);
    int (*student_t_quantiles)(backend_t *backend, const backend_student_t_quantiles_t *op);
    int (*override)(backend_t *backend, const backend_override_t *op);
    int (*summarize)(backend_t *backend, const backend_summarize_t *op);
    int (*random_walk)(backend_t *backend, const backend_random_walk_t *op);
    int (*sign_tokens)(backend_t *backend, const backend_sign_tokens_t *op);
    int (*draw_token)(backend_t *backend, const backend_draw_token_t *op);
    int (*transpose)(backend_t *backend, const backend_transpose_t *op);
    int (*flow_start)(backend_t *backend, const backend_flow_start_t *op);
    int (*flow_finish)(backend_t *backend, const backend_flow_finish_t *op);
    int (*embed)(backend_t *backend, const backend_embed_t *op);
    int (*instance_scale)(backend_t *backend, const backend_instance_scale_t *op);
    int (*patch)(backend_t *backend, const backend_patch_t *op);
    int (*quantile_head)(backend_t *backend, const backend_quantile_head_t *op);
    int (*unroll)(backend_t *backend, const backend_unroll_t *op);
    int (*weighted_quantiles)(backend_t *backend, const backend_weighted_quantiles_t *op);
} backend_vtable_t;

struct backend {
    const backend_vtable_t *vtable;
    backend_kind_t kind;
    bool bf16;
    char name[128];

    /* kept by the front */
    bool failed; /* a BACKEND_ERR_DEVICE has happened */
    size_t allocated_bytes;
    uint64_t allocation_count;
    enum { TIMER_IDLE, TIMER_RUNNING, TIMER_STOPPED } timer;
};

/* The front's frame around every vtable call: enter refuses a failed device, leave remembers a failure and returns rc. */
int backend_front_enter(const backend_t *backend);
int backend_front_leave(backend_t *backend, int rc);

/* The openers. On success *out is ready; on failure nothing is left behind. */
int backend_cpu_open(const backend_options_t *options, backend_t **out);

#ifdef BARCAST_HAVE_CUDA
int backend_cuda_open(const backend_options_t *options, backend_t **out);
int backend_cuda_device_count(void);
#endif

#endif
