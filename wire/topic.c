#include "base/error.h"
#include "wire/wire.h"

#include <stdio.h>
#include <string.h>

int wire_topic(const char *model, const char *symbol, char out[static WIRE_TEXT_BYTES])
{
    char text[WIRE_TEXT_BYTES];
    int length = snprintf(text, sizeof text, "forecast.%s.%s", model, symbol ? symbol : "");
    if (length < 0 || (size_t)length >= sizeof text)
        return error_set(WIRE_ERR_BOUNDS, "the topic of %s would have %d bytes, expected at most %zu", model, length,
                         sizeof text - 1);
    int bytes = length + (symbol ? 1 : 0);
    memcpy(out, text, (size_t)length + 1);
    return bytes;
}
