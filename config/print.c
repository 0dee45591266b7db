#include "config/table.h"

#include <string.h>

enum { WIDTH = 100 };

/* Text broken at blanks into lines of at most WIDTH; the first goes on after `used` columns, the others begin with `start`. A word
 * longer than that gets a line of its own. */
static void print_wrapped(FILE *to, const char *text, size_t used, const char *start)
{
    while (*text) {
        size_t length = strcspn(text, " ");
        if (used + 1 + length > WIDTH && used > strlen(start)) {
            fprintf(to, "\n%s", start);
            used = strlen(start);
        } else if (used > strlen(start)) {
            fputc(' ', to);
            used++;
        }
        fwrite(text, 1, length, to);
        used += length;
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

static void print_comment(FILE *to, const char *text)
{
    fputs("# ", to);
    print_wrapped(to, text, 2, "# ");
}

static void print_value(FILE *to, const config_key_t *key, const char *value)
{
    if (config_value_is_list(key)) {
        int used = fprintf(to, "%s =", key->name);
        print_wrapped(to, value, (size_t)used, "    ");
        return;
    }
    /* Behind a blank, a semicolon would begin a comment; and the longest lines have no room for blanks. */
    bool tight = *value == ';' || strlen(key->name) + 3 + strlen(value) > CONFIG_LINE_BYTES_MOST;
    fprintf(to, tight ? "%s=%s\n" : *value ? "%s = %s\n" : "%s =%s\n", key->name, value);
}

static void print_title(FILE *to, config_section_id_t id, const char *name)
{
    fprintf(to, "%s[%s%s%s]\n", id ? "\n" : "", config_sections[id].name, *name ? "." : "", name);
}

/* The key's documentation, and in a line of its own what the table says: "(a whole number from 1 to 4096; default 64)". */
static void print_key_comment(FILE *to, const config_key_t *key)
{
    char described[512], comment[1024];
    config_value_describe(key, described, sizeof described);
    snprintf(comment, sizeof comment, "(%s; default %s)", described, *key->fallback ? key->fallback : "empty");
    print_comment(to, key->doc);
    print_comment(to, comment);
}

void config_print_sample(FILE *to)
{
    print_comment(
        to,
        "Barcast's configuration: every key, its meaning and its default. A file of your own needs only a [feed.NAME], a "
        "[model.NAME] "
        "and what differs from the defaults. Comments begin with # or ; in the first column, or with ; after a blank. A line has "
        "at most 199 bytes; lists may go on in indented lines. Relative paths start at this file's folder.");
    fputc('\n', to);
    for (uint32_t id = 0; id < CONFIG_SECTION_COUNT; id++) {
        const config_section_t *section = &config_sections[id];
        print_title(to, (config_section_id_t)id, section->sample_name ? section->sample_name : "");
        print_comment(to, section->doc);
        for (size_t i = 0; i < config_key_count; i++) {
            const config_key_t *key = &config_keys[i];
            if (key->section != id)
                continue;
            fputc('\n', to);
            print_key_comment(to, key);
            print_value(to, key, key->sample ? key->sample : key->fallback);
        }
    }
}

void config_print(const config_t *config, FILE *to)
{
    for (uint32_t id = 0; id < CONFIG_SECTION_COUNT; id++) {
        const config_section_t *section = &config_sections[id];
        uint32_t count = section->stride ? *(const uint32_t *)(const void *)((const char *)config + section->count_offset) : 1;
        for (uint32_t index = 0; index < count; index++) {
            const char *base = (const char *)config + section->offset + index * section->stride;
            print_title(to, (config_section_id_t)id, section->stride ? base : "");
            for (size_t i = 0; i < config_key_count; i++) {
                char value[CONFIG_FORMAT_BYTES];
                if (config_keys[i].section != id)
                    continue;
                config_value_format(&config_keys[i], base, value);
                print_value(to, &config_keys[i], value);
            }
        }
    }
}
