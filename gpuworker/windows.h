/* Context windows: from the rings of the segment into the staged inputs of a session, one series a row.
 *
 * The window of an item is a function of nothing but its symbol, its `end` and the session's context, so that a forecast does not depend on
 * when, where or beside whom it is made. A windows_t belongs to one thread and one model.
 *
 * Companions are the exception: other symbols whose targets a model sees beside the symbol's own, each bar at the place of the own bar that opened
 * at the same time. A companion's bar that has not arrived yet, or is missing, is masked; so is a symbol that is its own companion.
 *
 * Windows are kept: each symbol that was gathered has a mirror of its newest bars, as the values and masks that a session takes, in memory
 * of this process. The next window reads only the bars that are new from the ring, so its cost in the ring does not grow with the context. A
 * late correction of a bar in a mirror stands in the update log, which windows_catch_up reads: the mirror is then dropped and filled anew,
 * and so are all of them when the log was lapped or its writer has changed. So a forecast that is gathered after windows_catch_up has every
 * correction that was stored before its own newest bar; one that is stored while it is gathered is in it or not, as if it came later. */
#ifndef BARCAST_GPUWORKER_WINDOWS_H
#define BARCAST_GPUWORKER_WINDOWS_H

#include "gpuworker/variates.h"
#include "shm/segment.h"

enum { WINDOWS_OK = 0, WINDOWS_ERR_VARIATES = -1, WINDOWS_ERR_MEMORY = -2 };

typedef struct windows windows_t;

/* For sessions of that model, with that context, as rounded. */
int windows_open(const config_model_t *model, const model_info_t *info, uint32_t context, windows_t **out);
void windows_close(windows_t *windows);

const variates_t *windows_variates(const windows_t *windows);

/* Forgets all windows and gets ready for those of another segment: context * (8 + 5 * (fields + known)) bytes a symbol of symbols_max, which cost
 * memory only once the symbol is gathered. All that allocates but windows_open. */
int windows_join(windows_t *windows, const shm_segment_t *segment);

/* Before the windows of a batch: learns which bars were corrected. `segment` is the one joined, here and below. */
void windows_catch_up(windows_t *windows, const shm_segment_t *segment);

typedef struct {
    const char *symbol; /* in the segment */
    int64_t interval_ns;
    int64_t cutoff_ns; /* open time of the last bar */
    double last;       /* the target's last observed value */
} window_t;

/* Fills row `row` of the inputs from the bars [.., item->end): masked where a volume or an amount is unknown, short history at the end with
 * zeros before; open times only where the model reads them, in the market's local time. WIRE_ITEM_OK, or why not (STALE, TOO_SHORT, OVERRUN), the row being undefined then. An `end` before the symbol's last one
 * costs the whole window; so does the next one. */
wire_item_status_t windows_gather(windows_t *windows, const shm_segment_t *segment, const wire_item_t *item,
                                  const model_shape_t *shape, model_input_t *input, uint32_t row, window_t *out);

#endif
