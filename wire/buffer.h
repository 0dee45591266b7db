/* What the encoders need of a wire_buffer_t. Internal to wire/. */
#ifndef BARCAST_WIRE_BUFFER_H
#define BARCAST_WIRE_BUFFER_H

#include "wire/wire.h"

#include <msgpack/pack.h>

/* Empties the buffer and returns its packer. Results of msgpack_pack_* need no look: a failure sticks and wire_buffer_end tells it. */
msgpack_packer *wire_buffer_begin(wire_buffer_t *buffer);

/* Ends a message: `rc` is the encoder's result. On any failure the buffer is empty. */
int wire_buffer_end(wire_buffer_t *buffer, int rc);

/* The shortest text that reads back as `level`; the packer's buffer remembers it for the next message (slot: below WIRE_QUANTILES_MOST). */
const char *wire_level_text(msgpack_packer *packer, uint32_t slot, double level);

#endif
