#include "wire_test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static wire_buffer_t *buffer;
static wire_scratch_t scratch;
static wire_forecast_t got;

static int setup(void **state)
{
    (void)state;
    return wire_buffer_open(0, &buffer);
}

static int teardown(void **state)
{
    (void)state;
    wire_buffer_close(buffer);
    wire_scratch_free(&scratch);
    return 0;
}

static int decode(void)
{
    return wire_forecast_decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &got, &scratch);
}

static void assert_floats(const float *a, const float *b, size_t count)
{
    assert_true((a == NULL) == (b == NULL));
    if (a)
        assert_memory_equal(a, b, count * sizeof *a);
}

static void assert_comes_back(const wire_forecast_t *sent)
{
    if (wire_forecast_encode(buffer, sent) < 0 || decode() < 0)
        fail_msg("%s", error_text());
    assert_string_equal(got.symbol, sent->symbol);
    assert_string_equal(got.model, sent->model);
    assert_string_equal(got.model_revision, sent->model_revision);
    assert_string_equal(got.worker, sent->worker);
    assert_true(got.interval_ns == sent->interval_ns && got.cutoff_ns == sent->cutoff_ns && got.start_ns == sent->start_ns &&
                got.created_ns == sent->created_ns && got.bar_index == sent->bar_index && got.seq == sent->seq &&
                got.seed == sent->seed && got.last == sent->last);
    assert_true(got.stored_ns == sent->stored_ns && got.assigned_ns == sent->assigned_ns && got.computed_ns == sent->computed_ns &&
                got.published_ns == sent->published_ns);
    assert_true(got.horizon == sent->horizon && got.context == sent->context && got.sample_count == sent->sample_count);
    assert_int_equal(got.quantile_count, sent->quantile_count);
    assert_memory_equal(got.quantile_levels, sent->quantile_levels, sizeof sent->quantile_levels);
    assert_true((got.times_ns == NULL) == (sent->times_ns == NULL));
    if (sent->times_ns)
        assert_memory_equal(got.times_ns, sent->times_ns, sent->horizon * sizeof *sent->times_ns);
    assert_int_equal(got.field_count, sent->field_count);
    for (uint32_t i = 0; i < sent->field_count; i++) {
        const wire_field_t *a = &got.fields[i], *b = &sent->fields[i];
        assert_string_equal(a->field, b->field);
        assert_floats(a->mean, b->mean, sent->horizon);
        assert_floats(a->quantiles, b->quantiles, (size_t)sent->horizon * sent->quantile_count);
        assert_floats(a->samples, b->samples, (size_t)sent->horizon * sent->sample_count);
    }
}

static void the_example_comes_back(void **state)
{
    (void)state;
    assert_comes_back(example_forecast());
}

static void a_forecast_of_mean_only_comes_back(void **state)
{
    (void)state;
    wire_forecast_t sent = *example_forecast();
    sent.quantile_count = sent.sample_count = 0;
    memset(sent.quantile_levels, 0, sizeof sent.quantile_levels);
    sent.field_count = 1;
    sent.fields[0].quantiles = sent.fields[0].samples = NULL;
    assert_comes_back(&sent);
}

static void times_of_their_own_come_back_when_they_ascend(void **state)
{
    (void)state;
    wire_forecast_t sent = *example_forecast();
    int64_t times[] = {1, 60000000000, INT64_MAX};
    sent.cutoff_ns = 0;
    sent.times_ns = times;
    assert_int_equal(sent.horizon, sizeof times / sizeof *times);
    assert_comes_back(&sent);
    times[0] = 0;
    assert_int_equal(wire_forecast_encode(buffer, &sent), WIRE_OK);
    assert_int_equal(decode(), WIRE_ERR_BOUNDS);
    assert_non_null(strstr(error_text(), "times_ns"));
}

static void the_largest_counts_come_back(void **state)
{
    (void)state;
    wire_forecast_t sent = *example_forecast();
    static float values[WIRE_QUANTILES_MOST * WIRE_HORIZON_MOST];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)i;
    sent.quantile_count = WIRE_QUANTILES_MOST;
    for (int i = 0; i < WIRE_QUANTILES_MOST; i++)
        sent.quantile_levels[i] = (i + 1) / 100.0;
    sent.horizon = WIRE_HORIZON_MOST;
    sent.sample_count = 2;
    sent.field_count = WIRE_FIELDS_MOST;
    for (int i = 0; i < WIRE_FIELDS_MOST; i++) {
        sent.fields[i] = (wire_field_t){.mean = values, .quantiles = values};
        memset(sent.fields[i].field, 'a' + i, WIRE_NAME_BYTES - 1);
    }
    assert_comes_back(&sent);

    sent.field_count = 1;
    sent.horizon = 16;
    sent.sample_count = WIRE_SAMPLES_MOST;
    sent.fields[0].samples = values;
    assert_comes_back(&sent);
}

static void the_buffer_remembers_levels_only_while_they_stay_the_same(void **state)
{
    (void)state;
    wire_forecast_t sent = *example_forecast();
    static const double levels[][2] = {{0.1, 0.9}, {0.30000000000000004, 0.9}, {0.3, 0.9999999}, {5e-324, 1e-5}, {0.1, 0.9}};
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        memcpy(sent.quantile_levels, levels[i], sizeof levels[i]);
        assert_comes_back(&sent);
    }
}

static void a_failed_decode_leaves_the_forecast_untouched(void **state)
{
    (void)state;
    assert_int_equal(wire_forecast_encode(buffer, example_forecast()), WIRE_OK);
    wire_forecast_t before;
    memset(&got, 'x', sizeof got);
    before = got;
    assert_int_equal(wire_forecast_decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer) - 1, &got, &scratch),
                     WIRE_ERR_MALFORMED);
    assert_memory_equal(&got, &before, sizeof got);
}

/* ---- what may not be sent --------------------------------------------------------------------------------------------------------- */

static void assert_unsendable(const wire_forecast_t *forecast, const char *message)
{
    assert_int_equal(wire_forecast_encode(buffer, forecast), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), message);
}

static void values_that_are_not_finite_are_not_published(void **state)
{
    (void)state;
    wire_forecast_t sent = *example_forecast();
    float values[EXAMPLE_HORIZON * EXAMPLE_SAMPLES] = {1, 2, 3, 4, (float)NAN, 6};
    sent.fields[0].quantiles = values;
    assert_unsendable(&sent, "forecast: quantiles: 0.975: element 1 is nan, expected a finite number");
    sent.fields[0].quantiles = example_forecast()->fields[0].quantiles;
    sent.fields[0].samples = values;
    assert_unsendable(&sent, "forecast: samples: path 1: element 1 is nan, expected a finite number");
    values[0] = -(float)INFINITY;
    sent.fields[0].samples = NULL;
    sent.fields[0].mean = values;
    assert_unsendable(&sent, "forecast: mean: element 0 is -inf, expected a finite number");
    sent.fields[0].mean = NULL;
    sent.fields[1].mean = values;
    assert_unsendable(&sent, "forecast: fields: volume: element 0 is -inf, expected a finite number");
    sent.fields[1].mean = NULL;
    sent.last = (double)NAN;
    assert_unsendable(&sent, "forecast: last: nan, expected a finite number");
}

static void shapes_out_of_bounds_are_not_sent(void **state)
{
    (void)state;
    wire_forecast_t sent = *example_forecast();
    sent.horizon = WIRE_HORIZON_MOST + 1;
    assert_unsendable(&sent, "forecast: horizon: 16385, expected 1 to 16384");
    sent = *example_forecast();
    sent.sample_count = WIRE_SAMPLES_MOST + 1;
    assert_unsendable(&sent, "forecast: num_samples: 4097, expected 0 to 4096");
    sent = *example_forecast();
    sent.quantile_count = WIRE_QUANTILES_MOST + 1;
    assert_unsendable(&sent, "forecast: quantile_levels: count: 100, expected 0 to 99");
    sent = *example_forecast();
    sent.field_count = 0;
    assert_unsendable(&sent, "forecast: fields: count with the target: 0, expected 1 to 6");
    sent = *example_forecast();
    sent.fields[1].quantiles = NULL;
    assert_unsendable(&sent, "forecast: fields: volume: field volume has none, expected one array a level");
    sent = *example_forecast();
    memset(sent.fields[1].field, 'x', sizeof sent.fields[1].field);
    assert_unsendable(&sent, "forecast: fields: the name of field 1 is too long");
    static const double bad[][2] = {{0, 0.5}, {0.5, 0.5}, {0.6, 0.5}, {0.5, 1}, {(double)NAN, 0.5}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sent = *example_forecast();
        memcpy(sent.quantile_levels, bad[i], sizeof bad[i]);
        assert_int_equal(wire_forecast_encode(buffer, &sent), WIRE_ERR_BOUNDS);
        assert_non_null(strstr(error_text(), "expected ascending levels within (0, 1)"));
    }
}

static void a_message_over_the_limit_is_not_sent(void **state)
{
    (void)state;
    wire_forecast_t sent = *example_forecast();
    sent.horizon = WIRE_HORIZON_MOST;
    sent.sample_count = WIRE_SAMPLES_MOST;
    sent.quantile_count = 0;
    sent.field_count = 1;
    float *samples = calloc((size_t)WIRE_HORIZON_MOST * WIRE_SAMPLES_MOST, sizeof *samples);
    assert_non_null(samples);
    sent.fields[0].mean = NULL;
    sent.fields[0].samples = samples;
    assert_unsendable(&sent, "forecast: the message would have more than 67108864 bytes");
    assert_int_equal(wire_buffer_bytes(buffer), 0);
    free(samples);
}

/* ---- what is not taken ------------------------------------------------------------------------------------------------------------ */

static void replace(const char *key, void (*value)(msgpack_packer *to), int code, const char *message)
{
    msgpack_sbuffer changed;
    msgpack_sbuffer_init(&changed);
    assert_int_equal(wire_forecast_encode(buffer, example_forecast()), WIRE_OK);
    repack(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &(change_t){.replace = key, .value = value}, &changed);
    assert_int_equal(wire_forecast_decode(changed.data, changed.size, &got, &scratch), code);
    if (code < 0)
        assert_string_equal(error_text(), message);
    msgpack_sbuffer_destroy(&changed);
}

static void put_three(msgpack_packer *to, double value)
{
    msgpack_pack_array(to, 3);
    msgpack_pack_int(to, -1); /* an integer will do for a float */
    msgpack_pack_double(to, value);
    msgpack_pack_uint64(to, UINT64_MAX);
}

static void three(msgpack_packer *to)
{
    put_three(to, -(double)FLT_MAX);
}

static void too_large(msgpack_packer *to)
{
    put_three(to, 1e39);
}

static void not_a_number(msgpack_packer *to)
{
    put_three(to, (double)NAN);
}

static void not_a_float(msgpack_packer *to)
{
    msgpack_pack_array(to, 3);
    msgpack_pack_float(to, 1);
    msgpack_pack_float(to, (float)NAN);
    msgpack_pack_float(to, 1);
}

static void two(msgpack_packer *to)
{
    msgpack_pack_array(to, 2);
    msgpack_pack_float(to, 1);
    msgpack_pack_float(to, 2);
}

static void nil(msgpack_packer *to)
{
    msgpack_pack_nil(to);
}

static void large_count(msgpack_packer *to)
{
    msgpack_pack_int(to, 4000);
}

static void unknown_level(msgpack_packer *to)
{
    msgpack_pack_map(to, 2);
    msgpack_pack_str_with_body(to, "0.1", 3);
    three(to);
    msgpack_pack_str_with_body(to, "0.5", 3);
    three(to);
}

static void level_twice(msgpack_packer *to)
{
    msgpack_pack_map(to, 2);
    for (int i = 0; i < 2; i++) {
        msgpack_pack_str_with_body(to, "0.10", 4);
        three(to);
    }
}

static void any_order(msgpack_packer *to)
{
    msgpack_pack_map(to, 2);
    msgpack_pack_str_with_body(to, "0.9750", 6);
    put_three(to, 7);
    msgpack_pack_str_with_body(to, "1e-1", 4);
    put_three(to, 8);
}

static void six_fields(msgpack_packer *to)
{
    msgpack_pack_map(to, 6);
    for (int i = 0; i < 12; i++)
        msgpack_pack_nil(to);
}

static void arrays_must_fit_the_counts_and_hold_finite_floats(void **state)
{
    (void)state;
    replace("mean", three, WIRE_OK, "");
    assert_true(got.fields[0].mean[0] == -1.0f && got.fields[0].mean[1] == -FLT_MAX && got.fields[0].mean[2] == 0x1p64f);
    replace("mean", nil, WIRE_OK, "");
    assert_null(got.fields[0].mean);
    replace("quantiles", any_order, WIRE_OK, "");
    assert_true(got.fields[0].quantiles[1] == 8 && got.fields[0].quantiles[4] == 7);
    replace("mean", too_large, WIRE_ERR_BOUNDS, "forecast: close: mean: element 1 is 1e+39, expected a finite float");
    replace("mean", not_a_number, WIRE_ERR_BOUNDS, "forecast: close: mean: element 1 is nan, expected a finite float");
    replace("mean", not_a_float, WIRE_ERR_BOUNDS, "forecast: close: mean: element 1 is nan, expected a finite float");
    replace("mean", two, WIRE_ERR_BOUNDS, "forecast: close: mean: 2 elements, expected 3");
    replace("quantiles", nil, WIRE_ERR_MALFORMED, "forecast: close: quantiles: expected a map, got nil");
    replace("quantiles", unknown_level, WIRE_ERR_MALFORMED,
            "forecast: close: quantiles: \"0.5\": expected each of quantile_levels once");
    replace("quantiles", level_twice, WIRE_ERR_MALFORMED,
            "forecast: close: quantiles: \"0.10\": expected each of quantile_levels once");
    replace("quantile_levels", two, WIRE_ERR_BOUNDS,
            "forecast: quantile_levels: 1 after 0, expected ascending levels within (0, 1)");
    replace("samples", two, WIRE_ERR_MALFORMED, "forecast: close: samples: expected an array, got a float");
    replace("samples", three, WIRE_ERR_BOUNDS, "forecast: close: samples: 3 elements, expected 2");
    replace("fields", six_fields, WIRE_ERR_BOUNDS, "forecast: fields: 6 elements, expected at most 5");
}

static void sizes_that_the_message_cannot_hold_allocate_nothing(void **state)
{
    (void)state;
    wire_scratch_t none = {0};
    msgpack_sbuffer changed;
    msgpack_sbuffer_init(&changed);
    assert_int_equal(wire_forecast_encode(buffer, example_forecast()), WIRE_OK);
    repack(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &(change_t){.replace = "horizon", .value = large_count}, &changed);
    assert_int_equal(wire_forecast_decode(changed.data, changed.size, &got, &none), WIRE_ERR_BOUNDS);
    assert_non_null(strstr(error_text(), "forecast: 28000 values expected by its horizon, levels and samples, but it has"));
    assert_null(none.values);
    msgpack_sbuffer_destroy(&changed);
}

/* ---- what a subscriber in another language sees ----------------------------------------------------------------------------------- */

static const msgpack_object *find(const msgpack_object *map, const char *key)
{
    assert_int_equal(map->type, MSGPACK_OBJECT_MAP);
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_str *name = &map->via.map.ptr[i].key.via.str;
        if (name->size == strlen(key) && memcmp(name->ptr, key, name->size) == 0)
            return &map->via.map.ptr[i].val;
    }
    fail_msg("no key %s", key);
    return NULL;
}

static void any_messagepack_library_reads_it(void **state)
{
    (void)state;
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    assert_int_equal(wire_forecast_encode(buffer, example_forecast()), WIRE_OK);
    assert_int_equal(msgpack_unpack_next(&message, wire_buffer_data(buffer), wire_buffer_bytes(buffer), NULL),
                     MSGPACK_UNPACK_SUCCESS);
    const msgpack_object *m = &message.data;
    assert_int_equal(find(m, "v")->via.u64, WIRE_VERSION);
    assert_memory_equal(find(m, "t")->via.str.ptr, "forecast", 8);
    assert_memory_equal(find(m, "target")->via.str.ptr, "close", 5);
    assert_int_equal(find(m, "num_samples")->via.u64, EXAMPLE_SAMPLES);
    assert_int_equal(find(m, "step_ns")->via.u64, 60000000000);
    assert_int_equal(find(m, "mean")->via.array.size, EXAMPLE_HORIZON);
    assert_int_equal(find(m, "mean")->via.array.ptr[0].type, MSGPACK_OBJECT_FLOAT32);
    assert_true(find(m, "quantile_levels")->via.array.ptr[1].via.f64 == 0.975);
    assert_true(find(find(m, "quantiles"), "0.975")->via.array.ptr[0].via.f64 == 4);
    assert_int_equal(find(m, "samples")->via.array.size, EXAMPLE_SAMPLES);
    assert_int_equal(find(m, "samples")->via.array.ptr[1].via.array.size, EXAMPLE_HORIZON);
    const msgpack_object *volume = find(find(m, "fields"), "volume");
    assert_int_equal(find(volume, "mean")->type, MSGPACK_OBJECT_NIL);
    assert_true(find(find(volume, "quantiles"), "0.1")->via.array.ptr[0].via.f64 == -1);
    const msgpack_object *latency = find(m, "latency_us");
    assert_true(find(latency, "queue")->via.f64 == 1.5 && find(latency, "compute")->via.f64 == 250 &&
                find(latency, "publish")->via.f64 == 0.5 && find(latency, "total")->via.f64 == 252);
    msgpack_unpacked_destroy(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_comes_back),
        cmocka_unit_test(a_forecast_of_mean_only_comes_back),
        cmocka_unit_test(times_of_their_own_come_back_when_they_ascend),
        cmocka_unit_test(the_largest_counts_come_back),
        cmocka_unit_test(the_buffer_remembers_levels_only_while_they_stay_the_same),
        cmocka_unit_test(a_failed_decode_leaves_the_forecast_untouched),
        cmocka_unit_test(values_that_are_not_finite_are_not_published),
        cmocka_unit_test(shapes_out_of_bounds_are_not_sent),
        cmocka_unit_test(a_message_over_the_limit_is_not_sent),
        cmocka_unit_test(arrays_must_fit_the_counts_and_hold_finite_floats),
        cmocka_unit_test(sizes_that_the_message_cannot_hold_allocate_nothing),
        cmocka_unit_test(any_messagepack_library_reads_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
