#include "tools/verify/verify_impl.h"

#include <json-c/json.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const verify_family_t *const families[] = {
    &verify_toto1, &verify_sundial, &verify_chronos2, &verify_chronos_bolt, &verify_toto2, &verify_kronos, NULL};

enum { PATH_BYTES = 4096 };

/* ---- report ------------------------------------------------------------------------------------------------------------------- */

void verify_line(verify_case_t *run, bool passed, const char *name, const char *format, ...)
{
    va_list arguments;

    fprintf(run->options->to, "  %s %-28s ", passed ? " " : "!", name);
    va_start(arguments, format);
    vfprintf(run->options->to, format, arguments);
    va_end(arguments);
    fputc('\n', run->options->to);
    run->failed |= !passed;
}

/* ---- comparing ---------------------------------------------------------------------------------------------------------------- */

verify_tensor_t *verify_expected(verify_case_t *run, const char *name)
{
    for (size_t i = 0; i < run->count; i++)
        if (strcmp(run->tensors[i].tensor->name, name) == 0)
            return &run->tensors[i];
    return NULL;
}

static void compare_element(verify_tensor_t *tensor, double value, double expected)
{
    double deviation = isnan(expected) ? 0 : fabs(value - expected);

    if (!(deviation <= tensor->worst)) /* a NaN stays, too */
        tensor->worst = deviation;
    tensor->compared++;
}

void verify_compare(verify_case_t *run, verify_tensor_t *tensor, int64_t at, const float *values, int64_t count)
{
    if (at < 0 || at + count > tensor->tensor->elements) {
        verify_line(run, false, tensor->tensor->name, "elements %lld to %lld came by, expected %lld", (long long)at,
                    (long long)(at + count), (long long)tensor->tensor->elements);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        compare_element(tensor, (double)values[i], (double)tensor->values[at + i]);
}

/* The session may be larger than the case: of its series the first ones count, of its tokens the last ones. A tensor larger than what is
 * shown of it is shown step by step along its first dimension. */
static void on_tap(void *context, const char *name, int step, const float *values, int rank, const int64_t *dim)
{
    verify_case_t *run = context;
    verify_tensor_t *tensor = verify_expected(run, name);
    bool stacked = tensor != NULL && tensor->tensor->rank == rank + 1;
    int64_t rows = (int64_t)run->shape.batch * run->shape.variates, given = 1, wanted;

    if (tensor == NULL)
        return;
    for (int i = 2; i < rank; i++) /* elements of one series' variate */
        given *= dim[i];
    stacked |= given < tensor->tensor->elements / rows;
    if (stacked && run->entry_of_step != NULL && (step = run->entry_of_step(run, step)) < 0)
        return;
    wanted = tensor->tensor->elements / rows / (stacked ? tensor->tensor->dim[0] : 1);
    if (given < wanted || (stacked && step >= tensor->tensor->dim[0])) {
        verify_line(run, false, name, "has %lld elements a row, expected %lld", (long long)given, (long long)wanted);
        return;
    }
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < wanted; i++)
            compare_element(tensor, (double)values[(run->row_of != NULL ? run->row_of[row] : row) * given + given - wanted + i],
                            (double)tensor->values[((stacked ? step : 0) * rows + row) * wanted + i]);
}

void verify_forecast(verify_case_t *run, const char *name, const float *values, const double *scale, int64_t rows, int64_t horizon)
{
    verify_tensor_t *tensor = verify_expected(run, name);
    double worst = 0, sum = 0;

    if (tensor == NULL || tensor->tensor->elements != run->shape.batch * rows * horizon) {
        verify_line(run, false, name, "expected.safetensors does not have it with %lld elements",
                    (long long)(run->shape.batch * rows * horizon));
        return;
    }
    for (int64_t i = 0; i < tensor->tensor->elements; i++) {
        double deviation = fabs((double)values[i] - (double)tensor->values[i]) / scale[i / horizon];
        worst = deviation <= worst ? worst : deviation;
        sum += deviation;
    }
    tensor->reported = true;
    verify_line(run, worst <= run->options->tolerance, name, "%.1e of the series' scale, %.1e on average", worst,
                sum / (double)tensor->tensor->elements);
}

static const char *exception(const verify_family_t *family, const char *name)
{
    for (const verify_exception_t *e = family->exceptions; e->name != NULL; e++)
        if (strcmp(e->name, name) == 0)
            return e->reason;
    return NULL;
}

static void report_taps(verify_case_t *run, const verify_family_t *family)
{
    for (size_t i = 0; i < run->count; i++) {
        verify_tensor_t *tensor = &run->tensors[i];
        const char *name = tensor->tensor->name, *reason = exception(family, name);
        double relative = tensor->rms > 0 ? tensor->worst / tensor->rms : tensor->worst;

        if (tensor->reported)
            continue;
        if (reason != NULL)
            verify_line(run, true, name, "%s", reason);
        else if (run->options->graphs)
            verify_line(run, true, name, "not seen: a replayed graph shows its results only");
        else if (tensor->compared != tensor->tensor->elements)
            verify_line(run, false, name, "%lld of its %lld elements came by", (long long)tensor->compared,
                        (long long)tensor->tensor->elements);
        else
            verify_line(run, relative <= run->options->tolerance, name, "%.1e", relative);
    }
}

/* ---- one case ----------------------------------------------------------------------------------------------------------------- */

/* A tensor of floats or integers as floats (malloc'ed); NULL with error_text(). */
static float *read_floats(const checkpoint_t *checkpoint, const checkpoint_tensor_t *tensor)
{
    float *values = malloc((size_t)tensor->elements * sizeof *values + 1);
    int64_t *integers = malloc((size_t)tensor->elements * sizeof *integers + 1);
    int rc = -1;

    if (values == NULL || integers == NULL)
        error_set(-1, "%s: out of memory", tensor->name);
    else if (tensor->dtype != CHECKPOINT_I64)
        rc = checkpoint_read_f32(checkpoint, tensor->name, tensor->rank, tensor->dim, values);
    else if ((rc = checkpoint_read_i64(checkpoint, tensor->name, tensor->rank, tensor->dim, integers)) == 0)
        for (int64_t i = 0; i < tensor->elements; i++)
            values[i] = (float)integers[i];
    free(integers);
    if (rc == 0)
        return values;
    free(values);
    return NULL;
}

float *verify_input(const verify_case_t *run, const char *name, int rank, int64_t *dim)
{
    const checkpoint_tensor_t *tensor = checkpoint_find(run->inputs, name);

    if (tensor == NULL || tensor->rank != rank) {
        error_set(-1, "inputs.safetensors: no tensor %s of rank %d", name, rank);
        return NULL;
    }
    memcpy(dim, tensor->dim, (size_t)rank * sizeof *dim);
    return read_floats(run->inputs, tensor);
}

int verify_scales(const verify_case_t *run, const char *series, const char *mask, double *scale)
{
    int64_t dim[3], mask_dim[3];
    float *values = verify_input(run, series, 3, dim), *observed = verify_input(run, mask, 3, mask_dim);
    int rc = values != NULL && observed != NULL ? 0 : -1;

    for (int64_t row = 0; rc == 0 && row < dim[0] * dim[1]; row++) {
        double n = 0, sum = 0, squares = 0;

        for (int64_t t = row * dim[2]; t < (row + 1) * dim[2]; t++)
            if (observed[t] != 0) {
                n += 1;
                sum += (double)values[t];
                squares += (double)values[t] * (double)values[t];
            }
        scale[row] = sqrt(fmax(squares / fmax(n, 1) - pow(sum / fmax(n, 1), 2), 0));
        scale[row] = scale[row] > 0 ? scale[row] : 1;
    }
    free(values);
    free(observed);
    return rc;
}

double verify_number(const verify_case_t *run, const char *key, double otherwise)
{
    char path[64] = "/";
    json_object *value;

    snprintf(path + 1, sizeof path - 1, "%s", key);
    for (char *at = path; *at; at++)
        *at = *at == '.' ? '/' : *at;
    return json_pointer_get(run->json, path, &value) == 0 &&
                   (json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double))
               ? json_object_get_double(value)
               : otherwise;
}

static int read_expected(verify_case_t *run)
{
    for (size_t i = 0; i < checkpoint_count(run->expected); i++) {
        const checkpoint_tensor_t *tensor = checkpoint_at(run->expected, i);
        verify_tensor_t *to = &run->tensors[run->count];
        double squares = 0;

        if (run->count == VERIFY_TENSORS_MOST)
            return error_set(-1, "expected.safetensors has more than %d tensors", VERIFY_TENSORS_MOST);
        if ((to->values = read_floats(run->expected, tensor)) == NULL)
            return -1;
        to->tensor = tensor;
        run->count++;
        for (int64_t e = 0; e < tensor->elements; e++)
            squares += isnan(to->values[e]) ? 0 : (double)to->values[e] * (double)to->values[e];
        to->rms = sqrt(squares / fmax((double)tensor->elements, 1));
    }
    return 0;
}

static int open_case(verify_case_t *run, const char *dir)
{
    char path[PATH_BYTES], revision[17];

    snprintf(path, sizeof path, "%s/inputs.safetensors", dir);
    if (checkpoint_open_file(path, &run->inputs) < 0)
        return -1;
    snprintf(path, sizeof path, "%s/expected.safetensors", dir);
    if (checkpoint_open_file(path, &run->expected) < 0 || read_expected(run) < 0)
        return -1;
    snprintf(path, sizeof path, "%s/model", dir);
    return model_load(run->options->backend, path, run->options->precision, &run->model, revision);
}

static void close_case(verify_case_t *run)
{
    model_unload(run->model);
    for (size_t i = 0; i < run->count; i++)
        free(run->tensors[i].values);
    free(run->row_of);
    checkpoint_close(run->inputs);
    checkpoint_close(run->expected);
    free(run);
}

static int run_case(verify_case_t *run, const verify_family_t *family)
{
    const verify_options_t *options = run->options;
    model_shape_t shape;
    session_t *session;
    int rc;

    if ((rc = family->shape(run, &run->shape)) < 0)
        return rc;
    if (family->expect != NULL && (rc = family->expect(run)) < 0)
        return rc;
    shape = run->shape;
    shape.precision = options->precision;
    shape.batch = shape.batch > options->batch ? shape.batch : options->batch;
    shape.context = shape.context > options->context ? shape.context : options->context;
    if ((rc = session_open(run->model, &shape, options->graphs, &session)) < 0)
        return rc;
    if ((rc = family->fill(run, session, session_input(session))) == 0 &&
        (options->graphs || (rc = session_set_tap(session, family->tap != NULL ? family->tap : on_tap, run)) == 0) &&
        (rc = session_run(session, run->shape.batch)) == 0 && (rc = family->results(run, session)) == 0)
        report_taps(run, family);
    session_close(session);
    if (rc == 0 && family->extra != NULL)
        rc = family->extra(run);
    return rc;
}

static const verify_family_t *family_named(const char *model)
{
    for (size_t i = 0; families[i] != NULL; i++)
        if (strcmp(families[i]->model, model) == 0)
            return families[i];
    return NULL;
}

static const char *text_of(json_object *json, const char *key)
{
    json_object *value;
    return json_object_object_get_ex(json, key, &value) && json_object_is_type(value, json_type_string)
               ? json_object_get_string(value)
               : "";
}

verify_result_t verify_case(const verify_options_t *options, const char *dir)
{
    char path[PATH_BYTES];
    const verify_family_t *family;
    verify_case_t *run = NULL;
    verify_result_t result = VERIFY_FAILED;
    json_object *json;

    snprintf(path, sizeof path, "%s/case.json", dir);
    json = json_object_from_file(path);
    if (json == NULL || !json_object_is_type(json, json_type_object)) {
        fprintf(options->to, "%s: FAILED: not a JSON object\n", path);
        goto cleanup;
    }
    fprintf(options->to, "%s: %s\n", dir, text_of(json, "description"));
    family = family_named(text_of(json, "model"));
    if (family == NULL) {
        fprintf(options->to, "%s: SKIPPED: model \"%s\" is not supported yet\n", dir, text_of(json, "model"));
        result = VERIFY_SKIPPED;
        goto cleanup;
    }
    if ((run = calloc(1, sizeof *run)) == NULL) {
        fprintf(options->to, "%s: FAILED: out of memory\n", dir);
        goto cleanup;
    }
    run->options = options;
    run->json = json;
    if (open_case(run, dir) < 0 || run_case(run, family) < 0)
        fprintf(options->to, "%s: FAILED: %s\n", dir, error_text());
    else {
        result = run->failed ? VERIFY_FAILED : VERIFY_PASSED;
        fprintf(options->to, "%s: %s\n", dir, run->failed ? "FAILED" : "passed");
    }
cleanup:
    if (run != NULL)
        close_case(run);
    json_object_put(json);
    return result;
}
