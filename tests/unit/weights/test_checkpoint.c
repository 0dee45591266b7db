/* Checkpoint directories: single files, shards, what is read back, and what each fault says. */
#include "weights_test.h"

#include "base/error.h"
#include "gpuworker/weights/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIMS(...)                                                                                                                  \
    (sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                                        \
    {                                                                                                                              \
        __VA_ARGS__                                                                                                                \
    }

static checkpoint_t *must_open(const char *dir)
{
    checkpoint_t *checkpoint = NULL;
    if (checkpoint_open(dir, &checkpoint) < 0)
        fail_msg("%s", error_text());
    return checkpoint;
}

static void must_not_open(const char *dir, int rc)
{
    checkpoint_t *untouched = NULL;
    assert_int_equal(checkpoint_open(dir, &untouched), rc);
    assert_null(untouched);
}

/* ---- one file ----------------------------------------------------------------------------------------------------------------- */

static const float first[] = {1, -2.5f, 0.1f, 3e38f, -0.0f, 1e-40f}, second[] = {7};

static int write_two(const char *dir, checkpoint_dtype_t dtype)
{
    const checkpoint_source_t tensors[] = {{"w.second", 1, {1}, second}, {"w.first", 2, {2, 3}, first}};
    return checkpoint_write(dir, "{\"kind\": 1}", tensors, 2, dtype);
}

static void f32_comes_back_bit_for_bit(void **state)
{
    assert_int_equal(write_two(*state, CHECKPOINT_F32), 0);
    checkpoint_t *checkpoint = must_open(*state);
    assert_int_equal(checkpoint_count(checkpoint), 2);
    assert_string_equal(checkpoint_at(checkpoint, 0)->name, "w.first"); /* name order, not file order */
    assert_string_equal(checkpoint_path(checkpoint), *state);
    assert_string_equal(checkpoint_config_json(checkpoint), "{\"kind\": 1}");
    float values[6];
    assert_int_equal(checkpoint_read_f32(checkpoint, "w.first", DIMS(2, 3), values), 0);
    assert_memory_equal(values, first, sizeof first);
    assert_int_equal(checkpoint_read_f32(checkpoint, "w.second", DIMS(1), values), 0);
    assert_memory_equal(values, second, sizeof second);
    assert_int_equal((uintptr_t)checkpoint_find(checkpoint, "w.second")->data % 8, 0); /* the writer pads its header */
    struct stat status;
    assert_int_equal(stat(scratch_path(*state, "model.safetensors"), &status), 0);
    assert_int_equal(checkpoint_bytes(checkpoint), status.st_size);
    checkpoint_close(checkpoint);
}

static void bf16_comes_back_rounded(void **state)
{
    enum { COUNT = 40000 }; /* several of the writer's chunks */
    float *values = malloc(COUNT * sizeof *values);
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)(i - COUNT / 2) * 1.37f;
    const checkpoint_source_t tensor = {"w", 1, {COUNT}, values};
    assert_int_equal(checkpoint_write(*state, "{}", &tensor, 1, CHECKPOINT_BF16), 0);
    checkpoint_t *checkpoint = must_open(*state);
    assert_int_equal(checkpoint_at(checkpoint, 0)->dtype, CHECKPOINT_BF16);
    assert_int_equal(checkpoint_at(checkpoint, 0)->bytes, COUNT * 2);
    float *back = malloc(COUNT * sizeof *back);
    assert_int_equal(checkpoint_read_f32(checkpoint, "w", DIMS(COUNT), back), 0);
    for (int i = 0; i < COUNT; i++)
        assert_true(fabsf(back[i] - values[i]) <= fabsf(values[i]) * 0x1p-8f);
    assert_true(back[0] != values[0]); /* it was rounded at all */
    checkpoint_close(checkpoint);
    free(values);
    free(back);
}

static void every_dtype_is_read(void **state)
{
    static const char header[] = "{\"f64\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},\"i64\":{\"dtype\":\"I64\","
                                 "\"shape\":[1],\"data_offsets\":[8,16]},"
                                 "\"f32\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[16,20]},\"i32\":{\"dtype\":\"I32\","
                                 "\"shape\":[1],\"data_offsets\":[20,24]},"
                                 "\"f16\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[24,26]},\"bf16\":{\"dtype\":\"BF16\","
                                 "\"shape\":[1],\"data_offsets\":[26,28]},"
                                 "\"u8\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[28,29]},\"bool\":{\"dtype\":\"BOOL\","
                                 "\"shape\":[1],\"data_offsets\":[29,30]}}";
    struct {
        double f64;
        int64_t i64;
        float f32;
        int32_t i32;
        uint16_t f16, bf16;
        uint8_t u8, boolean;
    } data = {-1.5, INT64_MIN, -1.5f, -7, 0xbe00, 0xbfc0, 200, 1};
    write_safetensors(scratch_path(*state, "all.safetensors"), header, &data, 30);
    checkpoint_t *checkpoint;
    assert_int_equal(checkpoint_open_file(scratch_path(*state, "all.safetensors"), &checkpoint), 0);

    static const char *const floats[] = {"f64", "f32", "f16", "bf16"};
    for (int i = 0; i < 4; i++) {
        float value = 0;
        assert_int_equal(checkpoint_read_f32(checkpoint, floats[i], DIMS(1), &value), 0);
        assert_true(value == -1.5f);
    }
    static const char *const integers[] = {"i64", "i32", "u8", "bool"};
    static const int64_t expected[] = {INT64_MIN, -7, 200, 1};
    for (int i = 0; i < 4; i++) {
        int64_t value = 0;
        assert_int_equal(checkpoint_read_i64(checkpoint, integers[i], DIMS(1), &value), 0);
        assert_int_equal(value, expected[i]);
    }
    float untouched = 9;
    assert_int_equal(checkpoint_read_f32(checkpoint, "bool", DIMS(1), &untouched), CHECKPOINT_ERR_TENSOR);
    assert_error_has("all.safetensors: tensor \"bool\": expected dtype F32, F16, BF16 or F64, found BOOL");
    int64_t whole;
    assert_int_equal(checkpoint_read_i64(checkpoint, "f16", DIMS(1), &whole), CHECKPOINT_ERR_TENSOR);
    assert_error_has("tensor \"f16\": expected dtype I64, I32, U8 or BOOL, found F16");
    assert_true(untouched == 9);
    checkpoint_close(checkpoint);
}

static void wrong_shape_and_missing_tensor_are_told(void **state)
{
    assert_int_equal(write_two(*state, CHECKPOINT_F32), 0);
    checkpoint_t *checkpoint = must_open(*state);
    float values[6] = {5};
    assert_int_equal(checkpoint_read_f32(checkpoint, "w.first", DIMS(3, 2), values), CHECKPOINT_ERR_TENSOR);
    assert_error_has("tensor \"w.first\": expected shape [3, 2], found [2, 3]");
    assert_error_has(*state);
    assert_int_equal(checkpoint_read_f32(checkpoint, "w.first", DIMS(6), values), CHECKPOINT_ERR_TENSOR);
    assert_error_has("expected shape [6], found [2, 3]");
    assert_int_equal(checkpoint_read_f32(checkpoint, "w.third", DIMS(6), values), CHECKPOINT_ERR_TENSOR);
    assert_error_has("tensor \"w.third\": expected");
    assert_null(checkpoint_find(checkpoint, "w.third"));
    assert_true(values[0] == 5);
    checkpoint_close(checkpoint);
}

static void missing_files_are_named(void **state)
{
    must_not_open(scratch_path(*state, "nowhere"), CHECKPOINT_ERR_FILE);
    assert_error_has("nowhere/config.json: cannot open: No such file");
    write_text(scratch_path(*state, "config.json"), "{}");
    must_not_open(*state, CHECKPOINT_ERR_FILE);
    assert_error_has("/model.safetensors: cannot open: No such file");
    assert_int_equal(mkdir(scratch_path(*state, "model.safetensors"), 0700), 0);
    must_not_open(*state, CHECKPOINT_ERR_FILE);
    assert_error_has("/model.safetensors: expected a regular file");
}

static void fault_in_a_file_names_the_file(void **state)
{
    write_text(scratch_path(*state, "config.json"), "{}");
    write_text(scratch_path(*state, "model.safetensors"), "");
    must_not_open(*state, CHECKPOINT_ERR_FORMAT);
    assert_error_has("/model.safetensors: 0 bytes: expected");
    write_safetensors(scratch_path(*state, "model.safetensors"), "{\"w\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]}}",
                      "", 0);
    must_not_open(*state, CHECKPOINT_ERR_FORMAT);
    assert_error_has("/model.safetensors: tensor \"w\": data_offsets [0, 9]");
}

static void checkpoint_survives_the_replacement_of_its_files(void **state)
{
    assert_int_equal(write_two(*state, CHECKPOINT_F32), 0);
    checkpoint_t *old = must_open(*state);
    const checkpoint_tensor_t *tensor = checkpoint_find(old, "w.first");
    const checkpoint_source_t same = {"w.first", 2, {2, 3}, tensor->data};
    assert_int_equal(checkpoint_write(*state, "{}", &same, 1, CHECKPOINT_BF16), 0);
    assert_memory_equal(tensor->data, first, sizeof first);
    checkpoint_t *replaced = must_open(*state);
    assert_int_equal(checkpoint_count(replaced), 1);
    float values[6];
    assert_int_equal(checkpoint_read_f32(replaced, "w.first", DIMS(2, 3), values), 0);
    assert_true(values[1] == -2.5f);
    checkpoint_close(replaced);
    checkpoint_close(old);
}

static void writer_makes_parents_and_tells_what_it_cannot_write(void **state)
{
    const char *deep = scratch_path(*state, "a/b//c/");
    assert_int_equal(write_two(deep, CHECKPOINT_F32), 0);
    checkpoint_close(must_open(deep));

    assert_int_equal(write_two(deep, CHECKPOINT_F16), CHECKPOINT_ERR_TENSOR);
    assert_error_has("expected to store F32 or BF16, not F16");
    const checkpoint_source_t quoted = {"a\"b", 1, {1}, second};
    assert_int_equal(checkpoint_write(deep, "{}", &quoted, 1, CHECKPOINT_F32), CHECKPOINT_ERR_TENSOR);
    const checkpoint_source_t flat = {"a", 6, {1}, second};
    assert_int_equal(checkpoint_write(deep, "{}", &flat, 1, CHECKPOINT_F32), CHECKPOINT_ERR_TENSOR);
    write_text(scratch_path(*state, "file"), "");
    assert_int_equal(write_two(scratch_path(*state, "file/dir"), CHECKPOINT_F32), CHECKPOINT_ERR_FILE);
    assert_error_has("file/dir: cannot make the directory");
    assert_int_equal(write_two("", CHECKPOINT_F32), CHECKPOINT_ERR_FILE);
}

/* ---- shards ------------------------------------------------------------------------------------------------------------------- */

static void move(const char *dir, const char *from, const char *to)
{
    assert_int_equal(rename(scratch_path(dir, from), scratch_path(dir, to)), 0);
}

/* w.first in one-of-2, w.second in two-of-2; the index is the test's. */
static void write_shards(const char *dir, const char *index)
{
    const checkpoint_source_t one = {"w.first", 2, {2, 3}, first}, two = {"w.second", 1, {1}, second};
    assert_int_equal(checkpoint_write(dir, "{\"kind\": 1}", &one, 1, CHECKPOINT_F32), 0);
    move(dir, "model.safetensors", "model-00001-of-00002.safetensors");
    assert_int_equal(checkpoint_write(dir, "{\"kind\": 1}", &two, 1, CHECKPOINT_F32), 0);
    move(dir, "model.safetensors", "model-00002-of-00002.safetensors");
    write_text(scratch_path(dir, "model.safetensors.index.json"), index);
}

#define INDEX(map) "{\"metadata\":{\"total_size\":28},\"weight_map\":{" map "}}"
#define ONE        "\"w.first\":\"model-00001-of-00002.safetensors\""
#define TWO        "\"w.second\":\"model-00002-of-00002.safetensors\""

static void shards_are_one_checkpoint(void **state)
{
    write_shards(*state, INDEX(TWO "," ONE));
    checkpoint_t *checkpoint = must_open(*state);
    assert_int_equal(checkpoint_count(checkpoint), 2);
    float values[6];
    assert_int_equal(checkpoint_read_f32(checkpoint, "w.first", DIMS(2, 3), values), 0);
    assert_memory_equal(values, first, sizeof first);
    assert_int_equal(checkpoint_read_f32(checkpoint, "w.second", DIMS(1), values), 0);
    assert_memory_equal(values, second, sizeof second);
    char sharded[17];
    snprintf(sharded, sizeof sharded, "%s", checkpoint_revision(checkpoint));
    checkpoint_close(checkpoint);

    assert_int_equal(write_two(*state, CHECKPOINT_F32), 0); /* now model.safetensors goes before the index */
    checkpoint = must_open(*state);
    assert_string_equal(checkpoint_revision(checkpoint), sharded);
    checkpoint_close(checkpoint);
}

typedef struct {
    const char *sentence, *index;
    int rc;
    const char *expected[2];
} index_fault_t;

static const index_fault_t index_faults[] = {
    {"index_must_be_json", "{", CHECKPOINT_ERR_FORMAT, {"model.safetensors.index.json", "expected more"}},
    {"index_must_have_a_weight_map",
     "{\"weight_map\":[]}",
     CHECKPOINT_ERR_FORMAT,
     {"index.json: weight_map", "expected an object"}},
    {"index_must_name_files_that_exist",
     INDEX(ONE ",\"w.second\":\"model-00003.safetensors\""),
     CHECKPOINT_ERR_FILE,
     {"tensor \"w.second\"", "model-00003.safetensors: cannot open"}},
    {"index_must_not_leave_its_directory",
     INDEX(ONE ",\"w.second\":\"../model.safetensors\""),
     CHECKPOINT_ERR_FORMAT,
     {"tensor \"w.second\"", "same directory"}},
    {"index_must_name_files_by_strings",
     INDEX(ONE ",\"w.second\":2"),
     CHECKPOINT_ERR_FORMAT,
     {"tensor \"w.second\"", "expected the name"}},
    {"index_must_not_name_a_tensor_that_its_shard_lacks",
     INDEX(ONE "," TWO ",\"w.third\":\"model-00002-of-00002.safetensors\""),
     CHECKPOINT_ERR_FORMAT,
     {"tensor \"w.third\"", "model-00002-of-00002.safetensors, which lacks it"}},
    {"index_must_not_name_the_wrong_shard",
     INDEX(ONE ",\"w.second\":\"model-00001-of-00002.safetensors\""),
     CHECKPOINT_ERR_FORMAT,
     {"tensor \"w.second\"", "model-00001-of-00002.safetensors, which lacks it"}},
};
enum { INDEX_FAULT_COUNT = sizeof index_faults / sizeof index_faults[0] };

static void index_fault_is_told(void **state)
{
    const index_fault_t *fault = *state;
    void *dir;
    assert_int_equal(scratch_make(&dir), 0);
    write_shards(dir, fault->index);
    must_not_open(dir, fault->rc);
    for (int i = 0; i < 2; i++)
        assert_error_has(fault->expected[i]);
    assert_int_equal(scratch_remove(&dir), 0);
}

static void shard_must_not_hold_what_the_index_omits(void **state)
{
    write_shards(*state, INDEX(ONE "," TWO));
    assert_int_equal(write_two(*state, CHECKPOINT_F32), 0);
    move(*state, "model.safetensors", "model-00002-of-00002.safetensors");
    move(*state, "model-00001-of-00002.safetensors", "unused.safetensors");
    write_text(scratch_path(*state, "model.safetensors.index.json"), INDEX(TWO));
    must_not_open(*state, CHECKPOINT_ERR_FORMAT);
    assert_error_has("tensor \"w.first\": expected in weight_map, because");
    assert_error_has("model-00002-of-00002.safetensors holds it");
}

static void tensor_must_not_be_in_two_shards(void **state)
{
    write_shards(*state, INDEX(ONE "," TWO));
    assert_int_equal(write_two(*state, CHECKPOINT_F32), 0);
    move(*state, "model.safetensors", "model-00002-of-00002.safetensors");
    must_not_open(*state, CHECKPOINT_ERR_FORMAT);
    assert_error_has("tensor \"w.first\": expected in one file, found in");
    assert_error_has("model-00001-of-00002.safetensors");
    assert_error_has("model-00002-of-00002.safetensors");
}

/* ---- revision ----------------------------------------------------------------------------------------------------------------- */

static void write_and_get_revision(const char *dir, const char *config, const checkpoint_source_t *tensor, checkpoint_dtype_t dtype,
                                   char revision[17])
{
    assert_int_equal(checkpoint_write(dir, config, tensor, 1, dtype), 0);
    checkpoint_t *checkpoint = must_open(dir);
    snprintf(revision, 17, "%s", checkpoint_revision(checkpoint));
    checkpoint_close(checkpoint);
}

static void revision_changes_with_config_name_shape_dtype_and_values_only(void **state)
{
    const checkpoint_source_t base = {"w", 2, {2, 3}, first}, name = {"v", 2, {2, 3}, first}, shape = {"w", 2, {3, 2}, first};
    const float other_values[6] = {2};
    const checkpoint_source_t values = {"w", 2, {2, 3}, other_values};
    char revisions[6][17], again[17];
    write_and_get_revision(*state, "{}", &base, CHECKPOINT_F32, revisions[0]);
    write_and_get_revision(*state, "{ }", &base, CHECKPOINT_F32, revisions[1]);
    write_and_get_revision(*state, "{}", &name, CHECKPOINT_F32, revisions[2]);
    write_and_get_revision(*state, "{}", &shape, CHECKPOINT_F32, revisions[3]);
    write_and_get_revision(*state, "{}", &base, CHECKPOINT_BF16, revisions[4]);
    write_and_get_revision(*state, "{}", &values, CHECKPOINT_F32, revisions[5]);
    write_and_get_revision(scratch_path(*state, "elsewhere"), "{}", &base, CHECKPOINT_F32, again);
    assert_string_equal(again, revisions[0]);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(strspn(revisions[i], "0123456789abcdef"), 16);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(revisions[i], revisions[j]);
    }
}

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_make, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(f32_comes_back_bit_for_bit),
        IN_SCRATCH(bf16_comes_back_rounded),
        IN_SCRATCH(every_dtype_is_read),
        IN_SCRATCH(wrong_shape_and_missing_tensor_are_told),
        IN_SCRATCH(missing_files_are_named),
        IN_SCRATCH(fault_in_a_file_names_the_file),
        IN_SCRATCH(checkpoint_survives_the_replacement_of_its_files),
        IN_SCRATCH(writer_makes_parents_and_tells_what_it_cannot_write),
        IN_SCRATCH(shards_are_one_checkpoint),
        IN_SCRATCH(shard_must_not_hold_what_the_index_omits),
        IN_SCRATCH(tensor_must_not_be_in_two_shards),
        IN_SCRATCH(revision_changes_with_config_name_shape_dtype_and_values_only),
    };
    struct CMUnitTest fault_tests[INDEX_FAULT_COUNT] = {{0}};
    for (int i = 0; i < INDEX_FAULT_COUNT; i++) {
        fault_tests[i].name = index_faults[i].sentence;
        fault_tests[i].test_func = index_fault_is_told;
        fault_tests[i].initial_state = (void *)(uintptr_t)&index_faults[i];
    }
    int failed = cmocka_run_group_tests_name("checkpoints", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("shard index faults", fault_tests, NULL, NULL);
}
