/* A map from symbols to the numbers that its owner counts them with. One thread. */
#ifndef BARCAST_INGEST_SYMBOLS_H
#define BARCAST_INGEST_SYMBOLS_H

#include "shm/segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    struct symbols_entry *entries;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
} symbols_t; /* zero-initialise */

/* The number kept for `symbol` (under SHM_SYMBOL_BYTES with its NUL): false when there is none. */
bool symbols_find(const symbols_t *symbols, const char *symbol, uint32_t *out);

/* Keeps `number` for a symbol that is not in yet. False when out of memory. */
bool symbols_add(symbols_t *symbols, const char *symbol, uint32_t number);

void symbols_free(symbols_t *symbols);

#endif
