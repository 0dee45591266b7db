/* One case while it runs, and what a family adds: which tensors are its inputs, which its results, which are not compared and why. */
#ifndef BARCAST_TOOLS_VERIFY_VERIFY_IMPL_H
#define BARCAST_TOOLS_VERIFY_VERIFY_IMPL_H

#include "tools/verify/verify.h"

enum { VERIFY_TENSORS_MOST = 1024 };

/* An expected tensor and the worst deviation from it so far: absolute, and the tensor's own root mean square. */
typedef struct {
    const checkpoint_tensor_t *tensor;
    float *values; /* a NaN agrees with anything: where the official result does not matter */
    double rms, worst;
    int64_t compared; /* elements */
    bool reported;    /* by verify_forecast */
} verify_tensor_t;

typedef struct verify_case {
    const verify_options_t *options;
    struct json_object *json; /* case.json */
    checkpoint_t *inputs, *expected;
    model_t *model;
    model_shape_t shape; /* batch, context: of the case */
    int64_t *row_of;     /* the session's row of each row of an expected tensor (malloc'ed); NULL: the same */
    /* Which entry of a stacked tensor is shown at `step`, where it does not hold all steps: -1: none of them. NULL: the step-th. */
    int (*entry_of_step)(const struct verify_case *run, int step);
    size_t count;
    verify_tensor_t tensors[VERIFY_TENSORS_MOST];
    bool failed;
} verify_case_t;

typedef struct {
    const char *name, *reason; /* a tensor that is expected, but compared otherwise or not at all */
} verify_exception_t;

typedef struct {
    const char *model; /* as case.json names it */
    /* Reads the case's shape from its tensors; horizon, variates, exogenous too. */
    int (*shape)(const verify_case_t *run, model_shape_t *out);
    /* Changes what is expected, where ours is defined otherwise or nothing is; sets row_of. NULL: nothing to change. */
    int (*expect)(verify_case_t *run);
    /* Fills series 0 .. shape.batch - 1 of a session's inputs. */
    int (*fill)(const verify_case_t *run, const session_t *session, model_input_t *input);
    /* Compares what is shown by itself, with verify_compare; its context is the case. NULL: rows are series and variates, see on_tap. */
    model_tap_t tap;
    /* Compares the session's results with verify_forecast. */
    int (*results)(verify_case_t *run, const session_t *session);
    /* Further checks of the whole case; NULL: none. */
    int (*extra)(verify_case_t *run);
    const verify_exception_t *exceptions; /* ended by a NULL name */
} verify_family_t;

extern const verify_family_t verify_toto1, verify_toto2, verify_kronos, verify_chronos2, verify_chronos_bolt, verify_sundial;

/* The expected tensor of that name, NULL when the case has none. */
verify_tensor_t *verify_expected(verify_case_t *run, const char *name);

/* Compares `count` values with those of the expected tensor from element `at` on. */
void verify_compare(verify_case_t *run, verify_tensor_t *tensor, int64_t at, const float *values, int64_t count);

/* A number of case.json by its key ("a.b" descends); `otherwise` where there is none. */
double verify_number(const verify_case_t *run, const char *key, double otherwise);

/* An input tensor as floats (malloc'ed), its dimensions in dim[rank]; the error text names it. */
float *verify_input(const verify_case_t *run, const char *name, int rank, int64_t *dim);

/* Standard deviation of what is observed of each row of two inputs [][rows][bars]; 1 for a constant row. */
int verify_scales(const verify_case_t *run, const char *series, const char *mask, double *scale);

/* Compares results [batch][rows][horizon] with the expected tensor of that name: |difference| in units of scale[batch · rows]. */
void verify_forecast(verify_case_t *run, const char *name, const float *values, const double *scale, int64_t rows, int64_t horizon);

/* A line of the report; `passed` false fails the case. */
void verify_line(verify_case_t *run, bool passed, const char *name, const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
