/* The published forecast. Its keys may come in any order, but the arrays' sizes stand in other keys: a first pass takes the plain values and
 * remembers where the arrays lie, a second one reads them into the scratch memory, whose size is known by then. */
#include "base/error.h"
#include "base/text.h"
#include "wire/map.h"

#include <endian.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where one field's arrays lie in the message; at NULL: not there. */
typedef struct {
    wire_reader_t mean, quantiles, samples;
} parts_t;

typedef struct {
    wire_forecast_t forecast; /* first: rows that are only packed get the forecast itself */
    parts_t target;
    wire_reader_t levels, times, fields;
} frame_t;

/* ---- what holds in both directions ------------------------------------------------------------------------------------------------ */

static int check_range(const char *key, uint32_t value, uint32_t least, uint32_t most)
{
    if (value < least || value > most)
        return error_set(WIRE_ERR_BOUNDS, "%s: %u, expected %u to %u", key, value, least, most);
    return WIRE_OK;
}

static int check_scalars(const wire_forecast_t *forecast)
{
    int rc = check_range("horizon", forecast->horizon, 1, WIRE_HORIZON_MOST);
    if (rc == WIRE_OK)
        rc = check_range("num_samples", forecast->sample_count, 0, WIRE_SAMPLES_MOST);
    if (rc == WIRE_OK)
        rc = check_range("quantile_levels: count", forecast->quantile_count, 0, WIRE_QUANTILES_MOST);
    if (rc == WIRE_OK)
        rc = check_range("fields: count with the target", forecast->field_count, 1, WIRE_FIELDS_MOST);
    if (rc == WIRE_OK && !isfinite(forecast->last))
        rc = error_set(WIRE_ERR_BOUNDS, "last: %g, expected a finite number", forecast->last);
    double before = 0;
    for (uint32_t i = 0; rc == WIRE_OK && i < forecast->quantile_count; i++) {
        double level = forecast->quantile_levels[i];
        if (!(level > before && level < 1))
            rc = error_set(WIRE_ERR_BOUNDS, "quantile_levels: %g after %g, expected ascending levels within (0, 1)", level, before);
        before = level;
    }
    return rc;
}

/* ---- packing ---------------------------------------------------------------------------------------------------------------------- */

enum { FLOATS_AT_ONCE = 64, FLOAT_BYTES = 5, MSGPACK_FLOAT = 0xca };

/* msgpack_pack_float for all; false: one is not finite. No branches, as forecasts are made of little else. */
static bool pack_block(unsigned char *to, const float *values, uint32_t count)
{
    uint32_t sums = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        sums |= (bits & 0x7f800000) + 0x00800000; /* an exponent of ones carries into the highest bit */
        uint64_t packed = htobe64((uint64_t)MSGPACK_FLOAT << 56 | (uint64_t)bits << 24);
        memcpy(to + i * FLOAT_BYTES, &packed, sizeof packed); /* the next one overwrites what is too much */
    }
    return !(sums >> 31);
}

static int pack_floats(msgpack_packer *to, const float *values, uint32_t count)
{
    unsigned char packed[FLOATS_AT_ONCE * FLOAT_BYTES + sizeof(uint64_t)];
    msgpack_pack_array(to, count);
    for (uint32_t i = 0, most; i < count; i += most) {
        most = count - i < FLOATS_AT_ONCE ? count - i : FLOATS_AT_ONCE;
        if (!pack_block(packed, values + i, most)) {
            while (isfinite(values[i]))
                i++;
            return error_set(WIRE_ERR_BOUNDS, "element %u is %g, expected a finite number", i, (double)values[i]);
        }
        to->callback(to->data, (const char *)packed, most * FLOAT_BYTES);
    }
    return WIRE_OK;
}

static int pack_mean(msgpack_packer *to, const wire_forecast_t *forecast, const wire_field_t *field)
{
    if (!field->mean) {
        msgpack_pack_nil(to);
        return WIRE_OK;
    }
    return pack_floats(to, field->mean, forecast->horizon);
}

static int pack_quantiles(msgpack_packer *to, const wire_forecast_t *forecast, const wire_field_t *field)
{
    if (forecast->quantile_count && !field->quantiles)
        return error_set(WIRE_ERR_BOUNDS, "field %s has none, expected one array a level", field->field);
    msgpack_pack_map(to, forecast->quantile_count);
    for (uint32_t i = 0; i < forecast->quantile_count; i++) {
        const char *level = wire_level_text(to, i, forecast->quantile_levels[i]);
        wire_pack_text(to, level);
        int rc = pack_floats(to, field->quantiles + (size_t)i * forecast->horizon, forecast->horizon);
        if (rc < 0)
            return error_add(rc, "%s", level);
    }
    return WIRE_OK;
}

static int pack_samples(msgpack_packer *to, const wire_forecast_t *forecast, const wire_field_t *field)
{
    if (!field->samples) {
        msgpack_pack_nil(to);
        return WIRE_OK;
    }
    msgpack_pack_array(to, forecast->sample_count);
    for (uint32_t i = 0; i < forecast->sample_count; i++) {
        int rc = pack_floats(to, field->samples + (size_t)i * forecast->horizon, forecast->horizon);
        if (rc < 0)
            return error_add(rc, "path %u", i);
    }
    return WIRE_OK;
}

static int pack_target_mean(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_forecast_t *forecast = message;
    return pack_mean(to, forecast, &forecast->fields[0]);
}

static int pack_target_quantiles(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_forecast_t *forecast = message;
    return pack_quantiles(to, forecast, &forecast->fields[0]);
}

static int pack_target_samples(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_forecast_t *forecast = message;
    return pack_samples(to, forecast, &forecast->fields[0]);
}

static int pack_field(msgpack_packer *to, const wire_forecast_t *forecast, const wire_field_t *field)
{
    msgpack_pack_map(to, 3);
    wire_pack_text(to, "mean");
    int rc = pack_mean(to, forecast, field);
    wire_pack_text(to, "quantiles");
    if (rc == WIRE_OK)
        rc = pack_quantiles(to, forecast, field);
    wire_pack_text(to, "samples");
    if (rc == WIRE_OK)
        rc = pack_samples(to, forecast, field);
    return rc;
}

static int pack_other_fields(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_forecast_t *forecast = message;
    msgpack_pack_map(to, forecast->field_count - 1);
    for (uint32_t i = 1; i < forecast->field_count; i++) {
        const char *name = forecast->fields[i].field;
        if (!memchr(name, '\0', sizeof forecast->fields[i].field))
            return error_set(WIRE_ERR_BOUNDS, "the name of field %u is too long", i);
        wire_pack_text(to, name);
        int rc = pack_field(to, forecast, &forecast->fields[i]);
        if (rc < 0)
            return error_add(rc, "%s", name);
    }
    return WIRE_OK;
}

static int pack_levels(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_forecast_t *forecast = message;
    msgpack_pack_array(to, forecast->quantile_count);
    for (uint32_t i = 0; i < forecast->quantile_count; i++)
        msgpack_pack_double(to, forecast->quantile_levels[i]);
    return WIRE_OK;
}

/* The spacing of the bars forecast where no times_ns says otherwise: the bars' own interval. */
static int pack_step(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    msgpack_pack_int64(to, ((const wire_forecast_t *)message)->interval_ns);
    return WIRE_OK;
}

static int pack_times(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_forecast_t *forecast = message;
    if (!forecast->times_ns) {
        msgpack_pack_nil(to);
        return WIRE_OK;
    }
    msgpack_pack_array(to, forecast->horizon);
    for (uint32_t i = 0; i < forecast->horizon; i++)
        msgpack_pack_int64(to, forecast->times_ns[i]);
    return WIRE_OK;
}

static void pack_us(msgpack_packer *to, const char *stage, int64_t from_ns, int64_t to_ns)
{
    wire_pack_text(to, stage);
    msgpack_pack_double(to, ((double)to_ns - (double)from_ns) / 1e3);
}

static int pack_latency(const wire_key_t *key, const void *message, msgpack_packer *to)
{
    (void)key;
    const wire_forecast_t *forecast = message;
    msgpack_pack_map(to, 4);
    pack_us(to, "queue", forecast->stored_ns, forecast->assigned_ns);
    pack_us(to, "compute", forecast->assigned_ns, forecast->computed_ns);
    pack_us(to, "publish", forecast->computed_ns, forecast->published_ns);
    pack_us(to, "total", forecast->stored_ns, forecast->published_ns);
    return WIRE_OK;
}

static int remember(const wire_key_t *key, wire_reader_t *from, void *message)
{
    return wire_reader_skip(from, (wire_reader_t *)(void *)((char *)message + key->offset));
}

/* ---- the table -------------------------------------------------------------------------------------------------------------------- */

#define PLAIN(member, type)          WIRE_KEY(wire_forecast_t, member, type)
#define NAMED(name, member, type)    WIRE_KEY_AT(name, wire_forecast_t, member, type)
#define ARRAYS(name, member, packer) WIRE_KEY_AT(name, frame_t, member, WIRE_KEY_OWN), .pack = packer, .read = remember

static const wire_key_t forecast_keys[] = {
    {PLAIN(symbol, WIRE_KEY_TEXT)},
    {PLAIN(model, WIRE_KEY_TEXT)},
    {PLAIN(model_revision, WIRE_KEY_TEXT)},
    {NAMED("target", fields[0].field, WIRE_KEY_TEXT)},
    {PLAIN(interval_ns, WIRE_KEY_I64)},
    {PLAIN(cutoff_ns, WIRE_KEY_I64)},
    {PLAIN(start_ns, WIRE_KEY_I64)},
    {"step_ns", WIRE_KEY_OWN, .pack = pack_step},
    {ARRAYS("times_ns", times, pack_times), .optional = true},
    {PLAIN(created_ns, WIRE_KEY_I64)},
    {PLAIN(bar_index, WIRE_KEY_U64)},
    {PLAIN(seq, WIRE_KEY_U64)},
    {PLAIN(seed, WIRE_KEY_U64)},
    {PLAIN(last, WIRE_KEY_F64)},
    {PLAIN(horizon, WIRE_KEY_U32)},
    {PLAIN(context, WIRE_KEY_U32)},
    {NAMED("num_samples", sample_count, WIRE_KEY_U32)},
    {ARRAYS("quantile_levels", levels, pack_levels)},
    {ARRAYS("mean", target.mean, pack_target_mean), .optional = true},
    {ARRAYS("quantiles", target.quantiles, pack_target_quantiles)},
    {ARRAYS("samples", target.samples, pack_target_samples), .optional = true},
    {ARRAYS("fields", fields, pack_other_fields), .optional = true},
    {PLAIN(worker, WIRE_KEY_TEXT)},
    {PLAIN(stored_ns, WIRE_KEY_I64)},
    {PLAIN(assigned_ns, WIRE_KEY_I64)},
    {PLAIN(computed_ns, WIRE_KEY_I64)},
    {PLAIN(published_ns, WIRE_KEY_I64)},
    {"latency_us", WIRE_KEY_OWN, .pack = pack_latency},
};

static const wire_key_t parts_keys[] = {
    {WIRE_KEY(parts_t, mean, WIRE_KEY_OWN), .optional = true, .read = remember},
    {WIRE_KEY(parts_t, quantiles, WIRE_KEY_OWN), .read = remember},
    {WIRE_KEY(parts_t, samples, WIRE_KEY_OWN), .optional = true, .read = remember},
};

int wire_forecast_encode(wire_buffer_t *to, const wire_forecast_t *message)
{
    int rc = check_scalars(message);
    if (rc < 0) {
        wire_buffer_begin(to);
        return error_add(rc, "%s", wire_type_name(WIRE_FORECAST));
    }
    return wire_message_encode(to, WIRE_FORECAST, WIRE_TABLE(forecast_keys), message);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

static int read_levels(wire_reader_t from, wire_forecast_t *forecast)
{
    int rc = wire_reader_array(&from, WIRE_QUANTILES_MOST, &forecast->quantile_count);
    for (uint32_t i = 0; rc == WIRE_OK && i < forecast->quantile_count; i++)
        rc = wire_reader_number(&from, &forecast->quantile_levels[i]);
    return rc < 0 ? error_add(rc, "quantile_levels") : rc;
}

static int read_times(wire_reader_t from, wire_forecast_t *forecast, wire_scratch_t *scratch)
{
    uint32_t count;
    forecast->times_ns = NULL;
    if (!from.at)
        return WIRE_OK;
    if (!scratch->times && !(scratch->times = calloc(WIRE_HORIZON_MOST, sizeof *scratch->times)))
        return error_set(WIRE_ERR_MEMORY, "no memory for %d times", WIRE_HORIZON_MOST);
    int rc = wire_reader_array(&from, WIRE_HORIZON_MOST, &count);
    if (rc == WIRE_OK && count != forecast->horizon)
        rc = error_set(WIRE_ERR_BOUNDS, "%u elements, expected %u", count, forecast->horizon);
    for (uint32_t i = 0; rc == WIRE_OK && i < count; i++) {
        rc = wire_reader_signed(&from, &scratch->times[i]);
        if (rc == WIRE_OK && scratch->times[i] <= (i == 0 ? forecast->cutoff_ns : scratch->times[i - 1]))
            rc = error_set(WIRE_ERR_BOUNDS, "element %u does not come after the one before it", i);
    }
    forecast->times_ns = scratch->times;
    return rc < 0 ? error_add(rc, "times_ns") : rc;
}

/* The names of the fields after the target, and where the arrays of each lie. */
static int read_fields(wire_reader_t from, wire_forecast_t *forecast, parts_t parts[static WIRE_FIELDS_MOST])
{
    uint32_t count = 0;
    int rc = from.at ? wire_reader_map(&from, &count) : WIRE_OK;
    if (rc == WIRE_OK && count >= WIRE_FIELDS_MOST)
        rc = error_set(WIRE_ERR_BOUNDS, "%u elements, expected at most %d", count, WIRE_FIELDS_MOST - 1);
    for (uint32_t i = 1; rc == WIRE_OK && i <= count; i++) {
        rc = wire_reader_text(&from, sizeof forecast->fields[i].field, forecast->fields[i].field);
        if (rc == WIRE_OK && (rc = wire_map_read(&from, WIRE_TABLE(parts_keys), &parts[i])) < 0)
            rc = error_add(rc, "%s", forecast->fields[i].field);
    }
    forecast->field_count = 1 + count;
    return rc < 0 ? error_add(rc, "fields") : rc;
}

static int read_quantiles(wire_reader_t from, const wire_forecast_t *forecast, float *out)
{
    uint32_t count;
    uint64_t seen[2] = {0};
    int rc = wire_reader_map(&from, &count);
    if (rc == WIRE_OK && count != forecast->quantile_count)
        rc = error_set(WIRE_ERR_BOUNDS, "%u elements, expected %u", count, forecast->quantile_count);
    for (uint32_t i = 0; rc == WIRE_OK && i < count; i++) {
        char text[WIRE_NAME_BYTES];
        if ((rc = wire_reader_text(&from, sizeof text, text)) < 0)
            break;
        double level = 0;
        uint32_t slot = text_to_f64(text, &level) ? 0 : count;
        while (slot < count && forecast->quantile_levels[slot] != level)
            slot++;
        if (slot == count || seen[slot / 64] >> slot % 64 & 1)
            return error_set(WIRE_ERR_MALFORMED, "\"%s\": expected each of quantile_levels once", text);
        seen[slot / 64] |= UINT64_C(1) << slot % 64;
        if ((rc = wire_reader_floats(&from, forecast->horizon, out + (size_t)slot * forecast->horizon)) < 0)
            rc = error_add(rc, "%s", text);
    }
    return rc;
}

static int read_samples(wire_reader_t from, const wire_forecast_t *forecast, float *out)
{
    uint32_t count;
    int rc = wire_reader_array(&from, WIRE_SAMPLES_MOST, &count);
    if (rc == WIRE_OK && count != forecast->sample_count)
        rc = error_set(WIRE_ERR_BOUNDS, "%u elements, expected %u", count, forecast->sample_count);
    for (uint32_t i = 0; rc == WIRE_OK && i < count; i++)
        rc = wire_reader_floats(&from, forecast->horizon, out + (size_t)i * forecast->horizon);
    return rc;
}

/* Floats that the arrays of one field hold. */
static size_t field_floats(const wire_forecast_t *forecast, const parts_t *parts)
{
    size_t rows = (parts->mean.at ? 1u : 0u) + forecast->quantile_count + (parts->samples.at ? forecast->sample_count : 0u);
    return rows * forecast->horizon;
}

static int read_field(const parts_t *parts, const wire_forecast_t *forecast, float *values, wire_field_t *out)
{
    int rc = WIRE_OK;
    out->mean = out->quantiles = out->samples = NULL;
    if (parts->mean.at) {
        wire_reader_t from = parts->mean;
        if ((rc = wire_reader_floats(&from, forecast->horizon, values)) < 0)
            return error_add(rc, "%s: mean", out->field);
        out->mean = values;
        values += forecast->horizon;
    }
    if ((rc = read_quantiles(parts->quantiles, forecast, values)) < 0)
        return error_add(rc, "%s: quantiles", out->field);
    if (forecast->quantile_count) {
        out->quantiles = values;
        values += (size_t)forecast->quantile_count * forecast->horizon;
    }
    if (parts->samples.at) {
        if ((rc = read_samples(parts->samples, forecast, values)) < 0)
            return error_add(rc, "%s: samples", out->field);
        out->samples = values;
    }
    return rc;
}

static int reserve(wire_scratch_t *scratch, size_t floats)
{
    if (floats <= scratch->capacity)
        return WIRE_OK;
    float *values = realloc(scratch->values, floats * sizeof *values);
    if (!values)
        return error_set(WIRE_ERR_MEMORY, "no memory for %zu values", floats);
    scratch->values = values;
    scratch->capacity = floats;
    return WIRE_OK;
}

static int read_arrays(const parts_t parts[static WIRE_FIELDS_MOST], size_t bytes, wire_forecast_t *forecast,
                       wire_scratch_t *scratch)
{
    size_t floats = 0;
    for (uint32_t i = 0; i < forecast->field_count; i++)
        floats += field_floats(forecast, &parts[i]);
    if (floats > bytes) /* each has at least one: nothing is allocated for a message that cannot hold them */
        return error_set(WIRE_ERR_BOUNDS, "%zu values expected by its horizon, levels and samples, but it has %zu bytes", floats,
                         bytes);
    int rc = reserve(scratch, floats);
    float *values = scratch->values;
    for (uint32_t i = 0; rc == WIRE_OK && i < forecast->field_count; i++) {
        rc = read_field(&parts[i], forecast, values, &forecast->fields[i]);
        values += field_floats(forecast, &parts[i]);
    }
    return rc;
}

int wire_forecast_decode(const void *data, size_t bytes, wire_forecast_t *out, wire_scratch_t *scratch)
{
    frame_t frame = {0};
    parts_t parts[WIRE_FIELDS_MOST] = {0};
    wire_forecast_t *forecast = &frame.forecast;
    int rc = wire_message_decode(data, bytes, WIRE_FORECAST, WIRE_TABLE(forecast_keys), &frame);
    if (rc < 0)
        return rc;
    parts[0] = frame.target;
    rc = read_levels(frame.levels, forecast);
    if (rc == WIRE_OK)
        rc = read_fields(frame.fields, forecast, parts);
    if (rc == WIRE_OK)
        rc = check_scalars(forecast);
    if (rc == WIRE_OK)
        rc = read_times(frame.times, forecast, scratch);
    if (rc == WIRE_OK)
        rc = read_arrays(parts, bytes, forecast, scratch);
    if (rc < 0)
        return error_add(rc, "%s", wire_type_name(WIRE_FORECAST));
    *out = *forecast;
    return WIRE_OK;
}

void wire_scratch_free(wire_scratch_t *scratch)
{
    free(scratch->values);
    free(scratch->times);
    *scratch = (wire_scratch_t){0};
}
