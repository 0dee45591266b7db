#include "gpuworker/windows.h"

#include "base/error.h"
#include "shm/ring.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    size_t offset; /* in shm_bar_t */
    bool price;
} field_t;

static const field_t fields[] = {
    {"open", offsetof(shm_bar_t, open), true},      {"high", offsetof(shm_bar_t, high), true},
    {"low", offsetof(shm_bar_t, low), true},        {"close", offsetof(shm_bar_t, close), true},
    {"volume", offsetof(shm_bar_t, volume), false}, {"amount", offsetof(shm_bar_t, amount), false},
};

struct windows {
    uint32_t field_count;
    const field_t *field[WIRE_FIELDS_MOST];
    uint32_t context_min;
    uint64_t seed;
    shm_bar_t *bars; /* [context_most] */
};

static const field_t *field_named(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strlen(fields[i].name) == length && memcmp(fields[i].name, name, length) == 0)
            return &fields[i];
    return NULL;
}

static int parse_fields(windows_t *windows, const char *text)
{
    static const char separators[] = ", \t\r\n";
    for (const char *at = text + strspn(text, separators); *at; at += strspn(at, separators)) {
        size_t length = strcspn(at, separators);
        const field_t *field = field_named(at, length);
        if (!field)
            return error_set(WINDOWS_ERR_FIELD, "fields = %s: \"%.*s\" is no field of a bar", text, (int)length, at);
        if (windows->field_count == WIRE_FIELDS_MOST)
            return error_set(WINDOWS_ERR_FIELD, "fields = %s: more than %d", text, WIRE_FIELDS_MOST);
        windows->field[windows->field_count++] = field;
        at += length;
    }
    if (!windows->field_count)
        return error_set(WINDOWS_ERR_FIELD, "fields: expected at least one field of a bar");
    return WINDOWS_OK;
}

int windows_open(const config_model_t *model, uint32_t context_most, windows_t **out)
{
    windows_t *windows = calloc(1, sizeof *windows);
    if (!windows)
        return error_set(WINDOWS_ERR_MEMORY, "out of memory");
    int rc = parse_fields(windows, model->fields);
    if (rc < 0)
        goto fail;
    windows->context_min = model->context_min;
    windows->seed = model->seed;
    windows->bars = calloc(context_most, sizeof *windows->bars);
    if (!windows->bars) {
        rc = error_set(WINDOWS_ERR_MEMORY, "out of memory for %u bars", context_most);
        goto fail;
    }
    *out = windows;
    return WINDOWS_OK;

fail:
    windows_close(windows);
    return rc;
}

void windows_close(windows_t *windows)
{
    if (!windows)
        return;
    free(windows->bars);
    free(windows);
}

uint32_t windows_field_count(const windows_t *windows)
{
    return windows->field_count;
}

const char *windows_field_name(const windows_t *windows, uint32_t index)
{
    return windows->field[index]->name;
}

static double field_value(const shm_bar_t *bar, const field_t *field)
{
    double value;
    memcpy(&value, (const char *)bar + field->offset, sizeof value);
    return value;
}

/* One variate: `length` bars at the end of `context` values. */
static void fill_variate(const shm_bar_t *bars, uint32_t length, const field_t *field, uint32_t context, float *values,
                         uint8_t *mask)
{
    uint32_t padding = context - length;
    memset(values, 0, padding * sizeof *values);
    memset(mask, 0, padding);
    for (uint32_t i = 0; i < length; i++) {
        double value = field_value(&bars[i], field);
        bool observed = isfinite(value);
        values[padding + i] = observed ? (float)value : 0;
        mask[padding + i] = observed;
    }
}

static void fill_times(const shm_bar_t *bars, uint32_t length, int64_t interval_ns, uint32_t context, uint32_t horizon,
                       int64_t *times)
{
    uint32_t padding = context - length;
    for (uint32_t i = 0; i < padding; i++)
        times[i] = bars[0].open_time_ns - (int64_t)(padding - i) * interval_ns;
    for (uint32_t i = 0; i < length; i++)
        times[padding + i] = bars[i].open_time_ns;
    for (uint32_t i = 0; i < horizon; i++)
        times[context + i] = bars[length - 1].open_time_ns + (int64_t)(i + 1) * interval_ns;
}

/* The newest observed value, NaN when there is none. */
static double last_observed(const shm_bar_t *bars, uint32_t length, const field_t *field)
{
    for (uint32_t i = length; i-- > 0;) {
        double value = field_value(&bars[i], field);
        if (isfinite(value))
            return value;
    }
    return NAN;
}

wire_item_status_t windows_gather(windows_t *windows, const shm_segment_t *segment, const wire_item_t *item,
                                  const model_shape_t *shape, model_input_t *input, uint32_t row, window_t *out)
{
    const char *symbol = shm_symbol_name(segment, item->symbol_id);
    if (!symbol || item->end > shm_ring_head(segment, item->symbol_id))
        return WIRE_ITEM_STALE;
    if (item->end == 0 || item->end < windows->context_min)
        return WIRE_ITEM_TOO_SHORT;

    uint32_t context = shape->context;
    uint32_t length = item->end < context ? (uint32_t)item->end : context;
    const shm_bar_t *bars = windows->bars;
    if (shm_ring_window(segment, item->symbol_id, item->end, length, windows->bars) != SHM_OK)
        return WIRE_ITEM_OVERRUN;
    double last = last_observed(bars, length, windows->field[0]);
    if (isnan(last))
        return WIRE_ITEM_TOO_SHORT;

    for (uint32_t i = 0; i < windows->field_count; i++) {
        size_t variate = (size_t)row * shape->variates + i;
        fill_variate(bars, length, windows->field[i], context, input->values + variate * context, input->mask + variate * context);
        input->group[variate] = 0;
        input->log_price[variate] = windows->field[i]->price;
    }
    *out = (window_t){.symbol = symbol,
                      .interval_ns = shm_symbol_interval_ns(segment, item->symbol_id),
                      .cutoff_ns = bars[length - 1].open_time_ns,
                      .last = last};
    fill_times(bars, length, out->interval_ns, context, shape->horizon, input->time_ns + (size_t)row * (context + shape->horizon));
    input->length[row] = length;
    input->key[row] = model_random_key(windows->seed, symbol, out->cutoff_ns);
    return WIRE_ITEM_OK;
}
