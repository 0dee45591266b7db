/* A subscriber to the forecasts of an instance: one SUB socket connected to all of its workers. One thread. */
#ifndef BARCAST_TOOLS_SUBSCRIBER_H
#define BARCAST_TOOLS_SUBSCRIBER_H

#include "config/config.h"
#include "wire/wire.h"

enum { SUBSCRIBER_OK = 0, SUBSCRIBER_NONE = 1, SUBSCRIBER_ERR_SYSTEM = -1, SUBSCRIBER_ERR_MESSAGE = -2 };

typedef struct subscriber subscriber_t;

int subscriber_open(subscriber_t **out);
void subscriber_close(subscriber_t *subscriber); /* NULL is allowed */

/* Workers may come later, and may come back. */
int subscriber_connect(subscriber_t *subscriber, const char *endpoint);
int subscriber_connect_all(subscriber_t *subscriber, const config_t *config);

/* Topics that begin with `prefix`; see wire_topic. */
int subscriber_subscribe(subscriber_t *subscriber, const void *prefix, size_t bytes);

/* The next forecast; it borrows the subscriber's memory until the next call. A last value that was sent again for somebody else's sake is
 * left out. SUBSCRIBER_NONE after timeout_ms (-1: never) or on a signal; SUBSCRIBER_ERR_MESSAGE for one that cannot be decoded: go on. */
int subscriber_next(subscriber_t *subscriber, int timeout_ms, wire_forecast_t *out);

/* The value of one quantile level at step `step` of the target, between levels in proportion; the mean where there are no quantiles. */
double subscriber_quantile(const wire_forecast_t *forecast, double level, uint32_t step);

#endif
