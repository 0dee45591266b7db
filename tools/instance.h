/* What a running instance has in the system besides its processes: the runtime directory, which also is its lock, and its shared-memory
 * objects. `barcast run` claims them and takes them away again. */
#ifndef BARCAST_TOOLS_INSTANCE_H
#define BARCAST_TOOLS_INSTANCE_H

#include "config/config.h"

enum { INSTANCE_OK = 0, INSTANCE_ERR_BUSY = -1, INSTANCE_ERR_SYSTEM = -2 };

typedef struct {
    char directory[CONFIG_TEXT_BYTES];
    int lock; /* the open directory */
    uint32_t worker_count;
} instance_t;

/* How many workers to start: as the config says or, where it says 0, one for each GPU, and one where `device` or the machine has none. */
uint32_t instance_plan_workers(const config_t *config, config_device_t device);

/* Makes the runtime directory (0700, and refuses one that belongs to somebody else), locks it as long as this process lives, and notes the number
 * of workers in it. */
int instance_claim(const config_t *config, uint32_t worker_count, instance_t *out);

/* The number of workers of an instance that may be running: of the config or the note; while there is neither, as it would be planned. */
uint32_t instance_workers(const config_t *config);

/* Removes sockets, directory, segment and counters pages. Call it when all processes have ended. */
void instance_remove(const config_t *config, instance_t *instance);

#endif
