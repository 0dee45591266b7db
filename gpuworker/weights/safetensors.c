#include "gpuworker/weights/safetensors.h"

#include "base/error.h"
#include "gpuworker/weights/json_text.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, NAME_BYTES_MOST = 255 };

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [CHECKPOINT_F32] = {"F32", 4}, [CHECKPOINT_F16] = {"F16", 2}, [CHECKPOINT_BF16] = {"BF16", 2}, [CHECKPOINT_F64] = {"F64", 8},
    [CHECKPOINT_I64] = {"I64", 8}, [CHECKPOINT_I32] = {"I32", 4}, [CHECKPOINT_U8] = {"U8", 1},     [CHECKPOINT_BOOL] = {"BOOL", 1},
};
enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

const char *safetensors_dtype_name(checkpoint_dtype_t dtype)
{
    return dtypes[dtype].name;
}

size_t safetensors_dtype_bytes(checkpoint_dtype_t dtype)
{
    return dtypes[dtype].bytes;
}

/* The data part of the file. */
typedef struct {
    const unsigned char *bytes;
    int64_t count;
} data_t;

/* Names go into error texts and tables: no control characters, and short enough to leave room for what is wrong. */
static int check_name(const char *name)
{
    size_t count = strlen(name);
    if (count == 0 || count > NAME_BYTES_MOST)
        return error_set(CHECKPOINT_ERR_FORMAT, "tensor \"%.60s...\": expected a name of 1 to %d bytes, found %zu", name,
                         NAME_BYTES_MOST, count);
    for (const char *at = name; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return error_set(CHECKPOINT_ERR_FORMAT, "expected tensor names without control characters, found 0x%02x in one", *at);
    return CHECKPOINT_OK;
}

static int read_dtype(struct json_object *info, checkpoint_dtype_t *out)
{
    struct json_object *value;
    if (!json_object_object_get_ex(info, "dtype", &value) || !json_object_is_type(value, json_type_string))
        return error_set(CHECKPOINT_ERR_FORMAT, "dtype: expected a string");
    const char *name = json_object_get_string(value);
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (checkpoint_dtype_t)i;
            return CHECKPOINT_OK;
        }
    }
    return error_set(CHECKPOINT_ERR_TENSOR, "dtype %.20s: expected F32, F16, BF16, F64, I64, I32, U8 or BOOL", name);
}

/* A JSON array of whole numbers >= 0: its length into *count, at most `most` of its numbers into out. */
static int read_sizes(struct json_object *info, const char *key, int64_t *out, size_t most, size_t *count)
{
    struct json_object *array;
    if (!json_object_object_get_ex(info, key, &array) || !json_object_is_type(array, json_type_array))
        return error_set(CHECKPOINT_ERR_FORMAT, "%s: expected an array", key);
    *count = json_object_array_length(array);
    for (size_t i = 0; i < *count && i < most; i++) {
        struct json_object *value = json_object_array_get_idx(array, i);
        if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
            return error_set(CHECKPOINT_ERR_FORMAT, "%s: expected whole numbers >= 0, found %.40s", key,
                             json_object_to_json_string(value));
        out[i] = json_object_get_int64(value); /* INT64_MAX when it is larger: refused as too many bytes */
    }
    return CHECKPOINT_OK;
}

static int read_shape(struct json_object *info, checkpoint_tensor_t *tensor)
{
    size_t rank;
    int rc = read_sizes(info, "shape", tensor->dim, CHECKPOINT_RANK_MOST, &rank);
    if (rc < 0)
        return rc;
    if (rank > CHECKPOINT_RANK_MOST)
        return error_set(CHECKPOINT_ERR_TENSOR, "shape of %zu dimensions: expected at most %d", rank, CHECKPOINT_RANK_MOST);
    tensor->rank = (int)rank;
    tensor->elements = 1;
    for (size_t i = 0; i < rank; i++)
        if (__builtin_mul_overflow(tensor->elements, tensor->dim[i], &tensor->elements))
            return error_set(CHECKPOINT_ERR_FORMAT, "shape: expected a product of dimensions below 2^63");
    return CHECKPOINT_OK;
}

static int read_offsets(struct json_object *info, const data_t *data, checkpoint_tensor_t *tensor)
{
    int64_t offset[2];
    size_t count;
    int rc = read_sizes(info, "data_offsets", offset, 2, &count);
    if (rc < 0)
        return rc;
    if (count != 2)
        return error_set(CHECKPOINT_ERR_FORMAT, "data_offsets: expected [begin, end], found %zu numbers", count);
    if (offset[0] > offset[1] || offset[1] > data->count)
        return error_set(CHECKPOINT_ERR_FORMAT, "data_offsets [%lld, %lld]: expected begin <= end <= %lld, the file's data bytes",
                         (long long)offset[0], (long long)offset[1], (long long)data->count);
    int64_t bytes;
    if (__builtin_mul_overflow(tensor->elements, (int64_t)dtypes[tensor->dtype].bytes, &bytes) || bytes != offset[1] - offset[0])
        return error_set(CHECKPOINT_ERR_FORMAT, "data_offsets span %lld bytes: expected %lld elements of %zu bytes",
                         (long long)(offset[1] - offset[0]), (long long)tensor->elements, dtypes[tensor->dtype].bytes);
    tensor->data = data->bytes + offset[0];
    tensor->bytes = (size_t)bytes;
    return CHECKPOINT_OK;
}

static int read_tensor(const char *name, struct json_object *info, const data_t *data, checkpoint_tensor_t *out)
{
    int rc = check_name(name);
    if (rc < 0)
        return rc;
    out->name = name;
    if (!json_object_is_type(info, json_type_object))
        rc = error_set(CHECKPOINT_ERR_FORMAT, "expected an object with dtype, shape and data_offsets");
    else if ((rc = read_dtype(info, &out->dtype)) == 0 && (rc = read_shape(info, out)) == 0)
        rc = read_offsets(info, data, out);
    return rc < 0 ? error_add(rc, "tensor \"%s\"", name) : rc;
}

static int compare_positions(const void *left, const void *right)
{
    const checkpoint_tensor_t *a = left, *b = right;
    if (a->data != b->data)
        return (const char *)a->data < (const char *)b->data ? -1 : 1;
    return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* tensors[count] in file order must tile the data. */
static int check_tiling(const checkpoint_tensor_t *tensors, size_t count, const data_t *data)
{
    const char *before = "the header";
    int64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t begin = (const unsigned char *)tensors[i].data - data->bytes;
        if (begin != end)
            return error_set(CHECKPOINT_ERR_FORMAT, "tensor \"%s\": %s: it begins at data byte %lld, expected %lld, the end of %s",
                             tensors[i].name, begin < end ? "overlap" : "hole", (long long)begin, (long long)end, before);
        before = tensors[i].name;
        end = begin + (int64_t)tensors[i].bytes;
    }
    if (end != data->count)
        return error_set(CHECKPOINT_ERR_FORMAT, "%lld data bytes: expected %lld, the end of the last tensor (%s)",
                         (long long)data->count, (long long)end, before);
    return CHECKPOINT_OK;
}

static int read_tensors(safetensors_t *safetensors, const data_t *data)
{
    size_t members = (size_t)json_object_object_length(safetensors->header);
    safetensors->tensors = calloc(members + 1, sizeof *safetensors->tensors);
    if (!safetensors->tensors)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for %zu tensor descriptions", members);
    struct json_object_iterator at = json_object_iter_begin(safetensors->header);
    struct json_object_iterator end = json_object_iter_end(safetensors->header);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        const char *name = json_object_iter_peek_name(&at);
        if (strcmp(name, "__metadata__") == 0)
            continue;
        int rc = read_tensor(name, json_object_iter_peek_value(&at), data, &safetensors->tensors[safetensors->count]);
        if (rc < 0)
            return rc;
        safetensors->count++;
    }
    qsort(safetensors->tensors, safetensors->count, sizeof *safetensors->tensors, compare_positions);
    return check_tiling(safetensors->tensors, safetensors->count, data);
}

int safetensors_parse(const void *bytes, size_t count, safetensors_t *out)
{
    if (count < LENGTH_BYTES)
        return error_set(CHECKPOINT_ERR_FORMAT, "%zu bytes: expected at least the %d of the header's length", count, LENGTH_BYTES);
    uint64_t length;
    memcpy(&length, bytes, sizeof length);
    if (length > SAFETENSORS_HEADER_BYTES_MOST)
        return error_set(CHECKPOINT_ERR_FORMAT, "header of %llu bytes: expected at most %d", (unsigned long long)length,
                         SAFETENSORS_HEADER_BYTES_MOST);
    if (length > count - LENGTH_BYTES)
        return error_set(CHECKPOINT_ERR_FORMAT, "header of %llu bytes: expected at most %zu, the rest of the file",
                         (unsigned long long)length, count - LENGTH_BYTES);

    const char *text = (const char *)bytes + LENGTH_BYTES;
    data_t data = {(const unsigned char *)text + length, (int64_t)(count - LENGTH_BYTES - length)};
    safetensors_t parsed = {0};
    int rc = json_text_parse(text, (size_t)length, &parsed.header);
    if (rc < 0)
        return error_add(rc, "header");
    rc = read_tensors(&parsed, &data);
    if (rc < 0) {
        safetensors_free(&parsed);
        return rc;
    }
    *out = parsed;
    return CHECKPOINT_OK;
}

void safetensors_free(safetensors_t *safetensors)
{
    free(safetensors->tensors);
    json_object_put(safetensors->header);
    *safetensors = (safetensors_t){0};
}
