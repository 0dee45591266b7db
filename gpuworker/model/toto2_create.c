/* A Toto 2.0 checkpoint that nobody trained, laid out as the published ones are: for the demo, and to measure with.
 *
 * All weights are random, but for a path through the network that makes its forecasts look like forecasts: level with the newest values, inside
 * a band that opens. Three channels of the residual stream are kept free of noise. LEVEL gets the last value of each patch from the embedding.
 * MISSING gets how much of the patch is missing. In the first layer that attends over time one head looks at the nearest patch that is not
 * missing (its keys fall with MISSING, and equal vectors in rotated pairs score highest at distance 0) and writes that patch's LEVEL into
 * CARRIED, for every token, the empty ones of the horizon too. The head's skip layer adds CARRIED to all quantiles; its biases are the band. */
#include <math.h>
#include <stdio.h>

#include "base/normal.h"
#include "gpuworker/model/parts_create.h"
#include "gpuworker/model/toto2.h"

/* 4m is as published. Of 22m width, layers and d_ff are, of the others only the number of parameters: their widths and layers are the ones that
 * give it (and the bytes of their files); head size 64 and one variate layer in each group are those of 4m, the groups' length is inferred. */
typedef struct {
    const char *name;
    int width, heads, layers, group, hidden, patch;
} toto2_size_t;

static const toto2_size_t sizes[] = {
    {"tiny", 64, 2, 4, 4, 176, 16},      {"4m", 256, 4, 4, 4, 688, 32},     {"22m", 512, 8, 6, 6, 1368, 32},
    {"313m", 1024, 16, 24, 6, 2736, 32}, {"1b", 1536, 24, 36, 6, 4096, 32}, {"2.5b", 2048, 32, 48, 6, 5464, 32},
};
enum { LEVEL, MISSING, CARRIED, CHANNELS }; /* of the residual stream, kept free of noise */
enum { NAME_BYTES = 96 };

static const double RESIDUAL_MULT = 0.75, ROPE_BASE = 10000, TRAINED_PATCHES = 128; /* the published ratio is that of 128 patches */
static const float SHARPNESS = 24.0f; /* of the look at the nearest patch: its score */
static const double SLOWEST = 0.03;   /* the angle a patch of the rotated pairs that take part: slower ones tell no distances */
static const float BAND = 0.7f;       /* deviation at the end of a patch, in the series' scales, squeezed */
static const float NOISE = 0.02f;     /* what random features move a quantile by */
static const float INPUT = 0.3f;      /* what a patch moves the stream by, beside its constant part of deviation 1 */

static double residual_attention_ratio(void)
{
    return sqrt(TRAINED_PATCHES / log(TRAINED_PATCHES));
}

/* The u-muP rule for the weight of residual branch `index` of 2 · layers (attention, mlp, attention, ..). */
static double tau_of(int index, int layers)
{
    double ratio = residual_attention_ratio(), mlp = RESIDUAL_MULT * sqrt(2 / (1 + ratio * ratio)), attention = ratio * mlp;
    int attentions = (index + 1) / 2, mlps = index / 2;

    return (index % 2 == 0 ? attention : mlp) / sqrt(layers + attentions * attention * attention + mlps * mlp * mlp);
}

/* Unit-scaled: weights of deviation `deviation`, whatever the number of inputs; `bias`: the biases' deviation. */
static void add_linear(random_weights_t *weights, const char *name, int outputs, int inputs, float deviation, float bias)
{
    random_weights_add(weights, 0, deviation * sqrtf(3), outputs, inputs, "%s.weight", name);
    random_weights_add(weights, 0, bias * sqrtf(3), outputs, 0, "%s.bias", name);
}

/* The free channels get nothing from this layer. */
static void silence(random_weights_t *weights, const char *name)
{
    random_weights_clear_rows(weights, 0, CHANNELS, "%s.weight", name);
}

/* The stream is mostly constant, so that its norm, by which every layer divides, does not depend much on the series. LEVEL and MISSING are what
 * the scaling by sqrt(inputs) and the block's own sqrt 2 leave of their weights. */
static void add_embedding(random_weights_t *weights, const toto2_size_t *size)
{
    int in = 2 * size->patch, inside = 4 * size->width;
    double exact = sqrt(2.0 * in);

    add_linear(weights, "patch_proj.linear1", inside, in, 1, 0);
    add_linear(weights, "patch_proj.linear2", size->width, inside, INPUT, 0);
    add_linear(weights, "patch_proj.skip_proj", size->width, in, INPUT, (float)exact);
    silence(weights, "patch_proj.linear2");
    silence(weights, "patch_proj.skip_proj");
    for (int channel = 0; channel < CHANNELS; channel++)
        random_weights_set(weights, channel, 0, 0, "patch_proj.skip_proj.bias");
    random_weights_set(weights, LEVEL, size->patch - 1, (float)(exact), "patch_proj.skip_proj.weight");
    for (int i = 0; i < size->patch; i++)
        random_weights_set(weights, MISSING, size->patch + i, (float)(exact / size->patch), "patch_proj.skip_proj.weight");
}

/* Head 0 of a layer: queries and keys are one constant vector in the fast ones of the rotated pairs; the first dimension past them scores the
 * missing ones down; the values of dimension 0 are LEVEL. */
static void look_at_the_nearest(random_weights_t *weights, const toto2_size_t *size, const char *in, const char *out, double tau)
{
    int d = size->width / size->heads, rotated = d / 2, pairs = 1 + (int)(-log(SLOWEST) / log(ROPE_BASE) * rotated / 2);
    double exact = sqrt((double)size->width), each = sqrt((double)SHARPNESS * d / pairs) * exact;
    for (int part = 0; part < 3; part++)
        random_weights_clear_rows(weights, part * size->width, part * size->width + d, "%s.weight", in);
    for (int pair = 0; pair < pairs; pair++) {
        random_weights_set(weights, 2 * pair, 0, (float)(each), "%s.bias", in);
        random_weights_set(weights, size->width + 2 * pair, 0, (float)(each), "%s.bias", in);
    }
    random_weights_set(weights, rotated, 0, (float)(sqrt((double)d) * exact), "%s.bias", in);
    random_weights_set(weights, size->width + rotated, MISSING, (float)(-4 * (double)SHARPNESS * sqrt((double)d) * exact),
                       "%s.weight", in);
    random_weights_set(weights, 2 * size->width, LEVEL, (float)(exact), "%s.weight", in);
    for (int column = 0; column < size->width; column++)
        random_weights_set(weights, CARRIED, column, (float)(column == 0 ? exact / tau : 0), "%s.weight", out);
}

static void add_layer(random_weights_t *weights, const toto2_size_t *size, int layer)
{
    int d = size->width / size->heads;
    char name[NAME_BYTES], out[NAME_BYTES];

    snprintf(name, sizeof name, "transformer.layers.%d.attn.in_proj", layer);
    snprintf(out, sizeof out, "transformer.layers.%d.attn.out_proj", layer);
    add_linear(weights, name, 3 * size->width, size->width, 1, 0);
    add_linear(weights, out, size->width, size->width, 1, 0);
    silence(weights, out);
    if (layer == 0)
        look_at_the_nearest(weights, size, name, out, tau_of(0, size->layers));
    random_weights_add(weights, 0, 0, d, 0, "transformer.layers.%d.attn._pds.per_dim_scale", layer);
    random_weights_add(weights, 0, sqrtf(3), 2 * size->hidden, size->width, "transformer.layers.%d.ffn.fc1.weight", layer);
    random_weights_add(weights, 0, sqrtf(3), size->width, size->hidden, "transformer.layers.%d.ffn.fc2.weight", layer);
    snprintf(name, sizeof name, "transformer.layers.%d.ffn.fc2", layer);
    silence(weights, name);
}

static void add_head(random_weights_t *weights, const toto2_size_t *size)
{
    static const char skip[] = "output_head.param_projection.proj.skip_proj";
    int inside = 4 * size->width, outputs = size->patch * TOTO2_LEVELS;
    double exact = sqrt(2.0) * size->width; /* a readout divides by its inputs */
    double carried = exact;                 /* every residual addition made CARRIED smaller */

    for (int branch = 0; branch < 2 * size->layers; branch++)
        carried *= sqrt(1 + pow(tau_of(branch, size->layers), 2));
    add_linear(weights, "output_head.param_projection.proj.linear1", inside, size->width, 1, 0);
    add_linear(weights, "output_head.param_projection.proj.linear2", outputs, inside, NOISE * sqrtf((float)inside), 0);
    add_linear(weights, skip, outputs, size->width, 0, 0);
    for (int i = 0; i < outputs; i++) {
        double opening = sqrt((i / TOTO2_LEVELS + 1) / (double)size->patch);

        random_weights_set(weights, i, CARRIED, (float)(carried), "%s.weight", skip);
        random_weights_set(weights, i, 0, (float)((double)BAND * opening * normal_quantile((i % TOTO2_LEVELS + 1) / 10.0) * exact),
                           "%s.bias", skip);
    }
}

static void format_config(const toto2_size_t *size, char *text, size_t room)
{
    int d = size->width / size->heads;

    snprintf(text, room,
             "{\n"
             "  \"attn_bias\": true,\n"
             "  \"d_ff\": %d,\n"
             "  \"d_model\": %d,\n"
             "  \"dropout_p\": 0.0,\n"
             "  \"heads_per_group\": 1,\n"
             "  \"layer_group_size\": %d,\n"
             "  \"mlp_bias\": false,\n"
             "  \"norm_eps\": 0.0001,\n"
             "  \"norm_include_weight\": false,\n"
             "  \"num_groups\": %d,\n"
             "  \"num_heads\": %d,\n"
             "  \"num_layers\": %d,\n"
             "  \"num_output_patches\": 1,\n"
             "  \"num_variate_layers_per_group\": 1,\n"
             "  \"patch_size\": %d,\n"
             "  \"per_dim_scale\": true,\n"
             "  \"pre_norm\": true,\n"
             "  \"qk_dim\": %d,\n"
             "  \"qk_norm\": false,\n"
             "  \"qk_norm_include_weight\": false,\n"
             "  \"residual_attn_ratio\": %.15g,\n"
             "  \"residual_mult\": %g,\n"
             "  \"use_xpos\": true,\n"
             "  \"v_dim\": %d,\n"
             "  \"variate_layer_first\": false\n"
             "}\n",
             size->hidden, size->width, size->group, size->heads, size->heads, size->layers, size->patch, d,
             residual_attention_ratio(), RESIDUAL_MULT, d);
}

int toto2_create(const char *size_name, uint64_t seed, const char *dir)
{
    const toto2_size_t *size = CREATE_SIZE("toto2", sizes, size_name);
    random_weights_t *weights;
    char config[1024];

    if (size == NULL)
        return MODEL_ERR_SHAPE;
    if (random_weights_new(seed, &weights) < 0)
        return MODEL_ERR_MEMORY;
    add_embedding(weights, size);
    for (int layer = 0; layer < size->layers; layer++) {
        add_layer(weights, size, layer);
        random_weights_add(weights, (float)tau_of(2 * layer, size->layers), 0, 0, 0, "transformer.layers.%d.attn_tau", layer);
        random_weights_add(weights, (float)tau_of(2 * layer + 1, size->layers), 0, 0, 0, "transformer.layers.%d.mlp_tau", layer);
    }
    add_head(weights, size);
    format_config(size, config, sizeof config);
    return create_write(weights, dir, config);
}
