/* See chronos_parts.h. */
#include "gpuworker/model/chronos_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ---- residual blocks ---------------------------------------------------------------------------------------------------------- */

/* A block as the checkpoint holds it. */
typedef struct {
    float *hidden, *hidden_bias;     /* [hidden][in], [hidden] */
    float *output, *output_bias;     /* [out][hidden], [out] */
    float *residual, *residual_bias; /* [out][in], [out] */
} published_t;

static published_t read_block(loader_t *loader, const char *name, int64_t in, int64_t hidden, int64_t out)
{
    return (published_t){.hidden = loader_read(loader, DIMS(hidden, in), "%s.hidden_layer.weight", name),
                         .hidden_bias = loader_read(loader, DIMS(hidden), "%s.hidden_layer.bias", name),
                         .output = loader_read(loader, DIMS(out, hidden), "%s.output_layer.weight", name),
                         .output_bias = loader_read(loader, DIMS(out), "%s.output_layer.bias", name),
                         .residual = loader_read(loader, DIMS(out, in), "%s.residual_layer.weight", name),
                         .residual_bias = loader_read(loader, DIMS(out), "%s.residual_layer.bias", name)};
}

static void free_block(published_t *block)
{
    free(block->hidden);
    free(block->hidden_bias);
    free(block->output);
    free(block->output_bias);
    free(block->residual);
    free(block->residual_bias);
}

/* Far enough below 0 for relu whatever the bias, in bf16 too. */
static float shut(float bias)
{
    return -2.0f * fabsf(bias) - 1.0f;
}

void chronos_load_embedding(loader_t *loader, const char *name, int64_t in, int64_t hidden, int64_t out, const float *reg,
                            chronos_block_t *block)
{
    int64_t columns = chronos_feature_columns(in), wide = hidden + columns;
    published_t from = read_block(loader, name, in, hidden, out);
    float *first = loader_calloc(loader, hidden * columns, sizeof(float)),
          *second = loader_calloc(loader, out * wide, sizeof(float));

    for (int64_t row = 0; loader->rc == MODEL_OK && row < hidden; row++) {
        memcpy(first + row * columns, from.hidden + row * in, (size_t)in * sizeof *first);
        first[row * columns + in] = shut(from.hidden_bias[row]);
    }
    for (int64_t row = 0; loader->rc == MODEL_OK && row < out; row++) {
        memcpy(second + row * wide, from.output + row * hidden, (size_t)hidden * sizeof *second);
        memcpy(second + row * wide + hidden, from.residual + row * in, (size_t)in * sizeof *second);
        from.output_bias[row] += from.residual_bias[row];
        second[row * wide + hidden + in] = reg[row] - from.output_bias[row];
    }
    loader_upload(loader, name, loader->precision, DIMS(hidden, columns), first, &block->hidden);
    loader_upload(loader, name, BACKEND_F32, DIMS(hidden), from.hidden_bias, &block->hidden_bias);
    loader_upload(loader, name, loader->precision, DIMS(out, wide), second, &block->output);
    loader_upload(loader, name, BACKEND_F32, DIMS(out), from.output_bias, &block->output_bias);
    free(first);
    free(second);
    free_block(&from);
}

void chronos_load_head(loader_t *loader, const char *name, int64_t in, int64_t hidden, int64_t out, chronos_block_t *block)
{
    int64_t wide = hidden + 2 * out;
    published_t from = read_block(loader, name, in, hidden, out);
    float *first = loader_calloc(loader, wide * in, sizeof(float)), *second = loader_calloc(loader, out * wide, sizeof(float));
    float *bias = loader_calloc(loader, wide, sizeof(float));

    if (loader->rc == MODEL_OK) {
        memcpy(first, from.hidden, (size_t)(hidden * in) * sizeof *first);
        memcpy(bias, from.hidden_bias, (size_t)hidden * sizeof *bias);
    }
    for (int64_t row = 0; loader->rc == MODEL_OK && row < out; row++) {
        int64_t plus = hidden + row, minus = hidden + out + row;

        for (int64_t i = 0; i < in; i++) {
            first[plus * in + i] = from.residual[row * in + i];
            first[minus * in + i] = -from.residual[row * in + i];
        }
        bias[plus] = from.residual_bias[row];
        bias[minus] = -from.residual_bias[row];
        memcpy(second + row * wide, from.output + row * hidden, (size_t)hidden * sizeof *second);
        second[row * wide + plus] = 1;
        second[row * wide + minus] = -1;
    }
    loader_upload(loader, name, loader->precision, DIMS(wide, in), first, &block->hidden);
    loader_upload(loader, name, BACKEND_F32, DIMS(wide), bias, &block->hidden_bias);
    loader_upload(loader, name, loader->precision, DIMS(out, wide), second, &block->output);
    loader_upload(loader, name, BACKEND_F32, DIMS(out), from.output_bias, &block->output_bias);
    free(first);
    free(second);
    free(bias);
    free_block(&from);
}

void chronos_create_block(random_weights_t *weights, const char *name, int in, int hidden, int out, float deviation)
{
    random_weights_add_matrix(weights, 1, hidden, in, "%s.hidden_layer.weight", name);
    random_weights_add(weights, 0, 0.1f, hidden, 0, "%s.hidden_layer.bias", name);
    random_weights_add_matrix(weights, deviation, out, hidden, "%s.output_layer.weight", name);
    random_weights_add(weights, 0, 0, out, 0, "%s.output_layer.bias", name);
    random_weights_add_matrix(weights, deviation, out, in, "%s.residual_layer.weight", name);
    random_weights_add(weights, 0, 0, out, 0, "%s.residual_layer.bias", name);
}

/* ---- attention ---------------------------------------------------------------------------------------------------------------- */

void chronos_create_attention(random_weights_t *weights, const char *name, int width, int heads, int head_dim, float deviation)
{
    int inner = heads * head_dim;

    random_weights_add_matrix(weights, 1 / sqrtf((float)head_dim), inner, width, "%s.q.weight", name); /* scores are not scaled */
    random_weights_add_matrix(weights, 1, inner, width, "%s.k.weight", name);
    random_weights_add_matrix(weights, 1, inner, width, "%s.v.weight", name);
    random_weights_add_matrix(weights, deviation, width, inner, "%s.o.weight", name);
}

const char *const chronos_qkv[3] = {".q.weight", ".k.weight", ".v.weight"};

void chronos_load_alone(loader_t *loader, const char *name, int64_t inner, int64_t width, backend_weight_t *out)
{
    int64_t parameters = loader->parameters;
    float *o = loader_read(loader, DIMS(width, inner), "%s.o.weight", name);
    float *v = loader_read(loader, DIMS(inner, width), "%s.v.weight", name);
    float *product = loader_calloc(loader, width * width, sizeof *product);

    if (loader->rc == MODEL_OK)
        loader_product(loader, width, inner, width, o, v, product);
    loader_upload(loader, name, loader->precision, DIMS(width, width), product, out);
    loader->parameters = parameters;
    free(o);
    free(v);
    free(product);
}

/* ---- config.json ---------------------------------------------------------------------------------------------------------------- */

static void read_levels(loader_t *loader, chronos_levels_t *out)
{
    static const char key[] = "chronos_config.quantiles";
    double levels[CHRONOS_LEVELS_MOST];
    size_t count = 0;
    bool median = false;

    if (loader->rc == MODEL_OK && checkpoint_config_numbers(loader->checkpoint, key, levels, CHRONOS_LEVELS_MOST, &count) < 0)
        loader->rc = MODEL_ERR_CHECKPOINT;
    for (size_t i = 0; loader->rc == MODEL_OK && i < count; i++) {
        loader_expect(loader, levels[i] > (i > 0 ? levels[i - 1] : 0) && levels[i] < 1, key, "not ascending inside (0, 1)",
                      "levels that are");
        out->value[i] = (float)levels[i];
        median |= out->value[i] == 0.5f;
    }
    loader_expect(loader, median, key, "without 0.5", "it among them: it is the mean of a forecast");
    out->count = (int64_t)count;
}

void chronos_read_config(loader_t *loader, float *eps, chronos_levels_t *levels)
{
    double norm_eps = 1e-6;
    bool reg = false;

    loader_expect_text(loader, "feed_forward_proj", "relu");
    loader_config_bool(loader, "chronos_config.use_reg_token", &reg);
    loader_expect(loader, reg, "chronos_config.use_reg_token", "false", "true");
    loader_optional_f64(loader, "layer_norm_epsilon", NORM_EPS_LEAST, NORM_EPS_MOST, &norm_eps);
    *eps = (float)norm_eps;
    read_levels(loader, levels);
}

void chronos_expect_patches(loader_t *loader, int64_t patch, int64_t stride, int64_t context)
{
    loader_expect(loader, stride == patch, "chronos_config.input_patch_stride", "not input_patch_size",
                  "patches that do not overlap");
    loader_expect(loader, context % patch == 0, "chronos_config.context_length", "no multiple of input_patch_size", "one");
}

/* ---- taps --------------------------------------------------------------------------------------------------------------------- */

/* BF16 at the beginning of the memory becomes F32 over all of it. */
static void widen(float *values, int64_t count)
{
    for (int64_t i = count - 1; i >= 0; i--) {
        uint16_t half;
        uint32_t bits;

        memcpy(&half, (const char *)values + (size_t)i * sizeof half, sizeof half);
        bits = (uint32_t)half << 16;
        memcpy(&values[i], &bits, sizeof bits);
    }
}

int chronos_show(const tap_t *tap, backend_t *backend, int round, const char *name, const backend_tensor_t *tensor,
                 const chronos_view_t *view)
{
    int64_t values = view->d0 * view->d1 * view->d2, rows = view->series * view->variates * view->paths;
    int64_t dim[] = {view->series, view->variates, view->paths, values};
    float *all, *shown, *to;
    char text[64];
    int rc;

    if (tap->call == NULL)
        return BACKEND_OK;
    all = malloc((size_t)backend_tensor_elements(tensor) * sizeof *all);
    to = shown = malloc((size_t)(rows * values) * sizeof *shown);
    rc = all != NULL && shown != NULL ? backend_read(backend, tensor, all)
                                      : error_set(BACKEND_ERR_MEMORY, "tap %s: out of memory", name);
    if (rc == BACKEND_OK && tensor->dtype == BACKEND_BF16)
        widen(all, backend_tensor_elements(tensor));
    for (int64_t row = 0; rc == BACKEND_OK && row < rows; row++) {
        int64_t series = row / (view->variates * view->paths), variate = row / view->paths % view->variates,
                path = row % view->paths;
        const float *from = all + view->offset + ((series * view->paths + path) * view->variates + variate) * view->row_stride;

        for (int64_t i = 0; i < view->d0 * view->d1; i++, to += view->d2)
            memcpy(to, from + i / view->d1 * view->s0 + i % view->d1 * view->s1, (size_t)view->d2 * sizeof *to);
    }
    snprintf(text, sizeof text, "round%d.%s", round, name);
    if (rc == BACKEND_OK)
        tap->call(tap->context, text, 0, shown, 4, dim);
    free(all);
    free(shown);
    return rc;
}
