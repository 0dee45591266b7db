/* Which build this is. */
#ifndef BARCAST_TOOLS_VERSION_H
#define BARCAST_TOOLS_VERSION_H

#include <stdio.h>

const char *version_commit(void); /* of the source tree at build time, "+changes" when it had some; "unknown" outside a checkout */

/* Version, commit, backends, shared-memory layout and wire versions: a line each. */
void version_print(FILE *to);

#endif
