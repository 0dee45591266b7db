/* Loading Toto 2.0: the errors that name what is wrong with a directory. Numbers are verified elsewhere (unit/engine/test_verify.c). The cases
 * are edits of a small golden checkpoint. */
#include "tests/unit/model/checkpoint_edit.h"

#define FIXTURE BARCAST_SOURCE_DIR "/tests/fixtures/golden/toto2/knobs/model"

static edit_t edit;

static int begin(void **state)
{
    (void)state;
    edit_begin(&edit, FIXTURE, "toto2");
    return 0;
}

static void the_untouched_checkpoint_loads(void **state)
{
    (void)state;
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void keys_that_do_not_matter_may_be_missing_or_new(void **state)
{
    (void)state;
    edit_replace(&edit, "\"dropout_p\"", "\"torch_dtype\"");
    edit_replace(&edit, "\"residual_mult\"", "\"trained_on\"");
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void sizes_that_the_official_code_derives_may_be_null(void **state)
{
    (void)state;
    edit_replace(&edit, "\"d_ff\": 88", "\"d_ff\": null");
    edit_replace(&edit, "\"v_dim\": 16", "\"v_dim\": null");
    edit_replace(&edit, "\"num_groups\": 2", "\"num_groups\": null");
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    edit_remove(&edit, "transformer.layers.1.attn_tau");
    edit_load_fails_naming(&edit, "transformer.layers.1.attn_tau");
}

static void an_unexpected_tensor_is_named(void **state)
{
    static const float value = 1;

    (void)state;
    edit_add(&edit, (checkpoint_source_t){.name = "transformer.layers.7.attn_tau", .rank = 1, .dim = {1}, .data = &value});
    edit_load_fails_naming(&edit, "transformer.layers.7.attn_tau");
}

static void a_wrong_shape_is_named(void **state)
{
    checkpoint_source_t *tensor;

    (void)state;
    tensor = edit_tensor(&edit, "transformer.layers.0.ffn.fc1.weight");
    tensor->dim[0] /= 2;
    tensor->dim[1] *= 2;
    edit_load_fails_naming(&edit, "transformer.layers.0.ffn.fc1.weight");
}

/* The tensors are those of the config: a switch that they contradict is noticed. */
static void a_switch_without_its_tensors_names_the_first(void **state)
{
    (void)state;
    edit_replace(&edit, "\"qk_norm\": false", "\"qk_norm\": true");
    edit_replace(&edit, "\"qk_norm_include_weight\": false", "\"qk_norm_include_weight\": true");
    edit_load_fails_naming(&edit, "transformer.layers.0.attn.q_norm.weight");
}

static void config_errors_name_the_key(void **state)
{
    static const edit_config_t configs[] = {
        {"\"num_layers\": 2", "\"num_layers\": 3", "layer_group_size"},
        {"\"num_groups\": 2", "\"num_groups\": 3", "num_groups"},
        {"\"qk_dim\": 16", "\"qk_dim\": 18", "qk_dim"},
        {"\"v_dim\": 16", "\"v_dim\": 8", "v_dim"},
        {"\"num_output_patches\": 1", "\"num_output_patches\": 2", "num_output_patches"},
        {"\"pre_norm\": true", "\"pre_norm\": false", "pre_norm"},
        {"\"norm_eps\": 0.0001", "\"norm_eps\": 0", "norm_eps"},
        {"\"norm_eps\": 0.0001", "\"norm_eps\": 1e-60", "norm_eps"},
        {"\"num_variate_layers_per_group\": 1", "\"num_variate_layers_per_group\": 3", "num_variate_layers_per_group"},
        {"\"d_model\": 32", "\"d_model\": \"wide\"", "d_model"},
    };

    (void)state;
    edit_configs_fail(FIXTURE, "toto2", configs, sizeof configs / sizeof *configs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_untouched_checkpoint_loads, begin),
        cmocka_unit_test_setup(keys_that_do_not_matter_may_be_missing_or_new, begin),
        cmocka_unit_test_setup(sizes_that_the_official_code_derives_may_be_null, begin),
        cmocka_unit_test_setup(a_missing_tensor_is_named, begin),
        cmocka_unit_test_setup(an_unexpected_tensor_is_named, begin),
        cmocka_unit_test_setup(a_wrong_shape_is_named, begin),
        cmocka_unit_test_setup(a_switch_without_its_tensors_names_the_first, begin),
        cmocka_unit_test(config_errors_name_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
