/* Kronos (Shi et al., 2025): a language model of candlesticks.
 *
 * A tokenizer, itself a causal transformer over normalised bars (open, high, low, close, volume, amount), turns each bar into a token of two
 * parts: the signs of bits_1 + bits_2 numbers. The predictor is a decoder over these tokens, to whose embeddings the calendar of the bars'
 * times is added. Its last features give part 1 of the next token; a dependency layer, one attention over all features with the drawn part
 * 1 as its query, then part 2. The drawn token is appended, and so on to the horizon, N paths a series. The tokenizer's decoder turns each
 * path's tokens back into bars.
 *
 * The official code recomputes the window of the last W tokens for every token of every path. The features of a token depend on those before
 * it only, and its rotary positions on differences only, so as long as the window holds all tokens nothing of them changes: the context
 * is computed once a series, and shared by its paths; later tokens are computed once. When the window begins to roll, its oldest
 * token leaves, and with it all features change: from then on it is recomputed as the official code does, but what is left of the
 * context in it still once a series.
 *
 * Letters in shape comments: B series, N paths a series, T context bars, W window, K = min(T, W) context tokens in the window, C = K + horizon,
 * D width, H heads, d head size, F hidden width of the MLP, V1 and V2 the vocabularies. */
#include <math.h>

#include "gpuworker/model/kronos_state.h"

/* ---- views ---------------------------------------------------------------------------------------------------------------------- */

static backend_tensor_t table_of(const backend_tensor_t *tensor, int64_t entries, int64_t width)
{
    return (backend_tensor_t){.data = tensor->data, .dtype = tensor->dtype, .rank = 2, .dim = {entries, width}};
}

/* Of the caches, what a window with fewer context tokens needs. */
static void shorten(backend_kv_t *kv, int64_t count, int64_t context)
{
    for (int64_t i = 0; i < count; i++)
        kv[i].prefix_k.dim[2] = kv[i].prefix_v.dim[2] = context;
}

/* ---- taps ----------------------------------------------------------------------------------------------------------------------- */

/* norm(x), which no op writes by itself, through a product with the identity. x [rows][D], rows x_stride apart. */
static int show_norm(model_state_t *state, const char *name, int step, const backend_tensor_t *x, int64_t x_stride,
                     const backend_weight_t *norm, int64_t rows, int64_t tokens)
{
    int64_t width = state->model->predictor.width;

    if (state->tap.call == NULL)
        return MODEL_OK;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = *x,
                                                           .rows = rows * tokens,
                                                           .x_stride = x_stride,
                                                           .norm = {BACKEND_NORM_RMS, norm, NULL, KRONOS_NORM_EPS},
                                                           .weight = &state->model->identity,
                                                           .y = state->tapped}));
    TRY(kronos_show(state, name, step, &state->tapped, rows, tokens, width));
    return MODEL_OK;
}

/* ---- tokens to features ----------------------------------------------------------------------------------------------------------- */

/* The calendar's share of the embeddings of all C columns: time_embedding [B][C][D]. */
static int embed_times(model_state_t *state)
{
    const model_t *model = state->model;
    int64_t batch = state->shape.batch, context = state->shape.context, times = context + state->shape.horizon;
    backend_embed_t op = {.count = KRONOS_TIMES,
                          .indices = backend_tensor_from(&state->times, context - state->kept),
                          .index_stride = KRONOS_TIMES * times,
                          .table_stride = times,
                          .rows = batch * state->columns,
                          .tokens = state->columns,
                          .width = model->predictor.width,
                          .y = state->time_embedding};

    for (int i = 0; i < KRONOS_TIMES; i++)
        op.table[i] = model->time[i].tensor;
    TRY(backend_embed(state->backend, &op));
    TRY(tap_show_integers(&state->tap, state->backend, "stamps", 0, &state->times, 0, 3, (int64_t[]){batch, KRONOS_TIMES, times}));
    return MODEL_OK;
}

/* The predictor's input, to work.hidden: of `rows` sequences, `stride` apart in the tokens, the `tokens` columns from `column` (+ *step) on. */
static backend_embed_t token_embedding(const model_state_t *state, int64_t rows, int64_t stride, int64_t tokens, int64_t column,
                                       const backend_tensor_t *step)
{
    const model_t *model = state->model;
    int64_t width = model->predictor.width;

    return (backend_embed_t){.table = {model->token[0].tensor, model->token[1].tensor,
                                       table_of(&state->time_embedding, state->shape.batch * state->columns, width)},
                             .count = KRONOS_PARTS,
                             .indices = kronos_tokens_from(state, KRONOS_PART_1, column),
                             .index_stride = stride,
                             .table_stride = kronos_path_rows(state) * state->columns,
                             .bias = &model->token_bias,
                             .rows = rows * tokens,
                             .tokens = tokens,
                             .width = width,
                             .y = state->predictor_work.hidden,
                             .step = step};
}

/* The two summands of the embedding by themselves, as the official code has them. */
static int show_embeddings(model_state_t *state)
{
    const model_t *model = state->model;
    int64_t batch = state->shape.batch, width = model->predictor.width;

    if (state->tap.call == NULL)
        return MODEL_OK;
    TRY(backend_embed(state->backend, &(backend_embed_t){.table = {model->token[0].tensor, model->token[1].tensor},
                                                         .count = KRONOS_PART_TIME,
                                                         .indices = state->tokens,
                                                         .index_stride = state->paths * state->columns,
                                                         .table_stride = kronos_path_rows(state) * state->columns,
                                                         .bias = &model->token_bias,
                                                         .rows = batch * state->kept,
                                                         .tokens = state->kept,
                                                         .width = width,
                                                         .y = state->tapped}));
    TRY(kronos_show(state, "step0.embedding", 0, &state->tapped, batch, state->kept, width));
    TRY(tap_show(&state->tap, state->backend, "step0.time_embedding", 0, &state->time_embedding, 0, state->columns * width, 2,
                 (int64_t[]){batch, state->kept * width}));
    return MODEL_OK;
}

/* Keys and values of the dependency layer, of `rows` rows of hidden states, at their places in qkv [rows][3][D]. */
static int project_dependency(model_state_t *state, const backend_tensor_t *hidden, int64_t rows)
{
    const model_t *model = state->model;
    int64_t width = model->predictor.width;

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = *hidden,
                                                           .rows = rows,
                                                           .norm = {BACKEND_NORM_RMS, &model->norm, NULL, KRONOS_NORM_EPS},
                                                           .weight = &model->key_value,
                                                           .bias = &model->kv_bias,
                                                           .y = backend_tensor_from(&state->predictor_work.qkv, width),
                                                           .y_stride = 3 * width}));
    return MODEL_OK;
}

static backend_attention_t dependency_attention(model_state_t *state, backend_attention_mode_t mode, int64_t rows, int64_t tokens,
                                                int64_t samples, const backend_tensor_t *first)
{
    int64_t head_dim = state->model->predictor.width / KRONOS_DEPENDENCY_HEADS;

    return (backend_attention_t){.mode = mode,
                                 .qkv = state->predictor_work.qkv,
                                 .out = state->predictor_work.mixed,
                                 .rows = rows,
                                 .tokens = tokens,
                                 .samples = samples,
                                 .variates = 1,
                                 .heads = KRONOS_DEPENDENCY_HEADS,
                                 .head_dim = (int)head_dim,
                                 .scale = 1.0f / sqrtf((float)head_dim),
                                 .kv = &state->dependency_kv,
                                 .first = first};
}

/* ---- features to the next token ----------------------------------------------------------------------------------------------------- */

/* Draws part `part` of the token `step` of every path; `then` (NULL: nothing) embeds it where it is read next. */
static int draw(model_state_t *state, int part, int64_t step, const backend_tensor_t *logits, int64_t stride,
                const backend_embed_t *then)
{
    backend_tensor_t at = kronos_step_at(state, step);
    int64_t rows = kronos_path_rows(state), vocabulary = kronos_vocabulary(state->model, part);

    TRY(tap_show(&state->tap, state->backend, part == KRONOS_PART_1 ? "steps.s1_logits" : "steps.s2_logits", (int)step, logits, 0,
                 stride, 2, (int64_t[]){rows, vocabulary}));
    TRY(backend_draw_token(state->backend, &(backend_draw_token_t){.logits = *logits,
                                                                   .rows = rows,
                                                                   .vocabulary = vocabulary,
                                                                   .logits_stride = stride,
                                                                   .paths = state->paths,
                                                                   .temperature = state->options.temperature,
                                                                   .top_p = state->options.top_p,
                                                                   .top_k = state->options.top_k,
                                                                   .keys = &state->key,
                                                                   .stream = (uint32_t)part,
                                                                   .step = &at,
                                                                   .tokens = kronos_tokens_from(state, part, state->kept),
                                                                   .token_stride = state->columns,
                                                                   .then = then}));
    at = kronos_tokens_from(state, part, state->kept + step);
    TRY(kronos_show_integers(state, part == KRONOS_PART_1 ? "steps.s1_ids" : "steps.s2_ids", (int)step, &at, rows, 1,
                             state->columns));
    return MODEL_OK;
}

/* What a step predicts from: the features of each path's last token, and what the dependency layer sees. In QUERY its cache holds all keys; in
 * DECODE the last token's lies in qkv and is appended. */
typedef struct {
    int64_t step;            /* the generated token that is predicted: 0 .. horizon - 1 */
    backend_tensor_t hidden; /* a path's at hidden + path · stride */
    int64_t stride;
    backend_attention_mode_t mode;
    const backend_tensor_t *newest; /* the last token's position in the tail; NULL: it is the prefix's last */
    const backend_tensor_t *first;
} last_t;

/* Draws the next token of every path: part 1 from norm(x), part 2 from norm(norm(x) + what the dependency layer makes of part 1). Where the
 * next step goes by the cache, its embedding is the last thing done. */
static int predict(model_state_t *state, const last_t *at)
{
    const model_t *model = state->model;
    int64_t width = model->predictor.width, rows = kronos_path_rows(state),
            stride = width + kronos_vocabulary(model, KRONOS_PART_1);
    backend_tensor_t logits = backend_tensor_from(&state->first_head, width), step = kronos_step_at(state, at->step);
    backend_attention_t attention = dependency_attention(state, at->mode, rows, 1, state->paths, at->first);
    backend_embed_t query = {.table = {model->query.tensor},
                             .count = 1,
                             .indices = kronos_tokens_from(state, KRONOS_PART_1, state->kept),
                             .index_stride = state->columns,
                             .rows = rows,
                             .tokens = 1,
                             .width = width,
                             .y = state->predictor_work.qkv,
                             .y_stride = 3 * width,
                             .step = &step};
    backend_embed_t next = token_embedding(state, rows, state->columns, 1, state->kept, &step);
    int rc;

    attention.step = at->newest;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = at->hidden,
                                                           .rows = rows,
                                                           .x_stride = at->stride,
                                                           .norm = {BACKEND_NORM_RMS, &model->norm, NULL, KRONOS_NORM_EPS},
                                                           .weight = &model->first,
                                                           .bias = &model->first_bias,
                                                           .y = state->first_head}));
    TRY(tap_show(&state->tap, state->backend, "steps.context_last", (int)at->step, &state->first_head, 0, stride, 2,
                 (int64_t[]){rows, width}));
    if ((rc = draw(state, KRONOS_PART_1, at->step, &logits, stride, &query)) < 0)
        return rc;
    TRY(backend_attention(state->backend, &attention));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->predictor_work.mixed,
                                                           .rows = rows,
                                                           .weight = &model->mix,
                                                           .bias = &model->mix_bias,
                                                           .residual = &state->first_head,
                                                           .y = state->first_head,
                                                           .y_stride = stride}));
    if (at->step == 0 &&
        (rc = show_norm(state, "step0.dep_layer_last", 0, &state->first_head, stride, &model->second_norm, rows, 1)) < 0)
        return rc;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->first_head,
                                                           .rows = rows,
                                                           .x_stride = stride,
                                                           .norm = {BACKEND_NORM_RMS, &model->second_norm, NULL, KRONOS_NORM_EPS},
                                                           .weight = &model->second,
                                                           .bias = &model->second_bias,
                                                           .y = state->second_logits}));
    return draw(state, KRONOS_PART_2, at->step, &state->second_logits, 0, at->step + 1 < state->cached ? &next : NULL);
}

/* ---- steps ---------------------------------------------------------------------------------------------------------------------------- */

/* `tokens` context tokens from `column` on, once a series, into all caches: as their prefix. */
static int run_context(model_state_t *state, int64_t column, int64_t tokens, const backend_tensor_t *first, const char *tap_name)
{
    int64_t batch = state->shape.batch;
    backend_tensor_t index = kronos_columns_from(state, column);
    backend_embed_t embedding = token_embedding(state, batch, state->paths * state->columns, tokens, column, NULL);
    backend_attention_t store = dependency_attention(state, BACKEND_ATTENTION_STORE, batch, tokens, 1, first);
    kronos_pass_t pass = {.mode = BACKEND_ATTENTION_PREFILL,
                          .rows = batch,
                          .tokens = tokens,
                          .samples = 1,
                          .index = &index,
                          .first = first,
                          .kv = state->predictor_kv,
                          .kv_stride = 1,
                          .tap_name = tap_name};
    int rc;

    TRY(backend_embed(state->backend, &embedding));
    if ((rc = kronos_stack_run(state->backend, &state->model->predictor, &state->predictor_rope, &state->predictor_work, &pass,
                               &state->tap)) < 0 ||
        (rc = project_dependency(state, &state->predictor_work.hidden, batch * tokens)) < 0)
        return rc;
    TRY(backend_attention(state->backend, &store));
    return MODEL_OK;
}

/* `tokens` generated tokens of every path, from the *append-th on and embedded already, into the caches' tails; their features predict token
 * `step`. */
static int run_paths(model_state_t *state, int64_t step, int64_t tokens, const backend_tensor_t *append,
                     const backend_tensor_t *first)
{
    int64_t rows = kronos_path_rows(state);
    backend_attention_mode_t mode = tokens == 1 ? BACKEND_ATTENTION_DECODE : BACKEND_ATTENTION_EXTEND;
    kronos_pass_t pass = {.mode = mode,
                          .rows = rows,
                          .tokens = tokens,
                          .samples = state->paths,
                          .index = mode == BACKEND_ATTENTION_DECODE ? &state->path_index : &state->extend_index,
                          .first = first,
                          .step = append,
                          .kv = state->predictor_kv,
                          .kv_stride = 1};
    int64_t width = state->model->predictor.width;
    backend_attention_t store = dependency_attention(state, BACKEND_ATTENTION_APPEND, rows, tokens, state->paths, first);
    backend_tensor_t newest = kronos_step_at(state, step - 1);
    last_t last = {.step = step,
                   .hidden = backend_tensor_from(&state->predictor_work.hidden, (tokens - 1) * width),
                   .stride = tokens * width,
                   .mode = mode == BACKEND_ATTENTION_DECODE ? BACKEND_ATTENTION_DECODE : BACKEND_ATTENTION_QUERY,
                   .newest = &newest,
                   .first = first};
    int rc;

    store.step = append;
    store.step_tokens = tokens;

    if ((rc = kronos_stack_run(state->backend, &state->model->predictor, &state->predictor_rope, &state->predictor_work, &pass,
                               &state->tap)) < 0 ||
        (rc = project_dependency(state, &state->predictor_work.hidden, rows * tokens)) < 0)
        return rc;
    if (mode == BACKEND_ATTENTION_EXTEND)
        TRY(backend_attention(state->backend, &store));
    return predict(state, &last);
}

/* The whole context; its last features, once a path, predict the first tokens. */
static int prefill(model_state_t *state)
{
    const kronos_stack_t *stack = &state->model->predictor;
    int64_t tokens = state->shape.batch * state->kept, rows = kronos_path_rows(state);
    last_t last = {.hidden = state->branch, .stride = stack->width, .mode = BACKEND_ATTENTION_QUERY, .first = &state->first_token};
    int rc;

    shorten(state->predictor_kv, stack->count, state->kept);
    shorten(&state->dependency_kv, 1, state->kept);
    if ((rc = show_embeddings(state)) < 0 || (rc = run_context(state, 0, state->kept, &state->first_token, "step0.layer")) < 0 ||
        (rc = show_norm(state, "step0.final_norm", 0, &state->predictor_work.hidden, 0, &state->model->norm, state->shape.batch,
                        state->kept)) < 0)
        return rc;
    TRY(backend_embed(state->backend, &(backend_embed_t){.table = {table_of(&state->predictor_work.hidden, tokens, stack->width)},
                                                         .count = 1,
                                                         .indices = state->branch_index,
                                                         .rows = rows,
                                                         .tokens = rows,
                                                         .width = stack->width,
                                                         .y = state->branch}));
    return predict(state, &last);
}

/* Appends each path's newest token, which the draw has embedded, to the caches and predicts the next one. */
static int decode(model_state_t *state, int64_t step)
{
    backend_tensor_t newest = kronos_step_at(state, step - 1);

    return run_paths(state, step, 1, &newest, &state->first_token);
}

/* Recomputes the last W tokens, alone in their window: the context tokens among them once a series, then the `step` generated ones of every
 * path. What the caches held is of no more use. */
static int roll(model_state_t *state, int64_t step)
{
    int64_t context = state->window - step;
    backend_tensor_t begin = kronos_step_at(state, 0);
    backend_tensor_t first = backend_tensor_from(&state->first_rolled, (step - state->cached) * state->shape.batch);
    backend_embed_t embedding;
    int rc;

    shorten(state->predictor_kv, state->model->predictor.count, context);
    shorten(&state->dependency_kv, 1, context);
    if ((rc = run_context(state, state->kept - context, context, &first, NULL)) < 0)
        return rc;
    embedding = token_embedding(state, kronos_path_rows(state), state->columns, step, state->kept, NULL);
    TRY(backend_embed(state->backend, &embedding));
    return run_paths(state, step, step, &begin, &first);
}

/* ---- the forecast --------------------------------------------------------------------------------------------------------------------- */

/* Mean and quantiles of the paths. */
static int summarise(model_state_t *state)
{
    const model_shape_t *shape = &state->shape;
    bool quantiles = shape->quantile_count > 0;
    int64_t horizon = shape->horizon;

    TRY(backend_summarize(state->backend, &(backend_summarize_t){.paths = state->paths_out,
                                                                 .path_stride = horizon,
                                                                 .series = shape->batch,
                                                                 .samples = state->paths,
                                                                 .variates = KRONOS_FIELDS,
                                                                 .horizon = horizon,
                                                                 .mean = state->mean,
                                                                 .levels = quantiles ? &state->levels : NULL,
                                                                 .quantiles = quantiles ? &state->quantiles : NULL}));
    return MODEL_OK;
}

static int kronos_forecast(model_state_t *state)
{
    int rc;

    TRY(backend_copy_in(state->backend, &state->inputs.device, state->inputs.host));
    if ((rc = kronos_encode(state)) < 0 || (rc = embed_times(state)) < 0 || (rc = prefill(state)) < 0)
        return rc;
    for (int64_t step = 1; step < state->shape.horizon; step++)
        if ((rc = step < state->cached ? decode(state, step) : roll(state, step)) < 0)
            return rc;
    if ((rc = kronos_decode(state)) < 0 || (rc = summarise(state)) < 0)
        return rc;
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}

const model_family_t kronos_family = {
    .name = "kronos",
    .matches = kronos_matches,
    .model_bytes = sizeof(model_t),
    .state_bytes = sizeof(model_state_t),
    .load = kronos_load,
    .unload = kronos_unload,
    .info = kronos_info,
    .open = kronos_open,
    .prepare = kronos_prepare,
    .forecast = kronos_forecast,
    .close = kronos_close,
    .cost = kronos_cost,
    .set_tap = kronos_set_tap,
    .create = kronos_create,
};
