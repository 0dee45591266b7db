#include "shm_trace.h"

#include "shm/layout.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_ALLOWED = 77 };

void trace_put(shm_segment_t *segment, bool is_new, uint64_t index, uint32_t version, uint32_t flags)
{
    shm_bar_t bar = test_bar(index, version);
    bar.flags = flags;
    int rc = is_new ? shm_ring_append(segment, 0, &bar) : shm_ring_amend(segment, 0, &bar);
    if (rc != SHM_OK)
        abort();
}

static void run_traced(const char *name, trace_operation_t *operation)
{
    shm_segment_t *segment = test_create(name);
    test_symbol(segment, "A");
    for (uint64_t i = 0; i < TRACE_PREPARED; i++)
        trace_put(segment, true, i, 0, i == TRACE_PREPARED - 1 ? SHM_BAR_IN_PROGRESS : 0);
    for (int i = 0; i < TRACE_AMENDED; i++)
        trace_put(segment, false, TRACE_PREPARED - 2, 0, 0);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(NOT_ALLOWED);
    raise(SIGSTOP);
    operation(segment);
    raise(SIGSTOP);
}

int trace_wait_stop(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_ALLOWED)
        return 0;
    assert_true(WIFSTOPPED(status));
    return WSTOPSIG(status);
}

void trace_step(pid_t child)
{
    assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
}

static void keep_image(trace_t *trace, const void *live)
{
    if (trace->count > 0 && memcmp(trace->images[trace->count - 1], live, trace->bytes) == 0)
        return;
    assert_true(trace->count < TRACE_IMAGES_MOST);
    void *image = malloc(trace->bytes);
    memcpy(image, live, trace->bytes);
    trace->images[trace->count++] = image;
}

trace_t trace_collect(const char *name, trace_operation_t *operation)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        run_traced(name, operation);
        _exit(1); /* never reached: killed at its second stop */
    }
    if (trace_wait_stop(child) == 0)
        skip();
    shm_segment_t *reader = test_join(name);
    trace_t trace = {.count = 0};
    const void *live = shm_segment_base(reader, &trace.bytes);
    int stop;
    do {
        keep_image(&trace, live);
        trace_step(child);
        stop = trace_wait_stop(child);
    } while (stop == SIGTRAP);
    keep_image(&trace, live);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    shm_segment_leave(reader);
    return trace;
}

void trace_free(trace_t *trace)
{
    for (size_t i = 0; i < trace->count; i++)
        free(trace->images[i]);
}

void trace_plant(const char *name, const void *image, size_t bytes)
{
    char path[SHM_NAME_BYTES + 16];
    snprintf(path, sizeof path, "/" SHM_OBJECT_PREFIX "%s", name);
    shm_unlink(path);
    int fd = shm_open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    shm_header_t *header = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(header, MAP_FAILED);
    memcpy(header, image, bytes);
    header->writer_start--; /* no such process runs */
    munmap(header, bytes);
    close(fd);
}
