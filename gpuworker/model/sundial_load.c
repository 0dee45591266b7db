/* Loading of a Sundial checkpoint, as published on Hugging Face (thuml/sundial-base-128m): see sundial.c for the model itself and
 * sundial_state.h for the letters of the shapes. */
#include "gpuworker/model/sundial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/parts.h"

enum { LAYERS_MOST = 256, BLOCKS_MOST = 64, STEPS_MOST = 10000, NAME_BYTES = 128, TIME_FEATURES = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool sundial_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "input_token_len") && checkpoint_config_has(checkpoint, "flow_loss_depth") &&
           checkpoint_config_has(checkpoint, "num_sampling_steps");
}

static int wrong_config(const char *key, const char *is, const char *expected)
{
    return error_set(MODEL_ERR_CHECKPOINT, "config.json: %s is %s, expected %s", key, is, expected);
}

/* What the official code leaves no choice in: it has one activation, one rotation, and a flow as wide as the longest of its outputs. */
static int read_fixed(const checkpoint_t *checkpoint, sundial_config_t *config)
{
    const char *activation;
    double theta = 10000, channels[2] = {0};
    size_t count = 0;

    if (checkpoint_config_text(checkpoint, "hidden_act", &activation) < 0 ||
        checkpoint_config_numbers(checkpoint, "output_token_lens", channels, 2, &count) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (checkpoint_config_has(checkpoint, "rope_theta") && checkpoint_config_f64(checkpoint, "rope_theta", &theta) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (strcmp(activation, "silu") != 0)
        return wrong_config("hidden_act", activation, "silu");
    if (theta != 10000)
        return wrong_config("rope_theta", "another number", "10000");
    config->channels = (int64_t)channels[0];
    if (count != 1 || channels[0] < 1 || channels[0] > 1 << 20 || (double)config->channels != channels[0] ||
        config->channels % config->patch != 0)
        return wrong_config("output_token_lens", "not one multiple of input_token_len", "one");
    return MODEL_OK;
}

static int read_config(const checkpoint_t *checkpoint, sundial_config_t *config)
{
    if (checkpoint_config_i64(checkpoint, "input_token_len", 1, 4096, &config->patch) < 0 ||
        checkpoint_config_i64(checkpoint, "hidden_size", 2, 65536, &config->width) < 0 ||
        checkpoint_config_i64(checkpoint, "num_hidden_layers", 1, LAYERS_MOST, &config->layers) < 0 ||
        checkpoint_config_i64(checkpoint, "num_attention_heads", 1, 1024, &config->heads) < 0 ||
        checkpoint_config_i64(checkpoint, "intermediate_size", 1, 1 << 20, &config->hidden) < 0 ||
        checkpoint_config_i64(checkpoint, "flow_loss_depth", 1, BLOCKS_MOST, &config->depth) < 0 ||
        checkpoint_config_i64(checkpoint, "num_sampling_steps", 1, STEPS_MOST, &config->steps) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (config->width % (2 * config->heads) != 0)
        return wrong_config("num_attention_heads", "no divisor of hidden_size into even heads", "one");
    return read_fixed(checkpoint, config);
}

/* ---- weights that stand in the checkpoint in parts ----------------------------------------------------------------------------- */

typedef struct {
    char name[NAME_BYTES];
    int64_t rows;
} part_t;

/* Matrices PART.weight [rows][columns] (or, columns 0, vectors PART.bias [rows]) below each other, on the host; NULL after a failure. */
static float *read_stack(loader_t *loader, const part_t *parts, size_t count, int64_t columns)
{
    int64_t total = 0, at = 0, row_floats = columns > 0 ? columns : 1;
    float *all;

    for (size_t i = 0; i < count; i++)
        total += parts[i].rows;
    all = malloc((size_t)(total * row_floats) * sizeof *all);
    if (loader->rc == MODEL_OK && all == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "%s: out of memory", parts[0].name);
    for (size_t i = 0; i < count; i++) {
        float *part = columns > 0 ? loader_read(loader, DIMS(parts[i].rows, columns), "%s.weight", parts[i].name)
                                  : loader_read(loader, DIMS(parts[i].rows), "%s.bias", parts[i].name);

        if (loader->rc == MODEL_OK)
            memcpy(all + at, part, (size_t)(parts[i].rows * row_floats) * sizeof *all);
        at += parts[i].rows * row_floats;
        free(part);
    }
    return all;
}

/* The stack on the device; `bias` NULL: the parts have none. */
static void load_stack(loader_t *loader, const part_t *parts, size_t count, int64_t columns, backend_weight_t *weight,
                       backend_weight_t *bias)
{
    int64_t total = 0;
    float *matrix = read_stack(loader, parts, count, columns);

    for (size_t i = 0; i < count; i++)
        total += parts[i].rows;
    loader_upload(loader, parts[0].name, loader->precision, DIMS(total, columns), matrix, weight);
    free(matrix);
    if (bias != NULL) {
        float *vector = read_stack(loader, parts, count, 0);

        loader_upload(loader, parts[0].name, BACKEND_F32, DIMS(total), vector, bias);
        free(vector);
    }
}

/* NAME.weight and NAME.bias. */
static void load_pair(loader_t *loader, const char *name, int64_t rows, int64_t columns, backend_weight_t *weight,
                      backend_weight_t *bias)
{
    if (columns > 0)
        loader_weight(loader, weight, DIMS(rows, columns), "%s.weight", name);
    else
        loader_weight(loader, weight, DIMS(rows), "%s.weight", name);
    loader_weight(loader, bias, DIMS(rows), "%s.bias", name);
}

/* ---- the decoder --------------------------------------------------------------------------------------------------------------- */

/* A patch x becomes W_out silu(W_hidden x + b_hidden) + b_out + W_res x + b_res. With x and the hidden values side by side the last two
 * products are one: [W_res W_out] [x; hidden] + (b_out + b_res). */
static void load_embedding(loader_t *loader, model_t *model)
{
    const sundial_config_t *config = &model->config;
    int64_t in = 2 * config->patch, hidden = config->hidden, width = config->width;
    float *out = loader_read(loader, DIMS(width, hidden), "model.embed_layer.output_layer.weight");
    float *out_bias = loader_read(loader, DIMS(width), "model.embed_layer.output_layer.bias");
    float *residual = loader_read(loader, DIMS(width, in), "model.embed_layer.residual_layer.weight");
    float *residual_bias = loader_read(loader, DIMS(width), "model.embed_layer.residual_layer.bias");
    float *both = malloc((size_t)(width * (in + hidden)) * sizeof *both);

    if (loader->rc == MODEL_OK && both == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "patch embedding: out of memory");
    for (int64_t row = 0; loader->rc == MODEL_OK && row < width; row++) {
        memcpy(both + row * (in + hidden), residual + row * in, (size_t)in * sizeof *both);
        memcpy(both + row * (in + hidden) + in, out + row * hidden, (size_t)hidden * sizeof *both);
        out_bias[row] += residual_bias[row];
    }
    load_pair(loader, "model.embed_layer.hidden_layer", hidden, in, &model->embed_hidden, &model->embed_hidden_bias);
    loader_upload(loader, "patch embedding", loader->precision, DIMS(width, in + hidden), both, &model->embed);
    loader_upload(loader, "patch embedding", BACKEND_F32, DIMS(width), out_bias, &model->embed_bias);
    free(out);
    free(out_bias);
    free(residual);
    free(residual_bias);
    free(both);
}

static void load_layer(loader_t *loader, const sundial_config_t *config, int index, sundial_layer_t *layer)
{
    static const char *const qkv_names[] = {"q_proj", "k_proj", "v_proj"}, *const mlp_names[] = {"gate_proj", "up_proj"};
    int64_t width = config->width, hidden = config->hidden;
    part_t qkv[3], mlp[2];
    char name[NAME_BYTES];

    for (int i = 0; i < 3; i++) {
        snprintf(qkv[i].name, sizeof qkv[i].name, "model.layers.%d.self_attn.%s", index, qkv_names[i]);
        qkv[i].rows = width;
    }
    for (int i = 0; i < 2; i++) {
        snprintf(mlp[i].name, sizeof mlp[i].name, "model.layers.%d.ffn_layer.%s", index, mlp_names[i]);
        mlp[i].rows = hidden;
    }
    snprintf(name, sizeof name, "model.layers.%d.norm1", index);
    load_pair(loader, name, width, 0, &layer->norm1, &layer->norm1_shift);
    load_stack(loader, qkv, 3, width, &layer->qkv, &layer->qkv_bias);
    loader_weight(loader, &layer->wo, DIMS(width, width), "model.layers.%d.self_attn.o_proj.weight", index);
    snprintf(name, sizeof name, "model.layers.%d.norm2", index);
    load_pair(loader, name, width, 0, &layer->norm2, &layer->norm2_shift);
    load_stack(loader, mlp, 2, width, &layer->gate_up, NULL);
    loader_weight(loader, &layer->down, DIMS(width, hidden), "model.layers.%d.ffn_layer.down_proj.weight", index);
}

/* ---- the flow ------------------------------------------------------------------------------------------------------------------ */

static void load_block(loader_t *loader, const sundial_config_t *config, int index, sundial_block_t *block)
{
    char name[NAME_BYTES];
    int at = snprintf(name, sizeof name, "flow_loss.net.res_blocks.%d.", index);
    size_t room = sizeof name - (size_t)at;

    snprintf(name + at, room, "mlp.0");
    load_pair(loader, name, config->width, config->width, &block->up, &block->up_bias);
    snprintf(name + at, room, "mlp.2");
    load_pair(loader, name, config->width, config->width, &block->down, &block->down_bias);
}

/* A block's norm has weights w and v of its own before it is modulated: (norm · w + v) · (1 + scale) + shift. That is norm · (1 + scale') + shift'
 * with scale' = w · scale + (w - 1) and shift' = shift + v · scale + (v), linear in the condition's features like scale and shift themselves.
 * `matrix` [3·D][columns] holds shift, scale and gate below each other; what stands in brackets belongs to the bias (columns 1). */
static void fold_norm(float *matrix, int64_t columns, const float *w, const float *v, int64_t width, bool bias)
{
    for (int64_t row = 0; row < width; row++)
        for (int64_t c = 0; c < columns; c++) {
            float *shift = matrix + row * columns + c, *scale = shift + width * columns;

            *shift += v[row] * *scale + (bias ? v[row] : 0);
            *scale = w[row] * *scale + (bias ? w[row] - 1 : 0);
        }
}

static void load_modulation(loader_t *loader, model_t *model)
{
    int64_t width = model->config.width, depth = model->config.depth, total = (3 * depth + 2) * width;
    part_t parts[BLOCKS_MOST + 1];
    float *matrix, *bias;

    for (int i = 0; i < depth; i++) {
        snprintf(parts[i].name, sizeof parts[i].name, "flow_loss.net.res_blocks.%d.adaLN_modulation.1", i);
        parts[i].rows = 3 * width;
    }
    snprintf(parts[depth].name, sizeof parts->name, "flow_loss.net.final_layer.adaLN_modulation.1");
    parts[depth].rows = 2 * width;
    matrix = read_stack(loader, parts, (size_t)depth + 1, width);
    bias = read_stack(loader, parts, (size_t)depth + 1, 0);
    for (int64_t i = 0; i < depth; i++) {
        float *w = loader_read(loader, DIMS(width), "flow_loss.net.res_blocks.%d.in_ln.weight", (int)i);
        float *v = loader_read(loader, DIMS(width), "flow_loss.net.res_blocks.%d.in_ln.bias", (int)i);

        if (loader->rc == MODEL_OK) {
            fold_norm(matrix + 3 * i * width * width, width, w, v, width, false);
            fold_norm(bias + 3 * i * width, 1, w, v, width, true);
        }
        free(w);
        free(v);
    }
    loader_upload(loader, "modulations", loader->precision, DIMS(total, width), matrix, &model->modulation);
    loader_upload(loader, "modulations", BACKEND_F32, DIMS(total), bias, &model->modulation_bias);
    free(matrix);
    free(bias);
}

/* Sinusoids of the times 1000 · i / steps: cosines, then sines, of 128 frequencies. In floats as the official code has it: a phase of some
 * hundred radians feels the rounding. */
static void fill_time_features(float *features, int64_t steps)
{
    int64_t half = TIME_FEATURES / 2;

    for (int64_t i = 0; i < steps; i++)
        for (int64_t k = 0; k < half; k++) {
            float time = (float)i / (float)steps * 1000.0f, frequency = expf(-9.21034037f * (float)k / (float)half);
            float phase = time * frequency;

            features[i * TIME_FEATURES + k] = (float)cos((double)phase);
            features[i * TIME_FEATURES + half + k] = (float)sin((double)phase);
        }
}

/* Multiplies on the device, in F32, what is folded at load: y [rows][out] = act(x · Wᵀ + bias), all on the host. */
static void multiply(loader_t *loader, int64_t rows, int64_t out, int64_t in, const float *x, const float *weight,
                     const float *bias, backend_activation_t activation, float *y)
{
    backend_t *backend = loader->backend;
    buffers_t buffers = {.backend = backend, .rc = loader->rc};
    backend_tensor_t x_device = buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(rows, in));
    backend_tensor_t y_device = buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(rows, out));
    backend_weight_t matrix = {buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(out, in))};
    backend_weight_t vector = {buffers_take(&buffers, "folded weights", BACKEND_F32, DIMS(out))};
    int rc = buffers.rc;

    if (rc == MODEL_OK && (rc = backend_write(backend, &x_device, x)) == BACKEND_OK &&
        (rc = backend_write(backend, &matrix.tensor, weight)) == BACKEND_OK &&
        (bias == NULL || (rc = backend_write(backend, &vector.tensor, bias)) == BACKEND_OK) &&
        (rc = backend_linear(backend, &(backend_linear_t){.x = x_device,
                                                          .rows = rows,
                                                          .weight = &matrix,
                                                          .bias = bias != NULL ? &vector : NULL,
                                                          .activation = activation,
                                                          .y = y_device})) == BACKEND_OK)
        rc = backend_read(backend, &y_device, y);
    loader->rc = buffers.rc < 0 ? buffers.rc : model_backend_error(rc);
    buffers_close(&buffers);
}

/* The embeddings of all times depend on nothing but the weights. */
static void load_time(loader_t *loader, model_t *model)
{
    int64_t width = model->config.width, steps = model->config.steps;
    float *up = loader_read(loader, DIMS(width, TIME_FEATURES), "flow_loss.net.time_embed.mlp.0.weight");
    float *up_bias = loader_read(loader, DIMS(width), "flow_loss.net.time_embed.mlp.0.bias");
    float *down = loader_read(loader, DIMS(width, width), "flow_loss.net.time_embed.mlp.2.weight");
    float *down_bias = loader_read(loader, DIMS(width), "flow_loss.net.time_embed.mlp.2.bias");
    float *features = malloc((size_t)(steps * TIME_FEATURES) * sizeof *features);
    float *hidden = malloc((size_t)(steps * width) * sizeof *hidden), *time = malloc((size_t)(steps * width) * sizeof *time);

    if (loader->rc == MODEL_OK && (features == NULL || hidden == NULL || time == NULL))
        loader->rc = error_set(MODEL_ERR_MEMORY, "time embedding: out of memory");
    if (loader->rc == MODEL_OK) {
        fill_time_features(features, steps);
        multiply(loader, steps, width, TIME_FEATURES, features, up, up_bias, BACKEND_ACT_SILU, hidden);
    }
    if (loader->rc == MODEL_OK)
        multiply(loader, steps, width, width, hidden, down, down_bias, BACKEND_ACT_NONE, time);
    loader_upload(loader, "time embedding", BACKEND_F32, DIMS(steps, width), time, &model->time);
    free(up);
    free(up_bias);
    free(down);
    free(down_bias);
    free(features);
    free(hidden);
    free(time);
}

/* What a step adds to the projected state and to the state itself, as one matrix of the network's last features: W_in · W_out / steps above
 * W_out / steps. W_in itself is used once a round, and what comes of it is added up over all steps: it stays F32. */
static void load_move(loader_t *loader, model_t *model)
{
    int64_t width = model->config.width, channels = model->config.channels, steps = model->config.steps;
    float *in = loader_read(loader, DIMS(width, channels), "flow_loss.net.input_proj.weight");
    float *out = loader_read(loader, DIMS(channels, width), "flow_loss.net.final_layer.linear.weight");
    float *transposed = malloc((size_t)(width * channels) * sizeof *transposed);
    float *move = malloc((size_t)((width + channels) * width) * sizeof *move);

    if (loader->rc == MODEL_OK && (transposed == NULL || move == NULL))
        loader->rc = error_set(MODEL_ERR_MEMORY, "flow steps: out of memory");
    loader_upload(loader, "flow_loss.net.input_proj.weight", BACKEND_F32, DIMS(width, channels), in, &model->input);
    if (loader->rc == MODEL_OK) {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t j = 0; j < width; j++)
                transposed[j * channels + c] = out[c * width + j];
        multiply(loader, width, width, channels, in, transposed, NULL, BACKEND_ACT_NONE, move);
        memcpy(move + width * width, out, (size_t)(channels * width) * sizeof *move);
        for (int64_t i = 0; i < (width + channels) * width; i++)
            move[i] /= (float)steps;
    }
    loader_upload(loader, "flow steps", loader->precision, DIMS(width + channels, width), move, &model->move);
    loader_weight(loader, &model->input_bias, DIMS(width), "flow_loss.net.input_proj.bias");
    loader_weight(loader, &model->output_bias, DIMS(channels), "flow_loss.net.final_layer.linear.bias");
    free(in);
    free(out);
    free(transposed);
    free(move);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------------- */

static int load_weights(model_t *model, const checkpoint_t *checkpoint)
{
    const sundial_config_t *config = &model->config;
    loader_t loader;

    if (loader_open(&loader, model->base.backend, checkpoint, model->precision) < 0)
        return loader.rc;
    load_embedding(&loader, model);
    for (int i = 0; i < config->layers; i++)
        load_layer(&loader, config, i, &model->layers[i]);
    load_pair(&loader, "model.norm", config->width, 0, &model->norm, &model->norm_shift);
    load_pair(&loader, "flow_loss.net.cond_embed", config->width, config->width, &model->condition, &model->condition_bias);
    load_time(&loader, model);
    load_modulation(&loader, model);
    for (int i = 0; i < config->depth; i++)
        load_block(&loader, config, i, &model->blocks[i]);
    load_move(&loader, model);
    loader_ignore(&loader, ".rotary_emb."); /* buffers that some versions save; computed here */
    model->parameters = loader.parameters;
    return loader_close(&loader);
}

static void free_weights(backend_t *backend, backend_weight_t *const *weights, size_t count)
{
    for (size_t i = 0; i < count; i++)
        backend_weight_free(backend, weights[i]);
}

#define FREE_WEIGHTS(backend, ...)                                                                                                 \
    free_weights((backend), (backend_weight_t *const[]){__VA_ARGS__},                                                              \
                 sizeof((backend_weight_t *const[]){__VA_ARGS__}) / sizeof(backend_weight_t *))

void sundial_unload(model_t *model)
{
    backend_t *backend = model->base.backend;

    for (int64_t i = 0; model->layers != NULL && i < model->config.layers; i++) {
        sundial_layer_t *layer = &model->layers[i];
        FREE_WEIGHTS(backend, &layer->norm1, &layer->norm1_shift, &layer->qkv, &layer->qkv_bias, &layer->wo, &layer->norm2,
                     &layer->norm2_shift, &layer->gate_up, &layer->down);
    }
    for (int64_t i = 0; model->blocks != NULL && i < model->config.depth; i++) {
        sundial_block_t *block = &model->blocks[i];
        FREE_WEIGHTS(backend, &block->up, &block->up_bias, &block->down, &block->down_bias);
    }
    FREE_WEIGHTS(backend, &model->embed_hidden, &model->embed_hidden_bias, &model->embed, &model->embed_bias, &model->norm,
                 &model->norm_shift, &model->condition, &model->condition_bias, &model->time, &model->modulation,
                 &model->modulation_bias, &model->input, &model->input_bias, &model->move, &model->output_bias);
    free(model->layers);
    free(model->blocks);
    free(model);
}

int sundial_load(backend_t *backend, const checkpoint_t *checkpoint, backend_dtype_t precision, model_t **out)
{
    size_t before = backend_allocated_bytes(backend);
    sundial_config_t config = {0};
    model_t *model;
    int rc = read_config(checkpoint, &config);

    if (rc < 0)
        return rc;
    if ((model = calloc(1, sizeof *model)) == NULL)
        return error_set(MODEL_ERR_MEMORY, "out of memory");
    model->base = (model_base_t){.family = &sundial_family, .backend = backend};
    model->config = config;
    model->precision = precision;
    model->layers = calloc((size_t)config.layers, sizeof *model->layers);
    model->blocks = calloc((size_t)config.depth, sizeof *model->blocks);
    rc = model->layers != NULL && model->blocks != NULL ? load_weights(model, checkpoint)
                                                        : error_set(MODEL_ERR_MEMORY, "out of memory");
    if (rc < 0) {
        sundial_unload(model);
        return rc;
    }
    model->weight_bytes = backend_allocated_bytes(backend) - before;
    *out = model;
    return MODEL_OK;
}

void sundial_info(const model_t *model, model_info_t *out)
{
    *out = (model_info_t){.family = sundial_family.name,
                          .parameters = model->parameters,
                          .weight_bytes = model->weight_bytes,
                          .patch = (uint32_t)model->config.patch,
                          .samples = true};
}
