/* Context windows: from the rings of the segment into the staged inputs of a session, one series a row.
 *
 * The window of an item is a function of nothing but its symbol, its `end` and the session's context, so that a forecast does not depend on
 * when, where or beside whom it is made. A windows_t belongs to one thread and one model; gathering allocates nothing. */
#ifndef BARCAST_GPUWORKER_WINDOWS_H
#define BARCAST_GPUWORKER_WINDOWS_H

#include "config/config.h"
#include "gpuworker/model/model.h"
#include "shm/segment.h"
#include "wire/wire.h"

enum { WINDOWS_OK = 0, WINDOWS_ERR_FIELD = -1, WINDOWS_ERR_MEMORY = -2 };

typedef struct windows windows_t;

/* `context_most`: the longest context of the model's sessions. Fails on a field that is none. */
int windows_open(const config_model_t *model, uint32_t context_most, windows_t **out);
void windows_close(windows_t *windows);

uint32_t windows_field_count(const windows_t *windows); /* the variates of a series; the first is the target */
const char *windows_field_name(const windows_t *windows, uint32_t index);

typedef struct {
    const char *symbol; /* in the segment */
    int64_t interval_ns;
    int64_t cutoff_ns; /* open time of the last bar */
    double last;       /* the target's last observed value */
} window_t;

/* Fills row `row` of the inputs from the bars [.., item->end): masked where a volume or an amount is unknown, short history at the end with
 * zeros before. WIRE_ITEM_OK, or why not (STALE, TOO_SHORT, OVERRUN), the row being undefined then. */
wire_item_status_t windows_gather(windows_t *windows, const shm_segment_t *segment, const wire_item_t *item,
                                  const model_shape_t *shape, model_input_t *input, uint32_t row, window_t *out);

#endif
