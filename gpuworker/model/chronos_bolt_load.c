/* Loading of a Chronos-Bolt checkpoint, as published on Hugging Face (amazon/chronos-bolt-tiny .. -base): see chronos_bolt.c for the model itself
 * and the letters of the shapes. */
#include "gpuworker/model/chronos_bolt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { LAYERS_MOST = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool chronos_bolt_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "chronos_config.prediction_length") &&
           checkpoint_config_has(checkpoint, "chronos_config.input_patch_size");
}

static int wrong_config(const char *key, const char *is, const char *expected)
{
    return error_set(MODEL_ERR_CHECKPOINT, "config.json: %s is %s, expected %s", key, is, expected);
}

static int read_sizes(const checkpoint_t *checkpoint, chronos_bolt_config_t *config)
{
    int64_t stride;

    if (checkpoint_config_i64(checkpoint, "chronos_config.input_patch_size", 1, 4096, &config->patch) < 0 ||
        checkpoint_config_i64(checkpoint, "chronos_config.input_patch_stride", 1, 4096, &stride) < 0 ||
        checkpoint_config_i64(checkpoint, "chronos_config.context_length", 1, 1 << 24, &config->context_most) < 0 ||
        checkpoint_config_i64(checkpoint, "chronos_config.prediction_length", 1, 1 << 16, &config->length) < 0 ||
        checkpoint_config_i64(checkpoint, "d_model", 1, 65536, &config->width) < 0 ||
        checkpoint_config_i64(checkpoint, "d_kv", 1, 4096, &config->head_dim) < 0 ||
        checkpoint_config_i64(checkpoint, "d_ff", 1, 1 << 20, &config->hidden) < 0 ||
        checkpoint_config_i64(checkpoint, "num_layers", 1, LAYERS_MOST, &config->encoder_layers) < 0 ||
        checkpoint_config_i64(checkpoint, "num_decoder_layers", 1, LAYERS_MOST, &config->decoder_layers) < 0 ||
        checkpoint_config_i64(checkpoint, "num_heads", 1, 1024, &config->heads) < 0 ||
        checkpoint_config_i64(checkpoint, "relative_attention_num_buckets", 4, 4096, &config->buckets) < 0 ||
        checkpoint_config_i64(checkpoint, "relative_attention_max_distance", 2, 1 << 24, &config->distance_most) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (stride != config->patch)
        return wrong_config("chronos_config.input_patch_stride", "not input_patch_size", "patches that do not overlap");
    if (config->context_most % config->patch != 0)
        return wrong_config("chronos_config.context_length", "no multiple of input_patch_size", "one");
    if (config->buckets % 4 != 0)
        return wrong_config("relative_attention_num_buckets", "no multiple of 4", "one");
    if (config->distance_most <= config->buckets / 4)
        return wrong_config("relative_attention_max_distance", "not above a quarter of the buckets", "a larger one");
    return MODEL_OK;
}

static int read_flavour(const checkpoint_t *checkpoint, chronos_bolt_config_t *config)
{
    const char *activation;
    bool reg = false;
    double eps = 1e-6;

    if (checkpoint_config_text(checkpoint, "feed_forward_proj", &activation) < 0 ||
        checkpoint_config_bool(checkpoint, "chronos_config.use_reg_token", &reg) < 0 ||
        (checkpoint_config_has(checkpoint, "decoder_start_token_id") &&
         checkpoint_config_i64(checkpoint, "decoder_start_token_id", 0, 1, &config->start) < 0) ||
        (checkpoint_config_has(checkpoint, "layer_norm_epsilon") &&
         checkpoint_config_f64(checkpoint, "layer_norm_epsilon", &eps) < 0))
        return MODEL_ERR_CHECKPOINT;
    if (strcmp(activation, "relu") != 0)
        return wrong_config("feed_forward_proj", activation, "relu");
    if (!reg)
        return wrong_config("chronos_config.use_reg_token", "false", "true");
    if (eps < 0)
        return wrong_config("layer_norm_epsilon", "negative", "a small positive number");
    config->eps = (float)eps;
    return MODEL_OK;
}

static int read_config(const checkpoint_t *checkpoint, chronos_bolt_config_t *config)
{
    int rc;

    if ((rc = read_sizes(checkpoint, config)) < 0 || (rc = read_flavour(checkpoint, config)) < 0)
        return rc;
    return chronos_read_levels(checkpoint, &config->levels);
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
    chronos_load_stack(loader, name, "qkv", inner, width, &layer->qkv);
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
    chronos_load_stack(loader, name, "q", inner, width, &layer->cross_q);
    chronos_load_stack(loader, name, "kv", inner, width, &layer->cross_kv);
    loader_weight(loader, &layer->cross_o, DIMS(width, inner), "%s.o.weight", name);
    snprintf(name, sizeof name, "decoder.block.%d.layer.2", (int)index);
    load_mlp(loader, config, name, &layer->mlp_norm, &layer->wi, &layer->wo);
}

/* The embeddings of the decoder's token and of [REG], the second row. */
static void load_tokens(loader_t *loader, model_t *model)
{
    const chronos_bolt_config_t *config = &model->config;
    float *shared = loader_read(loader, DIMS(2, config->width), "shared.weight");

    model->start = malloc((size_t)config->width * sizeof *model->start);
    if (loader->rc == MODEL_OK && model->start == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "shared.weight: out of memory");
    if (loader->rc == MODEL_OK) {
        memcpy(model->start, shared + config->start * config->width, (size_t)config->width * sizeof *shared);
        chronos_load_embedding(loader, "input_patch_embedding", 2 * config->patch, config->hidden, config->width,
                               shared + config->width, &model->embed);
    }
    free(shared);
}

static int load_weights(model_t *model, const checkpoint_t *checkpoint)
{
    const chronos_bolt_config_t *config = &model->config;
    loader_t loader;

    if (loader_open(&loader, model->base.backend, checkpoint, model->precision) < 0)
        return loader.rc;
    load_tokens(&loader, model);
    model->bucket_bias = loader_read(&loader, DIMS(config->buckets, config->heads),
                                     "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    for (int64_t i = 0; i < config->encoder_layers; i++)
        load_encoder_layer(&loader, config, i, &model->encoder[i]);
    loader_weight(&loader, &model->encoder_norm, DIMS(config->width), "encoder.final_layer_norm.weight");
    for (int64_t i = 0; i < config->decoder_layers; i++)
        load_decoder_layer(&loader, config, i, &model->decoder[i]);
    loader_weight(&loader, &model->decoder_norm, DIMS(config->width), "decoder.final_layer_norm.weight");
    chronos_load_head(&loader, "output_patch_embedding", config->width, config->hidden, config->levels.count * config->length,
                      &model->head);
    loader_ignore(&loader, "coder.embed_tokens.weight"); /* the shared embedding once more */
    loader_ignore(&loader, "lm_head.weight");
    model->parameters = loader.parameters;
    return loader_close(&loader);
}

void chronos_bolt_unload(model_t *model)
{
    backend_t *backend = model->base.backend;

    for (int64_t i = 0; model->encoder != NULL && i < model->config.encoder_layers; i++) {
        chronos_bolt_encoder_layer_t *layer = &model->encoder[i];
        backend_weight_t *all[] = {&layer->attention_norm, &layer->qkv, &layer->o, &layer->mlp_norm, &layer->wi, &layer->wo};

        for (size_t w = 0; w < sizeof all / sizeof *all; w++)
            backend_weight_free(backend, all[w]);
    }
    for (int64_t i = 0; model->decoder != NULL && i < model->config.decoder_layers; i++) {
        chronos_bolt_decoder_layer_t *layer = &model->decoder[i];
        backend_weight_t *all[] = {&layer->self_norm, &layer->self_alone, &layer->cross_norm, &layer->cross_q, &layer->cross_kv,
                                   &layer->cross_o,   &layer->mlp_norm,   &layer->wi,         &layer->wo};

        for (size_t w = 0; w < sizeof all / sizeof *all; w++)
            backend_weight_free(backend, all[w]);
    }
    chronos_free_block(backend, &model->embed);
    chronos_free_block(backend, &model->head);
    backend_weight_free(backend, &model->encoder_norm);
    backend_weight_free(backend, &model->decoder_norm);
    free(model->encoder);
    free(model->decoder);
    free(model->bucket_bias);
    free(model->start);
    free(model);
}

int chronos_bolt_load(backend_t *backend, const checkpoint_t *checkpoint, backend_dtype_t precision, model_t **out)
{
    size_t before = backend_allocated_bytes(backend);
    chronos_bolt_config_t config = {0};
    model_t *model;
    int rc = read_config(checkpoint, &config);

    if (rc < 0)
        return rc;
    if ((model = calloc(1, sizeof *model)) == NULL)
        return error_set(MODEL_ERR_MEMORY, "out of memory");
    model->base = (model_base_t){.family = &chronos_bolt_family, .backend = backend};
    model->config = config;
    model->precision = precision;
    model->encoder = calloc((size_t)config.encoder_layers, sizeof *model->encoder);
    model->decoder = calloc((size_t)config.decoder_layers, sizeof *model->decoder);
    rc = model->encoder != NULL && model->decoder != NULL ? load_weights(model, checkpoint)
                                                          : error_set(MODEL_ERR_MEMORY, "out of memory");
    if (rc < 0) {
        chronos_bolt_unload(model);
        return rc;
    }
    model->weight_bytes = backend_allocated_bytes(backend) - before;
    *out = model;
    return MODEL_OK;
}

void chronos_bolt_info(const model_t *model, model_info_t *out)
{
    const chronos_bolt_config_t *config = &model->config;

    *out = (model_info_t){.family = chronos_bolt_family.name,
                          .parameters = model->parameters,
                          .weight_bytes = model->weight_bytes,
                          .patch = (uint32_t)config->patch,
                          .context_most = (uint32_t)config->context_most,
                          .quantiles_without_samples = true,
                          .level_count = (uint32_t)config->levels.count,
                          .levels = config->levels.value};
}
