#include "tools/forecast_view.h"

#include <json-c/json.h>
#include <time.h>

#include "base/clock.h"

static const int64_t DAY_NS = 86400 * CLOCK_NS_PER_S;

static struct tm utc_of(int64_t time_ns)
{
    time_t seconds = (time_t)(time_ns / CLOCK_NS_PER_S);
    struct tm utc;

    gmtime_r(&seconds, &utc);
    return utc;
}

void forecast_view_time(const forecast_view_t *view, int64_t time_ns, char out[static FORECAST_VIEW_TIME_BYTES])
{
    bool days = view->interval_ns % DAY_NS == 0 && view->cutoff_ns % DAY_NS == 0;
    struct tm utc = utc_of(time_ns);

    strftime(out, FORECAST_VIEW_TIME_BYTES, days ? "%Y-%m-%d" : "%Y-%m-%d %H:%M", &utc);
}

/* ---- JSON: the names that a published forecast has ----------------------------------------------------------------------------- */

static json_object *json_number(double value)
{
    char text[40];

    snprintf(text, sizeof text, "%.9g", value);
    return json_object_new_double_s(value, text);
}

static json_object *json_numbers(const float *values, uint32_t count)
{
    json_object *array = json_object_new_array_ext((int)count);

    for (uint32_t i = 0; i < count; i++)
        json_object_array_add(array, json_number((double)values[i]));
    return array;
}

static void add_field(const forecast_view_t *view, const forecast_view_field_t *field, json_object *to)
{
    json_object *quantiles = json_object_new_object();

    json_object_object_add(to, "last", json_number(field->last));
    json_object_object_add(to, "mean", json_numbers(field->mean, view->horizon));
    for (uint32_t q = 0; field->quantiles != NULL && q < view->quantile_count; q++) {
        char level[24];

        snprintf(level, sizeof level, "%g", (double)view->levels[q]);
        json_object_object_add(quantiles, level, json_numbers(field->quantiles + (size_t)q * view->horizon, view->horizon));
    }
    json_object_object_add(to, "quantiles", quantiles);
}

void forecast_view_json(const forecast_view_t *view, FILE *to)
{
    json_object *json = json_object_new_object(), *levels = json_object_new_array_ext((int)view->quantile_count);
    json_object *times = json_object_new_array_ext((int)view->horizon), *others = json_object_new_object();

    for (uint32_t h = 0; h < view->horizon; h++)
        json_object_array_add(times, json_object_new_int64(view->future_ns[h]));
    for (uint32_t q = 0; q < view->quantile_count; q++) {
        char level[24];

        snprintf(level, sizeof level, "%g", (double)view->levels[q]);
        json_object_array_add(levels, json_object_new_double_s((double)view->levels[q], level));
    }
    json_object_object_add(json, "symbol", json_object_new_string(view->symbol));
    json_object_object_add(json, "model", json_object_new_string(view->model));
    json_object_object_add(json, "model_revision", json_object_new_string(view->revision));
    json_object_object_add(json, "target", json_object_new_string(view->fields[0].name));
    json_object_object_add(json, "interval_ns", json_object_new_int64(view->interval_ns));
    json_object_object_add(json, "cutoff_ns", json_object_new_int64(view->cutoff_ns));
    json_object_object_add(json, "start_ns", json_object_new_int64(view->future_ns[0]));
    json_object_object_add(json, "times_ns", times);
    json_object_object_add(json, "horizon", json_object_new_int64(view->horizon));
    json_object_object_add(json, "context", json_object_new_int64(view->context));
    json_object_object_add(json, "seed", json_object_new_uint64(view->seed));
    json_object_object_add(json, "quantile_levels", levels);
    add_field(view, &view->fields[0], json);
    for (uint32_t f = 1; f < view->field_count; f++) {
        json_object *field = json_object_new_object();

        add_field(view, &view->fields[f], field);
        json_object_object_add(others, view->fields[f].name, field);
    }
    json_object_object_add(json, "other_fields", others);
    fprintf(to, "%s\n", json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN));
    json_object_put(json);
}

/* ---- CSV and table ------------------------------------------------------------------------------------------------------------- */

void forecast_view_csv(const forecast_view_t *view, FILE *to)
{
    fprintf(to, "timestamp");
    for (uint32_t f = 0; f < view->field_count; f++) {
        const char *prefix = view->field_count > 1 ? view->fields[f].name : "", *joint = view->field_count > 1 ? "_" : "";

        fprintf(to, ",%s%smean", prefix, joint);
        for (uint32_t q = 0; view->fields[f].quantiles != NULL && q < view->quantile_count; q++)
            fprintf(to, ",%s%sq%g", prefix, joint, (double)view->levels[q]);
    }
    fputc('\n', to);
    for (uint32_t h = 0; h < view->horizon; h++) {
        char time[FORECAST_VIEW_TIME_BYTES];
        struct tm utc = utc_of(view->future_ns[h]);

        strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%SZ", &utc);
        fprintf(to, "%s", time);
        for (uint32_t f = 0; f < view->field_count; f++) {
            const forecast_view_field_t *field = &view->fields[f];

            fprintf(to, ",%.9g", (double)field->mean[h]);
            for (uint32_t q = 0; field->quantiles != NULL && q < view->quantile_count; q++)
                fprintf(to, ",%.9g", (double)field->quantiles[(size_t)q * view->horizon + h]);
        }
        fputc('\n', to);
    }
}

static void print_field(const forecast_view_t *view, const forecast_view_field_t *field, FILE *to)
{
    fprintf(to, "%-16s %12s", field->name, "mean");
    for (uint32_t q = 0; field->quantiles != NULL && q < view->quantile_count; q++) {
        char level[24];

        snprintf(level, sizeof level, "q%g", (double)view->levels[q]);
        fprintf(to, " %12s", level);
    }
    fputc('\n', to);
    for (uint32_t h = 0; h < view->horizon; h++) {
        char time[FORECAST_VIEW_TIME_BYTES];

        forecast_view_time(view, view->future_ns[h], time);
        fprintf(to, "%-16s %12.6g", time, (double)field->mean[h]);
        for (uint32_t q = 0; field->quantiles != NULL && q < view->quantile_count; q++)
            fprintf(to, " %12.6g", (double)field->quantiles[(size_t)q * view->horizon + h]);
        fputc('\n', to);
    }
    fputc('\n', to);
}

void forecast_view_table(const forecast_view_t *view, int columns, bool unicode, FILE *to)
{
    char cutoff[FORECAST_VIEW_TIME_BYTES];

    forecast_view_time(view, view->cutoff_ns, cutoff);
    fprintf(to, "%s, model %s: %u bars, the last of %s (UTC), %s %.6g\n\n", view->symbol, view->model, view->history_count, cutoff,
            view->fields[0].name, view->fields[0].last);
    for (uint32_t f = 0; f < view->field_count; f++)
        print_field(view, &view->fields[f], to);
    fan_chart(view, columns, unicode, to);
}
