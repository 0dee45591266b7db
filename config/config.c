#include "config/config.h"

#include "base/error.h"
#include "base/text.h"
#include "config/table.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* inih splits "key = value", strips comments and blanks, and joins continuation lines. What it would not tell is seen to here, where
 * it reads its lines: sections (it reports only those with keys, cut at 50 bytes), long lines (cut at 200), doubles. */
enum { FILE_BYTES_MOST = 1 << 20, SECTION_BYTES_MOST = 49 };

typedef struct {
    const char *rest;   /* text not read yet */
    const char *folder; /* of the file, "" to leave relative paths */
    config_t *config;
    config_lines_t lines;
    uint32_t line;
    bool indented;   /* the current line begins with a blank: a continuation where inih still knows a key */
    bool in_section; /* section and index are set */
    config_section_id_t section;
    uint32_t index;
    int rc; /* the first error, after which nothing more is read */
} parser_t;

__attribute__((format(printf, 3, 4))) static void fail(parser_t *parser, int code, const char *format, ...)
{
    char text[ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    parser->rc = error_set(code, "%s:%u: %s", parser->lines.file, parser->line, text);
}

/* fail for a word that no candidate matches. */
static void fail_unknown(parser_t *parser, const char *what, const char *word, const char *const *candidates, size_t count)
{
    const char *nearest = text_nearest(word, candidates, count);
    fail(parser, CONFIG_ERR_KEY, "unknown %s \"%s\"%s%s%s", what, word, nearest ? " (did you mean " : "", nearest ? nearest : "",
         nearest ? "?)" : "");
}

/* ---- sections --------------------------------------------------------------------------------------------------------------------- */

static void set_defaults(config_section_id_t section, void *base)
{
    for (size_t i = 0; i < config_key_count; i++)
        if (config_keys[i].section == section)
            config_value_parse(&config_keys[i], config_keys[i].fallback, false, "", base); /* a test parses every default */
}

static void fail_unknown_section(parser_t *parser, const char *word)
{
    const char *names[CONFIG_SECTION_COUNT];
    for (size_t i = 0; i < CONFIG_SECTION_COUNT; i++)
        names[i] = config_sections[i].name;
    fail_unknown(parser, "section", word, names, CONFIG_SECTION_COUNT);
}

/* The element of [feed.NAME] or [model.NAME]: makes it, with its defaults. */
static bool add_named(parser_t *parser, const config_section_t *section, const char *name)
{
    size_t length = strlen(name);
    uint32_t *count = (uint32_t *)(void *)((char *)parser->config + section->count_offset);
    if (length == 0 || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != length) {
        fail(parser, CONFIG_ERR_SYNTAX, "section [%s.%s] needs a name of letters, digits, '-' and '_'", section->name, name);
        return false;
    }
    for (parser->index = 0; parser->index < *count; parser->index++)
        if (strcmp(config_section_base(parser->config, parser->section, parser->index), name) == 0)
            return true;
    if (*count == section->most) {
        fail(parser, CONFIG_ERR_SYNTAX, "section [%s.%s] is one more than the %u that there may be", section->name, name,
             section->most);
        return false;
    }
    char *element = config_section_base(parser->config, parser->section, parser->index);
    memcpy(element, name, length + 1);
    set_defaults(parser->section, element);
    ++*count;
    return true;
}

static void enter_section(parser_t *parser, char *title)
{
    char *dot = strchr(title, '.');
    parser->in_section = false;
    if (dot)
        *dot = '\0';
    uint32_t id = 0;
    while (id < CONFIG_SECTION_COUNT && strcmp(config_sections[id].name, title) != 0)
        id++;
    if (id == CONFIG_SECTION_COUNT) {
        fail_unknown_section(parser, title);
        return;
    }
    const config_section_t *section = &config_sections[id];
    parser->section = (config_section_id_t)id;
    parser->index = 0;
    if (!section->stride && dot) {
        fail(parser, CONFIG_ERR_SYNTAX, "section [%s] takes no name", title);
        return;
    }
    if (section->stride && !add_named(parser, section, dot ? dot + 1 : ""))
        return;
    uint32_t *line = &parser->lines.section[config_slot(parser->section, parser->index)];
    if (*line) {
        fail(parser, CONFIG_ERR_KEY, "section [%s%s%s] stands twice, first at line %u", title, dot ? "." : "", dot ? dot + 1 : "",
             *line);
        return;
    }
    *line = parser->line;
    parser->in_section = true;
}

/* A line that begins with '['. */
static void read_section_line(parser_t *parser, const char *line)
{
    char title[SECTION_BYTES_MOST + 1];
    size_t length = strcspn(line + 1, "]");
    const char *after = line + 1 + length;
    if (*after == ']') {
        after += 1;
        after += strspn(after, " \t\r");
    } else {
        after = "]";
    }
    if (*after && !strchr(";#", *after))
        fail(parser, CONFIG_ERR_SYNTAX, "expected a section as [name] and nothing behind it");
    else if (length > SECTION_BYTES_MOST)
        fail(parser, CONFIG_ERR_SYNTAX, "the section's name is longer than %d bytes", SECTION_BYTES_MOST);
    else {
        memcpy(title, line + 1, length);
        title[length] = '\0';
        enter_section(parser, title);
    }
}

/* ---- what inih calls -------------------------------------------------------------------------------------------------------------- */

/* ini_reader: hands out the next line without its end, NULL at the end of the text and after an error. */
static char *read_line(char *out, int bytes, void *stream)
{
    parser_t *parser = stream;
    if (parser->rc < 0 || !*parser->rest)
        return NULL;
    size_t length = strcspn(parser->rest, "\n");
    parser->line++;
    if (length > CONFIG_LINE_BYTES_MOST || length >= (size_t)bytes) {
        fail(parser, CONFIG_ERR_SYNTAX, "the line has %zu bytes, at most %d are read; a list may go on in indented lines", length,
             CONFIG_LINE_BYTES_MOST);
        return NULL;
    }
    memcpy(out, parser->rest, length);
    out[length] = '\0';
    parser->rest += length + (parser->rest[length] == '\n');
    parser->indented = isspace((unsigned char)out[0]);
    if (out[0] == '[')
        read_section_line(parser, out);
    else if (parser->indented && out[strspn(out, " \t\r")] == '[')
        fail(parser, CONFIG_ERR_SYNTAX, "a section begins in the first column");
    return parser->rc < 0 ? NULL : out;
}

static const config_key_t *find_key(parser_t *parser, const char *name)
{
    const char *names[CONFIG_KEYS_MOST];
    size_t count = 0;
    for (size_t i = 0; i < config_key_count; i++) {
        if (config_keys[i].section != parser->section)
            continue;
        if (strcmp(config_keys[i].name, name) == 0)
            return &config_keys[i];
        names[count++] = config_keys[i].name;
    }
    char what[64];
    snprintf(what, sizeof what, "key in [%s]:", config_sections[parser->section].name);
    fail_unknown(parser, what, name, names, count);
    return NULL;
}

/* ini_handler: 0 after an error. */
static int take_value(void *user, const char *section, const char *name, const char *value)
{
    (void)section; /* known from its line */
    parser_t *parser = user;
    if (parser->rc < 0)
        return 0;
    if (!parser->in_section) {
        fail(parser, CONFIG_ERR_SYNTAX, "key \"%s\" stands before any [section]", name);
        return 0;
    }
    const config_key_t *key = find_key(parser, name);
    if (!key)
        return 0;
    uint32_t *line = &parser->lines.key[config_slot(parser->section, parser->index)][key - config_keys];
    bool more = parser->indented && *line;
    if (more && !config_value_is_list(key)) {
        fail(parser, CONFIG_ERR_SYNTAX,
             "an indented line goes on with \"%s\", but only lists have several lines; expected a key in the first column", name);
        return 0;
    }
    if (*line && !more) {
        fail(parser, CONFIG_ERR_KEY, "key \"%s\" stands twice, first at line %u", name, *line);
        return 0;
    }
    if (!more)
        *line = parser->line;
    void *base = config_section_base(parser->config, parser->section, parser->index);
    int rc = config_value_parse(key, value, more, parser->folder, base);
    if (rc < 0)
        parser->rc = error_add(rc, "%s:%u: %s", parser->lines.file, parser->line, name);
    return parser->rc == CONFIG_OK;
}

/* ---- from outside ----------------------------------------------------------------------------------------------------------------- */

static int parse(const char *text, const char *name, const char *folder, config_t **out)
{
    int rc = CONFIG_ERR_FILE;
    parser_t *parser = calloc(1, sizeof *parser);
    config_t *config = calloc(1, sizeof *config);
    if (!parser || !config) {
        error_set(rc, "%s: no memory", name);
        goto cleanup;
    }
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        text += 3;
    *parser = (parser_t){.rest = text, .folder = folder, .config = config, .lines.file = name};
    snprintf(config->file, sizeof config->file, "%s", name);
    for (uint32_t id = 0; id < CONFIG_SECTION_FEED; id++)
        set_defaults((config_section_id_t)id, config);

    int bad_line = ini_parse_stream(read_line, parser, take_value, parser);
    rc = parser->rc;
    if (bad_line > 0 && (rc == CONFIG_OK || (uint32_t)bad_line < parser->line)) {
        parser->line = (uint32_t)bad_line;
        fail(parser, CONFIG_ERR_SYNTAX, "expected key = value, [section] or a comment");
        rc = parser->rc;
    }
    if (rc == CONFIG_OK)
        rc = config_check(config, &parser->lines);
    if (rc == CONFIG_OK) {
        *out = config;
        config = NULL;
    }
cleanup:
    free(config);
    free(parser);
    return rc;
}

int config_parse(const char *text, const char *name, config_t **out)
{
    return parse(text, name, "", out);
}

static int read_file(const char *file, char **out)
{
    int rc = CONFIG_ERR_FILE;
    char *text = malloc(FILE_BYTES_MOST + 1);
    FILE *from = fopen(file, "re");
    if (!from || !text) {
        error_set(rc, "%s: cannot open: %s", file, strerror(errno));
        goto cleanup;
    }
    size_t bytes = fread(text, 1, FILE_BYTES_MOST + 1, from);
    if (ferror(from))
        error_set(rc, "%s: cannot read: %s", file, strerror(errno));
    else if (bytes > FILE_BYTES_MOST)
        error_set(rc, "%s: is larger than %d bytes, expected a configuration", file, FILE_BYTES_MOST);
    else if (memchr(text, '\0', bytes))
        error_set(rc, "%s: holds a zero byte, expected text", file);
    else {
        text[bytes] = '\0';
        *out = text;
        text = NULL;
        rc = CONFIG_OK;
    }
cleanup:
    if (from)
        fclose(from);
    free(text);
    return rc;
}

int config_load(const char *file, config_t **out)
{
    char folder[CONFIG_TEXT_BYTES] = "";
    const char *slash = strrchr(file, '/');
    if (strlen(file) >= sizeof folder)
        return error_set(CONFIG_ERR_FILE, "%s: the path is longer than %zu bytes", file, sizeof folder - 1);
    if (slash)
        memcpy(folder, file, slash == file ? 1 : (size_t)(slash - file));

    char *text = NULL;
    int rc = read_file(file, &text);
    if (rc == CONFIG_OK)
        rc = parse(text, file, folder, out);
    free(text);
    return rc;
}

void config_free(config_t *config)
{
    free(config);
}
