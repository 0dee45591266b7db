#include "gpuworker/publisher.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { LINGER_MS = 1000, ENCODED_BYTES = 64 << 10, SUBSCRIPTION_BYTES_MOST = 1024 };

typedef struct {
    uint64_t seq; /* 0: nothing was published, the messages are not initialised */
    zmq_msg_t topic, body;
} last_value_t;

struct publisher {
    void *socket;
    shm_counters_t *counters;
    wire_buffer_t *encoded;
    uint32_t model_count, symbols_most;
    uint32_t symbols_used; /* last values exist only below this symbol id */
    last_value_t *last;    /* [symbols_most][model_count] */
};

static bool set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

int publisher_open(void *zmq, const char *endpoint, uint32_t high_water_mark, uint32_t model_count, shm_counters_t *counters,
                   publisher_t **out)
{
    publisher_t *publisher = calloc(1, sizeof *publisher);
    if (!publisher)
        return error_set(PUBLISHER_ERR_MEMORY, "out of memory");
    int rc;
    publisher->counters = counters;
    publisher->model_count = model_count;
    if (wire_buffer_open(ENCODED_BYTES, &publisher->encoded) < 0) {
        rc = PUBLISHER_ERR_MEMORY;
        goto fail;
    }
    int64_t incoming_most = SUBSCRIPTION_BYTES_MOST;
    publisher->socket = zmq_socket(zmq, ZMQ_XPUB);
    if (!publisher->socket || !set_option(publisher->socket, ZMQ_SNDHWM, (int)high_water_mark) ||
        !set_option(publisher->socket, ZMQ_LINGER, LINGER_MS) || !set_option(publisher->socket, ZMQ_XPUB_VERBOSE, 1) ||
        !set_option(publisher->socket, ZMQ_XPUB_NODROP, 1) ||
        zmq_setsockopt(publisher->socket, ZMQ_MAXMSGSIZE, &incoming_most, sizeof incoming_most) ||
        zmq_bind(publisher->socket, endpoint)) {
        rc = error_set(PUBLISHER_ERR_BIND, "cannot publish at %s: %s", endpoint, zmq_strerror(zmq_errno()));
        goto fail;
    }
    *out = publisher;
    return PUBLISHER_OK;

fail:
    publisher_close(publisher);
    return rc;
}

static void forget_all(publisher_t *publisher)
{
    for (size_t i = 0; i < (size_t)publisher->symbols_used * publisher->model_count; i++)
        if (publisher->last[i].seq) {
            zmq_msg_close(&publisher->last[i].topic);
            zmq_msg_close(&publisher->last[i].body);
        }
    free(publisher->last);
    publisher->last = NULL;
    publisher->symbols_used = publisher->symbols_most = 0;
}

void publisher_close(publisher_t *publisher)
{
    if (!publisher)
        return;
    forget_all(publisher);
    wire_buffer_close(publisher->encoded);
    if (publisher->socket)
        zmq_close(publisher->socket);
    free(publisher);
}

int publisher_reset(publisher_t *publisher, uint32_t symbols_most)
{
    last_value_t *last = calloc((size_t)symbols_most * publisher->model_count, sizeof *last);
    if (!last)
        return error_set(PUBLISHER_ERR_MEMORY, "out of memory for the last values of %u symbols", symbols_most);
    forget_all(publisher);
    publisher->last = last;
    publisher->symbols_most = symbols_most;
    return PUBLISHER_OK;
}

static bool try_send(publisher_t *publisher, zmq_msg_t *frame, int flags)
{
    return zmq_msg_send(frame, publisher->socket, flags | ZMQ_DONTWAIT) >= 0;
}

/* Lets the socket learn now what its subscribers have read; it looks at most once a millisecond by itself. */
static void update_pipes(publisher_t *publisher)
{
    int events;
    size_t bytes = sizeof events;
    zmq_getsockopt(publisher->socket, ZMQ_EVENTS, &events, &bytes);
}

/* Sends a copy of one frame; false when a subscriber does not get it. As long as drops are not allowed, one lagging subscriber makes libzmq refuse
 * the frame for everybody: then it is sent with drops, which only the lagging one suffers. */
static bool send_copy(publisher_t *publisher, zmq_msg_t *frame, int flags)
{
    zmq_msg_t copy;
    zmq_msg_init(&copy);
    zmq_msg_copy(&copy, frame);
    if (try_send(publisher, &copy, flags))
        return true;
    update_pipes(publisher);
    if (try_send(publisher, &copy, flags))
        return true;
    set_option(publisher->socket, ZMQ_XPUB_NODROP, 0);
    if (!try_send(publisher, &copy, flags))
        zmq_msg_close(&copy);
    set_option(publisher->socket, ZMQ_XPUB_NODROP, 1);
    return false;
}

static void send_last(publisher_t *publisher, last_value_t *last)
{
    bool topic_complete = send_copy(publisher, &last->topic, ZMQ_SNDMORE);
    bool body_complete = send_copy(publisher, &last->body, 0);
    if (!topic_complete || !body_complete)
        shm_counter_add(publisher->counters, SHM_COUNTER_PUBLISH_DROPS, 1);
}

static int make_frame(zmq_msg_t *frame, const void *data, size_t bytes)
{
    if (zmq_msg_init_size(frame, bytes) < 0)
        return error_set(PUBLISHER_ERR_MEMORY, "out of memory for a message of %zu bytes", bytes);
    memcpy(zmq_msg_data(frame), data, bytes);
    return PUBLISHER_OK;
}

int publisher_send(publisher_t *publisher, uint32_t model, uint32_t symbol_id, wire_forecast_t *forecast)
{
    if (model >= publisher->model_count || symbol_id >= publisher->symbols_most)
        return error_set(PUBLISHER_ERR_MESSAGE, "no such topic: model %u, symbol id %u", model, symbol_id);
    last_value_t *last = &publisher->last[(size_t)symbol_id * publisher->model_count + model];
    forecast->seq = last->seq + 1;
    forecast->published_ns = clock_monotonic_ns();

    char topic[WIRE_TEXT_BYTES];
    int topic_bytes = last->seq ? 0 : wire_topic(forecast->model, forecast->symbol, topic);
    if (topic_bytes < 0 || wire_forecast_encode(publisher->encoded, forecast) < 0)
        return PUBLISHER_ERR_MESSAGE;
    zmq_msg_t body;
    int rc = make_frame(&body, wire_buffer_data(publisher->encoded), wire_buffer_bytes(publisher->encoded));
    if (rc < 0)
        return rc;
    if (!last->seq) {
        if ((rc = make_frame(&last->topic, topic, (size_t)topic_bytes)) < 0) {
            zmq_msg_close(&body);
            return rc;
        }
        zmq_msg_init(&last->body);
    }
    zmq_msg_move(&last->body, &body);
    zmq_msg_close(&body);
    last->seq = forecast->seq;
    if (symbol_id >= publisher->symbols_used)
        publisher->symbols_used = symbol_id + 1;
    send_last(publisher, last);
    return PUBLISHER_OK;
}

void *publisher_socket(const publisher_t *publisher)
{
    return publisher->socket;
}

static void replay(publisher_t *publisher, const void *prefix, size_t bytes)
{
    for (size_t i = 0; i < (size_t)publisher->symbols_used * publisher->model_count; i++) {
        last_value_t *last = &publisher->last[i];
        if (last->seq && zmq_msg_size(&last->topic) >= bytes && memcmp(zmq_msg_data(&last->topic), prefix, bytes) == 0)
            send_last(publisher, last);
    }
}

void publisher_serve(publisher_t *publisher)
{
    unsigned char frame[SUBSCRIPTION_BYTES_MOST];
    for (;;) {
        int bytes = zmq_recv(publisher->socket, frame, sizeof frame, ZMQ_DONTWAIT);
        if (bytes < 0)
            return;
        if (bytes >= 1 && bytes <= SUBSCRIPTION_BYTES_MOST && frame[0] == 1)
            replay(publisher, frame + 1, (size_t)bytes - 1);
    }
}
