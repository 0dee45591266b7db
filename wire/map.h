/* Messages as tables: one row a key, from which a map is both packed and read. Internal to wire/. */
#ifndef BARCAST_WIRE_MAP_H
#define BARCAST_WIRE_MAP_H

#include "wire/buffer.h"
#include "wire/reader.h"

typedef enum {
    WIRE_KEY_TEXT, /* char[bytes] */
    WIRE_KEY_BOOL, /* bool */
    WIRE_KEY_U32,  /* uint32_t */
    WIRE_KEY_U64,  /* uint64_t */
    WIRE_KEY_I64,  /* int64_t */
    WIRE_KEY_F64,  /* double; NaN of an optional key is packed as nil */
    WIRE_KEY_OWN   /* pack and read; read NULL: made from other keys, ignored when read */
} wire_key_type_t;

typedef struct wire_key wire_key_t;
struct wire_key {
    const char *name;
    wire_key_type_t type;
    size_t offset, bytes; /* in the message's struct */
    bool optional;        /* when read, it may be absent or nil: the struct keeps what it had */
    int (*pack)(const wire_key_t *key, const void *message, msgpack_packer *to);
    int (*read)(const wire_key_t *key, wire_reader_t *from, void *message);
};

/* Row of a plain member: WIRE_KEY(wire_hello_t, worker, WIRE_KEY_TEXT). */
#define WIRE_KEY_AT(name_, struct_, member_, type_)                                                                                \
    .name = name_, .type = type_, .offset = offsetof(struct_, member_), .bytes = sizeof(((struct_ *)NULL)->member_)
#define WIRE_KEY(struct_, member_, type_) WIRE_KEY_AT(#member_, struct_, member_, type_)

typedef struct {
    const wire_key_t *keys;
    size_t count; /* at most 64 */
} wire_table_t;

#define WIRE_TABLE(keys_) ((wire_table_t){keys_, sizeof(keys_) / sizeof(keys_)[0]})

/* Packs every row; with `type` a whole message, "v" and "t" first; 0 for a map within one. error_text() names the key. */
int wire_map_pack(msgpack_packer *to, wire_type_t type, wire_table_t table, const void *message);

/* Reads one map: every row once, unknown keys skipped. */
int wire_map_read(wire_reader_t *from, wire_table_t table, void *message);

/* A whole message of that type: begins and ends the buffer; checks type, version and that nothing is behind it. */
int wire_message_encode(wire_buffer_t *to, wire_type_t type, wire_table_t table, const void *message);
int wire_message_decode(const void *data, size_t bytes, wire_type_t type, wire_table_t table, void *message);

/* The type of the map at `reader`, which is not moved; version checked. */
int wire_map_type(const wire_reader_t *reader, wire_type_t *type);

void wire_pack_text(msgpack_packer *to, const char *text);

#endif
