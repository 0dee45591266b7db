/* One shape of Toto 2.0: its buffers, its rotary table, and what the host adds to the staged inputs. Letters as in toto2.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/toto2.h"

static const double ROPE_BASE = 10000, XPOS_BASE = 256;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t largest(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

toto2_call_t toto2_call(const model_state_t *state, int64_t number)
{
    toto2_call_t call = {.number = number, .before = number == 0 ? state->patches : state->block};

    call.block = least(state->block, state->steps - number * state->block);
    call.tokens = call.before + call.block - state->unread;
    return call;
}

/* Tokens of a row in the largest call, every block's last one included. */
static int64_t tokens_most(const model_state_t *state)
{
    return largest(state->patches, state->calls > 1 ? state->block : 0) + state->block;
}

static bool has_groups(const model_state_t *state)
{
    return state->shape.variates > 1 && state->model->config.variate_layers > 0;
}

/* ---- rotary table ---------------------------------------------------------------------------------------------------------------- */

/* Only the first half of a head is rotated: w = d / 2 elements, pair i of position p by the angle p · 10000^(-2i/w). xPos also multiplies the
 * query by s_i^e and the key by s_i^-e, s_i = (2i + 0.4 w) / (1.4 w), e = (p - c) / 256, where c = (tokens up to the call's end) // 2 is the
 * call's own centre. So it cancels inside a call, but not when a later call meets cached keys. With c0 of the first call and c_k of call k only
 * sums of a query's and a key's exponents matter, so c0 can be moved from the cached keys to those who meet them, and angles and exponents can
 * count from the beginning of the session's context instead of the series':
 *     first call, token t:     position t               query's e = t, key's -t              (one row a token, whatever the series' length)
 *     call k > 0, token t:     p = S + (k - 1) b + t    query's e = p - (c_k - c0), key's -e (c_k - c0 depends on whether S is even)
 * all less a constant that keeps the exponents small. */
static void fill_rope_row(const toto2_config_t *config, double position, double exponent, float *row)
{
    int64_t width = config->head_dim / 2;
    float *q_cos = row, *q_sin = row + width, *k_cos = row + 2 * width, *k_sin = row + 3 * width;

    for (int64_t j = 0; j < width; j++) {
        double pair = (double)(j / 2 * 2), angle = position * pow(ROPE_BASE, -pair / (double)width);
        double s = (pair + 0.4 * (double)width) / (1.4 * (double)width);
        double stretch = config->xpos ? pow(s, exponent / XPOS_BASE) : 1;

        q_cos[j] = (float)(cos(angle) * stretch);
        q_sin[j] = (float)(sin(angle) * stretch);
        k_cos[j] = (float)(cos(angle) / stretch);
        k_sin[j] = (float)(sin(angle) / stretch);
    }
}

/* Of the calls after the first: token t of call `number`, for series of an even or odd number of patches. */
static int64_t block_rope_row(const model_state_t *state, int64_t odd, int64_t number, int64_t t)
{
    return state->patches + state->block + (odd * (state->calls - 1) + number - 1) * 2 * state->block + t;
}

static int64_t rope_rows(const model_state_t *state)
{
    return block_rope_row(state, 2, 1, 0);
}

static void write_rope(model_state_t *state)
{
    const toto2_config_t *config = &state->model->config;
    int64_t floats = 2 * config->head_dim, block = state->block, middle = (state->patches + block) / 2;
    float *table = buffers_table_new(&state->buffers, &state->rope);

    for (int64_t t = 0; table != NULL && t < state->patches + block; t++)
        fill_rope_row(config, (double)t, (double)(t - middle), table + t * floats);
    for (int64_t odd = 0; table != NULL && odd < 2; odd++)
        for (int64_t number = 1; number < state->calls; number++) {
            int64_t own = toto2_call(state, number).block, moved = (odd + number * block + own) / 2 - (odd + block) / 2;

            for (int64_t t = 0; t < 2 * block; t++) {
                int64_t p = state->patches + (number - 1) * block + t;
                fill_rope_row(config, (double)p, (double)(p - moved - middle),
                              table + block_rope_row(state, odd, number, t) * floats);
            }
        }
    buffers_table_write(&state->buffers, &state->rope, table);
}

/* ---- buffers --------------------------------------------------------------------------------------------------------------------- */

static void plan_inputs(model_state_t *state, model_input_t *input)
{
    staging_t *inputs = &state->inputs;
    int64_t blocks = state->calls - 1;

    staging_add_inputs(inputs, &state->shape, input,
                       &(staging_inputs_t){.values = &state->values,
                                           .mask = &state->mask,
                                           .future = state->shape.exogenous > 0 ? &state->future : NULL});
    staging_add(inputs, BACKEND_I32, DIMS(state->rows), &state->first, &state->first_host);
    if (blocks > 0)
        staging_add(inputs, BACKEND_I32, DIMS(state->rows, blocks, 2 * state->block), &state->block_index,
                    &state->block_index_host);
    if (has_groups(state)) {
        staging_add(inputs, BACKEND_I32, DIMS(state->rows, state->patches + state->block), &state->context_group,
                    &state->context_group_host);
        staging_add(inputs, BACKEND_I32, DIMS(state->rows, 2 * state->block), &state->block_group, &state->block_group_host);
    }
    staging_bind(inputs, "toto2 inputs", &state->buffers);
    state->given = *input;
}

static void plan_outputs(model_state_t *state, model_output_t *output)
{
    staging_add_outputs(&state->outputs, &state->shape, output,
                        &(staging_outputs_t){.mean = &state->mean, .quantiles = &state->quantiles, .levels = &state->levels},
                        &state->buffers);
    staging_bind(&state->outputs, "toto2 results", &state->buffers);
}

static void take_caches(model_state_t *state)
{
    const toto2_config_t *config = &state->model->config;
    int64_t tokens = toto2_call(state, 0).tokens, heads = config->heads, d = config->head_dim;
    int64_t tail = (state->calls - 1) * state->block + toto2_call(state, state->calls - 1).block;
    backend_dtype_t dtype = state->model->base.precision;

    for (int64_t i = 0; i < config->layers; i++) {
        backend_kv_t *kv = &state->kv[i];

        if (toto2_is_variate_layer(config, i))
            continue;
        kv->prefix_k = buffers_take(&state->buffers, "keys", dtype, DIMS(state->rows, heads, tokens, d));
        kv->prefix_v = buffers_take(&state->buffers, "values", dtype, DIMS(state->rows, heads, tokens, d));
        if (state->calls == 1)
            continue;
        kv->tail_k = buffers_take(&state->buffers, "block keys", dtype, DIMS(state->rows, heads, tail, d));
        kv->tail_v = buffers_take(&state->buffers, "block values", dtype, DIMS(state->rows, heads, tail, d));
    }
}

/* Token before + i - 1 of every row predicts patch i of the call's block. */
static void write_picks(model_state_t *state)
{
    int32_t *picks = buffers_table_new(&state->buffers, &state->picks), *to = picks;

    for (int64_t number = 0; picks != NULL && number < state->calls; number++) {
        toto2_call_t call = toto2_call(state, number);

        for (int64_t row = 0; row < state->rows; row++)
            for (int64_t i = 0; i < call.block; i++)
                *to++ = (int32_t)(row * call.tokens + call.before - 1 + i);
    }
    buffers_table_write(&state->buffers, &state->picks, picks);
}

int toto2_take_tokens(model_state_t *state)
{
    take_caches(state);
    state->visible = buffers_take(&state->buffers, "visible", BACKEND_U8, DIMS(state->rows, toto2_call(state, 0).tokens));
    state->lasting = buffers_take(&state->buffers, "lasting", BACKEND_U8, DIMS(state->rows, toto2_call(state, 0).tokens));
    write_picks(state);
    return state->buffers.rc;
}

static void take_work(model_state_t *state)
{
    const toto2_config_t *config = &state->model->config;
    buffers_t *buffers = &state->buffers;
    int64_t rows = state->rows, most = tokens_most(state), tokens = rows * most, inner = config->heads * config->head_dim;
    int64_t predicted = rows * state->block;
    backend_dtype_t dtype = state->model->base.precision;

    state->wide = buffers_take(buffers, "patches", dtype, DIMS(tokens, toto2_block_width(config) + 2 * config->patch));
    state->loc = buffers_take(buffers, "patch loc", BACKEND_F32, DIMS(rows, most));
    state->scale = buffers_take(buffers, "patch scale", BACKEND_F32, DIMS(rows, most));
    state->statistics = buffers_take(buffers, "statistics", BACKEND_F64, DIMS(rows, BACKEND_SCALER_STATE));
    if (state->shape.options.cap > 0) {
        state->low = buffers_take(buffers, "cap", BACKEND_F32, DIMS(rows));
        state->high = buffers_take(buffers, "cap", BACKEND_F32, DIMS(rows));
    }
    for (int i = 0; i < 2; i++)
        state->hidden[i] = buffers_take(buffers, "hidden states", BACKEND_F32, DIMS(tokens, config->width));
    state->picked = buffers_take(buffers, "last hidden states", BACKEND_F32, DIMS(predicted, config->width));
    state->picks = buffers_take(buffers, "picks", BACKEND_I32, DIMS(rows * state->steps));
    state->qkv = buffers_take(buffers, "qkv", dtype, DIMS(tokens, 3, inner));
    state->mixed = buffers_take(buffers, "attention output", dtype, DIMS(tokens, inner));
    state->gated = buffers_take(buffers, "mlp hidden", dtype, DIMS(tokens, config->hidden));
    state->head = buffers_take(buffers, "quantile head", BACKEND_F32, DIMS(predicted, config->patch, TOTO2_LEVELS));
    state->native = buffers_take(buffers, "fed back", BACKEND_F32, DIMS(rows, TOTO2_LEVELS, state->block * config->patch));
    state->step = buffers_take(buffers, "step", BACKEND_I32, DIMS(1));
    state->rope = buffers_take(buffers, "rotary table", BACKEND_F32, DIMS(rope_rows(state), 4, config->head_dim / 2));
    state->context_index = buffers_take(buffers, "positions", BACKEND_I32, DIMS(rows, state->patches + state->block));
    state->native_levels = buffers_take(buffers, "quantile levels", BACKEND_F32, DIMS(TOTO2_LEVELS));
}

static void write_constants(model_state_t *state)
{
    int32_t *index = buffers_table_new(&state->buffers, &state->context_index);
    float levels[TOTO2_LEVELS];

    for (int64_t i = 0; index != NULL && i < backend_tensor_elements(&state->context_index); i++)
        index[i] = (int32_t)(i % state->context_index.dim[1]);
    for (int i = 0; i < TOTO2_LEVELS; i++)
        levels[i] = (float)(i + 1) / 10;
    buffers_table_write(&state->buffers, &state->context_index, index);
    buffers_write(&state->buffers, &state->native_levels, levels);
    write_rope(state);
}

/* ---- open, prepare, close ------------------------------------------------------------------------------------------------------------ */

static int check_shape(const model_t *model, const model_shape_t *shape)
{
    int64_t patch = model->config.patch;

    if (shape->options.decode_block % patch != 0)
        return error_set(MODEL_ERR_SHAPE, "toto2: decode_block is %u, expected a multiple of the patch, %lld",
                         shape->options.decode_block, (long long)patch);
    if (shape->options.minimum_observed > patch)
        return error_set(MODEL_ERR_SHAPE, "toto2: minimum_observed is %u, expected at most the patch, %lld",
                         shape->options.minimum_observed, (long long)patch);
    if (!(shape->options.cap >= 0))
        return error_set(MODEL_ERR_SHAPE, "toto2: cap is %g, expected 0 or more", (double)shape->options.cap);
    return MODEL_OK;
}

void toto2_close(model_state_t *state)
{
    buffers_close(&state->buffers);
    free(state->seen_loc);
    free(state->seen_scale);
}

int toto2_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output)
{
    int64_t patch = model->config.patch;
    int rc = check_shape(model, shape);

    if (rc < 0)
        return rc;
    state->model = model;
    state->backend = model->base.backend;
    state->rows = (int64_t)shape->batch * shape->variates;
    state->patches = (shape->context + patch - 1) / patch;
    state->steps = (shape->horizon + patch - 1) / patch;
    state->block = shape->options.decode_block > 0 ? least(shape->options.decode_block / patch, state->steps) : state->steps;
    state->calls = (state->steps + state->block - 1) / state->block;
    state->unread = 1;
    shape->context = (uint32_t)(state->patches * patch);
    shape->samples = 0;
    state->shape = *shape;
    state->buffers = (buffers_t){.backend = state->backend};
    state->kv = buffers_calloc(&state->buffers, model->config.layers, sizeof *state->kv);
    plan_inputs(state, input);
    plan_outputs(state, output);
    take_work(state);
    write_constants(state);
    return toto2_take_tokens(state);
}

/* Group ids per token: -1 where a patch of the context has no observation. The official code gives the calls after the first the ids of the
 * *first* patches of the context, although their tokens are predictions, and so do we. */
static void prepare_groups(model_state_t *state, int64_t row, int64_t first)
{
    int64_t patch = state->model->config.patch, patches = state->patches, block = state->block, variates = state->shape.variates;
    bool exogenous = row % variates >= variates - state->shape.exogenous;
    int32_t *ids = state->context_group_host + row * (patches + block), *block_ids = state->block_group_host + row * 2 * block;
    const uint8_t *mask = state->given.mask + row * patches * patch;

    for (int64_t t = 0; t < patches + block; t++) {
        bool forced = t >= patches - !exogenous; /* the last patch counts as observed where it is not exogenous */

        ids[t] = forced || memchr(mask + t * patch, 1, (size_t)patch) != NULL ? state->given.group[row] : -1;
    }
    for (int64_t t = 0; t < 2 * block; t++)
        block_ids[t] = ids[least(first + t, patches + block - 1)];
}

/* From every series' length: where its tokens begin, and which rows of the rotary table those of later calls take. A series that is shorter than
 * the session's context is thereby forecast as in a session of its own length (in whole patches). */
void toto2_prepare(model_state_t *state)
{
    int64_t patch = state->model->config.patch, block = state->block;

    for (int64_t row = 0; row < state->rows; row++) {
        int64_t real = ((int64_t)state->given.length[row / state->shape.variates] + patch - 1) / patch;
        int64_t first = state->patches - real;

        state->first_host[row] = (int32_t)first;
        for (int64_t number = 1; number < state->calls; number++)
            for (int64_t t = 0; t < 2 * block; t++)
                state->block_index_host[(row * (state->calls - 1) + number - 1) * 2 * block + t] =
                    (int32_t)block_rope_row(state, real % 2, number, t);
        if (has_groups(state))
            prepare_groups(state, row, first);
    }
}
