/* Child processes that are kept running: started, watched, started again with growing pauses, and in the end reaped.
 *
 * A child that exits with 0 has ended on purpose; one that exits otherwise or is killed is started again, after 100 ms, then twice as long each
 * time up to 5 s; after 10 s of life the pause is 100 ms again. One that says "cannot start" (exits by itself with a failure within its first second) three times in a
 * row has failed for good. No child outlives its supervisor (PR_SET_PDEATHSIG), and none gets the terminal's Ctrl-C: the supervisor decides.
 *
 * A supervisor takes over SIGCHLD, SIGINT, SIGTERM and SIGPIPE of its process, which must be single-threaded: one at a time. */
#ifndef BARCAST_TOOLS_SUPERVISOR_H
#define BARCAST_TOOLS_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { SUPERVISOR_OK = 0, SUPERVISOR_ERR_SYSTEM = -1, SUPERVISOR_ERR_FULL = -2 };
enum { SUPERVISOR_CHILDREN_MOST = 256, SUPERVISOR_ARGUMENTS_MOST = 12 };

typedef enum {
    CHILD_RUNNING,
    CHILD_PAUSING, /* will be started again */
    CHILD_ENDED,   /* exit status 0 */
    CHILD_FAILED   /* cannot start, or was told to end and did not end well */
} child_state_t;

typedef enum {
    CHILD_INPUT_NONE,   /* /dev/null */
    CHILD_INPUT_PIPE,   /* supervisor_input writes to it */
    CHILD_INPUT_INHERIT /* ours */
} child_input_t;

typedef struct {
    char name[32];                                        /* for the log: "worker.0" */
    char program[32];                                     /* executable that lies beside this process's own */
    const char *arguments[SUPERVISOR_ARGUMENTS_MOST + 1]; /* after argv[0], NULL-terminated; the texts are borrowed */
    child_input_t input;
    void (*started)(void *context, int child); /* after every start; NULL: nobody wants to know */
    void (*died)(void *context, int child);    /* before it is started again; NULL likewise */
    void *context;
} supervisor_child_t;

typedef struct supervisor supervisor_t;

int supervisor_open(supervisor_t **out);
void supervisor_close(supervisor_t *supervisor); /* kills and reaps what still runs; NULL is allowed */

/* Starts it; its number from 0, or a negative code. */
int supervisor_start(supervisor_t *supervisor, const supervisor_child_t *child);

/* Waits at most timeout_ms for something to happen, reaps, and starts again what is due. */
void supervisor_wait(supervisor_t *supervisor, int timeout_ms);

int supervisor_stop_requests(const supervisor_t *supervisor); /* SIGINT and SIGTERM received so far */
child_state_t supervisor_state(const supervisor_t *supervisor, int child);
pid_t supervisor_pid(const supervisor_t *supervisor, int child); /* 0 unless running */
bool supervisor_input(supervisor_t *supervisor, int child, const void *data, size_t bytes);

/* From now on that child's end is final, whatever its status; a signal other than 0 is sent to it. */
void supervisor_end(supervisor_t *supervisor, int child, int signal);

#endif
