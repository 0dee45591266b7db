#include "ingest/ndjson.h"

#include "base/error.h"
#include "ingest/columns.h"

#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MOST = 64, KEY_BYTES = 32, DEPTH_MOST = 8 };

/* The lines of a file have the same keys in the same order: what key number i meant in the line before is looked at first. */
typedef struct {
    char text[KEY_BYTES];
    int column, rank;
} known_key_t;

struct ndjson {
    struct json_tokener *tokener;
    known_key_t keys[KEYS_MOST];
};

ndjson_t *ndjson_open(void)
{
    ndjson_t *parser = calloc(1, sizeof *parser);
    if (!parser)
        return NULL;
    parser->tokener = json_tokener_new_ex(DEPTH_MOST);
    if (!parser->tokener) {
        free(parser);
        return NULL;
    }
    for (int i = 0; i < KEYS_MOST; i++)
        parser->keys[i].column = COLUMN_NONE;
    return parser;
}

void ndjson_close(ndjson_t *parser)
{
    if (!parser)
        return;
    json_tokener_free(parser->tokener);
    free(parser);
}

static int match_key(ndjson_t *parser, size_t place, const char *text, int *rank)
{
    size_t length = strlen(text);
    if (place >= KEYS_MOST || length >= KEY_BYTES)
        return column_match(text, length, rank);
    known_key_t *key = &parser->keys[place];
    if (strcmp(key->text, text) != 0) {
        key->column = column_match(text, length, &key->rank);
        memcpy(key->text, text, length + 1);
    }
    *rank = key->rank;
    return key->column;
}

/* The value's text; for numbers json-c keeps the digits as they stood in the line. */
static cell_t value_cell(struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_string:
        return (cell_t){json_object_get_string(value), (size_t)json_object_get_string_len(value)};
    case json_type_int:
    case json_type_double: {
        size_t length;
        const char *text = json_object_to_json_string_length(value, JSON_C_TO_STRING_PLAIN, &length);
        return (cell_t){text, length};
    }
    default:
        return (cell_t){"", 0}; /* null is an empty cell; an object or a list is no better */
    }
}

static int read_object(ndjson_t *parser, struct json_object *object, source_bar_t *out)
{
    cell_t cells[COLUMN_COUNT] = {{NULL, 0}};
    int ranks[COLUMN_COUNT];
    for (int column = 0; column < COLUMN_COUNT; column++)
        ranks[column] = INT_MAX;
    size_t place = 0;
    json_object_object_foreach(object, key, value)
    {
        int rank, column = match_key(parser, place++, key, &rank);
        if (column == COLUMN_NONE || rank >= ranks[column])
            continue;
        ranks[column] = rank;
        cells[column] = value_cell(value);
    }
    return columns_to_bar(cells, out);
}

int ndjson_row_parse(ndjson_t *parser, const char *line, size_t length, source_bar_t *out)
{
    if (length > NDJSON_LINE_BYTES_MOST)
        return error_set(SOURCE_BAD, "a line of more than %d bytes", NDJSON_LINE_BYTES_MOST);
    json_tokener_reset(parser->tokener);
    struct json_object *object = json_tokener_parse_ex(parser->tokener, line, (int)length);
    size_t used = json_tokener_get_parse_end(parser->tokener);
    int rc;
    if (!object)
        rc = error_set(SOURCE_BAD, "not a JSON object: %s", json_tokener_error_desc(json_tokener_get_error(parser->tokener)));
    else if (!json_object_is_type(object, json_type_object))
        rc = error_set(SOURCE_BAD, "a JSON %s where an object was expected", json_type_to_name(json_object_get_type(object)));
    else if (!columns_blank(line + used, length - used))
        rc = error_set(SOURCE_BAD, "something follows the JSON object");
    else
        rc = read_object(parser, object, out);
    json_object_put(object);
    return rc;
}
