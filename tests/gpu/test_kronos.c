/* Whole forecasts of a tiny Kronos on the GPU, beside the CPU's: by the cache, with a rolling window, of short series, greedy and drawn. */
#include "tests/gpu/pair.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "gpuworker/model/families.h"

enum { FIELDS = 6, HIGH = 1, LOW = 2, VOLUME = 4, AMOUNT = 5 };

/* Walks of whole bars; the last series is short, its amounts are missing. */
static void fill(const model_shape_t *shape, model_input_t *input)
{
    int64_t context = shape->context, times = context + shape->horizon;

    for (int64_t series = 0; series < shape->batch; series++) {
        int64_t length = series > 0 && series + 1 == shape->batch ? context / 3 : context;
        double level = 100;

        input->length[series] = (uint32_t)length;
        input->key[series] = (uint64_t)series + 7;
        for (int64_t t = 0; t < times; t++)
            input->time_ns[series * times + t] = INT64_C(1700000000000000000) + t * INT64_C(300000000000);
        for (int64_t t = 0; t < context; t++) {
            level += random_normal();
            for (int64_t f = 0; f < FIELDS; f++) {
                int64_t at = (series * FIELDS + f) * context + t;
                double volume = 1000 + 300 * random_normal();

                input->mask[at] = t >= context - length && !(f == AMOUNT && length < context);
                input->values[at] = (float)(f == VOLUME   ? volume
                                            : f == AMOUNT ? volume * level
                                                          : level + (f == HIGH  ? 0.5
                                                                     : f == LOW ? -0.5
                                                                                : 0));
                input->values[at] = input->mask[at] ? input->values[at] : 0;
            }
        }
    }
}

static session_t *forecast(model_t *model, const model_shape_t *shape)
{
    session_t *session;

    if (session_open(model, shape, true, &session) < 0)
        fail_msg("%s", error_text());
    pair_test_begin(NULL); /* the same random numbers on both sides */
    fill(session_shape(session), session_input(session));
    if (session_run(session, shape->batch) < 0)
        fail_msg("%s", error_text());
    return session;
}

/* Where u falls within a rounding of a token's edge, a path takes another turn: so many values may be off, and none far from the series. In BF16
 * the logits are rounded, and more paths turn. */
static void check_forecast(model_t *models[SIDES], model_shape_t shape, double share)
{
    int64_t count = (int64_t)shape.batch * shape.samples * FIELDS * shape.horizon, off = 0;
    session_t *session[SIDES];

    EACH_SIDE(side)
    {
        model_shape_t own = shape;
        if (side == ON_CPU)
            own.precision = BACKEND_F32;
        session[side] = forecast(models[side], &own);
    }
    for (int64_t i = 0; i < count; i++) {
        double cpu = (double)session_output(session[ON_CPU])->samples[i], gpu = (double)session_output(session[ON_GPU])->samples[i];
        double tolerance = shape.precision == BACKEND_BF16 ? 0.02 : 1e-4;

        assert_true(isfinite(gpu));
        off += fabs(gpu - cpu) > tolerance * fmax(fabs(cpu), 1);
    }
    if ((double)off > share * (double)count)
        fail_msg("%lld of %lld values are off", (long long)off, (long long)count);
    EACH_SIDE(side) session_close(session[side]);
}

static void check_precision(const char *directory, backend_dtype_t precision, double greedy_share, double drawn_share)
{
    static const model_shape_t shapes[] = {
        {.batch = 1, .context = 64, .horizon = 16, .samples = 1, .options = {.window = 128, .top_k = 1}},
        {.batch = 5, .context = 100, .horizon = 20, .samples = 3, .options = {.window = 512, .top_k = 1}},
        {.batch = 3, .context = 60, .horizon = 12, .samples = 4, .options = {.window = 64, .top_k = 1}},
        {.batch = 2, .context = 150, .horizon = 9, .samples = 2, .options = {.window = 64, .top_k = 1}},
        {.batch = 4, .context = 90, .horizon = 16, .samples = 32, .options = {.window = 100}},
        {.batch = 2, .context = 90, .horizon = 16, .samples = 32, .options = {.window = 512, .top_k = 3, .temperature = 1.5f}},
    };
    model_t *models[SIDES];
    char revision[17];

    EACH_SIDE(side)
    {
        if (model_load(pair_backend[side], directory, side == ON_CPU ? BACKEND_F32 : precision, &models[side], revision) < 0)
            fail_msg("%s", error_text());
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (pair_is_emulated() && shapes[i].batch * shapes[i].samples > 4) /* minutes each */
            continue;
        model_shape_t shape = shapes[i];

        shape.variates = FIELDS;
        shape.precision = precision;
        shape.quantile_count = 1;
        shape.quantiles[0] = 0.5f;
        check_forecast(models, shape, shape.options.top_k == 1 ? greedy_share : drawn_share);
    }
    EACH_SIDE(side) model_unload(models[side]);
}

static void whole_forecasts_match_the_cpu(void **state)
{
    static const char *const files[] = {"tokenizer/config.json", "tokenizer/model.safetensors", "config.json", "model.safetensors"};
    char directory[] = "/tmp/barcast-gpu-kronos-XXXXXX", path[64];

    (void)state;
    assert_non_null(mkdtemp(directory));
    assert_int_equal(kronos_create("tiny", 3, directory), MODEL_OK);
    check_precision(directory, BACKEND_F32, 0, 0.02);
    check_precision(directory, BACKEND_BF16, 0.05, 0.25);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, files[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/tokenizer", directory);
    rmdir(path);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {pair_test(whole_forecasts_match_the_cpu)};

    if (pair_no_gpu())
        return PAIR_SKIPPED;
    return cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
