/* Quantiles of weighted values (backend_weighted_quantiles_t): x [series][paths][variates][levels][length] -> y
 * [series][variates][asked][y_stride]. A block a series, variate and position: a thread finds where each value stands among all (by counting, ties in
 * their order) and what the weights up to it sum to; then a thread a level looks up its place in that. */
#include "gpuworker/backend/cuda/launch.cuh"

enum { WEIGHTED_THREADS = 128 };

typedef struct {
    const float *x, *weights, *asked;
    float *y;
    int64_t paths, variates, levels, length, y_stride;
    int values, count; /* paths · levels; levels asked for */
} weighted_t;

static __global__ void __launch_bounds__(WEIGHTED_THREADS) weighted_quantiles_kernel(const weighted_t op)
{
    extern __shared__ float shared[]; /* as they come: values, weights; in order: values, sums; all [values] */
    float *value = shared, *weight = value + op.values, *ordered = weight + op.values, *sum = ordered + op.values;
    int64_t row = blockIdx.x / op.length, t = blockIdx.x % op.length;
    int64_t series = row / op.variates, variate = row % op.variates;

    begin();
    for (int i = (int)threadIdx.x; i < op.values; i += WEIGHTED_THREADS) {
        int64_t path = i / op.levels, level = i % op.levels;

        value[i] = op.x[(((series * op.paths + path) * op.variates + variate) * op.levels + level) * op.length + t];
        weight[i] = op.weights[i];
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < op.values; i += WEIGHTED_THREADS) {
        double up_to = weight[i];
        float own = value[i];
        int rank = 0;

        for (int other = 0; other < op.values; other++)
            if (value[other] < own || (value[other] == own && other < i)) {
                up_to += (double)weight[other];
                rank++;
            }
        ordered[rank] = own;
        sum[rank] = (float)up_to;
    }
    __syncthreads();
    for (int q = (int)threadIdx.x; q < op.count; q += WEIGHTED_THREADS) {
        float level = op.asked[q], result;
        int upper = 0;

        while (upper < op.values && sum[upper] <= level)
            upper++;
        if (upper == 0 || upper == op.values)
            result = ordered[upper == 0 ? 0 : op.values - 1];
        else
            result = ordered[upper - 1] +
                     (level - sum[upper - 1]) / (sum[upper] - sum[upper - 1]) * (ordered[upper] - ordered[upper - 1]);
        op.y[(row * op.count + q) * op.y_stride + t] = result;
    }
}

extern "C" int cuda_weighted_quantiles_launch(const backend_weighted_quantiles_t *op, cudaStream_t stream)
{
    int64_t blocks = op->series * op->variates * op->length;
    weighted_t p = {};

    if (blocks > INT32_MAX)
        return error_set(BACKEND_ERR_UNSUPPORTED, "weighted_quantiles: %lld positions are too many for CUDA", (long long)blocks);
    p.x = static_cast<const float *>(op->x.data);
    p.weights = static_cast<const float *>(op->weights.data);
    p.asked = static_cast<const float *>(op->asked.data);
    p.y = static_cast<float *>(op->y.data);
    p.paths = op->paths;
    p.variates = op->variates;
    p.levels = op->levels;
    p.length = op->length;
    p.y_stride = op->y_stride > 0 ? op->y_stride : op->length;
    p.values = (int)(op->paths * op->levels);
    p.count = (int)backend_tensor_elements(&op->asked);
    return launch("weighted_quantiles", weighted_quantiles_kernel, (unsigned)blocks, WEIGHTED_THREADS,
                  4 * sizeof(float) * (size_t)p.values, stream, p);
}
