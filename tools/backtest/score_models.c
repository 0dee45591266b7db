#include "tools/backtest/score_models.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "tools/backtest/progress.h"

/* Where larger batches stop to pay: a GPU is full, a CPU's caches are. */
enum { GPU_BATCH = 512, CPU_BATCH = 32 };

typedef struct {
    backtest_t *backtest;
    const score_models_t *options;
    uint32_t variates, target; /* of the model's rows: one, or a whole bar's fields */
    session_t *session;
} run_t;

static model_shape_t shape_of(const run_t *run, uint32_t batch)
{
    model_shape_t shape = {.batch = batch,
                           .variates = run->variates,
                           .context = run->backtest->plan.context,
                           .horizon = run->backtest->plan.horizon,
                           .samples = run->options->samples,
                           .quantile_count = LEVELS,
                           .precision = run->options->precision,
                           .discard_samples = true};

    memcpy(shape.quantiles, levels, sizeof levels);
    return shape;
}

/* The largest batch that fits, unless one is asked for. */
static int open_session(run_t *run, model_t *model)
{
    const backtest_t *backtest = run->backtest;
    const model_base_t *base = (const model_base_t *)(const void *)model;
    uint32_t most = backend_kind(base->backend) == BACKEND_CUDA ? GPU_BATCH : CPU_BATCH, given = run->options->batch;
    uint32_t batch = given > 0 ? given : most;
    int rc;

    if (batch > backtest->origin_count)
        batch = (uint32_t)backtest->origin_count;
    for (;;) {
        model_shape_t shape = shape_of(run, batch);

        rc = session_open(model, &shape, true, &run->session);
        if (rc != SESSION_ERR_MEMORY || given > 0 || batch == 1)
            break;
        batch = (batch + 1) / 2;
    }
    if (rc < 0)
        return error_add(rc, "batch %u, context %u, horizon %u, samples %u", batch, backtest->plan.context, backtest->plan.horizon,
                         run->options->samples);
    if (session_output(run->session)->quantiles == NULL) {
        session_close(run->session);
        return error_set(-1, "--samples 0: over %u bars this model's quantiles are those of its samples", backtest->plan.horizon);
    }
    return 0;
}

/* The last `length` places of one row of the session. */
static void fill_row(const double *from, uint32_t length, uint32_t context, float *values, uint8_t *mask)
{
    uint32_t padding = context - length;

    memset(values, 0, padding * sizeof *values);
    memset(mask, 0, padding);
    for (uint32_t t = 0; t < length; t++) {
        mask[padding + t] = isfinite(from[t]);
        values[padding + t] = isfinite(from[t]) ? (float)from[t] : 0.0f;
    }
}

static void fill_times(const series_t *series, size_t at, uint32_t length, uint32_t context, uint32_t horizon, int64_t *time_ns)
{
    for (uint32_t t = 0; t < context + horizon; t++) {
        int64_t after = (int64_t)t - context + 1; /* bars after the newest one */
        bool real = -after < (int64_t)length;

        time_ns[t] = real ? series->time_ns[(int64_t)at + after] : series->time_ns[at] + after * series->interval_ns;
    }
}

/* Origin `origin` as series `place` of the session, which may have rounded its context up. */
static void fill(const run_t *run, uint32_t place, size_t origin)
{
    const model_shape_t *shape = session_shape(run->session);
    model_input_t *input = session_input(run->session);
    const backtest_t *backtest = run->backtest;
    const backtest_origin_t *o = &backtest->origins[origin];
    const series_t *series = &backtest->set.series[o->series];
    uint32_t length = backtest->plan.context, context = shape->context;
    size_t first = o->at + 1 - length;

    for (uint32_t v = 0; v < run->variates; v++) {
        size_t row = (size_t)place * run->variates + v, field = run->variates == 1 ? backtest->set.field : v;

        fill_row(series->fields + field * series->count + first, length, context, input->values + row * context,
                 input->mask + row * context);
        input->group[row] = 0;
        input->log_price[row] = series_field_is_price(field);
    }
    if (input->time_ns != NULL)
        fill_times(series, o->at, length, context, shape->horizon, input->time_ns + (size_t)place * (context + shape->horizon));
    input->length[place] = length;
    input->key[place] = model_random_key(run->options->seed, series->symbol, o->time_ns);
}

static int check_finite(const backtest_t *backtest, size_t origin, const float *quantiles)
{
    for (size_t i = 0; i < (size_t)LEVELS * backtest->plan.horizon; i++)
        if (!isfinite(quantiles[i]))
            return error_set(-1, "%s: a forecast quantile is not finite",
                             backtest->set.series[backtest->origins[origin].series].symbol);
    return 0;
}

static int run_batch(const run_t *run, uint32_t forecaster, size_t first, uint32_t count)
{
    size_t floats = (size_t)LEVELS * run->backtest->plan.horizon;
    int rc;

    for (uint32_t place = 0; place < count; place++)
        fill(run, place, first + place);
    if ((rc = session_run(run->session, count)) < 0)
        return rc;
    for (uint32_t place = 0; place < count; place++) {
        const float *quantiles = session_output(run->session)->quantiles + ((size_t)place * run->variates + run->target) * floats;

        if ((rc = check_finite(run->backtest, first + place, quantiles)) < 0)
            return rc;
        backtest_score(run->backtest, forecaster, first + place, quantiles);
    }
    return 0;
}

int score_models_run(backtest_t *backtest, uint32_t forecaster, model_t *model, const score_models_t *options,
                     score_models_cost_t *cost)
{
    run_t run = {.backtest = backtest, .options = options, .variates = 1};
    model_info_t info;
    progress_t progress;
    int64_t start_ns;
    uint32_t batch, samples;
    int rc;

    model_info(model, &info);
    if (info.whole_bars) {
        run.variates = MODEL_WHOLE_BAR;
        run.target = (uint32_t)backtest->set.field;
    }
    if ((rc = open_session(&run, model)) < 0)
        return rc;
    start_ns = clock_monotonic_ns();
    batch = session_shape(run.session)->batch;
    samples = session_shape(run.session)->samples;
    progress_open(&progress, backtest->names[forecaster], backtest->origin_count);
    for (size_t first = 0; rc == 0 && first < backtest->origin_count; first += batch) {
        size_t left = backtest->origin_count - first;
        uint32_t count = left < batch ? (uint32_t)left : batch;

        rc = run_batch(&run, forecaster, first, count);
        progress_add(&progress, count);
    }
    progress_close(&progress);
    session_close(run.session);
    *cost = (score_models_cost_t){.batch = batch, .samples = samples, .run_ns = clock_monotonic_ns() - start_ns};
    return rc;
}
