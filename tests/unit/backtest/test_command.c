/* barcast backtest as its users run it: made-up bars in, a table, JSON and a page out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_BYTES = 1 << 20, SYMBOLS = 3, BARS = 220 };

static char dir[] = "/tmp/barcast-backtest-XXXXXX";

/* Runs `barcast backtest ARGUMENTS` in the directory of the bars; what it printed, with the errors, is the caller's to free. */
static char *backtest(const char *arguments, int *status)
{
    char command[1024], *output = calloc(1, OUTPUT_BYTES);
    FILE *from;

    assert_non_null(output);
    snprintf(command, sizeof command, "cd %s && %s/barcast backtest %s 2>&1", dir, BARCAST_BIN_DIR, arguments);
    from = popen(command, "r");
    assert_non_null(from);
    fread(output, 1, OUTPUT_BYTES - 1, from);
    *status = WEXITSTATUS(pclose(from));
    return output;
}

static char *file_text(const char *name)
{
    char path[128], *text = calloc(1, OUTPUT_BYTES);
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "r");
    assert_true(text != NULL && file != NULL);
    fread(text, 1, OUTPUT_BYTES - 1, file);
    fclose(file);
    return text;
}

static json_object *member(json_object *object, const char *path)
{
    char copy[128], *rest = copy, *word;

    snprintf(copy, sizeof copy, "%s", path);
    while ((word = strsep(&rest, "/")) != NULL)
        if (!json_object_object_get_ex(object, word, &object))
            fail_msg("%s is missing in %s", word, path);
    return object;
}

static double number(json_object *object, const char *path)
{
    json_object *value = member(object, path);

    assert_non_null(value);
    return json_object_get_double(value);
}

static void is_near(double actual, double expected, double bound)
{
    if (!(fabs(actual - expected) <= bound))
        fail_msg("%.15g is not within %g of %.15g", actual, bound, expected);
}

static void naive_is_scored_beside_all_baselines(void **state)
{
    int status;
    char *output = backtest("bars.csv --model naive --context 64 --horizon 30 --stride 10 --device cpu --json -", &status);
    json_object *json = json_tokener_parse(output), *group, *model;

    (void)state;
    assert_int_equal(status, 0);
    assert_non_null(json);
    assert_int_equal(json_object_array_length(member(json, "groups")), 1);
    group = json_object_array_get_idx(member(json, "groups"), 0);
    assert_int_equal(json_object_array_length(member(group, "symbols")), SYMBOLS);
    assert_int_equal(json_object_array_length(member(group, "forecasters")), 1 + 8);
    is_near(number(group, "origins"), SYMBOLS * 13, 0); /* (220 - 64 - 30) / 10 + 1 */
    model = json_object_array_get_idx(member(group, "forecasters"), 0);
    is_near(number(model, "steps/1-30/loss_over_naive"), 1, 1e-4);
    is_near(number(model, "steps/30/undecided"), 1, 0);
    assert_true(number(model, "steps/5/wql") > number(model, "steps/1/wql"));
    assert_true(number(model, "steps/24/coverage_80") > number(model, "steps/24/coverage_50"));
    assert_int_equal(json_object_array_length(member(model, "coverage_80_by_step")), 30);
    assert_null(member(model, "simulated_trade/1-30"));
    is_near(number(json, "settings/stride"), 10, 0);
    json_object_put(json);
    free(output);
}

static void a_model_is_scored_from_its_directory_the_same_whatever_the_batch(void **state)
{
    static const char *const batches[] = {"1", "5"};
    double wql[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        char arguments[256], *output;
        json_object *json;
        int status;

        snprintf(arguments, sizeof arguments,
                 "bars.csv --model tiny --context 50 --horizon 6 --origins 3 --samples 8 --device cpu --batch %s --json -",
                 batches[i]);
        output = backtest(arguments, &status);
        json = json_tokener_parse(output);
        if (status != 0 || json == NULL)
            fail_msg("%s", output);
        wql[i] = number(json_object_array_get_idx(member(json_object_array_get_idx(member(json, "groups"), 0), "forecasters"), 0),
                        "steps/1-6/wql");
        json_object_put(json);
        free(output);
    }
    assert_true(wql[0] > 0);
    is_near(wql[0] / wql[1], 1, 1e-4);
}

/* The tiny model's patch has 16 bars. */
static void paths_are_drawn_only_where_the_model_has_no_quantiles_without_them(void **state)
{
    static const struct {
        const char *arguments;
        double samples;
    } cases[] = {{"--horizon 16", 0}, {"--horizon 17", 256}, {"--horizon 16 --samples 8", 8}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char arguments[256], *output;
        json_object *json;
        int status;

        snprintf(arguments, sizeof arguments, "bars.csv --model tiny --context 50 --origins 2 --device cpu --json - %s",
                 cases[i].arguments);
        output = backtest(arguments, &status);
        json = json_tokener_parse(output);
        if (status != 0 || json == NULL)
            fail_msg("%s", output);
        is_near(number(json, "settings/samples"), cases[i].samples, 0);
        json_object_put(json);
        free(output);
    }
}

static void the_page_loads_nothing_and_has_every_part(void **state)
{
    static const char *const parts[] = {"Losses",         "Coverage of the 80 % intervals",
                                        "Loss over time", "Loss by symbol",
                                        "Forecasts",      "Diebold-Mariano",
                                        "SIMULATION",     "How to read this"};
    static const char *const foreign[] = {"http", "src=", "@import", "url("};
    int status;
    char *output = backtest("bars.csv --model naive --context 64 --horizon 12 --stride 3 --device cpu --html page.html", &status),
         *page;

    (void)state;
    assert_int_equal(status, 0);
    assert_non_null(strstr(output, "SIMULATED"));
    assert_non_null(strstr(output, "garch-t"));
    page = file_text("page.html");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(page, parts[i]) == NULL)
            fail_msg("%s is missing", parts[i]);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        assert_null(strstr(page, foreign[i]));
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "<A&B>"));
    assert_non_null(strstr(page, "&lt;A&amp;B&gt;")); /* a symbol that would break it */
    assert_non_null(strstr(page, "</html>"));
    free(page);
    free(output);
}

static void ndjson_is_read_and_another_field_too(void **state)
{
    int status;
    char *output = backtest("bars.ndjson --model naive --field volume --context 64 --horizon 5 --device cpu", &status);

    (void)state;
    if (status != 0)
        fail_msg("%s", output);
    assert_non_null(strstr(output, "volume of 1 symbol"));
    assert_null(strstr(output, "SIMULATED")); /* volume is not traded */
    free(output);
}

static void faults_are_named(void **state)
{
    static const struct {
        const char *arguments, *reason;
        int status;
    } cases[] = {
        {"", "no FILE", 2},
        {"none.csv", "none.csv", 1},
        {"bars.csv --context 8", "--context: the baselines need 16", 2},
        {"bars.csv --horizon 0", "--horizon", 2},
        {"bars.csv --start soon", "--start: \"soon\"", 2},
        {"bars.csv --field price --device cpu", "--field: \"price\"", 1},
        {"bars.csv --field amount --device cpu", "has no amount", 1},
        {"bars.csv bars.csv --device cpu", "more than one of the files", 1},
        {"bars.csv --context 500 --device cpu", "no series is long enough", 1},
        {"bars.csv --device cpu --precision half", "--precision: \"half\"", 1},
        {"bars.csv --device cpu --compare fp32,bf16", "there is no bf16 on cpu", 1},
        {"bars.csv --device cpu --compare fp64", "is not fp32,bf16", 1},
        {"bars.csv --device cpu --context 64 --model tiny --samples 0", "--samples 0: over 24 bars", 1},
        {"bars.csv --samples many", "--samples: \"many\" is not a number", 2},
        {"bars.csv --samples -1", "--samples: \"-1\" is not a number", 2},
        {"bars.csv --model naive --device cpu --context 64 --html nowhere/page.html", "nowhere/page.html: No such file", 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status;
        char *output = backtest(cases[i].arguments, &status);

        if (status != cases[i].status || strstr(output, cases[i].reason) == NULL)
            fail_msg("%s: %d, %s", cases[i].arguments, status, output);
        free(output);
    }
}

/* ---- made-up bars ------------------------------------------------------------------------------------------------------------- */

static double uniform(uint64_t *random)
{
    uint64_t z = *random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static void write_bars(FILE *csv, FILE *ndjson)
{
    static const char *const names[SYMBOLS] = {"<A&B>", "CALM", "WILD"};

    fprintf(csv, "time,symbol,open,high,low,close,volume\n");
    for (int s = 0; s < SYMBOLS; s++) {
        uint64_t random = (uint64_t)s + 1;
        double price = 20 * (s + 1);

        for (int i = 0; i < BARS; i++) {
            double open = price;

            price *= exp(0.01 * (s + 1) * (uniform(&random) + uniform(&random) - 1));
            fprintf(csv, "%d,%s,%.6f,%.6f,%.6f,%.6f,%d\n", 1700000000 + 60 * i, names[s], open, fmax(open, price),
                    fmin(open, price), price, 1000 + i);
            if (s == 1)
                fprintf(ndjson,
                        "{\"time\":%d,\"symbol\":\"CALM\",\"open\":%.6f,\"high\":%.6f,\"low\":%.6f,\"close\":%.6f,\"volume\":%d}\n",
                        1700000000 + 60 * i, open, fmax(open, price), fmin(open, price), price, 1000 + i % 7);
        }
    }
}

static int make_files(void **state)
{
    char path[128], command[512];
    FILE *csv, *ndjson;

    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/bars.csv", dir);
    csv = fopen(path, "w");
    snprintf(path, sizeof path, "%s/bars.ndjson", dir);
    ndjson = fopen(path, "w");
    if (csv == NULL || ndjson == NULL)
        return -1;
    write_bars(csv, ndjson);
    fclose(csv);
    fclose(ndjson);
    snprintf(command, sizeof command, "%s/barcast models create --out %s/tiny >/dev/null", BARCAST_BIN_DIR, dir);
    return system(command);
}

static int remove_files(void **state)
{
    static const char *const names[] = {
        "tiny/config.json", "tiny/model.safetensors", "tiny", "bars.csv", "bars.ndjson", "page.html", ""};
    char path[128];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        remove(path);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(naive_is_scored_beside_all_baselines),
        cmocka_unit_test(a_model_is_scored_from_its_directory_the_same_whatever_the_batch),
        cmocka_unit_test(paths_are_drawn_only_where_the_model_has_no_quantiles_without_them),
        cmocka_unit_test(the_page_loads_nothing_and_has_every_part),
        cmocka_unit_test(ndjson_is_read_and_another_field_too),
        cmocka_unit_test(faults_are_named),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
