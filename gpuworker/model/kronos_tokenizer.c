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

static int check_value(const checkpoint_t *checkpoint, const char *key, int64_t wanted)
{
    int64_t value;

    if (checkpoint_config_i64(checkpoint, key, 0, INT32_MAX, &value) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (value != wanted)
        return error_set(MODEL_ERR_CHECKPOINT, "config.json: %s is %lld, expected %lld", key, (long long)value, (long long)wanted);
    return MODEL_OK;
}

static int read_config(const checkpoint_t *checkpoint, model_t *model)
{
    kronos_stack_t *encoder = &model->encoder, *decoder = &model->decoder;
    int rc;

    if ((rc = check_value(checkpoint, "d_in", KRONOS_FIELDS)) < 0 || (rc = check_value(checkpoint, "s1_bits", model->bits_1)) < 0 ||
        (rc = check_value(checkpoint, "s2_bits", model->bits_2)) < 0)
        return rc;
    if (checkpoint_config_i64(checkpoint, "d_model", 2, 65536, &encoder->width) < 0 ||
        checkpoint_config_i64(checkpoint, "n_heads", 1, 1024, &encoder->heads) < 0 ||
        checkpoint_config_i64(checkpoint, "ff_dim", 1, 1 << 20, &encoder->hidden) < 0 ||
        checkpoint_config_i64(checkpoint, "n_enc_layers", 1, 256, &encoder->count) < 0 ||
        checkpoint_config_i64(checkpoint, "n_dec_layers", 1, 256, &decoder->count) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (encoder->width % (2 * encoder->heads) != 0)
        return error_set(MODEL_ERR_CHECKPOINT, "config.json: n_heads is no divisor of d_model into even heads, expected one");
    encoder->count--; /* the official class makes one block less than the key says */
    decoder->count--;
    decoder->width = encoder->width;
    decoder->heads = encoder->heads;
    decoder->hidden = encoder->hidden;
    return MODEL_OK;
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
        float *table = malloc((size_t)(vocabulary * width) * sizeof *table);

        if (loader->rc == MODEL_OK && table == NULL)
            loader->rc = error_set(MODEL_ERR_MEMORY, "post_quant_embed: out of memory");
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

static int load_weights(model_t *model, const checkpoint_t *checkpoint)
{
    int64_t width = model->encoder.width, bits = model->bits_1 + model->bits_2;
    loader_t loader;

    if (loader_open(&loader, model->base.backend, checkpoint, BACKEND_F32) < 0)
        return loader.rc;
    loader_weight(&loader, &model->embed, DIMS(width, KRONOS_FIELDS), "embed.weight");
    loader_weight(&loader, &model->embed_bias, DIMS(width), "embed.bias");
    kronos_stack_load(&loader, &model->encoder, "encoder");
    loader_weight(&loader, &model->quantise, DIMS(bits, width), "quant_embed.weight");
    loader_weight(&loader, &model->quantise_bias, DIMS(bits), "quant_embed.bias");
    loader.precision = model->precision;
    load_codes(&loader, model);
    kronos_stack_load(&loader, &model->decoder, "decoder");
    loader_weight(&loader, &model->head, DIMS(KRONOS_FIELDS, width), "head.weight");
    loader_weight(&loader, &model->head_bias, DIMS(KRONOS_FIELDS), "head.bias");
    loader_ignore(&loader, "post_quant_embed_pre."); /* for training only */
    loader_ignore(&loader, "tokenizer.bsq.");        /* the powers of 2 */
    loader_ignore(&loader, ".rotary.inv_freq");      /* computed here */
    model->parameters += loader.parameters;
    return loader_close(&loader);
}

int kronos_tokenizer_load(model_t *model, const char *dir)
{
    char path[PATH_BYTES];
    checkpoint_t *checkpoint;
    int rc = find_tokenizer(dir, path);

    if (rc < 0)
        return rc;
    if (checkpoint_open(path, &checkpoint) < 0)
        return MODEL_ERR_CHECKPOINT;
    if ((rc = read_config(checkpoint, model)) < 0 || (rc = load_weights(model, checkpoint)) < 0)
        error_add(rc, "tokenizer");
    checkpoint_close(checkpoint);
    return rc;
}

void kronos_tokenizer_unload(model_t *model)
{
    backend_t *backend = model->base.backend;
    backend_weight_t *weights[] = {&model->embed,   &model->embed_bias, &model->quantise, &model->quantise_bias, &model->code[0],
                                   &model->code[1], &model->code_bias,  &model->head,     &model->head_bias};

    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        backend_weight_free(backend, weights[i]);
    kronos_stack_unload(backend, &model->encoder);
    kronos_stack_unload(backend, &model->decoder);
}
