/* Loading of a Toto 2.0 checkpoint, as published on Hugging Face (Datadog/Toto-2.0-4m and its larger siblings): see toto2.c for the model
 * itself and the letters of the shapes.
 *
 * The official layers are unit-scaled: constants stand between their products, to keep what trains near deviation 1. All of them are folded
 * into the weights here:
 *   - a linear layer divides its output, bias included, by sqrt(inputs); the last ones of the head divide by the inputs;
 *   - a norm's weight multiplies the columns of what reads it;
 *   - a query's scale per dimension, softplus(p) / ln 2, multiplies its rows, or the head norm's weight;
 *   - the silu of the residual blocks has a factor, which goes into the next layer;
 *   - residual additions are x' = (t · f(x) + x) / sqrt(1 + t²). With x = s · y that is y' = y + (t / s) · f and s' = s / sqrt(1 + t²): a
 *     plain addition, when f's last layer is multiplied by t / s. A norm of x is one of y with eps / s². */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpuworker/model/parts_load.h"
#include "gpuworker/model/toto2.h"

static const double SILU_GAIN = 1.7667829990386963; /* 1 / the deviation of silu(x), x standard normal (library unit_scaling) */

/* ---- a linear layer on the host -------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t rows, columns;
    float *weight, *bias; /* NULL after a failure; bias also without one */
} dense_t;

static void dense_free(dense_t *dense)
{
    free(dense->weight);
    free(dense->bias);
    *dense = (dense_t){0};
}

static void multiply(float *values, int64_t count, double by)
{
    for (int64_t i = 0; values != NULL && i < count; i++)
        values[i] = (float)((double)values[i] * by);
}

static void dense_scale(dense_t *dense, double by)
{
    multiply(dense->weight, dense->rows * dense->columns, by);
    multiply(dense->bias, dense->rows, by);
}

/* Reads NAME.weight [rows][columns] and, when it has one, NAME.bias [rows], both over columns^power. */
static dense_t dense_read(loader_t *loader, int64_t rows, int64_t columns, bool has_bias, double power, const char *name)
{
    dense_t dense = {.rows = rows, .columns = columns, .weight = loader_read(loader, DIMS(rows, columns), "%s.weight", name)};

    if (has_bias)
        dense.bias = loader_read(loader, DIMS(rows), "%s.bias", name);
    dense_scale(&dense, 1 / pow((double)columns, power));
    return dense;
}

static void dense_upload(loader_t *loader, const dense_t *dense, const char *label, toto2_linear_t *out)
{
    loader_upload(loader, label, loader->precision, DIMS(dense->rows, dense->columns), dense->weight, &out->weight);
    if (dense->bias != NULL)
        loader_upload(loader, label, BACKEND_F32, DIMS(dense->rows), dense->bias, &out->bias);
}

/* An all-zero one of that size. */
static dense_t dense_new(loader_t *loader, int64_t rows, int64_t columns, bool has_bias)
{
    dense_t dense = {.rows = rows, .columns = columns, .weight = loader_calloc(loader, rows * columns, sizeof(float))};

    if (has_bias)
        dense.bias = loader_calloc(loader, rows, sizeof(float));
    return dense;
}

/* A norm before the layer has a weight, when the checkpoint says so: it multiplies the columns. */
static void fold_norm(loader_t *loader, const toto2_config_t *config, const char *name, dense_t *dense, dense_t *other)
{
    float *weight;

    if (!config->norm_weight)
        return;
    weight = loader_read(loader, DIMS(config->width), "%s.weight", name);
    for (dense_t *each = dense; each != NULL && loader->rc == MODEL_OK; each = each == dense ? other : NULL)
        for (int64_t i = 0; i < each->rows * each->columns; i++)
            each->weight[i] *= weight[i % each->columns];
    free(weight);
}

/* ---- the network's two ends ------------------------------------------------------------------------------------------------------- */

/* A residual block: (second(silu(first(x)) · gain) + skip(x)) / sqrt 2. The embedding's second and skip are one matrix over [silu(..) | x]. */
static void load_embedding(loader_t *loader, model_t *model)
{
    int64_t in = 2 * model->config.patch, inside = toto2_block_width(&model->config), width = model->config.width;
    dense_t first = dense_read(loader, inside, in, true, 0.5, "patch_proj.linear1");
    dense_t second = dense_read(loader, width, inside, true, 0.5, "patch_proj.linear2");
    dense_t skip = dense_read(loader, width, in, true, 0.5, "patch_proj.skip_proj");
    dense_t both = dense_new(loader, width, inside + in, true);

    for (int64_t row = 0; loader->rc == MODEL_OK && row < width; row++) {
        float *to = both.weight + row * (inside + in);

        memcpy(to, second.weight + row * inside, (size_t)inside * sizeof *to);
        multiply(to, inside, SILU_GAIN);
        memcpy(to + inside, skip.weight + row * in, (size_t)in * sizeof *to);
        both.bias[row] = second.bias[row] + skip.bias[row];
    }
    if (loader->rc == MODEL_OK)
        dense_scale(&both, sqrt(0.5));
    dense_upload(loader, &first, "patch_proj", &model->embed_in);
    dense_upload(loader, &both, "patch_proj", &model->embed_out);
    dense_free(&first);
    dense_free(&second);
    dense_free(&skip);
    dense_free(&both);
}

static void load_head(loader_t *loader, model_t *model, double stream_scale)
{
    static const char name[] = "output_head.param_projection.proj";
    const toto2_config_t *config = &model->config;
    int64_t inside = toto2_block_width(config), outputs = config->patch * TOTO2_LEVELS, width = config->width;
    dense_t first = dense_read(loader, inside, width, true, 0.5, "output_head.param_projection.proj.linear1");
    dense_t second = dense_read(loader, outputs, inside, true, 1, "output_head.param_projection.proj.linear2");
    dense_t skip = dense_read(loader, outputs, width, true, 1, "output_head.param_projection.proj.skip_proj");

    fold_norm(loader, config, "transformer.out_norm", &first, &skip);
    if (loader->rc == MODEL_OK) {
        dense_scale(&skip, sqrt(0.5));
        dense_scale(&second, sqrt(0.5));
        multiply(second.weight, outputs * inside, SILU_GAIN);
    }
    dense_upload(loader, &first, name, &model->head_in);
    dense_upload(loader, &second, name, &model->head_out);
    dense_upload(loader, &skip, name, &model->head_skip);
    model->head_eps = (float)(config->eps / (stream_scale * stream_scale));
    dense_free(&first);
    dense_free(&second);
    dense_free(&skip);
}

/* ---- layers ------------------------------------------------------------------------------------------------------------------------ */

/* softplus(p) / ln 2 for each dimension of a query; 1 without such scales. malloc'ed. */
static float *read_query_scale(loader_t *loader, const toto2_config_t *config, const char *layer)
{
    float *scale;

    if (config->per_dim_scale) {
        scale = loader_read(loader, DIMS(config->head_dim), "%s.attn._pds.per_dim_scale", layer);
        for (int64_t j = 0; scale != NULL && j < config->head_dim; j++)
            scale[j] = (float)((fmax((double)scale[j], 0) + log1p(exp(-fabs((double)scale[j])))) / log(2));
        return scale;
    }
    scale = loader_calloc(loader, config->head_dim, sizeof *scale);
    for (int64_t j = 0; scale != NULL && j < config->head_dim; j++)
        scale[j] = 1;
    return scale;
}

/* The query's scale acts after its head norm, where there is one. */
static void load_head_norms(loader_t *loader, const toto2_config_t *config, const char *name, float *query_scale,
                            toto2_layer_t *layer)
{
    if (config->head_norm_weight) {
        float *weight = loader_read(loader, DIMS(config->head_dim), "%s.attn.q_norm.weight", name);

        for (int64_t j = 0; weight != NULL && query_scale != NULL && j < config->head_dim; j++)
            query_scale[j] *= weight[j];
        free(weight);
        loader_weight(loader, &layer->k_norm, DIMS(config->head_dim), "%s.attn.k_norm.weight", name);
    }
    loader_upload(loader, name, BACKEND_F32, DIMS(config->head_dim), query_scale, &layer->q_norm);
}

/* The published rows are heads of queries, then the fewer ones of keys and of values; attention wants as many of each. */
static dense_t read_qkv(loader_t *loader, const toto2_config_t *config, const char *name, toto2_layer_t *layer)
{
    int64_t d = config->head_dim, heads = config->heads, keys = config->key_heads, width = config->width;
    float *query_scale = read_query_scale(loader, config, name);
    char text[96];
    dense_t from, to;

    snprintf(text, sizeof text, "%s.attn.in_proj", name);
    from = dense_read(loader, (heads + 2 * keys) * d, width, config->attention_bias, 0.5, text);
    snprintf(text, sizeof text, "%s.norm1", name);
    fold_norm(loader, config, text, &from, NULL);
    to = dense_new(loader, 3 * heads * d, width, config->attention_bias);
    for (int64_t row = 0; loader->rc == MODEL_OK && row < to.rows; row++) {
        int64_t part = row / (heads * d), head = row / d % heads, j = row % d;
        int64_t source = part == 0 ? row : (heads + (part - 1) * keys + head * keys / heads) * d + j;
        double by = part == 0 && !config->head_norm ? (double)query_scale[j] : 1;

        memcpy(to.weight + row * width, from.weight + source * width, (size_t)width * sizeof *to.weight);
        multiply(to.weight + row * width, width, by);
        if (to.bias != NULL)
            to.bias[row] = (float)((double)from.bias[source] * by);
    }
    if (config->head_norm)
        load_head_norms(loader, config, name, query_scale, layer);
    dense_free(&from);
    free(query_scale);
    return to;
}

/* A variate that is alone attends to itself with weight 1: attention is its values, and the two products are one. */
static void load_alone(loader_t *loader, const dense_t *qkv, const dense_t *out, toto2_layer_t *layer)
{
    int64_t width = out->rows, inner = out->columns;
    dense_t alone = dense_new(loader, width, width, out->bias != NULL);

    if (loader->rc == MODEL_OK)
        loader_product(loader, width, inner, width, out->weight, qkv->weight + 2 * inner * width, alone.weight);
    for (int64_t row = 0; loader->rc == MODEL_OK && out->bias != NULL && row < width; row++) {
        double sum = (double)out->bias[row];

        for (int64_t i = 0; i < inner; i++)
            sum += (double)out->weight[row * inner + i] * (double)qkv->bias[2 * inner + i];
        alone.bias[row] = (float)sum;
    }
    dense_upload(loader, &alone, "alone", &layer->alone);
    dense_free(&alone);
}

/* t of one residual addition; *scale is s, and goes on to s'. Returns t / s and sets the eps of the norm before. */
static double residual_factor(loader_t *loader, const toto2_config_t *config, const char *layer, const char *name, double *scale,
                              float *eps)
{
    float *tau = loader_read(loader, 0, (const int64_t[]){1}, "%s.%s", layer, name);
    double t = tau != NULL ? (double)*tau : 0, factor = t / *scale;

    *eps = (float)(config->eps / (*scale * *scale));
    *scale /= sqrt(1 + t * t);
    loader->parameters -= tau != NULL; /* a constant that the checkpoint keeps */
    free(tau);
    return factor;
}

static void load_attention(loader_t *loader, const toto2_config_t *config, const char *name, int64_t index, double *scale,
                           toto2_layer_t *layer)
{
    double factor = residual_factor(loader, config, name, "attn_tau", scale, &layer->attention_eps);
    dense_t qkv = read_qkv(loader, config, name, layer), out;
    char text[96];

    snprintf(text, sizeof text, "%s.attn.out_proj", name);
    out = dense_read(loader, config->width, config->heads * config->head_dim, config->attention_bias, 0.5, text);
    dense_scale(&out, factor);
    dense_upload(loader, &qkv, "in_proj", &layer->qkv);
    dense_upload(loader, &out, "out_proj", &layer->out);
    if (toto2_is_variate_layer(config, index))
        load_alone(loader, &qkv, &out, layer);
    dense_free(&qkv);
    dense_free(&out);
}

static void swap_halves(float *values, int64_t half)
{
    for (int64_t i = 0; values != NULL && i < half; i++) {
        float first = values[i];

        values[i] = values[half + i];
        values[half + i] = first;
    }
}

/* The official block is first half · silu(second half); the op has them the other way round. */
static void load_mlp(loader_t *loader, const toto2_config_t *config, const char *name, double *scale, toto2_layer_t *layer)
{
    int64_t hidden = config->hidden, width = config->width;
    double factor = residual_factor(loader, config, name, "mlp_tau", scale, &layer->mlp_eps);
    dense_t gate_up, down;
    char text[96];

    snprintf(text, sizeof text, "%s.ffn.fc1", name);
    gate_up = dense_read(loader, 2 * hidden, width, config->mlp_bias, 0.5, text);
    swap_halves(gate_up.weight, hidden * width);
    swap_halves(gate_up.bias, hidden);
    snprintf(text, sizeof text, "%s.norm2", name);
    fold_norm(loader, config, text, &gate_up, NULL);
    snprintf(text, sizeof text, "%s.ffn.fc2", name);
    down = dense_read(loader, width, hidden, config->mlp_bias, 0.5, text);
    dense_scale(&down, factor);
    dense_upload(loader, &gate_up, "fc1", &layer->gate_up);
    dense_upload(loader, &down, "fc2", &layer->down);
    dense_free(&gate_up);
    dense_free(&down);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------------------- */

void toto2_load(model_t *model, loader_t *loader)
{
    toto2_config_t *config = &model->config;
    double scale = 1;

    toto2_read_config(loader, config);
    model->layers = loader_calloc(loader, config->layers, sizeof *model->layers);
    if (loader->rc < 0)
        return;
    load_embedding(loader, model);
    for (int64_t i = 0; i < config->layers; i++) {
        toto2_layer_t *layer = &model->layers[i];
        char name[48];

        snprintf(name, sizeof name, "transformer.layers.%d", (int)i);
        load_attention(loader, config, name, i, &scale, layer);
        load_mlp(loader, config, name, &scale, layer);
        layer->scale = (float)scale;
    }
    load_head(loader, model, scale);
}

void toto2_unload(model_t *model)
{
    free(model->layers);
}

void toto2_info(const model_t *model, model_info_t *out)
{
    out->patch = (uint32_t)model->config.patch;
    out->variates = true;
    out->exogenous = true;
    out->quantiles_without_samples = true;
}
