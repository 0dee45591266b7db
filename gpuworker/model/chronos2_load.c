/* Loading of a Chronos-2 checkpoint, as published on Hugging Face (amazon/chronos-2): see chronos2.c for the model itself and the letters of the
 * shapes. */
#include "gpuworker/model/chronos2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { LAYERS_MOST = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool chronos2_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "chronos_config.max_output_patches") &&
           checkpoint_config_has(checkpoint, "chronos_config.input_patch_size");
}

static int wrong_config(const char *key, const char *is, const char *expected)
{
    return error_set(MODEL_ERR_CHECKPOINT, "config.json: %s is %s, expected %s", key, is, expected);
}

static int read_sizes(const checkpoint_t *checkpoint, chronos2_config_t *config)
{
    int64_t stride, output;

    if (checkpoint_config_i64(checkpoint, "chronos_config.input_patch_size", 1, 4096, &config->patch) < 0 ||
        checkpoint_config_i64(checkpoint, "chronos_config.input_patch_stride", 1, 4096, &stride) < 0 ||
        checkpoint_config_i64(checkpoint, "chronos_config.output_patch_size", 1, 4096, &output) < 0 ||
        checkpoint_config_i64(checkpoint, "chronos_config.context_length", 1, 1 << 24, &config->context_most) < 0 ||
        checkpoint_config_i64(checkpoint, "chronos_config.max_output_patches", 1, 1 << 16, &config->output_patches) < 0 ||
        checkpoint_config_i64(checkpoint, "d_model", 1, 65536, &config->width) < 0 ||
        checkpoint_config_i64(checkpoint, "d_kv", 2, 4096, &config->head_dim) < 0 ||
        checkpoint_config_i64(checkpoint, "d_ff", 1, 1 << 20, &config->hidden) < 0 ||
        checkpoint_config_i64(checkpoint, "num_layers", 1, LAYERS_MOST, &config->layers) < 0 ||
        checkpoint_config_i64(checkpoint, "num_heads", 1, 1024, &config->heads) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (stride != config->patch)
        return wrong_config("chronos_config.input_patch_stride", "not input_patch_size", "patches that do not overlap");
    if (output != config->patch)
        return wrong_config("chronos_config.output_patch_size", "not input_patch_size", "the same");
    if (config->context_most % config->patch != 0)
        return wrong_config("chronos_config.context_length", "no multiple of input_patch_size", "one");
    if (config->head_dim % 2 != 0)
        return wrong_config("d_kv", "odd", "pairs to rotate");
    return MODEL_OK;
}

static int read_flavour(const checkpoint_t *checkpoint, chronos2_config_t *config)
{
    const char *activation;
    bool reg = false;
    double eps = 1e-6;

    config->rope_theta = 10000;
    config->time_scale = (double)config->context_most;
    if (checkpoint_config_text(checkpoint, "feed_forward_proj", &activation) < 0 ||
        checkpoint_config_bool(checkpoint, "chronos_config.use_reg_token", &reg) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (strcmp(activation, "relu") != 0)
        return wrong_config("feed_forward_proj", activation, "relu");
    if (!reg)
        return wrong_config("chronos_config.use_reg_token", "false", "true");
    if ((checkpoint_config_has(checkpoint, "chronos_config.use_arcsinh") &&
         checkpoint_config_bool(checkpoint, "chronos_config.use_arcsinh", &config->asinh) < 0) ||
        (checkpoint_config_has(checkpoint, "chronos_config.time_encoding_scale") &&
         checkpoint_config_f64(checkpoint, "chronos_config.time_encoding_scale", &config->time_scale) < 0) ||
        (checkpoint_config_has(checkpoint, "rope_theta") &&
         checkpoint_config_f64(checkpoint, "rope_theta", &config->rope_theta) < 0) ||
        (checkpoint_config_has(checkpoint, "layer_norm_epsilon") &&
         checkpoint_config_f64(checkpoint, "layer_norm_epsilon", &eps) < 0))
        return MODEL_ERR_CHECKPOINT;
    if (config->time_scale <= 0)
        return wrong_config("chronos_config.time_encoding_scale", "not positive", "a positive number");
    if (config->rope_theta <= 0)
        return wrong_config("rope_theta", "not positive", "a positive number");
    if (eps < 0)
        return wrong_config("layer_norm_epsilon", "negative", "a small positive number");
    config->eps = (float)eps;
    return MODEL_OK;
}

static void find_paths(chronos2_config_t *config)
{
    int found = 0;

    for (int path = 0; path < CHRONOS2_PATHS; path++)
        for (int64_t i = 0; i < config->levels.count; i++)
            if (config->levels.value[i] == (float)((path + 1) / 10.0)) {
                config->path_level[path] = (int32_t)i;
                found++;
            }
    config->unrolls = found == CHRONOS2_PATHS;
}

static int read_config(const checkpoint_t *checkpoint, chronos2_config_t *config)
{
    int rc;

    if ((rc = read_sizes(checkpoint, config)) < 0 || (rc = read_flavour(checkpoint, config)) < 0 ||
        (rc = chronos_read_levels(checkpoint, &config->levels)) < 0)
        return rc;
    find_paths(config);
    return MODEL_OK;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

static void load_layer(loader_t *loader, const chronos2_config_t *config, int64_t index, chronos2_layer_t *layer)
{
    int64_t width = config->width, inner = config->heads * config->head_dim;
    char prefix[48], name[96];

    snprintf(prefix, sizeof prefix, "encoder.block.%d.layer", (int)index);
    loader_weight(loader, &layer->time_norm, DIMS(width), "%s.0.layer_norm.weight", prefix);
    snprintf(name, sizeof name, "%s.0.self_attention", prefix);
    chronos_load_stack(loader, name, "qkv", inner, width, &layer->time_qkv);
    loader_weight(loader, &layer->time_o, DIMS(width, inner), "%s.o.weight", name);

    loader_weight(loader, &layer->group_norm, DIMS(width), "%s.1.layer_norm.weight", prefix);
    snprintf(name, sizeof name, "%s.1.self_attention", prefix);
    chronos_load_stack(loader, name, "qkv", inner, width, &layer->group_qkv);
    loader_weight(loader, &layer->group_o, DIMS(width, inner), "%s.o.weight", name);
    chronos_load_alone(loader, name, inner, width, &layer->group_alone);

    loader_weight(loader, &layer->mlp_norm, DIMS(width), "%s.2.layer_norm.weight", prefix);
    loader_weight(loader, &layer->wi, DIMS(config->hidden, width), "%s.2.mlp.wi.weight", prefix);
    loader_weight(loader, &layer->wo, DIMS(width, config->hidden), "%s.2.mlp.wo.weight", prefix);
}

static int load_weights(model_t *model, const checkpoint_t *checkpoint)
{
    const chronos2_config_t *config = &model->config;
    float *shared;
    loader_t loader;

    if (loader_open(&loader, model->base.backend, checkpoint, model->precision) < 0)
        return loader.rc;
    shared = loader_read(&loader, DIMS(2, config->width), "shared.weight"); /* [PAD], [REG] */
    if (shared != NULL)
        chronos_load_embedding(&loader, "input_patch_embedding", 3 * config->patch, config->hidden, config->width,
                               shared + config->width, &model->embed);
    free(shared);
    for (int64_t i = 0; i < config->layers; i++)
        load_layer(&loader, config, i, &model->layers[i]);
    loader_weight(&loader, &model->final_norm, DIMS(config->width), "encoder.final_layer_norm.weight");
    chronos_load_head(&loader, "output_patch_embedding", config->width, config->hidden, config->levels.count * config->patch,
                      &model->head);
    loader_ignore(&loader, "encoder.embed_tokens.weight"); /* the shared embedding once more */
    model->parameters = loader.parameters;
    return loader_close(&loader);
}

void chronos2_unload(model_t *model)
{
    backend_t *backend = model->base.backend;

    for (int64_t i = 0; model->layers != NULL && i < model->config.layers; i++) {
        chronos2_layer_t *layer = &model->layers[i];
        backend_weight_t *all[] = {&layer->time_norm, &layer->time_qkv,    &layer->time_o,   &layer->group_norm, &layer->group_qkv,
                                   &layer->group_o,   &layer->group_alone, &layer->mlp_norm, &layer->wi,         &layer->wo};

        for (size_t w = 0; w < sizeof all / sizeof *all; w++)
            backend_weight_free(backend, all[w]);
    }
    chronos_free_block(backend, &model->embed);
    chronos_free_block(backend, &model->head);
    backend_weight_free(backend, &model->final_norm);
    free(model->layers);
    free(model);
}

int chronos2_load(backend_t *backend, const checkpoint_t *checkpoint, backend_dtype_t precision, model_t **out)
{
    size_t before = backend_allocated_bytes(backend);
    chronos2_config_t config = {0};
    model_t *model;
    int rc = read_config(checkpoint, &config);

    if (rc < 0)
        return rc;
    if ((model = calloc(1, sizeof *model)) == NULL)
        return error_set(MODEL_ERR_MEMORY, "out of memory");
    model->base = (model_base_t){.family = &chronos2_family, .backend = backend};
    model->config = config;
    model->precision = precision;
    model->layers = calloc((size_t)config.layers, sizeof *model->layers);
    rc = model->layers != NULL ? load_weights(model, checkpoint) : error_set(MODEL_ERR_MEMORY, "out of memory");
    if (rc < 0) {
        chronos2_unload(model);
        return rc;
    }
    model->weight_bytes = backend_allocated_bytes(backend) - before;
    *out = model;
    return MODEL_OK;
}

void chronos2_info(const model_t *model, model_info_t *out)
{
    const chronos2_config_t *config = &model->config;

    *out = (model_info_t){.family = chronos2_family.name,
                          .parameters = model->parameters,
                          .weight_bytes = model->weight_bytes,
                          .patch = (uint32_t)config->patch,
                          .context_most = (uint32_t)config->context_most,
                          .horizon_most = config->unrolls ? 0 : (uint32_t)(config->output_patches * config->patch),
                          .variates = true,
                          .exogenous = true,
                          .quantiles_without_samples = true,
                          .level_count = (uint32_t)config->levels.count,
                          .levels = config->levels.value};
}
