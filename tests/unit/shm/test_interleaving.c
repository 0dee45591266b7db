/* A reader against a writer, instruction by instruction: the reader runs its first k instructions while the segment is in one state
 * of the writer's operation and the rest while it is in a later one. What a race in real time hits once in a billion, this hits
 * every time. (It walks program order; what other orders a weak machine may show is ring.c's proof.) */
#include "shm/update_log.h"
#include "shm_trace.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PREPARED = TRACE_PREPARED, EDGE = PREPARED - TRACE_CAPACITY };

/* What the reader does in one round, and what came out, in memory that both share. */
typedef struct {
    uint64_t index, cursor;
    size_t count;
    int rc;
    volatile int done;
    shm_bar_t bar;
    shm_update_t update;
} round_t;

static round_t *shared;

typedef void read_t(const shm_segment_t *segment);

static void read_bar(const shm_segment_t *segment)
{
    shared->rc = shm_ring_read(segment, 0, shared->index, &shared->bar);
}

static void read_entry(const shm_segment_t *segment)
{
    shared->rc = shm_log_read(segment, &shared->cursor, &shared->update, 1, &shared->count);
}

/* Each round lies between a stop and the next; a system call marks where its instructions begin. */
static pid_t start_reader(const char *name, read_t *body)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        shm_segment_t *segment = test_join(name);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(1);
        for (;;) {
            raise(SIGSTOP);
            getppid();
            body(segment);
            shared->done = 1;
        }
    }
    assert_int_equal(trace_wait_stop(child), SIGSTOP);
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD), 0);
    return child;
}

static void go_on(pid_t child, enum __ptrace_request how)
{
    assert_int_equal(ptrace(how, child, NULL, NULL), 0);
}

/* The next round: `steps` instructions on `first`, the rest on `second`. False when the round has no more than `steps`. */
static bool play(pid_t child, void *live, size_t bytes, const void *first, const void *second, size_t steps)
{
    memcpy(live, first, bytes);
    struct __ptrace_syscall_info call = {.op = PTRACE_SYSCALL_INFO_NONE};
    while (call.op != PTRACE_SYSCALL_INFO_ENTRY || call.entry.nr != SYS_getppid) {
        go_on(child, PTRACE_SYSCALL);
        trace_wait_stop(child);
        assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof call, &call) > 0);
    }
    for (size_t i = 0; i < steps && !shared->done; i++) {
        go_on(child, PTRACE_SINGLESTEP);
        trace_wait_stop(child);
    }
    bool more = !shared->done;
    memcpy(live, second, bytes);
    go_on(child, PTRACE_CONT);
    assert_int_equal(trace_wait_stop(child), SIGSTOP);
    return more;
}

/* `shared` against what came out while nobody disturbed. */
typedef void check_t(const round_t *undisturbed);

static void interleave(const char *what, trace_operation_t *operation, read_t *body, round_t start, check_t *check)
{
    trace_t trace = trace_collect(test_name(what), operation);
    char path[64], live_name[32];
    snprintf(live_name, sizeof live_name, "%s-live", what);
    const char *name = test_name(live_name);
    trace_plant(name, trace.images[0], trace.bytes);
    snprintf(path, sizeof path, "/" SHM_OBJECT_PREFIX "%s", name);
    int fd = shm_open(path, O_RDWR, 0);
    void *live = mmap(NULL, trace.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(live, MAP_FAILED);
    close(fd);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    pid_t child = start_reader(name, body);

    size_t total = 0, last = trace.count - 1;
    *shared = start;
    while (play(child, live, trace.bytes, trace.images[0], trace.images[0], total)) { /* how many instructions there are */
        total += 16;
        *shared = start;
    }
    round_t undisturbed = *shared;
    size_t stride = total / 16 + 1; /* a step costs some 30 us on a virtual machine, so not all of them in each pair of states */
    for (size_t i = 0; i < 2 * last; i++) {
        const void *first = trace.images[i < last ? i : 0], *second = trace.images[i < last ? last : i - last];
        bool more = true;
        for (size_t steps = i % stride; more; steps += stride) {
            *shared = start;
            more = play(child, live, trace.bytes, first, second, steps);
            check(&undisturbed);
        }
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    munmap(live, trace.bytes);
    munmap(shared, sizeof *shared);
    trace_free(&trace);
}

static void check_bar(const round_t *undisturbed)
{
    assert_true(shared->rc == SHM_OVERRUN ||
                (shared->rc == SHM_OK && memcmp(&shared->bar, &undisturbed->bar, sizeof shared->bar) == 0));
}

static void check_amended_bar(const round_t *undisturbed)
{
    assert_int_equal(shared->rc, SHM_OK); /* it never leaves the ring */
    assert_true(test_is_whole(&shared->bar, shared->index));
    assert_in_range(test_version(&shared->bar), test_version(&undisturbed->bar), 3);
}

static void check_entry(const round_t *undisturbed)
{
    bool whole = shared->count == 1 && memcmp(&shared->update, &undisturbed->update, sizeof shared->update) == 0;
    assert_true(shared->rc == SHM_OVERRUN || (shared->rc == SHM_OK && whole));
}

static void append_two(shm_segment_t *segment)
{
    trace_put(segment, true, PREPARED, 1, 0);
    trace_put(segment, true, PREPARED + 1, 1, 0);
}

static void amend_the_newest_and_another(shm_segment_t *segment)
{
    trace_put(segment, false, PREPARED - 1, 1, SHM_BAR_IN_PROGRESS);
    trace_put(segment, false, PREPARED - 9, 2, 0);
    trace_put(segment, false, PREPARED - 1, 3, 0);
}

static void a_reader_may_be_lapped_between_any_two_instructions(void **state)
{
    (void)state;
    interleave("lapped", append_two, read_bar, (round_t){.index = EDGE}, check_bar);
}

static void a_bar_may_be_amended_between_any_two_instructions_of_its_reader(void **state)
{
    (void)state;
    interleave("amended", amend_the_newest_and_another, read_bar, (round_t){.index = PREPARED - 1}, check_amended_bar);
}

static void a_log_reader_may_be_lapped_between_any_two_instructions(void **state)
{
    (void)state;
    interleave("log", append_two, read_entry, (round_t){.cursor = TRACE_LOG_OLDEST}, check_entry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_may_be_lapped_between_any_two_instructions),
        cmocka_unit_test(a_bar_may_be_amended_between_any_two_instructions_of_its_reader),
        cmocka_unit_test(a_log_reader_may_be_lapped_between_any_two_instructions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
