#include "base/error.h"
#include "shm/layout.h"
#include "shm/object.h"
#include "shm_test.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static shm_counters_t *create(const char *name)
{
    shm_counters_t *counters = NULL;
    if (shm_counters_create(name, "worker.0", &counters) != SHM_OK)
        fail_msg("%s", error_text());
    return counters;
}

static void a_reader_sees_what_the_owner_counts(void **state)
{
    (void)state;
    const char *name = test_name("count");
    shm_counters_t *owner = create(name), *reader = NULL;
    assert_int_equal(shm_counters_join(name, "worker.0", &reader), SHM_OK);
    assert_int_equal(shm_counters_pid(reader), getpid());
    assert_true(shm_counters_alive(reader));
    for (int id = 0; id < SHM_COUNTER_COUNT; id++)
        shm_counter_add(owner, (shm_counter_t)id, (uint64_t)id + 1);
    shm_counter_add(owner, SHM_COUNTER_FORECASTS, 1000);
    shm_counter_set(owner, SHM_COUNTER_SESSIONS_OPEN, 3);
    for (int id = 0; id < SHM_COUNTER_COUNT; id++)
        if (id != SHM_COUNTER_FORECASTS && id != SHM_COUNTER_SESSIONS_OPEN)
            assert_int_equal(shm_counter_get(reader, (shm_counter_t)id), id + 1);
    assert_int_equal(shm_counter_get(reader, SHM_COUNTER_FORECASTS), SHM_COUNTER_FORECASTS + 1001);
    assert_int_equal(shm_counter_get(reader, SHM_COUNTER_SESSIONS_OPEN), 3);
    shm_counters_leave(owner);
    assert_int_equal(shm_counters_pid(reader), 0);
    assert_false(shm_counters_alive(reader));
    shm_counters_leave(reader);
    shm_counters_leave(NULL);
}

static void count_and_die(const char *name)
{
    shm_counter_add(create(name), SHM_COUNTER_FORECASTS, 7);
}

static void a_new_owner_takes_over_a_dead_ones_page_from_zero(void **state)
{
    (void)state;
    const char *name = test_name("takeover");
    test_in_dying_process(count_and_die, name);
    shm_counters_t *reader = NULL;
    assert_int_equal(shm_counters_join(name, "worker.0", &reader), SHM_OK);
    assert_false(shm_counters_alive(reader));
    assert_int_equal(shm_counter_get(reader, SHM_COUNTER_FORECASTS), 7);
    shm_counters_t *owner = create(name);
    assert_int_equal(shm_counter_get(reader, SHM_COUNTER_FORECASTS), 0);
    assert_int_equal(shm_counters_pid(reader), getpid());
    shm_counters_t *second = NULL;
    assert_int_equal(shm_counters_create(name, "worker.0", &second), SHM_ERR_BUSY);
    assert_null(second);
    shm_counters_leave(reader);
    shm_counters_leave(owner);
}

static void join_tells_a_missing_page_from_a_wrong_one(void **state)
{
    (void)state;
    const char *name = test_name("wrong");
    shm_counters_t *counters = NULL;
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_NOT_READY);
    assert_int_equal(shm_counters_join(name, "worker/0", &counters), SHM_ERR_INVALID);
    char path[SHM_PATH_BYTES];
    assert_int_equal(shm_object_path(name, "worker.0", path), SHM_OK);
    int fd = shm_open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_NOT_READY);
    assert_int_equal(ftruncate(fd, 100), 0);
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_BAD_LAYOUT);
    assert_int_equal(ftruncate(fd, sizeof(shm_page_t)), 0);
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_NOT_READY);
    shm_page_t *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    close(fd);
    page->magic = SHM_MAGIC;
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_BAD_LAYOUT);
    shm_counters_leave(create(name)); /* whatever it was, its owner is not alive */
    page->version++;
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_WRONG_VERSION);
    page->version--;
    page->counter_count++;
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_WRONG_VERSION);
    assert_null(counters);
    munmap(page, sizeof *page);
    assert_int_equal(shm_counters_delete(name, "worker.0"), SHM_OK);
    assert_int_equal(shm_counters_join(name, "worker.0", &counters), SHM_ERR_NOT_READY);
}

static void count_in_segment_and_die(const char *name)
{
    shm_counter_add(shm_counters_of_segment(test_create(name)), SHM_COUNTER_BARS_STORED, 5);
}

static void the_segments_page_outlives_its_writer(void **state)
{
    (void)state;
    const char *name = test_name("segment");
    test_in_dying_process(count_in_segment_and_die, name);
    shm_segment_t *writer = test_rejoin(name), *reader = test_join(name);
    shm_counters_t *counters = shm_counters_of_segment(writer);
    shm_counter_add(counters, SHM_COUNTER_BARS_STORED, 2);
    assert_int_equal(shm_counter_get(shm_counters_of_segment(reader), SHM_COUNTER_BARS_STORED), 7);
    assert_int_equal(shm_counters_pid(shm_counters_of_segment(reader)), getpid());
    shm_segment_leave(writer);
    shm_segment_leave(reader);
}

static void every_counter_has_a_label_of_its_own(void **state)
{
    (void)state;
    for (int id = 0; id < SHM_COUNTER_COUNT; id++) {
        const char *label = shm_counter_label((shm_counter_t)id);
        assert_non_null(label);
        for (const char *at = label; *at; at++)
            assert_true(islower((unsigned char)*at) || *at == '_');
        for (int other = 0; other < id; other++)
            assert_string_not_equal(label, shm_counter_label((shm_counter_t)other));
    }
}

static void a_latency_lands_in_its_bucket(void **state)
{
    (void)state;
    shm_counters_t *counters = create(test_name("buckets"));
    const struct {
        int64_t ns;
        size_t bucket;
    } cases[] = {{-5, 0},
                 {0, 0},
                 {999, 0},
                 {1000, 0},
                 {1189, 0},
                 {1190, 1},
                 {1415, 2},
                 {1681, 2},
                 {1682, 3},
                 {1999, 3},
                 {2000, 4},
                 {1024000, 40},
                 {1023999, 39},
                 {1000000, 39},
                 {1218000, 41},
                 {65536000, 64},
                 {INT64_C(300000000000), 111},
                 {INT64_MAX, 111}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t before[SHM_LATENCY_BUCKETS], after[SHM_LATENCY_BUCKETS];
        shm_latency_snapshot(counters, before);
        shm_latency_record(counters, cases[i].ns);
        shm_latency_snapshot(counters, after);
        for (size_t b = 0; b < SHM_LATENCY_BUCKETS; b++)
            if (after[b] - before[b] != (b == cases[i].bucket))
                fail_msg("%lld ns: bucket %zu, expected %zu", (long long)cases[i].ns, b, cases[i].bucket);
    }
    shm_counters_leave(counters);
}

static void a_quantile_is_the_upper_edge_of_its_bucket(void **state)
{
    (void)state;
    uint64_t buckets[SHM_LATENCY_BUCKETS] = {0};
    assert_int_equal(shm_latency_quantile(buckets, 0.5), 0);
    buckets[4] = 90; /* 2 to 2.38 us */
    buckets[43] = 9; /* up to 2048 us */
    buckets[111] = 1;
    assert_int_equal(shm_latency_quantile(buckets, 0.5), 2378);
    assert_int_equal(shm_latency_quantile(buckets, 0.9), 2378);
    assert_int_equal(shm_latency_quantile(buckets, 0.91), 2048000);
    assert_int_equal(shm_latency_quantile(buckets, 0.99), 2048000);
    assert_int_equal(shm_latency_quantile(buckets, 0.999), INT64_C(268435456000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_sees_what_the_owner_counts),
        cmocka_unit_test(a_new_owner_takes_over_a_dead_ones_page_from_zero),
        cmocka_unit_test(join_tells_a_missing_page_from_a_wrong_one),
        cmocka_unit_test(the_segments_page_outlives_its_writer),
        cmocka_unit_test(every_counter_has_a_label_of_its_own),
        cmocka_unit_test(a_latency_lands_in_its_bucket),
        cmocka_unit_test(a_quantile_is_the_upper_edge_of_its_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
