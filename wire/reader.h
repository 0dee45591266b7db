/* A cursor over MessagePack bytes: takes one value after the other, in place, without allocating and without recursion.
 *
 * msgpack-c packs what we send, but does not unpack what we get: its unpacker builds a tree of 24 bytes a value, and sizes each array by the
 * count that the sender claims, before it has seen one element. Here a count or length that the remaining bytes cannot hold is refused where
 * it stands, in any width that MessagePack has for it.
 *
 * All functions return WIRE_OK, or WIRE_ERR_MALFORMED (cut short, another type than asked for) or WIRE_ERR_BOUNDS with error_text()
 * set; the cursor is then useless. Internal to wire/. */
#ifndef BARCAST_WIRE_READER_H
#define BARCAST_WIRE_READER_H

#include "wire/wire.h"

typedef struct {
    const unsigned char *at, *end;
} wire_reader_t;

wire_reader_t wire_reader(const void *data, size_t bytes);

int wire_reader_unsigned(wire_reader_t *reader, uint64_t most, uint64_t *out);
int wire_reader_signed(wire_reader_t *reader, int64_t *out);
int wire_reader_number(wire_reader_t *reader, double *out); /* any float or integer */
int wire_reader_bool(wire_reader_t *reader, bool *out);

/* Text of less than `bytes` bytes with no NUL in it, copied with one behind it. */
int wire_reader_text(wire_reader_t *reader, size_t bytes, char *out);
/* Text in place, not terminated. */
int wire_reader_text_in_place(wire_reader_t *reader, const char **text, size_t *length);

/* The head of an array of at most `most` elements, or of a map of at most WIRE_KEYS_MOST pairs: these follow. */
int wire_reader_array(wire_reader_t *reader, uint32_t most, uint32_t *count);
int wire_reader_map(wire_reader_t *reader, uint32_t *count);
bool wire_reader_at_array(const wire_reader_t *reader);

/* An array of exactly `count` finite numbers. */
int wire_reader_floats(wire_reader_t *reader, uint32_t count, float *out);

/* Takes a nil if one is next. */
bool wire_reader_nil(wire_reader_t *reader);

/* Takes one whole value, whatever it is; *skipped (may be NULL) is a cursor over just that. */
int wire_reader_skip(wire_reader_t *reader, wire_reader_t *skipped);

#endif
