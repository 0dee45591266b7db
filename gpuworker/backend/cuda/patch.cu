/* Patches as an embedding reads them: [time | values | mask] a patch (backend_patch_t).
 *
 * x F32, mask U8 [rows][patches · patch], y F32 or BF16 [rows][patches][parts][patch], visible U8 [rows][patches], all by their strides. A
 * warp a patch, its lanes neighbouring values. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { PATCH_WARPS = 4 };

typedef struct {
    const float *x, *time;
    const uint8_t *mask;
    void *y;
    uint8_t *visible;
    int64_t items, patches, patch, x_stride, y_stride, patch_stride, visible_stride;
    bool missing;
} patch_t;

template <typename Y> static __global__ void __launch_bounds__(PATCH_WARPS *WARP) patch_kernel(const patch_t op)
{
    int64_t item = (int64_t)blockIdx.x * PATCH_WARPS + threadIdx.x / WARP, row = item / op.patches, own = item % op.patches;
    int64_t from = row * op.x_stride + own * op.patch;
    Y *y = static_cast<Y *>(op.y) + row * op.y_stride + own * op.patch_stride;
    bool any = false;

    begin();
    if (item >= op.items)
        return;
    for (int64_t p = threadIdx.x % WARP; p < op.patch; p += WARP) {
        bool observed = op.mask != NULL && op.mask[from + p] != 0;
        Y *to = y + p;

        if (op.time != NULL) {
            *to = from_float<Y>(op.time[own * op.patch + p]);
            to += op.patch;
        }
        *to = from_float<Y>(observed ? op.x[from + p] : 0.0f);
        to[op.patch] = from_float<Y>(observed != op.missing ? 1.0f : 0.0f);
        any = any || observed;
    }
    any = __any_sync(0xffffffffu, any);
    if (op.visible != NULL && threadIdx.x % WARP == 0)
        op.visible[row * op.visible_stride + own] = any;
}

extern "C" int cuda_patch_launch(const backend_patch_t *op, cudaStream_t stream)
{
    patch_t p = {};

    p.items = op->rows * op->patches;
    if (p.items > (int64_t)INT32_MAX * PATCH_WARPS)
        return error_set(BACKEND_ERR_UNSUPPORTED, "patch: %lld rows of %lld patches are too many for CUDA", (long long)op->rows,
                         (long long)op->patches);
    p.x = static_cast<const float *>(op->x.data);
    p.time = op->time != NULL ? static_cast<const float *>(op->time->data) : NULL;
    p.mask = op->mask != NULL ? static_cast<const uint8_t *>(op->mask->data) : NULL;
    p.y = op->y.data;
    p.visible = op->visible != NULL ? static_cast<uint8_t *>(op->visible->data) : NULL;
    p.patches = op->patches;
    p.patch = op->patch;
    p.x_stride = op->x_stride > 0 ? op->x_stride : op->patches * op->patch;
    p.patch_stride = op->patch_stride > 0 ? op->patch_stride : (op->time != NULL ? 3 : 2) * op->patch;
    p.y_stride = op->y_stride > 0 ? op->y_stride : op->patches * p.patch_stride;
    p.visible_stride = op->visible_stride > 0 ? op->visible_stride : op->patches;
    p.missing = op->missing;
    return launch("patch", op->y.dtype == BACKEND_BF16 ? patch_kernel<__nv_bfloat16> : patch_kernel<float>,
                  blocks_for(p.items, PATCH_WARPS), PATCH_WARPS * WARP, 0, stream, p);
}
