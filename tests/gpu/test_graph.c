/* Capture and replay on the GPU: a replay gives the bytes of the eager run, takes new inputs, allocates nothing, and a shape
 * that was never run is refused. */
#include "tests/gpu/pair.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { WIDTH = 256, HIDDEN = 512, HEADS = 4, TOKENS = 8, SAMPLES = 40, STEPS = 3 };

_Static_assert(SAMPLES >= TOKENS, "the hidden states of the decode hold those of the prefill");

/* A decoder layer over `rows` rows with everything that a model's layer has, prefill and STEPS decode steps. */
typedef struct {
    int64_t series;
    backend_dtype_t dtype;
    weight_pair_t *norm, *qkv, *qkv_bias, *out, *gate_up, *gate_up_bias, *down;
    pair_t *hidden, *qkv_out, *mixed, *gated, *prefix_k, *prefix_v, *tail_k, *tail_v, *step;
    float *staged_in, *staged_out;
    backend_kv_t kv;
} layer_t;

/* Of the hidden states, which are what goes in and what comes out. */
static size_t staged_bytes(const layer_t *layer)
{
    return (size_t)(layer->series * SAMPLES * WIDTH) * sizeof(float);
}

static layer_t layer_make(int64_t series, backend_dtype_t dtype)
{
    int64_t rows = series * SAMPLES;
    layer_t layer = {.series = series, .dtype = dtype};

    layer.norm = pair_weight("norm", BACKEND_F32, 1, 0.1f, DIMS(WIDTH));
    layer.qkv = pair_weight("qkv", dtype, 0, 0.05f, DIMS(3 * WIDTH, WIDTH));
    layer.qkv_bias = pair_weight("qkv bias", BACKEND_F32, 0, 0.1f, DIMS(3 * WIDTH));
    layer.out = pair_weight("out", dtype, 0, 0.05f, DIMS(WIDTH, WIDTH));
    layer.gate_up = pair_weight("gate up", dtype, 0, 0.05f, DIMS(2 * HIDDEN, WIDTH));
    layer.gate_up_bias = pair_weight("gate up bias", BACKEND_F32, 0, 0.1f, DIMS(2 * HIDDEN));
    layer.down = pair_weight("down", dtype, 0, 0.05f, DIMS(WIDTH, HIDDEN));
    layer.hidden = pair_new("hidden", BACKEND_F32, DIMS(rows, WIDTH));
    layer.qkv_out = pair_new("qkv", dtype, DIMS(rows, 3 * WIDTH));
    layer.mixed = pair_new("mixed", dtype, DIMS(rows, WIDTH));
    layer.gated = pair_new("gated", dtype, DIMS(rows, HIDDEN));
    layer.prefix_k = pair_new("prefix k", dtype, DIMS(series, HEADS, TOKENS, WIDTH / HEADS));
    layer.prefix_v = pair_new("prefix v", dtype, DIMS(series, HEADS, TOKENS, WIDTH / HEADS));
    layer.tail_k = pair_new("tail k", dtype, DIMS(rows, HEADS, STEPS, WIDTH / HEADS));
    layer.tail_v = pair_new("tail v", dtype, DIMS(rows, HEADS, STEPS, WIDTH / HEADS));
    layer.step = pair_new("step", BACKEND_I32, DIMS(1));
    layer.kv = (backend_kv_t){layer.prefix_k->view[ON_GPU], layer.prefix_v->view[ON_GPU], layer.tail_k->view[ON_GPU],
                              layer.tail_v->view[ON_GPU]};
    pair_ok(backend_host_alloc(pair_backend[ON_GPU], staged_bytes(&layer), (void **)&layer.staged_in));
    pair_ok(backend_host_alloc(pair_backend[ON_GPU], staged_bytes(&layer), (void **)&layer.staged_out));
    return layer;
}

static void layer_free(layer_t *layer)
{
    backend_host_free(pair_backend[ON_GPU], layer->staged_in);
    backend_host_free(pair_backend[ON_GPU], layer->staged_out);
    pair_test_end(NULL);
}

/* Enqueues the layer over the first TOKENS hidden states of every series, or over one of every path. Returns the first failure. */
static int layer_pass(layer_t *layer, bool prefill)
{
    backend_t *gpu = pair_backend[ON_GPU];
    int64_t rows = layer->series * (prefill ? 1 : SAMPLES), tokens = prefill ? TOKENS : 1;
    backend_tensor_t *hidden = &layer->hidden->view[ON_GPU];
    backend_norm_t norm = {BACKEND_NORM_RMS, &layer->norm->side[ON_GPU], NULL, 1e-6f};
    backend_linear_t qkv = {.x = *hidden,
                            .rows = rows * tokens,
                            .norm = norm,
                            .weight = &layer->qkv->side[ON_GPU],
                            .bias = &layer->qkv_bias->side[ON_GPU],
                            .y = layer->qkv_out->view[ON_GPU]};
    backend_attention_t attention = {.mode = prefill ? BACKEND_ATTENTION_PREFILL : BACKEND_ATTENTION_DECODE,
                                     .qkv = layer->qkv_out->view[ON_GPU],
                                     .out = layer->mixed->view[ON_GPU],
                                     .rows = rows,
                                     .tokens = tokens,
                                     .samples = prefill ? 1 : SAMPLES,
                                     .variates = 1,
                                     .heads = HEADS,
                                     .head_dim = WIDTH / HEADS,
                                     .scale = 0.1f,
                                     .kv = &layer->kv,
                                     .step = &layer->step->view[ON_GPU]};
    backend_linear_t out = {
        .x = layer->mixed->view[ON_GPU], .rows = rows * tokens, .weight = &layer->out->side[ON_GPU], .y = *hidden};
    backend_linear_t gate_up = {.x = *hidden,
                                .rows = rows * tokens,
                                .norm = norm,
                                .weight = &layer->gate_up->side[ON_GPU],
                                .bias = &layer->gate_up_bias->side[ON_GPU],
                                .activation = BACKEND_ACT_SWIGLU,
                                .y = layer->gated->view[ON_GPU]};
    backend_linear_t down = {.x = layer->gated->view[ON_GPU],
                             .rows = rows * tokens,
                             .weight = &layer->down->side[ON_GPU],
                             .residual = hidden,
                             .y = *hidden};
    int rc;

    if ((rc = backend_linear(gpu, &qkv)) < 0 || (rc = backend_attention(gpu, &attention)) < 0 ||
        (rc = backend_linear(gpu, &out)) < 0 || (rc = backend_linear(gpu, &gate_up)) < 0)
        return rc;
    return backend_linear(gpu, &down);
}

static int layer_run(layer_t *layer)
{
    backend_t *gpu = pair_backend[ON_GPU];
    const backend_tensor_t *hidden = &layer->hidden->view[ON_GPU], *step = &layer->step->view[ON_GPU];
    int rc;

    if ((rc = backend_copy_in(gpu, hidden, layer->staged_in)) < 0 || (rc = backend_step_set(gpu, step, 0)) < 0 ||
        (rc = layer_pass(layer, true)) < 0)
        return rc;
    for (int i = 0; i < STEPS; i++)
        if ((rc = layer_pass(layer, false)) < 0 || (rc = backend_step_advance(gpu, step)) < 0)
            return rc;
    return backend_copy_out(gpu, hidden, layer->staged_out);
}

static void fill_input(layer_t *layer)
{
    for (size_t i = 0; i < staged_bytes(layer) / sizeof(float); i++)
        layer->staged_in[i] = (float)random_normal();
}

static void run_eagerly(layer_t *layer, float *result)
{
    memset(layer->staged_out, 0, staged_bytes(layer));
    pair_ok(layer_run(layer));
    pair_ok(backend_synchronize(pair_backend[ON_GPU]));
    memcpy(result, layer->staged_out, staged_bytes(layer));
}

static backend_graph_t *capture(layer_t *layer)
{
    backend_graph_t *graph = NULL;

    pair_ok(backend_graph_begin(pair_backend[ON_GPU]));
    pair_ok(layer_run(layer));
    pair_ok(backend_graph_end(pair_backend[ON_GPU], &graph));
    return graph;
}

static void replay(layer_t *layer, backend_graph_t *graph)
{
    memset(layer->staged_out, 0, staged_bytes(layer));
    pair_ok(backend_graph_launch(pair_backend[ON_GPU], graph));
    pair_ok(backend_synchronize(pair_backend[ON_GPU]));
}

static void check_replays(int64_t series, backend_dtype_t dtype, int rounds)
{
    layer_t layer = layer_make(series, dtype);
    float *eager = malloc(staged_bytes(&layer));
    size_t free_before, free_after, total;
    backend_graph_t *graph;
    uint64_t allocations;

    assert_non_null(eager);
    fill_input(&layer);
    run_eagerly(&layer, eager);
    graph = capture(&layer);
    replay(&layer, graph);
    allocations = backend_allocation_count(pair_backend[ON_GPU]);
    pair_ok(backend_memory(pair_backend[ON_GPU], &free_before, &total));
    for (int round = 0; round < rounds; round++) {
        fill_input(&layer);
        run_eagerly(&layer, eager);
        replay(&layer, graph);
        assert_memory_equal(eager, layer.staged_out, staged_bytes(&layer));
    }
    pair_ok(backend_memory(pair_backend[ON_GPU], &free_after, &total));
    assert_int_equal(backend_allocation_count(pair_backend[ON_GPU]), allocations);
    assert_int_equal(free_after, free_before);
    pair_guards(layer.hidden);
    backend_graph_free(pair_backend[ON_GPU], graph);
    free(eager);
    layer_free(&layer);
}

static void a_replay_gives_the_bytes_of_the_eager_run_and_allocates_nothing(void **state)
{
    (void)state;
    check_replays(1, BACKEND_BF16, 50);
    check_replays(1, BACKEND_F32, 20);
    check_replays(30, BACKEND_BF16, 20);
    check_replays(30, BACKEND_F32, 10);
}

/* Scratch memory that a later, larger shape replaces must stay for the graphs that point into it. */
static void an_older_graph_still_works_after_a_larger_shape_was_opened(void **state)
{
    layer_t small = layer_make(20, BACKEND_BF16);
    float *expected = malloc(staged_bytes(&small));
    backend_graph_t *graph;

    (void)state;
    assert_non_null(expected);
    fill_input(&small);
    run_eagerly(&small, expected);
    graph = capture(&small);

    layer_t large = layer_make(200, BACKEND_BF16);
    float *ignored = malloc(staged_bytes(&large));
    assert_non_null(ignored);
    fill_input(&large);
    run_eagerly(&large, ignored);
    free(ignored);

    replay(&small, graph);
    assert_memory_equal(expected, small.staged_out, staged_bytes(&small));
    backend_graph_free(pair_backend[ON_GPU], graph);
    free(expected);
    backend_host_free(pair_backend[ON_GPU], large.staged_in);
    backend_host_free(pair_backend[ON_GPU], large.staged_out);
    layer_free(&small);
}

static void capturing_a_shape_that_was_never_run_is_refused(void **state)
{
    enum { ROWS = 777, IN = 136, OUT = 264 };
    pair_t *x = pair_random("x", BACKEND_BF16, 1, DIMS(ROWS, IN)), *y = pair_new("y", BACKEND_F32, DIMS(ROWS, OUT));
    weight_pair_t *weight = pair_weight("weight", BACKEND_BF16, 0, 1, DIMS(OUT, IN));
    backend_linear_t op = {.x = x->view[ON_GPU], .rows = ROWS, .weight = &weight->side[ON_GPU], .y = y->view[ON_GPU]};
    backend_graph_t *graph = NULL;

    (void)state;
    pair_ok(backend_graph_begin(pair_backend[ON_GPU]));
    assert_int_equal(backend_linear(pair_backend[ON_GPU], &op), BACKEND_ERR_INVALID);
    assert_non_null(strstr(error_text(), "linear: 777 rows, 136 to 264: captured before it was run once"));
    pair_ok(backend_graph_end(pair_backend[ON_GPU], &graph));
    backend_graph_free(pair_backend[ON_GPU], graph);
    pair_ok(backend_linear(pair_backend[ON_GPU], &op));
    pair_ok(backend_synchronize(pair_backend[ON_GPU]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(a_replay_gives_the_bytes_of_the_eager_run_and_allocates_nothing),
        pair_test(an_older_graph_still_works_after_a_larger_shape_was_opened),
        pair_test(capturing_a_shape_that_was_never_run_is_refused),
    };

    return pair_no_gpu() ? PAIR_SKIPPED : cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
