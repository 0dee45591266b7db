#include "tools/backtest/smoothing.h"

#include <math.h>

#include "tools/backtest/minimise.h"

static const double PHI_LEAST = 0.8, PHI_MOST = 0.98;

typedef struct {
    const double *values;
    size_t count;
    double trend; /* Holt's first one */
} sample_t;

/* ---- theta -------------------------------------------------------------------------------------------------------------------- */

/* Simple exponential smoothing through the sample: sum of the squared one-step errors, and the level behind the last value. */
static double smooth(const sample_t *sample, double alpha, double *last_level)
{
    double level = sample->values[0], squares = 0;

    for (size_t t = 1; t < sample->count; t++) {
        double error = sample->values[t] - level;

        squares += error * error;
        level += alpha * error;
    }
    *last_level = level;
    return squares;
}

static double smooth_squares(const void *context, double alpha)
{
    double level;
    return smooth(context, alpha, &level);
}

static double slope(const sample_t *sample)
{
    double n = (double)sample->count, middle = (n - 1) / 2, sum = 0;

    for (size_t t = 0; t < sample->count; t++)
        sum += ((double)t - middle) * sample->values[t];
    return sum / (n * (n * n - 1) / 12);
}

void smoothing_theta(const double *values, size_t count, size_t horizon, double *mean, double *deviation)
{
    sample_t sample = {.values = values, .count = count};
    double alpha = minimise_section(smooth_squares, &sample, 1e-4, 1 - 1e-4, 1e-3), level;
    double sigma = sqrt(smooth(&sample, alpha, &level) / (double)(count - 1)), drift = slope(&sample) / 2;
    double lead = (1 - pow(1 - alpha, (double)count)) / alpha;

    for (size_t h = 0; h < horizon; h++) {
        mean[h] = level + drift * ((double)h + lead);
        deviation[h] = sigma * sqrt(1 + (double)h * alpha * alpha);
    }
}

/* ---- Holt --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    double alpha, beta, phi, level, trend;
} holt_t;

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static double run_holt(const sample_t *sample, const double *x, holt_t *holt)
{
    double squares = 0;

    holt->alpha = logistic(x[0]);
    holt->beta = holt->alpha * logistic(x[1]);
    holt->phi = PHI_LEAST + (PHI_MOST - PHI_LEAST) * logistic(x[2]);
    holt->level = sample->values[0];
    holt->trend = sample->trend;
    for (size_t t = 1; t < sample->count; t++) {
        double step = holt->phi * holt->trend, error = sample->values[t] - holt->level - step;

        squares += error * error;
        holt->level += step + holt->alpha * error;
        holt->trend = step + holt->beta * error;
    }
    return squares;
}

/* In logarithms, so that the search's tolerance is relative. */
static double holt_log_squares(const void *context, const double *x)
{
    holt_t holt;
    return log(run_holt(context, x, &holt));
}

void smoothing_holt(const double *values, size_t count, size_t horizon, double *mean, double *deviation)
{
    size_t first = count - 1 < 10 ? count - 1 : 10;
    sample_t sample = {.values = values, .count = count, .trend = (values[first] - values[0]) / (double)first};
    double x[3] = {2, -4, 1}, path = 0, power = 1, squares = 0, sigma;
    holt_t holt;

    if (run_holt(&sample, x, &holt) > 0)
        minimise_simplex(holt_log_squares, &sample, 3, x, 1, 1e-5, 150);
    sigma = sqrt(run_holt(&sample, x, &holt) / (double)(count - 1));
    for (size_t h = 0; h < horizon; h++) {
        double answer; /* to a shock h steps ago */

        deviation[h] = sigma * sqrt(1 + squares);
        power *= holt.phi;
        path += power;
        mean[h] = holt.level + path * holt.trend;
        answer = holt.alpha + holt.beta * path;
        squares += answer * answer;
    }
}
