/* The worker's XPUB socket: publishes forecasts and gives a late subscriber the last value of every topic that it asks for.
 *
 * Nobody slow holds anyone up: a subscriber that lags more than the high-water mark loses messages until it has caught up by half, the others
 * lose none. SHM_COUNTER_PUBLISH_DROPS counts how often one began to lose: libzmq does not tell how many messages.
 *
 * A last value is sent to all subscribers of its topic, as a subscriber's own pipe cannot be addressed: a message whose `seq` does not
 * advance is such a repeat. Memory is bounded: one message a topic. One thread; nothing blocks. */
#ifndef BARCAST_GPUWORKER_PUBLISHER_H
#define BARCAST_GPUWORKER_PUBLISHER_H

#include "shm/counters.h"
#include "wire/wire.h"

enum { PUBLISHER_OK = 0, PUBLISHER_ERR_BIND = -1, PUBLISHER_ERR_MEMORY = -2, PUBLISHER_ERR_MESSAGE = -3 };

typedef struct publisher publisher_t;

/* Binds `endpoint`. `model_count` topics a symbol. `counters` is borrowed. */
int publisher_open(void *zmq, const char *endpoint, uint32_t high_water_mark, uint32_t model_count, shm_counters_t *counters,
                   publisher_t **out);
/* What was sent still reaches subscribers that read, for a second at most once the context ends. NULL is allowed. */
void publisher_close(publisher_t *publisher);

/* Forgets all last values and makes room for the symbols 0 .. symbols_most - 1 of a segment. */
int publisher_reset(publisher_t *publisher, uint32_t symbols_most);

/* Encodes and sends, and keeps it as the topic's last value. Sets the message's seq and published_ns. */
int publisher_send(publisher_t *publisher, uint32_t model, uint32_t symbol_id, wire_forecast_t *forecast);

/* Poll this socket for reading; then publisher_serve answers the subscriptions that have come in. */
void *publisher_socket(const publisher_t *publisher);
void publisher_serve(publisher_t *publisher);

#endif
