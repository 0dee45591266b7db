/* A Toto 1.0 checkpoint that nobody trained, laid out as the published ones are: for the demo, and to measure with.
 *
 * All weights are random, but for one path through the network that makes its forecasts look like forecasts. The last value of each patch
 * travels untouched in channel 0 of the residual stream to the head, where it is the location of every mixture component: the forecast
 * continues from where the series stands. Channel 1 of the unembedded features rises with the position in the patch and widens the scale:
 * the band opens like a fan. What the rest of the network computes moves location, scale, tails and mixture a little. */
#include "gpuworker/model/parts_create.h"

#include <stdio.h>

typedef struct {
    const char *name;
    int embed, layers, heads, mlp, patch, components, spacewise_every;
} toto1_size_t;

static const toto1_size_t sizes[] = {
    {"tiny", 64, 4, 2, 128, 16, 4, 4}, {"base", 768, 12, 12, 3072, 64, 24, 12}, /* Toto-Open-Base-1.0 */
};
/* Channels that the path uses. */
enum { LEVEL = 0, WIDTH = 1 };

enum { NAME_BYTES = 96 };

/* The heads before their positivity transforms: df = 2 + softplus(3) ~ 5, scale = softplus(-3 .. -1) ~ 0.05 .. 0.3 along a patch. */
static const float DF_BIAS = 3.0f, SCALE_BIAS = -3.0f, SCALE_RISE = 2.0f;
/* How far the random features move them: the deviation that features of deviation 1 cause. */
static const float DF_NOISE = 0.2f, LOC_NOISE = 0.03f, SCALE_NOISE = 0.1f, LOGIT_NOISE = 0.5f;

/* Weights whose outputs have `deviation` when their inputs have 1, and a smaller random part in the bias. */
static void add_linear(random_weights_t *weights, const char *name, int outputs, int inputs, float deviation, float bias)
{
    random_weights_add_matrix(weights, deviation, outputs, inputs, "%s.weight", name);
    random_weights_add(weights, bias, 0.1f * deviation, outputs, 0, "%s.bias", name);
}

/* Output `channel` of a linear layer becomes 0. */
static void silence(random_weights_t *weights, const char *name, int channel)
{
    random_weights_clear_rows(weights, channel, channel + 1, "%s.weight", name);
    random_weights_clear_rows(weights, channel, channel + 1, "%s.bias", name);
}

static void add_layer(random_weights_t *weights, const toto1_size_t *size, int layer)
{
    float deviation = random_weights_spread(6 * size->layers); /* 2 additions a layer: together they add what the embedding holds */
    char name[NAME_BYTES];
    int at = snprintf(name, sizeof name, "model.transformer.layers.%d.", layer);
    size_t room = sizeof name - (size_t)at;

    random_weights_add(weights, 1, 0, size->embed, 0, "%snorm1.scale", name);
    random_weights_add(weights, 1, 0, size->embed, 0, "%snorm2.scale", name);
    snprintf(name + at, room, "attention.wQKV");
    add_linear(weights, name, 3 * size->embed, size->embed, 1, 0);
    snprintf(name + at, room, "attention.wO");
    add_linear(weights, name, size->embed, size->embed, deviation, 0);
    silence(weights, name, LEVEL);
    snprintf(name + at, room, "mlp.0.w12");
    add_linear(weights, name, 2 * size->mlp, size->embed, 1, 0);
    snprintf(name + at, room, "mlp.0.w3");
    add_linear(weights, name, size->embed, size->mlp, deviation, 0);
    silence(weights, name, LEVEL);
}

static void add_embedding(random_weights_t *weights, const toto1_size_t *size)
{
    static const char name[] = "model.patch_embed.projection";
    add_linear(weights, name, size->embed, size->patch, 1, 0);
    silence(weights, name, LEVEL);
    random_weights_set(weights, LEVEL, size->patch - 1, 1, "model.patch_embed.projection.weight");
}

static void add_unembedding(random_weights_t *weights, const toto1_size_t *size)
{
    static const char name[] = "model.unembed";
    add_linear(weights, name, size->patch * size->embed, size->embed, 1, 0);
    for (int position = 0; position < size->patch; position++) {
        int channel = position * size->embed;
        silence(weights, name, channel + LEVEL);
        silence(weights, name, channel + WIDTH);
        random_weights_set(weights, channel + LEVEL, LEVEL, 1, "model.unembed.weight");
        random_weights_set(weights, channel + WIDTH, 0, (float)(position + 1) / (float)size->patch, "model.unembed.bias");
    }
}

static void add_heads(random_weights_t *weights, const toto1_size_t *size)
{
    add_linear(weights, "model.output_distribution.df", size->components, size->embed, DF_NOISE, DF_BIAS);
    add_linear(weights, "model.output_distribution.loc_proj", size->components, size->embed, LOC_NOISE, 0);
    add_linear(weights, "model.output_distribution.scale_proj", size->components, size->embed, SCALE_NOISE, SCALE_BIAS);
    add_linear(weights, "model.output_distribution.mixture_weights", size->components, size->embed, LOGIT_NOISE, 0);
    for (int component = 0; component < size->components; component++) {
        random_weights_set(weights, component, LEVEL, 1, "model.output_distribution.loc_proj.weight");
        random_weights_set(weights, component, LEVEL, 0, "model.output_distribution.scale_proj.weight");
        random_weights_set(weights, component, WIDTH, SCALE_RISE, "model.output_distribution.scale_proj.weight");
    }
}

static void format_config(const toto1_size_t *size, char *text, size_t room)
{
    snprintf(text, room,
             "{\n"
             "  \"dropout\": 0.1,\n"
             "  \"embed_dim\": %d,\n"
             "  \"mlp_hidden_dim\": %d,\n"
             "  \"num_heads\": %d,\n"
             "  \"num_layers\": %d,\n"
             "  \"output_distribution_classes\": [\n"
             "    \"<class 'model.distribution.MixtureOfStudentTsOutput'>\"\n"
             "  ],\n"
             "  \"output_distribution_kwargs\": {\n"
             "    \"k_components\": %d\n"
             "  },\n"
             "  \"patch_size\": %d,\n"
             "  \"scale_factor_exponent\": 10.0,\n"
             "  \"scaler_cls\": \"<class 'model.scaler.CausalPatchStdMeanScaler'>\",\n"
             "  \"spacewise_every_n_layers\": %d,\n"
             "  \"spacewise_first\": false,\n"
             "  \"stabilize_with_global\": true,\n"
             "  \"stride\": %d,\n"
             "  \"use_memory_efficient_attention\": true\n"
             "}\n",
             size->embed, size->mlp, size->heads, size->layers, size->components, size->patch, size->spacewise_every, size->patch);
}

int toto1_create(const char *size_name, uint64_t seed, const char *dir)
{
    const toto1_size_t *size = CREATE_SIZE("toto1", sizes, size_name);
    random_weights_t *weights;
    char config[1024];

    if (size == NULL)
        return MODEL_ERR_SHAPE;
    if (random_weights_new(seed, &weights) < 0)
        return MODEL_ERR_MEMORY;
    add_embedding(weights, size);
    for (int layer = 0; layer < size->layers; layer++)
        add_layer(weights, size, layer);
    add_unembedding(weights, size);
    add_heads(weights, size);
    format_config(size, config, sizeof config);
    return create_write(weights, dir, config);
}
