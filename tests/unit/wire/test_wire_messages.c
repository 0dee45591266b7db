/* What every message has in common, tried on an example of each. */
#include "wire_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static wire_buffer_t *buffer;
static msgpack_sbuffer changed;
static unsigned char expected[DECODED_BYTES], decoded[DECODED_BYTES];

static int setup(void **state)
{
    (void)state;
    msgpack_sbuffer_init(&changed);
    return wire_buffer_open(16, &buffer);
}

static int teardown(void **state)
{
    (void)state;
    wire_buffer_close(buffer);
    msgpack_sbuffer_destroy(&changed);
    return 0;
}

/* Encodes the example and decodes it into `expected`. */
static void encode(const example_t *example)
{
    example->encode(buffer);
    memset(expected, 0, sizeof expected);
    if (example->decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), expected) < 0)
        fail_msg("%s", error_text());
}

static int decode_changed(const example_t *example, const change_t *change)
{
    repack(wire_buffer_data(buffer), wire_buffer_bytes(buffer), change, &changed);
    memset(decoded, 0, sizeof decoded);
    return example->decode(changed.data, changed.size, decoded);
}

static void assert_still_read(const change_t *change)
{
    for (size_t i = 0; i < example_count; i++) {
        encode(&examples[i]);
        if (decode_changed(&examples[i], change) < 0)
            fail_msg("%s: %s", examples[i].name, error_text());
        assert_memory_equal(decoded, expected, sizeof decoded);
    }
}

static void assert_refused(const change_t *change, int code)
{
    for (size_t i = 0; i < example_count; i++) {
        encode(&examples[i]);
        assert_int_equal(decode_changed(&examples[i], change), code);
    }
}

/* ---- what is read all the same ---------------------------------------------------------------------------------------------------- */

static void pack_extra(msgpack_packer *to)
{
    msgpack_pack_str_with_body(to, "later", 5);
    msgpack_pack_array(to, 3);
    msgpack_pack_map(to, 1);
    msgpack_pack_int(to, 1);
    msgpack_pack_ext_with_body(to, "abcde", 5, 3);
    msgpack_pack_bin_with_body(to, "abc", 3);
    msgpack_pack_array(to, 0);
}

static void pack_key_that_is_no_text(msgpack_packer *to)
{
    msgpack_pack_map(to, 1);
    msgpack_pack_nil(to);
    msgpack_pack_true(to);
    msgpack_pack_double(to, 1);
}

static void unknown_keys_are_ignored(void **state)
{
    (void)state;
    assert_still_read(&(change_t){.extra = pack_extra});
    assert_still_read(&(change_t){.extra = pack_key_that_is_no_text});
}

static void keys_may_come_in_any_order(void **state)
{
    (void)state;
    assert_still_read(&(change_t){.reverse = true});
}

static void integers_floats_and_lengths_may_be_wider_than_needed(void **state)
{
    (void)state;
    assert_still_read(&(change_t){.wide = true});
}

static void encoding_twice_gives_the_same_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < example_count; i++) {
        unsigned char first[4096];
        examples[i].encode(buffer);
        size_t bytes = wire_buffer_bytes(buffer);
        assert_in_range(bytes, 1, sizeof first);
        memcpy(first, wire_buffer_data(buffer), bytes);
        examples[i].encode(buffer);
        assert_int_equal(wire_buffer_bytes(buffer), bytes);
        assert_memory_equal(first, wire_buffer_data(buffer), bytes);
    }
}

/* Subscribers out there rely on them: when this fails, the change was not meant, or it is a new optional key, or WIRE_VERSION goes up; then the files, which the
 * fuzzers start from too, are written anew (BARCAST_WRITE_FIXTURES=1). */
static void the_bytes_of_this_version_stay_as_they_are(void **state)
{
    (void)state;
    for (size_t i = 0; i < example_count; i++) {
        char path[512];
        unsigned char committed[4096];
        snprintf(path, sizeof path, BARCAST_SOURCE_DIR "/tests/fixtures/wire/%s.msgpack", examples[i].name);
        examples[i].encode(buffer);
        bool write = getenv("BARCAST_WRITE_FIXTURES");
        FILE *file = fopen(path, write ? "w" : "r");
        assert_non_null(file);
        if (write)
            assert_int_equal(fwrite(wire_buffer_data(buffer), wire_buffer_bytes(buffer), 1, file), 1);
        else
            assert_int_equal(fread(committed, 1, sizeof committed, file), wire_buffer_bytes(buffer));
        fclose(file);
        if (!write)
            assert_memory_equal(committed, wire_buffer_data(buffer), wire_buffer_bytes(buffer));
    }
}

/* ---- what is refused -------------------------------------------------------------------------------------------------------------- */

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < example_count; i++) {
        encode(&examples[i]);
        size_t bytes = wire_buffer_bytes(buffer);
        for (size_t length = 0; length < bytes; length++) {
            unsigned char *exact = malloc(length ? length : 1); /* so that a sanitizer sees a read beyond it */
            assert_non_null(exact);
            memcpy(exact, wire_buffer_data(buffer), length);
            assert_int_equal(examples[i].decode(exact, length, decoded), WIRE_ERR_MALFORMED);
            free(exact);
        }
    }
}

static void bytes_behind_the_message_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < example_count; i++) {
        unsigned char longer[4096];
        encode(&examples[i]);
        size_t bytes = wire_buffer_bytes(buffer);
        memcpy(longer, wire_buffer_data(buffer), bytes);
        longer[bytes] = 0;
        assert_int_equal(examples[i].decode(longer, bytes + 1, decoded), WIRE_ERR_MALFORMED);
    }
}

static void pack_two(msgpack_packer *to)
{
    msgpack_pack_int(to, WIRE_VERSION + 1);
}

static void pack_unknown_type(msgpack_packer *to)
{
    msgpack_pack_str_with_body(to, "rumour", 6);
}

static void another_version_is_refused_whatever_else_it_holds(void **state)
{
    (void)state;
    assert_refused(&(change_t){.replace = "v", .value = pack_two}, WIRE_ERR_VERSION);
    assert_string_equal(error_text(), "forecast: message of version 2, expected 1");
    assert_refused(&(change_t){.replace = "v", .value = pack_two, .extra = pack_extra, .reverse = true}, WIRE_ERR_VERSION);
}

static void another_type_is_refused(void **state)
{
    (void)state;
    assert_refused(&(change_t){.replace = "t", .value = pack_unknown_type}, WIRE_ERR_TYPE);
    assert_string_equal(error_text(), "forecast: unknown message type \"rumour\"");
    for (size_t i = 0; i < example_count; i++)
        for (size_t j = 0; j < example_count; j++) {
            encode(&examples[i]);
            if (i != j)
                assert_int_equal(examples[j].decode(wire_buffer_data(buffer), wire_buffer_bytes(buffer), decoded), WIRE_ERR_TYPE);
        }
}

static bool is_free(const example_t *example, const char *key)
{
    char word[WIRE_NAME_BYTES + 2];
    snprintf(word, sizeof word, " %s ", key);
    return strstr(example->free_keys, word);
}

static void try_without(const char *key, void *context)
{
    const example_t *example = context;
    int rc = decode_changed(example, &(change_t){.drop = key});
    if (is_free(example, key)) {
        assert_int_equal(rc, WIRE_OK);
        return;
    }
    char text[128];
    snprintf(text, sizeof text, "%s: %s: the key is missing", example->name, key);
    assert_int_equal(rc, WIRE_ERR_MALFORMED);
    if (strcmp(example->name, "bar") != 0 || strlen(key) == 1) /* a bar counts as rejected */
        assert_string_equal(error_text(), text);
}

static void try_twice(const char *key, void *context)
{
    const example_t *example = context;
    if (strlen(key) > 1 && strcmp(key, "step_ns") != 0 && strcmp(key, "latency_us") != 0)
        assert_int_equal(decode_changed(example, &(change_t){.twice = key}), WIRE_ERR_MALFORMED);
}

static void pack_map(msgpack_packer *to)
{
    msgpack_pack_map(to, 1);
    msgpack_pack_nil(to);
    msgpack_pack_nil(to);
}

static void try_with_another_type(const char *key, void *context)
{
    const example_t *example = context;
    static void (*const values[])(msgpack_packer *) = {pack_key_that_is_no_text, pack_unknown_type, pack_two, pack_map};
    bool refused = false;
    if (strcmp(key, "step_ns") == 0 || strcmp(key, "latency_us") == 0)
        return;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        refused |= decode_changed(example, &(change_t){.replace = key, .value = values[i]}) < 0;
    assert_true(refused);
    /* A number where there is text, and a map where there is anything but one of fields. */
    if (strcmp(key, "fields") != 0 && strcmp(key, "quantiles") != 0)
        assert_int_equal(decode_changed(example, &(change_t){.replace = key, .value = pack_map}), WIRE_ERR_MALFORMED);
}

static void on_every_key(void (*try_key)(const char *key, void *context))
{
    for (size_t i = 0; i < example_count; i++) {
        example_t example = examples[i];
        encode(&example);
        unsigned char copy[4096];
        size_t bytes = wire_buffer_bytes(buffer);
        memcpy(copy, wire_buffer_data(buffer), bytes);
        for_each_key(copy, bytes, try_key, &example);
    }
}

static void a_missing_key_is_refused_and_named(void **state)
{
    (void)state;
    on_every_key(try_without);
}

static void a_key_that_stands_twice_is_refused(void **state)
{
    (void)state;
    on_every_key(try_twice);
}

static void a_value_of_another_type_is_refused(void **state)
{
    (void)state;
    on_every_key(try_with_another_type);
}

static void claims_that_the_bytes_cannot_hold_are_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned char bytes[12];
        size_t count;
    } claims[] = {
        {{0xdd, 0xff, 0xff, 0xff, 0xff}, 5},                                    /* array of 2^32 - 1 */
        {{0xdf, 0xff, 0xff, 0xff, 0xff}, 5},                                    /* map of as many */
        {{0xdf, 0x80, 0x00, 0x00, 0x00, 0xa1, 'v', 0x01}, 8},                   /* twice the pairs overflow 32 bits */
        {{0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}, 6},                               /* text */
        {{0xc6, 0xff, 0xff, 0xff, 0xff}, 5},                                    /* bytes */
        {{0xc9, 0xff, 0xff, 0xff, 0xff, 0x01}, 6},                              /* extension */
        {{0x81, 0xdb, 0xff, 0xff, 0xff, 0xff}, 6},                              /* as a key */
        {{0x82, 0xa1, 'v', 0x01, 0xa1, 't', 0xdd, 0x7f, 0xff, 0xff, 0xff}, 11}, /* as a value */
        {{0xc1}, 1},                                                            /* never used */
        {{0x80}, 1},
        {{0x81, 0xa1, 'v', 0x01}, 4},
        {{0xc0}, 1},
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++)
        for (size_t j = 0; j < example_count; j++)
            assert_true(examples[j].decode(claims[i].bytes, claims[i].count, decoded) < 0);
}

static void deep_nesting_is_skipped_without_recursion(void **state)
{
    (void)state;
    enum { DEPTH = 4 << 20 };
    static const unsigned char start[] = {0x84, 0xa1, 'x'}, middle[] = {0xa1, 'v',  1,   0xa1, 't', 0xa5, 'd', 'r', 'a',  'i',
                                                                        'n',  0xa6, 's', 'e',  'n', 'd',  'e', 'r', 0xa1, 'a'};
    unsigned char *message = malloc(sizeof start + DEPTH + 1 + sizeof middle);
    assert_non_null(message);
    memcpy(message, start, sizeof start);
    memset(message + sizeof start, 0x91, DEPTH);
    message[sizeof start + DEPTH] = 0xc0;
    memcpy(message + sizeof start + DEPTH + 1, middle, sizeof middle);
    wire_drain_t drain;
    assert_int_equal(wire_drain_decode(message, sizeof start + DEPTH + 1 + sizeof middle, &drain), WIRE_OK);
    assert_string_equal(drain.sender, "a");
    size_t rejected;
    memset(message, 0x91, DEPTH); /* an array of an array of ... */
    assert_int_equal(wire_bars_decode(message, DEPTH, NULL, NULL, &rejected), WIRE_ERR_MALFORMED);
    free(message);
}

static void damaged_messages_are_read_or_refused_but_nothing_breaks(void **state)
{
    (void)state;
    uint64_t random = 1;
    size_t refused = 0, tried = 0;
    for (size_t i = 0; i < example_count; i++) {
        encode(&examples[i]);
        size_t bytes = wire_buffer_bytes(buffer);
        for (int round = 0; round < 20000; round++, tried++) {
            unsigned char damaged[4096];
            memcpy(damaged, wire_buffer_data(buffer), bytes);
            for (int hits = 1 + round % 3; hits > 0; hits--) {
                random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                damaged[(random >> 40) % bytes] = (unsigned char)(random >> 32);
            }
            refused += examples[i].decode(damaged, bytes, decoded) < 0;
        }
    }
    assert_in_range(refused, tried / 4, tried - 1);
}

/* ---- buffer ----------------------------------------------------------------------------------------------------------------------- */

static void a_failed_encoding_leaves_an_empty_buffer(void **state)
{
    (void)state;
    encode(&examples[0]);
    wire_drain_t drain;
    memset(&drain, 'x', sizeof drain);
    assert_int_equal(wire_drain_encode(buffer, &drain), WIRE_ERR_BOUNDS);
    assert_string_equal(error_text(), "drain: sender: text of 64 bytes or more, expected at most 63");
    assert_int_equal(wire_buffer_bytes(buffer), 0);
    wire_forecast_t forecast = *example_forecast();
    encode(&examples[0]);
    forecast.horizon = 0;
    assert_int_equal(wire_forecast_encode(buffer, &forecast), WIRE_ERR_BOUNDS);
    assert_int_equal(wire_buffer_bytes(buffer), 0);
}

static void closing_no_buffer_is_allowed(void **state)
{
    (void)state;
    wire_buffer_t *none = NULL;
    wire_buffer_close(none);
    assert_int_equal(wire_buffer_open((size_t)WIRE_MESSAGE_BYTES_MOST + 1, &none), WIRE_ERR_BOUNDS);
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_keys_are_ignored),
        cmocka_unit_test(keys_may_come_in_any_order),
        cmocka_unit_test(integers_floats_and_lengths_may_be_wider_than_needed),
        cmocka_unit_test(encoding_twice_gives_the_same_bytes),
        cmocka_unit_test(the_bytes_of_this_version_stay_as_they_are),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(bytes_behind_the_message_are_refused),
        cmocka_unit_test(another_version_is_refused_whatever_else_it_holds),
        cmocka_unit_test(another_type_is_refused),
        cmocka_unit_test(a_missing_key_is_refused_and_named),
        cmocka_unit_test(a_key_that_stands_twice_is_refused),
        cmocka_unit_test(a_value_of_another_type_is_refused),
        cmocka_unit_test(claims_that_the_bytes_cannot_hold_are_refused),
        cmocka_unit_test(deep_nesting_is_skipped_without_recursion),
        cmocka_unit_test(damaged_messages_are_read_or_refused_but_nothing_breaks),
        cmocka_unit_test(a_failed_encoding_leaves_an_empty_buffer),
        cmocka_unit_test(closing_no_buffer_is_allowed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
