/* Toto 1.0's cases: series [B,V,T], padding_mask [B,V,T], id_mask [B,V], perhaps future_exogenous [B,E,H]; result forecast_mean [B,V,H]; perhaps
 * exact quantiles of the first patch, which a session without samples has to give, and against which the sampler is checked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/verify/verify_impl.h"

static const verify_exception_t exceptions[] = {
    {"forecast_mean_nokv", "not compared: without a KV cache the official result is another one"},
    {"quantile_levels", "used by the checks of quantiles and sampling"},
    {"next_patch_quantiles_200k", "not compared: itself a sample"},
    {NULL, NULL},
};

static int toto1_shape(const verify_case_t *run, model_shape_t *out)
{
    const checkpoint_tensor_t *series = checkpoint_find(run->inputs, "series"),
                              *future = checkpoint_find(run->inputs, "future_exogenous");
    const checkpoint_tensor_t *mean = checkpoint_find(run->expected, "forecast_mean");

    if (series == NULL || series->rank != 3 || mean == NULL || mean->rank != 3)
        return error_set(-1, "a case needs inputs series and expected forecast_mean, both of rank 3");
    *out = (model_shape_t){.batch = (uint32_t)series->dim[0],
                           .variates = (uint32_t)series->dim[1],
                           .context = (uint32_t)series->dim[2],
                           .horizon = (uint32_t)mean->dim[2],
                           .exogenous = future != NULL ? (uint32_t)future->dim[1] : 0};
    return 0;
}

static void fill_variate(const model_shape_t *shape, int64_t row, int64_t bars, const float *series, const float *mask, float id,
                         model_input_t *input)
{
    int64_t at = row * shape->context, before = shape->context - bars;

    memset(input->values + at, 0, (size_t)shape->context * sizeof *input->values);
    memset(input->mask + at, 0, shape->context);
    for (int64_t t = 0; t < bars; t++) {
        input->values[at + before + t] = series[row * bars + t];
        input->mask[at + before + t] = mask[row * bars + t] != 0;
    }
    input->group[row] = (int32_t)id;
    input->log_price[row] = 0;
}

static int fill_future(const verify_case_t *run, model_input_t *input)
{
    int64_t dim[3];
    float *future;

    if (run->shape.exogenous == 0)
        return 0;
    if ((future = verify_input(run, "future_exogenous", 3, dim)) == NULL)
        return -1;
    if (dim[0] == run->shape.batch && dim[1] == run->shape.exogenous && dim[2] == run->shape.horizon)
        memcpy(input->future, future, (size_t)(dim[0] * dim[1] * dim[2]) * sizeof *future);
    free(future);
    return 0;
}

static int toto1_fill(const verify_case_t *run, const session_t *session, model_input_t *input)
{
    const model_shape_t *shape = session_shape(session);
    int64_t dim[3], mask_dim[3], id_dim[2];
    float *series = verify_input(run, "series", 3, dim), *mask = verify_input(run, "padding_mask", 3, mask_dim);
    float *ids = verify_input(run, "id_mask", 2, id_dim);
    int rc = -1;

    if (series == NULL || mask == NULL || ids == NULL)
        goto cleanup;
    if (memcmp(dim, mask_dim, sizeof dim) != 0 || id_dim[0] != dim[0] || id_dim[1] != dim[1]) {
        error_set(-1, "inputs.safetensors: series, padding_mask and id_mask differ in shape");
        goto cleanup;
    }
    for (int64_t row = 0; row < dim[0] * dim[1]; row++)
        fill_variate(shape, row, dim[2], series, mask, ids[row], input);
    for (int64_t i = 0; i < dim[0]; i++) {
        input->length[i] = (uint32_t)dim[2];
        input->key[i] = (uint64_t)i;
    }
    rc = fill_future(run, input);
cleanup:
    free(series);
    free(mask);
    free(ids);
    return rc;
}

/* The quantiles that a session without samples gives for the first patch, in the order of `exact`: [levels][rows][positions]. */
static int first_patch_quantiles(const verify_case_t *run, const verify_tensor_t *levels, const verify_tensor_t *exact, float *to)
{
    int64_t rows = (int64_t)run->shape.batch * run->shape.variates, positions = exact->tensor->dim[3];
    model_shape_t shape = run->shape;
    session_t *session;
    int rc;

    shape.horizon = (uint32_t)positions;
    shape.precision = run->options->precision;
    shape.quantile_count = (uint32_t)levels->tensor->elements;
    for (uint32_t q = 0; q < shape.quantile_count && q < MODEL_QUANTILES_MOST; q++)
        shape.quantiles[q] = levels->values[q];
    if ((rc = session_open(run->model, &shape, run->options->graphs, &session)) < 0)
        return rc;
    if ((rc = toto1_fill(run, session, session_input(session))) == 0 && (rc = session_run(session, shape.batch)) == 0)
        for (int64_t i = 0; i < shape.quantile_count * rows; i++)
            memcpy(to + i * positions,
                   session_output(session)->quantiles + (i % rows * shape.quantile_count + i / rows) * positions,
                   (size_t)positions * sizeof *to);
    session_close(session);
    return rc;
}

static int check_exact(verify_case_t *run, const double *scale)
{
    const verify_tensor_t *levels = verify_expected(run, "quantile_levels"),
                          *exact = verify_expected(run, "next_patch_quantiles_exact");
    int64_t rows = (int64_t)run->shape.batch * run->shape.variates, count;
    float *values;
    double *scales;
    int rc = -1;

    if (levels == NULL || exact == NULL)
        return 0;
    count = levels->tensor->elements * rows;
    values = malloc((size_t)exact->tensor->elements * sizeof *values);
    scales = malloc((size_t)count * sizeof *scales);
    if (values == NULL || scales == NULL)
        error_set(-1, "out of memory");
    else if (exact->tensor->rank != 4 || exact->tensor->elements != count * exact->tensor->dim[3])
        error_set(-1, "expected.safetensors: %s is not [levels][series][variates][patch]", exact->tensor->name);
    else if ((rc = first_patch_quantiles(run, levels, exact, values)) == 0) {
        for (int64_t i = 0; i < count; i++)
            scales[i] = scale[i % rows];
        verify_forecast(run, exact->tensor->name, values, scales, count / run->shape.batch, exact->tensor->dim[3]);
    }
    free(values);
    free(scales);
    return rc;
}

static int toto1_results(verify_case_t *run, const session_t *session)
{
    double *scale = malloc(run->shape.batch * run->shape.variates * sizeof *scale);
    int rc = scale != NULL ? verify_scales(run, "series", "padding_mask", scale) : error_set(-1, "out of memory");

    if (rc == 0)
        verify_forecast(run, "forecast_mean", session_output(session)->mean, scale, run->shape.variates, run->shape.horizon);
    if (rc == 0)
        rc = check_exact(run, scale);
    free(scale);
    return rc;
}

/* ---- sampling ----------------------------------------------------------------------------------------------------------------- */

/* Of n draws the share below the exact quantile of level q has mean q and standard deviation sqrt(q (1 - q) / n). Over some hundred
 * levels and positions even a perfect sampler reaches 3.5 of these; beyond 5 lies one case in ten thousand. */
enum { SAMPLES = 1024, RUNS = 16 };
static const double SAMPLING_BOUND = 5;

/* Adds to below[level][row][position] how many of the session's draws lie at or under the exact quantile. */
static void count_below(const session_t *session, const float *exact, int64_t levels, int64_t rows, int64_t positions,
                        int64_t *below)
{
    const model_shape_t *shape = session_shape(session);
    const model_output_t *output = session_output(session);

    for (int64_t level = 0; level < levels; level++)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t p = 0; p < positions; p++) {
                int64_t at = (level * rows + row) * positions + p;

                for (int64_t s = 0; s < shape->samples; s++) {
                    int64_t path = (row / shape->variates * shape->samples + s) * shape->variates + row % shape->variates;
                    below[at] += output->samples[path * output->sample_stride + p] <= exact[at];
                }
            }
}

static int draw(verify_case_t *run, session_t *session, const float *exact, int64_t levels, int64_t rows, int64_t positions,
                int64_t *below)
{
    int rc = toto1_fill(run, session, session_input(session));

    for (uint64_t seed = 0; rc == 0 && seed < RUNS; seed++) {
        for (uint32_t i = 0; i < run->shape.batch; i++)
            session_input(session)->key[i] = model_random_key(seed, "sampling", i);
        rc = session_run(session, run->shape.batch);
        count_below(session, exact, levels, rows, positions, below);
    }
    return rc;
}

static void report_sampling(verify_case_t *run, const float *levels, int64_t level_count, int64_t per_level, const int64_t *below)
{
    double draws = (double)SAMPLES * RUNS, worst = 0;

    for (int64_t i = 0; i < level_count * per_level; i++) {
        double q = (double)levels[i / per_level], share = (double)below[i] / draws;
        worst = fmax(worst, fabs(share - q) / sqrt(q * (1 - q) / draws));
    }
    verify_line(run, worst <= SAMPLING_BOUND, "sampling",
                "%.1f standard errors at worst of %lld quantiles, %.0f draws each (bound %.0f)", worst,
                (long long)(level_count * per_level), draws, SAMPLING_BOUND);
}

static int toto1_extra(verify_case_t *run)
{
    const checkpoint_tensor_t *exact = checkpoint_find(run->expected, "next_patch_quantiles_exact");
    const checkpoint_tensor_t *levels = checkpoint_find(run->expected, "quantile_levels");
    model_shape_t shape = run->shape;
    float *exact_values = NULL, *level_values = NULL;
    int64_t *below = NULL;
    session_t *session = NULL;
    int rc = -1;

    if (exact == NULL || levels == NULL || run->options->precision != BACKEND_F32)
        return 0;
    exact_values = malloc((size_t)exact->elements * sizeof *exact_values);
    level_values = malloc((size_t)levels->elements * sizeof *level_values);
    below = calloc((size_t)exact->elements, sizeof *below);
    shape.horizon = (uint32_t)exact->dim[3];
    shape.samples = SAMPLES;
    shape.precision = run->options->precision;
    if (exact_values != NULL && level_values != NULL && below != NULL &&
        checkpoint_read_f32(run->expected, exact->name, exact->rank, exact->dim, exact_values) == 0 &&
        checkpoint_read_f32(run->expected, levels->name, levels->rank, levels->dim, level_values) == 0 &&
        (rc = session_open(run->model, &shape, run->options->graphs, &session)) == 0) {
        rc = draw(run, session, exact_values, levels->elements, exact->dim[1] * exact->dim[2], exact->dim[3], below);
        report_sampling(run, level_values, levels->elements, exact->elements / levels->elements, below);
    }
    session_close(session);
    free(exact_values);
    free(level_values);
    free(below);
    return rc;
}

const verify_family_t verify_toto1 = {
    .model = "toto1",
    .shape = toto1_shape,
    .fill = toto1_fill,
    .results = toto1_results,
    .extra = toto1_extra,
    .exceptions = exceptions,
};
