#include "base/error.h"
#include "base/text.h"
#include "gpuworker/weights/checkpoint_impl.h"
#include "gpuworker/weights/convert.h"
#include "gpuworker/weights/json_text.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int no_memory(void)
{
    return error_set(CHECKPOINT_ERR_MEMORY, "no memory to open a checkpoint");
}

/* ---- shards ------------------------------------------------------------------------------------------------------------------- */

/* Opens one more file; checkpoint->shards has room for it. Takes `path`. */
static int open_shard(checkpoint_t *checkpoint, char *path)
{
    shard_t *shard = &checkpoint->shards[checkpoint->shard_count++];
    shard->path = path;
    int rc = file_map_open(path, &shard->map);
    if (rc < 0)
        return rc;
    rc = safetensors_parse(shard->map.bytes, shard->map.count, &shard->safetensors);
    return rc < 0 ? error_add(rc, "%s", path) : rc;
}

/* The shard whose data a tensor lies in. */
static const shard_t *shard_of(const checkpoint_t *checkpoint, const checkpoint_tensor_t *tensor)
{
    const char *data = tensor->data;
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        const file_map_t *map = &checkpoint->shards[i].map;
        if (data > (const char *)map->bytes && data <= (const char *)map->bytes + map->count)
            return &checkpoint->shards[i];
    }
    return NULL;
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(((const checkpoint_tensor_t *)left)->name, ((const checkpoint_tensor_t *)right)->name);
}

/* Gathers the tensors of all shards in name order. */
static int merge_shards(checkpoint_t *checkpoint)
{
    size_t count = 0;
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        count += checkpoint->shards[i].safetensors.count;
    checkpoint->tensors = calloc(count + 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return no_memory();
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        const safetensors_t *part = &checkpoint->shards[i].safetensors;
        memcpy(checkpoint->tensors + checkpoint->count, part->tensors, part->count * sizeof *part->tensors);
        checkpoint->count += part->count;
    }
    qsort(checkpoint->tensors, count, sizeof *checkpoint->tensors, compare_names);
    for (size_t i = 1; i < count; i++) {
        const checkpoint_tensor_t *one = &checkpoint->tensors[i - 1], *other = &checkpoint->tensors[i];
        if (strcmp(one->name, other->name) == 0)
            return error_set(CHECKPOINT_ERR_FORMAT, "tensor \"%s\": expected in one file, found in %s and %s", one->name,
                             shard_of(checkpoint, one)->path, shard_of(checkpoint, other)->path);
    }
    return CHECKPOINT_OK;
}

static int open_single(checkpoint_t *checkpoint, const char *path)
{
    checkpoint->shards = calloc(1, sizeof *checkpoint->shards);
    char *copy = strdup(path);
    if (!checkpoint->shards || !copy) {
        free(copy);
        return no_memory();
    }
    int rc = open_shard(checkpoint, copy);
    return rc < 0 ? rc : merge_shards(checkpoint);
}

/* ---- the index of a sharded checkpoint: {"weight_map": {tensor name -> file name}} --------------------------------------------- */

#define FOR_EACH_MEMBER(object, at)                                                                                                \
    for (struct json_object_iterator at = json_object_iter_begin(object), end_ = json_object_iter_end(object);                     \
         !json_object_iter_equal(&at, &end_); json_object_iter_next(&at))

static bool is_shard_file(const shard_t *shard, const char *file)
{
    return strcmp(strrchr(shard->path, '/') + 1, file) == 0;
}

/* Opens the shard that the index names for a tensor, unless it is open already. */
static int open_named_shard(checkpoint_t *checkpoint, const char *tensor, struct json_object *value)
{
    const char *file = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
    if (!*file || strchr(file, '/'))
        return error_set(CHECKPOINT_ERR_FORMAT, "tensor \"%s\": expected the name of a file in the same directory", tensor);
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        if (is_shard_file(&checkpoint->shards[i], file))
            return CHECKPOINT_OK;
    char *path;
    if (asprintf(&path, "%s/%s", checkpoint->path, file) < 0)
        return no_memory();
    int rc = open_shard(checkpoint, path);
    return rc < 0 ? error_add(rc, "tensor \"%s\"", tensor) : rc;
}

/* The index and the merged shards must name the same tensors in the same files. */
static int check_weight_map(const checkpoint_t *checkpoint, struct json_object *weight_map)
{
    FOR_EACH_MEMBER(weight_map, at)
    {
        const char *name = json_object_iter_peek_name(&at);
        struct json_object *value = json_object_iter_peek_value(&at);
        const char *file = json_object_get_string(value);
        const checkpoint_tensor_t *tensor = checkpoint_find(checkpoint, name);
        if (!tensor || !is_shard_file(shard_of(checkpoint, tensor), file))
            return error_set(CHECKPOINT_ERR_FORMAT, "tensor \"%s\": expected in %s, which lacks it", name, file);
    }
    for (size_t i = 0; i < checkpoint->count; i++) {
        const checkpoint_tensor_t *tensor = &checkpoint->tensors[i];
        if (!json_object_object_get_ex(weight_map, tensor->name, NULL))
            return error_set(CHECKPOINT_ERR_FORMAT, "tensor \"%s\": expected in weight_map, because %s holds it", tensor->name,
                             shard_of(checkpoint, tensor)->path);
    }
    return CHECKPOINT_OK;
}

static int open_weight_map(checkpoint_t *checkpoint, struct json_object *index)
{
    struct json_object *weight_map;
    if (!json_object_object_get_ex(index, "weight_map", &weight_map) || !json_object_is_type(weight_map, json_type_object))
        return error_set(CHECKPOINT_ERR_FORMAT, "weight_map: expected an object of tensor and file names");
    checkpoint->shards = calloc((size_t)json_object_object_length(weight_map) + 1, sizeof *checkpoint->shards);
    if (!checkpoint->shards)
        return no_memory();
    FOR_EACH_MEMBER(weight_map, at)
    {
        int rc = open_named_shard(checkpoint, json_object_iter_peek_name(&at), json_object_iter_peek_value(&at));
        if (rc < 0)
            return rc;
    }
    int rc = merge_shards(checkpoint);
    return rc < 0 ? rc : check_weight_map(checkpoint, weight_map);
}

static int open_sharded(checkpoint_t *checkpoint, const char *index_path)
{
    file_map_t map;
    int rc = file_map_open(index_path, &map);
    if (rc < 0)
        return rc;
    struct json_object *index = NULL;
    rc = json_text_parse(map.bytes, map.count, &index);
    file_map_close(&map);
    if (rc == 0)
        rc = open_weight_map(checkpoint, index);
    json_object_put(index);
    return rc < 0 ? error_add(rc, "%s", index_path) : rc;
}

/* As Hugging Face does: one file where there is one, else the shards of the index. */
static int open_weights(checkpoint_t *checkpoint)
{
    char *single = NULL, *index = NULL;
    int rc = CHECKPOINT_OK;
    if (asprintf(&single, "%s/model.safetensors", checkpoint->path) < 0 ||
        asprintf(&index, "%s/model.safetensors.index.json", checkpoint->path) < 0)
        rc = no_memory();
    else
        rc = access(single, F_OK) < 0 && access(index, F_OK) == 0 ? open_sharded(checkpoint, index)
                                                                  : open_single(checkpoint, single);
    free(single);
    free(index);
    return rc;
}

/* ---- open and close ----------------------------------------------------------------------------------------------------------- */

static uint64_t hash_tensor(const checkpoint_tensor_t *tensor)
{
    enum { SAMPLE_BYTES = 64 };
    uint64_t parts[4 + CHECKPOINT_RANK_MOST] = {
        text_hash64(tensor->name, strlen(tensor->name)),
        tensor->dtype,
        (uint64_t)tensor->rank,
        text_hash64(tensor->data, tensor->bytes < SAMPLE_BYTES ? tensor->bytes : SAMPLE_BYTES),
    };
    for (int i = 0; i < tensor->rank; i++)
        parts[4 + i] = (uint64_t)tensor->dim[i];
    return text_hash64(parts, sizeof parts);
}

static void set_revision(checkpoint_t *checkpoint)
{
    const char *config = checkpoint_config_json(checkpoint);
    uint64_t hash = text_hash64(config, strlen(config));
    for (size_t i = 0; i < checkpoint->count; i++) {
        uint64_t chain[2] = {hash, hash_tensor(&checkpoint->tensors[i])};
        hash = text_hash64(chain, sizeof chain);
    }
    snprintf(checkpoint->revision, sizeof checkpoint->revision, "%016" PRIx64, hash);
}

static int open_path(const char *path, bool directory, checkpoint_t **out)
{
    checkpoint_t *checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint)
        return no_memory();
    checkpoint->path = strdup(path);
    int rc = CHECKPOINT_OK;
    if (!checkpoint->path)
        rc = no_memory();
    else if (!directory)
        rc = open_single(checkpoint, path);
    else if ((rc = hf_config_open(checkpoint)) == 0)
        rc = open_weights(checkpoint);
    if (rc < 0) {
        checkpoint_close(checkpoint);
        return rc;
    }
    set_revision(checkpoint);
    *out = checkpoint;
    return CHECKPOINT_OK;
}

int checkpoint_open(const char *dir, checkpoint_t **out)
{
    return open_path(dir, true, out);
}

int checkpoint_open_file(const char *file, checkpoint_t **out)
{
    return open_path(file, false, out);
}

void checkpoint_close(checkpoint_t *checkpoint)
{
    if (!checkpoint)
        return;
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        safetensors_free(&checkpoint->shards[i].safetensors);
        file_map_close(&checkpoint->shards[i].map);
        free(checkpoint->shards[i].path);
    }
    hf_config_close(checkpoint);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint->path);
    free(checkpoint);
}

/* ---- what is in it ------------------------------------------------------------------------------------------------------------ */

size_t checkpoint_count(const checkpoint_t *checkpoint)
{
    return checkpoint->count;
}

const checkpoint_tensor_t *checkpoint_at(const checkpoint_t *checkpoint, size_t index)
{
    return &checkpoint->tensors[index];
}

const checkpoint_tensor_t *checkpoint_find(const checkpoint_t *checkpoint, const char *name)
{
    checkpoint_tensor_t key = {.name = name};
    return bsearch(&key, checkpoint->tensors, checkpoint->count, sizeof key, compare_names);
}

const char *checkpoint_path(const checkpoint_t *checkpoint)
{
    return checkpoint->path;
}

const char *checkpoint_revision(const checkpoint_t *checkpoint)
{
    return checkpoint->revision;
}

size_t checkpoint_bytes(const checkpoint_t *checkpoint)
{
    size_t bytes = 0;
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        bytes += checkpoint->shards[i].map.count;
    return bytes;
}

const char *checkpoint_config_json(const checkpoint_t *checkpoint)
{
    return checkpoint->config_json ? checkpoint->config_json : "";
}

const char *checkpoint_dtype_name(checkpoint_dtype_t dtype)
{
    return safetensors_dtype_name(dtype);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

/* "[2, 3]" */
static void format_shape(int rank, const int64_t *dim, char *text, size_t room)
{
    size_t used = (size_t)snprintf(text, room, "[");
    for (int i = 0; i < rank && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s%" PRId64, i ? ", " : "", dim[i]);
    if (used < room)
        snprintf(text + used, room - used, "]");
}

int checkpoint_find_shaped(const checkpoint_t *checkpoint, const char *name, int rank, const int64_t *dim,
                           const checkpoint_tensor_t **out)
{
    const checkpoint_tensor_t *tensor = checkpoint_find(checkpoint, name);
    if (!tensor)
        return error_set(CHECKPOINT_ERR_TENSOR, "%s: tensor \"%s\": expected, but there is none of that name", checkpoint->path,
                         name);
    bool same = tensor->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = tensor->dim[i] == dim[i];
    if (!same) {
        char expected[128], found[128];
        format_shape(rank, dim, expected, sizeof expected);
        format_shape(tensor->rank, tensor->dim, found, sizeof found);
        return error_set(CHECKPOINT_ERR_TENSOR, "%s: tensor \"%s\": expected shape %s, found %s", checkpoint->path, name, expected,
                         found);
    }
    *out = tensor;
    return CHECKPOINT_OK;
}

static int wrong_dtype(const checkpoint_t *checkpoint, const checkpoint_tensor_t *tensor, const char *expected)
{
    return error_set(CHECKPOINT_ERR_TENSOR, "%s: tensor \"%s\": expected dtype %s, found %s", checkpoint->path, tensor->name,
                     expected, safetensors_dtype_name(tensor->dtype));
}

int checkpoint_read_f32(const checkpoint_t *checkpoint, const char *name, int rank, const int64_t *dim, float *out)
{
    const checkpoint_tensor_t *tensor;
    int rc = checkpoint_find_shaped(checkpoint, name, rank, dim, &tensor);
    if (rc == 0 && !convert_to_f32(tensor->dtype, tensor->data, tensor->elements, out))
        rc = wrong_dtype(checkpoint, tensor, "F32, F16, BF16 or F64");
    return rc;
}

int checkpoint_read_i64(const checkpoint_t *checkpoint, const char *name, int rank, const int64_t *dim, int64_t *out)
{
    const checkpoint_tensor_t *tensor;
    int rc = checkpoint_find_shaped(checkpoint, name, rank, dim, &tensor);
    if (rc == 0 && !convert_to_i64(tensor->dtype, tensor->data, tensor->elements, out))
        rc = wrong_dtype(checkpoint, tensor, "I64, I32, U8 or BOOL");
    return rc;
}
