/* What a running instance has in the system besides its processes: the runtime directory, which also is its lock, and its shared-memory
 * objects. `barcast run` claims them and takes them away again. */
#ifndef BARCAST_TOOLS_INSTANCE_H
#define BARCAST_TOOLS_INSTANCE_H

#include "config/config.h"

enum { INSTANCE_OK = 0, INSTANCE_ERR_BUSY = -1, INSTANCE_ERR_SYSTEM = -2 };

typedef struct {
    char directory[CONFIG_TEXT_BYTES];
    int lock; /* the open directory */
} instance_t;

/* Makes the runtime directory (0700, and refuses one that belongs to somebody else) and locks it as long as this process lives. */
int instance_claim(const config_t *config, instance_t *out);

/* Removes sockets, directory, segment and counters pages. Call it when all processes have ended. */
void instance_remove(const config_t *config, uint32_t worker_count, instance_t *instance);

#endif
