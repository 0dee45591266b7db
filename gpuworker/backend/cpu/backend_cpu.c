/* Opening, memory, copies and the step counter of the CPU backend, and its vtable. */
#include "gpuworker/backend/cpu/cpu.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

enum { ALIGNMENT = 256 };

static void *allocate(size_t bytes)
{
    return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static int cpu_memory(const backend_t *backend, size_t *free_bytes, size_t *total_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    (void)backend;
    *free_bytes = (size_t)sysconf(_SC_AVPHYS_PAGES) * page;
    *total_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * page;
    return BACKEND_OK;
}

static int cpu_alloc(backend_t *backend, const char *label, size_t bytes, void **out)
{
    void *memory = allocate(bytes);

    (void)backend;
    if (memory == NULL)
        return error_set(BACKEND_ERR_MEMORY, "%s: no memory for %zu MB", label, bytes >> 20);
    *out = memory;
    return BACKEND_OK;
}

static int cpu_host_alloc(backend_t *backend, size_t bytes, void **out)
{
    int rc = cpu_alloc(backend, "staging memory", bytes, out);

    if (rc == BACKEND_OK)
        memset(*out, 0, bytes);
    return rc;
}

static void cpu_free(backend_t *backend, void *memory)
{
    (void)backend;
    free(memory);
}

static int cpu_copy(backend_t *backend, void *to, const void *from, size_t bytes)
{
    (void)backend;
    memcpy(to, from, bytes);
    return BACKEND_OK;
}

static int cpu_copy_back(backend_t *backend, const void *from, void *to, size_t bytes)
{
    return cpu_copy(backend, to, from, bytes);
}

static int cpu_synchronize(backend_t *backend)
{
    (void)backend;
    return BACKEND_OK;
}

static int cpu_idle(backend_t *backend)
{
    (void)backend;
    return 1;
}

static int cpu_timer_start(backend_t *backend)
{
    ((backend_cpu_t *)backend)->timer_start_ns = clock_monotonic_ns();
    return BACKEND_OK;
}

static int cpu_timer_stop(backend_t *backend)
{
    ((backend_cpu_t *)backend)->timer_stop_ns = clock_monotonic_ns();
    return BACKEND_OK;
}

static int cpu_timer_read(backend_t *backend, int64_t *ns)
{
    const backend_cpu_t *cpu = (const backend_cpu_t *)backend;

    *ns = cpu->timer_stop_ns - cpu->timer_start_ns;
    return BACKEND_OK;
}

static int cpu_weight_write(backend_t *backend, const backend_weight_t *weight, const float *host)
{
    return cpu_copy(backend, weight->tensor.data, host, (size_t)backend_tensor_elements(&weight->tensor) * sizeof *host);
}

static int cpu_step_set(backend_t *backend, const backend_tensor_t *step, int32_t value)
{
    (void)backend;
    *(int32_t *)step->data = value;
    return BACKEND_OK;
}

static int cpu_step_advance(backend_t *backend, const backend_tensor_t *step)
{
    return cpu_step_set(backend, step, *(int32_t *)step->data + 1);
}

static void cpu_close(backend_t *backend)
{
    free(cpu_scratch(backend));
    free(backend);
}

int cpu_scratch_check(const char *op, int64_t floats)
{
    if (floats > CPU_SCRATCH_FLOATS)
        return error_set(BACKEND_ERR_UNSUPPORTED, "%s: a row needs %lld floats of scratch, the CPU backend has %d", op,
                         (long long)floats, CPU_SCRATCH_FLOATS);
    return BACKEND_OK;
}

static const backend_vtable_t cpu_vtable = {
    .close = cpu_close,
    .memory = cpu_memory,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .host_alloc = cpu_host_alloc,
    .host_free = cpu_free,
    .write = cpu_copy,
    .read = cpu_copy_back,
    .copy_in = cpu_copy,
    .copy_out = cpu_copy_back,
    .synchronize = cpu_synchronize,
    .idle = cpu_idle,
    .timer_start = cpu_timer_start,
    .timer_stop = cpu_timer_stop,
    .timer_read = cpu_timer_read,
    .weight_write = cpu_weight_write,
    .step_set = cpu_step_set,
    .step_advance = cpu_step_advance,
    .linear = cpu_linear,
    .embed = cpu_embed,
    .attention = cpu_attention,
    .group_attention = cpu_group_attention,
    .causal_scale = cpu_causal_scale,
    .causal_scale_extend = cpu_causal_scale_extend,
    .causal_patch = cpu_causal_patch,
    .student_t = cpu_student_t,
    .student_t_quantiles = cpu_student_t_quantiles,
    .override = cpu_override,
    .sign_tokens = cpu_sign_tokens,
    .draw_token = cpu_draw_token,
    .flow_start = cpu_flow_start,
    .flow_finish = cpu_flow_finish,
    .transpose = cpu_transpose,
    .summarize = cpu_summarize,
    .random_walk = cpu_random_walk,
    .instance_scale = cpu_instance_scale,
    .patch = cpu_patch,
    .quantile_head = cpu_quantile_head,
    .unroll = cpu_unroll,
    .weighted_quantiles = cpu_weighted_quantiles,
};

int backend_cpu_open(const backend_options_t *options, backend_t **out)
{
    int threads = options->threads > 0 ? options->threads : 1;
    backend_cpu_t *cpu = calloc(1, sizeof *cpu);
    float *scratch = allocate(CPU_SCRATCH_FLOATS * sizeof *scratch);

    if (cpu == NULL || scratch == NULL) {
        free(cpu);
        free(scratch);
        return error_set(BACKEND_ERR_MEMORY, "no memory for the CPU backend");
    }
    openblas_set_num_threads(threads);
    *cpu = (backend_cpu_t){.base = {.vtable = &cpu_vtable, .kind = BACKEND_CPU}, .scratch = scratch};
    snprintf(cpu->base.name, sizeof cpu->base.name, "cpu (%d thread%s)", threads, threads == 1 ? "" : "s");
    *out = &cpu->base;
    return BACKEND_OK;
}
