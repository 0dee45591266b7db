#include "gpuworker/weights/file_map.h"

#include "base/error.h"
#include "gpuworker/weights/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_descriptor(int file, file_map_t *out)
{
    struct stat status;
    if (fstat(file, &status) < 0)
        return error_set(CHECKPOINT_ERR_FILE, "cannot stat: %s", strerror(errno));
    if (!S_ISREG(status.st_mode))
        return error_set(CHECKPOINT_ERR_FILE, "expected a regular file");
    file_map_t map = {.count = (size_t)status.st_size};
    if (map.count) {
        void *bytes = mmap(NULL, map.count, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes == MAP_FAILED)
            return error_set(CHECKPOINT_ERR_FILE, "cannot map %zu bytes: %s", map.count, strerror(errno));
        map.bytes = bytes;
    }
    *out = map;
    return CHECKPOINT_OK;
}

int file_map_open(const char *path, file_map_t *out)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its writer. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return error_set(CHECKPOINT_ERR_FILE, "%s: cannot open: %s", path, strerror(errno));
    int rc = map_descriptor(file, out);
    close(file);
    return rc < 0 ? error_add(rc, "%s", path) : rc;
}

void file_map_close(file_map_t *map)
{
    if (map->bytes)
        munmap((void *)(uintptr_t)map->bytes, map->count);
    *map = (file_map_t){0};
}
