#include "tools/supervisor.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const int64_t pause_first_ns = 100 * CLOCK_NS_PER_MS, pause_most_ns = 5 * CLOCK_NS_PER_S;
static const int64_t long_life_ns = 10 * CLOCK_NS_PER_S, short_life_ns = CLOCK_NS_PER_S;
enum { CANNOT_START_MOST = 3, EXIT_NOT_EXECUTED = 127 };

typedef struct {
    supervisor_child_t spec;
    child_state_t state;
    bool ending;
    pid_t pid;
    int input;          /* our end of its pipe, -1 for none */
    int64_t started_ns; /* running */
    int64_t due_ns;     /* pausing */
    int64_t pause_ns;   /* the next one */
    int short_lives;    /* failed at once, in a row */
} child_t;

struct supervisor {
    int signals; /* signalfd */
    sigset_t old_mask;
    struct sigaction old_pipe;
    int stop_requests;
    char directory[PATH_MAX]; /* of this process's executable */
    int child_count;
    child_t children[SUPERVISOR_CHILDREN_MOST];
};

static int find_directory(char out[static PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (length < 0)
        return error_set(SUPERVISOR_ERR_SYSTEM, "cannot find this program's own path: %s", strerror(errno));
    out[length] = '\0';
    *strrchr(out, '/') = '\0';
    return SUPERVISOR_OK;
}

int supervisor_open(supervisor_t **out)
{
    supervisor_t *supervisor = calloc(1, sizeof *supervisor);
    if (!supervisor)
        return error_set(SUPERVISOR_ERR_SYSTEM, "out of memory");
    int rc = find_directory(supervisor->directory);
    if (rc < 0) {
        free(supervisor);
        return rc;
    }
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_BLOCK, &mask, &supervisor->old_mask);
    sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &supervisor->old_pipe);
    supervisor->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (supervisor->signals < 0) {
        rc = error_set(SUPERVISOR_ERR_SYSTEM, "signalfd: %s", strerror(errno));
        supervisor_close(supervisor);
        return rc;
    }
    *out = supervisor;
    return SUPERVISOR_OK;
}

void supervisor_close(supervisor_t *supervisor)
{
    if (!supervisor)
        return;
    for (int i = 0; i < supervisor->child_count; i++) {
        child_t *child = &supervisor->children[i];
        if (child->state == CHILD_RUNNING) {
            kill(child->pid, SIGKILL);
            while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
                continue;
        }
        if (child->input >= 0)
            close(child->input);
    }
    if (supervisor->signals >= 0)
        close(supervisor->signals);
    sigaction(SIGPIPE, &supervisor->old_pipe, NULL);
    sigprocmask(SIG_SETMASK, &supervisor->old_mask, NULL);
    free(supervisor);
}

/* ---- starting -------------------------------------------------------------------------------------------------------------------- */

/* In the child, between fork and exec: only what is safe there. */
static void become(const supervisor_t *supervisor, const supervisor_child_t *spec, const char *path, pid_t parent, int input)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_NOT_EXECUTED);
    setpgid(0, 0);
    sigaction(SIGPIPE, &supervisor->old_pipe, NULL);
    sigprocmask(SIG_SETMASK, &supervisor->old_mask, NULL);
    if (input >= 0)
        dup2(input, STDIN_FILENO);

    char *argv[SUPERVISOR_ARGUMENTS_MOST + 2];
    size_t count = 0;
    argv[count++] = strdup(spec->program);
    for (size_t i = 0; spec->arguments[i]; i++)
        argv[count++] = strdup(spec->arguments[i]);
    argv[count] = NULL;
    execv(path, argv);
    log_error("cannot execute %s: %s", path, strerror(errno));
    _exit(EXIT_NOT_EXECUTED);
}

/* Opens what becomes the child's standard input; -1 to inherit ours. *keep is our end of a pipe. */
static int open_input(child_input_t kind, int *theirs, int *keep)
{
    int ends[2];
    *theirs = *keep = -1;
    if (kind == CHILD_INPUT_NONE) {
        *theirs = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return *theirs < 0 ? SUPERVISOR_ERR_SYSTEM : SUPERVISOR_OK;
    }
    if (kind == CHILD_INPUT_PIPE) {
        if (pipe2(ends, O_CLOEXEC) < 0)
            return SUPERVISOR_ERR_SYSTEM;
        *theirs = ends[0];
        *keep = ends[1];
    }
    return SUPERVISOR_OK;
}

static int launch(supervisor_t *supervisor, int index)
{
    child_t *child = &supervisor->children[index];
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", supervisor->directory, child->spec.program);
    int theirs, keep;
    pid_t parent = getpid(), pid = -1;
    if (open_input(child->spec.input, &theirs, &keep) == SUPERVISOR_OK)
        pid = fork();
    if (pid == 0)
        become(supervisor, &child->spec, path, parent, theirs);
    int reason = errno;
    if (theirs >= 0)
        close(theirs);
    if (pid < 0) {
        if (keep >= 0)
            close(keep);
        return error_set(SUPERVISOR_ERR_SYSTEM, "cannot start %s: %s", child->spec.name, strerror(reason));
    }
    child->state = CHILD_RUNNING;
    child->pid = pid;
    child->input = keep;
    child->started_ns = clock_monotonic_ns();
    if (child->spec.started)
        child->spec.started(child->spec.context, index);
    return SUPERVISOR_OK;
}

int supervisor_start(supervisor_t *supervisor, const supervisor_child_t *spec)
{
    if (supervisor->child_count == SUPERVISOR_CHILDREN_MOST)
        return error_set(SUPERVISOR_ERR_FULL, "more than %d processes", SUPERVISOR_CHILDREN_MOST);
    int index = supervisor->child_count;
    supervisor->children[index] = (child_t){.spec = *spec, .input = -1, .pause_ns = pause_first_ns, .state = CHILD_ENDED};
    supervisor->child_count++;
    int rc = launch(supervisor, index);
    return rc < 0 ? rc : index;
}

/* ---- watching -------------------------------------------------------------------------------------------------------------------- */

static void describe(int status, char *out, size_t bytes)
{
    if (WIFSIGNALED(status))
        snprintf(out, bytes, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, bytes, "exited with status %d", WEXITSTATUS(status));
}

static void plan_restart(child_t *child, int status, const char *how)
{
    int64_t now = clock_monotonic_ns(), life_ns = now - child->started_ns;
    bool refused = WIFEXITED(status) && life_ns < short_life_ns;
    child->short_lives = refused ? child->short_lives + 1 : 0;
    if (child->short_lives == CANNOT_START_MOST || (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_EXECUTED)) {
        child->state = CHILD_FAILED;
        log_error("%s cannot start: it %s", child->spec.name, how);
        return;
    }
    if (life_ns >= long_life_ns)
        child->pause_ns = pause_first_ns;
    child->state = CHILD_PAUSING;
    child->due_ns = now + child->pause_ns;
    log_warning("%s (pid %d) %s; starting it again in %lld ms", child->spec.name, (int)child->pid, how,
                (long long)(child->pause_ns / CLOCK_NS_PER_MS));
    child->pause_ns = child->pause_ns * 2 < pause_most_ns ? child->pause_ns * 2 : pause_most_ns;
}

static void bury(supervisor_t *supervisor, int index, int status)
{
    child_t *child = &supervisor->children[index];
    char how[96];
    describe(status, how, sizeof how);
    if (child->input >= 0)
        close(child->input);
    child->input = -1;
    if (child->spec.died)
        child->spec.died(child->spec.context, index);
    if (child->ending || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        if (status)
            log_warning("%s (pid %d) %s", child->spec.name, (int)child->pid, how);
        child->state = status ? CHILD_FAILED : CHILD_ENDED;
    } else {
        plan_restart(child, status, how);
    }
    child->pid = 0;
}

static void reap(supervisor_t *supervisor)
{
    for (int i = 0; i < supervisor->child_count; i++) {
        int status;
        child_t *child = &supervisor->children[i];
        if (child->state == CHILD_RUNNING && waitpid(child->pid, &status, WNOHANG) == child->pid)
            bury(supervisor, i, status);
    }
}

static void restart_due(supervisor_t *supervisor)
{
    int64_t now = clock_monotonic_ns();
    for (int i = 0; i < supervisor->child_count; i++) {
        child_t *child = &supervisor->children[i];
        if (child->state != CHILD_PAUSING || child->due_ns > now)
            continue;
        if (launch(supervisor, i) < 0) {
            log_error("%s", error_text());
            child->due_ns = now + pause_most_ns;
        }
    }
}

/* Milliseconds until the next restart is due, at most `timeout_ms`. */
static int until_next(const supervisor_t *supervisor, int timeout_ms)
{
    int64_t now = clock_monotonic_ns();
    for (int i = 0; i < supervisor->child_count; i++) {
        const child_t *child = &supervisor->children[i];
        if (child->state != CHILD_PAUSING)
            continue;
        int64_t wait_ms = child->due_ns > now ? (child->due_ns - now) / CLOCK_NS_PER_MS + 1 : 0;
        timeout_ms = wait_ms < timeout_ms ? (int)wait_ms : timeout_ms;
    }
    return timeout_ms;
}

void supervisor_wait(supervisor_t *supervisor, int timeout_ms)
{
    struct pollfd wait = {.fd = supervisor->signals, .events = POLLIN};
    poll(&wait, 1, until_next(supervisor, timeout_ms));
    struct signalfd_siginfo signal;
    while (read(supervisor->signals, &signal, sizeof signal) == sizeof signal)
        if (signal.ssi_signo != SIGCHLD)
            supervisor->stop_requests++;
    reap(supervisor);
    restart_due(supervisor);
}

int supervisor_stop_requests(const supervisor_t *supervisor)
{
    return supervisor->stop_requests;
}

child_state_t supervisor_state(const supervisor_t *supervisor, int child)
{
    return supervisor->children[child].state;
}

pid_t supervisor_pid(const supervisor_t *supervisor, int child)
{
    return supervisor->children[child].pid;
}

bool supervisor_input(supervisor_t *supervisor, int child, const void *data, size_t bytes)
{
    int input = supervisor->children[child].input;
    return input >= 0 && write(input, data, bytes) == (ssize_t)bytes;
}

void supervisor_end(supervisor_t *supervisor, int index, int signal)
{
    child_t *child = &supervisor->children[index];
    child->ending = true;
    if (child->state == CHILD_PAUSING)
        child->state = CHILD_ENDED;
    if (child->state == CHILD_RUNNING && signal)
        kill(child->pid, signal);
}
