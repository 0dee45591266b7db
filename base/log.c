#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *process_name = "barcast";
static log_level_t most = LOG_INFO;
static bool journal;

static const char *level_word(log_level_t level)
{
    switch (level) {
    case LOG_ERROR:
        return "error: ";
    case LOG_WARNING:
        return "warning: ";
    default:
        return "";
    }
}

static log_level_t level_wanted(log_level_t otherwise)
{
    static const struct {
        const char *name;
        log_level_t level;
    } levels[] = {{"error", LOG_ERROR}, {"warning", LOG_WARNING}, {"info", LOG_INFO}, {"debug", LOG_DEBUG}};
    const char *wanted = getenv("BARCAST_LOG");
    for (size_t i = 0; wanted && i < sizeof levels / sizeof *levels; i++)
        if (strcmp(wanted, levels[i].name) == 0)
            return levels[i].level;
    return otherwise;
}

void log_open(const char *process, log_level_t level)
{
    process_name = process;
    most = level_wanted(level);
    journal = getenv("JOURNAL_STREAM") != NULL;
}

void log_line(log_level_t level, const char *format, ...)
{
    if (level > most)
        return;
    char line[2048];
    int used = journal ? snprintf(line, sizeof line, "<%d>%s: ", level, process_name)
                       : snprintf(line, sizeof line, "%s: %s", process_name, level_word(level));
    size_t room = sizeof line - (size_t)used - 1; /* one byte for the newline */
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(line + used, room, format, arguments);
    va_end(arguments);
    if (wanted > 0)
        used += (size_t)wanted < room ? wanted : (int)room - 1;
    line[used++] = '\n';
    /* A log that cannot be written has nobody to tell. */
    if (write(STDERR_FILENO, line, (size_t)used) < 0)
        return;
}

bool log_allow(log_limit_t *limit, int64_t interval_ns, uint64_t *suppressed)
{
    int64_t now = clock_monotonic_ns();
    if (now < limit->next_ns) {
        limit->suppressed++;
        return false;
    }
    limit->next_ns = now + interval_ns;
    *suppressed = limit->suppressed;
    limit->suppressed = 0;
    return true;
}
