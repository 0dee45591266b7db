/* The quantiles of a model that gives them itself, from its head to the forecast (backend_quantile_head_t).
 *
 * head F32 by its strides; loc, scale F32; native F32 [rows][levels][native_stride]; quantiles F32 [rows][asked][total], mean [rows][total]. A block
 * a row and patch: its values go through shared memory [levels][patch], are put in order by counting those below each, and interpolated
 * from there. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { HEAD_THREADS = 128 };

typedef struct {
    const float *head;
    int64_t row_stride, patch_stride, level_stride, value_stride;
    const float *loc, *scale;
    int64_t loc_stride, loc_patch_stride;
    const float *low, *high;
    float *native;
    const float *native_levels, *asked;
    float *quantiles, *mean;
    int64_t length, native_stride, horizon, total, offset;
    int patch, levels, count; /* count: levels asked for */
    bool sinh, unsorted;
} head_t;

/* Where level `asked` lies among the native ones: between `below` and below + 1, `share` of the way. */
static __device__ __forceinline__ float between(const float *levels, int count, float asked, int &below)
{
    below = 0;
    while (below + 2 < count && asked >= levels[below + 1])
        below++;
    if (count == 1)
        return 0;
    float share = (asked - levels[below]) / (levels[below + 1] - levels[below]);
    return fminf(fmaxf(share, 0.0f), 1.0f);
}

static __global__ void __launch_bounds__(HEAD_THREADS) quantile_head_kernel(const head_t op)
{
    extern __shared__ float shared[]; /* as they come [levels][patch]; in order [levels][patch] */
    int patches = (int)(op.length / op.patch), values = op.levels * op.patch;
    int64_t row = blockIdx.x / patches, own = blockIdx.x % patches, first = own * op.patch;
    float *ordered = shared + values;
    bool strange = false;

    begin();
    const float *head = op.head + row * op.row_stride + own * op.patch_stride;
    float loc = op.loc[row * op.loc_stride + own * op.loc_patch_stride],
          scale = op.scale[row * op.loc_stride + own * op.loc_patch_stride];
    for (int i = (int)threadIdx.x; i < values; i += HEAD_THREADS) {
        float value = head[i / op.patch * op.level_stride + i % op.patch * op.value_stride];

        value = op.sinh ? sinhf(value) : value;
        value = value * scale + loc;
        shared[i] = value;
        strange = strange || !isfinite(value);
    }
    if (__syncthreads_or(strange)) { /* rare, and then a thread a level will do */
        for (int level = (int)threadIdx.x; level < op.levels; level += HEAD_THREADS) {
            float *value = shared + level * op.patch, most = -INFINITY, least = INFINITY;

            for (int p = 0; p < op.patch; p++)
                if (isfinite(value[p])) {
                    most = fmaxf(most, value[p]);
                    least = fminf(least, value[p]);
                }
            for (int p = 0; p < op.patch; p++)
                if (isnan(value[p]) || (isinf(value[p]) && most < least))
                    value[p] = 0;
                else if (isinf(value[p]))
                    value[p] = value[p] > 0 ? most : least;
        }
        __syncthreads();
    }
    if (op.low != NULL) {
        for (int i = (int)threadIdx.x; i < values; i += HEAD_THREADS)
            shared[i] = fminf(fmaxf(shared[i], op.low[row]), op.high[row]);
        __syncthreads();
    }
    for (int i = (int)threadIdx.x; i < values; i += HEAD_THREADS) {
        int p = i % op.patch, level = i / op.patch, rank = 0;
        float value = shared[i];

        for (int other = 0; other < op.levels; other++) {
            float theirs = shared[other * op.patch + p];
            rank += theirs < value || (theirs == value && other < level);
        }
        ordered[rank * op.patch + p] = value;
    }
    __syncthreads();
    if (op.native != NULL)
        for (int i = (int)threadIdx.x; i < values; i += HEAD_THREADS)
            op.native[(row * op.levels + i / op.patch) * op.native_stride + first + i % op.patch] =
                op.unsorted ? shared[i] : ordered[i];
    for (int i = (int)threadIdx.x; i < (op.count + 1) * op.patch; i += HEAD_THREADS) { /* the last one is the median */
        int p = i % op.patch, quantile = i / op.patch, below;
        float share;

        if (first + p >= op.horizon)
            continue;
        share = between(op.native_levels, op.levels, quantile < op.count ? op.asked[quantile] : 0.5f, below);
        float low = ordered[below * op.patch + p], high = share > 0 ? ordered[(below + 1) * op.patch + p] : low;
        float value = low + share * (high - low);
        if (quantile < op.count)
            op.quantiles[(row * op.count + quantile) * op.total + op.offset + first + p] = value;
        else
            op.mean[row * op.total + op.offset + first + p] = value;
    }
}

extern "C" int cuda_quantile_head_launch(const backend_quantile_head_t *op, cudaStream_t stream)
{
    size_t bytes = sizeof(float) * 2 * (size_t)(op->levels * op->patch);
    int64_t blocks = op->rows * (op->length / op->patch);
    head_t p = {};

    if (bytes > SHARED_BYTES_DEFAULT || blocks > INT32_MAX)
        return error_set(BACKEND_ERR_UNSUPPORTED, "quantile_head: %lld levels of %lld values in %lld patches are too many for CUDA",
                         (long long)op->levels, (long long)op->patch, (long long)blocks);
    p.head = static_cast<const float *>(op->head.data);
    p.row_stride = op->row_stride;
    p.patch_stride = op->patch_stride;
    p.level_stride = op->level_stride;
    p.value_stride = op->value_stride;
    p.loc = static_cast<const float *>(op->loc.data);
    p.scale = static_cast<const float *>(op->scale.data);
    p.loc_stride = op->loc_stride;
    p.loc_patch_stride = op->loc_patch_stride;
    if (op->low != NULL) {
        p.low = static_cast<const float *>(op->low->data);
        p.high = static_cast<const float *>(op->high->data);
    }
    p.native = op->native != NULL ? static_cast<float *>(op->native->data) : NULL;
    p.native_levels = static_cast<const float *>(op->native_levels.data);
    p.length = op->length;
    p.native_stride = op->native_stride > 0 ? op->native_stride : op->length;
    p.unsorted = op->unsorted;
    p.patch = (int)op->patch;
    p.levels = (int)op->levels;
    p.horizon = op->horizon;
    p.total = op->total;
    p.offset = op->offset;
    p.sinh = op->sinh;
    if (op->horizon > 0) {
        p.mean = static_cast<float *>(op->mean->data);
        if (op->asked != NULL) {
            p.asked = static_cast<const float *>(op->asked->data);
            p.quantiles = static_cast<float *>(op->quantiles->data);
            p.count = (int)backend_tensor_elements(op->asked);
        }
    }
    return launch("quantile_head", quantile_head_kernel, (unsigned)blocks, HEAD_THREADS, bytes, stream, p);
}
