#include "wire_test.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

/* ---- examples --------------------------------------------------------------------------------------------------------------------- */

static void encode_hello(wire_buffer_t *to)
{
    wire_hello_t message = {.worker = "worker.0", .pid = UINT32_MAX, .device = "cpu", .publish_endpoint = "ipc:///run/publish.0"};
    assert_int_equal(wire_hello_encode(to, &message), WIRE_OK);
}

static int decode_hello(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    return wire_hello_decode(data, bytes, (wire_hello_t *)(void *)out);
}

static void encode_ready(wire_buffer_t *to)
{
    wire_ready_t message = {.worker = "worker.0", .pid = 7, .credits = 2, .session_count = 2};
    message.sessions[0] = (wire_session_t){"toto", 1, 1500000};
    message.sessions[1] = (wire_session_t){"naive", 64, INT64_MAX};
    assert_int_equal(wire_ready_encode(to, &message), WIRE_OK);
}

static int decode_ready(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    return wire_ready_decode(data, bytes, (wire_ready_t *)(void *)out);
}

static void encode_assign(wire_buffer_t *to)
{
    wire_item_t items[] = {{0, 1, 2}, {UINT32_MAX, UINT64_MAX, INT64_MAX}, {70000, 5000000000, INT64_MIN}};
    wire_assign_t message = {.batch_id = UINT64_MAX, .epoch = 1, .model = "toto", .sent_ns = -1, .count = 3, .items = items};
    assert_int_equal(wire_assign_encode(to, &message), WIRE_OK);
}

/* Lends the second half of `out` for the array, and takes its address out of the comparison. */
static int decode_assign(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    static wire_item_t items[WIRE_ITEMS_MOST];
    wire_assign_t *message = (wire_assign_t *)(void *)out;
    memset(items, 0, sizeof items);
    message->items = items;
    int rc = wire_assign_decode(data, bytes, message);
    message->items = NULL;
    memcpy(out + DECODED_BYTES / 2, items, DECODED_BYTES / 2);
    return rc;
}

static void encode_done(wire_buffer_t *to)
{
    uint8_t status[] = {WIRE_ITEM_OK, WIRE_ITEM_STALE, WIRE_ITEM_FAILED};
    wire_done_t message = {.batch_id = 3, .worker = "worker.0", .compute_ns = 250000, .count = 3, .status = status};
    assert_int_equal(wire_done_encode(to, &message), WIRE_OK);
}

static int decode_done(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    static uint8_t status[WIRE_ITEMS_MOST];
    wire_done_t *message = (wire_done_t *)(void *)out;
    memset(status, 0, sizeof status);
    message->status = status;
    int rc = wire_done_decode(data, bytes, message);
    message->status = NULL;
    memcpy(out + DECODED_BYTES / 2, status, sizeof status);
    return rc;
}

static void encode_heartbeat(wire_buffer_t *to)
{
    wire_heartbeat_t message = {.sender = "scheduler", .batch_id = 9, .ready = 1, .interval_ns = 500000000};
    assert_int_equal(wire_heartbeat_encode(to, &message), WIRE_OK);
}

static int decode_heartbeat(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    return wire_heartbeat_decode(data, bytes, (wire_heartbeat_t *)(void *)out);
}

static void encode_drain(wire_buffer_t *to)
{
    wire_drain_t message = {.sender = "scheduler"};
    assert_int_equal(wire_drain_encode(to, &message), WIRE_OK);
}

static int decode_drain(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    return wire_drain_decode(data, bytes, (wire_drain_t *)(void *)out);
}

static void encode_bar(wire_buffer_t *to)
{
    wire_bar_t message = {
        .symbol = "BRK.B", .interval_ns = 60000000000, .bar = {.open_time_ns = INT64_MIN, .flags = SHM_BAR_IN_PROGRESS}};
    message.bar.open = DBL_MAX;
    message.bar.high = 1;
    message.bar.low = -DBL_MIN;
    message.bar.close = 0.1;
    message.bar.volume = 1e9;
    message.bar.amount = 2;
    assert_int_equal(wire_bars_encode(to, &message, 1), WIRE_OK);
}

static void keep_bar(void *context, const wire_bar_t *bar)
{
    memcpy(context, bar, sizeof *bar);
}

static int decode_bar(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    size_t rejected = 0;
    int rc = wire_bars_decode(data, bytes, keep_bar, out, &rejected);
    return rc == WIRE_OK && rejected ? WIRE_ERR_MALFORMED : rc;
}

const wire_forecast_t *example_forecast(void)
{
    static const float mean[EXAMPLE_HORIZON] = {1.5f, FLT_MAX, -0.0f};
    static const float quantiles[EXAMPLE_QUANTILES * EXAMPLE_HORIZON] = {1, 2, 3, 4, 5, FLT_MIN};
    static const float samples[EXAMPLE_SAMPLES * EXAMPLE_HORIZON] = {-1, -2, -3, -4, -5, -FLT_MAX};
    static wire_forecast_t forecast;
    forecast = (wire_forecast_t){.symbol = "AAPL",
                                 .model = "toto",
                                 .model_revision = "0123456789abcdef",
                                 .interval_ns = 60000000000,
                                 .cutoff_ns = INT64_MAX,
                                 .start_ns = INT64_MIN,
                                 .created_ns = 1700000000000000000,
                                 .bar_index = UINT64_MAX,
                                 .seq = 1,
                                 .seed = 42,
                                 .horizon = EXAMPLE_HORIZON,
                                 .context = 512,
                                 .sample_count = EXAMPLE_SAMPLES,
                                 .quantile_count = EXAMPLE_QUANTILES,
                                 .quantile_levels = {0.1, 0.975},
                                 .field_count = 2,
                                 .fields = {{"close", mean, quantiles, samples}, {"volume", NULL, samples, NULL}},
                                 .last = 101.25,
                                 .stored_ns = 1000,
                                 .assigned_ns = 2500,
                                 .computed_ns = 252500,
                                 .published_ns = 253000,
                                 .worker = "worker.0"};
    return &forecast;
}

static void encode_forecast(wire_buffer_t *to)
{
    assert_int_equal(wire_forecast_encode(to, example_forecast()), WIRE_OK);
}

/* The arrays follow the message in `out`, their addresses are taken out of the comparison. */
static int decode_forecast(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES])
{
    wire_forecast_t *message = (wire_forecast_t *)(void *)out;
    wire_scratch_t scratch = {0};
    int rc = wire_forecast_decode(data, bytes, message, &scratch);
    for (uint32_t i = 0; rc == WIRE_OK && i < message->field_count; i++) {
        wire_field_t *field = &message->fields[i];
        field->mean = field->mean ? (const float *)1 : NULL;
        field->quantiles = field->quantiles ? (const float *)1 : NULL;
        field->samples = field->samples ? (const float *)1 : NULL;
    }
    if (rc == WIRE_OK)
        memcpy(out + sizeof *message, scratch.values, scratch.capacity * sizeof(float));
    wire_scratch_free(&scratch);
    return rc;
}

const example_t examples[] = {
    {"hello", encode_hello, decode_hello, ""},
    {"ready", encode_ready, decode_ready, ""},
    {"assign", encode_assign, decode_assign, ""},
    {"done", encode_done, decode_done, ""},
    {"heartbeat", encode_heartbeat, decode_heartbeat, ""},
    {"drain", encode_drain, decode_drain, ""},
    {"bar", encode_bar, decode_bar, " interval_ns volume amount in_progress "},
    {"forecast", encode_forecast, decode_forecast, " times_ns mean samples fields step_ns latency_us "},
};
const size_t example_count = sizeof examples / sizeof examples[0];

/* ---- changing a message ----------------------------------------------------------------------------------------------------------- */

/* A head of four length bytes, which the packer would only use for large ones. */
static void put_head(msgpack_packer *to, unsigned char byte, uint32_t count)
{
    const unsigned char head[] = {byte, (unsigned char)(count >> 24), (unsigned char)(count >> 16), (unsigned char)(count >> 8),
                                  (unsigned char)count};
    msgpack_sbuffer_write(to->data, (const char *)head, sizeof head);
}

static void put_wide(msgpack_packer *to, const msgpack_object *value)
{
    switch (value->type) {
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        if (value->via.u64 <= INT64_MAX)
            msgpack_pack_fix_int64(to, (int64_t)value->via.u64);
        else
            msgpack_pack_fix_uint64(to, value->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        msgpack_pack_fix_int64(to, value->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
        msgpack_pack_double(to, value->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        put_head(to, 0xdb, value->via.str.size);
        msgpack_pack_str_body(to, value->via.str.ptr, value->via.str.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
        put_head(to, 0xdd, value->via.array.size);
        for (uint32_t i = 0; i < value->via.array.size; i++)
            put_wide(to, &value->via.array.ptr[i]);
        break;
    case MSGPACK_OBJECT_MAP:
        put_head(to, 0xdf, value->via.map.size);
        for (uint32_t i = 0; i < value->via.map.size; i++) {
            put_wide(to, &value->via.map.ptr[i].key);
            put_wide(to, &value->via.map.ptr[i].val);
        }
        break;
    default:
        msgpack_pack_object(to, *value);
    }
}

static void put_plain(msgpack_packer *to, const msgpack_object *value)
{
    msgpack_pack_object(to, *value);
}

static bool is(const msgpack_object *key, const char *name)
{
    return name && key->via.str.size == strlen(name) && memcmp(key->via.str.ptr, name, key->via.str.size) == 0;
}

static void put_pair(msgpack_packer *to, const msgpack_object_kv *pair, const change_t *change)
{
    void (*put)(msgpack_packer *, const msgpack_object *) = change->wide ? put_wide : put_plain;
    put(to, &pair->key);
    if (is(&pair->key, change->replace))
        change->value(to);
    else
        put(to, &pair->val);
}

void repack(const void *data, size_t bytes, const change_t *change, msgpack_sbuffer *out)
{
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    size_t offset = 0;
    assert_int_equal(msgpack_unpack_next(&message, data, bytes, &offset), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(offset, bytes);
    assert_int_equal(message.data.type, MSGPACK_OBJECT_MAP);
    const msgpack_object_map *map = &message.data.via.map;

    msgpack_packer to;
    msgpack_sbuffer_clear(out);
    msgpack_packer_init(&to, out, msgpack_sbuffer_write);
    put_head(&to, 0xdf, map->size + (change->twice ? 1u : 0u) + (change->extra ? 1u : 0u) - (change->drop ? 1u : 0u));
    if (change->extra)
        change->extra(&to);
    for (uint32_t i = 0; i < map->size; i++) {
        const msgpack_object_kv *pair = &map->ptr[change->reverse ? map->size - 1 - i : i];
        if (is(&pair->key, change->drop))
            continue;
        put_pair(&to, pair, change);
        if (is(&pair->key, change->twice))
            put_pair(&to, pair, change);
    }
    msgpack_unpacked_destroy(&message);
}

void for_each_key(const void *data, size_t bytes, void (*each)(const char *key, void *context), void *context)
{
    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    size_t offset = 0;
    assert_int_equal(msgpack_unpack_next(&message, data, bytes, &offset), MSGPACK_UNPACK_SUCCESS);
    for (uint32_t i = 0; i < message.data.via.map.size; i++) {
        const msgpack_object_str *key = &message.data.via.map.ptr[i].key.via.str;
        char name[WIRE_NAME_BYTES];
        memcpy(name, key->ptr, key->size);
        name[key->size] = '\0';
        each(name, context);
    }
    msgpack_unpacked_destroy(&message);
}
