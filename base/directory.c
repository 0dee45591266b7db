#include "base/directory.h"

#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int directory_make_private(const char *path)
{
    char part[PATH_MAX];
    size_t bytes = strlen(path);
    if (bytes == 0 || bytes >= sizeof part)
        return error_set(DIRECTORY_ERR_SYSTEM, "\"%s\" is no path of a directory", path);
    for (size_t at = 1; at <= bytes; at++) {
        if (path[at] != '/' && path[at] != '\0')
            continue;
        memcpy(part, path, at);
        part[at] = '\0';
        if (mkdir(part, 0700) < 0 && errno != EEXIST)
            return error_set(DIRECTORY_ERR_SYSTEM, "cannot make %s: %s", part, strerror(errno));
    }
    struct stat about;
    if (lstat(path, &about) < 0 || !S_ISDIR(about.st_mode) || about.st_uid != geteuid() || (about.st_mode & 022))
        return error_set(DIRECTORY_ERR_FOREIGN, "%s: expected a directory of this user that others cannot write", path);
    return DIRECTORY_OK;
}
