/* POSIX shm objects by name, and whether the process that owns one still lives. Private to this folder. */
#ifndef BARCAST_SHM_OBJECT_H
#define BARCAST_SHM_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHM_PATH_BYTES = 160 };

/* "/barcast.<name>" or, with a role, "/barcast.<name>.<role>". SHM_ERR_INVALID for a name that segment.h does not allow. */
int shm_object_path(const char *name, const char *role, char out[static SHM_PATH_BYTES]);

/* Opens `path` for its writer, made (mode 0600, size 0) when it does not exist, and holds flock on it, so that of two creators one
 * gets SHM_ERR_BUSY. *bytes is its size. Closing *fd releases the lock. */
int shm_object_claim(const char *path, int *fd, size_t *bytes);

/* Maps `path` read-only. SHM_ERR_NOT_READY when there is none or it is still empty. */
int shm_object_map(const char *path, const void **out, size_t *bytes);

int shm_object_unlink(const char *path);

/* When the process started, in the kernel's ticks since boot; 0 when that cannot be told. */
uint64_t shm_process_start(uint32_t pid);

/* True while the process `pid` that started at `start` runs. A zombie does not. */
bool shm_process_alive(uint32_t pid, uint64_t start);

#endif
