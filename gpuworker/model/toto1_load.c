/* Loading of a Toto 1.0 checkpoint, as published on Hugging Face (Datadog/Toto-Open-Base-1.0): see toto1.c for the model itself and the letters
 * of the shapes. */
#include "gpuworker/model/toto1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/parts.h"

enum { LAYERS_MOST = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool toto1_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "scaler_cls") && checkpoint_config_has(checkpoint, "output_distribution_classes") &&
           checkpoint_config_has(checkpoint, "spacewise_every_n_layers");
}

static int wrong_config(const char *key, const char *is, const char *expected)
{
    return error_set(MODEL_ERR_CHECKPOINT, "config.json: %s is %s, expected %s", key, is, expected);
}

static bool names_class(const char *text, const char *name)
{
    return strstr(text, name) != NULL;
}

static int read_sizes(const checkpoint_t *checkpoint, toto1_config_t *config)
{
    int64_t stride;

    if (checkpoint_config_i64(checkpoint, "patch_size", 1, 4096, &config->patch) < 0 ||
        checkpoint_config_i64(checkpoint, "stride", 1, 4096, &stride) < 0 ||
        checkpoint_config_i64(checkpoint, "embed_dim", 2, 65536, &config->width) < 0 ||
        checkpoint_config_i64(checkpoint, "num_layers", 1, LAYERS_MOST, &config->layers) < 0 ||
        checkpoint_config_i64(checkpoint, "num_heads", 1, 1024, &config->heads) < 0 ||
        checkpoint_config_i64(checkpoint, "mlp_hidden_dim", 1, 1 << 20, &config->hidden) < 0 ||
        checkpoint_config_i64(checkpoint, "output_distribution_kwargs.k_components", 1, 4096, &config->components) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (stride != config->patch)
        return wrong_config("stride", "not patch_size", "patches that do not overlap");
    if (config->width % (2 * config->heads) != 0)
        return wrong_config("num_heads", "no divisor of embed_dim into even heads", "one");
    return MODEL_OK;
}

static int read_layout(const checkpoint_t *checkpoint, toto1_config_t *config)
{
    config->space_first = true;
    if (checkpoint_config_i64(checkpoint, "spacewise_every_n_layers", -1, LAYERS_MOST, &config->space_every) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (config->space_every == -1)
        config->space_every = 0;
    else if (config->space_every == 0 || config->layers % config->space_every != 0)
        return wrong_config("spacewise_every_n_layers", "no divisor of num_layers", "one, or -1");
    if (checkpoint_config_has(checkpoint, "spacewise_first") &&
        checkpoint_config_bool(checkpoint, "spacewise_first", &config->space_first) < 0)
        return MODEL_ERR_CHECKPOINT;
    return MODEL_OK;
}

static int read_scaler(const checkpoint_t *checkpoint, toto1_config_t *config)
{
    const char *scaler;
    bool stabilize = true;

    config->exponent = 10;
    if (checkpoint_config_text(checkpoint, "scaler_cls", &scaler) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (!names_class(scaler, ".CausalPatchStdMeanScaler"))
        return wrong_config("scaler_cls", scaler, "CausalPatchStdMeanScaler");
    if (checkpoint_config_has(checkpoint, "stabilize_with_global") &&
        checkpoint_config_bool(checkpoint, "stabilize_with_global", &stabilize) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (checkpoint_config_has(checkpoint, "scale_factor_exponent") &&
        checkpoint_config_f64(checkpoint, "scale_factor_exponent", &config->exponent) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (config->exponent <= 0)
        return wrong_config("scale_factor_exponent", "not positive", "a positive number");
    config->exponent = stabilize ? config->exponent : 0;
    return MODEL_OK;
}

static int read_config(const checkpoint_t *checkpoint, toto1_config_t *config)
{
    const char *distribution;
    size_t count = 0;
    int rc;

    if ((rc = read_sizes(checkpoint, config)) < 0 || (rc = read_layout(checkpoint, config)) < 0 ||
        (rc = read_scaler(checkpoint, config)) < 0)
        return rc;
    if (checkpoint_config_texts(checkpoint, "output_distribution_classes", &distribution, 1, &count) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (count != 1 || !names_class(distribution, ".MixtureOfStudentTsOutput"))
        return wrong_config("output_distribution_classes", count == 1 ? distribution : "not one class", "MixtureOfStudentTsOutput");
    return MODEL_OK;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

/* The published projection has its rows in the order (qkv, d, H); attention wants (qkv, H, d). */
static void load_qkv(loader_t *loader, const toto1_config_t *config, int64_t index, toto1_layer_t *layer)
{
    int64_t width = config->width, head_dim = width / config->heads;
    float *from = loader_read(loader, DIMS(3 * width, width), "model.transformer.layers.%d.attention.wQKV.weight", (int)index);
    float *bias = loader_read(loader, DIMS(3 * width), "model.transformer.layers.%d.attention.wQKV.bias", (int)index);
    float *to = malloc((size_t)(3 * width * width) * sizeof *to), *to_bias = malloc((size_t)(3 * width) * sizeof *to_bias);

    if (loader->rc == MODEL_OK && (to == NULL || to_bias == NULL))
        loader->rc = error_set(MODEL_ERR_MEMORY, "wQKV: out of memory");
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
    output->heads = malloc((size_t)(4 * k * width) * sizeof(float));
    output->heads_bias = malloc((size_t)(4 * k) * sizeof(float));
    output->head = malloc((size_t)(config->patch * 4 * k * width) * sizeof(float));
    output->head_bias = malloc((size_t)(config->patch * 4 * k) * sizeof(float));
    if (loader->rc == MODEL_OK && (!output->heads || !output->heads_bias || !output->head || !output->head_bias))
        loader->rc = error_set(MODEL_ERR_MEMORY, "output heads: out of memory");
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

/* output->head = heads · unembed for every place of the patch, multiplied on the device: product[4K][D] = heads[4K][D] · (Uᵀ)ᵀ. */
static int multiply_head(backend_t *backend, const toto1_config_t *config, const output_t *output, float *transposed)
{
    int64_t rows = 4 * config->components, width = config->width;
    buffers_t buffers = {.backend = backend};
    backend_tensor_t heads = buffers_take(&buffers, "heads", BACKEND_F32, DIMS(rows, width));
    backend_tensor_t product = buffers_take(&buffers, "product", BACKEND_F32, DIMS(rows, width));
    backend_weight_t unembed = {buffers_take(&buffers, "unembed", BACKEND_F32, DIMS(width, width))};
    int rc = buffers.rc;

    if (rc == MODEL_OK)
        rc = backend_write(backend, &heads, output->heads);
    for (int64_t p = 0; rc == BACKEND_OK && p < config->patch; p++) {
        const float *from = output->unembed + p * width * width;

        for (int64_t i = 0; i < width; i++)
            for (int64_t j = 0; j < width; j++)
                transposed[j * width + i] = from[i * width + j];
        if ((rc = backend_write(backend, &unembed.tensor, transposed)) == BACKEND_OK &&
            (rc = backend_linear(backend, &(backend_linear_t){.x = heads, .rows = rows, .weight = &unembed, .y = product})) ==
                BACKEND_OK)
            rc = backend_read(backend, &product, output->head + p * rows * width);
        for (int64_t r = 0; r < rows; r++) {
            double sum = output->heads_bias[r];

            for (int64_t i = 0; i < width; i++)
                sum += (double)output->heads[r * width + i] * (double)output->unembed_bias[p * width + i];
            output->head_bias[p * rows + r] = (float)sum;
        }
    }
    rc = buffers.rc < 0 ? buffers.rc : model_backend_error(rc);
    buffers_close(&buffers);
    return rc;
}

/* The official model unembeds the last token into P·D features, then applies four linear heads to each D of them. Nothing stands between
 * these products, so they are one: a matrix of P·4·K rows instead of P·D, which is a quarter of all the bytes that a step of the published
 * model reads. */
static void load_head(loader_t *loader, model_t *model)
{
    const toto1_config_t *config = &model->config;
    int64_t rows = config->patch * 4 * config->components, width = config->width;
    float *transposed = malloc((size_t)(width * width) * sizeof *transposed);
    output_t output = {0};

    read_output(loader, config, &output);
    if (loader->rc == MODEL_OK && transposed == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "output heads: out of memory");
    if (loader->rc == MODEL_OK)
        loader->rc = multiply_head(loader->backend, config, &output, transposed);
    loader_upload(loader, "output heads", loader->precision, DIMS(rows, width), output.head, &model->head);
    loader_upload(loader, "output heads", BACKEND_F32, DIMS(rows), output.head_bias, &model->head_bias);
    free(transposed);
    free(output.unembed);
    free(output.unembed_bias);
    free(output.heads);
    free(output.heads_bias);
    free(output.head);
    free(output.head_bias);
}

static int load_weights(model_t *model, const checkpoint_t *checkpoint)
{
    const toto1_config_t *config = &model->config;
    loader_t loader;

    if (checkpoint_find(checkpoint, "model.target_variate_label") != NULL)
        return error_set(MODEL_ERR_CHECKPOINT,
                         "tensor model.target_variate_label: checkpoints that were fine-tuned with variate labels "
                         "are not supported yet");
    if (loader_open(&loader, model->base.backend, checkpoint, model->precision) < 0)
        return loader.rc;
    loader_weight(&loader, &model->embed, DIMS(config->width, config->patch), "model.patch_embed.projection.weight");
    loader_weight(&loader, &model->embed_bias, DIMS(config->width), "model.patch_embed.projection.bias");
    for (int64_t i = 0; i < config->layers; i++)
        load_layer(&loader, config, i, &model->layers[i]);
    load_head(&loader, model);
    loader_ignore(&loader, ".rotary_emb."); /* buffers that some versions save; computed here */
    model->parameters = loader.parameters;
    return loader_close(&loader);
}

void toto1_unload(model_t *model)
{
    backend_t *backend = model->base.backend;

    for (int64_t i = 0; model->layers != NULL && i < model->config.layers; i++) {
        toto1_layer_t *layer = &model->layers[i];
        backend_weight_t *weights[] = {&layer->norm1, &layer->qkv,     &layer->qkv_bias,     &layer->wo,   &layer->wo_bias,
                                       &layer->norm2, &layer->gate_up, &layer->gate_up_bias, &layer->down, &layer->down_bias};
        for (size_t w = 0; w < sizeof weights / sizeof *weights; w++)
            backend_weight_free(backend, weights[w]);
    }
    backend_weight_free(backend, &model->embed);
    backend_weight_free(backend, &model->embed_bias);
    backend_weight_free(backend, &model->head);
    backend_weight_free(backend, &model->head_bias);
    backend_weight_free(backend, &model->unembed);
    backend_weight_free(backend, &model->unembed_bias);
    free(model->layers);
    free(model->dir);
    free(model);
}

int toto1_load(backend_t *backend, const checkpoint_t *checkpoint, backend_dtype_t precision, model_t **out)
{
    size_t before = backend_allocated_bytes(backend);
    toto1_config_t config = {0};
    model_t *model;
    int rc = read_config(checkpoint, &config);

    if (rc < 0)
        return rc;
    if ((model = calloc(1, sizeof *model)) == NULL)
        return error_set(MODEL_ERR_MEMORY, "out of memory");
    model->base = (model_base_t){.family = &toto1_family, .backend = backend};
    model->config = config;
    model->precision = precision;
    model->layers = calloc((size_t)config.layers, sizeof *model->layers);
    model->dir = strdup(checkpoint_path(checkpoint));
    rc = model->layers != NULL && model->dir != NULL ? load_weights(model, checkpoint)
                                                     : error_set(MODEL_ERR_MEMORY, "out of memory");
    if (rc < 0) {
        toto1_unload(model);
        return rc;
    }
    model->weight_bytes = backend_allocated_bytes(backend) - before;
    *out = model;
    return MODEL_OK;
}

void toto1_info(const model_t *model, model_info_t *out)
{
    *out = (model_info_t){.family = toto1_family.name,
                          .parameters = model->parameters,
                          .weight_bytes = model->weight_bytes,
                          .patch = (uint32_t)model->config.patch,
                          .samples = true,
                          .variates = true,
                          .exogenous = true,
                          .quantiles_without_samples = true,
                          .exact_horizon_most = (uint32_t)model->config.patch};
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
    if (loader_open(&loader, model->base.backend, checkpoint, model->precision) == MODEL_OK) {
        loader_weight(&loader, &model->unembed, DIMS(outputs, width), "model.unembed.weight");
        loader_weight(&loader, &model->unembed_bias, DIMS(outputs), "model.unembed.bias");
        loader_ignore(&loader, ""); /* the rest is up already */
        loader_close(&loader);
    }
    checkpoint_close(checkpoint);
    return loader.rc;
}
