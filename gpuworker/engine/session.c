#include "gpuworker/engine/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "gpuworker/engine/input.h"
#include "gpuworker/engine/rescale.h"

struct session {
    model_t *model;
    const model_family_t *family;
    backend_t *backend;
    model_state_t *state;
    model_shape_t shape;
    model_input_t input;
    model_output_t output;
    backend_graph_t *graph; /* NULL: eager */
    int8_t *exponents;      /* [batch · variates]; NULL: series are not rescaled */
    uint32_t rescaled;      /* series of the run under way whose exponents are not all 0; 0: none */
    session_stats_t stats;
};

static int session_error(int model_rc)
{
    switch (model_rc) {
    case MODEL_ERR_SHAPE:
        return SESSION_ERR_SHAPE;
    case MODEL_ERR_MEMORY:
        return SESSION_ERR_MEMORY;
    default:
        return SESSION_ERR_DEVICE;
    }
}

static int check_shape(const model_shape_t *shape)
{
    if (shape->batch < 1 || shape->variates < 1 || shape->context < 1 || shape->horizon < 1)
        return error_set(SESSION_ERR_SHAPE, "batch %u, variates %u, context %u, horizon %u: each must be at least 1", shape->batch,
                         shape->variates, shape->context, shape->horizon);
    if (shape->exogenous >= shape->variates)
        return error_set(SESSION_ERR_SHAPE, "%u exogenous of %u variates leave no target", shape->exogenous, shape->variates);
    if (shape->quantile_count > MODEL_QUANTILES_MOST)
        return error_set(SESSION_ERR_SHAPE, "%u quantile levels, at most %d", shape->quantile_count, MODEL_QUANTILES_MOST);
    for (uint32_t i = 0; i < shape->quantile_count; i++)
        if (!(shape->quantiles[i] > 0 && shape->quantiles[i] < 1) || (i > 0 && shape->quantiles[i] <= shape->quantiles[i - 1]))
            return error_set(SESSION_ERR_SHAPE, "quantile level %g: levels ascend between 0 and 1", (double)shape->quantiles[i]);
    return SESSION_OK;
}

/* ---- running ------------------------------------------------------------------------------------------------------------------ */

static int enqueue(session_t *session)
{
    int rc;

    if (session->graph != NULL) {
        session->stats.replays++;
        return backend_graph_launch(session->backend, session->graph) < 0 ? SESSION_ERR_DEVICE : SESSION_OK;
    }
    session->stats.eager_runs++;
    rc = session->family->forecast(session->state);
    return rc < 0 ? session_error(rc) : SESSION_OK;
}

static void prepare(session_t *session)
{
    if (session->family->prepare != NULL)
        session->family->prepare(session->state);
}

static int finish(session_t *session)
{
    int rc = backend_synchronize(session->backend) < 0 ? SESSION_ERR_DEVICE : SESSION_OK;

    if (session->rescaled > 0)
        rescale_back(&session->shape, &session->input, &session->output, session->rescaled, session->exponents);
    session->rescaled = 0;
    return rc;
}

static int run(session_t *session)
{
    int rc;

    prepare(session);
    rc = enqueue(session);
    return rc < 0 ? rc : finish(session);
}

static int run_timed(session_t *session, int64_t *device_ns)
{
    int rc = SESSION_OK;

    prepare(session);
    if (session->graph != NULL)
        rc = enqueue(session);
    if (rc == SESSION_OK)
        rc = backend_timer_start(session->backend) < 0 ? SESSION_ERR_DEVICE : enqueue(session);
    if (rc == SESSION_OK)
        rc = backend_timer_stop(session->backend) < 0 ? SESSION_ERR_DEVICE : finish(session);
    if (rc == SESSION_OK && backend_timer_read(session->backend, device_ns) < 0)
        rc = SESSION_ERR_DEVICE;
    return rc;
}

/* What a run of `count` series needs before it. */
static int accept_run(session_t *session, uint32_t count)
{
    if (count < 1 || count > session->shape.batch)
        return error_set(SESSION_ERR_SHAPE, "%u series in a session of batch %u", count, session->shape.batch);
    for (uint32_t i = 0; i < count; i++)
        if (session->input.length[i] < 1 || session->input.length[i] > session->shape.context)
            return error_set(SESSION_ERR_SHAPE, "series %u has %u bars, the session takes 1 to %u", i, session->input.length[i],
                             session->shape.context);
    session->rescaled =
        session->exponents != NULL && rescale_inputs(&session->shape, &session->input, count, session->exponents) ? count : 0;
    input_pad(&session->shape, &session->input, count);
    return SESSION_OK;
}

int session_start(session_t *session, uint32_t count)
{
    int rc = accept_run(session, count);

    if (rc < 0)
        return rc;
    prepare(session);
    if (backend_timer_start(session->backend) < 0)
        return SESSION_ERR_DEVICE;
    rc = enqueue(session);
    return rc == SESSION_OK && backend_timer_stop(session->backend) < 0 ? SESSION_ERR_DEVICE : rc;
}

int session_ready(session_t *session)
{
    int idle = backend_idle(session->backend);
    return idle < 0 ? SESSION_ERR_DEVICE : idle;
}

int session_wait(session_t *session)
{
    int rc = finish(session);
    return rc == SESSION_OK && backend_timer_read(session->backend, &session->stats.device_ns) < 0 ? SESSION_ERR_DEVICE : rc;
}

int session_run(session_t *session, uint32_t count)
{
    int rc = session_start(session, count);
    return rc < 0 ? rc : session_wait(session);
}

int session_run_timed(session_t *session, uint32_t count, int64_t *device_ns)
{
    int rc = accept_run(session, count);
    return rc < 0 ? rc : run_timed(session, device_ns);
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------ */

/* Plausible prices, so that the trial runs meet no special case: two waves around 100, each series at its own phase. */
static void fill_trial(session_t *session)
{
    const model_shape_t *shape = &session->shape;
    model_input_t *input = &session->input;
    size_t values = (size_t)shape->variates * shape->context;

    for (size_t i = 0; i < shape->batch * values; i++) {
        input->values[i] = 100.0f + sinf(0.1f * (float)(i % 1000)) + 0.3f * sinf(1.7f * (float)(i % 777));
        input->mask[i] = 1;
    }
    for (uint32_t i = 0; i < shape->batch; i++) {
        input->length[i] = shape->context;
        input->key[i] = i;
        for (uint32_t t = 0; t < shape->context + shape->horizon; t++)
            input->time_ns[(size_t)i * (shape->context + shape->horizon) + t] = (int64_t)t * 60 * CLOCK_NS_PER_S;
    }
    for (size_t i = 0; i < (size_t)shape->batch * shape->variates; i++)
        input->log_price[i] = 1;
    for (size_t i = 0; i < (size_t)shape->batch * shape->exogenous * shape->horizon; i++)
        input->future[i] = 100.0f;
}

/* The outputs by name, for the comparison of replay and eager. */
enum { OUTPUTS = 3 };

typedef struct {
    const char *name;
    const float *values;
    size_t bytes;
} result_t;

static void list_results(const session_t *session, result_t results[OUTPUTS])
{
    const model_shape_t *shape = &session->shape;
    size_t rows = (size_t)shape->batch * shape->variates;

    results[0] = (result_t){"mean", session->output.mean, rows * shape->horizon * sizeof(float)};
    results[1] = (result_t){"quantiles", session->output.quantiles, rows * shape->quantile_count * shape->horizon * sizeof(float)};
    results[2] =
        (result_t){"samples", session->output.samples, rows * shape->samples * session->output.sample_stride * sizeof(float)};
}

static size_t first_difference(const float *a, const float *b, size_t bytes)
{
    size_t i = 0;

    while (i < bytes / sizeof *a && memcmp(a + i, b + i, sizeof *a) == 0)
        i++;
    return i;
}

/* Captures the forecast, replays it, and wants the eager run's results again, bit for bit. */
static int capture(session_t *session)
{
    result_t results[OUTPUTS];
    float *eager[OUTPUTS] = {0};
    int rc = SESSION_OK, captured;

    list_results(session, results);
    for (int i = 0; i < OUTPUTS; i++)
        if (results[i].values != NULL) {
            if ((eager[i] = malloc(results[i].bytes)) == NULL) {
                rc = error_set(SESSION_ERR_MEMORY, "no memory to compare %s", results[i].name);
                goto cleanup;
            }
            memcpy(eager[i], results[i].values, results[i].bytes);
        }
    if (backend_graph_begin(session->backend) < 0) {
        rc = SESSION_ERR_DEVICE;
        goto cleanup;
    }
    captured = session->family->forecast(session->state);
    if (backend_graph_end(session->backend, &session->graph) < 0 || captured < 0) {
        rc = SESSION_ERR_DEVICE;
        goto cleanup;
    }
    session->stats.captures++;
    if ((rc = run(session)) < 0)
        goto cleanup;
    for (int i = 0; i < OUTPUTS && rc == SESSION_OK; i++)
        if (eager[i] != NULL && memcmp(eager[i], results[i].values, results[i].bytes) != 0) {
            size_t at = first_difference(eager[i], results[i].values, results[i].bytes);
            rc = error_set(SESSION_ERR_MISMATCH, "%s[%zu]: the graph gives %.9g, the eager run %.9g", results[i].name, at,
                           (double)results[i].values[at], (double)eager[i][at]);
        }
cleanup:
    for (int i = 0; i < OUTPUTS; i++)
        free(eager[i]);
    return rc;
}

/* Plausible prices make plausible numbers, unless the weights are finite but so large that products overflow. Noise that the caller has yet to
 * stage says nothing. */
static int expect_finite(const session_t *session)
{
    result_t results[OUTPUTS];

    list_results(session, results);
    for (int i = 0; i < OUTPUTS && !session->shape.given_noise; i++)
        for (size_t at = 0; results[i].values != NULL && at < results[i].bytes / sizeof(float); at++)
            if (!isfinite(results[i].values[at]))
                return error_set(SESSION_ERR_WEIGHTS, "%s: the weights give no numbers: %s[%zu] of a trial forecast is %g",
                                 session->family->name, results[i].name, at, (double)results[i].values[at]);
    return SESSION_OK;
}

static int try_out(session_t *session, bool graphs)
{
    int64_t begin_ns;
    int rc;

    fill_trial(session);
    if ((rc = run(session)) < 0 || (rc = expect_finite(session)) < 0)
        return rc;
    if (graphs && backend_has_graphs(session->backend) && (rc = capture(session)) < 0)
        return rc;
    begin_ns = clock_monotonic_ns();
    rc = session_run(session, session->shape.batch);
    session->stats.run_ns = clock_monotonic_ns() - begin_ns;
    return rc;
}

int session_open(model_t *model, const model_shape_t *shape, bool graphs, session_t **out)
{
    const model_base_t *base = (const model_base_t *)model;
    int64_t begin_ns = clock_monotonic_ns();
    size_t before = backend_allocated_bytes(base->backend);
    session_t *session;
    int rc = check_shape(shape);

    if (rc < 0)
        return rc;
    if ((session = calloc(1, sizeof *session)) == NULL)
        return error_set(SESSION_ERR_MEMORY, "no memory for a session");
    session->model = model;
    session->family = base->family;
    session->backend = base->backend;
    session->shape = *shape;
    rc = model_open(model, &session->shape, &session->state, &session->input, &session->output);
    if (rc < 0) {
        free(session);
        return session_error(rc);
    }
    session->stats.bytes = backend_allocated_bytes(base->backend) - before;
    if (base->rescale || shape->options.rescale) {
        session->exponents = calloc((size_t)shape->batch * shape->variates, sizeof *session->exponents);
        if (session->exponents == NULL) {
            session_close(session);
            return error_set(SESSION_ERR_MEMORY, "no memory for a session");
        }
    }
    if ((rc = try_out(session, graphs)) < 0) {
        session_close(session);
        return rc;
    }
    session->stats.graph = session->graph != NULL;
    session->stats.open_ns = clock_monotonic_ns() - begin_ns;
    *out = session;
    return SESSION_OK;
}

void session_close(session_t *session)
{
    if (session == NULL)
        return;
    backend_graph_free(session->backend, session->graph);
    model_close(session->model, session->state);
    free(session->exponents);
    free(session);
}

/* ---- access ------------------------------------------------------------------------------------------------------------------- */

const model_shape_t *session_shape(const session_t *session)
{
    return &session->shape;
}

void session_info(const session_t *session, model_info_t *out)
{
    model_info(session->model, out);
}

model_input_t *session_input(session_t *session)
{
    return &session->input;
}

const model_output_t *session_output(const session_t *session)
{
    return &session->output;
}

int session_set_tap(session_t *session, model_tap_t tap, void *context)
{
    int rc;

    if (session->graph != NULL)
        return error_set(SESSION_ERR_SHAPE, "a captured session cannot be tapped: open it without graphs");
    if (session->family->set_tap == NULL)
        return SESSION_OK;
    rc = session->family->set_tap(session->state, tap, context);
    return rc < 0 ? session_error(rc) : SESSION_OK;
}

void session_stats(const session_t *session, session_stats_t *out)
{
    *out = session->stats;
}
