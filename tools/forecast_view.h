/* One forecast of `barcast forecast`, and the ways it is printed: a table with a fan chart, JSON, CSV. Nothing in it depends on the clock or the
 * machine, so the same call prints the same bytes. */
#ifndef BARCAST_TOOLS_FORECAST_VIEW_H
#define BARCAST_TOOLS_FORECAST_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { FORECAST_VIEW_FIELDS_MOST = 6 };

typedef struct {
    const char *name;
    double last;            /* the newest observed value */
    const float *mean;      /* [horizon] */
    const float *quantiles; /* [quantile_count][horizon]; NULL: none */
} forecast_view_field_t;

typedef struct {
    const char *symbol, *model, *revision;
    int64_t interval_ns, cutoff_ns;
    const int64_t *future_ns; /* [horizon] open times */
    uint32_t context, horizon, quantile_count, field_count;
    uint64_t seed;
    const float *levels;                                     /* [quantile_count], ascending */
    forecast_view_field_t fields[FORECAST_VIEW_FIELDS_MOST]; /* the first is the target */
    const float *history;                                    /* the target's bars that were used, newest last */
    const uint8_t *observed;                                 /* of them */
    const int64_t *times_ns;                                 /* of them */
    uint32_t history_count;
} forecast_view_t;

void forecast_view_json(const forecast_view_t *view, FILE *to);
void forecast_view_csv(const forecast_view_t *view, FILE *to);
/* The table, then the chart in `columns` columns, in Unicode or plain ASCII. */
void forecast_view_table(const forecast_view_t *view, int columns, bool unicode, FILE *to);

/* fan_chart.c: recent history, then the target's quantile bands. */
void fan_chart(const forecast_view_t *view, int columns, bool unicode, FILE *to);

/* "2024-05-06" for whole days, else "2024-05-06 14:35", UTC. */
enum { FORECAST_VIEW_TIME_BYTES = 32 };
void forecast_view_time(const forecast_view_t *view, int64_t time_ns, char out[static FORECAST_VIEW_TIME_BYTES]);

#endif
