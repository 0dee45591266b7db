#include "gpuworker/windows.h"

#include "base/error.h"
#include "shm/ring.h"
#include "shm/update_log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE = 64, UPDATES_AT_ONCE = 256, NO_SYMBOL = -1 };

/* What is known of one symbol: all but `end` means nothing while that is 0. Its values lie in windows->store. */
typedef struct {
    uint64_t end;      /* the bars [end - context, end) are there, or as many as there were; 0: none */
    uint64_t observed; /* 1 + index of the newest bar whose target is known; 0: none of them */
    double last;       /* that target */
} mirror_t;

struct windows {
    variates_t variates;
    int64_t companion[VARIATES_COMPANIONS_MOST]; /* their ids in the segment; NO_SYMBOL: not seen yet */
    bool times_read;                             /* by the model: filling them is a third of a window's cost */
    uint32_t context, context_min;
    uint64_t seed;
    shm_bar_t *bars; /* [context] */

    uint32_t symbols_most;
    uint64_t cursor;   /* in the update log */
    mirror_t *mirrors; /* [symbols_most] */
    uint8_t *store;    /* [symbols_most] times [context] open times, [columns][context] values, [columns][context] masks */
    size_t stride;     /* bytes of one symbol in it */
};

/* What of a symbol is kept beside its times: the fields, then what is known of any time. */
static uint32_t columns_of(const windows_t *windows)
{
    return windows->variates.field_count + windows->variates.known_count;
}

int windows_open(const config_model_t *model, const model_info_t *info, uint32_t context, windows_t **out)
{
    windows_t *windows = calloc(1, sizeof *windows);
    if (!windows)
        return error_set(WINDOWS_ERR_MEMORY, "out of memory");
    int rc = variates_open(model, info, &windows->variates);
    if (rc < 0) {
        rc = WINDOWS_ERR_VARIATES;
        goto fail;
    }
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
    variates_close(&windows->variates);
    free(windows->bars);
    free(windows);
}

const variates_t *windows_variates(const windows_t *windows)
{
    return &windows->variates;
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
    for (uint32_t i = 0; i < windows->variates.companion_count; i++)
        windows->companion[i] = NO_SYMBOL;
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

/* Bars [from, from + count) of a symbol. */
static void store_bars(windows_t *windows, uint32_t id, const shm_bar_t *bars, uint64_t from, uint32_t count)
{
    mirror_t *mirror = &windows->mirrors[id];
    int64_t *times = stored_times(windows, id);
    for (uint32_t i = 0, at = (uint32_t)(from % windows->context); i < count; i++, at = at + 1 < windows->context ? at + 1 : 0)
        times[at] = bars[i].open_time_ns;
    for (uint32_t k = 0; k < windows->variates.field_count; k++) {
        float *values = stored_values(windows, id, k);
        uint8_t *mask = stored_mask(windows, id, k);
        for (uint32_t i = 0, at = (uint32_t)(from % windows->context); i < count;
             i++, at = at + 1 < windows->context ? at + 1 : 0) {
            double value = shm_bar_value(&bars[i], windows->variates.field[k]);
            mask[at] = isfinite(value);
            values[at] = mask[at] ? (float)value : 0;
        }
    }
    for (uint32_t k = 0; k < windows->variates.known_count; k++) {
        float *values = stored_values(windows, id, windows->variates.field_count + k);
        uint8_t *mask = stored_mask(windows, id, windows->variates.field_count + k);
        for (uint32_t i = 0, at = (uint32_t)(from % windows->context); i < count;
             i++, at = at + 1 < windows->context ? at + 1 : 0) {
            mask[at] = 1;
            values[at] = variates_known_value(&windows->variates, k, bars[i].open_time_ns);
        }
    }
    for (uint32_t i = count; i-- > 0;) {
        double value = shm_bar_value(&bars[i], windows->variates.field[windows->variates.target]);
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
    variates_future(&windows->variates, times[context - 1], interval_ns, horizon, times + context);
    for (uint32_t i = 0; i < context + horizon; i++)
        times[i] = variates_local_ns(&windows->variates, times[i]);
}

/* The ring place of bar `index` counted from the oldest of a mirror that ends at `end` and holds `length` bars. */
static uint32_t place_of(const windows_t *windows, uint64_t end, uint32_t length, uint32_t index)
{
    return (uint32_t)((end - length + index) % windows->context);
}

/* One companion's target beside the `length` bars of symbol `id` that end at `end`, into the last `length` places of values and mask, which
 * are zero. Nothing where it has no bar of that time. */
static void gather_companion(windows_t *windows, const shm_segment_t *segment, uint32_t index, uint32_t id, uint64_t end,
                             uint32_t length, float *values, uint8_t *mask)
{
    uint32_t other;
    if (windows->companion[index] == NO_SYMBOL && shm_symbol_find(segment, windows->variates.companion[index], &other) == SHM_OK)
        windows->companion[index] = other;
    if (windows->companion[index] == NO_SYMBOL || windows->companion[index] == id ||
        windows->companion[index] >= windows->symbols_most)
        return;
    other = (uint32_t)windows->companion[index];
    uint64_t head = shm_ring_head(segment, other);
    uint32_t have = head < windows->context ? (uint32_t)head : windows->context;
    if (have == 0 || update_mirror(windows, segment, other, head, have) != SHM_OK)
        return;
    const int64_t *own_times = stored_times(windows, id), *times = stored_times(windows, other);
    const float *from = stored_values(windows, other, windows->variates.target);
    const uint8_t *observed = stored_mask(windows, other, windows->variates.target);
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
    uint32_t known = windows->variates.known_count, horizon = shape->horizon;
    int64_t times[WIRE_HORIZON_MOST];
    if (known == 0)
        return;
    variates_future(&windows->variates, window->cutoff_ns, window->interval_ns, horizon, times);
    for (uint32_t k = 0; k < known; k++) {
        size_t variate = (size_t)(row + 1) * shape->variates - known + k;
        float *future = input->future + ((size_t)row * known + k) * horizon;
        gather_column(windows, id, windows->variates.field_count + k, first, length, variate, false, input);
        for (uint32_t h = 0; h < horizon; h++)
            future[h] = variates_known_value(&windows->variates, k, times[h]);
    }
}

static void gather_companions(windows_t *windows, const shm_segment_t *segment, uint32_t id, uint64_t end, uint32_t length,
                              size_t variate, model_input_t *input)
{
    for (uint32_t i = 0; i < windows->variates.companion_count; i++, variate++) {
        float *values = input->values + variate * windows->context;
        uint8_t *mask = input->mask + variate * windows->context;
        memset(values, 0, windows->context * sizeof *values);
        memset(mask, 0, windows->context);
        gather_companion(windows, segment, i, id, end, length, values, mask);
        /* An empty place informs nobody. */
        bool empty = memchr(mask, 1, windows->context) == NULL;
        input->group[variate] = empty ? (int32_t)(windows->variates.field_count + i) : 0;
        input->log_price[variate] = windows->variates.field[windows->variates.target]->price;
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
    for (uint32_t i = 0; i < windows->variates.field_count; i++, variate++)
        gather_column(windows, id, i, first, length, variate, windows->variates.field[i]->price, input);
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
