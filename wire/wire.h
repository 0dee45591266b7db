/* Barcast's messages: MessagePack maps, one schema version, an encoder and a bounded decoder for each. wire/README.md is the page for
 * people who write a subscriber or a feed in another language.
 *
 * Encoders fill a wire_buffer_t, each replacing what the one before it wrote (grown once, reused: no allocation in steady state); after a
 * failure it is empty. Decoders reject what is malformed, of another version, or over the bounds below, with a text in error_text() that
 * names the key; they ignore keys they do not know. What they return is copied out of the message; none but the forecast's scratch
 * memory is allocated. No function blocks; a buffer belongs to one thread. */
#ifndef BARCAST_WIRE_WIRE_H
#define BARCAST_WIRE_WIRE_H

#include "shm/bar.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION 1

enum {
    WIRE_NAME_BYTES = 64, /* worker ids, model names, endpoints' text is WIRE_TEXT_BYTES */
    WIRE_SYMBOL_BYTES = 32,
    WIRE_TEXT_BYTES = 256,
    WIRE_SESSIONS_MOST = 64,
    WIRE_ITEMS_MOST = 4096,
    WIRE_QUANTILES_MOST = 99,
    WIRE_HORIZON_MOST = 16384,
    WIRE_SAMPLES_MOST = 4096,
    WIRE_FIELDS_MOST = 6,
    WIRE_BARS_MOST = 65536, /* in one message */
    WIRE_KEYS_MOST = 256,   /* of one map, unknown ones included */
    WIRE_MESSAGE_BYTES_MOST = 64 << 20
};

enum {
    WIRE_OK = 0,
    WIRE_ERR_MALFORMED = -1, /* no MessagePack, cut short, a key missing or twice, a value of another type */
    WIRE_ERR_VERSION = -2,   /* another schema version */
    WIRE_ERR_BOUNDS = -3,    /* a length, count or number out of bounds, when decoded or before it is encoded */
    WIRE_ERR_MEMORY = -4,
    WIRE_ERR_TYPE = -5 /* a message of another type, or of none that is known */
};

typedef struct wire_buffer wire_buffer_t;
int wire_buffer_open(size_t bytes, wire_buffer_t **out);
void wire_buffer_close(wire_buffer_t *buffer);
const void *wire_buffer_data(const wire_buffer_t *buffer);
size_t wire_buffer_bytes(const wire_buffer_t *buffer);

typedef enum {
    WIRE_HELLO = 1, /* worker -> scheduler: I exist, models are loading */
    WIRE_READY,     /* worker -> scheduler: all sessions are open, this is what I can run */
    WIRE_ASSIGN,    /* scheduler -> worker: forecast these */
    WIRE_DONE,      /* worker -> scheduler: that batch is finished */
    WIRE_HEARTBEAT, /* both ways */
    WIRE_DRAIN,     /* scheduler -> worker: finish what you hold, then exit; worker -> scheduler: I am leaving */
    WIRE_BAR,       /* program -> ingest */
    WIRE_FORECAST   /* worker -> subscribers */
} wire_type_t;

/* The type of a message, version checked; an array is WIRE_BAR. Negative code when it is none of ours. The rest is not looked at. */
int wire_peek(const void *data, size_t bytes, wire_type_t *type);

typedef struct {
    char worker[WIRE_NAME_BYTES]; /* unique in the instance, kept over restarts: "worker.0" */
    uint32_t pid;
    char device[WIRE_NAME_BYTES];
    char publish_endpoint[WIRE_TEXT_BYTES];
} wire_hello_t;

typedef struct {
    char model[WIRE_NAME_BYTES]; /* the model's name in the config */
    uint32_t batch;              /* series that one run forecasts at most */
    int64_t run_ns;              /* measured duration of one full run */
} wire_session_t;

typedef struct {
    char worker[WIRE_NAME_BYTES];
    uint32_t pid;
    uint32_t credits; /* batches it is willing to hold */
    uint32_t session_count;
    wire_session_t sessions[WIRE_SESSIONS_MOST];
} wire_ready_t;

typedef struct {
    uint32_t symbol_id;
    uint64_t end;      /* forecast from the window of bars [.., end): end is a count of closed bars of that ring */
    int64_t stored_ns; /* clock_monotonic_ns when bar end - 1 was stored */
} wire_item_t;

typedef struct {
    uint64_t batch_id;
    uint64_t epoch; /* of the segment that the symbol ids belong to */
    char model[WIRE_NAME_BYTES];
    int64_t sent_ns;
    uint32_t count;
    wire_item_t *items; /* encode: caller's. decode: `items` must point to room for WIRE_ITEMS_MOST */
} wire_assign_t;

typedef enum {
    WIRE_ITEM_OK = 0,
    WIRE_ITEM_TOO_SHORT = 1, /* not enough history for the model */
    WIRE_ITEM_OVERRUN = 2,   /* the window was lapped: a newer one is due anyway */
    WIRE_ITEM_FAILED = 3,    /* the model refused it or gave no finite forecast */
    WIRE_ITEM_STALE = 4      /* other epoch, unknown symbol */
} wire_item_status_t;

typedef struct {
    uint64_t batch_id;
    char worker[WIRE_NAME_BYTES];
    int64_t compute_ns;
    uint32_t count;
    uint8_t *status; /* wire_item_status_t a series, in ASSIGN's order; decode: room for WIRE_ITEMS_MOST */
} wire_done_t;

typedef struct {
    char sender[WIRE_NAME_BYTES];
    uint64_t batch_id;   /* worker: the batch it is computing, 0 when idle */
    uint32_t ready;      /* worker: 1 after READY, so that a restarted scheduler asks for READY again */
    int64_t interval_ns; /* how often the sender beats */
} wire_heartbeat_t;

typedef struct {
    char sender[WIRE_NAME_BYTES];
} wire_drain_t;

/* A bar for the zmq feed; several may be sent in one message as an array of such maps. Times are ns since the epoch. */
typedef struct {
    char symbol[WIRE_SYMBOL_BYTES];
    int64_t interval_ns; /* 0: the feed's configured one */
    shm_bar_t bar;       /* flags: only SHM_BAR_IN_PROGRESS is taken from outside */
} wire_bar_t;

/* One field's forecast; arrays are borrowed: [horizon], [quantile_count][horizon], [sample_count][horizon]. */
typedef struct {
    char field[WIRE_NAME_BYTES]; /* "close" */
    const float *mean;           /* NULL: the model gives none */
    const float *quantiles;
    const float *samples; /* NULL: not published */
} wire_field_t;

/* The published forecast. Topic frame: "forecast.<model>.<symbol>" and one NUL byte, which ends it: a
 * subscription to AAPL with its NUL does not match AAPLW, nor does BRK match BRK.B. */
typedef struct {
    char symbol[WIRE_SYMBOL_BYTES];
    char model[WIRE_NAME_BYTES];          /* name in the config */
    char model_revision[WIRE_NAME_BYTES]; /* of the weights */
    int64_t interval_ns;
    int64_t cutoff_ns;  /* open time of the last bar used */
    int64_t start_ns;   /* open time of the first bar forecast */
    int64_t created_ns; /* clock_realtime_ns */
    uint64_t bar_index; /* of the cutoff bar in its ring */
    uint64_t seq;       /* counts the messages of this topic from this worker */
    uint64_t seed;
    uint32_t horizon, context, sample_count, quantile_count;
    double quantile_levels[WIRE_QUANTILES_MOST]; /* ascending */
    uint32_t field_count;                        /* the first is the target */
    wire_field_t fields[WIRE_FIELDS_MOST];
    const int64_t *times_ns; /* [horizon] open times of the bars forecast, ascending; NULL: interval_ns apart from start_ns on */
    double last;             /* the cutoff bar's value of the target: what a naive forecast says */
    int64_t stored_ns, assigned_ns, computed_ns, published_ns; /* clock_monotonic_ns of the stages */
    char worker[WIRE_NAME_BYTES];
} wire_forecast_t;

int wire_hello_encode(wire_buffer_t *to, const wire_hello_t *message);
int wire_hello_decode(const void *data, size_t bytes, wire_hello_t *out);
int wire_ready_encode(wire_buffer_t *to, const wire_ready_t *message);
int wire_ready_decode(const void *data, size_t bytes, wire_ready_t *out);
int wire_assign_encode(wire_buffer_t *to, const wire_assign_t *message);
int wire_assign_decode(const void *data, size_t bytes, wire_assign_t *out);
int wire_done_encode(wire_buffer_t *to, const wire_done_t *message);
int wire_done_decode(const void *data, size_t bytes, wire_done_t *out);
int wire_heartbeat_encode(wire_buffer_t *to, const wire_heartbeat_t *message);
int wire_heartbeat_decode(const void *data, size_t bytes, wire_heartbeat_t *out);
int wire_drain_encode(wire_buffer_t *to, const wire_drain_t *message);
int wire_drain_decode(const void *data, size_t bytes, wire_drain_t *out);
int wire_bars_encode(wire_buffer_t *to, const wire_bar_t *bars, size_t count);
/* Decodes one bar map or an array of them; calls `each` for every well-formed bar and counts the others in *rejected (error_text() has
 * the last reason). Negative code only when the message as a whole is no bar message: then nothing was handed on. */
int wire_bars_decode(const void *data, size_t bytes, void (*each)(void *context, const wire_bar_t *bar), void *context,
                     size_t *rejected);

int wire_forecast_encode(wire_buffer_t *to, const wire_forecast_t *message);
/* The arrays of *out point into `scratch`, which the caller keeps and passes again: grown as needed, at most to the bounds above. */
typedef struct {
    float *values;
    size_t capacity;
    int64_t *times; /* [WIRE_HORIZON_MOST] once there was need */
} wire_scratch_t;
int wire_forecast_decode(const void *data, size_t bytes, wire_forecast_t *out, wire_scratch_t *scratch);
void wire_scratch_free(wire_scratch_t *scratch);

/* Writes the topic frame into `out`; the number of bytes, or WIRE_ERR_BOUNDS. `symbol` NULL: the prefix of all symbols of the model. */
int wire_topic(const char *model, const char *symbol, char out[static WIRE_TEXT_BYTES]);

const char *wire_type_name(wire_type_t type);

#endif
