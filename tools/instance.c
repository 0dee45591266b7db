#include "tools/instance.h"

#include "base/directory.h"
#include "base/error.h"
#include "gpuworker/backend/backend.h"
#include "shm/counters.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS_MOST = 64 }; /* the config's limit */
static const char note[] = "workers";

static uint32_t within_limits(uint32_t workers)
{
    return workers < 1 ? 1 : workers < WORKERS_MOST ? workers : WORKERS_MOST;
}

/* In a process of its own: what a driver leaves in one (threads, open devices) is nothing for a supervisor. */
static uint32_t count_gpus(void)
{
    if (!backend_built(BACKEND_CUDA))
        return 0;
    pid_t child = fork();
    if (child == 0) {
        int gpus = backend_device_count(BACKEND_CUDA);
        _exit(gpus < WORKERS_MOST ? gpus : WORKERS_MOST);
    }
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return child > 0 && WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 0;
}

uint32_t instance_plan_workers(const config_t *config, config_device_t device)
{
    if (config->worker.count)
        return config->worker.count;
    return device == CONFIG_DEVICE_CPU ? 1 : within_limits(count_gpus());
}

static int note_workers(int directory, uint32_t worker_count)
{
    int file = openat(directory, note, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool written = file >= 0 && dprintf(file, "%u\n", worker_count) > 0;
    int rc = written ? INSTANCE_OK : error_set(INSTANCE_ERR_SYSTEM, "cannot write \"%s\": %s", note, strerror(errno));
    if (file >= 0)
        close(file);
    return rc;
}

uint32_t instance_workers(const config_t *config)
{
    char directory[CONFIG_TEXT_BYTES], path[CONFIG_TEXT_BYTES + sizeof note];
    uint32_t workers = config->worker.count;
    if (workers)
        return workers;
    FILE *file = NULL;
    if (config_runtime_dir(config, directory) == CONFIG_OK) {
        snprintf(path, sizeof path, "%s/%s", directory, note);
        file = fopen(path, "re");
    }
    bool noted = file && fscanf(file, "%u", &workers) == 1;
    if (file)
        fclose(file);
    return noted ? within_limits(workers) : instance_plan_workers(config, config->worker.device);
}

int instance_claim(const config_t *config, uint32_t worker_count, instance_t *out)
{
    instance_t instance = {.worker_count = worker_count};
    if (config_runtime_dir(config, instance.directory) < 0 || directory_make_private(instance.directory) < 0)
        return INSTANCE_ERR_SYSTEM;
    instance.lock = open(instance.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (instance.lock < 0)
        return error_set(INSTANCE_ERR_SYSTEM, "cannot open %s: %s", instance.directory, strerror(errno));
    if (flock(instance.lock, LOCK_EX | LOCK_NB) < 0) {
        close(instance.lock);
        return error_set(INSTANCE_ERR_BUSY, "instance \"%s\" is running already", config->instance.name);
    }
    int rc = note_workers(instance.lock, worker_count);
    if (rc < 0) {
        close(instance.lock);
        return error_add(rc, "%s", instance.directory);
    }
    *out = instance;
    return INSTANCE_OK;
}

static void remove_sockets(int directory)
{
    DIR *list = fdopendir(dup(directory));
    if (!list)
        return;
    for (struct dirent *entry; (entry = readdir(list));) {
        struct stat about;
        if (fstatat(directory, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(about.st_mode))
            unlinkat(directory, entry->d_name, 0);
    }
    closedir(list);
}

void instance_remove(const config_t *config, instance_t *instance)
{
    const char *name = config->instance.name;
    shm_counters_delete(name, "scheduler");
    for (uint32_t i = 0; i < instance->worker_count; i++) {
        char role[32];
        snprintf(role, sizeof role, "worker.%u", i);
        shm_counters_delete(name, role);
    }
    shm_segment_delete(name);
    remove_sockets(instance->lock);
    unlinkat(instance->lock, note, 0);
    /* A directory that holds something of somebody else's stays. */
    rmdir(instance->directory);
    char *slash = strrchr(instance->directory, '/');
    *slash = '\0';
    slash = strrchr(instance->directory, '/');
    if (slash && strncmp(slash, "/barcast", 8) == 0)
        rmdir(instance->directory);
    close(instance->lock);
}
