/* `barcast bench engine`, `barcast stress` and `barcast models fit` as commands, on the CPU: with naive, and with a tiny Toto that the test makes. */
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

enum { OUTPUT_BYTES = 1 << 16 };

static char dir[] = "/tmp/barcast-test-engine-XXXXXX";

/* Runs barcast with these arguments, where %s is the tiny model's directory; its output, stderr included, the caller's to free. */
static char *barcast(const char *arguments, int *status)
{
    char command[1024], *output = calloc(1, OUTPUT_BYTES);
    int used = snprintf(command, sizeof command, "%s/barcast ", BARCAST_BIN_DIR);
    FILE *from;

    for (const char *at = arguments; *at != '\0'; at++)
        if (strncmp(at, "%s", 2) == 0) {
            used += snprintf(command + used, sizeof command - (size_t)used, "%s", dir);
            at++;
        } else {
            used += snprintf(command + used, sizeof command - (size_t)used, "%c", *at);
        }
    snprintf(command + used, sizeof command - (size_t)used, " 2>&1");
    assert_non_null(output);
    from = popen(command, "r");
    assert_non_null(from);
    fread(output, 1, OUTPUT_BYTES - 1, from);
    *status = WEXITSTATUS(pclose(from));
    return output;
}

static double number(json_object *line, const char *key)
{
    json_object *value;

    if (!json_object_object_get_ex(line, key, &value))
        fail_msg("%s is missing", key);
    if (!json_object_is_type(value, json_type_double) && !json_object_is_type(value, json_type_int))
        fail_msg("%s is not a number", key);
    return json_object_get_double(value);
}

static const char *text(json_object *line, const char *key)
{
    json_object *value;

    if (!json_object_object_get_ex(line, key, &value))
        fail_msg("%s is missing", key);
    assert_true(json_object_is_type(value, json_type_string));
    return json_object_get_string(value);
}

static void check_line(const char *json, const char *model, double batch, double samples)
{
    json_object *line = json_tokener_parse(json), *graphs;

    assert_non_null(line);
    assert_string_equal(text(line, "model"), model);
    assert_int_equal(strncmp(text(line, "device"), "cpu", 3), 0);
    assert_string_equal(text(line, "precision"), "fp32");
    assert_true(*text(line, "commit") != '\0');
    assert_true(json_object_object_get_ex(line, "graphs", &graphs) && !json_object_get_boolean(graphs));
    assert_true(fabs(number(line, "batch") - batch) < 1e-9 && fabs(number(line, "samples") - samples) < 1e-9);
    assert_true(number(line, "context") > 0 && number(line, "horizon") > 0 && number(line, "variates") > 0);
    assert_true(number(line, "runs") >= 5 && number(line, "open_ms") > 0 && number(line, "session_bytes") > 0);
    assert_true(number(line, "device_ms_p50") > 0 && number(line, "device_ms_p99") >= number(line, "device_ms_p50"));
    assert_true(number(line, "wall_ms_p50") > 0 && number(line, "wall_ms_p99") >= number(line, "wall_ms_p50"));
    assert_true(
        fabs(number(line, "bytes") - number(line, "weight_bytes") - number(line, "cache_bytes") - number(line, "io_bytes")) < 1);
    assert_true(fabs(number(line, "floor_ms") / 1e3 - fmax(number(line, "bytes") / number(line, "copy_bytes_per_s"),
                                                           number(line, "flops") / number(line, "matrix_flops"))) < 1e-9);
    assert_true(fabs(number(line, "distance") * number(line, "floor_ms") / number(line, "device_ms_p50") - 1) < 1e-9);
    json_object_put(line);
}

static void bench_gives_a_json_line_for_each_shape(void **state)
{
    int status;
    char *output =
             barcast("bench engine --device cpu --threads 1 --seconds 0.2 --json --batch 1,3 --context 100 --horizon 5", &status),
         *second = strchr(output, '\n');

    (void)state;
    assert_int_equal(status, 0);
    assert_non_null(second);
    *second++ = '\0';
    check_line(output, "naive", 1, 0);
    check_line(second, "naive", 3, 0);
    assert_ptr_equal(strchr(second, '\n'), second + strlen(second) - 1);
    free(output);
}

static void bench_measures_a_checkpoint(void **state)
{
    int status;
    char *output = barcast(
        "bench engine --model %s --device cpu --threads 1 --seconds 0.2 --json --context 50 --horizon 40 --samples 4", &status);
    json_object *line;

    (void)state;
    assert_int_equal(status, 0);
    check_line(output, dir, 1, 4);
    line = json_tokener_parse(output);
    assert_true(fabs(number(line, "context") - 64) < 1e-9); /* rounded up to patches of 16 */
    assert_true(number(line, "weight_bytes") > 0 && number(line, "cache_bytes") > 0 && number(line, "flops") > 0);
    json_object_put(line);
    free(output);
}

static void bench_refuses_what_is_no_list(void **state)
{
    int status;
    char *output = barcast("bench engine --device cpu --batch 1,x", &status);

    (void)state;
    assert_int_equal(status, 2);
    assert_non_null(strstr(output, "--batch: \"x\""));
    free(output);
}

static void bench_tells_which_shape_cannot_be_opened(void **state)
{
    int status;
    char *output = barcast("bench engine --device cpu --seconds 0.05 --variates 0 --json", &status);

    (void)state;
    assert_int_equal(status, 1);
    assert_non_null(strstr(output, "variates 0"));
    free(output);
}

static const char *last_line(char *output)
{
    size_t length = strlen(output);

    assert_true(length > 0 && output[length - 1] == '\n');
    output[length - 1] = '\0';
    return strrchr(output, '\n') != NULL ? strrchr(output, '\n') + 1 : output;
}

static void stress_passes_a_tiny_model(void **state)
{
    int status;
    char *output = barcast("stress --mode quick --device cpu --threads 1 --model %s", &status);

    (void)state;
    if (status != 0)
        print_message("%s", output);
    assert_int_equal(status, 0);
    assert_non_null(strstr(output, "round 3 of 3"));
    assert_null(strstr(output, "round 4"));
    assert_string_equal(last_line(output), "PASS");
    free(output);
}

static void stress_runs_the_sessions_of_a_configuration(void **state)
{
    char path[64], *output;
    FILE *file;
    int status;

    (void)state;
    snprintf(path, sizeof path, "%s/stress.ini", dir);
    file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "[feed.f]\ntype = csv\npath = f.csv\n[model.walk]\npath = naive\ncontext = 99\nbuckets = 2, 5\n"
                  "[model.toto]\npath = .\ncontext = 64\nhorizon = 20\nsamples = 4\nbuckets = 3\n");
    fclose(file);
    output = barcast("stress %s/stress.ini --mode quick --device cpu --threads 1", &status);
    unlink(path);
    assert_int_equal(status, 0);
    assert_non_null(strstr(output, "\nwalk "));
    assert_non_null(strstr(output, "\ntoto "));
    assert_string_equal(last_line(output), "PASS");
    free(output);
}

static void stress_fails_with_the_reason(void **state)
{
    int status;
    char *output = barcast("stress --device cpu --model %s/nowhere", &status);

    (void)state;
    assert_int_equal(status, 1);
    assert_int_equal(strncmp(last_line(output), "FAIL: ", 6), 0);
    assert_non_null(strstr(output, "nowhere"));
    free(output);
}

static void stress_refuses_other_modes(void **state)
{
    int status;
    char *output = barcast("stress --device cpu --model naive --mode slow", &status);

    (void)state;
    assert_int_equal(status, 2);
    free(output);
}

static void models_fit_tells_limits_and_what_each_shape_takes(void **state)
{
    int status;
    char *output = barcast("models fit %s --device cpu --batch 1,8 --context 50 --horizon 5 --samples 2", &status);

    (void)state;
    assert_int_equal(status, 0);
    assert_non_null(strstr(output, "toto1, 0.2 million parameters"));
    assert_non_null(strstr(output, "context      without limit, in patches of 16"));
    assert_non_null(strstr(output, "     1       64        5        2")); /* the context is rounded up */
    assert_non_null(strstr(output, "     8       64        5        2"));
    free(output);
}

static int make_model(void **state)
{
    int status;

    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    free(barcast("models create --out %s", &status));
    return status;
}

static int remove_model(void **state)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char path[64];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bench_gives_a_json_line_for_each_shape),
        cmocka_unit_test(bench_measures_a_checkpoint),
        cmocka_unit_test(bench_refuses_what_is_no_list),
        cmocka_unit_test(bench_tells_which_shape_cannot_be_opened),
        cmocka_unit_test(stress_passes_a_tiny_model),
        cmocka_unit_test(stress_runs_the_sessions_of_a_configuration),
        cmocka_unit_test(stress_fails_with_the_reason),
        cmocka_unit_test(stress_refuses_other_modes),
        cmocka_unit_test(models_fit_tells_limits_and_what_each_shape_takes),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
