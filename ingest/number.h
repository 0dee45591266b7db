/* Decimal numbers out of text that is not NUL-terminated: a cell of a CSV row, a JSON string. */
#ifndef BARCAST_INGEST_NUMBER_H
#define BARCAST_INGEST_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* The whole of `text` as the nearest double, as strtod gives it; true and *out set only then. Words for NaN and infinity are
 * numbers here: validation.h judges them. No blanks, no hexadecimal, no thousands separators. Pure, any thread. */
bool number_parse(const char *text, size_t length, double *out);

#endif
