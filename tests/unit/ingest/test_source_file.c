#include "base/clock.h"
#include "base/error.h"
#include "ingest/source.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEADER "time,open,high,low,close\n"
#define MINUTE (60 * CLOCK_NS_PER_S)

static source_t *open_feed(const config_feed_t *feed)
{
    source_t *source = NULL;
    if (source_open(feed, &source) != SOURCE_OK)
        fail_msg("%s", error_text());
    return source;
}

/* Reads a source to its end: "A60 B60 ! A120 ", symbol and open time in s of each bar, '!' for what was no bar. */
static const char *all_of(source_t *source)
{
    static char text[4096];
    size_t used = 0;
    text[0] = 0;
    source_bar_t row;
    for (int rc; (rc = source_next(source, &row)) != SOURCE_END;) {
        if (rc == SOURCE_OK)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld ", row.symbol,
                                     (long long)(row.bar.open_time_ns / CLOCK_NS_PER_S));
        else if (rc == SOURCE_BAD)
            used += (size_t)snprintf(text + used, sizeof text - used, "! ");
        else
            fail_msg("%s", error_text());
    }
    source_close(source);
    return text;
}

static void write_and_forget(void **state, const char *name, const char *text)
{
    free(scratch_write(state, name, text));
}

static void a_file_is_one_symbol_named_like_it(void **state)
{
    write_and_forget(state, "AAPL_daily.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "AAPL_daily.csv");
    assert_string_equal(all_of(open_feed(&feed)), "AAPL_daily60 AAPL_daily120 ");
    strcpy(feed.symbol_suffix, "_daily");
    assert_string_equal(all_of(open_feed(&feed)), "AAPL60 AAPL120 ");
    strcpy(feed.symbol, "OTHER");
    assert_string_equal(all_of(open_feed(&feed)), "OTHER60 OTHER120 ");
}

static void marks_line_ends_blank_lines_and_a_missing_last_line_end_do_not_matter(void **state)
{
    write_and_forget(state, "A.csv", "\xef\xbb\xbf\r\ntime;open;high;low;close\r\n60;1;1;1;1\r\n\r\n   \r\n120;1;1;1;1");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    assert_string_equal(all_of(open_feed(&feed)), "A60 A120 ");
}

static void a_directory_is_a_symbol_a_file_merged_by_open_time(void **state)
{
    write_and_forget(state, "A.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n180,1,1,1,1\n");
    write_and_forget(state, "B.CSV", HEADER "120,1,1,1,1\n180,1,1,1,1\n240,1,1,1,1\n");
    write_and_forget(state, "C.csv", HEADER "0,1,1,1,1\n");
    write_and_forget(state, "notes.txt", "not a feed\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    assert_string_equal(all_of(open_feed(&feed)), "C0 A60 A120 B120 A180 B180 B240 ");
}

static void an_unusable_file_of_a_directory_is_left_out(void **state)
{
    write_and_forget(state, "A.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n");
    write_and_forget(state, "empty.csv", "");
    write_and_forget(state, "header.csv", HEADER);
    write_and_forget(state, "other.csv", "name,age\nx,1\n");
    write_and_forget(state, "two words.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    assert_string_equal(all_of(open_feed(&feed)), "A60 A120 ");
}

static void a_symbol_column_is_merged_whether_sorted_by_time_or_by_symbol(void **state)
{
    static const char header[] = "symbol,time,open,high,low,close\n";
    char text[512];
    snprintf(text, sizeof text, "%sA,60,1,1,1,1\nB,60,1,1,1,1\nA,120,1,1,1,1\nB,120,1,1,1,1\n", header);
    write_and_forget(state, "by_time.csv", text);
    snprintf(text, sizeof text, "%sA,60,1,1,1,1\nA,120,1,1,1,1\nB,60,1,1,1,1\nB,120,1,1,1,1\n", header);
    write_and_forget(state, "by_symbol.csv", text);
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "by_time.csv");
    assert_string_equal(all_of(open_feed(&feed)), "A60 B60 A120 B120 ");
    feed = scratch_feed(state, CONFIG_FEED_CSV, "by_symbol.csv");
    assert_string_equal(all_of(open_feed(&feed)), "A60 B60 A120 B120 ");
}

static void files_of_the_same_symbols_are_joined_by_time(void **state)
{
    static const char header[] = "symbol,time,open,high,low,close\n";
    char text[512];
    snprintf(text, sizeof text, "%sA,240,1,1,1,1\nB,240,1,1,1,1\nA,300,1,1,1,1\n", header);
    write_and_forget(state, "1_newer.csv", text);
    snprintf(text, sizeof text, "%sA,60,1,1,1,1\nB,60,1,1,1,1\nA,120,1,1,1,1\n", header);
    write_and_forget(state, "2_older.csv", text);
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    assert_string_equal(all_of(open_feed(&feed)), "A60 B60 A120 A240 B240 A300 ");
}

static void a_file_with_the_newest_first_is_read_backwards(void **state)
{
    write_and_forget(state, "A.csv", HEADER "240,1,1,1,1\n180,1,1,1,1\nbad\n120,1,1,1,1\n60,1,1,1,1\n\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    assert_string_equal(all_of(open_feed(&feed)), "A60 A120 ! A180 A240 ");
}

static void the_order_within_a_symbol_is_the_file_s(void **state)
{
    write_and_forget(state, "A.csv", HEADER "60,1,1,1,1\n180,1,1,1,1\n120,1,1,1,1\n180,1,1,1,1\n240,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    assert_string_equal(all_of(open_feed(&feed)), "A60 A180 A120 A180 A240 ");
}

static void a_malformed_row_is_told_with_file_line_and_column_and_the_rest_goes_on(void **state)
{
    write_and_forget(state, "A.csv", "\n" HEADER "60,1,1,1,1\n120,1,1,1,abc\n180,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    source_t *source = open_feed(&feed);
    source_bar_t row;
    assert_int_equal(source_next(source, &row), SOURCE_OK);
    assert_int_equal(source_next(source, &row), SOURCE_BAD);
    assert_non_null(strstr(error_text(), "A.csv:4: column close: \"abc\" is no number"));
    assert_int_equal(source_next(source, &row), SOURCE_OK);
    assert_int_equal(source_next(source, &row), SOURCE_END);
    assert_int_equal(source_next(source, &row), SOURCE_END);
    source_close(source);
}

static void malformed_rows_of_an_indexed_file_are_told_once_each_with_their_lines(void **state)
{
    write_and_forget(state, "all.csv", "symbol,time,open,high,low,close\nx\nB,60,1,1,1,1\nA,60,1,1,1,1\ny\nA,120,1,1,1,1\nz\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "all.csv");
    source_t *source = open_feed(&feed);
    char lines[64] = "";
    size_t bars = 0;
    source_bar_t row;
    for (int rc; (rc = source_next(source, &row)) != SOURCE_END;) {
        bars += rc == SOURCE_OK;
        if (rc == SOURCE_BAD)
            strncat(lines, strstr(error_text(), "all.csv:") + 8, 1);
    }
    source_close(source);
    assert_int_equal(bars, 3);
    assert_string_equal(lines, "257");
}

static void each_symbol_s_history_comes_before_all_later_bars(void **state)
{
    write_and_forget(state, "A.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n180,1,1,1,1\n240,1,1,1,1\n");
    write_and_forget(state, "B.csv", HEADER "180,1,1,1,1\n240,1,1,1,1\n300,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    feed.history_bars = 2;
    assert_string_equal(all_of(open_feed(&feed)), "A60 A120 B180 B240 A180 A240 B300 ");
}

static void the_interval_is_configured_or_the_most_frequent_step(void **state)
{
    write_and_forget(state, "A.csv", HEADER "0,1,1,1,1\n300,1,1,1,1\n600,1,1,1,1\n6000,1,1,1,1\n");
    write_and_forget(state, "B.csv", HEADER "0,1,1,1,1\n60,1,1,1,1\n120,1,1,1,1\n");
    write_and_forget(state, "C.csv", HEADER "0,1,1,1,1\n300,1,1,1,1\n");
    write_and_forget(state, "D.csv", HEADER "0,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    for (int configured = 0; configured < 2; configured++) {
        feed.interval_ns = configured ? 7 * MINUTE : 0;
        source_t *source = open_feed(&feed);
        for (source_bar_t row; source_next(source, &row) == SOURCE_OK;)
            assert_int_equal(row.interval_ns, configured ? 7 * MINUTE : row.symbol[0] == 'B' ? MINUTE : 5 * MINUTE);
        source_close(source);
    }
    feed = scratch_feed(state, CONFIG_FEED_CSV, "D.csv");
    source_t *source;
    assert_int_equal(source_open(&feed, &source), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "cannot tell the bars' interval"));
}

static void a_file_source_has_no_descriptor_and_never_waits(void **state)
{
    write_and_forget(state, "A.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    source_t *source = open_feed(&feed);
    assert_int_equal(source_descriptor(source), -1);
    source_close(source);
}

static void ndjson_files_are_merged_like_csv(void **state)
{
    write_and_forget(
        state, "x.ndjson",
        "{\"s\":\"A\",\"t\":60,\"o\":1,\"h\":1,\"l\":1,\"c\":1}\r\n{\"s\":\"A\",\"t\":120,\"o\":1,\"h\":1,\"l\":1,\"c\":1}\n"
        "nonsense\n\n{\"s\":\"B\",\"t\":60,\"o\":1,\"h\":1,\"l\":1,\"c\":1}\n{\"t\":180,\"o\":1,\"h\":1,\"l\":1,\"c\":\"1\"}");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_NDJSON, "x.ndjson");
    assert_string_equal(all_of(open_feed(&feed)), "A60 B60 A120 ! x180 ");
}

static void what_cannot_be_opened_is_named(void **state)
{
    static const struct {
        const char *name, *text, *reason;
    } files[] = {
        {"empty.csv", "", "empty: a header line"},
        {"blank.csv", "\n\n", "empty: a header line"},
        {"header.csv", HEADER, "no well-formed row: it has no rows"},
        {"bad.csv", HEADER "x\n", "no well-formed row"},
        {"wrong.csv", "\nname,age\nx,1\n", "wrong.csv:2: the header has no column for time"},
        {"two words.csv", HEADER "60,1,1,1,1\n", "no usable symbol"},
    };
    source_t *source;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        write_and_forget(state, files[i].name, files[i].text);
        config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, files[i].name);
        assert_int_equal(source_open(&feed, &source), SOURCE_ERR_OPEN);
        if (!strstr(error_text(), files[i].name) || !strstr(error_text(), files[i].reason))
            fail_msg("%s: %s", files[i].name, error_text());
    }
    config_feed_t missing = scratch_feed(state, CONFIG_FEED_CSV, "none.csv");
    assert_int_equal(source_open(&missing, &source), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "none.csv: No such file"));
    config_feed_t folder = scratch_feed(state, CONFIG_FEED_NDJSON, "");
    assert_int_equal(source_open(&folder, &source), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "not a file"));
}

static void a_directory_cannot_be_one_symbol(void **state)
{
    write_and_forget(state, "A.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n");
    write_and_forget(state, "B.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    strcpy(feed.symbol, "X");
    source_t *source;
    assert_int_equal(source_open(&feed, &source), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "names one symbol, the directory has 2 files"));
}

/* ---- read_all ---------------------------------------------------------------------------------------------------------------- */

static void read_all_gives_the_valid_bars_with_corrections_and_gaps(void **state)
{
    write_and_forget(
        state, "A.csv",
        HEADER "60,1,1,1,1\n120,1,1,1,1\n120,1,1,1,1\n180,-1,1,1,1\nbad\n240,1,1,1,1\n120,2,2,2,2\n300,1,1,1,1\n30,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "A.csv");
    source_bar_t *bars;
    size_t count, rejected;
    assert_int_equal(source_read_all(&feed, NULL, &bars, &count, &rejected), SOURCE_OK);
    assert_int_equal(count, 4);
    assert_int_equal(rejected, 4); /* the duplicate, the price, the malformed row, the one out of order */
    assert_int_equal(bars[0].interval_ns, MINUTE);
    assert_true(bars[1].bar.close == 2 && bars[1].bar.flags & SHM_BAR_AMENDED);
    assert_true(bars[2].bar.flags & SHM_BAR_GAP);
    assert_false(bars[3].bar.flags & SHM_BAR_GAP);
    free(bars);
    feed.bars_max = 2;
    assert_int_equal(source_read_all(&feed, "A", &bars, &count, &rejected), SOURCE_OK);
    assert_int_equal(count, 2);
    free(bars);
}

static void read_all_wants_one_symbol(void **state)
{
    write_and_forget(state, "A.csv", HEADER "60,1,1,1,1\n120,1,1,1,1\n");
    write_and_forget(state, "B.csv", HEADER "60,2,2,2,2\n120,1,1,1,1\n180,1,1,1,1\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "");
    source_bar_t *bars;
    size_t count, rejected;
    assert_int_equal(source_read_all(&feed, NULL, &bars, &count, &rejected), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "several symbols (A, B, ...)"));
    assert_int_equal(source_read_all(&feed, "Z", &bars, &count, &rejected), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "Z: no valid bar"));
    assert_int_equal(source_read_all(&feed, "B", &bars, &count, &rejected), SOURCE_OK);
    assert_int_equal(count, 3);
    assert_true(bars[0].bar.open == 2);
    free(bars);
}

static void read_every_gives_each_symbol_its_own_bars(void **state)
{
    write_and_forget(state, "two.csv",
                     "time,symbol,open,high,low,close\n"
                     "60,B,2,2,2,2\n60,A,1,1,1,1\n120,A,1,1,1,1\n120,B,-1,2,2,2\n180,B,3,3,3,3\n240,B,3,3,3,3\n");
    config_feed_t feed = scratch_feed(state, CONFIG_FEED_CSV, "two.csv");
    source_series_t *series;
    size_t count, rejected;
    assert_int_equal(source_read_every(&feed, &series, &count, &rejected), SOURCE_OK);
    assert_int_equal(count, 2);
    assert_int_equal(rejected, 1);
    const source_series_t *a = &series[strcmp(series[0].bars[0].symbol, "A") != 0], *b = a == series ? series + 1 : series;
    assert_string_equal(b->bars[0].symbol, "B");
    assert_int_equal(a->count, 2);
    assert_int_equal(b->count, 3);
    assert_int_equal(a->bars[1].interval_ns, MINUTE);
    assert_true(b->bars[1].bar.close == 3 && b->bars[1].bar.flags & SHM_BAR_GAP);
    source_free_every(series, count);
    write_and_forget(state, "short.csv", "time,symbol,open,high,low,close\n60,A,1,1,1,1\n120,A,1,1,1,1\n60,B,-2,2,2,2\n");
    feed = scratch_feed(state, CONFIG_FEED_CSV, "short.csv");
    assert_int_equal(source_read_every(&feed, &series, &count, &rejected), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "short.csv: B: no valid bar"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_one_symbol_named_like_it),
        TEST(marks_line_ends_blank_lines_and_a_missing_last_line_end_do_not_matter),
        TEST(a_directory_is_a_symbol_a_file_merged_by_open_time),
        TEST(an_unusable_file_of_a_directory_is_left_out),
        TEST(a_symbol_column_is_merged_whether_sorted_by_time_or_by_symbol),
        TEST(files_of_the_same_symbols_are_joined_by_time),
        TEST(a_file_with_the_newest_first_is_read_backwards),
        TEST(the_order_within_a_symbol_is_the_file_s),
        TEST(a_malformed_row_is_told_with_file_line_and_column_and_the_rest_goes_on),
        TEST(malformed_rows_of_an_indexed_file_are_told_once_each_with_their_lines),
        TEST(each_symbol_s_history_comes_before_all_later_bars),
        TEST(the_interval_is_configured_or_the_most_frequent_step),
        TEST(a_file_source_has_no_descriptor_and_never_waits),
        TEST(ndjson_files_are_merged_like_csv),
        TEST(what_cannot_be_opened_is_named),
        TEST(a_directory_cannot_be_one_symbol),
        TEST(read_all_gives_the_valid_bars_with_corrections_and_gaps),
        TEST(read_all_wants_one_symbol),
        TEST(read_every_gives_each_symbol_its_own_bars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
