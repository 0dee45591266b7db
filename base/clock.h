/* Time: everything is int64 nanoseconds. */
#ifndef BARCAST_BASE_CLOCK_H
#define BARCAST_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_NS_PER_MS INT64_C(1000000)
#define CLOCK_NS_PER_S  INT64_C(1000000000)

/* CLOCK_MONOTONIC: comparable between the processes of one machine; what every latency is measured with. Any thread. */
int64_t clock_monotonic_ns(void);

/* CLOCK_REALTIME, ns since the Unix epoch, UTC: only for stamps that people read. Any thread. */
int64_t clock_realtime_ns(void);

/* Sleeps until clock_monotonic_ns() >= deadline_ns, through signals. */
void clock_sleep_until_ns(int64_t deadline_ns);

#endif
