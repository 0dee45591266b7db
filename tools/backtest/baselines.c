#include "tools/backtest/baselines.h"

#include <math.h>

#include "tools/backtest/distribution.h"
#include "tools/backtest/garch.h"
#include "tools/backtest/smoothing.h"

static const double EWMA_DECAY = 0.94;

/* Standard normal quantiles of the levels. */
static const double normal[LEVELS] = {
    -1.2815515655446004, -0.8416212335729143, -0.6744897501960817, -0.5244005127080407, -0.2533471031357997, 0,
    0.2533471031357997,  0.5244005127080407,  0.6744897501960817,  0.8416212335729143,  1.2815515655446004};

typedef struct {
    const baselines_input_t *input;
    double *values, *returns; /* [count], [count - 1]: in logarithms for prices */
    double *mean, *deviation; /* [horizon] */
    float *out;
} forecast_t;

const char *baseline_name(baseline_t baseline)
{
    static const char *const names[BASELINES] = {"naive", "drift", "seasonal", "ewma", "garch", "garch-t", "theta", "ets"};
    return names[baseline];
}

size_t baselines_work(size_t count, size_t horizon)
{
    return 2 * count + 2 * horizon;
}

/* ---- means and deviations ----------------------------------------------------------------------------------------------------- */

static double mean_square(const double *values, size_t count)
{
    double sum = 0;

    for (size_t t = 0; t < count; t++)
        sum += values[t] * values[t];
    return sum / (double)count;
}

static double last(const forecast_t *forecast)
{
    return forecast->values[forecast->input->count - 1];
}

static void walk(const forecast_t *forecast, double variance)
{
    for (size_t h = 0; h < forecast->input->horizon; h++) {
        forecast->mean[h] = last(forecast);
        forecast->deviation[h] = sqrt(variance * (double)(h + 1));
    }
}

static void drift(const forecast_t *forecast)
{
    double n = (double)forecast->input->count - 1, mean = (last(forecast) - forecast->values[0]) / n;
    double variance = fmax(0, (mean_square(forecast->returns, (size_t)n) - mean * mean) * n / (n - 1));

    for (size_t i = 0; i < forecast->input->horizon; i++) {
        double h = (double)(i + 1);

        forecast->mean[i] = last(forecast) + h * mean;
        forecast->deviation[i] = sqrt(variance * h * (1 + h / n));
    }
}

static void seasonal(const forecast_t *forecast)
{
    size_t count = forecast->input->count, m = forecast->input->season;
    double squares = 0;

    if (m < 1 || 2 * m > count)
        m = 1;
    for (size_t t = m; t < count; t++) {
        double change = forecast->values[t] - forecast->values[t - m];
        squares += change * change / (double)(count - m);
    }
    for (size_t h = 0; h < forecast->input->horizon; h++) {
        forecast->mean[h] = forecast->values[count - m + h % m];
        forecast->deviation[h] = sqrt(squares * (double)(h / m + 1));
    }
}

static double ewma_variance(const forecast_t *forecast)
{
    size_t count = forecast->input->count - 1;
    double variance = mean_square(forecast->returns, count);

    for (size_t t = 0; t < count; t++)
        variance = EWMA_DECAY * variance + (1 - EWMA_DECAY) * forecast->returns[t] * forecast->returns[t];
    return variance;
}

static void garch_walk(const forecast_t *forecast, const garch_t *garch)
{
    for (size_t h = 0; h < forecast->input->horizon; h++) {
        forecast->mean[h] = last(forecast);
        forecast->deviation[h] = sqrt(garch_sum_variance(garch, h + 1));
    }
}

/* ---- quantiles ---------------------------------------------------------------------------------------------------------------- */

static void write_one(const forecast_t *forecast, baseline_t baseline, int level, size_t h, double z)
{
    double value = forecast->mean[h] + z * forecast->deviation[h];
    size_t horizon = forecast->input->horizon;

    forecast->out[((size_t)baseline * LEVELS + (size_t)level) * horizon + h] = (float)(forecast->input->price ? exp(value) : value);
}

static void write_normal(const forecast_t *forecast, baseline_t baseline)
{
    for (size_t h = 0; h < forecast->input->horizon; h++)
        for (int level = 0; level < LEVELS; level++)
            write_one(forecast, baseline, level, h, normal[level]);
}

static void write_t(const forecast_t *forecast, baseline_t baseline, double df)
{
    for (size_t h = 0; h < forecast->input->horizon; h++) {
        double sum_df = 4 + (double)(h + 1) * (df - 4), unit = sqrt((sum_df - 2) / sum_df);

        for (int level = 0; level < LEVELS; level++)
            write_one(forecast, baseline, level, h, unit * distribution_t_quantile_near(normal[level], sum_df));
    }
}

void baselines_forecast(const baselines_input_t *input, double *work, float *out)
{
    size_t count = input->count;
    forecast_t forecast = {.input = input,
                           .values = work,
                           .returns = work + count,
                           .mean = work + 2 * count,
                           .deviation = work + 2 * count + input->horizon,
                           .out = out};
    garch_t garch;

    for (size_t t = 0; t < count; t++)
        forecast.values[t] = input->price ? log(input->values[t]) : input->values[t];
    for (size_t t = 0; t + 1 < count; t++)
        forecast.returns[t] = forecast.values[t + 1] - forecast.values[t];
    walk(&forecast, mean_square(forecast.returns, count - 1));
    write_normal(&forecast, BASELINE_NAIVE);
    drift(&forecast);
    write_normal(&forecast, BASELINE_DRIFT);
    seasonal(&forecast);
    write_normal(&forecast, BASELINE_SEASONAL);
    walk(&forecast, ewma_variance(&forecast));
    write_normal(&forecast, BASELINE_EWMA);
    garch_fit(forecast.returns, count - 1, &garch);
    garch_walk(&forecast, &garch);
    write_normal(&forecast, BASELINE_GARCH);
    write_t(&forecast, BASELINE_GARCH_T, garch.df);
    smoothing_theta(forecast.values, count, input->horizon, forecast.mean, forecast.deviation);
    write_normal(&forecast, BASELINE_THETA);
    smoothing_holt(forecast.values, count, input->horizon, forecast.mean, forecast.deviation);
    write_normal(&forecast, BASELINE_ETS);
}
