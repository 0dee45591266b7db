/* Where the model lies that comes with Barcast: beside the folder of the running program, in a build folder as in an installed one. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "gpuworker/model/model.h"

int model_default_dir(char *out, size_t room)
{
    char program[PATH_MAX], path[PATH_MAX + sizeof "/share/barcast/default_model"];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);

    if (length < 0)
        return error_set(MODEL_ERR_CHECKPOINT, "the default model lies beside this program, whose path cannot be found: %s",
                         strerror(errno));
    program[length] = '\0';
    for (int level = 0; level < 2; level++)
        if (strrchr(program, '/') != NULL)
            *strrchr(program, '/') = '\0';
    snprintf(path, sizeof path, "%s/share/barcast/default_model", program);
    if (strlen(path) >= room)
        return error_set(MODEL_ERR_CHECKPOINT, "the default model's path is longer than %zu bytes", room - 1);
    strcpy(out, path);
    return MODEL_OK;
}
