/* The backtest's statistics against values of SciPy 1.10 (stats.norm, stats.t) and of the definitions written down in NumPy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <math.h>

#include "base/normal.h"
#include "tools/backtest/distribution.h"
#include "tools/backtest/dm.h"
#include "tools/backtest/minimise.h"

static void is_near(double actual, double expected, double bound)
{
    if (!(fabs(actual - expected) <= bound))
        fail_msg("%.15g is not within %g of %.15g", actual, bound, expected);
}

static void normal_quantiles_are_those_of_the_tables(void **state)
{
    (void)state;
    is_near(normal_quantile(0.1), -1.2815515655446004, 1e-12);
    is_near(normal_quantile(0.25), -0.6744897501960817, 1e-12);
    is_near(normal_quantile(0.5), 0, 1e-12);
    is_near(normal_quantile(0.999), 3.090232306167813, 1e-12);
    is_near(normal_quantile(1e-6), -4.753424308822899, 1e-11);
}

static void student_t_probabilities_are_those_of_the_tables(void **state)
{
    static const double cases[][3] = {{-2.1, 7, 0.0369355981064613},     {0.3, 1.5, 0.5997639015982076},
                                      {-1, 30, 0.16265430771301492},     {5, 3, 0.9923037809633488},
                                      {-0.01, 250, 0.49601463130272183}, {-8, 12, 1.8799491123751274e-06}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        is_near(distribution_t_cdf(cases[i][0], cases[i][1]), cases[i][2], 1e-10);
    is_near(distribution_t_cdf(0, 5), 0.5, 1e-12);
}

static void inner_student_t_quantiles_are_near_those_of_the_tables(void **state)
{
    static const double cases[][3] = {
        /* normal quantile, df, quantile of t */
        {-1.2815515655446004, 4, -1.5332062737131438},  {-1.2815515655446004, 5.5, -1.4559770334470055},
        {-1.2815515655446004, 30, -1.3104150225671303}, {-0.8416212335729143, 4, -0.9409645771975298},
        {-0.6744897501960817, 4, -0.7406970840912249},  {-0.6744897501960817, 5.5, -0.7216865563689948},
        {-0.2533471031357997, 4, -0.2707222947059493},  {0.5244005127080407, 4, 0.5686490630385522},
        {0.5244005127080407, 30, 0.5300190028613371}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        is_near(distribution_t_quantile_near(cases[i][0], cases[i][1]), cases[i][2], 2e-4);
}

/* Twelve differences; dm_test's formula evaluated in NumPy. */
static const double differences[] = {0.3, -0.1, 0.4, 0.2, -0.5, 0.6, 0.1, -0.2, 0.5, 0.3, 0.0, 0.4};

static void diebold_mariano_without_overlap_is_the_t_test(void **state)
{
    dm_t test = dm_test(differences, 12, 0);

    (void)state;
    assert_int_equal(test.count, 12);
    is_near(test.mean, 0.16666666666666666, 1e-12);
    is_near(test.error, 0.08845379626717033, 1e-12);
    is_near(test.statistic, 1.8040060614705495, 1e-10);
    is_near(test.p, 0.0986540156700307, 1e-10);
}

static void diebold_mariano_with_overlap_weighs_autocovariances_and_corrects_for_small_samples(void **state)
{
    dm_t test = dm_test(differences, 12, 2);

    (void)state;
    is_near(test.error, 0.035500536134594106, 1e-12);
    is_near(test.statistic, 3.7115374447904506, 1e-10);
    is_near(test.p, 0.003431955999086979, 1e-10);
}

static void diebold_mariano_gives_no_verdict_where_there_is_nothing_to_test(void **state)
{
    static const double equal[] = {0.5, 0.5, 0.5, 0.5, 0.5};

    (void)state;
    assert_true(isnan(dm_test(differences, 2, 0).p));
    assert_true(isnan(dm_test(differences, 5, 5).p));
    assert_true(isnan(dm_test(equal, 5, 0).p));
    assert_true(isnan(dm_test(NULL, 0, 0).mean));
    is_near(dm_test(equal, 5, 0).mean, 0.5, 1e-12);
}

static double parabola(const void *context, double x)
{
    return (x - *(const double *)context) * (x - *(const double *)context);
}

static void golden_section_finds_the_minimum_of_a_parabola_and_of_an_edge(void **state)
{
    double inside = 0.3, below = -5;

    (void)state;
    is_near(minimise_section(parabola, &inside, -1, 2, 1e-6), 0.3, 1e-6);
    is_near(minimise_section(parabola, &below, -1, 2, 1e-6), -1, 1e-6);
}

static double rosenbrock(const void *context, const double *x)
{
    (void)context;
    return 100 * pow(x[1] - x[0] * x[0], 2) + pow(1 - x[0], 2);
}

static double distance(const void *context, const double *x)
{
    const double *to = context;
    return pow(x[0] - to[0], 2) + 3 * pow(x[1] - to[1], 2) + pow(x[2] - to[2], 4);
}

static void the_simplex_finds_the_end_of_a_bent_valley(void **state)
{
    double x[2] = {-1.2, 1}, y[3] = {5, -3, 2}, to[3] = {0.5, 0.25, 1};

    (void)state;
    minimise_simplex(rosenbrock, NULL, 2, x, 0.5, 1e-14, 1000);
    is_near(x[0], 1, 1e-4);
    is_near(x[1], 1, 1e-4);
    minimise_simplex(distance, to, 3, y, 1, 1e-14, 1000);
    is_near(y[0], 0.5, 1e-4);
    is_near(y[1], 0.25, 1e-4);
    is_near(y[2], 1, 1e-2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normal_quantiles_are_those_of_the_tables),
        cmocka_unit_test(student_t_probabilities_are_those_of_the_tables),
        cmocka_unit_test(inner_student_t_quantiles_are_near_those_of_the_tables),
        cmocka_unit_test(diebold_mariano_without_overlap_is_the_t_test),
        cmocka_unit_test(diebold_mariano_with_overlap_weighs_autocovariances_and_corrects_for_small_samples),
        cmocka_unit_test(diebold_mariano_gives_no_verdict_where_there_is_nothing_to_test),
        cmocka_unit_test(golden_section_finds_the_minimum_of_a_parabola_and_of_an_edge),
        cmocka_unit_test(the_simplex_finds_the_end_of_a_bent_valley),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
