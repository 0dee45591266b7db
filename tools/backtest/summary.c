#include "tools/backtest/summary.h"

#include <math.h>

/* Of a forecast in floats, as a share of the level. */
static const double ROUNDING = 2e-7;

/* ---- figures of a symbol, of a group ------------------------------------------------------------------------------------------ */

static size_t origins_of(const backtest_t *backtest, size_t series)
{
    return backtest->first_origin[series + 1] - backtest->first_origin[series];
}

/* Mean quantile loss at the origins of a series. */
static double mean_loss(const backtest_t *backtest, size_t series, uint32_t forecaster, uint32_t cell)
{
    double sum = 0;

    for (size_t i = backtest->first_origin[series]; i < backtest->first_origin[series + 1]; i++)
        sum += (double)backtest_scores(backtest, forecaster, i)[cell].loss;
    return sum / (double)origins_of(backtest, series);
}

static double quotient(double above, double below)
{
    return below > 0 ? above / below : NAN;
}

static void set_errors(const backtest_t *backtest, size_t series, uint32_t forecaster, uint32_t cell, summary_t *out)
{
    double loss = 0, size = 0, absolute = 0, squared = 0, percent = 0, squared_percent = 0, scaled = 0;
    double n = (double)origins_of(backtest, series);

    for (size_t i = backtest->first_origin[series]; i < backtest->first_origin[series + 1]; i++) {
        const score_t *score = &backtest_scores(backtest, forecaster, i)[cell];
        const backtest_origin_t *origin = &backtest->origins[i];

        loss += (double)score->loss;
        size += (double)origin->cell_size[cell];
        absolute += (double)score->absolute;
        squared += (double)score->squared;
        percent += quotient((double)score->absolute, origin->size.level);
        squared_percent += quotient((double)score->squared, origin->size.level * origin->size.level);
        scaled += quotient((double)score->absolute, origin->size.scale);
    }
    out->wql = quotient(loss, size);
    out->ratio = quotient(loss / n, mean_loss(backtest, series, backtest_baseline(backtest, BASELINE_NAIVE), cell));
    out->mae = absolute / n;
    out->rmse = sqrt(squared / n);
    out->mae_percent = 100 * percent / n;
    out->rmse_percent = 100 * sqrt(squared_percent / n);
    out->mase = scaled / n;
}

static void set_bands(const backtest_t *backtest, size_t series, uint32_t forecaster, score_cell_t cell, summary_t *out)
{
    const score_band_t *bands = backtest_bands(backtest, forecaster, series);
    double values = (double)origins_of(backtest, series) * (cell.last - cell.first + 1);

    for (uint32_t h = cell.first - 1; h < cell.last; h++) {
        out->inside50 += bands[h].inside50 / values;
        out->inside80 += bands[h].inside80 / values;
        out->width50 += 100 * bands[h].width50 / values;
        out->width80 += 100 * bands[h].width80 / values;
    }
}

static void set_direction(const backtest_t *backtest, size_t series, uint32_t forecaster, uint32_t cell, summary_t *out)
{
    size_t right = 0, decided = 0, moved = 0;

    out->direction = out->undecided = NAN;
    if (backtest->cells[cell].first != backtest->cells[cell].last)
        return;
    for (size_t i = backtest->first_origin[series]; i < backtest->first_origin[series + 1]; i++) {
        const score_t *score = &backtest_scores(backtest, forecaster, i)[cell];

        moved += score->came != 0;
        decided += score->came != 0 && score->side != 0;
        right += score->came != 0 && score->side == score->came;
    }
    out->direction = quotient((double)right, (double)decided);
    out->undecided = quotient((double)(moved - decided), (double)moved);
}

summary_t summary_series(const backtest_t *backtest, size_t series, uint32_t forecaster, uint32_t cell)
{
    summary_t out = {0};

    set_errors(backtest, series, forecaster, cell, &out);
    set_bands(backtest, series, forecaster, backtest->cells[cell], &out);
    set_direction(backtest, series, forecaster, cell, &out);
    return out;
}

enum { FIGURES = sizeof(summary_t) / sizeof(double) };

/* Mean of each figure over the symbols that have it. */
summary_t summary_group(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t cell)
{
    union {
        summary_t summary;
        double figure[FIGURES];
    } sum = {.summary = {0}}, one;
    double count[FIGURES] = {0};

    for (size_t s = 0; s < group->series_count; s++) {
        one.summary = summary_series(backtest, group->first_series + s, forecaster, cell);
        for (int f = 0; f < FIGURES; f++)
            if (!isnan(one.figure[f])) {
                sum.figure[f] += one.figure[f];
                count[f]++;
            }
    }
    for (int f = 0; f < FIGURES; f++)
        sum.figure[f] = quotient(sum.figure[f], count[f]);
    sum.summary.mae = sum.summary.rmse = NAN;
    return sum.summary;
}

summary_coverage_t summary_coverage(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t step)
{
    summary_coverage_t out = {0};

    for (size_t s = group->first_series; s < group->first_series + group->series_count; s++) {
        const score_band_t *band = &backtest_bands(backtest, forecaster, s)[step - 1];
        double share = 1 / ((double)origins_of(backtest, s) * (double)group->series_count);

        out.inside50 += band->inside50 * share;
        out.inside80 += band->inside80 * share;
    }
    return out;
}

/* ---- tests -------------------------------------------------------------------------------------------------------------------- */

/* By how many origins two cells may lie apart and still share bars. */
static size_t overlap(const backtest_t *backtest, uint32_t cell)
{
    return (backtest->cells[cell].last + backtest->plan.stride - 1) / backtest->plan.stride - 1;
}

/* Nothing when it is but rounding: else a model that is a baseline by another name would be tested against its last digits. */
static double difference(const backtest_t *backtest, size_t origin, uint32_t a, uint32_t b, uint32_t cell)
{
    double more = (double)backtest_scores(backtest, a, origin)[cell].loss - (double)backtest_scores(backtest, b, origin)[cell].loss;

    return fabs(more) > ROUNDING * backtest->origins[origin].size.level ? more : 0;
}

dm_t summary_dm_series(const backtest_t *backtest, size_t series, uint32_t a, uint32_t b, uint32_t cell, double *scratch)
{
    double naive = mean_loss(backtest, series, backtest_baseline(backtest, BASELINE_NAIVE), cell);
    size_t first = backtest->first_origin[series], count = naive > 0 ? origins_of(backtest, series) : 0;

    for (size_t i = 0; i < count; i++)
        scratch[i] = difference(backtest, first + i, a, b, cell) / naive;
    return dm_test(scratch, count, overlap(backtest, cell));
}

/* Naive's mean loss on each series of the group, into the places of `out` that the series' numbers name. */
static void set_naive(const backtest_t *backtest, const backtest_group_t *group, uint32_t cell, double *out)
{
    for (size_t s = group->first_series; s < group->first_series + group->series_count; s++)
        out[s] = mean_loss(backtest, s, backtest_baseline(backtest, BASELINE_NAIVE), cell);
}

/* Sums that belong to one origin time become a mean, the next member of a series in time. */
typedef struct {
    double *values; /* means, one a time that had anything */
    size_t count, members;
    double sum;
    int64_t time_ns;
} timeline_t;

static void timeline_flush(timeline_t *timeline)
{
    if (timeline->members > 0)
        timeline->values[timeline->count++] = timeline->sum / (double)timeline->members;
    timeline->members = 0;
    timeline->sum = 0;
}

static void timeline_add(timeline_t *timeline, int64_t time_ns, double value)
{
    if (time_ns != timeline->time_ns)
        timeline_flush(timeline);
    timeline->time_ns = time_ns;
    timeline->sum += value;
    timeline->members++;
}

dm_t summary_dm_group(const backtest_t *backtest, const backtest_group_t *group, uint32_t a, uint32_t b, uint32_t cell,
                      double *scratch)
{
    timeline_t timeline = {.values = scratch + backtest->origin_count, .time_ns = INT64_MIN};
    double *naive = scratch;

    set_naive(backtest, group, cell, naive);
    for (size_t i = group->first_origin; i < group->first_origin + group->origin_count; i++) {
        size_t origin = backtest->by_time[i];
        const backtest_origin_t *o = &backtest->origins[origin];

        if (naive[o->series] > 0)
            timeline_add(&timeline, o->time_ns, difference(backtest, origin, a, b, cell) / naive[o->series]);
    }
    timeline_flush(&timeline);
    return dm_test(timeline.values, timeline.count, overlap(backtest, cell));
}

/* ---- the simulated trade ------------------------------------------------------------------------------------------------------ */

enum { ALWAYS_LONG = BACKTEST_FORECASTERS_MOST };

static summary_trade_t trade(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t cell,
                             double *scratch)
{
    summary_trade_t out = {.origins = group->origin_count};
    timeline_t timeline = {.values = scratch, .time_ns = INT64_MIN};
    size_t right = 0;
    double sum = 0;
    dm_t mean;

    for (size_t i = group->first_origin; i < group->first_origin + group->origin_count; i++) {
        size_t origin = backtest->by_time[i];
        const backtest_origin_t *o = &backtest->origins[origin];
        int side = forecaster == ALWAYS_LONG ? 1 : backtest_scores(backtest, forecaster, origin)[cell].side;
        double gain = 1e4 * side * ((double)o->cell_last[cell] / o->size.last - 1);

        if (side == 0)
            continue;
        timeline_add(&timeline, o->time_ns, gain);
        out.trades++;
        right += gain > 0;
        sum += gain;
    }
    timeline_flush(&timeline);
    mean = dm_test(timeline.values, timeline.count, overlap(backtest, cell));
    out.gross_bp = out.trades > 0 ? sum / (double)out.trades : NAN;
    out.net_bp = out.gross_bp - 2 * backtest->plan.cost_bp;
    out.error_bp = mean.error;
    out.right = quotient((double)right, (double)out.trades);
    return out;
}

summary_trade_t summary_trade(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t cell,
                              double *scratch)
{
    return trade(backtest, group, forecaster, cell, scratch);
}

summary_trade_t summary_always_long(const backtest_t *backtest, const backtest_group_t *group, uint32_t cell, double *scratch)
{
    return trade(backtest, group, ALWAYS_LONG, cell, scratch);
}

/* ---- over time ---------------------------------------------------------------------------------------------------------------- */

void summary_time_range(const backtest_t *backtest, const backtest_group_t *group, int64_t *first_ns, int64_t *last_ns)
{
    *first_ns = backtest->origins[backtest->by_time[group->first_origin]].time_ns;
    *last_ns = backtest->origins[backtest->by_time[group->first_origin + group->origin_count - 1]].time_ns;
}

void summary_over_time(const backtest_t *backtest, const backtest_group_t *group, uint32_t forecaster, uint32_t cell, size_t count,
                       double *ratios)
{
    uint32_t naive = backtest_baseline(backtest, BASELINE_NAIVE);
    size_t at = group->first_origin, end = group->first_origin + group->origin_count;
    int64_t first_ns, last_ns;

    summary_time_range(backtest, group, &first_ns, &last_ns);
    for (size_t k = 0; k < count; k++) {
        double slice_ends = (double)(last_ns - first_ns) * (double)(k + 1) / (double)count, above = 0, below = 0;

        for (; at < end; at++) {
            size_t origin = backtest->by_time[at];
            const backtest_origin_t *o = &backtest->origins[origin];
            double size = o->size.scale;

            if ((double)(o->time_ns - first_ns) > slice_ends && k + 1 < count)
                break;
            above += quotient((double)backtest_scores(backtest, forecaster, origin)[cell].loss, size);
            below += quotient((double)backtest_scores(backtest, naive, origin)[cell].loss, size);
        }
        ratios[k] = quotient(above, below);
    }
}
