/* What a forecast of Sundial moves and computes at least. Letters as in sundial_state.h; a pass is the prefill or the tokens that a round
 * appends. Vectors are left out: they are a thousandth. */
#include "gpuworker/model/parts.h"
#include "gpuworker/model/sundial.h"

/* Elements of the matrices that a pass of the decoder multiplies with, and that a step of the flow does. */
static double decoder_elements(const sundial_config_t *c)
{
    return (double)(c->hidden * 2 * c->patch + c->width * (2 * c->patch + c->hidden) +
                    c->layers * (4 * c->width * c->width + 3 * c->hidden * c->width));
}

static double step_elements(const sundial_config_t *c)
{
    return (double)(2 * c->depth * c->width * c->width + (c->width + c->channels) * c->width);
}

/* Once a round: condition, projection of the noise and of its drift, modulations. */
static double condition_elements(const sundial_config_t *c)
{
    return (double)((1 + 3 * c->depth + 2) * c->width * c->width);
}

static double projection_elements(const sundial_config_t *c)
{
    return (double)(c->width * c->channels);
}

void sundial_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    const sundial_config_t *c = &model->config;
    double tokens = (double)((shape->context + c->patch - 1) / c->patch), steps = (double)c->steps;
    double rounds = (double)((shape->horizon + c->channels - 1) / c->channels), append = (double)(c->channels / c->patch);
    double rows = (double)shape->batch * shape->variates, paths = rows * shape->samples;
    double appended = (rounds - 1) * append;

    /* Queries times the keys that each one sees: the whole triangle of all tokens there will be. */
    double pairs = rows * (tokens + appended) * (tokens + appended + 1) / 2;
    /* Keys and values written once; those of the context and of the rounds before read by every later pass. */
    double earlier = append * (rounds - 1) * (rounds - 2) / 2;
    double cached_tokens = rows * (tokens + appended + (rounds - 1) * tokens + earlier);

    double element_bytes = (double)backend_dtype_bytes(model->base.precision);
    double weights = decoder_elements(c) + condition_elements(c) + projection_elements(c) + steps * step_elements(c);
    double decoder_flops = rows * (tokens + appended) * decoder_elements(c);
    double condition_flops = rows * rounds * (double)(c->width * c->width) * (1 + steps * (double)(3 * c->depth + 2));
    double flow_flops = paths * rounds * (2 * projection_elements(c) + steps * step_elements(c));

    *out = (model_cost_t){
        .weight_bytes = rounds * weights * element_bytes,
        .cache_bytes = (double)c->layers * cached_tokens * 2.0 * (double)c->width * element_bytes,
        .io_bytes = model_io_bytes(shape),
        .flops = 2.0 * (decoder_flops + condition_flops + flow_flops) + 4.0 * (double)(c->layers * c->width) * pairs,
    };
}
