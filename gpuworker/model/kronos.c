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

static const float SCALE_EPS = 1e-5f, CLIP = 5;

enum { PART_1, PART_2, PART_TIME, PARTS };

/* ---- views ---------------------------------------------------------------------------------------------------------------------- */

/* Of the token parts from `part` on, the columns from `column` on. */
static backend_tensor_t tokens_from(const model_state_t *state, int part, int64_t column)
{
    return backend_tensor_from(&state->tokens, part * kronos_path_rows(state) * state->columns + column);
}

static backend_tensor_t step_at(const model_state_t *state, int64_t step)
{
    return backend_tensor_from(&state->steps, step);
}

static backend_tensor_t table_of(const backend_tensor_t *tensor, int64_t entries, int64_t width)
{
    return (backend_tensor_t){.data = tensor->data, .dtype = tensor->dtype, .rank = 2, .dim = {entries, width}};
}

/* The rotary table's rows of the columns from `column` on. */
static backend_tensor_t columns_from(const model_state_t *state, int64_t column)
{
    backend_tensor_t view = state->column_index;

    view.data = (int32_t *)view.data + column;
    return view;
}

/* Of the caches, what a window with fewer context tokens needs. */
static void shorten(backend_kv_t *kv, int64_t count, int64_t context)
{
    for (int64_t i = 0; i < count; i++)
        kv[i].prefix_k.dim[2] = kv[i].prefix_v.dim[2] = context;
}

/* ---- taps ----------------------------------------------------------------------------------------------------------------------- */

static int show(const model_state_t *state, const char *name, int step, const backend_tensor_t *tensor, int64_t rows,
                int64_t tokens, int64_t width)
{
    return tap_show(&state->tap, state->backend, name, step, tensor, 0, 0, 3, (int64_t[]){rows, tokens, width});
}

/* Integers [rows][tokens], whose rows lie `stride` apart, as floats. */
static int show_integers(const model_state_t *state, const char *name, int step, const backend_tensor_t *tensor, int64_t rows,
                         int64_t tokens, int64_t stride)
{
    return tap_show_integers(&state->tap, state->backend, name, step, tensor, stride, 2, (int64_t[]){rows, tokens});
}

/* norm(x), which no op writes by itself, through a product with the identity. x [rows][D], rows x_stride apart. */
static int show_norm(model_state_t *state, const char *name, int step, const backend_tensor_t *x, int64_t x_stride,
                     const backend_weight_t *norm, int64_t rows, int64_t tokens)
{
    int64_t width = state->model->predictor.width;

    if (state->tap.call == NULL)
        return BACKEND_OK;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = *x,
                                                           .rows = rows * tokens,
                                                           .x_stride = x_stride,
                                                           .norm = {BACKEND_NORM_RMS, norm, NULL, KRONOS_NORM_EPS},
                                                           .weight = &state->model->identity,
                                                           .y = state->tapped}));
    return show(state, name, step, &state->tapped, rows, tokens, width);
}

/* ---- bars to tokens --------------------------------------------------------------------------------------------------------------- */

/* filled [B][6][T] -> bars [B][T][6], normalised */
static int normalise(model_state_t *state)
{
    int64_t batch = state->shape.batch, context = state->shape.context;

    TRY(backend_instance_scale(state->backend, &(backend_instance_scale_t){.x = state->filled,
                                                                           .mask = &state->present,
                                                                           .rows = batch * KRONOS_FIELDS,
                                                                           .width = context,
                                                                           .eps = SCALE_EPS,
                                                                           .clip = CLIP,
                                                                           .add = true,
                                                                           .y = state->normalised,
                                                                           .loc = state->loc,
                                                                           .scale = state->scale}));
    TRY(backend_transpose(state->backend, &(backend_transpose_t){.x = state->normalised,
                                                                 .rows = batch,
                                                                 .tokens = KRONOS_FIELDS,
                                                                 .channels = context,
                                                                 .rows_each = 1,
                                                                 .y = state->bars}));
    TRY(show(state, "norm_mean", 0, &state->loc, batch, 1, KRONOS_FIELDS));
    TRY(show(state, "norm_std", 0, &state->scale, batch, 1, KRONOS_FIELDS));
    TRY(show(state, "normalized", 0, &state->bars, batch, context, KRONOS_FIELDS));
    return MODEL_OK;
}

/* The tokens of all bars, those that the predictor does not see too. */
static int show_tokens(model_state_t *state)
{
    const model_t *model = state->model;
    int64_t batch = state->shape.batch, context = state->shape.context;

    if (state->tap.call == NULL)
        return MODEL_OK;
    TRY(backend_sign_tokens(state->backend, &(backend_sign_tokens_t){.x = state->bits,
                                                                     .rows = batch * context,
                                                                     .tokens = context,
                                                                     .bits_1 = model->bits_1,
                                                                     .bits_2 = model->bits_2,
                                                                     .copies = 1,
                                                                     .y = state->tapped_tokens,
                                                                     .y_stride = context,
                                                                     .part_stride = batch * context}));
    for (int part = PART_1; part < PART_TIME; part++) {
        backend_tensor_t tokens = backend_tensor_from(&state->tapped_tokens, part * batch * context);
        TRY(show_integers(state, part == PART_1 ? "tok.s1_ids" : "tok.s2_ids", 0, &tokens, batch, context, 0));
    }
    return MODEL_OK;
}

/* bars -> tokens: the last K of each series, in each of its paths */
static int tokenise(model_state_t *state)
{
    const model_t *model = state->model;
    int64_t batch = state->shape.batch, context = state->shape.context, bits = model->bits_1 + model->bits_2;
    int64_t path_rows = kronos_path_rows(state), columns = state->columns;
    kronos_pass_t pass = {.mode = BACKEND_ATTENTION_PREFILL,
                          .rows = batch,
                          .tokens = context,
                          .samples = 1,
                          .index = &state->column_index,
                          .first = &state->first_bar,
                          .kv = &state->encoder_kv,
                          .tap_name = "tok.encoder"};
    int rc;

    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->bars,
                                                           .rows = batch * context,
                                                           .weight = &model->embed,
                                                           .bias = &model->embed_bias,
                                                           .y = state->encoder_work.hidden}));
    TRY(show(state, "tok.embed", 0, &state->encoder_work.hidden, batch, context, model->encoder.width));
    rc = kronos_stack_run(state->backend, &model->encoder, &state->tokenizer_rope, &state->encoder_work, &pass, &state->tap);
    if (rc < 0)
        return rc;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->encoder_work.hidden,
                                                           .rows = batch * context,
                                                           .weight = &model->quantise,
                                                           .bias = &model->quantise_bias,
                                                           .y = state->bits}));
    TRY(show(state, "tok.pre_quant", 0, &state->bits, batch, context, bits));
    TRY(backend_sign_tokens(state->backend,
                            &(backend_sign_tokens_t){.x = backend_tensor_from(&state->bits, (context - state->kept) * bits),
                                                     .x_stride = context * bits,
                                                     .rows = batch * state->kept,
                                                     .tokens = state->kept,
                                                     .bits_1 = model->bits_1,
                                                     .bits_2 = model->bits_2,
                                                     .copies = state->paths,
                                                     .y = state->tokens,
                                                     .y_stride = columns,
                                                     .part_stride = path_rows * columns}));
    return show_tokens(state);
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
                             .count = PARTS,
                             .indices = tokens_from(state, PART_1, column),
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
                                                         .count = PART_TIME,
                                                         .indices = state->tokens,
                                                         .index_stride = state->paths * state->columns,
                                                         .table_stride = kronos_path_rows(state) * state->columns,
                                                         .bias = &model->token_bias,
                                                         .rows = batch * state->kept,
                                                         .tokens = state->kept,
                                                         .width = width,
                                                         .y = state->tapped}));
    TRY(show(state, "step0.embedding", 0, &state->tapped, batch, state->kept, width));
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
    backend_tensor_t at = step_at(state, step);
    int64_t rows = kronos_path_rows(state), vocabulary = kronos_vocabulary(state->model, part);

    TRY(tap_show(&state->tap, state->backend, part == PART_1 ? "steps.s1_logits" : "steps.s2_logits", (int)step, logits, 0, stride,
                 2, (int64_t[]){rows, vocabulary}));
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
                                                                   .tokens = tokens_from(state, part, state->kept),
                                                                   .token_stride = state->columns,
                                                                   .then = then}));
    at = tokens_from(state, part, state->kept + step);
    return show_integers(state, part == PART_1 ? "steps.s1_ids" : "steps.s2_ids", (int)step, &at, rows, 1, state->columns);
}

/* What a step predicts from: `tokens` features of each path, of which the last count, and what the dependency layer sees. In QUERY its
 * prefix holds all keys; in DECODE and EXTEND those of the tokens lie in qkv and are appended, from tail position *append on. */
typedef struct {
    int64_t step; /* the generated token that is predicted: 0 .. horizon - 1 */
    const backend_tensor_t *hidden;
    int64_t tokens;
    backend_attention_mode_t mode;
    const backend_tensor_t *append;
    const backend_tensor_t *first;
} last_t;

/* Draws the next token of every path: part 1 from norm(x), part 2 from norm(norm(x) + what the dependency layer makes of part 1). Where the
 * next step goes by the cache, its embedding is the last thing done. */
static int predict(model_state_t *state, const last_t *at)
{
    const model_t *model = state->model;
    int64_t width = model->predictor.width, rows = kronos_path_rows(state), stride = width + kronos_vocabulary(model, PART_1);
    int64_t before = (at->tokens - 1) * width; /* elements of a path before its last token */
    backend_tensor_t logits = backend_tensor_from(&state->first_head, width), step = step_at(state, at->step);
    backend_attention_t attention = dependency_attention(state, at->mode, rows, at->tokens, state->paths, at->first);
    backend_embed_t query = {.table = {model->query.tensor},
                             .count = 1,
                             .indices = tokens_from(state, PART_1, state->kept),
                             .index_stride = state->columns,
                             .rows = rows,
                             .tokens = 1,
                             .width = width,
                             .y = backend_tensor_from(&state->predictor_work.qkv, 3 * before),
                             .y_stride = at->tokens * 3 * width,
                             .step = &step};
    backend_embed_t next = token_embedding(state, rows, state->columns, 1, state->kept, &step);
    int rc;

    attention.step = at->append;
    attention.step_tokens = at->tokens;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = backend_tensor_from(at->hidden, before),
                                                           .rows = rows,
                                                           .x_stride = at->tokens * width,
                                                           .norm = {BACKEND_NORM_RMS, &model->norm, NULL, KRONOS_NORM_EPS},
                                                           .weight = &model->first,
                                                           .bias = &model->first_bias,
                                                           .y = state->first_head}));
    TRY(tap_show(&state->tap, state->backend, "steps.context_last", (int)at->step, &state->first_head, 0, stride, 2,
                 (int64_t[]){rows, width}));
    if ((rc = draw(state, PART_1, at->step, &logits, stride, &query)) < 0)
        return rc;
    TRY(backend_attention(state->backend, &attention));
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = backend_tensor_from(&state->predictor_work.mixed, before),
                                                           .rows = rows,
                                                           .x_stride = at->tokens * width,
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
    return draw(state, PART_2, at->step, &state->second_logits, 0, at->step + 1 < state->cached ? &next : NULL);
}

/* ---- steps ---------------------------------------------------------------------------------------------------------------------------- */

/* `tokens` context tokens from `column` on, once a series, into all caches: as their prefix. */
static int run_context(model_state_t *state, int64_t column, int64_t tokens, const backend_tensor_t *first, const char *tap_name)
{
    int64_t batch = state->shape.batch;
    backend_tensor_t index = columns_from(state, column);
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
    last_t last = {
        .step = step, .hidden = &state->predictor_work.hidden, .tokens = tokens, .mode = mode, .append = append, .first = first};
    int rc;

    if ((rc = kronos_stack_run(state->backend, &state->model->predictor, &state->predictor_rope, &state->predictor_work, &pass,
                               &state->tap)) < 0 ||
        (rc = project_dependency(state, &state->predictor_work.hidden, rows * tokens)) < 0)
        return rc;
    return predict(state, &last);
}

/* The whole context; its last features, once a path, predict the first tokens. */
static int prefill(model_state_t *state)
{
    const kronos_stack_t *stack = &state->model->predictor;
    int64_t tokens = state->shape.batch * state->kept, rows = kronos_path_rows(state);
    last_t last = {.hidden = &state->branch, .tokens = 1, .mode = BACKEND_ATTENTION_QUERY, .first = &state->first_token};
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
    backend_tensor_t newest = step_at(state, step - 1);

    return run_paths(state, step, 1, &newest, &state->first_token);
}

/* Recomputes the last W tokens, alone in their window: the context tokens among them once a series, then the `step` generated ones of every
 * path. What the caches held is of no more use. */
static int roll(model_state_t *state, int64_t step)
{
    int64_t context = state->window - step;
    backend_tensor_t begin = step_at(state, 0);
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

/* ---- tokens to bars ------------------------------------------------------------------------------------------------------------------- */

/* The tokenizer's decoder over the columns from `column` on, of sequences whose tokens lie `stride` apart, to decoder_work.hidden. */
static int run_decoder(model_state_t *state, const kronos_pass_t *pass, int64_t stride, int64_t column)
{
    const model_t *model = state->model;

    TRY(backend_embed(state->backend, &(backend_embed_t){.table = {model->code[0].tensor, model->code[1].tensor},
                                                         .count = PART_TIME,
                                                         .indices = tokens_from(state, PART_1, column),
                                                         .index_stride = stride,
                                                         .table_stride = kronos_path_rows(state) * state->columns,
                                                         .bias = &model->code_bias,
                                                         .rows = pass->rows * pass->tokens,
                                                         .tokens = pass->tokens,
                                                         .width = model->decoder.width,
                                                         .y = state->decoder_work.hidden}));
    for (int part = PART_1; part < PART_TIME; part++) {
        backend_tensor_t tokens = tokens_from(state, part, column);
        TRY(show_integers(state, part == PART_1 ? "decode.token_s1" : "decode.token_s2", pass->tap_step, &tokens, pass->rows,
                          pass->tokens, stride));
    }
    TRY(show(state, "decode.post_quant_embed", pass->tap_step, &state->decoder_work.hidden, pass->rows, pass->tokens,
             model->decoder.width));
    return kronos_stack_run(state->backend, &model->decoder, &state->tokenizer_rope, &state->decoder_work, pass, &state->tap);
}

static int decode_head(model_state_t *state, const kronos_pass_t *pass)
{
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->decoder_work.hidden,
                                                           .rows = pass->rows * pass->tokens,
                                                           .weight = &state->model->head,
                                                           .bias = &state->model->head_bias,
                                                           .y = state->decoded}));
    return show(state, "decode.head", pass->tap_step, &state->decoded, pass->rows, pass->tokens, KRONOS_FIELDS);
}

/* The last W tokens at most: those of the context, once a series, then the generated ones, once a path. decoded [B·N][horizon][6] */
static int decode_bars(model_state_t *state)
{
    int64_t column = state->kept - state->decoded_context;
    backend_tensor_t begin = step_at(state, 0), index = columns_from(state, column);
    kronos_pass_t context = {.mode = BACKEND_ATTENTION_PREFILL,
                             .rows = state->shape.batch,
                             .tokens = state->decoded_context,
                             .samples = 1,
                             .index = &index,
                             .first = &state->first_decoded,
                             .kv = state->decoder_kv,
                             .kv_stride = 1,
                             .tap_name = "decode.decoder"};
    kronos_pass_t generated = {.mode = BACKEND_ATTENTION_EXTEND,
                               .rows = kronos_path_rows(state),
                               .tokens = state->shape.horizon,
                               .samples = state->paths,
                               .index = &state->extend_index,
                               .first = &state->first_decoded,
                               .step = &begin,
                               .kv = state->decoder_kv,
                               .kv_stride = 1,
                               .tap_name = "decode.decoder",
                               .tap_step = 1};
    int rc;

    if ((rc = run_decoder(state, &context, state->paths * state->columns, column)) < 0 ||
        (state->tap.call != NULL && (rc = decode_head(state, &context)) < 0) || /* these bars are known */
        (rc = run_decoder(state, &generated, state->columns, state->kept)) < 0)
        return rc;
    return decode_head(state, &generated);
}

/* ---- the forecast --------------------------------------------------------------------------------------------------------------------- */

/* decoded bars -> paths in the series' units, their mean and quantiles */
static int finish(model_state_t *state)
{
    const model_shape_t *shape = &state->shape;
    bool quantiles = shape->quantile_count > 0;
    int64_t horizon = shape->horizon;

    TRY(backend_transpose(state->backend, &(backend_transpose_t){.x = state->decoded,
                                                                 .loc = &state->loc,
                                                                 .scale = &state->scale,
                                                                 .rows = kronos_path_rows(state),
                                                                 .tokens = horizon,
                                                                 .channels = KRONOS_FIELDS,
                                                                 .rows_each = state->paths,
                                                                 .y = state->paths_out}));
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
    if ((rc = normalise(state)) < 0 || (rc = tokenise(state)) < 0 || (rc = embed_times(state)) < 0 || (rc = prefill(state)) < 0)
        return rc;
    for (int64_t step = 1; step < state->shape.horizon; step++)
        if ((rc = step < state->cached ? decode(state, step) : roll(state, step)) < 0)
            return rc;
    if ((rc = decode_bars(state)) < 0 || (rc = finish(state)) < 0)
        return rc;
    TRY(backend_copy_out(state->backend, &state->outputs.device, state->outputs.host));
    return MODEL_OK;
}

const model_family_t kronos_family = {
    .name = "kronos",
    .matches = kronos_matches,
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
