/* Chronos-2's weights: config.json and tensors validated, laid out for the ops, on the device. */
#ifndef BARCAST_GPUWORKER_MODEL_CHRONOS2_H
#define BARCAST_GPUWORKER_MODEL_CHRONOS2_H

#include "gpuworker/model/chronos_parts.h"
#include "gpuworker/model/families.h"

/* Beyond one pass's horizon the forecast goes on along these levels: 0.1, 0.2, .. 0.9. */
enum { CHRONOS2_PATHS = 9 };

typedef struct {
    int64_t patch, width, layers, heads, head_dim, hidden;
    int64_t context_most;   /* bars that one pass looks back on, a multiple of the patch */
    int64_t output_patches; /* that one pass predicts at most */
    double time_scale, rope_theta;
    float eps;
    bool asinh;
    chronos_levels_t levels;
    bool unrolls;                       /* all of the paths' levels are among the model's */
    int32_t path_level[CHRONOS2_PATHS]; /* which of them */
} chronos2_config_t;

/* Each of the three parts adds to the residual stream what it makes of its norm: attention over time, over the group, and an MLP. */
typedef struct {
    backend_weight_t time_norm, time_qkv, time_o;    /* [D], [3·H·d][D], [D][H·d] */
    backend_weight_t group_norm, group_qkv, group_o; /* likewise */
    backend_weight_t group_alone;                    /* [D][D]: group attention of a single variate */
    backend_weight_t mlp_norm, wi, wo;               /* [D], [F][D], [D][F] */
} chronos2_layer_t;

struct model {
    model_base_t base;
    chronos2_config_t config;
    chronos_block_t embed, head; /* 3·P -> F -> D; D -> F -> levels · P */
    chronos2_layer_t *layers;
    backend_weight_t final_norm; /* [D] */
};

static inline int64_t chronos2_wide(const chronos2_config_t *config) /* elements of a token's wide row, see chronos_parts.h */
{
    return config->hidden + chronos_feature_columns(3 * config->patch);
}

bool chronos2_matches(const checkpoint_t *checkpoint);
void chronos2_load(model_t *model, loader_t *loader);
void chronos2_unload(model_t *model);
void chronos2_info(const model_t *model, model_info_t *out);
void chronos2_cost(const model_t *model, const model_shape_t *shape, model_cost_t *out);

#endif
