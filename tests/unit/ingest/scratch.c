#include "scratch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int scratch_setup(void **state)
{
    char *folder = strdup("/tmp/barcast-test-XXXXXX");
    if (!folder || !mkdtemp(folder))
        return -1;
    *state = folder;
    return 0;
}

int scratch_teardown(void **state)
{
    char *folder = *state;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (entries)
        closedir(entries);
    int rc = rmdir(folder);
    free(folder);
    return rc;
}

char *scratch_write(void **state, const char *name, const char *text)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", (const char *)*state, name) < 0)
        abort();
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        abort();
    return path;
}

config_feed_t scratch_feed(void **state, config_feed_type_t type, const char *name)
{
    config_feed_t feed = {.name = "test", .type = type};
    snprintf(feed.path, sizeof feed.path, "%s%s%s", (const char *)*state, *name ? "/" : "", name);
    return feed;
}
