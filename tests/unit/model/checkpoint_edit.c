#include "tests/unit/model/checkpoint_edit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

static void read_config(edit_t *edit, const char *dir)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_non_null(file = fopen(path, "r"));
    assert_true(fread(edit->config, 1, sizeof edit->config - 1, file) > 0);
    fclose(file);
}

void edit_begin(edit_t *edit, const char *dir, const char *family)
{
    memset(edit, 0, sizeof *edit);
    edit->family = family;
    read_config(edit, dir);
    assert_int_equal(checkpoint_open(dir, &edit->source), CHECKPOINT_OK);
    edit->count = checkpoint_count(edit->source);
    assert_true(edit->count < EDIT_TENSORS_MOST);
    for (size_t i = 0; i < edit->count; i++) {
        const checkpoint_tensor_t *tensor = checkpoint_at(edit->source, i);

        edit->data[i] = malloc((size_t)tensor->elements * sizeof(float));
        assert_int_equal(checkpoint_read_f32(edit->source, tensor->name, tensor->rank, tensor->dim, edit->data[i]), CHECKPOINT_OK);
        edit->tensors[i] = (checkpoint_source_t){.name = tensor->name, .rank = tensor->rank, .data = edit->data[i]};
        memcpy(edit->tensors[i].dim, tensor->dim, sizeof edit->tensors[i].dim);
    }
    strcpy(edit->dir, "/tmp/barcast-edit-XXXXXX");
    assert_non_null(mkdtemp(edit->dir));
}

checkpoint_source_t *edit_tensor(edit_t *edit, const char *name)
{
    for (size_t i = 0; i < edit->count; i++)
        if (strcmp(edit->tensors[i].name, name) == 0)
            return &edit->tensors[i];
    fail_msg("the fixture has no tensor %s", name);
    return NULL;
}

void edit_add(edit_t *edit, checkpoint_source_t tensor)
{
    assert_true(edit->count < EDIT_TENSORS_MOST);
    edit->tensors[edit->count++] = tensor;
}

void edit_remove(edit_t *edit, const char *name)
{
    *edit_tensor(edit, name) = edit->tensors[edit->count - 1];
    edit->count--;
}

void edit_replace(edit_t *edit, const char *from, const char *to)
{
    char *at = strstr(edit->config, from), rest[EDIT_TEXT_BYTES];

    assert_non_null(at);
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    snprintf(at, sizeof edit->config - (size_t)(at - edit->config), "%s%s", to, rest);
}

static void remove_files(const edit_t *edit)
{
    char path[128];

    snprintf(path, sizeof path, "%s/config.json", edit->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", edit->dir);
    unlink(path);
    rmdir(edit->dir);
}

int edit_load(edit_t *edit)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 1};
    backend_t *backend;
    model_t *model = NULL;
    char revision[17];
    int rc;

    assert_int_equal(checkpoint_write(edit->dir, edit->config, edit->tensors, edit->count, CHECKPOINT_F32), CHECKPOINT_OK);
    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    rc = model_load(backend, edit->dir, BACKEND_F32, &model, revision);
    if (rc == MODEL_OK)
        assert_string_equal(model_family(model)->name, edit->family);
    model_unload(model);
    assert_int_equal(backend_allocated_bytes(backend), 0); /* after a failure too */
    backend_close(backend);
    remove_files(edit);
    for (size_t i = 0; i < EDIT_TENSORS_MOST; i++)
        free(edit->data[i]);
    checkpoint_close(edit->source);
    return rc;
}

void edit_load_fails_naming(edit_t *edit, const char *what)
{
    assert_int_equal(edit_load(edit), MODEL_ERR_CHECKPOINT);
    if (strstr(error_text(), what) == NULL)
        fail_msg("\"%s\" does not name %s", error_text(), what);
}

void edit_configs_fail(const char *dir, const char *family, const edit_config_t *configs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        edit_t edit;

        edit_begin(&edit, dir, family);
        edit_replace(&edit, configs[i].from, configs[i].to);
        edit_load_fails_naming(&edit, configs[i].names);
    }
}
