#include "tools/random_series.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

static const float STEP = 0.01f;
static const int64_t INTERVAL_NS = 60 * CLOCK_NS_PER_S;

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* The sum of four uniform numbers: mean 0, deviation 1, within 3.5. */
static float next_change(uint64_t *state)
{
    uint64_t bits = next_random(state);
    float sum = (float)(bits & 0xffff) + (float)(bits >> 16 & 0xffff) + (float)(bits >> 32 & 0xffff) + (float)(bits >> 48);

    return (sum / 65536 - 2) * 1.7320508f;
}

/* The walk's next `count` prices. */
static float walk(uint64_t *state, float price, uint32_t count, float *to)
{
    for (uint32_t t = 0; t < count; t++)
        to[t] = price *= 1 + STEP * next_change(state);
    return price;
}

/* How long walk `number` is: full, half or anything, in turn. */
static uint32_t length_of(const random_series_t *series, uint64_t number, uint32_t context)
{
    uint64_t state = series->seed ^ number << 32;

    if (!series->ragged || number % 3 == 0)
        return context;
    return number % 3 == 1 ? (context + 1) / 2 : 1 + (uint32_t)(next_random(&state) % context);
}

static void fill_variate(const model_shape_t *shape, model_input_t *input, const random_series_t *series, uint32_t i, uint32_t v)
{
    uint64_t number = (uint64_t)series->first + i, state = model_random_key(series->seed, "walk", (int64_t)(number << 16 | v));
    size_t row = (size_t)i * shape->variates + v, at = row * shape->context;
    uint32_t before = shape->context - input->length[i], known = shape->variates - shape->exogenous;
    float price = 100 * expf(next_change(&state)), ahead;

    price = walk(&state, price, shape->context, input->values + at);
    memset(input->values + at, 0, before * sizeof *input->values);
    memset(input->mask + at, 0, before);
    memset(input->mask + at + before, 1, input->length[i]);
    input->group[row] = 0;
    input->log_price[row] = 1;
    for (uint32_t h = 0; h < shape->horizon; h++) {
        price = walk(&state, price, 1, &ahead);
        if (series->truth != NULL)
            series->truth[row * shape->horizon + h] = ahead;
        if (v >= known)
            input->future[((size_t)i * shape->exogenous + v - known) * shape->horizon + h] = ahead;
    }
}

/* Variates of a whole bar. */
enum { OPEN, HIGH, LOW, CLOSE, VOLUME, AMOUNT };

/* Turns the six walks of series i into bars around the fourth. */
static void fill_bars(const model_shape_t *shape, model_input_t *input, const random_series_t *series, uint32_t i)
{
    uint64_t state = model_random_key(series->seed, "bar", (int64_t)series->first + i);
    float *value[MODEL_WHOLE_BAR];

    for (int v = 0; v < MODEL_WHOLE_BAR; v++) {
        value[v] = input->values + ((size_t)i * shape->variates + (size_t)v) * shape->context;
        input->log_price[(size_t)i * shape->variates + (size_t)v] = v < VOLUME;
    }
    for (uint32_t t = shape->context - input->length[i]; t < shape->context; t++) {
        float close = value[CLOSE][t], open = t > 0 && value[CLOSE][t - 1] > 0 ? value[CLOSE][t - 1] : close;

        value[OPEN][t] = open;
        value[HIGH][t] = fmaxf(open, close) * (1 + STEP * fabsf(next_change(&state)));
        value[LOW][t] = fminf(open, close) * (1 - STEP * fabsf(next_change(&state)));
        value[VOLUME][t] = 1000 * expf(0.5f * next_change(&state));
        value[AMOUNT][t] = value[VOLUME][t] * (open + value[HIGH][t] + value[LOW][t] + close) / 4;
    }
}

void random_series_fill(session_t *session, const random_series_t *series)
{
    const model_shape_t *shape = session_shape(session);
    model_input_t *input = session_input(session);
    model_info_t info;

    session_info(session, &info);
    for (uint32_t i = 0; i < shape->batch; i++) {
        input->length[i] = length_of(series, (uint64_t)series->first + i, shape->context);
        input->key[i] = model_random_key(series->seed, "path", (int64_t)series->first + i);
        for (uint32_t t = 0; input->time_ns != NULL && t < shape->context + shape->horizon; t++)
            input->time_ns[(size_t)i * (shape->context + shape->horizon) + t] = t * INTERVAL_NS;
        for (uint32_t v = 0; v < shape->variates; v++)
            fill_variate(shape, input, series, i, v);
        if (info.whole_bars)
            fill_bars(shape, input, series, i);
    }
}
