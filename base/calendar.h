/* When bars open: the days and hours of a market, so that the times of a forecast skip nights, weekends and lunch breaks. Holidays are not
 * known.
 *
 * Times are int64 ns UTC. A calendar is read-only once open; any thread may use it. */
#ifndef BARCAST_BASE_CALENDAR_H
#define BARCAST_BASE_CALENDAR_H

#include <stdint.h>

enum { CALENDAR_OK = 0, CALENDAR_ERR_TEXT = -1, CALENDAR_ERR_ZONE = -2, CALENDAR_ERR_MEMORY = -3 };

typedef struct calendar calendar_t;

/* `days`: "mon,tue,wed,thu,fri"; `hours`: "09:30-11:30, 13:00-15:00", ascending, the end not included, 24:00 allowed; both in local time of
 * `zone`, a name of the time zone database such as America/New_York. Each may be empty: every day, all hours, UTC. Changes the process's TZ
 * for a moment where a zone is given: call it before other threads use local time. */
int calendar_open(const char *zone, const char *days, const char *hours, calendar_t **out);
void calendar_close(calendar_t *calendar);

/* The clock on the wall there, as ns since 1970-01-01 00:00 of that clock. */
int64_t calendar_local_ns(const calendar_t *calendar, int64_t utc_ns);

/* Open times of the `count` bars that follow one that opens at `last_ns`. Bars of less than a day open `interval_ns` apart while a session
 * lasts, and the next one with the next session; longer bars are dated, not timed: they step by the interval and go on to the next open day,
 * as UTC counts days. */
void calendar_following(const calendar_t *calendar, int64_t last_ns, int64_t interval_ns, uint32_t count, int64_t *out);

#endif
