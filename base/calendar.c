#include "base/calendar.h"

#include "base/error.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S   INT64_C(1000000000)
#define NS_PER_DAY (86400 * NS_PER_S)

enum {
    SESSIONS_MOST = 8,
    DAYS_A_WEEK = 7,
    ALL_DAYS = (1 << DAYS_A_WEEK) - 1,
    S_PER_DAY = 86400,
    FIRST_YEAR = 1970,
    LAST_YEAR = 2100
};

/* From `from_s` on, local time is UTC + offset_s. */
typedef struct {
    int64_t from_s, offset_s;
} offset_t;

struct calendar {
    unsigned days; /* bit 0: Monday */
    uint32_t session_count;
    struct {
        int64_t begin_ns, end_ns; /* of local time, since midnight */
    } session[SESSIONS_MOST];
    uint32_t offset_count;
    offset_t *offsets; /* ascending; the first one holds before it too */
};

static const char *const day_names[DAYS_A_WEEK] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
static const char separators[] = ", \t";

/* ---- the two lists ------------------------------------------------------------------------------------------------------------- */

static int parse_days(const char *text, unsigned *out)
{
    *out = 0;
    for (const char *at = text + strspn(text, separators); *at; at += strspn(at, separators)) {
        size_t length = strcspn(at, separators), day = 0;
        while (day < DAYS_A_WEEK && (strlen(day_names[day]) != length || memcmp(day_names[day], at, length) != 0))
            day++;
        if (day == DAYS_A_WEEK)
            return error_set(CALENDAR_ERR_TEXT, "\"%.*s\" is no day, expected mon, tue, wed, thu, fri, sat or sun", (int)length,
                             at);
        *out |= 1u << day;
        at += length;
    }
    if (*out == 0)
        *out = ALL_DAYS;
    return CALENDAR_OK;
}

/* "09:30" -> minutes; negative when it is no time of day. */
static int minutes_of(const char *text)
{
    static const char pattern[] = "00:00";
    for (int i = 0; i < 5; i++)
        if (pattern[i] == ':' ? text[i] != ':' : text[i] < '0' || text[i] > '9')
            return -1;
    int hours = (text[0] - '0') * 10 + text[1] - '0', minutes = (text[3] - '0') * 10 + text[4] - '0';
    return minutes < 60 && hours * 60 + minutes <= 24 * 60 ? hours * 60 + minutes : -1;
}

static int parse_hours(const char *text, calendar_t *calendar)
{
    int before = 0;
    for (const char *at = text + strspn(text, separators); *at; at += strspn(at, separators)) {
        size_t length = strcspn(at, separators);
        int begin = length == strlen("00:00-00:00") && at[5] == '-' ? minutes_of(at) : -1,
            end = begin < 0 ? -1 : minutes_of(at + 6);
        if (end <= begin || begin < before)
            return error_set(CALENDAR_ERR_TEXT, "\"%.*s\": expected hours such as 09:30-16:00, one after the other", (int)length,
                             at);
        if (calendar->session_count == SESSIONS_MOST)
            return error_set(CALENDAR_ERR_TEXT, "more than %d sessions a day", SESSIONS_MOST);
        calendar->session[calendar->session_count].begin_ns = begin * 60 * NS_PER_S;
        calendar->session[calendar->session_count++].end_ns = end * 60 * NS_PER_S;
        before = end;
        at += length;
    }
    if (calendar->session_count == 0) {
        calendar->session[0].end_ns = NS_PER_DAY;
        calendar->session_count = 1;
    }
    return CALENDAR_OK;
}

/* ---- the zone ------------------------------------------------------------------------------------------------------------------ */

static int64_t offset_at(int64_t utc_s)
{
    time_t time = utc_s;
    struct tm local;
    return localtime_r(&time, &local) ? local.tm_gmtoff : 0;
}

static bool zone_exists(const char *zone)
{
    const char *folder = getenv("TZDIR");
    char path[PATH_MAX];
    if (*zone == '/' || strstr(zone, ".."))
        return false;
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "/usr/share/zoneinfo", zone);
    return access(path, R_OK) == 0;
}

/* Appends where the offset changes; to be called once with room for nothing to count them. */
static uint32_t list_offsets(offset_t *out)
{
    const int64_t end_s = (int64_t)(LAST_YEAR - FIRST_YEAR) * 365 * S_PER_DAY;
    int64_t before = offset_at(0);
    uint32_t count = 1;
    if (out)
        out[0] = (offset_t){0, before};
    for (int64_t day = S_PER_DAY; day < end_s; day += S_PER_DAY) {
        int64_t offset = offset_at(day), low = day - S_PER_DAY, high = day;
        if (offset == before)
            continue;
        while (high - low > 1) {
            int64_t middle = low + (high - low) / 2;
            if (offset_at(middle) == before)
                low = middle;
            else
                high = middle;
        }
        if (out)
            out[count] = (offset_t){high, offset};
        count++;
        before = offset;
    }
    return count;
}

static int load_zone(const char *zone, calendar_t *calendar)
{
    if (!zone_exists(zone))
        return error_set(CALENDAR_ERR_ZONE, "\"%s\" is not in this machine's time zone database (Debian: tzdata)", zone);
    const char *own = getenv("TZ");
    char *kept = own ? strdup(own) : NULL;
    setenv("TZ", zone, 1);
    tzset();
    calendar->offset_count = list_offsets(NULL);
    calendar->offsets = calloc(calendar->offset_count, sizeof *calendar->offsets);
    if (calendar->offsets)
        list_offsets(calendar->offsets);
    if (kept)
        setenv("TZ", kept, 1);
    else
        unsetenv("TZ");
    tzset();
    free(kept);
    return calendar->offsets ? CALENDAR_OK : error_set(CALENDAR_ERR_MEMORY, "out of memory for a time zone");
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------- */

int calendar_open(const char *zone, const char *days, const char *hours, calendar_t **out)
{
    calendar_t *calendar = calloc(1, sizeof *calendar);
    if (!calendar)
        return error_set(CALENDAR_ERR_MEMORY, "out of memory");
    int rc = parse_days(days, &calendar->days);
    if (rc == CALENDAR_OK)
        rc = parse_hours(hours, calendar);
    if (rc == CALENDAR_OK && *zone)
        rc = load_zone(zone, calendar);
    if (rc < 0) {
        calendar_close(calendar);
        return rc;
    }
    *out = calendar;
    return CALENDAR_OK;
}

void calendar_close(calendar_t *calendar)
{
    if (calendar)
        free(calendar->offsets);
    free(calendar);
}

/* ---- times --------------------------------------------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

static int64_t offset_ns(const calendar_t *calendar, int64_t utc_ns)
{
    uint32_t low = 0, high = calendar->offset_count;
    if (high == 0)
        return 0;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (calendar->offsets[middle].from_s * NS_PER_S <= utc_ns)
            low = middle;
        else
            high = middle;
    }
    return calendar->offsets[low].offset_s * NS_PER_S;
}

int64_t calendar_local_ns(const calendar_t *calendar, int64_t utc_ns)
{
    return utc_ns + offset_ns(calendar, utc_ns);
}

/* When the wall shows `local_ns`: with the offset that holds then. In the hour that a clock skips or repeats, one of the two. */
static int64_t utc_of(const calendar_t *calendar, int64_t local_ns)
{
    int64_t guess = local_ns - offset_ns(calendar, local_ns);
    return local_ns - offset_ns(calendar, guess);
}

static bool is_open_day(const calendar_t *calendar, int64_t day)
{
    int64_t weekday = ((day + 3) % DAYS_A_WEEK + DAYS_A_WEEK) % DAYS_A_WEEK; /* 1970-01-01 was a Thursday */
    return calendar->days >> weekday & 1;
}

/* The first local time from `local_ns` on at which a bar may open. */
static int64_t next_open(const calendar_t *calendar, int64_t local_ns)
{
    for (int64_t day = floor_div(local_ns, NS_PER_DAY);; day++) {
        if (!is_open_day(calendar, day))
            continue;
        for (uint32_t i = 0; i < calendar->session_count; i++) {
            int64_t begin = day * NS_PER_DAY + calendar->session[i].begin_ns, end = day * NS_PER_DAY + calendar->session[i].end_ns;
            if (local_ns < end)
                return local_ns > begin ? local_ns : begin;
        }
    }
}

void calendar_following(const calendar_t *calendar, int64_t last_ns, int64_t interval_ns, uint32_t count, int64_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        int64_t next = last_ns + interval_ns;
        if (interval_ns >= NS_PER_DAY) {
            while (!is_open_day(calendar, floor_div(next, NS_PER_DAY)))
                next += NS_PER_DAY;
        } else {
            int64_t local = calendar_local_ns(calendar, next), open = next_open(calendar, local);
            if (open != local)
                next = utc_of(calendar, open);
        }
        out[i] = last_ns = next;
    }
}
