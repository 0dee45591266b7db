/* Loading of a Kronos tokenizer, as published on Hugging Face (NeoQuasar/Kronos-Tokenizer-base, -2k). The published models keep it in a
 * repository of its own: here it is looked for in the model's directory as tokenizer/, then beside that directory under its published name. */
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "gpuworker/model/kronos.h"

enum { PATH_BYTES = 4096 };

static bool has_config(const char *dir)
{
    char path[PATH_BYTES + 16];

    snprintf(path, sizeof path, "%s/config.json", dir);
    return access(path, R_OK) == 0;
}

/* Kronos-mini was trained with the 2k tokenizer, the others with the base one. */
static int find_tokenizer(const char *dir, char path[PATH_BYTES])
{
    char name[PATH_BYTES];
    const char *published;

    snprintf(path, PATH_BYTES, "%s/tokenizer", dir);
    if (has_config(path))
        return MODEL_OK;
    snprintf(name, sizeof name, "%s", dir);
    published = strstr(basename(name), "mini") != NULL ? "Kronos-Tokenizer-2k" : "Kronos-Tokenizer-base";
    snprintf(path, PATH_BYTES, "%s/../%s", dir, published);
    if (has_config(path))
        return MODEL_OK;
    return error_set(MODEL_ERR_CHECKPOINT, "%s: no tokenizer: expected its checkpoint in %s/tokenizer, or beside it as %s", dir,
                     dir, published);
}

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

static void expect_value(loader_t *loader, const char *key, int64_t wanted)
{
    int64_t value = wanted;
    char is[24], expected[24];

    loader_config_i64(loader, key, 0, INT32_MAX, &value);
    snprintf(is, sizeof is, "%lld", (long long)value);
    snprintf(expected, sizeof expected, "%lld", (long long)wanted);
    loader_expect(loader, value == wanted, key, is, expected);
}

static void read_config(loader_t *loader, model_t *model)
{
    kronos_stack_t *encoder = &model->encoder, *decoder = &model->decoder;

    expect_value(loader, "d_in", KRONOS_FIELDS);
    expect_value(loader, "s1_bits", model->bits_1);
    expect_value(loader, "s2_bits", model->bits_2);
    loader_config_i64(loader, "d_model", 2, 65536, &encoder->width);
    loader_config_i64(loader, "n_heads", 1, 1024, &encoder->heads);
    loader_config_i64(loader, "ff_dim", 1, 1 << 20, &encoder->hidden);
    loader_config_i64(loader, "n_enc_layers", 1, 256, &encoder->count);
    loader_config_i64(loader, "n_dec_layers", 1, 256, &decoder->count);
    if (loader->rc < 0)
        return;
    loader_expect(loader, encoder->width % (2 * encoder->heads) == 0, "n_heads", "no divisor of d_model into even heads", "one");
    encoder->count--; /* the official class makes one block less than the key says */
    decoder->count--;
    decoder->width = encoder->width;
    decoder->heads = encoder->heads;
    decoder->hidden = encoder->hidden;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------------ */

/* The decoder reads a token's bits as ±1/sqrt(bits), times a matrix: of each part of the token that is one of 2^bits sums of its columns. */
static void load_codes(loader_t *loader, model_t *model)
{
    int64_t width = model->decoder.width, bits = model->bits_1 + model->bits_2;
    float *weight = loader_read(loader, DIMS(width, bits), "post_quant_embed.weight");
    double unit = 1 / sqrt((double)bits);

    for (int part = 0; part < 2; part++) {
        int64_t vocabulary = kronos_vocabulary(model, part), from = part == 0 ? 0 : model->bits_1;
        int part_bits = part == 0 ? model->bits_1 : model->bits_2;
        float *table = loader_calloc(loader, vocabulary * width, sizeof *table);

        for (int64_t i = 0; loader->rc == MODEL_OK && i < vocabulary * width; i++) {
            const float *row = weight + i % width * bits + from;
            double sum = 0;

            for (int bit = 0; bit < part_bits; bit++)
                sum += (i / width >> bit & 1 ? unit : -unit) * (double)row[bit];
            table[i] = (float)sum;
        }
        loader_upload(loader, "post_quant_embed", BACKEND_F32, DIMS(vocabulary, width), table, &model->code[part]);
        free(table);
    }
    loader_weight(loader, &model->code_bias, DIMS(width), "post_quant_embed.bias");
    free(weight);
}

static void load_weights(loader_t *loader, model_t *model)
{
    int64_t width = model->encoder.width, bits = model->bits_1 + model->bits_2;

    loader->precision = BACKEND_F32;
    loader_weight(loader, &model->embed, DIMS(width, KRONOS_FIELDS), "embed.weight");
    loader_weight(loader, &model->embed_bias, DIMS(width), "embed.bias");
    kronos_stack_load(loader, &model->encoder, "encoder");
    loader_weight(loader, &model->quantise, DIMS(bits, width), "quant_embed.weight");
    loader_weight(loader, &model->quantise_bias, DIMS(bits), "quant_embed.bias");
    loader->precision = model->base.precision;
    load_codes(loader, model);
    kronos_stack_load(loader, &model->decoder, "decoder");
    loader_weight(loader, &model->head, DIMS(KRONOS_FIELDS, width), "head.weight");
    loader_weight(loader, &model->head_bias, DIMS(KRONOS_FIELDS), "head.bias");
    loader_ignore(loader, "post_quant_embed_pre."); /* for training only */
    loader_ignore(loader, "tokenizer.bsq.");        /* the powers of 2 */
    loader_ignore(loader, ".rotary.inv_freq");      /* computed here */
}

static int load_checkpoint(model_t *model, const checkpoint_t *checkpoint)
{
    loader_t loader;

    if (loader_open(&loader, &model->base, checkpoint) == MODEL_OK)
        read_config(&loader, model);
    if (loader.rc == MODEL_OK)
        load_weights(&loader, model);
    if (loader_close(&loader) < 0)
        return error_add(loader.rc, "tokenizer");
    model->base.parameters += loader.parameters;
    return MODEL_OK;
}

void kronos_tokenizer_load(model_t *model, loader_t *predictor)
{
    char path[PATH_BYTES];
    checkpoint_t *checkpoint;

    if (predictor->rc < 0 || (predictor->rc = find_tokenizer(checkpoint_path(predictor->checkpoint), path)) < 0)
        return;
    if (checkpoint_open(path, &checkpoint) < 0) {
        predictor->rc = MODEL_ERR_CHECKPOINT;
        return;
    }
    predictor->rc = load_checkpoint(model, checkpoint);
    loader_cover(predictor, checkpoint);
    checkpoint_close(checkpoint);
}
