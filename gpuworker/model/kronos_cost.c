/* What a forecast of Kronos moves and computes at least. Letters as in kronos.c. */
#include "gpuworker/model/kronos.h"

/* Over the whole forecast, of the predictor. */
typedef struct {
    double passes;           /* over its weights */
    double tokens;           /* that go through it */
    double pairs;            /* queries times the keys that each one sees, of one block */
    double dependency_pairs; /* the same of the dependency layer, where each token predicted asks once */
    double cached;           /* tokens whose keys and values are written, and again for each later pass that reads them */
} work_t;

/* Queries times keys when `tokens` follow `before` others. */
static double pairs(double tokens, double before)
{
    return tokens * before + tokens * (tokens + 1) / 2;
}

static void add_context(work_t *work, double series, double tokens)
{
    work->passes++;
    work->tokens += series * tokens;
    work->pairs += series * pairs(tokens, 0);
    work->cached += series * tokens;
}

static work_t count_work(double series, double paths, int64_t kept, int64_t window, int64_t horizon)
{
    work_t work = {0};

    add_context(&work, series, (double)kept);
    work.dependency_pairs = paths * (double)kept;
    for (int64_t step = 1; step < horizon; step++) {
        bool rolls = kept + step > window;
        double context = (double)(rolls ? window - step : kept), fresh = rolls ? (double)step : 1;

        if (rolls)
            add_context(&work, series, context);
        work.passes++;
        work.tokens += paths * fresh;
        work.pairs += paths * pairs(fresh, context + (double)step - fresh);
        work.dependency_pairs += paths * (context + (double)step);
        work.cached += series * context + paths * (double)step;
    }
    return work;
}

/* Matrix elements of all of a stack. */
static double stack_elements(const kronos_stack_t *stack)
{
    return (double)stack->count * (double)(4 * stack->width * stack->width + 3 * stack->hidden * stack->width);
}

void kronos_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out)
{
    int64_t window = shape->options.window > 0 ? shape->options.window : KRONOS_WINDOW, horizon = shape->horizon;
    int64_t kept = shape->context < window ? shape->context : window, decoded = kept < window - horizon ? kept : window - horizon;
    double batch = shape->batch, paths = batch * (shape->samples > 0 ? shape->samples : 1), context = shape->context;
    double width = (double)model->predictor.width, tokenizer_width = (double)model->encoder.width;
    double bytes = (double)backend_dtype_bytes(model->base.precision), blocks = (double)model->predictor.count;
    double predictor = stack_elements(&model->predictor), encoder = stack_elements(&model->encoder),
           decoder = stack_elements(&model->decoder);
    /* The dependency layer: keys and values of every token, an output for each that is predicted. With it come both heads; the identity that
     * keeps norm(x) does not count. */
    double key_value = 2 * width * width;
    double heads = width * (width + (double)(kronos_vocabulary(model, 0) + kronos_vocabulary(model, 1)));
    work_t work = count_work(batch, paths, kept, window, horizon);
    double decoder_tokens = batch * (double)decoded + paths * (double)horizon;
    double tokenizer_pairs =
        (double)model->encoder.count * batch * pairs(context, 0) +
        (double)model->decoder.count * (batch * pairs((double)decoded, 0) + paths * pairs((double)horizon, (double)decoded));

    *out = (model_cost_t){
        .weight_bytes = (work.passes * (predictor + key_value) + (double)horizon * heads + 2 * decoder) * bytes +
                        encoder * (double)sizeof(float),
        .cache_bytes = (blocks + 1) * work.cached * 2 * width * bytes,
        .io_bytes = model_io_bytes(shape),
        .flops = 2 * (work.tokens * (predictor + key_value) + paths * (double)horizon * heads + batch * context * encoder +
                      decoder_tokens * decoder) +
                 4 * (width * (blocks * work.pairs + work.dependency_pairs) + tokenizer_width * tokenizer_pairs),
    };
}
