#include "gpuworker/beat.h"

#include "base/clock.h"
#include "base/error.h"
#include "wire/wire.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

enum { RECONNECT_MS = 20, RECONNECT_MOST_MS = 250 };

struct beat {
    pthread_t thread;
    int stop; /* eventfd */
    void *socket;
    wire_buffer_t *encoded;
    wire_heartbeat_t message; /* the thread's */
    _Atomic uint64_t batch_id;
    atomic_bool ready;
};

void *beat_dealer(void *zmq, const char *endpoint, const char *identity, int linger_ms)
{
    const int immediate = 1, reconnect = RECONNECT_MS, reconnect_most = RECONNECT_MOST_MS;
    const int64_t bytes_most = WIRE_MESSAGE_BYTES_MOST;
    void *socket = zmq_socket(zmq, ZMQ_DEALER);
    if (!socket)
        return NULL;
    if (zmq_setsockopt(socket, ZMQ_ROUTING_ID, identity, strlen(identity)) ||
        zmq_setsockopt(socket, ZMQ_IMMEDIATE, &immediate, sizeof immediate) ||
        zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect) ||
        zmq_setsockopt(socket, ZMQ_RECONNECT_IVL_MAX, &reconnect_most, sizeof reconnect_most) ||
        zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &bytes_most, sizeof bytes_most) ||
        zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) || zmq_connect(socket, endpoint)) {
        int reason = zmq_errno();
        zmq_close(socket);
        errno = reason;
        return NULL;
    }
    return socket;
}

static void send_beat(beat_t *beat)
{
    /* Relaxed: each value stands alone, and the scheduler acts on the messages of the other socket. */
    beat->message.batch_id = atomic_load_explicit(&beat->batch_id, memory_order_relaxed);
    beat->message.ready = atomic_load_explicit(&beat->ready, memory_order_relaxed);
    if (wire_heartbeat_encode(beat->encoded, &beat->message) == WIRE_OK)
        zmq_send(beat->socket, wire_buffer_data(beat->encoded), wire_buffer_bytes(beat->encoded), ZMQ_DONTWAIT);
}

static void *beat_thread(void *argument)
{
    beat_t *beat = argument;
    struct pollfd stop = {.fd = beat->stop, .events = POLLIN};
    int interval_ms = (int)(beat->message.interval_ns / CLOCK_NS_PER_MS);
    do
        send_beat(beat);
    while (poll(&stop, 1, interval_ms > 0 ? interval_ms : 1) == 0);
    return NULL;
}

int beat_start(void *zmq, const char *endpoint, const char *worker, int64_t interval_ns, beat_t **out)
{
    beat_t *beat = calloc(1, sizeof *beat);
    if (!beat)
        return error_set(BEAT_ERR_SYSTEM, "out of memory");
    char identity[WIRE_NAME_BYTES + 8];
    snprintf(identity, sizeof identity, "%s#beat", worker);
    snprintf(beat->message.sender, sizeof beat->message.sender, "%s", worker);
    beat->message.interval_ns = interval_ns;
    beat->stop = eventfd(0, EFD_CLOEXEC);
    beat->socket = beat_dealer(zmq, endpoint, identity, 0);
    int reason = errno;
    if (beat->stop >= 0 && beat->socket && wire_buffer_open(256, &beat->encoded) == WIRE_OK &&
        (reason = pthread_create(&beat->thread, NULL, beat_thread, beat)) == 0) {
        *out = beat;
        return BEAT_OK;
    }
    if (beat->socket)
        zmq_close(beat->socket);
    if (beat->stop >= 0)
        close(beat->stop);
    wire_buffer_close(beat->encoded);
    free(beat);
    return error_set(BEAT_ERR_SYSTEM, "cannot start the heartbeat to %s: %s", endpoint, strerror(reason));
}

void beat_stop(beat_t *beat)
{
    if (!beat)
        return;
    eventfd_write(beat->stop, 1);
    pthread_join(beat->thread, NULL);
    zmq_close(beat->socket);
    close(beat->stop);
    wire_buffer_close(beat->encoded);
    free(beat);
}

void beat_set_ready(beat_t *beat)
{
    atomic_store_explicit(&beat->ready, true, memory_order_relaxed); /* pairs with the load in send_beat */
}

void beat_set_batch(beat_t *beat, uint64_t batch_id)
{
    atomic_store_explicit(&beat->batch_id, batch_id, memory_order_relaxed); /* pairs with the load in send_beat */
}
