/* Plots as inline SVG, coloured by the page's style sheet through classes: no colour stands in the SVG itself. */
#ifndef BARCAST_TOOLS_BACKTEST_PLOT_H
#define BARCAST_TOOLS_BACKTEST_PLOT_H

#include <stddef.h>
#include <stdio.h>

/* A label on the horizontal axis, at a share (0 to 1) of its length. */
typedef struct {
    double share;
    char text[24];
} plot_label_t;

typedef struct {
    const char *name, *style; /* the class that colours it */
    const double *values;     /* [count]; NaN interrupts */
} plot_line_t;

/* Lines over `count` points that are evenly spaced, with a reference line and, where band_low < band_high, a target band. */
typedef struct {
    const plot_line_t *lines;
    size_t line_count, count, label_count;
    const plot_label_t *labels;
    const char *unit;     /* behind the numbers of the vertical axis, "%" */
    double width, height; /* in the pixels that the page is likely to give it */
    double reference, band_low, band_high;
} plot_lines_t;

void plot_lines(const plot_lines_t *plot, FILE *to);

/* A row a name, dots along a common axis with a reference line at 1. */
typedef struct {
    const char *const *names;                        /* [rows] */
    const double *const *values;                     /* [series][rows] */
    const char *const *styles, *const *series_names; /* [series]; the first is drawn last, largest */
    size_t rows, series_count;
} plot_dots_t;

void plot_dots(const plot_dots_t *plot, FILE *to);

/* One forecast: what came before, its bands and median, what came then; another forecaster's 80 % interval as dashes. */
typedef struct {
    const double *past, *future;     /* [past_count], [horizon] */
    const float *quantiles, *dashed; /* [LEVELS][horizon] */
    size_t past_count, horizon;
} plot_fan_t;

void plot_fan(const plot_fan_t *plot, FILE *to);

/* Text with the five letters that HTML reads replaced. */
void plot_text(const char *text, FILE *to);

#endif
