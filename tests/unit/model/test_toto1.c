/* Loading Toto 1.0: what a published directory may look like, and the errors that name what is wrong with one. Numbers are verified elsewhere
 * (unit/engine/test_verify.c). The cases are edits of a small golden checkpoint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "gpuworker/model/model.h"

#define FIXTURE BARCAST_SOURCE_DIR "/tests/fixtures/golden/toto1/exogenous/model"

enum { TENSORS_MOST = 64, TEXT_BYTES = 4096 };

typedef struct {
    checkpoint_t *source;
    char config[TEXT_BYTES];
    size_t count;
    checkpoint_source_t tensors[TENSORS_MOST];
    float *data[TENSORS_MOST];
    char dir[64];
} edit_t;

static void begin(edit_t *edit)
{
    FILE *file = fopen(FIXTURE "/config.json", "r");

    memset(edit, 0, sizeof *edit);
    assert_non_null(file);
    assert_true(fread(edit->config, 1, sizeof edit->config - 1, file) > 0);
    fclose(file);
    assert_int_equal(checkpoint_open(FIXTURE, &edit->source), CHECKPOINT_OK);
    edit->count = checkpoint_count(edit->source);
    assert_true(edit->count < TENSORS_MOST);
    for (size_t i = 0; i < edit->count; i++) {
        const checkpoint_tensor_t *tensor = checkpoint_at(edit->source, i);

        edit->data[i] = malloc((size_t)tensor->elements * sizeof(float));
        assert_int_equal(checkpoint_read_f32(edit->source, tensor->name, tensor->rank, tensor->dim, edit->data[i]), CHECKPOINT_OK);
        edit->tensors[i] = (checkpoint_source_t){.name = tensor->name, .rank = tensor->rank, .data = edit->data[i]};
        memcpy(edit->tensors[i].dim, tensor->dim, sizeof edit->tensors[i].dim);
    }
    strcpy(edit->dir, "/tmp/barcast-toto1-XXXXXX");
    assert_non_null(mkdtemp(edit->dir));
}

static checkpoint_source_t *tensor_named(edit_t *edit, const char *name)
{
    for (size_t i = 0; i < edit->count; i++)
        if (strcmp(edit->tensors[i].name, name) == 0)
            return &edit->tensors[i];
    fail_msg("the fixture has no tensor %s", name);
    return NULL;
}

static void replace(edit_t *edit, const char *from, const char *to)
{
    char *at = strstr(edit->config, from), rest[TEXT_BYTES];

    assert_non_null(at);
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    snprintf(at, sizeof edit->config - (size_t)(at - edit->config), "%s%s", to, rest);
}

/* Writes the edited checkpoint, loads it, removes it; returns model_load's code. */
static int load(edit_t *edit)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 1};
    char path[128], revision[17];
    backend_t *backend;
    model_t *model = NULL;
    int rc;

    assert_int_equal(checkpoint_write(edit->dir, edit->config, edit->tensors, edit->count, CHECKPOINT_F32), CHECKPOINT_OK);
    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    rc = model_load(backend, edit->dir, BACKEND_F32, &model, revision);
    if (rc == MODEL_OK)
        assert_string_equal(model_family(model)->name, "toto1");
    model_unload(model);
    assert_int_equal(backend_allocated_bytes(backend), 0); /* after a failure too */
    backend_close(backend);
    snprintf(path, sizeof path, "%s/config.json", edit->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", edit->dir);
    unlink(path);
    rmdir(edit->dir);
    for (size_t i = 0; i < TENSORS_MOST; i++)
        free(edit->data[i]);
    checkpoint_close(edit->source);
    return rc;
}

static void load_fails_naming(edit_t *edit, const char *what)
{
    assert_int_equal(load(edit), MODEL_ERR_CHECKPOINT);
    if (strstr(error_text(), what) == NULL)
        fail_msg("\"%s\" does not name %s", error_text(), what);
}

static void the_untouched_checkpoint_loads(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    assert_int_equal(load(&edit), MODEL_OK);
}

static void saved_rotary_buffers_are_ignored(void **state)
{
    edit_t edit;
    float freqs[2] = {1, 0.01f};

    (void)state;
    begin(&edit);
    edit.tensors[edit.count++] = (checkpoint_source_t){
        .name = "model.transformer.layers.1.attention.rotary_emb.freqs", .rank = 1, .dim = {2}, .data = freqs};
    assert_int_equal(load(&edit), MODEL_OK);
}

static void a_missing_tensor_is_named(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    *tensor_named(&edit, "model.transformer.layers.1.norm2.scale") = edit.tensors[edit.count - 1];
    edit.count--;
    load_fails_naming(&edit, "model.transformer.layers.1.norm2.scale");
}

static void an_unexpected_tensor_is_named(void **state)
{
    edit_t edit;
    float one = 1;

    (void)state;
    begin(&edit);
    edit.tensors[edit.count++] = (checkpoint_source_t){.name = "model.adapter.weight", .rank = 1, .dim = {1}, .data = &one};
    load_fails_naming(&edit, "model.adapter.weight");
}

static void a_wrong_shape_is_named(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    tensor_named(&edit, "model.patch_embed.projection.bias")->dim[0] = 6;
    load_fails_naming(&edit, "model.patch_embed.projection.bias");
}

static void variate_labels_are_refused_by_name(void **state)
{
    edit_t edit;
    float label[12] = {0};

    (void)state;
    begin(&edit);
    edit.tensors[edit.count++] = (checkpoint_source_t){.name = "model.target_variate_label", .rank = 1, .dim = {12}, .data = label};
    load_fails_naming(&edit, "fine-tuned with variate labels");
}

static void config_errors_name_the_key(void **state)
{
    static const struct {
        const char *from, *to, *names;
    } edits[] = {
        {"MixtureOfStudentTsOutput", "GaussianOutput", "output_distribution_classes"},
        {"CausalPatchStdMeanScaler", "StdMeanScaler", "scaler_cls"},
        {"\"stride\": 8", "\"stride\": 4", "stride"},
        {"\"spacewise_every_n_layers\": 2", "\"spacewise_every_n_layers\": 3", "spacewise_every_n_layers"},
        {"\"num_heads\": 3", "\"num_heads\": 5", "num_heads"},
        {"\"k_components\": 2", "\"k_components\": 0", "k_components"},
        {"\"embed_dim\"", "\"embed_dims\"", "embed_dim"},
        {"\"scale_factor_exponent\": 10.0", "\"scale_factor_exponent\": -1", "scale_factor_exponent"},
        {"\"spacewise_first\": true", "\"spacewise_first\": 7", "spacewise_first"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        edit_t edit;

        begin(&edit);
        replace(&edit, edits[i].from, edits[i].to);
        load_fails_naming(&edit, edits[i].names);
    }
}

static void a_config_of_no_family_is_told_apart(void **state)
{
    edit_t edit;

    (void)state;
    begin(&edit);
    replace(&edit, "scaler_cls", "scaler");
    assert_int_equal(load(&edit), MODEL_ERR_FAMILY);
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
