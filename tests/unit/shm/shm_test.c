#include "shm_test.h"

#include "base/error.h"
#include "shm/counters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NAMES_MOST = 64 };
static char names[NAMES_MOST][SHM_NAME_BYTES];
static size_t name_count;
static pid_t owner;

static void delete_all(void)
{
    if (getpid() != owner)
        return;
    for (size_t i = 0; i < name_count; i++) {
        shm_segment_delete(names[i]);
        shm_counters_delete(names[i], "worker.0");
    }
}

const char *test_name(const char *what)
{
    if (name_count == 0) {
        owner = getpid();
        atexit(delete_all);
    }
    assert_in_range(name_count, 0, NAMES_MOST - 1);
    char *name = names[name_count++];
    snprintf(name, SHM_NAME_BYTES, "test-%d-%s", (int)owner, what);
    return name;
}

shm_segment_options_t test_options(const char *name)
{
    return (shm_segment_options_t){.name = name, .symbols_max = 4, .ring_bars = 64, .log_entries = 1024, .group_id = -1};
}

static shm_segment_t *create(const char *name, bool expect_rejoined)
{
    shm_segment_options_t options = test_options(name);
    shm_segment_t *segment = NULL;
    bool rejoined = false;
    if (shm_segment_create(&options, &segment, &rejoined) != SHM_OK)
        fail_msg("%s", error_text());
    assert_int_equal(rejoined, expect_rejoined);
    return segment;
}

shm_segment_t *test_create(const char *name)
{
    return create(name, false);
}

shm_segment_t *test_rejoin(const char *name)
{
    return create(name, true);
}

shm_segment_t *test_join(const char *name)
{
    shm_segment_t *segment = NULL;
    int rc = shm_segment_join(name, &segment);
    if (rc != SHM_OK && rc != SHM_ERR_STALE_WRITER)
        fail_msg("%s", error_text());
    return segment;
}

uint32_t test_symbol(shm_segment_t *segment, const char *symbol)
{
    uint32_t id = UINT32_MAX;
    if (shm_symbol_add(segment, symbol, TEST_STEP_NS, &id) != SHM_OK)
        fail_msg("%s", error_text());
    return id;
}

shm_bar_t test_bar(uint64_t index, uint32_t version)
{
    double number = (double)(index * 4099 + version);
    return (shm_bar_t){
        .open_time_ns = (int64_t)index * TEST_STEP_NS,
        .open = number,
        .high = 2 * number + 1,
        .low = 3 * number + 2,
        .close = 5 * number + 3,
        .volume = version,
        .amount = 7 * number + 4,
    };
}

uint32_t test_version(const shm_bar_t *bar)
{
    return (uint32_t)bar->volume;
}

bool test_is_whole(const shm_bar_t *bar, uint64_t index)
{
    shm_bar_t expected = test_bar(index, test_version(bar));
    return memcmp(&expected, bar, offsetof(shm_bar_t, flags)) == 0 && bar->stamp == 0;
}

void test_in_dying_process(void (*child)(const char *name), const char *name)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        child(name);
        _exit(0);
    }
    test_wait_good(pid);
}

void test_wait_good(pid_t child)
{
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}
