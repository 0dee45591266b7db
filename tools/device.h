/* --device and --precision of the one-shot commands. */
#ifndef BARCAST_TOOLS_DEVICE_H
#define BARCAST_TOOLS_DEVICE_H

#include "gpuworker/backend/backend.h"

#define DEVICE_HELP    "cpu, cuda or auto: a GPU when there is one"
#define PRECISION_HELP "fp32, bf16 or auto: bf16 where the device has it"

/* Opens the backend that the two words ask for. `threads` 0: as many as the machine has. Negative: error_text(). */
int device_open(const char *device, const char *precision, uint32_t threads, backend_t **backend, backend_dtype_t *dtype);

#endif
