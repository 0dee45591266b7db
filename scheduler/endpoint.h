/* The socket that workers connect to: a bounded ROUTER. */
#ifndef BARCAST_SCHEDULER_ENDPOINT_H
#define BARCAST_SCHEDULER_ENDPOINT_H

#include "config/config.h"

enum { ENDPOINT_OK = 0, ENDPOINT_ERR_BUSY = -1, ENDPOINT_ERR_SYSTEM = -2 };

/* Makes the runtime directory and binds. A socket file whose scheduler is gone is taken over, one that somebody listens on is
 * ENDPOINT_ERR_BUSY: ZeroMQ would silently steal it. *router is a socket of `zmq` that never lingers, reports peers that cannot be reached,
 * hands a name over to the newest connection and refuses messages longer than a worker has reason to send. */
int endpoint_bind(const config_t *config, void *zmq, void **router);

#endif
