/* Loading Chronos-2 and Chronos-Bolt: the errors that name what is wrong with a directory. Numbers are verified elsewhere
 * (unit/engine/test_verify.c). The cases are edits of small golden checkpoints. */
#include "tests/unit/model/checkpoint_edit.h"

#include <stdlib.h>

#define CHRONOS2     BARCAST_SOURCE_DIR "/tests/fixtures/golden/chronos2/groups/model"
#define CHRONOS_BOLT BARCAST_SOURCE_DIR "/tests/fixtures/golden/chronos_bolt/single/model"

static edit_t edit;

static void begin_chronos2(void)
{
    edit_begin(&edit, CHRONOS2, "chronos2");
}

static void begin_bolt(void)
{
    edit_begin(&edit, CHRONOS_BOLT, "chronos_bolt");
}

static void the_untouched_checkpoints_load(void **state)
{
    (void)state;
    begin_chronos2();
    assert_int_equal(edit_load(&edit), MODEL_OK);
    begin_bolt();
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void keys_that_have_defaults_may_be_missing(void **state)
{
    (void)state;
    begin_chronos2();
    edit_replace(&edit, "\"time_encoding_scale\"", "\"written_by\"");
    edit_replace(&edit, "\"rope_theta\"", "\"trained_on\"");
    edit_replace(&edit, "\"layer_norm_epsilon\"", "\"trained_at\"");
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void the_shared_embedding_may_be_saved_more_than_once(void **state)
{
    static const float again[16] = {0};

    (void)state;
    begin_bolt();
    edit_add(&edit, (checkpoint_source_t){.name = "encoder.embed_tokens.weight", .rank = 2, .dim = {2, 8}, .data = again});
    edit_add(&edit, (checkpoint_source_t){.name = "decoder.embed_tokens.weight", .rank = 2, .dim = {2, 8}, .data = again});
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

static void a_missing_tensor_is_named(void **state)
{
    static const char *const names[] = {"encoder.block.1.layer.1.self_attention.v.weight", "shared.weight",
                                        "output_patch_embedding.residual_layer.bias", "encoder.final_layer_norm.weight"};
    static const char *const bolt_names[] = {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                                             "decoder.block.3.layer.1.EncDecAttention.k.weight",
                                             "decoder.block.2.layer.0.SelfAttention.q.weight"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        begin_chronos2();
        edit_remove(&edit, names[i]);
        edit_load_fails_naming(&edit, names[i]);
    }
    for (size_t i = 0; i < sizeof bolt_names / sizeof *bolt_names; i++) {
        begin_bolt();
        edit_remove(&edit, bolt_names[i]);
        edit_load_fails_naming(&edit, bolt_names[i]);
    }
}

static void an_unexpected_tensor_is_named(void **state)
{
    static const float value = 1;

    (void)state;
    begin_chronos2();
    edit_add(&edit, (checkpoint_source_t){.name = "encoder.adapter.weight", .rank = 1, .dim = {1}, .data = &value});
    edit_load_fails_naming(&edit, "encoder.adapter.weight");
    begin_bolt();
    edit_add(&edit,
             (checkpoint_source_t){.name = "decoder.block.9.layer.0.layer_norm.weight", .rank = 1, .dim = {1}, .data = &value});
    edit_load_fails_naming(&edit, "decoder.block.9.layer.0.layer_norm.weight");
}

static void a_wrong_shape_is_named(void **state)
{
    checkpoint_source_t *tensor;

    (void)state;
    begin_chronos2();
    tensor = edit_tensor(&edit, "input_patch_embedding.hidden_layer.weight");
    tensor->dim[0] /= 2;
    edit_load_fails_naming(&edit, "input_patch_embedding.hidden_layer.weight");
    begin_bolt();
    tensor = edit_tensor(&edit, "decoder.block.0.layer.1.EncDecAttention.o.weight");
    tensor->dim[1] /= 2;
    edit_load_fails_naming(&edit, "decoder.block.0.layer.1.EncDecAttention.o.weight");
}

static void config_errors_name_the_key(void **state)
{
    static const edit_config_t chronos2[] =
        {
            {"\"input_patch_stride\": 16", "\"input_patch_stride\": 8", "input_patch_stride"},
            {"\"output_patch_size\": 16", "\"output_patch_size\": 32", "output_patch_size"},
            {"\"context_length\": 8192", "\"context_length\": 8190", "context_length"},
            {"\"use_reg_token\": true", "\"use_reg_token\": false", "use_reg_token"},
            {"\"feed_forward_proj\": \"relu\"", "\"feed_forward_proj\": \"gated-gelu\"", "feed_forward_proj"},
            {"\"d_kv\": 4", "\"d_kv\": 5", "d_kv"},
            {"0.05,", "0.5,", "chronos_config.quantiles"},
            {"0.5,", "0.51,", "chronos_config.quantiles"},
            {"\"time_encoding_scale\": 8192", "\"time_encoding_scale\": 0", "time_encoding_scale"},
            {"\"num_layers\"", "\"layers\"", "num_layers"},
            {"\"rope_theta\": 10000.0", "\"rope_theta\": 1e-300", "rope_theta"},
            {"\"time_encoding_scale\": 8192", "\"time_encoding_scale\": 1e300", "time_encoding_scale"},
            {"\"d_kv\": 4", "\"d_kv\": 5", "/config.json: key \"d_kv\": is odd, expected"},
        },
                               bolt[] = {
                                   {"\"prediction_length\": 64", "\"prediction_length\": 0", "prediction_length"},
                                   {"\"use_reg_token\": true", "\"use_reg_token\": 1", "use_reg_token"},
                                   {"\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 30",
                                    "relative_attention_num_buckets"},
                                   {"\"relative_attention_max_distance\": 128", "\"relative_attention_max_distance\": 8",
                                    "relative_attention_max_distance"},
                                   {"\"num_decoder_layers\"", "\"decoder_layers\"", "num_decoder_layers"},
                                   {"\"decoder_start_token_id\": 0", "\"decoder_start_token_id\": 2", "decoder_start_token_id"},
                               };

    (void)state;
    edit_configs_fail(CHRONOS2, "chronos2", chronos2, sizeof chronos2 / sizeof *chronos2);
    edit_configs_fail(CHRONOS_BOLT, "chronos_bolt", bolt, sizeof bolt / sizeof *bolt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_untouched_checkpoints_load),
        cmocka_unit_test(keys_that_have_defaults_may_be_missing),
        cmocka_unit_test(the_shared_embedding_may_be_saved_more_than_once),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(an_unexpected_tensor_is_named),
        cmocka_unit_test(a_wrong_shape_is_named),
        cmocka_unit_test(config_errors_name_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
