/* barcast models fit: what a model can do, and what its sessions take of a device. Sessions are allocated, not run. */
#include "base/error.h"
#include "gpuworker/model/model.h"
#include "tools/command.h"
#include "tools/device.h"
#include "tools/options.h"
#include "tools/shapes.h"

#include <stdio.h>
#include <string.h>

static const double MB = 1e6;

static void print_limit(const char *what, uint32_t most)
{
    if (most > 0)
        printf("%s up to %u bars", what, most);
    else
        printf("%s without limit", what);
}

static void print_info(const backend_t *backend, const model_info_t *info)
{
    size_t free_bytes = 0, total_bytes = 0;

    printf("family       %s, %.1f million parameters, %.1f MB of weights\n", info->family, (double)info->parameters / 1e6,
           (double)info->weight_bytes / MB);
    print_limit("context     ", info->context_most);
    printf(", in patches of %u\n", info->patch > 0 ? info->patch : 1);
    print_limit("horizon     ", info->horizon_most);
    printf("\nforecasts    %s", info->quantiles_without_samples ? "quantiles of its own" : "");
    if (info->exact_horizon_most > 0)
        printf(" up to %u bars", info->exact_horizon_most);
    printf("%s%s\n", info->quantiles_without_samples && info->samples ? ", " : "",
           info->samples ? "paths, and quantiles over them" : "");
    printf("sees         %s%s%s\n",
           info->whole_bars ? "whole bars"
           : info->variates ? "several variates together"
                            : "one variate at a time",
           info->exogenous ? ", variates known in the future" : "", info->calendar ? ", the calendar" : "");
    if (backend_memory(backend, &free_bytes, &total_bytes) == BACKEND_OK)
        printf("device       %s, %.0f of %.0f MB free with the weights loaded\n", backend_name(backend), (double)free_bytes / MB,
               (double)total_bytes / MB);
}

/* One line: what a session of that shape takes, or why there is none. False: it does not fit. */
static bool try_shape(backend_t *backend, model_t *model, const model_shape_t *asked)
{
    model_shape_t shape = *asked;
    model_input_t input;
    model_output_t output;
    model_state_t *state;
    size_t before = backend_allocated_bytes(backend), free_bytes = 0, total_bytes = 0;
    bool fits = model_open(model, &shape, &state, &input, &output) == MODEL_OK;

    printf("%6u %8u %8u %8u", asked->batch, fits ? shape.context : asked->context, asked->horizon,
           fits ? shape.samples : asked->samples);
    if (!fits) {
        printf("            no: %s\n", error_text());
        return false;
    }
    size_t bytes = backend_allocated_bytes(backend) - before;
    model_close(model, state);
    backend_memory(backend, &free_bytes, &total_bytes);
    printf(" %10.1f %s, %zu more beside it\n", (double)bytes / MB, bytes <= free_bytes ? "yes" : "no",
           bytes <= free_bytes ? free_bytes / bytes - 1 : 0);
    return bytes <= free_bytes;
}

static int fit(const char *dir, backend_t *backend, backend_dtype_t precision, const shapes_t *shapes)
{
    char revision[17];
    model_t *model;
    model_info_t info;
    bool all = true;

    if (model_load(backend, dir, precision, &model, revision) < 0) {
        fprintf(stderr, "barcast models: %s\n", error_text());
        return 1;
    }
    model_info(model, &info);
    print_info(backend, &info);
    printf("\n%6s %8s %8s %8s %10s %s\n", "batch", "context", "horizon", "samples", "MB", "fits");
    for (uint32_t i = 0; i < shapes_count(shapes); i++) {
        model_shape_t shape = {.variates = info.whole_bars ? MODEL_WHOLE_BAR : 1, .precision = precision, .discard_samples = true};

        shapes_at(shapes, i, &shape);
        all &= try_shape(backend, model, &shape);
    }
    model_unload(model);
    return all ? 0 : 1;
}

int models_fit(int argc, char **argv)
{
    const char *device = "auto", *precision = "auto";
    shapes_text_t text = {.batch = "1,8,64,512", .context = "512", .horizon = "24", .samples = "64"};
    const option_t table[] = {
        {"batch", OPTION_TEXT, &text.batch, "N,...", "series a session"},
        {"context", OPTION_TEXT, &text.context, "N,...", "bars in, rounded up to the model's patch"},
        {"horizon", OPTION_TEXT, &text.horizon, "N,...", "bars out"},
        {"samples", OPTION_TEXT, &text.samples, "N,...", "paths a series, where the model draws any"},
        {"device", OPTION_TEXT, &device, "NAME", DEVICE_HELP},
        {"precision", OPTION_TEXT, &precision, "NAME", PRECISION_HELP},
    };
    const options_t spec = {
        .usage = "barcast models fit DIR [options]",
        .about = "Loads the model and tells its limits, and for each combination of the lists what memory a session takes and "
                 "whether it\n"
                 "fits the device. Exit code 1 when one does not.\n\n"
                 "  barcast models fit Toto-Open-Base-1.0 --batch 64,512 --horizon 64,336",
        .options = table,
        .count = sizeof table / sizeof *table,
    };
    shapes_t shapes;
    backend_t *backend;
    backend_dtype_t dtype;
    int first, parsed = options_parse(&spec, argc, argv, &first);

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? 0 : 2;
    if (argc - first != 1 || shapes_parse(&text, &shapes) < 0) {
        fprintf(stderr, "barcast models fit: %s\n", argc - first != 1 ? "expected one DIR; see --help" : error_text());
        return 2;
    }
    if (device_open(device, precision, 0, &backend, &dtype) < 0) {
        fprintf(stderr, "barcast models: %s\n", error_text());
        return 1;
    }
    int status = fit(argv[first], backend, dtype, &shapes);
    backend_close(backend);
    return status;
}
