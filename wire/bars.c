/* Bars from other programs: one map, or an array of them. */
#include "base/error.h"
#include "wire/map.h"

#include <math.h>

typedef struct {
    wire_bar_t bar;
    bool in_progress;
} frame_t;

#define PRICE(name)       WIRE_KEY_AT(#name, frame_t, bar.bar.name, WIRE_KEY_F64)
#define BAR(member, type) WIRE_KEY_AT(#member, frame_t, bar.member, type)

static const wire_key_t bar_keys[] = {
    {BAR(symbol, WIRE_KEY_TEXT)},
    {BAR(interval_ns, WIRE_KEY_I64), .optional = true},
    {WIRE_KEY_AT("time_ns", frame_t, bar.bar.open_time_ns, WIRE_KEY_I64)},
    {PRICE(open)},
    {PRICE(high)},
    {PRICE(low)},
    {PRICE(close)},
    {PRICE(volume), .optional = true},
    {PRICE(amount), .optional = true},
    {WIRE_KEY(frame_t, in_progress, WIRE_KEY_BOOL), .optional = true},
};

int wire_bars_encode(wire_buffer_t *to, const wire_bar_t *bars, size_t count)
{
    msgpack_packer *packer = wire_buffer_begin(to);
    int rc = WIRE_OK;
    if (count > WIRE_BARS_MOST)
        rc = error_set(WIRE_ERR_BOUNDS, "%zu bars, expected at most %d", count, WIRE_BARS_MOST);
    else if (count != 1)
        msgpack_pack_array(packer, count);
    for (size_t i = 0; rc == WIRE_OK && i < count; i++) {
        frame_t frame = {bars[i], bars[i].bar.flags & SHM_BAR_IN_PROGRESS};
        rc = wire_map_pack(packer, WIRE_BAR, WIRE_TABLE(bar_keys), &frame);
    }
    rc = wire_buffer_end(to, rc);
    return rc < 0 ? error_add(rc, "%s", wire_type_name(WIRE_BAR)) : rc;
}

static int read_bar(wire_reader_t from, wire_bar_t *out)
{
    frame_t frame = {.bar.bar = {.volume = NAN, .amount = NAN}};
    shm_bar_t *bar = &frame.bar.bar;
    wire_type_t type;
    int rc = wire_map_type(&from, &type);
    if (rc == WIRE_OK && type != WIRE_BAR)
        rc = error_set(WIRE_ERR_TYPE, "got a message of type %s", wire_type_name(type));
    if (rc == WIRE_OK)
        rc = wire_map_read(&from, WIRE_TABLE(bar_keys), &frame);
    if (rc < 0)
        return error_add(rc, "%s", wire_type_name(WIRE_BAR));
    bar->flags = (frame.in_progress ? SHM_BAR_IN_PROGRESS : 0u) | (isnan(bar->volume) ? SHM_BAR_NO_VOLUME : 0u) |
                 (isnan(bar->amount) ? SHM_BAR_NO_AMOUNT : 0u);
    *out = frame.bar;
    return WIRE_OK;
}

int wire_bars_decode(const void *data, size_t bytes, void (*each)(void *context, const wire_bar_t *bar), void *context,
                     size_t *rejected)
{
    wire_reader_t reader = wire_reader(data, bytes), whole, element;
    wire_type_t type;
    uint32_t count = 1;
    int rc = wire_peek(data, bytes, &type);
    if (rc == WIRE_OK && type != WIRE_BAR)
        rc = error_set(WIRE_ERR_TYPE, "got a message of type %s", wire_type_name(type));
    if (rc == WIRE_OK) /* nothing is handed on from a message that ends badly */
        rc = wire_reader_skip(&reader, &whole);
    if (rc == WIRE_OK && reader.at != reader.end)
        rc = error_set(WIRE_ERR_MALFORMED, "%zu bytes behind the message", (size_t)(reader.end - reader.at));
    if (rc == WIRE_OK && wire_reader_at_array(&whole))
        rc = wire_reader_array(&whole, WIRE_BARS_MOST, &count);
    if (rc < 0)
        return error_add(rc, "%s", wire_type_name(WIRE_BAR));

    size_t bad = 0;
    for (uint32_t i = 0; i < count; i++) {
        wire_bar_t bar;
        wire_reader_skip(&whole, &element);
        if (read_bar(element, &bar) == WIRE_OK)
            each(context, &bar);
        else
            bad++;
    }
    *rejected = bad;
    return WIRE_OK;
}
