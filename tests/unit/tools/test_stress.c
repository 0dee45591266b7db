/* The stress test's parts: what it opens, what it feeds in, how it compares. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/random_series.h"
#include "tools/stress/stress.h"

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-9;
}

static void difference_counts_bytes_and_measures_values(void **state)
{
    const float a[] = {1, 2, 3, 0.0f, NAN}, b[] = {1, 2.5f, 3, -0.0f, NAN};
    stress_difference_t difference = stress_compare(a, b, 5);

    (void)state;
    assert_int_equal(difference.differing, 2); /* 2.5 for 2, and -0 for 0 */
    assert_true(near(difference.most, 0.5));
    difference = stress_compare(a, a, 5);
    assert_int_equal(difference.differing, 0);
}

static void a_value_that_is_no_number_is_infinitely_far(void **state)
{
    const float a[] = {1, 2}, b[] = {NAN, 2.5f};
    stress_difference_t difference = stress_compare(a, b, 2);

    (void)state;
    assert_int_equal(difference.differing, 2);
    assert_true(isinf(difference.most));
}

static void errors_and_scale_are_those_of_the_textbook(void **state)
{
    const float forecast[] = {1, 2, 3, 4}, truth[] = {2, 2, 1, 4}, flat[] = {5, 5, 5};

    (void)state;
    assert_true(near(stress_mae(forecast, truth, 4, 1), 0.75));
    assert_true(near(stress_mae(forecast, truth, 4, 3), 0.25));
    assert_true(near(stress_scale(forecast, 4), sqrt(1.25)));
    assert_true(near(stress_scale(flat, 3), 1));
}

static void a_configuration_gives_every_bucket_of_every_model(void **state)
{
    static const char text[] = "[feed.f]\ntype = csv\npath = f.csv\n"
                               "[model.one]\npath = naive\nbuckets = 1, 8\n"
                               "[model.two]\npath = naive\nfields = close,volume\ncontext = 100\nhorizon = 7\nsamples = 3\n"
                               "precision = bf16\npublish_samples = on\nquantiles = 0.25, 0.75\nbuckets = 4\n";
    stress_plan_t plan;
    model_shape_t shapes[STRESS_SHAPES_MOST];
    const model_info_t one_field = {.family = "naive"}, whole_bars = {.whole_bars = true};
    config_t *config;

    (void)state;
    assert_int_equal(config_parse(text, "test", &config), 0);
    stress_plan_config(config, BACKEND_F32, &plan);
    assert_int_equal(plan.model_count, 2);
    assert_string_equal(plan.models[0].name, "one");
    assert_int_equal(plan.models[0].precision, BACKEND_F32);
    assert_int_equal(stress_plan_shapes(&plan.models[0], &one_field, shapes), 2);
    assert_int_equal(shapes[0].batch, 1);
    assert_int_equal(shapes[0].variates, 1);
    assert_int_equal(shapes[1].batch, 8);
    assert_true(shapes[0].discard_samples);
    assert_int_equal(stress_plan_shapes(&plan.models[0], &whole_bars, shapes), 2);
    assert_int_equal(shapes[0].variates, MODEL_WHOLE_BAR);
    assert_int_equal(plan.models[1].precision, BACKEND_BF16);
    assert_int_equal(stress_plan_shapes(&plan.models[1], &one_field, shapes), 1);
    assert_int_equal(shapes[0].batch, 4);
    assert_int_equal(shapes[0].variates, 2);
    assert_int_equal(shapes[0].context, 100);
    assert_int_equal(shapes[0].horizon, 7);
    assert_int_equal(shapes[0].samples, 3);
    assert_int_equal(shapes[0].quantile_count, 2);
    assert_true(near((double)shapes[0].quantiles[1], 0.75));
    assert_int_equal(shapes[0].precision, BACKEND_BF16);
    assert_false(shapes[0].discard_samples);
    config_free(config);
}

static void a_model_alone_gets_its_directory_as_a_name(void **state)
{
    stress_plan_t plan;
    model_shape_t shapes[STRESS_SHAPES_MOST];

    (void)state;
    stress_plan_model("some/where/tiny", BACKEND_F32, &plan);
    assert_int_equal(plan.model_count, 1);
    assert_string_equal(plan.models[0].name, "tiny");
    assert_string_equal(plan.models[0].path, "some/where/tiny");
    assert_true(stress_plan_shapes(&plan.models[0], &(model_info_t){.family = "naive"}, shapes) > 1);
}

/* ---- random series ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    backend_t *backend;
    model_t *model;
    session_t *three, *one;
} fixture_t;

enum { VARIATES = 2, CONTEXT = 40, HORIZON = 6, VALUES = VARIATES * CONTEXT, TRUTHS = VARIATES * HORIZON };

static int set_up(void **state)
{
    fixture_t *f = calloc(1, sizeof *f);
    model_shape_t shape = {.batch = 3, .variates = VARIATES, .context = CONTEXT, .horizon = HORIZON};
    char revision[17];
    int rc = backend_open(&(backend_options_t){.kind = BACKEND_CPU}, &f->backend);

    *state = f;
    if (rc == 0)
        rc = model_load(f->backend, "naive", BACKEND_F32, &f->model, revision);
    if (rc == 0)
        rc = session_open(f->model, &shape, false, &f->three);
    shape.batch = 1;
    return rc == 0 ? session_open(f->model, &shape, false, &f->one) : rc;
}

static int tear_down(void **state)
{
    fixture_t *f = *state;

    session_close(f->three);
    session_close(f->one);
    model_unload(f->model);
    backend_close(f->backend);
    free(f);
    return 0;
}

static void a_walk_is_the_same_in_any_batch(void **state)
{
    fixture_t *f = *state;
    const model_input_t *three = session_input(f->three), *one = session_input(f->one);
    float truth[3 * TRUTHS], truth_alone[TRUTHS];

    random_series_fill(f->three, &(random_series_t){.seed = 5, .ragged = true, .truth = truth});
    for (uint32_t i = 0; i < 3; i++) {
        random_series_fill(f->one, &(random_series_t){.seed = 5, .first = i, .ragged = true, .truth = truth_alone});
        assert_memory_equal(one->values, three->values + i * VALUES, VALUES * sizeof(float));
        assert_memory_equal(one->mask, three->mask + i * VALUES, VALUES);
        assert_int_equal(one->length[0], three->length[i]);
        assert_int_equal(one->key[0], three->key[i]);
        assert_memory_equal(truth_alone, truth + i * TRUTHS, sizeof truth_alone);
    }
    assert_memory_not_equal(three->values, three->values + VALUES, VALUES * sizeof(float));
}

static void another_seed_gives_other_walks(void **state)
{
    fixture_t *f = *state;
    const model_input_t *one = session_input(f->one);
    float before[VALUES];

    random_series_fill(f->one, &(random_series_t){.seed = 5});
    memcpy(before, one->values, sizeof before);
    random_series_fill(f->one, &(random_series_t){.seed = 6});
    assert_memory_not_equal(before, one->values, sizeof before);
    random_series_fill(f->one, &(random_series_t){.seed = 5});
    assert_memory_equal(before, one->values, sizeof before);
}

static void ragged_walks_have_zeros_before_them(void **state)
{
    fixture_t *f = *state;
    const model_input_t *input = session_input(f->three);

    random_series_fill(f->three, &(random_series_t){.seed = 5, .ragged = true});
    assert_int_equal(input->length[0], CONTEXT);
    assert_int_equal(input->length[1], CONTEXT / 2);
    assert_in_range(input->length[2], 1, CONTEXT);
    for (size_t row = 0; row < 3 * VARIATES; row++)
        for (size_t t = 0; t < CONTEXT; t++) {
            bool there = t >= CONTEXT - input->length[row / VARIATES];

            assert_int_equal(input->mask[row * CONTEXT + t], there);
            assert_int_equal(input->values[row * CONTEXT + t] > 0, there);
        }
}

static void walks_move_by_about_a_percent_and_go_on_from_where_they_are(void **state)
{
    fixture_t *f = *state;
    const float *values = session_input(f->three)->values;
    float truth[3 * TRUTHS];
    double squares = 0;
    int changes = 0;

    random_series_fill(f->three, &(random_series_t){.seed = 5, .truth = truth});
    for (size_t row = 0; row < 3 * VARIATES; row++) {
        for (size_t t = 1; t < CONTEXT; t++, changes++)
            squares += pow((double)values[row * CONTEXT + t] / (double)values[row * CONTEXT + t - 1] - 1, 2);
        assert_true(fabsf(truth[row * HORIZON] / values[(row + 1) * CONTEXT - 1] - 1) < 0.04f);
    }
    assert_in_range((int)(sqrt(squares / changes) * 1e4), 80, 120);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(difference_counts_bytes_and_measures_values),
        cmocka_unit_test(a_value_that_is_no_number_is_infinitely_far),
        cmocka_unit_test(errors_and_scale_are_those_of_the_textbook),
        cmocka_unit_test(a_configuration_gives_every_bucket_of_every_model),
        cmocka_unit_test(a_model_alone_gets_its_directory_as_a_name),
        cmocka_unit_test_setup_teardown(a_walk_is_the_same_in_any_batch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_seed_gives_other_walks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ragged_walks_have_zeros_before_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(walks_move_by_about_a_percent_and_go_on_from_where_they_are, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
