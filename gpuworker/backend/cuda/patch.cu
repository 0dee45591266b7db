/* Patches as an embedding reads them: [time | values | mask] a patch (backend_patch_t).
 *
 * x F32, mask U8 [rows][patches · patch]; y F32 or BF16 [rows][patches][parts][patch], rows y_stride apart; visible U8 [rows][patches],
 * rows visible_stride apart. A warp a patch, its lanes neighbouring values. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { PATCH_WARPS = 4 };

template <typename Y>
static __global__ void __launch_bounds__(PATCH_WARPS *WARP)
    patch_kernel(const float *x, const uint8_t *mask, const float *time, Y *y, uint8_t *visible, int64_t items, int64_t patches,
                 int64_t patch, int64_t y_stride, int64_t visible_stride, bool missing)
{
    int64_t item = (int64_t)blockIdx.x * PATCH_WARPS + threadIdx.x / WARP, row = item / patches, own = item % patches;
    int parts = time != NULL ? 3 : 2;
    bool any = false;

    begin();
    if (item >= items)
        return;
    y += row * y_stride + own * parts * patch;
    for (int64_t p = threadIdx.x % WARP; p < patch; p += WARP) {
        bool observed = mask != NULL && mask[item * patch + p] != 0;
        Y *to = y + p;

        if (time != NULL) {
            *to = from_float<Y>(time[own * patch + p]);
            to += patch;
        }
        *to = from_float<Y>(observed ? x[item * patch + p] : 0.0f);
        to[patch] = from_float<Y>(observed != missing ? 1.0f : 0.0f);
        any = any || observed;
    }
    any = __any_sync(0xffffffffu, any);
    if (visible != NULL && threadIdx.x % WARP == 0)
        visible[row * visible_stride + own] = any;
}

extern "C" int cuda_patch_launch(const backend_patch_t *op, cudaStream_t stream)
{
    int64_t items = op->rows * op->patches, y_stride = op->y_stride, visible_stride = op->visible_stride;
    const float *time = op->time != NULL ? static_cast<const float *>(op->time->data) : NULL;
    const uint8_t *mask = op->mask != NULL ? static_cast<const uint8_t *>(op->mask->data) : NULL;
    uint8_t *visible = op->visible != NULL ? static_cast<uint8_t *>(op->visible->data) : NULL;

    if (items > (int64_t)INT32_MAX * PATCH_WARPS)
        return error_set(BACKEND_ERR_UNSUPPORTED, "patch: %lld rows of %lld patches are too many for CUDA", (long long)op->rows,
                         (long long)op->patches);
    if (y_stride == 0)
        y_stride = op->patches * op->patch * (time != NULL ? 3 : 2);
    if (visible_stride == 0)
        visible_stride = op->patches;
    auto enqueue = [&](auto *y) {
        return launch("patch", patch_kernel<std::remove_pointer_t<decltype(y)>>, blocks_for(items, PATCH_WARPS), PATCH_WARPS * WARP,
                      0, stream, static_cast<const float *>(op->x.data), mask, time, y, visible, items, op->patches, op->patch,
                      y_stride, visible_stride, op->missing);
    };
    return op->y.dtype == BACKEND_BF16 ? enqueue(static_cast<__nv_bfloat16 *>(op->y.data))
                                       : enqueue(static_cast<float *>(op->y.data));
}
