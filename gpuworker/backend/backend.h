/* The op vocabulary: everything a model may ask of a device, implemented by each backend (cpu, the numerical reference; cuda).
 *
 * A model file is written once against this header and never sees a backend. Ops are coarse and fused; each call validates its descriptor
 * once (backend.c) and enqueues work on the backend's one stream, in order. On the CPU backend the work is done when the call returns.
 *
 * Rules that make a forecast one graph launch:
 *   - No op allocates, synchronises or reads device memory on the host. All buffers come from backend_alloc, when a session opens.
 *   - Nothing an op depends on lives on the host: a decode step reads its own number from a device int32 (`step`), which
 *     backend_step_set / backend_step_advance change on the stream; so the same sequence of calls can be captured once and replayed, or
 *     become the body of a device-side loop.
 *   - Weights are uploaded once; a backend may keep what layout it likes behind backend_weight_t.
 *
 * Shapes. Hidden states are [rows][tokens][width], rows = series * samples * variates with the variate fastest; before the paths of a series
 * diverge (the prefill) samples is 1. Everything is row-major and dense unless a stride is named.
 * dtypes. Residual stream, scaling, statistics, norms, softmax, sampling and outputs are F32 (statistics accumulate in F64) whatever the
 * weights; weights, packed qkv and MLP hidden states are F32 or, in the bf16 precision, BF16 with F32 accumulation.
 *
 * Errors: 0 or a BACKEND_ERR_*, text in error_text(). A backend belongs to one thread. */
#ifndef BARCAST_GPUWORKER_BACKEND_BACKEND_H
#define BARCAST_GPUWORKER_BACKEND_BACKEND_H

#include "gpuworker/backend/device.h"
#include "gpuworker/backend/ops_flow.h"
#include "gpuworker/backend/ops_network.h"
#include "gpuworker/backend/ops_results.h"
#include "gpuworker/backend/ops_sampling.h"
#include "gpuworker/backend/ops_scaling.h"
#include "gpuworker/backend/ops_tokens.h"

#endif
