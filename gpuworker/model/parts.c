#include "gpuworker/model/parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { STAGING_ALIGNMENT = 64 };

int model_backend_error(int backend_rc)
{
    if (backend_rc == BACKEND_OK)
        return MODEL_OK;
    return backend_rc == BACKEND_ERR_MEMORY ? MODEL_ERR_MEMORY : MODEL_ERR_BACKEND;
}

static int64_t elements(int rank, const int64_t *dim)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= dim[i];
    return count;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------------------ */

static bool make_room(buffers_t *buffers)
{
    size_t room = buffers->room > 0 ? 2 * buffers->room : 32;
    backend_tensor_t *owned;

    if (buffers->count < buffers->room)
        return true;
    owned = realloc(buffers->owned, room * sizeof *owned);
    if (owned == NULL)
        return false;
    buffers->owned = owned;
    buffers->room = room;
    return true;
}

backend_tensor_t buffers_take(buffers_t *buffers, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim)
{
    backend_tensor_t tensor = {0};

    if (buffers->rc < 0)
        return tensor;
    if (!make_room(buffers))
        buffers->rc = error_set(MODEL_ERR_MEMORY, "%s: out of memory", label);
    else
        buffers->rc = model_backend_error(backend_alloc(buffers->backend, label, dtype, rank, dim, &tensor));
    if (buffers->rc == MODEL_OK)
        buffers->owned[buffers->count++] = tensor;
    return tensor;
}

void *buffers_calloc(buffers_t *buffers, int64_t count, size_t bytes)
{
    void *memory = buffers->rc == MODEL_OK && buffers->memory_count < BUFFERS_MEMORY_MOST ? calloc((size_t)count, bytes) : NULL;

    if (memory != NULL)
        buffers->memory[buffers->memory_count++] = memory;
    else if (buffers->rc == MODEL_OK)
        buffers->rc = error_set(MODEL_ERR_MEMORY, "a session: out of memory");
    return memory;
}

void buffers_close(buffers_t *buffers)
{
    for (size_t i = 0; i < buffers->count; i++)
        backend_free(buffers->backend, &buffers->owned[i]);
    for (size_t i = 0; i < buffers->memory_count; i++)
        free(buffers->memory[i]);
    for (size_t i = 0; i < buffers->staged_count; i++)
        backend_host_free(buffers->backend, buffers->staged[i]);
    free(buffers->owned);
    *buffers = (buffers_t){0};
}

void buffers_write(buffers_t *buffers, const backend_tensor_t *tensor, const void *host)
{
    if (buffers->rc == MODEL_OK)
        buffers->rc = model_backend_error(backend_write(buffers->backend, tensor, host));
}

void *buffers_table_new(buffers_t *buffers, const backend_tensor_t *tensor)
{
    void *table = NULL;

    if (buffers->rc == MODEL_OK) {
        table = calloc((size_t)backend_tensor_elements(tensor), backend_dtype_bytes(tensor->dtype));
        if (table == NULL)
            buffers->rc = error_set(MODEL_ERR_MEMORY, "constants of a session: out of memory");
    }
    return table;
}

void buffers_table_write(buffers_t *buffers, const backend_tensor_t *tensor, void *table)
{
    buffers_write(buffers, tensor, table);
    free(table);
}

void buffers_write_rope(buffers_t *buffers, const backend_tensor_t *rope, double theta)
{
    int64_t head_dim = rope->dim[2], half = head_dim / 2;
    float *table = buffers_table_new(buffers, rope);

    for (int64_t i = 0; table != NULL && i < rope->dim[0] * head_dim; i++) {
        int64_t position = i / head_dim, j = i % head_dim;
        double angle = (double)position * pow(theta, -2.0 * (double)(j % half) / (double)head_dim);
        float *row = table + position * 4 * head_dim + j;

        row[0] = row[2 * head_dim] = (float)cos(angle);
        row[head_dim] = row[3 * head_dim] = (float)sin(angle);
    }
    buffers_table_write(buffers, rope, table);
}

/* ---- staging ------------------------------------------------------------------------------------------------------------------ */

void staging_add(staging_t *staging, backend_dtype_t dtype, int rank, const int64_t *dim, backend_tensor_t *device, void *host)
{
    int slot = staging->count++;
    size_t bytes = (size_t)elements(rank, dim) * backend_dtype_bytes(dtype);

    staging->slot[slot].bytes = (bytes + STAGING_ALIGNMENT - 1) / STAGING_ALIGNMENT * STAGING_ALIGNMENT;
    staging->slot[slot].device = device;
    staging->slot[slot].host = host;
    if (device != NULL) {
        *device = (backend_tensor_t){.dtype = dtype, .rank = rank};
        memcpy(device->dim, dim, (size_t)rank * sizeof *dim);
    }
}

void staging_add_inputs(staging_t *staging, const model_shape_t *shape, model_input_t *input, const staging_inputs_t *devices)
{
    int64_t batch = shape->batch, variates = shape->variates, context = shape->context, horizon = shape->horizon;

    staging_add(staging, BACKEND_F32, DIMS(batch, variates, context), devices->values, &input->values);
    staging_add(staging, BACKEND_U8, DIMS(batch, variates, context), devices->mask, &input->mask);
    staging_add(staging, BACKEND_I32, DIMS(batch), devices->length, &input->length);
    staging_add(staging, BACKEND_I32, DIMS(batch, variates), devices->group, &input->group);
    staging_add(staging, BACKEND_U64, DIMS(batch), devices->key, &input->key);
    staging_add(staging, BACKEND_U8, DIMS(batch, variates), devices->log_price, &input->log_price);
    staging_add(staging, BACKEND_I64, DIMS(batch, context + horizon), devices->time_ns, &input->time_ns);
    staging_add(staging, BACKEND_F32, DIMS(batch, shape->exogenous, horizon), devices->future, &input->future);
}

void staging_bind(staging_t *staging, const char *label, buffers_t *buffers)
{
    size_t device_bytes = 0, total = 0;

    for (int i = 0; i < staging->count; i++) {
        total += staging->slot[i].bytes;
        device_bytes += staging->slot[i].device != NULL ? staging->slot[i].bytes : 0;
    }
    staging->device = buffers_take(buffers, label, BACKEND_U8, DIMS((int64_t)device_bytes));
    if (buffers->rc == MODEL_OK)
        buffers->rc = model_backend_error(backend_host_alloc(buffers->backend, total, &staging->host));
    if (buffers->rc < 0)
        return;
    buffers->staged[buffers->staged_count++] = staging->host;
    for (size_t i = 0, on_device = 0, host_only = device_bytes; i < (size_t)staging->count; i++) {
        size_t *offset = staging->slot[i].device != NULL ? &on_device : &host_only;
        void *host = (char *)staging->host + *offset;

        if (staging->slot[i].device != NULL)
            staging->slot[i].device->data = (char *)staging->device.data + *offset;
        memcpy(staging->slot[i].host, &host, sizeof host);
        *offset += staging->slot[i].bytes;
    }
}

void staging_add_outputs(staging_t *staging, const model_shape_t *shape, model_output_t *output, const staging_outputs_t *devices,
                         buffers_t *buffers)
{
    int64_t batch = shape->batch, variates = shape->variates, horizon = shape->horizon, levels = shape->quantile_count;
    int64_t paths = shape->samples > 0 ? shape->samples : 1;

    staging_add(staging, BACKEND_F32, DIMS(batch, variates, horizon), devices->mean, &output->mean);
    if (levels > 0)
        staging_add(staging, BACKEND_F32, DIMS(batch, variates, levels, horizon), devices->quantiles, &output->quantiles);
    if (levels > 0 && devices->levels != NULL) {
        *devices->levels = buffers_take(buffers, "quantile levels", BACKEND_F32, DIMS(levels));
        buffers_write(buffers, devices->levels, shape->quantiles);
    }
    if (devices->paths == NULL)
        return;
    if (shape->samples > 0 && !shape->discard_samples) {
        staging_add(staging, BACKEND_F32, DIMS(batch, paths, variates, devices->path_stride), devices->paths, &output->samples);
        output->sample_stride = (uint32_t)devices->path_stride;
    } else {
        *devices->paths = buffers_take(buffers, "paths", BACKEND_F32, DIMS(batch, paths, variates, devices->path_stride));
    }
}

double model_io_bytes(const model_shape_t *shape)
{
    size_t in = shape->context * (sizeof(float) + sizeof(uint8_t));
    size_t rows_out = 1 + shape->quantile_count + (shape->discard_samples ? 0 : shape->samples);

    return (double)shape->batch * (double)shape->variates * (double)(in + rows_out * shape->horizon * sizeof(float));
}

/* ---- taps --------------------------------------------------------------------------------------------------------------------- */

/* `all` holds the whole tensor as floats. */
static int show_rows(const tap_t *tap, const char *name, int step, const float *all, int64_t offset, int64_t stride, int rank,
                     const int64_t *dim)
{
    int64_t width = dim[rank - 1], rows = elements(rank, dim) / width;
    float *rows_only = malloc((size_t)(rows * width) * sizeof *rows_only);

    if (rows_only == NULL)
        return error_set(BACKEND_ERR_MEMORY, "tap %s: out of memory", name);
    for (int64_t r = 0; r < rows; r++)
        memcpy(rows_only + r * width, all + offset + r * (stride > 0 ? stride : width), (size_t)width * sizeof *all);
    tap->call(tap->context, name, step, rows_only, rank, dim);
    free(rows_only);
    return BACKEND_OK;
}

int tap_show(const tap_t *tap, backend_t *backend, const char *name, int step, const backend_tensor_t *tensor, int64_t offset,
             int64_t stride, int rank, const int64_t *dim)
{
    float *all;
    int rc;

    if (tap->call == NULL)
        return BACKEND_OK;
    if ((all = malloc((size_t)backend_tensor_elements(tensor) * sizeof *all)) == NULL)
        return error_set(BACKEND_ERR_MEMORY, "tap %s: out of memory", name);
    if ((rc = backend_read(backend, tensor, all)) == BACKEND_OK)
        rc = show_rows(tap, name, step, all, offset, stride, rank, dim);
    free(all);
    return rc;
}

int tap_show_integers(const tap_t *tap, backend_t *backend, const char *name, int step, const backend_tensor_t *tensor,
                      int64_t stride, int rank, const int64_t *dim)
{
    int64_t count = backend_tensor_elements(tensor);
    int32_t *integers;
    float *all;
    int rc;

    if (tap->call == NULL)
        return BACKEND_OK;
    integers = malloc((size_t)count * sizeof *integers);
    all = malloc((size_t)count * sizeof *all);
    if (integers == NULL || all == NULL)
        rc = error_set(BACKEND_ERR_MEMORY, "tap %s: out of memory", name);
    else
        rc = backend_read(backend, tensor, integers);
    for (int64_t i = 0; rc == BACKEND_OK && i < count; i++)
        all[i] = (float)integers[i];
    if (rc == BACKEND_OK)
        rc = show_rows(tap, name, step, all, 0, stride, rank, dim);
    free(integers);
    free(all);
    return rc;
}
