#include "tools/subscriber.h"

#include "base/error.h"
#include "base/text.h"
#include "tools/instance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { FIRST_TOPICS = 256, RECEIVE_HIGH_WATER_MARK = 100000 };

/* When the newest message of a topic was published: one that is not newer is a repeat. */
typedef struct {
    uint64_t topic; /* hash, 0: free */
    int64_t published_ns;
} seen_t;

struct subscriber {
    void *zmq;
    void *socket;
    wire_scratch_t scratch;
    seen_t *seen; /* open addressing, at most half full */
    size_t seen_capacity, seen_count;
};

int subscriber_open(subscriber_t **out)
{
    const int high_water_mark = RECEIVE_HIGH_WATER_MARK, linger = 0, reconnect_ms = 20;
    const int64_t bytes_most = WIRE_MESSAGE_BYTES_MOST;
    subscriber_t *subscriber = calloc(1, sizeof *subscriber);
    if (!subscriber)
        return error_set(SUBSCRIBER_ERR_SYSTEM, "out of memory");
    subscriber->seen_capacity = FIRST_TOPICS;
    subscriber->seen = calloc(FIRST_TOPICS, sizeof *subscriber->seen);
    subscriber->zmq = zmq_ctx_new();
    subscriber->socket = subscriber->zmq ? zmq_socket(subscriber->zmq, ZMQ_SUB) : NULL;
    if (!subscriber->seen || !subscriber->socket ||
        zmq_setsockopt(subscriber->socket, ZMQ_RCVHWM, &high_water_mark, sizeof high_water_mark) ||
        zmq_setsockopt(subscriber->socket, ZMQ_LINGER, &linger, sizeof linger) ||
        zmq_setsockopt(subscriber->socket, ZMQ_RECONNECT_IVL, &reconnect_ms, sizeof reconnect_ms) ||
        zmq_setsockopt(subscriber->socket, ZMQ_MAXMSGSIZE, &bytes_most, sizeof bytes_most)) {
        subscriber_close(subscriber);
        return error_set(SUBSCRIBER_ERR_SYSTEM, "cannot make a socket: %s", zmq_strerror(zmq_errno()));
    }
    *out = subscriber;
    return SUBSCRIBER_OK;
}

void subscriber_close(subscriber_t *subscriber)
{
    if (!subscriber)
        return;
    if (subscriber->socket)
        zmq_close(subscriber->socket);
    if (subscriber->zmq)
        zmq_ctx_term(subscriber->zmq);
    wire_scratch_free(&subscriber->scratch);
    free(subscriber->seen);
    free(subscriber);
}

int subscriber_connect(subscriber_t *subscriber, const char *endpoint)
{
    if (zmq_connect(subscriber->socket, endpoint))
        return error_set(SUBSCRIBER_ERR_SYSTEM, "%s: %s", endpoint, zmq_strerror(zmq_errno()));
    return SUBSCRIBER_OK;
}

int subscriber_connect_all(subscriber_t *subscriber, const config_t *config)
{
    uint32_t workers = instance_workers(config);
    for (uint32_t i = 0; i < workers; i++) {
        char endpoint[CONFIG_TEXT_BYTES];
        if (config_publish_endpoint(config, i, endpoint) < 0)
            return SUBSCRIBER_ERR_SYSTEM;
        int rc = subscriber_connect(subscriber, endpoint);
        if (rc < 0)
            return rc;
    }
    return SUBSCRIBER_OK;
}

int subscriber_subscribe(subscriber_t *subscriber, const void *prefix, size_t bytes)
{
    if (zmq_setsockopt(subscriber->socket, ZMQ_SUBSCRIBE, prefix, bytes))
        return error_set(SUBSCRIBER_ERR_SYSTEM, "cannot subscribe: %s", zmq_strerror(zmq_errno()));
    return SUBSCRIBER_OK;
}

static seen_t *find_seen(seen_t *table, size_t capacity, uint64_t topic)
{
    size_t at = topic & (capacity - 1);
    while (table[at].topic && table[at].topic != topic)
        at = (at + 1) & (capacity - 1);
    return &table[at];
}

static bool grow_seen(subscriber_t *subscriber)
{
    size_t capacity = subscriber->seen_capacity * 2;
    seen_t *table = calloc(capacity, sizeof *table);
    if (!table)
        return false;
    for (size_t i = 0; i < subscriber->seen_capacity; i++)
        if (subscriber->seen[i].topic)
            *find_seen(table, capacity, subscriber->seen[i].topic) = subscriber->seen[i];
    free(subscriber->seen);
    subscriber->seen = table;
    subscriber->seen_capacity = capacity;
    return true;
}

static bool is_repeat(subscriber_t *subscriber, const void *topic, size_t bytes, int64_t published_ns)
{
    if (subscriber->seen_count * 2 >= subscriber->seen_capacity && !grow_seen(subscriber))
        return false;
    uint64_t hash = text_hash64(topic, bytes) | 1; /* 0 means free */
    seen_t *seen = find_seen(subscriber->seen, subscriber->seen_capacity, hash);
    if (seen->topic && published_ns <= seen->published_ns)
        return true;
    subscriber->seen_count += !seen->topic;
    *seen = (seen_t){.topic = hash, .published_ns = published_ns};
    return false;
}

int subscriber_next(subscriber_t *subscriber, int timeout_ms, wire_forecast_t *out)
{
    char topic[WIRE_TEXT_BYTES];
    /* Receiving with a time limit takes fewer system calls than zmq_poll, which a benchmark would see. */
    zmq_setsockopt(subscriber->socket, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
    for (;;) {
        int topic_bytes = zmq_recv(subscriber->socket, topic, sizeof topic, 0);
        if (topic_bytes < 0)
            return SUBSCRIBER_NONE;
        zmq_msg_t body;
        zmq_msg_init(&body);
        int rc = zmq_msg_recv(&body, subscriber->socket, ZMQ_DONTWAIT) < 0 || topic_bytes > (int)sizeof topic
                     ? error_set(SUBSCRIBER_ERR_MESSAGE, "not a forecast message of two frames")
                     : wire_forecast_decode(zmq_msg_data(&body), zmq_msg_size(&body), out, &subscriber->scratch);
        zmq_msg_close(&body);
        if (rc < 0)
            return SUBSCRIBER_ERR_MESSAGE;
        if (!is_repeat(subscriber, topic, (size_t)topic_bytes, out->published_ns))
            return SUBSCRIBER_OK;
    }
}

double subscriber_quantile(const wire_forecast_t *forecast, double level, uint32_t step)
{
    const wire_field_t *target = &forecast->fields[0];
    const double *levels = forecast->quantile_levels;
    uint32_t count = forecast->quantile_count;
    if (!target->quantiles || !count)
        return target->mean ? (double)target->mean[step] : (double)NAN;
    uint32_t above = 0;
    while (above < count - 1 && levels[above] < level)
        above++;
    double high = (double)target->quantiles[(size_t)above * forecast->horizon + step];
    if (above == 0 || levels[above] <= level)
        return high;
    double low = (double)target->quantiles[(size_t)(above - 1) * forecast->horizon + step];
    return low + (high - low) * (level - levels[above - 1]) / (levels[above] - levels[above - 1]);
}
