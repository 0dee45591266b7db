/* barcast bench engine: one model's forecasts alone, without the pipeline, and how far they are from what this machine could do. */
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "tools/bench.h"
#include "tools/device.h"
#include "tools/options.h"
#include "tools/random_series.h"
#include "tools/shapes.h"
#include "tools/version.h"

enum { LIST_MOST = 16, RUNS_LEAST = 5, RUNS_MOST = 20000, QUANTILES = 9 };

typedef struct {
    const char *name; /* of the model */
    backend_t *backend;
    backend_rates_t rates;
    model_t *model;
    backend_dtype_t precision;
    bool graphs, json;
    double seconds;
} engine_bench_t;

typedef struct {
    model_shape_t shape; /* as the session rounded it */
    session_stats_t stats;
    size_t runs;
    bench_figures_t device, wall; /* ns */
    model_cost_t cost;
    double bytes, matrix_flops, floor_ms;
} result_t;

/* ---- verifying ---------------------------------------------------------------------------------------------------------------- */

static int run_on(session_t *session, uint64_t seed)
{
    random_series_fill(session, &(random_series_t){.seed = seed});
    return session_run(session, session_shape(session)->batch);
}

/* A fresh input gives finite values, the same bytes again, and others than another input does. */
static int verify(session_t *session)
{
    const model_shape_t *shape = session_shape(session);
    size_t count = (size_t)shape->batch * shape->variates * shape->horizon;
    const float *mean = session_output(session)->mean;
    float *first = malloc(count * sizeof *first);
    int rc = first != NULL ? run_on(session, 1) : error_set(-1, "out of memory");

    if (rc == 0)
        memcpy(first, mean, count * sizeof *first);
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (!isfinite(first[i]))
            rc = error_set(-1, "mean[%zu] is %g: expected a finite value", i, (double)first[i]);
    if (rc == 0 && (rc = run_on(session, 2)) == 0 && memcmp(first, mean, count * sizeof *first) == 0)
        rc = error_set(-1, "two inputs give the same mean");
    if (rc == 0 && (rc = run_on(session, 1)) == 0 && memcmp(first, mean, count * sizeof *first) != 0)
        rc = error_set(-1, "the same input gives another mean the second time");
    free(first);
    return rc;
}

/* ---- measuring ---------------------------------------------------------------------------------------------------------------- */

static int measure(const engine_bench_t *bench, session_t *session, result_t *result)
{
    int64_t *wall_ns = malloc(2 * RUNS_MOST * sizeof *wall_ns), *device_ns = wall_ns + RUNS_MOST;
    int64_t end_ns = clock_monotonic_ns() + (int64_t)(bench->seconds * (double)CLOCK_NS_PER_S);
    uint32_t batch = session_shape(session)->batch;
    size_t runs = 0;
    int rc = 0;

    if (wall_ns == NULL)
        return error_set(-1, "out of memory");
    while (rc == 0 && runs < RUNS_MOST && (runs < RUNS_LEAST || clock_monotonic_ns() < end_ns)) {
        random_series_fill(session, &(random_series_t){.seed = 3 + runs});
        wall_ns[runs] = -clock_monotonic_ns();
        rc = session_run(session, batch);
        wall_ns[runs] += clock_monotonic_ns();
        if (rc == 0)
            rc = session_run_timed(session, batch, &device_ns[runs++]);
    }
    if (rc == 0) {
        result->runs = runs;
        result->wall = bench_figures(wall_ns, runs);
        result->device = bench_figures(device_ns, runs);
    }
    free(wall_ns);
    return rc;
}

static void set_floor(const engine_bench_t *bench, result_t *result)
{
    const backend_rates_t *rates = &bench->rates;

    model_family(bench->model)->cost(bench->model, &result->shape, &result->cost);
    result->bytes = result->cost.weight_bytes + result->cost.cache_bytes + result->cost.io_bytes;
    result->matrix_flops = bench->precision == BACKEND_BF16 ? rates->bf16_flops : rates->f32_flops;
    result->floor_ms = 1e3 * fmax(result->bytes / rates->copy_bytes_per_s, result->cost.flops / result->matrix_flops);
}

static int bench_shape(const engine_bench_t *bench, const model_shape_t *shape, result_t *result)
{
    session_t *session;
    int rc = session_open(bench->model, shape, bench->graphs, &session);

    if (rc < 0)
        return rc;
    *result = (result_t){.shape = *session_shape(session)};
    session_stats(session, &result->stats);
    if ((rc = verify(session)) == 0)
        rc = measure(bench, session, result);
    session_close(session);
    if (rc == 0)
        set_floor(bench, result);
    return rc;
}

/* ---- printing ----------------------------------------------------------------------------------------------------------------- */

static double ms(double ns)
{
    return ns / 1e6;
}

static const char *precision_name(const engine_bench_t *bench)
{
    return bench->precision == BACKEND_BF16 ? "bf16" : "fp32";
}

static void print_head(const engine_bench_t *bench)
{
    bench_print_machine(stdout);
    printf("%s on %s, %s; here a copy does %.4g GB/s, a product %.4g TFLOP/s\n", bench->name, backend_name(bench->backend),
           precision_name(bench), bench->rates.copy_bytes_per_s / 1e9,
           (bench->precision == BACKEND_BF16 ? bench->rates.bf16_flops : bench->rates.f32_flops) / 1e12);
    printf("floor: the longer of bytes / copy and operations / product; bytes are weights once a pass, keys and values, bars in "
           "and results "
           "out\n\n%31s  %6s %6s %17s %17s %8s %8s %8s %8s %9s %8s\n",
           "", "", "", "device ms", "wall ms", "open", "session", "bytes", "", "floor", "device /");
    printf("%6s %7s %7s %8s  %6s %6s %8s %8s %8s %8s %8s %8s %8s %8s %9s %8s\n", "batch", "context", "horizon", "samples", "graph",
           "runs", "p50", "p99", "p50", "p99", "ms", "MB", "MB", "GFLOP", "ms", "floor");
}

static void print_row(const result_t *r)
{
    printf("%6u %7u %7u %8u  %6s %6zu %8.3f %8.3f %8.3f %8.3f %8.1f %8.1f %8.1f %8.2f %9.4f %8.1f\n", r->shape.batch,
           r->shape.context, r->shape.horizon, r->shape.samples, r->stats.graph ? "on" : "off", r->runs, ms(r->device.p50),
           ms(r->device.p99), ms(r->wall.p50), ms(r->wall.p99), ms((double)r->stats.open_ns), (double)r->stats.bytes / 1e6,
           r->bytes / 1e6, r->cost.flops / 1e9, r->floor_ms, ms(r->device.p50) / r->floor_ms);
}

static void print_json(const engine_bench_t *bench, const result_t *r)
{
    const struct {
        const char *key;
        json_object *value;
    } members[] = {
        {"model", json_object_new_string(bench->name)},
        {"device", json_object_new_string(backend_name(bench->backend))},
        {"precision", json_object_new_string(precision_name(bench))},
        {"batch", json_object_new_int64(r->shape.batch)},
        {"variates", json_object_new_int64(r->shape.variates)},
        {"context", json_object_new_int64(r->shape.context)},
        {"horizon", json_object_new_int64(r->shape.horizon)},
        {"samples", json_object_new_int64(r->shape.samples)},
        {"graphs", json_object_new_boolean(r->stats.graph)},
        {"device_ms_p50", json_object_new_double(ms(r->device.p50))},
        {"device_ms_p99", json_object_new_double(ms(r->device.p99))},
        {"wall_ms_p50", json_object_new_double(ms(r->wall.p50))},
        {"wall_ms_p99", json_object_new_double(ms(r->wall.p99))},
        {"runs", json_object_new_int64((int64_t)r->runs)},
        {"open_ms", json_object_new_double(ms((double)r->stats.open_ns))},
        {"session_bytes", json_object_new_int64((int64_t)r->stats.bytes)},
        {"weight_bytes", json_object_new_double(r->cost.weight_bytes)},
        {"cache_bytes", json_object_new_double(r->cost.cache_bytes)},
        {"io_bytes", json_object_new_double(r->cost.io_bytes)},
        {"bytes", json_object_new_double(r->bytes)},
        {"flops", json_object_new_double(r->cost.flops)},
        {"floor_ms", json_object_new_double(r->floor_ms)},
        {"distance", json_object_new_double(ms(r->device.p50) / r->floor_ms)},
        {"copy_bytes_per_s", json_object_new_double(bench->rates.copy_bytes_per_s)},
        {"matrix_flops", json_object_new_double(r->matrix_flops)},
        {"commit", json_object_new_string(version_commit())},
    };
    json_object *line = json_object_new_object();

    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        json_object_object_add(line, members[i].key, members[i].value);
    printf("%s\n", json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN));
    fflush(stdout);
    json_object_put(line);
}

/* ---- the command -------------------------------------------------------------------------------------------------------------- */

/* A line for each combination; what cannot be measured is told and counted. */
static int bench_all(const engine_bench_t *bench, const shapes_t *shapes, uint32_t variates)
{
    uint32_t failed = 0;

    for (uint32_t i = 0; i < shapes_count(shapes); i++) {
        model_shape_t shape = {.variates = variates, .precision = bench->precision, .discard_samples = true};
        result_t result;

        shapes_at(shapes, i, &shape);
        if (bench_shape(bench, &shape, &result) < 0) {
            fprintf(stderr, "bench engine: batch %u, context %u, horizon %u, samples %u: %s\n", shape.batch, shape.context,
                    shape.horizon, shape.samples, error_text());
            failed++;
        } else if (bench->json) {
            print_json(bench, &result);
        } else {
            print_row(&result);
        }
    }
    return failed == 0 ? 0 : 1;
}

static int run(engine_bench_t *bench, const shapes_t *shapes, uint32_t variates)
{
    char revision[17];
    model_info_t info;
    int status;

    if (backend_measure(bench->backend, &bench->rates) < 0 ||
        model_load(bench->backend, bench->name, bench->precision, &bench->model, revision) < 0) {
        fprintf(stderr, "bench engine: %s\n", error_text());
        return 1;
    }
    if (!bench->json)
        print_head(bench);
    model_info(bench->model, &info);
    status = bench_all(bench, shapes, info.whole_bars ? MODEL_WHOLE_BAR : variates);
    model_unload(bench->model);
    return status;
}

int bench_engine(int argc, char **argv)
{
    const char *device = "auto", *precision = "auto", *graphs = "on";
    shapes_text_t text = {.batch = "1", .context = "512", .horizon = "64", .samples = "256"};
    engine_bench_t bench = {.name = "naive", .seconds = 2};
    uint32_t variates = 1, threads = 0;
    shapes_t shapes = {0};
    const option_t table[] = {
        {"model", OPTION_TEXT, &bench.name, "DIR", "checkpoint, or naive"},
        {"batch", OPTION_TEXT, &text.batch, "N,...", "series a run"},
        {"context", OPTION_TEXT, &text.context, "N,...", "bars in, rounded up to the model's patch"},
        {"horizon", OPTION_TEXT, &text.horizon, "N,...", "bars out"},
        {"samples", OPTION_TEXT, &text.samples, "N,...", "paths a series, 0: the mean only"},
        {"variates", OPTION_U32, &variates, "N", "rows a series; 6 where the model takes whole bars"},
        {"device", OPTION_TEXT, &device, "NAME", DEVICE_HELP},
        {"precision", OPTION_TEXT, &precision, "NAME", PRECISION_HELP},
        {"graphs", OPTION_TEXT, &graphs, "on|off", "replay a captured graph, where the device has them"},
        {"threads", OPTION_U32, &threads, "N", "CPU threads, 0: one a core"},
        {"seconds", OPTION_F64, &bench.seconds, "S", "time given to each line"},
        {"json", OPTION_FLAG, &bench.json, NULL, "one JSON object a line"},
    };
    const options_t spec = {
        .usage = "barcast bench engine [--model DIR] [options]",
        .about =
            "Forecasts of fresh random walks, one session a combination of the lists. Each is checked first: finite, the same "
            "bytes for "
            "the same\ninput, others for another. Device time is the GPU's own, back to back; wall time is what a caller waits, "
            "copies "
            "included.\nSampled paths stay on the device; their mean and 9 quantiles come back. The floor is counted from the "
            "model's "
            "structure\nagainst the copy bandwidth and matrix rate that the same run measures; activations are not counted.\n\n"
            "  barcast bench engine --model toto-base --batch 1,64,512 --horizon 64,336",
        .options = table,
        .count = sizeof table / sizeof *table,
    };
    int parsed = options_parse(&spec, argc, argv, NULL), status;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    bench.graphs = strcmp(graphs, "on") == 0;
    if (!bench.graphs && strcmp(graphs, "off") != 0) {
        fprintf(stderr, "bench engine: --graphs: \"%s\" is not on or off\n", graphs);
        return 2;
    }
    if (shapes_parse(&text, &shapes) < 0) {
        fprintf(stderr, "bench engine: %s\n", error_text());
        return 2;
    }
    if (device_open(device, precision, threads, &bench.backend, &bench.precision) < 0) {
        fprintf(stderr, "bench engine: %s\n", error_text());
        return 1;
    }
    status = run(&bench, &shapes, variates);
    backend_close(bench.backend);
    return status;
}
