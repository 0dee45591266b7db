/* JSON text to a json-c tree, strictly: what config.json, the shard index and safetensors headers share. */
#ifndef BARCAST_GPUWORKER_WEIGHTS_JSON_TEXT_H
#define BARCAST_GPUWORKER_WEIGHTS_JSON_TEXT_H

#include <stddef.h>

struct json_object;

/* Parses text[count], which must be one JSON object in UTF-8 with no key of its top level twice, and nothing but blanks after it;
 * CHECKPOINT_ERR_FORMAT otherwise. The caller owns *out (json_object_put). */
int json_text_parse(const char *text, size_t count, struct json_object **out);

#endif
