/* The causal patch scaler continued by one generated patch (backend_causal_scale_extend_t): joins the patch's moments to the
 * row's state, and scales it.
 *
 * x F32, rows x_stride apart, the patch at *step · patch; state_in F64 [series · variates][5] read at step 0, state [rows][5]
 * read later and always written; y F32 [rows][patch], loc, scale F32 [rows]. A warp a row. */
#include "gpuworker/backend/cuda/moments.cuh"

enum { EXTEND_WARPS = 4 };

static __global__ void __launch_bounds__(EXTEND_WARPS *WARP)
    causal_scale_extend_kernel(const float *x, int64_t x_stride, int64_t rows, int64_t samples, int64_t variates, int64_t patch,
                               double minimum, const double *state_in, double *state, float *y, float *loc, float *scale,
                               const int32_t *step)
{
    int64_t row = (int64_t)blockIdx.x * EXTEND_WARPS + threadIdx.x / WARP;
    int lane = (int)threadIdx.x % WARP;

    begin();
    if (row >= rows)
        return;
    int64_t prefix_row = row / (samples * variates) * variates + row % variates;
    const double *from = *step == 0 ? state_in + prefix_row * BACKEND_SCALER_STATE : state + row * BACKEND_SCALER_STATE;
    moments_t before = {from[0], from[1], from[2]};
    double lower = from[3], upper = from[4];

    x += row * x_stride + *step * patch;
    moments_t all = moments_join(before, moments_of_patch(x, patch, [](int64_t) { return true; }));
    float patch_loc = (float)moments_mean(all), patch_scale = (float)moments_scale(all, minimum, lower, upper);
    __syncwarp(); /* all lanes have read the state that lane 0 writes now */
    if (lane == 0) {
        double *to = state + row * BACKEND_SCALER_STATE;
        to[0] = all.count;
        to[1] = all.sum;
        to[2] = all.m2;
        to[3] = lower;
        to[4] = upper;
        loc[row] = patch_loc;
        scale[row] = patch_scale;
    }
    for (int64_t i = lane; i < patch; i += WARP)
        y[row * patch + i] = (x[i] - patch_loc) / patch_scale;
}

extern "C" int cuda_causal_scale_extend_launch(const backend_causal_scale_extend_t *op, cudaStream_t stream)
{
    return launch("causal_scale_extend", causal_scale_extend_kernel, blocks_for(op->rows, EXTEND_WARPS), EXTEND_WARPS * WARP, 0,
                  stream, static_cast<const float *>(op->x.data), op->x_stride, op->rows, op->samples, op->variates, op->patch,
                  op->minimum, static_cast<const double *>(op->state_in.data), static_cast<double *>(op->state.data),
                  static_cast<float *>(op->y.data), static_cast<float *>(op->loc.data), static_cast<float *>(op->scale.data),
                  static_cast<const int32_t *>(op->step->data));
}
