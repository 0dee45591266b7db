/* Toto 2.0's config.json: as published, and the other switches that the official code has. */
#include "gpuworker/model/parts_load.h"
#include "gpuworker/model/toto2.h"

enum { LAYERS_MOST = 256 };

bool toto2_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "layer_group_size") &&
           checkpoint_config_has(checkpoint, "num_variate_layers_per_group") && checkpoint_config_has(checkpoint, "patch_size");
}

static void read_sizes(loader_t *loader, toto2_config_t *config)
{
    int64_t value_dim, output_patches = 1;

    loader_config_i64(loader, "patch_size", 1, 4096, &config->patch);
    loader_config_i64(loader, "d_model", 4, 65536, &config->width);
    loader_config_i64(loader, "num_heads", 1, 1024, &config->heads);
    loader_config_i64(loader, "num_layers", 1, LAYERS_MOST, &config->layers);
    if (loader->rc < 0)
        return;
    config->hidden = (config->width * 8 / 3 + 7) / 8 * 8;
    config->key_heads = config->heads;
    config->head_dim = config->width / config->heads;
    loader_optional_i64(loader, "d_ff", 1, 1 << 20, &config->hidden);
    loader_optional_i64(loader, "num_groups", 1, 1024, &config->key_heads);
    loader_optional_i64(loader, "qk_dim", 1, 4096, &config->head_dim);
    value_dim = config->head_dim;
    loader_optional_i64(loader, "v_dim", 1, 4096, &value_dim);
    loader_optional_i64(loader, "num_output_patches", 1, 4096, &output_patches);
    loader_expect(loader, config->heads % config->key_heads == 0, "num_groups", "no divisor of num_heads", "one");
    loader_expect(loader, config->head_dim % 4 == 0, "qk_dim", "no multiple of 4", "one: half of it is rotated, in pairs");
    loader_expect(loader, value_dim == config->head_dim, "v_dim", "not qk_dim", "heads of one size");
    loader_expect(loader, output_patches == 1, "num_output_patches", "not 1", "1");
}

static void read_layout(loader_t *loader, toto2_config_t *config)
{
    loader_config_i64(loader, "layer_group_size", 1, LAYERS_MOST, &config->group);
    loader_config_i64(loader, "num_variate_layers_per_group", 0, LAYERS_MOST, &config->variate_layers);
    loader_config_bool(loader, "variate_layer_first", &config->variate_first);
    if (loader->rc < 0)
        return;
    loader_expect(loader, config->layers % config->group == 0, "layer_group_size", "no divisor of num_layers", "one");
    loader_expect(loader, config->variate_layers <= config->group, "num_variate_layers_per_group", "more than layer_group_size",
                  "at most that");
}

static void read_switches(loader_t *loader, toto2_config_t *config)
{
    bool pre_norm = true;

    config->eps = 5e-5;
    config->head_norm = true;
    loader_optional_f64(loader, "norm_eps", NORM_EPS_LEAST, NORM_EPS_MOST, &config->eps);
    loader_optional_bool(loader, "attn_bias", &config->attention_bias);
    loader_optional_bool(loader, "mlp_bias", &config->mlp_bias);
    loader_optional_bool(loader, "norm_include_weight", &config->norm_weight);
    loader_optional_bool(loader, "qk_norm", &config->head_norm);
    config->head_norm_weight = config->norm_weight;
    loader_optional_bool(loader, "qk_norm_include_weight", &config->head_norm_weight);
    loader_optional_bool(loader, "per_dim_scale", &config->per_dim_scale);
    loader_optional_bool(loader, "use_xpos", &config->xpos);
    loader_optional_bool(loader, "pre_norm", &pre_norm);
    loader_expect(loader, pre_norm, "pre_norm", "false", "true");
}

void toto2_read_config(loader_t *loader, toto2_config_t *config)
{
    read_sizes(loader, config);
    read_layout(loader, config);
    read_switches(loader, config);
}
