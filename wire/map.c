#include "wire/map.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

static const char *const type_names[] = {
    [WIRE_HELLO] = "hello",         [WIRE_READY] = "ready", [WIRE_ASSIGN] = "assign", [WIRE_DONE] = "done",
    [WIRE_HEARTBEAT] = "heartbeat", [WIRE_DRAIN] = "drain", [WIRE_BAR] = "bar",       [WIRE_FORECAST] = "forecast"};

const char *wire_type_name(wire_type_t type)
{
    return type >= WIRE_HELLO && type <= WIRE_FORECAST ? type_names[type] : "unknown";
}

/* ---- packing ---------------------------------------------------------------------------------------------------------------------- */

void wire_pack_text(msgpack_packer *to, const char *text)
{
    msgpack_pack_str_with_body(to, text, strlen(text));
}

static int pack_key(msgpack_packer *to, const wire_key_t *key, const void *message)
{
    if (key->type == WIRE_KEY_OWN)
        return key->pack(key, message, to);
    const void *value = (const char *)message + key->offset;
    double number;
    switch (key->type) {
    case WIRE_KEY_TEXT:
        if (!memchr(value, '\0', key->bytes))
            return error_set(WIRE_ERR_BOUNDS, "text of %zu bytes or more, expected at most %zu", key->bytes, key->bytes - 1);
        wire_pack_text(to, value);
        return WIRE_OK;
    case WIRE_KEY_BOOL:
        *(const bool *)value ? msgpack_pack_true(to) : msgpack_pack_false(to);
        return WIRE_OK;
    case WIRE_KEY_U32:
        msgpack_pack_uint32(to, *(const uint32_t *)value);
        return WIRE_OK;
    case WIRE_KEY_U64:
        msgpack_pack_uint64(to, *(const uint64_t *)value);
        return WIRE_OK;
    case WIRE_KEY_I64:
        msgpack_pack_int64(to, *(const int64_t *)value);
        return WIRE_OK;
    case WIRE_KEY_F64:
        number = *(const double *)value;
        key->optional &&isnan(number) ? msgpack_pack_nil(to) : msgpack_pack_double(to, number);
        return WIRE_OK;
    case WIRE_KEY_OWN:
        break;
    }
    return WIRE_OK;
}

int wire_map_pack(msgpack_packer *to, wire_type_t type, wire_table_t table, const void *message)
{
    msgpack_pack_map(to, table.count + (type ? 2 : 0));
    if (type) {
        wire_pack_text(to, "v");
        msgpack_pack_uint32(to, WIRE_VERSION);
        wire_pack_text(to, "t");
        wire_pack_text(to, wire_type_name(type));
    }
    for (size_t i = 0; i < table.count; i++) {
        wire_pack_text(to, table.keys[i].name);
        int rc = pack_key(to, &table.keys[i], message);
        if (rc < 0)
            return error_add(rc, "%s", table.keys[i].name);
    }
    return WIRE_OK;
}

int wire_message_encode(wire_buffer_t *to, wire_type_t type, wire_table_t table, const void *message)
{
    int rc = wire_buffer_end(to, wire_map_pack(wire_buffer_begin(to), type, table, message));
    return rc < 0 ? error_add(rc, "%s", wire_type_name(type)) : rc;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

static int read_key(wire_reader_t *from, const wire_key_t *key, void *message)
{
    if (key->type == WIRE_KEY_OWN)
        return key->read ? key->read(key, from, message) : wire_reader_skip(from, NULL);
    void *value = (char *)message + key->offset;
    uint64_t number = 0;
    int rc;
    switch (key->type) {
    case WIRE_KEY_TEXT:
        return wire_reader_text(from, key->bytes, value);
    case WIRE_KEY_BOOL:
        return wire_reader_bool(from, value);
    case WIRE_KEY_U32:
        if ((rc = wire_reader_unsigned(from, UINT32_MAX, &number)) == WIRE_OK)
            *(uint32_t *)value = (uint32_t)number;
        return rc;
    case WIRE_KEY_U64:
        return wire_reader_unsigned(from, UINT64_MAX, value);
    case WIRE_KEY_I64:
        return wire_reader_signed(from, value);
    case WIRE_KEY_F64:
        return wire_reader_number(from, value);
    case WIRE_KEY_OWN:
        break;
    }
    return WIRE_OK;
}

static bool is_key(const wire_key_t *key, const char *name, size_t length)
{
    return strlen(key->name) == length && memcmp(key->name, name, length) == 0;
}

/* The row of the key at `from`, or table.count. `guess`: senders mostly keep the table's order. */
static int take_key(wire_reader_t *from, wire_table_t table, size_t guess, size_t *row)
{
    wire_reader_t key;
    int rc = wire_reader_skip(from, &key);
    if (rc < 0)
        return rc;
    const char *name;
    size_t length;
    *row = table.count;
    if (wire_reader_text_in_place(&key, &name, &length) < 0)
        return WIRE_OK; /* a key that is no text is none that we know */
    for (size_t i = 0; i < table.count; i++) {
        size_t at = (guess + i) % table.count;
        if (is_key(&table.keys[at], name, length)) {
            *row = at;
            break;
        }
    }
    return WIRE_OK;
}

int wire_map_read(wire_reader_t *from, wire_table_t table, void *message)
{
    uint32_t pairs;
    uint64_t seen = 0;
    size_t row = 0;
    int rc = wire_reader_map(from, &pairs);
    for (uint32_t i = 0; rc == WIRE_OK && i < pairs; i++) {
        if ((rc = take_key(from, table, row, &row)) < 0)
            break;
        if (row == table.count) {
            rc = wire_reader_skip(from, NULL);
            continue;
        }
        const wire_key_t *key = &table.keys[row];
        if (seen >> row & 1)
            return error_set(WIRE_ERR_MALFORMED, "%s: the key stands twice", key->name);
        seen |= UINT64_C(1) << row++;
        if (key->optional && wire_reader_nil(from))
            continue;
        if ((rc = read_key(from, key, message)) < 0)
            return error_add(rc, "%s", key->name);
    }
    for (size_t i = 0; rc == WIRE_OK && i < table.count; i++) {
        const wire_key_t *key = &table.keys[i];
        bool derived = key->type == WIRE_KEY_OWN && !key->read;
        if (!(seen >> i & 1) && !key->optional && !derived)
            return error_set(WIRE_ERR_MALFORMED, "%s: the key is missing", key->name);
    }
    return rc;
}

/* ---- version and type ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t version;
    char type[WIRE_NAME_BYTES];
} envelope_t;

int wire_map_type(const wire_reader_t *reader, wire_type_t *type)
{
    static const wire_key_t keys[] = {{WIRE_KEY_AT("v", envelope_t, version, WIRE_KEY_U64)},
                                      {WIRE_KEY_AT("t", envelope_t, type, WIRE_KEY_TEXT)}};
    envelope_t envelope = {0};
    wire_reader_t from = *reader;
    uint32_t pairs;
    unsigned seen = 0;
    size_t row = 0;
    int rc = wire_reader_map(&from, &pairs);
    for (uint32_t i = 0; rc == WIRE_OK && i < pairs && seen != 3; i++) {
        if ((rc = take_key(&from, WIRE_TABLE(keys), row, &row)) < 0)
            break;
        if (row == 2) {
            rc = wire_reader_skip(&from, NULL);
            continue;
        }
        if ((rc = read_key(&from, &keys[row], &envelope)) < 0)
            return error_add(rc, "%s", keys[row].name);
        seen |= 1u << row;
    }
    if (rc < 0)
        return rc;
    if (seen != 3)
        return error_set(WIRE_ERR_MALFORMED, "%s: the key is missing", seen & 1 ? "t" : "v");
    if (envelope.version != WIRE_VERSION)
        return error_set(WIRE_ERR_VERSION, "message of version %llu, expected %d", (unsigned long long)envelope.version,
                         WIRE_VERSION);
    for (wire_type_t known = WIRE_HELLO; known <= WIRE_FORECAST; known++)
        if (strcmp(envelope.type, type_names[known]) == 0) {
            *type = known;
            return WIRE_OK;
        }
    return error_set(WIRE_ERR_TYPE, "unknown message type \"%s\"", envelope.type);
}

int wire_peek(const void *data, size_t bytes, wire_type_t *type)
{
    wire_reader_t reader = wire_reader(data, bytes);
    uint32_t count;
    if (bytes > WIRE_MESSAGE_BYTES_MOST)
        return error_set(WIRE_ERR_BOUNDS, "message of %zu bytes, expected at most %d", bytes, WIRE_MESSAGE_BYTES_MOST);
    if (!wire_reader_at_array(&reader))
        return wire_map_type(&reader, type);
    int rc = wire_reader_array(&reader, WIRE_BARS_MOST, &count);
    wire_type_t first = WIRE_BAR;
    if (rc == WIRE_OK && count > 0)
        rc = wire_map_type(&reader, &first);
    if (rc == WIRE_OK && first != WIRE_BAR)
        rc = error_set(WIRE_ERR_TYPE, "an array of %s messages, expected of bars", wire_type_name(first));
    if (rc == WIRE_OK)
        *type = WIRE_BAR;
    return rc;
}

int wire_message_decode(const void *data, size_t bytes, wire_type_t type, wire_table_t table, void *message)
{
    wire_reader_t reader = wire_reader(data, bytes);
    wire_type_t got;
    int rc = wire_peek(data, bytes, &got);
    if (rc == WIRE_OK && got != type)
        rc = error_set(WIRE_ERR_TYPE, "got a message of type %s", wire_type_name(got));
    if (rc == WIRE_OK)
        rc = wire_map_read(&reader, table, message);
    if (rc == WIRE_OK && reader.at != reader.end)
        rc = error_set(WIRE_ERR_MALFORMED, "%zu bytes behind the message", (size_t)(reader.end - reader.at));
    return rc < 0 ? error_add(rc, "%s", wire_type_name(type)) : rc;
}
