#include "wire/reader.h"

#include "base/error.h"

#include <endian.h>
#include <float.h>
#include <math.h>
#include <string.h>

typedef enum { NIL, BOOL, UNSIGNED, NEGATIVE, FLOAT, TEXT, BINARY, ARRAY, MAP, EXTENSION } kind_t;

static const char *const kind_names[] = {"nil",   "a boolean", "a whole number", "a negative number", "a float", "text",
                                         "bytes", "an array",  "a map",          "an extension"};

/* One value without its payload or elements. */
typedef struct {
    kind_t kind;
    uint64_t
        value; /* UNSIGNED, BOOL; NEGATIVE: two's complement; bytes of TEXT, BINARY, EXTENSION; elements of ARRAY, pairs of MAP */
    double number; /* FLOAT */
} head_t;

wire_reader_t wire_reader(const void *data, size_t bytes)
{
    return (wire_reader_t){data, (const unsigned char *)data + bytes};
}

static size_t rest(const wire_reader_t *reader)
{
    return (size_t)(reader->end - reader->at);
}

static int cut_short(void)
{
    return error_set(WIRE_ERR_MALFORMED, "the message is cut short");
}

static int another_kind(const char *expected, kind_t got)
{
    return error_set(WIRE_ERR_MALFORMED, "expected %s, got %s", expected, kind_names[got]);
}

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static int take(wire_reader_t *reader, size_t bytes, uint64_t *out)
{
    if (rest(reader) < bytes)
        return cut_short();
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | reader->at[i];
    reader->at += bytes;
    *out = value;
    return WIRE_OK;
}

static int take_float(wire_reader_t *reader, size_t bytes, double *out)
{
    uint64_t bits = 0;
    int rc = take(reader, bytes, &bits);
    if (rc < 0)
        return rc;
    if (bytes == sizeof(double)) {
        memcpy(out, &bits, sizeof *out);
        return WIRE_OK;
    }
    uint32_t bits32 = (uint32_t)bits;
    float value;
    memcpy(&value, &bits32, sizeof value);
    *out = (double)value;
    return WIRE_OK;
}

static int take_signed(wire_reader_t *reader, size_t bytes, head_t *head)
{
    int rc = take(reader, bytes, &head->value);
    uint64_t sign = UINT64_C(1) << (bytes * 8 - 1);
    head->value = (head->value ^ sign) - sign; /* extends the sign */
    head->kind = head->value >> 63 ? NEGATIVE : UNSIGNED;
    return rc;
}

/* The length or count that follows in `bytes` bytes. */
static int take_count(wire_reader_t *reader, size_t bytes, kind_t kind, head_t *head)
{
    head->kind = kind;
    return take(reader, bytes, &head->value);
}

static int take_kind(wire_reader_t *reader, head_t *head)
{
    if (reader->at == reader->end)
        return cut_short();
    unsigned byte = *reader->at++;
    *head = (head_t){.kind = NIL};
    if (byte <= 0x7f)
        *head = (head_t){.kind = UNSIGNED, .value = byte};
    else if (byte >= 0xe0)
        *head = (head_t){.kind = NEGATIVE, .value = (uint64_t)(int64_t)(int8_t)byte};
    else if (byte <= 0x8f)
        *head = (head_t){.kind = MAP, .value = byte & 0x0f};
    else if (byte <= 0x9f)
        *head = (head_t){.kind = ARRAY, .value = byte & 0x0f};
    else if (byte <= 0xbf)
        *head = (head_t){.kind = TEXT, .value = byte & 0x1f};
    else
        switch (byte) {
        case 0xc0:
            break;
        case 0xc2:
        case 0xc3:
            *head = (head_t){.kind = BOOL, .value = byte & 1};
            break;
        case 0xc4:
        case 0xc5:
        case 0xc6:
            return take_count(reader, (size_t)1 << (byte - 0xc4), BINARY, head);
        case 0xc7:
        case 0xc8:
        case 0xc9:
            return take_count(reader, (size_t)1 << (byte - 0xc7), EXTENSION, head);
        case 0xca:
        case 0xcb:
            head->kind = FLOAT;
            return take_float(reader, (size_t)4 << (byte - 0xca), &head->number);
        case 0xcc:
        case 0xcd:
        case 0xce:
        case 0xcf:
            return take_count(reader, (size_t)1 << (byte - 0xcc), UNSIGNED, head);
        case 0xd0:
        case 0xd1:
        case 0xd2:
        case 0xd3:
            return take_signed(reader, (size_t)1 << (byte - 0xd0), head);
        case 0xd4:
        case 0xd5:
        case 0xd6:
        case 0xd7:
        case 0xd8:
            *head = (head_t){.kind = EXTENSION, .value = UINT64_C(1) << (byte - 0xd4)};
            break;
        case 0xd9:
        case 0xda:
        case 0xdb:
            return take_count(reader, (size_t)1 << (byte - 0xd9), TEXT, head);
        case 0xdc:
        case 0xdd:
            return take_count(reader, (size_t)2 << (byte - 0xdc), ARRAY, head);
        case 0xde:
        case 0xdf:
            return take_count(reader, (size_t)2 << (byte - 0xde), MAP, head);
        default:
            return error_set(WIRE_ERR_MALFORMED, "byte 0x%02x begins no MessagePack value", byte);
        }
    return WIRE_OK;
}

/* The next value's head. What it announces is known to be no more than the bytes that are there: an element has at least one. */
static int take_head(wire_reader_t *reader, head_t *head)
{
    int rc = take_kind(reader, head);
    if (rc < 0)
        return rc;
    if (head->kind == EXTENSION)
        head->value++; /* its type's byte */
    if (head->kind >= TEXT && head->value > rest(reader) / (head->kind == MAP ? 2 : 1))
        return cut_short();
    return WIRE_OK;
}

int wire_reader_unsigned(wire_reader_t *reader, uint64_t most, uint64_t *out)
{
    head_t head;
    int rc = take_head(reader, &head);
    if (rc < 0)
        return rc;
    if (head.kind != UNSIGNED)
        return another_kind("a whole number of 0 or more", head.kind);
    if (head.value > most)
        return error_set(WIRE_ERR_BOUNDS, "%llu, expected at most %llu", (unsigned long long)head.value, (unsigned long long)most);
    *out = head.value;
    return WIRE_OK;
}

int wire_reader_signed(wire_reader_t *reader, int64_t *out)
{
    head_t head;
    int rc = take_head(reader, &head);
    if (rc < 0)
        return rc;
    if (head.kind != UNSIGNED && head.kind != NEGATIVE)
        return another_kind("a whole number", head.kind);
    if (head.kind == UNSIGNED && head.value > INT64_MAX)
        return error_set(WIRE_ERR_BOUNDS, "%llu, expected at most %lld", (unsigned long long)head.value, (long long)INT64_MAX);
    *out = (int64_t)head.value;
    return WIRE_OK;
}

int wire_reader_number(wire_reader_t *reader, double *out)
{
    head_t head;
    int rc = take_head(reader, &head);
    if (rc < 0)
        return rc;
    switch (head.kind) {
    case FLOAT:
        *out = head.number;
        return WIRE_OK;
    case UNSIGNED:
        *out = (double)head.value;
        return WIRE_OK;
    case NEGATIVE:
        *out = (double)(int64_t)head.value;
        return WIRE_OK;
    default:
        return another_kind("a number", head.kind);
    }
}

int wire_reader_bool(wire_reader_t *reader, bool *out)
{
    head_t head;
    int rc = take_head(reader, &head);
    if (rc < 0)
        return rc;
    if (head.kind != BOOL)
        return another_kind("a boolean", head.kind);
    *out = head.value != 0;
    return WIRE_OK;
}

int wire_reader_text_in_place(wire_reader_t *reader, const char **text, size_t *length)
{
    head_t head;
    int rc = take_head(reader, &head);
    if (rc < 0)
        return rc;
    if (head.kind != TEXT)
        return another_kind("text", head.kind);
    *text = (const char *)reader->at;
    *length = head.value;
    reader->at += head.value;
    return WIRE_OK;
}

int wire_reader_text(wire_reader_t *reader, size_t bytes, char *out)
{
    const char *text;
    size_t length;
    int rc = wire_reader_text_in_place(reader, &text, &length);
    if (rc < 0)
        return rc;
    if (length >= bytes)
        return error_set(WIRE_ERR_BOUNDS, "text of %zu bytes, expected at most %zu", length, bytes - 1);
    if (memchr(text, '\0', length))
        return error_set(WIRE_ERR_MALFORMED, "a zero byte in text");
    memcpy(out, text, length);
    out[length] = '\0';
    return WIRE_OK;
}

static int take_elements(wire_reader_t *reader, kind_t kind, uint32_t most, uint32_t *count)
{
    head_t head;
    int rc = take_head(reader, &head);
    if (rc < 0)
        return rc;
    if (head.kind != kind)
        return another_kind(kind_names[kind], head.kind);
    if (head.value > most)
        return error_set(WIRE_ERR_BOUNDS, "%llu elements, expected at most %u", (unsigned long long)head.value, most);
    *count = (uint32_t)head.value;
    return WIRE_OK;
}

int wire_reader_array(wire_reader_t *reader, uint32_t most, uint32_t *count)
{
    return take_elements(reader, ARRAY, most, count);
}

int wire_reader_map(wire_reader_t *reader, uint32_t *count)
{
    return take_elements(reader, MAP, WIRE_KEYS_MOST, count);
}

bool wire_reader_at_array(const wire_reader_t *reader)
{
    wire_reader_t ahead = *reader;
    head_t head;
    return take_kind(&ahead, &head) == WIRE_OK && head.kind == ARRAY;
}

/* Nearly all of a forecast: a float in its five bytes. False when something else is next. */
static bool take_float32(wire_reader_t *reader, float *out)
{
    uint32_t bits;
    if (rest(reader) < 1 + sizeof bits || *reader->at != 0xca)
        return false;
    memcpy(&bits, reader->at + 1, sizeof bits);
    bits = be32toh(bits);
    memcpy(out, &bits, sizeof *out);
    reader->at += 1 + sizeof bits;
    return true;
}

int wire_reader_floats(wire_reader_t *reader, uint32_t count, float *out)
{
    uint32_t given = 0;
    int rc = wire_reader_array(reader, UINT32_MAX, &given);
    if (rc < 0)
        return rc;
    if (given != count)
        return error_set(WIRE_ERR_BOUNDS, "%u elements, expected %u", given, count);
    for (uint32_t i = 0; i < count; i++) {
        double value;
        float narrow;
        if (take_float32(reader, &narrow))
            value = (double)narrow;
        else if ((rc = wire_reader_number(reader, &value)) < 0)
            return rc;
        if (!(fabs(value) <= (double)FLT_MAX))
            return error_set(WIRE_ERR_BOUNDS, "element %u is %g, expected a finite float", i, value);
        out[i] = (float)value;
    }
    return WIRE_OK;
}

bool wire_reader_nil(wire_reader_t *reader)
{
    if (reader->at == reader->end || *reader->at != 0xc0)
        return false;
    reader->at++;
    return true;
}

int wire_reader_skip(wire_reader_t *reader, wire_reader_t *skipped)
{
    const unsigned char *start = reader->at;
    for (uint64_t pending = 1; pending > 0; pending--) {
        head_t head;
        float value;
        if (take_float32(reader, &value))
            continue;
        int rc = take_head(reader, &head);
        if (rc < 0)
            return rc;
        if (head.kind == ARRAY || head.kind == MAP)
            pending += head.kind == MAP ? 2 * head.value : head.value;
        else if (head.kind >= TEXT)
            reader->at += head.value;
    }
    if (skipped)
        *skipped = (wire_reader_t){start, reader->at};
    return WIRE_OK;
}
