/* Steps a writer through an operation, one machine instruction at a time, and collects every state of the segment that there is
 * between two of its instructions. */
#ifndef BARCAST_TESTS_SHM_TRACE_H
#define BARCAST_TESTS_SHM_TRACE_H

#include "shm_test.h"

enum {
    TRACE_CAPACITY = 64,
    TRACE_PREPARED = TRACE_CAPACITY + 10, /* bars appended before the operation */
    TRACE_AMENDED = 1024,                 /* amendments made before it: the log has wrapped, too */
    TRACE_LOG_OLDEST = TRACE_PREPARED + TRACE_AMENDED - 1023,
    TRACE_IMAGES_MOST = 512
};

typedef void trace_operation_t(shm_segment_t *segment);

typedef struct {
    void *images
        [TRACE_IMAGES_MOST]; /* first the state before the operation, last the one after it; each differs from the one before */
    size_t count, bytes;
} trace_t;

/* A writer's process makes the segment `name` with symbol 0 ("A"), TRACE_PREPARED bars in its wrapped ring, the newest in progress,
 * TRACE_LOG_OLDEST the oldest entry of its log that is safe to read, and is stepped through `operation`. Skips the test where
 * tracing is not allowed. trace_free the result. */
trace_t trace_collect(const char *name, trace_operation_t *operation);
void trace_free(trace_t *trace);

/* Appends or amends bar `index`; aborts when that fails. */
void trace_put(shm_segment_t *segment, bool is_new, uint64_t index, uint32_t version, uint32_t flags);

/* Waits until the traced child stops and returns the signal. 0 when it was not allowed to be traced. */
int trace_wait_stop(pid_t child);
void trace_step(pid_t child);

/* Makes the object `name` hold `image`, as a writer that is dead by now has left it. */
void trace_plant(const char *name, const void *image, size_t bytes);

#endif
