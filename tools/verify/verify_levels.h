/* What the cases of models share that give quantiles themselves: expected prediction [rows][levels][H] at the model's own levels, and
 * quantiles_interp [rows][H][interp_levels]. */
#ifndef BARCAST_TOOLS_VERIFY_VERIFY_LEVELS_H
#define BARCAST_TOOLS_VERIFY_VERIFY_LEVELS_H

#include "tools/verify/verify_impl.h"

/* Asks for the model's own levels and the expected tensor interp_levels. */
int verify_ask_levels(const verify_case_t *run, model_shape_t *shape);

/* Puts the expected prediction in ascending order of levels, as ours always are (the official ones may cross), and interpolates the expected
 * quantiles between those. */
int verify_order_levels(verify_case_t *run, const char *prediction, const char *interpolated);

/* Hidden states of patches without any observation are of no account: in expected tensors whose names contain `part` they are not compared. */
void verify_forget_masked(verify_case_t *run, const char *part);

/* Compares the session's quantiles with both, of the expected rows from `row` on (in the case's order of rows): in units of scale[row], or
 * absolutely where that is no scale but what stands for the deviation of a constant series. The mean has to be the median. */
int verify_levels(verify_case_t *run, const session_t *session, const char *prediction, const char *interpolated, int64_t row,
                  const float *scale);

/* A series of `bars` values (NaN: missing) as a session's row: its last `context`, with as many masked bars before as there are too few. */
void verify_fill_row(const float *series, int64_t bars, int64_t context, float *values, uint8_t *mask);

#endif
