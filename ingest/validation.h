/* What is wrong with a bar, and where it belongs. It judges and never changes a bar; store.h acts on the verdict. Pure functions,
 * any thread.
 *
 * Sound: every price is finite and above zero, volume and amount are finite (or flagged unknown) and not negative, and high and
 * low enclose open and close. Adjusted prices are printed after a multiplication, each field rounded on its own, so high and low
 * may be passed by VALIDATION_ROUNDING of the price.
 *
 * Gap: intervals that are missing between two bars of a symbol. For intervals below a day every missing one counts: there is no
 * exchange calendar here, so the night of a market that closes is a gap too. From a day on, Saturdays and Sundays do not count,
 * unless one of the two bars lies on a weekend itself (a market that trades on weekends); an interval belongs to the weekday of
 * its middle, UTC, so that daily bars stamped with any time zone's midnight are judged alike. Holidays count: without a calendar
 * they are missing days. Steps are rounded to whole intervals: a daily bar after a change of the clock, or a monthly one, is no
 * gap. */
#ifndef BARCAST_INGEST_VALIDATION_H
#define BARCAST_INGEST_VALIDATION_H

#include "shm/bar.h"

#include <stdbool.h>
#include <stdint.h>

#define VALIDATION_ROUNDING 1e-5

typedef enum {
    VALIDATION_NEW,     /* after the newest bar: append it */
    VALIDATION_UPDATE,  /* the newest bar, still in progress: amend it (or close it, when the bar is closed) */
    VALIDATION_CORRECT, /* a stored closed bar with other values: amend it, as vendors re-send */
    /* rejected: */
    VALIDATION_NOT_FINITE,
    VALIDATION_HIGH_LOW,
    VALIDATION_PRICE,
    VALIDATION_VOLUME,
    VALIDATION_DUPLICATE,    /* a stored closed bar with the same values */
    VALIDATION_OUT_OF_ORDER, /* before the newest bar and not stored; or in progress after it was closed */
} validation_t;

/* Judges the bar alone: VALIDATION_NEW when it is sound, else the fault. */
validation_t validation_fault(const shm_bar_t *bar);

/* Judges where a sound bar belongs. `newest` is the symbol's newest stored bar (NULL: none yet) and `stored` the one with the
 * same open time (NULL: none, or not looked up because the bar is newer). */
validation_t validation_place(const shm_bar_t *bar, const shm_bar_t *newest, const shm_bar_t *stored);

static inline bool validation_rejects(validation_t verdict)
{
    return verdict >= VALIDATION_NOT_FINITE;
}

/* "high < low or ...": what a complaint calls the fault. */
const char *validation_text(validation_t verdict);

/* How many intervals are missing between two bars; the open times of the first `most` of them go to opens_ns. */
uint64_t validation_missing(int64_t previous_ns, int64_t open_time_ns, int64_t interval_ns, int64_t *opens_ns, uint64_t most);

#endif
