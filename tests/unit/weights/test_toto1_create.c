/* The seeded Toto 1.0 checkpoints: layout, determinism and the path that makes their forecasts presentable. */
#include "weights_test.h"

#include "base/error.h"
#include "gpuworker/model/families.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DIMS(...)                                                                                                                  \
    (sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                                        \
    {                                                                                                                              \
        __VA_ARGS__                                                                                                                \
    }

enum { EMBED = 64, PATCH = 16, COMPONENTS = 4, LAYERS = 4, MLP = 128 };

static checkpoint_t *create(const char *dir, uint64_t seed)
{
    checkpoint_t *checkpoint = NULL;
    if (toto1_create("tiny", seed, dir) < 0 || checkpoint_open(dir, &checkpoint) < 0)
        fail_msg("%s", error_text());
    return checkpoint;
}

/* The tensor as float, malloc'd. */
static float *read_tensor(const checkpoint_t *checkpoint, const char *name, size_t rank, const int64_t *dim)
{
    size_t elements = 1;
    for (size_t i = 0; i < rank; i++)
        elements *= (size_t)dim[i];
    float *values = malloc(elements * sizeof *values);
    if (checkpoint_read_f32(checkpoint, name, (int)rank, dim, values) < 0)
        fail_msg("%s", error_text());
    return values;
}

static void tiny_has_the_published_layout(void **state)
{
    checkpoint_t *checkpoint = create(*state, 1);
    assert_int_equal(checkpoint_count(checkpoint), 12 + 10 * LAYERS);
    assert_true(checkpoint_bytes(checkpoint) < 1000 * 1000);
    static const struct {
        const char *name;
        int rank;
        int64_t dim[2];
    } shapes[] = {
        {"model.patch_embed.projection.weight", 2, {EMBED, PATCH}},
        {"model.patch_embed.projection.bias", 1, {EMBED}},
        {"model.transformer.layers.0.norm1.scale", 1, {EMBED}},
        {"model.transformer.layers.3.norm2.scale", 1, {EMBED}},
        {"model.transformer.layers.3.attention.wQKV.weight", 2, {3 * EMBED, EMBED}},
        {"model.transformer.layers.3.attention.wQKV.bias", 1, {3 * EMBED}},
        {"model.transformer.layers.3.attention.wO.weight", 2, {EMBED, EMBED}},
        {"model.transformer.layers.3.mlp.0.w12.weight", 2, {2 * MLP, EMBED}},
        {"model.transformer.layers.3.mlp.0.w3.weight", 2, {EMBED, MLP}},
        {"model.unembed.weight", 2, {EMBED * PATCH, EMBED}},
        {"model.unembed.bias", 1, {EMBED * PATCH}},
        {"model.output_distribution.df.weight", 2, {COMPONENTS, EMBED}},
        {"model.output_distribution.loc_proj.weight", 2, {COMPONENTS, EMBED}},
        {"model.output_distribution.scale_proj.bias", 1, {COMPONENTS}},
        {"model.output_distribution.mixture_weights.bias", 1, {COMPONENTS}},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        free(read_tensor(checkpoint, shapes[i].name, (size_t)shapes[i].rank, shapes[i].dim));

    int64_t value;
    assert_int_equal(checkpoint_config_i64(checkpoint, "embed_dim", EMBED, EMBED, &value), 0);
    assert_int_equal(checkpoint_config_i64(checkpoint, "output_distribution_kwargs.k_components", COMPONENTS, COMPONENTS, &value),
                     0);
    const char *distribution;
    size_t count;
    assert_int_equal(checkpoint_config_texts(checkpoint, "output_distribution_classes", &distribution, 1, &count), 0);
    assert_string_equal(distribution, "<class 'model.distribution.MixtureOfStudentTsOutput'>");
    checkpoint_close(checkpoint);
}

/* The bits themselves, so that another machine or compiler that makes a different model for the same seed fails here. */
static void seed_decides_every_bit(void **state)
{
    checkpoint_t *one = create(scratch_path(*state, "one"), 7), *same = create(scratch_path(*state, "same"), 7);
    checkpoint_t *other = create(scratch_path(*state, "other"), 8);
    assert_string_equal(checkpoint_revision(one), "9bfb5a86588796cd");
    assert_string_not_equal(checkpoint_revision(one), checkpoint_revision(other));
    for (size_t i = 0; i < checkpoint_count(one); i++) {
        const checkpoint_tensor_t *tensor = checkpoint_at(one, i);
        assert_memory_equal(tensor->data, checkpoint_at(same, i)->data, tensor->bytes);
    }
    checkpoint_close(one);
    checkpoint_close(same);
    checkpoint_close(other);
}

static void weights_have_the_deviation_of_their_fan_in(void **state)
{
    checkpoint_t *checkpoint = create(*state, 3);
    float *weight = read_tensor(checkpoint, "model.transformer.layers.1.mlp.0.w12.weight", DIMS(2 * MLP, EMBED));
    enum { COUNT = 2 * MLP * EMBED };
    double sum = 0, squares = 0, largest = 0;
    for (int i = 0; i < COUNT; i++) {
        sum += (double)weight[i];
        squares += (double)weight[i] * (double)weight[i];
        largest = fmax(largest, fabs((double)weight[i]));
    }
    /* uniform: deviation 1/8 = 1/sqrt(64), bound sqrt(3)/8; the mean of 16384 deviates by 0.001, four times which is allowed */
    assert_true(fabs(sum / COUNT) < 0.004);
    assert_true(fabs(sqrt(squares / COUNT) - 0.125) < 0.002);
    assert_true(largest <= sqrt(3.0) / 8 && largest > 0.21);
    free(weight);
    checkpoint_close(checkpoint);
}

/* Through the embedding, a residual stream that no layer changes in channel 0, the unembedding and the location head, the last value of a
 * patch reaches every future position with weight 1, and no other value of the patch does on that path. */
static void last_value_travels_to_every_location(void **state)
{
    checkpoint_t *checkpoint = create(*state, 5);
    float *embed = read_tensor(checkpoint, "model.patch_embed.projection.weight", DIMS(EMBED, PATCH));
    for (int i = 0; i < PATCH; i++)
        assert_true(embed[i] == (i == PATCH - 1 ? 1 : 0));
    for (int layer = 0; layer < LAYERS; layer++) {
        char name[96];
        snprintf(name, sizeof name, "model.transformer.layers.%d.attention.wO.weight", layer);
        float *wo = read_tensor(checkpoint, name, DIMS(EMBED, EMBED));
        snprintf(name, sizeof name, "model.transformer.layers.%d.mlp.0.w3.weight", layer);
        float *w3 = read_tensor(checkpoint, name, DIMS(EMBED, MLP));
        for (int i = 0; i < EMBED; i++)
            assert_true(wo[i] == 0);
        for (int i = 0; i < MLP; i++)
            assert_true(w3[i] == 0);
        assert_true(wo[EMBED] != 0 && w3[MLP] != 0); /* channel 1 is as random as the rest */
        free(wo);
        free(w3);
    }
    float *unembed = read_tensor(checkpoint, "model.unembed.weight", DIMS(EMBED * PATCH, EMBED));
    for (int position = 0; position < PATCH; position++)
        for (int i = 0; i < EMBED; i++)
            assert_true(unembed[position * EMBED * EMBED + i] == (i == 0 ? 1 : 0));
    float *loc = read_tensor(checkpoint, "model.output_distribution.loc_proj.weight", DIMS(COMPONENTS, EMBED));
    for (int component = 0; component < COMPONENTS; component++)
        assert_true(loc[component * EMBED] == 1 && fabsf(loc[component * EMBED + 1]) < 0.02f);
    free(embed);
    free(unembed);
    free(loc);
    checkpoint_close(checkpoint);
}

static void what_cannot_be_made_is_told(void **state)
{
    assert_int_equal(toto1_create("huge", 1, *state), MODEL_ERR_SHAPE);
    assert_error_has("\"huge\": expected tiny or base");
    assert_int_equal(toto1_create("tiny", 1, ""), MODEL_ERR_CHECKPOINT);
    assert_error_has("cannot make the directory");
}

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, scratch_make, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(tiny_has_the_published_layout),
        IN_SCRATCH(seed_decides_every_bit),
        IN_SCRATCH(weights_have_the_deviation_of_their_fan_in),
        IN_SCRATCH(last_value_travels_to_every_location),
        IN_SCRATCH(what_cannot_be_made_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
