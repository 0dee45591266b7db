#include "scheduler/batcher.h"

#include <string.h>

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

bool batcher_plan(batcher_t *out, const wire_ready_t *ready, const char *model, uint32_t batch_max)
{
    struct {
        uint32_t size;
        double run_ns;
    } buckets[WIRE_SESSIONS_MOST];
    uint32_t bucket_count = 0, largest = 0;
    for (uint32_t i = 0; i < ready->session_count; i++) {
        const wire_session_t *session = &ready->sessions[i];
        if (strcmp(session->model, model) != 0 || session->batch == 0)
            continue;
        buckets[bucket_count].size = smaller(smaller(session->batch, batch_max), BATCHER_DUE_MOST);
        buckets[bucket_count].run_ns = (double)(session->run_ns > 0 ? session->run_ns : 0) + BATCHER_OVERHEAD_NS;
        if (buckets[bucket_count].size > largest)
            largest = buckets[bucket_count].size;
        bucket_count++;
    }
    if (bucket_count == 0)
        return false;

    double waiting[BATCHER_DUE_MOST + 1] = {0};
    out->largest = largest;
    for (uint32_t n = 1; n <= BATCHER_DUE_MOST; n++) {
        uint32_t first = 0;
        for (uint32_t b = 0; b < bucket_count; b++) {
            uint32_t size = smaller(buckets[b].size, n);
            double sum = buckets[b].run_ns * n + waiting[n - size];
            if (first == 0 || sum < waiting[n] || (sum == waiting[n] && size > first)) {
                waiting[n] = sum;
                first = size;
            }
        }
        out->first[n] = (uint16_t)first;
    }
    return true;
}

uint32_t batcher_next(const batcher_t *batcher, uint32_t due)
{
    return batcher->first[smaller(due, BATCHER_DUE_MOST)];
}
