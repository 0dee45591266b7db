/* Kronos's cases: ohlcva [B,T,6], x_timestamp_seconds [B,T], y_timestamp_seconds [B,H]; result prediction [B,H,6], the mean over sample_count
 * paths. Greedy cases fix every token; a sampled one gives the filtered probabilities of the first step, against which draws are checked.
 * Expected rows are (series, path), the path fastest; the session computes once a series what the paths share. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "tools/verify/verify_impl.h"

enum { FIELDS = 6, TIMES = 5, AMOUNT = 5 };

static const verify_exception_t exceptions[] = {
    {"generated_normalized", "not compared: `prediction` before it is put back in the series' units"},
    {"laststep.window_s1", "not compared: context tokens and steps.s1_ids are"},
    {"laststep.window_s2", "not compared: context tokens and steps.s2_ids are"},
    {"laststep.window_stamp", "not compared: x_stamp and y_stamp are"},
    {"step0.s1_filtered_probs", "used by the sampling check"},
    {"step0.s1_argmax", "used by the sampling check"},
    {"step0.s2_logits_given_s1_argmax", "used by the sampling check"},
    {"step0.s2_filtered_probs_given_s1_argmax", "used by the sampling check"},
    {"sampled_example.prediction", "not compared: itself a sample"},
    {"sampled_example.s1_ids", "not compared: itself a sample"},
    {"sampled_example.s2_ids", "not compared: itself a sample"},
    {NULL, NULL},
};

static int kronos_shape(const verify_case_t *run, model_shape_t *out)
{
    const checkpoint_tensor_t *bars = checkpoint_find(run->inputs, "ohlcva");
    const checkpoint_tensor_t *future = checkpoint_find(run->inputs, "y_timestamp_seconds");

    if (bars == NULL || bars->rank != 3 || bars->dim[2] != FIELDS || future == NULL || future->rank != 2)
        return error_set(-1, "a case needs inputs ohlcva [B,T,6] and y_timestamp_seconds [B,H]");
    *out = (model_shape_t){.batch = (uint32_t)bars->dim[0],
                           .variates = FIELDS,
                           .context = (uint32_t)bars->dim[1],
                           .horizon = (uint32_t)future->dim[1],
                           .samples = (uint32_t)verify_number(run, "sample_count", 1),
                           .options = {.temperature = (float)verify_number(run, "T", 1),
                                       .top_k = (uint32_t)verify_number(run, "top_k", 0),
                                       .top_p = (float)verify_number(run, "top_p", 0.9),
                                       .window = (uint32_t)verify_number(run, "max_context", 512)}};
    return 0;
}

/* ---- inputs --------------------------------------------------------------------------------------------------------------------- */

static int fill_times(const verify_case_t *run, const model_shape_t *shape, const char *name, int64_t count, int64_t from,
                      model_input_t *input)
{
    int64_t times = shape->context + shape->horizon, dim[2] = {run->shape.batch, count};
    int64_t *seconds = malloc((size_t)(dim[0] * dim[1]) * sizeof *seconds);
    int rc = seconds == NULL ? error_set(-1, "out of memory") : checkpoint_read_i64(run->inputs, name, 2, dim, seconds);

    for (int64_t i = 0; rc == 0 && i < dim[0] * dim[1]; i++)
        input->time_ns[i / count * times + from + i % count] = seconds[i] * CLOCK_NS_PER_S;
    free(seconds);
    return rc;
}

static int kronos_fill(const verify_case_t *run, const session_t *session, model_input_t *input)
{
    const model_shape_t *shape = session_shape(session);
    int64_t dim[3], context = shape->context, bars = run->shape.context;
    bool no_amount = verify_number(run, "amount_column_missing", 0) != 0;
    float *values = verify_input(run, "ohlcva", 3, dim);
    int rc;

    if (values == NULL)
        return -1;
    for (int64_t row = 0; row < dim[0] * FIELDS; row++) {
        int64_t at = row * context, field = row % FIELDS;

        memset(input->values + at, 0, (size_t)context * sizeof *input->values);
        memset(input->mask + at, 0, (size_t)context);
        for (int64_t t = 0; t < bars && !(no_amount && field == AMOUNT); t++) {
            input->values[at + context - bars + t] = values[(row / FIELDS * bars + t) * FIELDS + field];
            input->mask[at + context - bars + t] = 1;
        }
    }
    for (int64_t i = 0; i < dim[0]; i++) {
        input->length[i] = (uint32_t)bars;
        input->key[i] = (uint64_t)i;
    }
    rc = fill_times(run, shape, "x_timestamp_seconds", bars, context - bars, input);
    if (rc == 0)
        rc = fill_times(run, shape, "y_timestamp_seconds", shape->horizon, context, input);
    free(values);
    return rc;
}

/* ---- taps ------------------------------------------------------------------------------------------------------------------------- */

static int64_t elements_of(int rank, const int64_t *dim)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= dim[i];
    return count;
}

/* One value a path and step: expected [rows, H, ..], and of step 0 perhaps again as step0.NAME [rows, ..]. */
static void compare_step(verify_case_t *run, const char *name, int step, const float *values, int64_t width)
{
    verify_tensor_t *tensor = verify_expected(run, name), *first;
    int64_t rows = (int64_t)run->shape.batch * run->shape.samples;
    char first_name[64];

    snprintf(first_name, sizeof first_name, "step0.%s", name + strlen("steps."));
    first = step == 0 ? verify_expected(run, first_name) : NULL;
    for (int64_t row = 0; row < rows; row++) {
        if (tensor != NULL)
            verify_compare(run, tensor, (row * run->shape.horizon + step) * width, values + row * width, width);
        if (first != NULL)
            verify_compare(run, first, row * width, values + row * width, width);
    }
}

/* The decoder's tokens, in one part (step 1), or in two: the context's, once a series (step 0), and the generated ones. */
static void compare_decoded(verify_case_t *run, verify_tensor_t *tensor, int step, const float *values, int64_t given,
                            int64_t width)
{
    int64_t rows = (int64_t)run->shape.batch * run->shape.samples, wanted = tensor->tensor->dim[1], horizon = run->shape.horizon;
    int64_t end = step == 0 ? wanted - horizon : wanted, count = given / width < end ? given / width : end;

    for (int64_t row = 0; row < rows; row++) {
        int64_t from = step == 0 ? row / run->shape.samples : row;

        verify_compare(run, tensor, (row * wanted + end - count) * width, values + from * given + given - count * width,
                       count * width);
    }
}

/* Our calendar is [B][5][context + horizon], the expected one [B,T,5] and [B,H,5]. */
static void compare_stamps(verify_case_t *run, const float *values, int64_t times)
{
    verify_tensor_t *past = verify_expected(run, "x_stamp"), *future = verify_expected(run, "y_stamp");
    int64_t bars = run->shape.context, horizon = run->shape.horizon;

    if (past == NULL || future == NULL)
        return;
    for (int64_t i = 0; i < run->shape.batch * TIMES; i++)
        for (int64_t t = 0; t < bars + horizon; t++) {
            const float *value = values + i * times + times - horizon - bars + t;

            if (t < bars)
                verify_compare(run, past, (i / TIMES * bars + t) * TIMES + i % TIMES, value, 1);
            else
                verify_compare(run, future, (i / TIMES * horizon + t - bars) * TIMES + i % TIMES, value, 1);
        }
}

static void kronos_tap(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim)
{
    verify_case_t *run = context;
    verify_tensor_t *tensor = verify_expected(run, name);
    int64_t given = elements_of(rank, dim) / dim[0], wanted, rows;
    bool integers = strstr(name, "_ids") != NULL || strstr(name, "token_") != NULL;

    if (strncmp(name, "steps.", 6) == 0) {
        compare_step(run, name, step, values, given);
        return;
    }
    if (strcmp(name, "stamps") == 0) {
        compare_stamps(run, values, dim[2]);
        return;
    }
    if (tensor == NULL)
        return;
    if (strncmp(name, "decode.", 7) == 0) {
        compare_decoded(run, tensor, step, values, given, integers ? 1 : dim[rank - 1]);
        return;
    }
    rows = tensor->tensor->dim[0];
    wanted = tensor->tensor->elements / rows;
    for (int64_t row = 0; row < rows; row++) {
        bool shared = rows > run->shape.batch && strcmp(name, "step0.dep_layer_last") != 0;
        int64_t from = shared ? row / run->shape.samples : row;

        if (given < wanted) {
            verify_line(run, false, name, "has %lld elements a row, expected %lld", (long long)given, (long long)wanted);
            return;
        }
        verify_compare(run, tensor, row * wanted, values + from * given + given - wanted, wanted);
    }
}

/* ---- results ------------------------------------------------------------------------------------------------------------------------ */

static int kronos_results(verify_case_t *run, const session_t *session)
{
    const float *mean = session_output(session)->mean;
    int64_t batch = run->shape.batch, horizon = run->shape.horizon, count = batch * horizon * FIELDS, dim[2] = {batch, FIELDS};
    double *scale = malloc((size_t)count * sizeof *scale);
    float *deviation = malloc((size_t)(batch * FIELDS) * sizeof *deviation), *values = malloc((size_t)count * sizeof *values);
    int rc = 0;

    if (checkpoint_find(run->expected, "prediction") == NULL)
        goto cleanup;
    if (scale == NULL || deviation == NULL || values == NULL)
        rc = error_set(-1, "out of memory");
    else
        rc = checkpoint_read_f32(run->expected, "norm_std", 2, dim, deviation);
    if (rc < 0)
        goto cleanup;
    for (int64_t i = 0; i < count; i++) {
        int64_t field = i % FIELDS, step = i / FIELDS % horizon, series = i / FIELDS / horizon;

        values[i] = mean[(series * FIELDS + field) * horizon + step];
        scale[i] = deviation[series * FIELDS + field] > 0 ? (double)deviation[series * FIELDS + field] : 1;
    }
    verify_forecast(run, "prediction", values, scale, horizon * FIELDS, 1);
cleanup:
    free(scale);
    free(deviation);
    free(values);
    return rc;
}

/* ---- sampling ----------------------------------------------------------------------------------------------------------------------- */

/* Of n draws the share of a token with probability p has the standard deviation sqrt(p (1 - p) / n); beyond 5 of these lies one in a
 * million. A token that is filtered out never comes. */
enum { PATHS = 1024, RUNS = 16 };
static const double SAMPLING_BOUND = 5, LOGIT_BOUND = 1e-4;

typedef struct {
    int64_t argmax, first_draws, second_draws;
    int64_t *first, *second; /* how often each token came; the second part's with the first part's most probable token */
    float *first_ids;        /* of this run's paths */
    const float *second_logits;
    double worst_logit;
} draws_t;

static void count_draws(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim)
{
    draws_t *draws = context;
    int64_t width = dim[rank - 1];

    if (step != 0)
        return;
    for (int64_t row = 0; row < PATHS; row++) {
        bool chosen = (int64_t)draws->first_ids[row] == draws->argmax;

        if (strcmp(name, "steps.s1_ids") == 0) {
            draws->first_ids[row] = values[row];
            draws->first[(int64_t)values[row]]++;
            draws->first_draws++;
        } else if (strcmp(name, "steps.s2_ids") == 0 && chosen) {
            draws->second[(int64_t)values[row]]++;
            draws->second_draws++;
        } else if (strcmp(name, "steps.s2_logits") == 0 && chosen) {
            for (int64_t i = 0; i < width; i++)
                draws->worst_logit =
                    fmax(draws->worst_logit, fabs((double)values[row * width + i] - (double)draws->second_logits[i]));
        }
    }
}

static double worst_share(const int64_t *count, int64_t draws, const float *probability, int64_t vocabulary)
{
    double worst = 0;

    for (int64_t i = 0; i < vocabulary; i++) {
        double p = (double)probability[i], share = (double)count[i] / (double)draws;

        if (p <= 0 || p >= 1)
            worst = share == p ? worst : INFINITY;
        else
            worst = fmax(worst, fabs(share - p) / sqrt(p * (1 - p) / (double)draws));
    }
    return worst;
}

static int draw(verify_case_t *run, draws_t *draws)
{
    model_shape_t shape = run->shape;
    session_t *session;
    int rc;

    shape.batch = 1;
    shape.samples = PATHS;
    shape.precision = run->options->precision;
    if ((rc = session_open(run->model, &shape, false, &session)) < 0)
        return rc;
    if ((rc = session_set_tap(session, count_draws, draws)) == 0)
        rc = kronos_fill(run, session, session_input(session));
    for (uint64_t seed = 0; rc == 0 && seed < RUNS; seed++) {
        session_input(session)->key[0] = model_random_key(seed, "sampling", 0);
        rc = session_run(session, 1);
    }
    session_close(session);
    return rc;
}

static int kronos_extra(verify_case_t *run)
{
    verify_tensor_t *first = verify_expected(run, "step0.s1_filtered_probs"), *argmax = verify_expected(run, "step0.s1_argmax");
    verify_tensor_t *second = verify_expected(run, "step0.s2_filtered_probs_given_s1_argmax");
    verify_tensor_t *logits = verify_expected(run, "step0.s2_logits_given_s1_argmax");
    draws_t draws;
    double worst;
    int rc;

    if (first == NULL || argmax == NULL || second == NULL || logits == NULL || run->options->precision != BACKEND_F32)
        return 0;
    draws = (draws_t){.argmax = (int64_t)argmax->values[0],
                      .first = calloc((size_t)first->tensor->elements, sizeof *draws.first),
                      .second = calloc((size_t)second->tensor->elements, sizeof *draws.second),
                      .first_ids = calloc(PATHS, sizeof *draws.first_ids),
                      .second_logits = logits->values};
    rc =
        draws.first != NULL && draws.second != NULL && draws.first_ids != NULL ? draw(run, &draws) : error_set(-1, "out of memory");
    if (rc == 0) {
        verify_line(run, draws.worst_logit <= LOGIT_BOUND * logits->rms, "part 2 given part 1", "%.1e",
                    draws.worst_logit / logits->rms);
        worst = fmax(worst_share(draws.first, draws.first_draws, first->values, first->tensor->elements),
                     worst_share(draws.second, draws.second_draws, second->values, second->tensor->elements));
        verify_line(run, worst <= SAMPLING_BOUND, "sampling", "%.1f standard errors at worst of %lld and %lld draws (bound %.0f)",
                    worst, (long long)draws.first_draws, (long long)draws.second_draws, SAMPLING_BOUND);
    }
    free(draws.first);
    free(draws.second);
    free(draws.first_ids);
    return rc;
}

const verify_family_t verify_kronos = {
    .model = "kronos",
    .shape = kronos_shape,
    .fill = kronos_fill,
    .tap = kronos_tap,
    .results = kronos_results,
    .extra = kronos_extra,
    .exceptions = exceptions,
};
