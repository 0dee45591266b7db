/* The backtest as one HTML page that loads nothing: a verdict, the losses, coverage, time, symbols, examples, tests, the simulated trade. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tools/backtest/page.h"
#include "tools/backtest/plot.h"
#include "tools/backtest/report.h"
#include "tools/backtest/summary.h"

/* Better or worse than chance would have it. */
static const double SIGNIFICANT = 0.05, COVERAGE_LEAST = 0.76, COVERAGE_MOST = 0.84;

static void cell_heads(const page_t *page, uint32_t count, const char *before)
{
    for (uint32_t c = 0; c < count; c++) {
        char text[BACKTEST_CELL_BYTES];
        backtest_cell_text(page->backtest->cells[c], text);
        fprintf(page->to, "<th>%s%s</th>", before, text);
    }
}

static const char *verdict_class(double difference, double p)
{
    if (!(p < SIGNIFICANT))
        return "";
    return difference < 0 ? "good" : "bad";
}

/* ---- head --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    double change, p; /* of the loss against one rival: share, test */
} comparison_t;

static comparison_t compare(const page_t *page, baseline_t rival)
{
    const backtest_t *backtest = page->backtest;
    uint32_t b = backtest_baseline(backtest, rival);

    return (comparison_t){
        .change =
            summary_group(backtest, page->group, 0, page->all).ratio / summary_group(backtest, page->group, b, page->all).ratio - 1,
        .p = summary_dm_group(backtest, page->group, 0, b, page->all, page->scratch).p};
}

static void write_verdict(const page_t *page)
{
    summary_t model = summary_group(page->backtest, page->group, 0, page->all);

    if (isnan(model.ratio)) {
        fputs("<p class=\"verdict\">There is nothing to compare: naive makes no error here.</p>\n", page->to);
        return;
    }
    fprintf(page->to, "<p class=\"verdict\">Over steps %s and on the average over symbols, the quantile loss of <b>",
            page->all_text);
    plot_text(page->backtest->names[0], page->to);
    fputs("</b> is ", page->to);
    for (int i = 0; i < PAGE_RIVALS; i++) {
        comparison_t one = compare(page, page_rivals[i]);
        const char *side = one.change < 0 ? "below" : "above";

        fprintf(page->to, "%s<b class=\"%s\">%.1f %% %s</b> %s’s",
                i == 0                 ? ""
                : i + 1 == PAGE_RIVALS ? " and "
                                       : ", ",
                verdict_class(one.change, one.p), 100 * fabs(one.change), side, baseline_name(page_rivals[i]));
        if (isnan(one.p))
            fputs(" (no test)", page->to);
        else
            fprintf(page->to, " (p %s%.3f)", one.p < 0.001 ? "&lt; " : "", fmax(one.p, 0.001));
    }
    fprintf(page->to, ". Its 80 %% intervals held %.1f %% of what came, its 50 %% intervals %.1f %%.</p>\n", 100 * model.inside80,
            100 * model.inside50);
}

static void tile(const page_t *page, const char *class, const char *value, const char *about)
{
    fprintf(page->to, "<div class=\"tile\"><b class=\"%s\">%s</b><span>%s</span></div>\n", class, value, about);
}

static void write_tiles(const page_t *page)
{
    summary_t model = summary_group(page->backtest, page->group, 0, page->all);
    char value[64], about[96];

    if (isnan(model.ratio))
        return;
    fputs("<div class=\"tiles\">\n", page->to);
    for (int i = 0; i < PAGE_RIVALS; i++) {
        comparison_t one = compare(page, page_rivals[i]);

        snprintf(value, sizeof value, "%+.1f %%", 100 * one.change);
        if (isnan(one.p))
            snprintf(about, sizeof about, "loss against %s", baseline_name(page_rivals[i]));
        else
            snprintf(about, sizeof about, "loss against %s, p %s%.3f", baseline_name(page_rivals[i]), one.p < 0.001 ? "&lt; " : "",
                     fmax(one.p, 0.001));
        tile(page, verdict_class(one.change, one.p), value, about);
    }
    snprintf(value, sizeof value, "%.1f %%", 100 * model.inside80);
    tile(page, model.inside80 >= COVERAGE_LEAST && model.inside80 <= COVERAGE_MOST ? "good" : "bad", value,
         "inside the 80 % intervals; 76 to 84 is right");
    snprintf(value, sizeof value, "%.3f", model.mase);
    tile(page, "", value, "MASE of the median");
    fputs("</div>\n", page->to);
}

static void write_group_head(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    char interval[SERIES_INTERVAL_BYTES], first[REPORT_TIME_BYTES], last[REPORT_TIME_BYTES];
    int64_t first_ns, last_ns;

    summary_time_range(backtest, page->group, &first_ns, &last_ns);
    series_interval_text(page->interval_ns, interval);
    report_time(first_ns, page->interval_ns, first);
    report_time(last_ns, page->interval_ns, last);
    fprintf(page->to, "<h2>Bars of %s</h2>\n<p class=\"soft\">%zu symbol%s · %zu origins, one every %u bars, %s to %s</p>\n",
            interval, page->group->series_count, page->group->series_count == 1 ? "" : "s", page->group->origin_count,
            backtest->plan.stride, first, last);
}

/* ---- losses ------------------------------------------------------------------------------------------------------------------- */

static void write_losses(const page_t *page)
{
    const backtest_t *backtest = page->backtest;

    fputs("<div class=\"card\"><h3>Losses</h3><p class=\"note\">Quantile loss as a share of naive’s for single steps and for all "
          "of them: "
          "below 1 is better than a random walk with trailing volatility. Means over symbols, each weighing the same.</p>\n"
          "<div class=\"scroll\"><table><thead><tr><th></th>",
          page->to);
    cell_heads(page, backtest->cell_count, "step ");
    fputs("<th>WQL</th><th>MASE</th><th>MAE %</th><th>RMSE %</th><th>in 80 %</th><th>width %</th><th>in 50 %</th><th>width "
          "%</th></tr>"
          "</thead><tbody>\n",
          page->to);
    for (uint32_t f = 0; f < backtest->forecaster_count; f++) {
        summary_t s = summary_group(backtest, page->group, f, page->all);

        fprintf(page->to, "<tr%s><td>", f < backtest->model_count ? " class=\"model\"" : "");
        plot_text(backtest->names[f], page->to);
        fputs("</td>", page->to);
        for (uint32_t c = 0; c < backtest->cell_count; c++)
            page_number(page, summary_group(backtest, page->group, f, c).ratio, 4);
        page_number(page, s.wql, 5);
        page_number(page, s.mase, 3);
        page_number(page, s.mae_percent, 3);
        page_number(page, s.rmse_percent, 3);
        page_number(page, 100 * s.inside80, 1);
        page_number(page, s.width80, 2);
        page_number(page, 100 * s.inside50, 1);
        page_number(page, s.width50, 2);
        fputs("</tr>\n", page->to);
    }
    fputs("</tbody></table></div></div>\n", page->to);
}

/* ---- tests and trades --------------------------------------------------------------------------------------------------------- */

static void write_tests(const page_t *page)
{
    const backtest_t *backtest = page->backtest;

    fputs("<div class=\"card\"><h3>Diebold-Mariano tests</h3><p class=\"note\">Of the quantile loss, model minus the other: a "
          "negative "
          "statistic says that the model is better; coloured where p is below 0.05. Symbols with the same origin are averaged "
          "first; the "
          "variance counts overlapping forecasts.</p>\n<div class=\"scroll\"><table><thead><tr><th>against</th>",
          page->to);
    for (uint32_t c = 0; c < backtest->cell_count; c++) {
        char text[BACKTEST_CELL_BYTES];
        backtest_cell_text(backtest->cells[c], text);
        fprintf(page->to, "<th>step %s</th><th>p</th>", text);
    }
    fputs("</tr></thead><tbody>\n", page->to);
    for (uint32_t f = 1; f < backtest->forecaster_count; f++) {
        fputs("<tr><td>", page->to);
        plot_text(backtest->names[f], page->to);
        fputs("</td>", page->to);
        for (uint32_t c = 0; c < backtest->cell_count; c++) {
            dm_t test = summary_dm_group(backtest, page->group, 0, f, c, page->scratch);

            if (isnan(test.p))
                fputs("<td>–</td><td>–</td>", page->to);
            else
                fprintf(page->to, "<td class=\"%s\">%.2f</td><td>%.4f</td>", verdict_class(test.statistic, test.p), test.statistic,
                        test.p);
        }
        fputs("</tr>\n", page->to);
    }
    fputs("</tbody></table></div></div>\n", page->to);
}

static void trade_row(const page_t *page, const char *name, uint32_t hold, const summary_trade_t *trade, const summary_t *summary)
{
    fprintf(page->to, "<tr><td>%s</td><td>%u</td><td>%zu</td>", name, hold, trade->trades);
    page_number(page, summary != NULL ? 100 * summary->direction : NAN, 1);
    page_number(page, summary != NULL ? 100 * summary->undecided : NAN, 1);
    page_number(page, trade->gross_bp, 1);
    page_number(page, trade->error_bp, 1);
    page_number(page, trade->net_bp, 1);
    fputs("</tr>\n", page->to);
}

static void write_trades(const page_t *page)
{
    const backtest_t *backtest = page->backtest;

    fprintf(page->to,
            "<div class=\"card\"><h3>Direction, and a simulated trade on it <span class=\"tag\">SIMULATION</span></h3>"
            "<p class=\"note\">At each origin: long when the median lies above the last value, short when below, closed after "
            "the given bars; %g basis points a side. Filled at the last close, without impact, borrowing or sizing: no "
            "strategy, and no promise. ± is the standard error of the mean.</p>\n<div class=\"scroll\"><table><thead><tr>"
            "<th></th><th>hold</th><th>trades</th><th>right sign %%</th><th>undecided %%</th><th>bp a trade</th><th>±</th>"
            "<th>after costs</th></tr></thead><tbody>\n",
            backtest->plan.cost_bp);
    for (uint32_t c = 0; c < backtest_single_cells(backtest); c++) {
        summary_t summary = summary_group(backtest, page->group, 0, c);
        summary_trade_t model = summary_trade(backtest, page->group, 0, c, page->scratch),
                        always = summary_always_long(backtest, page->group, c, page->scratch);

        trade_row(page, "the model’s sign", backtest->cells[c].last, &model, &summary);
        trade_row(page, "always long", backtest->cells[c].last, &always, NULL);
    }
    fputs("</tbody></table></div></div>\n", page->to);
}

static void write_compared(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    const report_facts_t *facts = page->facts;

    fprintf(page->to,
            "<div class=\"card\"><h3>What %s costs</h3><p class=\"note\">Change of the quantile loss from %s, and the test’s "
            "p.</p>\n<div class=\"scroll\"><table><thead><tr><th></th>",
            facts->precisions[1], facts->precisions[0]);
    cell_heads(page, backtest->cell_count, "step ");
    fputs("</tr></thead><tbody>\n<tr><td>change, %</td>", page->to);
    for (uint32_t c = 0; c < backtest->cell_count; c++)
        page_number(page,
                    100 * (summary_group(backtest, page->group, 1, c).ratio / summary_group(backtest, page->group, 0, c).ratio - 1),
                    4);
    fputs("</tr>\n<tr><td>p</td>", page->to);
    for (uint32_t c = 0; c < backtest->cell_count; c++)
        page_number(page, summary_dm_group(backtest, page->group, 1, 0, c, page->scratch).p, 4);
    fputs("</tr></tbody></table></div></div>\n", page->to);
}

/* ---- the page ----------------------------------------------------------------------------------------------------------------- */

static void write_head(const page_t *page)
{
    const backtest_t *backtest = page->backtest;
    const report_facts_t *facts = page->facts;

    fputs("<div class=\"top\"><h1>Backtest of ", page->to);
    plot_text(facts->model, page->to);
    fprintf(page->to,
            " on %s</h1><button class=\"theme\">light / dark</button></div>\n<p class=\"soft\">context %u · horizon %u · ",
            backtest->set.field_name, backtest->plan.context, backtest->plan.horizon);
    if (facts->samples > 0)
        fprintf(page->to, "%u samples · seed %" PRIu64 " · ", facts->samples, facts->seed);
    for (uint32_t m = 0; m < backtest->model_count; m++)
        fprintf(page->to, "%s in %.1f s, ", facts->precisions[m], facts->model_seconds[m]);
    fprintf(page->to, "baselines in %.1f s on ", facts->baselines_seconds);
    plot_text(facts->device, page->to);
    if (*facts->revision != '\0')
        fprintf(page->to, " · weights %s", facts->revision);
    fprintf(page->to, " · barcast %s</p>\n", facts->commit);
}

static void write_reading(const page_t *page)
{
    fputs(
        "<details><summary>How to read this</summary><dl>\n"
        "<dt>Walk-forward</dt><dd>Every forecaster sees the same bars before an origin, nothing after it, and is scored against "
        "what "
        "came. Scaling, fits and volatilities use the context alone.</dd>\n"
        "<dt>Quantile loss, WQL</dt><dd>2/9 of the sum over the nine deciles u of (y − q)(u − [y &lt; q]): an approximation of the "
        "CRPS. WQL "
        "is its sum over a symbol’s origins divided by the sum of |y|. Shares of naive’s are formed symbol by symbol, then "
        "averaged: so "
        "price levels do not mix.</dd>\n"
        "<dt>MAE, RMSE, MASE</dt><dd>Of the median. The first two as a percentage of the last value (other fields than prices: of "
        "the "
        "context’s mean absolute value); MASE divides by the context’s mean absolute one-bar change.</dd>\n"
        "<dt>Coverage, width</dt><dd>How much of what came fell between the quartiles (50 %) and the outer deciles (80 %), and how "
        "wide "
        "these intervals were, as a percentage like MAE.</dd>\n"
        "<dt>Diebold-Mariano</dt><dd>Tests whether the mean difference of two losses could be chance: Newey-West variance up to "
        "the last "
        "overlapping origin, the factor of Harvey, Leybourne and Newbold, Student’s t. Many tests stand on this page: one p below "
        "0.05 in "
        "twenty is what chance alone gives.</dd>\n"
        "<dt>Baselines</dt><dd>naive: random walk with trailing volatility. drift: with the mean change. seasonal: the last season "
        "repeated. ewma: RiskMetrics, decay 0.94. garch: GARCH(1,1), fitted at every origin; garch-t: with Student’s t. theta: the "
        "standard Theta method. ets: Holt’s damped trend. Prices are forecast in logarithms.</dd>\n"
        "<dt>What it cannot say</dt><dd>A median that is no better than the last price is what an efficient market gives; what can "
        "be "
        "forecast is mostly how far prices will move, not where to. Past figures promise nothing.</dd>\n</dl></details>\n",
        page->to);
}

static int write_group(const page_t *page)
{
    write_group_head(page);
    write_verdict(page);
    write_tiles(page);
    write_losses(page);
    if (page->backtest->model_count > 1)
        write_compared(page);
    if (page_coverage(page) < 0)
        return -1;
    page_over_time(page);
    if (page_symbols(page) < 0)
        return -1;
    page_examples(page);
    write_tests(page);
    if (page->backtest->set.price)
        write_trades(page);
    return 0;
}

int report_html(const backtest_t *backtest, const report_facts_t *facts, FILE *to)
{
    page_t page = {.backtest = backtest,
                   .facts = facts,
                   .scratch = malloc(2 * backtest->origin_count * sizeof *page.scratch),
                   .all = backtest->cell_count - 1,
                   .to = to};
    char title[160];
    int rc = 0;

    if (page.scratch == NULL)
        return error_set(-1, "no memory for the report");
    backtest_cell_text(backtest->cells[page.all], page.all_text);
    for (uint32_t m = 0; m < backtest->model_count; m++)
        page.drawn[page.drawn_count++] = m;
    for (int i = 0; i < PAGE_RIVALS; i++)
        page.drawn[page.drawn_count++] = backtest_baseline(backtest, page_rivals[i]);
    snprintf(title, sizeof title, "Backtest of %s", facts->model);
    page_open(title, to);
    write_head(&page);
    for (size_t g = 0; rc == 0 && g < backtest->group_count; g++) {
        page.group = &backtest->groups[g];
        page.interval_ns = backtest->set.series[page.group->first_series].interval_ns;
        rc = write_group(&page);
    }
    write_reading(&page);
    page_close(to);
    free(page.scratch);
    return rc;
}
