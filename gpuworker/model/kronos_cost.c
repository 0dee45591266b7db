/* What a forecast of Kronos moves and computes at least. Letters as in kronos.c. A step is the prefill, a decode step, or one of the steps whose
 * window rolls, which the model defines as a new computation of W tokens. */
#include "gpuworker/model/kronos_state.h"

/* Matrix elements of one block, and of all of a stack. */
static double stack_elements(const kronos_stack_t *stack)
{
    return (double)stack->count * (double)(4 * stack->width * stack->width + 3 * stack->hidden * stack->width);
}

/* Elements of what follows the predictor's stack: both heads, the dependency layer. The identity that keeps norm(x) does not count. */
static double head_elements(const model_t *model)
{
    return (double)model->predictor.width *
           (double)(kronos_vocabulary(model, 0) + kronos_vocabulary(model, 1) + 3 * model->predictor.width);
}

/* Queries times the keys that each one sees, when `tokens` follow `before` others. */
static double pairs(double tokens, double before)
{
    return tokens * before + tokens * (tokens + 1) / 2;
}

void kronos_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    double batch = shape->batch, paths = batch * (shape->samples > 0 ? shape->samples : 1), horizon = shape->horizon;
    double window = shape->options.window > 0 ? shape->options.window : KRONOS_WINDOW, context = shape->context;
    double kept = context < window ? context : window, fit = window - kept + 1;
    double cached = horizon < fit ? horizon : fit, decodes = cached - 1, rolled = horizon - cached;
    bool decode_all = kept + horizon <= window;
    double bytes = (double)backend_dtype_bytes(model->precision), blocks = (double)model->predictor.count;
    double predictor = stack_elements(&model->predictor), encoder = stack_elements(&model->encoder),
           decoder = stack_elements(&model->decoder);
    double width = (double)model->predictor.width, tokenizer_width = (double)model->encoder.width;

    /* Tokens that pass through each network, and their attention. The dependency layer attends once a step and path, like one more block. */
    double predicted = batch * kept + paths * decodes + paths * rolled * window;
    double decoded = decode_all ? batch * kept + paths * horizon : paths * window;
    double path_pairs = paths * (decodes * kept + pairs(decodes, 0)), rolled_pairs = paths * rolled * pairs(window, 0);
    double predictor_pairs = blocks * (batch * pairs(kept, 0) + path_pairs + rolled_pairs) +
                             paths * (kept * cached + pairs(decodes, 0) + rolled * window);
    double tokenizer_pairs = (double)model->encoder.count * batch * pairs(context, 0) +
                             (double)model->decoder.count *
                                 (decode_all ? batch * pairs(kept, 0) + paths * pairs(horizon, kept) : paths * pairs(window, 0));
    /* Cached tokens: the context's, written once and read in each later step once for all paths of a series; a path's own. */
    double cached_tokens = batch * kept * (1 + decodes) + paths * (decodes + pairs(decodes, 0));

    *out = (model_cost_t){
        .weight_bytes = horizon * (predictor + head_elements(model)) * bytes + encoder * (double)sizeof(float) +
                        (decode_all ? 2 : 1) * decoder * bytes,
        .cache_bytes = (blocks + 1) * cached_tokens * 2 * width * bytes,
        .io_bytes = model_io_bytes(shape),
        .flops = 2 * (predicted * (predictor + 2 * width * width) + paths * horizon * (head_elements(model) - 2 * width * width) +
                      batch * context * encoder + decoded * decoder) +
                 4 * (width * predictor_pairs + tokenizer_width * tokenizer_pairs),
    };
}
