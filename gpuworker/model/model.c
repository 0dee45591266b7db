/* The families and how a model is found among them. */
#include "gpuworker/model/model.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "gpuworker/model/families.h"

const model_family_t *const model_families[] = {&naive_family,        &toto1_family, &sundial_family, &chronos2_family,
                                                &chronos_bolt_family, &toto2_family, &kronos_family,  NULL};

static const model_family_t *family_of(const checkpoint_t *checkpoint)
{
    for (size_t i = 0; model_families[i] != NULL; i++)
        if (model_families[i]->matches != NULL && model_families[i]->matches(checkpoint))
            return model_families[i];
    return NULL;
}

int model_load(backend_t *backend, const char *dir, backend_dtype_t precision, model_t **out, char revision[static 17])
{
    const model_family_t *family;
    checkpoint_t *checkpoint;
    char default_dir[PATH_MAX];
    int rc;

    if (precision == BACKEND_BF16 && !backend_has_bf16(backend))
        return error_set(MODEL_ERR_BACKEND, "%s: %s has no bf16", dir, backend_name(backend));
    if (strcmp(dir, naive_family.name) == 0) {
        snprintf(revision, 17, "%016d", 1);
        return naive_family.load(backend, NULL, precision, out);
    }
    if (strcmp(dir, "default") == 0) {
        if (model_default_dir(default_dir, sizeof default_dir) < 0)
            return MODEL_ERR_CHECKPOINT;
        dir = default_dir;
    }
    if (checkpoint_open(dir, &checkpoint) < 0)
        return MODEL_ERR_CHECKPOINT;
    family = family_of(checkpoint);
    if (family == NULL)
        rc = error_set(MODEL_ERR_FAMILY, "%s: config.json is of no model family that this build knows", dir);
    else if ((rc = family->load(backend, checkpoint, precision, out)) == MODEL_OK)
        snprintf(revision, 17, "%s", checkpoint_revision(checkpoint));
    else
        error_add(rc, "%s", family->name);
    checkpoint_close(checkpoint);
    return rc;
}

const model_family_t *model_family(const model_t *model)
{
    return ((const model_base_t *)model)->family;
}

void model_unload(model_t *model)
{
    if (model != NULL)
        model_family(model)->unload(model);
}

bool model_has_quantiles(const model_t *model, uint32_t horizon)
{
    model_info_t info;

    model_family(model)->info(model, &info);
    return info.quantiles_without_samples && (info.exact_horizon_most == 0 || horizon <= info.exact_horizon_most);
}

uint64_t model_random_key(uint64_t seed, const char *symbol, int64_t cutoff_ns)
{
    uint64_t parts[3] = {seed, text_hash64(symbol, strlen(symbol)), (uint64_t)cutoff_ns};
    return text_hash64(parts, sizeof parts);
}
