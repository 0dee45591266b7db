/* What the tests of shm share: instances with names of their own that are always deleted, and bars that betray a tear. */
#ifndef BARCAST_TESTS_SHM_TEST_H
#define BARCAST_TESTS_SHM_TEST_H

#include "shm/ring.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define TEST_STEP_NS INT64_C(60000000000)

/* Unique for this process and `what`; deleted when this process exits, however its tests end. Static text, valid until the exit. */
const char *test_name(const char *what);

/* A segment with 4 symbols to make room for, rings of 64 bars and a log of 1024 entries. */
shm_segment_options_t test_options(const char *name);
shm_segment_t *test_create(const char *name);
/* Re-joins; fails the test when that made a new segment. */
shm_segment_t *test_rejoin(const char *name);
/* Joins; the writer may be dead. */
shm_segment_t *test_join(const char *name);
uint32_t test_symbol(shm_segment_t *segment, const char *symbol);

/* Bar `index` in its version `version` (flags 0): every field follows from the two. */
shm_bar_t test_bar(uint64_t index, uint32_t version);
/* All of `bar` belongs together and it is bar `index`. */
bool test_is_whole(const shm_bar_t *bar, uint64_t index);
uint32_t test_version(const shm_bar_t *bar);

/* Runs `child` in a process that then ends without cleaning up, as a killed one would: its segments stay as they are. */
void test_in_dying_process(void (*child)(const char *name), const char *name);
/* Waits for a child and fails the test unless it ended with 0. */
void test_wait_good(pid_t child);

/* A small generator (xorshift64*): the same steps in every run. */
uint64_t test_random(uint64_t *state);

#endif
