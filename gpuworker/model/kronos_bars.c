/* Bars as Kronos wants them: without gaps, and with the calendar of their times. Host only. */
#include <string.h>

#include "gpuworker/model/kronos.h"

enum { OPEN, HIGH, LOW, CLOSE, VOLUME, AMOUNT };

/* ---- gaps ---------------------------------------------------------------------------------------------------------------------- */

/* Every gap of one field takes the value before it, a leading one the first there is; false: there is none. */
static bool fill_field(const float *values, const uint8_t *mask, int64_t begin, int64_t end, float *filled)
{
    int64_t at = begin;
    float last;

    while (at < end && !mask[at])
        at++;
    if (at == end)
        return false;
    last = values[at];
    for (int64_t t = begin; t < end; t++) {
        last = mask[t] ? values[t] : last;
        filled[t] = last;
    }
    return true;
}

void kronos_fill_bars(const float *values, const uint8_t *mask, int64_t context, int64_t length, float *filled, uint8_t *present)
{
    static const int substitutes[] = {CLOSE, OPEN, HIGH, LOW};
    int64_t begin = context - length;
    bool there[KRONOS_FIELDS];
    int substitute = 0;

    memset(filled, 0, (size_t)(KRONOS_FIELDS * context) * sizeof *filled);
    memset(present, 0, (size_t)(KRONOS_FIELDS * context));
    for (int f = 0; f < KRONOS_FIELDS; f++) {
        there[f] = fill_field(values + f * context, mask + f * context, begin, context, filled + f * context);
        memset(present + f * context + begin, 1, (size_t)length);
    }
    while (substitute < 3 && !there[substitutes[substitute]])
        substitute++;
    for (int f = OPEN; f <= CLOSE; f++)
        if (!there[f])
            memmove(filled + f * context, filled + substitutes[substitute] * context, (size_t)context * sizeof *filled);
    for (int64_t t = begin; t < context && !(there[VOLUME] && there[AMOUNT]); t++) {
        double mean = 0;

        for (int f = OPEN; f <= CLOSE; f++)
            mean += (double)filled[f * context + t] / 4;
        filled[AMOUNT * context + t] = there[VOLUME] ? (float)((double)filled[VOLUME * context + t] * mean) : 0.0f;
    }
}

/* ---- times --------------------------------------------------------------------------------------------------------------------- */

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Day of the month and month of a day counted from 1970-01-01, in the Gregorian calendar: years begin in March here, so that the leap day is
 * the last one, and 400 of them have 146097 days. */
static void civil(int64_t days, int32_t *day, int32_t *month)
{
    int64_t in_era = days + 719468 - floor_divide(days + 719468, 146097) * 146097; /* from 0000-03-01 */
    int64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year + year / 4 - year / 100);
    int64_t from_march = (5 * in_year + 2) / 153;

    *day = (int32_t)(in_year - (153 * from_march + 2) / 5 + 1);
    *month = (int32_t)(from_march < 10 ? from_march + 3 : from_march - 9);
}

void kronos_fill_times(const int64_t *time_ns, int64_t count, int32_t *out)
{
    static const int64_t minute_ns = INT64_C(60000000000), day_minutes = 24 * 60;
    int64_t known = INT64_MIN; /* bars mostly share the day of the one before */
    int32_t weekday = 0, day = 0, month = 0;

    for (int64_t i = 0; i < count; i++) {
        int64_t minutes = floor_divide(time_ns[i], minute_ns), days = floor_divide(minutes, day_minutes);
        int64_t in_day = minutes - days * day_minutes, since_monday = days + 3; /* 1970-01-01 was a Thursday */

        if (days != known) {
            weekday = (int32_t)(since_monday - floor_divide(since_monday, 7) * 7);
            civil(days, &day, &month);
            known = days;
        }
        out[i] = (int32_t)(in_day % 60);
        out[count + i] = (int32_t)(in_day / 60);
        out[2 * count + i] = weekday;
        out[3 * count + i] = day;
        out[4 * count + i] = month;
    }
}
