/* What a forecast of Toto 2.0 moves and computes at least. Letters as in toto2.c. */
#include "gpuworker/model/toto2.h"

/* Elements of all matrices that a call reads, and its vectors'; with one variate a layer over variates is one matrix. */
static double call_weight_bytes(const model_t *model, bool single)
{
    const toto2_config_t *c = &model->config;
    double width = (double)c->width, inner = (double)(c->heads * c->head_dim), hidden = (double)c->hidden;
    double inside = (double)toto2_block_width(c), patch = (double)c->patch, outputs = patch * TOTO2_LEVELS;
    double matrices = inside * 2 * patch + width * (inside + 2 * patch) + inside * width + outputs * (width + inside);
    double vectors = 2 * inside + width + 2 * outputs;

    for (int64_t i = 0; i < c->layers; i++) {
        bool alone = single && toto2_is_variate_layer(c, i);

        matrices += (alone ? width * width : 4 * inner * width) + 3 * hidden * width;
        vectors += (c->attention_bias ? width + (alone ? 0 : 3 * inner) : 0) + (c->mlp_bias ? width + 2 * hidden : 0);
    }
    return matrices * (double)backend_dtype_bytes(model->base.precision) + vectors * sizeof(float);
}

/* Products of one layer, of `tokens` up to its attention and `after` from there on. */
static double layer_flops(const toto2_config_t *c, bool alone, double tokens, double after)
{
    double width = (double)c->width, inner = (double)(c->heads * c->head_dim);
    double attention = alone ? after * width : tokens * 3 * inner + after * inner;

    return 2 * width * (attention + after * 3 * (double)c->hidden);
}

void toto2_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    const toto2_config_t *c = &model->config;
    bool single = shape->variates == 1;
    double inner = (double)(c->heads * c->head_dim), width = (double)c->width, inside = (double)toto2_block_width(c);
    double patch = (double)c->patch, rows = (double)shape->batch * shape->variates;
    double ends_in = 2 * (inside * 2 * patch + width * (inside + 2 * patch));
    double ends_out = 2 * (inside * width + patch * TOTO2_LEVELS * (width + inside));
    int64_t context = (shape->context + c->patch - 1) / c->patch, steps = (shape->horizon + c->patch - 1) / c->patch;
    int64_t block = shape->options.decode_block > 0 ? shape->options.decode_block / c->patch : steps, last = c->layers - 1;

    block = block < steps ? block : steps;
    while (single && last >= 0 && toto2_is_variate_layer(c, last))
        last--; /* in this one tokens see each other for the last time */
    *out = (model_cost_t){.io_bytes = model_io_bytes(shape)};
    for (int64_t done = 0, cached = 0; done < steps; done += block) {
        int64_t own = block < steps - done ? block : steps - done, before = done == 0 ? context : block;
        double tokens = (double)(before + own - 1), seen = (double)cached, kept = (double)before;
        double pairs = tokens * seen + tokens * (tokens + 1) / 2; /* queries times the keys that each one sees */

        out->weight_bytes += call_weight_bytes(model, single);
        out->flops += rows * (tokens * ends_in + (double)own * ends_out);
        for (int64_t i = 0; i < c->layers; i++) {
            bool variates = toto2_is_variate_layer(c, i);

            out->flops +=
                rows * layer_flops(c, single && variates, tokens, i < last || (!single && variates) ? tokens : (double)own);
            if (!variates) {
                out->flops += rows * 4 * inner * pairs;
                if (block < steps)
                    out->cache_bytes += rows * 2 * inner * (seen + kept) * (double)backend_dtype_bytes(model->base.precision);
            } else if (!single) {
                out->flops += rows * tokens * 4 * inner * shape->variates;
            }
        }
        cached += before;
    }
}
