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

static int read_config(const checkpoint_t *checkpoint, model_t *model, bool *learned_times)
{
    kronos_stack_t *stack = &model->predictor;
    int64_t bits_1, bits_2;

    if (checkpoint_config_i64(checkpoint, "s1_bits", 1, BITS_MOST, &bits_1) < 0 ||
        checkpoint_config_i64(checkpoint, "s2_bits", 1, BITS_MOST, &bits_2) < 0 ||
        checkpoint_config_i64(checkpoint, "d_model", 4, 65536, &stack->width) < 0 ||
        checkpoint_config_i64(checkpoint, "n_layers", 1, BLOCKS_MOST, &stack->count) < 0 ||
        checkpoint_config_i64(checkpoint, "n_heads", 1, 1024, &stack->heads) < 0 ||
        checkpoint_config_i64(checkpoint, "ff_dim", 1, 1 << 20, &stack->hidden) < 0 ||
        checkpoint_config_bool(checkpoint, "learn_te", learned_times) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (stack->width % (2 * stack->heads) != 0)
        return error_set(MODEL_ERR_CHECKPOINT, "config.json: n_heads is no divisor of d_model into even heads, expected one");
    if (stack->width % KRONOS_DEPENDENCY_HEADS != 0)
        return error_set(MODEL_ERR_CHECKPOINT, "config.json: d_model is %lld, expected a multiple of %d", (long long)stack->width,
                         KRONOS_DEPENDENCY_HEADS);
    model->bits_1 = (int)bits_1;
    model->bits_2 = (int)bits_2;
    return MODEL_OK;
}

/* ---- stacks ------------------------------------------------------------------------------------------------------------------- */

/* Matrices (or vectors: columns 0) of equal shape one below the other, from the checkpoint's tensors NAME + parts[i]. */
static void load_stacked(loader_t *loader, backend_weight_t *out, const char *name, const char *const *parts, int count,
                         int64_t rows, int64_t columns)
{
    int64_t each = columns > 0 ? rows * columns : rows;
    float *to = malloc((size_t)(count * each) * sizeof *to);

    if (loader->rc == MODEL_OK && to == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "%s: out of memory", name);
    for (int i = 0; i < count; i++) {
        int64_t dim[2] = {rows, columns};
        float *from = loader_read(loader, columns > 0 ? 2 : 1, dim, "%s%s", name, parts[i]);

        if (loader->rc == MODEL_OK)
            memcpy(to + i * each, from, (size_t)each * sizeof *to);
        free(from);
    }
    if (columns > 0)
        loader_upload(loader, name, loader->precision, DIMS(count * rows, columns), to, out);
    else
        loader_upload(loader, name, BACKEND_F32, DIMS(count * rows), to, out);
    free(to);
}

static void load_block(loader_t *loader, const kronos_stack_t *stack, const char *name, kronos_block_t *block)
{
    static const char *const qkv[] = {".self_attn.q_proj.weight", ".self_attn.k_proj.weight", ".self_attn.v_proj.weight"};
    static const char *const qkv_bias[] = {".self_attn.q_proj.bias", ".self_attn.k_proj.bias", ".self_attn.v_proj.bias"};
    static const char *const gate_up[] = {".ffn.w1.weight", ".ffn.w3.weight"};
    int64_t width = stack->width;

    loader_weight(loader, &block->norm1, DIMS(width), "%s.norm1.weight", name);
    load_stacked(loader, &block->qkv, name, qkv, 3, width, width);
    load_stacked(loader, &block->qkv_bias, name, qkv_bias, 3, width, 0);
    loader_weight(loader, &block->out, DIMS(width, width), "%s.self_attn.out_proj.weight", name);
    loader_weight(loader, &block->out_bias, DIMS(width), "%s.self_attn.out_proj.bias", name);
    loader_weight(loader, &block->norm2, DIMS(width), "%s.norm2.weight", name);
    load_stacked(loader, &block->gate_up, name, gate_up, 2, stack->hidden, width);
    loader_weight(loader, &block->down, DIMS(width, stack->hidden), "%s.ffn.w2.weight", name);
}

void kronos_stack_load(loader_t *loader, kronos_stack_t *stack, const char *name)
{
    char text[64];

    stack->precision = loader->precision;
    stack->blocks = calloc((size_t)stack->count + 1, sizeof *stack->blocks);
    if (loader->rc == MODEL_OK && stack->blocks == NULL)
        loader->rc = error_set(MODEL_ERR_MEMORY, "%s: out of memory", name);
    for (int64_t b = 0; loader->rc == MODEL_OK && b < stack->count; b++) {
        snprintf(text, sizeof text, "%s.%d", name, (int)b);
        load_block(loader, stack, text, &stack->blocks[b]);
    }
}

void kronos_stack_unload(backend_t *backend, kronos_stack_t *stack)
{
    for (int64_t b = 0; stack->blocks != NULL && b < stack->count; b++) {
        kronos_block_t *block = &stack->blocks[b];
        backend_weight_t *weights[] = {&block->norm1,    &block->qkv,   &block->qkv_bias, &block->out,
                                       &block->out_bias, &block->norm2, &block->gate_up,  &block->down};

        for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
            backend_weight_free(backend, weights[i]);
    }
    free(stack->blocks);
    stack->blocks = NULL;
}

/* ---- the predictor ------------------------------------------------------------------------------------------------------------- */

/* out = x · Wᵀ + bias as a table F32 [rows][width], multiplied on the device. x [rows][width]; W's rows lie `stride` apart; bias NULL: 0. */
static void load_product(loader_t *loader, backend_weight_t *out, int64_t rows, int64_t width, const float *x, const float *weight,
                         int64_t stride, const float *bias)
{
    backend_t *backend = loader->backend;
    buffers_t buffers = {.backend = backend, .rc = loader->rc};
    backend_tensor_t from = buffers_take(&buffers, "table", BACKEND_F32, DIMS(rows, width));
    backend_tensor_t product = buffers_take(&buffers, "table", BACKEND_F32, DIMS(rows, width));
    backend_weight_t matrix = {buffers_take(&buffers, "table", BACKEND_F32, DIMS(width, width))};
    float *host = malloc((size_t)((rows > width ? rows : width) * width) * sizeof *host);

    if (buffers.rc == MODEL_OK && host == NULL)
        buffers.rc = error_set(MODEL_ERR_MEMORY, "table: out of memory");
    if (buffers.rc == MODEL_OK) {
        for (int64_t o = 0; o < width; o++)
            memcpy(host + o * width, weight + o * stride, (size_t)width * sizeof *host);
        if (backend_write(backend, &from, x) < 0 || backend_write(backend, &matrix.tensor, host) < 0 ||
            backend_linear(backend, &(backend_linear_t){.x = from, .rows = rows, .weight = &matrix, .y = product}) < 0 ||
            backend_read(backend, &product, host) < 0)
            buffers.rc = MODEL_ERR_BACKEND;
        for (int64_t i = 0; bias != NULL && i < rows * width; i++)
            host[i] += bias[i % width];
    }
    loader->rc = buffers.rc;
    loader_upload(loader, "table", BACKEND_F32, DIMS(rows, width), host, out);
    buffers_close(&buffers);
    free(host);
}

/* The official model concatenates both parts' embeddings · sqrt(D) and projects them; a part's half of that product is a function of the part. */
static void load_tokens(loader_t *loader, model_t *model)
{
    int64_t width = model->predictor.width;
    float *fusion = loader_read(loader, DIMS(width, 2 * width), "embedding.fusion_proj.weight");
    float *query = loader_read(loader, DIMS(width, width), "dep_layer.cross_attn.q_proj.weight");
    float *query_bias = loader_read(loader, DIMS(width), "dep_layer.cross_attn.q_proj.bias");

    for (int part = 0; part < 2; part++) {
        int64_t vocabulary = kronos_vocabulary(model, part);
        float *embedding = loader_read(loader, DIMS(vocabulary, width), "embedding.emb_s%d.weight", part + 1);

        if (loader->rc == MODEL_OK && part == 0)
            load_product(loader, &model->query, vocabulary, width, embedding, query, width, query_bias);
        for (int64_t i = 0; loader->rc == MODEL_OK && i < vocabulary * width; i++)
            embedding[i] *= sqrtf((float)width);
        if (loader->rc == MODEL_OK)
            load_product(loader, &model->token[part], vocabulary, width, embedding, fusion + part * width, 2 * width, NULL);
        free(embedding);
    }
    loader_weight(loader, &model->token_bias, DIMS(width), "embedding.fusion_proj.bias");
    free(fusion);
    free(query);
    free(query_bias);
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
    float *weight = calloc((size_t)(rows * width), sizeof *weight), *bias = calloc((size_t)rows, sizeof *bias);

    if (loader->rc == MODEL_OK && (weight == NULL || bias == NULL))
        loader->rc = error_set(MODEL_ERR_MEMORY, "head.proj_s1: out of memory");
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

static int load_predictor(model_t *model, const checkpoint_t *checkpoint, bool learned_times)
{
    static const char *const key_value[] = {".k_proj.weight", ".v_proj.weight"}, *const kv_bias[] = {".k_proj.bias",
                                                                                                     ".v_proj.bias"};
    static const char dependency[] = "dep_layer.cross_attn";
    int64_t width = model->predictor.width;
    loader_t loader;

    if (loader_open(&loader, model->base.backend, checkpoint, model->precision) < 0)
        return loader.rc;
    load_tokens(&loader, model);
    load_times(&loader, model, learned_times);
    kronos_stack_load(&loader, &model->predictor, "transformer");
    loader_weight(&loader, &model->norm, DIMS(width), "norm.weight");
    load_first_head(&loader, model);
    load_stacked(&loader, &model->key_value, dependency, key_value, 2, width, width);
    load_stacked(&loader, &model->kv_bias, dependency, kv_bias, 2, width, 0);
    loader_weight(&loader, &model->mix, DIMS(width, width), "%s.out_proj.weight", dependency);
    loader_weight(&loader, &model->mix_bias, DIMS(width), "%s.out_proj.bias", dependency);
    loader_weight(&loader, &model->second_norm, DIMS(width), "dep_layer.norm.weight");
    loader_weight(&loader, &model->second, DIMS(kronos_vocabulary(model, 1), width), "head.proj_s2.weight");
    loader_weight(&loader, &model->second_bias, DIMS(kronos_vocabulary(model, 1)), "head.proj_s2.bias");
    loader_ignore(&loader, ".rotary.inv_freq"); /* computed here */
    model->parameters += loader.parameters;
    return loader_close(&loader);
}

void kronos_unload(model_t *model)
{
    backend_t *backend = model->base.backend;
    backend_weight_t *weights[] = {&model->token[0], &model->token[1],    &model->token_bias, &model->norm,
                                   &model->first,    &model->first_bias,  &model->query,      &model->key_value,
                                   &model->kv_bias,  &model->mix,         &model->mix_bias,   &model->second_norm,
                                   &model->second,   &model->second_bias, &model->identity};

    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        backend_weight_free(backend, weights[i]);
    for (int i = 0; i < KRONOS_TIMES; i++)
        backend_weight_free(backend, &model->time[i]);
    kronos_stack_unload(backend, &model->predictor);
    kronos_tokenizer_unload(model);
    free(model);
}

int kronos_load(backend_t *backend, const checkpoint_t *checkpoint, backend_dtype_t precision, model_t **out)
{
    size_t before = backend_allocated_bytes(backend);
    model_t *model = calloc(1, sizeof *model);
    bool learned_times = true;
    int rc;

    if (model == NULL)
        return error_set(MODEL_ERR_MEMORY, "out of memory");
    model->base = (model_base_t){.family = &kronos_family, .backend = backend};
    model->precision = precision;
    if ((rc = read_config(checkpoint, model, &learned_times)) < 0 || (rc = load_predictor(model, checkpoint, learned_times)) < 0 ||
        (rc = kronos_tokenizer_load(model, checkpoint_path(checkpoint))) < 0) {
        kronos_unload(model);
        return rc;
    }
    model->weight_bytes = backend_allocated_bytes(backend) - before;
    *out = model;
    return MODEL_OK;
}

void kronos_info(const model_t *model, model_info_t *out)
{
    *out = (model_info_t){.family = kronos_family.name,
                          .parameters = model->parameters,
                          .weight_bytes = model->weight_bytes,
                          .patch = 1,
                          .horizon_most = KRONOS_WINDOW - 1, /* with a wider window (model_options_t) more */
                          .samples = true,
                          .calendar = true,
                          .whole_bars = true,
                          .variates = true};
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
    rc = backend_weight_upload(model->base.backend, "identity", model->precision, DIMS(width, width), host, &model->identity);
    free(host);
    return model_backend_error(rc);
}
