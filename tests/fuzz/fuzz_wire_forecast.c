/* Any bytes as a forecast: refused with a text, or encoded again and read back the same. */
#include "base/error.h"
#include "wire/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static wire_buffer_t *buffer;
static wire_scratch_t scratch, scratch_again;

static void compare(const float *a, const float *b, size_t count)
{
    if ((a == NULL) != (b == NULL) || (a && memcmp(a, b, count * sizeof *a) != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    wire_forecast_t forecast, again;
    if (!buffer && wire_buffer_open(0, &buffer) < 0)
        abort();
    error_set(0, "%s", "");
    if (wire_forecast_decode(data, size, &forecast, &scratch) < 0) {
        if (!*error_text())
            abort();
        return 0;
    }
    if (wire_forecast_encode(buffer, &forecast) < 0 ||
        wire_forecast_decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), &again, &scratch_again) < 0) {
        fprintf(stderr, "%s\n", error_text());
        abort();
    }
    if (again.field_count != forecast.field_count || strcmp(again.symbol, forecast.symbol) != 0 || again.seed != forecast.seed)
        abort();
    for (uint32_t i = 0; i < forecast.field_count; i++) {
        const wire_field_t *a = &forecast.fields[i], *b = &again.fields[i];
        compare(a->mean, b->mean, forecast.horizon);
        compare(a->quantiles, b->quantiles, (size_t)forecast.horizon * forecast.quantile_count);
        compare(a->samples, b->samples, (size_t)forecast.horizon * forecast.sample_count);
    }
    return 0;
}
