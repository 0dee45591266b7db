/* CSV headers and rows, JSON lines, numbers: text to bar, without files. */
#include "base/error.h"
#include "ingest/csv.h"
#include "ingest/ndjson.h"
#include "ingest/number.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DAY_2 INT64_C(1577923200000000000) /* 2020-01-02 */

static int parse_csv(const char *header, const char *row, source_bar_t *out)
{
    csv_layout_t layout;
    int rc = csv_header_parse(header, strlen(header), &layout);
    return rc == SOURCE_OK ? csv_row_parse(&layout, row, strlen(row), out) : rc;
}

static int parse_json(const char *line, source_bar_t *out)
{
    ndjson_t *parser = ndjson_open();
    int rc = ndjson_row_parse(parser, line, strlen(line), out);
    ndjson_close(parser);
    return rc;
}

static void assert_bar(const source_bar_t *row, double volume, double amount)
{
    assert_int_equal(row->bar.open_time_ns, DAY_2);
    assert_true(row->bar.open == 11 && row->bar.high == 14 && row->bar.low == 10.5 && row->bar.close == 12);
    assert_int_equal(!!(row->bar.flags & SHM_BAR_NO_VOLUME), isnan(volume));
    assert_int_equal(!!(row->bar.flags & SHM_BAR_NO_AMOUNT), isnan(amount));
    assert_true(isnan(volume) ? isnan(row->bar.volume) : row->bar.volume == volume);
    assert_true(isnan(amount) ? isnan(row->bar.amount) : row->bar.amount == amount);
}

static void columns_are_found_by_their_usual_names_in_any_order_and_case(void **state)
{
    (void)state;
    static const struct {
        const char *header, *row;
        double volume, amount;
    } files[] = {
        {"Date,close,high,low,open,volume", "2020-01-02,12,14,10.5,11,100", 100, NAN},
        {"timestamps,open,high,low,close,volume,amount", "2020-01-02 00:00:00,11,14,10.5,12,100.0,200.5", 100, 200.5},
        {"t,o,h,l,c,v", "1577923200000,11,14,10.5,12,100", 100, NAN},
        {"TIMESTAMP,OPEN,HIGH,LOW,CLOSE", "1577923200,11,14,10.5,12", NAN, NAN},
        {"Datetime,Open,High,Low,Close,Adj Close,Volume", "2020-01-02 00:00:00+00:00,11,14,10.5,12,9.5,100", 100, NAN},
        {"Date,Adj Close,Close,High,Low,Open,Volume", "2020-01-02,9.5,12,14,10.5,11,100", 100, NAN},
        {"open_time,open,high,low,close,volume,close_time,quote_volume", "1577923200000,11,14,10.5,12,100,1577923259999,200", 100,
         200},
        {"ts, Open Price , High Price,Low-Price,close.price,vol,turnover", "1577923200,11,14,10.5,12,100,200", 100, 200},
        {"<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>", "2020.01.02\t00:00:00\t11\t14\t10.5\t12\t100", 100, NAN},
        {"<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>", "X,D,20200102,000000,11,14,10.5,12,100", 100, NAN},
        {"timestamp,1. open,2. high,3. low,4. close,5. volume", "2020-01-02,11,14,10.5,12,100", 100, NAN},
        {"unix,date,symbol,open,high,low,close", "1577923200,2020-01-02,BTC/USD,11,14,10.5,12", NAN, NAN},
        {"trade_date;open;high;low;close;vol;amount", "20200102;11;14;10.5;12;100;200", 100, 200},
        {"day,o,h,l,c,volume,value", "2020-01-02,11,14,10.5,12,100,200", 100, 200},
        {"\"time\",\"open\",\"high\",\"low\",\"close\"", "\"2020-01-02\",\"11\",\"14\",\"10.5\",\"12\"", NAN, NAN},
        {"time,ignored,open,high,low,close,also ignored", "2020-01-02,\"a,b\",11,14,10.5,12,", NAN, NAN},
        {"time , open,high, low,close", " 2020-01-02 , 11 ,14, 10.5,12 ", NAN, NAN},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        source_bar_t row;
        if (parse_csv(files[i].header, files[i].row, &row) != SOURCE_OK)
            fail_msg("%s: %s", files[i].header, error_text());
        assert_bar(&row, files[i].volume, files[i].amount);
    }
}

static void a_symbol_column_names_the_bar(void **state)
{
    (void)state;
    static const char *const names[] = {"symbol", "Ticker", "sym", "instrument", "code", "ts_code", "Name", "s", "pair"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char header[64];
        snprintf(header, sizeof header, "date,open,high,low,close,%s", names[i]);
        source_bar_t row;
        assert_int_equal(parse_csv(header, "2020-01-02,11,14,10.5,12,BRK.B", &row), SOURCE_OK);
        assert_string_equal(row.symbol, "BRK.B");
    }
}

static void an_empty_volume_is_unknown_and_an_empty_price_is_no_bar(void **state)
{
    (void)state;
    source_bar_t row;
    assert_int_equal(parse_csv("date,open,high,low,close,volume,amount", "2020-01-02,11,14,10.5,12,,", &row), SOURCE_OK);
    assert_bar(&row, NAN, NAN);
    assert_int_equal(parse_csv("date,open,high,low,close,volume", "2020-01-02,,14,10.5,12,100", &row), SOURCE_BAD);
    assert_string_equal(error_text(), "column open: \"\" is no number");
}

static void a_header_without_a_needed_column_is_refused_by_name(void **state)
{
    (void)state;
    source_bar_t row;
    assert_int_equal(parse_csv("date,open,high,low,volume", "", &row), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "no column for close"));
    assert_int_equal(parse_csv("open,high,low,close", "", &row), SOURCE_ERR_OPEN);
    assert_non_null(strstr(error_text(), "no column for time"));
    assert_int_equal(parse_csv("1577923200000,11,14,10.5,12", "", &row), SOURCE_ERR_OPEN);
    assert_int_equal(parse_csv("", "", &row), SOURCE_ERR_OPEN);
    assert_int_equal(parse_csv("date,\"open,high,low,close", "", &row), SOURCE_ERR_OPEN);
}

static void a_malformed_row_is_bad_and_names_its_column(void **state)
{
    (void)state;
    static const char header[] = "date,open,high,low,close,volume,symbol";
    static const struct {
        const char *row, *reason;
    } rows[] = {
        {"2020-01-02,11,14,10.5", "4 cells where the header has 7"},
        {"2020-01-02,11,14,10.5,abc,1,A", "column close: \"abc\" is no number"},
        {"2020-01-02,11,14,10.5,0x10,1,A", "column close"},
        {"2020-01-02,11,14,10.5,12 13,1,A", "column close"},
        {"2020-01-02,11,14,10.5,12,many,A", "column volume"},
        {"yesterday,11,14,10.5,12,1,A", "column time: \"yesterday\" is no time"},
        {"2020-01-02,11,\"14,10.5,12,1,A", "cell 3 has an open quote"},
        {"2020-01-02,11,\"14\"x,10.5,12,1,A", "cell 3 has an open quote"},
        {"2020-01-02,11,14,10.5,12,1,", "column symbol"},
        {"2020-01-02,11,14,10.5,12,1,two words", "column symbol"},
        {"2020-01-02,11,14,10.5,12,1,abcdefghijklmnopqrstuvwxyz123456", "column symbol"},
        {"", "1 cells"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        source_bar_t untouched = {.interval_ns = 42};
        assert_int_equal(parse_csv(header, rows[i].row, &untouched), SOURCE_BAD);
        if (!strstr(error_text(), rows[i].reason))
            fail_msg("%s: %s", rows[i].row, error_text());
        assert_int_equal(untouched.interval_ns, 42);
    }
}

static void words_for_nan_and_infinity_are_numbers_to_be_judged(void **state)
{
    (void)state;
    source_bar_t row;
    assert_int_equal(parse_csv("date,open,high,low,close", "2020-01-02,nan,inf,-inf,NaN", &row), SOURCE_OK);
    assert_true(isnan(row.bar.open) && isinf(row.bar.high) && isinf(row.bar.low) && isnan(row.bar.close));
}

static void numbers_are_what_strtod_says_to_the_last_bit(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0",
        "-0",
        "1",
        "11.27",
        "29.6200008392334",
        "118.8970718383789",
        "0.1",
        "1e5",
        "1.5E-3",
        ".5",
        "5.",
        "-12.75",
        "9007199254740993",
        "9007199254740991.5",
        "0.00000000000000000000001",
        "123456789012345678901234567890",
        "3.0000000000000000000000001",
        "4.9e-324",
        "179769313486231570000000000000000000000",
        "0.30000000000000004",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        double value;
        assert_true(number_parse(texts[i], strlen(texts[i]), &value));
        double expected = strtod(texts[i], NULL);
        assert_memory_equal(&value, &expected, sizeof value);
    }
    srand(7);
    for (int i = 0; i < 200000; i++) {
        char text[64];
        snprintf(text, sizeof text, "%.*f", rand() % 18, (double)rand() / (1 + rand() % 100000));
        double value, expected = strtod(text, NULL);
        assert_true(number_parse(text, strlen(text), &value));
        assert_memory_equal(&value, &expected, sizeof value);
    }
}

static void what_is_no_number_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "-", ".", "1.2.3", "1,5", "0x1p3", " 1", "1 ", "--1", "1e", "1e999", "+-1", "$5", "5%"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        double value = 42;
        if (number_parse(texts[i], strlen(texts[i]), &value) || value != 42)
            fail_msg("\"%s\" was taken for %g", texts[i], value);
    }
    double value;
    assert_true(number_parse("12345", 2, &value) && value == 12);
}

static void json_keys_are_found_like_headers_and_numbers_may_be_text(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        double volume, amount;
    } lines[] = {
        {"{\"t\":1577923200000,\"o\":\"11\",\"h\":\"14.0\",\"l\":\"10.5\",\"c\":\"12\",\"v\":\"100\"}", 100, NAN},
        {"{\"timestamp\":\"2020-01-02T00:00:00Z\",\"open\":11,\"high\":14,\"low\":10.5,\"close\":12,\"volume\":null}", NAN, NAN},
        {"{\"close\":12,\"Low\":10.5,\"HIGH\":14,\"open\":1.1e1,\"time\":1577923200.0,\"volume\":100,\"turnover\":200}", 100, 200},
        {"{\"date\":\"2020-01-02\",\"open\":11,\"high\":14,\"low\":10.5,\"close\":12,\"nested\":{\"a\":[1]}}  ", NAN, NAN},
        {"{\"ts\":1577923200000000000,\"open\":11,\"high\":14,\"low\":10.5,\"close\":12,\"adj_close\":9}", NAN, NAN},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        source_bar_t row;
        if (parse_json(lines[i].line, &row) != SOURCE_OK)
            fail_msg("%s: %s", lines[i].line, error_text());
        assert_bar(&row, lines[i].volume, lines[i].amount);
    }
}

static void json_lines_may_change_their_keys(void **state)
{
    (void)state;
    ndjson_t *parser = ndjson_open();
    static const char first[] = "{\"t\":1577923200,\"o\":11,\"h\":14,\"l\":10.5,\"c\":12,\"s\":\"A\"}";
    static const char second[] = "{\"symbol\":\"B\",\"c\":12,\"o\":11,\"h\":14,\"l\":10.5,\"date\":\"2020-01-02\"}";
    for (int i = 0; i < 3; i++) {
        source_bar_t row;
        assert_int_equal(ndjson_row_parse(parser, first, strlen(first), &row), SOURCE_OK);
        assert_bar(&row, NAN, NAN);
        assert_string_equal(row.symbol, "A");
        assert_int_equal(ndjson_row_parse(parser, second, strlen(second), &row), SOURCE_OK);
        assert_bar(&row, NAN, NAN);
        assert_string_equal(row.symbol, "B");
    }
    ndjson_close(parser);
}

static void a_line_that_is_no_json_bar_is_bad(void **state)
{
    (void)state;
    static const struct {
        const char *line, *reason;
    } lines[] = {
        {"", "not a JSON object"},
        {"{\"t\":1", "not a JSON object"},
        {"[1,2]", "a JSON array where an object was expected"},
        {"null", "not a JSON object"},
        {"{\"t\":1577923200,\"o\":1,\"h\":1,\"l\":1,\"c\":1} {}", "something follows"},
        {"{\"t\":1577923200,\"o\":1,\"h\":1,\"l\":1}", "no close"},
        {"{\"t\":1577923200,\"o\":1,\"h\":1,\"l\":1,\"c\":null}", "column close"},
        {"{\"t\":1577923200,\"o\":1,\"h\":1,\"l\":1,\"c\":[1]}", "column close"},
        {"{\"t\":1577923200,\"o\":true,\"h\":1,\"l\":1,\"c\":1}", "column open"},
        {"{\"o\":1,\"h\":1,\"l\":1,\"c\":1}", "no time"},
        {"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}}}", "not a JSON object"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        source_bar_t row;
        assert_int_equal(parse_json(lines[i].line, &row), SOURCE_BAD);
        if (!strstr(error_text(), lines[i].reason))
            fail_msg("%s: %s", lines[i].line, error_text());
    }
}

static void a_json_line_of_more_than_64_kib_is_bad(void **state)
{
    (void)state;
    size_t bytes = NDJSON_LINE_BYTES_MOST + 1;
    char *line = test_malloc(bytes + 1);
    memset(line, ' ', bytes);
    line[bytes] = 0;
    source_bar_t row;
    assert_int_equal(parse_json(line, &row), SOURCE_BAD);
    assert_non_null(strstr(error_text(), "more than 65536 bytes"));
    test_free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_found_by_their_usual_names_in_any_order_and_case),
        cmocka_unit_test(a_symbol_column_names_the_bar),
        cmocka_unit_test(an_empty_volume_is_unknown_and_an_empty_price_is_no_bar),
        cmocka_unit_test(a_header_without_a_needed_column_is_refused_by_name),
        cmocka_unit_test(a_malformed_row_is_bad_and_names_its_column),
        cmocka_unit_test(words_for_nan_and_infinity_are_numbers_to_be_judged),
        cmocka_unit_test(numbers_are_what_strtod_says_to_the_last_bit),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(json_keys_are_found_like_headers_and_numbers_may_be_text),
        cmocka_unit_test(json_lines_may_change_their_keys),
        cmocka_unit_test(a_line_that_is_no_json_bar_is_bad),
        cmocka_unit_test(a_json_line_of_more_than_64_kib_is_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
