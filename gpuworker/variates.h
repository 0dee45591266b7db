/* What a series of a model is made of, by its configuration: bar fields, the targets of companions, calendar cycles, in this order; and when its
 * bars open. Read-only once open. */
#ifndef BARCAST_GPUWORKER_VARIATES_H
#define BARCAST_GPUWORKER_VARIATES_H

#include "base/calendar.h"
#include "config/config.h"
#include "gpuworker/model/model.h"
#include "shm/segment.h"
#include "wire/wire.h"

enum { VARIATES_OK = 0, VARIATES_ERR_FIELD = -1, VARIATES_ERR_CALENDAR = -2 };
enum { VARIATES_COMPANIONS_MOST = 64, VARIATES_CYCLES_MOST = 3 };

typedef struct {
    uint32_t field_count;
    const shm_bar_field_t *field[WIRE_FIELDS_MOST];
    uint32_t target; /* which field is forecast first of all: the close of whole bars, else the first */
    uint32_t companion_count;
    char companion[VARIATES_COMPANIONS_MOST][SHM_SYMBOL_BYTES];
    uint32_t
        known_count; /* variates known of any time, the last ones: a sine and a cosine of each cycle at the market's local time */
    int64_t period_ns[VARIATES_CYCLES_MOST];
    calendar_t *calendar; /* NULL: bars follow each other without a break */
} variates_t;

/* The fields are those of the config or, where that names none, all six for a model that takes whole bars and the close for another. On failure
 * *out is empty. */
int variates_open(const config_model_t *model, const model_info_t *info, variates_t *out);
void variates_close(variates_t *variates);

uint32_t variates_count(const variates_t *variates);

/* The session that the configuration asks for, for batches of that many series. */
model_shape_t variates_shape(const variates_t *variates, const config_model_t *model, uint32_t batch, backend_dtype_t precision);

/* Known variate `known` of a bar that opens then. */
float variates_known_value(const variates_t *variates, uint32_t known, int64_t time_ns);

/* Open times of the `horizon` bars after one that opens at `cutoff_ns`, and an open time on the market's clock. */
void variates_future(const variates_t *variates, int64_t cutoff_ns, int64_t interval_ns, uint32_t horizon, int64_t *out);
int64_t variates_local_ns(const variates_t *variates, int64_t time_ns);

#endif
