/* What the families' loaders share: config.json read as a list, weights with full accounting, products of weights.
 *
 * model_load opens a loader on the checkpoint, hands it to the family and closes it. A loader remembers its first failure in `rc`, with a text that
 * names the key or tensor, and does nothing after it: what a later call was to fill in stays as it is, what it was to return is NULL. So lists of
 * reads need no checks; only what looks at the values asks for `rc` first. */
#ifndef BARCAST_GPUWORKER_MODEL_PARTS_LOAD_H
#define BARCAST_GPUWORKER_MODEL_PARTS_LOAD_H

#include "gpuworker/model/parts.h"

struct loader {
    model_base_t *model;
    const checkpoint_t *checkpoint;
    backend_dtype_t precision; /* of matrices: the model's, until the family sets another one */
    int rc;                    /* MODEL_OK or the first failure */
    bool *used;                /* a flag a tensor */
    int64_t parameters;        /* elements of the tensors read */
    char revision[17];         /* what forecasts name the model by: the checkpoint's, see loader_cover */
};

int loader_open(loader_t *loader, model_base_t *model, const checkpoint_t *checkpoint);
/* Ends the load; a tensor that nobody asked for is an error that names it. Returns rc. */
int loader_close(loader_t *loader);

/* The revision speaks for this checkpoint too, from now on. */
void loader_cover(loader_t *loader, const checkpoint_t *other);

/* ---- config.json ---------------------------------------------------------------------------------------------------------------- */

/* What an epsilon of a norm may be: below, a float loses it. */
#define NORM_EPS_LEAST 1e-12
#define NORM_EPS_MOST  1.0

void loader_config_i64(loader_t *loader, const char *key, int64_t least, int64_t most, int64_t *out);
void loader_config_bool(loader_t *loader, const char *key, bool *out);
/* The same of keys that may be missing or null: *out keeps its value then. */
void loader_optional_i64(loader_t *loader, const char *key, int64_t least, int64_t most, int64_t *out);
void loader_optional_f64(loader_t *loader, const char *key, double least, double most, double *out);
void loader_optional_bool(loader_t *loader, const char *key, bool *out);

/* Fails unless the condition holds: "DIR/config.json: key "KEY": is IS, expected EXPECTED". */
void loader_expect(loader_t *loader, bool holds, const char *key, const char *is, const char *expected);
void loader_expect_text(loader_t *loader, const char *key, const char *expected);

/* ---- tensors ---------------------------------------------------------------------------------------------------------------------- */

/* A tensor of exactly that shape as malloc'ed floats, the caller's. The name is a format. */
float *loader_read(loader_t *loader, int rank, const int64_t *dim, const char *name, ...) __attribute__((format(printf, 4, 5)));
/* Host floats to the device: F32, or `precision` for matrices that are multiplied with. model_unload frees it. */
void loader_upload(loader_t *loader, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim, const float *host,
                   backend_weight_t *out);
/* Both in one: a vector as F32, a matrix in `precision`. */
void loader_weight(loader_t *loader, backend_weight_t *out, int rank, const int64_t *dim, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* Matrices [rows][columns] in `precision` one below the other, or (columns 0) vectors [rows] as F32, from the tensors NAME + parts[i]. */
void loader_stack(loader_t *loader, backend_weight_t *out, const char *name, const char *const *parts, int count, int64_t rows,
                  int64_t columns);
/* Tensors whose names contain `part` may be there unused. */
void loader_ignore(loader_t *loader, const char *part);

/* loader_upload outside of a load: what only a tap needs. A model's code. */
int model_weight_upload(model_base_t *model, const char *label, backend_dtype_t dtype, int rank, const int64_t *dim,
                        const float *host, backend_weight_t *out);

/* ---- on the host -------------------------------------------------------------------------------------------------------------------- */

/* Zeroed memory, the caller's. */
void *loader_calloc(loader_t *loader, int64_t count, size_t bytes);

/* Products of F32 on the host, multiplied on the device: what is folded at load.
 * y [rows][out] = activation(x [rows][in] · weight [out][in]ᵀ + bias [out]); bias NULL: 0. */
void loader_linear(loader_t *loader, int64_t rows, int64_t out, int64_t in, const float *x, const float *weight, const float *bias,
                   backend_activation_t activation, float *y);
/* product [rows][columns] = left [rows][inner] · right [inner][columns] */
void loader_product(loader_t *loader, int64_t rows, int64_t inner, int64_t columns, const float *left, const float *right,
                    float *product);

#endif
