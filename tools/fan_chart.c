/* A fan chart in character cells: on the left the newest bars of the target, on the right its forecast, as shaded quantile bands with the
 * median (or the mean) as a line. A column is one bar, or as many as make the horizon fit half of the width. */
#include <math.h>
#include <string.h>

#include "tools/forecast_view.h"

enum { ROWS = 15, LABEL_COLUMNS = 12, COLUMNS_LEAST = 40, COLUMNS_MOST = 240 };

/* What a cell shows; a later one covers an earlier one. */
typedef enum { CELL_EMPTY, CELL_OUTER, CELL_INNER, CELL_LINE, CELL_BAR } cell_t;

static const char *const unicode_glyphs[] = {" ", "░", "▒", "━", "•"};
static const char *const ascii_glyphs[] = {" ", ".", ":", "=", "o"};

typedef struct {
    const forecast_view_t *view;
    uint32_t stride, past, future; /* bars a column, columns of history, columns of forecast */
    double low, high;
    cell_t cells[ROWS][COLUMNS_MOST];
} chart_t;

/* The line: the level nearest to the median, the mean without quantiles. */
static const float *line_of(const forecast_view_t *view)
{
    const forecast_view_field_t *target = &view->fields[0];
    uint32_t best = 0;

    if (target->quantiles == NULL)
        return target->mean;
    for (uint32_t q = 1; q < view->quantile_count; q++)
        if (fabsf(view->levels[q] - 0.5f) < fabsf(view->levels[best] - 0.5f))
            best = q;
    return target->quantiles + (size_t)best * view->horizon;
}

static uint32_t past_bar(const chart_t *chart, uint32_t column)
{
    return chart->view->history_count - 1 - (chart->past - 1 - column) * chart->stride;
}

static uint32_t future_bar(const chart_t *chart, uint32_t column)
{
    uint32_t bar = (column + 1) * chart->stride - 1;
    return bar < chart->view->horizon ? bar : chart->view->horizon - 1;
}

static void include(chart_t *chart, float value)
{
    chart->low = fmin(chart->low, (double)value);
    chart->high = fmax(chart->high, (double)value);
}

static void find_range(chart_t *chart)
{
    const forecast_view_t *view = chart->view;
    const float *quantiles = view->fields[0].quantiles, *line = line_of(view);

    chart->low = INFINITY;
    chart->high = -INFINITY;
    for (uint32_t c = 0; c < chart->past; c++)
        if (view->observed[past_bar(chart, c)])
            include(chart, view->history[past_bar(chart, c)]);
    for (uint32_t c = 0; c < chart->future; c++) {
        include(chart, line[future_bar(chart, c)]);
        for (uint32_t q = 0; quantiles != NULL && q < view->quantile_count; q++)
            include(chart, quantiles[(size_t)q * view->horizon + future_bar(chart, c)]);
    }
    if (!(chart->high > chart->low))
        chart->high = chart->low + fmax(fabs(chart->low) * 1e-3, 1e-9);
}

static int row_of(const chart_t *chart, float value)
{
    return (int)lround((chart->high - (double)value) / (chart->high - chart->low) * (ROWS - 1));
}

static void cover(chart_t *chart, uint32_t column, int from_row, int to_row, cell_t cell)
{
    for (int row = from_row; row <= to_row; row++)
        if (cell > chart->cells[row][column])
            chart->cells[row][column] = cell;
}

static void draw(chart_t *chart)
{
    const forecast_view_t *view = chart->view;
    const float *quantiles = view->fields[0].quantiles, *line = line_of(view);

    for (uint32_t c = 0; c < chart->past; c++)
        if (view->observed[past_bar(chart, c)]) {
            int row = row_of(chart, view->history[past_bar(chart, c)]);
            cover(chart, c, row, row, CELL_BAR);
        }
    for (uint32_t c = 0; c < chart->future; c++) {
        uint32_t bar = future_bar(chart, c);
        int row = row_of(chart, line[bar]);

        /* the k-th band lies between the k-th level from below and from above; the widest is the outer one */
        for (uint32_t k = 0; quantiles != NULL && 2 * k + 1 < view->quantile_count; k++)
            cover(chart, chart->past + c, row_of(chart, quantiles[(size_t)(view->quantile_count - 1 - k) * view->horizon + bar]),
                  row_of(chart, quantiles[(size_t)k * view->horizon + bar]), k == 0 ? CELL_OUTER : CELL_INNER);
        cover(chart, chart->past + c, row, row, CELL_LINE);
    }
}

static void print_axis(const chart_t *chart, FILE *to)
{
    const forecast_view_t *view = chart->view;
    char first[FORECAST_VIEW_TIME_BYTES], last[FORECAST_VIEW_TIME_BYTES];
    int width = (int)(chart->past + chart->future);

    forecast_view_time(view, view->times_ns[past_bar(chart, 0)], first);
    forecast_view_time(view, view->future_ns[view->horizon - 1], last);
    width = width > (int)strlen(first) ? width - (int)strlen(first) : 0;
    fprintf(to, "%*s%s%*s\n", LABEL_COLUMNS, "", first, width, last);
}

static void print(const chart_t *chart, bool unicode, FILE *to)
{
    const char *const *glyphs = unicode ? unicode_glyphs : ascii_glyphs;

    for (int row = 0; row < ROWS; row++) {
        double value = chart->high - (chart->high - chart->low) * row / (ROWS - 1);

        if (row % 7 == 0)
            fprintf(to, "%*.6g %s", LABEL_COLUMNS - 2, value, unicode ? "┤" : "|");
        else
            fprintf(to, "%*s %s", LABEL_COLUMNS - 2, "", unicode ? "│" : "|");
        for (uint32_t c = 0; c < chart->past + chart->future; c++)
            fputs(glyphs[chart->cells[row][c]], to);
        fputc('\n', to);
    }
    print_axis(chart, to);
}

void fan_chart(const forecast_view_t *view, int columns, bool unicode, FILE *to)
{
    uint32_t width = (uint32_t)(columns < COLUMNS_LEAST  ? COLUMNS_LEAST
                                : columns > COLUMNS_MOST ? COLUMNS_MOST
                                                         : columns) -
                     LABEL_COLUMNS;
    chart_t chart = {.view = view};
    uint32_t shown;

    chart.stride = (view->horizon + width / 2 - 1) / (width / 2);
    chart.future = (view->horizon + chart.stride - 1) / chart.stride;
    shown = view->history_count / chart.stride;
    chart.past = shown < width - chart.future ? shown : width - chart.future;
    chart.past = chart.past > 0 ? chart.past : 1;
    find_range(&chart);
    draw(&chart);
    print(&chart, unicode, to);
}
