/* The configuration: an INI file, one table of keys (config.c) from which validation, defaults, `barcast config print`, `barcast config
 * check` and the documented sample file all come.
 *
 * Sections: [instance] [shm] [ingest] [scheduler] [worker] [publish], and one [feed.NAME] a feed, one [model.NAME] a model. An unknown
 * key, section or value, and a required one that is missing, is an error with file and line, and the nearest known word. Lines over 199 bytes
 * are errors too (inih would cut them): indented continuation lines lengthen a list value. A loaded config is read-only. */
#ifndef BARCAST_CONFIG_CONFIG_H
#define BARCAST_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CONFIG_TEXT_BYTES = 256,
    CONFIG_NAME_BYTES = 64,
    CONFIG_FEEDS_MOST = 32,
    CONFIG_MODELS_MOST = 16,
    CONFIG_QUANTILES_MOST = 99,
    CONFIG_BUCKETS_MOST = 16
};

enum {
    CONFIG_OK = 0,
    CONFIG_ERR_FILE = -1,
    CONFIG_ERR_SYNTAX = -2,
    CONFIG_ERR_KEY = -3,
    CONFIG_ERR_VALUE = -4,
    CONFIG_ERR_MISSING = -5
};

typedef enum { CONFIG_GAP_MARK, CONFIG_GAP_FILL } config_gap_t;
typedef enum { CONFIG_FEED_CSV, CONFIG_FEED_NDJSON, CONFIG_FEED_ZMQ } config_feed_type_t;
typedef enum { CONFIG_DUE_CLOSE, CONFIG_DUE_EVERY, CONFIG_DUE_TIMER } config_due_t;
typedef enum { CONFIG_DEVICE_AUTO, CONFIG_DEVICE_CPU, CONFIG_DEVICE_CUDA } config_device_t;
typedef enum { CONFIG_PRECISION_AUTO, CONFIG_PRECISION_FP32, CONFIG_PRECISION_BF16 } config_precision_t;

typedef struct {
    char name[CONFIG_NAME_BYTES]; /* [feed.NAME] */
    config_feed_type_t type;
    char path[CONFIG_TEXT_BYTES];          /* csv: file or directory; ndjson: file or "-"; relative to the config file */
    char endpoint[CONFIG_TEXT_BYTES];      /* zmq: what the PULL socket binds */
    char symbol[CONFIG_NAME_BYTES];        /* when the data has no symbol column; empty: the file's name without its ending */
    char symbol_suffix[CONFIG_NAME_BYTES]; /* taken off the file's name, e.g. "_daily" */
    int64_t interval_ns;                   /* bar length; 0: inferred from the data (the most frequent step) */
    uint32_t history_bars;                 /* a symbol's first bars, stored before the replay starts */
    uint32_t bars_max;                     /* stop after that many bars a symbol; 0: all */
    double speed;                          /* replay: 1 real time, N times, 0 flat out */
    double bars_per_second; /* replay instead at this many time steps a second, whatever the interval; 0: use speed */
} config_feed_t;

typedef struct {
    char name[CONFIG_NAME_BYTES];    /* [model.NAME]: the name in topics */
    char path[CONFIG_TEXT_BYTES];    /* checkpoint directory, relative to the config file; "naive", "default": built in */
    char symbols[CONFIG_TEXT_BYTES]; /* patterns of the symbols it forecasts: "BTC-USD,ETH*", no blanks */
    char fields
        [CONFIG_TEXT_BYTES]; /* bar fields fed in as variates, the target first: "close,volume", no blanks or doubles; empty: the model's own */
    char companions[CONFIG_TEXT_BYTES]; /* symbols whose targets are further variates of every series: "SPY,QQQ" */
    char cycles[CONFIG_TEXT_BYTES];     /* calendar cycles as variates known of the future: "day,week" */
    char timezone[CONFIG_TEXT_BYTES], days[CONFIG_TEXT_BYTES],
        hours[CONFIG_TEXT_BYTES]; /* of the market, see base/calendar.h; empty: always open */
    uint32_t context;             /* bars; rounded up to the model's patch */
    uint32_t context_min;         /* a symbol is forecast once it has that many closed bars */
    uint32_t horizon;             /* bars */
    uint32_t samples;             /* paths; 0: the mean, and quantiles where the model has them without */
    bool publish_samples;
    /* What some families leave open; 0: the official default, see model_options_t. */
    bool rescale;
    double temperature, top_p, cap;
    uint32_t top_k, window, decode_block, minimum_observed;
    uint64_t seed;
    uint32_t quantile_count;
    double quantiles[CONFIG_QUANTILES_MOST];
    uint32_t bucket_count;
    uint32_t buckets[CONFIG_BUCKETS_MOST]; /* batch sizes to open, ascending */
    config_precision_t precision;
} config_model_t;

typedef struct {
    char file[CONFIG_TEXT_BYTES];
    struct {
        char name[CONFIG_NAME_BYTES];
        char runtime_dir[CONFIG_TEXT_BYTES]; /* for ipc sockets; empty: config_runtime_dir decides */
    } instance;
    struct {
        uint32_t symbols_max, ring_bars, log_entries;
        char group[CONFIG_NAME_BYTES]; /* group that may read the segment; empty: none */
    } shm;
    struct {
        config_gap_t gap;
        uint32_t gap_fill_max; /* longest gap, in bars, that is filled; a longer one is marked */
    } ingest;
    struct {
        char endpoint[CONFIG_TEXT_BYTES]; /* empty: ipc in the runtime dir */
        config_due_t due;
        uint32_t due_every;          /* bars, for due = every */
        int64_t due_timer_ns;        /* for due = timer */
        int64_t heartbeat_ns;        /* interval */
        uint32_t heartbeat_liveness; /* missed intervals after which a peer is dead */
        int64_t deadline_ns;         /* a batch not done by then goes to another worker */
        uint32_t credits;            /* batches a worker holds at most */
        uint32_t batch_max;          /* series a batch holds at most */
        int64_t linger_ns;           /* how long to wait for more due symbols before a batch is sent */
        uint32_t quarantine_after;   /* consecutive failures of one symbol */
        int64_t quarantine_ns;       /* how long it is then left out */
    } scheduler;
    struct {
        uint32_t count; /* 0: as many as there are devices, see instance_plan_workers in tools/ */
        config_device_t device;
        uint32_t device_first; /* worker i uses GPU (device_first + i) % GPUs */
        uint32_t threads;      /* CPU threads of one worker */
        bool graphs;
    } worker;
    struct {
        char endpoint[CONFIG_TEXT_BYTES]; /* of worker 0; empty: ipc in the runtime dir. tcp://HOST:PORT: worker i uses PORT + i */
        uint32_t high_water_mark;         /* messages a slow subscriber may lag before drops */
    } publish;
    uint32_t feed_count, model_count;
    config_feed_t feeds[CONFIG_FEEDS_MOST];
    config_model_t models[CONFIG_MODELS_MOST];
} config_t;

/* Reads and validates. *out is allocated; config_free it. On error error_text() is "FILE:LINE: what, expected what (did you mean x?)". */
int config_load(const char *file, config_t **out);
/* The same from text in memory; `name` stands for the file in messages and relative paths stay as they are. */
int config_parse(const char *text, const char *name, config_t **out);
void config_free(config_t *config);

/* Every key with its default and its documentation, as a valid file (the sample); or one loaded configuration with its values in force. */
void config_print_sample(FILE *to);
void config_print(const config_t *config, FILE *to);

/* Derived names. All write NUL-terminated text of at most CONFIG_TEXT_BYTES; CONFIG_ERR_VALUE when it does not fit. */

/* instance.runtime_dir, else $XDG_RUNTIME_DIR/barcast/NAME, else /tmp/barcast-UID/NAME. Nothing is created. */
int config_runtime_dir(const config_t *config, char out[static CONFIG_TEXT_BYTES]);
/* As given, else ipc://RUNTIME_DIR/scheduler. A unix socket's path of more than 107 bytes is CONFIG_ERR_VALUE, here and below. */
int config_scheduler_endpoint(const config_t *config, char out[static CONFIG_TEXT_BYTES]);
/* Of worker I: as given with PORT + I or, for I > 0, PATH.I; else ipc://RUNTIME_DIR/publish.I. */
int config_publish_endpoint(const config_t *config, uint32_t worker, char out[static CONFIG_TEXT_BYTES]);

#endif
