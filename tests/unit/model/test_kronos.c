/* Kronos: loading a model and its tokenizer, the limits of its sessions, and what its forecasts promise. Numbers are verified elsewhere
 * (unit/engine/test_verify.c). All tests share one seeded checkpoint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/model/families.h"

enum { FIELDS = 6, CONTEXT = 40, HORIZON = 8, PATHS = 32, LEVELS = 5, CLOSE = 3, VOLUME = 4, AMOUNT = 5 };

static char root[] = "/tmp/barcast-kronos-XXXXXX", dir[64], tokenizer[80];
static backend_t *backend;
static model_t *model;

static int make_model(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 1};
    char revision[17];

    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(dir, sizeof dir, "%s/model", root);
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer", dir);
    assert_int_equal(kronos_create("tiny", 1, dir), MODEL_OK);
    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    assert_int_equal(model_load(backend, dir, BACKEND_F32, &model, revision), MODEL_OK);
    return 0;
}

static int remove_model(void **state)
{
    char command[64];

    (void)state;
    model_unload(model);
    assert_int_equal(backend_allocated_bytes(backend), 0);
    backend_close(backend);
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

/* ---- loading -------------------------------------------------------------------------------------------------------------------- */

/* How to damage a copy of the checkpoint: in the tokenizer's part or the model's. */
typedef struct {
    bool tokenizer;
    const char *remove, *reshape, *add; /* tensors; NULL: none */
    const char *from, *to;              /* in config.json */
    const char *names;                  /* what the error must name */
} damage_t;

static void replace(char *text, size_t room, const char *from, const char *to)
{
    char *at = strstr(text, from), tail[2048];

    assert_non_null(at);
    snprintf(tail, sizeof tail, "%s", at + strlen(from));
    snprintf(at, room - (size_t)(at - text), "%s%s", to, tail);
}

/* Copies the checkpoint `from` to `to`, damaged where `damage` is given. */
static void copy_checkpoint(const char *from, const char *to, const damage_t *damage)
{
    static const float one = 1;
    checkpoint_t *source;
    checkpoint_source_t *tensors;
    char config[2048];
    size_t count = 0;

    assert_int_equal(checkpoint_open(from, &source), CHECKPOINT_OK);
    tensors = calloc(checkpoint_count(source) + 1, sizeof *tensors);
    assert_non_null(tensors);
    for (size_t i = 0; i < checkpoint_count(source); i++) {
        const checkpoint_tensor_t *tensor = checkpoint_at(source, i);
        checkpoint_source_t *copy = &tensors[count];
        float *data;

        if (damage != NULL && damage->remove != NULL && strcmp(tensor->name, damage->remove) == 0)
            continue;
        assert_non_null(data = malloc((size_t)tensor->elements * sizeof *data));
        assert_int_equal(checkpoint_read_f32(source, tensor->name, tensor->rank, tensor->dim, data), CHECKPOINT_OK);
        *copy = (checkpoint_source_t){.name = tensor->name, .rank = tensor->rank, .data = data};
        memcpy(copy->dim, tensor->dim, sizeof copy->dim);
        if (damage != NULL && damage->reshape != NULL && strcmp(tensor->name, damage->reshape) == 0)
            copy->dim[0]--;
        count++;
    }
    if (damage != NULL && damage->add != NULL)
        tensors[count] = (checkpoint_source_t){.name = damage->add, .rank = 1, .dim = {1}, .data = &one};
    snprintf(config, sizeof config, "%s", checkpoint_config_json(source));
    if (damage != NULL && damage->from != NULL)
        replace(config, sizeof config, damage->from, damage->to);
    assert_int_equal(checkpoint_write(to, config, tensors, count + (damage != NULL && damage->add != NULL), CHECKPOINT_F32),
                     CHECKPOINT_OK);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)tensors[i].data);
    free(tensors);
    checkpoint_close(source);
}

static int load(const char *path)
{
    size_t before = backend_allocated_bytes(backend);
    char revision[17];
    model_t *loaded;
    int rc = model_load(backend, path, BACKEND_F32, &loaded, revision);

    if (rc == MODEL_OK)
        model_unload(loaded);
    assert_int_equal(backend_allocated_bytes(backend), before);
    return rc;
}

static void damaged_checkpoints_are_refused_by_name(void **state)
{
    static const damage_t damages[] = {
        {.remove = "transformer.1.self_attn.k_proj.bias", .names = "transformer.1.self_attn.k_proj.bias"},
        {.reshape = "head.proj_s2.weight", .names = "head.proj_s2.weight"},
        {.reshape = "embedding.emb_s1.weight", .names = "embedding.emb_s1.weight"},
        {.add = "adapter.weight", .names = "adapter.weight"},
        {.from = "\"learn_te\": true", .to = "\"learn_te\": false", .names = "time_emb.minute_embed.emb.weight"},
        {.from = "\"n_heads\": 2", .to = "\"n_heads\": 3", .names = "n_heads"},
        {.from = "\"s1_bits\": 6", .to = "\"s1_bits\": 13", .names = "s1_bits"},
        {.from = "\"d_model\": 64", .to = "\"d_model\": 32", .names = "embedding"},
        {.tokenizer = true, .remove = "encoder.0.norm1.weight", .names = "encoder.0.norm1.weight"},
        {.tokenizer = true, .reshape = "quant_embed.bias", .names = "quant_embed.bias"},
        {.tokenizer = true, .add = "adapter.weight", .names = "adapter.weight"},
        {.tokenizer = true, .from = "\"d_in\": 6", .to = "\"d_in\": 5", .names = "\"d_in\": is 5, expected 6"},
        {.tokenizer = true, .from = "\"s2_bits\": 6", .to = "\"s2_bits\": 7", .names = "\"s2_bits\": is 7, expected 6"},
        {.tokenizer = true, .from = "n_dec_layers", .to = "n_decoder_layers", .names = "n_dec_layers"},
    };
    char copy[80], copy_tokenizer[96];

    (void)state;
    snprintf(copy, sizeof copy, "%s/damaged", root);
    snprintf(copy_tokenizer, sizeof copy_tokenizer, "%s/tokenizer", copy);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        copy_checkpoint(dir, copy, damages[i].tokenizer ? NULL : &damages[i]);
        copy_checkpoint(tokenizer, copy_tokenizer, damages[i].tokenizer ? &damages[i] : NULL);
        assert_int_equal(load(copy), MODEL_ERR_CHECKPOINT);
        if (strstr(error_text(), damages[i].names) == NULL)
            fail_msg("\"%s\" does not name \"%s\"", error_text(), damages[i].names);
    }
}

static void the_tokenizer_may_lie_beside_the_model_under_its_published_name(void **state)
{
    char copy[80], beside[96];

    (void)state;
    snprintf(copy, sizeof copy, "%s/Kronos-mini", root);
    copy_checkpoint(dir, copy, NULL);
    assert_int_equal(load(copy), MODEL_ERR_CHECKPOINT);
    assert_non_null(strstr(error_text(), "no tokenizer: expected"));
    assert_non_null(strstr(error_text(), "Kronos-Tokenizer-2k"));
    snprintf(beside, sizeof beside, "%s/Kronos-Tokenizer-2k", root);
    copy_checkpoint(tokenizer, beside, NULL);
    assert_int_equal(load(copy), MODEL_OK);
    snprintf(copy, sizeof copy, "%s/Kronos-small", root);
    copy_checkpoint(dir, copy, NULL);
    assert_int_equal(load(copy), MODEL_ERR_CHECKPOINT);
    assert_non_null(strstr(error_text(), "Kronos-Tokenizer-base"));
}

static void the_revision_speaks_for_the_tokenizer_too(void **state)
{
    static const damage_t harmless = {.from = "\"beta\": 0.05", .to = "\"beta\": 0.06"};
    char copy[80], copy_tokenizer[96], revision[3][17];
    model_t *loaded;

    (void)state;
    snprintf(copy, sizeof copy, "%s/revision", root);
    snprintf(copy_tokenizer, sizeof copy_tokenizer, "%s/tokenizer", copy);
    copy_checkpoint(dir, copy, NULL);
    for (int i = 0; i < 3; i++) {
        copy_checkpoint(tokenizer, copy_tokenizer, i == 1 ? &harmless : NULL);
        assert_int_equal(model_load(backend, copy, BACKEND_F32, &loaded, revision[i]), MODEL_OK);
        assert_int_equal(strlen(revision[i]), 16);
        model_unload(loaded);
    }
    assert_string_not_equal(revision[0], revision[1]);
    assert_string_equal(revision[0], revision[2]);
}

static void info_tells_what_it_takes_and_gives(void **state)
{
    model_info_t info;

    (void)state;
    model_info(model, &info);
    assert_string_equal(info.family, "kronos");
    assert_true(info.samples && info.calendar && info.whole_bars && !info.exogenous && info.parameters > 0 &&
                info.weight_bytes > 0);
}

static void created_checkpoints_have_the_published_sizes(void **state)
{
    char path[80], revision[17];
    model_info_t info;
    model_t *mini;

    (void)state;
    assert_int_equal(kronos_create("large", 1, root), MODEL_ERR_SHAPE);
    assert_non_null(strstr(error_text(), "expected tiny, mini, small or base"));
    snprintf(path, sizeof path, "%s/mini", root);
    assert_int_equal(kronos_create("mini", 1, path), MODEL_OK);
    assert_int_equal(model_load(backend, path, BACKEND_F32, &mini, revision), MODEL_OK);
    model_info(mini, &info);
    /* Kronos-mini and Kronos-Tokenizer-2k; of the latter, 10 · 256 + 256 are for training only, and are not loaded */
    assert_int_equal(info.parameters, 4108032 + 3958042 - 2816);
    model_unload(mini);
}

/* ---- sessions -------------------------------------------------------------------------------------------------------------------- */

static model_shape_t shape_of(uint32_t batch, uint32_t context, uint32_t samples)
{
    return (model_shape_t){.batch = batch,
                           .variates = FIELDS,
                           .context = context,
                           .horizon = HORIZON,
                           .samples = samples,
                           .quantile_count = samples > 0 ? LEVELS : 0,
                           .quantiles = {0.05f, 0.25f, 0.5f, 0.75f, 0.95f},
                           .options = {.window = 64}};
}

static session_t *open_session(const model_shape_t *shape)
{
    session_t *session;

    if (session_open(model, shape, false, &session) < 0)
        fail_msg("%s", error_text());
    return session;
}

/* A series of bars that walks around 100, its newest at the end; each `which` is another series. */
static void fill_series(session_t *session, uint32_t row, uint32_t which, uint32_t length)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input = session_input(session);
    int64_t context = shape->context, times = context + shape->horizon;

    input->length[row] = length;
    input->key[row] = 1000 + which;
    for (int64_t t = 0; t < context; t++)
        for (int64_t f = 0; f < FIELDS; f++) {
            int64_t age = context - 1 - t, at = (row * FIELDS + f) * context + t;
            float price = 100 + 3 * sinf(0.13f * (float)age + (float)which) + 0.3f * cosf(1.9f * (float)age);
            float value = f == VOLUME ? 5000 + 2000 * cosf(0.7f * (float)age) : f == AMOUNT ? price * 5000 : price;

            input->mask[at] = age < length;
            input->values[at] = age < length ? value + (f == 1 ? 0.2f : f == 2 ? -0.2f : 0) : 0;
        }
    for (int64_t t = 0; t < times; t++)
        input->time_ns[row * times + t] = INT64_C(1700000000000000000) + (t - context) * INT64_C(300000000000);
}

static void run_session(session_t *session, uint32_t count)
{
    if (session_run(session, count) < 0)
        fail_msg("%s", error_text());
}

static void impossible_shapes_are_refused(void **state)
{
    model_shape_t shape = shape_of(1, CONTEXT, 4);
    session_t *session;

    (void)state;
    shape.variates = 5;
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_ERR_SHAPE);
    assert_non_null(strstr(error_text(), "open, high, low, close, volume, amount"));
    shape.variates = FIELDS;
    shape.exogenous = 1;
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_ERR_SHAPE);
    shape.exogenous = 0;
    shape.horizon = 64;
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_ERR_SHAPE);
    assert_non_null(strstr(error_text(), "less than the window of 64 tokens"));
    shape.horizon = HORIZON;
    shape.precision = BACKEND_BF16;
    assert_int_equal(session_open(model, &shape, false, &session), SESSION_ERR_SHAPE);
}

static void forecasts_continue_the_series_within_bounds_and_quantiles_never_cross(void **state)
{
    model_shape_t shape = shape_of(2, CONTEXT, PATHS);
    session_t *session = open_session(&shape);
    const model_output_t *output = session_output(session);
    const model_input_t *input = session_input(session);

    (void)state;
    fill_series(session, 0, 0, CONTEXT);
    fill_series(session, 1, 1, CONTEXT);
    run_session(session, 2);
    for (int64_t row = 0; row < 2 * FIELDS; row++) {
        const float *values = input->values + row * CONTEXT, *quantiles = output->quantiles + row * LEVELS * HORIZON;
        double sum = 0, squares = 0, deviation;

        for (int t = 0; t < CONTEXT; t++) {
            sum += (double)values[t];
            squares += (double)values[t] * (double)values[t];
        }
        deviation = sqrt(squares / CONTEXT - sum / CONTEXT * sum / CONTEXT);
        if (row % FIELDS < VOLUME)
            assert_true(fabs((double)quantiles[2 * HORIZON] - (double)values[CONTEXT - 1]) < 1.0 * deviation);
        for (int h = 0; h < HORIZON; h++) {
            double mean = (double)output->mean[row * HORIZON + h];

            for (int q = 1; q < LEVELS; q++)
                assert_true(quantiles[q * HORIZON + h] >= quantiles[(q - 1) * HORIZON + h]);
            assert_true(fabs(mean - sum / CONTEXT) < 6 * deviation);
        }
        assert_true(quantiles[4 * HORIZON + HORIZON - 1] > quantiles[HORIZON - 1]); /* paths differ */
    }
    session_close(session);
}

static void equal_inputs_give_equal_bytes(void **state)
{
    enum { COUNT = PATHS * FIELDS * HORIZON };
    model_shape_t shape = shape_of(1, CONTEXT, PATHS);
    session_t *session = open_session(&shape);
    float first[COUNT];

    (void)state;
    assert_int_equal(session_output(session)->sample_stride, HORIZON);
    fill_series(session, 0, 3, CONTEXT);
    run_session(session, 1);
    memcpy(first, session_output(session)->samples, sizeof first);
    fill_series(session, 0, 4, 17); /* another one in between */
    run_session(session, 1);
    assert_memory_not_equal(first, session_output(session)->samples, sizeof first);
    fill_series(session, 0, 3, CONTEXT);
    run_session(session, 1);
    assert_memory_equal(first, session_output(session)->samples, sizeof first);
    session_close(session);
}

/* Paths of one series from two sessions: equal up to rounding. */
static void expect_same_paths(const session_t *a, uint32_t row_a, const session_t *b, uint32_t row_b, uint32_t paths)
{
    int64_t count = (int64_t)paths * FIELDS * HORIZON;

    for (int64_t i = 0; i < count; i++) {
        double x = (double)session_output(a)->samples[row_a * count + i], y = (double)session_output(b)->samples[row_b * count + i];
        if (!(fabs(x - y) <= 1e-4 * fmax(fabs(x), 1)))
            fail_msg("value %lld is %.9g and %.9g", (long long)i, x, y);
    }
}

static void a_forecast_depends_on_no_batch_mate_and_no_padding(void **state)
{
    model_shape_t alone_shape = shape_of(1, 23, PATHS), shape = shape_of(3, CONTEXT, PATHS);
    session_t *alone = open_session(&alone_shape), *session = open_session(&shape);

    (void)state;
    fill_series(alone, 0, 7, 23);
    run_session(alone, 1);
    fill_series(session, 0, 1, CONTEXT);
    fill_series(session, 1, 7, 23);
    fill_series(session, 2, 2, 1);
    run_session(session, 3);
    expect_same_paths(alone, 0, session, 1, PATHS);
    session_close(alone);
    session_close(session);
}

/* A session of context 64 in a window of 64 recomputes every step; for a short series the window holds all of it, as it does where the cache is
 * used. Three horizons: all steps cached, the last ones recomputed, all but the first. */
static void recomputing_the_window_gives_what_the_cache_gives(void **state)
{
    static const uint32_t contexts[] = {60, 64, 90};
    model_shape_t cached_shape = shape_of(1, CONTEXT, 5);
    session_t *cached = open_session(&cached_shape);

    (void)state;
    fill_series(cached, 0, 5, CONTEXT);
    run_session(cached, 1);
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        model_shape_t shape = shape_of(2, contexts[i], 5);
        session_t *rolled = open_session(&shape);

        fill_series(rolled, 0, 5, CONTEXT);
        fill_series(rolled, 1, 6, contexts[i]);
        run_session(rolled, 2);
        expect_same_paths(cached, 0, rolled, 0, 5);
        session_close(rolled);
    }
    session_close(cached);
}

static void greedy_paths_are_all_the_same_and_temperature_spreads_them(void **state)
{
    model_shape_t shape = shape_of(1, CONTEXT, PATHS);
    double spread[2];

    (void)state;
    for (int hot = 0; hot < 2; hot++) {
        session_t *session;

        shape.options.top_k = hot ? 0 : 1;
        shape.options.temperature = hot ? 3 : 0;
        session = open_session(&shape);
        fill_series(session, 0, 2, CONTEXT);
        run_session(session, 1);
        spread[hot] = (double)(session_output(session)->quantiles[(CLOSE * LEVELS + 4) * HORIZON + HORIZON - 1] -
                               session_output(session)->quantiles[CLOSE * LEVELS * HORIZON + HORIZON - 1]);
        session_close(session);
    }
    assert_true(spread[0] == 0);
    assert_true(spread[1] > 0);
}

static void without_samples_the_mean_is_one_path(void **state)
{
    model_shape_t shape = shape_of(1, CONTEXT, 0), one_shape = shape_of(1, CONTEXT, 1);
    session_t *session = open_session(&shape), *one = open_session(&one_shape);

    (void)state;
    assert_null(session_output(session)->samples);
    assert_null(session_output(session)->quantiles);
    fill_series(session, 0, 2, CONTEXT);
    fill_series(one, 0, 2, CONTEXT);
    run_session(session, 1);
    run_session(one, 1);
    assert_memory_equal(session_output(session)->mean, session_output(one)->samples, FIELDS * HORIZON * sizeof(float));
    session_close(session);
    session_close(one);
}

static void cost_grows_with_steps_paths_and_a_rolling_window(void **state)
{
    model_shape_t shape = shape_of(1, CONTEXT, 1), paths = shape_of(1, CONTEXT, 8), rolled = shape_of(1, CONTEXT, 1);
    model_cost_t base, more, rolling;

    (void)state;
    rolled.options.window = CONTEXT;
    model_family(model)->cost(model, &shape, &base);
    model_family(model)->cost(model, &paths, &more);
    model_family(model)->cost(model, &rolled, &rolling);
    assert_true(base.weight_bytes > 0 && base.cache_bytes > 0 && base.flops > 0 && base.io_bytes > 0);
    assert_true(more.flops > base.flops && more.flops < 8 * base.flops);
    assert_true(more.weight_bytes == base.weight_bytes && more.cache_bytes > base.cache_bytes);
    assert_true(rolling.flops > 3 * base.flops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_checkpoints_are_refused_by_name),
        cmocka_unit_test(the_revision_speaks_for_the_tokenizer_too),
        cmocka_unit_test(the_tokenizer_may_lie_beside_the_model_under_its_published_name),
        cmocka_unit_test(info_tells_what_it_takes_and_gives),
        cmocka_unit_test(created_checkpoints_have_the_published_sizes),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(forecasts_continue_the_series_within_bounds_and_quantiles_never_cross),
        cmocka_unit_test(equal_inputs_give_equal_bytes),
        cmocka_unit_test(a_forecast_depends_on_no_batch_mate_and_no_padding),
        cmocka_unit_test(recomputing_the_window_gives_what_the_cache_gives),
        cmocka_unit_test(greedy_paths_are_all_the_same_and_temperature_spreads_them),
        cmocka_unit_test(without_samples_the_mean_is_one_path),
        cmocka_unit_test(cost_grows_with_steps_paths_and_a_rolling_window),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
