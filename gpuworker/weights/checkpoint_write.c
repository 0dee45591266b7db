#include "base/error.h"
#include "gpuworker/weights/checkpoint.h"
#include "gpuworker/weights/convert.h"
#include "gpuworker/weights/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_ALIGNMENT = 8, CHUNK_ELEMENTS = 16 * 1024 };

typedef struct {
    const checkpoint_source_t *tensors;
    size_t count;
    checkpoint_dtype_t dtype;
} contents_t;

static int64_t count_elements(const checkpoint_source_t *source)
{
    int64_t elements = 1;
    for (int i = 0; i < source->rank; i++)
        elements *= source->dim[i];
    return elements;
}

static int check_contents(const contents_t *contents)
{
    if (contents->dtype != CHECKPOINT_F32 && contents->dtype != CHECKPOINT_BF16)
        return error_set(CHECKPOINT_ERR_TENSOR, "expected to store F32 or BF16, not %s", safetensors_dtype_name(contents->dtype));
    for (size_t i = 0; i < contents->count; i++) {
        const char *name = contents->tensors[i].name;
        if (strpbrk(name, "\"\\"))
            return error_set(CHECKPOINT_ERR_TENSOR, "tensor \"%s\": expected a name without quotes and backslashes", name);
        int rank = contents->tensors[i].rank;
        if (rank < 0 || rank > CHECKPOINT_RANK_MOST)
            return error_set(CHECKPOINT_ERR_TENSOR, "tensor \"%s\": expected at most %d dimensions, not %d", name,
                             CHECKPOINT_RANK_MOST, rank);
    }
    return CHECKPOINT_OK;
}

/* The header's JSON, padded with blanks so that the data begins aligned. The caller frees *text. */
static int format_header(const contents_t *contents, char **text, size_t *bytes)
{
    FILE *stream = open_memstream(text, bytes);
    if (!stream)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for a header");
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", stream);
    size_t end = 0;
    for (size_t i = 0; i < contents->count; i++) {
        const checkpoint_source_t *tensor = &contents->tensors[i];
        fprintf(stream, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name, safetensors_dtype_name(contents->dtype));
        for (int d = 0; d < tensor->rank; d++)
            fprintf(stream, "%s%" PRId64, d ? "," : "", tensor->dim[d]);
        size_t begin = end;
        end += (size_t)count_elements(tensor) * safetensors_dtype_bytes(contents->dtype);
        fprintf(stream, "],\"data_offsets\":[%zu,%zu]}", begin, end);
    }
    fputc('}', stream);
    while (ftell(stream) % HEADER_ALIGNMENT)
        fputc(' ', stream);
    return fclose(stream) ? error_set(CHECKPOINT_ERR_MEMORY, "no memory for a header") : CHECKPOINT_OK;
}

static void write_bf16(const float *data, int64_t elements, FILE *file)
{
    uint16_t chunk[CHUNK_ELEMENTS];
    for (int64_t at = 0; at < elements; at += CHUNK_ELEMENTS) {
        int64_t count = elements - at < CHUNK_ELEMENTS ? elements - at : CHUNK_ELEMENTS;
        convert_to_bf16(data + at, count, chunk);
        fwrite(chunk, sizeof *chunk, (size_t)count, file);
    }
}

static int write_weights(FILE *file, const void *context)
{
    const contents_t *contents = context;
    char *header = NULL;
    size_t header_bytes;
    int rc = format_header(contents, &header, &header_bytes);
    if (rc == 0) {
        uint64_t length = header_bytes;
        fwrite(&length, sizeof length, 1, file);
        fwrite(header, 1, header_bytes, file);
        for (size_t i = 0; i < contents->count; i++) {
            const checkpoint_source_t *tensor = &contents->tensors[i];
            if (contents->dtype == CHECKPOINT_BF16)
                write_bf16(tensor->data, count_elements(tensor), file);
            else
                fwrite(tensor->data, sizeof *tensor->data, (size_t)count_elements(tensor), file);
        }
    }
    free(header);
    return rc;
}

static int write_text(FILE *file, const void *context)
{
    fputs(context, file);
    return CHECKPOINT_OK;
}

/* Replaces DIR/name as a whole: what `write` writes goes to a file beside it, which is then renamed. Failed writes show in ferror. */
static int replace_file(const char *dir, const char *name, int (*write)(FILE *, const void *), const void *context)
{
    char *path = NULL, *part = NULL;
    FILE *file = NULL;
    int rc = CHECKPOINT_OK;
    if (asprintf(&path, "%s/%s", dir, name) < 0 || asprintf(&part, "%s.part", path) < 0) {
        rc = error_set(CHECKPOINT_ERR_MEMORY, "no memory for a path");
        goto cleanup;
    }
    file = fopen(part, "wbe");
    if (!file) {
        rc = error_set(CHECKPOINT_ERR_FILE, "%s: cannot create: %s", part, strerror(errno));
        goto cleanup;
    }
    rc = write(file, context);
    bool failed = ferror(file);
    failed |= fclose(file) != 0;
    if (rc == 0 && (failed || rename(part, path) < 0))
        rc = error_set(CHECKPOINT_ERR_FILE, "%s: cannot write: %s", path, strerror(errno));
    if (rc < 0)
        unlink(part);

cleanup:
    free(path);
    free(part);
    return rc;
}

static int make_directory(const char *dir)
{
    char *path = strdup(dir);
    if (!path)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for a path");
    int rc = CHECKPOINT_OK;
    for (char *at = path + (*path == '/'); rc == 0; at++) {
        char end = *at;
        if (end && end != '/')
            continue;
        *at = '\0';
        if (mkdir(path, 0777) < 0 && errno != EEXIST)
            rc = error_set(CHECKPOINT_ERR_FILE, "%s: cannot make the directory: %s", path, strerror(errno));
        *at = end;
        if (!end)
            break;
    }
    free(path);
    return rc;
}

int checkpoint_write(const char *dir, const char *config_json, const checkpoint_source_t *tensors, size_t count,
                     checkpoint_dtype_t dtype)
{
    contents_t contents = {tensors, count, dtype};
    int rc = check_contents(&contents);
    if (rc == 0)
        rc = make_directory(dir);
    if (rc == 0)
        rc = replace_file(dir, "model.safetensors", write_weights, &contents);
    if (rc == 0)
        rc = replace_file(dir, "config.json", write_text, config_json);
    return rc;
}
