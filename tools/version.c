#include "tools/version.h"

#include "gpuworker/backend/backend.h"
#include "shm/segment.h"
#include "tools/commit.h" /* made by version.cmake at every build */
#include "wire/wire.h"

const char *version_commit(void)
{
    return BARCAST_COMMIT;
}

void version_print(FILE *to)
{
    fprintf(to, "barcast %s\ncommit: %s\nbackends: cpu%s\nshared-memory layout: %d\nwire: %d\n", BARCAST_VERSION, BARCAST_COMMIT,
            backend_built(BACKEND_CUDA) ? ", cuda" : "", SHM_LAYOUT_VERSION, WIRE_VERSION);
}
