/* The times that bars are stamped with, as text: ISO 8601 and epoch numbers. Pure functions, any thread. */
#ifndef BARCAST_INGEST_TIMESTAMP_H
#define BARCAST_INGEST_TIMESTAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses the whole of `text` into ns since the Unix epoch, UTC. False, and *out_ns untouched, when it is none of these:
 *
 *   2024-06-18   2024/6/18   2024.06.18   20240618                        a date: its midnight
 *   ... and, after 'T' or one space, 9:15   11:15:30   11:15:30.123456789   1115   111530
 *   ... and then nothing (UTC), Z, UTC, +08, +0800, +08:00, also after one space
 *   20240618111530   20240618111530123                                    the same without any separator
 *   1718709330   1718709330.5   1718709330500   ...                       epoch s, ms, us or ns, told apart by size: below 1e11
 *                                                                         it is seconds, then a factor of 1000 each
 *
 * Years 1678 to 2261 (what int64 ns can hold). A number of 8, 14 or 17 digits that reads as a date of the years 1900 to 2199 is
 * that date: as an epoch it would lie in 1970 or beyond 2500. */
bool timestamp_parse(const char *text, size_t length, int64_t *out_ns);

/* "2024-06-18T11:15:30Z", with the fraction of the second only where there is one; at most TIMESTAMP_BYTES with the final NUL. */
enum { TIMESTAMP_BYTES = 40 };
void timestamp_format(int64_t time_ns, char out[static TIMESTAMP_BYTES]);

/* The bar length of a series: its most frequent step forward, the shorter one of equals; 0 when there is none. Overwrites
 * times_ns. */
int64_t timestamp_interval(int64_t *times_ns, size_t count);

#endif
