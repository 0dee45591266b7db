/* Ops of a flow: samples that start as noise and move to what a network says in a fixed number of Euler steps. Rules: backend.h.
 *
 * A flow goes from noise x(0) to a sample x(1) with the velocity (network's answer - x(0)), in n equal steps. Rows are (series, variate, sample),
 * the sample fastest: the samples of a variate have one condition and stand side by side. */
#ifndef BARCAST_GPUWORKER_BACKEND_OPS_FLOW_H
#define BARCAST_GPUWORKER_BACKEND_OPS_FLOW_H

#include "gpuworker/backend/device.h"

/* x[row][c] = standard normal noise, c < width, and drift[row][c] = (bias[c] - x[row][c]) / steps: what of a step does not depend on the
 * state, `bias` being that of the network's last layer.
 * Random numbers: one Philox block a value (philox.h), key = keys[series], counter = (first + c, sample, variate, PHILOX_STREAM_FLOW); of its
 * words as philox_uniform, u and v, comes sqrt(-2 ln u) cos(2πv) (Box and Muller). All in F32. */
typedef struct {
    int64_t rows, width, samples, variates;
    const backend_tensor_t *keys; /* U64 [series] */
    int64_t first; /* the number of channel 0 among all that are drawn for this row: flows of one forecast differ in it */
    const backend_tensor_t *given; /* F32 [series][samples][variates][given_stride]: take the values from `first` on; NULL: draw */
    int64_t given_stride;
    const backend_weight_t *bias; /* F32 [width] */
    int64_t steps;
    backend_tensor_t x, drift; /* F32, rows `stride` apart */
    int64_t stride;
} backend_flow_start_t;

int backend_flow_start(backend_t *backend, const backend_flow_start_t *op);

/* paths[series][sample][variate][c] = x[row][c] · scale[series][variate] + loc[series][variate], c < width, its rows path_stride apart;
 * median[series][variate][c] = the value in the middle of the samples' x, the lower of the two of an even number (torch.median), NaN being
 * the greatest. */
typedef struct {
    backend_tensor_t x; /* F32, rows `stride` apart */
    int64_t stride;
    int64_t rows, width, samples, variates;
    backend_tensor_t loc, scale; /* F32 [series · variates] */
    backend_tensor_t paths;      /* F32 */
    int64_t path_stride;
    const backend_tensor_t *median; /* F32 [series · variates][width]; NULL: not asked for */
} backend_flow_finish_t;

int backend_flow_finish(backend_t *backend, const backend_flow_finish_t *op);

#endif
