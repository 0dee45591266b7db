/* When a replayed bar is due: a pure function of the open times handed in so far. Deadlines are absolute, so a late one shifts
 * nothing: a replay that fell behind catches up.
 *
 * A time step is all bars of one open time; they share a deadline. One older than the step (a late correction in the file) is due
 * at once with it. */
#ifndef BARCAST_INGEST_PACING_H
#define BARCAST_INGEST_PACING_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double speed;            /* 1: real time, N: N times as fast, 0: flat out */
    double steps_per_second; /* above 0: that many steps a second, whatever lies between their open times */
    bool started;
    int64_t start_ns; /* the first step's deadline */
    int64_t first_open_ns, step_open_ns;
    uint64_t steps; /* before the one of step_open_ns */
} pacing_t;         /* set speed and steps_per_second, zero the rest */

/* The deadline of the next bar, by the clock that `now_ns` is read from; INT64_MIN when it is due whatever the time. The first
 * call starts the replay at now_ns. */
int64_t pacing_deadline_ns(pacing_t *pacing, int64_t open_time_ns, int64_t now_ns);

#endif
