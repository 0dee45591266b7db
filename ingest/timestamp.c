#include "ingest/timestamp.h"

#include "base/clock.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    const char *at, *end;
} scan_t;

/* `least` to `most` digits. */
static bool take_digits(scan_t *scan, int least, int most, int *out)
{
    int value = 0, count = 0;
    for (; count < most && scan->at < scan->end && isdigit((unsigned char)*scan->at); count++)
        value = value * 10 + (*scan->at++ - '0');
    *out = value;
    return count >= least;
}

static bool take(scan_t *scan, char wanted)
{
    if (scan->at == scan->end || *scan->at != wanted)
        return false;
    scan->at++;
    return true;
}

static bool take_word(scan_t *scan, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

/* The digits of a decimal fraction, as billionths; what lies below a billionth is cut. */
static bool take_fraction(scan_t *scan, int64_t *billionths)
{
    int64_t value = 0, weight = CLOCK_NS_PER_S;
    const char *start = scan->at;
    for (; scan->at < scan->end && isdigit((unsigned char)*scan->at); scan->at++) {
        weight /= 10;
        value += (*scan->at - '0') * weight;
    }
    *billionths = value;
    return scan->at > start;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

/* Days from 1970-01-01 in the Gregorian calendar. Counted from March, so that the leap day is a year's last. */
static int64_t days_since_epoch(int year, int month, int day)
{
    int month_from_march = (month + 9) % 12;
    int64_t march_year = year - (month <= 2);
    int64_t leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    return 365 * march_year + leap_days + (153 * month_from_march + 2) / 5 + day - 719469;
}

static bool take_date(scan_t *scan, int64_t *seconds)
{
    int year, month, day;
    if (!take_digits(scan, 4, 4, &year))
        return false;
    char separator = scan->at < scan->end ? *scan->at : 0;
    bool separated = separator == '-' || separator == '/' || separator == '.';
    int least = separated ? 1 : 2;
    if ((separated && !take(scan, separator)) || !take_digits(scan, least, 2, &month) || (separated && !take(scan, separator)) ||
        !take_digits(scan, least, 2, &day))
        return false;
    if (year < 1678 || year > 2261 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
        return false;
    *seconds = days_since_epoch(year, month, day) * 86400;
    return true;
}

static bool take_clock(scan_t *scan, int64_t *seconds, int64_t *fraction_ns)
{
    int hour, minute, second = 0;
    *fraction_ns = 0;
    if (!take_digits(scan, 1, 2, &hour))
        return false;
    bool separated = take(scan, ':');
    if (!take_digits(scan, 2, 2, &minute))
        return false;
    bool has_seconds = separated ? take(scan, ':') : scan->at < scan->end && isdigit((unsigned char)*scan->at);
    if (has_seconds && (!take_digits(scan, 2, 2, &second) || (take(scan, '.') && !take_fraction(scan, fraction_ns))))
        return false;
    *seconds = hour * 3600 + minute * 60 + second;
    return hour < 24 && minute < 60 && second < 60;
}

/* Seconds to take off the local time to get UTC. */
static bool take_zone(scan_t *scan, int64_t *seconds)
{
    *seconds = 0;
    if (scan->at == scan->end)
        return true;
    take(scan, ' ');
    if (take(scan, 'Z') || take(scan, 'z') || take_word(scan, "UTC"))
        return true;
    bool west = take(scan, '-');
    int hour, minute = 0;
    if ((!west && !take(scan, '+')) || !take_digits(scan, 2, 2, &hour))
        return false;
    take(scan, ':');
    if (scan->at < scan->end && !take_digits(scan, 2, 2, &minute))
        return false;
    *seconds = (west ? -1 : 1) * (hour * 3600 + minute * 60);
    return hour < 24 && minute < 60;
}

static bool parse_calendar(scan_t scan, int64_t *out_ns)
{
    int64_t date, clock = 0, fraction_ns = 0, zone = 0;
    if (!take_date(&scan, &date))
        return false;
    if (scan.at < scan.end) {
        if (!take(&scan, 'T') && !take(&scan, 't') && !take(&scan, ' '))
            return false;
        if (!take_clock(&scan, &clock, &fraction_ns) || !take_zone(&scan, &zone) || scan.at != scan.end)
            return false;
    }
    *out_ns = (date + clock - zone) * CLOCK_NS_PER_S + fraction_ns;
    return true;
}

/* YYYYMMDD, YYYYMMDDhhmmss or YYYYMMDDhhmmssfff, of a plausible year. */
static bool parse_compact(scan_t scan, int64_t *out_ns)
{
    size_t length = (size_t)(scan.end - scan.at);
    if ((length != 8 && length != 14 && length != 17) || memcmp(scan.at, "1900", 4) < 0 || memcmp(scan.at, "2199", 4) > 0)
        return false;
    int milliseconds = 0;
    int64_t date, clock = 0, fraction_ns = 0;
    scan_t clock_scan = {scan.at + 8, scan.at + 14};
    scan_t fraction_scan = {scan.at + 14, scan.end};
    if (!take_date(&scan, &date) || (length >= 14 && !take_clock(&clock_scan, &clock, &fraction_ns)) ||
        (length == 17 && !take_digits(&fraction_scan, 3, 3, &milliseconds)))
        return false;
    *out_ns = (date + clock) * CLOCK_NS_PER_S + milliseconds * CLOCK_NS_PER_MS;
    return true;
}

static bool parse_epoch(scan_t scan, int64_t *out_ns)
{
    bool negative = take(&scan, '-');
    int64_t whole = 0, billionths = 0;
    const char *start = scan.at;
    for (; scan.at < scan.end && isdigit((unsigned char)*scan.at); scan.at++)
        if (__builtin_mul_overflow(whole, 10, &whole) || __builtin_add_overflow(whole, *scan.at - '0', &whole))
            return false;
    if (scan.at == start || (take(&scan, '.') && !take_fraction(&scan, &billionths)) || scan.at != scan.end)
        return false;
    int64_t unit_ns = whole < INT64_C(100000000000)         ? CLOCK_NS_PER_S
                      : whole < INT64_C(100000000000000)    ? CLOCK_NS_PER_MS
                      : whole < INT64_C(100000000000000000) ? 1000
                                                            : 1;
    int64_t ns;
    if (__builtin_mul_overflow(whole, unit_ns, &ns) || __builtin_add_overflow(ns, billionths / (CLOCK_NS_PER_S / unit_ns), &ns))
        return false;
    *out_ns = negative ? -ns : ns;
    return true;
}

bool timestamp_parse(const char *text, size_t length, int64_t *out_ns)
{
    scan_t scan = {text, text + length};
    return parse_compact(scan, out_ns) || parse_calendar(scan, out_ns) || parse_epoch(scan, out_ns);
}

void timestamp_format(int64_t time_ns, char out[static TIMESTAMP_BYTES])
{
    int64_t fraction_ns = time_ns % CLOCK_NS_PER_S;
    time_t seconds = time_ns / CLOCK_NS_PER_S;
    if (fraction_ns < 0) {
        fraction_ns += CLOCK_NS_PER_S;
        seconds--;
    }
    struct tm calendar;
    gmtime_r(&seconds, &calendar);
    size_t used = strftime(out, TIMESTAMP_BYTES, "%Y-%m-%dT%H:%M:%S", &calendar);
    if (fraction_ns)
        used += (size_t)snprintf(out + used, TIMESTAMP_BYTES - used, ".%09d", (int)fraction_ns);
    snprintf(out + used, TIMESTAMP_BYTES - used, "Z");
}

static int compare_i64(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

int64_t timestamp_interval(int64_t *times_ns, size_t count)
{
    size_t steps = 0;
    for (size_t i = 1; i < count; i++) { /* writes below i only, the next turn reads from i on */
        int64_t step;
        if (!__builtin_sub_overflow(times_ns[i], times_ns[i - 1], &step) && step > 0)
            times_ns[steps++] = step;
    }
    qsort(times_ns, steps, sizeof *times_ns, compare_i64);
    int64_t best = 0;
    size_t best_run = 0;
    for (size_t i = 0, run = 0; i < steps; i++) {
        run = i > 0 && times_ns[i] == times_ns[i - 1] ? run + 1 : 1;
        if (run > best_run) {
            best_run = run;
            best = times_ns[i];
        }
    }
    return best;
}
