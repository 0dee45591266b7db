/* Small text helpers that every part needs once. All functions are pure. */
#ifndef BARCAST_BASE_TEXT_H
#define BARCAST_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The candidate nearest to `word` in edit distance (insert, delete, replace, ASCII case ignored), or NULL when the nearest one
 * differs in more than a third of its letters: what an error message offers as "did you mean". Words over 63 bytes are not compared. */
const char *text_nearest(const char *word, const char *const *candidates, size_t count);

/* Whole-string numbers: true and *out set only when all of `text` is one number within range; no leading blanks, no suffix. */
bool text_to_i64(const char *text, int64_t *out);
bool text_to_f64(const char *text, double *out);

/* FNV-1a, 64 bits, finished with the murmur3 mixer: stable over runs and machines (rendezvous hashing, random-number keys). */
uint64_t text_hash64(const void *bytes, size_t count);

/* Shell pattern of * and ? against a whole name; "BTC*" matches "BTC-USD". */
bool text_match(const char *pattern, const char *name);

#endif
