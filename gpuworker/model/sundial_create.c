/* A Sundial checkpoint that nobody trained, laid out as the published one is: for the demo, and to measure with.
 *
 * All weights are random, but for one path through the network that makes its forecasts look like forecasts. The last value of each patch
 * travels untouched in channel LEVEL of the residual stream, beside two constants of opposite sign that are so large that the layer norms
 * divide by about the same number whatever else is there; the final norm multiplies by that number again. The condition takes the level twice, as
 * +level and -level, because silu(level) - silu(-level) = level: so it passes the flow's activation and becomes the shift of LEVEL in the last
 * modulation, whose own value there is switched off. From there it is the location of every bar: samples continue from where the series
 * stands. Channel FAN of the flow, which starts as a mixture of the noise, moves a sample up or down with the square root of the bar's number: the
 * band opens like a fan. What the rest of the network computes moves each bar a little. */
#include "gpuworker/model/parts_create.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    const char *name;
    int hidden, intermediate, layers, heads, patch, channels, depth, steps;
} sundial_size_t;

static const sundial_size_t sizes[] = {
    {"tiny", 64, 128, 2, 2, 16, 64, 2, 10},
    {"base", 768, 3072, 12, 12, 16, 720, 3, 50}, /* thuml/sundial-base-128m: the defaults of the official configuration */
};
/* Channels that the path uses: of the residual stream, of the condition, of the flow. */
enum { LEVEL = 0, HIGH = 1, LOW = 2 };
enum { PLUS = 0, MINUS = 1 };
enum { FAN = 2 };

enum { NAME_BYTES = 96, TIME_FEATURES = 256 };

/* The constants' size, the variance of a channel that the random rest reaches, how far FAN carries the last bar, how far the rest does. */
static const float CONSTANT = 64.0f, VARIANCE = 2.0f, FAN_WIDTH = 0.8f, JITTER = 0.05f;
/* Deviation of what the condition does to the norms of the flow. */
static const float MODULATION = 0.1f;

/* Weights whose outputs have `deviation` when their inputs have 1, and a smaller random part in the bias. */
static void add_linear(random_weights_t *weights, const char *name, int outputs, int inputs, float deviation)
{
    random_weights_add_matrix(weights, deviation, outputs, inputs, "%s.weight", name);
    random_weights_add(weights, 0, 0.1f * deviation, outputs, 0, "%s.bias", name);
}

/* Output `channel` of a linear layer becomes `bias`. */
static void fix_output(random_weights_t *weights, const char *name, int channel, float bias)
{
    random_weights_clear_rows(weights, channel, channel + 1, "%s.weight", name);
    random_weights_set(weights, channel, 0, bias, "%s.bias", name);
}

static void clear_stream_rows(random_weights_t *weights, const char *name)
{
    random_weights_clear_rows(weights, LEVEL, LOW + 1, "%s.weight", name);
}

/* A layer norm of the stream: what it divides by, it multiplies with; the constants themselves are not let through. */
static void add_norm(random_weights_t *weights, const sundial_size_t *size, const char *name)
{
    float divisor = sqrtf(2 * CONSTANT * CONSTANT / (float)size->hidden + VARIANCE);

    random_weights_add(weights, divisor, 0, size->hidden, 0, "%s.weight", name);
    random_weights_add(weights, 0, 0, size->hidden, 0, "%s.bias", name);
    random_weights_set(weights, HIGH, 0, 0, "%s.weight", name);
    random_weights_set(weights, LOW, 0, 0, "%s.weight", name);
}

static void add_embedding(random_weights_t *weights, const sundial_size_t *size)
{
    static const char hidden[] = "model.embed_layer.hidden_layer", output[] = "model.embed_layer.output_layer",
                      residual[] = "model.embed_layer.residual_layer";

    add_linear(weights, hidden, size->intermediate, 2 * size->patch, 1);
    add_linear(weights, output, size->hidden, size->intermediate, 1);
    add_linear(weights, residual, size->hidden, 2 * size->patch, 0.5f);
    fix_output(weights, output, LEVEL, 0);
    fix_output(weights, output, HIGH, CONSTANT);
    fix_output(weights, output, LOW, -CONSTANT);
    fix_output(weights, residual, LEVEL, 0);
    fix_output(weights, residual, HIGH, 0);
    fix_output(weights, residual, LOW, 0);
    random_weights_set(weights, LEVEL, size->patch - 1, 1, "model.embed_layer.residual_layer.weight");
}

static void add_layer(random_weights_t *weights, const sundial_size_t *size, int layer)
{
    float deviation = random_weights_spread(6 * size->layers); /* 2 additions a layer: together they add what the embedding holds */
    char name[NAME_BYTES];
    int at = snprintf(name, sizeof name, "model.layers.%d.", layer);
    size_t room = sizeof name - (size_t)at;

    snprintf(name + at, room, "norm1");
    add_norm(weights, size, name);
    snprintf(name + at, room, "norm2");
    add_norm(weights, size, name);
    snprintf(name + at, room, "self_attn.q_proj");
    add_linear(weights, name, size->hidden, size->hidden, 1);
    snprintf(name + at, room, "self_attn.k_proj");
    add_linear(weights, name, size->hidden, size->hidden, 1);
    snprintf(name + at, room, "self_attn.v_proj");
    add_linear(weights, name, size->hidden, size->hidden, 1);
    snprintf(name + at, room, "self_attn.o_proj");
    random_weights_add_matrix(weights, deviation, size->hidden, size->hidden, "%s.weight", name);
    clear_stream_rows(weights, name);
    snprintf(name + at, room, "ffn_layer.gate_proj");
    random_weights_add_matrix(weights, 1, size->intermediate, size->hidden, "%s.weight", name);
    snprintf(name + at, room, "ffn_layer.up_proj");
    random_weights_add_matrix(weights, 1, size->intermediate, size->hidden, "%s.weight", name);
    snprintf(name + at, room, "ffn_layer.down_proj");
    random_weights_add_matrix(weights, deviation, size->hidden, size->intermediate, "%s.weight", name);
    clear_stream_rows(weights, name);
}

static void add_block(random_weights_t *weights, const sundial_size_t *size, int block)
{
    char name[NAME_BYTES];
    int at = snprintf(name, sizeof name, "flow_loss.net.res_blocks.%d.", block);
    size_t room = sizeof name - (size_t)at;

    random_weights_add(weights, 1, 0, size->hidden, 0, "%sin_ln.weight", name);
    random_weights_add(weights, 0, 0, size->hidden, 0, "%sin_ln.bias", name);
    snprintf(name + at, room, "mlp.0");
    add_linear(weights, name, size->hidden, size->hidden, 1);
    snprintf(name + at, room, "mlp.2");
    add_linear(weights, name, size->hidden, size->hidden, 1);
    snprintf(name + at, room, "adaLN_modulation.1");
    add_linear(weights, name, 3 * size->hidden, size->hidden, MODULATION);
}

/* Time and condition; their channels PLUS and MINUS hold the level alone. */
static void add_conditions(random_weights_t *weights, const sundial_size_t *size)
{
    static const char condition[] = "flow_loss.net.cond_embed", time[] = "flow_loss.net.time_embed.mlp.2";

    add_linear(weights, "flow_loss.net.time_embed.mlp.0", size->hidden, TIME_FEATURES, 1);
    add_linear(weights, time, size->hidden, size->hidden, 0.5f);
    fix_output(weights, time, PLUS, 0);
    fix_output(weights, time, MINUS, 0);
    add_linear(weights, condition, size->hidden, size->hidden, 0.5f);
    fix_output(weights, condition, PLUS, 0);
    fix_output(weights, condition, MINUS, 0);
    random_weights_set(weights, PLUS, LEVEL, 1, "flow_loss.net.cond_embed.weight");
    random_weights_set(weights, MINUS, LEVEL, -1, "flow_loss.net.cond_embed.weight");
}

/* The last modulation's rows are the shifts, then the scales: norm · (1 + scale) + shift. */
static void add_output(random_weights_t *weights, const sundial_size_t *size)
{
    static const char modulation[] = "flow_loss.net.final_layer.adaLN_modulation.1", linear[] = "flow_loss.net.final_layer.linear";

    add_linear(weights, modulation, 2 * size->hidden, size->hidden, MODULATION);
    fix_output(weights, modulation, LEVEL, 0);
    fix_output(weights, modulation, size->hidden + LEVEL, -1);
    random_weights_set(weights, LEVEL, PLUS, 1, "flow_loss.net.final_layer.adaLN_modulation.1.weight");
    random_weights_set(weights, LEVEL, MINUS, -1, "flow_loss.net.final_layer.adaLN_modulation.1.weight");
    add_linear(weights, linear, size->channels, size->hidden, JITTER);
    for (int c = 0; c < size->channels; c++) {
        float fan = FAN_WIDTH * sqrtf((float)(c + 1) / (float)size->channels);

        random_weights_set(weights, c, LEVEL, 1, "flow_loss.net.final_layer.linear.weight");
        random_weights_set(weights, c, FAN, fan, "flow_loss.net.final_layer.linear.weight");
    }
}

static void format_config(const sundial_size_t *size, char *text, size_t room)
{
    snprintf(text, room,
             "{\n"
             "  \"architectures\": [\n"
             "    \"SundialForPrediction\"\n"
             "  ],\n"
             "  \"diffusion_batch_mul\": 4,\n"
             "  \"dropout_rate\": 0.1,\n"
             "  \"flow_loss_depth\": %d,\n"
             "  \"hidden_act\": \"silu\",\n"
             "  \"hidden_size\": %d,\n"
             "  \"initializer_range\": 0.02,\n"
             "  \"input_token_len\": %d,\n"
             "  \"intermediate_size\": %d,\n"
             "  \"max_position_embeddings\": 10000,\n"
             "  \"model_type\": \"sundial\",\n"
             "  \"num_attention_heads\": %d,\n"
             "  \"num_hidden_layers\": %d,\n"
             "  \"num_sampling_steps\": %d,\n"
             "  \"output_token_lens\": [\n"
             "    %d\n"
             "  ],\n"
             "  \"rope_theta\": 10000,\n"
             "  \"torch_dtype\": \"float32\",\n"
             "  \"use_cache\": true\n"
             "}\n",
             size->depth, size->hidden, size->patch, size->intermediate, size->heads, size->layers, size->steps, size->channels);
}

int sundial_create(const char *size_name, uint64_t seed, const char *dir)
{
    const sundial_size_t *size = CREATE_SIZE("sundial", sizes, size_name);
    random_weights_t *weights;
    char config[1024];

    if (size == NULL)
        return MODEL_ERR_SHAPE;
    if (random_weights_new(seed, &weights) < 0)
        return MODEL_ERR_MEMORY;
    add_embedding(weights, size);
    for (int layer = 0; layer < size->layers; layer++)
        add_layer(weights, size, layer);
    add_norm(weights, size, "model.norm");
    add_conditions(weights, size);
    add_linear(weights, "flow_loss.net.input_proj", size->hidden, size->channels, 1);
    for (int block = 0; block < size->depth; block++)
        add_block(weights, size, block);
    add_output(weights, size);
    format_config(size, config, sizeof config);
    return create_write(weights, dir, config);
}
