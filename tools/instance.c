#include "tools/instance.h"

#include "base/directory.h"
#include "base/error.h"
#include "shm/counters.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int instance_claim(const config_t *config, instance_t *out)
{
    instance_t instance;
    if (config_runtime_dir(config, instance.directory) < 0 || directory_make_private(instance.directory) < 0)
        return INSTANCE_ERR_SYSTEM;
    instance.lock = open(instance.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (instance.lock < 0)
        return error_set(INSTANCE_ERR_SYSTEM, "cannot open %s: %s", instance.directory, strerror(errno));
    if (flock(instance.lock, LOCK_EX | LOCK_NB) < 0) {
        close(instance.lock);
        return error_set(INSTANCE_ERR_BUSY, "instance \"%s\" is running already", config->instance.name);
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

void instance_remove(const config_t *config, uint32_t worker_count, instance_t *instance)
{
    const char *name = config->instance.name;
    shm_counters_delete(name, "scheduler");
    for (uint32_t i = 0; i < worker_count; i++) {
        char role[32];
        snprintf(role, sizeof role, "worker.%u", i);
        shm_counters_delete(name, role);
    }
    shm_segment_delete(name);
    remove_sockets(instance->lock);
    /* A directory that holds something of somebody else's stays. */
    rmdir(instance->directory);
    char *slash = strrchr(instance->directory, '/');
    *slash = '\0';
    slash = strrchr(instance->directory, '/');
    if (slash && strncmp(slash, "/barcast", 8) == 0)
        rmdir(instance->directory);
    close(instance->lock);
}
