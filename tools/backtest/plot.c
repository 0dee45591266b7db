#include "tools/backtest/plot.h"

#include <math.h>
#include <stdbool.h>

#include "tools/backtest/levels.h"

enum { TICKS_MOST = 8, WIDE = 600 }; /* a wide plot is scrolled on a narrow screen, not shrunk */

/* The drawing area inside its margins, and what it shows. */
typedef struct {
    double width, height, left, right, top, bottom;
    double low, high; /* of the values, on the vertical axis (dots: the horizontal one) */
    FILE *to;
} frame_t;

void plot_text(const char *text, FILE *to)
{
    for (; *text != '\0'; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", to);
            break;
        case '<':
            fputs("&lt;", to);
            break;
        case '>':
            fputs("&gt;", to);
            break;
        case '"':
            fputs("&quot;", to);
            break;
        case '\'':
            fputs("&#39;", to);
            break;
        default:
            fputc(*text, to);
        }
}

/* ---- axes --------------------------------------------------------------------------------------------------------------------- */

static void include(frame_t *frame, double value)
{
    if (isfinite(value)) {
        frame->low = fmin(frame->low, value);
        frame->high = fmax(frame->high, value);
    }
}

static void pad(frame_t *frame)
{
    double more;

    if (!(frame->low < frame->high)) {
        double middle = isfinite(frame->low) ? frame->low : 0, half = fmax(fabs(middle) * 0.01, 1e-6);
        frame->low = middle - half;
        frame->high = middle + half;
    }
    more = 0.06 * (frame->high - frame->low);
    frame->low -= more;
    frame->high += more;
}

static double across(const frame_t *frame, double share)
{
    return frame->left + share * (frame->width - frame->left - frame->right);
}

static double share_of(const frame_t *frame, double value)
{
    return (value - frame->low) / (frame->high - frame->low);
}

static double up(const frame_t *frame, double value)
{
    return frame->height - frame->bottom - share_of(frame, value) * (frame->height - frame->top - frame->bottom);
}

/* Round numbers inside low .. high: 1, 2 or 5 times a power of ten apart. Returns their count, *decimals that tell them apart. */
static int ticks(const frame_t *frame, double *out, int *decimals)
{
    double raw = (frame->high - frame->low) / 5, power = pow(10, floor(log10(raw))), step = power;
    int count = 0;

    if (raw / power > 5)
        step = 10 * power;
    else if (raw / power > 2)
        step = 5 * power;
    else if (raw / power > 1)
        step = 2 * power;
    *decimals = (int)fmax(0, -floor(log10(step) + 1e-9));
    for (double k = ceil(frame->low / step); k * step <= frame->high && count < TICKS_MOST; k++)
        out[count++] = k * step;
    return count;
}

static void open_svg(const frame_t *frame, const char *what)
{
    fprintf(frame->to, "<svg%s viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">\n",
            frame->width > WIDE ? " class=\"wide\"" : "", frame->width, frame->height, what);
}

static void vertical_axis(const frame_t *frame, const char *unit)
{
    double at[TICKS_MOST];
    int decimals, count = ticks(frame, at, &decimals);

    for (int i = 0; i < count; i++) {
        double y = up(frame, at[i]);
        fprintf(frame->to,
                "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/><text class=\"axis end\" x=\"%.1f\" y=\"%.1f\">%.*f%s</text>\n",
                frame->left, y, frame->width - frame->right, frame->left - 6, y + 4, decimals, at[i], unit);
    }
}

/* ---- lines -------------------------------------------------------------------------------------------------------------------- */

static void draw_line(const frame_t *frame, const plot_line_t *line, size_t count)
{
    bool pen_down = false;

    fprintf(frame->to, "<g class=\"%s\"><title>", line->style);
    plot_text(line->name, frame->to);
    fputs("</title><path class=\"line\" d=\"", frame->to);
    for (size_t i = 0; i < count; i++) {
        if (isfinite(line->values[i]))
            fprintf(frame->to, "%c%.1f %.1f", pen_down ? 'L' : 'M',
                    across(frame, count > 1 ? (double)i / (double)(count - 1) : 0.5), up(frame, line->values[i]));
        pen_down = isfinite(line->values[i]);
    }
    fputs("\"/></g>\n", frame->to);
}

void plot_lines(const plot_lines_t *plot, FILE *to)
{
    frame_t frame = {.width = plot->width,
                     .height = plot->height,
                     .left = 56,
                     .right = 14,
                     .top = 12,
                     .bottom = 28,
                     .low = INFINITY,
                     .high = -INFINITY,
                     .to = to};

    include(&frame, plot->reference);
    if (plot->band_low < plot->band_high) {
        include(&frame, plot->band_low);
        include(&frame, plot->band_high);
    }
    for (size_t l = 0; l < plot->line_count; l++)
        for (size_t i = 0; i < plot->count; i++)
            include(&frame, plot->lines[l].values[i]);
    pad(&frame);
    open_svg(&frame, "lines");
    if (plot->band_low < plot->band_high)
        fprintf(to, "<rect class=\"target\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", frame.left,
                up(&frame, plot->band_high), frame.width - frame.left - frame.right,
                up(&frame, plot->band_low) - up(&frame, plot->band_high));
    vertical_axis(&frame, plot->unit);
    fprintf(to, "<path class=\"reference\" d=\"M%.1f %.1fH%.1f\"/>\n", frame.left, up(&frame, plot->reference),
            frame.width - frame.right);
    for (size_t i = 0; i < plot->label_count; i++)
        fprintf(to, "<text class=\"axis %s\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", plot->labels[i].share > 0.97 ? "end" : "middle",
                across(&frame, plot->labels[i].share), frame.height - 8, plot->labels[i].text);
    for (size_t l = plot->line_count; l-- > 0;)
        draw_line(&frame, &plot->lines[l], plot->count);
    fputs("</svg>\n", to);
}

/* ---- dots --------------------------------------------------------------------------------------------------------------------- */

static void draw_dot(const frame_t *frame, const plot_dots_t *plot, size_t series, size_t row, double y)
{
    double value = plot->values[series][row];

    if (!isfinite(value))
        return;
    fprintf(frame->to, "<g class=\"%s\"><circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>", plot->styles[series],
            across(frame, share_of(frame, value)), y, series == 0 ? "6" : "4");
    plot_text(plot->names[row], frame->to);
    fputs(", ", frame->to);
    plot_text(plot->series_names[series], frame->to);
    fprintf(frame->to, ": %.4f</title></circle></g>", value);
}

void plot_dots(const plot_dots_t *plot, FILE *to)
{
    const double row_height = 24;
    frame_t frame = {.width = 1040,
                     .height = 44 + row_height * (double)plot->rows,
                     .left = 130,
                     .right = 20,
                     .top = 6,
                     .bottom = 30,
                     .low = 1,
                     .high = 1,
                     .to = to};
    double at[TICKS_MOST];
    int decimals, count;

    for (size_t s = 0; s < plot->series_count; s++)
        for (size_t r = 0; r < plot->rows; r++)
            include(&frame, plot->values[s][r]);
    pad(&frame);
    open_svg(&frame, "dots by symbol");
    count = ticks(&frame, at, &decimals);
    for (int i = 0; i < count; i++) {
        double x = across(&frame, share_of(&frame, at[i]));
        fprintf(to, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/><text class=\"axis middle\" x=\"%.1f\" y=\"%.1f\">%.*f</text>\n",
                x, frame.top, frame.height - frame.bottom + 4, x, frame.height - 10, decimals, at[i]);
    }
    fprintf(to, "<path class=\"reference\" d=\"M%.1f %.1fV%.1f\"/>\n", across(&frame, share_of(&frame, 1)), frame.top,
            frame.height - frame.bottom + 4);
    for (size_t r = 0; r < plot->rows; r++) {
        double y = frame.top + row_height * ((double)r + 0.5);

        fprintf(to, "<path class=\"grid faint\" d=\"M%.1f %.1fH%.1f\"/><text class=\"axis end\" x=\"%.1f\" y=\"%.1f\">", frame.left,
                y, frame.width - frame.right, frame.left - 10, y + 4);
        plot_text(plot->names[r], to);
        fputs("</text>", to);
        for (size_t s = plot->series_count; s-- > 0;)
            draw_dot(&frame, plot, s, r, y);
        fputc('\n', to);
    }
    fputs("</svg>\n", to);
}

/* ---- fans --------------------------------------------------------------------------------------------------------------------- */

/* The place of a bar: past ones 0 .. past_count - 1, then the future. */
static double bar_x(const frame_t *frame, const plot_fan_t *plot, size_t bar)
{
    return across(frame, (double)bar / (double)(plot->past_count + plot->horizon - 1));
}

/* From the last known value out along one level. */
static void level_path(const frame_t *frame, const plot_fan_t *plot, const float *quantiles, int level, bool backwards)
{
    for (size_t i = 0; i < plot->horizon; i++) {
        size_t h = backwards ? plot->horizon - 1 - i : i;
        fprintf(frame->to, "L%.1f %.1f", bar_x(frame, plot, plot->past_count + h),
                up(frame, (double)quantiles[(size_t)level * plot->horizon + h]));
    }
}

static void start_path(const frame_t *frame, const plot_fan_t *plot, const char *style)
{
    fprintf(frame->to, "<path class=\"%s\" d=\"M%.1f %.1f", style, bar_x(frame, plot, plot->past_count - 1),
            up(frame, plot->past[plot->past_count - 1]));
}

static void band(const frame_t *frame, const plot_fan_t *plot, int low, int high, const char *style)
{
    start_path(frame, plot, style);
    level_path(frame, plot, plot->quantiles, high, false);
    level_path(frame, plot, plot->quantiles, low, true);
    fputs("Z\"/>\n", frame->to);
}

static void value_line(const frame_t *frame, const plot_fan_t *plot)
{
    start_path(frame, plot, "came");
    for (size_t h = 0; h < plot->horizon; h++)
        fprintf(frame->to, "L%.1f %.1f", bar_x(frame, plot, plot->past_count + h), up(frame, plot->future[h]));
    fputs("\"/>\n<path class=\"past\" d=\"", frame->to);
    for (size_t i = 0; i < plot->past_count; i++)
        fprintf(frame->to, "%c%.1f %.1f", i == 0 ? 'M' : 'L', bar_x(frame, plot, i), up(frame, plot->past[i]));
    fputs("\"/>\n", frame->to);
}

void plot_fan(const plot_fan_t *plot, FILE *to)
{
    frame_t frame = {
        .width = 360, .height = 210, .left = 50, .right = 8, .top = 8, .bottom = 10, .low = INFINITY, .high = -INFINITY, .to = to};

    for (size_t i = 0; i < plot->past_count; i++)
        include(&frame, plot->past[i]);
    for (size_t h = 0; h < plot->horizon; h++) {
        include(&frame, plot->future[h]);
        include(&frame, (double)plot->quantiles[LEVEL_10 * plot->horizon + h]);
        include(&frame, (double)plot->quantiles[LEVEL_90 * plot->horizon + h]);
        include(&frame, (double)plot->dashed[LEVEL_10 * plot->horizon + h]);
        include(&frame, (double)plot->dashed[LEVEL_90 * plot->horizon + h]);
    }
    pad(&frame);
    open_svg(&frame, "forecast");
    vertical_axis(&frame, "");
    band(&frame, plot, LEVEL_10, LEVEL_90, "band80");
    band(&frame, plot, LEVEL_25, LEVEL_75, "band50");
    for (int i = 0; i < 2; i++) {
        start_path(&frame, plot, "dashed");
        level_path(&frame, plot, plot->dashed, i == 0 ? LEVEL_10 : LEVEL_90, false);
        fputs("\"/>\n", to);
    }
    start_path(&frame, plot, "median");
    level_path(&frame, plot, plot->quantiles, LEVEL_50, false);
    fputs("\"/>\n", to);
    value_line(&frame, plot);
    fputs("</svg>\n", to);
}
