/* Loading of a Chronos-2 checkpoint, as published on Hugging Face (amazon/chronos-2): see chronos2.c for the model itself and the letters of the
 * shapes. */
#include "gpuworker/model/chronos2.h"

#include <stdio.h>
#include <stdlib.h>

enum { LAYERS_MOST = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool chronos2_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "chronos_config.max_output_patches") &&
           checkpoint_config_has(checkpoint, "chronos_config.input_patch_size");
}

static void read_sizes(loader_t *loader, chronos2_config_t *config)
{
    int64_t stride = 0, output = 0;

    loader_config_i64(loader, "chronos_config.input_patch_size", 1, 4096, &config->patch);
    loader_config_i64(loader, "chronos_config.input_patch_stride", 1, 4096, &stride);
    loader_config_i64(loader, "chronos_config.output_patch_size", 1, 4096, &output);
    loader_config_i64(loader, "chronos_config.context_length", 1, 1 << 24, &config->context_most);
    loader_config_i64(loader, "chronos_config.max_output_patches", 1, 1 << 16, &config->output_patches);
    loader_config_i64(loader, "d_model", 1, 65536, &config->width);
    loader_config_i64(loader, "d_kv", 2, 4096, &config->head_dim);
    loader_config_i64(loader, "d_ff", 1, 1 << 20, &config->hidden);
    loader_config_i64(loader, "num_layers", 1, LAYERS_MOST, &config->layers);
    loader_config_i64(loader, "num_heads", 1, 1024, &config->heads);
    if (loader->rc < 0)
        return;
    chronos_expect_patches(loader, config->patch, stride, config->context_most);
    loader_expect(loader, output == config->patch, "chronos_config.output_patch_size", "not input_patch_size", "the same");
    loader_expect(loader, config->head_dim % 2 == 0, "d_kv", "odd", "pairs to rotate");
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

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

static void load_layer(loader_t *loader, const chronos2_config_t *config, int64_t index, chronos2_layer_t *layer)
{
    int64_t width = config->width, inner = config->heads * config->head_dim;
    char prefix[48], name[96];

    snprintf(prefix, sizeof prefix, "encoder.block.%d.layer", (int)index);
    loader_weight(loader, &layer->time_norm, DIMS(width), "%s.0.layer_norm.weight", prefix);
    snprintf(name, sizeof name, "%s.0.self_attention", prefix);
    loader_stack(loader, &layer->time_qkv, name, chronos_qkv, 3, inner, width);
    loader_weight(loader, &layer->time_o, DIMS(width, inner), "%s.o.weight", name);

    loader_weight(loader, &layer->group_norm, DIMS(width), "%s.1.layer_norm.weight", prefix);
    snprintf(name, sizeof name, "%s.1.self_attention", prefix);
    loader_stack(loader, &layer->group_qkv, name, chronos_qkv, 3, inner, width);
    loader_weight(loader, &layer->group_o, DIMS(width, inner), "%s.o.weight", name);
    chronos_load_alone(loader, name, inner, width, &layer->group_alone);

    loader_weight(loader, &layer->mlp_norm, DIMS(width), "%s.2.layer_norm.weight", prefix);
    loader_weight(loader, &layer->wi, DIMS(config->hidden, width), "%s.2.mlp.wi.weight", prefix);
    loader_weight(loader, &layer->wo, DIMS(width, config->hidden), "%s.2.mlp.wo.weight", prefix);
}

void chronos2_load(model_t *model, loader_t *loader)
{
    chronos2_config_t *config = &model->config;
    float *shared;

    read_sizes(loader, config);
    config->rope_theta = 10000;
    config->time_scale = (double)config->context_most;
    loader_optional_bool(loader, "chronos_config.use_arcsinh", &config->asinh);
    loader_optional_f64(loader, "chronos_config.time_encoding_scale", 1, 1e9, &config->time_scale);
    loader_optional_f64(loader, "rope_theta", 1, 1e12, &config->rope_theta);
    chronos_read_config(loader, &config->eps, &config->levels);
    find_paths(config);
    model->layers = loader_calloc(loader, config->layers, sizeof *model->layers);
    if (loader->rc < 0)
        return;
    shared = loader_read(loader, DIMS(2, config->width), "shared.weight"); /* [PAD], [REG] */
    if (shared != NULL)
        chronos_load_embedding(loader, "input_patch_embedding", 3 * config->patch, config->hidden, config->width,
                               shared + config->width, &model->embed);
    free(shared);
    for (int64_t i = 0; i < config->layers; i++)
        load_layer(loader, config, i, &model->layers[i]);
    loader_weight(loader, &model->final_norm, DIMS(config->width), "encoder.final_layer_norm.weight");
    chronos_load_head(loader, "output_patch_embedding", config->width, config->hidden, config->levels.count * config->patch,
                      &model->head);
    loader_ignore(loader, "encoder.embed_tokens.weight"); /* the shared embedding once more */
}

void chronos2_unload(model_t *model)
{
    free(model->layers);
}

void chronos2_info(const model_t *model, model_info_t *out)
{
    const chronos2_config_t *config = &model->config;

    out->patch = (uint32_t)config->patch;
    out->context_most = (uint32_t)config->context_most;
    out->horizon_most = config->unrolls ? 0 : (uint32_t)(config->output_patches * config->patch);
    out->variates = true;
    out->exogenous = true;
    out->quantiles_without_samples = true;
    out->level_count = (uint32_t)config->levels.count;
    out->levels = config->levels.value;
}
