/* See parts_create.h. */
#include "gpuworker/model/parts_create.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

static const char *name_of(const void *sizes, size_t row_bytes, size_t row)
{
    const char *name;

    memcpy(&name, (const char *)sizes + row * row_bytes, sizeof name);
    return name;
}

const void *create_size(const char *family, const void *sizes, size_t count, size_t row_bytes, const char *name)
{
    char names[128] = "";
    size_t used = 0;

    for (size_t i = 0; i < count; i++) {
        const char *separator = i == 0 ? "" : i + 1 < count ? ", " : " or ", *each = name_of(sizes, row_bytes, i);

        if (strcmp(each, name) == 0)
            return (const char *)sizes + i * row_bytes;
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", separator, each);
    }
    error_set(MODEL_ERR_SHAPE, "%s: no size \"%s\": expected %s", family, name, names);
    return NULL;
}

int create_write(random_weights_t *weights, const char *dir, const char *config_json)
{
    int rc = random_weights_write(weights, dir, config_json, CHECKPOINT_F32);

    random_weights_free(weights);
    return rc < 0 ? MODEL_ERR_CHECKPOINT : MODEL_OK;
}
