/* What scheduler and workers say to each other. */
#include "base/error.h"
#include "wire/map.h"

/* The public pair of a message. A failed decode leaves *out untouched; arrays that the caller lends in *out come along in the copy. */
#define CODEC(name, type)                                                                                                          \
    int wire_##name##_encode(wire_buffer_t *to, const wire_##name##_t *message)                                                    \
    {                                                                                                                              \
        return wire_message_encode(to, type, WIRE_TABLE(name##_keys), message);                                                    \
    }                                                                                                                              \
    int wire_##name##_decode(const void *data, size_t bytes, wire_##name##_t *out)                                                 \
    {                                                                                                                              \
        wire_##name##_t message = *out;                                                                                            \
        int rc = wire_message_decode(data, bytes, type, WIRE_TABLE(name##_keys), &message);                                        \
        if (rc == WIRE_OK)                                                                                                         \
            *out = message;                                                                                                        \
        return rc;                                                                                                                 \
    }

/* ---- hello ------------------------------------------------------------------------------------------------------------------------ */

static const wire_key_t hello_keys[] = {
    {WIRE_KEY(wire_hello_t, worker, WIRE_KEY_TEXT)},
    {WIRE_KEY(wire_hello_t, pid, WIRE_KEY_U32)},
    {WIRE_KEY(wire_hello_t, device, WIRE_KEY_TEXT)},
    {WIRE_KEY(wire_hello_t, publish_endpoint, WIRE_KEY_TEXT)},
};

CODEC(hello, WIRE_HELLO)

/* ---- ready ------------------------------------------------------------------------------------------------------------------------ */

static const wire_key_t session_keys[] = {
    {WIRE_KEY(wire_session_t, model, WIRE_KEY_TEXT)},
    {WIRE_KEY(wire_session_t, batch, WIRE_KEY_U32)},
    {WIRE_KEY(wire_session_t, run_ns, WIRE_KEY_I64)},
};

static int pack_sessions(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_ready_t *ready = message;
    if (ready->session_count > WIRE_SESSIONS_MOST)
        return error_set(WIRE_ERR_BOUNDS, "%u elements, expected at most %d", ready->session_count, WIRE_SESSIONS_MOST);
    msgpack_pack_array(to, ready->session_count);
    int rc = WIRE_OK;
    for (uint32_t i = 0; rc == WIRE_OK && i < ready->session_count; i++)
        rc = wire_map_pack(to, 0, WIRE_TABLE(session_keys), &ready->sessions[i]);
    return rc;
}

static int read_sessions(const wire_key_t *key, wire_reader_t *from, void *message)
{
    (void)key;
    wire_ready_t *ready = message;
    int rc = wire_reader_array(from, WIRE_SESSIONS_MOST, &ready->session_count);
    for (uint32_t i = 0; rc == WIRE_OK && i < ready->session_count; i++)
        rc = wire_map_read(from, WIRE_TABLE(session_keys), &ready->sessions[i]);
    return rc;
}

static const wire_key_t ready_keys[] = {
    {WIRE_KEY(wire_ready_t, worker, WIRE_KEY_TEXT)},
    {WIRE_KEY(wire_ready_t, pid, WIRE_KEY_U32)},
    {WIRE_KEY(wire_ready_t, credits, WIRE_KEY_U32)},
    {"sessions", WIRE_KEY_OWN, .pack = pack_sessions, .read = read_sessions},
};

CODEC(ready, WIRE_READY)

/* ---- assign ----------------------------------------------------------------------------------------------------------------------- */

static int pack_items(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_assign_t *assign = message;
    if (assign->count > WIRE_ITEMS_MOST)
        return error_set(WIRE_ERR_BOUNDS, "%u elements, expected at most %d", assign->count, WIRE_ITEMS_MOST);
    msgpack_pack_array(to, assign->count);
    for (uint32_t i = 0; i < assign->count; i++) {
        msgpack_pack_array(to, 3);
        msgpack_pack_uint32(to, assign->items[i].symbol_id);
        msgpack_pack_uint64(to, assign->items[i].end);
        msgpack_pack_int64(to, assign->items[i].stored_ns);
    }
    return WIRE_OK;
}

static int read_item(wire_reader_t *from, wire_item_t *item)
{
    uint32_t count;
    uint64_t symbol_id = 0;
    int rc = wire_reader_array(from, 3, &count);
    if (rc == WIRE_OK && count != 3)
        rc = error_set(WIRE_ERR_BOUNDS, "%u elements, expected [symbol_id, end, stored_ns]", count);
    if (rc == WIRE_OK)
        rc = wire_reader_unsigned(from, UINT32_MAX, &symbol_id);
    if (rc == WIRE_OK)
        rc = wire_reader_unsigned(from, UINT64_MAX, &item->end);
    if (rc == WIRE_OK)
        rc = wire_reader_signed(from, &item->stored_ns);
    item->symbol_id = (uint32_t)symbol_id;
    return rc;
}

static int read_items(const wire_key_t *key, wire_reader_t *from, void *message)
{
    (void)key;
    wire_assign_t *assign = message;
    int rc = wire_reader_array(from, WIRE_ITEMS_MOST, &assign->count);
    for (uint32_t i = 0; rc == WIRE_OK && i < assign->count; i++)
        rc = read_item(from, &assign->items[i]);
    return rc;
}

static const wire_key_t assign_keys[] = {
    {WIRE_KEY(wire_assign_t, batch_id, WIRE_KEY_U64)},
    {WIRE_KEY(wire_assign_t, epoch, WIRE_KEY_U64)},
    {WIRE_KEY(wire_assign_t, model, WIRE_KEY_TEXT)},
    {WIRE_KEY(wire_assign_t, sent_ns, WIRE_KEY_I64)},
    {"items", WIRE_KEY_OWN, .pack = pack_items, .read = read_items},
};

CODEC(assign, WIRE_ASSIGN)

/* ---- done ------------------------------------------------------------------------------------------------------------------------- */

static int pack_status(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_done_t *done = message;
    if (done->count > WIRE_ITEMS_MOST)
        return error_set(WIRE_ERR_BOUNDS, "%u elements, expected at most %d", done->count, WIRE_ITEMS_MOST);
    msgpack_pack_array(to, done->count);
    for (uint32_t i = 0; i < done->count; i++)
        msgpack_pack_uint8(to, done->status[i]);
    return WIRE_OK;
}

static int read_status(const wire_key_t *key, wire_reader_t *from, void *message)
{
    (void)key;
    wire_done_t *done = message;
    int rc = wire_reader_array(from, WIRE_ITEMS_MOST, &done->count);
    for (uint32_t i = 0; rc == WIRE_OK && i < done->count; i++) {
        uint64_t status = 0;
        rc = wire_reader_unsigned(from, WIRE_ITEM_STALE, &status);
        done->status[i] = (uint8_t)status;
    }
    return rc;
}

static const wire_key_t done_keys[] = {
    {WIRE_KEY(wire_done_t, batch_id, WIRE_KEY_U64)},
    {WIRE_KEY(wire_done_t, worker, WIRE_KEY_TEXT)},
    {WIRE_KEY(wire_done_t, compute_ns, WIRE_KEY_I64)},
    {"status", WIRE_KEY_OWN, .pack = pack_status, .read = read_status},
};

CODEC(done, WIRE_DONE)

/* ---- heartbeat, drain ------------------------------------------------------------------------------------------------------------- */

static const wire_key_t heartbeat_keys[] = {
    {WIRE_KEY(wire_heartbeat_t, sender, WIRE_KEY_TEXT)},
    {WIRE_KEY(wire_heartbeat_t, batch_id, WIRE_KEY_U64)},
    {WIRE_KEY(wire_heartbeat_t, ready, WIRE_KEY_U32)},
    {WIRE_KEY(wire_heartbeat_t, interval_ns, WIRE_KEY_I64)},
};

CODEC(heartbeat, WIRE_HEARTBEAT)

static const wire_key_t drain_keys[] = {{WIRE_KEY(wire_drain_t, sender, WIRE_KEY_TEXT)}};

CODEC(drain, WIRE_DRAIN)
