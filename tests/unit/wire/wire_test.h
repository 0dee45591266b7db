/* What the tests of wire/ share: a valid example of every message, and a way to change one key of it. */
#ifndef BARCAST_TESTS_WIRE_TEST_H
#define BARCAST_TESTS_WIRE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "wire/wire.h"

#include <msgpack.h>

enum { EXAMPLE_HORIZON = 3, EXAMPLE_QUANTILES = 2, EXAMPLE_SAMPLES = 2, DECODED_BYTES = 16384 };

typedef struct {
    const char *name;
    void (*encode)(wire_buffer_t *to); /* a valid message, the same every time, all fields used */
    /* Decodes into `out`, which is comparable as bytes: equal when the messages are. */
    int (*decode)(const void *data, size_t bytes, unsigned char out[static DECODED_BYTES]);
    const char *free_keys; /* keys that may be missing or are not read, each between two blanks */
} example_t;

extern const example_t examples[];
extern const size_t example_count;

const wire_forecast_t *example_forecast(void);

/* Copies a message (a map) while changing it; the parsing is msgpack-c's own, not ours. */
typedef struct {
    const char *drop;                  /* leave that key out */
    const char *twice;                 /* write that key twice */
    const char *replace;               /* give that key another value: */
    void (*value)(msgpack_packer *to); /*   this one */
    void (*extra)(msgpack_packer *to); /* writes one more key and value, at the front */
    bool reverse;                      /* keys from the last to the first */
    bool wide;                         /* integers in 8 bytes, floats as doubles, lengths in 4 bytes */
} change_t;

void repack(const void *data, size_t bytes, const change_t *change, msgpack_sbuffer *out);

/* Calls `each` for every top-level key. */
void for_each_key(const void *data, size_t bytes, void (*each)(const char *key, void *context), void *context);

#endif
