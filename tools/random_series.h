/* Bars that nobody traded: seeded random walks as a session's inputs, for the engine's benchmark and the stress test. */
#ifndef BARCAST_TOOLS_RANDOM_SERIES_H
#define BARCAST_TOOLS_RANDOM_SERIES_H

#include "gpuworker/engine/session.h"

/* A walk is a function of seed, its number, variates and context alone, whatever the session's batch. */
typedef struct {
    uint64_t seed;
    uint32_t first; /* series i of the session is walk number first + i */
    bool ragged;    /* two walks of three are shorter than the context */
    float *truth;   /* NULL, or [batch][variates][horizon]: how the walks go on */
} random_series_t;

/* Fills the inputs of the whole batch: prices that move by about a percent a bar, all observed; whole bars for a model that takes them. */
void random_series_fill(session_t *session, const random_series_t *series);

#endif
