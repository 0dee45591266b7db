/* Toto 1.0's weights: config.json and tensors validated, laid out for the ops, on the device. */
#ifndef BARCAST_GPUWORKER_MODEL_TOTO1_H
#define BARCAST_GPUWORKER_MODEL_TOTO1_H

#include "gpuworker/model/families.h"

typedef struct {
    int64_t patch, width, layers, heads, hidden, components;
    int64_t space_every; /* one layer of so many attends over variates; 0: none */
    bool space_first;    /* it is the first of them, else the last */
    double exponent;     /* of the scaler's clamp; 0: no clamp */
} toto1_config_t;

typedef struct {
    backend_weight_t norm1;                 /* [D] */
    backend_weight_t qkv, qkv_bias;         /* [3·H·d][D], [3·H·d] */
    backend_weight_t wo, wo_bias;           /* [D][H·d], [D] */
    backend_weight_t norm2;                 /* [D] */
    backend_weight_t gate_up, gate_up_bias; /* [2·F][D], [2·F] */
    backend_weight_t down, down_bias;       /* [D][F], [D] */
} toto1_layer_t;

struct model {
    model_base_t base;
    toto1_config_t config;
    char *dir;
    backend_weight_t embed, embed_bias; /* [D][P], [D] */
    toto1_layer_t *layers;
    backend_weight_t head, head_bias;       /* [P·4·K][D], [P·4·K]: unembedding and distribution heads in one, see load_head */
    backend_weight_t unembed, unembed_bias; /* [P·D][D], [P·D]: for the tap only */
};

static inline bool toto1_is_space_layer(const toto1_config_t *config, int64_t layer)
{
    int64_t place = config->space_first ? 0 : config->space_every - 1;
    return config->space_every > 0 && layer % config->space_every == place;
}

bool toto1_matches(const checkpoint_t *checkpoint);
void toto1_load(model_t *model, loader_t *loader);
void toto1_unload(model_t *model);
void toto1_info(const model_t *model, model_info_t *out);
void toto1_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out);
/* Fetches model->unembed from the checkpoint again, once: a forecast does not use it. */
int toto1_load_unembed(model_t *model);

#endif
