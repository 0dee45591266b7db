/* Loading of a Sundial checkpoint, as published on Hugging Face (thuml/sundial-base-128m): see sundial.c for the model itself and
 * sundial_state.h for the letters of the shapes. */
#include "gpuworker/model/sundial.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpuworker/model/parts_load.h"

enum { LAYERS_MOST = 256, BLOCKS_MOST = 64, STEPS_MOST = 10000, NAME_BYTES = 128, TIME_FEATURES = 256 };

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool sundial_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "input_token_len") && checkpoint_config_has(checkpoint, "flow_loss_depth") &&
           checkpoint_config_has(checkpoint, "num_sampling_steps");
}

/* What the official code leaves no choice in: it has one activation, one rotation, and a flow as wide as the longest of its outputs. */
static void read_fixed(loader_t *loader, sundial_config_t *config)
{
    double theta = 10000, channels[2] = {0};
    size_t count = 0;

    loader_expect_text(loader, "hidden_act", "silu");
    loader_optional_f64(loader, "rope_theta", 10000, 10000, &theta);
    if (loader->rc < 0)
        return;
    if (checkpoint_config_numbers(loader->checkpoint, "output_token_lens", channels, 2, &count) < 0) {
        loader->rc = MODEL_ERR_CHECKPOINT;
        return;
    }
    config->channels = channels[0] >= 1 && channels[0] <= 1 << 20 ? (int64_t)channels[0] : 0;
    loader_expect(loader,
                  count == 1 && config->channels > 0 && (double)config->channels == channels[0] &&
                      config->channels % config->patch == 0,
                  "output_token_lens", "not one multiple of input_token_len", "one");
}

static void read_config(loader_t *loader, sundial_config_t *config)
{
    loader_config_i64(loader, "input_token_len", 1, 4096, &config->patch);
    loader_config_i64(loader, "hidden_size", 2, 65536, &config->width);
    loader_config_i64(loader, "num_hidden_layers", 1, LAYERS_MOST, &config->layers);
    loader_config_i64(loader, "num_attention_heads", 1, 1024, &config->heads);
    loader_config_i64(loader, "intermediate_size", 1, 1 << 20, &config->hidden);
    loader_config_i64(loader, "flow_loss_depth", 1, BLOCKS_MOST, &config->depth);
    loader_config_i64(loader, "num_sampling_steps", 1, STEPS_MOST, &config->steps);
    if (loader->rc < 0)
        return;
    loader_expect(loader, config->width % (2 * config->heads) == 0, "num_attention_heads",
                  "no divisor of hidden_size into even heads", "one");
    read_fixed(loader, config);
}

/* ---- the decoder --------------------------------------------------------------------------------------------------------------- */

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
    float *both = loader_calloc(loader, width * (in + hidden), sizeof *both);

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
    static const char *const qkv[] = {".self_attn.q_proj.weight", ".self_attn.k_proj.weight", ".self_attn.v_proj.weight"};
    static const char *const qkv_bias[] = {".self_attn.q_proj.bias", ".self_attn.k_proj.bias", ".self_attn.v_proj.bias"};
    static const char *const gate_up[] = {".ffn_layer.gate_proj.weight", ".ffn_layer.up_proj.weight"};
    int64_t width = config->width, hidden = config->hidden;
    char name[NAME_BYTES];

    snprintf(name, sizeof name, "model.layers.%d.norm1", index);
    load_pair(loader, name, width, 0, &layer->norm1, &layer->norm1_shift);
    snprintf(name, sizeof name, "model.layers.%d.norm2", index);
    load_pair(loader, name, width, 0, &layer->norm2, &layer->norm2_shift);
    snprintf(name, sizeof name, "model.layers.%d", index);
    loader_stack(loader, &layer->qkv, name, qkv, 3, width, width);
    loader_stack(loader, &layer->qkv_bias, name, qkv_bias, 3, width, 0);
    loader_weight(loader, &layer->wo, DIMS(width, width), "%s.self_attn.o_proj.weight", name);
    loader_stack(loader, &layer->gate_up, name, gate_up, 2, hidden, width);
    loader_weight(loader, &layer->down, DIMS(width, hidden), "%s.ffn_layer.down_proj.weight", name);
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

/* A block's norm w and v, folded into its rows of the modulation. */
static void load_norm_into(loader_t *loader, int64_t width, int index, float *matrix, float *bias)
{
    float *w = loader_read(loader, DIMS(width), "flow_loss.net.res_blocks.%d.in_ln.weight", index);
    float *v = loader_read(loader, DIMS(width), "flow_loss.net.res_blocks.%d.in_ln.bias", index);

    if (loader->rc == MODEL_OK) {
        fold_norm(matrix, width, w, v, width, false);
        fold_norm(bias, 1, w, v, width, true);
    }
    free(w);
    free(v);
}

/* Of every block shift, scale and gate below each other, then the end's shift and scale. */
static void load_modulation(loader_t *loader, model_t *model)
{
    int64_t width = model->config.width, depth = model->config.depth, total = (3 * depth + 2) * width;
    float *matrix = loader_calloc(loader, total * width, sizeof *matrix), *bias = loader_calloc(loader, total, sizeof *bias);
    char name[NAME_BYTES];

    for (int i = 0; i <= depth; i++) {
        int64_t rows = (i < depth ? 3 : 2) * width, at = 3 * i * width;
        float *weights, *shifts;

        if (i < depth)
            snprintf(name, sizeof name, "flow_loss.net.res_blocks.%d.adaLN_modulation.1", i);
        else
            snprintf(name, sizeof name, "flow_loss.net.final_layer.adaLN_modulation.1");
        weights = loader_read(loader, DIMS(rows, width), "%s.weight", name);
        shifts = loader_read(loader, DIMS(rows), "%s.bias", name);
        if (loader->rc == MODEL_OK) {
            memcpy(matrix + at * width, weights, (size_t)(rows * width) * sizeof *matrix);
            memcpy(bias + at, shifts, (size_t)rows * sizeof *bias);
            if (i < depth)
                load_norm_into(loader, width, i, matrix + at * width, bias + at);
        }
        free(weights);
        free(shifts);
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

/* The embeddings of all times depend on nothing but the weights. */
static void load_time(loader_t *loader, model_t *model)
{
    int64_t width = model->config.width, steps = model->config.steps;
    float *up = loader_read(loader, DIMS(width, TIME_FEATURES), "flow_loss.net.time_embed.mlp.0.weight");
    float *up_bias = loader_read(loader, DIMS(width), "flow_loss.net.time_embed.mlp.0.bias");
    float *down = loader_read(loader, DIMS(width, width), "flow_loss.net.time_embed.mlp.2.weight");
    float *down_bias = loader_read(loader, DIMS(width), "flow_loss.net.time_embed.mlp.2.bias");
    float *features = loader_calloc(loader, steps * TIME_FEATURES, sizeof *features);
    float *hidden = loader_calloc(loader, steps * width, sizeof *hidden),
          *time = loader_calloc(loader, steps * width, sizeof *time);

    if (features != NULL)
        fill_time_features(features, steps);
    loader_linear(loader, steps, width, TIME_FEATURES, features, up, up_bias, BACKEND_ACT_SILU, hidden);
    loader_linear(loader, steps, width, width, hidden, down, down_bias, BACKEND_ACT_NONE, time);
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
    float *move = loader_calloc(loader, (width + channels) * width, sizeof *move);

    loader_upload(loader, "flow_loss.net.input_proj.weight", BACKEND_F32, DIMS(width, channels), in, &model->input);
    loader_product(loader, width, channels, width, in, out, move);
    if (loader->rc == MODEL_OK) {
        memcpy(move + width * width, out, (size_t)(channels * width) * sizeof *move);
        for (int64_t i = 0; i < (width + channels) * width; i++)
            move[i] /= (float)steps;
    }
    loader_upload(loader, "flow steps", loader->precision, DIMS(width + channels, width), move, &model->move);
    loader_weight(loader, &model->input_bias, DIMS(width), "flow_loss.net.input_proj.bias");
    loader_weight(loader, &model->output_bias, DIMS(channels), "flow_loss.net.final_layer.linear.bias");
    free(in);
    free(out);
    free(move);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------------- */

void sundial_load(model_t *model, loader_t *loader)
{
    sundial_config_t *config = &model->config;

    read_config(loader, config);
    model->layers = loader_calloc(loader, config->layers, sizeof *model->layers);
    model->blocks = loader_calloc(loader, config->depth, sizeof *model->blocks);
    if (loader->rc < 0)
        return;
    load_embedding(loader, model);
    for (int i = 0; i < config->layers; i++)
        load_layer(loader, config, i, &model->layers[i]);
    load_pair(loader, "model.norm", config->width, 0, &model->norm, &model->norm_shift);
    load_pair(loader, "flow_loss.net.cond_embed", config->width, config->width, &model->condition, &model->condition_bias);
    load_time(loader, model);
    load_modulation(loader, model);
    for (int i = 0; i < config->depth; i++)
        load_block(loader, config, i, &model->blocks[i]);
    load_move(loader, model);
    loader_ignore(loader, ".rotary_emb."); /* buffers that some versions save; computed here */
}

void sundial_unload(model_t *model)
{
    free(model->layers);
    free(model->blocks);
}

void sundial_info(const model_t *model, model_info_t *out)
{
    out->patch = (uint32_t)model->config.patch;
    out->samples = true;
}
