#include "tests/gpu/pair.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { GUARD_BYTES = 512, MADE_MOST = 64, POISON = 0xff }; /* 0xff..: NaN in every float format */

backend_t *pair_backend[SIDES];

static pair_t *made[MADE_MOST];
static weight_pair_t *made_weights[MADE_MOST];
static int made_count, made_weight_count;
static uint64_t random_state = 42;

/* ---- random numbers ---------------------------------------------------------------------------------------------------------- */

/* SplitMix64. */
double random_uniform(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return ((double)((z ^ z >> 31) >> 12) + 0.5) * 0x1p-52;
}

double random_normal(void)
{
    double radius = sqrt(-2 * log(random_uniform()));
    return radius * cos(6.283185307179586 * random_uniform());
}

/* ---- the backends ------------------------------------------------------------------------------------------------------------ */

void pair_ok(int rc)
{
    if (rc != BACKEND_OK)
        fail_msg("%d: %s", rc, error_text());
}

bool pair_no_gpu(void)
{
    if (backend_device_count(BACKEND_CUDA) > 0)
        return false;
    printf("skipped: no CUDA device\n");
    return true;
}

bool pair_is_emulated(void)
{
    return strstr(backend_name(pair_backend[ON_GPU]), "emulated") != NULL;
}

int pair_setup(void **state)
{
    (void)state;
    pair_ok(backend_open(&(backend_options_t){.kind = BACKEND_CPU, .threads = 2}, &pair_backend[ON_CPU]));
    pair_ok(backend_open(&(backend_options_t){.kind = BACKEND_CUDA}, &pair_backend[ON_GPU]));
    return 0;
}

int pair_teardown(void **state)
{
    (void)state;
    EACH_SIDE(side)
    {
        backend_close(pair_backend[side]);
        pair_backend[side] = NULL;
    }
    return 0;
}

int pair_test_begin(void **state)
{
    (void)state;
    random_state = 42;
    return 0;
}

int pair_test_end(void **state)
{
    (void)state;
    for (int i = 0; i < made_count; i++) {
        EACH_SIDE(side) backend_free(pair_backend[side], &made[i]->whole[side]);
        free(made[i]);
    }
    for (int i = 0; i < made_weight_count; i++) {
        EACH_SIDE(side) backend_weight_free(pair_backend[side], &made_weights[i]->side[side]);
        free(made_weights[i]);
    }
    made_count = made_weight_count = 0;
    return 0;
}

/* ---- values ------------------------------------------------------------------------------------------------------------------ */

static uint16_t to_bf16(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;

    memcpy(&result, &bits, sizeof result);
    return result;
}

static bool is_float(const pair_t *pair)
{
    return pair->dtype == BACKEND_F32 || pair->dtype == BACKEND_BF16;
}

/* ---- pairs ------------------------------------------------------------------------------------------------------------------- */

pair_t *pair_new(const char *name, backend_dtype_t dtype, int rank, const int64_t *dim)
{
    pair_t *pair = calloc(1, sizeof *pair);

    assert_non_null(pair);
    assert_in_range(made_count, 0, MADE_MOST - 1);
    made[made_count++] = pair;
    snprintf(pair->name, sizeof pair->name, "%s", name);
    pair->dtype = dtype;
    EACH_SIDE(side)
    {
        backend_tensor_t *view = &pair->view[side];
        int64_t bytes;
        void *poison;

        view->dtype = side == ON_CPU && dtype == BACKEND_BF16 ? BACKEND_F32 : dtype;
        view->rank = rank;
        memcpy(view->dim, dim, (size_t)rank * sizeof *dim);
        bytes = backend_tensor_elements(view) * (int64_t)backend_dtype_bytes(view->dtype) + 2 * GUARD_BYTES;
        pair_ok(backend_alloc(pair_backend[side], name, BACKEND_U8, 1, &bytes, &pair->whole[side]));
        view->data = (uint8_t *)pair->whole[side].data + GUARD_BYTES;
        poison = malloc((size_t)bytes);
        assert_non_null(poison);
        memset(poison, POISON, (size_t)bytes);
        pair_ok(backend_write(pair_backend[side], &pair->whole[side], poison));
        free(poison);
    }
    return pair;
}

void pair_write(pair_t *pair, const void *values)
{
    int64_t elements = backend_tensor_elements(&pair->view[ON_CPU]);

    if (pair->dtype != BACKEND_BF16) {
        EACH_SIDE(side) pair_ok(backend_write(pair_backend[side], &pair->view[side], values));
        return;
    }
    uint16_t *narrow = malloc((size_t)elements * sizeof *narrow);
    float *rounded = malloc((size_t)elements * sizeof *rounded);
    assert_true(narrow != NULL && rounded != NULL);
    for (int64_t i = 0; i < elements; i++) {
        narrow[i] = to_bf16(((const float *)values)[i]);
        rounded[i] = from_bf16(narrow[i]);
    }
    pair_ok(backend_write(pair_backend[ON_CPU], &pair->view[ON_CPU], rounded));
    pair_ok(backend_write(pair_backend[ON_GPU], &pair->view[ON_GPU], narrow));
    free(narrow);
    free(rounded);
}

static float *normal_values(int64_t elements, float mean, float deviation)
{
    float *values = malloc((size_t)elements * sizeof *values);

    assert_non_null(values);
    for (int64_t i = 0; i < elements; i++)
        values[i] = mean + deviation * (float)random_normal();
    return values;
}

void pair_normal(pair_t *pair, float mean, float deviation)
{
    float *values = normal_values(backend_tensor_elements(&pair->view[ON_CPU]), mean, deviation);

    pair_write(pair, values);
    free(values);
}

pair_t *pair_random(const char *name, backend_dtype_t dtype, float deviation, int rank, const int64_t *dim)
{
    pair_t *pair = pair_new(name, dtype, rank, dim);

    pair_normal(pair, 0, deviation);
    return pair;
}

weight_pair_t *pair_weight(const char *name, backend_dtype_t dtype, float mean, float deviation, int rank, const int64_t *dim)
{
    weight_pair_t *weight = calloc(1, sizeof *weight);
    int64_t elements = 1;
    float *values;

    assert_non_null(weight);
    assert_in_range(made_weight_count, 0, MADE_MOST - 1);
    made_weights[made_weight_count++] = weight;
    for (int i = 0; i < rank; i++)
        elements *= dim[i];
    values = normal_values(elements, mean, deviation);
    pair_ok(backend_weight_upload(pair_backend[ON_GPU], name, dtype, rank, dim, values, &weight->side[ON_GPU]));
    for (int64_t i = 0; dtype == BACKEND_BF16 && i < elements; i++)
        values[i] = from_bf16(to_bf16(values[i]));
    pair_ok(backend_weight_upload(pair_backend[ON_CPU], name, BACKEND_F32, rank, dim, values, &weight->side[ON_CPU]));
    free(values);
    return weight;
}

/* ---- comparing --------------------------------------------------------------------------------------------------------------- */

void pair_read(const pair_t *pair, int side, void *into)
{
    int64_t elements = backend_tensor_elements(&pair->view[side]);

    pair_ok(backend_read(pair_backend[side], &pair->view[side], into));
    if (pair->view[side].dtype == BACKEND_BF16) /* widened in place, from the end */
        for (int64_t i = elements - 1; i >= 0; i--) {
            uint16_t narrow;

            memcpy(&narrow, (const uint8_t *)into + i * 2, sizeof narrow);
            ((float *)into)[i] = from_bf16(narrow);
        }
}

void pair_guards(const pair_t *pair)
{
    EACH_SIDE(side)
    {
        int64_t bytes = backend_tensor_elements(&pair->whole[side]);
        uint8_t *all = malloc((size_t)bytes);

        assert_non_null(all);
        pair_ok(backend_read(pair_backend[side], &pair->whole[side], all));
        for (int64_t i = 0; i < GUARD_BYTES; i++)
            if (all[i] != POISON || all[bytes - 1 - i] != POISON)
                fail_msg("%s: the %s wrote outside of it", pair->name, side == ON_CPU ? "CPU" : "GPU");
        free(all);
    }
}

void pair_compare(const pair_t *pair, double tolerance)
{
    int64_t elements = backend_tensor_elements(&pair->view[ON_CPU]), worst = 0;
    double difference = 0, norm = 0, most = -1;
    void *values[SIDES];

    EACH_SIDE(side)
    {
        values[side] = malloc((size_t)elements * sizeof(double));
        assert_non_null(values[side]);
        pair_read(pair, side, values[side]);
    }
    for (int64_t i = 0; i < elements; i++) {
        double cpu = is_float(pair) ? ((float *)values[ON_CPU])[i] : ((double *)values[ON_CPU])[i];
        double gpu = is_float(pair) ? ((float *)values[ON_GPU])[i] : ((double *)values[ON_GPU])[i];
        double off = cpu == gpu ? 0 : fabs(cpu - gpu); /* equal infinities are equal */

        if (isnan(off))
            fail_msg("%s[%lld]: CPU %g, GPU %g", pair->name, (long long)i, cpu, gpu);
        difference += off * off;
        norm += isfinite(cpu) ? cpu * cpu : 0;
        if (off > most) {
            most = off;
            worst = i;
        }
    }
    if (!(sqrt(difference) <= tolerance * sqrt(norm)))
        fail_msg("%s: off by %.3g of its norm, expected %.3g; worst: [%lld] CPU %g, GPU %g", pair->name, sqrt(difference / norm),
                 tolerance, (long long)worst, is_float(pair) ? ((float *)values[ON_CPU])[worst] : ((double *)values[ON_CPU])[worst],
                 is_float(pair) ? ((float *)values[ON_GPU])[worst] : ((double *)values[ON_GPU])[worst]);
    EACH_SIDE(side) free(values[side]);
    pair_guards(pair);
}
