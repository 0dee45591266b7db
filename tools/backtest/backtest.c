#include "tools/backtest/backtest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ---- stride ------------------------------------------------------------------------------------------------------------------- */

static size_t common_factor(size_t a, size_t b)
{
    while (b != 0) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static bool meets_every_season(const series_set_t *set, size_t stride)
{
    for (size_t i = 0; i < set->count; i++)
        if (common_factor(stride, set->series[i].season) != 1)
            return false;
    return true;
}

static uint32_t choose_stride(const series_set_t *set, uint32_t horizon)
{
    for (uint32_t stride = horizon; stride < 2 * horizon + 8; stride++)
        if (meets_every_season(set, stride))
            return stride;
    return horizon;
}

/* ---- origins ------------------------------------------------------------------------------------------------------------------ */

/* The newest bar of the k-th origin of a series, counted back from its last one; false when there is none. */
static bool find_origin(const backtest_plan_t *plan, const series_t *series, size_t k, size_t *at)
{
    size_t needed = (size_t)plan->context + plan->horizon + k * plan->stride;

    if (needed > series->count || (plan->origins > 0 && k >= plan->origins))
        return false;
    *at = series->count - 1 - plan->horizon - k * plan->stride;
    return series->time_ns[*at] >= plan->start_ns;
}

static size_t count_origins(const backtest_plan_t *plan, const series_t *series)
{
    size_t count = 0, at;

    while (find_origin(plan, series, count, &at))
        count++;
    return count;
}

/* Takes out the series that have no origin, and says so. */
static void leave_out_short(const backtest_plan_t *plan, series_set_t *set)
{
    size_t kept = 0;

    for (size_t i = 0; i < set->count; i++) {
        series_t *series = &set->series[i];

        if (count_origins(plan, series) > 0) {
            set->series[kept++] = *series;
            continue;
        }
        fprintf(stderr, "backtest: %s is left out: its %zu bars give no origin with %u bars of context and %u to forecast%s\n",
                series->symbol, series->count, plan->context, plan->horizon, plan->start_ns > INT64_MIN ? " after --start" : "");
        free(series->time_ns);
        free(series->fields);
    }
    set->count = kept;
}

static double mean_absolute(const double *values, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += fabs(values[i]);
    return sum / (double)count;
}

static double mean_change(const double *values, size_t count)
{
    double sum = 0;

    for (size_t i = 1; i < count; i++)
        sum += fabs(values[i] - values[i - 1]);
    return sum / (double)(count - 1);
}

static void measure(backtest_t *backtest, size_t origin)
{
    backtest_origin_t *o = &backtest->origins[origin];
    const double *context = backtest_context(backtest, origin), *future = backtest_future(backtest, origin);
    uint32_t count = backtest->plan.context;
    double last = context[count - 1];

    o->size = (score_origin_t){
        .last = last, .level = backtest->set.price ? last : mean_absolute(context, count), .scale = mean_change(context, count)};
    for (uint32_t c = 0; c < backtest->cell_count; c++) {
        score_cell_t cell = backtest->cells[c];

        o->cell_size[c] = (float)mean_absolute(future + cell.first - 1, cell.last - cell.first + 1);
        o->cell_last[c] = (float)future[cell.last - 1];
    }
}

static int plan_origins(backtest_t *backtest)
{
    const series_set_t *set = &backtest->set;
    size_t total = 0;

    if ((backtest->first_origin = calloc(set->count + 1, sizeof *backtest->first_origin)) == NULL)
        return error_set(-1, "out of memory");
    for (size_t s = 0; s < set->count; s++)
        backtest->first_origin[s + 1] = total += count_origins(&backtest->plan, &set->series[s]);
    if (total == 0)
        return error_set(-1, "no series is long enough for one forecast");
    if ((backtest->origins = calloc(total, sizeof *backtest->origins)) == NULL)
        return error_set(-1, "out of memory");
    backtest->origin_count = total;
    for (size_t s = 0; s < set->count; s++)
        for (size_t i = backtest->first_origin[s]; i < backtest->first_origin[s + 1]; i++) {
            backtest_origin_t *origin = &backtest->origins[i];

            origin->series = (uint32_t)s;
            find_origin(&backtest->plan, &set->series[s], backtest->first_origin[s + 1] - 1 - i, &origin->at);
            origin->time_ns = set->series[s].time_ns[origin->at];
            measure(backtest, i);
        }
    return 0;
}

static int compare_times(const void *a, const void *b, void *context)
{
    const backtest_origin_t *origins = context;
    size_t left = *(const size_t *)a, right = *(const size_t *)b;

    if (origins[left].time_ns != origins[right].time_ns)
        return origins[left].time_ns < origins[right].time_ns ? -1 : 1;
    return (left > right) - (left < right);
}

/* ---- groups and examples ------------------------------------------------------------------------------------------------------ */

/* Series are in order of interval. */
static int plan_groups(backtest_t *backtest)
{
    const series_set_t *set = &backtest->set;

    if ((backtest->groups = calloc(set->count, sizeof *backtest->groups)) == NULL)
        return error_set(-1, "out of memory");
    for (size_t s = 0; s < set->count; s++) {
        backtest_group_t *group;

        if (s == 0 || set->series[s].interval_ns != set->series[s - 1].interval_ns)
            backtest->groups[backtest->group_count++] =
                (backtest_group_t){.first_series = s, .first_origin = backtest->first_origin[s]};
        group = &backtest->groups[backtest->group_count - 1];
        group->series_count++;
        group->origin_count = backtest->first_origin[s + 1] - group->first_origin;
    }
    if ((backtest->by_time = malloc(backtest->origin_count * sizeof *backtest->by_time)) == NULL)
        return error_set(-1, "out of memory");
    for (size_t i = 0; i < backtest->origin_count; i++)
        backtest->by_time[i] = i;
    for (size_t g = 0; g < backtest->group_count; g++)
        qsort_r(backtest->by_time + backtest->groups[g].first_origin, backtest->groups[g].origin_count, sizeof *backtest->by_time,
                compare_times, backtest->origins);
    return 0;
}

static int plan_examples(backtest_t *backtest)
{
    size_t floats = (size_t)backtest->forecaster_count * LEVELS * backtest->plan.horizon;

    backtest->examples = calloc(backtest->group_count * BACKTEST_EXAMPLES_MOST, sizeof *backtest->examples);
    if (backtest->examples == NULL)
        return error_set(-1, "out of memory");
    for (size_t g = 0; g < backtest->group_count; g++) {
        const backtest_group_t *group = &backtest->groups[g];
        size_t count = group->origin_count < BACKTEST_EXAMPLES_MOST ? group->origin_count : BACKTEST_EXAMPLES_MOST;

        for (size_t i = 0; i < count; i++) {
            backtest_example_t *example = &backtest->examples[backtest->example_count];
            size_t series =
                group->first_series + (count <= group->series_count ? i * group->series_count / count : i % group->series_count);
            size_t first = backtest->first_origin[series], origins = backtest->first_origin[series + 1] - first;

            example->origin = first + (2 * i + 1) * origins / (2 * count);
            if ((example->quantiles = calloc(floats, sizeof *example->quantiles)) == NULL)
                return error_set(-1, "out of memory");
            backtest->example_count++;
        }
    }
    return 0;
}

/* ---- life --------------------------------------------------------------------------------------------------------------------- */

static int plan_scores(backtest_t *backtest)
{
    backtest->scores =
        calloc((size_t)backtest->forecaster_count * backtest->origin_count * backtest->cell_count, sizeof *backtest->scores);
    backtest->bands =
        calloc((size_t)backtest->forecaster_count * backtest->set.count * backtest->plan.horizon, sizeof *backtest->bands);
    if (backtest->scores == NULL || backtest->bands == NULL)
        return error_set(-1, "no memory for the scores of %zu origins", backtest->origin_count);
    return 0;
}

int backtest_open(const backtest_plan_t *plan, series_set_t *set, const char *const *model_names, uint32_t model_count,
                  backtest_t *out)
{
    backtest_t backtest = {.plan = *plan, .set = *set, .model_count = model_count, .forecaster_count = model_count + BASELINES};

    *set = (series_set_t){0};
    backtest.cell_count = score_cells(plan->horizon, backtest.cells);
    for (uint32_t m = 0; m < model_count; m++)
        backtest.names[m] = model_names[m];
    for (baseline_t b = 0; b < BASELINES; b++)
        backtest.names[model_count + b] = baseline_name(b);
    if (plan->stride == 0)
        backtest.plan.stride = choose_stride(&backtest.set, plan->horizon);
    leave_out_short(&backtest.plan, &backtest.set);
    if (plan_origins(&backtest) < 0 || plan_groups(&backtest) < 0 || plan_examples(&backtest) < 0 || plan_scores(&backtest) < 0) {
        backtest_close(&backtest);
        return -1;
    }
    *out = backtest;
    return 0;
}

void backtest_close(backtest_t *backtest)
{
    for (size_t i = 0; i < backtest->example_count; i++)
        free(backtest->examples[i].quantiles);
    free(backtest->examples);
    free(backtest->bands);
    free(backtest->scores);
    free(backtest->groups);
    free(backtest->by_time);
    free(backtest->origins);
    free(backtest->first_origin);
    series_close(&backtest->set);
    *backtest = (backtest_t){0};
}

/* ---- access ------------------------------------------------------------------------------------------------------------------- */

uint32_t backtest_baseline(const backtest_t *backtest, baseline_t baseline)
{
    return backtest->model_count + (uint32_t)baseline;
}

const double *backtest_context(const backtest_t *backtest, size_t origin)
{
    const backtest_origin_t *o = &backtest->origins[origin];
    return backtest->set.series[o->series].values + o->at + 1 - backtest->plan.context;
}

const double *backtest_future(const backtest_t *backtest, size_t origin)
{
    const backtest_origin_t *o = &backtest->origins[origin];
    return backtest->set.series[o->series].values + o->at + 1;
}

static score_t *scores_at(const backtest_t *backtest, uint32_t forecaster, size_t origin)
{
    return backtest->scores + ((size_t)forecaster * backtest->origin_count + origin) * backtest->cell_count;
}

static score_band_t *bands_of(const backtest_t *backtest, uint32_t forecaster, size_t series)
{
    return backtest->bands + ((size_t)forecaster * backtest->set.count + series) * backtest->plan.horizon;
}

void backtest_score(backtest_t *backtest, uint32_t forecaster, size_t origin, const float *quantiles)
{
    const backtest_origin_t *o = &backtest->origins[origin];
    uint32_t horizon = backtest->plan.horizon;
    size_t floats = (size_t)LEVELS * horizon;

    score_forecast(&o->size, quantiles, backtest_future(backtest, origin), horizon, backtest->cells, backtest->cell_count,
                   scores_at(backtest, forecaster, origin), bands_of(backtest, forecaster, o->series));
    for (size_t i = 0; i < backtest->example_count; i++)
        if (backtest->examples[i].origin == origin)
            memcpy(backtest->examples[i].quantiles + forecaster * floats, quantiles, floats * sizeof *quantiles);
}

const score_t *backtest_scores(const backtest_t *backtest, uint32_t forecaster, size_t origin)
{
    return scores_at(backtest, forecaster, origin);
}

const score_band_t *backtest_bands(const backtest_t *backtest, uint32_t forecaster, size_t series)
{
    return bands_of(backtest, forecaster, series);
}

uint32_t backtest_single_cells(const backtest_t *backtest)
{
    return backtest->cell_count > 1 ? backtest->cell_count - 1 : 1;
}

void backtest_cell_text(score_cell_t cell, char out[static BACKTEST_CELL_BYTES])
{
    if (cell.first == cell.last)
        snprintf(out, BACKTEST_CELL_BYTES, "%u", cell.first);
    else
        snprintf(out, BACKTEST_CELL_BYTES, "%u-%u", cell.first, cell.last);
}
