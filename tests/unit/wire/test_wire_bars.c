#include "wire_test.h"

#include <math.h>
#include <string.h>

enum { ROOM = 8 };

typedef struct {
    wire_bar_t bars[ROOM];
    size_t count;
} kept_t;

static wire_buffer_t *buffer;
static msgpack_sbuffer packed;
static msgpack_packer to;
static kept_t kept;
static size_t rejected;

static int setup(void **state)
{
    (void)state;
    msgpack_sbuffer_init(&packed);
    return wire_buffer_open(0, &buffer);
}

static int teardown(void **state)
{
    (void)state;
    wire_buffer_close(buffer);
    msgpack_sbuffer_destroy(&packed);
    return 0;
}

static void keep(void *context, const wire_bar_t *bar)
{
    kept_t *all = context;
    if (all->count < ROOM)
        all->bars[all->count] = *bar;
    all->count++;
}

static int decode(const void *data, size_t bytes)
{
    kept = (kept_t){0};
    rejected = 77;
    return wire_bars_decode(data, bytes, keep, &kept, &rejected);
}

static wire_bar_t make_bar(int64_t time_ns)
{
    return (wire_bar_t){
        .symbol = "AAPL",
        .bar = {.open_time_ns = time_ns, .open = 1, .high = 2.5, .low = 0.5, .close = 2, .volume = 10, .amount = 20}};
}

/* ---- from our encoder ------------------------------------------------------------------------------------------------------------- */

static void one_bar_and_many_come_back(void **state)
{
    (void)state;
    wire_bar_t sent[3] = {make_bar(1), make_bar(2), make_bar(INT64_MIN)};
    sent[1].bar.flags = SHM_BAR_IN_PROGRESS;
    sent[1].interval_ns = 60000000000;
    for (size_t count = 0; count <= 3; count++) {
        assert_int_equal(wire_bars_encode(buffer, sent, count), WIRE_OK);
        wire_type_t type;
        assert_int_equal(wire_peek(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &type), WIRE_OK);
        assert_int_equal(type, WIRE_BAR);
        assert_int_equal(decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer)), WIRE_OK);
        assert_int_equal(kept.count, count);
        assert_int_equal(rejected, 0);
        assert_memory_equal(kept.bars, sent, count * sizeof *sent);
    }
}

static void unknown_volume_and_amount_stay_unknown(void **state)
{
    (void)state;
    wire_bar_t sent = make_bar(1);
    sent.bar.volume = sent.bar.amount = (double)NAN;
    assert_int_equal(wire_bars_encode(buffer, &sent, 1), WIRE_OK);
    assert_int_equal(decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer)), WIRE_OK);
    assert_true(isnan(kept.bars[0].bar.volume) && isnan(kept.bars[0].bar.amount));
    assert_int_equal(kept.bars[0].bar.flags, SHM_BAR_NO_VOLUME | SHM_BAR_NO_AMOUNT);
}

static void prices_are_passed_on_unjudged(void **state)
{
    (void)state;
    wire_bar_t sent = make_bar(1);
    sent.bar.open = (double)INFINITY;
    sent.bar.low = -1;
    sent.bar.close = (double)NAN;
    assert_int_equal(wire_bars_encode(buffer, &sent, 1), WIRE_OK);
    assert_int_equal(decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer)), WIRE_OK);
    assert_int_equal(rejected, 0);
    assert_true(isinf(kept.bars[0].bar.open) && kept.bars[0].bar.low == -1 && isnan(kept.bars[0].bar.close));
}

static void only_the_in_progress_flag_travels(void **state)
{
    (void)state;
    wire_bar_t sent = make_bar(1);
    sent.bar.flags = SHM_BAR_AMENDED | SHM_BAR_GAP | SHM_BAR_FILLED | SHM_BAR_IN_PROGRESS;
    sent.bar.stamp = 9;
    assert_int_equal(wire_bars_encode(buffer, &sent, 1), WIRE_OK);
    assert_int_equal(decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer)), WIRE_OK);
    assert_int_equal(kept.bars[0].bar.flags, SHM_BAR_IN_PROGRESS);
    assert_int_equal(kept.bars[0].bar.stamp, 0);
}

static void more_bars_than_a_message_holds_are_refused(void **state)
{
    (void)state;
    wire_bar_t one = make_bar(1);
    assert_int_equal(wire_bars_encode(buffer, &one, WIRE_BARS_MOST + 1), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "bar: 65537 bars, expected at most 65536");
}

/* ---- from another program --------------------------------------------------------------------------------------------------------- */

static void put_key(const char *key)
{
    msgpack_pack_str_with_body(&to, key, strlen(key));
}

static void begin(void)
{
    msgpack_sbuffer_clear(&packed);
    msgpack_packer_init(&to, &packed, msgpack_sbuffer_write);
}

/* A bar of nothing but its required keys, prices as integers. */
static void put_bar(const char *type, const char *symbol, int version)
{
    static const char *const prices[] = {"open", "high", "low", "close"};
    msgpack_pack_map(&to, 8);
    put_key("symbol");
    put_key(symbol);
    for (int i = 0; i < 4; i++) {
        put_key(prices[i]);
        msgpack_pack_int(&to, 100 + i);
    }
    put_key("time_ns");
    msgpack_pack_int64(&to, 1700000000000000000);
    put_key("t");
    put_key(type);
    put_key("v");
    msgpack_pack_int(&to, version);
}

static void required_keys_are_enough(void **state)
{
    (void)state;
    begin();
    put_bar("bar", "A", 1);
    assert_int_equal(decode(packed.data, packed.size), WIRE_OK);
    assert_int_equal(kept.count, 1);
    const wire_bar_t *bar = &kept.bars[0];
    assert_string_equal(bar->symbol, "A");
    assert_int_equal(bar->interval_ns, 0);
    assert_int_equal(bar->bar.open_time_ns, 1700000000000000000);
    assert_true(bar->bar.open == 100 && bar->bar.high == 101 && bar->bar.low == 102 && bar->bar.close == 103);
    assert_int_equal(bar->bar.flags, SHM_BAR_NO_VOLUME | SHM_BAR_NO_AMOUNT);
}

static void a_bad_bar_is_counted_and_the_others_are_kept(void **state)
{
    (void)state;
    begin();
    msgpack_pack_array(&to, 6);
    put_bar("bar", "A", 1);
    msgpack_pack_nil(&to);
    put_bar("bar", "a symbol that has 32 bytes, too long", 1);
    put_bar("bar", "A", 2);
    put_bar("drain", "A", 1);
    put_bar("bar", "B", 1);
    assert_int_equal(decode(packed.data, packed.size), WIRE_OK);
    assert_int_equal(kept.count, 2);
    assert_string_equal(kept.bars[0].symbol, "A");
    assert_string_equal(kept.bars[1].symbol, "B");
    assert_int_equal(rejected, 4);
    assert_string_equal(error_text(), "bar: got a message of type drain");
}

static void a_message_that_holds_no_bars_is_refused_as_a_whole(void **state)
{
    (void)state;
    begin();
    put_bar("bar", "A", 2);
    assert_int_equal(decode(packed.data, packed.size), WIRE_ERR_VERSION);
    begin();
    put_bar("drain", "A", 1);
    assert_int_equal(decode(packed.data, packed.size), WIRE_ERR_TYPE);
    begin();
    msgpack_pack_array(&to, 1);
    put_bar("drain", "A", 1);
    assert_int_equal(decode(packed.data, packed.size), WIRE_ERR_TYPE);
    assert_string_equal(error_text(), "bar: an array of drain messages, expected of bars");
    begin();
    msgpack_pack_array(&to, 1);
    msgpack_pack_array(&to, 1);
    put_bar("bar", "A", 1);
    assert_int_equal(decode(packed.data, packed.size), WIRE_ERR_MALFORMED);
    begin();
    put_key("bar");
    assert_int_equal(decode(packed.data, packed.size), WIRE_ERR_MALFORMED);
    begin();
    msgpack_pack_array(&to, WIRE_BARS_MOST + 1);
    for (int i = 0; i <= WIRE_BARS_MOST; i++)
        msgpack_pack_nil(&to);
    assert_int_equal(decode(packed.data, packed.size), WIRE_ERR_BOUNDS);
    assert_int_equal(rejected, 77);
}

static void nothing_is_handed_on_from_a_message_that_is_cut_short(void **state)
{
    (void)state;
    wire_bar_t sent[3] = {make_bar(1), make_bar(2), make_bar(3)};
    assert_int_equal(wire_bars_encode(buffer, sent, 3), WIRE_OK);
    for (size_t length = 0; length < wire_buffer_bytes(buffer); length++) {
        assert_int_equal(decode(wire_buffer_data(buffer), length), WIRE_ERR_MALFORMED);
        assert_int_equal(kept.count, 0);
        assert_int_equal(rejected, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bar_and_many_come_back),
        cmocka_unit_test(unknown_volume_and_amount_stay_unknown),
        cmocka_unit_test(prices_are_passed_on_unjudged),
        cmocka_unit_test(only_the_in_progress_flag_travels),
        cmocka_unit_test(more_bars_than_a_message_holds_are_refused),
        cmocka_unit_test(required_keys_are_enough),
        cmocka_unit_test(a_bad_bar_is_counted_and_the_others_are_kept),
        cmocka_unit_test(a_message_that_holds_no_bars_is_refused_as_a_whole),
        cmocka_unit_test(nothing_is_handed_on_from_a_message_that_is_cut_short),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
