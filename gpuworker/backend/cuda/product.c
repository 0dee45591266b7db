/* Matrix products of many rows through cuBLASLt, with bias and residual in its epilogue.
 *
 * cuBLASLt thinks in columns: yᵀ [out × rows] = Wᵀ' xᵀ with W as its transposed A and x as its B. F32 products are computed in
 * F32 (no TF32). A plan is the descriptors and the algorithm of one shape; the algorithm is the one that an earlier process
 * chose (choices.c), or else the fastest of the library's candidates, timed on the shape's own data into memory of its own.
 * Candidates that add partial sums in no fixed order are excluded: equal inputs must give equal bytes. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "gpuworker/backend/cuda/cuda.h"

enum { CANDIDATES_MOST = 16, FIRST_RUNS = 2, LAST_RUNS = 6 };
static const float NEAR = 1.1f; /* times the fastest one's time: worth another look */
static const size_t workspace_bytes = (size_t)32 << 20;

struct cuda_product_plan {
    cuda_product_key_t key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, residual, y;
    cublasLtMatmulAlgo_t algo;
    cuda_product_plan_t *next;
};

static int lt_check(const char *what, cublasStatus_t status)
{
    bool refused = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE;

    if (status == CUBLAS_STATUS_SUCCESS)
        return BACKEND_OK;
    return error_set(refused ? BACKEND_ERR_UNSUPPORTED : BACKEND_ERR_DEVICE, "linear: cuBLASLt: %s: %s", what,
                     cublasLtGetStatusString(status));
}

static int32_t alignment_of(const void *pointer)
{
    uintptr_t address = (uintptr_t)pointer | 256;
    return (int32_t)(address & (~address + 1));
}

static cublasLtEpilogue_t epilogue_of(const cuda_product_t *product)
{
    if (product->relu)
        return product->bias != NULL ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    return product->bias != NULL ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

static cuda_product_key_t key_of(const cuda_product_t *product)
{
    return (cuda_product_key_t){
        .rows = product->rows,
        .in = product->in,
        .out = product->out,
        .x_stride = product->x_stride,
        .y_stride = product->y_stride,
        .parts = product->parts,
        .dtype = (int32_t)product->dtype,
        .y_dtype = (int32_t)product->y_dtype,
        .epilogue = (int32_t)epilogue_of(product),
        .residual = product->residual != NULL,
        .align_w = alignment_of(product->weight),
        .align_x = alignment_of(product->x),
        .align_residual = alignment_of(product->residual),
        .align_y = alignment_of(product->y),
    };
}

static int run_plan(backend_cuda_t *cuda, const cuda_product_plan_t *plan, const cublasLtMatmulAlgo_t *algo,
                    const cuda_product_t *product, void *y)
{
    const float one = 1, zero = 0;
    const void *residual = product->residual != NULL ? product->residual : y;

    return lt_check("matmul", cublasLtMatmul(cuda->lt, plan->desc, &one, product->weight, plan->w, product->x, plan->x,
                                             product->residual != NULL ? &one : &zero, residual, plan->residual, y, plan->y, algo,
                                             cuda->workspace, workspace_bytes, cuda->stream));
}

static int set_bias(const cuda_product_plan_t *plan, const void *bias)
{
    return lt_check("bias", cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
}

/* ---- choosing an algorithm --------------------------------------------------------------------------------------------------- */

/* What candidates are timed with: memory for their y and, where W is more than x and y together, as much as the L2 holds: overwritten
 * before each run, so that W comes from memory as it does in a forecast. Larger products are run back to back, as there too. */
typedef struct {
    const cuda_product_plan_t *plan;
    const cuda_product_t *product;
    void *y, *flush;
    size_t flush_bytes;
    cudaEvent_t event[2];
} trial_t;

static int trial_open(backend_cuda_t *cuda, trial_t *trial)
{
    const cuda_product_t *product = trial->product;
    size_t y_bytes = (size_t)(product->parts * product->rows * product->y_stride) * backend_dtype_bytes(product->y_dtype),
           x_bytes = (size_t)(product->rows * product->in) * backend_dtype_bytes(product->dtype),
           w_bytes = (size_t)(product->out * product->in) * backend_dtype_bytes(product->dtype);
    int cache_bytes = 0,
        rc = cuda_check("linear: timing", cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, cuda->device));

    trial->flush_bytes = w_bytes > x_bytes + y_bytes ? (size_t)cache_bytes : 0;
    if (rc == BACKEND_OK)
        rc = cuda_allocate("linear: timing", y_bytes, &trial->y);
    if (rc == BACKEND_OK && trial->flush_bytes > 0)
        rc = cuda_allocate("linear: timing", trial->flush_bytes, &trial->flush);
    for (int i = 0; rc == BACKEND_OK && i < 2; i++)
        rc = cuda_check("linear: timing", cudaEventCreate(&trial->event[i]));
    return rc;
}

static void trial_close(trial_t *trial)
{
    for (int i = 0; i < 2; i++)
        if (trial->event[i] != NULL)
            cudaEventDestroy(trial->event[i]);
    cudaFree(trial->flush);
    cudaFree(trial->y);
}

/* Lowers *milliseconds to what one of `runs` takes on average. */
static int time_runs(backend_cuda_t *cuda, const trial_t *trial, const cublasLtMatmulAlgo_t *algo, int runs, float *milliseconds)
{
    float elapsed = 0;
    int rc = cuda_check("linear: timing", cudaEventRecord(trial->event[0], cuda->stream));

    for (int i = 0; rc == BACKEND_OK && i < runs; i++)
        rc = run_plan(cuda, trial->plan, algo, trial->product, trial->y);
    if (rc == BACKEND_OK)
        rc = cuda_check("linear: timing", cudaEventRecord(trial->event[1], cuda->stream));
    if (rc == BACKEND_OK)
        rc = cuda_check("linear: timing", cudaEventSynchronize(trial->event[1]));
    if (rc == BACKEND_OK)
        rc = cuda_check("linear: timing", cudaEventElapsedTime(&elapsed, trial->event[0], trial->event[1]));
    if (rc == BACKEND_OK && elapsed / (float)runs < *milliseconds)
        *milliseconds = elapsed / (float)runs;
    return rc;
}

static int time_candidate(backend_cuda_t *cuda, const trial_t *trial, const cublasLtMatmulAlgo_t *algo, int runs,
                          float *milliseconds)
{
    int rc = run_plan(cuda, trial->plan, algo, trial->product, trial->y); /* loads the kernel */

    if (trial->flush_bytes == 0)
        return rc < 0 ? rc : time_runs(cuda, trial, algo, runs, milliseconds);
    for (int i = 0; rc == BACKEND_OK && i < runs; i++) {
        rc = cuda_check("linear: timing", cudaMemsetAsync(trial->flush, i, trial->flush_bytes, cuda->stream));
        if (rc == BACKEND_OK)
            rc = time_runs(cuda, trial, algo, 1, milliseconds);
    }
    return rc;
}

/* The index of the fastest candidate, or a negative code: all are run a little, and those that come near the fastest again. A candidate
 * that cuBLASLt refuses to run is passed over. */
static int fastest(backend_cuda_t *cuda, const cuda_product_plan_t *plan, const cublasLtMatmulHeuristicResult_t *candidates,
                   int count, const cuda_product_t *product)
{
    trial_t trial = {.plan = plan, .product = product};
    float milliseconds[CANDIDATES_MOST], best_ms = FLT_MAX;
    int best = -1, rc = trial_open(cuda, &trial), refused = BACKEND_OK;

    for (int i = 0; rc == BACKEND_OK && i < count; i++) {
        milliseconds[i] = FLT_MAX;
        rc = time_candidate(cuda, &trial, &candidates[i].algo, FIRST_RUNS, &milliseconds[i]);
        if (milliseconds[i] < best_ms)
            best_ms = milliseconds[i];
        if (rc == BACKEND_ERR_UNSUPPORTED) {
            refused = rc;
            rc = BACKEND_OK;
        }
    }
    for (int i = 0; rc == BACKEND_OK && i < count; i++) {
        if (milliseconds[i] == FLT_MAX || milliseconds[i] > best_ms * NEAR)
            continue;
        rc = time_candidate(cuda, &trial, &candidates[i].algo, LAST_RUNS, &milliseconds[i]);
        if (best < 0 || milliseconds[i] < milliseconds[best])
            best = i;
    }
    trial_close(&trial);
    if (rc < 0)
        return rc;
    return best >= 0 ? best : refused;
}

/* What an earlier process chose, if cuBLASLt still takes it. */
static bool remembered(backend_cuda_t *cuda, cuda_product_plan_t *plan)
{
    cublasLtMatmulHeuristicResult_t result;

    return cuda_choices_find(cuda->choices, &plan->key, &plan->algo) &&
           cublasLtMatmulAlgoCheck(cuda->lt, plan->desc, plan->w, plan->x, plan->residual, plan->y, &plan->algo, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= workspace_bytes;
}

static int time_algorithms(backend_cuda_t *cuda, cuda_product_plan_t *plan, const cuda_product_t *product)
{
    cublasLtMatmulHeuristicResult_t candidates[CANDIDATES_MOST];
    cublasLtMatmulPreference_t preference = NULL;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } settings[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof workspace_bytes},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &plan->key.align_w, sizeof plan->key.align_w},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &plan->key.align_x, sizeof plan->key.align_x},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &plan->key.align_residual, sizeof plan->key.align_residual},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &plan->key.align_y, sizeof plan->key.align_y},
    };
    int count = 0, chosen = 0, rc = lt_check("preference", cublasLtMatmulPreferenceCreate(&preference));

    for (size_t i = 0; rc == BACKEND_OK && i < sizeof settings / sizeof *settings; i++)
        rc = lt_check("preference",
                      cublasLtMatmulPreferenceSetAttribute(preference, settings[i].name, settings[i].value, settings[i].bytes));
    if (rc == BACKEND_OK)
        rc = lt_check("heuristic", cublasLtMatmulAlgoGetHeuristic(cuda->lt, plan->desc, plan->w, plan->x, plan->residual, plan->y,
                                                                  preference, CANDIDATES_MOST, candidates, &count));
    if (rc == BACKEND_OK && count == 0)
        rc = error_set(BACKEND_ERR_UNSUPPORTED, "linear: cuBLASLt has no algorithm for %lld rows, %lld to %lld",
                       (long long)product->rows, (long long)product->in, (long long)product->out);
    if (rc == BACKEND_OK && count > 1 && (rc = chosen = fastest(cuda, plan, candidates, count, product)) == BACKEND_ERR_MEMORY)
        rc = chosen = 0; /* no room to measure: the library's first choice */
    if (rc >= 0) {
        plan->algo = candidates[chosen].algo;
        cuda_choices_keep(cuda->choices, &plan->key, &plan->algo);
    }
    if (preference != NULL)
        cublasLtMatmulPreferenceDestroy(preference);
    return rc < 0 ? rc : BACKEND_OK;
}

/* ---- plans ------------------------------------------------------------------------------------------------------------------- */

static void plan_free(cuda_product_plan_t *plan)
{
    cublasLtMatrixLayout_t layouts[] = {plan->w, plan->x, plan->residual, plan->y};

    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i] != NULL)
            cublasLtMatrixLayoutDestroy(layouts[i]);
    if (plan->desc != NULL)
        cublasLtMatmulDescDestroy(plan->desc);
    free(plan);
}

static cudaDataType_t data_type(backend_dtype_t dtype)
{
    return dtype == BACKEND_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* A batch of products of `in` columns each: x and W move on by as many, y by all its rows. */
static int describe_parts(const cuda_product_plan_t *plan, const cuda_product_t *product)
{
    int64_t in = product->in / product->parts, y = product->rows * product->y_stride;
    const struct {
        cublasLtMatrixLayout_t layout;
        int64_t stride;
    } each[] = {{plan->w, in}, {plan->x, in}, {plan->residual, y}, {plan->y, y}};
    int32_t count = (int32_t)product->parts;
    int rc = BACKEND_OK;

    for (size_t i = 0; rc == BACKEND_OK && i < sizeof each / sizeof *each; i++) {
        rc = lt_check("count of parts",
                      cublasLtMatrixLayoutSetAttribute(each[i].layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
        if (rc == BACKEND_OK)
            rc = lt_check("stride of parts",
                          cublasLtMatrixLayoutSetAttribute(each[i].layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                           &each[i].stride, sizeof each[i].stride));
    }
    return rc;
}

static int describe(cuda_product_plan_t *plan, const cuda_product_t *product)
{
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = epilogue_of(product);
    cudaDataType_t type = data_type(product->dtype), y_type = data_type(product->y_dtype);
    uint64_t in = (uint64_t)(product->in / product->parts), out = (uint64_t)product->out, rows = (uint64_t)product->rows;
    int rc = lt_check("descriptor", cublasLtMatmulDescCreate(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));

    if (rc == BACKEND_OK)
        rc = lt_check("transpose",
                      cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    if (rc == BACKEND_OK && epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        rc = lt_check("epilogue",
                      cublasLtMatmulDescSetAttribute(plan->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (rc == BACKEND_OK && product->bias != NULL)
        rc = set_bias(plan, product->bias);
    if (rc == BACKEND_OK)
        rc = lt_check("layout of W", cublasLtMatrixLayoutCreate(&plan->w, type, in, out, product->in));
    if (rc == BACKEND_OK)
        rc = lt_check("layout of x", cublasLtMatrixLayoutCreate(&plan->x, type, in, rows, product->x_stride));
    if (rc == BACKEND_OK)
        rc = lt_check("layout of the residual", cublasLtMatrixLayoutCreate(&plan->residual, y_type, out, rows, product->y_stride));
    if (rc == BACKEND_OK)
        rc = lt_check("layout of y", cublasLtMatrixLayoutCreate(&plan->y, y_type, out, rows, product->y_stride));
    return rc < 0 || product->parts == 1 ? rc : describe_parts(plan, product);
}

static int plan_make(backend_cuda_t *cuda, const cuda_product_key_t *key, const cuda_product_t *product, cuda_product_plan_t **out)
{
    cuda_product_plan_t *plan = calloc(1, sizeof *plan);
    int rc;

    if (plan == NULL)
        return error_set(BACKEND_ERR_MEMORY, "linear: no memory for a plan");
    plan->key = *key;
    if ((rc = describe(plan, product)) < 0 || (!remembered(cuda, plan) && (rc = time_algorithms(cuda, plan, product)) < 0)) {
        plan_free(plan);
        return rc;
    }
    plan->next = cuda->plans;
    cuda->plans = plan;
    *out = plan;
    return BACKEND_OK;
}

int cuda_product(backend_cuda_t *cuda, const cuda_product_t *product)
{
    cuda_product_key_t key = key_of(product);
    cuda_product_plan_t *plan = cuda->plans;
    int rc = BACKEND_OK;

    while (plan != NULL && memcmp(&plan->key, &key, sizeof key) != 0)
        plan = plan->next;
    if (plan == NULL) {
        if (cuda->capturing)
            return error_set(BACKEND_ERR_INVALID, "linear: %lld rows, %lld to %lld: captured before it was run once",
                             (long long)product->rows, (long long)product->in, (long long)product->out);
        if ((rc = plan_make(cuda, &key, product, &plan)) < 0)
            return rc;
    }
    if (product->bias != NULL)
        rc = set_bias(plan, product->bias);
    return rc < 0 ? rc : run_plan(cuda, plan, &plan->algo, product, product->y);
}

int cuda_product_open(backend_cuda_t *cuda, const char *gpu)
{
    int rc = lt_check("opening", cublasLtCreate(&cuda->lt));

    cuda->choices = cuda_choices_open(gpu, workspace_bytes);
    return rc < 0 ? rc : cuda_allocate("workspace of the matrix products", workspace_bytes, &cuda->workspace);
}

void cuda_product_close(backend_cuda_t *cuda)
{
    while (cuda->plans != NULL) {
        cuda_product_plan_t *next = cuda->plans->next;
        plan_free(cuda->plans);
        cuda->plans = next;
    }
    cuda_choices_close(cuda->choices);
    cudaFree(cuda->workspace);
    if (cuda->lt != NULL)
        cublasLtDestroy(cuda->lt);
}
