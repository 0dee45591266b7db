/* What a forecast of Chronos-Bolt moves and computes at least. Letters as in chronos_bolt.c; a pass is one round. */
#include "gpuworker/model/chronos_bolt.h"

static double block_matrices(const chronos_bolt_config_t *c, double in, double out)
{
    return (double)c->hidden * (in + out) + in * out;
}

void chronos_bolt_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    const chronos_bolt_config_t *c = &model->config;
    double width = (double)c->width, inner = (double)(c->heads * c->head_dim), mlp = 2 * width * (double)c->hidden;
    double encoder = (double)c->encoder_layers, decoder = (double)c->decoder_layers;
    double embed = block_matrices(c, 2.0 * (double)c->patch, width),
           head = block_matrices(c, width, (double)(c->levels.count * c->length));
    double per_token =
        embed + encoder * (4 * width * inner + mlp) + decoder * 2 * width * inner; /* the keys and values of the decoder */
    double per_row = decoder * (width * width + 2 * width * inner + mlp) + head;
    double pair = 4 * inner; /* flops of a query with a key and its value, all heads */

    *out = (model_cost_t){.io_bytes = model_io_bytes(shape)};
    for (int64_t done = 0; done < shape->horizon; done += c->length) {
        int64_t bars = shape->context + done < c->context_most ? shape->context + done : c->context_most;
        double tokens = (double)((bars + c->patch - 1) / c->patch) + 1;
        double rows = (double)shape->batch * shape->variates * (done > 0 ? (double)c->levels.count : 1);

        out->weight_bytes += (per_token + per_row) * (double)backend_dtype_bytes(model->base.precision);
        out->flops += 2 * rows * (tokens * per_token + per_row) + pair * rows * tokens * (encoder * tokens + decoder);
    }
}
