/* A Hugging Face checkpoint directory, read as published: config.json, and model.safetensors or the shards that
 * model.safetensors.index.json names. Files are memory-mapped read-only; nothing is converted on disk.
 *
 * Everything is validated at open: header length and JSON, dtypes, shapes against byte ranges, ranges inside the file, none overlapping,
 * no holes, each tensor of the index in its shard and in no other. An error names file and tensor and says what was expected. Read-only after
 * open: any thread. The files must not be cut short while a checkpoint is open (replacing them is harmless): reading a page that is gone is a
 * bus error. */
#ifndef BARCAST_GPUWORKER_WEIGHTS_CHECKPOINT_H
#define BARCAST_GPUWORKER_WEIGHTS_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CHECKPOINT_OK = 0,
    CHECKPOINT_ERR_FILE = -1,   /* missing or unreadable */
    CHECKPOINT_ERR_FORMAT = -2, /* not valid safetensors or JSON */
    CHECKPOINT_ERR_TENSOR = -3, /* missing tensor, wrong shape or dtype */
    CHECKPOINT_ERR_CONFIG = -4, /* config.json: missing key, wrong type, value out of range */
    CHECKPOINT_ERR_MEMORY = -5
};

enum { CHECKPOINT_RANK_MOST = 5 };

typedef enum {
    CHECKPOINT_F32,
    CHECKPOINT_F16,
    CHECKPOINT_BF16,
    CHECKPOINT_F64,
    CHECKPOINT_I64,
    CHECKPOINT_I32,
    CHECKPOINT_U8,
    CHECKPOINT_BOOL
} checkpoint_dtype_t;

typedef struct {
    const char *name;
    checkpoint_dtype_t dtype;
    int rank;
    int64_t dim[CHECKPOINT_RANK_MOST];
    const void *data; /* in the mapping; may be unaligned */
    size_t bytes;
    int64_t elements;
} checkpoint_tensor_t;

typedef struct checkpoint checkpoint_t;

/* Opens DIR with its config.json; or, for goldens and caches, one bare .safetensors file (no config). */
int checkpoint_open(const char *dir, checkpoint_t **out);
int checkpoint_open_file(const char *file, checkpoint_t **out);
void checkpoint_close(checkpoint_t *checkpoint);

size_t checkpoint_count(const checkpoint_t *checkpoint);
const checkpoint_tensor_t *checkpoint_at(const checkpoint_t *checkpoint, size_t index);       /* in name order */
const checkpoint_tensor_t *checkpoint_find(const checkpoint_t *checkpoint, const char *name); /* NULL when absent */
const char *checkpoint_path(const checkpoint_t *checkpoint);
/* Hash of config.json and of each tensor's name, dtype, shape and first bytes as 16 hex digits: the model_revision of forecasts. Two sets of
 * weights differ in it although it reads a page a tensor only; how they are split over shards does not matter. */
const char *checkpoint_revision(const checkpoint_t *checkpoint);
size_t checkpoint_bytes(const checkpoint_t *checkpoint);            /* of all weight files */
const char *checkpoint_config_json(const checkpoint_t *checkpoint); /* the text of config.json; "" without one */

/* The tensor of that name and of exactly the shape dim[rank]; else CHECKPOINT_ERR_TENSOR with a text that names it. */
int checkpoint_find_shaped(const checkpoint_t *checkpoint, const char *name, int rank, const int64_t *dim,
                           const checkpoint_tensor_t **out);

/* "BF16": the format's own name of a dtype. */
const char *checkpoint_dtype_name(checkpoint_dtype_t dtype);

/* The tensor as float, converted from f32, f16, bf16 or f64 (as int64: from i64, i32, u8 or bool) into `out` [elements]; shape must equal
 * dim[rank]. Names the tensor on error. */
int checkpoint_read_f32(const checkpoint_t *checkpoint, const char *name, int rank, const int64_t *dim, float *out);
int checkpoint_read_i64(const checkpoint_t *checkpoint, const char *name, int rank, const int64_t *dim, int64_t *out);

/* config.json: typed look-ups by key ("a.b" descends). Missing, mistyped or out of range: CHECKPOINT_ERR_CONFIG with the key's name, out
 * untouched. A whole number is also a f64; a f64 is finite. */
int checkpoint_config_i64(const checkpoint_t *checkpoint, const char *key, int64_t least, int64_t most, int64_t *out);
int checkpoint_config_f64(const checkpoint_t *checkpoint, const char *key, double *out);
int checkpoint_config_bool(const checkpoint_t *checkpoint, const char *key, bool *out);
int checkpoint_config_text(const checkpoint_t *checkpoint, const char *key, const char **out); /* borrowed */
bool checkpoint_config_has(const checkpoint_t *checkpoint, const char *key);
/* The array at `key`: its length into *count, its values into out[most]; more than `most` of them is an error. */
int checkpoint_config_numbers(const checkpoint_t *checkpoint, const char *key, double *out, size_t most, size_t *count);
int checkpoint_config_texts(const checkpoint_t *checkpoint, const char *key, const char **out, size_t most, size_t *count);

/* Writes a checkpoint directory in the same format (the tools that make seeded models, and the tests' fixtures): DIR, made with its parents
 * where missing, config.json as given, and model.safetensors with the tensors in the order given. Tensors are F32 in memory and stored as
 * `dtype` (F32 or BF16). Existing files are replaced as a whole, so tensors[].data may lie in the mapping of the old one. */
typedef struct {
    const char *name;
    int rank;
    int64_t dim[CHECKPOINT_RANK_MOST];
    const float *data;
} checkpoint_source_t;
int checkpoint_write(const char *dir, const char *config_json, const checkpoint_source_t *tensors, size_t count,
                     checkpoint_dtype_t dtype);

#endif
