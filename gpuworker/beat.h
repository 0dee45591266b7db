/* The worker's heartbeat: a thread with a DEALER of its own ("worker.0#beat"), so that a long computation does not look like death.
 *
 * The setters may be called from any thread and never block; the thread sends the newest values every interval while the scheduler is
 * connected, and sends nothing while it is not. */
#ifndef BARCAST_GPUWORKER_BEAT_H
#define BARCAST_GPUWORKER_BEAT_H

#include <stdbool.h>
#include <stdint.h>

enum { BEAT_OK = 0, BEAT_ERR_SYSTEM = -1 };

typedef struct beat beat_t;

/* `worker` and `endpoint` are borrowed. */
int beat_start(void *zmq, const char *endpoint, const char *worker, int64_t interval_ns, beat_t **out);
void beat_stop(beat_t *beat); /* joins the thread; NULL is allowed */

void beat_set_ready(beat_t *beat);
void beat_set_batch(beat_t *beat, uint64_t batch_id); /* being computed; 0: idle */

/* A DEALER towards the scheduler: identity, bounds, reconnection with backoff, nothing queued while it is not there. NULL on failure. */
void *beat_dealer(void *zmq, const char *endpoint, const char *identity, int linger_ms);

#endif
