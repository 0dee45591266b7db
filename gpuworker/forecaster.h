/* The models of a configuration on one backend: weights loaded, one session a bucket, ready to turn a batch into published forecasts.
 *
 * forecaster_open and forecaster_join do everything that allocates, compiles or captures; forecaster_run does none of it.
 *
 * Where the device works by itself (parts.overlap), the host gathers the next batch and publishes the one before while the device computes:
 * forecaster_run returns with the device at work on the batch's last series. Call forecaster_poll until it has nothing left, also while no
 * batch is at hand, and forecaster_flush before the segment is left. One thread, the backend's.
 */
#ifndef BARCAST_GPUWORKER_FORECASTER_H
#define BARCAST_GPUWORKER_FORECASTER_H

#include "gpuworker/publisher.h"
#include "gpuworker/windows.h"

enum {
    FORECASTER_OK = 0,
    FORECASTER_BUSY = 1,        /* the device is at work */
    FORECASTER_ERR_MODEL = -1,  /* a model or session that cannot be opened: error_text() names it */
    FORECASTER_ERR_MEMORY = -2, /* not one bucket fits */
    FORECASTER_ERR_DEVICE = -3  /* the device failed: nothing works any more */
};

typedef struct forecaster forecaster_t;

/* What a forecaster works with; all borrowed. */
typedef struct {
    const config_t *config;
    const char *worker; /* its name, in every forecast */
    backend_t *backend;
    publisher_t *publisher;
    shm_counters_t *counters;
    bool overlap;
    /* Called once a batch, when all its forecasts are out: every item's outcome in done->status, valid during the call. */
    void (*finished)(void *context, const wire_done_t *done);
    void *context;
} forecaster_parts_t;

/* Loads every model and opens its buckets, biggest first; buckets that do not fit in memory are left out with a warning that says what was
 * asked for and what was free. */
int forecaster_open(const forecaster_parts_t *parts, forecaster_t **out);
void forecaster_close(forecaster_t *forecaster);

/* The open sessions, by model and ascending bucket; returns their number. */
uint32_t forecaster_sessions(const forecaster_t *forecaster, wire_session_t out[static WIRE_SESSIONS_MOST]);

/* Makes room for the windows of that segment's symbols and forgets those of the one before. All that allocates but forecaster_open. */
int forecaster_join(forecaster_t *forecaster, const shm_segment_t *segment);

/* Forecasts the items in order, in runs of the smallest bucket that fits, and publishes each. A failure of an item is its status; the negative
 * code, here and below, is FORECASTER_ERR_DEVICE alone: then the batches that the device had are not finished and error_text() names the device and
 * what failed on it. */
int forecaster_run(forecaster_t *forecaster, const shm_segment_t *segment, const wire_assign_t *assign);

/* Publishes what the device has finished. FORECASTER_BUSY: it still computes; FORECASTER_OK: all is out. */
int forecaster_poll(forecaster_t *forecaster);

/* Waits for the device and publishes all. */
int forecaster_flush(forecaster_t *forecaster);

#endif
