/* What checkpoint.c and hf_config.c share. */
#ifndef BARCAST_GPUWORKER_WEIGHTS_CHECKPOINT_IMPL_H
#define BARCAST_GPUWORKER_WEIGHTS_CHECKPOINT_IMPL_H

#include "gpuworker/weights/checkpoint.h"
#include "gpuworker/weights/file_map.h"
#include "gpuworker/weights/safetensors.h"

typedef struct {
    char *path;
    file_map_t map;
    safetensors_t safetensors;
} shard_t;

struct checkpoint {
    char *path; /* as given to open */
    shard_t *shards;
    size_t shard_count;
    checkpoint_tensor_t *tensors; /* of all shards, in name order */
    size_t count;
    char *config_json;          /* NULL: a bare file */
    struct json_object *config; /* likewise */
    char revision[17];
};

/* Reads DIR/config.json into config_json and config. */
int hf_config_open(checkpoint_t *checkpoint);
void hf_config_close(checkpoint_t *checkpoint);

#endif
