/* Any bytes as a message between scheduler and worker: refused with a text, or encoded again and read back. */
#include "base/error.h"
#include "wire/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static wire_buffer_t *buffer;
static wire_item_t items[WIRE_ITEMS_MOST], items_again[WIRE_ITEMS_MOST];
static uint8_t status[WIRE_ITEMS_MOST], status_again[WIRE_ITEMS_MOST];

static void expect(int rc)
{
    if (rc == WIRE_OK)
        return;
    fprintf(stderr, "%s\n", error_text());
    abort();
}

/* Decodes; what is valid must survive encoding and decoding. The messages are zero where nothing was decoded. */
#define ROUND_TRIP(name)                                                                                                           \
    do {                                                                                                                           \
        wire_##name##_t message = {0}, again = {0};                                                                                \
        if (wire_##name##_decode(data, size, &message) == WIRE_OK) {                                                               \
            expect(wire_##name##_encode(buffer, &message));                                                                        \
            expect(wire_##name##_decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &again));                             \
            if (memcmp(&message, &again, sizeof message) != 0)                                                                     \
                abort();                                                                                                           \
        } else if (!*error_text()) {                                                                                               \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

static void round_trip_assign(const uint8_t *data, size_t size)
{
    wire_assign_t message = {.items = items}, again = {.items = items_again};
    if (wire_assign_decode(data, size, &message) < 0)
        return;
    expect(wire_assign_encode(buffer, &message));
    expect(wire_assign_decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &again));
    if (again.count != message.count || memcmp(items, items_again, message.count * sizeof *items) != 0)
        abort();
}

static void round_trip_done(const uint8_t *data, size_t size)
{
    wire_done_t message = {.status = status}, again = {.status = status_again};
    if (wire_done_decode(data, size, &message) < 0)
        return;
    expect(wire_done_encode(buffer, &message));
    expect(wire_done_decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &again));
    if (again.count != message.count || memcmp(status, status_again, message.count) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    wire_type_t type;
    if (!buffer)
        expect(wire_buffer_open(0, &buffer));
    error_set(0, "%s", "");
    if (wire_peek(data, size, &type) < 0 && !*error_text())
        abort();
    ROUND_TRIP(hello);
    ROUND_TRIP(ready);
    ROUND_TRIP(heartbeat);
    ROUND_TRIP(drain);
    round_trip_assign(data, size);
    round_trip_done(data, size);
    return 0;
}
