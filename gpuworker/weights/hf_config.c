#include "base/error.h"
#include "gpuworker/weights/checkpoint_impl.h"
#include "gpuworker/weights/json_text.h"

#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int hf_config_open(checkpoint_t *checkpoint)
{
    char *path;
    if (asprintf(&path, "%s/config.json", checkpoint->path) < 0)
        return error_set(CHECKPOINT_ERR_MEMORY, "no memory for a path");
    file_map_t map = {0};
    int rc = file_map_open(path, &map);
    if (rc < 0)
        goto cleanup;
    rc = json_text_parse(map.bytes, map.count, &checkpoint->config);
    if (rc < 0) {
        error_add(rc, "%s", path);
        goto cleanup;
    }
    checkpoint->config_json = strndup(map.bytes, map.count);
    if (!checkpoint->config_json)
        rc = error_set(CHECKPOINT_ERR_MEMORY, "%s: no memory for %zu bytes", path, map.count);

cleanup:
    file_map_close(&map);
    free(path);
    return rc;
}

void hf_config_close(checkpoint_t *checkpoint)
{
    json_object_put(checkpoint->config);
    free(checkpoint->config_json);
}

/* The value at "a.b.c", borrowed; NULL where there is none or it is null. */
static struct json_object *look_up(const checkpoint_t *checkpoint, const char *key)
{
    struct json_object *at = checkpoint->config;
    while (at && *key) {
        char name[128];
        size_t count = strcspn(key, ".");
        snprintf(name, sizeof name, "%.*s", (int)count, key);
        if (!json_object_is_type(at, json_type_object) || !json_object_object_get_ex(at, name, &at))
            return NULL;
        key += count + (key[count] == '.');
    }
    return at;
}

static int complain(const checkpoint_t *checkpoint, const char *key, const char *expected)
{
    /* A copy, because json-c keeps the text of what it prints in the object itself, and other threads may read that one. */
    struct json_object *copy = NULL;
    struct json_object *value = look_up(checkpoint, key);
    bool copied = value && json_object_deep_copy(value, &copy, NULL) == 0;
    int rc = error_set(CHECKPOINT_ERR_CONFIG, "%s/config.json: key \"%s\": expected %s, found %.80s", checkpoint->path, key,
                       expected, copied ? json_object_to_json_string_ext(copy, JSON_C_TO_STRING_PLAIN) : "none");
    json_object_put(copy);
    return rc;
}

static bool as_f64(struct json_object *value, double *out)
{
    if (!json_object_is_type(value, json_type_int) && !json_object_is_type(value, json_type_double))
        return false;
    double number = json_object_get_double(value);
    if (!isfinite(number))
        return false;
    *out = number;
    return true;
}

int checkpoint_config_i64(const checkpoint_t *checkpoint, const char *key, int64_t least, int64_t most, int64_t *out)
{
    struct json_object *value = look_up(checkpoint, key);
    int64_t number = json_object_get_int64(value);
    if (!json_object_is_type(value, json_type_int) || number < least || number > most) {
        char expected[96];
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)least, (long long)most);
        return complain(checkpoint, key, expected);
    }
    *out = number;
    return CHECKPOINT_OK;
}

int checkpoint_config_f64(const checkpoint_t *checkpoint, const char *key, double *out)
{
    return as_f64(look_up(checkpoint, key), out) ? CHECKPOINT_OK : complain(checkpoint, key, "a finite number");
}

int checkpoint_config_bool(const checkpoint_t *checkpoint, const char *key, bool *out)
{
    struct json_object *value = look_up(checkpoint, key);
    if (!json_object_is_type(value, json_type_boolean))
        return complain(checkpoint, key, "true or false");
    *out = json_object_get_boolean(value);
    return CHECKPOINT_OK;
}

int checkpoint_config_text(const checkpoint_t *checkpoint, const char *key, const char **out)
{
    struct json_object *value = look_up(checkpoint, key);
    if (!json_object_is_type(value, json_type_string))
        return complain(checkpoint, key, "a string");
    *out = json_object_get_string(value);
    return CHECKPOINT_OK;
}

bool checkpoint_config_has(const checkpoint_t *checkpoint, const char *key)
{
    return look_up(checkpoint, key) != NULL;
}

/* The array at `key`, whose elements must all pass `accept`; CHECKPOINT_ERR_CONFIG otherwise. */
static int look_up_array(const checkpoint_t *checkpoint, const char *key, size_t most, bool (*accept)(struct json_object *),
                         const char *what, struct json_object **out)
{
    struct json_object *array = look_up(checkpoint, key);
    bool fits = json_object_is_type(array, json_type_array) && json_object_array_length(array) <= most;
    for (size_t i = 0; fits && i < json_object_array_length(array); i++)
        fits = accept(json_object_array_get_idx(array, i));
    if (!fits) {
        char expected[96];
        snprintf(expected, sizeof expected, "an array of at most %zu %s", most, what);
        return complain(checkpoint, key, expected);
    }
    *out = array;
    return CHECKPOINT_OK;
}

static bool accept_number(struct json_object *value)
{
    return as_f64(value, &(double){0});
}

static bool accept_text(struct json_object *value)
{
    return json_object_is_type(value, json_type_string);
}

int checkpoint_config_numbers(const checkpoint_t *checkpoint, const char *key, double *out, size_t most, size_t *count)
{
    struct json_object *array;
    int rc = look_up_array(checkpoint, key, most, accept_number, "finite numbers", &array);
    if (rc < 0)
        return rc;
    *count = json_object_array_length(array);
    for (size_t i = 0; i < *count; i++)
        out[i] = json_object_get_double(json_object_array_get_idx(array, i));
    return CHECKPOINT_OK;
}

int checkpoint_config_texts(const checkpoint_t *checkpoint, const char *key, const char **out, size_t most, size_t *count)
{
    struct json_object *array;
    int rc = look_up_array(checkpoint, key, most, accept_text, "strings", &array);
    if (rc < 0)
        return rc;
    *count = json_object_array_length(array);
    for (size_t i = 0; i < *count; i++)
        out[i] = json_object_get_string(json_object_array_get_idx(array, i));
    return CHECKPOINT_OK;
}
