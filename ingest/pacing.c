#include "ingest/pacing.h"

#include "base/clock.h"

int64_t pacing_deadline_ns(pacing_t *pacing, int64_t open_time_ns, int64_t now_ns)
{
    if (!pacing->started) {
        pacing->started = true;
        pacing->start_ns = now_ns;
        pacing->first_open_ns = pacing->step_open_ns = open_time_ns;
    }
    if (open_time_ns > pacing->step_open_ns) {
        pacing->steps++;
        pacing->step_open_ns = open_time_ns;
    }
    double after_ns;
    if (pacing->steps_per_second > 0)
        after_ns = (double)pacing->steps / pacing->steps_per_second * (double)CLOCK_NS_PER_S;
    else if (pacing->speed > 0)
        after_ns = ((double)pacing->step_open_ns - (double)pacing->first_open_ns) / pacing->speed;
    else
        return INT64_MIN;
    double deadline_ns = (double)pacing->start_ns + after_ns;
    return deadline_ns >= (double)INT64_MAX ? INT64_MAX : pacing->start_ns + (int64_t)after_ns;
}
