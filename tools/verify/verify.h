/* Golden cases: runs of an official implementation, repeated by ours and compared tensor by tensor.
 *
 * A case is a directory: case.json ("model", "description"), model/ (a checkpoint directory), inputs.safetensors, expected.safetensors. The
 * real model and session code runs, eagerly, with taps; every expected tensor must come by and agree, or be listed by the family with the
 * reason why it is not compared. */
#ifndef BARCAST_TOOLS_VERIFY_VERIFY_H
#define BARCAST_TOOLS_VERIFY_VERIFY_H

#include <stdio.h>

#include "gpuworker/engine/session.h"

typedef struct {
    backend_t *backend;
    backend_dtype_t precision;
    bool graphs;      /* replay a captured graph: only results are compared then, taps need an eager run */
    uint32_t batch;   /* at least that many series in the session; 0: as many as the case has */
    uint32_t context; /* at least that many bars in the session; 0: as many as the case has */
    double tolerance;
    FILE *to; /* the report */
} verify_options_t;

typedef enum { VERIFY_PASSED, VERIFY_FAILED, VERIFY_SKIPPED } verify_result_t;

/* Runs the case in `dir` and writes its report. A case that cannot be read or run has failed; one whose model this build has no table
 * for is skipped. */
verify_result_t verify_case(const verify_options_t *options, const char *dir);

#endif
