#include "ingest/validation.h"

#include "base/clock.h"

#include <math.h>

#define DAY_NS (86400 * CLOCK_NS_PER_S)

static bool known_and_not_finite(double value, bool unknown)
{
    return !unknown && !isfinite(value);
}

validation_t validation_fault(const shm_bar_t *bar)
{
    bool no_volume = bar->flags & SHM_BAR_NO_VOLUME, no_amount = bar->flags & SHM_BAR_NO_AMOUNT;
    if (!isfinite(bar->open) || !isfinite(bar->high) || !isfinite(bar->low) || !isfinite(bar->close) ||
        known_and_not_finite(bar->volume, no_volume) || known_and_not_finite(bar->amount, no_amount))
        return VALIDATION_NOT_FINITE;
    if (bar->open <= 0 || bar->high <= 0 || bar->low <= 0 || bar->close <= 0)
        return VALIDATION_PRICE;
    double highest = bar->high * (1 + VALIDATION_ROUNDING), lowest = bar->low * (1 - VALIDATION_ROUNDING);
    if (bar->low > highest || bar->open > highest || bar->close > highest || bar->open < lowest || bar->close < lowest)
        return VALIDATION_HIGH_LOW;
    if ((!no_volume && bar->volume < 0) || (!no_amount && bar->amount < 0))
        return VALIDATION_VOLUME;
    return VALIDATION_NEW;
}

static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static bool same_values(const shm_bar_t *a, const shm_bar_t *b)
{
    return same(a->open, b->open) && same(a->high, b->high) && same(a->low, b->low) && same(a->close, b->close) &&
           same(a->volume, b->volume) && same(a->amount, b->amount);
}

validation_t validation_place(const shm_bar_t *bar, const shm_bar_t *newest, const shm_bar_t *stored)
{
    if (!newest || bar->open_time_ns > newest->open_time_ns)
        return VALIDATION_NEW;
    if (!stored)
        return VALIDATION_OUT_OF_ORDER;
    if (stored->flags & SHM_BAR_IN_PROGRESS)
        return VALIDATION_UPDATE;
    if (bar->flags & SHM_BAR_IN_PROGRESS)
        return VALIDATION_OUT_OF_ORDER;
    bool traded_after_all = stored->flags & SHM_BAR_FILLED;
    return same_values(bar, stored) && !traded_after_all ? VALIDATION_DUPLICATE : VALIDATION_CORRECT;
}

const char *validation_text(validation_t verdict)
{
    switch (verdict) {
    case VALIDATION_NEW:
    case VALIDATION_UPDATE:
    case VALIDATION_CORRECT:
        break;
    case VALIDATION_NOT_FINITE:
        return "a price, volume or amount is not finite";
    case VALIDATION_HIGH_LOW:
        return "high and low do not enclose open and close";
    case VALIDATION_PRICE:
        return "a price is not above zero";
    case VALIDATION_VOLUME:
        return "volume or amount is negative";
    case VALIDATION_DUPLICATE:
        return "the same bar was stored before";
    case VALIDATION_OUT_OF_ORDER:
        return "older than the newest bar, and no correction of a stored one";
    }
    return "sound";
}

/* Times may be anything that came over a wire: the arithmetic is unsigned and wraps. */
static int64_t advance(int64_t time_ns, uint64_t by_ns)
{
    return (int64_t)((uint64_t)time_ns + by_ns);
}

static bool on_weekend(int64_t open_time_ns, int64_t interval_ns)
{
    int64_t middle_ns = advance(open_time_ns, (uint64_t)interval_ns / 2);
    int64_t day = middle_ns / DAY_NS - (middle_ns % DAY_NS < 0);
    int64_t weekday = ((day + 4) % 7 + 7) % 7; /* 0: Sunday; the epoch's first day was a Thursday */
    return weekday == 0 || weekday == 6;
}

uint64_t validation_missing(int64_t previous_ns, int64_t open_time_ns, int64_t interval_ns, int64_t *opens_ns, uint64_t most)
{
    uint64_t interval = (uint64_t)interval_ns;
    uint64_t step = (uint64_t)open_time_ns - (uint64_t)previous_ns;
    uint64_t steps = step / interval + (step % interval >= interval - interval / 2);
    bool all_count = interval_ns < DAY_NS || on_weekend(previous_ns, interval_ns) || on_weekend(open_time_ns, interval_ns);
    uint64_t missing = 0;
    for (uint64_t i = 1; i < steps; i++) {
        if (all_count && missing >= most)
            return steps - 1;
        int64_t expected_ns = advance(previous_ns, i * interval);
        if (!all_count && on_weekend(expected_ns, interval_ns))
            continue;
        if (missing < most)
            opens_ns[missing] = expected_ns;
        missing++;
    }
    return missing;
}
