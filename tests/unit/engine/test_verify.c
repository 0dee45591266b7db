/* Golden cases: those in the repository (Toto 1's are of tests/reference), and with BARCAST_GOLDENS=DIR the official ones below DIR too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/verify/verify.h"

#define FIXTURES BARCAST_SOURCE_DIR "/tests/fixtures/golden"
#define GOLDEN   FIXTURES "/toto1"

static int open_backend(void **state)
{
    backend_options_t options = {.kind = BACKEND_CPU, .threads = 2};
    verify_options_t *verify = calloc(1, sizeof *verify);

    assert_int_equal(backend_open(&options, &verify->backend), BACKEND_OK);
    *state = verify;
    return 0;
}

static int close_backend(void **state)
{
    verify_options_t *verify = *state;

    backend_close(verify->backend);
    free(verify);
    return 0;
}

/* Runs a case; its report is printed when the result is not the wanted one. */
static void expect(const verify_options_t *backend, verify_options_t options, const char *dir, verify_result_t wanted)
{
    char *text = NULL;
    size_t bytes = 0;
    verify_result_t result;

    options.backend = backend->backend;
    options.to = open_memstream(&text, &bytes);
    assert_non_null(options.to);
    result = verify_case(&options, dir);
    fclose(options.to);
    if (result != wanted)
        fail_msg("%s", text);
    free(text);
}

static void every_tensor_of_the_golden_cases_agrees(void **state)
{
    expect(*state, (verify_options_t){.tolerance = 1e-5}, GOLDEN "/groups", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-5}, GOLDEN "/exogenous", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-4}, FIXTURES "/toto2/knobs", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-5}, FIXTURES "/sundial/rounds", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-5}, FIXTURES "/kronos/rolling", VERIFY_PASSED);
}

static void a_larger_session_gives_the_same(void **state)
{
    expect(*state, (verify_options_t){.tolerance = 1e-5, .batch = 5, .context = 100}, GOLDEN "/groups", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-5, .batch = 3, .context = 59}, GOLDEN "/exogenous", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-4, .batch = 3, .context = 150}, FIXTURES "/toto2/knobs", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-5, .batch = 3, .context = 150}, FIXTURES "/sundial/rounds", VERIFY_PASSED);
    expect(*state, (verify_options_t){.tolerance = 1e-5, .batch = 3, .context = 91}, FIXTURES "/kronos/rolling", VERIFY_PASSED);
}

static void chronos_agrees_from_sessions_of_any_size(void **state)
{
    for (int larger = 0; larger < 2; larger++) {
        verify_options_t options = {.tolerance = 1e-5, .batch = larger ? 3 : 0, .context = larger ? 222 : 0};

        expect(*state, options, FIXTURES "/chronos2/groups", VERIFY_PASSED);
        expect(*state, options, FIXTURES "/chronos_bolt/single", VERIFY_PASSED);
    }
}

static void a_deviation_above_the_tolerance_fails(void **state)
{
    expect(*state, (verify_options_t){.tolerance = 1e-9}, GOLDEN "/groups", VERIFY_FAILED);
}

static void a_directory_without_a_case_fails(void **state)
{
    expect(*state, (verify_options_t){.tolerance = 1e-5}, GOLDEN, VERIFY_FAILED);
}

static void a_model_without_a_table_is_skipped(void **state)
{
    char dir[] = "/tmp/barcast-verify-XXXXXX", path[64];
    FILE *file;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/case.json", dir);
    assert_non_null(file = fopen(path, "w"));
    fputs("{\"model\": \"unheard-of\"}", file);
    fclose(file);
    expect(*state, (verify_options_t){.tolerance = 1e-5}, dir, VERIFY_SKIPPED);
    remove(path);
    remove(dir);
}

static void check_family(const verify_options_t *backend, const char *root, const char *family)
{
    char parent[1024], dir[2048];
    struct dirent **cases;
    int count;

    snprintf(parent, sizeof parent, "%s/%s", root, family);
    count = scandir(parent, &cases, NULL, alphasort);
    assert_true(count > 2);
    for (int i = 0; i < count; i++) {
        if (cases[i]->d_name[0] != '.') {
            snprintf(dir, sizeof dir, "%s/%s", parent, cases[i]->d_name);
            expect(backend, (verify_options_t){.tolerance = 1e-4}, dir, VERIFY_PASSED);
            expect(backend, (verify_options_t){.tolerance = 1e-4, .batch = 4, .context = 777}, dir, VERIFY_PASSED);
        }
        free(cases[i]);
    }
    free(cases);
}

static void the_official_cases_agree_where_they_are_given(void **state)
{
    static const char *const families[] = {"toto1", "chronos2", "chronos_bolt", "sundial", "toto2", "kronos"};
    const char *root = getenv("BARCAST_GOLDENS");

    if (root == NULL)
        skip();
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        check_family(*state, root, families[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_of_the_golden_cases_agrees),
        cmocka_unit_test(a_larger_session_gives_the_same),
        cmocka_unit_test(chronos_agrees_from_sessions_of_any_size),
        cmocka_unit_test(a_deviation_above_the_tolerance_fails),
        cmocka_unit_test(a_directory_without_a_case_fails),
        cmocka_unit_test(a_model_without_a_table_is_skipped),
        cmocka_unit_test(the_official_cases_agree_where_they_are_given),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
