/* Toto 2.0: its configuration, its weights laid out for the ops, and one session's state. The model is told in toto2.c, where the letters of
 * the shapes stand too. */
#ifndef BARCAST_GPUWORKER_MODEL_TOTO2_H
#define BARCAST_GPUWORKER_MODEL_TOTO2_H

#include "gpuworker/model/families.h"
#include "gpuworker/model/parts.h"

enum { TOTO2_LEVELS = 9 }; /* quantiles 0.1 .. 0.9: the official model knows no others */
enum { TOTO2_MEDIAN = 4 };

/* ---- config.json (toto2_config.c) --------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t patch, width, layers, hidden;
    int64_t heads, key_heads, head_dim; /* neighbouring heads share keys and values: key_heads of them */
    int64_t group, variate_layers;      /* of every `group` layers so many attend over variates: the first ones, or the last */
    bool variate_first;
    double eps;
    bool attention_bias, mlp_bias, norm_weight, head_norm, head_norm_weight, per_dim_scale, xpos;
} toto2_config_t;

static inline bool toto2_is_variate_layer(const toto2_config_t *config, int64_t layer)
{
    int64_t place = layer % config->group;
    return config->variate_first ? place < config->variate_layers : place >= config->group - config->variate_layers;
}

/* R, the width inside the residual blocks at the network's two ends. */
static inline int64_t toto2_block_width(const toto2_config_t *config)
{
    return 4 * config->width;
}

bool toto2_matches(const checkpoint_t *checkpoint);
void toto2_read_config(loader_t *loader, toto2_config_t *config);

/* ---- weights (toto2_load.c) ------------------------------------------------------------------------------------------------------- */

/* A matrix and its bias; without a bias that has no data. */
typedef struct {
    backend_weight_t weight, bias;
} toto2_linear_t;

static inline const backend_weight_t *toto2_bias(const toto2_linear_t *linear)
{
    return linear->bias.tensor.data != NULL ? &linear->bias : NULL;
}

typedef struct {
    toto2_linear_t qkv, out;         /* [3·H·d][D], [D][H·d] */
    toto2_linear_t alone;            /* [D][D]: variate layers, what attention is when a series has one variate */
    backend_weight_t q_norm, k_norm; /* [d]; without data: 1 */
    toto2_linear_t gate_up, down;    /* [2·F][D], [D][F] */
    float attention_eps, mlp_eps;    /* of the norms before the two */
    float scale;                     /* official residual stream after this layer / ours */
} toto2_layer_t;

struct model {
    model_base_t base;
    toto2_config_t config;
    toto2_linear_t embed_in, embed_out; /* [R][2·P], [D][R + 2·P] */
    toto2_layer_t *layers;
    toto2_linear_t head_in, head_skip, head_out; /* [R][D], [P·9][D], [P·9][R] */
    float head_eps;
};

void toto2_load(model_t *model, loader_t *loader);
void toto2_unload(model_t *model);
void toto2_info(const model_t *model, model_info_t *out);
void toto2_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out);

/* ---- sessions (toto2_session.c) ------------------------------------------------------------------------------------------------- */

struct model_state {
    model_t *model;
    backend_t *backend;
    model_shape_t shape;
    int64_t rows;                /* B·V */
    int64_t patches;             /* S, of the context */
    int64_t steps, block, calls; /* patches of the horizon; of one call; calls that make the horizon */
    int64_t unread;              /* 1: a call leaves out its last token, whose prediction nobody reads; 0: a tap wants to see it */
    tap_t tap;
    float *seen_loc, *seen_scale; /* [B·V][S + steps]: for the tap only */
    buffers_t buffers;
    staging_t inputs, outputs;
    model_input_t given; /* the caller's side of the staged inputs */

    /* inputs */
    backend_tensor_t values, mask;               /* [B][V][context] */
    backend_tensor_t future;                     /* [B][exogenous][horizon] */
    backend_tensor_t first;                      /* [B·V]: leading tokens that are padding alone */
    backend_tensor_t block_index;                /* [B·V][calls - 1][2·b]: rows of the rotary table */
    backend_tensor_t context_group, block_group; /* [B·V][S + b], [B·V][2·b]: ids per token; only with several variates */
    int32_t *first_host, *block_index_host, *context_group_host, *block_group_host;

    /* constants */
    backend_tensor_t rope;          /* [rows][4][d / 2]: toto2_session.c */
    backend_tensor_t context_index; /* [B·V][S + b]: token t has row t */
    backend_tensor_t picks;         /* [B·V·steps]: of every call the tokens whose features predict a patch */
    backend_tensor_t levels, native_levels;

    /* work: sized for the larger of the first call (S + b tokens a row) and the others (2·b) */
    backend_tensor_t wide;             /* [rows · tokens][R + 2·P]: what a residual block computes, beside what it reads */
    backend_tensor_t loc, scale;       /* [rows][S + b] */
    backend_tensor_t statistics;       /* [rows][BACKEND_SCALER_STATE] */
    backend_tensor_t low, high;        /* [rows]: the cap */
    backend_tensor_t visible, lasting; /* [rows][tokens of the first call] */
    backend_tensor_t hidden[2];  /* [rows · tokens][D], the residual stream, and where it goes from a layer that reads all of it */
    backend_tensor_t picked;     /* [rows · b][D] */
    backend_tensor_t qkv, mixed; /* [rows · tokens][3][H][d], [rows · tokens][H][d] */
    backend_tensor_t gated;      /* [rows · tokens][F] */
    backend_tensor_t head;       /* [rows · b][P][9] */
    backend_tensor_t native;     /* [rows][9][b·P]: what is fed back */
    backend_kv_t *kv;            /* of every time layer */
    backend_tensor_t step;       /* [1]: call - 1 */

    /* results */
    backend_tensor_t mean, quantiles; /* [B][V][horizon], [B][V][quantiles][horizon] */
};

/* One call of the network: predicts `block` patches. The first has the context and then the block's tokens; the others what the call before
 * predicted and then the block's. */
typedef struct {
    int64_t number;
    int64_t before, block; /* patches that are known, patches that are predicted */
    int64_t tokens;        /* before + block - unread */
} toto2_call_t;

toto2_call_t toto2_call(const model_state_t *state, int64_t number);

int toto2_open(model_t *model, model_shape_t *shape, model_state_t *state, model_input_t *input, model_output_t *output);
void toto2_prepare(model_state_t *state);
void toto2_close(model_state_t *state);

/* ---- taps (toto2_tap.c) --------------------------------------------------------------------------------------------------------- */

int toto2_set_tap(model_state_t *state, model_tap_t tap, void *context);
/* Shapes the buffers for state->unread; again when a tap is set (toto2_session.c). */
int toto2_take_tokens(model_state_t *state);
int toto2_show_scaler(model_state_t *state, const toto2_call_t *call);
int toto2_show_embedding(model_state_t *state, const toto2_call_t *call, const backend_tensor_t *stream);
int toto2_show_layer(model_state_t *state, const toto2_call_t *call, int64_t layer, const backend_tensor_t *stream);
int toto2_show_head(model_state_t *state, const toto2_call_t *call);

#endif
