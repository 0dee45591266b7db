/* A Chronos-2 checkpoint that nobody trained, laid out as the published one is: for the demo, and to measure with.
 *
 * All weights are random, but for one path through the network that makes its forecasts look like forecasts. A constant fills most of a hidden
 * state, so that no norm changes much; a few channels beside it hold a patch's time, whether its last bar was observed, and that bar's value.
 * The first head of the first layer looks, from everywhere, at the newest patch whose last bar was observed, and copies that value; the output
 * head spreads its levels around it, wider with every bar. What the rest of the network computes moves them a little. */
#include "gpuworker/model/chronos_parts.h"
#include "gpuworker/model/parts_create.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    const char *name;
    int width, layers, heads, head_dim, hidden, context, output_patches;
} chronos2_size_t;

/* amazon/chronos-2 has 120 million parameters. Of autogluon/chronos-2-small only their number, 28 million, is known here: its shape is inferred
 * from that, as Chronos-T5's small one. */
static const chronos2_size_t sizes[] = {
    {"tiny", 64, 4, 2, 32, 128, 512, 4}, {"small", 512, 6, 8, 64, 2048, 8192, 64}, {"120m", 768, 12, 12, 64, 3072, 8192, 64}};
enum { PATCH = 16, LEVELS = 21, NAME_BYTES = 96 };

static const char quantiles[] =
    "0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99";
/* Normal deviates of these levels. */
static const float deviates[LEVELS] = {-2.326f, -1.645f, -1.282f, -1.036f, -0.842f, -0.674f, -0.524f, -0.385f, -0.253f, -0.126f, 0,
                                       0.126f,  0.253f,  0.385f,  0.524f,  0.674f,  0.842f,  1.036f,  1.282f,  1.645f,  2.326f};

/* Channels that the path uses. */
enum { CONSTANT, TIME, OBSERVED, LAST, LEVEL, CHANNELS };

static const float EMBED_NOISE = 0.1f, LAYER_NOISE = 0.1f, HEAD_NOISE = 0.01f; /* deviations beside the constant's 1 */
static const float QUERY = 40;                                                 /* the looking head's query */
static const float DROP = 6;                                                   /* in its score, from a patch to the one before */
static const float FUTURE = 0.25f; /* what an observation weighs, as a time: more than one pass's horizon, 1/8 of the context */
static const float SPREAD = 0.05f, RISE = 0.15f,
                   FAR = 4; /* of the levels, in asinh of the scale: at once, along a patch, over all times */

/* ---- layers ------------------------------------------------------------------------------------------------------------------- */

/* One of the two attentions of a layer and its norm; the output keeps off the path's channels. */
static void add_attention(random_weights_t *weights, const chronos2_size_t *size, int layer, int part, float deviation)
{
    char name[NAME_BYTES];

    random_weights_add(weights, 1, 0, size->width, 0, "encoder.block.%d.layer.%d.layer_norm.weight", layer, part);
    snprintf(name, sizeof name, "encoder.block.%d.layer.%d.self_attention", layer, part);
    chronos_create_attention(weights, name, size->width, size->heads, size->head_dim, deviation);
    random_weights_clear_rows(weights, 0, CHANNELS, "%s.o.weight", name);
}

static void add_layer(random_weights_t *weights, const chronos2_size_t *size, int layer)
{
    float deviation = LAYER_NOISE / sqrtf(3.0f * (float)size->layers);

    add_attention(weights, size, layer, 0, deviation);
    add_attention(weights, size, layer, 1, deviation);
    random_weights_add(weights, 1, 0, size->width, 0, "encoder.block.%d.layer.2.layer_norm.weight", layer);
    random_weights_add_matrix(weights, 1, size->hidden, size->width, "encoder.block.%d.layer.2.mlp.wi.weight", layer);
    random_weights_add_matrix(weights, deviation, size->width, size->hidden, "encoder.block.%d.layer.2.mlp.wo.weight", layer);
    random_weights_clear_rows(weights, 0, CHANNELS, "encoder.block.%d.layer.2.mlp.wo.weight", layer);
}

/* The head that looks at the newest observation: its score is in the two pairs of elements that turn slowest. */
static void set_looking_head(random_weights_t *weights, const chronos2_size_t *size)
{
    static const char q[] = "encoder.block.0.layer.0.self_attention.q", k[] = "encoder.block.0.layer.0.self_attention.k";
    static const char v[] = "encoder.block.0.layer.0.self_attention.v", o[] = "encoder.block.0.layer.0.self_attention.o";
    int time = size->head_dim / 2 - 1, observed = size->head_dim / 2 - 2;
    float per_time = DROP / QUERY * (float)size->context / PATCH; /* in front of the query, whose constant is sqrt(width) */

    random_weights_clear_rows(weights, 0, size->head_dim, "%s.weight", q);
    random_weights_clear_rows(weights, 0, size->head_dim, "%s.weight", k);
    random_weights_clear_rows(weights, 0, size->head_dim, "%s.weight", v);
    random_weights_set(weights, time, CONSTANT, QUERY / sqrtf((float)size->width), "%s.weight", q);
    random_weights_set(weights, observed, CONSTANT, QUERY / sqrtf((float)size->width), "%s.weight", q);
    random_weights_set(weights, time, TIME, per_time, "%s.weight", k);
    random_weights_set(weights, observed, OBSERVED, FUTURE * per_time, "%s.weight", k);
    random_weights_set(weights, 0, LAST, 1, "%s.weight", v);
    random_weights_set(weights, LEVEL, 0, 1, "%s.weight", o);
}

/* ---- embedding and head --------------------------------------------------------------------------------------------------------- */

static void add_embedding(random_weights_t *weights, const chronos2_size_t *size)
{
    static const char residual[] = "input_patch_embedding.residual_layer";
    float constant = sqrtf((float)size->width);

    random_weights_add(weights, 0, EMBED_NOISE, 2, size->width, "shared.weight");
    for (int channel = 0; channel < CHANNELS; channel++)
        random_weights_set(weights, 1, channel, channel == CONSTANT ? constant : 0, "shared.weight");
    chronos_create_block(weights, "input_patch_embedding", 3 * PATCH, size->hidden, size->width, EMBED_NOISE);
    random_weights_clear_rows(weights, 0, CHANNELS, "input_patch_embedding.output_layer.weight");
    random_weights_clear_rows(weights, 0, CHANNELS, "%s.weight", residual);
    random_weights_set(weights, CONSTANT, 0, constant, "input_patch_embedding.residual_layer.bias");
    random_weights_set(weights, TIME, PATCH - 1, 1, "%s.weight", residual);
    random_weights_set(weights, OBSERVED, 3 * PATCH - 1, 1, "%s.weight", residual);
    random_weights_set(weights, LAST, 2 * PATCH - 1, 1, "%s.weight", residual);
}

static void add_head(random_weights_t *weights, const chronos2_size_t *size)
{
    static const char residual[] = "output_patch_embedding.residual_layer";

    random_weights_add(weights, 1, 0, size->width, 0, "encoder.final_layer_norm.weight");
    chronos_create_block(weights, "output_patch_embedding", size->width, size->hidden, LEVELS * PATCH, HEAD_NOISE);
    for (int row = 0; row < LEVELS * PATCH; row++) {
        float rise = (float)(row % PATCH + 1) / PATCH;

        random_weights_set(weights, row, LEVEL, 1, "%s.weight", residual);
        random_weights_set(weights, row, TIME, FAR * deviates[row / PATCH], "%s.weight", residual);
        random_weights_set(weights, row, CONSTANT, deviates[row / PATCH] * (SPREAD + RISE * rise) / sqrtf((float)size->width),
                           "%s.weight", residual);
    }
}

/* ---- the checkpoint ------------------------------------------------------------------------------------------------------------- */

static void format_config(const chronos2_size_t *size, char *text, size_t room)
{
    snprintf(text, room,
             "{\n"
             "  \"architectures\": [\n"
             "    \"Chronos2Model\"\n"
             "  ],\n"
             "  \"chronos_config\": {\n"
             "    \"context_length\": %d,\n"
             "    \"input_patch_size\": %d,\n"
             "    \"input_patch_stride\": %d,\n"
             "    \"max_output_patches\": %d,\n"
             "    \"output_patch_size\": %d,\n"
             "    \"quantiles\": [%s],\n"
             "    \"time_encoding_scale\": %d,\n"
             "    \"use_arcsinh\": true,\n"
             "    \"use_reg_token\": true\n"
             "  },\n"
             "  \"chronos_pipeline_class\": \"Chronos2Pipeline\",\n"
             "  \"d_ff\": %d,\n"
             "  \"d_kv\": %d,\n"
             "  \"d_model\": %d,\n"
             "  \"dense_act_fn\": \"relu\",\n"
             "  \"dropout_rate\": 0.1,\n"
             "  \"feed_forward_proj\": \"relu\",\n"
             "  \"initializer_factor\": 0.05,\n"
             "  \"is_gated_act\": false,\n"
             "  \"layer_norm_epsilon\": 1e-06,\n"
             "  \"model_type\": \"t5\",\n"
             "  \"num_heads\": %d,\n"
             "  \"num_layers\": %d,\n"
             "  \"pad_token_id\": 0,\n"
             "  \"reg_token_id\": 1,\n"
             "  \"rope_theta\": 10000.0,\n"
             "  \"torch_dtype\": \"float32\",\n"
             "  \"vocab_size\": 2\n"
             "}\n",
             size->context, PATCH, PATCH, size->output_patches, PATCH, quantiles, size->context, size->hidden, size->head_dim,
             size->width, size->heads, size->layers);
}

int chronos2_create(const char *size_name, uint64_t seed, const char *dir)
{
    const chronos2_size_t *size = CREATE_SIZE("chronos2", sizes, size_name);
    random_weights_t *weights;
    char config[2048];

    if (size == NULL)
        return MODEL_ERR_SHAPE;
    if (random_weights_new(seed, &weights) < 0)
        return MODEL_ERR_MEMORY;
    add_embedding(weights, size);
    for (int layer = 0; layer < size->layers; layer++)
        add_layer(weights, size, layer);
    set_looking_head(weights, size);
    add_head(weights, size);
    format_config(size, config, sizeof config);
    return create_write(weights, dir, config);
}
