/* Sessions at their limits, of every family: shapes that no device holds are refused by name, odd ones work, no bars, however odd, make a
 * forecast that is not finite or whose quantiles cross, and weights that cannot give any are refused. The models are small golden checkpoints. */
#include "tests/unit/model/checkpoint_edit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"

#define GOLDEN BARCAST_SOURCE_DIR "/tests/fixtures/golden/"

static const char *const dirs[] = {GOLDEN "toto1/groups/model",
                                   GOLDEN "toto2/knobs/model",
                                   GOLDEN "kronos/rolling/model",
                                   GOLDEN "chronos2/groups/model",
                                   GOLDEN "sundial/rounds/model",
                                   GOLDEN "chronos_bolt/single/model",
                                   "naive"};
enum { MODELS = sizeof dirs / sizeof *dirs };

typedef struct {
    backend_t *backend;
    model_t *model[MODELS];
} world_t;

static int open_world(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};
    world_t *world = calloc(1, sizeof *world);
    char revision[17];

    assert_int_equal(backend_open(&options, &world->backend), BACKEND_OK);
    for (int i = 0; i < MODELS; i++)
        if (model_load(world->backend, dirs[i], BACKEND_F32, &world->model[i], revision) < 0)
            fail_msg("%s", error_text());
    *state = world;
    return 0;
}

static int close_world(void **state)
{
    world_t *world = *state;

    for (int i = 0; i < MODELS; i++)
        model_unload(world->model[i]);
    assert_int_equal(backend_allocated_bytes(world->backend), 0); /* after refused sessions too */
    backend_close(world->backend);
    free(world);
    return 0;
}

/* One series of what the model looks at. */
static model_shape_t plain_shape(const model_t *model)
{
    model_info_t info;

    model_info(model, &info);
    return (model_shape_t){.batch = 1,
                           .variates = info.whole_bars ? MODEL_WHOLE_BAR : 1,
                           .context = 24,
                           .horizon = 7,
                           .samples = info.samples ? 3 : 0,
                           .quantile_count = 5,
                           .quantiles = {0.001f, 0.1f, 0.5f, 0.77f, 0.999f}};
}

/* ---- shapes --------------------------------------------------------------------------------------------------------------------- */

static void a_shape_that_no_device_holds_is_refused_by_name(void **state)
{
    static const struct {
        uint32_t batch, variates, context, horizon, samples;
        const char *names;
    } shapes[] = {
        {1, 1, UINT32_MAX, 1, 1, "context"},   {1, 1, UINT32_MAX - 3, 8, 1, "context"},
        {1, 1, 24, UINT32_MAX, 1, "horizon"},  {1, 1, UINT32_MAX, UINT32_MAX, UINT32_MAX, "context"},
        {UINT32_MAX, 1, 24, 7, 1, "batch"},    {UINT32_MAX, UINT32_MAX, 1 << 25, 1 << 25, UINT32_MAX, "batch"},
        {1 << 16, 1, 24, 1 << 20, 1, "batch"}, {1, 1, 24, 64, UINT32_MAX, "samples"},
        {1, UINT32_MAX, 24, 7, 1, "variates"},
    };
    world_t *world = *state;

    for (int m = 0; m < MODELS; m++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            model_shape_t shape = plain_shape(world->model[m]);
            session_t *session = NULL;

            shape.batch = shapes[i].batch;
            shape.variates = shapes[i].variates > 1 ? shapes[i].variates : shape.variates;
            shape.context = shapes[i].context;
            shape.horizon = shapes[i].horizon;
            shape.samples = shapes[i].samples;
            assert_int_equal(session_open(world->model[m], &shape, false, &session), SESSION_ERR_SHAPE);
            assert_non_null(strstr(error_text(), shapes[i].names));
        }
}

/* ---- bars ----------------------------------------------------------------------------------------------------------------------- */

enum {
    BARS_PLAIN,
    BARS_NONE,
    BARS_ONE,
    BARS_CONSTANT,
    BARS_ZERO,
    BARS_HUGE,
    BARS_TINY,
    BARS_NEGATIVE,
    BARS_JUMP,
    BARS_MIXED,
    BARS_KINDS
};

static float value_of(int kind, uint32_t t)
{
    float wave = sinf(0.9f * (float)t) + 0.3f * sinf(3.1f * (float)t);

    switch (kind) {
    case BARS_CONSTANT:
        return 7;
    case BARS_ZERO:
        return 0;
    case BARS_HUGE:
        return 1e30f * (3 + wave);
    case BARS_TINY:
        return 1e-30f * (3 + wave);
    case BARS_NEGATIVE:
        return -100 + wave;
    case BARS_JUMP:
        return t % 20 == 19 ? 1e12f : 1e-6f;
    case BARS_MIXED:
        return t % 2 ? -1e30f : 1e30f;
    default:
        return 100 + wave;
    }
}

static bool is_observed(int kind, uint32_t t, uint32_t context)
{
    return kind == BARS_ONE ? t == context / 2 : kind != BARS_NONE;
}

static void fill(session_t *session, int kind)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input = session_input(session);

    for (uint32_t i = 0; i < shape->batch * shape->variates * shape->context; i++) {
        uint32_t t = i % shape->context;

        input->mask[i] = is_observed(kind, t, shape->context);
        input->values[i] = input->mask[i] ? value_of(kind, t) : 0;
    }
    for (uint32_t i = 0; i < shape->batch * shape->variates; i++) {
        input->group[i] = 0;
        input->log_price[i] = kind != BARS_NEGATIVE && kind != BARS_MIXED && kind != BARS_ZERO;
    }
    for (uint32_t i = 0; i < shape->batch; i++) {
        input->length[i] = i % 2 ? 1 + shape->context / 2 : shape->context;
        input->key[i] = i;
    }
    for (uint32_t i = 0; i < shape->batch * (shape->context + shape->horizon); i++)
        input->time_ns[i] = (int64_t)i * 60000000000;
}

static void expect_publishable(const session_t *session, const char *dir, int kind)
{
    const model_shape_t *shape = session_shape(session);
    const model_output_t *output = session_output(session);
    size_t rows = (size_t)shape->batch * shape->variates, horizon = shape->horizon;

    for (size_t i = 0; i < rows * horizon; i++)
        if (!isfinite(output->mean[i]))
            fail_msg("%s, bars %d: mean[%zu] is %g", dir, kind, i, (double)output->mean[i]);
    for (size_t i = 0; output->quantiles != NULL && i < rows * shape->quantile_count * horizon; i++) {
        size_t level = i / horizon % shape->quantile_count;

        if (!isfinite(output->quantiles[i]))
            fail_msg("%s, bars %d: quantiles[%zu] is %g", dir, kind, i, (double)output->quantiles[i]);
        if (level > 0 && output->quantiles[i] < output->quantiles[i - horizon])
            fail_msg("%s, bars %d: quantiles cross at %zu: %g after %g", dir, kind, i, (double)output->quantiles[i],
                     (double)output->quantiles[i - horizon]);
    }
}

static void no_bars_make_a_forecast_that_cannot_be_published(void **state)
{
    static const uint32_t contexts[] = {1, 13, 64}, horizons[] = {1, 31}, batches[] = {1, 3};
    world_t *world = *state;

    for (int m = 0; m < MODELS; m++)
        for (int c = 0; c < 3; c++)
            for (int h = 0; h < 2; h++) {
                model_shape_t shape = plain_shape(world->model[m]);
                session_t *session;

                shape.batch = batches[h];
                shape.context = contexts[c];
                shape.horizon = horizons[h];
                if (session_open(world->model[m], &shape, false, &session) < 0)
                    fail_msg("%s: %s", dirs[m], error_text());
                for (int kind = 0; kind < BARS_KINDS; kind++) {
                    fill(session, kind);
                    assert_int_equal(session_run(session, shape.batch), SESSION_OK);
                    expect_publishable(session, dirs[m], kind);
                }
                session_close(session);
            }
}

/* ---- options -------------------------------------------------------------------------------------------------------------------- */

/* Every option at its ends; a family takes no notice of those that are not its own. */
static void options_at_their_ends_are_harmless_or_refused(void **state)
{
    static const struct {
        model_options_t options;
        bool refused; /* by some family, by name */
        const char *names;
    } cases[] = {
        {{.temperature = 1e-30f}, false, NULL},
        {{.temperature = 1e30f}, false, NULL},
        {{.temperature = 10, .top_k = UINT32_MAX}, false, NULL},
        {{.top_k = 1}, false, NULL},
        {{.top_p = 1e-30f}, false, NULL},
        {{.top_p = 1e30f}, false, NULL},
        {{.window = 1}, true, "window"},
        {{.window = 8}, false, NULL},
        {{.window = UINT32_MAX}, false, NULL},
        {{.decode_block = 1}, true, "decode_block"},
        {{.minimum_observed = UINT32_MAX}, true, "minimum_observed"},
        {{.cap = -1}, true, "cap"},
        {{.cap = NAN}, true, "cap"},
        {{.cap = 1e-30f}, false, NULL},
        {{.cap = 1e30f}, false, NULL},
        {{.rescale = true}, false, NULL},
    };
    world_t *world = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int refusals = 0;

        for (int m = 0; m < MODELS; m++) {
            model_shape_t shape = plain_shape(world->model[m]);
            session_t *session = NULL;

            shape.options = cases[i].options;
            if (session_open(world->model[m], &shape, false, &session) < 0) {
                refusals++;
                if (!cases[i].refused || strstr(error_text(), cases[i].names) == NULL)
                    fail_msg("%s, options %zu: %s", dirs[m], i, error_text());
                continue;
            }
            for (int kind = 0; kind < BARS_KINDS; kind++) {
                fill(session, kind);
                assert_int_equal(session_run(session, 1), SESSION_OK);
                expect_publishable(session, dirs[m], kind);
            }
            session_close(session);
        }
        assert_int_equal(refusals, cases[i].refused);
    }
}

/* ---- weights -------------------------------------------------------------------------------------------------------------------- */

static void weights_that_are_not_numbers_are_named(void **state)
{
    static const struct {
        const char *family, *tensor;
    } weights[] = {
        {"toto1", "model.patch_embed.projection.weight"},
        {"toto2", "transformer.layers.0.attn.in_proj.weight"},
        {"kronos", "embedding.fusion_proj.weight"},
        {"chronos2", "output_patch_embedding.residual_layer.bias"},
        {"sundial", "model.norm.bias"},
        {"chronos_bolt", "decoder.block.0.layer.0.SelfAttention.q.weight"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        for (int infinite = 0; infinite < 2; infinite++) {
            edit_t edit;

            edit_begin(&edit, dirs[i], weights[i].family);
            ((float *)(uintptr_t)edit_tensor(&edit, weights[i].tensor)->data)[1] = infinite ? -INFINITY : NAN;
            edit_load_fails_naming(&edit, weights[i].tensor);
            assert_non_null(strstr(error_text(), "element 1 is"));
        }
}

/* Without this check such a model would forecast, and none of it could be published. */
static void weights_that_overflow_open_no_session(void **state)
{
    world_t *world = *state;
    model_t *model;
    session_t *session = NULL;
    model_shape_t shape;
    char revision[17];
    edit_t edit;
    float *weight;

    edit_begin(&edit, GOLDEN "sundial/rounds/model", "sundial");
    weight = (float *)(uintptr_t)edit_tensor(&edit, "flow_loss.net.final_layer.linear.weight")->data;
    weight[0] = weight[1] = 3e38f;
    assert_int_equal(checkpoint_write(edit.dir, edit.config, edit.tensors, edit.count, CHECKPOINT_F32), CHECKPOINT_OK);
    assert_int_equal(model_load(world->backend, edit.dir, BACKEND_F32, &model, revision), MODEL_OK);
    shape = plain_shape(model);
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_ERR_WEIGHTS);
    assert_non_null(strstr(error_text(), "sundial: the weights give no numbers"));
    model_unload(model);
    assert_int_equal(edit_load(&edit), MODEL_OK); /* which clears up */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shape_that_no_device_holds_is_refused_by_name),
        cmocka_unit_test(no_bars_make_a_forecast_that_cannot_be_published),
        cmocka_unit_test(options_at_their_ends_are_harmless_or_refused),
        cmocka_unit_test(weights_that_are_not_numbers_are_named),
        cmocka_unit_test(weights_that_overflow_open_no_session),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
