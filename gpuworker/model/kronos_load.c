/* Loading of a Kronos predictor, as published on Hugging Face (NeoQuasar/Kronos-small); its tokenizer: kronos_tokenizer.c. What is a constant
 * of a token is computed here, so that a forecast looks it up: the fused embedding, the dependency layer's query. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/kronos.h"

/* Bits: a vocabulary has to fit the draw (BACKEND_DRAW_VOCABULARY_MOST). */
enum { BLOCKS_MOST = 256, BITS_MOST = 12 };

static const int64_t time_entries[KRONOS_TIMES] = {60, 24, 7, 32, 13};

/* ---- config.json -------------------------------------------------------------------------------------------------------------- */

bool kronos_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "s1_bits") && checkpoint_config_has(checkpoint, "s2_bits") &&
           checkpoint_config_has(checkpoint, "learn_te");
}

static void read_config(loader_t *loader, model_t *model, bool *learned_times)
{
    kronos_stack_t *stack = &model->predictor;
    int64_t bits_1 = 0, bits_2 = 0;

    loader_config_i64(loader, "s1_bits", 1, BITS_MOST, &bits_1);
    loader_config_i64(loader, "s2_bits", 1, BITS_MOST, &bits_2);
    loader_config_i64(loader, "d_model", 4, 65536, &stack->width);
    loader_config_i64(loader, "n_layers", 1, BLOCKS_MOST, &stack->count);
    loader_config_i64(loader, "n_heads", 1, 1024, &stack->heads);
    loader_config_i64(loader, "ff_dim", 1, 1 << 20, &stack->hidden);
    loader_config_bool(loader, "learn_te", learned_times);
    if (loader->rc < 0)
        return;
    loader_expect(loader, stack->width % (2 * stack->heads) == 0, "n_heads", "no divisor of d_model into even heads", "one");
    loader_expect(loader, stack->width % KRONOS_DEPENDENCY_HEADS == 0, "d_model", "no multiple of 4", "one");
    model->bits_1 = (int)bits_1;
    model->bits_2 = (int)bits_2;
}

/* ---- stacks ------------------------------------------------------------------------------------------------------------------- */

static void load_block(loader_t *loader, const kronos_stack_t *stack, const char *name, kronos_block_t *block)
{
    static const char *const qkv[] = {".self_attn.q_proj.weight", ".self_attn.k_proj.weight", ".self_attn.v_proj.weight"};
    static const char *const qkv_bias[] = {".self_attn.q_proj.bias", ".self_attn.k_proj.bias", ".self_attn.v_proj.bias"};
    static const char *const gate_up[] = {".ffn.w1.weight", ".ffn.w3.weight"};
    int64_t width = stack->width;

    loader_weight(loader, &block->norm1, DIMS(width), "%s.norm1.weight", name);
    loader_stack(loader, &block->qkv, name, qkv, 3, width, width);
    loader_stack(loader, &block->qkv_bias, name, qkv_bias, 3, width, 0);
    loader_weight(loader, &block->out, DIMS(width, width), "%s.self_attn.out_proj.weight", name);
    loader_weight(loader, &block->out_bias, DIMS(width), "%s.self_attn.out_proj.bias", name);
    loader_weight(loader, &block->norm2, DIMS(width), "%s.norm2.weight", name);
    loader_stack(loader, &block->gate_up, name, gate_up, 2, stack->hidden, width);
    loader_weight(loader, &block->down, DIMS(width, stack->hidden), "%s.ffn.w2.weight", name);
}

void kronos_stack_load(loader_t *loader, kronos_stack_t *stack, const char *name)
{
    char text[64];

    stack->precision = loader->precision;
    stack->blocks = loader_calloc(loader, stack->count + 1, sizeof *stack->blocks);
    for (int64_t b = 0; loader->rc == MODEL_OK && b < stack->count; b++) {
        snprintf(text, sizeof text, "%s.%d", name, (int)b);
        load_block(loader, stack, text, &stack->blocks[b]);
    }
}

/* ---- the predictor ------------------------------------------------------------------------------------------------------------- */

/* out = x [rows][width] · weight [width][width]ᵀ + bias as a table F32 [rows][width]; bias NULL: 0. */
static void load_product(loader_t *loader, backend_weight_t *out, int64_t rows, int64_t width, const float *x, const float *weight,
                         const float *bias)
{
    float *table = loader_calloc(loader, rows * width, sizeof *table);

    loader_linear(loader, rows, width, width, x, weight, bias, BACKEND_ACT_NONE, table);
    loader_upload(loader, "table", BACKEND_F32, DIMS(rows, width), table, out);
    free(table);
}

/* The official model concatenates both parts' embeddings · sqrt(D) and projects them; a part's half of that product is a function of the part. */
static void load_tokens(loader_t *loader, model_t *model)
{
    int64_t width = model->predictor.width;
    float *fusion = loader_read(loader, DIMS(width, 2 * width), "embedding.fusion_proj.weight");
    float *query = loader_read(loader, DIMS(width, width), "dep_layer.cross_attn.q_proj.weight");
    float *query_bias = loader_read(loader, DIMS(width), "dep_layer.cross_attn.q_proj.bias");
    float *half = loader_calloc(loader, width * width, sizeof *half);

    for (int part = 0; part < 2; part++) {
        int64_t vocabulary = kronos_vocabulary(model, part);
        float *embedding = loader_read(loader, DIMS(vocabulary, width), "embedding.emb_s%d.weight", part + 1);

        if (part == 0)
            load_product(loader, &model->query, vocabulary, width, embedding, query, query_bias);
        for (int64_t i = 0; loader->rc == MODEL_OK && i < vocabulary * width; i++)
            embedding[i] *= sqrtf((float)width);
        for (int64_t o = 0; loader->rc == MODEL_OK && o < width; o++)
            memcpy(half + o * width, fusion + (2 * o + part) * width, (size_t)width * sizeof *half);
        load_product(loader, &model->token[part], vocabulary, width, embedding, half, NULL);
        free(embedding);
    }
    loader_weight(loader, &model->token_bias, DIMS(width), "embedding.fusion_proj.bias");
    free(fusion);
    free(query);
    free(query_bias);
    free(half);
}

static void load_times(loader_t *loader, model_t *model, bool learned)
{
    static const char *const names[KRONOS_TIMES] = {"minute", "hour", "weekday", "day", "month"};
    int64_t width = model->predictor.width;

    for (int i = 0; i < KRONOS_TIMES; i++) {
        float *table =
            loader_read(loader, DIMS(time_entries[i], width), "time_emb.%s_embed.%sweight", names[i], learned ? "" : "emb.");

        loader_upload(loader, names[i], BACKEND_F32, DIMS(time_entries[i], width), table, &model->time[i]);
        free(table);
    }
}

/* The head of part 1, below the identity: both read norm(x), so that one product gives the logits and keeps norm(x) itself. */
static void load_first_head(loader_t *loader, model_t *model)
{
    int64_t width = model->predictor.width, vocabulary = kronos_vocabulary(model, 0), rows = width + vocabulary;
    float *head = loader_read(loader, DIMS(vocabulary, width), "head.proj_s1.weight");
    float *head_bias = loader_read(loader, DIMS(vocabulary), "head.proj_s1.bias");
    float *weight = loader_calloc(loader, rows * width, sizeof *weight), *bias = loader_calloc(loader, rows, sizeof *bias);

    if (loader->rc == MODEL_OK) {
        for (int64_t i = 0; i < width; i++)
            weight[i * width + i] = 1;
        memcpy(weight + width * width, head, (size_t)(vocabulary * width) * sizeof *head);
        memcpy(bias + width, head_bias, (size_t)vocabulary * sizeof *head_bias);
    }
    loader_upload(loader, "head.proj_s1", loader->precision, DIMS(rows, width), weight, &model->first);
    loader_upload(loader, "head.proj_s1", BACKEND_F32, DIMS(rows), bias, &model->first_bias);
    free(head);
    free(head_bias);
    free(weight);
    free(bias);
}

void kronos_load(model_t *model, loader_t *loader)
{
    static const char *const key_value[] = {".k_proj.weight", ".v_proj.weight"}, *const kv_bias[] = {".k_proj.bias",
                                                                                                     ".v_proj.bias"};
    static const char dependency[] = "dep_layer.cross_attn";
    bool learned_times = true;
    int64_t width;

    read_config(loader, model, &learned_times);
    if (loader->rc < 0)
        return;
    width = model->predictor.width;
    load_tokens(loader, model);
    load_times(loader, model, learned_times);
    kronos_stack_load(loader, &model->predictor, "transformer");
    loader_weight(loader, &model->norm, DIMS(width), "norm.weight");
    load_first_head(loader, model);
    loader_stack(loader, &model->key_value, dependency, key_value, 2, width, width);
    loader_stack(loader, &model->kv_bias, dependency, kv_bias, 2, width, 0);
    loader_weight(loader, &model->mix, DIMS(width, width), "%s.out_proj.weight", dependency);
    loader_weight(loader, &model->mix_bias, DIMS(width), "%s.out_proj.bias", dependency);
    loader_weight(loader, &model->second_norm, DIMS(width), "dep_layer.norm.weight");
    loader_weight(loader, &model->second, DIMS(kronos_vocabulary(model, 1), width), "head.proj_s2.weight");
    loader_weight(loader, &model->second_bias, DIMS(kronos_vocabulary(model, 1)), "head.proj_s2.bias");
    loader_ignore(loader, ".rotary.inv_freq"); /* computed here */
    kronos_tokenizer_load(model, loader);
}

void kronos_unload(model_t *model)
{
    free(model->predictor.blocks);
    free(model->encoder.blocks);
    free(model->decoder.blocks);
}

void kronos_info(const model_t *model, model_info_t *out)
{
    (void)model;
    out->horizon_most = KRONOS_WINDOW - 1; /* with a wider window (model_options_t) more */
    out->samples = true;
    out->calendar = true;
    out->whole_bars = true;
    out->variates = true;
}

int kronos_make_identity(model_t *model)
{
    int64_t width = model->predictor.width;
    float *host;
    int rc;

    if (model->identity.tensor.data != NULL)
        return MODEL_OK;
    if ((host = calloc((size_t)(width * width), sizeof *host)) == NULL)
        return error_set(MODEL_ERR_MEMORY, "identity: out of memory");
    for (int64_t i = 0; i < width; i++)
        host[i * width + i] = 1;
    rc = model_weight_upload(&model->base, "identity", model->base.precision, DIMS(width, width), host, &model->identity);
    free(host);
    return rc;
}
