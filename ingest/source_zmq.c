#include "ingest/source_kind.h"

#include "base/error.h"
#include "wire/wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

/* A message of WIRE_BARS_MOST bars passes. A full socket holds the senders up, which is theirs to notice. */
enum { MESSAGE_BYTES_MOST = 8 << 20, MESSAGES_WAITING_MOST = 256 };

typedef struct {
    source_t base;
    char name[CONFIG_NAME_BYTES];
    int64_t interval_ns;
    void *context, *socket;
    int descriptor;
    source_bar_t *bars; /* of the newest message */
    size_t count, capacity, handed;
    size_t rejected; /* bars of that message that were none, not told about yet */
    char reason[ERROR_TEXT_BYTES];
} source_zmq_t;

static void keep_bar(void *context, const wire_bar_t *received)
{
    source_zmq_t *source = context;
    if (source->count == source->capacity) {
        size_t capacity = source->capacity ? source->capacity * 2 : 64;
        source_bar_t *bars = realloc(source->bars, capacity * sizeof *bars);
        if (!bars) {
            source->rejected++;
            error_set(SOURCE_BAD, "out of memory");
            return;
        }
        source->bars = bars;
        source->capacity = capacity;
    }
    source_bar_t *kept = &source->bars[source->count++];
    *kept =
        (source_bar_t){.interval_ns = received->interval_ns ? received->interval_ns : source->interval_ns, .bar = received->bar};
    memcpy(kept->symbol, received->symbol, sizeof kept->symbol);
}

/* Takes one message off the socket and its bars into the list. */
static int receive(source_zmq_t *source)
{
    zmq_msg_t message;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, source->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&message);
        if (zmq_errno() == EAGAIN || zmq_errno() == EINTR)
            return SOURCE_WAIT;
        return error_set(SOURCE_ERR_BROKEN, "feed %s: %s", source->name, zmq_strerror(zmq_errno()));
    }
    size_t rejected = 0;
    source->count = source->handed = 0;
    int rc = wire_bars_decode(zmq_msg_data(&message), zmq_msg_size(&message), keep_bar, source, &rejected);
    zmq_msg_close(&message);
    source->rejected += rc == WIRE_OK ? rejected : 1;
    if (source->rejected > 0)
        strcpy(source->reason, error_text());
    return SOURCE_OK;
}

static int zmq_source_next(source_t *base, source_bar_t *out)
{
    source_zmq_t *source = (source_zmq_t *)base;
    for (;;) {
        if (source->rejected > 0) {
            source->rejected--;
            return error_set(SOURCE_BAD, "feed %s: %s", source->name, source->reason);
        }
        if (source->handed < source->count) {
            *out = source->bars[source->handed++];
            return SOURCE_OK;
        }
        int rc = receive(source);
        if (rc != SOURCE_OK)
            return rc;
    }
}

static int zmq_source_descriptor(const source_t *base)
{
    return ((const source_zmq_t *)base)->descriptor;
}

static void zmq_source_close(source_t *base)
{
    source_zmq_t *source = (source_zmq_t *)base;
    if (source->socket)
        zmq_close(source->socket);
    if (source->context)
        zmq_ctx_term(source->context);
    free(source->bars);
    free(source);
}

static bool set_option(void *socket, int option, const void *value, size_t bytes)
{
    return zmq_setsockopt(socket, option, value, bytes) == 0;
}

static bool open_socket(source_zmq_t *source, const char *endpoint)
{
    const int linger = 0, waiting = MESSAGES_WAITING_MOST;
    const int64_t bytes = MESSAGE_BYTES_MOST;
    size_t size = sizeof source->descriptor;
    source->context = zmq_ctx_new();
    source->socket = source->context ? zmq_socket(source->context, ZMQ_PULL) : NULL;
    return source->socket && set_option(source->socket, ZMQ_LINGER, &linger, sizeof linger) &&
           set_option(source->socket, ZMQ_RCVHWM, &waiting, sizeof waiting) &&
           set_option(source->socket, ZMQ_MAXMSGSIZE, &bytes, sizeof bytes) &&
           zmq_getsockopt(source->socket, ZMQ_FD, &source->descriptor, &size) == 0 && zmq_bind(source->socket, endpoint) == 0;
}

int source_zmq_open(const config_feed_t *feed, source_t **out)
{
    static const source_kind_t kind = {zmq_source_next, zmq_source_descriptor, zmq_source_close};
    source_zmq_t *source = calloc(1, sizeof *source);
    if (!source)
        return error_set(SOURCE_ERR_OPEN, "out of memory");
    source->base.kind = &kind;
    source->interval_ns = feed->interval_ns;
    strcpy(source->name, feed->name);
    if (!open_socket(source, feed->endpoint)) {
        int rc = error_set(SOURCE_ERR_OPEN, "%s: cannot bind: %s", feed->endpoint, zmq_strerror(zmq_errno()));
        zmq_source_close(&source->base);
        return rc;
    }
    *out = &source->base;
    return SOURCE_OK;
}
