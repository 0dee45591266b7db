/* A whole file, memory-mapped read-only. */
#ifndef BARCAST_GPUWORKER_WEIGHTS_FILE_MAP_H
#define BARCAST_GPUWORKER_WEIGHTS_FILE_MAP_H

#include <stddef.h>

typedef struct {
    const void *bytes; /* NULL when the file is empty */
    size_t count;
} file_map_t;

/* Maps a regular file; CHECKPOINT_ERR_FILE with the path in the text otherwise. */
int file_map_open(const char *path, file_map_t *out);

/* Allows a zeroed struct. */
void file_map_close(file_map_t *map);

#endif
