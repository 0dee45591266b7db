/* A flow's two ends on the GPU against the CPU: noise and drift, paths and medians. */
#include "tests/gpu/pair.h"

static const struct {
    int64_t series, variates, samples, width;
} cases[] = {{1, 1, 20, 720}, {2, 3, 5, 48}, {3, 2, 4, 1}, {1, 1, 1, 300}, {1, 2, 300, 33}};
enum { CASES = sizeof cases / sizeof *cases };

static void start(int which, bool given)
{
    int64_t series = cases[which].series, variates = cases[which].variates, samples = cases[which].samples,
            width = cases[which].width;
    int64_t rows = series * variates * samples, stride = width + 5, first = 16, noise_stride = first + width + 3;
    pair_t *keys = pair_new("keys", BACKEND_U64, DIMS(series)), *x = pair_new("x", BACKEND_F32, DIMS(rows, stride));
    pair_t *drift = pair_new("drift", BACKEND_F32, DIMS(rows, stride));
    pair_t *noise = pair_random("noise", BACKEND_F32, 1, DIMS(rows, noise_stride));
    weight_pair_t *bias = pair_weight("bias", BACKEND_F32, 0, 1, DIMS(width));
    uint64_t key[8];

    for (int64_t i = 0; i < series; i++)
        key[i] = 0x123456789abcdefu * (uint64_t)(i + 1);
    pair_write(keys, key);
    pair_normal(x, 0, 1); /* what lies between the rows stays */
    pair_normal(drift, 0, 1);
    EACH_SIDE(side)
    {
        pair_ok(backend_flow_start(pair_backend[side], &(backend_flow_start_t){.rows = rows,
                                                                               .width = width,
                                                                               .samples = samples,
                                                                               .variates = variates,
                                                                               .keys = &keys->view[side],
                                                                               .first = first,
                                                                               .given = given ? &noise->view[side] : NULL,
                                                                               .given_stride = noise_stride,
                                                                               .bias = &bias->side[side],
                                                                               .steps = 50,
                                                                               .x = x->view[side],
                                                                               .drift = drift->view[side],
                                                                               .stride = stride}));
    }
    pair_compare(x, given ? 0 : 1e-6);
    pair_compare(drift, 1e-6);
}

static void noise_and_drift_match_the_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        start(i, false);
        start(i, true);
    }
}

static void paths_and_medians_match_the_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        int64_t width = cases[i].width, groups = cases[i].series * cases[i].variates, rows = groups * cases[i].samples;
        int64_t stride = width + 5, path_stride = width + 2;
        pair_t *x = pair_random("x", BACKEND_F32, 1, DIMS(rows, stride)),
               *median = pair_new("median", BACKEND_F32, DIMS(groups, width));
        pair_t *paths = pair_random("paths", BACKEND_F32, 1, DIMS(rows, path_stride));
        pair_t *loc = pair_random("loc", BACKEND_F32, 9, DIMS(groups)), *scale = pair_random("scale", BACKEND_F32, 2, DIMS(groups));

        EACH_SIDE(side)
        {
            pair_ok(backend_flow_finish(pair_backend[side], &(backend_flow_finish_t){.x = x->view[side],
                                                                                     .stride = stride,
                                                                                     .rows = rows,
                                                                                     .width = width,
                                                                                     .samples = cases[i].samples,
                                                                                     .variates = cases[i].variates,
                                                                                     .loc = loc->view[side],
                                                                                     .scale = scale->view[side],
                                                                                     .paths = paths->view[side],
                                                                                     .path_stride = path_stride,
                                                                                     .median = &median->view[side]}));
        }
        pair_compare(paths, 1e-6);
        pair_compare(median, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        pair_test(noise_and_drift_match_the_cpu),
        pair_test(paths_and_medians_match_the_cpu),
    };
    return pair_no_gpu() ? PAIR_SKIPPED : cmocka_run_group_tests(tests, pair_setup, pair_teardown);
}
