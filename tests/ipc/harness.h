/* Instances of real processes for tests: each has its own name and folder, is started by `barcast run`, is fed through a zmq feed or a CSV
 * file, and must leave nothing behind. All waits are generous and end the test with a message; nothing is timed. */
#ifndef BARCAST_TESTS_IPC_HARNESS_H
#define BARCAST_TESTS_IPC_HARNESS_H

#include "shm/bar.h"
#include "tools/snapshot.h"
#include "tools/subscriber.h"

#include <sys/types.h>

enum { HARNESS_PATIENCE_MS = 120 * 1000, HARNESS_SYMBOLS_MOST = 32 };
#define HARNESS_INTERVAL_NS (INT64_C(60) * 1000000000)

typedef struct {
    char directory[64];
    char config_file[96], output_file[96];
    char name[SHM_NAME_BYTES];
    config_t *config;
    uint32_t symbols;
    pid_t run; /* `barcast run` */
    subscriber_t *subscriber;
    void *zmq, *feed; /* PUSH */
    wire_buffer_t *encoded;
    wire_forecast_t newest[HARNESS_SYMBOLS_MOST]; /* what the subscriber got last of each symbol, without its arrays */
    float *newest_values[HARNESS_SYMBOLS_MOST];   /* mean, then quantiles */
    uint64_t received;
} harness_t;

/* A folder, and in it a config of the instance and its runtime folder, to which `sections` (feeds, models, ...) is added. In `sections`, "$DIR"
 * stands for the folder. */
void harness_open(harness_t *harness, uint32_t symbols, const char *sections);

/* Kills what runs, and fails the test when a process, a shared-memory object or a file of the instance is left after a clean end. */
void harness_close(harness_t *harness);

/* Starts `barcast run`, its standard output in output_file. */
void harness_start(harness_t *harness);

/* Its exit status, 128 + signal when killed. */
int harness_wait_end(harness_t *harness);
int harness_stop(harness_t *harness); /* SIGTERM first */

/* Runs a program of ours to its end; its exit status. `arguments` without argv[0], NULL-terminated. */
int harness_execute(const char *program, const char *const *arguments);

/* Calls `done` until it says true; fails the test with `what` when it does not. */
void harness_wait_until(harness_t *harness, bool (*done)(harness_t *harness), const char *what);

void harness_snapshot(const harness_t *harness, snapshot_t *out);
bool harness_all_ready(harness_t *harness); /* for harness_wait_until */
bool harness_all_gone(harness_t *harness);  /* likewise: no process of the instance lives, whoever started it */

/* The bars of these tests: a function of symbol and index. */
shm_bar_t harness_bar(uint32_t symbol, uint64_t index);
const char *harness_symbol(uint32_t symbol);
void harness_write_csv(const harness_t *harness, uint64_t bars); /* $DIR/bars.csv */

/* Sends bars [from, from + count) of all symbols into the feed "ipc://$DIR/feed", the symbols from the last to the first when `backwards`. */
void harness_push(harness_t *harness, uint64_t from, uint64_t count, bool backwards);

/* Takes what the subscriber has got. True when the newest forecast of every symbol is that of bar `index`; its `last` is checked. */
bool harness_receive(harness_t *harness);
bool harness_all_forecast(harness_t *harness, uint64_t index);
void harness_wait_forecasts(harness_t *harness, uint64_t index);

#endif
