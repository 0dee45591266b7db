/* Kronos's tokenizer at work: bars to tokens, and tokens to bars. See kronos.c. */
#include "gpuworker/model/kronos_state.h"

static const float SCALE_EPS = 1e-5f, CLIP = 5;

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
    TRY(kronos_show(state, "norm_mean", 0, &state->loc, batch, 1, KRONOS_FIELDS));
    TRY(kronos_show(state, "norm_std", 0, &state->scale, batch, 1, KRONOS_FIELDS));
    TRY(kronos_show(state, "normalized", 0, &state->bars, batch, context, KRONOS_FIELDS));
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
    for (int part = KRONOS_PART_1; part < KRONOS_PART_TIME; part++) {
        backend_tensor_t tokens = backend_tensor_from(&state->tapped_tokens, part * batch * context);
        TRY(kronos_show_integers(state, part == KRONOS_PART_1 ? "tok.s1_ids" : "tok.s2_ids", 0, &tokens, batch, context, 0));
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
    TRY(kronos_show(state, "tok.embed", 0, &state->encoder_work.hidden, batch, context, model->encoder.width));
    rc = kronos_stack_run(state->backend, &model->encoder, &state->tokenizer_rope, &state->encoder_work, &pass, &state->tap);
    if (rc < 0)
        return rc;
    TRY(backend_linear(state->backend, &(backend_linear_t){.x = state->encoder_work.hidden,
                                                           .rows = batch * context,
                                                           .weight = &model->quantise,
                                                           .bias = &model->quantise_bias,
                                                           .y = state->bits}));
    TRY(kronos_show(state, "tok.pre_quant", 0, &state->bits, batch, context, bits));
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

int kronos_encode(model_state_t *state)
{
    int rc = normalise(state);

    return rc < 0 ? rc : tokenise(state);
}

/* ---- tokens to bars ------------------------------------------------------------------------------------------------------------------- */

/* The tokenizer's decoder over the columns from `column` on, of sequences whose tokens lie `stride` apart, to decoder_work.hidden. */
static int run_decoder(model_state_t *state, const kronos_pass_t *pass, int64_t stride, int64_t column)
{
    const model_t *model = state->model;

    TRY(backend_embed(state->backend, &(backend_embed_t){.table = {model->code[0].tensor, model->code[1].tensor},
                                                         .count = KRONOS_PART_TIME,
                                                         .indices = kronos_tokens_from(state, KRONOS_PART_1, column),
                                                         .index_stride = stride,
                                                         .table_stride = kronos_path_rows(state) * state->columns,
                                                         .bias = &model->code_bias,
                                                         .rows = pass->rows * pass->tokens,
                                                         .tokens = pass->tokens,
                                                         .width = model->decoder.width,
                                                         .y = state->decoder_work.hidden}));
    for (int part = KRONOS_PART_1; part < KRONOS_PART_TIME; part++) {
        backend_tensor_t tokens = kronos_tokens_from(state, part, column);
        TRY(kronos_show_integers(state, part == KRONOS_PART_1 ? "decode.token_s1" : "decode.token_s2", pass->tap_step, &tokens,
                                 pass->rows, pass->tokens, stride));
    }
    TRY(kronos_show(state, "decode.post_quant_embed", pass->tap_step, &state->decoder_work.hidden, pass->rows, pass->tokens,
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
    TRY(kronos_show(state, "decode.head", pass->tap_step, &state->decoded, pass->rows, pass->tokens, KRONOS_FIELDS));
    return MODEL_OK;
}

/* The last W tokens at most: those of the context, once a series, then the generated ones, once a path. decoded [B·N][horizon][6], then
 * paths_out. */
int kronos_decode(model_state_t *state)
{
    int64_t column = state->kept - state->decoded_context;
    backend_tensor_t begin = kronos_step_at(state, 0), index = kronos_columns_from(state, column);
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
        (rc = run_decoder(state, &generated, state->columns, state->kept)) < 0 || (rc = decode_head(state, &generated)) < 0)
        return rc;
    TRY(backend_transpose(state->backend, &(backend_transpose_t){.x = state->decoded,
                                                                 .loc = &state->loc,
                                                                 .scale = &state->scale,
                                                                 .rows = kronos_path_rows(state),
                                                                 .tokens = state->shape.horizon,
                                                                 .channels = KRONOS_FIELDS,
                                                                 .rows_each = state->paths,
                                                                 .y = state->paths_out}));
    return MODEL_OK;
}
