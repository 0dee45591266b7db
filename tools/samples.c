#include "tools/samples.h"

#include <string.h>

#include "base/error.h"
#include "base/text.h"

enum { SAMPLES_AUTO = 256 };

int samples_parse(const char *text, samples_t *out)
{
    int64_t count = 0;

    out->automatic = strcmp(text, "auto") == 0;
    if (!out->automatic && (!text_to_i64(text, &count) || count < 0 || count > INT32_MAX))
        return error_set(-1, "--samples: \"%s\" is not a number of paths, or auto", text);
    out->count = (uint32_t)count;
    return 0;
}

uint32_t samples_for(samples_t samples, const model_t *model, uint32_t horizon)
{
    if (!samples.automatic)
        return samples.count;
    return model_has_quantiles(model, horizon) ? 0 : SAMPLES_AUTO;
}
