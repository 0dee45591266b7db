/* See parts_load.h. */
#include "gpuworker/model/parts_load.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

enum { NAME_BYTES = 192 };

int loader_open(loader_t *loader, model_base_t *model, const checkpoint_t *checkpoint)
{
    *loader = (loader_t){.model = model, .checkpoint = checkpoint, .precision = model->precision};
    snprintf(loader->revision, sizeof loader->revision, "%s", checkpoint_revision(checkpoint));
    loader->used = calloc(checkpoint_count(checkpoint) + 1, sizeof *loader->used);
    if (loader->used == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "%s: out of memory", checkpoint_path(checkpoint));
    return loader->rc;
}

int loader_close(loader_t *loader)
{
    for (size_t i = 0; loader->rc == MODEL_OK && i < checkpoint_count(loader->checkpoint); i++)
        if (!loader->used[i])
            loader->rc = error_set(MODEL_ERR_CHECKPOINT, "%s: tensor %s is not one of this model's",
                                   checkpoint_path(loader->checkpoint), checkpoint_at(loader->checkpoint, i)->name);
    free(loader->used);
    loader->used = NULL;
    return loader->rc;
}

void loader_cover(loader_t *loader, const checkpoint_t *other)
{
    char both[2 * sizeof loader->revision];
    int length = snprintf(both, sizeof both, "%s %s", loader->revision, checkpoint_revision(other));

    snprintf(loader->revision, sizeof loader->revision, "%016" PRIx64, text_hash64(both, (size_t)length));
}

/* ---- config.json ---------------------------------------------------------------------------------------------------------------- */

/* What the checkpoint's own functions return. */
static void check(loader_t *loader, int checkpoint_rc)
{
    if (checkpoint_rc < 0)
        loader->rc = MODEL_ERR_CHECKPOINT;
}

static bool has(const loader_t *loader, const char *key)
{
    return loader->rc == MODEL_OK && checkpoint_config_has(loader->checkpoint, key);
}

void loader_config_i64(loader_t *loader, const char *key, int64_t least, int64_t most, int64_t *out)
{
    if (loader->rc == MODEL_OK)
        check(loader, checkpoint_config_i64(loader->checkpoint, key, least, most, out));
}

void loader_config_bool(loader_t *loader, const char *key, bool *out)
{
    if (loader->rc == MODEL_OK)
        check(loader, checkpoint_config_bool(loader->checkpoint, key, out));
}

void loader_optional_i64(loader_t *loader, const char *key, int64_t least, int64_t most, int64_t *out)
{
    if (has(loader, key))
        loader_config_i64(loader, key, least, most, out);
}

void loader_optional_f64(loader_t *loader, const char *key, double least, double most, double *out)
{
    char is[32], expected[64];
    double value;

    if (!has(loader, key))
        return;
    check(loader, checkpoint_config_f64(loader->checkpoint, key, &value));
    if (loader->rc < 0)
        return;
    snprintf(is, sizeof is, "%g", value);
    snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
    loader_expect(loader, value >= least && value <= most, key, is, expected);
    *out = value;
}

void loader_optional_bool(loader_t *loader, const char *key, bool *out)
{
    if (has(loader, key))
        loader_config_bool(loader, key, out);
}

void loader_expect(loader_t *loader, bool holds, const char *key, const char *is, const char *expected)
{
    if (loader->rc == MODEL_OK && !holds)
        loader->rc = error_set(MODEL_ERR_CHECKPOINT, "%s/config.json: key \"%s\": is %.80s, expected %s",
                               checkpoint_path(loader->checkpoint), key, is, expected);
}

void loader_expect_text(loader_t *loader, const char *key, const char *expected)
{
    const char *is = NULL;

    if (loader->rc == MODEL_OK)
        check(loader, checkpoint_config_text(loader->checkpoint, key, &is));
    if (loader->rc == MODEL_OK)
        loader_expect(loader, strcmp(is, expected) == 0, key, is, expected);
}

/* ---- tensors ---------------------------------------------------------------------------------------------------------------------- */

static void mark_used(loader_t *loader, const char *name)
{
    for (size_t i = 0; i < checkpoint_count(loader->checkpoint); i++)
        if (strcmp(checkpoint_at(loader->checkpoint, i)->name, name) == 0)
            loader->used[i] = true;
}

/* One weight that is not a number makes every forecast one, or, behind a quantile head, a plausible looking zero. */
static void check_finite(loader_t *loader, const char *name, const float *host, int64_t elements)
{
    int64_t i = 0;

    while (i < elements && isfinite(host[i]))
        i++;
    if (i < elements)
        loader->rc = error_set(MODEL_ERR_CHECKPOINT, "%s: tensor \"%s\": element %" PRId64 " is %g, expected finite numbers",
                               checkpoint_path(loader->checkpoint), name, i, (double)host[i]);
}

/* The shape is config.json's: memory is taken only when the file has as much. */
static float *read_named(loader_t *loader, int rank, const int64_t *dim, const char *name)
{
    const checkpoint_tensor_t *tensor;
    float *host;

    if (loader->rc < 0)
        return NULL;
    check(loader, checkpoint_find_shaped(loader->checkpoint, name, rank, dim, &tensor));
    if (loader->rc < 0 || (host = loader_calloc(loader, tensor->elements, sizeof *host)) == NULL)
        return NULL;
    check(loader, checkpoint_read_f32(loader->checkpoint, name, rank, dim, host));
    if (loader->rc == MODEL_OK)
        check_finite(loader, name, host, tensor->elements);
    if (loader->rc < 0) {
        free(host);
        return NULL;
    }
    mark_used(loader, name);
    loader->parameters += tensor->elements;
    return host;
}

float *loader_read(loader_t *loader, int rank, const int64_t *dim, const char *name, ...)
{
    char text[NAME_BYTES];
    va_list arguments;

    va_start(arguments, name);
    vsnprintf(text, sizeof text, name, arguments);
    va_end(arguments);
    return read_named(loader, rank, dim, text);
}

int model_weight_upload(model_base_t *model, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim,
                        const float *host, backend_weight_t *out)
{
    backend_tensor_t *weights = realloc(model->weights, (model->weight_count + 1) * sizeof *weights);
    int rc;

    if (weights == NULL)
        return error_set(MODEL_ERR_MEMORY, "%s: out of memory", label);
    model->weights = weights;
    rc = model_backend_error(backend_weight_upload(model->backend, label, dtype, rank, dim, host, out));
    if (rc == MODEL_OK)
        model->weights[model->weight_count++] = out->tensor;
    return rc;
}

void loader_upload(loader_t *loader, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim, const float *host,
                   backend_weight_t *out)
{
    if (loader->rc == MODEL_OK)
        loader->rc = model_weight_upload(loader->model, label, dtype, rank, dim, host, out);
}

void loader_weight(loader_t *loader, backend_weight_t *out, int rank, const int64_t *dim, const char *name, ...)
{
    char text[NAME_BYTES];
    va_list arguments;
    float *host;

    va_start(arguments, name);
    vsnprintf(text, sizeof text, name, arguments);
    va_end(arguments);
    host = read_named(loader, rank, dim, text);
    loader_upload(loader, text, rank == 1 ? BACKEND_F32 : loader->precision, rank, dim, host, out);
    free(host);
}

void loader_stack(loader_t *loader, backend_weight_t *out, const char *name, const char *const *parts, int count, int64_t rows,
                  int64_t columns)
{
    int64_t each = columns > 0 ? rows * columns : rows;
    float *to = NULL;

    for (int i = 0; i < count; i++) {
        float *from = loader_read(loader, columns > 0 ? 2 : 1, (const int64_t[]){rows, columns}, "%s%s", name, parts[i]);

        if (i == 0)
            to = loader_calloc(loader, count * each, sizeof *to);
        if (from != NULL && to != NULL)
            memcpy(to + i * each, from, (size_t)each * sizeof *to);
        free(from);
    }
    if (columns > 0)
        loader_upload(loader, name, loader->precision, DIMS(count * rows, columns), to, out);
    else
        loader_upload(loader, name, BACKEND_F32, DIMS(count * rows), to, out);
    free(to);
}

void loader_ignore(loader_t *loader, const char *part)
{
    for (size_t i = 0; loader->rc == MODEL_OK && i < checkpoint_count(loader->checkpoint); i++)
        if (strstr(checkpoint_at(loader->checkpoint, i)->name, part) != NULL)
            loader->used[i] = true;
}

/* ---- on the host -------------------------------------------------------------------------------------------------------------------- */

void *loader_calloc(loader_t *loader, int64_t count, size_t bytes)
{
    void *memory = loader->rc == MODEL_OK ? calloc((size_t)count, bytes) : NULL;

    if (loader->rc == MODEL_OK && memory == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "%s: out of memory", checkpoint_path(loader->checkpoint));
    return memory;
}

void loader_linear(loader_t *loader, int64_t rows, int64_t out, int64_t in, const float *x, const float *weight, const float *bias,
                   backend_activation_t activation, float *y)
{
    backend_t *backend = loader->model->backend;
    buffers_t buffers = {.backend = backend, .rc = loader->rc};
    backend_tensor_t x_device = buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(rows, in));
    backend_tensor_t y_device = buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(rows, out));
    backend_weight_t matrix = {buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(out, in))};
    backend_weight_t vector = {buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(out))};
    backend_linear_t op = {.x = x_device,
                           .rows = rows,
                           .weight = &matrix,
                           .bias = bias != NULL ? &vector : NULL,
                           .activation = activation,
                           .y = y_device};
    int rc = BACKEND_OK;

    if (buffers.rc == MODEL_OK && (rc = backend_write(backend, &x_device, x)) == BACKEND_OK &&
        (rc = backend_write(backend, &matrix.tensor, weight)) == BACKEND_OK &&
        (bias == NULL || (rc = backend_write(backend, &vector.tensor, bias)) == BACKEND_OK) &&
        (rc = backend_linear(backend, &op)) == BACKEND_OK)
        rc = backend_read(backend, &y_device, y);
    loader->rc = buffers.rc < 0 ? buffers.rc : model_backend_error(rc);
    buffers_close(&buffers);
}

void loader_product(loader_t *loader, int64_t rows, int64_t inner, int64_t columns, const float *left, const float *right,
                    float *product)
{
    float *transposed = loader_calloc(loader, columns * inner, sizeof *transposed);

    for (int64_t i = 0; transposed != NULL && i < inner; i++)
        for (int64_t j = 0; j < columns; j++)
            transposed[j * inner + i] = right[i * columns + j];
    loader_linear(loader, rows, columns, inner, left, transposed, NULL, BACKEND_ACT_NONE, product);
    free(transposed);
}
