#include "tools/stress/stress.h"

#include <string.h>

#include "gpuworker/variates.h"

enum { DEFAULT_QUANTILES = 9 };

/* The last part of a path. */
static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

void stress_plan_config(const config_t *config, backend_dtype_t automatic, stress_plan_t *out)
{
    *out = (stress_plan_t){.model_count = config->model_count};
    for (uint32_t i = 0; i < config->model_count; i++) {
        const config_model_t *model = &config->models[i];

        out->models[i] = (stress_model_t){.name = model->name, .path = model->path, .precision = automatic, .config = model};
        if (model->precision != CONFIG_PRECISION_AUTO)
            out->models[i].precision = model->precision == CONFIG_PRECISION_BF16 ? BACKEND_BF16 : BACKEND_F32;
    }
}

void stress_plan_model(const char *path, backend_dtype_t precision, stress_plan_t *out)
{
    *out = (stress_plan_t){.model_count = 1, .models = {{.name = name_of(path), .path = path, .precision = precision}}};
}

static int configured_shapes(const stress_model_t *model, const model_info_t *info, model_shape_t *out)
{
    const config_model_t *config = model->config;
    variates_t variates;
    int rc = variates_open(config, info, &variates);

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < config->bucket_count; i++)
        out[i] = variates_shape(&variates, config, config->buckets[i], model->precision);
    variates_close(&variates);
    return (int)config->bucket_count;
}

int stress_plan_shapes(const stress_model_t *model, const model_info_t *info, model_shape_t out[STRESS_SHAPES_MOST])
{
    static const struct {
        uint32_t batch, variates, context, horizon, samples;
    } shapes[] = {{1, 1, 512, 64, 64}, {1, 1, 512, 336, 16}, {8, 1, 512, 96, 16}, {64, 1, 512, 64, 0}, {4, 2, 256, 96, 8}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };

    if (model->config != NULL)
        return configured_shapes(model, info, out);
    for (size_t i = 0; i < SHAPES; i++) {
        out[i] = (model_shape_t){.batch = shapes[i].batch,
                                 .variates = info->whole_bars ? MODEL_WHOLE_BAR : shapes[i].variates,
                                 .context = shapes[i].context,
                                 .horizon = shapes[i].horizon,
                                 .samples = shapes[i].samples,
                                 .quantile_count = DEFAULT_QUANTILES,
                                 .precision = model->precision};
        for (int q = 0; q < DEFAULT_QUANTILES; q++)
            out[i].quantiles[q] = 0.1f * (float)(q + 1);
    }
    return SHAPES;
}
