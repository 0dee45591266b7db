/* Sources that wait: standard input, and a ZeroMQ socket that programs push bars into. */
#include "base/clock.h"
#include "base/error.h"
#include "ingest/source.h"
#include "scratch.h"
#include "wire/wire.h"

#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define MINUTE (60 * CLOCK_NS_PER_S)
#define LINE   "{\"s\":\"A\",\"t\":60,\"o\":\"1\",\"h\":1,\"l\":1,\"c\":1}\n"

/* The next answer that is not SOURCE_WAIT, waiting on the descriptor as a caller should. */
static int next_waiting(source_t *source, source_bar_t *out)
{
    int rc;
    while ((rc = source_next(source, out)) == SOURCE_WAIT) {
        struct pollfd ready = {.fd = source_descriptor(source), .events = POLLIN};
        if (poll(&ready, 1, 30000) == 0)
            fail_msg("nothing came");
    }
    return rc;
}

/* ---- standard input -------------------------------------------------------------------------------------------------------- */

typedef struct {
    int kept_stdin, writing; /* the test's end of what is standard input now */
    source_t *source;
} stdin_t;

static stdin_t open_stdin(const char *symbol)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    stdin_t opened = {.kept_stdin = dup(STDIN_FILENO), .writing = ends[1]};
    assert_true(dup2(ends[0], STDIN_FILENO) == STDIN_FILENO);
    close(ends[0]);
    config_feed_t feed = {.name = "test", .type = CONFIG_FEED_NDJSON, .path = "-", .interval_ns = MINUTE};
    strcpy(feed.symbol, symbol);
    assert_int_equal(source_open(&feed, &opened.source), SOURCE_OK);
    assert_int_equal(source_descriptor(opened.source), STDIN_FILENO);
    return opened;
}

static void close_stdin(stdin_t *opened)
{
    source_close(opened->source);
    assert_true(dup2(opened->kept_stdin, STDIN_FILENO) == STDIN_FILENO);
    close(opened->kept_stdin);
}

static void send_text(const stdin_t *opened, const char *text)
{
    assert_int_equal(write(opened->writing, text, strlen(text)), (ssize_t)strlen(text));
}

static void lines_from_stdin_are_bars_as_they_come(void **state)
{
    (void)state;
    stdin_t input = open_stdin("");
    source_bar_t row;
    assert_int_equal(source_next(input.source, &row), SOURCE_WAIT);
    send_text(&input, LINE "\n" LINE);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(source_next(input.source, &row), SOURCE_OK);
        assert_string_equal(row.symbol, "A");
        assert_int_equal(row.interval_ns, MINUTE);
        assert_int_equal(row.bar.open_time_ns, MINUTE);
    }
    assert_int_equal(source_next(input.source, &row), SOURCE_WAIT);
    send_text(&input, "{\"s\":\"A\",\"t\":120,");
    assert_int_equal(source_next(input.source, &row), SOURCE_WAIT);
    send_text(&input, "\"o\":1,\"h\":1,\"l\":1,\"c\":1}"); /* the last line has no end */
    close(input.writing);
    assert_int_equal(source_next(input.source, &row), SOURCE_OK);
    assert_int_equal(row.bar.open_time_ns, 2 * MINUTE);
    assert_int_equal(source_next(input.source, &row), SOURCE_END);
    close_stdin(&input);
}

static void stdin_stays_in_blocking_mode(void **state)
{
    (void)state;
    stdin_t input = open_stdin("");
    source_bar_t row;
    assert_int_equal(source_next(input.source, &row), SOURCE_WAIT);
    assert_false(fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK);
    close(input.writing);
    close_stdin(&input);
}

static void a_malformed_line_is_told_with_its_number(void **state)
{
    (void)state;
    stdin_t input = open_stdin("");
    send_text(&input, LINE "nonsense\n{\"t\":60,\"o\":1,\"h\":1,\"l\":1,\"c\":1}\n" LINE);
    close(input.writing);
    source_bar_t row;
    assert_int_equal(source_next(input.source, &row), SOURCE_OK);
    assert_int_equal(source_next(input.source, &row), SOURCE_BAD);
    assert_non_null(strstr(error_text(), "stdin:2: not a JSON object"));
    assert_int_equal(source_next(input.source, &row), SOURCE_BAD);
    assert_non_null(strstr(error_text(), "stdin:3: no symbol"));
    assert_int_equal(source_next(input.source, &row), SOURCE_OK);
    close_stdin(&input);
}

static void a_line_without_symbol_gets_the_feed_s(void **state)
{
    (void)state;
    stdin_t input = open_stdin("MINE");
    send_text(&input, "{\"t\":60,\"o\":1,\"h\":1,\"l\":1,\"c\":1}\n" LINE);
    close(input.writing);
    source_bar_t row;
    assert_int_equal(source_next(input.source, &row), SOURCE_OK);
    assert_string_equal(row.symbol, "MINE");
    assert_int_equal(source_next(input.source, &row), SOURCE_OK);
    assert_string_equal(row.symbol, "A");
    close_stdin(&input);
}

static void a_line_without_end_is_dropped_and_told_once(void **state)
{
    (void)state;
    stdin_t input = open_stdin("");
    char block[4096];
    memset(block, 'x', sizeof block);
    source_bar_t row;
    int bad = 0;
    for (int i = 0; i < 100; i++) { /* 400 KiB */
        assert_int_equal(write(input.writing, block, sizeof block), (ssize_t)sizeof block);
        for (int rc; (rc = source_next(input.source, &row)) != SOURCE_WAIT; bad++)
            assert_int_equal(rc, SOURCE_BAD);
    }
    assert_int_equal(bad, 1);
    send_text(&input, "\n" LINE);
    close(input.writing);
    assert_int_equal(source_next(input.source, &row), SOURCE_OK);
    assert_int_equal(source_next(input.source, &row), SOURCE_END);
    close_stdin(&input);
}

static void an_unusable_symbol_is_refused_at_once(void **state)
{
    (void)state;
    config_feed_t feed = {.name = "test", .type = CONFIG_FEED_NDJSON, .path = "-", .symbol = "two words"};
    source_t *source;
    assert_int_equal(source_open(&feed, &source), SOURCE_ERR_OPEN);
}

/* ---- ZeroMQ ---------------------------------------------------------------------------------------------------------------- */

typedef struct {
    void *context, *socket;
    wire_buffer_t *buffer;
    source_t *source;
} push_t;

static push_t open_push(void **state, int64_t interval_ns)
{
    config_feed_t feed = {.name = "test", .type = CONFIG_FEED_ZMQ, .interval_ns = interval_ns};
    snprintf(feed.endpoint, sizeof feed.endpoint, "ipc://%s/bars", (const char *)*state);
    push_t push = {.context = zmq_ctx_new()};
    if (source_open(&feed, &push.source) != SOURCE_OK)
        fail_msg("%s", error_text());
    push.socket = zmq_socket(push.context, ZMQ_PUSH);
    assert_int_equal(zmq_connect(push.socket, feed.endpoint), 0);
    assert_int_equal(wire_buffer_open(1024, &push.buffer), WIRE_OK);
    return push;
}

static void close_push(push_t *push)
{
    source_close(push->source);
    int linger = 0;
    zmq_setsockopt(push->socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_close(push->socket);
    zmq_ctx_term(push->context);
    wire_buffer_close(push->buffer);
}

static wire_bar_t wire_bar(const char *symbol, int minute)
{
    wire_bar_t bar = {
        .bar = {.open_time_ns = minute * MINUTE, .open = 1, .high = 2, .low = 1, .close = 2, .volume = 5, .amount = NAN}};
    strcpy(bar.symbol, symbol);
    return bar;
}

static void send_bars(push_t *push, const wire_bar_t *bars, size_t count)
{
    assert_int_equal(wire_bars_encode(push->buffer, bars, count), WIRE_OK);
    assert_true(zmq_send(push->socket, wire_buffer_data(push->buffer), wire_buffer_bytes(push->buffer), 0) > 0);
}

static void pushed_bars_arrive_in_order_one_or_many_a_message(void **state)
{
    push_t push = open_push(state, MINUTE);
    source_bar_t row;
    assert_int_equal(source_next(push.source, &row), SOURCE_WAIT);
    wire_bar_t bars[3] = {wire_bar("A", 1), wire_bar("B", 1), wire_bar("A", 2)};
    bars[1].interval_ns = 5 * MINUTE;
    bars[2].bar.flags = SHM_BAR_IN_PROGRESS;
    send_bars(&push, bars, 3);
    bars[2].bar.flags = 0;
    send_bars(&push, &bars[2], 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(next_waiting(push.source, &row), SOURCE_OK);
        assert_string_equal(row.symbol, i == 1 ? "B" : "A");
        assert_int_equal(row.interval_ns, i == 1 ? 5 * MINUTE : MINUTE);
        assert_int_equal(row.bar.open_time_ns, i < 2 ? MINUTE : 2 * MINUTE);
        assert_int_equal(row.bar.flags, SHM_BAR_NO_AMOUNT | (i == 2 ? SHM_BAR_IN_PROGRESS : 0));
        assert_true(row.bar.volume == 5 && isnan(row.bar.amount));
    }
    assert_int_equal(source_next(push.source, &row), SOURCE_WAIT);
    close_push(&push);
}

static void a_message_that_is_no_bar_is_told_and_the_next_one_taken(void **state)
{
    push_t push = open_push(state, MINUTE);
    assert_true(zmq_send(push.socket, "nonsense", 8, 0) > 0);
    wire_bar_t bar = wire_bar("A", 1);
    send_bars(&push, &bar, 1);
    source_bar_t row;
    assert_int_equal(next_waiting(push.source, &row), SOURCE_BAD);
    assert_non_null(strstr(error_text(), "feed test: "));
    assert_int_equal(next_waiting(push.source, &row), SOURCE_OK);
    close_push(&push);
}

static void a_burst_is_drained_after_one_wake(void **state)
{
    push_t push = open_push(state, MINUTE);
    for (int minute = 1; minute <= 500; minute++) {
        wire_bar_t bar = wire_bar("A", minute);
        send_bars(&push, &bar, 1);
    }
    for (int minute = 1; minute <= 500; minute++) {
        source_bar_t row;
        assert_int_equal(next_waiting(push.source, &row), SOURCE_OK);
        assert_int_equal(row.bar.open_time_ns, minute * MINUTE);
    }
    close_push(&push);
}

static void an_endpoint_that_cannot_be_bound_is_named(void **state)
{
    (void)state;
    config_feed_t feed = {.name = "test", .type = CONFIG_FEED_ZMQ, .endpoint = "ipc:///no/such/folder/bars"};
    source_t *source;
    assert_int_equal(source_open(&feed, &source), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "ipc:///no/such/folder/bars: cannot bind"));
    source_bar_t *bars;
    size_t count, rejected;
    assert_int_equal(source_read_all(&feed, NULL, &bars, &count, &rejected), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "a live feed cannot be read to its end"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TEST(lines_from_stdin_are_bars_as_they_come),
        TEST(stdin_stays_in_blocking_mode),
        TEST(a_malformed_line_is_told_with_its_number),
        TEST(a_line_without_symbol_gets_the_feed_s),
        TEST(a_line_without_end_is_dropped_and_told_once),
        TEST(an_unusable_symbol_is_refused_at_once),
        TEST(pushed_bars_arrive_in_order_one_or_many_a_message),
        TEST(a_message_that_is_no_bar_is_told_and_the_next_one_taken),
        TEST(a_burst_is_drained_after_one_wake),
        TEST(an_endpoint_that_cannot_be_bound_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
