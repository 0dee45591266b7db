#include "tools/verify/verify_levels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const double NO_SCALE = 1e-4; /* the smallest that is taken for a deviation */

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int verify_ask_levels(const verify_case_t *run, model_shape_t *shape)
{
    const checkpoint_tensor_t *asked = checkpoint_find(run->expected, "interp_levels");
    float levels[2 * MODEL_QUANTILES_MOST];
    model_info_t info;
    size_t count;

    model_info(run->model, &info);
    count = info.level_count;
    if (asked == NULL || asked->elements > MODEL_QUANTILES_MOST || count > MODEL_QUANTILES_MOST)
        return error_set(-1, "a case needs the expected interp_levels, at most %d", MODEL_QUANTILES_MOST);
    memcpy(levels, info.levels, count * sizeof *levels);
    if (checkpoint_read_f32(run->expected, asked->name, asked->rank, asked->dim, levels + count) < 0)
        return -1;
    count += (size_t)asked->elements;
    qsort(levels, count, sizeof *levels, compare_floats);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || levels[i] > levels[i - 1]) {
            if (shape->quantile_count == MODEL_QUANTILES_MOST)
                return error_set(-1, "the model's levels and interp_levels are more than %d", MODEL_QUANTILES_MOST);
            shape->quantiles[shape->quantile_count++] = levels[i];
        }
    return 0;
}

/* Of values at ascending levels, the one at `level`. */
static float interpolate(const float *levels, const float *values, int64_t count, float level)
{
    int64_t upper = 1;

    if (level <= levels[0])
        return values[0];
    while (upper < count && levels[upper] < level)
        upper++;
    if (upper == count)
        return values[count - 1];
    return values[upper - 1] +
           (values[upper] - values[upper - 1]) * (level - levels[upper - 1]) / (levels[upper] - levels[upper - 1]);
}

int verify_order_levels(verify_case_t *run, const char *prediction, const char *interpolated)
{
    verify_tensor_t *given = verify_expected(run, prediction), *between = verify_expected(run, interpolated);
    const verify_tensor_t *asked = verify_expected(run, "interp_levels");
    model_info_t info;
    int64_t horizon, queries;

    model_info(run->model, &info);
    if (given == NULL || between == NULL || asked == NULL || given->tensor->rank != 3 || given->tensor->dim[1] != info.level_count)
        return error_set(-1, "a case needs the expected %s [rows,%u,H], %s and interp_levels", prediction, info.level_count,
                         interpolated);
    horizon = given->tensor->dim[2];
    queries = asked->tensor->elements;
    if (between->tensor->elements != given->tensor->dim[0] * horizon * queries)
        return error_set(-1, "%s does not have the shape [%lld,%lld,%lld]", interpolated, (long long)given->tensor->dim[0],
                         (long long)horizon, (long long)queries);
    for (int64_t i = 0; i < given->tensor->dim[0] * horizon; i++) {
        float *at = given->values + i / horizon * info.level_count * horizon + i % horizon, sorted[MODEL_QUANTILES_MOST];

        for (int64_t level = 0; level < info.level_count; level++)
            sorted[level] = at[level * horizon];
        qsort(sorted, info.level_count, sizeof *sorted, compare_floats);
        for (int64_t level = 0; level < info.level_count; level++)
            at[level * horizon] = sorted[level];
        for (int64_t q = 0; q < queries; q++)
            between->values[i * queries + q] = interpolate(info.levels, sorted, info.level_count, asked->values[q]);
    }
    return 0;
}

/* The session's quantiles of a row at that level, [horizon]. */
static const float *quantiles_at(const session_t *session, int64_t row, float level)
{
    const model_shape_t *shape = session_shape(session);
    uint32_t index = 0;

    while (index + 1 < shape->quantile_count && shape->quantiles[index] != level)
        index++;
    return session_output(session)->quantiles + (row * shape->quantile_count + index) * shape->horizon;
}

static double unit_of(const float *scale, int64_t row)
{
    return (double)scale[row] > NO_SCALE ? (double)scale[row] : 1;
}

static int64_t session_row(const verify_case_t *run, int64_t row)
{
    return run->row_of != NULL ? run->row_of[row] : row;
}

static void check_mean(verify_case_t *run, const session_t *session, const char *name, int64_t row, int64_t rows)
{
    int64_t horizon = session_shape(session)->horizon;
    bool equal = true;

    for (int64_t r = row; r < row + rows; r++)
        equal &= memcmp(session_output(session)->mean + session_row(run, r) * horizon,
                        quantiles_at(session, session_row(run, r), 0.5f), (size_t)horizon * sizeof(float)) == 0;
    if (!equal)
        verify_line(run, false, name, "the mean is not the median");
}

int verify_levels(verify_case_t *run, const session_t *session, const char *prediction, const char *interpolated, int64_t row,
                  const float *scale)
{
    const verify_tensor_t *given = verify_expected(run, prediction), *asked = verify_expected(run, "interp_levels");
    int64_t rows = given->tensor->dim[0], levels = given->tensor->dim[1], horizon = given->tensor->dim[2],
            queries = asked->tensor->elements;
    int64_t most = rows * horizon * (levels > queries ? levels : queries);
    float *values = malloc((size_t)most * sizeof *values);
    double *units = malloc((size_t)most * sizeof *units);
    model_info_t info;

    if (values == NULL || units == NULL) {
        free(values);
        free(units);
        return error_set(-1, "out of memory");
    }
    model_info(run->model, &info);
    for (int64_t i = 0; i < rows * levels; i++) {
        units[i] = unit_of(scale, row + i / levels);
        memcpy(values + i * horizon, quantiles_at(session, session_row(run, row + i / levels), info.levels[i % levels]),
               (size_t)horizon * sizeof *values);
    }
    verify_forecast(run, prediction, values, units, rows * levels / run->shape.batch, horizon);
    for (int64_t i = 0; i < rows * horizon; i++) {
        units[i] = unit_of(scale, row + i / horizon);
        for (int64_t q = 0; q < queries; q++)
            values[i * queries + q] = quantiles_at(session, session_row(run, row + i / horizon), asked->values[q])[i % horizon];
    }
    verify_forecast(run, interpolated, values, units, rows * horizon / run->shape.batch, queries);
    check_mean(run, session, prediction, row, rows);
    free(values);
    free(units);
    return 0;
}

void verify_fill_row(const float *series, int64_t bars, int64_t context, float *values, uint8_t *mask)
{
    for (int64_t i = 0; i < context; i++) {
        int64_t t = bars - context + i;
        bool observed = t >= 0 && !isnan(series[t]);

        values[i] = observed ? series[t] : 0;
        mask[i] = observed;
    }
}

void verify_forget_masked(verify_case_t *run, const char *part)
{
    const verify_tensor_t *mask = verify_expected(run, "round0.attention_mask");

    for (size_t i = 0; mask != NULL && i < run->count; i++) {
        verify_tensor_t *tensor = &run->tensors[i];
        int64_t width = tensor->tensor->elements / mask->tensor->elements;

        if (strstr(tensor->tensor->name, part) == NULL)
            continue;
        for (int64_t e = 0; e < tensor->tensor->elements; e++)
            if (mask->values[e / width] == 0)
                tensor->values[e] = NAN;
    }
}
