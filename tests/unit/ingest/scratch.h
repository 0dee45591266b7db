/* A folder of files for one test, removed with it. */
#ifndef BARCAST_TESTS_INGEST_SCRATCH_H
#define BARCAST_TESTS_INGEST_SCRATCH_H

#include "config/config.h"

/* Makes the folder (cmocka setup: *state is its path) and removes it with all its files (teardown). */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* Writes `text` to `name` in the folder, and answers the path: the caller's to free. */
char *scratch_write(void **state, const char *name, const char *text);

/* A feed of that type at `name` in the folder ("": the folder itself) with every other key at its default. */
config_feed_t scratch_feed(void **state, config_feed_type_t type, const char *name);

#endif
