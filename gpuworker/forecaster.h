/* The models of a configuration on one backend: weights loaded, one session a bucket, ready to turn a batch into published forecasts.
 *
 * forecaster_open does everything that allocates, compiles or captures; forecaster_run does none of it. One thread, the backend's. */
#ifndef BARCAST_GPUWORKER_FORECASTER_H
#define BARCAST_GPUWORKER_FORECASTER_H

#include "gpuworker/publisher.h"
#include "gpuworker/windows.h"

enum {
    FORECASTER_OK = 0,
    FORECASTER_ERR_MODEL = -1,  /* a model or session that cannot be opened: error_text() names it */
    FORECASTER_ERR_MEMORY = -2, /* not even the smallest bucket fits */
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
} forecaster_parts_t;

/* Loads every model and opens its buckets, biggest first; buckets that do not fit in memory are left out with a warning. */
int forecaster_open(const forecaster_parts_t *parts, forecaster_t **out);
void forecaster_close(forecaster_t *forecaster);

/* The open sessions, by model and ascending bucket; returns their number. */
uint32_t forecaster_sessions(const forecaster_t *forecaster, wire_session_t out[static WIRE_SESSIONS_MOST]);

/* Makes room for the windows of that segment's symbols and forgets those of the one before. All that allocates but forecaster_open. */
int forecaster_join(forecaster_t *forecaster, const shm_segment_t *segment);

/* Forecasts the items in order, in runs of the smallest bucket that fits, and publishes each. done->status gets every item's outcome, done->count
 * and compute_ns are set. An item's failure is its status; the negative code is FORECASTER_ERR_DEVICE alone. */
int forecaster_run(forecaster_t *forecaster, const shm_segment_t *segment, const wire_assign_t *assign, wire_done_t *done);

#endif
