#include "ingest/symbols.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

struct symbols_entry {
    char symbol[SHM_SYMBOL_BYTES]; /* "": free */
    uint32_t number;
};

/* The entry of `symbol`, or the free one where it belongs. There is always a free one. */
static struct symbols_entry *probe(const symbols_t *symbols, const char *symbol)
{
    size_t mask = symbols->capacity - 1;
    size_t at = text_hash64(symbol, strlen(symbol)) & mask;
    while (symbols->entries[at].symbol[0] && strcmp(symbols->entries[at].symbol, symbol) != 0)
        at = (at + 1) & mask;
    return &symbols->entries[at];
}

bool symbols_find(const symbols_t *symbols, const char *symbol, uint32_t *out)
{
    if (symbols->count == 0)
        return false;
    const struct symbols_entry *entry = probe(symbols, symbol);
    if (!entry->symbol[0])
        return false;
    *out = entry->number;
    return true;
}

static bool grow(symbols_t *symbols)
{
    symbols_t larger = {.capacity = symbols->capacity ? symbols->capacity * 2 : 64, .count = symbols->count};
    larger.entries = calloc(larger.capacity, sizeof *larger.entries);
    if (!larger.entries)
        return false;
    for (size_t i = 0; i < symbols->capacity; i++)
        if (symbols->entries[i].symbol[0])
            *probe(&larger, symbols->entries[i].symbol) = symbols->entries[i];
    free(symbols->entries);
    *symbols = larger;
    return true;
}

bool symbols_add(symbols_t *symbols, const char *symbol, uint32_t number)
{
    if (symbols->count * 2 >= symbols->capacity && !grow(symbols))
        return false;
    struct symbols_entry *entry = probe(symbols, symbol);
    memcpy(entry->symbol, symbol, strlen(symbol) + 1);
    entry->number = number;
    symbols->count++;
    return true;
}

void symbols_free(symbols_t *symbols)
{
    free(symbols->entries);
    *symbols = (symbols_t){0};
}
