#include "tools/backtest/garch.h"

#include <math.h>

#include "tools/backtest/minimise.h"

static const double PERSISTENCE_MOST = 0.9995, DF_LEAST = 4.1, DF_MOST = 200;

typedef struct {
    const double *returns;
    size_t count;
    double variance;
} sample_t;

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static double logit(double p)
{
    return log(p / (1 - p));
}

/* x: logit of the persistence alpha + beta below its most, logit of alpha's share of it. So every x is a stationary process. */
static void set_parameters(garch_t *garch, const double *x)
{
    double persistence = PERSISTENCE_MOST * logistic(x[0]);

    garch->alpha = persistence * logistic(x[1]);
    garch->beta = persistence - garch->alpha;
    garch->omega = garch->variance * (1 - persistence);
}

/* Minus twice the mean Gaussian log-likelihood, without its constant. The logarithm is taken of products of eight variances, relative to the
 * sample's: that saves most of the time and loses no digit. */
static double negative_likelihood(const void *context, const double *x)
{
    const sample_t *sample = context;
    garch_t garch = {.variance = sample->variance};
    double next = sample->variance, scale = 1 / sample->variance, product = 1, logs = 0, squares = 0;

    set_parameters(&garch, x);
    for (size_t t = 0; t < sample->count; t++) {
        double square = sample->returns[t] * sample->returns[t];

        product *= next * scale;
        if (t % 8 == 7) {
            logs += log(product);
            product = 1;
        }
        squares += square / next;
        next = garch.omega + garch.alpha * square + garch.beta * next;
    }
    return (logs + log(product) + squares) / (double)sample->count;
}

/* The best of a few usual processes: from a poor start the search can end on the plateau where alpha is 0. */
static void choose_start(const sample_t *sample, double *x)
{
    static const double persistences[] = {0.6, 0.85, 0.95, 0.98}, alphas[] = {0.04, 0.08, 0.16};
    double best = INFINITY;

    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++) {
            double at[2] = {logit(persistences[i] / PERSISTENCE_MOST), logit(alphas[j] / persistences[i])};
            double value = negative_likelihood(sample, at);

            if (value < best) {
                best = value;
                x[0] = at[0];
                x[1] = at[1];
            }
        }
}

/* Of Student's t with unit variance and 1/x degrees of freedom, for the returns divided by their fitted deviations. */
typedef struct {
    const sample_t *sample;
    const garch_t *garch;
} standardized_t;

static double t_negative_likelihood(const void *context, double x)
{
    const standardized_t *standardized = context;
    const sample_t *sample = standardized->sample;
    const garch_t *garch = standardized->garch;
    double df = 1 / x, next = sample->variance, product = 1, logs = 0;

    for (size_t t = 0; t < sample->count; t++) {
        double square = sample->returns[t] * sample->returns[t];

        product *= 1 + square / (next * (df - 2));
        if (t % 8 == 7) {
            logs += log(product);
            product = 1;
        }
        next = garch->omega + garch->alpha * square + garch->beta * next;
    }
    return (df + 1) / 2 * (logs + log(product)) / (double)sample->count - lgamma((df + 1) / 2) + lgamma(df / 2) + log(df - 2) / 2;
}

void garch_fit(const double *returns, size_t count, garch_t *out)
{
    sample_t sample = {.returns = returns, .count = count};
    double x[2] = {0, 0};

    for (size_t t = 0; t < count; t++)
        sample.variance += returns[t] * returns[t] / (double)count;
    *out = (garch_t){.variance = sample.variance, .df = DF_MOST};
    if (sample.variance <= 0)
        return;
    choose_start(&sample, x);
    minimise_simplex(negative_likelihood, &sample, 2, x, 0.4, 1e-6, 100);
    set_parameters(out, x);
    out->df = 1 / minimise_section(t_negative_likelihood, &(standardized_t){&sample, out}, 1 / DF_MOST, 1 / DF_LEAST, 2e-3);
    out->next = sample.variance;
    for (size_t t = 0; t < count; t++)
        out->next = out->omega + out->alpha * returns[t] * returns[t] + out->beta * out->next;
}

double garch_sum_variance(const garch_t *garch, size_t steps)
{
    double persistence = garch->alpha + garch->beta, excess = garch->next - garch->variance, sum = 0;

    for (size_t k = 0; k < steps; k++) {
        sum += garch->variance + excess;
        excess *= persistence;
    }
    return sum;
}
