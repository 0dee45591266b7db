/* What a forecast of Chronos-2 moves and computes at least. Letters as in chronos2.c; a pass is one round. */
#include "gpuworker/model/chronos2.h"

/* Matrix elements that a token meets in one layer: to attend over time, and after that, where a single variate's group attention is one matrix. */
static double attending_matrices(const chronos2_config_t *c)
{
    return 3.0 * (double)c->width * (double)(c->heads * c->head_dim);
}

static double finishing_matrices(const chronos2_config_t *c, bool alone)
{
    double width = (double)c->width, inner = (double)(c->heads * c->head_dim);

    return width * inner + (alone ? width * width : 4 * width * inner) + 2 * width * (double)c->hidden;
}

static double block_matrices(const chronos2_config_t *c, double in, double out)
{
    return (double)c->hidden * (in + out) + in * out;
}

void chronos2_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    const chronos2_config_t *c = &model->config;
    bool alone = shape->variates == 1;
    double layers = (double)c->layers, inner = (double)(c->heads * c->head_dim);
    double attending = attending_matrices(c), finishing = finishing_matrices(c, alone);
    double embed = block_matrices(c, 3.0 * (double)c->patch, (double)c->width);
    double head = block_matrices(c, (double)c->width, (double)(c->levels.count * c->patch));
    double pair = 4 * inner; /* flops of a query with a key and its value, all heads */
    int64_t patches = (shape->horizon + c->patch - 1) / c->patch;

    *out = (model_cost_t){.io_bytes = model_io_bytes(shape)};
    for (int64_t before = 0; before < patches; before += c->output_patches) {
        int64_t context = shape->context + before * c->patch;
        double ahead = (double)(patches - before < c->output_patches ? patches - before : c->output_patches);
        double tokens = (double)((context < c->context_most ? context : c->context_most) / c->patch) + 1 + ahead;
        double rows = (double)shape->batch * shape->variates * (before > 0 ? CHRONOS2_PATHS : 1);

        /* only the predicted tokens have to be finished in the last layer */
        double finished = (layers - 1) * tokens + ahead, seen = tokens + (alone ? 0 : (double)shape->variates);

        out->weight_bytes += (layers * (attending + finishing) + embed + head) * (double)backend_dtype_bytes(model->base.precision);
        out->flops +=
            rows * (2 * (tokens * (embed + layers * attending) + finished * finishing + ahead * head) + finished * pair * seen);
    }
}
