/* Toto 2.0's config.json: as published, and the other switches that the official code has. */
#include <string.h>

#include "base/error.h"
#include "gpuworker/model/toto2.h"

enum { LAYERS_MOST = 256 };

bool toto2_matches(const checkpoint_t *checkpoint)
{
    return checkpoint_config_has(checkpoint, "layer_group_size") &&
           checkpoint_config_has(checkpoint, "num_variate_layers_per_group") && checkpoint_config_has(checkpoint, "patch_size");
}

static int wrong_config(const char *key, const char *is, const char *expected)
{
    return error_set(MODEL_ERR_CHECKPOINT, "config.json: %s is %s, expected %s", key, is, expected);
}

/* A key that may be missing or null. */
static int optional_i64(const checkpoint_t *checkpoint, const char *key, int64_t most, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    return checkpoint_config_has(checkpoint, key) ? checkpoint_config_i64(checkpoint, key, 1, most, out) : CHECKPOINT_OK;
}

static int optional_bool(const checkpoint_t *checkpoint, const char *key, bool otherwise, bool *out)
{
    *out = otherwise;
    return checkpoint_config_has(checkpoint, key) ? checkpoint_config_bool(checkpoint, key, out) : CHECKPOINT_OK;
}

static int read_sizes(const checkpoint_t *checkpoint, toto2_config_t *config)
{
    int64_t value_dim, output_patches;

    if (checkpoint_config_i64(checkpoint, "patch_size", 1, 4096, &config->patch) < 0 ||
        checkpoint_config_i64(checkpoint, "d_model", 4, 65536, &config->width) < 0 ||
        checkpoint_config_i64(checkpoint, "num_heads", 1, 1024, &config->heads) < 0 ||
        checkpoint_config_i64(checkpoint, "num_layers", 1, LAYERS_MOST, &config->layers) < 0 ||
        optional_i64(checkpoint, "d_ff", 1 << 20, (config->width * 8 / 3 + 7) / 8 * 8, &config->hidden) < 0 ||
        optional_i64(checkpoint, "num_groups", 1024, config->heads, &config->key_heads) < 0 ||
        optional_i64(checkpoint, "qk_dim", 4096, config->width / config->heads, &config->head_dim) < 0 ||
        optional_i64(checkpoint, "v_dim", 4096, config->head_dim, &value_dim) < 0 ||
        optional_i64(checkpoint, "num_output_patches", 4096, 1, &output_patches) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (config->heads % config->key_heads != 0)
        return wrong_config("num_groups", "no divisor of num_heads", "one");
    if (config->head_dim % 4 != 0)
        return wrong_config("qk_dim", "no multiple of 4", "one: half of it is rotated, in pairs");
    if (value_dim != config->head_dim)
        return wrong_config("v_dim", "not qk_dim", "heads of one size");
    if (output_patches != 1)
        return wrong_config("num_output_patches", "not 1", "1");
    return MODEL_OK;
}

static int read_layout(const checkpoint_t *checkpoint, toto2_config_t *config)
{
    if (checkpoint_config_i64(checkpoint, "layer_group_size", 1, LAYERS_MOST, &config->group) < 0 ||
        checkpoint_config_i64(checkpoint, "num_variate_layers_per_group", 0, LAYERS_MOST, &config->variate_layers) < 0 ||
        checkpoint_config_bool(checkpoint, "variate_layer_first", &config->variate_first) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (config->layers % config->group != 0)
        return wrong_config("layer_group_size", "no divisor of num_layers", "one");
    if (config->variate_layers > config->group)
        return wrong_config("num_variate_layers_per_group", "more than layer_group_size", "at most that");
    return MODEL_OK;
}

static int read_switches(const checkpoint_t *checkpoint, toto2_config_t *config)
{
    bool pre_norm;

    config->eps = 5e-5;
    if ((checkpoint_config_has(checkpoint, "norm_eps") && checkpoint_config_f64(checkpoint, "norm_eps", &config->eps) < 0) ||
        optional_bool(checkpoint, "attn_bias", false, &config->attention_bias) < 0 ||
        optional_bool(checkpoint, "mlp_bias", false, &config->mlp_bias) < 0 ||
        optional_bool(checkpoint, "norm_include_weight", false, &config->norm_weight) < 0 ||
        optional_bool(checkpoint, "qk_norm", true, &config->head_norm) < 0 ||
        optional_bool(checkpoint, "qk_norm_include_weight", config->norm_weight, &config->head_norm_weight) < 0 ||
        optional_bool(checkpoint, "per_dim_scale", false, &config->per_dim_scale) < 0 ||
        optional_bool(checkpoint, "use_xpos", false, &config->xpos) < 0 ||
        optional_bool(checkpoint, "pre_norm", true, &pre_norm) < 0)
        return MODEL_ERR_CHECKPOINT;
    if (config->eps <= 0)
        return wrong_config("norm_eps", "not positive", "a positive number");
    return pre_norm ? MODEL_OK : wrong_config("pre_norm", "false", "true");
}

int toto2_read_config(const checkpoint_t *checkpoint, toto2_config_t *config)
{
    int rc;

    *config = (toto2_config_t){0};
    if ((rc = read_sizes(checkpoint, config)) < 0 || (rc = read_layout(checkpoint, config)) < 0)
        return rc;
    return read_switches(checkpoint, config);
}
