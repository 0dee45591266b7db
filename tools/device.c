#include "tools/device.h"

#include <string.h>
#include <unistd.h>

#include "base/error.h"

static int parse_device(const char *word, backend_kind_t *out)
{
    if (strcmp(word, "cpu") == 0)
        *out = BACKEND_CPU;
    else if (strcmp(word, "cuda") == 0)
        *out = BACKEND_CUDA;
    else if (strcmp(word, "auto") == 0)
        *out = backend_device_count(BACKEND_CUDA) > 0 ? BACKEND_CUDA : BACKEND_CPU;
    else
        return error_set(-1, "--device: \"%s\" is not cpu, cuda or auto", word);
    return 0;
}

static int parse_precision(const char *word, const backend_t *backend, backend_dtype_t *out)
{
    if (strcmp(word, "fp32") == 0)
        *out = BACKEND_F32;
    else if (strcmp(word, "bf16") == 0)
        *out = BACKEND_BF16;
    else if (strcmp(word, "auto") == 0)
        *out = backend_has_bf16(backend) ? BACKEND_BF16 : BACKEND_F32;
    else
        return error_set(-1, "--precision: \"%s\" is not fp32, bf16 or auto", word);
    return 0;
}

int device_open(const char *device, const char *precision, uint32_t threads, backend_t **backend, backend_dtype_t *dtype)
{
    backend_options_t options = {.threads = threads > 0 ? (int)threads : (int)sysconf(_SC_NPROCESSORS_ONLN)};
    int rc = parse_device(device, &options.kind);

    if (rc < 0 || (rc = backend_open(&options, backend)) < 0)
        return rc;
    if ((rc = parse_precision(precision, *backend, dtype)) < 0) {
        backend_close(*backend);
        *backend = NULL;
    }
    return rc;
}
