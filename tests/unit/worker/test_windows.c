/* Windows gathered from a real segment into staged inputs. */
#include "base/error.h"
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

enum { RING = 64, CONTEXT = 8, HORIZON = 3, BATCH = 2, FIELDS = 2 };
static const int64_t interval_ns = INT64_C(60) * 1000000000;

typedef struct {
    char name[SHM_NAME_BYTES];
    shm_segment_t *segment;
    uint32_t id;
    windows_t *windows;
    model_shape_t shape;
    model_input_t input;
    float values[BATCH * FIELDS * CONTEXT];
    uint8_t mask[BATCH * FIELDS * CONTEXT];
    uint32_t length[BATCH];
    int32_t group[BATCH * FIELDS];
    uint64_t key[BATCH];
    uint8_t log_price[BATCH * FIELDS];
    int64_t time_ns[BATCH * (CONTEXT + HORIZON)];
} fixture_t;

static config_model_t model_config(void)
{
    return (config_model_t){.fields = "close, volume", .context = CONTEXT, .context_min = 3, .horizon = HORIZON, .seed = 7};
}

static int setup(void **state)
{
    fixture_t *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->name, sizeof f->name, "test-windows-%d", (int)getpid());
    shm_segment_options_t options = {.name = f->name, .symbols_max = 4, .ring_bars = RING, .log_entries = 1024, .group_id = -1};
    bool rejoined;
    assert_int_equal(shm_segment_create(&options, &f->segment, &rejoined), SHM_OK);
    assert_int_equal(shm_symbol_add(f->segment, "AAA", interval_ns, &f->id), SHM_OK);
    config_model_t model = model_config();
    assert_int_equal(windows_open(&model, &(model_info_t){.calendar = true}, CONTEXT, &f->windows), WINDOWS_OK);
    assert_int_equal(windows_join(f->windows, f->segment), WINDOWS_OK);
    f->shape = (model_shape_t){.batch = BATCH, .variates = FIELDS, .context = CONTEXT, .horizon = HORIZON};
    f->input = (model_input_t){.values = f->values,
                               .mask = f->mask,
                               .length = f->length,
                               .group = f->group,
                               .key = f->key,
                               .log_price = f->log_price,
                               .time_ns = f->time_ns};
    memset(f->values, 0xff, sizeof f->values);
    memset(f->mask, 0xff, sizeof f->mask);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_t *f = *state;
    windows_close(f->windows);
    shm_segment_leave(f->segment);
    shm_segment_delete(f->name);
    free(f);
    return 0;
}

/* Bar i closes at 100 + i and trades i, which is unknown where i is 5. */
static void append(const fixture_t *f, uint64_t from, uint64_t count)
{
    for (uint64_t i = from; i < from + count; i++) {
        double close = 100 + (double)i;
        shm_bar_t bar = {.open_time_ns = (int64_t)(i + 1) * interval_ns,
                         .open = close,
                         .high = close,
                         .low = close,
                         .close = close,
                         .volume = i == 5 ? (double)NAN : (double)i,
                         .amount = (double)NAN,
                         .flags = SHM_BAR_NO_AMOUNT | (i == 5 ? SHM_BAR_NO_VOLUME : 0)};
        assert_int_equal(shm_ring_append(f->segment, f->id, &bar), SHM_OK);
    }
}

static wire_item_status_t gather(fixture_t *f, uint64_t end, uint32_t row, window_t *window)
{
    wire_item_t item = {.symbol_id = f->id, .end = end};
    return windows_gather(f->windows, f->segment, &item, &f->shape, &f->input, row, window);
}

static void window_holds_the_bars_before_end(void **state)
{
    fixture_t *f = *state;
    append(f, 0, 20);
    window_t window;
    assert_int_equal(gather(f, 12, 1, &window), WIRE_ITEM_OK);
    assert_string_equal(window.symbol, "AAA");
    assert_int_equal(window.cutoff_ns, 12 * interval_ns);
    assert_int_equal(window.interval_ns, interval_ns);
    assert_true(window.last == 111);
    assert_int_equal(f->length[1], CONTEXT);
    const float *close = f->values + FIELDS * CONTEXT, *volume = close + CONTEXT;
    for (int i = 0; i < CONTEXT; i++) {
        bool known = i + 4 != 5;
        assert_true(close[i] == (float)(104 + i));
        assert_int_equal(f->mask[FIELDS * CONTEXT + i], 1);
        assert_true(volume[i] == (known ? (float)(4 + i) : 0));
        assert_int_equal(f->mask[FIELDS * CONTEXT + CONTEXT + i], known);
    }
    assert_int_equal(f->log_price[2], 1);
    assert_int_equal(f->log_price[3], 0);
}

static void short_history_stands_at_the_end(void **state)
{
    fixture_t *f = *state;
    append(f, 0, 3);
    window_t window;
    assert_int_equal(gather(f, 3, 0, &window), WIRE_ITEM_OK);
    assert_int_equal(f->length[0], 3);
    for (int i = 0; i < CONTEXT; i++) {
        bool exists = i >= CONTEXT - 3;
        assert_int_equal(f->mask[i], exists);
        assert_true(f->values[i] == (exists ? (float)(100 + i - (CONTEXT - 3)) : 0));
    }
}

static void times_go_on_before_and_after_the_bars(void **state)
{
    fixture_t *f = *state;
    append(f, 0, 3);
    window_t window;
    assert_int_equal(gather(f, 3, 0, &window), WIRE_ITEM_OK);
    for (int i = 0; i < CONTEXT + HORIZON; i++)
        assert_int_equal(f->time_ns[i], (i - CONTEXT + 1 + 3) * interval_ns);
}

static void key_is_that_of_seed_symbol_and_cutoff(void **state)
{
    fixture_t *f = *state;
    append(f, 0, 20);
    window_t window;
    assert_int_equal(gather(f, 12, 0, &window), WIRE_ITEM_OK);
    assert_int_equal(f->key[0], model_random_key(7, "AAA", window.cutoff_ns));
}

static void history_below_context_min_is_too_short(void **state)
{
    fixture_t *f = *state;
    append(f, 0, 20);
    window_t window;
    assert_int_equal(gather(f, 2, 0, &window), WIRE_ITEM_TOO_SHORT);
    assert_int_equal(gather(f, 0, 0, &window), WIRE_ITEM_TOO_SHORT);
}

static void lapped_window_is_an_overrun(void **state)
{
    fixture_t *f = *state;
    append(f, 0, 20);
    append(f, 20, RING);
    window_t window;
    assert_int_equal(gather(f, 20, 0, &window), WIRE_ITEM_OVERRUN);
    assert_int_equal(gather(f, 20 + RING, 0, &window), WIRE_ITEM_OK);
}

static void symbol_or_bar_that_does_not_exist_is_stale(void **state)
{
    fixture_t *f = *state;
    append(f, 0, 5);
    window_t window;
    wire_item_t item = {.symbol_id = f->id + 1, .end = 5};
    assert_int_equal(windows_gather(f->windows, f->segment, &item, &f->shape, &f->input, 0, &window), WIRE_ITEM_STALE);
    assert_int_equal(gather(f, 6, 0, &window), WIRE_ITEM_STALE);
}

static void target_without_any_value_is_too_short(void **state)
{
    fixture_t *f = *state;
    config_model_t model = model_config();
    strcpy(model.fields, "amount");
    windows_close(f->windows);
    assert_int_equal(windows_open(&model, &(model_info_t){0}, CONTEXT, &f->windows), WINDOWS_OK);
    assert_int_equal(windows_join(f->windows, f->segment), WINDOWS_OK);
    f->shape.variates = 1;
    append(f, 0, 20);
    window_t window;
    assert_int_equal(gather(f, 20, 0, &window), WIRE_ITEM_TOO_SHORT);
}

static void field_that_no_bar_has_is_refused(void **state)
{
    (void)state;
    config_model_t model = model_config();
    windows_t *windows = NULL;
    strcpy(model.fields, "close, colour");
    assert_int_equal(windows_open(&model, &(model_info_t){0}, CONTEXT, &windows), WINDOWS_ERR_VARIATES);
    assert_null(windows);
}

static void whole_bars_have_all_six_fields_and_the_close_as_target(void **state)
{
    (void)state;
    config_model_t model = model_config();
    windows_t *windows = NULL;
    assert_int_equal(windows_open(&model, &(model_info_t){.whole_bars = true}, CONTEXT, &windows), WINDOWS_ERR_VARIATES);
    *model.fields = '\0';
    assert_int_equal(windows_open(&model, &(model_info_t){.whole_bars = true}, CONTEXT, &windows), WINDOWS_OK);
    assert_int_equal(windows_variates(windows)->field_count, 6);
    assert_string_equal(windows_variates(windows)->field[windows_variates(windows)->target]->name, "close");
    assert_string_equal(windows_variates(windows)->field[5]->name, "amount");
    windows_close(windows);
}

static void a_lone_field_is_the_close_where_none_is_named(void **state)
{
    (void)state;
    config_model_t model = model_config();
    windows_t *windows = NULL;
    *model.fields = '\0';
    assert_int_equal(windows_open(&model, &(model_info_t){0}, CONTEXT, &windows), WINDOWS_OK);
    assert_int_equal(windows_variates(windows)->field_count, 1);
    assert_string_equal(windows_variates(windows)->field[0]->name, "close");
    windows_close(windows);
}

/* AAA sees itself, BBB and a symbol that does not exist. BBB's bar of AAA's seventh time is missing, its ninth has not arrived. */
static void a_companion_stands_at_the_times_of_the_own_bars(void **state)
{
    fixture_t *f = *state;
    config_model_t model = model_config();
    uint32_t other;
    strcpy(model.fields, "close");
    strcpy(model.companions, "AAA, BBB, CCC");
    windows_close(f->windows);
    assert_int_equal(windows_open(&model, &(model_info_t){.variates = true}, CONTEXT, &f->windows), WINDOWS_OK);
    assert_int_equal(variates_count(windows_variates(f->windows)), 4);
    assert_int_equal(windows_join(f->windows, f->segment), WINDOWS_OK);
    assert_int_equal(shm_symbol_add(f->segment, "BBB", interval_ns, &other), SHM_OK);
    append(f, 0, 9);
    for (int i = 0; i < 8; i++) {
        shm_bar_t bar = {.open_time_ns = (i + 1) * interval_ns, .close = 200 + i, .volume = NAN, .amount = NAN};
        if (i != 6)
            assert_int_equal(shm_ring_append(f->segment, other, &bar), SHM_OK);
    }

    enum { VARIATES = 4 };
    float values[VARIATES * CONTEXT];
    uint8_t mask[VARIATES * CONTEXT], log_price[VARIATES];
    int32_t group[VARIATES];
    model_shape_t shape = {.batch = 1, .variates = VARIATES, .context = CONTEXT, .horizon = HORIZON};
    model_input_t input = f->input;
    input.values = values;
    input.mask = mask;
    input.group = group;
    input.log_price = log_price;
    input.time_ns = NULL; /* a model without a calendar has none filled in */
    memset(mask, 0xff, sizeof mask);
    window_t window;
    wire_item_t item = {.symbol_id = f->id, .end = 9};
    assert_int_equal(windows_gather(f->windows, f->segment, &item, &shape, &input, 0, &window), WIRE_ITEM_OK);
    const uint8_t seen[CONTEXT] = {1, 1, 1, 1, 1, 0, 1, 0}; /* of bars 1 to 8 */
    for (int i = 0; i < CONTEXT; i++) {
        assert_int_equal(mask[1 * CONTEXT + i], 0);
        assert_int_equal(mask[2 * CONTEXT + i], seen[i]);
        assert_true(values[2 * CONTEXT + i] == (seen[i] ? 201 + (float)i : 0));
        assert_int_equal(mask[3 * CONTEXT + i], 0);
    }
    assert_int_equal(group[0], group[2]);
    assert_true(group[1] != group[0] && group[3] != group[0] && group[1] != group[3]);
}

static void a_model_of_one_variate_takes_no_companions(void **state)
{
    (void)state;
    config_model_t model = model_config();
    windows_t *windows = NULL;
    strcpy(model.companions, "SPY");
    assert_int_equal(windows_open(&model, &(model_info_t){0}, CONTEXT, &windows), WINDOWS_ERR_VARIATES);
    assert_non_null(strstr(error_text(), "SPY"));
}

/* 1970-01-01 was a Thursday; bar i opens i + 1 minutes into it, UTC. */
static void cycles_are_known_of_the_future_too(void **state)
{
    fixture_t *f = *state;
    config_model_t model = model_config();
    const double two_pi = 2 * acos(-1), minute = two_pi / (24 * 60);
    enum { VARIATES = 5, KNOWN = 4 }; /* close, then day and week */
    float values[VARIATES * CONTEXT], future[KNOWN * HORIZON];
    uint8_t mask[VARIATES * CONTEXT], log_price[VARIATES];
    int32_t group[VARIATES];
    strcpy(model.fields, "close");
    strcpy(model.cycles, "day, week");
    windows_close(f->windows);
    assert_int_equal(windows_open(&model, &(model_info_t){.exogenous = true}, CONTEXT, &f->windows), WINDOWS_OK);
    assert_int_equal(variates_count(windows_variates(f->windows)), VARIATES);
    assert_int_equal(windows_variates(f->windows)->known_count, KNOWN);
    assert_int_equal(windows_join(f->windows, f->segment), WINDOWS_OK);
    append(f, 0, 5);

    model_shape_t shape = {.batch = 1, .variates = VARIATES, .exogenous = KNOWN, .context = CONTEXT, .horizon = HORIZON};
    model_input_t input = f->input;
    input.values = values;
    input.mask = mask;
    input.group = group;
    input.log_price = log_price;
    input.future = future;
    window_t window;
    wire_item_t item = {.symbol_id = f->id, .end = 5};
    assert_int_equal(windows_gather(f->windows, f->segment, &item, &shape, &input, 0, &window), WIRE_ITEM_OK);
    for (int i = 0; i < CONTEXT; i++) {
        int bar = i - (CONTEXT - 5);
        for (int v = 0; v < VARIATES; v++)
            assert_int_equal(mask[v * CONTEXT + i], bar >= 0);
        assert_true(fabs((double)values[1 * CONTEXT + i] - (bar < 0 ? 0 : sin((bar + 1) * minute))) < 1e-6);
        assert_true(fabs((double)values[2 * CONTEXT + i] - (bar < 0 ? 0 : cos((bar + 1) * minute))) < 1e-6);
        assert_true(fabs((double)values[3 * CONTEXT + i] - (bar < 0 ? 0 : sin((bar + 1) * minute / 7))) < 1e-6);
    }
    for (int h = 0; h < HORIZON; h++) {
        assert_true(fabs((double)future[h] - sin((6 + h) * minute)) < 1e-6);
        assert_true(fabs((double)future[3 * HORIZON + h] - cos((6 + h) * minute / 7)) < 1e-6);
    }
    strcpy(model.cycles, "day, month");
    windows_t *windows = NULL;
    assert_int_equal(windows_open(&model, &(model_info_t){.exogenous = true}, CONTEXT, &windows), WINDOWS_ERR_VARIATES);
    strcpy(model.cycles, "day");
    assert_int_equal(windows_open(&model, &(model_info_t){0}, CONTEXT, &windows), WINDOWS_ERR_VARIATES);
    assert_null(windows);
}

/* Bar 2 opens on 1970-01-01 at 00:03 UTC, two minutes before the session in Tokyo ends. */
static void market_hours_carry_the_times_over_the_night(void **state)
{
    fixture_t *f = *state;
    config_model_t model = model_config();
    windows_close(f->windows);
    strcpy(model.timezone, "Asia/Tokyo");
    strcpy(model.hours, "09:00-09:05");
    assert_int_equal(windows_open(&model, &(model_info_t){.calendar = true}, CONTEXT, &f->windows), WINDOWS_OK);
    assert_int_equal(windows_join(f->windows, f->segment), WINDOWS_OK);
    append(f, 0, 3);
    window_t window;
    assert_int_equal(gather(f, 3, 0, &window), WIRE_ITEM_OK);
    const int64_t nine = INT64_C(9) * 60 * interval_ns, day = 24 * 60 * interval_ns;
    const int64_t expected[HORIZON] = {4 * interval_ns, day, day + interval_ns};
    for (int i = 0; i < HORIZON; i++)
        assert_int_equal(f->time_ns[CONTEXT + i], nine + expected[i]);
    int64_t future[HORIZON];
    variates_future(windows_variates(f->windows), window.cutoff_ns, window.interval_ns, HORIZON, future);
    assert_int_equal(future[1], day);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_bars_have_all_six_fields_and_the_close_as_target),
        cmocka_unit_test(a_lone_field_is_the_close_where_none_is_named),
        cmocka_unit_test_setup_teardown(a_companion_stands_at_the_times_of_the_own_bars, setup, teardown),
        cmocka_unit_test(a_model_of_one_variate_takes_no_companions),
        cmocka_unit_test_setup_teardown(cycles_are_known_of_the_future_too, setup, teardown),
        cmocka_unit_test_setup_teardown(market_hours_carry_the_times_over_the_night, setup, teardown),
        cmocka_unit_test_setup_teardown(window_holds_the_bars_before_end, setup, teardown),
        cmocka_unit_test_setup_teardown(short_history_stands_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(times_go_on_before_and_after_the_bars, setup, teardown),
        cmocka_unit_test_setup_teardown(key_is_that_of_seed_symbol_and_cutoff, setup, teardown),
        cmocka_unit_test_setup_teardown(history_below_context_min_is_too_short, setup, teardown),
        cmocka_unit_test_setup_teardown(lapped_window_is_an_overrun, setup, teardown),
        cmocka_unit_test_setup_teardown(symbol_or_bar_that_does_not_exist_is_stale, setup, teardown),
        cmocka_unit_test_setup_teardown(target_without_any_value_is_too_short, setup, teardown),
        cmocka_unit_test(field_that_no_bar_has_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
