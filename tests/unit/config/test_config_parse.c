#include "config_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WITH_MODEL_KEY(line) FEED MODEL line "\n"
#define WITH_SHM_KEY(line)   MINIMAL "[shm]\n" line "\n"

/* ---- values of every type --------------------------------------------------------------------------------------------------------- */

static void values_of_every_type_are_read(void **state)
{
    (void)state;
    config_t *config =
        parsed("\xef\xbb\xbf[instance]\r\nname = desk-1.eu_2   ; inline comment\r\nruntime_dir = /run/x\r\n"
               "# comment\n"
               "; comment\n"
               "[shm]\nring_bars=1048576\n"
               "[ingest]\ngap: fill\n"
               "[scheduler]\ndue = timer\ndue_timer = 1d\nheartbeat = 10ms\ndeadline = 1h\nquarantine = 2m\nlinger = 250us\n"
               "endpoint = tcp://*:5000\n"
               "[worker]\ngraphs = off\ndevice = cuda\n"
               "[feed.a]\ntype = zmq\nendpoint = ipc:///run/feed\ninterval = 5s\nspeed = 2.5\n"
               "[feed.b-2_X]\ntype = ndjson\npath = -\nbars_max = 4294967295\n"
               "[model.m]\npath = models/m\nseed = 9007199254740992\nsymbols = BTC*,  ETH-USD\tA?\n"
               "fields = volume, close\nquantiles = 0.025 0.5, 0.975\nbuckets = 3\nprecision = bf16\n"
               "publish_samples = yes\n");
    assert_string_equal(config->file, "test.ini");
    assert_string_equal(config->instance.name, "desk-1.eu_2");
    assert_string_equal(config->instance.runtime_dir, "/run/x");
    assert_int_equal(config->shm.ring_bars, 1048576);
    assert_int_equal(config->ingest.gap, CONFIG_GAP_FILL);
    assert_int_equal(config->scheduler.due, CONFIG_DUE_TIMER);
    assert_int_equal(config->scheduler.due_timer_ns, INT64_C(86400000000000));
    assert_int_equal(config->scheduler.heartbeat_ns, 10000000);
    assert_int_equal(config->scheduler.deadline_ns, INT64_C(3600000000000));
    assert_int_equal(config->scheduler.quarantine_ns, INT64_C(120000000000));
    assert_int_equal(config->scheduler.linger_ns, 250000);
    assert_string_equal(config->scheduler.endpoint, "tcp://*:5000");
    assert_false(config->worker.graphs);
    assert_int_equal(config->worker.device, CONFIG_DEVICE_CUDA);
    assert_int_equal(config->feed_count, 2);
    assert_string_equal(config->feeds[0].name, "a");
    assert_int_equal(config->feeds[0].type, CONFIG_FEED_ZMQ);
    assert_string_equal(config->feeds[0].endpoint, "ipc:///run/feed");
    assert_int_equal(config->feeds[0].interval_ns, INT64_C(5000000000));
    assert_true(config->feeds[0].speed == 2.5);
    assert_string_equal(config->feeds[1].name, "b-2_X");
    assert_string_equal(config->feeds[1].path, "-");
    assert_int_equal(config->feeds[1].bars_max, UINT32_MAX);
    assert_int_equal(config->model_count, 1);
    const config_model_t *model = &config->models[0];
    assert_string_equal(model->path, "models/m");
    assert_int_equal(model->seed, INT64_C(9007199254740992));
    assert_string_equal(model->symbols, "BTC*,ETH-USD,A?");
    assert_string_equal(model->fields, "volume,close");
    assert_int_equal(model->quantile_count, 3);
    assert_true(model->quantiles[0] == 0.025 && model->quantiles[1] == 0.5 && model->quantiles[2] == 0.975);
    assert_int_equal(model->bucket_count, 1);
    assert_int_equal(model->buckets[0], 3);
    assert_int_equal(model->precision, CONFIG_PRECISION_BF16);
    assert_true(model->publish_samples);
    config_free(config);
}

static void a_default_that_does_not_fit_follows_the_key_given(void **state)
{
    (void)state;
    config_t *config = parsed(WITH_MODEL_KEY("context = 32"));
    assert_int_equal(config->models[0].context_min, 32);
    config_free(config);
}

static void indented_lines_lengthen_a_list(void **state)
{
    (void)state;
    config_t *config = parsed(FEED MODEL "symbols = AAPL, MSFT,\n    # a comment between\n    NVDA ; and one behind\n\n"
                                         "\tBTC*\nquantiles =\n  0.1\n  0.5, 0.9\n");
    assert_string_equal(config->models[0].symbols, "AAPL,MSFT,NVDA,BTC*");
    assert_int_equal(config->models[0].quantile_count, 3);
    assert_true(config->models[0].quantiles[2] == 0.9);
    config_free(config);
}

static void the_first_key_of_a_section_may_be_indented(void **state)
{
    (void)state;
    config_t *config = parsed(MINIMAL "[shm]\n   symbols_max = 7\n");
    assert_int_equal(config->shm.symbols_max, 7);
    config_free(config);
}

/* ---- unknown words ---------------------------------------------------------------------------------------------------------------- */

static void unknown_words_are_refused_with_the_nearest_known_one(void **state)
{
    (void)state;
    assert_refused(MINIMAL "[shedular]\n", CONFIG_ERR_KEY, "test.ini:5: unknown section \"shedular\" (did you mean scheduler?)");
    assert_refused(MINIMAL "[xyz]\n", CONFIG_ERR_KEY, "test.ini:5: unknown section \"xyz\"");
    assert_refused(WITH_MODEL_KEY("horizn = 3"), CONFIG_ERR_KEY,
                   "test.ini:5: unknown key in [model]: \"horizn\" (did you mean horizon?)");
    assert_refused(WITH_SHM_KEY("horizon = 3"), CONFIG_ERR_KEY, "test.ini:6: unknown key in [shm]: \"horizon\"");
    assert_refused(MINIMAL "[ingest]\ngap = marc\n", CONFIG_ERR_VALUE,
                   "test.ini:6: gap: \"marc\", expected one of mark, fill (did you mean mark?)");
    assert_refused(
        WITH_MODEL_KEY("fields = close, volum"), CONFIG_ERR_VALUE,
        "test.ini:5: fields: \"volum\", expected a list of open, high, low, close, volume, amount (did you mean volume?)");
}

/* ---- structure -------------------------------------------------------------------------------------------------------------------- */

static void sections_and_keys_stand_once(void **state)
{
    (void)state;
    assert_refused("[shm]\n" MINIMAL "[shm]\n", CONFIG_ERR_KEY, "test.ini:6: section [shm] stands twice, first at line 1");
    assert_refused(MINIMAL FEED, CONFIG_ERR_KEY, "test.ini:5: section [feed.bars] stands twice, first at line 1");
    assert_refused(WITH_SHM_KEY("symbols_max = 1\nsymbols_max = 1"), CONFIG_ERR_KEY,
                   "test.ini:7: key \"symbols_max\" stands twice, first at line 6");
    assert_refused(WITH_MODEL_KEY("buckets = 1\nbuckets = 2"), CONFIG_ERR_KEY,
                   "test.ini:6: key \"buckets\" stands twice, first at line 5");
}

static void what_is_no_key_and_no_section_is_refused(void **state)
{
    (void)state;
    assert_refused("path = x\n" MINIMAL, CONFIG_ERR_SYNTAX, "test.ini:1: key \"path\" stands before any [section]");
    assert_refused(MINIMAL "horizon\n", CONFIG_ERR_SYNTAX, "test.ini:5: expected key = value, [section] or a comment");
    assert_refused(MINIMAL "horizon\nhorizon = x\n", CONFIG_ERR_SYNTAX,
                   "test.ini:5: expected key = value, [section] or a comment"); /* the first error counts */
    assert_refused(MINIMAL "[shm\n", CONFIG_ERR_SYNTAX, "test.ini:5: expected a section as [name] and nothing behind it");
    assert_refused(MINIMAL "[shm] x\n", CONFIG_ERR_SYNTAX, "test.ini:5: expected a section as [name] and nothing behind it");
    assert_refused(MINIMAL "  [shm]\n", CONFIG_ERR_SYNTAX, "test.ini:5: a section begins in the first column");
    assert_refused(MINIMAL "[shm.x]\n", CONFIG_ERR_SYNTAX, "test.ini:5: section [shm] takes no name");
    assert_refused(MINIMAL "[feed]\n", CONFIG_ERR_SYNTAX,
                   "test.ini:5: section [feed.] needs a name of letters, digits, '-' and '_'");
    assert_refused(MINIMAL "[model.a b]\n", CONFIG_ERR_SYNTAX,
                   "test.ini:5: section [model.a b] needs a name of letters, digits, '-' and '_'");
    assert_refused(MINIMAL "[model.a.b]\n", CONFIG_ERR_SYNTAX,
                   "test.ini:5: section [model.a.b] needs a name of letters, digits, '-' and '_'");
    assert_refused(MINIMAL "[model.aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee]\n", CONFIG_ERR_SYNTAX,
                   "test.ini:5: the section's name is longer than 49 bytes");
}

static void only_lists_have_several_lines(void **state)
{
    (void)state;
    assert_refused(
        WITH_SHM_KEY("symbols_max = 1\n  log_entries = 1024"), CONFIG_ERR_SYNTAX,
        "test.ini:7: an indented line goes on with \"symbols_max\", but only lists have several lines; expected a key in the "
        "first column");
}

static void there_are_so_many_feeds_and_no_more(void **state)
{
    (void)state;
    char text[4096] = MODEL;
    for (int i = 0; i <= CONFIG_FEEDS_MOST; i++) {
        if (i == CONFIG_FEEDS_MOST) {
            config_t *config = parsed(text);
            assert_int_equal(config->feed_count, CONFIG_FEEDS_MOST);
            config_free(config);
        }
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "[feed.f%d]\npath = x\n", i);
    }
    assert_refused(text, CONFIG_ERR_SYNTAX, "test.ini:67: section [feed.f32] is one more than the 32 that there may be");
}

static void a_line_longer_than_inih_reads_is_refused_not_cut(void **state)
{
    (void)state;
    char line[256], text[512];
    memset(line, 'x', sizeof line);
    memcpy(line, "runtime_dir = ", 14);
    line[199] = '\0';
    snprintf(text, sizeof text, MINIMAL "[instance]\n%s\n", line);
    config_t *config = parsed(text);
    assert_int_equal(strlen(config->instance.runtime_dir), 199 - 14);
    config_free(config);

    line[199] = 'x';
    line[200] = '\0';
    snprintf(text, sizeof text, MINIMAL "[instance]\n%s\n", line);
    assert_refused(text, CONFIG_ERR_SYNTAX,
                   "test.ini:6: the line has 200 bytes, at most 199 are read; a list may go on in indented lines");
    line[0] = '#'; /* a comment too: inih would read the rest of it as a line of its own */
    snprintf(text, sizeof text, MINIMAL "%s", line);
    assert_refused(text, CONFIG_ERR_SYNTAX,
                   "test.ini:5: the line has 200 bytes, at most 199 are read; a list may go on in indented lines");
}

/* ---- values that are refused ------------------------------------------------------------------------------------------------------ */

static void numbers_stay_in_their_range(void **state)
{
    (void)state;
    assert_refused(WITH_MODEL_KEY("horizon = 0"), CONFIG_ERR_VALUE,
                   "test.ini:5: horizon: \"0\", expected a whole number from 1 to 16384");
    assert_refused(WITH_MODEL_KEY("horizon = 16385"), CONFIG_ERR_VALUE,
                   "test.ini:5: horizon: \"16385\", expected a whole number from 1 to 16384");
    assert_refused(WITH_MODEL_KEY("horizon = 3.5"), CONFIG_ERR_VALUE,
                   "test.ini:5: horizon: \"3.5\", expected a whole number from 1 to 16384");
    assert_refused(WITH_MODEL_KEY("horizon = 12 bars"), CONFIG_ERR_VALUE,
                   "test.ini:5: horizon: \"12 bars\", expected a whole number from 1 to 16384");
    assert_refused(WITH_MODEL_KEY("horizon ="), CONFIG_ERR_VALUE,
                   "test.ini:5: horizon: \"\", expected a whole number from 1 to 16384");
    assert_refused(WITH_MODEL_KEY("seed = -1"), CONFIG_ERR_VALUE,
                   "test.ini:5: seed: \"-1\", expected a whole number from 0 to 9007199254740992");
    assert_refused(WITH_SHM_KEY("ring_bars = 5000"), CONFIG_ERR_VALUE,
                   "test.ini:6: ring_bars: \"5000\", expected a power of two from 64 to 1048576");
    assert_refused(FEED "speed = -1\n" MODEL, CONFIG_ERR_VALUE, "test.ini:3: speed: \"-1\", expected a number from 0 to 1e+09");
    assert_refused(FEED "speed = nan\n" MODEL, CONFIG_ERR_VALUE, "test.ini:3: speed: \"nan\", expected a number from 0 to 1e+09");
}

static void times_have_a_unit(void **state)
{
    (void)state;
    static const char *const bad[] = {"500",           "0s5", "s", "1.5s", "-1s", "1 s", "1S", "9ms", "2m", "99999999999999999999s",
                                      "9999999999999d"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256], message[256];
        snprintf(text, sizeof text, MINIMAL "[scheduler]\nheartbeat = %s\n", bad[i]);
        snprintf(message, sizeof message,
                 "test.ini:6: heartbeat: \"%s\", expected a time such as 500ms, 5s, 1m, 1h or 1d, from 10ms to 1m", bad[i]);
        assert_refused(text, CONFIG_ERR_VALUE, message);
    }
}

static void lists_ascend_and_hold_nothing_twice(void **state)
{
    (void)state;
    assert_refused(WITH_MODEL_KEY("quantiles = 0.5, 0.1"), CONFIG_ERR_VALUE,
                   "test.ini:5: quantiles: \"0.1\" is not above the value before it, expected an ascending list");
    assert_refused(WITH_MODEL_KEY("quantiles = 0.5,\n  0.5"), CONFIG_ERR_VALUE,
                   "test.ini:6: quantiles: \"0.5\" is not above the value before it, expected an ascending list");
    assert_refused(WITH_MODEL_KEY("quantiles = 0, 0.5"), CONFIG_ERR_VALUE,
                   "test.ini:5: quantiles: \"0\", expected an ascending list of numbers above 0 and below 1");
    assert_refused(WITH_MODEL_KEY("quantiles = 0.5, 1"), CONFIG_ERR_VALUE,
                   "test.ini:5: quantiles: \"1\", expected an ascending list of numbers above 0 and below 1");
    assert_refused(WITH_MODEL_KEY("quantiles = ,"), CONFIG_ERR_VALUE,
                   "test.ini:5: [model.naive] quantiles is empty, expected levels such as 0.5");
    assert_refused(WITH_MODEL_KEY("hours = 9-16"), CONFIG_ERR_VALUE,
                   "test.ini:5: [model.naive] \"9-16\": expected hours such as 09:30-16:00, one after the other");
    assert_refused(WITH_MODEL_KEY("days = monday"), CONFIG_ERR_VALUE,
                   "test.ini:5: days: \"monday\", expected a list of mon, tue, wed, thu, fri, sat, sun");
    assert_refused(WITH_MODEL_KEY("timezone = Gotham"), CONFIG_ERR_VALUE,
                   "test.ini:5: [model.naive] \"Gotham\" is not in this machine's time zone database (Debian: tzdata)");
    assert_refused(WITH_MODEL_KEY("buckets = 8, 1"), CONFIG_ERR_VALUE,
                   "test.ini:5: buckets: \"1\" is not above the value before it, expected an ascending list");
    assert_refused(WITH_MODEL_KEY("buckets = 1.5"), CONFIG_ERR_VALUE,
                   "test.ini:5: buckets: \"1.5\", expected an ascending list of whole numbers from 1 to 4096");
    assert_refused(WITH_MODEL_KEY("buckets = 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17"), CONFIG_ERR_VALUE,
                   "test.ini:5: buckets: \"17\" is one more than the 16 values that the list may have");
    assert_refused(WITH_MODEL_KEY("fields = close, open, close"), CONFIG_ERR_VALUE,
                   "test.ini:5: fields: \"close\" stands twice in the list");
    config_t *config = parsed(WITH_MODEL_KEY("symbols = BTC-USD, BTC")); /* a word that begins another is not that other */
    assert_string_equal(config->models[0].symbols, "BTC-USD,BTC");
    config_free(config);
}

static void a_word_list_is_bounded(void **state)
{
    (void)state;
    char text[2048] = FEED MODEL "symbols = S00\n";
    for (int i = 1; i <= 63; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "  S%02d\n", i);
    }
    config_t *config = parsed(text); /* 64 words of 3 letters, 63 commas: 255 bytes */
    assert_int_equal(strlen(config->models[0].symbols), 255);
    config_free(config);
    strcat(text, "  S\n");
    assert_refused(text, CONFIG_ERR_VALUE, "test.ini:69: symbols: \"S\" makes the list longer than 255 bytes");
}

static void text_keeps_to_its_form(void **state)
{
    (void)state;
    assert_refused(MINIMAL "[instance]\nname = a/b\n", CONFIG_ERR_VALUE,
                   "test.ini:6: name: \"a/b\", expected at most 63 letters, digits, '-', '_', '.'");
    assert_refused(
        MINIMAL "[instance]\nname = aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff1234\n", CONFIG_ERR_VALUE,
        "test.ini:6: name: \"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff1234\" is too long, expected at most "
        "63 letters, digits, '-', '_', '.'");
    static const char *const bad[] = {"tcp://x", "tcp://:5", "tcp://x:0", "tcp://x:65536", "tcp://x:y", "ipc://", "udp://x:1", "x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256], message[256];
        snprintf(text, sizeof text, MINIMAL "[publish]\nendpoint = %s\n", bad[i]);
        snprintf(message, sizeof message, "test.ini:6: endpoint: \"%s\", expected tcp://HOST:PORT or ipc://PATH", bad[i]);
        assert_refused(text, CONFIG_ERR_VALUE, message);
    }
    assert_refused(MINIMAL "[worker]\ngraphs = maybe\n", CONFIG_ERR_VALUE, "test.ini:6: graphs: \"maybe\", expected on or off");
}

/* ---- what is missing, what contradicts -------------------------------------------------------------------------------------------- */

static void what_is_missing_is_named(void **state)
{
    (void)state;
    assert_refused("", CONFIG_ERR_MISSING, "test.ini: no [feed.NAME] section: bars must come from somewhere");
    assert_refused(FEED, CONFIG_ERR_MISSING, "test.ini: no [model.NAME] section: something must forecast");
    assert_refused("[feed.a]\n" MODEL, CONFIG_ERR_MISSING,
                   "test.ini:1: [feed.a] needs path: the file or folder that its bars are in");
    assert_refused("\n[feed.a]\ntype = zmq\n" MODEL, CONFIG_ERR_MISSING,
                   "test.ini:2: [feed.a] needs endpoint: what the PULL socket binds");
    assert_refused(FEED "[model.m]\n", CONFIG_ERR_MISSING,
                   "test.ini:3: [model.m] needs path: a checkpoint folder, naive or default");
    assert_refused(FEED "[model.m]\n\npath =\n", CONFIG_ERR_MISSING,
                   "test.ini:5: [model.m] needs path: a checkpoint folder, naive or default");
}

static void keys_that_contradict_each_other_are_refused(void **state)
{
    (void)state;
    assert_refused(FEED "endpoint = tcp://*:1\n" MODEL, CONFIG_ERR_VALUE,
                   "test.ini:3: [feed.bars] endpoint has no meaning for this type of feed");
    assert_refused(FEED "type = zmq\nendpoint = tcp://*:1\n" MODEL, CONFIG_ERR_VALUE,
                   "test.ini:2: [feed.bars] path has no meaning for this type of feed");
    assert_refused(WITH_MODEL_KEY("context = 4096"), CONFIG_ERR_VALUE,
                   "test.ini:5: [model.naive] context = 4096 does not fit the rings, expected less than ring_bars = 4096 of [shm]");
    assert_refused(WITH_SHM_KEY("ring_bars = 512"), CONFIG_ERR_VALUE,
                   "test.ini:3: [model.naive] context = 512 does not fit the rings, expected less than ring_bars = 512 of [shm]");
    assert_refused(WITH_MODEL_KEY("context = 100\ncontext_min = 101"), CONFIG_ERR_VALUE,
                   "test.ini:6: [model.naive] context_min = 101 is more than context = 100");
    assert_refused(WITH_MODEL_KEY("samples = 0\npublish_samples = on"), CONFIG_ERR_VALUE,
                   "test.ini:6: [model.naive] publish_samples = on needs samples above 0");
}

/* ---- files ------------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    char folder[64], file[96];
} folder_t;

static int make_folder(void **state)
{
    static folder_t made;
    strcpy(made.folder, "/tmp/barcast-test-config-XXXXXX");
    assert_non_null(mkdtemp(made.folder));
    snprintf(made.file, sizeof made.file, "%s/a.ini", made.folder);
    *state = &made;
    return 0;
}

static int remove_folder(void **state)
{
    folder_t *made = *state;
    unlink(made->file);
    return rmdir(made->folder);
}

static void write_file(const folder_t *made, const char *text, size_t bytes)
{
    FILE *to = fopen(made->file, "w");
    assert_non_null(to);
    assert_int_equal(fwrite(text, 1, bytes, to), bytes);
    fclose(to);
}

static void relative_paths_start_at_the_files_folder(void **state)
{
    const folder_t *made = *state;
    const char *text = "[feed.a]\npath = data/bars.csv\n[feed.b]\npath = /abs/bars.csv\n[feed.c]\ntype = ndjson\npath = -\n"
                       "[model.a]\npath = naive\n[model.b]\npath = ../toto\n";
    write_file(made, text, strlen(text));
    config_t *config;
    assert_int_equal(config_load(made->file, &config), CONFIG_OK);
    char expected[CONFIG_TEXT_BYTES];
    snprintf(expected, sizeof expected, "%s/data/bars.csv", made->folder);
    assert_string_equal(config->feeds[0].path, expected);
    assert_string_equal(config->feeds[1].path, "/abs/bars.csv");
    assert_string_equal(config->feeds[2].path, "-");
    assert_string_equal(config->models[0].path, "naive");
    snprintf(expected, sizeof expected, "%s/../toto", made->folder);
    assert_string_equal(config->models[1].path, expected);
    assert_string_equal(config->instance.runtime_dir, "");
    assert_string_equal(config->file, made->file);
    config_free(config);
}

static void a_file_that_is_no_configuration_is_named(void **state)
{
    const folder_t *made = *state;
    char message[256];
    config_t *config = NULL;
    snprintf(message, sizeof message, "%s: cannot open: No such file or directory", made->file);
    unlink(made->file);
    assert_int_equal(config_load(made->file, &config), CONFIG_ERR_FILE);
    assert_string_equal(error_text(), message);

    snprintf(message, sizeof message, "%s: cannot read: Is a directory", made->folder);
    assert_int_equal(config_load(made->folder, &config), CONFIG_ERR_FILE);
    assert_string_equal(error_text(), message);

    write_file(made, "[shm]\n\0", 7);
    snprintf(message, sizeof message, "%s: holds a zero byte, expected text", made->file);
    assert_int_equal(config_load(made->file, &config), CONFIG_ERR_FILE);
    assert_string_equal(error_text(), message);

    char *large = calloc(1, (1 << 20) + 1);
    assert_non_null(large);
    memset(large, '\n', (1 << 20) + 1);
    write_file(made, large, (1 << 20) + 1);
    free(large);
    snprintf(message, sizeof message, "%s: is larger than 1048576 bytes, expected a configuration", made->file);
    assert_int_equal(config_load(made->file, &config), CONFIG_ERR_FILE);
    assert_string_equal(error_text(), message);
    assert_null(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_type_are_read),
        cmocka_unit_test(a_default_that_does_not_fit_follows_the_key_given),
        cmocka_unit_test(indented_lines_lengthen_a_list),
        cmocka_unit_test(the_first_key_of_a_section_may_be_indented),
        cmocka_unit_test(unknown_words_are_refused_with_the_nearest_known_one),
        cmocka_unit_test(sections_and_keys_stand_once),
        cmocka_unit_test(what_is_no_key_and_no_section_is_refused),
        cmocka_unit_test(only_lists_have_several_lines),
        cmocka_unit_test(there_are_so_many_feeds_and_no_more),
        cmocka_unit_test(a_line_longer_than_inih_reads_is_refused_not_cut),
        cmocka_unit_test(numbers_stay_in_their_range),
        cmocka_unit_test(times_have_a_unit),
        cmocka_unit_test(lists_ascend_and_hold_nothing_twice),
        cmocka_unit_test(a_word_list_is_bounded),
        cmocka_unit_test(text_keeps_to_its_form),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(keys_that_contradict_each_other_are_refused),
        cmocka_unit_test_setup_teardown(relative_paths_start_at_the_files_folder, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_configuration_is_named, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
