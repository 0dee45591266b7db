#include "gpuworker/windows.h"

#include "base/calendar.h"
#include "base/error.h"
#include "shm/ring.h"
#include "shm/update_log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE = 64, UPDATES_AT_ONCE = 256, COMPANIONS_MOST = 64, NO_SYMBOL = -1 };

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

/* Calendar cycles as known variates: two columns each, a sine and a cosine of the local time's place in the period. */
typedef struct {
    const char *name;
    int64_t period_ns;
} cycle_t;

static const cycle_t cycles[] = {
    {"day", INT64_C(86400000000000)},
    {"week", INT64_C(7) * 86400000000000},
    {"year", INT64_C(31556952000000000)}, /* 365.2425 days */
};
enum { CYCLES = sizeof cycles / sizeof *cycles };

static const char separators[] = ", \t\r\n";
static const char whole_bar[] = "open,high,low,close,volume,amount", lone_field[] = "close";

typedef struct {
    char name[SHM_SYMBOL_BYTES];
    int64_t id; /* in the segment; NO_SYMBOL: not seen yet */
} companion_t;

/* What is known of one symbol: all but `end` means nothing while that is 0. Its values lie in windows->store. */
typedef struct {
    uint64_t end;      /* the bars [end - context, end) are there, or as many as there were; 0: none */
    uint64_t observed; /* 1 + index of the newest bar whose target is known; 0: none of them */
    double last;       /* that target */
} mirror_t;

struct windows {
    uint32_t field_count;
    const field_t *field[WIRE_FIELDS_MOST];
    uint32_t target; /* of the fields */
    uint32_t companion_count;
    companion_t companion[COMPANIONS_MOST];
    uint32_t cycle_count;
    const cycle_t *cycle[CYCLES];
    calendar_t *calendar; /* NULL: bars follow each other without a break */
    bool times_read;      /* by the model: filling them is a third of a window's cost */
    uint32_t context, context_min;
    uint64_t seed;
    shm_bar_t *bars; /* [context] */

    uint32_t symbols_most;
    uint64_t cursor;   /* in the update log */
    mirror_t *mirrors; /* [symbols_most] */
    uint8_t *store;    /* [symbols_most] times [context] open times, [columns][context] values, [columns][context] masks */
    size_t stride;     /* bytes of one symbol in it */
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
    return WINDOWS_OK;
}

static int choose_fields(windows_t *windows, const char *text, bool whole_bars)
{
    bool given = text[strspn(text, separators)] != '\0';
    int rc = parse_fields(windows, given ? text : whole_bars ? whole_bar : lone_field);
    if (rc < 0 || !whole_bars)
        return rc;
    for (uint32_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (i >= windows->field_count || windows->field[i] != &fields[i])
            return error_set(WINDOWS_ERR_FIELD, "fields = %s: this model takes whole bars: leave fields out, or give %s", text,
                             whole_bar);
    windows->target = (uint32_t)(field_named(lone_field, strlen(lone_field)) - fields);
    return WINDOWS_OK;
}

static int parse_companions(windows_t *windows, const char *text)
{
    for (const char *at = text + strspn(text, separators); *at; at += strspn(at, separators)) {
        size_t length = strcspn(at, separators);
        if (windows->companion_count == COMPANIONS_MOST)
            return error_set(WINDOWS_ERR_FIELD, "companions: more than %d", COMPANIONS_MOST);
        companion_t *companion = &windows->companion[windows->companion_count++];
        if (length >= sizeof companion->name)
            return error_set(WINDOWS_ERR_FIELD, "companions: \"%.*s\" is too long for a symbol", (int)length, at);
        memcpy(companion->name, at, length);
        companion->id = NO_SYMBOL;
        at += length;
    }
    return WINDOWS_OK;
}

static int parse_cycles(windows_t *windows, const char *text)
{
    for (const char *at = text + strspn(text, separators); *at; at += strspn(at, separators)) {
        size_t length = strcspn(at, separators), i = 0;
        while (i < CYCLES && (strlen(cycles[i].name) != length || memcmp(cycles[i].name, at, length) != 0))
            i++;
        if (i == CYCLES || windows->cycle_count == CYCLES)
            return error_set(WINDOWS_ERR_FIELD, "cycles = %s: expected day, week or year, each once", text);
        windows->cycle[windows->cycle_count++] = &cycles[i];
        at += length;
    }
    return WINDOWS_OK;
}

/* What of a symbol is kept beside its times: the fields, then two columns a cycle. */
static uint32_t columns_of(const windows_t *windows)
{
    return windows->field_count + 2 * windows->cycle_count;
}

int windows_open(const config_model_t *model, const model_info_t *info, uint32_t context, windows_t **out)
{
    windows_t *windows = calloc(1, sizeof *windows);
    if (!windows)
        return error_set(WINDOWS_ERR_MEMORY, "out of memory");
    int rc = choose_fields(windows, model->fields, info->whole_bars);
    if (rc == WINDOWS_OK)
        rc = parse_companions(windows, model->companions);
    if (rc == WINDOWS_OK && windows->companion_count > 0 && (!info->variates || info->whole_bars))
        rc = error_set(WINDOWS_ERR_FIELD, "companions = %s: this model sees one symbol at a time", model->companions);
    if (rc == WINDOWS_OK)
        rc = parse_cycles(windows, model->cycles);
    if (rc == WINDOWS_OK && windows->cycle_count > 0 && !info->exogenous)
        rc = error_set(WINDOWS_ERR_FIELD, "cycles = %s: this model takes nothing that is known of the future", model->cycles);
    bool hours = *model->timezone || *model->days || *model->hours;
    if (rc == WINDOWS_OK && hours && calendar_open(model->timezone, model->days, model->hours, &windows->calendar) < 0)
        rc = WINDOWS_ERR_CALENDAR;
    if (rc < 0)
        goto fail;
    windows->times_read = info->calendar;
    windows->context = context;
    windows->context_min = model->context_min;
    windows->seed = model->seed;
    windows->stride = context * (sizeof(int64_t) + columns_of(windows) * (sizeof(float) + sizeof(uint8_t)));
    windows->stride = (windows->stride + LINE - 1) / LINE * LINE;
    windows->bars = calloc(context, sizeof *windows->bars);
    if (!windows->bars) {
        rc = error_set(WINDOWS_ERR_MEMORY, "out of memory for %u bars", context);
        goto fail;
    }
    *out = windows;
    return WINDOWS_OK;

fail:
    windows_close(windows);
    return rc;
}

static void forget_segment(windows_t *windows)
{
    if (windows->store)
        munmap(windows->store, windows->symbols_most * windows->stride);
    free(windows->mirrors);
    windows->store = NULL;
    windows->mirrors = NULL;
    windows->symbols_most = 0;
}

void windows_close(windows_t *windows)
{
    if (!windows)
        return;
    forget_segment(windows);
    calendar_close(windows->calendar);
    free(windows->bars);
    free(windows);
}

uint32_t windows_variate_count(const windows_t *windows)
{
    return windows->field_count + windows->companion_count + windows_known_count(windows);
}

uint32_t windows_known_count(const windows_t *windows)
{
    return 2 * windows->cycle_count;
}

uint32_t windows_field_count(const windows_t *windows)
{
    return windows->field_count;
}

const char *windows_field_name(const windows_t *windows, uint32_t index)
{
    return windows->field[index]->name;
}

uint32_t windows_target(const windows_t *windows)
{
    return windows->target;
}

bool windows_has_calendar(const windows_t *windows)
{
    return windows->calendar != NULL;
}

void windows_future(const windows_t *windows, int64_t cutoff_ns, int64_t interval_ns, uint32_t horizon, int64_t *out)
{
    if (windows->calendar)
        calendar_following(windows->calendar, cutoff_ns, interval_ns, horizon, out);
    else
        for (uint32_t i = 0; i < horizon; i++)
            out[i] = cutoff_ns + (int64_t)(i + 1) * interval_ns;
}

int windows_join(windows_t *windows, const shm_segment_t *segment)
{
    shm_segment_info_t info;
    shm_segment_info(segment, &info);
    size_t bytes = info.symbols_max * windows->stride;
    mirror_t *mirrors = calloc(info.symbols_max, sizeof *mirrors);
    void *store = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!mirrors || store == MAP_FAILED) {
        free(mirrors);
        if (store != MAP_FAILED)
            munmap(store, bytes);
        return error_set(WINDOWS_ERR_MEMORY, "no address space for %zu bytes, the windows of %u symbols", bytes, info.symbols_max);
    }
    forget_segment(windows);
    windows->mirrors = mirrors;
    windows->store = store;
    windows->symbols_most = info.symbols_max;
    windows->cursor = shm_log_newest(segment);
    for (uint32_t i = 0; i < windows->companion_count; i++)
        windows->companion[i].id = NO_SYMBOL;
    return WINDOWS_OK;
}

/* ---- mirrors ------------------------------------------------------------------------------------------------------------------- */

/* A mirror ends at the end of an item, whose bars' own entries stood in the log before the item came: an entry about a bar in a mirror is a
 * later one. Where it is its own all the same (an item found by a look at the ring), the window is read once more for nothing. */
void windows_catch_up(windows_t *windows, const shm_segment_t *segment)
{
    shm_update_t updates[UPDATES_AT_ONCE];
    uint64_t newest = shm_log_newest(segment);
    for (size_t count; windows->cursor != newest;) {
        size_t most = newest - windows->cursor < UPDATES_AT_ONCE ? (size_t)(newest - windows->cursor) : UPDATES_AT_ONCE;
        if (shm_log_read(segment, &windows->cursor, updates, most, &count) != SHM_OK) {
            memset(windows->mirrors, 0, windows->symbols_most * sizeof *windows->mirrors);
            return;
        }
        for (size_t i = 0; i < count; i++)
            if (updates[i].symbol_id < windows->symbols_most && updates[i].index < windows->mirrors[updates[i].symbol_id].end)
                windows->mirrors[updates[i].symbol_id].end = 0;
    }
}

/* The parts of one symbol's store. Bar i lies at place i % context of each array. */
static int64_t *stored_times(const windows_t *windows, uint32_t id)
{
    return (int64_t *)(void *)(windows->store + id * windows->stride);
}

static float *stored_values(const windows_t *windows, uint32_t id, uint32_t column)
{
    return (float *)(void *)(stored_times(windows, id) + windows->context) + (size_t)column * windows->context;
}

static uint8_t *stored_mask(const windows_t *windows, uint32_t id, uint32_t column)
{
    return (uint8_t *)stored_values(windows, id, columns_of(windows)) + (size_t)column * windows->context;
}

/* Column `known` of those that are known of any time. */
static float known_value(const windows_t *windows, uint32_t known, int64_t time_ns)
{
    const double two_pi = 6.283185307179586;
    int64_t local_ns = windows->calendar ? calendar_local_ns(windows->calendar, time_ns) : time_ns;
    int64_t period_ns = windows->cycle[known / 2]->period_ns, place_ns = local_ns % period_ns;
    double turn = two_pi * (double)place_ns / (double)period_ns;
    return (float)(known % 2 == 0 ? sin(turn) : cos(turn));
}

static double field_value(const shm_bar_t *bar, const field_t *field)
{
    double value;
    memcpy(&value, (const char *)bar + field->offset, sizeof value);
    return value;
}

/* Bars [from, from + count) of a symbol. */
static void store_bars(windows_t *windows, uint32_t id, const shm_bar_t *bars, uint64_t from, uint32_t count)
{
    mirror_t *mirror = &windows->mirrors[id];
    int64_t *times = stored_times(windows, id);
    for (uint32_t i = 0, at = (uint32_t)(from % windows->context); i < count; i++, at = at + 1 < windows->context ? at + 1 : 0)
        times[at] = bars[i].open_time_ns;
    for (uint32_t k = 0; k < windows->field_count; k++) {
        float *values = stored_values(windows, id, k);
        uint8_t *mask = stored_mask(windows, id, k);
        for (uint32_t i = 0, at = (uint32_t)(from % windows->context); i < count;
             i++, at = at + 1 < windows->context ? at + 1 : 0) {
            double value = field_value(&bars[i], windows->field[k]);
            mask[at] = isfinite(value);
            values[at] = mask[at] ? (float)value : 0;
        }
    }
    for (uint32_t k = 0; k < windows_known_count(windows); k++) {
        float *values = stored_values(windows, id, windows->field_count + k);
        uint8_t *mask = stored_mask(windows, id, windows->field_count + k);
        for (uint32_t i = 0, at = (uint32_t)(from % windows->context); i < count;
             i++, at = at + 1 < windows->context ? at + 1 : 0) {
            mask[at] = 1;
            values[at] = known_value(windows, k, bars[i].open_time_ns);
        }
    }
    for (uint32_t i = count; i-- > 0;) {
        double value = field_value(&bars[i], windows->field[windows->target]);
        if (isfinite(value)) {
            mirror->observed = from + i + 1;
            mirror->last = value;
            return;
        }
    }
}

/* Makes the mirror end at `end` and hold `length` bars at least: by the new ones where it can be continued, by all of them elsewhere. */
static int update_mirror(windows_t *windows, const shm_segment_t *segment, uint32_t id, uint64_t end, uint32_t length)
{
    mirror_t *mirror = &windows->mirrors[id];
    bool goes_on = mirror->end > 0 && mirror->end <= end && end - mirror->end <= length;
    uint32_t count = goes_on ? (uint32_t)(end - mirror->end) : length;
    if (count == 0)
        return SHM_OK;
    int rc = shm_ring_window(segment, id, end, count, windows->bars);
    if (rc != SHM_OK)
        return rc;
    if (!goes_on)
        mirror->observed = 0;
    mirror->end = end;
    store_bars(windows, id, windows->bars, end - count, count);
    return SHM_OK;
}

/* ---- gathering ----------------------------------------------------------------------------------------------------------------- */

/* `length` elements of `size` bytes from the ring `from` of `context`, beginning at place `first`. */
static void copy_ring(void *to, const void *from, uint32_t context, uint32_t first, uint32_t length, size_t size)
{
    uint32_t before_wrap = length < context - first ? length : context - first;
    memcpy(to, (const char *)from + first * size, before_wrap * size);
    memcpy((char *)to + before_wrap * size, from, (length - before_wrap) * size);
}

/* The open times that a model with a calendar reads: those of the bars, then of the future, on the market's clock. */
static void fill_times(const windows_t *windows, uint32_t id, uint32_t first, uint32_t length, int64_t interval_ns,
                       uint32_t horizon, int64_t *times)
{
    uint32_t context = windows->context, padding = context - length;
    copy_ring(times + padding, stored_times(windows, id), context, first, length, sizeof *times);
    for (uint32_t i = 0; i < padding; i++)
        times[i] = times[padding] - (int64_t)(padding - i) * interval_ns;
    windows_future(windows, times[context - 1], interval_ns, horizon, times + context);
    for (uint32_t i = 0; windows->calendar && i < context + horizon; i++)
        times[i] = calendar_local_ns(windows->calendar, times[i]);
}

/* The ring place of bar `index` counted from the oldest of a mirror that ends at `end` and holds `length` bars. */
static uint32_t place_of(const windows_t *windows, uint64_t end, uint32_t length, uint32_t index)
{
    return (uint32_t)((end - length + index) % windows->context);
}

/* One companion's target beside the `length` bars of symbol `id` that end at `end`, into the last `length` places of values and mask, which
 * are zero. Nothing where it has no bar of that time. */
static void gather_companion(windows_t *windows, const shm_segment_t *segment, companion_t *companion, uint32_t id, uint64_t end,
                             uint32_t length, float *values, uint8_t *mask)
{
    uint32_t other;
    if (companion->id == NO_SYMBOL && shm_symbol_find(segment, companion->name, &other) == SHM_OK)
        companion->id = other;
    if (companion->id == NO_SYMBOL || companion->id == id || companion->id >= windows->symbols_most)
        return;
    other = (uint32_t)companion->id;
    uint64_t head = shm_ring_head(segment, other);
    uint32_t have = head < windows->context ? (uint32_t)head : windows->context;
    if (have == 0 || update_mirror(windows, segment, other, head, have) != SHM_OK)
        return;
    const int64_t *own_times = stored_times(windows, id), *times = stored_times(windows, other);
    const float *from = stored_values(windows, other, windows->target);
    const uint8_t *observed = stored_mask(windows, other, windows->target);
    uint32_t padding = windows->context - length;
    for (uint32_t i = 0, k = 0; i < length; i++) {
        int64_t time = own_times[place_of(windows, end, length, i)];
        while (k < have && times[place_of(windows, head, have, k)] < time)
            k++;
        uint32_t place = k < have ? place_of(windows, head, have, k) : 0;
        if (k == have || times[place] != time)
            continue;
        values[padding + i] = from[place];
        mask[padding + i] = observed[place];
    }
}

/* One column of the symbol's own into a variate. */
static void gather_column(const windows_t *windows, uint32_t id, uint32_t column, uint32_t first, uint32_t length, size_t variate,
                          bool price, model_input_t *input)
{
    uint32_t context = windows->context, padding = context - length;
    float *values = input->values + variate * context;
    uint8_t *mask = input->mask + variate * context;
    memset(values, 0, padding * sizeof *values);
    memset(mask, 0, padding);
    copy_ring(values + padding, stored_values(windows, id, column), context, first, length, sizeof *values);
    copy_ring(mask + padding, stored_mask(windows, id, column), context, first, length, sizeof *mask);
    input->group[variate] = 0;
    input->log_price[variate] = price;
}

/* The variates that are known of the future, the last ones of the series in row `row`. */
static void gather_known(const windows_t *windows, uint32_t id, uint32_t first, uint32_t length, uint32_t row,
                         const window_t *window, const model_shape_t *shape, model_input_t *input)
{
    uint32_t known = windows_known_count(windows), horizon = shape->horizon;
    int64_t times[WIRE_HORIZON_MOST];
    if (known == 0)
        return;
    windows_future(windows, window->cutoff_ns, window->interval_ns, horizon, times);
    for (uint32_t k = 0; k < known; k++) {
        size_t variate = (size_t)(row + 1) * shape->variates - known + k;
        float *future = input->future + ((size_t)row * known + k) * horizon;
        gather_column(windows, id, windows->field_count + k, first, length, variate, false, input);
        for (uint32_t h = 0; h < horizon; h++)
            future[h] = known_value(windows, k, times[h]);
    }
}

static void gather_companions(windows_t *windows, const shm_segment_t *segment, uint32_t id, uint64_t end, uint32_t length,
                              size_t variate, model_input_t *input)
{
    for (uint32_t i = 0; i < windows->companion_count; i++, variate++) {
        companion_t *companion = &windows->companion[i];
        float *values = input->values + variate * windows->context;
        uint8_t *mask = input->mask + variate * windows->context;
        memset(values, 0, windows->context * sizeof *values);
        memset(mask, 0, windows->context);
        gather_companion(windows, segment, companion, id, end, length, values, mask);
        /* An empty place informs nobody. */
        bool empty = memchr(mask, 1, windows->context) == NULL;
        input->group[variate] = empty ? (int32_t)(windows->field_count + i) : 0;
        input->log_price[variate] = windows->field[windows->target]->price;
    }
}

wire_item_status_t windows_gather(windows_t *windows, const shm_segment_t *segment, const wire_item_t *item,
                                  const model_shape_t *shape, model_input_t *input, uint32_t row, window_t *out)
{
    uint32_t id = item->symbol_id, context = windows->context;
    const char *symbol = shm_symbol_name(segment, id);
    if (!symbol || id >= windows->symbols_most || item->end > shm_ring_head(segment, id))
        return WIRE_ITEM_STALE;
    if (item->end == 0 || item->end < windows->context_min)
        return WIRE_ITEM_TOO_SHORT;

    uint32_t length = item->end < context ? (uint32_t)item->end : context;
    uint64_t from = item->end - length;
    if (update_mirror(windows, segment, id, item->end, length) != SHM_OK)
        return WIRE_ITEM_OVERRUN;
    const mirror_t *mirror = &windows->mirrors[id];
    if (mirror->observed <= from)
        return WIRE_ITEM_TOO_SHORT;

    uint32_t first = (uint32_t)(from % context);
    size_t variate = (size_t)row * shape->variates;
    for (uint32_t i = 0; i < windows->field_count; i++, variate++)
        gather_column(windows, id, i, first, length, variate, windows->field[i]->price, input);
    *out = (window_t){.symbol = symbol,
                      .interval_ns = shm_symbol_interval_ns(segment, id),
                      .cutoff_ns = stored_times(windows, id)[(item->end - 1) % context],
                      .last = mirror->last};
    gather_companions(windows, segment, id, item->end, length, variate, input);
    gather_known(windows, id, first, length, row, out, shape, input);
    if (windows->times_read)
        fill_times(windows, id, first, length, out->interval_ns, shape->horizon,
                   input->time_ns + (size_t)row * (context + shape->horizon));
    input->length[row] = length;
    input->key[row] = model_random_key(windows->seed, symbol, out->cutoff_ns);
    return WIRE_ITEM_OK;
}
