/* The HTML report: its frame, and what its parts share. Everything is inline, nothing is loaded from anywhere. */
#ifndef BARCAST_TOOLS_BACKTEST_PAGE_H
#define BARCAST_TOOLS_BACKTEST_PAGE_H

#include <stdio.h>

#include "tools/backtest/report.h"

/* The baselines that volatility is judged by; naive first. */
enum { PAGE_RIVALS = 4, PAGE_DRAWN_MOST = BACKTEST_MODELS_MOST + PAGE_RIVALS };
extern const baseline_t page_rivals[PAGE_RIVALS];

typedef struct {
    const backtest_t *backtest;
    const report_facts_t *facts;
    const backtest_group_t *group;
    int64_t interval_ns; /* of the group's bars */
    double *scratch;     /* two doubles an origin */
    uint32_t all;        /* the cell of all steps, or the only one */
    char all_text[BACKTEST_CELL_BYTES];
    uint32_t drawn_count, drawn[PAGE_DRAWN_MOST]; /* the forecasters that have lines: the models, then the rivals */
    FILE *to;
} page_t;

/* Head, style and script, and the body's beginning. */
void page_open(const char *title, FILE *to);
void page_close(FILE *to);

/* A table's number, a dash where there is none. */
void page_number(const page_t *page, double value, int decimals);

/* page_plots.c: cards with plots of the page's group. Negative when memory is out. */
int page_coverage(const page_t *page);
void page_over_time(const page_t *page);
int page_symbols(const page_t *page);
void page_examples(const page_t *page);

#endif
