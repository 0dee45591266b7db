#include "gpuworker/scorer.h"

#include "base/error.h"
#include "base/normal.h"

#include <math.h>
#include <stdlib.h>

static const double OLDEST_WEIGHT = 1.0 / 1024;

typedef struct {
    uint64_t next; /* index of the bar to score next; 0: nothing is watched */
    scorer_origin_t origin;
} watched_t;

struct scorer {
    uint32_t level_count, horizon, steps;
    double *levels, *normal; /* [level_count]; the levels' quantiles of the standard normal distribution */
    uint32_t symbols_max;
    watched_t *watched; /* [symbols_max] */
    float *quantiles;   /* [symbols_max][steps][level_count] */
    shm_score_t score;
};

int scorer_open(uint32_t level_count, const double *levels, uint32_t horizon, scorer_t **out)
{
    scorer_t *scorer = calloc(1, sizeof *scorer);
    if (scorer) {
        scorer->level_count = level_count;
        scorer->horizon = horizon;
        scorer->steps = horizon < SCORER_STEPS_MOST ? horizon : SCORER_STEPS_MOST;
        scorer->levels = calloc(level_count, sizeof *scorer->levels);
        scorer->normal = calloc(level_count, sizeof *scorer->normal);
    }
    if (!scorer || !scorer->levels || !scorer->normal) {
        scorer_close(scorer);
        return error_set(SCORER_ERR_MEMORY, "out of memory for scores");
    }
    for (uint32_t i = 0; i < level_count; i++) {
        scorer->levels[i] = levels[i];
        scorer->normal[i] = normal_quantile(levels[i]);
    }
    *out = scorer;
    return SCORER_OK;
}

void scorer_close(scorer_t *scorer)
{
    if (!scorer)
        return;
    free(scorer->levels);
    free(scorer->normal);
    free(scorer->watched);
    free(scorer->quantiles);
    free(scorer);
}

int scorer_join(scorer_t *scorer, uint32_t symbols_max)
{
    watched_t *watched = calloc(symbols_max, sizeof *watched);
    float *quantiles = calloc((size_t)symbols_max * scorer->level_count * scorer->steps, sizeof *quantiles);
    if (!watched || !quantiles) {
        free(watched);
        free(quantiles);
        return error_set(SCORER_ERR_MEMORY, "out of memory for the scores of %u symbols", symbols_max);
    }
    free(scorer->watched);
    free(scorer->quantiles);
    scorer->watched = watched;
    scorer->quantiles = quantiles;
    scorer->symbols_max = symbols_max;
    return SCORER_OK;
}

static double pinball(double level, double quantile, double value)
{
    double above = level * (value - quantile), below = (level - 1) * (value - quantile);
    return above > below ? above : below;
}

/* `move`: from the last value, or its logarithm. F32 is enough of a ruler. */
static double moved(const scorer_origin_t *origin, double move)
{
    return origin->log ? origin->last * (double)expf((float)move) : origin->last + move;
}

static void forget_towards(double *mean, double value, double weight)
{
    *mean += weight * (value - *mean);
}

/* `quantiles`: of that step, [level_count]. */
static void score_value(scorer_t *scorer, const scorer_origin_t *origin, const float *quantiles, uint32_t step, double value)
{
    double unit = origin->log ? origin->last * origin->volatility : origin->volatility, loss = 0, naive_loss = 0;
    double deviation = origin->volatility * sqrt((double)step + 1); /* of a random walk's move so far */
    uint32_t levels = scorer->level_count;
    for (uint32_t i = 0; i < levels; i++) {
        loss += pinball(scorer->levels[i], (double)quantiles[i], value);
        naive_loss += pinball(scorer->levels[i], moved(origin, scorer->normal[i] * deviation), value);
    }
    bool covered = value >= (double)quantiles[0] && value <= (double)quantiles[levels - 1];
    shm_score_t *score = &scorer->score;
    double weight = 1.0 / (double)++score->scored;
    weight = weight > OLDEST_WEIGHT ? weight : OLDEST_WEIGHT;
    forget_towards(&score->loss, 2 * loss / levels / unit, weight);
    forget_towards(&score->naive_loss, 2 * naive_loss / levels / unit, weight);
    forget_towards(&score->coverage, covered, weight);
}

/* Root mean square of the last one-step changes between neighbours that are both known. */
static double volatility_of(const scorer_bars_t *bars)
{
    uint32_t from = bars->count > SCORER_VOLATILITY_BARS + 1 ? bars->count - SCORER_VOLATILITY_BARS - 1 : 0, changes = 0;
    double squares = 0;
    for (uint32_t i = from + 1; i < bars->count; i++) {
        double before = (double)bars->values[i - 1], now = (double)bars->values[i];
        if (!bars->mask[i] || !bars->mask[i - 1] || (bars->log && (before <= 0 || now <= 0)))
            continue;
        double change = bars->log ? log(now / before) : now - before;
        squares += change * change;
        changes++;
    }
    return changes ? sqrt(squares / changes) : 0;
}

bool scorer_observe(scorer_t *scorer, const scorer_bars_t *bars, scorer_origin_t *origin)
{
    if (bars->symbol_id >= scorer->symbols_max || bars->count == 0)
        return false;
    watched_t *watched = &scorer->watched[bars->symbol_id];
    const float *quantiles = scorer->quantiles + (size_t)bars->symbol_id * scorer->level_count * scorer->steps;
    uint64_t over = watched->origin.end + scorer->steps, oldest = bars->end - bars->count;
    for (; watched->next && watched->next < bars->end && watched->next < over; watched->next++) {
        uint64_t place = watched->next - oldest; /* wraps where the bar is older than what is at hand */
        uint32_t step = (uint32_t)(watched->next - watched->origin.end);
        if (place < bars->count && bars->mask[place])
            score_value(scorer, &watched->origin, quantiles + (size_t)step * scorer->level_count, step,
                        (double)bars->values[place]);
    }
    if (watched->next && watched->next < over)
        return false;
    watched->next = 0;
    *origin = (scorer_origin_t){
        .end = bars->end, .last = (double)bars->values[bars->count - 1], .volatility = volatility_of(bars), .log = bars->log};
    return bars->mask[bars->count - 1] && origin->volatility > 0 && (!bars->log || origin->last > 0);
}

void scorer_watch(scorer_t *scorer, uint32_t symbol_id, const scorer_origin_t *origin, const float *quantiles)
{
    float *to = scorer->quantiles + (size_t)symbol_id * scorer->level_count * scorer->steps;
    for (uint32_t step = 0; step < scorer->steps; step++)
        for (uint32_t i = 0; i < scorer->level_count; i++)
            to[step * scorer->level_count + i] = quantiles[(size_t)i * scorer->horizon + step];
    scorer->watched[symbol_id] = (watched_t){.next = origin->end, .origin = *origin};
}

const shm_score_t *scorer_score(const scorer_t *scorer)
{
    return &scorer->score;
}
