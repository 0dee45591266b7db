/* Lines for the operator, on stderr: "barcast-ingest: warning: ..." and, under systemd (JOURNAL_STREAM is set), the "<4>" prefix of
 * sd-daemon instead of the word. Never per bar and never per forecast: what repeats is counted (shm/counters.h) and complained about
 * through log_limit_t. Any thread; one write(2) a line, so that lines of several processes do not mix. */
#ifndef BARCAST_BASE_LOG_H
#define BARCAST_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum { LOG_ERROR = 3, LOG_WARNING = 4, LOG_INFO = 6, LOG_DEBUG = 7 } log_level_t;

/* Call once at the start of main. `process` is borrowed for ever. Lines above `level` are dropped; the environment's BARCAST_LOG (error,
 * warning, info or debug) takes precedence over it. */
void log_open(const char *process, log_level_t level);

void log_line(log_level_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)

/* Rate limit for one kind of complaint: zero-initialise, one thread. log_allow answers true at most once in `interval_ns` of
 * clock_monotonic_ns and then stores in *suppressed how many were held back since. */
typedef struct {
    int64_t next_ns;
    uint64_t suppressed;
} log_limit_t;

bool log_allow(log_limit_t *limit, int64_t interval_ns, uint64_t *suppressed);

#endif
