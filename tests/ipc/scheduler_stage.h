/* A stage for the real barcast-scheduler: the test writes the segment and plays the workers. What goes wrong fails the test. All waits are
 * generous. */
#ifndef BARCAST_TESTS_IPC_SCHEDULER_STAGE_H
#define BARCAST_TESTS_IPC_SCHEDULER_STAGE_H

#include "shm/counters.h"
#include "shm/segment.h"
#include "wire/wire.h"

#include <sys/types.h>

enum { STAGE_PATIENCE_MS = 20000, STAGE_STEP_MS = 5, STAGE_HISTORY = 4 };

typedef struct {
    char id[WIRE_NAME_BYTES];
    uint32_t pid;
    void *dealer, *beat;
    uint64_t batch_id; /* what its heartbeat says */
    bool silent;
    char scheduler[WIRE_NAME_BYTES]; /* the sender of the last heartbeat */
    bool drained;
} stage_worker_t;

typedef struct {
    char directory[64], config_file[96], name[SHM_NAME_BYTES];
    pid_t scheduler; /* 0: none to end */
    shm_segment_t *segment;
    uint64_t bars[256];                 /* closed so far, by symbol number */
    wire_item_t items[WIRE_ITEMS_MOST]; /* of the ASSIGN taken last */
} stage_t;

extern stage_t stage;

/* cmocka's setup and teardown of an instance without a segment or a scheduler yet, whose naive model wants STAGE_HISTORY bars of a symbol. */
int stage_open(void **state);
int stage_close(void **state);

/* Writes the config; `options` are lines of [scheduler]. */
void stage_configure(const char *options);
void stage_create_segment(void);

void stage_start_scheduler(void);
pid_t stage_spawn(const char *file); /* another one */
int stage_wait_exit(pid_t pid);      /* its exit code */

/* A segment, history of so many symbols, a scheduler. */
void stage_begin(uint32_t symbols);

/* Of the scheduler's page. */
uint64_t stage_counter(shm_counter_t id);
void stage_wait_counter(shm_counter_t id, uint64_t least);

/* Closes the next `count` bars of symbol number `symbol`, which exists from its first bar on. */
void stage_close_bars(uint32_t symbol, uint64_t count);
void stage_close_history(uint32_t symbols);
uint64_t stage_segment_epoch(void);

/* Says hello and ready; two credits. */
stage_worker_t stage_open_worker(const char *id, uint32_t pid);
void stage_close_worker(stage_worker_t *worker);
void stage_say_hello(stage_worker_t *worker);
void stage_say_ready(stage_worker_t *worker);
void stage_beat(stage_worker_t *worker);

/* Takes one message if there is one within a step; true when it is an ASSIGN, then in *assign. */
bool stage_take(stage_worker_t *worker, wire_assign_t *assign);

/* The next ASSIGN. The worker beats meanwhile. */
wire_assign_t stage_expect_assign(stage_worker_t *worker);
void stage_say_done(stage_worker_t *worker, const wire_assign_t *assign);

#endif
