/* Chronos-Bolt's weights: config.json and tensors validated, laid out for the ops, on the device. */
#ifndef BARCAST_GPUWORKER_MODEL_CHRONOS_BOLT_H
#define BARCAST_GPUWORKER_MODEL_CHRONOS_BOLT_H

#include "gpuworker/model/chronos_parts.h"
#include "gpuworker/model/families.h"

typedef struct {
    int64_t patch, width, heads, head_dim, hidden;
    int64_t encoder_layers, decoder_layers;
    int64_t context_most;           /* bars that one pass looks back on, a multiple of the patch */
    int64_t length;                 /* bars that one pass predicts */
    int64_t buckets, distance_most; /* of the relative positions */
    int64_t start;                  /* the decoder's token: a row of the shared embedding */
    float eps;
    chronos_levels_t levels;
} chronos_bolt_config_t;

/* Attention and MLP: each adds to the residual stream what it makes of its norm. */
typedef struct {
    backend_weight_t attention_norm, qkv, o; /* [D], [3·H·d][D], [D][H·d] */
    backend_weight_t mlp_norm, wi, wo;       /* [D], [F][D], [D][F] */
} chronos_bolt_encoder_layer_t;

/* The decoder has one token: its self attention is one matrix. */
typedef struct {
    backend_weight_t self_norm, self_alone; /* [D], [D][D] */
    backend_weight_t cross_norm, cross_q;   /* [D], [H·d][D] */
    backend_weight_t cross_kv, cross_o;     /* [2·H·d][D], of the encoder's tokens; [D][H·d] */
    backend_weight_t mlp_norm, wi, wo;
} chronos_bolt_decoder_layer_t;

struct model {
    model_base_t base;
    chronos_bolt_config_t config;
    chronos_block_t embed, head; /* 2·P -> F -> D; D -> F -> levels · length */
    chronos_bolt_encoder_layer_t *encoder;
    chronos_bolt_decoder_layer_t *decoder;
    backend_weight_t encoder_norm, decoder_norm; /* [D] */
    float *bucket_bias;                          /* [buckets][H], host: what a relative position adds to a score */
    float *start;                                /* [D], host: the decoder's token */
};

static inline int64_t
chronos_bolt_wide(const chronos_bolt_config_t *config) /* elements of a token's wide row, see chronos_parts.h */
{
    return config->hidden + chronos_feature_columns(2 * config->patch);
}

bool chronos_bolt_matches(const checkpoint_t *checkpoint);
void chronos_bolt_load(model_t *model, loader_t *loader);
void chronos_bolt_unload(model_t *model);
void chronos_bolt_info(const model_t *model, model_info_t *out);
void chronos_bolt_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out);

#endif
