/* Loading of a Toto 1.0 checkpoint, as published on Hugging Face (Datadog/Toto-Open-Base-1.0): see toto1.c for the model itself and the letters
 * of the shapes. */
#include "gpuworker/model/toto1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/parts_load.h"

enum { LAYERS_MOST = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool toto1_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "scaler_cls") && checkpoint_config_has(checkpoint, "output_distribution_classes") &&
           checkpoint_config_has(checkpoint, "spacewise_every_n_layers");
}

static void read_sizes(loader_t *loader, toto1_config_t *config)
{
    int64_t stride = 0;

    loader_config_i64(loader, "patch_size", 1, 4096, &config->patch);
    loader_config_i64(loader, "stride", 1, 4096, &stride);
    loader_config_i64(loader, "embed_dim", 2, 65536, &config->width);
    loader_config_i64(loader, "num_layers", 1, LAYERS_MOST, &config->layers);
    loader_config_i64(loader, "num_heads", 1, 1024, &config->heads);
    loader_config_i64(loader, "mlp_hidden_dim", 1, 1 << 20, &config->hidden);
    loader_config_i64(loader, "output_distribution_kwargs.k_components", 1, 4096, &config->components);
    if (loader->rc < 0)
        return;
    loader_expect(loader, stride == config->patch, "stride", "not patch_size", "patches that do not overlap");
    loader_expect(loader, config->width % (2 * config->heads) == 0, "num_heads", "no divisor of embed_dim into even heads", "one");
}

static void read_layout(loader_t *loader, toto1_config_t *config)
{
    config->space_first = true;
    loader_config_i64(loader, "spacewise_every_n_layers", -1, LAYERS_MOST, &config->space_every);
    if (config->space_every == -1)
        config->space_every = 0;
    else if (loader->rc == MODEL_OK)
        loader_expect(loader, config->space_every > 0 && config->layers % config->space_every == 0, "spacewise_every_n_layers",
                      "no divisor of num_layers", "one, or -1");
    loader_optional_bool(loader, "spacewise_first", &config->space_first);
}

/* The name of a Python class, as it was printed. */
static void expect_class(loader_t *loader, const char *key, const char *is, const char *name)
{
    loader_expect(loader, loader->rc < 0 || strstr(is, name) != NULL, key, is, name + 1);
}

static void read_classes(loader_t *loader, toto1_config_t *config)
{
    const char *scaler = NULL, *distribution = NULL;
    size_t count = 0;
    bool stabilize = true;

    if (loader->rc < 0)
        return;
    if (checkpoint_config_text(loader->checkpoint, "scaler_cls", &scaler) < 0 ||
        checkpoint_config_texts(loader->checkpoint, "output_distribution_classes", &distribution, 1, &count) < 0)
        loader->rc = MODEL_ERR_CHECKPOINT;
    expect_class(loader, "scaler_cls", scaler, ".CausalPatchStdMeanScaler");
    expect_class(loader, "output_distribution_classes", count == 1 ? distribution : "not one class", ".MixtureOfStudentTsOutput");
    config->exponent = 10;
    loader_optional_bool(loader, "stabilize_with_global", &stabilize);
    loader_optional_f64(loader, "scale_factor_exponent", 1e-3, 100, &config->exponent);
    config->exponent = stabilize ? config->exponent : 0;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

/* The published projection has its rows in the order (qkv, d, H); attention wants (qkv, H, d). */
static void load_qkv(loader_t *loader, const toto1_config_t *config, int64_t index, toto1_layer_t *layer)
{
    int64_t width = config->width, head_dim = width / config->heads;
    float *from = loader_read(loader, DIMS(3 * width, width), "model.transformer.layers.%d.attention.wQKV.weight", (int)index);
    float *bias = loader_read(loader, DIMS(3 * width), "model.transformer.layers.%d.attention.wQKV.bias", (int)index);
    float *to = loader_calloc(loader, 3 * width * width, sizeof *to), *to_bias = loader_calloc(loader, 3 * width, sizeof *to_bias);

    for (int64_t row = 0; loader->rc == MODEL_OK && row < 3 * width; row++) {
        int64_t part = row / width, head = row % width / head_dim, j = row % head_dim;
        int64_t source = part * width + j * config->heads + head;

        memcpy(to + row * width, from + source * width, (size_t)width * sizeof *to);
        to_bias[row] = bias[source];
    }
    loader_upload(loader, "wQKV", loader->precision, DIMS(3 * width, width), to, &layer->qkv);
    loader_upload(loader, "wQKV", BACKEND_F32, DIMS(3 * width), to_bias, &layer->qkv_bias);
    free(from);
    free(bias);
    free(to);
    free(to_bias);
}

static void load_layer(loader_t *loader, const toto1_config_t *config, int64_t index, toto1_layer_t *layer)
{
    int64_t width = config->width, hidden = config->hidden;
    char prefix[64], probe[96];
    const char *up, *down;

    snprintf(prefix, sizeof prefix, "model.transformer.layers.%d", (int)index);
    snprintf(probe, sizeof probe, "%s.mlp.0.w12.weight", prefix);
    up = checkpoint_find(loader->checkpoint, probe) != NULL ? "0.w12" : "0"; /* saved with xFormers, or without */
    down = checkpoint_find(loader->checkpoint, probe) != NULL ? "0.w3" : "2";

    loader_weight(loader, &layer->norm1, DIMS(width), "%s.norm1.scale", prefix);
    load_qkv(loader, config, index, layer);
    loader_weight(loader, &layer->wo, DIMS(width, width), "%s.attention.wO.weight", prefix);
    loader_weight(loader, &layer->wo_bias, DIMS(width), "%s.attention.wO.bias", prefix);
    loader_weight(loader, &layer->norm2, DIMS(width), "%s.norm2.scale", prefix);
    loader_weight(loader, &layer->gate_up, DIMS(2 * hidden, width), "%s.mlp.%s.weight", prefix, up);
    loader_weight(loader, &layer->gate_up_bias, DIMS(2 * hidden), "%s.mlp.%s.bias", prefix, up);
    loader_weight(loader, &layer->down, DIMS(width, hidden), "%s.mlp.%s.weight", prefix, down);
    loader_weight(loader, &layer->down_bias, DIMS(width), "%s.mlp.%s.bias", prefix, down);
}

/* What the output takes from the checkpoint, on the host. */
typedef struct {
    float *unembed, *unembed_bias; /* [P·D][D], [P·D] */
    float *heads, *heads_bias;     /* [4·K][D], [4·K]: df, loc, scale, logits */
    float *head, *head_bias;       /* [P·4·K][D], [P·4·K]: the product of the two */
} output_t;

static void read_output(loader_t *loader, const toto1_config_t *config, output_t *output)
{
    static const char *const names[] = {"df", "loc_proj", "scale_proj", "mixture_weights"};
    int64_t k = config->components, width = config->width;

    output->unembed = loader_read(loader, DIMS(config->patch * width, width), "model.unembed.weight");
    output->unembed_bias = loader_read(loader, DIMS(config->patch * width), "model.unembed.bias");
    output->heads = loader_calloc(loader, 4 * k * width, sizeof(float));
    output->heads_bias = loader_calloc(loader, 4 * k, sizeof(float));
    output->head = loader_calloc(loader, config->patch * 4 * k * width, sizeof(float));
    output->head_bias = loader_calloc(loader, config->patch * 4 * k, sizeof(float));
    for (int64_t i = 0; i < 4; i++) {
        float *weight = loader_read(loader, DIMS(k, width), "model.output_distribution.%s.weight", names[i]);
        float *bias = loader_read(loader, DIMS(k), "model.output_distribution.%s.bias", names[i]);

        if (loader->rc == MODEL_OK) {
            memcpy(output->heads + i * k * width, weight, (size_t)(k * width) * sizeof *weight);
            memcpy(output->heads_bias + i * k, bias, (size_t)k * sizeof *bias);
        }
        free(weight);
        free(bias);
    }
}

/* Heads times unembedding, for every place of the patch: [4K][D] · [D][D], and what the unembedding's bias becomes. */
static void multiply_head(loader_t *loader, const toto1_config_t *config, output_t *output)
{
    int64_t rows = 4 * config->components, width = config->width;

    for (int64_t p = 0; loader->rc == MODEL_OK && p < config->patch; p++) {
        loader_product(loader, rows, width, width, output->heads, output->unembed + p * width * width,
                       output->head + p * rows * width);
        for (int64_t r = 0; r < rows; r++) {
            double sum = output->heads_bias[r];

            for (int64_t i = 0; i < width; i++)
                sum += (double)output->heads[r * width + i] * (double)output->unembed_bias[p * width + i];
            output->head_bias[p * rows + r] = (float)sum;
        }
    }
}

/* The official model unembeds the last token into P·D features, then applies four linear heads to each D of them. Nothing stands between
 * these products, so they are one: a matrix of P·4·K rows instead of P·D, which is a quarter of all the bytes that a step of the published
 * model reads. */
static void load_head(loader_t *loader, model_t *model)
{
    const toto1_config_t *config = &model->config;
    int64_t rows = config->patch * 4 * config->components, width = config->width;
    output_t output = {0};

    read_output(loader, config, &output);
    multiply_head(loader, config, &output);
    loader_upload(loader, "output heads", loader->precision, DIMS(rows, width), output.head, &model->head);
    loader_upload(loader, "output heads", BACKEND_F32, DIMS(rows), output.head_bias, &model->head_bias);
    free(output.unembed);
    free(output.unembed_bias);
    free(output.heads);
    free(output.heads_bias);
    free(output.head);
    free(output.head_bias);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------------- */

void toto1_load(model_t *model, loader_t *loader)
{
    toto1_config_t *config = &model->config;

    read_sizes(loader, config);
    read_layout(loader, config);
    read_classes(loader, config);
    if (loader->rc == MODEL_OK && checkpoint_find(loader->checkpoint, "model.target_variate_label") != NULL)
        loader->rc = error_set(MODEL_ERR_CHECKPOINT,
                               "tensor model.target_variate_label: checkpoints that were fine-tuned with variate labels "
                               "are not supported yet");
    model->layers = loader_calloc(loader, config->layers, sizeof *model->layers);
    model->dir = strdup(checkpoint_path(loader->checkpoint));
    if (loader->rc == MODEL_OK && model->dir == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "out of memory");
    if (loader->rc < 0)
        return;
    loader_weight(loader, &model->embed, DIMS(config->width, config->patch), "model.patch_embed.projection.weight");
    loader_weight(loader, &model->embed_bias, DIMS(config->width), "model.patch_embed.projection.bias");
    for (int64_t i = 0; i < config->layers; i++)
        load_layer(loader, config, i, &model->layers[i]);
    load_head(loader, model);
    loader_ignore(loader, ".rotary_emb."); /* buffers that some versions save; computed here */
}

void toto1_unload(model_t *model)
{
    free(model->layers);
    free(model->dir);
}

void toto1_info(const model_t *model, model_info_t *out)
{
    out->patch = (uint32_t)model->config.patch;
    out->samples = true;
    out->variates = true;
    out->exogenous = true;
    out->quantiles_without_samples = true;
    out->exact_horizon_most = (uint32_t)model->config.patch;
}

int toto1_load_unembed(model_t *model)
{
    int64_t width = model->config.width, outputs = model->config.patch * width;
    checkpoint_t *checkpoint;
    loader_t loader;

    if (model->unembed_bias.tensor.data != NULL)
        return MODEL_OK;
    if (checkpoint_open(model->dir, &checkpoint) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (loader_open(&loader, &model->base, checkpoint) == MODEL_OK) {
        loader_weight(&loader, &model->unembed, DIMS(outputs, width), "model.unembed.weight");
        loader_weight(&loader, &model->unembed_bias, DIMS(outputs), "model.unembed.bias");
        loader_ignore(&loader, ""); /* the rest is up already */
        loader_close(&loader);
    }
    checkpoint_close(checkpoint);
    return loader.rc;
}
