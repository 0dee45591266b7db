#include "tools/stress/stress.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "gpuworker/engine/session.h"
#include "tools/bench.h"
#include "tools/random_series.h"

enum { PROBE_BATCH = 3, TIMED_RUNS = 8, REASON_BYTES = 512 };
static const int64_t TIMED_NS = 250 * CLOCK_NS_PER_MS; /* of further timed runs, a round and session */
static const size_t GROWTH_BYTES = 16 << 20;           /* of the process and of the device, from the first round on */

/* Graph and eager must agree bit for bit; where they do not, the report says whether they would pass for close. */
static const double CLOSE_MOST = 0.01, CLOSE_MAE = 1e-3;
/* Of the probe from its reference, in units of the series' scale: each value in fp32, the MAE in bf16. */
static const double FP32_MOST = 1e-4, BF16_MAE = 0.02;

typedef struct {
    const stress_model_t *plan;
    session_t *session, *twin, *probe, *reference;
    float *results, *twin_results; /* of session and twin: mean, quantiles, samples one after the other */
    float *truth, *probe_truth;    /* like the session's and the probe's mean */
    int64_t *run_ns;
    size_t runs;
    double difference;               /* largest, of the twin */
    double deviation;                /* largest, of the probe from its reference */
    double probe_mae, reference_mae; /* summed over rounds */
} subject_t;

typedef struct {
    size_t allocated, device_used, resident; /* bytes */
    uint64_t allocations, captures;
} memory_t;

typedef struct {
    const stress_options_t *options;
    backend_t *cpu; /* of the references; the backend under test when that is one */
    model_t *model[CONFIG_MODELS_MOST], *reference[CONFIG_MODELS_MOST];
    uint32_t subject_count;
    subject_t *subjects;
    memory_t opened, settled; /* before the first round, and after it */
    uint32_t round, failures;
    char reason[REASON_BYTES]; /* of the first failure */
} stress_t;

/* ---- failures ----------------------------------------------------------------------------------------------------------------- */

static void fail(stress_t *stress, const subject_t *subject, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void fail(stress_t *stress, const subject_t *subject, const char *format, ...)
{
    char text[REASON_BYTES];
    int used = 0;
    va_list arguments;

    if (subject != NULL) {
        const model_shape_t *shape = session_shape(subject->session);
        used = snprintf(text, sizeof text, "%s, batch %u, context %u, horizon %u, samples %u: ", subject->plan->name, shape->batch,
                        shape->context, shape->horizon, shape->samples);
    }
    used = used < REASON_BYTES ? used : REASON_BYTES - 1;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - (size_t)used, format, arguments);
    va_end(arguments);
    if (stress->round > 0)
        fprintf(stress->options->to, "round %u: %s\n", stress->round, text);
    if (stress->failures++ == 0)
        memcpy(stress->reason, text, sizeof text);
}

/* ---- opening and closing ------------------------------------------------------------------------------------------------------ */

static size_t result_floats(const session_t *session, uint32_t count)
{
    const model_shape_t *shape = session_shape(session);
    const model_output_t *output = session_output(session);
    size_t rows = (size_t)count * shape->variates;

    return rows * (shape->horizon * (size_t)(1 + (output->quantiles != NULL ? shape->quantile_count : 0)) +
                   (output->samples != NULL ? shape->samples * (size_t)output->sample_stride : 0));
}

static int open_subject(stress_t *stress, uint32_t model, const model_shape_t *shape)
{
    subject_t *subject = &stress->subjects[stress->subject_count++];
    model_shape_t probe = *shape, reference;
    size_t rows;
    int rc;

    subject->plan = &stress->options->plan->models[model];
    probe.batch = PROBE_BATCH;
    probe.samples = 0;
    reference = probe;
    reference.batch = 1;
    reference.precision = BACKEND_F32;
    if ((rc = session_open(stress->model[model], shape, stress->options->graphs, &subject->session)) < 0 ||
        (rc = session_open(stress->model[model], shape, false, &subject->twin)) < 0 ||
        (rc = session_open(stress->model[model], &probe, stress->options->graphs, &subject->probe)) < 0 ||
        (rc = session_open(stress->reference[model], &reference, false, &subject->reference)) < 0)
        return error_add(rc, "%s, batch %u", subject->plan->name, shape->batch);
    rows = (size_t)shape->batch * shape->variates;
    subject->results = calloc(result_floats(subject->session, shape->batch), sizeof(float));
    subject->twin_results = calloc(result_floats(subject->twin, shape->batch), sizeof(float));
    subject->truth = calloc(rows * shape->horizon, sizeof(float));
    subject->probe_truth = calloc((size_t)PROBE_BATCH * shape->variates * shape->horizon, sizeof(float));
    subject->run_ns = calloc((size_t)stress->options->rounds * TIMED_RUNS, sizeof *subject->run_ns);
    if (!subject->results || !subject->twin_results || !subject->truth || !subject->probe_truth || !subject->run_ns)
        return error_set(-1, "out of memory");
    return 0;
}

static int open_model(stress_t *stress, uint32_t index)
{
    const stress_model_t *plan = &stress->options->plan->models[index];
    char revision[17];
    model_info_t info;
    model_shape_t shapes[STRESS_SHAPES_MOST];
    int count = 0, rc = model_load(stress->options->backend, plan->path, plan->precision, &stress->model[index], revision);

    if (rc == 0)
        rc = model_load(stress->cpu, plan->path, BACKEND_F32, &stress->reference[index], revision);
    if (rc < 0)
        return rc;
    model_info(stress->model[index], &info);
    if ((count = stress_plan_shapes(plan, &info, shapes)) < 0)
        return error_add(count, "%s", plan->name);
    for (int i = 0; rc == 0 && i < count; i++)
        rc = open_subject(stress, index, &shapes[i]);
    return rc;
}

static int open_all(stress_t *stress)
{
    const stress_plan_t *plan = stress->options->plan;
    int rc = 0;

    stress->cpu = stress->options->backend;
    if (backend_kind(stress->cpu) != BACKEND_CPU)
        rc = backend_open(&(backend_options_t){.kind = BACKEND_CPU, .threads = (int)stress->options->threads}, &stress->cpu);
    if (rc == 0 && (stress->subjects = calloc((size_t)plan->model_count * STRESS_SHAPES_MOST, sizeof *stress->subjects)) == NULL)
        rc = error_set(-1, "out of memory");
    for (uint32_t i = 0; rc == 0 && i < plan->model_count; i++)
        rc = open_model(stress, i);
    return rc;
}

static void close_all(stress_t *stress)
{
    for (uint32_t i = 0; i < stress->subject_count; i++) {
        subject_t *subject = &stress->subjects[i];
        session_t *sessions[] = {subject->session, subject->twin, subject->probe, subject->reference};
        void *memory[] = {subject->results, subject->twin_results, subject->truth, subject->probe_truth, subject->run_ns};

        for (size_t k = 0; k < sizeof sessions / sizeof *sessions; k++)
            session_close(sessions[k]);
        for (size_t k = 0; k < sizeof memory / sizeof *memory; k++)
            free(memory[k]);
    }
    free(stress->subjects);
    for (uint32_t i = 0; i < stress->options->plan->model_count; i++) {
        model_unload(stress->model[i]);
        model_unload(stress->reference[i]);
    }
    if (stress->cpu != stress->options->backend)
        backend_close(stress->cpu);
}

/* ---- one run ------------------------------------------------------------------------------------------------------------------ */

static float *append(float *to, const float *values, size_t count)
{
    if (values == NULL)
        return to;
    memcpy(to, values, count * sizeof *to);
    return to + count;
}

static void take_results(const session_t *session, uint32_t count, float *to)
{
    const model_shape_t *shape = session_shape(session);
    const model_output_t *output = session_output(session);
    size_t rows = (size_t)count * shape->variates;

    to = append(to, output->mean, rows * shape->horizon);
    to = append(to, output->quantiles, rows * shape->quantile_count * shape->horizon);
    append(to, output->samples, rows * shape->samples * output->sample_stride);
}

/* Finite, and no quantile above the next one. */
static bool plausible(const session_t *session, uint32_t count)
{
    const model_shape_t *shape = session_shape(session);
    const model_output_t *output = session_output(session);
    size_t rows = (size_t)count * shape->variates, horizon = shape->horizon;

    for (size_t i = 0; i < rows * horizon; i++)
        if (!isfinite(output->mean[i]))
            return false;
    for (size_t row = 0; output->quantiles != NULL && row < rows; row++)
        for (size_t i = 0; i < shape->quantile_count * horizon; i++) {
            const float *value = output->quantiles + row * shape->quantile_count * horizon + i;

            if (!isfinite(*value) || (i >= horizon && *value < *(value - horizon)))
                return false;
        }
    return true;
}

/* How many series a run has: the full batch first, then whatever comes. */
static uint32_t count_of(const stress_t *stress, uint64_t seed, uint32_t batch)
{
    return stress->round == 1 ? batch : 1 + (uint32_t)(seed >> 20) % batch;
}

static int timed_run(stress_t *stress, subject_t *subject, uint64_t seed, uint32_t count)
{
    int64_t begin_ns;
    int rc;

    random_series_fill(subject->session, &(random_series_t){.seed = seed, .ragged = true, .truth = subject->truth});
    begin_ns = clock_monotonic_ns();
    rc = session_run(subject->session, count);
    subject->run_ns[subject->runs++] = clock_monotonic_ns() - begin_ns;
    if (rc == 0 && !plausible(subject->session, count))
        fail(stress, subject, "a value that is not finite, or quantiles that cross");
    return rc;
}

/* ---- the checks of a round ---------------------------------------------------------------------------------------------------- */

static int check_repeats(stress_t *stress, subject_t *subject, uint32_t count)
{
    size_t floats = result_floats(subject->session, count);
    stress_difference_t difference;
    int rc;

    take_results(subject->session, count, subject->results);
    if ((rc = session_run(subject->session, count)) < 0)
        return rc;
    take_results(subject->session, count, subject->twin_results);
    difference = stress_compare(subject->results, subject->twin_results, floats);
    if (difference.differing > 0)
        fail(stress, subject, "the same input twice: %zu of %zu values differ, by at most %.3g", difference.differing, floats,
             difference.most);
    return 0;
}

static int check_twin(stress_t *stress, subject_t *subject, uint64_t seed, uint32_t count)
{
    const model_shape_t *shape = session_shape(subject->session);
    size_t floats = result_floats(subject->session, count), means = (size_t)count * shape->variates * shape->horizon;
    stress_difference_t difference;
    double mae;
    int rc;

    random_series_fill(subject->twin, &(random_series_t){.seed = seed, .ragged = true});
    if ((rc = session_run(subject->twin, count)) < 0)
        return rc;
    take_results(subject->twin, count, subject->twin_results);
    difference = stress_compare(subject->results, subject->twin_results, floats);
    mae =
        fabs(stress_mae(subject->results, subject->truth, means, 1) - stress_mae(subject->twin_results, subject->truth, means, 1));
    subject->difference = fmax(subject->difference, difference.most);
    if (difference.differing > 0)
        fail(stress, subject,
             "the session and its eager twin: %zu of %zu values differ, by at most %.3g (%s %g), MAE by %.3g (%s %g)",
             difference.differing, floats, difference.most, difference.most < CLOSE_MOST ? "below" : "not below", CLOSE_MOST, mae,
             mae < CLOSE_MAE ? "below" : "not below", CLOSE_MAE);
    return 0;
}

/* Series i of the probe beside the same one alone: adds to the round's deviation and errors. */
typedef struct {
    double deviation, probe_mae, reference_mae;
} closeness_t;

static void compare_series(const subject_t *subject, uint32_t i, closeness_t *out)
{
    const model_shape_t *shape = session_shape(subject->probe);
    double rows = (double)PROBE_BATCH * shape->variates;

    for (uint32_t v = 0; v < shape->variates; v++) {
        size_t row = (size_t)i * shape->variates + v;
        const float *mean = session_output(subject->probe)->mean + row * shape->horizon;
        const float *alone = session_output(subject->reference)->mean + (size_t)v * shape->horizon;
        const float *truth = subject->probe_truth + row * shape->horizon;
        double scale = stress_scale(session_input(subject->probe)->values + row * shape->context, shape->context);

        out->deviation = fmax(out->deviation, stress_compare(mean, alone, shape->horizon).most / scale);
        out->probe_mae += stress_mae(mean, truth, shape->horizon, scale) / rows;
        out->reference_mae += stress_mae(alone, truth, shape->horizon, scale) / rows;
    }
}

static int check_reference(stress_t *stress, subject_t *subject, uint64_t seed)
{
    bool bf16 = subject->plan->precision == BACKEND_BF16;
    double gap;
    closeness_t closeness = {0};
    int rc;

    random_series_fill(subject->probe, &(random_series_t){.seed = seed, .truth = subject->probe_truth});
    rc = session_run(subject->probe, PROBE_BATCH);
    for (uint32_t i = 0; rc == 0 && i < PROBE_BATCH; i++) {
        random_series_fill(subject->reference, &(random_series_t){.seed = seed, .first = i});
        if ((rc = session_run(subject->reference, 1)) == 0)
            compare_series(subject, i, &closeness);
    }
    if (rc < 0)
        return rc;
    gap = fabs(closeness.probe_mae - closeness.reference_mae);
    subject->deviation = fmax(subject->deviation, closeness.deviation);
    subject->probe_mae += closeness.probe_mae;
    subject->reference_mae += closeness.reference_mae;
    if (bf16 && !(gap <= BF16_MAE))
        fail(stress, subject, "bf16's MAE is %.3g, that of fp32 on the CPU %.3g: %.3g of the scale apart, bound %g",
             closeness.probe_mae, closeness.reference_mae, gap, BF16_MAE);
    if (!bf16 && !(closeness.deviation <= FP32_MOST))
        fail(stress, subject, "the mean is %.3g of the scale apart from that of each series alone on the CPU, bound %g",
             closeness.deviation, FP32_MOST);
    return 0;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------- */

static size_t resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (file != NULL) {
        if (fscanf(file, "%*u %lu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int take_memory(const stress_t *stress, memory_t *out)
{
    const backend_t *backend = stress->options->backend;
    size_t free_bytes = 0, total_bytes = 0;
    memory_t memory = {.allocated = backend_allocated_bytes(backend),
                       .allocations = backend_allocation_count(backend),
                       .resident = resident_bytes()};
    int rc = backend_kind(backend) == BACKEND_CPU ? 0 : backend_memory(backend, &free_bytes, &total_bytes);

    for (uint32_t i = 0; i < stress->subject_count; i++) {
        const session_t *sessions[] = {stress->subjects[i].session, stress->subjects[i].twin, stress->subjects[i].probe};
        session_stats_t stats;

        for (size_t k = 0; k < sizeof sessions / sizeof *sessions; k++) {
            session_stats(sessions[k], &stats);
            memory.captures += stats.captures;
        }
    }
    memory.device_used = total_bytes - free_bytes;
    *out = memory;
    return rc;
}

static int check_memory(stress_t *stress)
{
    memory_t now;
    int rc = take_memory(stress, &now);

    if (rc < 0)
        return rc;
    if (stress->round == 1)
        stress->settled = now;
    if (now.captures != stress->opened.captures)
        fail(stress, NULL, "%llu captures after the sessions were opened",
             (unsigned long long)(now.captures - stress->opened.captures));
    if (now.allocations != stress->opened.allocations || now.allocated != stress->opened.allocated)
        fail(stress, NULL, "%llu allocations after the sessions were opened, %zu bytes held instead of %zu",
             (unsigned long long)(now.allocations - stress->opened.allocations), now.allocated, stress->opened.allocated);
    if (now.device_used > stress->settled.device_used + GROWTH_BYTES)
        fail(stress, NULL, "device memory in use grew from %zu to %zu MB", stress->settled.device_used >> 20,
             now.device_used >> 20);
    if (now.resident > stress->settled.resident + GROWTH_BYTES)
        fail(stress, NULL, "the process grew from %zu to %zu MB", stress->settled.resident >> 20, now.resident >> 20);
    fprintf(stress->options->to, "round %u of %u: %.1f MB allocated, process %.1f MB", stress->round, stress->options->rounds,
            (double)now.allocated / 1e6, (double)now.resident / 1e6);
    if (now.device_used > 0)
        fprintf(stress->options->to, ", device %.1f MB", (double)now.device_used / 1e6);
    fprintf(stress->options->to, "\n");
    return 0;
}

/* ---- rounds and report -------------------------------------------------------------------------------------------------------- */

static int check_subject(stress_t *stress, subject_t *subject, uint64_t seed)
{
    uint32_t batch = session_shape(subject->session)->batch, count = count_of(stress, seed, batch);
    int64_t end_ns;
    int rc;

    if ((rc = timed_run(stress, subject, seed, count)) < 0 || (rc = check_repeats(stress, subject, count)) < 0 ||
        (rc = check_twin(stress, subject, seed, count)) < 0 || (rc = check_reference(stress, subject, seed)) < 0)
        return rc;
    end_ns = clock_monotonic_ns() + TIMED_NS;
    for (int i = 1; rc == 0 && i < TIMED_RUNS && clock_monotonic_ns() < end_ns; i++) {
        uint64_t fresh = model_random_key(seed, "timed", i);
        rc = timed_run(stress, subject, fresh, count_of(stress, fresh, batch));
    }
    return rc;
}

static int run_round(stress_t *stress)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < stress->subject_count; i++)
        rc = check_subject(stress, &stress->subjects[i], model_random_key(stress->options->seed, "round", stress->round << 16 | i));
    return rc < 0 ? rc : check_memory(stress);
}

static int run_rounds(stress_t *stress)
{
    int rc = take_memory(stress, &stress->opened);

    while (rc == 0 && stress->round < stress->options->rounds) {
        stress->round++;
        rc = run_round(stress);
    }
    return rc;
}

static void report(const stress_t *stress)
{
    FILE *to = stress->options->to;

    fprintf(to, "\n%-20s %5s %3s %7s %7s %7s %5s %5s %5s %9s %9s %8s %9s %8s %8s\n", "model", "batch", "var", "context", "horizon",
            "samples", "prec.", "graph", "runs", "p50 ms", "p99 ms", "eager", "reference", "MAE", "its MAE");
    for (uint32_t i = 0; i < stress->subject_count; i++) {
        subject_t *subject = &stress->subjects[i];
        const model_shape_t *shape = session_shape(subject->session);
        bench_figures_t figures = bench_figures(subject->run_ns, subject->runs);
        session_stats_t stats;

        session_stats(subject->session, &stats);
        fprintf(to, "%-20.20s %5u %3u %7u %7u %7u %5s %5s %5zu %9.3f %9.3f %8.1e %9.1e %8.4f %8.4f\n", subject->plan->name,
                shape->batch, shape->variates, shape->context, shape->horizon, shape->samples,
                subject->plan->precision == BACKEND_BF16 ? "bf16" : "fp32", stats.graph ? "on" : "off", subject->runs,
                figures.p50 / 1e6, figures.p99 / 1e6, subject->difference, subject->deviation,
                subject->probe_mae / stress->options->rounds, subject->reference_mae / stress->options->rounds);
    }
    fprintf(
        to,
        "eager: largest difference from the eager twin. reference: largest distance of the mean from fp32 on the CPU, series by "
        "series, in units\nof the series' deviation, as are the errors (MAE) of both.\n\n");
}

bool stress_run(const stress_options_t *options)
{
    stress_t stress = {.options = options};
    bool passed;

    if (open_all(&stress) < 0 || run_rounds(&stress) < 0)
        fail(&stress, NULL, "%s", error_text());
    else
        report(&stress);
    passed = stress.failures == 0;
    if (passed)
        fprintf(options->to, "PASS\n");
    else
        fprintf(options->to, "FAIL: %s%s\n", stress.reason, stress.failures > 1 ? " (the first of several)" : "");
    close_all(&stress);
    return passed;
}
