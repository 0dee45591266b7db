#include "tools/backtest/score.h"

#include <math.h>

uint32_t score_cells(uint32_t horizon, score_cell_t out[SCORE_CELLS_MOST])
{
    const uint32_t steps[] = {1, 5, 24, horizon};
    uint32_t count = 0;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (steps[i] <= horizon && (count == 0 || steps[i] > out[count - 1].last))
            out[count++] = (score_cell_t){steps[i], steps[i]};
    if (horizon > 1)
        out[count++] = (score_cell_t){1, horizon};
    return count;
}

double score_quantile_loss(const float *quantiles, size_t stride, double value)
{
    double sum = 0;

    for (int i = 0; i < DECILES; i++) {
        double level = (i + 1) / 10.0, above = value - (double)quantiles[(size_t)decile_levels[i] * stride];
        sum += above >= 0 ? level * above : (level - 1) * above;
    }
    return 2 * sum / DECILES;
}

static int8_t side_of(const score_origin_t *origin, double value)
{
    double move = value - origin->last;

    if (fabs(move) <= SCORE_STILL * origin->level)
        return 0;
    return move > 0 ? 1 : -1;
}

static score_t score_cell(const score_origin_t *origin, const float *quantiles, const double *future, uint32_t horizon,
                          score_cell_t cell)
{
    const float *median = quantiles + (size_t)LEVEL_50 * horizon;
    double loss = 0, absolute = 0, squared = 0, steps = cell.last - cell.first + 1;

    for (uint32_t h = cell.first - 1; h < cell.last; h++) {
        double error = future[h] - (double)median[h];

        loss += score_quantile_loss(quantiles + h, horizon, future[h]);
        absolute += fabs(error);
        squared += error * error;
    }
    return (score_t){.loss = (float)(loss / steps),
                     .absolute = (float)(absolute / steps),
                     .squared = (float)(squared / steps),
                     .side = side_of(origin, (double)median[cell.last - 1]),
                     .came = side_of(origin, future[cell.last - 1])};
}

static void add_band(const score_origin_t *origin, const float *quantiles, size_t stride, double value, score_band_t *band)
{
    double q10 = (double)quantiles[LEVEL_10 * stride], q25 = (double)quantiles[LEVEL_25 * stride],
           q75 = (double)quantiles[LEVEL_75 * stride], q90 = (double)quantiles[LEVEL_90 * stride];

    band->inside50 += value >= q25 && value <= q75;
    band->inside80 += value >= q10 && value <= q90;
    band->width50 += (q75 - q25) / origin->level;
    band->width80 += (q90 - q10) / origin->level;
}

void score_forecast(const score_origin_t *origin, const float *quantiles, const double *future, uint32_t horizon,
                    const score_cell_t *cells, uint32_t cell_count, score_t *out, score_band_t *bands)
{
    for (uint32_t cell = 0; cell < cell_count; cell++)
        out[cell] = score_cell(origin, quantiles, future, horizon, cells[cell]);
    for (uint32_t h = 0; h < horizon; h++)
        add_band(origin, quantiles + h, horizon, future[h], &bands[h]);
}
