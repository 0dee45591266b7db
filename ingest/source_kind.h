/* What a kind of source provides behind source.h; only source.c and the kinds include it. Each kind's struct starts with a
 * `source_t`. */
#ifndef BARCAST_INGEST_SOURCE_KIND_H
#define BARCAST_INGEST_SOURCE_KIND_H

#include "ingest/source.h"

typedef struct {
    int (*next)(source_t *source, source_bar_t *out);
    int (*descriptor)(const source_t *source);
    void (*close)(source_t *source);
} source_kind_t;

struct source {
    const source_kind_t *kind;
};

/* CSV files (one, or a directory's *.csv) and NDJSON files, mapped into memory: finite, merged by open time. source_file.c */
int source_file_open(const config_feed_t *feed, source_t **out);

/* NDJSON from standard input: live, in the order of its lines. source_stdin.c */
int source_stdin_open(const config_feed_t *feed, source_t **out);

/* A ZeroMQ PULL socket of wire.h's bar messages: live, never ends. source_zmq.c */
int source_zmq_open(const config_feed_t *feed, source_t **out);

#endif
