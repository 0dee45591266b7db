/* Kronos checkpoints that nobody trained, laid out as the published ones are, the tokenizer in DIR/tokenizer: for the demo, and to measure with.
 * Sizes: the published models' config.json.
 *
 * All weights are random, but for one path through the networks that makes their forecasts look like forecasts. In the tokenizer, channel LEVEL
 * carries the mean price and channel VOLUME the volume: bit i of a token's first part is 1 where the price is above the i-th of some
 * thresholds, of its second part where the volume is, and its decoder adds the bits up again. So a token that means something is a row of ones
 * above a row of zeros: its number of ones is its place. In the predictor each place has a channel, where an embedding puts a bump; a head
 * falls off with the square of the distance from it, so that the next token is the last one or one near it: prices and volumes walk at
 * random from where they stand. */
#include <math.h>
#include <stdio.h>

#include "gpuworker/model/kronos.h"
#include "gpuworker/model/parts_create.h"

typedef struct {
    const char *name;
    int width, layers, heads, hidden;
    int tokenizer_width, tokenizer_layers, tokenizer_heads, tokenizer_hidden; /* layers as config.json counts them */
    int bits;                                                                 /* of each part */
    int group; /* a training parameter; tells the 2k tokenizer from the base one */
} kronos_size_t;

static const kronos_size_t sizes[] = {
    {"tiny", 64, 2, 2, 128, 32, 3, 2, 64, 6, 4},
    {"mini", 256, 4, 4, 512, 256, 4, 4, 512, 10, 5},   /* with Kronos-Tokenizer-2k */
    {"small", 512, 8, 8, 1024, 256, 4, 4, 512, 10, 4}, /* with Kronos-Tokenizer-base, as is base */
    {"base", 832, 12, 16, 2048, 256, 4, 4, 512, 10, 4},
};
enum { NAME_BYTES = 96, SUFFIX_BYTES = 32 };

/* Channels of the tokenizer that carry what its bits say. */
enum { LEVEL, VOLUME, CARRIED };

static const float WIDEST = 2;     /* thresholds lie between ± so many deviations of the window */
static const float BUMP = 4;       /* of the places in the embedding, against random features of 1 */
static const float NARROW = 0.13f; /* how fast the heads fall off: a step is some 0.8 places then */
static const float NEVER = -30, FEATURE = 0.03f, WICK = 0.15f;

/* ---- parts ---------------------------------------------------------------------------------------------------------------------- */

/* Weights whose outputs have `deviation` when their inputs have 1, and a small random bias. */
static void add_linear(random_weights_t *weights, const char *name, int outputs, int inputs, float deviation)
{
    random_weights_add_matrix(weights, deviation, outputs, inputs, "%s.weight", name);
    random_weights_add(weights, 0, 0.05f * deviation, outputs, 0, "%s.bias", name);
}

/* A row of a linear layer that reads one input and nothing else. */
static void pass_through(random_weights_t *weights, const char *name, int64_t row, int64_t column, float factor, float bias)
{
    random_weights_clear_rows(weights, row, row + 1, "%s.weight", name);
    random_weights_set(weights, row, column, factor, "%s.weight", name);
    random_weights_set(weights, row, 0, bias, "%s.bias", name);
}

/* A transformer block that leaves the first `carried` channels alone. */
static void add_block(random_weights_t *weights, const char *name, int width, int hidden, int blocks, int carried)
{
    static const char *const projections[] = {".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"};
    float deviation = random_weights_spread(6 * blocks); /* 2 additions a block: together they add what the embedding holds */
    char text[NAME_BYTES + SUFFIX_BYTES];

    random_weights_add(weights, 1, 0, width, 0, "%s.norm1.weight", name);
    random_weights_add(weights, 1, 0, width, 0, "%s.norm2.weight", name);
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s%s", name, projections[i]);
        add_linear(weights, text, width, width, 1);
    }
    snprintf(text, sizeof text, "%s.self_attn.out_proj", name);
    add_linear(weights, text, width, width, deviation);
    random_weights_add_matrix(weights, 1, hidden, width, "%s.ffn.w1.weight", name);
    random_weights_add_matrix(weights, 1, hidden, width, "%s.ffn.w3.weight", name);
    random_weights_add_matrix(weights, deviation, width, hidden, "%s.ffn.w2.weight", name);
    random_weights_clear_rows(weights, 0, carried, "%s.weight", text);
    random_weights_clear_rows(weights, 0, carried, "%s.bias", text);
    random_weights_clear_rows(weights, 0, carried, "%s.ffn.w2.weight", name);
}

static void add_stack(random_weights_t *weights, const char *name, int width, int hidden, int blocks, int carried)
{
    char text[NAME_BYTES];

    for (int b = 0; b < blocks; b++) {
        snprintf(text, sizeof text, "%s.%d", name, b);
        add_block(weights, text, width, hidden, blocks, carried);
    }
}

/* ---- tokenizer -------------------------------------------------------------------------------------------------------------------- */

static void add_tokenizer(random_weights_t *weights, const kronos_size_t *size)
{
    int width = size->tokenizer_width, blocks = size->tokenizer_layers - 1, bits = size->bits;
    float unit = 1 / sqrtf(2.0f * (float)bits);

    add_linear(weights, "embed", width, KRONOS_FIELDS, 1);
    pass_through(weights, "embed", LEVEL, 0, 0.25f, 0);
    for (int price = 1; price < 4; price++)
        random_weights_set(weights, LEVEL, price, 0.25f, "embed.weight");
    pass_through(weights, "embed", VOLUME, 4, 1, 0);
    add_stack(weights, "encoder", width, size->tokenizer_hidden, blocks, CARRIED);
    add_stack(weights, "decoder", width, size->tokenizer_hidden, blocks, CARRIED);
    add_linear(weights, "quant_embed", 2 * bits, width, 1);
    add_linear(weights, "post_quant_embed_pre", width, bits, 1);
    add_linear(weights, "post_quant_embed", width, 2 * bits, sqrtf(2.0f * (float)bits)); /* its inputs are ±unit */
    for (int channel = LEVEL; channel < CARRIED; channel++) {
        random_weights_clear_rows(weights, channel, channel + 1, "post_quant_embed.weight");
        random_weights_clear_rows(weights, channel, channel + 1, "post_quant_embed.bias");
        for (int i = 0; i < bits; i++) {
            int64_t bit = channel * bits + i;

            pass_through(weights, "quant_embed", bit, channel, 1, WIDEST * (1 - (2 * (float)i + 1) / (float)bits));
            random_weights_set(weights, channel, bit, WIDEST / ((float)bits * unit), "post_quant_embed.weight");
        }
    }
    add_linear(weights, "head", KRONOS_FIELDS, width, FEATURE);
    for (int field = 0; field < KRONOS_FIELDS; field++) {
        random_weights_set(weights, field, LEVEL, field < 4, "head.weight");
        random_weights_set(weights, field, VOLUME, field >= 4, "head.weight");
        random_weights_set(weights, field, 0, field == 1 ? WICK : field == 2 ? -WICK : 0, "head.bias");
    }
}

/* ---- predictor -------------------------------------------------------------------------------------------------------------------- */

/* Of each part of a token: its embedding, its share of the fused one, its head. Its places have the channels from `from` on. */
static void add_part(random_weights_t *weights, const kronos_size_t *size, int part)
{
    int places = size->bits + 1, from = part * places, vocabulary = 1 << size->bits;
    char embedding[NAME_BYTES], head[NAME_BYTES];

    snprintf(embedding, sizeof embedding, "embedding.emb_s%d", part + 1);
    snprintf(head, sizeof head, "head.proj_s%d", part + 1);
    random_weights_add_matrix(weights, 1, vocabulary, size->width, "%s.weight", embedding);
    random_weights_add(weights, 0, 0, vocabulary, size->width, "%s.weight", head);
    random_weights_add(weights, NEVER, 0, vocabulary, 0, "%s.bias", head);
    for (int place = 0; place < places; place++) {
        int64_t token = (1 << place) - 1;

        for (int other = 0; other < places; other++) {
            float distance = (float)(place - other);
            random_weights_set(weights, token, from + other, BUMP * expf(-distance * distance / 2) / sqrtf((float)size->width),
                               "%s.weight", embedding);
            random_weights_set(weights, token, from + other, -NARROW * distance * distance, "%s.weight", head);
        }
        random_weights_set(weights, token, 0, 0, "%s.bias", head);
        pass_through(weights, "embedding.fusion_proj", from + place, part * size->width + from + place, 1, 0);
    }
}

static void add_predictor(random_weights_t *weights, const kronos_size_t *size)
{
    static const struct {
        const char *name;
        int entries;
    } times[KRONOS_TIMES] = {{"minute", 60}, {"hour", 24}, {"weekday", 7}, {"day", 32}, {"month", 13}};
    static const char *const projections[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    int width = size->width, carried = 2 * (size->bits + 1);
    char text[NAME_BYTES];

    add_linear(weights, "embedding.fusion_proj", width, 2 * width, 1);
    add_part(weights, size, 0);
    add_part(weights, size, 1);
    for (int i = 0; i < KRONOS_TIMES; i++) {
        snprintf(text, sizeof text, "time_emb.%s_embed", times[i].name);
        random_weights_add(weights, 0, 0.3f, times[i].entries, width, "%s.weight", text);
        for (int entry = 0; entry < times[i].entries; entry++)
            for (int channel = 0; channel < carried; channel++)
                random_weights_set(weights, entry, channel, 0, "%s.weight", text);
    }
    add_stack(weights, "transformer", width, size->hidden, size->layers, carried);
    random_weights_add(weights, 1, 0, width, 0, "norm.weight");
    for (size_t i = 0; i < sizeof projections / sizeof *projections; i++) {
        snprintf(text, sizeof text, "dep_layer.cross_attn.%s", projections[i]);
        add_linear(weights, text, width, width, 1);
    }
    random_weights_clear_rows(weights, 0, carried, "%s.weight", text);
    random_weights_clear_rows(weights, 0, carried, "%s.bias", text);
    random_weights_add(weights, 1, 0, width, 0, "dep_layer.norm.weight");
}

/* ---- both --------------------------------------------------------------------------------------------------------------------------- */

static void format_predictor(const kronos_size_t *size, char *text, size_t room)
{
    snprintf(text, room,
             "{\n"
             "  \"attn_dropout_p\": 0.0,\n"
             "  \"d_model\": %d,\n"
             "  \"ff_dim\": %d,\n"
             "  \"ffn_dropout_p\": 0.2,\n"
             "  \"learn_te\": true,\n"
             "  \"n_heads\": %d,\n"
             "  \"n_layers\": %d,\n"
             "  \"resid_dropout_p\": 0.2,\n"
             "  \"s1_bits\": %d,\n"
             "  \"s2_bits\": %d,\n"
             "  \"token_dropout_p\": 0.0\n"
             "}\n",
             size->width, size->hidden, size->heads, size->layers, size->bits, size->bits);
}

static void format_tokenizer(const kronos_size_t *size, char *text, size_t room)
{
    snprintf(text, room,
             "{\n"
             "  \"attn_dropout_p\": 0.0,\n"
             "  \"beta\": 0.05,\n"
             "  \"d_in\": %d,\n"
             "  \"d_model\": %d,\n"
             "  \"ff_dim\": %d,\n"
             "  \"ffn_dropout_p\": 0.0,\n"
             "  \"gamma\": 1.1,\n"
             "  \"gamma0\": 1.0,\n"
             "  \"group_size\": %d,\n"
             "  \"n_dec_layers\": %d,\n"
             "  \"n_enc_layers\": %d,\n"
             "  \"n_heads\": %d,\n"
             "  \"resid_dropout_p\": 0.0,\n"
             "  \"s1_bits\": %d,\n"
             "  \"s2_bits\": %d,\n"
             "  \"zeta\": 0.05\n"
             "}\n",
             KRONOS_FIELDS, size->tokenizer_width, size->tokenizer_hidden, size->group, size->tokenizer_layers,
             size->tokenizer_layers, size->tokenizer_heads, size->bits, size->bits);
}

static int write_part(const kronos_size_t *size, uint64_t seed, const char *dir,
                      void (*add)(random_weights_t *weights, const kronos_size_t *size),
                      void (*format)(const kronos_size_t *size, char *text, size_t room))
{
    random_weights_t *weights;
    char config[1024];

    if (random_weights_new(seed, &weights) < 0)
        return MODEL_ERR_MEMORY;
    add(weights, size);
    format(size, config, sizeof config);
    return create_write(weights, dir, config);
}

int kronos_create(const char *size_name, uint64_t seed, const char *dir)
{
    const kronos_size_t *size = CREATE_SIZE("kronos", sizes, size_name);
    char path[4096];
    int rc;

    if (size == NULL)
        return MODEL_ERR_SHAPE;
    if ((rc = write_part(size, seed, dir, add_predictor, format_predictor)) < 0)
        return rc;
    snprintf(path, sizeof path, "%s/tokenizer", dir);
    return write_part(size, seed, path, add_tokenizer, format_tokenizer);
}
