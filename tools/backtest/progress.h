/* A progress bar on stderr, for work whose length is known. Silent when stderr is not a terminal. Any thread may add. */
#ifndef BARCAST_TOOLS_BACKTEST_PROGRESS_H
#define BARCAST_TOOLS_BACKTEST_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *what; /* "toto-base", drawn before the bar */
    size_t total, done;
    bool shown;
    int64_t start_ns, drawn_ns;
    pthread_mutex_t lock;
} progress_t;

void progress_open(progress_t *progress, const char *what, size_t total);
void progress_add(progress_t *progress, size_t done);
/* Wipes the line. */
void progress_close(progress_t *progress);

#endif
