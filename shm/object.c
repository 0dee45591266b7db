#include "shm/object.h"

#include "base/error.h"
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_name(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    return length > 0 && length < SHM_NAME_BYTES && !name[length];
}

int shm_object_path(const char *name, const char *role, char out[static SHM_PATH_BYTES])
{
    if (!name || !is_name(name) || (role && !is_name(role)))
        return error_set(SHM_ERR_INVALID, "\"%s%s%s\" is no name: 1 to %d letters, digits, '-', '_' or '.'", name ? name : "",
                         role ? "." : "", role ? role : "", SHM_NAME_BYTES - 1);
    snprintf(out, SHM_PATH_BYTES, "/" SHM_OBJECT_PREFIX "%s%s%s", name, role ? "." : "", role ? role : "");
    return SHM_OK;
}

int shm_object_claim(const char *path, int *out, size_t *bytes)
{
    for (;;) {
        int fd = shm_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return error_set(SHM_ERR_SYSTEM, "%s: cannot open: %s", path, strerror(errno));
        struct stat status;
        int rc = SHM_OK;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
            rc = errno == EWOULDBLOCK ? error_set(SHM_ERR_BUSY, "%s: another process is creating it", path)
                                      : error_set(SHM_ERR_SYSTEM, "%s: cannot lock: %s", path, strerror(errno));
        else if (fstat(fd, &status) < 0)
            rc = error_set(SHM_ERR_SYSTEM, "%s: cannot stat: %s", path, strerror(errno));
        if (rc == SHM_OK && status.st_nlink > 0) {
            *out = fd;
            *bytes = (size_t)status.st_size;
            return SHM_OK;
        }
        close(fd);
        if (rc < 0)
            return rc;
        /* Between our open and our lock the name was given to a new object: take that one. */
    }
}

int shm_object_map(const char *path, const void **out, size_t *bytes)
{
    int fd = shm_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == ENOENT ? error_set(SHM_ERR_NOT_READY, "%s: no such shared-memory object", path)
                               : error_set(SHM_ERR_SYSTEM, "%s: cannot open: %s", path, strerror(errno));
    struct stat status;
    int rc = SHM_OK;
    void *base = NULL;
    if (fstat(fd, &status) < 0)
        rc = error_set(SHM_ERR_SYSTEM, "%s: cannot stat: %s", path, strerror(errno));
    else if (status.st_size == 0)
        rc = error_set(SHM_ERR_NOT_READY, "%s: its creator has not finished", path);
    else if ((base = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        rc = error_set(SHM_ERR_SYSTEM, "%s: cannot map: %s", path, strerror(errno));
    close(fd);
    if (rc == SHM_OK) {
        *out = base;
        *bytes = (size_t)status.st_size;
    }
    return rc;
}

int shm_object_unlink(const char *path)
{
    if (shm_unlink(path) < 0 && errno != ENOENT)
        return error_set(SHM_ERR_SYSTEM, "%s: cannot remove: %s", path, strerror(errno));
    return SHM_OK;
}

/* State letter and start time from /proc/PID/stat: the fields after the command's closing bracket are state, ppid, ..., and the
 * start time as the 20th of them (field 22 of proc(5)). */
static bool process_stat(uint32_t pid, char *state, uint64_t *start)
{
    char path[32], line[1024];
    snprintf(path, sizeof path, "/proc/%" PRIu32 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, line, sizeof line - 1);
    close(fd);
    if (length <= 0)
        return false;
    line[length] = '\0';
    const char *at = strrchr(line, ')');
    return at && sscanf(at + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64, state,
                        start) == 2;
}

uint64_t shm_process_start(uint32_t pid)
{
    char state;
    uint64_t start;
    return process_stat(pid, &state, &start) ? start : 0;
}

bool shm_process_alive(uint32_t pid, uint64_t start)
{
    if (pid == 0 || (kill((pid_t)pid, 0) < 0 && errno == ESRCH))
        return false;
    char state;
    uint64_t started;
    if (!process_stat(pid, &state, &started)) /* hidden from us (hidepid): believe the pid */
        return true;
    return state != 'Z' && state != 'X' && started == start;
}
