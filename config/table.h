/* The table of keys: one row a key, and everything about the configuration follows from it (parsing, ranges, defaults, printing, the
 * sample, the words that errors offer). A new key is a member of config_t and a row in table.c. Internal to config/. */
#ifndef BARCAST_CONFIG_TABLE_H
#define BARCAST_CONFIG_TABLE_H

#include "config/config.h"

#include <stddef.h>

typedef enum {
    CONFIG_SECTION_INSTANCE,
    CONFIG_SECTION_SHM,
    CONFIG_SECTION_INGEST,
    CONFIG_SECTION_SCHEDULER,
    CONFIG_SECTION_WORKER,
    CONFIG_SECTION_PUBLISH,
    CONFIG_SECTION_FEED,
    CONFIG_SECTION_MODEL,
    CONFIG_SECTION_COUNT
} config_section_id_t;

typedef struct {
    const char *name;
    const char *doc;
    /* The [feed.NAME] and [model.NAME] kinds: where the count and the array lie in config_t, the size of an element (it begins with its
     * name) and of the array, and the name in the sample. The others occur once, most = 1, and their keys lie in config_t itself. */
    size_t count_offset, offset, stride;
    uint32_t most;
    const char *sample_name;
} config_section_t;

typedef enum {
    CONFIG_VALUE_NAME,     /* letters, digits, '-', '_', '.'                        char[] */
    CONFIG_VALUE_TEXT,     /*                                                       char[] */
    CONFIG_VALUE_PATH,     /* relative to the config file, but for `words`          char[] */
    CONFIG_VALUE_ENDPOINT, /* tcp://HOST:PORT or ipc://PATH                         char[] */
    CONFIG_VALUE_WORDS,    /* list without doubles of `words`, or patterns          char[], "a,b" */
    CONFIG_VALUE_WORD,     /* one of `words`                                        enum, the word's index */
    CONFIG_VALUE_BOOL,     /*                                                       bool */
    CONFIG_VALUE_U32,      /*                                                       uint32_t */
    CONFIG_VALUE_POWER,    /* power of two                                          uint32_t */
    CONFIG_VALUE_U64,      /*                                                       uint64_t */
    CONFIG_VALUE_NUMBER,   /*                                                       double */
    CONFIG_VALUE_DURATION, /* 500ms                                                 int64_t, ns */
    CONFIG_VALUE_SIZES,    /* ascending list                                        uint32_t[], count at count_offset */
    CONFIG_VALUE_LEVELS    /* ascending list within (least, most)                   double[], count at count_offset */
} config_value_type_t;

typedef struct {
    config_section_id_t section;
    const char *name;
    config_value_type_t type;
    const char *fallback; /* the default, as text; the value may be empty only when it is "" */
    const char *sample;   /* what the sample shows instead; NULL: the default */
    double least, most;
    const char *const *words; /* NULL-terminated */
    size_t offset, bytes;     /* in config_t, config_feed_t or config_model_t */
    size_t count_offset;
    const char *doc;
} config_key_t;

extern const config_section_t config_sections[CONFIG_SECTION_COUNT];
extern const config_key_t config_keys[];
extern const size_t config_key_count;

enum { CONFIG_KEYS_MOST = 96, CONFIG_SLOTS = CONFIG_SECTION_FEED + CONFIG_FEEDS_MOST + CONFIG_MODELS_MOST };

/* Where things stand in the file: one slot a section that can exist, line 0 for what was not given. */
typedef struct {
    const char *file;
    uint32_t section[CONFIG_SLOTS];
    uint32_t key[CONFIG_SLOTS][CONFIG_KEYS_MOST];
} config_lines_t;

uint32_t config_slot(config_section_id_t section, uint32_t index);

/* The struct that a section's keys lie in: config itself, or its feed or model `index`. */
void *config_section_base(config_t *config, config_section_id_t section, uint32_t index);

/* ---- values.c ---- */

enum { CONFIG_FORMAT_BYTES = 4096, CONFIG_LINE_BYTES_MOST = 199 };

/* Parses `text` into the key's place in `base`. `more`: a continuation line, which lengthens a list. On failure CONFIG_ERR_VALUE, and
 * error_text() begins with the value. `folder`: of the config file, put before relative paths; "" leaves them. */
int config_value_parse(const config_key_t *key, const char *text, bool more, const char *folder, void *base);
/* The value as text that parses to the same value; a list's items are separated by ", ". */
void config_value_format(const config_key_t *key, const void *base, char out[static CONFIG_FORMAT_BYTES]);
/* What is allowed, in words: "a whole number from 1 to 64". */
void config_value_describe(const config_key_t *key, char *out, size_t bytes);
bool config_value_is_list(const config_key_t *key);

/* ---- check.c ---- */

/* What no single key can tell: required sections and keys, and keys that contradict each other. May lower defaults to fit keys given. */
int config_check(config_t *config, const config_lines_t *lines);

#endif
