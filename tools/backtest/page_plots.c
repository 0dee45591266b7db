/* The report's plots: coverage by step, loss over time and by symbol, example forecasts. */
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "tools/backtest/page.h"
#include "tools/backtest/plot.h"
#include "tools/backtest/summary.h"

enum { TIME_SLICES_MOST = 36, ORIGINS_A_SLICE = 8, TIME_LABELS = 5 };

static const char *line_style(const backtest_t *backtest, uint32_t forecaster)
{
    static const char *const styles[PAGE_RIVALS] = {"f-naive", "f-ewma", "f-garch", "f-garch-t"};

    for (uint32_t i = 0; i < PAGE_RIVALS; i++)
        if (forecaster == backtest_baseline(backtest, page_rivals[i]))
            return styles[i];
    return forecaster == 0 ? "f-model" : "f-second";
}

/* ---- lines: coverage by step, loss over time ---------------------------------------------------------------------------------- */

static void write_keys(const page_t *page)
{
    fputs("<div class=\"keys\">", page->to);
    for (uint32_t i = 0; i < page->drawn_count; i++) {
        const char *line = line_style(page->backtest, page->drawn[i]);

        fprintf(page->to, "<button class=\"key %s\" data-line=\"%s\" aria-pressed=\"true\">", line, line);
        plot_text(page->backtest->names[page->drawn[i]], page->to);
        fputs("</button>", page->to);
    }
    fputs("</div>\n", page->to);
}

/* `values`: [drawn_count][count]. */
static void draw_lines(const page_t *page, const double *values, plot_lines_t plot)
{
    plot_line_t lines[PAGE_DRAWN_MOST];

    for (uint32_t i = 0; i < page->drawn_count; i++)
        lines[i] = (plot_line_t){page->backtest->names[page->drawn[i]], line_style(page->backtest, page->drawn[i]),
                                 values + (size_t)i * plot.count};
    plot.lines = lines;
    plot.line_count = page->drawn_count;
    plot_lines(&plot, page->to);
}

int page_coverage(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    uint32_t horizon = backtest->plan.horizon, label_count = horizon < 6 ? horizon : 6;
    double *values = calloc((size_t)page->drawn_count * horizon, sizeof *values);
    plot_label_t labels[6];

    if (values == NULL)
        return error_set(-1, "no memory for the report");
    for (uint32_t i = 0; i < label_count; i++) {
        uint32_t step = label_count > 1 ? 1 + i * (horizon - 1) / (label_count - 1) : 1;
        labels[i].share = horizon > 1 ? (double)(step - 1) / (double)(horizon - 1) : 0.5;
        snprintf(labels[i].text, sizeof labels[i].text, i == 0 ? "step %u" : "%u", step);
    }
    fputs("<div class=\"two\">\n", page->to);
    for (int outer = 1; outer >= 0; outer--) {
        for (uint32_t i = 0; i < page->drawn_count; i++)
            for (uint32_t step = 1; step <= horizon; step++) {
                summary_coverage_t coverage = summary_coverage(backtest, page->group, page->drawn[i], step);
                values[(size_t)i * horizon + step - 1] = 100 * (outer ? coverage.inside80 : coverage.inside50);
            }
        fprintf(page->to,
                "<div class=\"card\"><h3>Coverage of the %d %% intervals by step</h3><p class=\"note\">Inside the green band "
                "(%d to %d %%) the intervals are as wide as they say.</p>\n",
                outer ? 80 : 50, outer ? 76 : 46, outer ? 84 : 54);
        write_keys(page);
        draw_lines(page, values,
                   (plot_lines_t){.width = 500,
                                  .height = 260,
                                  .count = horizon,
                                  .labels = labels,
                                  .label_count = label_count,
                                  .unit = "%",
                                  .reference = outer ? 80 : 50,
                                  .band_low = outer ? 76 : 46,
                                  .band_high = outer ? 84 : 54});
        fputs("</div>\n", page->to);
    }
    fputs("</div>\n", page->to);
    free(values);
    return 0;
}

void page_over_time(const page_t *page)
{
    double values[PAGE_DRAWN_MOST * TIME_SLICES_MOST];
    plot_label_t labels[TIME_LABELS];
    size_t count = page->group->origin_count / ORIGINS_A_SLICE;
    int64_t first_ns, last_ns;

    count = count > TIME_SLICES_MOST ? TIME_SLICES_MOST : count;
    if (count < 2)
        return;
    for (uint32_t i = 0; i < page->drawn_count; i++)
        summary_over_time(page->backtest, page->group, page->drawn[i], page->all, count, values + (size_t)i * count);
    summary_time_range(page->backtest, page->group, &first_ns, &last_ns);
    for (int i = 0; i < TIME_LABELS; i++) {
        char time[REPORT_TIME_BYTES];

        labels[i].share = (i + 0.5) / TIME_LABELS;
        report_time(first_ns + (int64_t)((double)(last_ns - first_ns) * labels[i].share), 86400 * INT64_C(1000000000), time);
        snprintf(labels[i].text, sizeof labels[i].text, "%s", time);
    }
    fprintf(page->to,
            "<div class=\"card\"><h3>Loss over time</h3><p class=\"note\">Quantile loss over steps %s as a share of naive’s, in "
            "%zu slices of equal length: below 1 the forecaster beat naive then.</p>\n",
            page->all_text, count);
    write_keys(page);
    draw_lines(page, values,
               (plot_lines_t){.width = 1040,
                              .height = 300,
                              .count = count,
                              .labels = labels,
                              .label_count = TIME_LABELS,
                              .unit = "",
                              .reference = 1});
    fputs("</div>\n", page->to);
}

/* ---- symbols ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    double ratio[1 + PAGE_RIVALS]; /* loss / naive's: the model, then the rivals */
    double inside80, inside50, p;
    size_t origins;
} symbol_t;

static int compare_symbols(const void *a, const void *b)
{
    const symbol_t *left = a, *right = b;
    return (left->ratio[0] > right->ratio[0]) - (left->ratio[0] < right->ratio[0]);
}

static void list_symbols(const page_t *page, symbol_t *symbols)
{
    const backtest_t *backtest = page->backtest;

    for (size_t i = 0; i < page->group->series_count; i++) {
        size_t s = page->group->first_series + i;
        summary_t model = summary_series(backtest, s, 0, page->all);

        symbols[i] = (symbol_t){.name = backtest->set.series[s].symbol,
                                .inside80 = model.inside80,
                                .inside50 = model.inside50,
                                .origins = backtest->first_origin[s + 1] - backtest->first_origin[s]};
        symbols[i].ratio[0] = model.ratio;
        for (int r = 0; r < PAGE_RIVALS; r++)
            symbols[i].ratio[1 + r] = summary_series(backtest, s, backtest_baseline(backtest, page_rivals[r]), page->all).ratio;
        symbols[i].p = summary_dm_series(backtest, s, 0, backtest_baseline(backtest, BASELINE_NAIVE), page->all, page->scratch).p;
    }
    qsort(symbols, page->group->series_count, sizeof *symbols, compare_symbols);
}

/* The model and the rivals but naive, which is the line at 1. */
static int draw_symbols(const page_t *page, const symbol_t *symbols)
{
    size_t rows = page->group->series_count;
    const char **names = malloc(rows * sizeof *names), *styles[PAGE_RIVALS], *series_names[PAGE_RIVALS];
    double *columns = malloc(PAGE_RIVALS * rows * sizeof *columns);
    const double *values[PAGE_RIVALS];
    int rc = names == NULL || columns == NULL ? error_set(-1, "no memory for the report") : 0;

    for (int s = 0; rc == 0 && s < PAGE_RIVALS; s++) {
        uint32_t forecaster = s == 0 ? 0 : backtest_baseline(page->backtest, page_rivals[s]);

        styles[s] = line_style(page->backtest, forecaster);
        series_names[s] = page->backtest->names[forecaster];
        values[s] = columns + (size_t)s * rows;
        for (size_t r = 0; r < rows; r++) {
            names[r] = symbols[r].name;
            columns[(size_t)s * rows + r] = symbols[r].ratio[s == 0 ? 0 : 1 + s];
        }
    }
    if (rc == 0)
        plot_dots(&(plot_dots_t){.names = names,
                                 .values = values,
                                 .styles = styles,
                                 .series_names = series_names,
                                 .rows = rows,
                                 .series_count = PAGE_RIVALS},
                  page->to);
    free(names);
    free(columns);
    return rc;
}

static void tabulate_symbols(const page_t *page, const symbol_t *symbols)
{
    fputs("<div class=\"scroll\"><table><thead><tr><th data-sort>symbol</th><th data-sort>/ naive</th><th data-sort>p</th>",
          page->to);
    for (int r = 1; r < PAGE_RIVALS; r++)
        fprintf(page->to, "<th data-sort>/ %s</th>", baseline_name(page_rivals[r]));
    fputs("<th data-sort>in 80 %</th><th data-sort>in 50 %</th><th data-sort>origins</th></tr></thead><tbody>\n", page->to);
    for (size_t i = 0; i < page->group->series_count; i++) {
        const symbol_t *symbol = &symbols[i];

        fputs("<tr><td>", page->to);
        plot_text(symbol->name, page->to);
        fputs("</td>", page->to);
        page_number(page, symbol->ratio[0], 4);
        page_number(page, symbol->p, 3);
        for (int r = 1; r < PAGE_RIVALS; r++)
            page_number(page, symbol->ratio[0] / symbol->ratio[1 + r], 4);
        page_number(page, 100 * symbol->inside80, 1);
        page_number(page, 100 * symbol->inside50, 1);
        fprintf(page->to, "<td>%zu</td></tr>\n", symbol->origins);
    }
    fputs("</tbody></table></div>\n", page->to);
}

int page_symbols(const page_t *page)
{
    symbol_t *symbols = calloc(page->group->series_count, sizeof *symbols);
    int rc;

    if (symbols == NULL)
        return error_set(-1, "no memory for the report");
    list_symbols(page, symbols);
    fprintf(page->to,
            "<div class=\"card\"><h3>Loss by symbol</h3><p class=\"note\">Quantile loss over steps %s as a share of naive’s (the "
            "dashed line), the best symbol first; the table has the model’s loss as a share of each rival’s.</p>\n",
            page->all_text);
    write_keys(page);
    rc = draw_symbols(page, symbols);
    if (rc == 0)
        tabulate_symbols(page, symbols);
    fputs("</div>\n", page->to);
    free(symbols);
    return rc;
}

/* ---- examples ----------------------------------------------------------------------------------------------------------------- */

void page_examples(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    const backtest_plan_t *plan = &backtest->plan;
    size_t floats = (size_t)LEVELS * plan->horizon, shown = 2 * (size_t)plan->horizon;

    shown = shown > plan->context ? plan->context : shown;
    fputs("<div class=\"card\"><h3>Forecasts</h3><p class=\"note\">Origins spread evenly over symbols and time, chosen before any "
          "forecast was "
          "made. Shaded: the model’s 50 and 80 % intervals around its median; dashed: ewma’s 80 %; dark: what was there and what "
          "came.</p>\n<div class=\"fans\">\n",
          page->to);
    for (size_t i = 0; i < backtest->example_count; i++) {
        const backtest_example_t *example = &backtest->examples[i];
        const backtest_origin_t *origin = &backtest->origins[example->origin];
        char time[REPORT_TIME_BYTES];

        if (example->origin < page->group->first_origin || example->origin >= page->group->first_origin + page->group->origin_count)
            continue;
        report_time(origin->time_ns, page->interval_ns, time);
        fputs("<figure><figcaption><b>", page->to);
        plot_text(backtest->set.series[origin->series].symbol, page->to);
        fprintf(page->to, "</b> <span class=\"soft\">after %s</span></figcaption>\n", time);
        plot_fan(&(plot_fan_t){.past = backtest_context(backtest, example->origin) + plan->context - shown,
                               .past_count = shown,
                               .future = backtest_future(backtest, example->origin),
                               .horizon = plan->horizon,
                               .quantiles = example->quantiles,
                               .dashed = example->quantiles + backtest_baseline(backtest, BASELINE_EWMA) * floats},
                 page->to);
        fputs("</figure>\n", page->to);
    }
    fputs("</div></div>\n", page->to);
}
