/* Edits of a small golden checkpoint: what a published directory may look like, and the errors that name what is wrong with one. A test begins
 * an edit, changes config text or tensors, and loads the result. */
#ifndef BARCAST_TESTS_UNIT_MODEL_CHECKPOINT_EDIT_H
#define BARCAST_TESTS_UNIT_MODEL_CHECKPOINT_EDIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "gpuworker/model/model.h"

enum { EDIT_TENSORS_MOST = 128, EDIT_TEXT_BYTES = 8192 };

typedef struct {
    const char *family; /* the one that must have loaded it */
    checkpoint_t *source;
    char config[EDIT_TEXT_BYTES];
    size_t count;
    checkpoint_source_t tensors[EDIT_TENSORS_MOST];
    float *data[EDIT_TENSORS_MOST];
    char dir[64];
} edit_t;

/* Of the checkpoint in `dir`. Every edit is ended by edit_load. */
void edit_begin(edit_t *edit, const char *dir, const char *family);
checkpoint_source_t *edit_tensor(edit_t *edit, const char *name);
/* Adds a tensor; what it points to stays the caller's. */
void edit_add(edit_t *edit, checkpoint_source_t tensor);
void edit_remove(edit_t *edit, const char *name);
/* In config.json, the first `from`. */
void edit_replace(edit_t *edit, const char *from, const char *to);

/* Writes the edited checkpoint, loads it, unloads it and checks that no device memory stays, removes it; returns model_load's code. */
int edit_load(edit_t *edit);
/* It must not load, and the error must name `what`. */
void edit_load_fails_naming(edit_t *edit, const char *what);

/* Replacements in config.json, each of which alone must be refused by that name. */
typedef struct {
    const char *from, *to, *names;
} edit_config_t;

void edit_configs_fail(const char *dir, const char *family, const edit_config_t *configs, size_t count);

#endif
