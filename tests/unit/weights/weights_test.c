#include "weights_test.h"

#include "base/error.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int scratch_make(void **state)
{
    const char *parent = getenv("TMPDIR");
    char *dir;
    if (asprintf(&dir, "%s/barcast-weights-XXXXXX", parent ? parent : "/tmp") < 0)
        return -1;
    *state = dir;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status, (void)kind, (void)walk;
    return remove(path);
}

int scratch_remove(void **state)
{
    int rc = nftw(*state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return rc;
}

const char *scratch_path(const char *dir, const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

void write_file(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

void *safetensors_bytes(const char *header, const void *data, size_t data_bytes, size_t *count)
{
    uint64_t length = strlen(header);
    *count = sizeof length + length + data_bytes;
    char *bytes = malloc(*count);
    assert_non_null(bytes);
    memcpy(bytes, &length, sizeof length);
    memcpy(bytes + sizeof length, header, length);
    memcpy(bytes + sizeof length + length, data, data_bytes);
    return bytes;
}

void write_safetensors(const char *path, const char *header, const void *data, size_t data_bytes)
{
    size_t count;
    void *bytes = safetensors_bytes(header, data, data_bytes, &count);
    write_file(path, bytes, count);
    free(bytes);
}

void assert_error_has(const char *expected)
{
    if (!strstr(error_text(), expected))
        fail_msg("error text \"%s\" lacks \"%s\"", error_text(), expected);
}
