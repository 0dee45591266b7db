/* What a forecast of Toto 1.0 moves and computes at least. Letters as in toto1.c; a pass is the prefill or one decode step. */
#include "gpuworker/model/parts.h"
#include "gpuworker/model/toto1.h"

/* Bytes of all weights that a pass reads: matrices in the model's precision, vectors in F32. */
static double pass_weight_bytes(const model_t *model)
{
    const toto1_config_t *c = &model->config;
    int64_t width = c->width, outputs = c->patch * 4 * c->components;
    int64_t layer_matrices = 3 * width * width + width * width + 2 * c->hidden * width + width * c->hidden;
    int64_t layer_vectors = width + 3 * width + width + width + 2 * c->hidden + width;
    int64_t matrices = width * c->patch + c->layers * layer_matrices + outputs * width;
    int64_t vectors = width + c->layers * layer_vectors + outputs;

    return (double)matrices * (double)backend_dtype_bytes(model->base.precision) + (double)vectors * sizeof(float);
}

/* Products of one token in a pass, but for the head. */
static double token_flops(const toto1_config_t *c)
{
    return 2.0 * (double)(c->patch * c->width + c->layers * (4 * c->width * c->width + 3 * c->hidden * c->width));
}

static double head_flops(const toto1_config_t *c)
{
    return 2.0 * (double)(c->width * c->patch * 4 * c->components);
}

static int64_t space_layers(const toto1_config_t *c)
{
    int64_t count = 0;

    for (int64_t i = 0; i < c->layers; i++)
        count += toto1_is_space_layer(c, i);
    return count;
}

void toto1_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    const toto1_config_t *c = &model->config;
    double tokens = (double)((shape->context + c->patch - 1) / c->patch),
           steps = (double)((shape->horizon + c->patch - 1) / c->patch);
    double decodes = steps - 1,
           earlier = decodes * (decodes - 1) / 2; /* over all decode steps: how many path tokens lie before its own */
    double rows = (double)shape->batch * shape->variates, path_rows = rows * (shape->samples > 0 ? shape->samples : 1);
    double space = (double)space_layers(c), time = (double)c->layers - space;
    double key_value = 2.0 * (double)c->width; /* elements of a token in one layer's cache */
    double pair = 4.0 * (double)c->width;      /* flops of a query with a key and its value, all heads */

    /* Queries times the keys that each one sees, of one layer. */
    double time_pairs = rows * tokens * (tokens + 1) / 2 + path_rows * (decodes * (tokens + 1) + earlier);
    double space_pairs = (rows * tokens + path_rows * decodes) * shape->variates;
    /* Prefix written by the prefill and read by every decode step; a path's own tokens written, and read by the steps after. */
    double cached_tokens = rows * tokens * (1 + decodes) + path_rows * (decodes + earlier);

    *out = (model_cost_t){
        .weight_bytes = steps * pass_weight_bytes(model),
        .cache_bytes = time * cached_tokens * key_value * (double)backend_dtype_bytes(model->base.precision),
        .io_bytes = model_io_bytes(shape),
        .flops = (rows * tokens + path_rows * decodes) * token_flops(c) + (rows + path_rows * decodes) * head_flops(c) +
                 pair * (time * time_pairs + space * space_pairs),
    };
}
