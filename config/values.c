#include "base/error.h"
#include "base/text.h"
#include "config/table.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(config_gap_t) == sizeof(unsigned) && sizeof(config_precision_t) == sizeof(unsigned),
              "CONFIG_VALUE_WORD stores any enum as an unsigned");

static const char SEPARATORS[] = ", \t";

/* Longest unit first: the order in which a duration is formatted. */
static const struct {
    const char *name;
    int64_t ns;
} units[] = {{"d", INT64_C(86400000000000)},
             {"h", INT64_C(3600000000000)},
             {"m", INT64_C(60000000000)},
             {"s", 1000000000},
             {"ms", 1000000},
             {"us", 1000},
             {"ns", 1}};

static void *at(const config_key_t *key, void *base)
{
    return (char *)base + key->offset;
}

static size_t word_count(const char *const *words)
{
    size_t count = 0;
    while (words && words[count])
        count++;
    return count;
}

static size_t word_index(const char *const *words, const char *word)
{
    size_t index = 0;
    while (words && words[index] && strcmp(words[index], word) != 0)
        index++;
    return index;
}

/* Says what `text` should have been. `why` is put after the value: "is too long", or "" for simply not what is expected. */
static int refuse(const config_key_t *key, const char *text, const char *why)
{
    char expected[512];
    config_value_describe(key, expected, sizeof expected);
    const char *nearest = key->words ? text_nearest(text, key->words, word_count(key->words)) : NULL;
    return error_set(CONFIG_ERR_VALUE, "\"%s\"%s%s, expected %s%s%s%s", text, *why ? " " : "", why, expected,
                     nearest ? " (did you mean " : "", nearest ? nearest : "", nearest ? "?)" : "");
}

/* ---- durations -------------------------------------------------------------------------------------------------------------------- */

static bool parse_duration(const char *text, int64_t *out)
{
    if (strcmp(text, "0") == 0) { /* the one number that needs no unit */
        *out = 0;
        return true;
    }
    char digits[24];
    size_t length = strspn(text, "0123456789");
    if (length == 0 || length >= sizeof digits)
        return false;
    memcpy(digits, text, length);
    digits[length] = '\0';
    int64_t count;
    if (!text_to_i64(digits, &count))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(units[i].name, text + length) == 0)
            return !__builtin_mul_overflow(count, units[i].ns, out);
    return false;
}

static void format_duration(int64_t ns, char *out, size_t bytes)
{
    if (ns == 0) {
        snprintf(out, bytes, "0");
        return;
    }
    size_t unit = 0;
    while (ns % units[unit].ns != 0)
        unit++;
    snprintf(out, bytes, "%lld%s", (long long)(ns / units[unit].ns), units[unit].name);
}

/* Shortest decimal text that reads back as the same double. */
static void format_number(double value, char *out, size_t bytes)
{
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(out, bytes, "%.*g", precision, value);
        if (strtod(out, NULL) == value)
            return;
    }
}

/* ---- text ------------------------------------------------------------------------------------------------------------------------- */

static int store_text(const config_key_t *key, const char *text, const char *value, char *out)
{
    if (strlen(value) >= key->bytes)
        return refuse(key, text, "is too long");
    memmove(out, value, strlen(value) + 1);
    return CONFIG_OK;
}

static int parse_name(const config_key_t *key, const char *text, char *out)
{
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
            return refuse(key, text, "");
    return store_text(key, text, text, out);
}

static int parse_path(const config_key_t *key, const char *text, const char *folder, char *out)
{
    char joined[2 * CONFIG_TEXT_BYTES + 2];
    bool whole = !*text || *text == '/' || !*folder || (key->words && key->words[word_index(key->words, text)]);
    snprintf(joined, sizeof joined, "%s%s%s", whole ? "" : folder, whole ? "" : "/", text);
    return store_text(key, text, joined, out);
}

static bool is_endpoint(const char *text)
{
    if (strncmp(text, "ipc://", 6) == 0)
        return text[6] != '\0';
    const char *colon = strrchr(text, ':');
    int64_t port;
    return strncmp(text, "tcp://", 6) == 0 && colon > text + 6 && text_to_i64(colon + 1, &port) && port >= 1 && port <= 65535;
}

static int parse_endpoint(const config_key_t *key, const char *text, char *out)
{
    if (*text && !is_endpoint(text))
        return refuse(key, text, "");
    return store_text(key, text, text, out);
}

static int parse_word(const config_key_t *key, const char *text, void *out)
{
    unsigned index = (unsigned)word_index(key->words, text);
    if (!key->words[index])
        return refuse(key, text, "");
    memcpy(out, &index, sizeof index);
    return CONFIG_OK;
}

static int parse_bool(const config_key_t *key, const char *text, bool *out)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "0", "1", NULL};
    size_t index = word_index(words, text);
    if (!words[index])
        return refuse(key, text, "");
    *out = index % 2;
    return CONFIG_OK;
}

/* ---- numbers ---------------------------------------------------------------------------------------------------------------------- */

static int parse_integer(const config_key_t *key, const char *text, uint64_t *out)
{
    int64_t value;
    if (!text_to_i64(text, &value) || (double)value < key->least || (double)value > key->most)
        return refuse(key, text, "");
    if (key->type == CONFIG_VALUE_POWER && (value & (value - 1)) != 0)
        return refuse(key, text, "");
    *out = (uint64_t)value;
    return CONFIG_OK;
}

static int parse_u32(const config_key_t *key, const char *text, uint32_t *out)
{
    uint64_t value;
    int rc = parse_integer(key, text, &value);
    if (rc == CONFIG_OK)
        *out = (uint32_t)value;
    return rc;
}

static int parse_number(const config_key_t *key, const char *text, double *out)
{
    double value;
    if (!text_to_f64(text, &value) || !(value >= key->least && value <= key->most))
        return refuse(key, text, "");
    *out = value;
    return CONFIG_OK;
}

static int parse_duration_in_range(const config_key_t *key, const char *text, int64_t *out)
{
    int64_t ns;
    if (!parse_duration(text, &ns) || (double)ns < key->least || (double)ns > key->most)
        return refuse(key, text, "");
    *out = ns;
    return CONFIG_OK;
}

/* ---- lists: each takes one item and appends it ------------------------------------------------------------------------------------ */

static int append_word(const config_key_t *key, const char *word, void *base)
{
    char *list = at(key, base);
    if (key->words && !key->words[word_index(key->words, word)])
        return refuse(key, word, "");
    size_t length = strlen(word);
    for (const char *item = list; *item; item += strcspn(item, ","), item += *item == ',')
        if (strcspn(item, ",") == length && strncmp(item, word, length) == 0)
            return error_set(CONFIG_ERR_VALUE, "\"%s\" stands twice in the list", word);
    size_t used = strlen(list);
    if (used + length + 2 > key->bytes)
        return error_set(CONFIG_ERR_VALUE, "\"%s\" makes the list longer than %zu bytes", word, key->bytes - 1);
    snprintf(list + used, key->bytes - used, "%s%s", used ? "," : "", word);
    return CONFIG_OK;
}

static int append_number(const config_key_t *key, const char *word, void *base)
{
    bool levels = key->type == CONFIG_VALUE_LEVELS;
    uint32_t *count = (uint32_t *)(void *)((char *)base + key->count_offset);
    uint32_t *sizes = at(key, base);
    double *values = at(key, base);
    double value;
    if (!text_to_f64(word, &value) || !(value >= key->least && value <= key->most))
        return refuse(key, word, "");
    if (levels ? value == key->least || value == key->most : value != floor(value))
        return refuse(key, word, "");
    if (*count > 0 && value <= (levels ? values[*count - 1] : sizes[*count - 1]))
        return error_set(CONFIG_ERR_VALUE, "\"%s\" is not above the value before it, expected an ascending list", word);
    size_t most = key->bytes / (levels ? sizeof *values : sizeof *sizes);
    if (*count == most)
        return error_set(CONFIG_ERR_VALUE, "\"%s\" is one more than the %zu values that the list may have", word, most);
    if (levels)
        values[*count] = value;
    else
        sizes[*count] = (uint32_t)value;
    ++*count;
    return CONFIG_OK;
}

static int parse_list(const config_key_t *key, const char *text, bool more, void *base)
{
    bool words = key->type == CONFIG_VALUE_WORDS;
    if (!more) {
        memset(at(key, base), 0, key->bytes);
        if (!words)
            memset((char *)base + key->count_offset, 0, sizeof(uint32_t));
    }
    const char *item = text + strspn(text, SEPARATORS);
    while (*item && *item != ';') { /* inih leaves a comment behind a continuation line */
        char word[CONFIG_LINE_BYTES_MOST + 1];
        size_t length = strcspn(item, SEPARATORS);
        if (length >= sizeof word)
            return refuse(key, item, "is too long");
        memcpy(word, item, length);
        word[length] = '\0';
        int rc = words ? append_word(key, word, base) : append_number(key, word, base);
        if (rc < 0)
            return rc;
        item += length;
        item += strspn(item, SEPARATORS);
    }
    return CONFIG_OK;
}

bool config_value_is_list(const config_key_t *key)
{
    return key->type == CONFIG_VALUE_WORDS || key->type == CONFIG_VALUE_SIZES || key->type == CONFIG_VALUE_LEVELS;
}

int config_value_parse(const config_key_t *key, const char *text, bool more, const char *folder, void *base)
{
    if (!*text && *key->fallback && !config_value_is_list(key)) /* a list may begin in the next line */
        return refuse(key, text, "");
    switch (key->type) {
    case CONFIG_VALUE_NAME:
        return parse_name(key, text, at(key, base));
    case CONFIG_VALUE_TEXT:
        return store_text(key, text, text, at(key, base));
    case CONFIG_VALUE_PATH:
        return parse_path(key, text, folder, at(key, base));
    case CONFIG_VALUE_ENDPOINT:
        return parse_endpoint(key, text, at(key, base));
    case CONFIG_VALUE_WORD:
        return parse_word(key, text, at(key, base));
    case CONFIG_VALUE_BOOL:
        return parse_bool(key, text, at(key, base));
    case CONFIG_VALUE_U32:
    case CONFIG_VALUE_POWER:
        return parse_u32(key, text, at(key, base));
    case CONFIG_VALUE_U64:
        return parse_integer(key, text, at(key, base));
    case CONFIG_VALUE_NUMBER:
        return parse_number(key, text, at(key, base));
    case CONFIG_VALUE_DURATION:
        return parse_duration_in_range(key, text, at(key, base));
    case CONFIG_VALUE_WORDS:
    case CONFIG_VALUE_SIZES:
    case CONFIG_VALUE_LEVELS:
        return parse_list(key, text, more, base);
    }
    return refuse(key, text, "");
}

/* ---- back to text ----------------------------------------------------------------------------------------------------------------- */

static void format_list(const config_key_t *key, const void *base, char out[static CONFIG_FORMAT_BYTES])
{
    const void *value = (const char *)base + key->offset;
    size_t used = 0;
    *out = '\0';
    if (key->type == CONFIG_VALUE_WORDS) {
        for (const char *c = value; *c; c++)
            used += (size_t)snprintf(out + used, CONFIG_FORMAT_BYTES - used, *c == ',' ? "%c " : "%c", *c);
        return;
    }
    const uint32_t *count = (const void *)((const char *)base + key->count_offset);
    for (uint32_t i = 0; i < *count; i++) {
        char number[32];
        format_number(key->type == CONFIG_VALUE_LEVELS ? ((const double *)value)[i] : ((const uint32_t *)value)[i], number,
                      sizeof number);
        used += (size_t)snprintf(out + used, CONFIG_FORMAT_BYTES - used, "%s%s", i ? ", " : "", number);
    }
}

void config_value_format(const config_key_t *key, const void *base, char out[static CONFIG_FORMAT_BYTES])
{
    const void *value = (const char *)base + key->offset;
    unsigned index;
    switch (key->type) {
    case CONFIG_VALUE_NAME:
    case CONFIG_VALUE_TEXT:
    case CONFIG_VALUE_PATH:
    case CONFIG_VALUE_ENDPOINT:
        snprintf(out, CONFIG_FORMAT_BYTES, "%s", (const char *)value);
        return;
    case CONFIG_VALUE_WORD:
        memcpy(&index, value, sizeof index);
        snprintf(out, CONFIG_FORMAT_BYTES, "%s", key->words[index]);
        return;
    case CONFIG_VALUE_BOOL:
        snprintf(out, CONFIG_FORMAT_BYTES, "%s", *(const bool *)value ? "on" : "off");
        return;
    case CONFIG_VALUE_U32:
    case CONFIG_VALUE_POWER:
        snprintf(out, CONFIG_FORMAT_BYTES, "%u", *(const uint32_t *)value);
        return;
    case CONFIG_VALUE_U64:
        snprintf(out, CONFIG_FORMAT_BYTES, "%llu", (unsigned long long)*(const uint64_t *)value);
        return;
    case CONFIG_VALUE_NUMBER:
        format_number(*(const double *)value, out, CONFIG_FORMAT_BYTES);
        return;
    case CONFIG_VALUE_DURATION:
        format_duration(*(const int64_t *)value, out, CONFIG_FORMAT_BYTES);
        return;
    case CONFIG_VALUE_WORDS:
    case CONFIG_VALUE_SIZES:
    case CONFIG_VALUE_LEVELS:
        format_list(key, base, out);
        return;
    }
}

static void join_words(const char *const *words, char *out, size_t bytes)
{
    *out = '\0';
    for (size_t i = 0; words && words[i]; i++) {
        size_t used = strlen(out);
        snprintf(out + used, bytes - used, "%s%s", i ? ", " : "", words[i]);
    }
}

void config_value_describe(const config_key_t *key, char *out, size_t bytes)
{
    char least[32], most[32], words[256];
    join_words(key->words, words, sizeof words);
    if (key->type == CONFIG_VALUE_DURATION) {
        format_duration((int64_t)key->least, least, sizeof least);
        format_duration((int64_t)key->most, most, sizeof most);
    } else if (key->type == CONFIG_VALUE_NUMBER || key->type == CONFIG_VALUE_LEVELS) {
        snprintf(least, sizeof least, "%g", key->least);
        snprintf(most, sizeof most, "%g", key->most);
    } else {
        snprintf(least, sizeof least, "%.0f", key->least);
        snprintf(most, sizeof most, "%.0f", key->most);
    }
    switch (key->type) {
    case CONFIG_VALUE_NAME:
        snprintf(out, bytes, "at most %zu letters, digits, '-', '_', '.'", key->bytes - 1);
        return;
    case CONFIG_VALUE_TEXT:
        snprintf(out, bytes, "at most %zu characters", key->bytes - 1);
        return;
    case CONFIG_VALUE_PATH:
        snprintf(out, bytes, "a path of at most %zu bytes%s%s", key->bytes - 1, *words ? ", or " : "", words);
        return;
    case CONFIG_VALUE_ENDPOINT:
        snprintf(out, bytes, "tcp://HOST:PORT or ipc://PATH");
        return;
    case CONFIG_VALUE_WORDS:
        snprintf(out, bytes, *words ? "a list of %s" : "a list of names or patterns with * and ?%s", words);
        return;
    case CONFIG_VALUE_WORD:
        snprintf(out, bytes, "one of %s", words);
        return;
    case CONFIG_VALUE_BOOL:
        snprintf(out, bytes, "on or off");
        return;
    case CONFIG_VALUE_U32:
    case CONFIG_VALUE_U64:
        snprintf(out, bytes, "a whole number from %s to %s", least, most);
        return;
    case CONFIG_VALUE_POWER:
        snprintf(out, bytes, "a power of two from %s to %s", least, most);
        return;
    case CONFIG_VALUE_NUMBER:
        snprintf(out, bytes, "a number from %s to %s", least, most);
        return;
    case CONFIG_VALUE_DURATION:
        snprintf(out, bytes, "a time such as 500ms, 5s, 1m, 1h or 1d, from %s to %s", least, most);
        return;
    case CONFIG_VALUE_SIZES:
        snprintf(out, bytes, "an ascending list of whole numbers from %s to %s", least, most);
        return;
    case CONFIG_VALUE_LEVELS:
        snprintf(out, bytes, "an ascending list of numbers above %s and below %s", least, most);
        return;
    }
}
