/* Loading of a Chronos-Bolt checkpoint, as published on Hugging Face (amazon/chronos-bolt-tiny .. -base): see chronos_bolt.c for the model itself
 * and the letters of the shapes. */
#include "gpuworker/model/chronos_bolt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS_MOST = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool chronos_bolt_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "chronos_config.prediction_length") &&
           checkpoint_config_has(checkpoint, "chronos_config.input_patch_size");
}

static void read_sizes(loader_t *loader, chronos_bolt_config_t *config)
{
    int64_t stride = 0;

    loader_config_i64(loader, "chronos_config.input_patch_size", 1, 4096, &config->patch);
    loader_config_i64(loader, "chronos_config.input_patch_stride", 1, 4096, &stride);
    loader_config_i64(loader, "chronos_config.context_length", 1, 1 << 24, &config->context_most);
    loader_config_i64(loader, "chronos_config.prediction_length", 1, 1 << 16, &config->length);
    loader_config_i64(loader, "d_model", 1, 65536, &config->width);
    loader_config_i64(loader, "d_kv", 1, 4096, &config->head_dim);
    loader_config_i64(loader, "d_ff", 1, 1 << 20, &config->hidden);
    loader_config_i64(loader, "num_layers", 1, LAYERS_MOST, &config->encoder_layers);
    loader_config_i64(loader, "num_decoder_layers", 1, LAYERS_MOST, &config->decoder_layers);
    loader_config_i64(loader, "num_heads", 1, 1024, &config->heads);
    loader_config_i64(loader, "relative_attention_num_buckets", 4, 4096, &config->buckets);
    loader_config_i64(loader, "relative_attention_max_distance", 2, 1 << 24, &config->distance_most);
    loader_optional_i64(loader, "decoder_start_token_id", 0, 1, &config->start);
    if (loader->rc < 0)
        return;
    chronos_expect_patches(loader, config->patch, stride, config->context_most);
    loader_expect(loader, config->buckets % 4 == 0, "relative_attention_num_buckets", "no multiple of 4", "one");
    loader_expect(loader, config->distance_most > config->buckets / 4, "relative_attention_max_distance",
                  "not above a quarter of the buckets", "a larger one");
}

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

static void load_mlp(loader_t *loader, const chronos_bolt_config_t *config, const char *prefix, backend_weight_t *norm,
                     backend_weight_t *wi, backend_weight_t *wo)
{
    loader_weight(loader, norm, DIMS(config->width), "%s.layer_norm.weight", prefix);
    loader_weight(loader, wi, DIMS(config->hidden, config->width), "%s.DenseReluDense.wi.weight", prefix);
    loader_weight(loader, wo, DIMS(config->width, config->hidden), "%s.DenseReluDense.wo.weight", prefix);
}

static void load_encoder_layer(loader_t *loader, const chronos_bolt_config_t *config, int64_t index,
                               chronos_bolt_encoder_layer_t *layer)
{
    int64_t width = config->width, inner = config->heads * config->head_dim;
    char name[96];

    snprintf(name, sizeof name, "encoder.block.%d.layer.0.SelfAttention", (int)index);
    loader_weight(loader, &layer->attention_norm, DIMS(width), "encoder.block.%d.layer.0.layer_norm.weight", (int)index);
    loader_stack(loader, &layer->qkv, name, chronos_qkv, 3, inner, width);
    loader_weight(loader, &layer->o, DIMS(width, inner), "%s.o.weight", name);
    snprintf(name, sizeof name, "encoder.block.%d.layer.1", (int)index);
    load_mlp(loader, config, name, &layer->mlp_norm, &layer->wi, &layer->wo);
}

/* What has to be there in a checkpoint although a decoder of one token has no use for it. */
static void check_unused(loader_t *loader, int64_t rows, int64_t columns, const char *name, const char *part)
{
    free(loader_read(loader, DIMS(rows, columns), "%s.%s.weight", name, part));
}

static void load_decoder_layer(loader_t *loader, const chronos_bolt_config_t *config, int64_t index,
                               chronos_bolt_decoder_layer_t *layer)
{
    int64_t width = config->width, inner = config->heads * config->head_dim;
    char name[96];

    snprintf(name, sizeof name, "decoder.block.%d.layer.0.SelfAttention", (int)index);
    loader_weight(loader, &layer->self_norm, DIMS(width), "decoder.block.%d.layer.0.layer_norm.weight", (int)index);
    chronos_load_alone(loader, name, inner, width, &layer->self_alone);
    check_unused(loader, inner, width, name, "q");
    check_unused(loader, inner, width, name, "k");
    check_unused(loader, inner, width, name, "v");
    check_unused(loader, width, inner, name, "o");
    if (index == 0)
        check_unused(loader, config->buckets, config->heads, name, "relative_attention_bias");
    snprintf(name, sizeof name, "decoder.block.%d.layer.1.EncDecAttention", (int)index);
    loader_weight(loader, &layer->cross_norm, DIMS(width), "decoder.block.%d.layer.1.layer_norm.weight", (int)index);
    loader_weight(loader, &layer->cross_q, DIMS(inner, width), "%s.q.weight", name);
    loader_stack(loader, &layer->cross_kv, name, chronos_qkv + 1, 2, inner, width);
    loader_weight(loader, &layer->cross_o, DIMS(width, inner), "%s.o.weight", name);
    snprintf(name, sizeof name, "decoder.block.%d.layer.2", (int)index);
    load_mlp(loader, config, name, &layer->mlp_norm, &layer->wi, &layer->wo);
}

/* The embeddings of the decoder's token and of [REG], the second row. */
static void load_tokens(loader_t *loader, model_t *model)
{
    const chronos_bolt_config_t *config = &model->config;
    float *shared = loader_read(loader, DIMS(2, config->width), "shared.weight");

    model->start = loader_calloc(loader, config->width, sizeof *model->start);
    if (loader->rc == MODEL_OK) {
        memcpy(model->start, shared + config->start * config->width, (size_t)config->width * sizeof *shared);
        chronos_load_embedding(loader, "input_patch_embedding", 2 * config->patch, config->hidden, config->width,
                               shared + config->width, &model->embed);
    }
    free(shared);
}

void chronos_bolt_load(model_t *model, loader_t *loader)
{
    chronos_bolt_config_t *config = &model->config;

    read_sizes(loader, config);
    chronos_read_config(loader, &config->eps, &config->levels);
    model->encoder = loader_calloc(loader, config->encoder_layers, sizeof *model->encoder);
    model->decoder = loader_calloc(loader, config->decoder_layers, sizeof *model->decoder);
    if (loader->rc < 0)
        return;
    load_tokens(loader, model);
    model->bucket_bias = loader_read(loader, DIMS(config->buckets, config->heads),
                                     "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    for (int64_t i = 0; i < config->encoder_layers; i++)
        load_encoder_layer(loader, config, i, &model->encoder[i]);
    loader_weight(loader, &model->encoder_norm, DIMS(config->width), "encoder.final_layer_norm.weight");
    for (int64_t i = 0; i < config->decoder_layers; i++)
        load_decoder_layer(loader, config, i, &model->decoder[i]);
    loader_weight(loader, &model->decoder_norm, DIMS(config->width), "decoder.final_layer_norm.weight");
    chronos_load_head(loader, "output_patch_embedding", config->width, config->hidden, config->levels.count * config->length,
                      &model->head);
    loader_ignore(loader, "coder.embed_tokens.weight"); /* the shared embedding once more */
    loader_ignore(loader, "lm_head.weight");
}

void chronos_bolt_unload(model_t *model)
{
    free(model->encoder);
    free(model->decoder);
    free(model->bucket_bias);
    free(model->start);
}

void chronos_bolt_info(const model_t *model, model_info_t *out)
{
    const chronos_bolt_config_t *config = &model->config;

    out->patch = (uint32_t)config->patch;
    out->context_most = (uint32_t)config->context_most;
    out->quantiles_without_samples = true;
    out->level_count = (uint32_t)config->levels.count;
    out->levels = config->levels.value;
}
