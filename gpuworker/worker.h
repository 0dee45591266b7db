/* One worker of an instance: a device, its models, and the conversation with the scheduler.
 *
 *     worker_open   backend, counters page, publisher, HELLO, heartbeat, models and sessions, the segment
 *     worker_run    READY, then ASSIGN -> windows -> session -> publish -> DONE, until it is told to leave; then DRAIN
 *
 * One thread does the conversation, the computation and the publishing: a forecast never waits for another thread of ours. Only the
 * heartbeat has its own. A scheduler that disappears is waited for; one that is new (its name differs) is told HELLO and READY again. */
#ifndef BARCAST_GPUWORKER_WORKER_H
#define BARCAST_GPUWORKER_WORKER_H

#include "config/config.h"

#include <stdint.h>

enum {
    WORKER_OK = 0,
    WORKER_STOPPED = 1,      /* told to stop before it was ready */
    WORKER_ERR_CONFIG = -1,  /* nothing that a new start would mend */
    WORKER_ERR_SYSTEM = -2,  /* sockets, memory */
    WORKER_ERR_SEGMENT = -3, /* a segment of another layout or version */
    WORKER_ERR_DEVICE = -4   /* the device failed */
};

typedef struct worker worker_t;

typedef struct {
    const config_t *config; /* borrowed */
    uint32_t index;
    config_device_t device; /* CONFIG_DEVICE_AUTO: as the config says */
    int stop;               /* descriptor: readable when the worker shall finish and leave */
} worker_options_t;

/* Takes as long as the models need, and then waits for the segment until it exists or `stop` is readable. */
int worker_open(const worker_options_t *options, worker_t **out);
int worker_run(worker_t *worker);
void worker_close(worker_t *worker); /* NULL is allowed */

#endif
