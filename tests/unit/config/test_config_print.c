#include "config_test.h"

#include "config/table.h"

#include <stdlib.h>
#include <string.h>

/* Both write into a text that the caller frees. */
static char *printed(const config_t *config)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    if (config)
        config_print(config, to);
    else
        config_print_sample(to);
    fclose(to);
    return text;
}

static void every_default_is_valid_and_is_what_it_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < config_key_count; i++) {
        const config_key_t *key = &config_keys[i];
        config_t config = {0}, again = {0};
        char text[CONFIG_FORMAT_BYTES];
        void *base = config_section_base(&config, key->section, 0);
        assert_int_equal(config_value_parse(key, key->fallback, false, "", base), CONFIG_OK);
        config_value_format(key, base, text);
        assert_int_equal(config_value_parse(key, text, false, "", config_section_base(&again, key->section, 0)), CONFIG_OK);
        assert_memory_equal(&config, &again, sizeof config);
    }
}

static void the_defaults_are_these(void **state)
{
    (void)state;
    static const double levels[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9};
    static const uint32_t buckets[] = {1, 8, 64};
    config_t expected = {
        .file = "test.ini",
        .instance = {.name = "main"},
        .shm = {.symbols_max = 4096, .ring_bars = 4096, .log_entries = 65536},
        .ingest = {.gap = CONFIG_GAP_MARK, .gap_fill_max = 16},
        .scheduler = {.due = CONFIG_DUE_CLOSE,
                      .due_every = 1,
                      .due_timer_ns = INT64_C(1000000000),
                      .heartbeat_ns = INT64_C(500000000),
                      .heartbeat_liveness = 3,
                      .deadline_ns = INT64_C(10000000000),
                      .credits = 2,
                      .batch_max = 4096,
                      .quarantine_after = 3,
                      .quarantine_ns = INT64_C(60000000000)},
        .worker = {.count = 1, .device = CONFIG_DEVICE_AUTO, .threads = 1, .graphs = true},
        .publish = {.high_water_mark = 10000},
        .feed_count = 1,
        .feeds = {{.name = "bars", .type = CONFIG_FEED_CSV, .path = "bars.csv", .history_bars = 512, .speed = 1}},
        .model_count = 1,
        .models = {{.name = "naive",
                    .path = "naive",
                    .symbols = "*",

                    .context = 512,
                    .context_min = 64,
                    .horizon = 24,
                    .samples = 64,
                    .quantile_count = 9,
                    .bucket_count = 3,
                    .precision = CONFIG_PRECISION_AUTO}},
    };
    memcpy(expected.models[0].quantiles, levels, sizeof levels);
    memcpy(expected.models[0].buckets, buckets, sizeof buckets);
    config_t *config = parsed(MINIMAL);
    assert_memory_equal(config, &expected, sizeof expected);
    config_free(config);
}

static void the_committed_sample_is_what_the_table_says(void **state)
{
    (void)state;
    FILE *from = fopen(BARCAST_SOURCE_DIR "/config/sample.ini", "r");
    assert_non_null(from);
    char committed[65536];
    size_t bytes = fread(committed, 1, sizeof committed - 1, from);
    committed[bytes] = '\0';
    fclose(from);
    char *sample = printed(NULL);
    assert_string_equal(committed, sample);
    free(sample);
}

static void the_sample_is_valid_and_holds_the_defaults(void **state)
{
    (void)state;
    char *sample = printed(NULL);
    config_t *from_sample = parsed(sample), *defaults = parsed(MINIMAL);
    assert_memory_equal(from_sample, defaults, sizeof *defaults);
    config_free(from_sample);
    config_free(defaults);
    free(sample);
}

static void the_sample_shows_every_key(void **state)
{
    (void)state;
    char *sample = printed(NULL);
    const char *at = sample;
    for (size_t i = 0; i < config_key_count; i++) { /* in the table's order */
        char line[80];
        snprintf(line, sizeof line, "\n%s =", config_keys[i].name);
        at = strstr(at, line);
        if (!at)
            fail_msg("%s is not in the sample", config_keys[i].name);
        at++;
    }
    free(sample);
}

static void what_is_printed_is_read_back_the_same(void **state)
{
    (void)state;
    char text[8192] =
        "[instance]\nname = x.y\nruntime_dir = /run/x\n"
        "[shm]\nsymbols_max = 65536\nring_bars = 131072\ngroup = traders\n"
        "[ingest]\ngap = fill\n"
        "[scheduler]\ndue_timer = 1500ms\nlinger = 1ns\nquarantine = 36h\nendpoint = ipc:///run/s\n"
        "[worker]\ngraphs = off\ndevice = cpu\n"
        "[publish]\nendpoint = tcp://127.0.0.1:5600\n"
        "[feed.z]\ntype = zmq\nendpoint = tcp://*:1\nspeed = 0.1\nbars_per_second = 33.333333333333336\n"
        "[feed.c]\npath = a b/c d.csv\nsymbol = BTC-USD\nsymbol_suffix = _daily\n"
        "[model.two]\npath = /models/two\nseed = 9007199254740992\nquantiles = 0.1 0.30000000000000004 0.999999999999\n"
        "fields = close high low open volume amount\nbuckets = 1 2 3 4 5 6 7 8 9 10 11 12 13 14 4095 4096\n"
        "[model.one]\npath = naive\npublish_samples = on\nquantiles = 0.00123\n";
    for (int i = 1; i < 99; i++) { /* more than a line holds, and as many as there may be */
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "  %.5f\n", 0.01 * i + 0.00123);
    }
    strcat(text, "symbols = S00\n");
    for (int i = 1; i < 64; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "  S%02d\n", i);
    }
    config_t *config = parsed(text);
    assert_int_equal(config->models[1].quantile_count, CONFIG_QUANTILES_MOST);
    char *once = printed(config);
    config_t *again = parsed(once);
    assert_memory_equal(again, config, sizeof *config);
    char *twice = printed(again);
    assert_string_equal(twice, once);
    free(once);
    free(twice);
    config_free(config);
    config_free(again);
}

static void odd_values_are_read_back_the_same(void **state)
{
    (void)state;
    char text[1024], long_path[CONFIG_LINE_BYTES_MOST + 1], long_word[192];
    memset(long_path, 'p', sizeof long_path);
    long_path[CONFIG_LINE_BYTES_MOST - strlen("path=")] = '\0';
    memset(long_word, 'w', sizeof long_word);
    long_word[CONFIG_LINE_BYTES_MOST - strlen("symbols=")] = '\0';
    snprintf(text, sizeof text, "[feed.a]\npath=;not a comment\n[feed.b]\npath=%s\n[model.m]\npath = naive\nsymbols=%s\n  A\n",
             long_path, long_word);
    config_t *config = parsed(text);
    assert_string_equal(config->feeds[0].path, ";not a comment");
    assert_string_equal(config->feeds[1].path, long_path);
    char *once = printed(config);
    config_t *again = parsed(once);
    assert_memory_equal(again, config, sizeof *config);
    free(once);
    config_free(config);
    config_free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_is_valid_and_is_what_it_says),
        cmocka_unit_test(the_defaults_are_these),
        cmocka_unit_test(the_committed_sample_is_what_the_table_says),
        cmocka_unit_test(the_sample_is_valid_and_holds_the_defaults),
        cmocka_unit_test(the_sample_shows_every_key),
        cmocka_unit_test(what_is_printed_is_read_back_the_same),
        cmocka_unit_test(odd_values_are_read_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
