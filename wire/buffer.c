#include "wire/buffer.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVEL_TEXT_BYTES = 32 };

struct wire_buffer {
    char *data;
    size_t bytes, capacity;
    int rc; /* of the message being packed */
    msgpack_packer packer;
    struct {
        double level;
        char text[LEVEL_TEXT_BYTES];
    } levels[WIRE_QUANTILES_MOST]; /* formatting them costs more than packing all the rest */
};

static int grow(wire_buffer_t *buffer, size_t needed)
{
    if (needed > WIRE_MESSAGE_BYTES_MOST)
        return error_set(WIRE_ERR_BOUNDS, "the message would have more than %d bytes", WIRE_MESSAGE_BYTES_MOST);
    size_t capacity = needed < WIRE_MESSAGE_BYTES_MOST / 2 ? needed * 2 : WIRE_MESSAGE_BYTES_MOST;
    char *data = realloc(buffer->data, capacity);
    if (!data)
        return error_set(WIRE_ERR_MEMORY, "no memory for a message of %zu bytes", capacity);
    buffer->data = data;
    buffer->capacity = capacity;
    return WIRE_OK;
}

/* msgpack_packer_write. */
static int append(void *to, const char *data, size_t bytes)
{
    wire_buffer_t *buffer = to;
    if (buffer->rc < 0)
        return -1;
    if (bytes > buffer->capacity - buffer->bytes && (buffer->rc = grow(buffer, buffer->bytes + bytes)) < 0)
        return -1;
    memcpy(buffer->data + buffer->bytes, data, bytes);
    buffer->bytes += bytes;
    return 0;
}

int wire_buffer_open(size_t bytes, wire_buffer_t **out)
{
    wire_buffer_t *buffer = calloc(1, sizeof *buffer);
    if (!buffer)
        return error_set(WIRE_ERR_MEMORY, "no memory for a message buffer");
    int rc = grow(buffer, bytes ? bytes : 1);
    if (rc < 0) {
        free(buffer);
        return rc;
    }
    msgpack_packer_init(&buffer->packer, buffer, append);
    *out = buffer;
    return WIRE_OK;
}

void wire_buffer_close(wire_buffer_t *buffer)
{
    if (buffer)
        free(buffer->data);
    free(buffer);
}

const void *wire_buffer_data(const wire_buffer_t *buffer)
{
    return buffer->data;
}

size_t wire_buffer_bytes(const wire_buffer_t *buffer)
{
    return buffer->bytes;
}

msgpack_packer *wire_buffer_begin(wire_buffer_t *buffer)
{
    buffer->bytes = 0;
    buffer->rc = WIRE_OK;
    return &buffer->packer;
}

int wire_buffer_end(wire_buffer_t *buffer, int rc)
{
    if (rc == WIRE_OK)
        rc = buffer->rc;
    if (rc < 0)
        buffer->bytes = 0;
    return rc;
}

const char *wire_level_text(msgpack_packer *packer, uint32_t slot, double level)
{
    wire_buffer_t *buffer = packer->data;
    char *text = buffer->levels[slot].text;
    if (*text && buffer->levels[slot].level == level)
        return text;
    buffer->levels[slot].level = level;
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, LEVEL_TEXT_BYTES, "%.*g", precision, level);
        if (strtod(text, NULL) == level)
            break;
    }
    return text;
}
