#include "base/error.h"
#include "shm/layout.h"
#include "shm/object.h"
#include "shm_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_object(const char *name)
{
    char path[SHM_PATH_BYTES];
    assert_int_equal(shm_object_path(name, NULL, path), SHM_OK);
    int fd = shm_open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    return fd;
}

static shm_header_t *map_header(const char *name)
{
    int fd = open_object(name);
    shm_header_t *header = mmap(NULL, sizeof *header, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(header, MAP_FAILED);
    close(fd);
    return header;
}

static int join_answer(const char *name)
{
    shm_segment_t *segment = NULL;
    int rc = shm_segment_join(name, &segment);
    assert_int_equal(segment != NULL, rc == SHM_OK || rc == SHM_ERR_STALE_WRITER);
    shm_segment_leave(segment);
    return rc;
}

static void create_and_die(const char *name)
{
    test_symbol(test_create(name), "A");
}

static void a_created_segment_can_be_joined_and_tells_its_shape(void **state)
{
    (void)state;
    const char *name = test_name("shape");
    shm_segment_t *writer = test_create(name);
    shm_segment_t *reader = NULL;
    assert_int_equal(shm_segment_join(name, &reader), SHM_OK);

    shm_segment_info_t info;
    shm_segment_info(reader, &info);
    assert_int_equal(info.symbols_max, 4);
    assert_int_equal(info.ring_bars, 64);
    assert_int_equal(info.log_entries, 1024);
    assert_int_equal(info.writer_pid, getpid());
    assert_int_equal(info.writer_generation, 1);
    assert_true(info.writer_alive);
    assert_true(info.epoch > 0);
    size_t bytes;
    assert_non_null(shm_segment_base(reader, &bytes));
    assert_int_equal(bytes, info.bytes);
    shm_segment_leave(reader);
    shm_segment_leave(writer);
}

static void join_says_not_ready_while_there_is_no_finished_object(void **state)
{
    (void)state;
    const char *name = test_name("half-made");
    assert_int_equal(join_answer(name), SHM_ERR_NOT_READY);
    int fd = open_object(name);
    assert_int_equal(join_answer(name), SHM_ERR_NOT_READY); /* the creator has not sized it yet */
    assert_int_equal(ftruncate(fd, 65536), 0);
    assert_int_equal(join_answer(name), SHM_ERR_NOT_READY); /* the magic is still missing */
    close(fd);
    shm_segment_leave(test_create(name)); /* a creator that died there is no obstacle */
}

static void join_says_bad_layout_for_what_is_no_segment(void **state)
{
    (void)state;
    const char *name = test_name("foreign");
    int fd = open_object(name);
    assert_int_equal(ftruncate(fd, 100), 0);
    assert_int_equal(join_answer(name), SHM_ERR_BAD_LAYOUT);
    assert_int_equal(ftruncate(fd, 65536), 0);
    close(fd);
    shm_header_t *header = map_header(name);
    header->magic = SHM_MAGIC + 1;
    assert_int_equal(join_answer(name), SHM_ERR_BAD_LAYOUT);
    munmap(header, sizeof *header);
}

static void join_says_bad_layout_for_every_wrong_size_or_offset(void **state)
{
    (void)state;
    const char *name = test_name("sizes");
    shm_segment_t *writer = test_create(name);
    shm_header_t *header = map_header(name);
    uint32_t *small[] = {&header->header_bytes, &header->symbols_max, &header->ring_bars, &header->log_entries};
    uint64_t *large[] = {&header->bytes,      &header->symbols_offset, &header->index_offset, &header->counters_offset,
                         &header->log_offset, &header->rings_offset,   &header->ring_stride};
    const uint32_t wrong[] = {0, 1, 63, UINT32_MAX};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            uint32_t right = *small[i];
            *small[i] = wrong[k];
            assert_int_equal(join_answer(name), SHM_ERR_BAD_LAYOUT);
            *small[i] = right;
        }
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        *large[i] += 64;
        assert_int_equal(join_answer(name), SHM_ERR_BAD_LAYOUT);
        *large[i] -= 64;
    }
    header->symbol_count = 5;
    assert_int_equal(join_answer(name), SHM_ERR_BAD_LAYOUT);
    header->symbol_count = 0;
    assert_int_equal(join_answer(name), SHM_OK);

    int fd = open_object(name);
    assert_int_equal(ftruncate(fd, (off_t)header->bytes - SHM_PAGE), 0);
    assert_int_equal(join_answer(name), SHM_ERR_BAD_LAYOUT);
    close(fd);
    munmap(header, sizeof *header);
    shm_segment_leave(writer);
}

static void join_says_wrong_version(void **state)
{
    (void)state;
    const char *name = test_name("version");
    shm_segment_t *writer = test_create(name);
    shm_header_t *header = map_header(name);
    header->version = SHM_LAYOUT_VERSION + 1;
    assert_int_equal(join_answer(name), SHM_ERR_WRONG_VERSION);
    char version[32];
    snprintf(version, sizeof version, "version %d,", SHM_LAYOUT_VERSION + 1);
    assert_non_null(strstr(error_text(), version));
    munmap(header, sizeof *header);
    shm_segment_leave(writer);
}

static void join_says_stale_writer_once_the_writer_is_dead(void **state)
{
    (void)state;
    const char *name = test_name("dead");
    test_in_dying_process(create_and_die, name);
    shm_segment_t *reader = NULL;
    assert_int_equal(shm_segment_join(name, &reader), SHM_ERR_STALE_WRITER);
    shm_segment_info_t info;
    shm_segment_info(reader, &info);
    assert_false(info.writer_alive);
    assert_int_not_equal(info.writer_pid, 0);
    assert_string_equal(shm_symbol_name(reader, 0), "A");
    shm_segment_leave(reader);
}

static void a_zombie_is_a_dead_writer(void **state)
{
    (void)state;
    const char *name = test_name("zombie");
    pid_t child = fork();
    if (child == 0) {
        create_and_die(name);
        _exit(0);
    }
    siginfo_t ended;
    assert_int_equal(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0); /* ended, but not reaped */
    assert_int_equal(join_answer(name), SHM_ERR_STALE_WRITER);
    test_wait_good(child);
}

static void a_recycled_pid_is_not_taken_for_the_writer(void **state)
{
    (void)state;
    const char *name = test_name("recycled");
    shm_segment_t *writer = test_create(name);
    shm_header_t *header = map_header(name);
    header->writer_start -= 1; /* our pid, but a process that started at another time */
    assert_int_equal(join_answer(name), SHM_ERR_STALE_WRITER);
    munmap(header, sizeof *header);
    shm_segment_leave(writer);
}

static void a_clean_leave_shows_as_pid_zero(void **state)
{
    (void)state;
    const char *name = test_name("clean");
    shm_segment_leave(test_create(name));
    shm_segment_t *reader = NULL;
    assert_int_equal(shm_segment_join(name, &reader), SHM_ERR_STALE_WRITER);
    shm_segment_info_t info;
    shm_segment_info(reader, &info);
    assert_int_equal(info.writer_pid, 0);
    assert_false(info.writer_alive);
    shm_segment_leave(reader);
}

static void create_is_busy_while_the_writer_lives(void **state)
{
    (void)state;
    const char *name = test_name("busy");
    shm_segment_t *writer = test_create(name), *second = NULL;
    shm_segment_options_t options = test_options(name);
    bool rejoined;
    assert_int_equal(shm_segment_create(&options, &second, &rejoined), SHM_ERR_BUSY);
    options.ring_bars = 128;
    assert_int_equal(shm_segment_create(&options, &second, &rejoined), SHM_ERR_BUSY);
    shm_header_t *header = map_header(name);
    header->version = SHM_LAYOUT_VERSION + 1;
    assert_int_equal(shm_segment_create(&options, &second, &rejoined), SHM_ERR_BUSY);
    munmap(header, sizeof *header);
    assert_null(second);
    shm_segment_leave(writer);
}

static void a_rejoin_keeps_the_epoch_and_bumps_the_generation(void **state)
{
    (void)state;
    const char *name = test_name("rejoin");
    test_in_dying_process(create_and_die, name);
    shm_segment_t *reader = test_join(name);
    shm_segment_info_t before, after;
    shm_segment_info(reader, &before);

    shm_segment_t *writer = test_rejoin(name);
    shm_segment_info(reader, &after); /* the old mapping sees the new writer */
    assert_true(after.epoch == before.epoch);
    assert_int_equal(after.writer_generation, before.writer_generation + 1);
    assert_int_equal(after.writer_pid, getpid());
    assert_true(after.writer_alive);
    assert_true(shm_counters_alive(shm_counters_of_segment(reader)));
    assert_int_equal(shm_symbol_count(writer), 1);
    shm_segment_leave(reader);
    shm_segment_leave(writer);
}

static void expect_replaced(const char *name, const shm_segment_options_t *options)
{
    shm_header_t *old = map_header(name);
    uint64_t epoch = old->epoch;
    shm_segment_t *writer = NULL;
    bool rejoined = true;
    if (shm_segment_create(options, &writer, &rejoined) != SHM_OK)
        fail_msg("%s", error_text());
    assert_false(rejoined);
    assert_int_equal(old->epoch, 0); /* whoever still maps the old one learns of its end */
    shm_segment_info_t info;
    shm_segment_info(writer, &info);
    assert_true(info.epoch > epoch);
    assert_int_equal(info.ring_bars, options->ring_bars);
    munmap(old, sizeof *old);
    shm_segment_leave(writer);
}

static void a_dead_segment_of_another_shape_or_version_is_replaced(void **state)
{
    (void)state;
    const char *name = test_name("replaced");
    test_in_dying_process(create_and_die, name);
    shm_segment_options_t options = test_options(name);
    options.ring_bars = 128;
    expect_replaced(name, &options);

    shm_header_t *header = map_header(name);
    header->version = SHM_LAYOUT_VERSION + 1;
    expect_replaced(name, &options);
    munmap(header, sizeof *header);
}

static mode_t mode_of(const char *name)
{
    int fd = open_object(name);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    close(fd);
    return status.st_mode & 0777;
}

static void only_the_owner_may_read_unless_a_group_is_named(void **state)
{
    (void)state;
    const char *name = test_name("mode");
    mode_t umask_before = umask(077);
    shm_segment_options_t options = test_options(name);
    shm_segment_t *writer = NULL;
    bool rejoined;
    assert_int_equal(shm_segment_create(&options, &writer, &rejoined), SHM_OK);
    assert_int_equal(mode_of(name), 0600);
    shm_segment_leave(writer);
    options.group_id = getegid();
    assert_int_equal(shm_segment_create(&options, &writer, &rejoined), SHM_OK);
    assert_int_equal(mode_of(name), 0640);
    shm_segment_leave(writer);
    umask(umask_before);
}

static void a_group_that_cannot_be_given_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    const char *name = test_name("group");
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) < 0)
            _exit(1);
        shm_segment_options_t options = test_options(name);
        options.group_id = 1; /* no group of ours */
        shm_segment_t *writer = NULL;
        bool rejoined;
        int rc = shm_segment_create(&options, &writer, &rejoined);
        _exit(rc == SHM_ERR_SYSTEM && strstr(error_text(), "group 1") && !writer ? 0 : 2);
    }
    test_wait_good(child);
    assert_int_equal(join_answer(name), SHM_ERR_NOT_READY);
}

static void names_and_sizes_out_of_range_are_refused(void **state)
{
    (void)state;
    const char *bad_names[] = {"", "a/b", "a b", "../x", "0123456789012345678901234567890123456789012345678901234567890123"};
    shm_segment_t *segment = NULL;
    bool rejoined;
    for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
        shm_segment_options_t options = test_options(bad_names[i]);
        assert_int_equal(shm_segment_create(&options, &segment, &rejoined), SHM_ERR_INVALID);
        assert_int_equal(shm_segment_join(bad_names[i], &segment), SHM_ERR_INVALID);
        assert_int_equal(shm_segment_delete(bad_names[i]), SHM_ERR_INVALID);
    }
    const uint32_t bad_sizes[][3] = {{0, 64, 1024},      {65537, 64, 1024}, {4, 32, 1024},     {4, 96, 1024},
                                     {4, 2097152, 1024}, {4, 64, 512},      {4, 64, 33554432}, {4, 64, 1025}};
    const char *name = test_name("range");
    for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; i++) {
        shm_segment_options_t options = {.name = name,
                                         .symbols_max = bad_sizes[i][0],
                                         .ring_bars = bad_sizes[i][1],
                                         .log_entries = bad_sizes[i][2],
                                         .group_id = -1};
        assert_int_equal(shm_segment_create(&options, &segment, &rejoined), SHM_ERR_INVALID);
    }
    assert_null(segment);
    assert_int_equal(join_answer(name), SHM_ERR_NOT_READY);
}

static void of_many_creators_at_once_exactly_one_wins(void **state)
{
    (void)state;
    enum { CREATORS = 8 };
    const char *name = test_name("race");
    for (int round = 0; round < 20; round++) {
        int go[2], won = 0;
        pid_t children[CREATORS];
        assert_int_equal(pipe(go), 0);
        for (int i = 0; i < CREATORS; i++) {
            children[i] = fork();
            if (children[i] == 0) {
                char byte;
                close(go[1]);
                shm_segment_options_t options = test_options(name);
                shm_segment_t *segment;
                bool rejoined;
                if (read(go[0], &byte, 1) < 0)
                    _exit(3);
                int rc = shm_segment_create(&options, &segment, &rejoined);
                if (rc == SHM_OK)
                    pause(); /* a writer lives until it is killed */
                _exit(rc == SHM_ERR_BUSY ? 0 : 2);
            }
        }
        close(go[0]);
        close(go[1]); /* all start */
        for (int busy = 0; busy < CREATORS - 1; busy++) {
            int status;
            pid_t ended = wait(&status);
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0);
            for (int i = 0; i < CREATORS; i++)
                if (children[i] == ended)
                    children[i] = 0;
        }
        for (int i = 0; i < CREATORS; i++)
            if (children[i]) {
                won++;
                kill(children[i], SIGKILL);
                waitpid(children[i], NULL, 0);
            }
        assert_int_equal(won, 1);
    }
}

static void a_creator_killed_at_any_time_is_no_obstacle(void **state)
{
    (void)state;
    const char *name = test_name("killed-creator");
    uint64_t seed = 7;
    for (int round = 0; round < 100; round++) {
        assert_int_equal(shm_segment_delete(name), SHM_OK);
        pid_t child = fork();
        if (child == 0) {
            create_and_die(name);
            _exit(0);
        }
        usleep((useconds_t)(test_random(&seed) % 600));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        int answer = join_answer(name);
        assert_true(answer == SHM_ERR_NOT_READY || answer == SHM_ERR_STALE_WRITER);
        shm_segment_options_t options = test_options(name);
        shm_segment_t *writer;
        bool rejoined;
        assert_int_equal(shm_segment_create(&options, &writer, &rejoined), SHM_OK);
        assert_int_equal(rejoined, answer == SHM_ERR_STALE_WRITER);
        shm_segment_leave(writer);
    }
}

static void deleting_twice_is_fine_and_mappings_stay_usable(void **state)
{
    (void)state;
    const char *name = test_name("deleted");
    shm_segment_t *writer = test_create(name);
    assert_int_equal(shm_segment_delete(name), SHM_OK);
    assert_int_equal(shm_segment_delete(name), SHM_OK);
    assert_int_equal(test_symbol(writer, "A"), 0);
    shm_segment_leave(writer);
    shm_segment_leave(NULL);
}

static void every_result_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = SHM_ERR_SYSTEM; i <= SHM_OVERRUN; i++)
        for (int k = SHM_ERR_SYSTEM; k < i; k++)
            assert_string_not_equal(shm_result_name(i), shm_result_name(k));
    assert_string_equal(shm_result_name(77), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_created_segment_can_be_joined_and_tells_its_shape),
        cmocka_unit_test(join_says_not_ready_while_there_is_no_finished_object),
        cmocka_unit_test(join_says_bad_layout_for_what_is_no_segment),
        cmocka_unit_test(join_says_bad_layout_for_every_wrong_size_or_offset),
        cmocka_unit_test(join_says_wrong_version),
        cmocka_unit_test(join_says_stale_writer_once_the_writer_is_dead),
        cmocka_unit_test(a_zombie_is_a_dead_writer),
        cmocka_unit_test(a_recycled_pid_is_not_taken_for_the_writer),
        cmocka_unit_test(a_clean_leave_shows_as_pid_zero),
        cmocka_unit_test(create_is_busy_while_the_writer_lives),
        cmocka_unit_test(a_rejoin_keeps_the_epoch_and_bumps_the_generation),
        cmocka_unit_test(a_dead_segment_of_another_shape_or_version_is_replaced),
        cmocka_unit_test(only_the_owner_may_read_unless_a_group_is_named),
        cmocka_unit_test(a_group_that_cannot_be_given_is_an_error_and_leaves_nothing),
        cmocka_unit_test(names_and_sizes_out_of_range_are_refused),
        cmocka_unit_test(of_many_creators_at_once_exactly_one_wins),
        cmocka_unit_test(a_creator_killed_at_any_time_is_no_obstacle),
        cmocka_unit_test(deleting_twice_is_fine_and_mappings_stay_usable),
        cmocka_unit_test(every_result_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
