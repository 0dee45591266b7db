/* What the scheduler's tests share: a small config, READY messages, and cmocka in the order it wants its headers. */
#ifndef BARCAST_TESTS_SCHEDULER_FIXTURE_H
#define BARCAST_TESTS_SCHEDULER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "config/config.h"
#include "wire/wire.h"

#include <stdio.h>
#include <string.h>

#define MS CLOCK_NS_PER_MS

/* One model "m" for all symbols with 3 bars; another, "crypto", for BTC* and ETH-USD with 5. */
static inline config_t small_config(uint32_t model_count)
{
    config_t config = {.model_count = model_count,
                       .models = {{.name = "m", .symbols = "*", .context_min = 3},
                                  {.name = "crypto", .symbols = "BTC*, ETH-USD", .context_min = 5}},
                       .scheduler = {.due = CONFIG_DUE_CLOSE,
                                     .heartbeat_ns = 100 * MS,
                                     .heartbeat_liveness = 3,
                                     .deadline_ns = 1000 * MS,
                                     .credits = 2,
                                     .batch_max = 64,
                                     .quarantine_after = 3,
                                     .quarantine_ns = 10000 * MS}};
    return config;
}

/* READY of a worker with sessions of 1, 8 and 64 series of model "m" (1, 1.5, 5 ms) and of 1 and 8 of "crypto". */
static inline wire_ready_t ready_message(const char *worker, uint32_t pid, uint32_t credits)
{
    wire_ready_t ready = {
        .pid = pid,
        .credits = credits,
        .session_count = 5,
        .sessions = {{"m", 1, 1000000}, {"m", 8, 1500000}, {"m", 64, 5000000}, {"crypto", 1, 1000000}, {"crypto", 8, 1500000}}};
    snprintf(ready.worker, sizeof ready.worker, "%s", worker);
    return ready;
}

#endif
