#include "wire_test.h"

#include <stdlib.h>
#include <string.h>

static wire_buffer_t *buffer;

static int setup(void **state)
{
    (void)state;
    return wire_buffer_open(0, &buffer);
}

static int teardown(void **state)
{
    (void)state;
    wire_buffer_close(buffer);
    return 0;
}

static const void *data(void)
{
    return wire_buffer_data(buffer);
}

static size_t bytes(void)
{
    return wire_buffer_bytes(buffer);
}

/* As many bytes of 'x' as the array holds, terminated. */
static void fill(char *text, size_t size)
{
    memset(text, 'x', size - 1);
    text[size - 1] = '\0';
}

static void hello_with_the_longest_texts_comes_back(void **state)
{
    (void)state;
    wire_hello_t sent = {.pid = UINT32_MAX}, got;
    fill(sent.worker, sizeof sent.worker);
    fill(sent.device, sizeof sent.device);
    fill(sent.publish_endpoint, sizeof sent.publish_endpoint);
    assert_int_equal(wire_hello_encode(buffer, &sent), WIRE_OK);
    assert_int_equal(wire_hello_decode(data(), bytes(), &got), WIRE_OK);
    assert_memory_equal(&got, &sent, sizeof sent);
}

static void ready_with_all_sessions_comes_back(void **state)
{
    (void)state;
    wire_ready_t sent = {.worker = "worker.63", .pid = 1, .credits = UINT32_MAX, .session_count = WIRE_SESSIONS_MOST}, got;
    memset(&got, 0, sizeof got);
    for (uint32_t i = 0; i < WIRE_SESSIONS_MOST; i++) {
        sent.sessions[i] = (wire_session_t){.batch = i * 1000000, .run_ns = INT64_MAX - i};
        fill(sent.sessions[i].model, sizeof sent.sessions[i].model);
    }
    assert_int_equal(wire_ready_encode(buffer, &sent), WIRE_OK);
    assert_int_equal(wire_ready_decode(data(), bytes(), &got), WIRE_OK);
    assert_memory_equal(&got, &sent, sizeof sent);
    sent.session_count++;
    assert_int_equal(wire_ready_encode(buffer, &sent), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "ready: sessions: 65 elements, expected at most 64");
}

static void assign_with_all_items_comes_back(void **state)
{
    (void)state;
    static wire_item_t items[WIRE_ITEMS_MOST + 1], room[WIRE_ITEMS_MOST];
    for (uint32_t i = 0; i < WIRE_ITEMS_MOST; i++)
        items[i] = (wire_item_t){.symbol_id = UINT32_MAX - i, .end = UINT64_MAX >> i % 64, .stored_ns = INT64_MIN >> i % 64};
    wire_assign_t sent = {
        .batch_id = 1, .epoch = UINT64_MAX, .model = "m", .sent_ns = INT64_MAX, .count = WIRE_ITEMS_MOST, .items = items};
    wire_assign_t got = {.items = room};
    assert_int_equal(wire_assign_encode(buffer, &sent), WIRE_OK);
    assert_int_equal(wire_assign_decode(data(), bytes(), &got), WIRE_OK);
    assert_int_equal(got.batch_id, 1);
    assert_true(got.epoch == UINT64_MAX);
    assert_string_equal(got.model, "m");
    assert_true(got.sent_ns == INT64_MAX);
    assert_int_equal(got.count, WIRE_ITEMS_MOST);
    assert_ptr_equal(got.items, room);
    for (uint32_t i = 0; i < WIRE_ITEMS_MOST; i++)
        assert_true(room[i].symbol_id == items[i].symbol_id && room[i].end == items[i].end &&
                    room[i].stored_ns == items[i].stored_ns);

    sent.count++;
    assert_int_equal(wire_assign_encode(buffer, &sent), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "assign: items: 4097 elements, expected at most 4096");
}

static void an_empty_assign_and_done_come_back(void **state)
{
    (void)state;
    wire_item_t item;
    wire_assign_t assign = {.items = &item, .count = 9}, none = {.items = NULL};
    assert_int_equal(wire_assign_encode(buffer, &none), WIRE_OK);
    assert_int_equal(wire_assign_decode(data(), bytes(), &assign), WIRE_OK);
    assert_int_equal(assign.count, 0);
    wire_done_t done = {.count = 9}, no_status = {.status = NULL};
    assert_int_equal(wire_done_encode(buffer, &no_status), WIRE_OK);
    assert_int_equal(wire_done_decode(data(), bytes(), &done), WIRE_OK);
    assert_int_equal(done.count, 0);
}

static void done_carries_each_status_in_order(void **state)
{
    (void)state;
    static uint8_t status[WIRE_ITEMS_MOST], room[WIRE_ITEMS_MOST];
    for (uint32_t i = 0; i < WIRE_ITEMS_MOST; i++)
        status[i] = (uint8_t)(i % (WIRE_ITEM_STALE + 1));
    wire_done_t sent = {.batch_id = 5, .worker = "w", .compute_ns = -1, .count = WIRE_ITEMS_MOST, .status = status},
                got = {.status = room};
    assert_int_equal(wire_done_encode(buffer, &sent), WIRE_OK);
    assert_int_equal(wire_done_decode(data(), bytes(), &got), WIRE_OK);
    assert_int_equal(got.count, WIRE_ITEMS_MOST);
    assert_int_equal(got.compute_ns, -1);
    assert_memory_equal(room, status, sizeof status);
    sent.count = WIRE_ITEMS_MOST + 1;
    assert_int_equal(wire_done_encode(buffer, &sent), WIRE_ERR_BOUNDS);
}

static void heartbeat_and_drain_come_back(void **state)
{
    (void)state;
    wire_heartbeat_t sent = {.sender = "s", .batch_id = UINT64_MAX, .ready = 1, .interval_ns = INT64_MAX}, got = {0};
    assert_int_equal(wire_heartbeat_encode(buffer, &sent), WIRE_OK);
    assert_int_equal(wire_heartbeat_decode(data(), bytes(), &got), WIRE_OK);
    assert_memory_equal(&got, &sent, sizeof sent);
    wire_drain_t drain = {.sender = ""}, left;
    assert_int_equal(wire_drain_encode(buffer, &drain), WIRE_OK);
    assert_int_equal(wire_drain_decode(data(), bytes(), &left), WIRE_OK);
    assert_string_equal(left.sender, "");
}

/* ---- messages packed by hand, by another sender ----------------------------------------------------------------------------------- */

static msgpack_sbuffer packed;
static msgpack_packer to;

static void begin(const char *type, uint32_t keys)
{
    msgpack_sbuffer_clear(&packed);
    msgpack_packer_init(&to, &packed, msgpack_sbuffer_write);
    msgpack_pack_map(&to, keys + 2);
    msgpack_pack_str_with_body(&to, "t", 1);
    msgpack_pack_str_with_body(&to, type, strlen(type));
    msgpack_pack_str_with_body(&to, "v", 1);
    msgpack_pack_int(&to, 1);
}

static void put_key(const char *key)
{
    msgpack_pack_str_with_body(&to, key, strlen(key));
}

static void begin_done(uint32_t count)
{
    begin("done", 4);
    put_key("batch_id");
    msgpack_pack_int(&to, 1);
    put_key("worker");
    put_key("w");
    put_key("compute_ns");
    msgpack_pack_int(&to, 1);
    put_key("status");
    msgpack_pack_array(&to, count);
}

static void counts_and_numbers_out_of_bounds_are_refused(void **state)
{
    (void)state;
    static uint8_t room[WIRE_ITEMS_MOST + 1];
    wire_done_t done = {.batch_id = 77, .status = room};
    msgpack_sbuffer_init(&packed);

    room[WIRE_ITEMS_MOST] = 99;
    begin_done(WIRE_ITEMS_MOST + 1);
    for (int i = 0; i <= WIRE_ITEMS_MOST; i++)
        msgpack_pack_int(&to, 0);
    assert_int_equal(wire_done_decode(packed.data, packed.size, &done), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "done: status: 4097 elements, expected at most 4096");
    assert_int_equal(room[WIRE_ITEMS_MOST], 99);
    assert_int_equal(done.batch_id, 77); /* untouched */

    begin_done(1);
    msgpack_pack_int(&to, WIRE_ITEM_STALE + 1);
    assert_int_equal(wire_done_decode(packed.data, packed.size, &done), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "done: status: 5, expected at most 4");

    begin_done(1);
    msgpack_pack_int(&to, -1);
    assert_int_equal(wire_done_decode(packed.data, packed.size, &done), WIRE_ERR_MALFORMED);
    assert_string_equal(error_text(), "done: status: expected a whole number of 0 or more, got a negative number");

    wire_drain_t drain = {.sender = "before"};
    char text[WIRE_NAME_BYTES + 1];
    fill(text, sizeof text);
    begin("drain", 1);
    put_key("sender");
    put_key(text);
    assert_int_equal(wire_drain_decode(packed.data, packed.size, &drain), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "drain: sender: text of 64 bytes, expected at most 63");
    begin("drain", 1);
    put_key("sender");
    msgpack_pack_str_with_body(&to, "a\0b", 3);
    assert_int_equal(wire_drain_decode(packed.data, packed.size, &drain), WIRE_ERR_MALFORMED);
    assert_string_equal(error_text(), "drain: sender: a zero byte in text");
    assert_string_equal(drain.sender, "before");

    begin("heartbeat", 4);
    put_key("sender");
    put_key("");
    put_key("batch_id");
    msgpack_pack_int(&to, 1);
    put_key("ready");
    msgpack_pack_uint64(&to, UINT64_C(1) << 32);
    put_key("interval_ns");
    msgpack_pack_int(&to, 1);
    wire_heartbeat_t heartbeat;
    assert_int_equal(wire_heartbeat_decode(packed.data, packed.size, &heartbeat), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "heartbeat: ready: 4294967296, expected at most 4294967295");

    begin("drain", WIRE_KEYS_MOST);
    put_key("sender");
    put_key("");
    for (int i = 1; i < WIRE_KEYS_MOST; i++) {
        put_key("unknown");
        msgpack_pack_nil(&to);
    }
    assert_int_equal(wire_drain_decode(packed.data, packed.size, &drain), WIRE_ERR_BOUNDS);
    msgpack_sbuffer_destroy(&packed);
}

static void items_are_triples(void **state)
{
    (void)state;
    wire_item_t room[4];
    wire_assign_t assign = {.items = room};
    msgpack_sbuffer_init(&packed);
    for (int length = 0; length <= 4; length++) {
        begin("assign", 5);
        put_key("items");
        msgpack_pack_array(&to, 1);
        msgpack_pack_array(&to, (size_t)length);
        for (int i = 0; i < length; i++)
            msgpack_pack_int(&to, i);
        static const char *const numbers[] = {"batch_id", "epoch", "sent_ns"};
        for (int i = 0; i < 3; i++) {
            put_key(numbers[i]);
            msgpack_pack_int(&to, 1);
        }
        put_key("model");
        put_key("m");
        assert_int_equal(wire_assign_decode(packed.data, packed.size, &assign), length == 3 ? WIRE_OK : WIRE_ERR_BOUNDS);
    }
    msgpack_sbuffer_destroy(&packed);
}

/* ---- peek, topic ------------------------------------------------------------------------------------------------------------------ */

static void peek_tells_every_type(void **state)
{
    (void)state;
    for (size_t i = 0; i < example_count; i++) {
        wire_type_t type = 0;
        examples[i].encode(buffer);
        assert_int_equal(wire_peek(data(), bytes(), &type), WIRE_OK);
        assert_int_equal(type, (int)i + 1);
        assert_string_equal(wire_type_name(type), examples[i].name);
    }
    assert_string_equal(wire_type_name((wire_type_t)99), "unknown");
}

static void a_message_over_the_limit_is_refused_unread(void **state)
{
    (void)state;
    wire_type_t type;
    assert_int_equal(wire_peek("", (size_t)WIRE_MESSAGE_BYTES_MOST + 1, &type), WIRE_ERR_BOUNDS);
}

static void a_topic_ends_so_that_no_other_begins_with_it(void **state)
{
    (void)state;
    char apple[WIRE_TEXT_BYTES], other[WIRE_TEXT_BYTES], prefix[WIRE_TEXT_BYTES];
    int length = wire_topic("toto", "AAPL", apple);
    assert_int_equal(length, sizeof "forecast.toto.AAPL"); /* with its NUL */
    assert_memory_equal(apple, "forecast.toto.AAPL", (size_t)length);
    wire_topic("toto", "AAPLW", other);
    assert_memory_not_equal(apple, other, (size_t)length);
    wire_topic("toto", "AAPL.B", other);
    assert_memory_not_equal(apple, other, (size_t)length);

    length = wire_topic("toto", NULL, prefix);
    assert_int_equal(length, strlen("forecast.toto."));
    assert_memory_equal(apple, prefix, (size_t)length);
    wire_topic("toto2", "AAPL", other);
    assert_memory_not_equal(prefix, other, (size_t)length);
}

static void a_topic_longer_than_its_room_is_refused(void **state)
{
    (void)state;
    char model[WIRE_TEXT_BYTES], topic[WIRE_TEXT_BYTES] = "untouched";
    fill(model, sizeof model);
    assert_int_equal(wire_topic(model, "A", topic), WIRE_ERR_BOUNDS);
    assert_string_equal(topic, "untouched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_with_the_longest_texts_comes_back),
        cmocka_unit_test(ready_with_all_sessions_comes_back),
        cmocka_unit_test(assign_with_all_items_comes_back),
        cmocka_unit_test(an_empty_assign_and_done_come_back),
        cmocka_unit_test(done_carries_each_status_in_order),
        cmocka_unit_test(heartbeat_and_drain_come_back),
        cmocka_unit_test(counts_and_numbers_out_of_bounds_are_refused),
        cmocka_unit_test(items_are_triples),
        cmocka_unit_test(peek_tells_every_type),
        cmocka_unit_test(a_message_over_the_limit_is_refused_unread),
        cmocka_unit_test(a_topic_ends_so_that_no_other_begins_with_it),
        cmocka_unit_test(a_topic_longer_than_its_room_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
