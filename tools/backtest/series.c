#include "tools/backtest/series.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "ingest/source.h"
#include "ingest/timestamp.h"

static const int64_t DAY_NS = 86400 * CLOCK_NS_PER_S;

/* SHM_BAR_FIELDS: no such field. */
static size_t find_field(const char *name)
{
    size_t field = 0;

    while (field < SHM_BAR_FIELDS && strcmp(shm_bar_fields[field].name, name) != 0)
        field++;
    return field;
}

bool series_field_is_price(size_t field)
{
    return shm_bar_fields[field].price;
}

/* ---- calendar ----------------------------------------------------------------------------------------------------------------- */

/* Monday is 0; the epoch was a Thursday. A bar belongs to the day of its middle, so that any time zone's midnight will do. */
static bool on_weekend(int64_t time_ns, int64_t interval_ns)
{
    return ((time_ns + interval_ns / 2) / DAY_NS + 3) % 7 >= 5;
}

static int compare_sizes(const void *a, const void *b)
{
    size_t left = *(const size_t *)a, right = *(const size_t *)b;
    return (left > right) - (left < right);
}

/* The median over the days, UTC, that have bars; 1 when there is no memory to count them. */
static size_t bars_a_day(const int64_t *time_ns, size_t count)
{
    size_t *days = malloc(count * sizeof *days), used = 0, median;

    if (days == NULL)
        return 1;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || time_ns[i] / DAY_NS != time_ns[i - 1] / DAY_NS)
            days[used++] = 0;
        days[used - 1]++;
    }
    qsort(days, used, sizeof *days, compare_sizes);
    median = days[used / 2];
    free(days);
    return median;
}

size_t series_season(const int64_t *time_ns, size_t count, int64_t interval_ns)
{
    if (interval_ns >= 20 * DAY_NS)
        return 12;
    if (interval_ns >= 6 * DAY_NS)
        return 52;
    if (interval_ns < DAY_NS)
        return bars_a_day(time_ns, count);
    for (size_t i = 0; i < count; i++)
        if (on_weekend(time_ns[i], interval_ns))
            return 7;
    return 5;
}

void series_interval_text(int64_t interval_ns, char out[static SERIES_INTERVAL_BYTES])
{
    static const struct {
        int64_t seconds;
        const char *unit;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}};

    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (interval_ns % (units[i].seconds * CLOCK_NS_PER_S) == 0) {
            snprintf(out, SERIES_INTERVAL_BYTES, "%lld%s", (long long)(interval_ns / (units[i].seconds * CLOCK_NS_PER_S)),
                     units[i].unit);
            return;
        }
    snprintf(out, SERIES_INTERVAL_BYTES, "%gs", (double)interval_ns / (double)CLOCK_NS_PER_S);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

static int complain_unknown(const series_t *series, size_t bar, size_t field)
{
    char time[TIMESTAMP_BYTES];

    timestamp_format(series->time_ns[bar], time);
    return error_set(-1, "%s: the bar of %s has no %s", series->symbol, time, shm_bar_fields[field].name);
}

/* Turns bars into columns. */
static int take(const source_series_t *source, size_t field, series_t *out)
{
    size_t count = source->count;

    *out = (series_t){.interval_ns = source->bars[0].interval_ns,
                      .count = count,
                      .time_ns = malloc(count * sizeof *out->time_ns),
                      .fields = malloc(SHM_BAR_FIELDS * count * sizeof *out->fields)};
    memcpy(out->symbol, source->bars[0].symbol, sizeof out->symbol);
    if (out->time_ns == NULL || out->fields == NULL)
        return error_set(-1, "%s: out of memory", out->symbol);
    for (size_t i = 0; i < count; i++) {
        const shm_bar_t *bar = &source->bars[i].bar;

        out->time_ns[i] = bar->open_time_ns;
        for (size_t f = 0; f < SHM_BAR_FIELDS; f++)
            out->fields[f * count + i] = shm_bar_value(bar, &shm_bar_fields[f]);
    }
    out->values = out->fields + field * count;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(out->values[i]))
            return complain_unknown(out, i, field);
    out->season = series_season(out->time_ns, count, out->interval_ns);
    return 0;
}

static int append(const source_series_t *sources, size_t count, size_t field, series_set_t *set)
{
    series_t *more = realloc(set->series, (set->count + count) * sizeof *more);

    if (more == NULL)
        return error_set(-1, "out of memory");
    set->series = more;
    for (size_t i = 0; i < count; i++)
        if (take(&sources[i], field, &set->series[set->count++]) < 0)
            return -1;
    return 0;
}

static int read_file(const char *path, size_t field, series_set_t *set)
{
    const char *ending = strrchr(path, '.');
    config_feed_t feed = {.type = CONFIG_FEED_CSV};
    source_series_t *sources;
    size_t count, rejected;
    int rc;

    if (ending != NULL && (strcmp(ending, ".ndjson") == 0 || strcmp(ending, ".jsonl") == 0))
        feed.type = CONFIG_FEED_NDJSON;
    if ((size_t)snprintf(feed.path, sizeof feed.path, "%s", path) >= sizeof feed.path)
        return error_set(-1, "%s: the path is longer than %d bytes", path, CONFIG_TEXT_BYTES - 1);
    if (source_read_every(&feed, &sources, &count, &rejected) < 0)
        return -1;
    set->rejected += rejected;
    rc = append(sources, count, field, set);
    source_free_every(sources, count);
    return rc < 0 ? error_add(rc, "%s", path) : 0;
}

static int compare_series(const void *a, const void *b)
{
    const series_t *left = a, *right = b;

    if (left->interval_ns != right->interval_ns)
        return left->interval_ns < right->interval_ns ? 1 : -1;
    return strcmp(left->symbol, right->symbol);
}

static int check_names(const series_set_t *set)
{
    for (size_t i = 1; i < set->count; i++)
        if (compare_series(&set->series[i - 1], &set->series[i]) == 0)
            return error_set(-1, "%s is in more than one of the files", set->series[i].symbol);
    return 0;
}

int series_open(const char *const *paths, size_t count, const char *field, series_set_t *out)
{
    series_set_t set = {0};
    size_t found = find_field(field);

    if (found == SHM_BAR_FIELDS)
        return error_set(-1, "--field: \"%s\" is not open, high, low, close, volume or amount", field);
    set.field = found;
    set.field_name = shm_bar_fields[found].name;
    set.price = shm_bar_fields[found].price;
    for (size_t i = 0; i < count; i++)
        if (read_file(paths[i], found, &set) < 0) {
            series_close(&set);
            return -1;
        }
    qsort(set.series, set.count, sizeof *set.series, compare_series);
    if (check_names(&set) < 0) {
        series_close(&set);
        return -1;
    }
    *out = set;
    return 0;
}

void series_close(series_set_t *set)
{
    for (size_t i = 0; i < set->count; i++) {
        free(set->series[i].time_ns);
        free(set->series[i].fields);
    }
    free(set->series);
    *set = (series_set_t){0};
}
