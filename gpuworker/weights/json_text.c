#include "gpuworker/weights/json_text.h"

#include "base/error.h"
#include "gpuworker/weights/checkpoint.h"

#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *text; /* between the quotes, escapes as they stand */
    size_t count;
} json_key_t;

static int compare_keys(const void *left, const void *right)
{
    const json_key_t *a = left, *b = right;
    int order = memcmp(a->text, b->text, a->count < b->count ? a->count : b->count);
    return order ? order : (a->count > b->count) - (a->count < b->count);
}

/* Finds the keys of the top level in text that is known to be valid JSON: each string there that a colon follows. Stores the first
 * `most`, returns how many there are. */
static size_t find_keys(const char *text, size_t count, json_key_t *keys, size_t most)
{
    size_t found = 0;
    int depth = 0;
    json_key_t string = {0};
    for (size_t i = 0; i < count; i++) {
        switch (text[i]) {
        case '"':
            string = (json_key_t){text + i + 1, 0};
            for (i++; i < count && text[i] != '"'; i++)
                i += text[i] == '\\';
            string.count = (size_t)(text + i - string.text);
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            depth--;
            break;
        case ':':
            if (depth != 1)
                break;
            if (found < most)
                keys[found] = string;
            found++;
            break;
        }
    }
    return found;
}

/* json-c keeps the last of several equal keys and says nothing. */
static int refuse_duplicates(const char *text, size_t count, struct json_object *object)
{
    size_t found = find_keys(text, count, NULL, 0);
    if (found == (size_t)json_object_object_length(object))
        return CHECKPOINT_OK;
    json_key_t *keys = malloc(found * sizeof *keys);
    if (!keys)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for %zu JSON keys", found);
    find_keys(text, count, keys, found);
    qsort(keys, found, sizeof *keys, compare_keys);
    json_key_t twice = {"(spelt differently)", 19};
    for (size_t i = 1; i < found; i++)
        if (compare_keys(&keys[i - 1], &keys[i]) == 0)
            twice = keys[i];
    error_set(CHECKPOINT_ERR_FORMAT, "JSON: expected each key once, \"%.*s\" is there twice", (int)twice.count, twice.text);
    free(keys);
    return CHECKPOINT_ERR_FORMAT;
}

int json_text_parse(const char *text, size_t count, struct json_object **out)
{
    if (count > INT_MAX)
        return error_set(CHECKPOINT_ERR_FORMAT, "JSON of %zu bytes: expected at most %d", count, INT_MAX);
    struct json_tokener *tokener = json_tokener_new();
    if (!tokener)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for a JSON parser");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *object = json_tokener_parse_ex(tokener, text, (int)count);
    enum json_tokener_error fault = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    json_tokener_free(tokener);

    int rc = CHECKPOINT_OK;
    if (fault == json_tokener_continue)
        rc = error_set(CHECKPOINT_ERR_FORMAT, "JSON: expected more after byte %zu", count);
    else if (fault != json_tokener_success || end != count)
        rc = error_set(CHECKPOINT_ERR_FORMAT, "JSON: %s at byte %zu",
                       fault == json_tokener_success ? "expected nothing more" : json_tokener_error_desc(fault), end);
    else if (!json_object_is_type(object, json_type_object))
        rc =
            error_set(CHECKPOINT_ERR_FORMAT, "JSON: expected an object, found %s", json_type_to_name(json_object_get_type(object)));
    else
        rc = refuse_duplicates(text, count, object);
    if (rc < 0) {
        json_object_put(object);
        return rc;
    }
    *out = object;
    return CHECKPOINT_OK;
}
