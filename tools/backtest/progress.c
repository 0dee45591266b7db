#include "tools/backtest/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_COLUMNS = 30 };
static const int64_t REDRAW_NS = 100 * CLOCK_NS_PER_MS;

static void draw(const progress_t *progress, int64_t now_ns)
{
    double share = (double)progress->done / (double)progress->total, seconds = (double)(now_ns - progress->start_ns) / 1e9;
    int filled = (int)(share * BAR_COLUMNS);

    fprintf(stderr, "\r%-12s ", progress->what);
    for (int i = 0; i < BAR_COLUMNS; i++)
        fputs(i < filled ? "█" : "░", stderr);
    fprintf(stderr, " %3.0f %%  %zu of %zu", 100 * share, progress->done, progress->total);
    if (seconds > 1 && progress->done > 0)
        fprintf(stderr, ", %.0f s left", seconds * (1 - share) / share);
    fputs("\033[K", stderr);
    fflush(stderr);
}

void progress_open(progress_t *progress, const char *what, size_t total)
{
    *progress = (progress_t){.what = what, .total = total, .shown = isatty(STDERR_FILENO), .start_ns = clock_monotonic_ns()};
    pthread_mutex_init(&progress->lock, NULL);
    if (progress->shown)
        draw(progress, progress->start_ns);
}

void progress_add(progress_t *progress, size_t done)
{
    int64_t now_ns = clock_monotonic_ns();

    pthread_mutex_lock(&progress->lock);
    progress->done += done;
    if (progress->shown && now_ns - progress->drawn_ns >= REDRAW_NS) {
        draw(progress, now_ns);
        progress->drawn_ns = now_ns;
    }
    pthread_mutex_unlock(&progress->lock);
}

void progress_close(progress_t *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
    pthread_mutex_destroy(&progress->lock);
}
