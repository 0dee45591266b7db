/* Any bytes as bars from another program: each bar handed on survives encoding and decoding. */
#include "base/error.h"
#include "wire/wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static wire_buffer_t *buffer;
static size_t handed;

static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static void compare(void *context, const wire_bar_t *again)
{
    const wire_bar_t *bar = context;
    const shm_bar_t *a = &bar->bar, *b = &again->bar;
    if (strcmp(bar->symbol, again->symbol) != 0 || bar->interval_ns != again->interval_ns || a->open_time_ns != b->open_time_ns ||
        a->flags != b->flags || !same(a->open, b->open) || !same(a->high, b->high) || !same(a->low, b->low) ||
        !same(a->close, b->close) || !same(a->volume, b->volume) || !same(a->amount, b->amount))
        abort();
}

static void round_trip(void *context, const wire_bar_t *bar)
{
    (void)context;
    wire_bar_t copy = *bar;
    size_t rejected;
    handed++;
    if (wire_bars_encode(buffer, &copy, 1) < 0 ||
        wire_bars_decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), compare, &copy, &rejected) < 0 || rejected)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t rejected = 0;
    if (!buffer && wire_buffer_open(0, &buffer) < 0)
        abort();
    handed = 0;
    error_set(0, "%s", "");
    if (wire_bars_decode(data, size, round_trip, NULL, &rejected) < 0 && (handed || rejected || !*error_text()))
        abort();
    return 0;
}
