/* The families and how a model is found among them. */
#include "gpuworker/model/model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "gpuworker/model/families.h"
#include "gpuworker/model/parts_load.h"

const model_family_t *const model_families[] = {&naive_family,        &toto1_family, &sundial_family, &chronos2_family,
                                                &chronos_bolt_family, &toto2_family, &kronos_family,  NULL};

static const model_family_t *family_of(const checkpoint_t *checkpoint)
{
    for (size_t i = 0; model_families[i] != NULL; i++)
        if (model_families[i]->matches != NULL && model_families[i]->matches(checkpoint))
            return model_families[i];
    return NULL;
}

/* Zeroed but for its base; NULL when there is no memory for it. */
static model_base_t *new_model(const model_family_t *family, backend_t *backend, backend_dtype_t precision)
{
    model_base_t *base = calloc(1, family->model_bytes);

    if (base == NULL)
        error_set(MODEL_ERR_MEMORY, "%s: out of memory", family->name);
    else
        *base = (model_base_t){.family = family, .backend = backend, .precision = precision};
    return base;
}

static int load_naive(backend_t *backend, backend_dtype_t precision, model_t **out, char revision[static 17])
{
    model_base_t *base = new_model(&naive_family, backend, precision);

    if (base == NULL)
        return MODEL_ERR_MEMORY;
    snprintf(revision, 17, "%016d", 1);
    *out = (model_t *)base;
    return MODEL_OK;
}

static int load_checkpoint(const model_family_t *family, backend_t *backend, const checkpoint_t *checkpoint,
                           backend_dtype_t precision, model_t **out, char revision[static 17])
{
    size_t before = backend_allocated_bytes(backend);
    model_base_t *base = new_model(family, backend, precision);
    loader_t loader;

    if (base == NULL)
        return MODEL_ERR_MEMORY;
    if (loader_open(&loader, base, checkpoint) == MODEL_OK)
        family->load((model_t *)base, &loader);
    if (loader_close(&loader) < 0) {
        model_unload((model_t *)base);
        return error_add(loader.rc, "%s", family->name);
    }
    base->parameters += loader.parameters;
    base->weight_bytes = backend_allocated_bytes(backend) - before;
    memcpy(revision, loader.revision, sizeof loader.revision);
    *out = (model_t *)base;
    return MODEL_OK;
}

int model_load(backend_t *backend, const char *dir, backend_dtype_t precision, model_t **out, char revision[static 17])
{
    const model_family_t *family;
    checkpoint_t *checkpoint;
    char default_dir[PATH_MAX];
    bool is_default = strcmp(dir, "default") == 0;
    int rc;

    if (precision == BACKEND_BF16 && !backend_has_bf16(backend))
        return error_set(MODEL_ERR_BACKEND, "%s: %s has no bf16", dir, backend_name(backend));
    if (strcmp(dir, naive_family.name) == 0)
        return load_naive(backend, precision, out, revision);
    if (is_default) {
        if (model_default_dir(default_dir, sizeof default_dir) < 0)
            return MODEL_ERR_CHECKPOINT;
        dir = default_dir;
    }
    if (checkpoint_open(dir, &checkpoint) < 0)
        return MODEL_ERR_CHECKPOINT;
    family = family_of(checkpoint);
    rc = family != NULL ? load_checkpoint(family, backend, checkpoint, precision, out, revision)
                        : error_set(MODEL_ERR_FAMILY, "%s: config.json is of no model family that this build knows", dir);
    checkpoint_close(checkpoint);
    if (rc == MODEL_OK)
        ((model_base_t *)*out)->rescale = is_default;
    return rc;
}

const model_family_t *model_family(const model_t *model)
{
    return ((const model_base_t *)model)->family;
}

void model_unload(model_t *model)
{
    model_base_t *base = (model_base_t *)model;

    if (model == NULL)
        return;
    if (base->family->unload != NULL)
        base->family->unload(model);
    for (size_t i = 0; i < base->weight_count; i++)
        backend_free(base->backend, &base->weights[i]);
    free(base->weights);
    free(model);
}

void model_info(const model_t *model, model_info_t *out)
{
    const model_base_t *base = (const model_base_t *)model;

    *out = (model_info_t){
        .family = base->family->name, .parameters = base->parameters, .weight_bytes = base->weight_bytes, .patch = 1};
    base->family->info(model, out);
}

/* Keeps every size of a session, whatever the model's width, far below what 64 bits hold, and bars below what 32 do. */
static int check_size(const model_base_t *base, const model_shape_t *shape)
{
    double rows = (double)shape->batch * (double)shape->variates, bars = (double)shape->context + (double)shape->horizon;
    double paths = 1 + (double)shape->samples + (double)shape->quantile_count;

    if (bars > MODEL_BARS_MOST)
        return error_set(MODEL_ERR_SHAPE, "%s: context %u and horizon %u: expected at most %d bars together", base->family->name,
                         shape->context, shape->horizon, MODEL_BARS_MOST);
    if (rows * ((double)shape->context + paths * (double)shape->horizon) > (double)MODEL_VALUES_MOST)
        return error_set(
            MODEL_ERR_SHAPE,
            "%s: batch %u, variates %u, context %u, horizon %u, samples %u: expected at most %lld bars in and out, which "
            "fill any device",
            base->family->name, shape->batch, shape->variates, shape->context, shape->horizon, shape->samples,
            (long long)MODEL_VALUES_MOST);
    return MODEL_OK;
}

int model_open(model_t *model, model_shape_t *shape, model_state_t **out, model_input_t *input, model_output_t *output)
{
    const model_base_t *base = (const model_base_t *)model;
    model_state_t *state;
    int rc;

    if (shape->precision != base->precision)
        return error_set(MODEL_ERR_SHAPE, "%s: the session's precision is not the one that the model was loaded with",
                         base->family->name);
    if ((rc = check_size(base, shape)) < 0)
        return rc;
    if ((state = calloc(1, base->family->state_bytes)) == NULL)
        return error_set(MODEL_ERR_MEMORY, "%s: out of memory", base->family->name);
    *input = (model_input_t){0};
    *output = (model_output_t){0};
    if ((rc = base->family->open(model, shape, state, input, output)) < 0) {
        model_close(model, state);
        return rc;
    }
    *out = state;
    return MODEL_OK;
}

void model_close(const model_t *model, model_state_t *state)
{
    model_family(model)->close(state);
    free(state);
}

bool model_has_quantiles(const model_t *model, uint32_t horizon)
{
    model_info_t info;

    model_info(model, &info);
    return info.quantiles_without_samples && (info.exact_horizon_most == 0 || horizon <= info.exact_horizon_most);
}

uint64_t model_random_key(uint64_t seed, const char *symbol, int64_t cutoff_ns)
{
    uint64_t parts[3] = {seed, text_hash64(symbol, strlen(symbol)), (uint64_t)cutoff_ns};
    return text_hash64(parts, sizeof parts);
}
