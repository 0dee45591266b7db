/* The backtest on a terminal: losses, coverage, tests, signs and the simulated trade, then the symbols one by one. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "tools/backtest/report.h"
#include "tools/backtest/summary.h"

enum { NAME_COLUMNS = 14, SYMBOLS_MOST = 40 };

typedef struct {
    const backtest_t *backtest;
    const report_facts_t *facts;
    const backtest_group_t *group;
    double *scratch;
    uint32_t all; /* the cell of all steps, or the only one */
    const char *dot, *rule;
    FILE *to;
} page_t;

void report_time(int64_t time_ns, int64_t interval_ns, char out[static REPORT_TIME_BYTES])
{
    time_t seconds = (time_t)(time_ns / CLOCK_NS_PER_S);
    struct tm parts;

    gmtime_r(&seconds, &parts);
    strftime(out, REPORT_TIME_BYTES, interval_ns >= 86400 * CLOCK_NS_PER_S ? "%Y-%m-%d" : "%Y-%m-%d %H:%M", &parts);
}

/* A number in eight columns, a dash where there is none. */
static void number(const page_t *page, double value, int decimals)
{
    if (isnan(value))
        fprintf(page->to, " %7s", "-");
    else
        fprintf(page->to, " %7.*f", decimals, value);
}

static void heading(const page_t *page, const char *text)
{
    fprintf(page->to, "\n%s\n", text);
}

static void rule(const page_t *page, uint32_t columns)
{
    for (uint32_t i = 0; i < NAME_COLUMNS + 8 * columns; i++)
        fputs(page->rule, page->to);
    fputc('\n', page->to);
}

static void cell_names(const page_t *page, uint32_t count)
{
    for (uint32_t c = 0; c < count; c++) {
        char text[BACKTEST_CELL_BYTES];
        backtest_cell_text(page->backtest->cells[c], text);
        fprintf(page->to, " %7s", text);
    }
}

/* ---- the parts ---------------------------------------------------------------------------------------------------------------- */

static void print_head(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    const report_facts_t *facts = page->facts;
    const backtest_group_t *group = page->group;
    int64_t interval_ns = backtest->set.series[group->first_series].interval_ns, first_ns, last_ns;
    char interval[SERIES_INTERVAL_BYTES], first[REPORT_TIME_BYTES], last[REPORT_TIME_BYTES];

    summary_time_range(backtest, group, &first_ns, &last_ns);
    series_interval_text(interval_ns, interval);
    report_time(first_ns, interval_ns, first);
    report_time(last_ns, interval_ns, last);
    fprintf(page->to, "%s %s %s of %zu symbol%s, bars of %s %s %zu origins, one every %u bars, %s to %s\n", facts->model, page->dot,
            backtest->set.field_name, group->series_count, group->series_count == 1 ? "" : "s", interval, page->dot,
            group->origin_count, backtest->plan.stride, first, last);
    fprintf(page->to, "context %u, horizon %u, ", backtest->plan.context, backtest->plan.horizon);
    if (facts->samples > 0)
        fprintf(page->to, "%u samples, seed %" PRIu64 ", ", facts->samples, facts->seed);
    fprintf(page->to, "%s, batch %u", facts->device, facts->batch);
    for (uint32_t m = 0; m < backtest->model_count; m++)
        fprintf(page->to, "%s %s %.1f s", m ? "," : ":", facts->precisions[m], facts->model_seconds[m]);
    fprintf(page->to, ", baselines %.1f s\n", facts->baselines_seconds);
}

static void print_losses(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    char all[BACKTEST_CELL_BYTES];

    backtest_cell_text(backtest->cells[page->all], all);
    heading(page,
            "Quantile loss as a share of naive's, by step (mean over symbols; below 1 is better than naive), and over all steps");
    fprintf(page->to, "%-*s", NAME_COLUMNS, "");
    cell_names(page, backtest->cell_count);
    fprintf(page->to, " %7s %7s %7s %7s %7s %7s %7s %7s\n", "WQL", "MASE", "MAE %", "RMSE %", "in 80%", "width %", "in 50%",
            "width %");
    rule(page, backtest->cell_count + 8);
    for (uint32_t f = 0; f < backtest->forecaster_count; f++) {
        summary_t s = summary_group(backtest, page->group, f, page->all);

        if (f == backtest->model_count)
            rule(page, backtest->cell_count + 8);
        fprintf(page->to, "%-*.*s", NAME_COLUMNS, NAME_COLUMNS, backtest->names[f]);
        for (uint32_t c = 0; c < backtest->cell_count; c++)
            number(page, summary_group(backtest, page->group, f, c).ratio, 4);
        number(page, s.wql, 5);
        number(page, s.mase, 3);
        number(page, s.mae_percent, 3);
        number(page, s.rmse_percent, 3);
        number(page, 100 * s.inside80, 1);
        number(page, s.width80, 2);
        number(page, 100 * s.inside50, 1);
        number(page, s.width50, 2);
        fputc('\n', page->to);
    }
}

static void print_tests(const page_t *page)
{
    const backtest_t *backtest = page->backtest;

    heading(page, "Diebold-Mariano of the quantile loss against each baseline: statistic (negative: the model is better), then p");
    fprintf(page->to, "%-*s", NAME_COLUMNS, "against");
    for (int part = 0; part < 2; part++)
        cell_names(page, backtest->cell_count);
    fputc('\n', page->to);
    rule(page, 2 * backtest->cell_count);
    for (baseline_t b = 0; b < BASELINES; b++) {
        dm_t tests[SCORE_CELLS_MOST];

        for (uint32_t c = 0; c < backtest->cell_count; c++)
            tests[c] = summary_dm_group(backtest, page->group, 0, backtest_baseline(backtest, b), c, page->scratch);
        fprintf(page->to, "%-*s", NAME_COLUMNS, baseline_name(b));
        for (uint32_t c = 0; c < backtest->cell_count; c++)
            number(page, tests[c].statistic, 2);
        for (uint32_t c = 0; c < backtest->cell_count; c++)
            number(page, tests[c].p, 4);
        fputc('\n', page->to);
    }
}

static void print_coverage(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    uint32_t count = backtest_single_cells(backtest);

    heading(page, "Coverage and width of the model's intervals, the direction of its median (undec: does not move), by step");
    fprintf(page->to, "%-*s %7s %7s %7s %7s %7s %7s\n", NAME_COLUMNS, "step", "in 80%", "width %", "in 50%", "width %", "right %",
            "undec %");
    rule(page, 6);
    for (uint32_t c = 0; c < count; c++) {
        summary_t s = summary_group(backtest, page->group, 0, c);
        char text[BACKTEST_CELL_BYTES];

        backtest_cell_text(backtest->cells[c], text);
        fprintf(page->to, "%-*s", NAME_COLUMNS, text);
        number(page, 100 * s.inside80, 1);
        number(page, s.width80, 2);
        number(page, 100 * s.inside50, 1);
        number(page, s.width50, 2);
        number(page, 100 * s.direction, 1);
        number(page, 100 * s.undecided, 1);
        fputc('\n', page->to);
    }
}

static void print_trade(const page_t *page, const char *name, const summary_trade_t *trade)
{
    fprintf(page->to, " %-*s %7zu", NAME_COLUMNS, name, trade->trades);
    number(page, 100 * trade->right, 1);
    number(page, trade->gross_bp, 1);
    number(page, trade->error_bp, 1);
    number(page, trade->net_bp, 1);
    fputc('\n', page->to);
}

static void print_trades(const page_t *page)
{
    const backtest_t *backtest = page->backtest;

    fprintf(page->to, "\nSIMULATED trade on the median's sign, %g basis points a side; a simulation, not a strategy\n",
            backtest->plan.cost_bp);
    fprintf(page->to, "%-6s %-*s %7s %7s %7s %7s %7s\n", "hold", NAME_COLUMNS, "", "trades", "right %", "bp each", "+/-", "net bp");
    rule(page, 6);
    for (uint32_t c = 0; c < backtest_single_cells(backtest); c++) {
        summary_trade_t model = summary_trade(backtest, page->group, 0, c, page->scratch),
                        always = summary_always_long(backtest, page->group, c, page->scratch);

        fprintf(page->to, "%-6u", backtest->cells[c].last);
        print_trade(page, backtest->names[0], &model);
        fprintf(page->to, "%-6s", "");
        print_trade(page, "always long", &always);
    }
}

static void print_symbols(const page_t *page)
{
    static const baseline_t against[] = {BASELINE_NAIVE, BASELINE_EWMA, BASELINE_GARCH, BASELINE_GARCH_T};
    const backtest_t *backtest = page->backtest;
    size_t shown = page->group->series_count < SYMBOLS_MOST ? page->group->series_count : SYMBOLS_MOST;

    heading(page, "By symbol, all steps: the model's quantile loss as a share of each baseline's");
    fprintf(page->to, "%-*s", NAME_COLUMNS, "");
    for (size_t i = 0; i < sizeof against / sizeof *against; i++)
        fprintf(page->to, " %7s", baseline_name(against[i]));
    fprintf(page->to, " %7s %7s %7s\n", "in 80%", "in 50%", "origins");
    rule(page, 7);
    for (size_t s = page->group->first_series; s < page->group->first_series + shown; s++) {
        summary_t model = summary_series(backtest, s, 0, page->all);

        fprintf(page->to, "%-*.*s", NAME_COLUMNS, NAME_COLUMNS, backtest->set.series[s].symbol);
        for (size_t i = 0; i < sizeof against / sizeof *against; i++)
            number(page, model.wql / summary_series(backtest, s, backtest_baseline(backtest, against[i]), page->all).wql, 4);
        number(page, 100 * model.inside80, 1);
        number(page, 100 * model.inside50, 1);
        fprintf(page->to, " %7zu\n", backtest->first_origin[s + 1] - backtest->first_origin[s]);
    }
    if (shown < page->group->series_count)
        fprintf(page->to, "and %zu more: --json or --html lists them all\n", page->group->series_count - shown);
}

/* --compare: the second model is the first one in another precision. */
static void print_compared(const page_t *page)
{
    const backtest_t *backtest = page->backtest;

    fprintf(page->to, "\nWhat %s costs: change of the quantile loss from %s, percent, then the test's p\n",
            page->facts->precisions[1], page->facts->precisions[0]);
    fprintf(page->to, "%-*s", NAME_COLUMNS, "step");
    cell_names(page, backtest->cell_count);
    fputc('\n', page->to);
    rule(page, backtest->cell_count);
    fprintf(page->to, "%-*s", NAME_COLUMNS, "change %");
    for (uint32_t c = 0; c < backtest->cell_count; c++)
        number(page,
               100 * (summary_group(backtest, page->group, 1, c).ratio / summary_group(backtest, page->group, 0, c).ratio - 1), 4);
    fprintf(page->to, "\n%-*s", NAME_COLUMNS, "p");
    for (uint32_t c = 0; c < backtest->cell_count; c++)
        number(page, summary_dm_group(backtest, page->group, 1, 0, c, page->scratch).p, 4);
    fputc('\n', page->to);
}

int report_table(const backtest_t *backtest, const report_facts_t *facts, bool unicode, FILE *to)
{
    page_t page = {.backtest = backtest,
                   .facts = facts,
                   .scratch = malloc(2 * backtest->origin_count * sizeof *page.scratch),
                   .all = backtest->cell_count - 1,
                   .dot = unicode ? "·" : "|",
                   .rule = unicode ? "─" : "-",
                   .to = to};

    if (page.scratch == NULL)
        return error_set(-1, "no memory for the report");
    for (size_t g = 0; g < backtest->group_count; g++) {
        page.group = &backtest->groups[g];
        if (g > 0)
            fputs("\n\n", to);
        print_head(&page);
        print_losses(&page);
        if (backtest->model_count > 1)
            print_compared(&page);
        print_tests(&page);
        print_coverage(&page);
        if (backtest->set.price)
            print_trades(&page);
        print_symbols(&page);
    }
    free(page.scratch);
    return 0;
}
