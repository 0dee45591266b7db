#include "tools/stress/stress.h"

#include <string.h>

enum { DEFAULT_QUANTILES = 9 };

/* The last part of a path. */
static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

static uint32_t words_of(const char *list)
{
    static const char separators[] = ", \t";
    uint32_t count = 0;

    for (const char *at = list + strspn(list, separators); *at != '\0'; at += strspn(at, separators)) {
        at += strcspn(at, separators);
        count++;
    }
    return count;
}

static void plan_configured(const config_model_t *config, backend_dtype_t automatic, stress_model_t *out)
{
    *out =
        (stress_model_t){.name = config->name, .path = config->path, .precision = automatic, .shape_count = config->bucket_count};
    if (config->precision != CONFIG_PRECISION_AUTO)
        out->precision = config->precision == CONFIG_PRECISION_BF16 ? BACKEND_BF16 : BACKEND_F32;
    for (uint32_t i = 0; i < config->bucket_count; i++) {
        model_shape_t *shape = &out->shapes[i];
        uint32_t fields = words_of(config->fields), known = 2 * words_of(config->cycles);

        *shape = (model_shape_t){.batch = config->buckets[i],
                                 .variates = (fields > 0 ? fields : 1) + words_of(config->companions) + known,
                                 .exogenous = known,
                                 .context = config->context,
                                 .horizon = config->horizon,
                                 .samples = config->samples,
                                 .quantile_count = config->quantile_count,
                                 .precision = out->precision,
                                 .options = {.rescale = config->rescale,
                                             .temperature = (float)config->temperature,
                                             .top_k = config->top_k,
                                             .top_p = (float)config->top_p,
                                             .window = config->window,
                                             .decode_block = config->decode_block,
                                             .minimum_observed = config->minimum_observed,
                                             .cap = (float)config->cap},
                                 .discard_samples = !config->publish_samples};
        for (uint32_t q = 0; q < config->quantile_count; q++)
            shape->quantiles[q] = (float)config->quantiles[q];
    }
}

void stress_plan_config(const config_t *config, backend_dtype_t automatic, stress_plan_t *out)
{
    *out = (stress_plan_t){.model_count = config->model_count};
    for (uint32_t i = 0; i < config->model_count; i++)
        plan_configured(&config->models[i], automatic, &out->models[i]);
}

void stress_plan_model(const char *path, backend_dtype_t precision, stress_plan_t *out)
{
    static const struct {
        uint32_t batch, variates, context, horizon, samples;
    } shapes[] = {{1, 1, 512, 64, 64}, {1, 1, 512, 336, 16}, {8, 1, 512, 96, 16}, {64, 1, 512, 64, 0}, {4, 2, 256, 96, 8}};
    stress_model_t *model = &out->models[0];

    *out = (stress_plan_t){.model_count = 1};
    *model = (stress_model_t){.name = name_of(path), .path = path, .precision = precision};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        model_shape_t *shape = &model->shapes[model->shape_count++];

        *shape = (model_shape_t){.batch = shapes[i].batch,
                                 .variates = shapes[i].variates,
                                 .context = shapes[i].context,
                                 .horizon = shapes[i].horizon,
                                 .samples = shapes[i].samples,
                                 .quantile_count = DEFAULT_QUANTILES,
                                 .precision = precision};
        for (int q = 0; q < DEFAULT_QUANTILES; q++)
            shape->quantiles[q] = 0.1f * (float)(q + 1);
    }
}
