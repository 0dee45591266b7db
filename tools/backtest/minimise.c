#include "tools/backtest/minimise.h"

#include <math.h>
#include <string.h>

double minimise_section(double (*f)(const void *context, double x), const void *context, double low, double high, double tolerance)
{
    const double golden = 0.6180339887498949;
    double left = high - golden * (high - low), right = low + golden * (high - low);
    double at_left = f(context, left), at_right = f(context, right);

    while (high - low > tolerance) {
        if (at_left < at_right) {
            high = right;
            right = left;
            at_right = at_left;
            left = high - golden * (high - low);
            at_left = f(context, left);
        } else {
            low = left;
            left = right;
            at_left = at_right;
            right = low + golden * (high - low);
            at_right = f(context, right);
        }
    }
    return (low + high) / 2;
}

typedef struct {
    double x[MINIMISE_DIMENSIONS_MOST], value;
} vertex_t;

typedef struct {
    double (*f)(const void *context, const double *x);
    const void *context;
    int dimensions, calls;
    vertex_t vertex[MINIMISE_DIMENSIONS_MOST + 1]; /* the best first */
} simplex_t;

static double evaluate(simplex_t *simplex, const double *x)
{
    simplex->calls++;
    return simplex->f(simplex->context, x);
}

static void sort(simplex_t *simplex)
{
    for (int i = 1; i <= simplex->dimensions; i++)
        for (int j = i; j > 0 && simplex->vertex[j].value < simplex->vertex[j - 1].value; j--) {
            vertex_t kept = simplex->vertex[j];
            simplex->vertex[j] = simplex->vertex[j - 1];
            simplex->vertex[j - 1] = kept;
        }
}

/* The point on the line from the worst vertex through the others' centre: 0 the centre, 1 its mirror image, 2 beyond, -0.5 half way back. */
static vertex_t along(simplex_t *simplex, double distance)
{
    const vertex_t *worst = &simplex->vertex[simplex->dimensions];
    vertex_t out = {.value = 0};

    for (int d = 0; d < simplex->dimensions; d++) {
        double centre = 0;
        for (int i = 0; i < simplex->dimensions; i++)
            centre += simplex->vertex[i].x[d] / simplex->dimensions;
        out.x[d] = centre + distance * (centre - worst->x[d]);
    }
    out.value = evaluate(simplex, out.x);
    return out;
}

static void shrink(simplex_t *simplex)
{
    for (int i = 1; i <= simplex->dimensions; i++) {
        for (int d = 0; d < simplex->dimensions; d++)
            simplex->vertex[i].x[d] = (simplex->vertex[0].x[d] + simplex->vertex[i].x[d]) / 2;
        simplex->vertex[i].value = evaluate(simplex, simplex->vertex[i].x);
    }
}

static void step_once(simplex_t *simplex)
{
    vertex_t *worst = &simplex->vertex[simplex->dimensions];
    vertex_t mirrored = along(simplex, 1), other;

    if (mirrored.value < simplex->vertex[0].value) {
        other = along(simplex, 2);
        *worst = other.value < mirrored.value ? other : mirrored;
    } else if (mirrored.value < simplex->vertex[simplex->dimensions - 1].value) {
        *worst = mirrored;
    } else {
        other = along(simplex, mirrored.value < worst->value ? 0.5 : -0.5);
        if (other.value < fmin(mirrored.value, worst->value))
            *worst = other;
        else
            shrink(simplex);
    }
    sort(simplex);
}

void minimise_simplex(double (*f)(const void *context, const double *x), const void *context, int dimensions, double *x,
                      double step, double tolerance, int calls_most)
{
    simplex_t simplex = {.f = f, .context = context, .dimensions = dimensions};

    for (int i = 0; i <= dimensions; i++) {
        memcpy(simplex.vertex[i].x, x, (size_t)dimensions * sizeof *x);
        if (i > 0)
            simplex.vertex[i].x[i - 1] += step;
        simplex.vertex[i].value = evaluate(&simplex, simplex.vertex[i].x);
    }
    sort(&simplex);
    while (simplex.calls < calls_most && !(simplex.vertex[dimensions].value - simplex.vertex[0].value < tolerance))
        step_once(&simplex);
    memcpy(x, simplex.vertex[0].x, (size_t)dimensions * sizeof *x);
}
