/* Chronos-Bolt's cases: series_i [T], of different lengths; expected prediction [series,levels,H] and quantiles_interp [series,H,interp_levels]. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "tools/verify/verify_levels.h"

static const char unrolled[] = "not compared: the quantiles of its round depend on all of it";
static const char folded[] = "not compared: this norm is part of the next product";

static const verify_exception_t exceptions[] = {
    {"interp_levels", "used by quantiles_interp"},
    {"round0.context", "not compared: the inputs"},
    {"round0.attention_mask", "not compared: in its place the patches are, whose masks act in every block"},
    {"round0.encoder_out", folded},
    {"round0.decoder_out", folded},
    {"round1.context", unrolled},
    {"round2.context", unrolled},
    {NULL, NULL},
};

static const checkpoint_tensor_t *series_of(const verify_case_t *run, uint32_t index)
{
    char name[32];

    snprintf(name, sizeof name, "series_%u", index);
    return checkpoint_find(run->inputs, name);
}

static int shape_of(const verify_case_t *run, model_shape_t *out)
{
    const checkpoint_tensor_t *prediction = checkpoint_find(run->expected, "prediction"), *series;

    if (prediction == NULL || prediction->rank != 3)
        return error_set(-1, "a case needs the expected prediction of rank 3");
    *out = (model_shape_t){.variates = 1, .horizon = (uint32_t)prediction->dim[2]};
    for (; (series = series_of(run, out->batch)) != NULL; out->batch++)
        if (series->dim[0] > out->context)
            out->context = (uint32_t)series->dim[0];
    if (out->batch != prediction->dim[0])
        return error_set(-1, "a case needs as many inputs series_0, series_1, .. as the expected prediction has rows");
    return verify_ask_levels(run, out);
}

static int expect(verify_case_t *run)
{
    verify_forget_masked(run, ".encoder_block_");
    return verify_order_levels(run, "prediction", "quantiles_interp");
}

static int fill(const verify_case_t *run, const session_t *session, model_input_t *input)
{
    const model_shape_t *shape = session_shape(session);

    for (uint32_t i = 0; i < run->shape.batch; i++) {
        char name[32];
        int64_t bars;
        float *series;

        snprintf(name, sizeof name, "series_%u", i);
        if ((series = verify_input(run, name, 1, &bars)) == NULL)
            return -1;
        verify_fill_row(series, bars, shape->context, input->values + (size_t)i * shape->context,
                        input->mask + (size_t)i * shape->context);
        input->length[i] = (uint32_t)(bars < shape->context ? bars : shape->context);
        input->group[i] = 0;
        input->key[i] = i;
        input->log_price[i] = 0;
        free(series);
    }
    return 0;
}

static int results(verify_case_t *run, const session_t *session)
{
    const verify_tensor_t *scale = verify_expected(run, "round0.scale");

    if (scale == NULL)
        return error_set(-1, "a case needs the expected round0.scale");
    return verify_levels(run, session, "prediction", "quantiles_interp", 0, scale->values);
}

const verify_family_t verify_chronos_bolt = {
    .model = "chronos_bolt",
    .shape = shape_of,
    .expect = expect,
    .fill = fill,
    .results = results,
    .exceptions = exceptions,
};
