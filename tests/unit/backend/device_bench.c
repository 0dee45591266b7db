#include "tests/unit/backend/device_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MOST = 64, MEMORY_MOST = 256, GUARD_BYTES = 64, GUARD = 0xA5 };

static backend_t *backend;
static uint64_t state;
static backend_tensor_t whole[TENSORS_MOST];
static int tensors;
static void *memory[MEMORY_MOST];
static int memories;

static void *keep(void *pointer)
{
    assert_non_null(pointer);
    assert_true(memories < MEMORY_MOST);
    return memory[memories++] = pointer;
}

backend_t *bench_open(uint64_t seed)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};

    assert_int_equal(backend_open(&options, &backend), BACKEND_OK);
    state = 88172645463325252u + seed;
    return backend;
}

static void check_guards(const backend_tensor_t *tensor)
{
    size_t bytes = (size_t)backend_tensor_elements(tensor);
    unsigned char *raw = malloc(bytes);

    assert_non_null(raw);
    assert_int_equal(backend_read(backend, tensor, raw), BACKEND_OK);
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        assert_int_equal(raw[i], GUARD);
        assert_int_equal(raw[bytes - 1 - i], GUARD);
    }
    free(raw);
}

void bench_close(void)
{
    for (int i = 0; i < tensors; i++)
        check_guards(&whole[i]);
    for (int i = 0; i < tensors; i++)
        backend_free(backend, &whole[i]);
    for (int i = 0; i < memories; i++)
        free(memory[i]);
    tensors = memories = 0;
    assert_int_equal(backend_allocated_bytes(backend), 0);
    backend_close(backend);
}

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

float bench_random(void)
{
    return (float)(next() >> 40) * 0x1p-23f - 1.0f;
}

int64_t bench_pick(int64_t least, int64_t most)
{
    return least + (int64_t)(next() % (uint64_t)(most - least + 1));
}

float *bench_numbers(int64_t count)
{
    float *numbers = keep(malloc((size_t)count * sizeof *numbers));

    for (int64_t i = 0; i < count; i++)
        numbers[i] = bench_random();
    return numbers;
}

backend_tensor_t bench_any(backend_dtype_t dtype, const void *values, int64_t count)
{
    size_t inner = (size_t)count * backend_dtype_bytes(dtype), bytes = inner + 2 * GUARD_BYTES;
    unsigned char *raw = keep(malloc(bytes));
    backend_tensor_t view = {.dtype = dtype, .rank = 1, .dim = {count}};

    assert_true(tensors < TENSORS_MOST);
    memset(raw, GUARD, bytes);
    if (values != NULL)
        memcpy(raw + GUARD_BYTES, values, inner);
    assert_int_equal(backend_alloc(backend, "guarded", BACKEND_U8, 1, (int64_t[]){(int64_t)bytes}, &whole[tensors]), BACKEND_OK);
    assert_int_equal(backend_write(backend, &whole[tensors], raw), BACKEND_OK);
    view.data = (char *)whole[tensors++].data + GUARD_BYTES;
    return view;
}

backend_tensor_t bench_f32(const float *values, int64_t count)
{
    return bench_any(BACKEND_F32, values, count);
}

backend_tensor_t bench_i32(const int32_t *values, int64_t count)
{
    return bench_any(BACKEND_I32, values, count);
}

backend_tensor_t bench_shaped(backend_tensor_t tensor, int rank, const int64_t *dim)
{
    tensor.rank = rank;
    memcpy(tensor.dim, dim, (size_t)rank * sizeof *dim);
    return tensor;
}

backend_weight_t bench_weight(const float *values, int64_t out, int64_t in)
{
    backend_tensor_t tensor = bench_f32(values, in > 0 ? out * in : out);
    return (backend_weight_t){bench_shaped(tensor, in > 0 ? 2 : 1, (int64_t[]){out, in})};
}

float *bench_read(const backend_tensor_t *tensor)
{
    float *values = keep(malloc((size_t)backend_tensor_elements(tensor) * sizeof *values));

    assert_int_equal(backend_read(backend, tensor, values), BACKEND_OK);
    return values;
}

void bench_close_at(const float *got, const double *wanted, int64_t count, double bound, const char *file, int line)
{
    double squares = 0, rms;

    for (int64_t i = 0; i < count; i++)
        squares += wanted[i] * wanted[i];
    rms = fmax(sqrt(squares / (double)count), 1e-6);
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)got[i] - wanted[i]) <= bound * rms)) {
            print_error("element %lld is %.9g, expected %.9g (rms %.3g)\n", (long long)i, (double)got[i], wanted[i], rms);
            _fail(file, line);
        }
}
