/* Loading Sundial: what a published directory may look like, and the errors that name what is wrong with one. Numbers are verified elsewhere
 * (unit/engine/test_verify.c). */
#include "tests/unit/model/checkpoint_edit.h"

#define FIXTURE BARCAST_SOURCE_DIR "/tests/fixtures/golden/sundial/rounds/model"

static void begin(edit_t *edit)
{
    edit_begin(edit, FIXTURE, "sundial");
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
    edit_add(&edit,
             (checkpoint_source_t){.name = "model.layers.0.self_attn.rotary_emb.inv_freq", .rank = 1, .dim = {2}, .data = freqs});
    assert_int_equal(edit_load(&edit), MODEL_OK);
}

/* Of each way in which tensors are read one: stacked, folded, multiplied at load, as they are. */
static const char *const tensors[] = {
    "model.embed_layer.residual_layer.bias",
    "model.embed_layer.hidden_layer.weight",
    "model.layers.1.self_attn.k_proj.weight",
    "model.layers.1.self_attn.q_proj.bias",
    "model.layers.0.ffn_layer.up_proj.weight",
    "model.norm.bias",
    "flow_loss.net.time_embed.mlp.0.weight",
    "flow_loss.net.time_embed.mlp.2.bias",
    "flow_loss.net.res_blocks.1.adaLN_modulation.1.weight",
    "flow_loss.net.final_layer.adaLN_modulation.1.bias",
    "flow_loss.net.res_blocks.0.in_ln.bias",
    "flow_loss.net.input_proj.weight",
    "flow_loss.net.final_layer.linear.weight",
    "flow_loss.net.final_layer.linear.bias",
};
enum { TENSORS = sizeof tensors / sizeof *tensors };

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    for (int i = 0; i < TENSORS; i++) {
        edit_t edit;

        begin(&edit);
        edit_remove(&edit, tensors[i]);
        edit_load_fails_naming(&edit, tensors[i]);
    }
}

static void a_wrong_shape_is_named(void **state)
{
    (void)state;
    for (int i = 0; i < TENSORS; i++) {
        edit_t edit;

        begin(&edit);
        edit_tensor(&edit, tensors[i])->dim[0]--;
        edit_load_fails_naming(&edit, tensors[i]);
    }
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

static void config_errors_name_the_key(void **state)
{
    static const edit_config_t edits[] = {
        {"\"silu\"", "\"gelu\"", "hidden_act"},
        {"\"rope_theta\": 10000", "\"rope_theta\": 500000", "rope_theta"},
        {"    32\n", "    32, 64\n", "output_token_lens"},
        {"    32\n", "    30\n", "output_token_lens"},
        {"    32\n", "    0\n", "output_token_lens"},
        {"\"num_attention_heads\": 2", "\"num_attention_heads\": 3", "num_attention_heads"},
        {"\"hidden_size\"", "\"hidden_sizes\"", "hidden_size"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", "num_hidden_layers"},
        {"\"num_sampling_steps\": 10", "\"num_sampling_steps\": 0", "num_sampling_steps"},
        {"\"flow_loss_depth\": 2", "\"flow_loss_depth\": 65", "flow_loss_depth"},
    };

    (void)state;
    edit_configs_fail(FIXTURE, "sundial", edits, sizeof edits / sizeof *edits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_untouched_checkpoint_loads), cmocka_unit_test(saved_rotary_buffers_are_ignored),
        cmocka_unit_test(a_missing_tensor_is_named),      cmocka_unit_test(a_wrong_shape_is_named),
        cmocka_unit_test(an_unexpected_tensor_is_named),  cmocka_unit_test(config_errors_name_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
