/* Every checkpoint and tensor file below the directory that BARCAST_GOLDENS names opens and reads; skipped without it. */
#include "weights_test.h"

#include "base/error.h"
#include "gpuworker/weights/checkpoint.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>

static unsigned directories, files, tensors;

static void read_all(const checkpoint_t *checkpoint)
{
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++) {
        const checkpoint_tensor_t *tensor = checkpoint_at(checkpoint, i);
        void *values = malloc((size_t)tensor->elements * sizeof(int64_t) + 1);
        bool whole = tensor->dtype == CHECKPOINT_I64;
        int rc = whole ? checkpoint_read_i64(checkpoint, tensor->name, tensor->rank, tensor->dim, values)
                       : checkpoint_read_f32(checkpoint, tensor->name, tensor->rank, tensor->dim, values);
        free(values);
        if (rc < 0)
            fail_msg("%s", error_text());
        tensors++;
    }
}

static int visit(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    const char *name = path + walk->base;
    checkpoint_t *checkpoint = NULL;
    if (kind == FTW_F && strcmp(name, "config.json") == 0) {
        char *dir = strndup(path, (size_t)walk->base - 1);
        if (checkpoint_open(dir, &checkpoint) < 0)
            fail_msg("%s", error_text());
        free(dir);
        directories++;
    } else if (kind == FTW_F && strlen(name) > 12 && strcmp(name + strlen(name) - 12, ".safetensors") == 0) {
        if (checkpoint_open_file(path, &checkpoint) < 0)
            fail_msg("%s", error_text());
        files++;
    } else {
        return 0;
    }
    read_all(checkpoint);
    checkpoint_close(checkpoint);
    return 0;
}

static void every_golden_checkpoint_opens_and_reads(void **state)
{
    (void)state;
    const char *root = getenv("BARCAST_GOLDENS");
    if (!root)
        skip();
    assert_int_equal(nftw(root, visit, 16, FTW_PHYS), 0);
    print_message("%u checkpoints, %u files, %u tensors\n", directories, files, tensors);
    assert_true(directories > 0 && files > 0 && tensors > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_golden_checkpoint_opens_and_reads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
