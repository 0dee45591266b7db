/* Loading Toto 1.0: what a published directory may look like, and the errors that name what is wrong with one. Numbers are verified elsewhere
 * (unit/engine/test_verify.c). The cases are edits of a small golden checkpoint. */
#include "tests/unit/model/checkpoint_edit.h"

#define FIXTURE BARCAST_SOURCE_DIR "/tests/fixtures/golden/toto1/exogenous/model"

static void begin(edit_t *edit)
{
    edit_begin(edit, FIXTURE, "toto1");
}

static void the_untouched_checkpoint_loads(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void saved_rotary_buffers_are_ignored(void **state)
{
    edit_t edit;
    float freqs[2] = {1, 0.01f};

    (void)state;
    begin(&edit);
    edit_add(&edit, (checkpoint_source_t){
                        .name = "model.transformer.layers.1.attention.rotary_emb.freqs", .rank = 1, .dim = {2}, .data = freqs});
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void a_missing_tensor_is_named(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    edit_remove(&edit, "model.transformer.layers.1.norm2.scale");
    edit_load_fails_naming(&edit, "model.transformer.layers.1.norm2.scale");
}

static void an_unexpected_tensor_is_named(void **state)
{
    edit_t edit;
    float one = 1;

    (void)state;
    begin(&edit);
    edit_add(&edit, (checkpoint_source_t){.name = "model.adapter.weight", .rank = 1, .dim = {1}, .data = &one});
    edit_load_fails_naming(&edit, "model.adapter.weight");
}

static void a_wrong_shape_is_named(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    edit_tensor(&edit, "model.patch_embed.projection.bias")->dim[0] = 6;
    edit_load_fails_naming(&edit, "model.patch_embed.projection.bias");
}

static void variate_labels_are_refused_by_name(void **state)
{
    edit_t edit;
    float label[12] = {0};

    (void)state;
    begin(&edit);
    edit_add(&edit, (checkpoint_source_t){.name = "model.target_variate_label", .rank = 1, .dim = {12}, .data = label});
    edit_load_fails_naming(&edit, "fine-tuned with variate labels");
}

static void config_errors_name_the_key(void **state)
{
    static const edit_config_t edits[] = {
        {"MixtureOfStudentTsOutput", "GaussianOutput", "output_distribution_classes"},
        {"CausalPatchStdMeanScaler", "StdMeanScaler", "scaler_cls"},
        {"\"stride\": 8", "\"stride\": 4", "stride"},
        {"\"spacewise_every_n_layers\": 2", "\"spacewise_every_n_layers\": 3", "spacewise_every_n_layers"},
        {"\"num_heads\": 3", "\"num_heads\": 5", "num_heads"},
        {"\"k_components\": 2", "\"k_components\": 0", "k_components"},
        {"\"embed_dim\"", "\"embed_dims\"", "embed_dim"},
        {"\"scale_factor_exponent\": 10.0", "\"scale_factor_exponent\": -1", "scale_factor_exponent"},
        {"\"scale_factor_exponent\": 10.0", "\"scale_factor_exponent\": 1e300", "scale_factor_exponent"},
        {"\"spacewise_first\": true", "\"spacewise_first\": 7", "spacewise_first"},
    };

    (void)state;
    edit_configs_fail(FIXTURE, "toto1", edits, sizeof edits / sizeof *edits);
}

static void a_config_of_no_family_is_told_apart(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    edit_replace(&edit, "scaler_cls", "scaler");
    assert_int_equal(edit_load(&edit), MODEL_ERR_FAMILY);
}

static void random_keys_depend_on_seed_symbol_and_cutoff(void **state)
{
    uint64_t key = model_random_key(1, "BTC-USD", 1000);

    (void)state;
    assert_true(key == model_random_key(1, "BTC-USD", 1000));
    assert_true(key != model_random_key(2, "BTC-USD", 1000));
    assert_true(key != model_random_key(1, "ETH-USD", 1000));
    assert_true(key != model_random_key(1, "BTC-USD", 1001));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_untouched_checkpoint_loads),
        cmocka_unit_test(saved_rotary_buffers_are_ignored),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(an_unexpected_tensor_is_named),
        cmocka_unit_test(a_wrong_shape_is_named),
        cmocka_unit_test(variate_labels_are_refused_by_name),
        cmocka_unit_test(config_errors_name_the_key),
        cmocka_unit_test(a_config_of_no_family_is_told_apart),
        cmocka_unit_test(random_keys_depend_on_seed_symbol_and_cutoff),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
