/* Sundial's weights: config.json and tensors validated, laid out for the ops, on the device. Letters as in sundial_state.h. */
#ifndef BARCAST_GPUWORKER_MODEL_SUNDIAL_H
#define BARCAST_GPUWORKER_MODEL_SUNDIAL_H

#include "gpuworker/model/families.h"

typedef struct {
    int64_t patch, channels;              /* P, C: bars of a token, bars that a round gives; C is a multiple of P */
    int64_t width, layers, heads, hidden; /* D, layers, H, F */
    int64_t depth, steps;                 /* of the flow: its blocks, its Euler steps */
} sundial_config_t;

typedef struct {
    backend_weight_t norm1, norm1_shift; /* [D] both */
    backend_weight_t qkv, qkv_bias;      /* [3·H·d][D], [3·H·d] */
    backend_weight_t wo;                 /* [D][H·d] */
    backend_weight_t norm2, norm2_shift; /* [D] both */
    backend_weight_t gate_up;            /* [2·F][D] */
    backend_weight_t down;               /* [D][F] */
} sundial_layer_t;

typedef struct {
    backend_weight_t up, up_bias;     /* [D][D], [D] */
    backend_weight_t down, down_bias; /* [D][D], [D] */
} sundial_block_t;

struct model {
    model_base_t base;
    sundial_config_t config;

    /* patches to tokens: a residual block whose two products are one, see load_embedding */
    backend_weight_t embed_hidden, embed_hidden_bias; /* [F][2·P], [F] */
    backend_weight_t embed, embed_bias;               /* [D][2·P + F], [D] */
    sundial_layer_t *layers;
    backend_weight_t norm, norm_shift; /* [D] both */

    /* the flow */
    backend_weight_t condition, condition_bias; /* [D][D], [D] */
    backend_weight_t time;                      /* F32 [steps][D]: the embedding of every step's time */
    /* [(3·depth + 2)·D][D] and its bias: shift, scale, gate of each block, then shift, scale of the end; with the blocks' norms folded in */
    backend_weight_t modulation, modulation_bias;
    backend_weight_t input, input_bias; /* W_in F32 [D][C], b_in [D] */
    sundial_block_t *blocks;
    backend_weight_t move;        /* [D + C][D]: W_in · W_out / steps above W_out / steps, see sundial_flow.c */
    backend_weight_t output_bias; /* b_out [C] */
};

bool sundial_matches(const checkpoint_t *checkpoint);
void sundial_load(model_t *model, loader_t *loader);
void sundial_unload(model_t *model);
void sundial_info(const model_t *model, model_info_t *out);
void sundial_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out);

#endif
