/* Windows that are kept between forecasts, against what the test itself remembers of every bar: through appended bars, corrections, lapped rings, a
 * lapped log and a writer that comes back. */
#include "gpuworker/windows.h"
#include "shm/ring.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RING = 64, LOG = 1024, CONTEXT = 13, CONTEXT_MIN = 3, HORIZON = 2, SYMBOLS = 3, FIELDS = 2, BARS_MOST = 40000 };
static const int64_t interval_ns = INT64_C(60) * 1000000000;

typedef struct {
    uint64_t head; /* bars */
    bool open;     /* the newest is in progress */
    shm_bar_t bars[BARS_MOST];
} history_t;

typedef struct {
    char name[SHM_NAME_BYTES];
    shm_segment_t *segment;
    windows_t *windows;
    history_t *history; /* [SYMBOLS] */
    uint64_t random;
    float values[FIELDS * CONTEXT];
    uint8_t mask[FIELDS * CONTEXT];
    uint32_t length;
    int32_t group[FIELDS];
    uint64_t key;
    uint8_t log_price[FIELDS];
    int64_t time_ns[CONTEXT + HORIZON];
    uint64_t windows_compared;
} fixture_t;

static void open_segment(fixture_t *f, bool expect_rejoined)
{
    bool rejoined;
    shm_segment_options_t options = {
        .name = f->name, .symbols_max = SYMBOLS, .ring_bars = RING, .log_entries = LOG, .group_id = -1};
    assert_int_equal(shm_segment_create(&options, &f->segment, &rejoined), SHM_OK);
    assert_int_equal(rejoined, expect_rejoined);
}

static int setup(void **state)
{
    fixture_t *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->history = calloc(SYMBOLS, sizeof *f->history);
    assert_non_null(f->history);
    f->random = 1;
    snprintf(f->name, sizeof f->name, "test-kept-windows-%d", (int)getpid());
    open_segment(f, false);
    for (uint32_t i = 0; i < SYMBOLS; i++) {
        uint32_t id;
        assert_int_equal(shm_symbol_add(f->segment, (const char *const[]){"AAA", "BBB", "CCC"}[i], interval_ns, &id), SHM_OK);
        assert_int_equal(id, i);
    }
    config_model_t model = {.fields = "volume, close", .context_min = CONTEXT_MIN, .seed = 7};
    assert_int_equal(windows_open(&model, &(model_info_t){.calendar = true}, CONTEXT, &f->windows), WINDOWS_OK);
    assert_int_equal(windows_join(f->windows, f->segment), WINDOWS_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_t *f = *state;
    windows_close(f->windows);
    shm_segment_leave(f->segment);
    shm_segment_delete(f->name);
    free(f->history);
    free(f);
    return 0;
}

static uint32_t draw(fixture_t *f, uint32_t below)
{
    f->random = f->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(f->random >> 33) % below;
}

/* Volumes are unknown for long stretches, so that some windows know none. */
static shm_bar_t random_bar(fixture_t *f, uint64_t index)
{
    double close = 1 + draw(f, 100000) / 7.0;
    bool unknown = index / 20 % 2 == 1 || draw(f, 4) == 0;
    return (shm_bar_t){.open_time_ns = ((int64_t)index * 2 + 1) * interval_ns,
                       .open = close,
                       .high = close,
                       .low = close,
                       .close = close,
                       .volume = unknown ? (double)NAN : close * 3,
                       .amount = (double)NAN,
                       .flags = SHM_BAR_NO_AMOUNT | (unknown ? SHM_BAR_NO_VOLUME : 0)};
}

static void append(fixture_t *f, uint32_t id, bool open)
{
    history_t *history = &f->history[id];
    assert_true(history->head < BARS_MOST);
    shm_bar_t bar = random_bar(f, history->head);
    bar.flags |= open ? SHM_BAR_IN_PROGRESS : 0;
    assert_int_equal(shm_ring_append(f->segment, id, &bar), SHM_OK);
    history->bars[history->head++] = bar;
    history->open = open;
}

/* A bar `back` bars before the newest one, which stays in progress if it is. */
static void amend(fixture_t *f, uint32_t id, uint64_t back)
{
    history_t *history = &f->history[id];
    if (back >= history->head || back + 1 >= RING)
        return;
    uint64_t index = history->head - 1 - back;
    shm_bar_t bar = random_bar(f, index);
    bar.flags |= back == 0 && history->open ? SHM_BAR_IN_PROGRESS : 0;
    assert_int_equal(shm_ring_amend(f->segment, id, &bar), SHM_OK);
    history->bars[index] = bar;
}

static void close_newest(fixture_t *f, uint32_t id)
{
    history_t *history = &f->history[id];
    if (!history->open)
        return;
    history->open = false;
    amend(f, id, 0);
}

static void lap_the_log(fixture_t *f, uint32_t id)
{
    for (int i = 0; i < LOG + 1; i++)
        amend(f, id, draw(f, RING));
}

static void bring_the_writer_back(fixture_t *f)
{
    shm_segment_leave(f->segment);
    open_segment(f, true);
}

static wire_item_status_t gather(fixture_t *f, uint32_t id, uint64_t end, window_t *window)
{
    model_shape_t shape = {.batch = 1, .variates = FIELDS, .context = CONTEXT, .horizon = HORIZON};
    model_input_t input = {.values = f->values,
                           .mask = f->mask,
                           .length = &f->length,
                           .group = f->group,
                           .key = &f->key,
                           .log_price = f->log_price,
                           .time_ns = f->time_ns};
    memset(f->values, 0xff, sizeof f->values);
    memset(f->mask, 0xff, sizeof f->mask);
    return windows_gather(f->windows, f->segment, &(wire_item_t){.symbol_id = id, .end = end}, &shape, &input, 0, window);
}

static void expect_variate(const fixture_t *f, uint32_t row, const shm_bar_t *bars, uint32_t length, size_t offset)
{
    for (uint32_t i = 0; i < CONTEXT; i++) {
        double value = NAN;
        if (i >= CONTEXT - length)
            memcpy(&value, (const char *)&bars[i - (CONTEXT - length)] + offset, sizeof value);
        assert_int_equal(f->mask[row * CONTEXT + i], isfinite(value));
        assert_true(f->values[row * CONTEXT + i] == (isfinite(value) ? (float)value : 0));
    }
}

/* The window of bars [.., end), if it is to be had, is what the test remembers. */
static void expect_window(fixture_t *f, uint32_t id, uint64_t end)
{
    const history_t *history = &f->history[id];
    uint32_t length = end < CONTEXT ? (uint32_t)end : CONTEXT;
    const shm_bar_t *bars = history->bars + end - length;
    double last = NAN;
    for (uint32_t i = 0; i < length; i++)
        last = isfinite(bars[i].volume) ? bars[i].volume : last;

    window_t window;
    windows_catch_up(f->windows, f->segment);
    wire_item_status_t status = gather(f, id, end, &window);
    if (status == WIRE_ITEM_OVERRUN) {
        assert_true(end - length + RING < history->head);
        return;
    }
    assert_int_equal(status, end < CONTEXT_MIN || isnan(last) ? WIRE_ITEM_TOO_SHORT : WIRE_ITEM_OK);
    if (status != WIRE_ITEM_OK)
        return;
    expect_variate(f, 0, bars, length, offsetof(shm_bar_t, volume));
    expect_variate(f, 1, bars, length, offsetof(shm_bar_t, close));
    assert_true(window.last == last);
    assert_int_equal(window.cutoff_ns, bars[length - 1].open_time_ns);
    assert_int_equal(f->length, length);
    for (uint32_t i = 0; i < length; i++)
        assert_int_equal(f->time_ns[CONTEXT - length + i], bars[i].open_time_ns);
    f->windows_compared++;
}

static void expect_newest_window(fixture_t *f, uint32_t id)
{
    expect_window(f, id, f->history[id].head - f->history[id].open);
}

static void take_random_step(fixture_t *f)
{
    uint32_t id = draw(f, SYMBOLS), what = draw(f, 1000);
    if (what < 400) {
        append(f, id, draw(f, 3) == 0);
    } else if (what < 600) {
        amend(f, id, draw(f, RING));
    } else if (what < 700) {
        close_newest(f, id);
    } else if (what < 705) {
        for (uint32_t i = draw(f, 2 * RING); i > 0; i--)
            append(f, id, false);
    } else if (what < 707) {
        lap_the_log(f, id);
    } else if (what < 709) {
        bring_the_writer_back(f);
    } else {
        uint64_t closed = f->history[id].head - f->history[id].open, back = draw(f, 8) ? 0 : draw(f, RING);
        expect_window(f, id, closed > back ? closed - back : 0);
    }
}

static void window_is_exact_whatever_happened_since_the_last_one(void **state)
{
    fixture_t *f = *state;
    for (int i = 0; i < 30000; i++)
        take_random_step(f);
    assert_true(f->windows_compared > 3000);
}

static void correction_is_in_the_next_batch(void **state)
{
    fixture_t *f = *state;
    for (int i = 0; i < 18; i++)
        append(f, 0, false);
    expect_newest_window(f, 0);
    for (uint64_t back = 0; back < CONTEXT; back++) {
        amend(f, 0, back);
        expect_newest_window(f, 0);
    }
    assert_int_equal(f->windows_compared, 1 + CONTEXT);
}

static void kept_window_needs_only_new_bars_of_the_ring(void **state)
{
    fixture_t *f = *state;
    for (int i = 0; i < CONTEXT; i++)
        append(f, 0, false);
    expect_window(f, 0, CONTEXT);
    for (int i = 0; i < RING; i++)
        append(f, 0, false);
    expect_window(f, 0, CONTEXT + 1);
    assert_int_equal(f->windows_compared, 2);
}

static void windows_of_another_segment_begin_anew(void **state)
{
    fixture_t *f = *state;
    for (int i = 0; i < 18; i++)
        append(f, 0, false);
    expect_newest_window(f, 0);
    shm_segment_leave(f->segment);
    shm_segment_delete(f->name);
    open_segment(f, false);
    uint32_t id;
    assert_int_equal(shm_symbol_add(f->segment, "ZZZ", interval_ns, &id), SHM_OK);
    assert_int_equal(windows_join(f->windows, f->segment), WINDOWS_OK);
    f->history[0].head = 0;
    for (int i = 0; i < 18; i++)
        append(f, 0, false);
    expect_newest_window(f, 0);
    assert_int_equal(f->windows_compared, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(window_is_exact_whatever_happened_since_the_last_one, setup, teardown),
        cmocka_unit_test_setup_teardown(correction_is_in_the_next_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(kept_window_needs_only_new_bars_of_the_ring, setup, teardown),
        cmocka_unit_test_setup_teardown(windows_of_another_segment_begin_anew, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
