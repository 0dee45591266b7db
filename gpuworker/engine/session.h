/* A session: one model, one shape, everything allocated, the whole forecast captured as one graph where the backend can.
 *
 * session_open allocates, runs once eagerly, captures, replays and compares the replay with the eager result bit for bit. After that
 * session_run allocates nothing. Use: fill session_input for series 0 .. count-1, session_run, read session_output. One thread. */
#ifndef BARCAST_GPUWORKER_ENGINE_SESSION_H
#define BARCAST_GPUWORKER_ENGINE_SESSION_H

#include "gpuworker/model/model.h"

enum {
    SESSION_OK = 0,
    SESSION_ERR_SHAPE = -1,
    SESSION_ERR_MEMORY = -2,
    SESSION_ERR_MISMATCH = -3, /* replay and eager differ: error_text() names the first tensor */
    SESSION_ERR_DEVICE = -4,
    SESSION_ERR_WEIGHTS = -5 /* the trial forecast has values that are not finite: error_text() names the first */
};

typedef struct session session_t;

/* `graphs`: capture where the backend has graphs; false: the same code runs eagerly every time. */
int session_open(model_t *model, const model_shape_t *shape, bool graphs, session_t **out);
void session_close(session_t *session);

const model_shape_t *session_shape(const session_t *session); /* context as rounded */
void session_info(const session_t *session, model_info_t *out);
model_input_t *session_input(session_t *session);

/* Forecasts series 0 .. count-1, 1 <= count <= batch; the rest are padded with series 0 and thrown away. Blocks until the results are in
 * host memory. */
int session_run(session_t *session, uint32_t count);
/* The same in two: start enqueues it and returns at once where the device works by itself; wait blocks until the results are there. In between,
 * neither the inputs nor the outputs may be touched. After a failed start there is nothing to wait for. ready: 1 when wait
 * would not block, 0, or a negative code: nothing to wait for. */
int session_start(session_t *session, uint32_t count);
int session_ready(session_t *session);
int session_wait(session_t *session);
/* The same, with the device's own time for it. A graph is replayed twice, one right behind the other, and the second one timed: so no wait
 * for the host is in it. */
int session_run_timed(session_t *session, uint32_t count, int64_t *device_ns);
const model_output_t *session_output(const session_t *session);

/* Eager sessions only: see model_tap_t. */
int session_set_tap(session_t *session, model_tap_t tap, void *context);

typedef struct {
    size_t bytes;            /* device memory of the session */
    int64_t open_ns, run_ns; /* duration of open, and of one full run measured in it */
    int64_t device_ns;       /* what the last run took on the device's own clock */
    bool graph;
    uint64_t captures, replays, eager_runs;
} session_stats_t;

void session_stats(const session_t *session, session_stats_t *out);

#endif
