/* Quantiles of a mixture of Student-t distributions, in F64. Plain C for both compilers: CPU and GPU share every formula and differ in who
 * evaluates which component.
 *
 * A tail. With a = df / 2 and x = df / (df + t²), P(T > |t|) = I_x(a, 1/2) / 2. The regularised incomplete beta function steps from a to
 * a + 1 at the same x (Abramowitz and Stegun, 26.5.16) by a positive term, so that nothing cancels: the tail is
 *     sqrt(1 - x) x^a (c_0 + c_1 x + ... + c_(n-1) x^(n-1)) + the tail at this x of df + 2n degrees of freedom,
 * n = STUDENT_T_TERMS, c_j = G(a + j) / (2 sqrt(π) (a + j)), G(a) = Γ(a + 1/2) / Γ(a). For so many degrees Hill's expansion turns t into a
 * normal deviate (Algorithm 395, CACM 13, 1970). The logarithm of x is common to all of it: a tail and its density take one log1p, one exp and
 * one erfc. Tails down to 1e-6 are right to 1e-9 of themselves, for every df of 2 and more.
 *
 * The search. ln(below / above), of the probabilities on both sides of a value, is nearly a straight line in the middle and bends slowly in the
 * tails: Newton's method on it takes three or four steps. A bracket guards it. With 2 degrees of freedom the quantile of level q is
 * (2q - 1) / sqrt(2q (1 - q)), with more it lies between that and 0; the mixture's lies between the outermost of its components'. A step
 * that leaves the bracket, or is more than half of the one before it, halves the bracket instead. */
#ifndef BARCAST_GPUWORKER_BACKEND_STUDENT_T_H
#define BARCAST_GPUWORKER_BACKEND_STUDENT_T_H

#include <float.h>
#include <math.h>
#include <stdbool.h>

#ifdef __CUDACC__
#define STUDENT_T_FUNCTION static __host__ __device__ __forceinline__
#else
#define STUDENT_T_FUNCTION static inline
#endif

enum { STUDENT_T_TERMS = 6 };

/* ---- a component -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    double df, loc, scale, weight;
    double per_df, per_scale, per_b; /* 1 / df, 1 / scale; 1 / (48 (degrees that Hill's expansion gets - 1/2)²) */
    double height;                   /* what the density has of the component before its power of x */
    double term[STUDENT_T_TERMS];    /* c_0, c_1, ... */
} student_t_component_t;

/* What components add up to at one value. */
typedef struct {
    double below, above, density;
} student_t_sides_t;

/* log(1 + e^x) as the official code has it, linear past 20, and never 0: what makes a raw df or scale of the head positive. */
STUDENT_T_FUNCTION float student_t_positive(float raw)
{
    return fmaxf(raw > 20.0f ? raw : log1pf(expf(raw)), FLT_EPSILON);
}

/* To original units; what is no usable number becomes 0. */
STUDENT_T_FUNCTION float student_t_unscale(float value, float loc, float scale)
{
    float result = value * scale + loc;
    return fabsf(result) < FLT_MAX / 2 ? result : 0.0f; /* false for NaN too */
}

/* G(a) for a >= 7, to 1e-10 of itself: its asymptotic series. */
STUDENT_T_FUNCTION double student_t_gamma_ratio(double a)
{
    double u = 1 / a, sum = 39325.0 / 33554432;

    sum = sum * u + 869.0 / 4194304;
    sum = sum * u - 399.0 / 262144;
    sum = sum * u - 21.0 / 32768;
    sum = sum * u + 5.0 / 1024;
    sum = sum * u + 1.0 / 128;
    sum = sum * u - 1.0 / 8;
    return sqrt(a) * (1 + u * sum);
}

/* The degrees of freedom that Hill's expansion gets, less 1/2. */
STUDENT_T_FUNCTION double student_t_more(double df)
{
    return df + 2 * STUDENT_T_TERMS - 0.5;
}

/* From raw df, loc and scale of the head, and its weight. */
STUDENT_T_FUNCTION student_t_component_t student_t_component(float df, float loc, float scale, double weight)
{
    student_t_component_t component;
    double two_sqrt_pi = 3.5449077018110320546, degrees = 2.0 + (double)student_t_positive(df), a = degrees / 2 + STUDENT_T_TERMS;
    double c = student_t_gamma_ratio(a) / (two_sqrt_pi * a), more = student_t_more(degrees);

    component.df = degrees;
    component.loc = (double)loc;
    component.scale = (double)student_t_positive(scale);
    component.weight = weight;
    component.per_df = 1 / degrees;
    component.per_scale = 1 / component.scale;
    component.per_b = 1 / (48 * more * more);
    for (int j = STUDENT_T_TERMS - 1; j >= 0; j--) {
        c *= a / (a - 0.5);
        component.term[j] = c;
        a -= 1;
    }
    component.height = weight * component.per_scale * c * degrees;
    return component;
}

STUDENT_T_FUNCTION double student_t_rsqrt(double x)
{
#ifdef __CUDA_ARCH__
    return rsqrt(x);
#else
    return 1 / sqrt(x);
#endif
}

/* Adds the component's probabilities on both sides of x, and its density there. */
STUDENT_T_FUNCTION void student_t_add(const student_t_component_t *component, double x, student_t_sides_t *sides)
{
    double t = (x - component->loc) * component->per_scale, df = component->df, more = student_t_more(df);
    double log_x = -log1p(t * t * component->per_df), power = exp(0.5 * df * log_x), root = student_t_rsqrt(df + t * t);
    double ratio = df * root * root, sum = component->term[STUDENT_T_TERMS - 1], y = -more * log_x, hill, tail;

    for (int j = STUDENT_T_TERMS - 2; j >= 0; j--)
        sum = sum * ratio + component->term[j];
    hill = (((-0.4 * y - 3.3) * y - 24) * y - 85.5) / (0.8 * y * y + 100 + 48 * more * more);
    hill = 1 + (y + 3 + hill) * component->per_b;
    tail = fabs(t) * root * power * sum + 0.5 * erfc(hill * sqrt(0.5 * y));
    sides->below += component->weight * (t < 0 ? tail : 1 - tail);
    sides->above += component->weight * (t < 0 ? 1 - tail : tail);
    sides->density += component->height * power * root;
}

/* ---- the search for one quantile ---------------------------------------------------------------------------------------------- */

/* More than halving any bracket of numbers down to neighbours takes. */
enum { STUDENT_T_STEPS_MOST = 1200 };

typedef struct {
    double wanted;    /* ln(q / (1 - q)) */
    double low, high; /* the bracket: INFINITY, -INFINITY before the first component widens it */
    double spread;    /* of the mixture: what a step is small against */
    double x, step;   /* where to evaluate next, and how far that is from the value before */
} student_t_search_t;

/* The quantile with 2 degrees of freedom. */
STUDENT_T_FUNCTION double student_t_outermost(double level)
{
    return (2 * level - 1) / sqrt(2 * level * (1 - level));
}

STUDENT_T_FUNCTION void student_t_widen(student_t_search_t *search, const student_t_component_t *component, double outermost)
{
    search->low = fmin(search->low, component->loc + component->scale * fmin(outermost, 0.0));
    search->high = fmax(search->high, component->loc + component->scale * fmax(outermost, 0.0));
}

/* The bracket stands. Starts where a logistic distribution about as wide has its quantile. */
STUDENT_T_FUNCTION void student_t_begin(student_t_search_t *search, double level, double mean, double spread)
{
    search->wanted = log(level / (1 - level));
    search->spread = spread;
    search->x = fmin(fmax(mean + 0.55 * spread * search->wanted, search->low), search->high);
    search->step = search->high - search->low;
}

/* Takes what is found at x and moves x. True: x is the quantile, or as near as numbers get; NaN where the head holds no numbers. */
STUDENT_T_FUNCTION bool student_t_arrived(student_t_search_t *search, const student_t_sides_t *sides)
{
    double off = log(sides->below / sides->above) - search->wanted;
    double step = -off / (sides->density / sides->below + sides->density / sides->above), next = search->x + step;
    bool inside;

    if (isnan(off)) {
        search->x = off;
        return true;
    }
    if (off < 0)
        search->low = search->x;
    else
        search->high = search->x;
    inside = next >= search->low && next <= search->high;
    if (inside && fabs(off) < 1e-5 && fabs(step) < 1e-6 * search->spread) {
        search->x = next;
        return true;
    }
    if (!inside || fabs(step) > 0.5 * fabs(search->step)) {
        next = search->low + 0.5 * (search->high - search->low);
        step = next - search->x;
    }
    search->x = next;
    search->step = step;
    return !(next > search->low && next < search->high);
}

#endif
