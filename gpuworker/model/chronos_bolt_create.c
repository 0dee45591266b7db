/* A Chronos-Bolt checkpoint that nobody trained, laid out as the published ones are: for the demo, and to measure with.
 *
 * All weights are random, but for one path through the network that makes its forecasts look like forecasts. A constant fills most of a hidden
 * state, so that no norm changes much; two channels beside it tell [REG] and hold the value of a patch's last bar. T5's biases know
 * no distance beyond their last bucket, and the decoder's token has no position; but [REG] is the newest patch's neighbour. So [REG]'s first
 * head looks one patch back, whose value it copies, and the decoder's first head looks at [REG]. The output head spreads its levels around that
 * value, wider with every bar. What the rest of the network computes moves them a little. */
#include "gpuworker/model/chronos_parts.h"
#include "gpuworker/model/parts_create.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    const char *name;
    int width, layers, heads, head_dim, hidden;
} chronos_bolt_size_t;

/* amazon/chronos-bolt-tiny .. -base: 9, 21, 48 and 205 million parameters, the shapes of T5-efficient's models of these names. */
static const chronos_bolt_size_t sizes[] = {
    {"tiny", 256, 4, 4, 64, 1024}, {"mini", 384, 4, 8, 64, 1536}, {"small", 512, 6, 8, 64, 2048}, {"base", 768, 12, 12, 64, 3072}};
enum { PATCH = 16, CONTEXT = 2048, LENGTH = 64, LEVELS = 9, BUCKETS = 32, NAME_BYTES = 96 };

/* Normal deviates of the levels 0.1 .. 0.9. */
static const float deviates[LEVELS] = {-1.282f, -0.842f, -0.524f, -0.253f, 0, 0.253f, 0.524f, 0.842f, 1.282f};

/* Channels that the path uses. */
enum { CONSTANT, REG, LAST, LEVEL, CHANNELS };

static const float EMBED_NOISE = 0.1f, LAYER_NOISE = 0.1f, HEAD_NOISE = 0.01f; /* deviations beside the constant's 1 */
static const float LOOK = 20;                  /* what the score of the token looked at has more than any other */
static const float SPREAD = 0.1f, RISE = 0.6f; /* of the levels, in units of the scale: at once, along the forecast */

/* ---- layers ------------------------------------------------------------------------------------------------------------------- */

/* A norm and an attention whose output keeps off the path's channels. */
static void add_attention(random_weights_t *weights, const chronos_bolt_size_t *size, const char *layer, const char *kind,
                          float deviation)
{
    char name[NAME_BYTES];

    random_weights_add(weights, 1, 0, size->width, 0, "%s.layer_norm.weight", layer);
    snprintf(name, sizeof name, "%s.%s", layer, kind);
    chronos_create_attention(weights, name, size->width, size->heads, size->head_dim, deviation);
    random_weights_clear_rows(weights, 0, CHANNELS, "%s.o.weight", name);
}

static void add_mlp(random_weights_t *weights, const chronos_bolt_size_t *size, const char *layer, float deviation)
{
    random_weights_add(weights, 1, 0, size->width, 0, "%s.layer_norm.weight", layer);
    random_weights_add_matrix(weights, 1, size->hidden, size->width, "%s.DenseReluDense.wi.weight", layer);
    random_weights_add_matrix(weights, deviation, size->width, size->hidden, "%s.DenseReluDense.wo.weight", layer);
    random_weights_clear_rows(weights, 0, CHANNELS, "%s.DenseReluDense.wo.weight", layer);
}

static void add_stack(random_weights_t *weights, const chronos_bolt_size_t *size, const char *stack, bool decoder)
{
    float deviation = LAYER_NOISE / sqrtf((decoder ? 3.0f : 2.0f) * (float)size->layers);
    char layer[48];

    for (int i = 0; i < size->layers; i++) {
        snprintf(layer, sizeof layer, "%s.block.%d.layer.0", stack, i);
        add_attention(weights, size, layer, "SelfAttention", deviation);
        if (i == 0)
            random_weights_add(weights, 0, 0.5f, BUCKETS, size->heads, "%s.SelfAttention.relative_attention_bias.weight", layer);
        if (decoder) {
            snprintf(layer, sizeof layer, "%s.block.%d.layer.1", stack, i);
            add_attention(weights, size, layer, "EncDecAttention", deviation);
        }
        snprintf(layer, sizeof layer, "%s.block.%d.layer.%d", stack, i, decoder ? 2 : 1);
        add_mlp(weights, size, layer, deviation);
    }
    random_weights_add(weights, 1, 0, size->width, 0, "%s.final_layer_norm.weight", stack);
}

/* A head's rows of q, k and v, to be set one by one. */
static void clear_head(random_weights_t *weights, const chronos_bolt_size_t *size, const char *attention)
{
    for (int i = 0; i < 3; i++)
        random_weights_clear_rows(weights, 0, size->head_dim, "%s.%c.weight", attention, "qkv"[i]);
}

static void set_looking_heads(random_weights_t *weights, const chronos_bolt_size_t *size)
{
    static const char encoder[] = "encoder.block.0.layer.0.SelfAttention", decoder[] = "decoder.block.0.layer.1.EncDecAttention";
    static const char back[] = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    float constant = sqrtf((float)size->width);

    clear_head(weights, size, encoder); /* scores are biases alone: bucket 1 is one token back */
    for (int bucket = 0; bucket < BUCKETS; bucket++)
        random_weights_set(weights, bucket, 0, bucket == 1 ? LOOK : 0, back);
    random_weights_set(weights, 0, LAST, 1, "encoder.block.0.layer.0.SelfAttention.v.weight");
    random_weights_set(weights, LEVEL, 0, 1, "encoder.block.0.layer.0.SelfAttention.o.weight");
    clear_head(weights, size, decoder);
    random_weights_set(weights, 0, CONSTANT, LOOK / constant, "decoder.block.0.layer.1.EncDecAttention.q.weight");
    random_weights_set(weights, 0, REG, 1, "decoder.block.0.layer.1.EncDecAttention.k.weight");
    random_weights_set(weights, 0, LEVEL, 1, "decoder.block.0.layer.1.EncDecAttention.v.weight");
    random_weights_set(weights, LEVEL, 0, 1, "decoder.block.0.layer.1.EncDecAttention.o.weight");
}

/* ---- embedding and head --------------------------------------------------------------------------------------------------------- */

static void add_embedding(random_weights_t *weights, const chronos_bolt_size_t *size)
{
    static const char residual[] = "input_patch_embedding.residual_layer";
    float constant = sqrtf((float)size->width);

    random_weights_add(weights, 0, EMBED_NOISE, 2, size->width, "shared.weight");
    for (int row = 0; row < 2; row++)
        for (int channel = 0; channel < CHANNELS; channel++)
            random_weights_set(weights, row, channel,
                               channel == CONSTANT ? constant
                               : channel == REG    ? (float)row
                                                   : 0,
                               "shared.weight");
    chronos_create_block(weights, "input_patch_embedding", 2 * PATCH, size->hidden, size->width, EMBED_NOISE);
    random_weights_clear_rows(weights, 0, CHANNELS, "input_patch_embedding.output_layer.weight");
    random_weights_clear_rows(weights, 0, CHANNELS, "%s.weight", residual);
    random_weights_set(weights, CONSTANT, 0, constant, "input_patch_embedding.residual_layer.bias");
    random_weights_set(weights, LAST, PATCH - 1, 1, "%s.weight", residual);
}

static void add_head(random_weights_t *weights, const chronos_bolt_size_t *size)
{
    static const char residual[] = "output_patch_embedding.residual_layer";

    chronos_create_block(weights, "output_patch_embedding", size->width, size->hidden, LEVELS * LENGTH, HEAD_NOISE);
    for (int row = 0; row < LEVELS * LENGTH; row++) {
        float rise = sqrtf((float)(row % LENGTH + 1) / LENGTH);

        random_weights_set(weights, row, LEVEL, 1, "%s.weight", residual);
        random_weights_set(weights, row, CONSTANT, deviates[row / LENGTH] * (SPREAD + RISE * rise) / sqrtf((float)size->width),
                           "%s.weight", residual);
    }
}

/* ---- the checkpoint ------------------------------------------------------------------------------------------------------------- */

static void format_config(const chronos_bolt_size_t *size, char *text, size_t room)
{
    snprintf(text, room,
             "{\n"
             "  \"architectures\": [\n"
             "    \"ChronosBoltModelForForecasting\"\n"
             "  ],\n"
             "  \"chronos_config\": {\n"
             "    \"context_length\": %d,\n"
             "    \"input_patch_size\": %d,\n"
             "    \"input_patch_stride\": %d,\n"
             "    \"prediction_length\": %d,\n"
             "    \"quantiles\": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],\n"
             "    \"use_reg_token\": true\n"
             "  },\n"
             "  \"chronos_pipeline_class\": \"ChronosBoltPipeline\",\n"
             "  \"classifier_dropout\": 0.0,\n"
             "  \"d_ff\": %d,\n"
             "  \"d_kv\": %d,\n"
             "  \"d_model\": %d,\n"
             "  \"decoder_start_token_id\": 0,\n"
             "  \"dense_act_fn\": \"relu\",\n"
             "  \"dropout_rate\": 0.1,\n"
             "  \"eos_token_id\": 1,\n"
             "  \"feed_forward_proj\": \"relu\",\n"
             "  \"initializer_factor\": 0.05,\n"
             "  \"is_encoder_decoder\": true,\n"
             "  \"is_gated_act\": false,\n"
             "  \"layer_norm_epsilon\": 1e-06,\n"
             "  \"model_type\": \"t5\",\n"
             "  \"n_positions\": 512,\n"
             "  \"num_decoder_layers\": %d,\n"
             "  \"num_heads\": %d,\n"
             "  \"num_layers\": %d,\n"
             "  \"pad_token_id\": 0,\n"
             "  \"reg_token_id\": 1,\n"
             "  \"relative_attention_max_distance\": 128,\n"
             "  \"relative_attention_num_buckets\": %d,\n"
             "  \"torch_dtype\": \"float32\",\n"
             "  \"use_cache\": true,\n"
             "  \"vocab_size\": 2\n"
             "}\n",
             CONTEXT, PATCH, PATCH, LENGTH, size->hidden, size->head_dim, size->width, size->layers, size->heads, size->layers,
             BUCKETS);
}

int chronos_bolt_create(const char *size_name, uint64_t seed, const char *dir)
{
    const chronos_bolt_size_t *size = CREATE_SIZE("chronos_bolt", sizes, size_name);
    random_weights_t *weights;
    char config[2048];

    if (size == NULL)
        return MODEL_ERR_SHAPE;
    if (random_weights_new(seed, &weights) < 0)
        return MODEL_ERR_MEMORY;
    add_embedding(weights, size);
    add_stack(weights, size, "encoder", false);
    add_stack(weights, size, "decoder", true);
    set_looking_heads(weights, size);
    add_head(weights, size);
    format_config(size, config, sizeof config);
    return create_write(weights, dir, config);
}
